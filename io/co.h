/*
 * Stackful coroutines. A coroutine lives and dies on the reactor that spawned it. Only one
 * coroutine runs there at a time, and another one runs only at a call marked CO. State that
 * coroutines share can change during such a call, and at no other moment.
 */
#ifndef VP_IO_CO_H
#define VP_IO_CO_H

#include "base/error.h"
#include "base/list.h"
#include "io/hold.h"

#include <stdbool.h>
#include <stdint.h>

/* Marks a function that may yield, in its declaration and in its definition. The function's comment
 * says what can change meanwhile. A function that calls a marked function is marked too
 * (tests/lib/tidy-yields). So a function without the mark does not yield. */
#define CO

struct co;
struct reactor;

/*
 * Starts fn(arg) as a coroutine of the calling thread's reactor; it first runs after the caller
 * yields or returns to the loop, in the order of spawning. `name` is static and shows in gdb and in
 * dumps. Errors: VP_E_IO_TOO_MANY_COROUTINES (the pool of stacks is in use: back-pressure).
 */
int co_spawn(void (*fn)(void *arg), void *arg, const char *name) must_check;

/*
 * The same, for work for which requests may wait while they hold all other coroutines. A reserve of
 * coroutines is kept for such work. The work must end without waiting for any request: it never
 * waits for room, for a client, or for a call like reactor_call_for_client.
 */
int co_spawn_reserved(void (*fn)(void *arg), void *arg, const char *name) must_check;

/* The number of coroutines of this reactor besides the reserve. A holder that keeps coroutines for
 * as long as others decide takes only a share of them (io/share.h). */
unsigned co_clients_max(void);

/* The running coroutine; NULL in the reactor's own context. */
struct co *co_self(void);

/* Sleeps until co_wake. `why` is static and shows in dumps. Spurious wake-ups do not happen. */
CO void co_suspend(const char *why);

/* Makes a suspended coroutine of this reactor ready, behind those ready already. At most once per
 * suspension. */
void co_wake(struct co *co);

/* Goes behind every coroutine that is ready now. */
CO void co_yield (void);

/* Sleeps for `ns` of the reactor's clock. Returns VP_E_CANCELLED when co_cancel ended the sleep. */
CO int co_sleep_ns(uint64_t ns);

/*
 * Cancels the wait of `co` in co_sleep_ns, co_queue_wait_until or a call of io/net.h. That call
 * returns VP_E_CANCELLED, or its result when it was just finishing. In any other wait co_cancel has
 * no effect. Device I/O is not cancelled, because its buffer belongs to the kernel until it
 * completes.
 */
void co_cancel(struct co *co);

/* Waiting for a condition: the waiter re-checks its condition after each return. */
struct co_queue {
    struct list waiters;
};
void co_queue_init(struct co_queue *q);
CO void co_queue_wait(struct co_queue *q, const char *why);
/* `deadline_ns` on the reactor's clock; 0 = none. 0, VP_E_TIMED_OUT or VP_E_CANCELLED. */
CO int co_queue_wait_until(struct co_queue *q, uint64_t deadline_ns, const char *why) must_check;
void co_queue_wake_one(struct co_queue *q);
void co_queue_wake_all(struct co_queue *q);
bool co_queue_is_empty(const struct co_queue *q);

/* A fair mutex for coroutines of one reactor. */
struct co_mutex {
    struct co *owner;
    struct co_queue queue;
    enum resource resource;
};
void co_mutex_init(struct co_mutex *m);
/* Its owner holds `resource`, and what it then waits for is verified (io/hold.h). */
void co_mutex_init_for(struct co_mutex *m, enum resource resource);
CO void co_mutex_lock(struct co_mutex *m);
void co_mutex_unlock(struct co_mutex *m);

/*
 * CO_NO_YIELD { … }: a yield inside the block is a broken invariant, which is checked in release
 * builds too. Leave the block only through its end. It is for a part of a CO function that must be
 * one moment for all others, and for calls through a pointer. Elsewhere, on the data path above
 * all, such a part is a function of its own without the mark CO. tests/lib/tidy-yields checks that
 * at no cost.
 */
void co_no_yield_begin(void);
void co_no_yield_end(void);
#define CO_NO_YIELD                                                                                \
    for (int vp_once_ = (co_no_yield_begin(), 1); vp_once_; vp_once_ = (co_no_yield_end(), 0))

/* Waits until a number of spawned parts has finished. Call co_group_enter before each co_spawn, and
 * co_group_leave(rc) as the last act of each part. co_group_wait in the parent returns the first
 * error, or 0. */
struct co_group {
    unsigned running;
    int rc;
    struct co_queue queue;
};
void co_group_init(struct co_group *g);
void co_group_enter(struct co_group *g);
void co_group_leave(struct co_group *g, int rc);
CO int co_group_wait(struct co_group *g) must_check;

#endif
