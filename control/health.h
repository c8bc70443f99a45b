/*
 * Health: a set of flags beside `state`, for volumes and pools. A volume that is online may be
 * paused (its writes wait for space), degraded (a copy of its data is out of service, or not
 * complete) or damaged (some of its data cannot be read). Each flag that begins or ends is an
 * event. Home reactor only.
 */
#ifndef VP_CONTROL_HEALTH_H
#define VP_CONTROL_HEALTH_H

#include "base/hash.h"
#include "base/list.h"
#include "volumes/volume.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct control;
struct control_pool;

/* The names of docs/rpc.md, in this order. */
enum health_flag {
    HEALTH_UNAVAILABLE = 1 << 0, /* pool: it could not be imported                           */
    HEALTH_FENCED = 1 << 1,      /* pool: its metadata cannot be written                     */
    HEALTH_FAULTED = 1 << 2,     /* its metadata are damaged; a pool: those of a volume       */
    HEALTH_DAMAGED = 1 << 3,     /* some data cannot be read                                 */
    HEALTH_DEGRADED = 1 << 4,    /* a copy is out of service                                 */
    HEALTH_PAUSED = 1 << 5,      /* writes wait for space                                    */
    HEALTH_SPACE = 1 << 6,       /* pool: its space, or that below a disk, runs out          */
    HEALTH_ERRORS = 1 << 7,      /* pool: disks had errors                                   */
    HEALTH_ATTACHMENTS = 1 << 8, /* pool: something attached is not served                   */
    HEALTH_DISKS = 1 << 9,       /* pool: a disk is not what it was: labels, file, path       */
    HEALTH_JOBS = 1 << 10,     /* pool: a job is paused, and holds space or leaves copies unequal */
    HEALTH_IN_DOUBT = 1 << 11, /* whether it has moved to another pool is not known: not served  */
};

/* A volume that is not well, or was not a moment ago. */
struct volume_health {
    struct hash_node node; /* by volume id */
    struct list link;
    uint32_t id;
    unsigned now, before; /* flags at the last look and the one before                   */
    unsigned told;        /* flags that an event has told of                             */
    unsigned at_risk, at_risk_next; /* of lost disks, as of the last walk; of the one under way */
    unsigned waiting;
    uint64_t paused_since; /* seconds since 1970; 0: it is not */
};

struct health { /* of a pool; in its control_pool */
    struct hash by_id;
    struct list all;
    bool usable; /* else memory was out: volumes have no flags but those that they tell */
    unsigned disks_out;
    uint64_t walked_ns; /* when disks that are out were looked at last; 0: never */
};

void health_init(struct health *h);
void health_fini(struct health *h);

/* Each second, for an open pool: what has begun and what has ended. */
void health_look(struct control *c, struct control_pool *p);
/* Whose data disks that are out have; when that may have changed. The caller holds control.lock. */
CO void health_walk(struct control_pool *p);

unsigned health_of_pool(const struct control_pool *p);
unsigned health_of_volume(const struct control_pool *p, const struct volume_info *v);
/* ["paused", "degraded"] */
json_t *health_json(unsigned flags);
/* {"requests", "since"}; null while no request waits. */
json_t *health_paused_json(const struct control_pool *p, const struct volume_info *v);

#endif
