/*
 * Which volumes are concerned when a disk left service: the owners of the data on it.
 */
#include "pool/disk_impl.h"

#define GROUPS_A_TURN 512U

unsigned pool_disks_out(const struct pool *p)
{
    unsigned out = 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        out += !raid_disk_is_current(&p->disk[i].io);
    return out;
}

static bool group_is_whole(const struct pool_group *g)
{
    for (unsigned m = 0; m < g->raid.width; m++)
        if (!raid_disk_is_current(g->raid.disk[m]))
            return false;
    return true;
}

/* Neighbours have the same owner most of the time. That owner is told once then. */
static void group_tell_owners(const struct pool_group *g,
                              void (*fn)(void *arg, uint32_t owner, bool lost), void *arg)
{
    bool lost = !raid_group_is_alive(&g->raid);
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
