/*
 * Coroutines: spawning, waiting, waking. Every switch goes through the reactor's own context: the
 * loop takes the first ready coroutine, runs it until it yields, and takes the next.
 *
 *     idle --co_spawn--> ready --loop--> running --co_suspend--> suspended --co_wake--> ready
 *      ^                   ^                |  |
 *      |                   +---co_yield-----+  |
 *      +--------------- fn returned -----------+
 *
 * An idle coroutine is a stack whose co_main waits for the next fn, so a spawn is a few stores.
 * Stacks of coroutines that a power cut abandoned are set up anew.
 */
#include "base/verify.h"
#include "io/reactor_impl.h"

enum { RESERVE_SHARE = 8 }; /* of max_coroutines: so many more for co_spawn_reserved */

/* Leaves the running coroutine for the loop; returns when the loop comes back to it. */
static inline void leave(struct reactor *r, struct co *co)
{
    co_context_switch(&co->context, &r->loop);
}

static void finish(struct co *co)
{
    struct reactor *r = co->reactor;
    VP_VERIFY(co->no_yield_depth, ==, 0U);
    co->state = CO_IDLE;
    list_del(&co->live_link);
    list_add_head(&r->idle_stacks, &co->link);
    figure_sub(&r->figures.coroutines, 1);
    r->mailbox.starved = 0; /* it looks again before it sleeps */
    leave(r, co);
}

static void co_main(void *arg)
{
    struct co *co = arg;
    co_context_entered(&co->context);
    for (;;) {
        co->fn(co->arg);
        finish(co);
    }
}

/* `reserve`: so many coroutines more than those for clients. */
static int spawn(void (*fn)(void *arg), void *arg, const char *name, unsigned reserve,
                 unsigned held)
{
    struct reactor *r = reactor_current;
    VP_VERIFY(r, !=, NULL);
    if (figure_get(&r->figures.coroutines) >= r->config.max_coroutines + reserve)
        return VP_E_IO_TOO_MANY_COROUTINES;
    struct co *co;
    if (!list_empty(&r->idle_stacks)) {
        co = container_of(list_pop(&r->idle_stacks), struct co, link);
    } else {
        co = co_stack_get(r->config.stack_bytes, co_main);
        if (!co)
            return VP_E_IO_TOO_MANY_COROUTINES;
    }
    if (r->serves_page_cache)
        co_stack_fault_in(co);
    co->reactor = r;
    co->fn = fn;
    co->arg = arg;
    co->name = name;
    co->why = "ready";
    co->cancel = NULL;
    co->no_yield_depth = 0;
    co->held = held;
    co->state = CO_READY;
    list_add_tail(&r->ready, &co->link);
    list_add_tail(&r->live, &co->live_link);
    figure_add(&r->figures.spawned, 1);
    figure_add(&r->figures.coroutines, 1);
    if (figure_get(&r->figures.coroutines) > figure_get(&r->figures.coroutines_peak))
        figure_put(&r->figures.coroutines_peak, figure_get(&r->figures.coroutines));
    return 0;
}

int co_spawn(void (*fn)(void *arg), void *arg, const char *name)
{
    return spawn(fn, arg, name, 0, 0);
}

int co_spawn_reserved(void (*fn)(void *arg), void *arg, const char *name)
{
    unsigned clients = reactor_current->config.max_coroutines;
    return spawn(fn, arg, name, clients / RESERVE_SHARE + 1, HOLD_MARK(RESOURCE_RESERVE));
}

unsigned co_clients_max(void)
{
    return reactor_current->config.max_coroutines;
}

void co_stacks_take(struct reactor *r, unsigned count)
{
    struct co *co;
    list_for_each (co, &r->idle_stacks, link)
        co_stack_fault_in(co);
    while (count-- > 0 && (co = co_stack_get(r->config.stack_bytes, co_main))) {
        co_stack_fault_in(co);
        list_add_tail(&r->idle_stacks, &co->link);
    }
}

struct co *co_self(void)
{
    return reactor_current ? reactor_current->running : NULL;
}

void reactor_run_ready(struct reactor *r, unsigned budget)
{
    struct sim_world *sim = r->config.sim;
    while (budget-- > 0 && !list_empty(&r->ready)) {
        if (sim && sim_world_is_cut(sim))
            return;
        struct co *co = container_of(list_pop(&r->ready), struct co, link);
        co->state = CO_RUNNING;
        r->running = co;
        figure_add(&r->figures.switches, 1);
        co_context_switch(&r->loop, &co->context);
        r->running = NULL;
    }
}

void reactor_drop_coroutines(struct reactor *r)
{
    struct list *e;
    while ((e = list_pop(&r->live))) {
        struct co *co = container_of(e, struct co, live_link);
        list_del(&co->link);
        co->state = CO_IDLE;
        co_stack_reset(co, co_main);
        list_add_head(&r->idle_stacks, &co->link);
    }
    figure_put(&r->figures.coroutines, 0);
    co_stack_put_list(&r->idle_stacks);
}

/* ---- suspending and waking ----------------------------------------------------------------- */

/* The coroutine that is about to wait. */
static inline __attribute__((always_inline)) struct co *about_to_wait(void)
{
    VP_VERIFY(reactor_current, !=, NULL);
    struct co *co = reactor_current->running;
    VP_VERIFY(co, !=, NULL);
    VP_VERIFY(co->no_yield_depth, ==, 0U);
    return co;
}

CO void co_suspend(const char *why)
{
    co_suspend_cancellable(why, NULL, NULL);
}

CO void co_suspend_cancellable(const char *why, void (*cancel)(void *arg), void *arg)
{
    struct co *co = about_to_wait();
    co->why = why;
    co->cancel = cancel;
    co->cancel_arg = arg;
    co->state = CO_SUSPENDED;
    leave(co->reactor, co);
}

void co_wake(struct co *co)
{
    VP_VERIFY_TRUE(co->state == CO_SUSPENDED);
    VP_VERIFY(co->reactor, ==, reactor_current);
    co->state = CO_READY;
    co->why = "ready";
    co->cancel = NULL;
    list_add_tail(&co->reactor->ready, &co->link);
}

CO void co_yield (void)
{
    struct co *co = about_to_wait();
    co->state = CO_READY;
    co->why = "ready";
    list_add_tail(&co->reactor->ready, &co->link);
    leave(co->reactor, co);
}

void co_cancel(struct co *co)
{
    VP_VERIFY(co->reactor, ==, reactor_current);
    if (!co->cancel)
        return;
    void (*cancel)(void *arg) = co->cancel;
    co->cancel = NULL;
    cancel(co->cancel_arg);
}

/* ---- no-yield scopes ----------------------------------------------------------------------- */

static unsigned *no_yield_depth(void)
{
    struct reactor *r = reactor_current;
    if (!r)
        return NULL; /* a plain thread: nothing to yield to */
    return r->running ? &r->running->no_yield_depth : &r->no_yield_depth;
}

void co_no_yield_begin(void)
{
    unsigned *depth = no_yield_depth();
    if (depth)
        ++*depth;
}

void co_no_yield_end(void)
{
    unsigned *depth = no_yield_depth();
    if (!depth)
        return;
    VP_VERIFY(*depth, >, 0U);
    --*depth;
}
