/*
 * The members of a group change while I/O goes on: a member moves to another disk (move.c,
 * leave.c), or metadata get one more (widen.c).
 *
 * What I/O uses of a group is a table that does not change (struct raid_group), behind one pointer.
 * Who looked it up goes on with it. So another table takes its place, and the one before is
 * outdated until nobody can be using it any more. Who frees it, or an extent that only it names,
 * makes sure of that first: by a barrier over all reactors.
 */
#include "base/verify.h"
#include "pool/disk_impl.h"

#include <stdlib.h>

static struct pool_members *members_of(struct raid_group *members)
{
    return container_of(members, struct pool_members, raid);
}

struct raid_group *pool_members_new(const struct pool_group *g)
{
    const struct raid_group *now = g->raid;
    struct pool_members *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->raid = (struct raid_group){
        .id = now->id,
        .profile = now->profile,
        .width = now->width,
        .written = now->width,
        .unit_bytes = now->unit_bytes,
        .data_bytes = now->data_bytes,
    };
    memcpy(m->raid.disk, now->disk, now->width * sizeof(now->disk[0]));
    memcpy(m->raid.base_bytes, now->base_bytes, now->width * sizeof(now->base_bytes[0]));
    return &m->raid;
}

void pool_members_free(struct raid_group *members)
{
    if (members)
        free(members_of(members));
}

void pool_members_put(struct raid_group *members, unsigned m, struct pool_disk *d, uint32_t extent)
{
    VP_VERIFY(m, <=, (unsigned)RAID_WIDTH_MAX);
    members->disk[m] = &d->io;
    members->base_bytes[m] = POOL_LABEL_AREA + (uint64_t)extent * d->pool->geometry.extent_bytes;
}

void pool_members_set(struct pool *p, struct pool_group *g, struct raid_group *members)
{
    struct raid_group *before = g->raid;
    g->raid = members;
    if (before != &g->first)
        list_add_tail(&p->space->outdated, &members_of(before)->link);
    pool_group_members_changed(p, g);
}

void pool_members_free_all(struct list *outdated)
{
    struct list *e;
    while ((e = list_pop(outdated)))
        free(container_of(e, struct pool_members, link));
}

/* ---- extents -------------------------------------------------------------------------------- */

uint32_t pool_extent_take(struct pool_disk *d, enum pool_group_role role)
{
    uint64_t extent = bitmap_find(d->extent_map, d->extents_total, 0, false);
    if (extent >= d->extents_total)
        return UINT32_MAX;
    bitmap_set(d->extent_map, extent);
    d->extents_used++;
    d->extents_meta += role == POOL_GROUP_META;
    pool_meta_room_update(d->pool);
    return (uint32_t)extent;
}

void pool_extent_give(struct pool_disk *d, uint32_t extent, enum pool_group_role role)
{
    VP_VERIFY_TRUE(bitmap_test(d->extent_map, extent));
    bitmap_clear(d->extent_map, extent);
    d->extents_used--;
    d->extents_meta -= role == POOL_GROUP_META;
    pool_meta_room_update(d->pool);
}

bool pool_disk_takes_extents(const struct pool_disk *d)
{
    return raid_disk_is_current(&d->io) && !d->leaves;
}

bool pool_group_has_member(const struct pool_group *g, const struct pool_disk *d)
{
    for (unsigned m = 0; m < g->raid->width; m++)
        if (g->disk[m] == d)
            return true;
    return false;
}
