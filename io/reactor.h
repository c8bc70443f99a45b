/*
 * A reactor: one thread, one io_uring (or one simulated world), one loop. All waits of the thread
 * are in that ring. Nothing above io/ makes a system call that waits, reads a clock or draws a
 * random number.
 *
 * A turn of the loop runs the ready coroutines, then due timers and messages. It submits what they
 * queued and waits, in one system call. Then it completes what came back.
 */
#ifndef VP_IO_REACTOR_H
#define VP_IO_REACTOR_H

#include "base/error.h"
#include "base/figure.h"
#include "base/list.h"
#include "io/co.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reactor;
struct sim_world;

struct reactor_config {
    unsigned index;          /* 0 is the home reactor; shows in names and metrics             */
    unsigned max_coroutines; /* of requests and clients; an eighth more is kept for internal work
                                (co_spawn_reserved); 0 = 4096                                 */
    size_t stack_bytes;      /* per coroutine, without its guard page; 0 = 64 KiB             */
    size_t buffer_bytes;     /* I/O buffers of this reactor, registered with the ring where
                                the kernel can; 0 = 64 MiB                                    */
    unsigned ring_entries;   /* 0 = 1024                                                      */
    unsigned driver_buffers; /* slots in the ring's table of buffers, for drivers (io/driver.h)   */
    unsigned poll_us;        /* busy-poll this long after the last work before sleeping; 0    */
    struct sim_world *sim;   /* not NULL: no ring, the simulated world drives (io/sim.h)      */
};

/* The ring's features found at run time, for `vpool status`. Tests switch them off with the
 * environment variable VPOOL_IO_DISABLE (a comma list of these names). */
struct reactor_features {
    bool single_issuer, defer_taskrun, fixed_buffers;
};

/*
 * Creates a reactor owned by the caller; its thread is the one that calls reactor_run.
 * Errors: VP_E_IO_NO_RING (with what to do), VP_E_NO_MEMORY.
 */
int reactor_new(const struct reactor_config *config, struct reactor **out,
                struct vp_error *err) must_check;
/* No coroutine may be left. */
void reactor_free(struct reactor *r);

/*
 * Runs the loop on this thread until reactor_stop; `first` (may be NULL) is spawned as its first
 * coroutine. Returns after a stop once no coroutine is left (the owner ends its coroutines first),
 * or, with a simulated world, when nothing can happen any more.
 */
void reactor_run(struct reactor *r, void (*first)(void *arg), void *arg);

/* Asks the loop to end; any thread. */
void reactor_stop(struct reactor *r);

/* The reactor of this thread, while reactor_run is below on its stack; else NULL. */
struct reactor *reactor_self(void);
unsigned reactor_index(const struct reactor *r);
extern _Thread_local unsigned reactor_own_index; /* reactor_run writes it */
static inline unsigned reactor_self_index(void)  /* inside reactor_run only */
{
    return reactor_own_index;
}
/* All indexes of reactors made so far are below it. Any thread. */
unsigned reactor_index_end(void);
struct reactor_features reactor_features(const struct reactor *r);

/* Nanoseconds of a monotonic clock (simulated in the simulator). reactor_now_ns reads the clock.
 * reactor_turn_ns is the time at the start of this turn; reading it costs nothing. */
uint64_t reactor_now_ns(void);
extern _Thread_local uint64_t reactor_clock_ns; /* the reactor of this thread writes it */
static inline uint64_t reactor_turn_ns(void)
{
    return reactor_clock_ns;
}
/* Seconds since 1970, for times of events and of creation. */
uint64_t reactor_wall_seconds(void);

/* Random bytes for identities (getrandom; the seed in the simulator). */
void reactor_random(void *out, size_t len);

/* ---- timers (this reactor only) ---------------------------------------------------------- */

struct timer {
    struct reactor *reactor; /* NULL while not armed */
    uint64_t at_ns;
    size_t heap_index;
    void (*fn)(struct timer *t); /* in the reactor's context: must not yield; may spawn or wake */
};
void timer_init(struct timer *t, void (*fn)(struct timer *t));
void timer_arm(struct timer *t, uint64_t at_ns); /* re-arms when armed */
void timer_disarm(struct timer *t);

/* ---- messages between reactors ----------------------------------------------------------- */

/*
 * Runs fn(arg) as a coroutine on `to` and returns what fn returned. From `to` itself it is a plain
 * call; fn may wait for the same things then (hold.h). Everything may change meanwhile. When the
 * ring of `to` is full, the caller waits. Errors: those of fn; VP_E_SHUTDOWN when `to` does not run
 * any more.
 */
CO int reactor_call(struct reactor *to, int (*fn)(void *arg), void *arg) must_check;

/*
 * As reactor_call, for an fn that lasts as long as a client likes, or that waits for a checkpoint
 * or for other reactors. The call waits while only the reserve of coroutines is left on `to`. It
 * does not keep reactor_call back.
 */
CO int reactor_call_for_client(struct reactor *to, int (*fn)(void *arg), void *arg) must_check;

/*
 * As reactor_call, from a thread without a reactor (start-up, tests). Blocks the thread.
 */
int reactor_call_blocking(struct reactor *to, int (*fn)(void *arg), void *arg) must_check;

/* As co_spawn_reserved, on `to`; does not wait for fn(arg); from any thread. Errors: VP_E_SHUTDOWN;
 * VP_E_AGAIN when the ring of `to` is full and this thread is a reactor (any other thread waits for
 * room). */
int reactor_post(struct reactor *to, void (*fn)(void *arg), void *arg, const char *name) must_check;

/* A wake-up for a coroutine of some reactor. Only io/ looks inside (mailbox_impl.h). */
struct mail_reply {
    struct mail_reply *next;
    struct co *co; /* woken on its own reactor */
};

/*
 * An event that happens once and for which one coroutine waits. Any thread may set it. The event
 * belongs to the waiter and is on its stack. After reactor_event_set the setter does not touch it.
 */
struct reactor_event {
    _Atomic unsigned state;
    struct reactor *reactor;
    struct mail_reply reply;
};
/* By the coroutine that will wait. */
void reactor_event_init(struct reactor_event *e);
CO void reactor_event_wait(struct reactor_event *e);
/* Call it once; from any thread. The waiter sees everything that was written before. */
void reactor_event_set(struct reactor_event *e);

/* ---- figures ------------------------------------------------------------------------------ */

struct reactor_figures {
#define FIGURE FIGURE_FIELD
#include "io/figures.def"
};
extern const struct figure_set reactor_figure_set;
/* As long as the reactor; any thread. */
const struct reactor_figures *reactor_figures(const struct reactor *r);

#endif
