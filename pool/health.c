/*
 * Which volumes are concerned when a disk left service: the owners of the data on it.
 */
#include "pool/disk_impl.h"

#define GROUPS_A_TURN 512U

unsigned pool_disks_out(const struct pool *p)
{
    unsigned out = 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        out += p->disk[i].state != POOL_DISK_NONE && !raid_disk_is_current(&p->disk[i].io);
    return out;
}

static bool group_is_whole(const struct pool_group *g)
{
    for (unsigned m = 0; m < g->raid->width; m++)
        if (!raid_disk_is_current(g->raid->disk[m]))
            return false;
    return true;
}

/* Neighbours have the same owner most of the time. That owner is told once then. */
static void group_tell_owners(const struct pool_group *g,
                              void (*fn)(void *arg, uint32_t owner, bool lost), void *arg)
{
    bool lost = !raid_group_is_alive(g->raid);
    uint32_t last = 0;
    for (uint32_t i = 0; i < g->arenas; i++) {
        uint32_t owner = g->arena_owner[i];
        if (owner && owner != last) {
            CO_NO_YIELD {
                fn(arg, owner, lost);
            }
        }
        last = owner;
    }
}

CO void pool_owners_at_risk(struct pool *p, void (*fn)(void *arg, uint32_t owner, bool lost),
                            void *arg)
{
    if (pool_disks_out(p) == 0)
        return;
    for (uint32_t id = 1; id < p->space->id.size; id++) {
        const struct pool_group *g = pool_group_find(p, id);
        if (g && g->role == POOL_GROUP_DATA && g->arena_owner && !group_is_whole(g))
            group_tell_owners(g, fn, arg);
        if (id % GROUPS_A_TURN == 0)
            co_yield ();
    }
}

/* ---- what may be lost now -------------------------------------------------------------------- */

static bool would_count(const struct raid_disk *d, unsigned with, unsigned without)
{
    return d->index == with || (d->index != without && raid_disk_is_current(d));
}

static void risk_add(const struct pool *p, struct pool_risk *r, const struct pool_group *g,
                     unsigned with, unsigned without)
{
    unsigned current = 0;
    bool meta = g->role == POOL_GROUP_META;
    uint64_t bytes = ((uint64_t)g->arenas_leased * g->arena_chunks) << p->space->chunk_shift;
    if (!meta && !g->arenas_leased)
        return;
    for (unsigned m = 0; m < g->raid->width; m++)
        current += would_count(g->raid->disk[m], with, without);
    unsigned spare = current > g->raid->profile.data ? current - g->raid->profile.data : 0;
    if (meta)
        r->metadata_survives = spare < r->metadata_survives ? spare : r->metadata_survives;
    else
        r->survives = spare < r->survives ? spare : r->survives;
    if (meta)
        return;
    r->data_bytes += bytes;
    if (!current && !raid_group_is_alive(g->raid))
        r->lost_bytes += bytes;
    else if (current < g->raid->width && g->raid->width > 1)
        r->degraded_bytes += bytes;
}

CO struct pool_risk pool_risk_if(struct pool *p, unsigned with, unsigned without)
{
    struct pool_risk r = {.survives = POOL_DISKS_MAX, .metadata_survives = POOL_DISKS_MAX};
    for (uint32_t id = 1; id < p->space->id.size; id++) {
        const struct pool_group *g = pool_group_find(p, id);
        if (g)
            risk_add(p, &r, g, with, without);
        if (id % GROUPS_A_TURN == 0)
            co_yield ();
    }
    unsigned here = 0, most;
    for (unsigned i = 0; i < p->disk_count; i++)
        here += would_count(&p->disk[i].io, with, without);
    most = here ? here - 1 : 0;
    r.metadata_survives = r.metadata_survives < most ? r.metadata_survives : most;
    r.survives = r.survives < r.metadata_survives ? r.survives : r.metadata_survives;
    return r;
}

CO struct pool_risk pool_risk_now(struct pool *p)
{
    return pool_risk_if(p, POOL_NO_DISK, POOL_NO_DISK);
}
