/*
 * A disk leaves the pool: what it has goes to other disks, and then it is no disk of the pool.
 *
 *     in service or out ── pool_disk_leave_begin ──> leaves ── emptied ──> removed (POOL_DISK_NONE)
 *            └─────────────── pool_disk_leave_cancel ───┘
 *
 *  E1  A disk that leaves serves as before, but gets no new extents. A root says so
 *      (root_block.leaves), so a crash finds it leaving, and what has moved has moved.
 *  E2  Data move first (move.c). Then metadata, by two checkpoints. The first one writes a full
 *      image and cuts the log, and segments are allocated elsewhere: so none is left on the disk.
 *      The second one, before it writes anything, copies the pages of trees to another disk, and
 *      records the new members (widen.c, W1 and W2). Where no other disk is left for a copy that
 *      is more than what is due, the metadata group has a copy less.
 *  E3  The root that removes the disk is written without it. Its row of the disk table stays, with
 *      its uuid and its extents: numbers of groups depend on how many there were, and another part
 *      of the pool may know the disk. Then the labels of the device go. When a crash comes before
 *      that, an import passes over the device.
 *  E4  The device is closed when nobody can be using it: after a barrier, a checkpoint, and looks
 *      at it (watch.c).
 */
#include "base/log.h"
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS_A_TURN = 512, RENEW_TRIES = 2, COMPARE_BYTES = 16 * POOL_PAGE };

/* Between two looks at whether somebody looks at the disk's device. */
#define LOOK_NS UINT64_C(1000000)

/* ---- may it leave? -------------------------------------------------------------------------- */

/* Free extents of each disk as they would be. */
struct places {
    uint32_t free[POOL_DISKS_MAX];
};

static struct places places_now(const struct pool *p)
{
    struct places s = {{0}};
    for (unsigned i = 0; i < p->disk_count; i++)
        if (pool_disk_takes_extents(&p->disk[i]))
            s.free[i] = p->disk[i].extents_total - p->disk[i].extents_used;
    return s;
}

/* Takes a place for the group's member on d; false: there is none. */
static bool place_take(const struct pool *p, struct places *s, const struct pool_group *g,
                       const struct pool_disk *d)
{
    int best = -1;
    for (unsigned i = 0; i < p->disk_count; i++)
        if (&p->disk[i] != d && s->free[i] && !pool_group_has_member(g, &p->disk[i]) &&
            (best < 0 || s->free[i] > s->free[best]))
            best = (int)i;
    if (best >= 0)
        s->free[best]--;
    return best >= 0;
}

/* Disks that would have what this one has. */
static unsigned others_there(const struct pool *p, const struct pool_disk *d)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        n += &p->disk[i] != d && pool_disk_takes_extents(&p->disk[i]);
    return n;
}

/* A metadata group has as many good copies as are due without the member on d. */
static bool others_suffice(const struct pool *p, const struct pool_group *g,
                           const struct pool_disk *d)
{
    unsigned good = 0, wanted = pool_meta_copies_wanted(p), others = others_there(p, d);
    for (unsigned m = 0; m < g->raid->width; m++)
        good += g->disk[m] != d && pool_disk_takes_extents(g->disk[m]);
    return g->role == POOL_GROUP_META && good && good >= (others < wanted ? others : wanted);
}

static void plan_add(const struct pool *p, const struct pool_group *g, const struct pool_disk *d,
                     struct places *s, struct pool_leave_plan *plan)
{
    if (!pool_group_has_member(g, d) || pool_group_is_empty(g))
        return;
    plan->data_bytes += ((uint64_t)g->arenas_leased * g->arena_chunks) << p->space->chunk_shift;
    if (!others_suffice(p, g, d) && !place_take(p, s, g, d))
        plan->stuck_bytes += p->geometry.extent_bytes;
}

/* CO. Of what the groups are now. */
static CO struct pool_leave_plan plan_make(struct pool *p, const struct pool_disk *d, bool *unread)
{
    struct pool_leave_plan plan = {0};
    struct places s = places_now(p);
    vp_ignore(pool_groups_reclaim(p), "empty groups need no place");
    *unread = false;
    for (uint32_t id = 1; id < p->space->id.size; id++) {
        const struct pool_group *g = pool_group_find(p, id);
        if (g)
            plan_add(p, g, d, &s, &plan);
        if (g && !pool_group_is_empty(g) && pool_group_has_member(g, d))
            *unread |= !raid_group_is_alive(g->raid);
        if (id % GROUPS_A_TURN == 0)
            co_yield ();
    }
    return plan;
}

CO uint64_t pool_disk_data_bytes(struct pool *p, unsigned disk)
{
    bool unread;
    return plan_make(p, &p->disk[disk], &unread).data_bytes;
}

static int check_state(struct pool *p, unsigned disk, struct vp_error *err)
{
    const struct pool_disk *d = &p->disk[disk];
    if (disk >= p->disk_count || d->state == POOL_DISK_NONE)
        return vp_fail(err, VP_E_NOT_FOUND, "pool %s has no disk %u: `vpool status %s` shows all",
                       p->name, disk, p->name);
    if (pool_is_fenced(p))
        return vp_fail(err, VP_E_POOL_FENCED, "pool %s: %s", p->name,
                       vp_err_text(VP_E_POOL_FENCED));
    if (d->leaves || d->returns)
        return vp_fail(err, VP_E_BUSY,
                       "pool %s: disk %u is being removed already, or another "
                       "command works on it",
                       p->name, disk);
    for (unsigned i = 0; i < p->disk_count; i++)
        if (p->disk[i].leaves)
            return vp_fail(err, VP_E_BUSY, "pool %s: disk %u is being removed; one disk at a time",
                           p->name, i);
    if (!others_there(p, d))
        return vp_fail(err, VP_E_NO_SPACE, "pool %s: no other disk is in service, and complete",
                       p->name);
    return 0;
}

CO int pool_disk_leave_check(struct pool *p, unsigned disk, struct pool_leave_plan *plan,
                             struct vp_error *err)
{
    bool unread;
    char bytes[16];
    *plan = (struct pool_leave_plan){0};
    int rc = check_state(p, disk, err);
    if (rc)
        return rc;
    *plan = plan_make(p, &p->disk[disk], &unread);
    if (unread)
        return vp_fail(
            err, VP_E_RAID_NO_COPY,
            "pool %s: some data of disk %u can be read nowhere now; bring the disks back "
            "that have them, or delete their volumes, first",
            p->name, disk);
    if (plan->stuck_bytes)
        return vp_fail(err, VP_E_NO_SPACE,
                       "pool %s: no other disk has room for %s of what disk %u has, or only disks "
                       "that hold another copy of the same data; `vpool add %s DEVICE` makes room",
                       p->name, bytes_format_size(plan->stuck_bytes, bytes, sizeof(bytes)), disk,
                       p->name);
    return 0;
}

/* ---- beginning and ending ------------------------------------------------------------------- */

static void leaves_set(struct pool *p, struct pool_disk *d, bool leaves)
{
    d->leaves = leaves;
    p->disk_changes++;
    pool_meta_room_update(p);
}

CO int pool_disk_leave_begin(struct pool *p, unsigned disk, struct vp_error *err)
{
    struct pool_leave_plan plan;
    int rc = pool_disk_leave_check(p, disk, &plan, err);
    if (!rc)
        rc = check_state(p, disk, err); /* it took turns */
    if (rc)
        return rc;
    struct pool_disk *d = &p->disk[disk];
    leaves_set(p, d, true);
    rc = pool_root_update(p);
    if (rc) {
        leaves_set(p, d, false);
        return vp_fail(err, rc, "pool %s: that disk %u is to be removed cannot be recorded: %s",
                       p->name, disk, vp_err_text(rc));
    }
    vp_info("pool %s: disk %u (%s) is being removed", p->name, disk, d->path);
    return 0;
}

CO int pool_disk_leave_cancel(struct pool *p, unsigned disk)
{
    struct pool_disk *d = &p->disk[disk];
    VP_VERIFY_TRUE(!pool_moves_are_there(p));
    if (!d->leaves)
        return 0;
    leaves_set(p, d, false);
    int rc = pool_root_update(p);
    pool_groups_disk_entered(p);
    pool_space_changed(p);
    return rc;
}

bool pool_disk_to_empty(const struct pool *p, unsigned from, struct pool_leaving *out)
{
    for (unsigned i = from; i < p->disk_count; i++) {
        const struct pool_disk *d = &p->disk[i];
        if (!d->leaves)
            continue;
        *out = (struct pool_leaving){.disk = i, .uuid = d->uuid};
        (void)snprintf(out->path, sizeof(out->path), "%s", d->path);
        return true;
    }
    return false;
}

/* ---- metadata ------------------------------------------------------------------------------- */

static bool group_has_segments(const struct pool_meta_group *g)
{
    return bitmap_find(g->segment, g->pages, 0, true) < g->pages;
}

/* CO. Takes over `members`. With `to` member m has come there, else the group has one less. What it
 * left is free after a barrier (pool_moves_free). */
static CO int meta_commit(struct pool *p, struct pool_meta_group *g, struct raid_group *members,
                          unsigned m, const struct pool_disk *to)
{
    struct pool_move *left = calloc(1, sizeof(*left));
    int rc = left ? 0 : VP_E_NO_MEMORY;
    if (!rc)
        *left = (struct pool_move){.group = g->group,
                                   .from_disk = g->group->disk[m],
                                   .from = g->group->extent[m],
                                   .ended = true,
                                   .is_member = true};
    if (!rc)
        rc = pool_meta_members_commit(p, g, members, to);
    if (rc) {
        pool_members_free(members);
        free(left);
        return rc;
    }
    list_add_tail(&p->moves.all, &left->link);
    p->moves.count++;
    return 0;
}

/* CO. A run of pages: whether the member and another one have the same. */
static CO int run_compare(struct pool *p, struct raid_group *r, unsigned m, unsigned other,
                          uint64_t page, unsigned pages)
{
    uint8_t *one = p->checkpoint.copy, *two = one + COMPARE_BYTES;
    uint32_t len = pages * POOL_PAGE;
    int rc = raid_read_copy(r, m, page * POOL_PAGE, one, len);
    if (!rc)
        rc = raid_read_copy(r, other, page * POOL_PAGE, two, len);
    return rc || memcmp(one, two, len) != 0 ? VP_E_PAGE_DAMAGED : 0;
}

/*
 * CO. Whether all copies that count of the group's pages are equal, if the one that leaves is among
 * them: it may be the only good one of a page. Checksums are in the pages above, which only volumes
 * know. VP_E_PAGE_DAMAGED: a scrub finds and heals what is bad.
 */
static CO int copies_compare(struct pool *p, const struct pool_meta_group *g, unsigned m)
{
    struct raid_group *r = g->group->raid;
    if (!raid_disk_is_current(r->disk[m]))
        return 0;
    if (!p->checkpoint.copy)
        p->checkpoint.copy = aligned_alloc(POOL_PAGE, (size_t)2 * COMPARE_BYTES);
    int rc = p->checkpoint.copy ? 0 : VP_E_NO_MEMORY;
    for (uint64_t page = 0, n; page < g->pages && !rc; page += n) {
        n = pool_meta_tree_pages(g, page, COMPARE_BYTES / POOL_PAGE);
        for (unsigned o = 0; n && o < r->width && !rc; o++)
            if (o != m && raid_disk_is_current(r->disk[o]))
                rc = run_compare(p, r, m, o, page, (unsigned)n);
        n = n ? n : 1;
    }
    return rc;
}

/* CO. The group has a member less. */
static CO int meta_member_drop(struct pool *p, struct pool_meta_group *g, unsigned m)
{
    struct raid_group *members = p->checkpoint.wider = pool_members_new(g->group);
    if (!members)
        return VP_E_NO_MEMORY;
    unsigned last = members->width - 1;
    members->disk[m] = members->disk[last];
    members->base_bytes[m] = members->base_bytes[last];
    members->width = members->written = last;
    members->profile = pool_meta_profile(last);
    p->checkpoint.wider = NULL;
    return meta_commit(p, g, members, m, NULL);
}

/* CO. The member is on another disk. */
static CO int meta_member_move(struct pool *p, struct pool_meta_group *g, unsigned m)
{
    struct pool_disk *d;
    uint32_t extent = pool_meta_extent_take(p, g->group, &d);
    if (extent == UINT32_MAX)
        return VP_E_NO_SPACE;
    struct raid_group *members = p->checkpoint.wider = pool_members_new(g->group);
    int rc = members ? 0 : VP_E_NO_MEMORY;
    if (!rc) {
        pool_members_put(members, m, d, extent);
        rc = pool_meta_pages_move(p, g, members, m);
    }
    p->checkpoint.wider = NULL;
    if (!rc)
        rc = meta_commit(p, g, members, m, d);
    else
        pool_members_free(members);
    if (rc && !pool_is_fenced(p)) /* else its record may be durable */
        pool_extent_give(d, extent, POOL_GROUP_META);
    return rc;
}

/* CO. */
static CO int meta_group_leave(struct pool *p, struct pool_meta_group *g, const struct pool_disk *d)
{
    unsigned m = 0, width = g->group->raid->width;
    while (m < width && g->group->disk[m] != d)
        m++;
    if (m == width)
        return 0;
    if (group_has_segments(g))
        return VP_E_AGAIN;
    g->closed = true; /* no segment comes meanwhile */
    int rc = copies_compare(p, g, m);
    if (!rc)
        rc = others_suffice(p, g->group, d) ? meta_member_drop(p, g, m) : meta_member_move(p, g, m);
    g->closed = false;
    return rc;
}

CO int pool_meta_leave(struct pool *p, struct pool_disk *d)
{
    int rc = 0;
    for (unsigned i = 0; i < p->meta.groups && !rc; i++) /* more may come meanwhile */
        rc = meta_group_leave(p, p->meta.group[i], d);
    free(p->checkpoint.copy);
    p->checkpoint.copy = NULL;
    p->checkpoint.leave_rc = rc;
    if (rc && rc != VP_E_AGAIN && !pool_is_fenced(p))
        vp_warn("pool %s: the metadata of disk %u (%s) cannot move now: %s%s", p->name, d->io.index,
                d->path, vp_err_text(rc),
                rc == VP_E_PAGE_DAMAGED ? "; its copies are not equal: `vpool scrub` heals them"
                                        : "");
    return pool_is_fenced(p) ? VP_E_POOL_FENCED : 0; /* the checkpoint is made all the same */
}

/* CO. The first group with a member on the disk, but for empty ones; NULL. */
static CO const struct pool_group *group_left(struct pool *p, const struct pool_disk *d)
{
    for (uint32_t id = 1; id < p->space->id.size; id++) {
        const struct pool_group *g = pool_group_find(p, id);
        if (g && pool_group_has_member(g, d) && !pool_group_is_empty(g))
            return g;
        if (id % GROUPS_A_TURN == 0)
            co_yield ();
    }
    return NULL;
}

CO int pool_disk_leave_metadata(struct pool *p, unsigned disk)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    struct pool_disk *d = &p->disk[disk];
    int rc = VP_E_AGAIN;
    for (unsigned tries = RENEW_TRIES; tries && rc == VP_E_AGAIN; tries--) { /* E2 */
        rc = pool_metadata_renew(p);
        if (rc)
            return rc;
        ck->leave = d;
        rc = pool_checkpoint(p);
        ck->leave = NULL;
        rc = rc ? rc : ck->leave_rc;
    }
    if (rc)
        return rc;
    vp_ignore(pool_groups_reclaim(p), "group_left says whether any is left");
    return group_left(p, d) ? VP_E_AGAIN : 0;
}

/* ---- gone ----------------------------------------------------------------------------------- */

/* No yield. E3. */
static void disk_forget(struct pool *p, struct pool_disk *d)
{
    atomic_store(&d->io.in_service, false);
    atomic_store(&d->io.data_only, false);
    atomic_store(&d->io.behind, false);
    d->state = POOL_DISK_NONE;
    d->leaves = d->read_only = d->stale = d->by_request = false;
    d->out_after = 0;
    d->reason[0] = d->finding[0] = 0;
    VP_VERIFY(d->extents_used, ==, 0U);
    p->disk_changes++;
    pool_meta_room_update(p);
}

CO int pool_disk_leave_end(struct pool *p, unsigned disk)
{
    struct pool_disk *d = &p->disk[disk];
    if (pool_is_fenced(p))
        return VP_E_POOL_FENCED;
    vp_ignore(pool_groups_reclaim(p), "group_left says whether any is left");
    if (group_left(p, d) || pool_moves_are_there(p))
        return VP_E_AGAIN;
    co_mutex_lock(&p->root.lock); /* no root is being written to it */
    bool empty = !d->extents_used;
    if (empty)
        disk_forget(p, d);
    co_mutex_unlock(&p->root.lock);
    int rc = empty ? pool_root_update(p) : VP_E_AGAIN;
    if (rc)
        return rc;
    pool_groups_disk_left(p);
    pool_space_changed(p);
    rc = d->io.dev ? pool_disk_wipe(d->io.dev, d->tail_bytes) : 0;
    if (rc)
        vp_warn(
            "pool %s: the labels of %s, which was disk %u, cannot be wiped: %s; do not import it",
            p->name, d->path, disk, vp_err_text(rc));
    vp_info("pool %s: disk %u (%s) was removed", p->name, disk, d->path);
    return 0;
}

CO void pool_disk_leave_close(struct pool *p, unsigned disk)
{
    struct pool_disk *d = &p->disk[disk];
    while (d->looks)
        vp_ignore(co_sleep_ns(LOOK_NS), "nobody cancels it; it looks again anyway");
    vp_ignore(pool_checkpoint(p), "those that flushed the disk have ended, also if it fails");
    co_mutex_lock(&p->root.lock);
    struct io_dev *dev = d->io.dev;
    d->io.dev = NULL;
    d->path[0] = 0;
    co_mutex_unlock(&p->root.lock);
    io_dev_close(dev);
}
