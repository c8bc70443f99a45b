/*
 * Metadata groups get more members, when volumes are promised more copies than metadata have
 * (promise.c), and when there is room for a copy that a group lacks.
 *
 * A checkpoint does it before it writes anything. For each group that lacks a member it takes an
 * extent, copies the pages of trees there, flushes, and commits the group's record. Then the group
 * is replaced by a wider one of the same number.
 *
 *  W1  Nobody writes a tree's page while they are copied: only checkpoints do. Pages are read as
 *      they are; a bad copy of one shows by its checksum and is healed, like any other.
 *  W2  The copies are durable before the record, and the record is durable before anything is
 *      written that counts on the new member. After a crash the group is found as it was, or with
 *      all of its pages on the new member.
 *  W3  The log and images are not copied, since their segments say themselves where they are: on
 *      the first members of the group. The checkpoint that goes on cuts the log and writes a full
 *      image, both in wide groups.
 *  W4  Who reads from the group before, goes on with it: it stays until the pool closes.
 *
 * Extents that promised metadata may need are not taken.
 */
#include "base/log.h"
#include "io/buffer.h"
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <stdlib.h>

enum { COPY_PAGES = 16 };

/* All that there should be, when a disk is filled: groups were formed while there were fewer disks.
 * */
static unsigned copies_due(const struct pool *p)
{
    return p->checkpoint.fill ? pool_meta_copies(p) : pool_meta_copies_promised(p);
}

bool pool_meta_is_narrow(const struct pool *p)
{
    unsigned due = copies_due(p);
    for (unsigned i = 0; i < p->meta.groups; i++)
        if (p->meta.group[i]->group->raid.width < due)
            return true;
    return false;
}

unsigned pool_meta_copies_least(const struct pool *p)
{
    unsigned least = POOL_META_COPIES_MAX;
    for (unsigned i = 0; i < p->meta.groups; i++)
        if (p->meta.group[i]->group->raid.width < least)
            least = p->meta.group[i]->group->raid.width;
    return least;
}

/* ---- the new member ----------------------------------------------------------------------- */

static bool is_member(const struct pool_group *g, const struct pool_disk *d)
{
    for (unsigned m = 0; m < g->raid.width; m++)
        if (g->disk[m] == d)
            return true;
    return false;
}

/* In service, and with most room; NULL: none has any. */
static struct pool_disk *member_choose(struct pool *p, const struct pool_group *g)
{
    struct pool_disk *best = NULL;
    uint32_t most = 0;
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        uint32_t room = d->extents_total - d->extents_used;
        if ((!raid_disk_is_current(&d->io) && d != p->checkpoint.fill) || is_member(g, d) ||
            room <= most)
            continue;
        best = d;
        most = room;
    }
    return best;
}

static void extent_give(struct pool *p, struct pool_disk *d, uint32_t extent)
{
    bitmap_clear(d->extent_map, extent);
    d->extents_used--;
    d->extents_meta--;
    pool_meta_room_update(p);
}

/* False: promised metadata may need it. */
static bool extent_take(struct pool *p, struct pool_disk *d, uint32_t *extent)
{
    *extent = (uint32_t)bitmap_find(d->extent_map, d->extents_total, 0, false);
    bitmap_set(d->extent_map, *extent);
    d->extents_used++;
    d->extents_meta++;
    pool_meta_room_update(p);
    if (pool_meta_room_left(p) >= 0)
        return true;
    extent_give(p, d, *extent);
    return false;
}

/* Like g, with one more member; nobody knows it yet. NULL: no memory. */
static struct pool_group *group_wider(const struct pool_group *g, struct pool_disk *d,
                                      uint32_t extent)
{
    struct pool_group *w = calloc(1, sizeof(*w));
    unsigned n = g->raid.width;
    if (!w)
        return NULL;
    list_init(&w->link);
    list_init(&w->open_link);
    list_init(&w->empty_link);
    list_init(&w->due_link);
    w->role = g->role;
    w->raid.id = g->raid.id;
    w->raid.profile = (struct raid_profile){RAID_MIRROR, 1, (uint8_t)n};
    w->raid.width = n + 1;
    w->raid.data_bytes = g->raid.data_bytes;
    memcpy(w->disk, g->disk, sizeof(w->disk));
    memcpy(w->extent, g->extent, sizeof(w->extent));
    memcpy(w->raid.disk, g->raid.disk, sizeof(w->raid.disk));
    memcpy(w->raid.base_bytes, g->raid.base_bytes, sizeof(w->raid.base_bytes));
    w->disk[n] = d;
    w->extent[n] = extent;
    w->raid.disk[n] = &d->io;
    w->raid.base_bytes[n] = POOL_LABEL_AREA + extent * g->raid.data_bytes;
    return w;
}

/* ---- copying ------------------------------------------------------------------------------ */

static bool is_tree_page(const struct pool_meta_group *g, uint64_t page)
{
    return page < g->pages && bitmap_test(g->used, page) && !bitmap_test(g->segment, page);
}

/* CO. A page that no member can read now is left out: it may be read later, or healed. */
static CO int run_copy(struct pool *p, const struct pool_meta_group *g, struct pool_group *to,
                       unsigned member, uint64_t page, unsigned pages)
{
    /* As in pool_page_read. */
    void *own = io_buffer_try((size_t)pages * POOL_PAGE);
    struct raid_io io = {.group = &g->group->raid,
                         .at_bytes = page * POOL_PAGE,
                         .len = pages * POOL_PAGE,
                         .buf = own ? own : p->checkpoint.copy};
    bool is_read = raid_read(&io, 1) == 0;
    int rc = is_read ? raid_write_copy(&to->raid, member, io.at_bytes, io.buf, io.len) : 0;
    if (own)
        io_buffer_put(own, (size_t)pages * POOL_PAGE);
    if (is_read)
        return rc;
    for (unsigned i = 0; pages > 1 && i < pages && !rc; i++)
        rc = run_copy(p, g, to, member, page + i, 1);
    return rc;
}

CO int pool_meta_pages_copy(struct pool *p, const struct pool_meta_group *g, struct pool_group *to,
                            unsigned member)
{
    if (!p->checkpoint.copy)
        p->checkpoint.copy = aligned_alloc(POOL_PAGE, (size_t)COPY_PAGES * POOL_PAGE);
    int rc = p->checkpoint.copy ? 0 : VP_E_NO_MEMORY;
    for (uint64_t page = 0, n; page < g->pages && !rc; page += n) {
        for (n = 0; n < COPY_PAGES && is_tree_page(g, page + n); n++)
            ;
        if (n)
            rc = run_copy(p, g, to, member, page, (unsigned)n);
        else
            n = 1;
    }
    return rc;
}

/* ---- one group ---------------------------------------------------------------------------- */

static void group_replace(struct pool *p, struct pool_meta_group *g, struct pool_group *wider)
{
    struct pool_group *before = g->group;
    list_del(&before->link);
    list_add_tail(&p->space->replaced, &before->link); /* W4 */
    list_add_tail(&p->meta_groups, &wider->link);
    pool_group_set(&p->space->id, wider->raid.id, wider);
    wider->meta = g;
    g->group = wider;
    g->allocated = false;
}

/* CO. W2. */
static CO int group_copy_and_commit(struct pool *p, struct pool_meta_group *g,
                                    struct pool_group *wider)
{
    struct pool_disk *d = wider->disk[wider->raid.width - 1];
    struct pool_batch b;
    int rc = pool_meta_pages_copy(p, g, wider, wider->raid.width - 1);
    if (!rc)
        rc = raid_flush(p->raid_disk, p->disk_count);
    if (!rc && !atomic_load(&d->io.in_service))
        rc = VP_E_RAID_DISK_OUT;
    if (rc)
        return rc;
    pool_batch_init(&b);
    pool_group_record(&b, wider);
    rc = pool_commit_home(p, &b);
    pool_batch_fini(&b);
    return rc;
}

/* CO. One more member. VP_E_NO_SPACE: there is no disk for it. */
static CO int group_widen(struct pool *p, struct pool_meta_group *g)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    struct pool_disk *d = member_choose(p, g->group);
    uint32_t extent;
    if (!d || !extent_take(p, d, &extent))
        return VP_E_NO_SPACE;
    ck->wider = group_wider(g->group, d, extent);
    int rc = ck->wider ? group_copy_and_commit(p, g, ck->wider) : VP_E_NO_MEMORY;
    if (!rc) {
        group_replace(p, g, ck->wider);
        vp_info("pool %s: metadata group %u has a copy on disk %u (%s) now, %u in all", p->name,
                g->group->raid.id, d->io.index, d->path, g->group->raid.width);
    } else {
        pool_group_free(ck->wider);
        if (!pool_is_fenced(p)) /* else its record may be durable */
            extent_give(p, d, extent);
    }
    ck->wider = NULL;
    return rc;
}

CO int pool_meta_widen(struct pool *p)
{
    for (unsigned i = 0; i < p->meta.groups; i++) { /* more may come meanwhile */
        int rc = 0;
        while (!rc && p->meta.group[i]->group->raid.width < copies_due(p))
            rc = group_widen(p, p->meta.group[i]);
        if (pool_is_fenced(p))
            return VP_E_POOL_FENCED;
        if (rc && rc != VP_E_NO_SPACE)
            vp_warn("pool %s: metadata group %u cannot get another copy now: %s", p->name,
                    p->meta.group[i]->group->raid.id, vp_err_text(rc));
    }
    free(p->checkpoint.copy);
    p->checkpoint.copy = NULL;
    return 0;
}
