/* What coroutines wait for: time, queues, mutexes, groups. A waiter is on the stack of the
 * coroutine that waits. Whoever ends a wait first takes the waiter out of its queue and its
 * timer. */
#include "base/verify.h"
#include "io/co_impl.h"
#include "io/reactor.h"

struct waiter {
    struct list link; /* in co_queue.waiters; alone when it only sleeps */
    struct timer timer;
    struct co *co;
    int rc;
};

static void waiter_end(struct waiter *w, int rc)
{
    list_del(&w->link);
    timer_disarm(&w->timer);
    w->rc = rc;
    co_wake(w->co);
}

static void waiter_timeout(struct timer *t)
{
    waiter_end(container_of(t, struct waiter, timer), VP_E_TIMED_OUT);
}

static void waiter_cancel(void *arg)
{
    waiter_end(arg, VP_E_CANCELLED);
}

static void waiter_init(struct waiter *w)
{
    list_init(&w->link);
    timer_init(&w->timer, waiter_timeout);
    w->co = co_self();
    w->rc = 0;
}

CO int co_sleep_ns(uint64_t ns)
{
    struct waiter w;
    waiter_init(&w);
    uint64_t now = reactor_now_ns();
    timer_arm(&w.timer, ns < UINT64_MAX - now ? now + ns : UINT64_MAX - 1);
    co_suspend_cancellable("sleep", waiter_cancel, &w);
    return w.rc == VP_E_TIMED_OUT ? 0 : w.rc;
}

/* ---- queues -------------------------------------------------------------------------------- */

void co_queue_init(struct co_queue *q)
{
    list_init(&q->waiters);
}

CO void co_queue_wait(struct co_queue *q, const char *why)
{
    struct waiter w;
    waiter_init(&w);
    list_add_tail(&q->waiters, &w.link);
    co_suspend(why);
}

CO int co_queue_wait_until(struct co_queue *q, uint64_t deadline_ns, const char *why)
{
    struct waiter w;
    waiter_init(&w);
    list_add_tail(&q->waiters, &w.link);
    if (deadline_ns)
        timer_arm(&w.timer, deadline_ns);
    co_suspend_cancellable(why, waiter_cancel, &w);
    return w.rc;
}

/* Ends the wait of the first coroutine in the queue and returns it; NULL when nobody waits. */
static struct co *queue_pop(struct co_queue *q)
{
    if (list_empty(&q->waiters))
        return NULL;
    struct waiter *w = list_first(&q->waiters, struct waiter, link);
    waiter_end(w, 0);
    return w->co;
}

void co_queue_wake_one(struct co_queue *q)
{
    (void)queue_pop(q);
}

void co_queue_wake_all(struct co_queue *q)
{
    while (queue_pop(q))
        ;
}

bool co_queue_is_empty(const struct co_queue *q)
{
    return list_empty(&q->waiters);
}

/* ---- mutex: unlocking hands it to the first who waits -----------------------------------------
 */

void co_mutex_init(struct co_mutex *m)
{
    co_mutex_init_for(m, RESOURCE_UNNAMED);
}

void co_mutex_init_for(struct co_mutex *m, enum resource resource)
{
    m->owner = NULL;
    m->resource = resource;
    co_queue_init(&m->queue);
}

CO void co_mutex_lock(struct co_mutex *m)
{
    struct co *self = co_self();
    VP_VERIFY(self, !=, NULL);
    VP_VERIFY(m->owner, !=, self);
    hold_verify(m->resource);
    if (m->owner)
        co_queue_wait(&m->queue, "mutex"); /* which hands it over */
    else
        m->owner = self;
    VP_VERIFY(m->owner, ==, self);
    hold_begin(m->resource);
}

void co_mutex_unlock(struct co_mutex *m)
{
    VP_VERIFY(m->owner, ==, co_self());
    hold_end(m->resource);
    m->owner = queue_pop(&m->queue);
}

/* ---- groups -------------------------------------------------------------------------------- */

void co_group_init(struct co_group *g)
{
    g->running = 0;
    g->rc = 0;
    co_queue_init(&g->queue);
}

void co_group_enter(struct co_group *g)
{
    g->running++;
}

void co_group_leave(struct co_group *g, int rc)
{
    VP_VERIFY(g->running, >, 0U);
    if (rc != 0 && g->rc == 0)
        g->rc = rc;
    if (--g->running == 0)
        co_queue_wake_all(&g->queue);
}

CO int co_group_wait(struct co_group *g)
{
    while (g->running > 0)
        co_queue_wait(&g->queue, "group");
    return g->rc;
}
