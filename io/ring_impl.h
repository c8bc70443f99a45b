/* A reactor's io_uring, private to io/. All of it belongs to the reactor's thread, once started. */
#ifndef VP_IO_RING_IMPL_H
#define VP_IO_RING_IMPL_H

#include "base/error.h"
#include "io/device.h"
#include "io/reactor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring;

/* Any thread. `figures` are counted into; `event_fd` wakes the ring. */
int ring_new(const struct reactor_config *config, struct reactor_figures *figures, int event_fd,
             struct ring **out, struct vp_error *err) must_check;
void ring_free(struct ring *ring);
/* On the reactor's thread: before the first turn, after the last. */
void ring_start(struct ring *ring);
void ring_stop(struct ring *ring);

/* Queues a request. Its prep fills in the entry (not user_data), now or when there is room. Its
 * done is called from a later ring_turn, never from here. */
void ring_submit(struct ring *ring, struct ring_req *req);
/* The same for requests that may take for ever (at most one for each coroutine), and for requests
 * that cancel them. They wait for no other request. */
void ring_submit_free(struct ring *ring, struct ring_req *req);
/* Takes back a request that the kernel has not seen; false when it has. Its done is not called. */
bool ring_withdraw(struct ring *ring, struct ring_req *req);
/* `count` requests given to ring_submit_free will not be waited for any more. -1: one of them
 * completed after all. */
void ring_forget(struct ring *ring, int count);
/* Fills in an entry that cancels `req`, which was given to ring_submit_free. */
void ring_prep_cancel(struct io_uring_sqe *sqe, struct ring_req *req);

/* All requests of ring_submit that the kernel has. fn may put another request in the place of one:
 * then that one's done is called. */
void ring_each_counted(struct ring *ring, void (*fn)(struct ring_req **req, void *arg), void *arg);
/* `count` of them will not be waited for any more, nor count against the limit. Each may stay for
 * ever, and ring_free calls its done. -1: one of them completed after all. */
void ring_request_left(struct ring *ring, int count);
/* Whether one more may be left. */
bool ring_may_leave(const struct ring *ring);
/* How many of ring_submit the kernel has, without those. */
unsigned ring_waited_for(const struct ring *ring);

/* Submits what is queued, waits up to timeout_ns for a completion (0: not at all, UINT64_MAX: for
 * ever), in one system call at most, and completes what came. Returns how many. */
unsigned ring_turn(struct ring *ring, uint64_t timeout_ns);

struct reactor_features ring_features(const struct ring *ring);
/* Is `name` in VPOOL_IO_DISABLE? */
bool ring_feature_disabled(const char *name);

/* Slot `index` of the fixed buffers becomes this piece of memory. False: not possible. */
bool ring_register_buffer(struct ring *ring, unsigned index, void *base, size_t bytes);
/* See io_driver_slots_get. */
unsigned ring_driver_slots_get(struct ring *ring, unsigned count);
void ring_driver_slots_put(struct ring *ring);

#endif
