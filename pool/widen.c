/*
 * Metadata groups get more members, when volumes are promised more copies than metadata have
 * (promise.c), and when there is room for a copy that a group lacks.
 *
 * A checkpoint does it before it writes anything. For each group that lacks a member it takes an
 * extent, copies the pages of trees there, flushes, and commits the group's record. Then the group
 * has other members (members.c).
 *
 *  W1  Nobody writes a tree's page while they are copied: only checkpoints do. Pages are read as
 *      they are; a bad copy of one shows by its checksum and is healed, like any other.
 *  W2  The copies are durable before the record, and the record is durable before anything is
 *      written that counts on the new member. After a crash the group is found as it was, or with
 *      all of its pages on the new member.
 *  W3  The log and images are not copied, since their segments say themselves where they are: on
 *      the first members of the group. The checkpoint that goes on cuts the log and writes a full
 *      image, both in wide groups.
 *  W4  Who reads from the members before, goes on with them (members.c).
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
        if (p->meta.group[i]->group->raid->width < due)
            return true;
    return false;
}

unsigned pool_meta_copies_least(const struct pool *p)
{
    unsigned least = POOL_META_COPIES_MAX;
    for (unsigned i = 0; i < p->meta.groups; i++)
        if (p->meta.group[i]->group->raid->width < least)
            least = p->meta.group[i]->group->raid->width;
    return least;
}

/* ---- the new member ----------------------------------------------------------------------- */

/* In service, and with most room; NULL: none has any. */
static struct pool_disk *member_choose(struct pool *p, const struct pool_group *g)
{
    struct pool_disk *best = NULL;
    uint32_t most = 0;
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        uint32_t room = d->extents_total - d->extents_used;
        bool takes = pool_disk_takes_extents(d) || (d == p->checkpoint.fill && !d->leaves);
        if (!takes || pool_group_has_member(g, d) || room <= most)
            continue;
        best = d;
        most = room;
    }
    return best;
}

uint32_t pool_meta_extent_take(struct pool *p, const struct pool_group *g, struct pool_disk **disk)
{
    struct pool_disk *d = *disk = member_choose(p, g);
    uint32_t extent = d ? pool_extent_take(d, POOL_GROUP_META) : UINT32_MAX;
    if (extent == UINT32_MAX || pool_meta_room_left(p) >= 0)
        return extent;
    pool_extent_give(d, extent, POOL_GROUP_META); /* promised metadata may need it */
    return UINT32_MAX;
}

/* ---- copying ------------------------------------------------------------------------------ */

static bool is_tree_page(const struct pool_meta_group *g, uint64_t page)
{
    return page < g->pages && bitmap_test(g->used, page) && !bitmap_test(g->segment, page);
}

/* CO. Without `all` a page that no member can read now is left out: it may be read later, or
 * healed. */
static CO int run_copy(struct pool *p, const struct pool_meta_group *g, struct raid_group *to,
                       unsigned member, uint64_t page, unsigned pages, bool all)
{
    /* As in pool_page_read. */
    void *own = io_buffer_try((size_t)pages * POOL_PAGE);
    struct raid_io io = {.group = g->group->raid,
                         .at_bytes = page * POOL_PAGE,
                         .len = pages * POOL_PAGE,
                         .buf = own ? own : p->checkpoint.copy};
    int rc = raid_read(&io, 1);
    bool is_read = !rc;
    if (is_read)
        rc = raid_write_copy(to, member, io.at_bytes, io.buf, io.len);
    if (own)
        io_buffer_put(own, (size_t)pages * POOL_PAGE);
    if (is_read)
        return rc;
    rc = all && pages == 1 ? rc : 0;
    for (unsigned i = 0; pages > 1 && i < pages && !rc; i++)
        rc = run_copy(p, g, to, member, page + i, 1, all);
    return rc;
}

uint64_t pool_meta_tree_pages(const struct pool_meta_group *g, uint64_t page, uint64_t most)
{
    uint64_t n = 0;
    while (n < most && is_tree_page(g, page + n))
        n++;
    return n;
}

static CO int pages_copy(struct pool *p, const struct pool_meta_group *g, struct raid_group *to,
                         unsigned member, bool all)
{
    if (!p->checkpoint.copy) /* as large as leave.c wants it */
        p->checkpoint.copy = aligned_alloc(POOL_PAGE, (size_t)2 * COPY_PAGES * POOL_PAGE);
    int rc = p->checkpoint.copy ? 0 : VP_E_NO_MEMORY;
    for (uint64_t page = 0, n; page < g->pages && !rc; page += n) {
        n = pool_meta_tree_pages(g, page, COPY_PAGES);
        if (n)
            rc = run_copy(p, g, to, member, page, (unsigned)n, all);
        else
            n = 1;
    }
    return rc;
}

CO int pool_meta_pages_copy(struct pool *p, const struct pool_meta_group *g, struct raid_group *to,
                            unsigned member)
{
    return pages_copy(p, g, to, member, false);
}

CO int pool_meta_pages_move(struct pool *p, const struct pool_meta_group *g, struct raid_group *to,
                            unsigned member)
{
    return pages_copy(p, g, to, member, true);
}

/* ---- one group ---------------------------------------------------------------------------- */

CO int pool_meta_members_commit(struct pool *p, struct pool_meta_group *g,
                                struct raid_group *members, const struct pool_disk *d)
{
    struct pool_batch b;
    int rc = raid_flush(p->raid_disk, p->disk_count);
    if (!rc && d && !atomic_load(&d->io.in_service))
        rc = VP_E_RAID_DISK_OUT;
    if (rc)
        return rc;
    pool_batch_init(&b);
    pool_group_record_of(&b, g->group, members);
    rc = pool_commit_home(p, &b);
    pool_batch_fini(&b);
    if (rc)
        return rc;
    pool_group_members_know(g->group, members);
    pool_members_set(p, g->group, members);
    g->allocated = false;
    return 0;
}

/* CO. One more member. VP_E_NO_SPACE: there is no disk for it. */
static CO int group_widen(struct pool *p, struct pool_meta_group *g)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    unsigned n = g->group->raid->width;
    struct pool_disk *d;
    uint32_t extent = pool_meta_extent_take(p, g->group, &d);
    if (extent == UINT32_MAX)
        return VP_E_NO_SPACE;
    ck->wider = pool_members_new(g->group);
    int rc = ck->wider ? 0 : VP_E_NO_MEMORY;
    if (!rc) {
        ck->wider->profile = (struct raid_profile){RAID_MIRROR, 1, (uint8_t)n};
        ck->wider->width = ck->wider->written = n + 1;
        pool_members_put(ck->wider, n, d, extent);
        rc = pool_meta_pages_copy(p, g, ck->wider, n);
    }
    if (!rc)
        rc = pool_meta_members_commit(p, g, ck->wider, d);
    if (!rc) {
        vp_info("pool %s: metadata group %u has a copy on disk %u (%s) now, %u in all", p->name,
                g->group->raid->id, d->io.index, d->path, n + 1);
    } else {
        pool_members_free(ck->wider);
        if (!pool_is_fenced(p)) /* else its record may be durable */
            pool_extent_give(d, extent, POOL_GROUP_META);
    }
    ck->wider = NULL;
    return rc;
}

CO int pool_meta_widen(struct pool *p)
{
    for (unsigned i = 0; i < p->meta.groups; i++) { /* more may come meanwhile */
        int rc = 0;
        while (!rc && p->meta.group[i]->group->raid->width < copies_due(p))
            rc = group_widen(p, p->meta.group[i]);
        if (pool_is_fenced(p))
            return VP_E_POOL_FENCED;
        if (rc && rc != VP_E_NO_SPACE)
            vp_warn("pool %s: metadata group %u cannot get another copy now: %s", p->name,
                    p->meta.group[i]->group->raid->id, vp_err_text(rc));
    }
    free(p->checkpoint.copy);
    p->checkpoint.copy = NULL;
    return 0;
}
