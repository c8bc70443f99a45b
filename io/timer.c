/* Timers: a binary heap ordered by time; each timer knows its place, so that disarming is cheap. */
#include "base/verify.h"
#include "io/reactor_impl.h"

#include <stdlib.h>

static void place(struct reactor *r, size_t i, struct timer *t)
{
    r->timers[i] = t;
    t->heap_index = i;
}

static void sift_up(struct reactor *r, size_t i, struct timer *t)
{
    while (i > 0 && r->timers[(i - 1) / 2]->at_ns > t->at_ns) {
        place(r, i, r->timers[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(r, i, t);
}

static void sift_down(struct reactor *r, size_t i, struct timer *t)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= r->timer_count)
            break;
        if (child + 1 < r->timer_count && r->timers[child + 1]->at_ns < r->timers[child]->at_ns)
            child++;
        if (r->timers[child]->at_ns >= t->at_ns)
            break;
        place(r, i, r->timers[child]);
        i = child;
    }
    place(r, i, t);
}

/* Their number is bounded by what embeds them (coroutines, connections, jobs), not by this heap. */
bool reactor_timers_grow(struct reactor *r)
{
    size_t capacity = r->timer_capacity ? r->timer_capacity * 2 : 64;
    struct timer **timers = realloc(r->timers, capacity * sizeof(struct timer *));
    if (!timers)
        return false;
    r->timers = timers;
    r->timer_capacity = capacity;
    return true;
}

void timer_init(struct timer *t, void (*fn)(struct timer *t))
{
    t->reactor = NULL;
    t->at_ns = 0;
    t->heap_index = 0;
    t->fn = fn;
}

void timer_arm(struct timer *t, uint64_t at_ns)
{
    struct reactor *r = reactor_current;
    VP_VERIFY(r, !=, NULL);
    timer_disarm(t);
    t->reactor = r;
    t->at_ns = at_ns;
    if (r->timer_count == r->timer_capacity)
        VP_VERIFY_TRUE(reactor_timers_grow(r));
    sift_up(r, r->timer_count++, t);
}

void timer_disarm(struct timer *t)
{
    struct reactor *r = t->reactor;
    if (!r)
        return;
    VP_VERIFY_TRUE(r == reactor_current || !reactor_current); /* or its owner, after the run */
    t->reactor = NULL;
    struct timer *last = r->timers[--r->timer_count];
    if (last == t)
        return;
    size_t hole = t->heap_index;
    sift_up(r, hole, last);
    if (last->heap_index == hole)
        sift_down(r, hole, last);
}

void reactor_run_timers(struct reactor *r)
{
    size_t budget = r->timer_count; /* one that re-arms itself at once waits for the next turn */
    while (budget-- > 0 && r->timer_count > 0 && r->timers[0]->at_ns <= reactor_clock_ns) {
        struct timer *t = r->timers[0];
        timer_disarm(t);
        t->fn(t);
    }
}

uint64_t reactor_next_timer_ns(const struct reactor *r)
{
    return r->timer_count > 0 ? r->timers[0]->at_ns : UINT64_MAX;
}
