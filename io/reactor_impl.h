/*
 * The inside of a reactor, private to io/: what its parts (coroutines, ring, mailbox, timers,
 * buffers) keep, and who calls whom.
 *
 *     reactor.c    the loop and the life of a reactor       co.c      coroutines and their waiting
 *     ring.c       io_uring: submit, complete, features     stack.c   stacks and their cache
 *     mailbox.c    messages from other threads              timer.c   the heap of timers
 *     region.c     the buffer region (buffer.h)             device*.c, net.c   what is done with it
 *     hang.c       devices that do not answer
 *
 * With config.sim set there is no ring: time, randomness, devices and "wait for what comes next"
 * are the functions of sim_impl.h.
 */
#ifndef VP_IO_REACTOR_IMPL_H
#define VP_IO_REACTOR_IMPL_H

#include "io/co_impl.h"
#include "io/device.h"
#include "io/mailbox_impl.h"
#include "io/reactor.h"
#include "io/sim_impl.h"

struct region;
struct ring;

struct reactor {
    struct reactor_config config; /* with its defaults filled in                               */
    struct ring *ring;            /* NULL in a simulated world                                 */
    struct region *region;        /* made when the first buffer is asked for                   */

    struct co_context loop;  /* where a coroutine goes when it yields                         */
    struct co *running;      /* NULL in the loop's own context                                */
    struct list ready;       /* co.link, first in first out                                   */
    struct list live;        /* co.live_link: all that were spawned and have not finished     */
    struct list idle_stacks; /* co.link: finished ones, the most recent first                 */
    bool serves_page_cache;  /* new stacks come with their memory (memory.c)                  */
    unsigned no_yield_depth; /* CO_NO_YIELD scopes open in the reactor's own context          */
    struct list completed;   /* io_op.link: done within submit, completed later in this turn  */
    struct list waiting_ops; /* io_op.link: tried again when waiting_timer runs (device.c)    */
    struct timer waiting_timer;
    struct timer hang_timer;              /* while operations are in flight (hang.c)          */
    bool hang_scans;                      /* it is armed                                      */
    uint64_t hang_seen_ns, hang_since_ns; /* hang.c */

    struct timer **timers; /* a binary heap by (at_ns); grows by doubling, off the data path   */
    size_t timer_count, timer_capacity;

    struct mailbox mailbox;
    _Atomic bool stop;
    struct reactor_figures figures;
};

extern _Thread_local struct reactor *reactor_current;

/* ---- co.c: called by the loop ------------------------------------------------------------- */

/* Gets this many more idle stacks; all have their memory then. */
void co_stacks_take(struct reactor *r, unsigned count);
/* Runs ready coroutines until none is ready or `budget` switches are spent. */
void reactor_run_ready(struct reactor *r, unsigned budget);
/* Takes back the stacks, also of coroutines that a power cut abandoned. */
void reactor_drop_coroutines(struct reactor *r);

/* ---- reactor.c ---------------------------------------------------------------------------- */

/* Before completions are looked at: they are of now. */
void reactor_update_turn(void);
/* This thread is the reactor's from here on, in the reactor's own context; and not any more. */
void reactor_enter(struct reactor *r);
void reactor_exit(void);
/* One turn in a simulated world, up to where it would wait. *idle: there is nothing to run. False:
 * the reactor has ended, or the power was cut. */
bool reactor_turn_simulated(struct reactor *r, bool *idle);

/* ---- timer.c ------------------------------------------------------------------------------ */

/* Room for twice as many timers, or for the first ones. False: no memory. */
bool reactor_timers_grow(struct reactor *r);
/* Runs the timers that are due in this turn. */
void reactor_run_timers(struct reactor *r);
/* When the next timer is due; UINT64_MAX when there is none. */
uint64_t reactor_next_timer_ns(const struct reactor *r);

/* ---- device.c ----------------------------------------------------------------------------- */

/* Completes what submit finished on the spot (memory file systems): always after submit returned.
 */
void reactor_complete_local(struct reactor *r);
/* Submits again what waits for memory, or for room below a file. */
void reactor_retry_ops(struct timer *t);

#endif
