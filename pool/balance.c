/*
 * Balancing: data move from disks that are fuller than others to those that are emptier, for
 * example after a disk was added. Members of groups move (move.c); metadata stay.
 *
 * How full a disk is, is the part of its extents that groups have. One look at all groups decides:
 * a member moves from the fullest disk of its group to the emptiest one on which the group has
 * nothing, as long as the first is not emptier than the second afterwards. So each move makes the
 * difference smaller, and there is an end.
 */
#include "pool/disk_impl.h"

enum { GROUPS_A_TURN = 512 };

/* Extents in use on each disk as they will be, with all moves so far. */
struct balance {
    struct pool *pool;
    uint32_t used[POOL_DISKS_MAX];
};

static bool is_fuller(const struct balance *b, const struct pool_disk *d, const struct pool_disk *e)
{
    return (uint64_t)b->used[d->io.index] * e->extents_total >
           (uint64_t)b->used[e->io.index] * d->extents_total;
}

/* `from` is at least as full as `to` when an extent has moved. */
static bool is_worth_it(const struct balance *b, const struct pool_disk *from,
                        const struct pool_disk *to)
{
    uint64_t from_used = b->used[from->io.index], to_used = b->used[to->io.index];
    return from_used && (from_used - 1) * to->extents_total >= (to_used + 1) * from->extents_total;
}

static struct pool_disk *fullest_member(const struct balance *b, const struct pool_group *g)
{
    struct pool_disk *best = NULL;
    for (unsigned m = 0; m < g->raid->width; m++)
        if (pool_disk_takes_extents(g->disk[m]) && (!best || is_fuller(b, g->disk[m], best)))
            best = g->disk[m];
    return best;
}

static struct pool_disk *emptiest_other(const struct balance *b, const struct pool_group *g)
{
    struct pool *p = b->pool;
    struct pool_disk *best = NULL;
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        if (pool_disk_takes_extents(d) && !pool_group_has_member(g, d) &&
            b->used[i] < d->extents_total && (!best || is_fuller(b, best, d)))
            best = d;
    }
    return best;
}

static bool may_move(const struct pool_group *g)
{
    return g && g->role == POOL_GROUP_DATA && !g->move && !pool_group_is_empty(g) &&
           g->raid->width < RAID_WIDTH_MAX;
}

/* Of a group: begins its move, or with `bytes` only counts what would move. */
static int group_balance(struct balance *b, struct pool_group *g, uint64_t *bytes,
                         struct pool_moves_begun *out)
{
    struct pool_disk *from = fullest_member(b, g), *to = emptiest_other(b, g);
    if (!from || !to || !is_worth_it(b, from, to))
        return 0;
    if (bytes)
        *bytes += ((uint64_t)g->arenas_leased * g->arena_chunks) << b->pool->space->chunk_shift;
    int rc = bytes                                    ? 0
             : !pool_disk_leaves_reserve(b->pool, to) ? VP_E_NO_SPACE
                                                      : pool_move_begin(b->pool, g, from, to);
    if (rc)
        return rc == VP_E_NO_SPACE ? 0 : rc;
    b->used[from->io.index]--;
    b->used[to->io.index]++;
    out->begun++;
    return 0;
}

static CO int balance(struct pool *p, unsigned max, uint64_t *bytes, struct pool_moves_begun *out)
{
    struct balance b = {.pool = p};
    int rc = 0;
    *out = (struct pool_moves_begun){0};
    vp_ignore(pool_groups_reclaim(p), "empty groups need not move");
    for (unsigned i = 0; i < p->disk_count; i++)
        b.used[i] = p->disk[i].extents_used;
    for (uint32_t id = 1; id < p->space->id.size && out->begun < max && !rc; id++) {
        struct pool_group *g = pool_group_find(p, id);
        if (may_move(g))
            rc = group_balance(&b, g, bytes, out);
        if (id % GROUPS_A_TURN == 0)
            co_yield ();
    }
    return out->begun ? 0 : rc;
}

CO int pool_moves_balance(struct pool *p, unsigned max, struct pool_moves_begun *out)
{
    return balance(p, max, NULL, out);
}

CO uint64_t pool_unbalanced_bytes(struct pool *p)
{
    struct pool_moves_begun out;
    uint64_t bytes = 0;
    vp_ignore(balance(p, UINT32_MAX, &bytes, &out), "nothing begins, so nothing fails");
    return bytes;
}
