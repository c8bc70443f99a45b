/*
 * A walk over the chunks of a volume that are in use, in windows, for work that goes on beside
 * clients (fill.c, scrub.c). Each window is done under block locks, as a reader, so nothing of it
 * is written meanwhile. Between two windows requests of clients come first: a request waits for one
 * window at most. While clients are at work, in whatever volume of the pool, the walk rests after
 * each window for as long as the window took. So more than half of the requests meet no window.
 */
#include "volumes/volumes_impl.h"

enum { WALK_LOCK_BLOCKS = 32 };

/* Whether clients have read or written something since the last look. */
static bool clients_are_at_work(struct volumes *vs)
{
    uint64_t bytes = 0;
    const struct volume *v;
    list_for_each (v, &vs->active, active_link)
        bytes += figure_get(&v->figures.bytes_read) + figure_get(&v->figures.bytes_written);
    bool at_work = bytes != vs->walked_bytes;
    vs->walked_bytes = bytes;
    return at_work;
}

/* CO. Some chunks that follow each other, under one lock. */
static CO int window_do(struct volume_walk *w, uint64_t blocks, uint64_t end)
{
    struct volume_io *io = w->v->io;
    uint64_t n = min_u64(blocks, end - w->at);
    struct block_lock lock;
    block_lock_take(&io->locks, &lock, w->at, n, false);
    int rc = w->window(io->thin, w->at, n, w->arg);
    block_lock_drop(&io->locks, &lock);
    if (!rc)
        w->at += n;
    return rc;
}

static CO int walk_on_reactor(void *arg)
{
    struct volume_walk *w = arg;
    struct thin *t = w->v->io->thin;
    uint64_t chunk_blocks = volume_chunk_bytes(w->v) / VOLUME_BLOCK, most = w->bytes;
    uint64_t end = align_up(div_up(volume_size(w->v), VOLUME_BLOCK), chunk_blocks);
    uint64_t blocks = min_u64(WALK_LOCK_BLOCKS, align_down(most / VOLUME_BLOCK, chunk_blocks));
    int rc = 0;
    w->at = align_down(w->at, chunk_blocks); /* it may be from a record */
    for (w->bytes = 0; w->bytes < most && !rc;) {
        uint64_t from = w->at;
        rc = from < end ? thin_next_mapped(t, from, end, &w->at) : 0;
        w->done = !rc && w->at >= end;
        if (rc || w->done)
            break;
        from = w->at;
        uint64_t began_ns = reactor_now_ns();
        rc = window_do(w, max_u64(blocks, chunk_blocks), end);
        w->bytes += (w->at - from) * VOLUME_BLOCK;
        uint64_t rest_ns = w->makes_way ? reactor_now_ns() - began_ns : 0;
        vp_ignore(co_sleep_ns(max_u64(rest_ns, 1)), "clients come before the next window");
    }
    thin_pass_ended(t);
    return rc;
}

CO int volume_open_for_work(struct volume *v, bool *is_open)
{
    co_mutex_lock(&v->control);
    int rc = v->state == VOLUME_ONLINE    ? volume_activate(v, false)
             : v->state == VOLUME_FAULTED ? VP_E_VOLUME_FAULTED
                                          : 0;
    *is_open = !rc && v->io && v->state == VOLUME_ONLINE;
    co_mutex_unlock(&v->control);
    return rc;
}

CO int volume_walk(struct volume_walk *w)
{
    struct volume *v = w->v;
    bool is_open;
    w->makes_way = clients_are_at_work(v->vs);
    int rc = volume_open_for_work(v, &is_open);
    if (!rc && is_open)
        return reactor_call(v->reactor, walk_on_reactor, w);
    w->bytes = 0;
    w->done = !rc; /* it is being deleted */
    return rc;
}
