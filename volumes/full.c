/*
 * Out of space is a state, not a fault (docs/design.md, "Out of space").
 *
 * A write that finds no chunk first commits, which sets quarantined chunks free, then follows the
 * volume's policy: `enospc` fails it, `pause` waits. Nothing waits with block locks held, so reads,
 * overwrites and discards of the same blocks go on.
 *
 * No wake-up is lost:
 * 1. A waiter is counted and remembers room_sequence before it tries; it sleeps only if the
 *    sequence is still the same after the try failed.
 * 2. The sequence moves when the volume itself freed chunks (volume_full_freed) and when the pool
 *    got arenas back. The latter is seen by the watcher, a coroutine at home that does nothing but
 *    wait for the pool's room; another one, the announcer, tells the volumes, which takes time.
 */
#include "base/log.h"
#include "volumes/volumes_impl.h"

/* ---- at home ------------------------------------------------------------------------------ */

static int room_announce_on_reactor(void *arg)
{
    struct volume_io *io = arg;
    io->room_sequence++;
    co_queue_wake_all(&io->room);
    return 0;
}

/* A pinned volume stays in the list, so going on from it after a yield is sound. */
CO static void room_announce(struct volumes *vs)
{
    struct volume *v;
    list_for_each (v, &vs->active, active_link) {
        if (!atomic_load_explicit(&v->counters.waiting_for_space, memory_order_relaxed))
            continue;
        volume_pin(v);
        vp_ignore(reactor_call(v->reactor, room_announce_on_reactor, v->io), "it can not fail");
        volume_unpin(v);
    }
}

static void room_announcer(void *arg)
{
    struct volumes *vs = arg;
    while (!vs->closing) {
        uint64_t seen = vs->room_events;
        room_announce(vs);
        while (vs->room_events == seen && !vs->closing)
            co_queue_wait(&vs->room_news, "room announcer");
    }
    co_group_leave(&vs->room_workers, 0);
}

static void room_watcher(void *arg)
{
    struct volumes *vs = arg;
    vs->room_watcher = co_self();
    int rc = 0;
    while (!vs->closing && !rc) {
        rc = pool_wait_for_room(vs->pool);
        vs->room_events++;
        co_queue_wake_all(&vs->room_news);
        volumes_level_check(vs);
    }
    vs->room_watcher = NULL;
    co_group_leave(&vs->room_workers, 0);
}

int volumes_room_start(struct volumes *vs)
{
    co_group_init(&vs->room_workers);
    co_queue_init(&vs->room_news);
    static void (*const worker[])(void *) = {room_watcher, room_announcer};
    static const char *const name[] = {"room watcher", "room announcer"};
    for (unsigned i = 0; i < 2; i++) {
        co_group_enter(&vs->room_workers);
        int rc = co_spawn(worker[i], vs, name[i]);
        if (rc) {
            co_group_leave(&vs->room_workers, 0);
            return rc;
        }
    }
    return 0;
}

void volumes_room_stop(struct volumes *vs)
{
    if (vs->room_watcher)
        co_cancel(vs->room_watcher);
    co_queue_wake_all(&vs->room_news);
    vp_ignore(co_group_wait(&vs->room_workers), "the workers return no errors");
}

void volumes_level_check(struct volumes *vs)
{
    static const char *const name[] = {"ok", "warn", "tight", "full"};
    struct pool_space space;
    pool_space_get(vs->pool, &space);
    if (space.level == vs->level)
        return;
    char free_text[16], total_text[16];
    bytes_format_size(space.free_bytes, free_text, sizeof(free_text));
    bytes_format_size(space.total_bytes, total_text, sizeof(total_text));
    vp_log(space.level > vs->level ? VP_LOG_WARN : VP_LOG_INFO,
           "pool %s: space is %s (was %s), %s of %s unassigned", pool_name(vs->pool),
           name[space.level], name[vs->level], free_text, total_text);
    vs->level = space.level;
}

/* ---- on the volume's reactor -------------------------------------------------------------- */

static void count_waiting(struct volume *v, int change)
{
    _Atomic unsigned *n = &v->counters.waiting_for_space;
    unsigned now = atomic_load_explicit(n, memory_order_relaxed);
    atomic_store_explicit(n, now + (unsigned)change, memory_order_relaxed);
}

/* The first thing to try: what is free already but not durably so; and a checkpoint, when it is
 * metadata that have no room. */
CO static int release_pending(struct volume *v)
{
    int rc = volume_io_commit(v->io);
    if (!rc && !pool_meta_has_room(v->vs->pool, VOLUME_META_HEADROOM))
        rc = pool_checkpoint(v->vs->pool);
    return rc;
}

int volume_full_wait(struct volume *v, struct full_wait *w)
{
    struct volume_io *io = v->io;
    if (!w->counted) {
        w->counted = true;
        w->cancel_sequence = io->cancel_sequence;
        w->room_sequence = io->room_sequence;
        count_waiting(v, 1);
        return release_pending(v);
    }
    if (atomic_load_explicit(&v->flags, memory_order_relaxed) & VOLUME_IS_ENOSPC)
        return VP_E_NO_SPACE;
    while (io->room_sequence == w->room_sequence && io->cancel_sequence == w->cancel_sequence)
        co_queue_wait(&io->room, "room in the pool");
    if (io->cancel_sequence != w->cancel_sequence)
        return VP_E_CANCELLED;
    w->room_sequence = io->room_sequence;
    return 0;
}

void volume_full_done(struct volume *v, struct full_wait *w)
{
    if (w->counted)
        count_waiting(v, -1);
    w->counted = false;
}

int volume_full_freed(struct volume *v)
{
    struct volume_io *io = v->io;
    if (!atomic_load_explicit(&v->counters.waiting_for_space, memory_order_relaxed))
        return 0;
    int rc = volume_io_commit(io);
    vp_ignore(room_announce_on_reactor(io), "it can not fail");
    return rc;
}

void volume_cancel_waiting(struct volume *v)
{
    struct volume_io *io = v->io;
    if (!io)
        return;
    io->cancel_sequence++;
    co_queue_wake_all(&io->room);
}
