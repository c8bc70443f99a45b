/*
 * Groups: forming them where there is most room, finding them from any reactor, giving them back.
 *
 * Invariants:
 *   1. An extent belongs to at most one group; extent_map and extents_used say which are taken.
 *   2. An entry of the look-up tables is set after the group is complete (release) and cleared
 *      before it goes. A group that went stays readable memory for a while (`dead`), and a table
 *      that grew until the pool closes (`outgrown`).
 *   3. Data never takes an extent that lets fewer than pool_meta_reserve_groups(p) metadata groups
 *      be formed. Where they could not be formed anyway, extents that metadata cannot use are
 *      data's.
 *   4. An extent that is given back may be taken at once: the record that takes it follows, in the
 *      log, the one that gave it back.
 */
#include "base/verify.h"
#include "pool/disk_impl.h"

#include <stdlib.h>

#define DEAD_MAX 64U

struct pool_group_shape pool_group_shape(const struct pool_geometry *g, struct raid_profile profile)
{
    uint32_t per_extent = g->extent_bytes / g->chunk_bytes;
    uint32_t rows = POOL_ARENA_CHUNKS; /* of an arena: A in docs/design.md */
    while (rows * profile.data > POOL_ARENA_CHUNKS || rows > per_extent)
        rows /= 2;
    uint32_t arenas = per_extent / rows;
    uint32_t per_slot = per_extent > POOL_ARENA_CHUNKS ? per_extent / POOL_ARENA_CHUNKS : 1;
    return (struct pool_group_shape){rows * profile.data, arenas,
                                     (uint32_t)div_up(arenas, per_slot)};
}

/* ---- building ------------------------------------------------------------------------------ */

/* Gives g its place in the tables and its extents. Everything else of it is complete. */
static void group_publish(struct pool *p, struct pool_group *g)
{
    struct pool_space_map *s = p->space;
    for (unsigned m = 0; m < g->raid->width; m++) {
        bitmap_set(g->disk[m]->extent_map, g->extent[m]);
        g->disk[m]->extents_used++;
        g->disk[m]->extents_meta += g->role == POOL_GROUP_META;
    }
    list_add_tail(g->role == POOL_GROUP_META ? &p->meta_groups : &p->groups, &g->link);
    pool_group_update_lists(p, g);
    pool_group_set(&s->id, g->raid->id, g);
    for (uint32_t k = 0; k < g->slots; k++)
        pool_group_set(&s->slot, g->first_slot + k, g);
}

void pool_group_free(struct pool_group *g)
{
    if (g->raid != &g->first)
        pool_members_free(g->raid);
    free(g);
}

/* False when memory is out; the owners have none of the group's arenas then. */
static bool group_restore_owners(struct pool *p, struct pool_group *g,
                                 const struct pool_group_info *info)
{
    if (!info->owner)
        return true;
    for (uint32_t a = 0; a < g->arenas; a++) {
        uint32_t owner = g->arena_owner[a] = le32_get(info->owner[a]);
        if (owner && (a == 0 || owner != g->arena_owner[a - 1]) && !pool_owner_need(p, owner))
            return false;
        g->arenas_leased += owner != 0;
    }
    for (uint32_t a = 0, end; a < g->arenas; a = end) { /* neighbours have one owner mostly */
        for (end = a + 1; end < g->arenas && g->arena_owner[end] == g->arena_owner[a]; end++)
            ;
        if (g->arena_owner[a])
            pool_owner_add(pool_owner_find(p, g->arena_owner[a]), g, end - a);
    }
    return true;
}

/* With what it has of each arena behind it: one allocation, since there are very many groups. */
static struct pool_group *group_new(uint32_t arenas)
{
    size_t words = bitmap_words(arenas);
    struct pool_group *g =
        calloc(1, sizeof(*g) + words * sizeof(*g->held_map) + arenas * sizeof(*g->arena_owner));
    if (!g)
        return NULL;
    g->arenas = arenas;
    g->held_map = (uint64_t *)(g + 1);
    g->arena_owner = (uint32_t *)(g->held_map + words);
    return g;
}

/* From a description that was checked (import), or chosen (new). */
int pool_group_restore(struct pool *p, uint32_t id, const struct pool_group_info *info)
{
    struct pool_group *g = group_new(info->arenas);
    if (!g)
        return VP_E_NO_MEMORY;
    list_init(&g->open_link);
    list_init(&g->empty_link);
    list_init(&g->due_link);
    g->raid = &g->first;
    g->role = info->role;
    g->slots = info->slots;
    g->first_slot = info->first_slot;
    g->raid->id = id;
    g->raid->profile = info->profile;
    g->raid->width = g->raid->written = info->members;
    g->raid->data_bytes = (uint64_t)info->profile.data * p->geometry.extent_bytes;
    for (unsigned m = 0; m < info->members; m++) {
        g->disk[m] = &p->disk[info->disk[m]];
        g->extent[m] = info->extent[m];
        g->raid->disk[m] = &g->disk[m]->io;
        g->raid->base_bytes[m] =
            POOL_LABEL_AREA + (uint64_t)info->extent[m] * p->geometry.extent_bytes;
    }
    if (info->role == POOL_GROUP_DATA) {
        pool_promise_found(p, info->members);
        g->raid->unit_bytes = p->geometry.chunk_bytes;
        g->arena_chunks = pool_group_shape(&p->geometry, info->profile).arena_chunks;
        g->kin = pool_open_groups_need(p, info->profile);
        if (!g->kin || !group_restore_owners(p, g, info)) {
            pool_group_free(g);
            return VP_E_NO_MEMORY;
        }
    }
    group_publish(p, g);
    return 0;
}

/* ---- choosing disks ------------------------------------------------------------------------ */

static uint32_t free_extents(const struct pool_disk *d)
{
    return d->extents_total - d->extents_used;
}

static bool is_usable(const struct pool_disk *d)
{
    return pool_disk_takes_extents(d);
}

/* It takes the writes of a group; it may lack what was written before. */
static bool is_in_service(const struct pool_disk *d)
{
    return atomic_load_explicit(&d->io.in_service, memory_order_relaxed) && !d->leaves;
}

/* The extents that a count of groups is about: those that are free now, or all; those of disks that
 * are behind as well. `taken` extents of each disk do not count. */
struct extents_view {
    bool all, behind;
    bool filled; /* those of the disk that the checkpoint under way fills, as well */
    uint64_t taken;
};

static uint64_t view_extents(const struct pool_disk *d, struct extents_view v)
{
    uint64_t n = v.all ? d->extents_total : free_extents(d);
    bool counts =
        v.behind ? is_in_service(d) : is_usable(d) || (v.filled && d == d->pool->checkpoint.fill);
    return counts && n > v.taken ? n - v.taken : 0;
}

static uint64_t formable(const struct pool *p, unsigned width, struct extents_view v)
{
    /* t groups can be formed exactly when the disks, each giving at most t, give t × width. */
    uint64_t low = 0, high = 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        high += view_extents(&p->disk[i], v);
    high = width ? high / width : 0;
    while (low < high) {
        uint64_t t = (low + high + 1) / 2, sum = 0;
        for (unsigned i = 0; i < p->disk_count; i++)
            sum += min_u64(view_extents(&p->disk[i], v), t);
        if (sum >= t * width)
            low = t;
        else
            high = t - 1;
    }
    return low;
}

/* Metadata groups: of as many copies as there should be, then of fewer, as pool_meta_group_add
 * forms them. At least so many. */
static uint64_t formable_meta(const struct pool *p, bool all)
{
    unsigned copies = pool_meta_copies(p);
    uint64_t n = formable(p, copies, (struct extents_view){.all = all, .filled = true});
    while (copies-- > 2)
        n += formable(p, copies, (struct extents_view){.all = all, .filled = true, .taken = n});
    return n;
}

unsigned pool_groups_formable(const struct pool *p, unsigned width)
{
    return (unsigned)formable(p, width, (struct extents_view){.behind = width > 1});
}

unsigned pool_groups_of_all(const struct pool *p, unsigned width)
{
    return (unsigned)formable(p, width, (struct extents_view){.all = true, .behind = width > 1});
}

unsigned pool_meta_groups_formable(const struct pool *p)
{
    return (unsigned)formable_meta(p, false);
}

unsigned pool_meta_groups_of_all(const struct pool *p)
{
    return (unsigned)formable_meta(p, true);
}

/* The spread-th of the usable disks, for the group's first member; NULL when there is none. */
struct pool_disk *pool_disk_by_spread(struct pool *p, unsigned spread)
{
    unsigned usable = 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        usable += is_usable(&p->disk[i]);
    if (!usable)
        return NULL;
    spread %= usable;
    for (unsigned i = 0; i < p->disk_count; i++)
        if (is_usable(&p->disk[i]) && spread-- == 0)
            return &p->disk[i];
    return NULL;
}

static bool is_chosen(struct pool_disk *const *chosen, unsigned n, const struct pool_disk *d)
{
    for (unsigned i = 0; i < n; i++)
        if (chosen[i] == d)
            return true;
    return false;
}

static unsigned rank_of(const struct pool_disk *d)
{
    return is_usable(d) ? 2 : is_in_service(d) ? 1 : 0;
}

/* The next member: usable disks first, then those in service, then most room, then the first one
 * after `start`. */
static struct pool_disk *best_disk(struct pool *p, struct pool_disk *const *chosen, unsigned n,
                                   unsigned start)
{
    struct pool_disk *best = NULL;
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[(start + i) % p->disk_count];
        if (!free_extents(d) || is_chosen(chosen, n, d) || d->leaves || !d->state)
            continue;
        if (!best || rank_of(d) > rank_of(best) ||
            (rank_of(d) == rank_of(best) && free_extents(d) > free_extents(best)))
            best = d;
    }
    return best;
}

/*
 * Chooses `width` disks, beginning with `first` when that has room. A mirror that lacks a disk is
 * still formed, degraded: the extent of the disk that is out waits for it or its replacement. At
 * least the data must be stored on disks in service.
 */
static bool choose_disks(struct pool *p, struct raid_profile profile, struct pool_disk *first,
                         struct pool_disk **chosen)
{
    unsigned width = raid_profile_width(profile), n = 0, usable = 0;
    unsigned start = first ? first->io.index + 1 : 0;
    if (first && free_extents(first))
        chosen[n++] = first;
    while (n < width) {
        struct pool_disk *d = best_disk(p, chosen, n, start);
        if (!d)
            return false;
        chosen[n++] = d;
    }
    for (unsigned i = 0; i < width; i++)
        usable += is_usable(chosen[i]);
    return usable >= profile.data;
}

/* Metadata groups that free extents would give: with all copies, and with fewer as well. */
struct meta_formable {
    unsigned whole, any;
};

static struct meta_formable meta_formable_now(const struct pool *p)
{
    return (struct meta_formable){
        (unsigned)formable(p, pool_meta_copies(p), (struct extents_view){.filled = true}),
        pool_meta_groups_formable(p)};
}

/* Whether metadata keep their reserve when one extent of each chosen disk is taken, with all its
 * copies as far as the disks have them. What metadata could not use is not theirs to keep, however
 * little there is for them. */
static bool leaves_reserve(struct pool *p, struct pool_disk *const *chosen, unsigned width)
{
    unsigned reserve = pool_meta_reserve_groups(p);
    struct meta_formable before = meta_formable_now(p);
    for (unsigned i = 0; i < width; i++)
        chosen[i]->extents_used++;
    struct meta_formable after = meta_formable_now(p);
    for (unsigned i = 0; i < width; i++)
        chosen[i]->extents_used--;
    return (after.whole >= reserve || after.whole == before.whole) &&
           (after.any >= reserve || after.any == before.any);
}

bool pool_disk_leaves_reserve(struct pool *p, struct pool_disk *d)
{
    return leaves_reserve(p, &d, 1);
}

struct pool_disk *pool_member_choose(struct pool *p, const struct pool_group *g)
{
    struct pool_disk *best = NULL;
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        if (!is_usable(d) || !free_extents(d) || pool_group_has_member(g, d) ||
            (best && free_extents(d) <= free_extents(best)))
            continue;
        if (leaves_reserve(p, &d, 1))
            best = d;
    }
    return best;
}

/* The first of `count` consecutive free entries of a table; 0 when there are none. No entry before
 * *from is free, and *from moves up to the first that is. */
static uint32_t find_free(const struct pool_group_table *t, uint32_t count, uint32_t *from)
{
    uint32_t run = 0, size = t->size;
    while (*from < size && pool_group_at(t, *from))
        ++*from;
    for (uint32_t i = *from; i < size; i++) {
        run = pool_group_at(t, i) ? 0 : run + 1;
        if (run == count)
            return i - count + 1;
    }
    return 0;
}

/* The same for data, which leave metadata their reserve: not on `first` when that would take it. */
static bool choose_disks_for_data(struct pool *p, struct raid_profile profile,
                                  struct pool_disk *first, struct pool_disk **chosen)
{
    unsigned width = raid_profile_width(profile);
    if (!choose_disks(p, profile, first, chosen))
        return false;
    return leaves_reserve(p, chosen, width) ||
           (choose_disks(p, profile, NULL, chosen) && leaves_reserve(p, chosen, width));
}

bool pool_group_is_possible(struct pool *p, struct raid_profile profile)
{
    struct pool_disk *chosen[RAID_WIDTH_MAX];
    return choose_disks_for_data(p, profile, NULL, chosen);
}

int pool_group_new(struct pool *p, enum pool_group_role role, struct raid_profile profile,
                   unsigned spread, struct pool_group **out)
{
    struct pool_disk *chosen[RAID_WIDTH_MAX];
    unsigned width = raid_profile_width(profile);
    bool meta = role == POOL_GROUP_META;
    if (meta ? !choose_disks(p, profile, NULL, chosen)
             : !choose_disks_for_data(p, profile, pool_disk_by_spread(p, spread), chosen))
        return VP_E_NO_SPACE;

    struct pool_group_info info = {.role = role, .profile = profile, .members = width};
    uint32_t id = find_free(&p->space->id, 1, &p->space->ids_from);
    if (!meta) {
        struct pool_group_shape shape = pool_group_shape(&p->geometry, profile);
        info.arenas = shape.arenas;
        info.slots = shape.slots;
        info.first_slot = find_free(&p->space->slot, shape.slots, &p->space->slots_from);
    }
    if (!id || (!meta && !info.first_slot))
        return VP_E_NO_SPACE;
    for (unsigned m = 0; m < width; m++) {
        info.disk[m] = chosen[m]->io.index;
        info.extent[m] =
            (uint32_t)bitmap_find(chosen[m]->extent_map, chosen[m]->extents_total, 0, false);
    }
    int rc = pool_group_restore(p, id, &info);
    if (rc)
        return rc;
    *out = pool_group_find(p, id);
    pool_meta_room_update(p);
    return 0;
}

int pool_group_form(struct pool *p, enum pool_group_role role, struct raid_profile profile,
                    unsigned spread, struct pool_batch *b, struct pool_group **out)
{
    int rc = pool_group_new(p, role, profile, spread, out);
    if (rc == VP_E_NO_SPACE && pool_groups_reclaim(p))
        rc = pool_group_new(p, role, profile, spread, out);
    if (rc == 0)
        pool_group_record(b, *out);
    return rc;
}

/* ---- giving back --------------------------------------------------------------------------- */

bool pool_group_is_empty(const struct pool_group *g)
{
    return g->role == POOL_GROUP_DATA && g->arenas_leased == 0 && g->arenas_held == 0 && !g->move;
}

void pool_group_drop(struct pool *p, struct pool_group *g)
{
    struct pool_space_map *s = p->space;
    pool_group_set(&s->id, g->raid->id, NULL);
    for (uint32_t k = 0; k < g->slots; k++)
        pool_group_set(&s->slot, g->first_slot + k, NULL);
    for (unsigned m = 0; m < g->raid->width; m++) {
        bitmap_clear(g->disk[m]->extent_map, g->extent[m]);
        g->disk[m]->extents_used--;
        g->disk[m]->extents_meta -= g->role == POOL_GROUP_META;
    }
    s->ids_from = s->ids_from < g->raid->id ? s->ids_from : g->raid->id;
    if (g->slots && g->first_slot < s->slots_from)
        s->slots_from = (uint32_t)g->first_slot;
    pool_group_forget(p, g);
    list_del(&g->link);
    pool_meta_room_update(p);
    list_add_tail(&s->dead, &g->link);
    if (++s->dead_count > DEAD_MAX) {
        pool_group_free(container_of(list_pop(&s->dead), struct pool_group, link));
        s->dead_count--;
    }
}

bool pool_groups_reclaim(struct pool *p)
{
    struct pool_batch b;
    pool_batch_init(&b);
    struct pool_group *g, *next;
    list_for_each (g, &p->space->empty, empty_link) {
        VP_VERIFY_TRUE(pool_group_is_empty(g));
        pool_batch_delete(&b, POOL_RECORD_GROUP, 0, g->raid->id);
    }
    bool any = b.count && pool_log_append_nowait(p, &b) == 0;
    pool_batch_fini(&b);
    if (!any)
        return false;
    list_for_each_safe (g, next, &p->space->empty, empty_link)
        pool_group_drop(p, g);
    return true;
}
