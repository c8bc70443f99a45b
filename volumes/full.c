/*
 * Out of space is a state, not a fault (docs/design.md, "Out of space").
 *
 * A write that finds no chunk first has all volumes commit, which sets quarantined chunks free, and
 * give back the arenas that they do not use. Then the volume's policy decides: with `enospc` the
 * write fails, with `pause` it waits. Nothing waits with block locks held, so reads, overwrites and
 * discards of the same blocks go on.
 *
 * No wake-up is lost:
 *
 * 1. A waiter is counted and remembers room_sequence before it tries. It sleeps only if the
 *    sequence is still the same after the try failed.
 * 2. The sequence moves when the volume itself freed chunks (volume_full_freed), and when the pool
 *    has room. While there are waiters, one coroutine at home, the watcher, waits for room in the
 *    pool, and then tells every volume with waiters. pool_wait_for_room does not sleep through room
 *    that came after the last failed lease, so nothing is lost while the watcher is busy.
 */
#include "volumes/volumes_impl.h"

#define ROOM_PAUSE_NS UINT64_C(1000000)
#define GIVE_BACK_NS  UINT64_C(100000000)

/* ---- at home ------------------------------------------------------------------------------ */

static int room_announce_on_reactor(void *arg)
{
    struct volume_io *io = arg;
    io->room_sequence++;
    co_queue_wake_all(&io->room);
    return 0;
}

/* A pinned volume stays in the list, so going on from it after a yield is sound. */
static CO void room_announce(struct volumes *vs)
{
    struct volume *v;
    list_for_each (v, &vs->active, active_link) {
        if (!figure_get(&v->figures.waiting_for_space))
            continue;
        volume_pin(v);
        vp_ignore(reactor_call(v->reactor, room_announce_on_reactor, v->io), "it cannot fail");
        volume_unpin(v);
    }
}

static CO void room_watcher(void *arg)
{
    struct volumes *vs = arg;
    vs->room_watcher = co_self();
    while (!vs->closing) {
        if (vs->room_waiters == 0) {
            co_queue_wait(&vs->room_news, "somebody who waits for room");
            continue;
        }
        if (!pool_wait_for_room(vs->pool))
            room_announce(vs);
        vp_ignore(co_sleep_ns(ROOM_PAUSE_NS), "they shall try before we look again; or the end");
    }
    vs->room_watcher = NULL;
    co_group_leave(&vs->room_workers, 0);
}

int volumes_room_start(struct volumes *vs)
{
    co_group_enter(&vs->room_workers);
    int rc = co_spawn(room_watcher, vs, "room watcher");
    if (rc)
        co_group_leave(&vs->room_workers, 0);
    return rc;
}

CO void volumes_room_stop(struct volumes *vs)
{
    co_queue_wake_all(&vs->room_news);
    if (vs->room_watcher)
        co_cancel(vs->room_watcher);
    vp_ignore(co_group_wait(&vs->room_workers), "the watcher returns no error");
}

static CO int give_back_on_reactor(void *arg)
{
    struct volume_io *io = arg;
    return thin_give_back(io->thin);
}

static CO int give_back(struct volume *v)
{
    return v->io ? reactor_call(v->reactor, give_back_on_reactor, v->io) : 0;
}

/* Whether volumes were asked at most a moment before a request arrived, and after all the frees
 * that it came after. While the pool's level is not ok, nothing is leased ahead, so that asking
 * again would bring nothing. */
static bool has_given_back(const struct volumes *vs, uint64_t arrived_ns, uint64_t frees)
{
    return vs->given_back_ns && arrived_ns < vs->given_back_ns + GIVE_BACK_NS &&
           vs->given_back_frees >= frees;
}

/* Arenas that volumes leased ahead or emptied. A request that comes while this goes on waits for
 * its end, however long that takes, and asks again only when chunks were freed between the
 * beginning and its arrival: then that one asks for all that wait. */
static CO void give_back_all(struct volumes *vs)
{
    struct sweep sweep = {0};
    struct volume *v;
    uint64_t arrived_ns = reactor_now_ns();
    uint64_t frees = atomic_load_explicit(&vs->frees, memory_order_relaxed);
    while (vs->giving_back)
        co_queue_wait(&vs->given_back, "other volumes' unused arenas");
    if (has_given_back(vs, arrived_ns, frees))
        return;
    vs->giving_back = true;
    vs->given_back_frees = atomic_load_explicit(&vs->frees, memory_order_relaxed);
    vs->given_back_ns = reactor_now_ns();
    list_for_each (v, &vs->active, active_link) {
        if (v->state == VOLUME_ONLINE)
            sweep_add(&sweep, v);
    }
    vp_ignore(sweep_run(&sweep, give_back, false), "a volume with a damaged map gives nothing");
    vs->giving_back = false;
    co_queue_wake_all(&vs->given_back);
}

static CO int waiter_arrives(void *arg)
{
    struct volumes *vs = arg;
    vs->room_waiters++;
    co_queue_wake_all(&vs->room_news);
    give_back_all(vs);
    return 0;
}

static int waiter_leaves(void *arg)
{
    struct volumes *vs = arg;
    vs->room_waiters--;
    return 0;
}

/* ---- on the volume's reactor -------------------------------------------------------------- */

/* The first thing to try: what is free already but not durably so; and a checkpoint, when it is
 * metadata that have no room. */
static CO int release_pending(struct volume *v)
{
    int rc = volume_io_commit(v->io);
    if (!rc && !pool_meta_has_room(v->vs->pool, VOLUME_META_HEADROOM))
        rc = pool_checkpoint(v->vs->pool);
    return rc;
}

CO int volume_full_wait(struct volume *v, struct full_wait *w, const struct front_request *r)
{
    struct volume_io *io = v->io;
    hold_verify(RESOURCE_CHECKPOINT); /* release_pending */
    if (!w->counted) {
        int rc = reactor_call_for_client(pool_home(v->vs->pool), waiter_arrives, v->vs);
        if (rc)
            return rc;
        w->counted = true;
        figure_add(&v->figures.waiting_for_space, 1);
        w->room_sequence = io->room_sequence;
        return release_pending(v);
    }
    if (w->never_pauses || atomic_load_explicit(&v->flags, memory_order_relaxed) & VOLUME_IS_ENOSPC)
        return VP_E_NO_SPACE;
    hold_verify(RESOURCE_ROOM);
    int rc;
    while (!(rc = front_request_verdict(r)) && io->room_sequence == w->room_sequence)
        co_queue_wait(&io->room, "room in the pool");
    w->room_sequence = io->room_sequence;
    return rc;
}

CO void volume_full_done(struct volume *v, struct full_wait *w)
{
    w->counted = false;
    figure_sub(&v->figures.waiting_for_space, 1);
    vp_ignore(reactor_call(pool_home(v->vs->pool), waiter_leaves, v->vs), "home outlives requests");
}

CO int volume_full_freed(struct volume *v)
{
    struct volume_io *io = v->io;
    atomic_fetch_add_explicit(&v->vs->frees, 1, memory_order_relaxed);
    if (!figure_get(&v->figures.waiting_for_space))
        return 0;
    int rc = volume_io_commit(io);
    vp_ignore(room_announce_on_reactor(io), "it cannot fail");
    return rc;
}

void volume_full_rouse(void *arg)
{
    struct volume *v = arg;
    co_queue_wake_all(&v->io->room);
}
