/*
 * Disks of an open pool: taking them into use, and taking them out of service.
 *
 * An ejection has three steps. The disk leaves service in memory, so nobody starts I/O on it any
 * more. Then a root records that. Only then the caller that noticed the failure goes on. Until the
 * root is durable `io.eject_pending` is set. A caller that finds the disk out of service and would
 * rely on that comes here as well, and waits for the root. A disk that holds the last copy of some
 * metadata cannot go: the pool is fenced instead and serves reads.
 *
 * Everything that the disk missed has another copy, so its groups of one member are current. They
 * are still served from it, also after an import (io.data_only, out_after). New groups are not
 * formed there. The disk takes no metadata but roots, and no root depends on its copy there
 * (root.c, R4). After a failed flush these groups can only be read, now and after later imports
 * (read_only): what the log names may be missing there, and must not be overwritten or adopted. A
 * block that was flushed still matches its checksum.
 *
 * A device stays open until the pool closes, since I/O may be in flight on it when it is ejected.
 * A disk that does not answer: hang.c.
 * How a disk comes into service again: return.c.
 */
#include "base/log.h"
#include "io/guard.h"
#include "pool/disk_impl.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert(POOL_DISKS_MAX <= RAID_DISKS_MAX, "a set has room for all disks");

void pool_disks_init(struct pool *p)
{
    list_init(&p->groups);
    list_init(&p->retired);
    list_init(&p->moves.all);
    list_init(&p->meta_groups);
    co_queue_init(&p->room);
}

/* ---- ejection ------------------------------------------------------------------------------ */

/* Whether another disk counts as one that has data. `answers`: only while it answers. */
static bool disk_counts(const struct pool_disk *d, bool answers)
{
    return raid_disk_is_current(&d->io) && !(answers && io_dev_silent_ns(d->io.dev));
}

static bool is_last_disk(const struct pool *p, const struct pool_disk *d, bool answers)
{
    for (unsigned i = 0; i < p->disk_count; i++)
        if (&p->disk[i] != d && disk_counts(&p->disk[i], answers))
            return false;
    return true;
}

/* Whether d is the group's only member that counts. */
static bool group_needs(const struct pool_group *g, const struct pool_disk *d, bool answers)
{
    bool member = false, other = false;
    if (d->state == POOL_DISK_BEHIND && g->raid->width > 1)
        return false; /* nothing was read from it until now */
    for (unsigned m = 0; m < g->raid->width; m++) {
        if (g->disk[m] == d)
            member = true;
        else
            other |= disk_counts(g->disk[m], answers);
    }
    return member && !other;
}

static bool any_group_needs(const struct pool *p, const struct pool_disk *d, bool data_too,
                            bool answers)
{
    const struct pool_group *g;
    list_for_each (g, &p->meta_groups, link)
        if (group_needs(g, d, answers))
            return true;
    if (data_too) {
        list_for_each (g, &p->groups, link)
            if (!pool_group_is_empty(g) && group_needs(g, d, answers))
                return true;
    }
    return false;
}

/*
 * Whether some group that must not be lost would have no member in service without d: a metadata
 * group. While the pool is imported also one with data, if they could only be read from now on:
 * nothing is served yet, and the next import may find the disk in order.
 */
static bool holds_last_copy(const struct pool *p, const struct pool_disk *d)
{
    bool data_too = p->import && !d->stale && atomic_load(&d->io.flush_failed);
    return any_group_needs(p, d, data_too, false);
}

bool pool_disk_is_needed(const struct pool *p, const struct pool_disk *d)
{
    return (d->state != POOL_DISK_BEHIND && is_last_disk(p, d, true)) ||
           any_group_needs(p, d, true, true);
}

/* A disk that is out failed a flush. */
static void disk_note_read_only(struct pool *p, struct pool_disk *d)
{
    if (!raid_disk_is_read_only(&d->io) || d->read_only)
        return;
    d->read_only = true;
    d->out_after = 0;
    p->disk_changes++;
}

bool pool_disks_lost_writes(const struct pool *p)
{
    for (unsigned i = 0; i < p->disk_count; i++) {
        const struct pool_disk *d = &p->disk[i];
        bool counts = !d->stale && (d->state == POOL_DISK_ONLINE || d->state == POOL_DISK_BEHIND ||
                                    atomic_load(&d->io.eject_pending));
        if (counts && atomic_load(&d->io.flush_failed))
            return true;
    }
    return false;
}

int pool_disk_mark_out(struct pool *p, struct pool_disk *d, int rc, const char *why)
{
    if (d->state == POOL_DISK_NONE)
        return 0; /* it was removed meanwhile */
    bool last =
        (d->state != POOL_DISK_BEHIND && is_last_disk(p, d, false)) || holds_last_copy(p, d);
    if (d->state == POOL_DISK_OUT) {
        if (p->import && !d->stale && last) /* it left a moment ago */
            return VP_E_POOL_FENCED;
        disk_note_read_only(p, d);
        return 0;
    }
    if (last)
        return VP_E_POOL_FENCED;
    (void)snprintf(d->reason, sizeof(d->reason), "%s%s%s", why, rc ? ": " : "",
                   rc ? vp_err_text(rc) : "");
    vp_warn("pool %s: disk %u (%s) is ejected: %s", p->name, d->io.index, d->path, d->reason);
    d->state = POOL_DISK_OUT;
    pool_moves_disk_left(p, d);
    d->read_only = atomic_load(&d->io.flush_failed) != 0;
    d->out_after = d->read_only ? 0 : pool_out_after(p->root.now.number);
    p->disk_changes++;
    atomic_store(&p->disk_left, true);
    atomic_store(&d->io.eject_pending, true);
    atomic_store(&d->io.data_only, true);
    atomic_store(&d->io.in_service, false); /* `behind` stays: somebody may be looking at both */
    if (p->space) {                         /* else still importing */
        pool_groups_disk_left(p);
        pool_meta_room_update(p);
    }
    return 0;
}

CO int pool_disk_eject(struct pool *p, struct pool_disk *d, int rc, const char *why)
{
    if ((rc == VP_E_RAID_DISK_OUT && d->state != POOL_DISK_OUT) || d->state == POOL_DISK_NONE)
        return pool_root_update(p); /* it was out, and is in service again (return.c), or removed */
    if (pool_disk_mark_out(p, d, rc, why) != 0) {
        vp_warn("pool %s: disk %u (%s) holds the last copy of metadata and failed: %s: %s", p->name,
                d->io.index, d->path, why, vp_err_text(rc));
        pool_fence(p, "the last disk with its metadata failed");
        return VP_E_POOL_FENCED;
    }
    rc = pool_root_update(p);
    if (rc)
        pool_fence(p, "the ejection of a disk cannot be recorded");
    if (rc == 0 && atomic_exchange(&d->io.eject_pending, false))
        pool_space_changed(p);
    return rc;
}

struct eject_call {
    struct pool_disk *disk;
    int rc;
    const char *why;
};

static CO int eject_at_home(void *arg)
{
    const struct eject_call *c = arg;
    return pool_disk_eject(c->disk->pool, c->disk, c->rc, c->why);
}

/* raid_disk.eject: from any reactor. */
static CO int eject_from_raid(struct raid_disk *disk, int rc, const char *why)
{
    struct eject_call c = {disk->owner, rc, why};
    return reactor_call(c.disk->pool->home, eject_at_home, &c);
}

/* ---- into and out of use ------------------------------------------------------------------- */

int pool_disk_init(struct pool *p, unsigned index, struct io_dev *dev, const char *path)
{
    struct pool_disk *d = &p->disk[index];
    d->extent_map = calloc(bitmap_words(d->extents_total), sizeof(uint64_t));
    if (!d->extent_map || !raid_disk_figures_new(&d->io)) {
        free(d->extent_map);
        d->extent_map = NULL;
        return VP_E_NO_MEMORY;
    }
    d->pool = p;
    d->tail_bytes = pool_tail_bytes(d->size_bytes);
    (void)snprintf(d->path, sizeof(d->path), "%s", path);
    d->io.dev = dev;
    if (dev)
        pool_disk_watch(d);
    d->io.index = index;
    d->io.owner = d;
    d->io.eject = eject_from_raid;
    /* GUARD_STALE_DISK: a disk that the newest root calls out missed writes. */
    bool in_service = d->state == POOL_DISK_ONLINE || d->state == POOL_DISK_BEHIND ||
                      !io_guard_on(GUARD_STALE_DISK);
    atomic_store(&d->io.behind, d->state == POOL_DISK_BEHIND);
    atomic_store(&d->io.in_service, in_service && dev);
    d->stale = dev && !in_service;
    p->raid_disk[index] = &d->io;
    return 0;
}

int pool_disk_adopt(struct pool *p, unsigned index, struct pool_candidate *c)
{
    int rc = pool_disk_init(p, index, c->dev, c->path);
    if (rc)
        return rc;
    c->dev = NULL;
    struct pool_disk *d = &p->disk[index];
    d->was_uuid = c->label.was_uuid;
    d->may_have_lost = d->state != POOL_DISK_ONLINE; /* nobody knows any more */
    d->label_epoch = c->label.epoch;
    io_dev_wait_for_room(d->io.dev);
    atomic_store(&d->io.writes_done, 1); /* what a killed daemon may have left in its cache */
    if (d->stale)
        (void)snprintf(d->reason, sizeof(d->reason), "it was out of service when the pool closed");
    return 0;
}

int pool_disk_adopt_missing(struct pool *p, unsigned index, const char *reason)
{
    int rc = pool_disk_init(p, index, NULL, "");
    if (rc == 0)
        (void)snprintf(p->disk[index].reason, sizeof(p->disk[index].reason), "%s", reason);
    return rc;
}

bool pool_groups_free_some(struct pool *p, unsigned count)
{
    struct list *groups[] = {&p->groups, &p->meta_groups, p->space ? &p->space->dead : NULL};
    for (unsigned i = 0; i < 3 && groups[i]; i++)
        for (; !list_empty(groups[i]); count--) {
            if (!count)
                return true;
            pool_group_free(container_of(list_pop_tail(groups[i]), struct pool_group, link));
        }
    return false;
}

CO void pool_disks_fini(struct pool *p)
{
    pool_moves_fini(p);
    while (pool_groups_free_some(p, UINT_MAX))
        ;
    while (pool_space_map_free_some(p))
        ;
    for (unsigned i = 0; i < p->disk_count; i++) {
        io_dev_close(p->disk[i].io.dev);
        p->disk[i].io.dev = NULL;
        raid_disk_figures_free(&p->disk[i].io);
        free(p->disk[i].extent_map);
        p->disk[i].extent_map = NULL;
    }
    while (!list_empty(&p->retired)) {
        struct pool_retired *r =
            container_of(list_pop_tail(&p->retired), struct pool_retired, link);
        io_dev_close(r->dev);
        free(r);
    }
}

/* ---- looking ------------------------------------------------------------------------------- */

struct raid_disk *const *pool_disks(const struct pool *p, unsigned *count)
{
    *count = p->disk_count;
    return p->raid_disk;
}

unsigned pool_disk_count(const struct pool *p)
{
    return p->disk_count;
}

static const char *state_name(const struct pool_disk *d)
{
    if (d->state == POOL_DISK_NONE)
        return "removed";
    if (!d->io.dev)
        return "missing";
    if (d->leaves && d->state == POOL_DISK_ONLINE)
        return "removing";
    if (d->state == POOL_DISK_BEHIND)
        return "rebuilding";
    if (d->state == POOL_DISK_ONLINE)
        return "online";
    return d->stale ? "stale" : "ejected";
}

void pool_disk_info_get(const struct pool *p, unsigned i, struct pool_disk_info *out)
{
    const struct pool_disk *d = &p->disk[i];
    *out = (struct pool_disk_info){
        .index = i,
        .uuid = d->uuid,
        .state = state_name(d),
        .size_bytes = d->size_bytes,
        .extents_total = d->extents_total,
        .extents_used = d->extents_used,
        .io = &d->io,
        .full = d->io.dev && io_dev_is_full(d->io.dev),
        .by_request = d->by_request,
        .removed = d->state == POOL_DISK_NONE,
        .leaves = d->leaves,
    };
    memcpy(out->path, d->path, sizeof(out->path));
    memcpy(out->finding, d->finding, sizeof(out->finding));
    if (d->state != POOL_DISK_OUT && pool_disk_silence(d, out->reason, sizeof(out->reason)))
        out->silent = true;
    else if (out->full)
        (void)snprintf(out->reason, sizeof(out->reason),
                       "writes wait: the file system that holds it is full");
    else if (raid_disk_is_data_only(&d->io))
        (void)snprintf(out->reason, sizeof(out->reason), "no metadata there, data still served: %s",
                       d->reason);
    else if (raid_disk_is_read_only(&d->io))
        (void)snprintf(out->reason, sizeof(out->reason),
                       "it may have lost writes that were not flushed; data without another copy "
                       "can only be read: %s",
                       d->reason);
    else
        memcpy(out->reason, d->reason, sizeof(out->reason));
}

bool pool_acknowledges(const struct pool *p)
{
    return !pool_is_fenced(p);
}

const char *pool_state(const struct pool *p)
{
    if (pool_is_fenced(p))
        return "fenced";
    for (unsigned i = 0; i < p->disk_count; i++)
        if (p->disk[i].state != POOL_DISK_NONE && !raid_disk_is_current(&p->disk[i].io))
            return "degraded";
    return "online";
}
