/*
 * Events: what happened, numbered from 1 since the daemon started, kept in a ring in memory.
 * Home reactor only.
 */
#ifndef VP_CONTROL_EVENT_H
#define VP_CONTROL_EVENT_H

#include "base/log.h"
#include "io/co.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define EVENT_RING 1024

struct event {
    uint64_t seq;
    uint64_t seconds; /* since 1970 */
    enum vp_log_level level;
    bool earlier;      /* it happened before this daemon started; the pool kept it */
    char kind[32];     /* "pool.degraded", … (docs/rpc.md) */
    char subject[200]; /* POOL or POOL/VOL */
    char text[256];
};

struct event_ring {
    struct event *slot; /* event n is in slot n % EVENT_RING; owned */
    uint64_t last;      /* number of the newest; 0 = none yet */
    uint64_t epoch;     /* tells the numbers of one daemon from those of another: when it started */
    struct co_queue arrived;
};

int event_ring_init(struct event_ring *r) must_check;
void event_ring_fini(struct event_ring *r);

/* Adds an event, logs it, and wakes the callers that wait for events. */
void event_add(struct event_ring *r, uint64_t seconds, enum vp_log_level level, const char *kind,
               const char *subject, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* Adds one that a pool has kept: with its own time, not logged again. */
void event_add_earlier(struct event_ring *r, const struct event *e);

/* {"events": […], "last": N, "lost": K, "epoch": E}: events after number `since`, at most `max`,
 * oldest first; `last` is the number to pass as the next `since`, `lost` counts those that the ring
 * has dropped. A `since` beyond the newest one (of an earlier daemon) starts from the beginning.
 * NULL = no memory. */
json_t *event_list(const struct event_ring *r, uint64_t since, unsigned max);

/* Whether event_list would have anything for `since`. */
bool event_is_there(const struct event_ring *r, uint64_t since);

#endif
