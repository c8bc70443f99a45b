/*
 * Answers about groups that are needed again and again. A pool of 100 TiB has hundreds of thousands
 * of groups, so no answer may walk over all of them:
 *
 *     open groups   of a profile, beginning on a disk: where the next arena is leased
 *     owners        how many arenas a volume leases, and between which slots they lie
 *     figures       bytes leased and bytes that can be leased, summed up over all groups
 *
 * All three follow each change of a lease or a hold (pool_group_update_lists). When a disk leaves,
 * the open groups are looked at again, because they depend on the disks in service. When a disk
 * comes, all are.
 */
#include "base/verify.h"
#include "pool/disk_impl.h"

#include <stdlib.h>

#define GROUPS_A_TURN 512U

/* ---- open groups --------------------------------------------------------------------------- */

struct pool_open_groups *pool_open_groups_find(const struct pool *p, struct raid_profile profile)
{
    struct pool_open_groups *k;
    list_for_each (k, &p->space->kinds, link)
        if (raid_profile_equal(k->profile, profile))
            return k;
    return NULL;
}

struct pool_open_groups *pool_open_groups_need(struct pool *p, struct raid_profile profile)
{
    struct pool_open_groups *k = pool_open_groups_find(p, profile);
    if (k)
        return k;
    k = calloc(1, sizeof(*k));
    if (!k)
        return NULL;
    k->profile = profile;
    for (unsigned i = 0; i < POOL_DISKS_MAX; i++)
        list_init(&k->disk[i]);
    list_add_tail(&p->space->kinds, &k->link);
    return k;
}

static void open_set(struct pool_group *g, bool open)
{
    if (open == !list_empty(&g->open_link))
        return;
    if (open)
        list_add_tail(&g->kin->disk[g->raid->disk[0]->index], &g->open_link);
    else
        list_del(&g->open_link);
    g->kin->count += open ? 1U : 0U - 1U;
}

/* ---- figures ------------------------------------------------------------------------------- */

static struct pool_group_figures figures_of(const struct pool *p, const struct pool_group *g,
                                            bool open)
{
    uint64_t arena_bytes = (uint64_t)g->arena_chunks * p->geometry.chunk_bytes;
    uint64_t usable = open ? (g->arenas - g->arenas_leased - g->arenas_held) * arena_bytes : 0;
    return (struct pool_group_figures){
        .leased_bytes = g->arenas_leased * arena_bytes,
        .open_bytes = usable / g->raid->profile.data * g->raid->width,
        .writable_bytes = raid_profile_equal(g->raid->profile, p->default_profile) ? usable : 0,
    };
}

static void figures_count(struct pool *p, struct pool_group *g, struct pool_group_figures now)
{
    struct pool_group_figures *sum = &p->space->figures;
    sum->leased_bytes += now.leased_bytes - g->counted.leased_bytes;
    sum->open_bytes += now.open_bytes - g->counted.open_bytes;
    sum->writable_bytes += now.writable_bytes - g->counted.writable_bytes;
    g->counted = now;
}

/* ---- following changes --------------------------------------------------------------------- */

void pool_group_update_lists(struct pool *p, struct pool_group *g)
{
    if (g->role != POOL_GROUP_DATA)
        return;
    bool open = g->arenas_leased + g->arenas_held < g->arenas && raid_group_is_in_service(g->raid);
    open_set(g, open);
    figures_count(p, g, figures_of(p, g, open));
    bool empty = pool_group_is_empty(g);
    if (empty && list_empty(&g->empty_link))
        list_add_tail(&p->space->empty, &g->empty_link);
    else if (!empty)
        list_del(&g->empty_link);
}

void pool_group_members_changed(struct pool *p, struct pool_group *g)
{
    if (g->role != POOL_GROUP_DATA)
        return;
    open_set(g, false); /* it may begin on another disk */
    pool_group_update_lists(p, g);
}

void pool_group_forget(struct pool *p, struct pool_group *g)
{
    if (g->role != POOL_GROUP_DATA)
        return;
    open_set(g, false);
    figures_count(p, g, (struct pool_group_figures){0});
    list_del(&g->empty_link);
    list_del(&g->due_link);
}

void pool_groups_disk_left(struct pool *p)
{
    struct pool_open_groups *k;
    struct pool_group *g, *next;
    list_for_each (k, &p->space->kinds, link)
        for (unsigned i = 0; i < p->disk_count; i++)
            list_for_each_safe (g, next, &k->disk[i], open_link)
                pool_group_update_lists(p, g);
}

CO void pool_groups_disk_entered(struct pool *p)
{
    for (uint32_t id = 1; id < p->space->id.size; id++) {
        struct pool_group *g = pool_group_find(p, id);
        if (g)
            pool_group_update_lists(p, g);
        if (id % GROUPS_A_TURN == 0)
            co_yield ();
    }
}

/* ---- owners -------------------------------------------------------------------------------- */

struct pool_owner *pool_owner_find(const struct pool *p, uint32_t owner)
{
    struct hash_node *n = hash_find(&p->space->owners, owner);
    return n ? container_of(n, struct pool_owner, node) : NULL;
}

struct pool_owner *pool_owner_need(struct pool *p, uint32_t owner)
{
    struct pool_owner *o = pool_owner_find(p, owner);
    if (o)
        return o;
    o = calloc(1, sizeof(*o));
    if (!o)
        return NULL;
    o->first_slot = UINT64_MAX;
    hash_add(&p->space->owners, &o->node, owner);
    return o;
}

void pool_owner_forget(struct pool *p, uint32_t owner)
{
    struct pool_owner *o = pool_owner_find(p, owner);
    if (!o || o->arenas)
        return;
    hash_del(&p->space->owners, &o->node);
    free(o);
}

void pool_owner_add(struct pool_owner *o, const struct pool_group *g, uint64_t arenas)
{
    o->arenas += arenas;
    o->first_slot = min_u64(o->first_slot, g->first_slot);
    o->last_slot = max_u64(o->last_slot, g->first_slot + g->slots - 1);
}

void pool_group_set_owner(struct pool *p, struct pool_group *g, uint32_t arena, uint32_t owner)
{
    struct pool_owner *o = pool_owner_find(p, owner ? owner : g->arena_owner[arena]);
    VP_VERIFY(o, !=, NULL);
    if (owner)
        pool_owner_add(o, g, 1);
    else
        o->arenas--;
    g->arenas_leased += owner ? 1U : 0U - 1U;
    g->arena_owner[arena] = owner;
    pool_group_update_lists(p, g);
}

static void owner_free(struct hash_node *n, void *arg)
{
    (void)arg;
    free(container_of(n, struct pool_owner, node));
}

void pool_group_index_free(struct pool_space_map *s)
{
    struct list *e;
    while ((e = list_pop(&s->kinds)))
        free(container_of(e, struct pool_open_groups, link));
    if (s->owners.bucket) {
        hash_for_each(&s->owners, owner_free, NULL);
        hash_fini(&s->owners);
    }
}
