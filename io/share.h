/*
 * Fair shares of a resource of a reactor (buffers, coroutines) that holders keep for as long as
 * others decide (a client's pace, room in a pool). A holder that keeps its part for ever takes
 * nothing from the others:
 *
 * 1. Half of `max` is for guarantees, `guarantee` for each holder.
 * 2. Of the other half a holder takes at most as much as is left for the others afterwards. So a
 *    few holders never use it up.
 * 3. A holder that holds something waits only for its own parts, and parts of others do not wake
 *    it.
 *
 * With more holders than guarantees, a holder that holds nothing may find nothing
 * (io_share_may_take is false). Its caller decides what to do then. On one reactor; nothing here
 * waits.
 */
#ifndef VP_IO_SHARE_H
#define VP_IO_SHARE_H

#include "base/verify.h"

#include <stdbool.h>
#include <stddef.h>

struct io_share {
    size_t max, guarantee;
    size_t used;
    size_t extra; /* what is held beyond guarantees */
};

struct io_share_holder {
    struct io_share *share;
    size_t held, max; /* its own bound */
};

static inline size_t io_share_extra(const struct io_share *s, size_t held)
{
    return held > s->guarantee ? held - s->guarantee : 0;
}

static inline bool io_share_may_take(const struct io_share_holder *h, size_t n)
{
    const struct io_share *s = h->share;
    size_t extra = io_share_extra(s, h->held + n);
    size_t of_others = s->extra - io_share_extra(s, h->held);
    return h->held + n <= h->max && s->used + n <= s->max &&
           (!extra || of_others + 2 * extra <= s->max / 2);
}

static inline void io_share_hold(struct io_share_holder *h, size_t held)
{
    struct io_share *s = h->share;
    s->used += held - h->held;
    s->extra += io_share_extra(s, held) - io_share_extra(s, h->held);
    h->held = held;
}

static inline void io_share_take(struct io_share_holder *h, size_t n)
{
    io_share_hold(h, h->held + n);
}

static inline void io_share_give(struct io_share_holder *h, size_t n)
{
    VP_VERIFY(h->held, >=, n);
    io_share_hold(h, h->held - n);
}

#endif
