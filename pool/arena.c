/*
 * Arenas: leasing them to volumes, taking them back, and finding where a chunk lies.
 *
 * A lease is recorded in its group's GROUP record, and the record is durable before anybody gets
 * the arena (GUARD_LEASE_BEFORE_USE). What was written there may survive a killed daemon without a
 * commit (keep.h), and the next daemon must know whose arena it is. A returned arena is *held*
 * until its return is durable (GUARD_FREE_BEFORE_REUSE). Then another volume may lease it.
 *
 * A group without leases gives its extents back. But the last group of its profile that has room
 * stays: otherwise a volume that frees and takes a chunk would form and drop a group each time.
 */
#include "base/verify.h"
#include "io/guard.h"
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <stdlib.h>

enum {
    SLOTS_A_TURN = 512, /* looked at before others get their turn   */
    RETURN_MANY = 1024, /* arenas of a family that goes, in a commit */
};

/* ---- finding ------------------------------------------------------------------------------- */

static inline struct pool_group *group_of_arena(const struct pool *p, uint64_t number,
                                                uint32_t *in_group)
{
    const struct pool_space_map *s = p->space;
    struct pool_group *g = pool_group_at(&s->slot, number >> s->slot_shift);
    if (!g)
        return NULL;
    uint64_t index = number - (g->first_slot << s->slot_shift);
    *in_group = (uint32_t)index;
    return index < g->arenas ? g : NULL;
}

bool pool_chunk_locate(struct pool *p, struct pchunk c, struct raid_group **group,
                       uint64_t *at_bytes)
{
    uint32_t arena;
    struct pool_group *g = group_of_arena(p, pchunk_arena(c), &arena);
    if (!g || pchunk_index(c) >= g->arena_chunks)
        return false;
    *group = g->raid;
    *at_bytes = ((uint64_t)arena * g->arena_chunks + pchunk_index(c)) << p->space->chunk_shift;
    return true;
}

static void describe(const struct pool *p, struct pool_group *g, uint32_t index,
                     struct pool_arena *out)
{
    const struct pool_space_map *s = p->space;
    *out = (struct pool_arena){
        .number = (g->first_slot << s->slot_shift) + index,
        .group = g->raid,
        .at_bytes = (uint64_t)index * g->arena_chunks << s->chunk_shift,
        .chunks = g->arena_chunks,
    };
}

bool pool_arena_find(struct pool *p, uint64_t number, struct pool_arena *out)
{
    uint32_t index;
    struct pool_group *g = group_of_arena(p, number, &index);
    if (!g)
        return false;
    describe(p, g, index, out);
    return true;
}

uint64_t pool_arena_bytes(const struct pool *p, struct raid_profile profile)
{
    return (uint64_t)pool_group_shape(&p->geometry, profile).arena_chunks * p->geometry.chunk_bytes;
}

uint64_t pool_arena_count(const struct pool *p, uint32_t owner)
{
    const struct pool_owner *o = pool_owner_find(p, owner);
    return o ? o->arenas : 0;
}

/* The owner's arenas in the slot from *number on, ascending; *number moves to what was not looked
 * at. */
static size_t slot_collect(const struct pool *p, uint32_t owner, uint64_t *number,
                           uint64_t *numbers, size_t max)
{
    const struct pool_space_map *s = p->space;
    size_t n = 0;
    uint32_t a;
    const struct pool_group *g = group_of_arena(p, *number, &a);
    uint64_t slot = *number >> s->slot_shift, next = (slot + 1) << s->slot_shift;
    for (; g && a < g->arenas && *number < next && n < max; a++, ++*number)
        if (g->arena_owner[a] == owner)
            numbers[n++] = *number;
    if (n < max)
        *number = next;
    return n;
}

CO size_t pool_arena_list(struct pool *p, uint32_t owner, uint64_t *from, uint64_t *numbers,
                          size_t max)
{
    size_t n = 0;
    for (unsigned slots = 1;; slots++) {
        const struct pool_owner *o = pool_owner_find(p, owner);
        if (!o || n == max || n == o->arenas)
            return n;
        *from = max_u64(*from, o->first_slot << p->space->slot_shift);
        if (*from >> p->space->slot_shift > o->last_slot)
            return n;
        n += slot_collect(p, owner, from, numbers + n, max - n);
        if (slots % SLOTS_A_TURN == 0)
            co_yield ();
    }
}

/* ---- leasing ------------------------------------------------------------------------------- */

struct lease_call {
    struct pool *pool;
    uint32_t owner;
    struct raid_profile profile;
    unsigned spread;
    struct pool_arena *out;
    unsigned wanted, got;
    bool ahead; /* only while there is plenty of room */
};

/* An open group of the profile; with `first` only one that begins on that disk. */
static struct pool_group *find_open(struct pool *p, struct raid_profile profile,
                                    const struct pool_disk *first)
{
    struct pool_open_groups *k = pool_open_groups_find(p, profile);
    for (unsigned i = 0; k && k->count && i < p->disk_count; i++)
        if ((!first || first == &p->disk[i]) && !list_empty(&k->disk[i]))
            return list_first(&k->disk[i], struct pool_group, open_link);
    return NULL;
}

/* A group with a free arena: the one that the spread asks for, a new one there, or any. A new one's
 * record is the caller's to write. */
static int choose_group(struct pool *p, const struct lease_call *c, struct pool_group **out,
                        bool *formed)
{
    *formed = false;
    const struct pool_disk *first = pool_disk_by_spread(p, c->spread);
    *out = first ? find_open(p, c->profile, first) : NULL;
    if (*out)
        return 0;
    int rc = pool_group_new(p, POOL_GROUP_DATA, c->profile, c->spread, out);
    *formed = rc == 0;
    if (rc != VP_E_NO_SPACE)
        return rc;
    *out = find_open(p, c->profile, NULL);
    if (*out)
        return 0;
    if (!pool_groups_reclaim(p))
        return VP_E_NO_SPACE;
    rc = pool_group_new(p, POOL_GROUP_DATA, c->profile, c->spread, out);
    *formed = rc == 0;
    return rc;
}

static uint32_t find_free_arena(const struct pool_group *g)
{
    uint32_t a = 0;
    while (a < g->arenas && (g->arena_owner[a] || bitmap_test(g->held_map, a)))
        a++;
    VP_VERIFY(a, <, g->arenas); /* an open group has a free one */
    return a;
}

/* Leases one arena in memory. The caller writes the group's record. No yield. */
static int lease_unrecorded(const struct lease_call *c, struct pool_group **g, uint32_t *arena,
                            bool *formed)
{
    struct pool *p = c->pool;
    *formed = false;
    if (!pool_owner_need(p, c->owner))
        return VP_E_NO_MEMORY;
    int rc = choose_group(p, c, g, formed);
    if (rc) {
        p->space->failed_at = p->space->room_events;
        pool_space_update_level(p);
        return rc;
    }
    *arena = find_free_arena(*g);
    pool_group_set_owner(p, *g, *arena, c->owner);
    return 0;
}

/* One lease, queued in the log. No yield. */
static int lease_one(const struct lease_call *c, struct pool_arena *out)
{
    struct pool *p = c->pool;
    struct pool_group *g;
    uint32_t arena;
    bool formed;
    int rc = lease_unrecorded(c, &g, &arena, &formed);
    if (rc)
        return rc;
    struct pool_batch b;
    pool_batch_init(&b);
    pool_group_record(&b, g);
    rc = pool_log_append_nowait(p, &b);
    pool_batch_fini(&b);
    if (rc) {
        pool_group_set_owner(p, g, arena, 0);
        if (formed)
            pool_group_drop(p, g);
        return rc;
    }
    describe(p, g, arena, out);
    if (formed || list_empty(&g->open_link))
        pool_space_update_level(p);
    return 0;
}

/* The first error counts when there is no lease; a pool that is fenced meanwhile serves nobody. */
static CO int lease_at_home(void *arg)
{
    struct lease_call *c = arg;
    struct pool *p = c->pool;
    int rc = pool_is_fenced(p) ? VP_E_POOL_FENCED : 0;
    while (!rc && c->got < c->wanted && !(c->ahead && p->space->level != POOL_OK)) {
        rc = lease_one(c, &c->out[c->got]);
        c->got += rc == 0;
        c->spread++;
    }
    if (c->got)
        rc = 0;
    return !rc && io_guard_on(GUARD_LEASE_BEFORE_USE) ? pool_log_drain(p) : rc;
}

CO int pool_arena_lease(struct pool *p, uint32_t owner, struct raid_profile profile,
                        unsigned spread, struct pool_arena *out)
{
    if (!owner || !raid_profile_is_supported(profile))
        return VP_E_INVALID;
    struct lease_call c = {p, owner, profile, spread, out, .wanted = 1};
    return reactor_call(p->home, lease_at_home, &c);
}

CO int pool_arena_lease_ahead(struct pool *p, uint32_t owner, struct raid_profile profile,
                              unsigned spread, struct pool_arena *out, unsigned wanted,
                              unsigned *got)
{
    struct lease_call c = {p, owner, profile, spread, out, .wanted = wanted, .ahead = true};
    int rc = reactor_call(p->home, lease_at_home, &c);
    *got = rc ? 0 : c.got;
    return rc;
}

/* ---- returning ----------------------------------------------------------------------------- */

struct return_call {
    struct pool *pool;
    uint32_t owner;
    const uint64_t *numbers; /* NULL: all of the owner's */
    size_t count;
};

static void set_held(struct pool_group *g, uint32_t arena, bool held)
{
    g->arenas_held += held ? 1U : 0U - 1U;
    if (held)
        bitmap_set(g->held_map, arena);
    else
        bitmap_clear(g->held_map, arena);
}

/* Marks the group for record_groups, which follows without a yield. */
static void group_record_due(struct pool *p, struct pool_group *g)
{
    if (list_empty(&g->due_link))
        list_add_tail(&p->space->due, &g->due_link);
}

/* Takes the arenas from their owner in memory; marks their groups. */
static int take_back(struct pool *p, uint32_t owner, const uint64_t *numbers, size_t count)
{
    uint32_t a;
    for (size_t i = 0; i < count; i++) {
        const struct pool_group *g = group_of_arena(p, numbers[i], &a);
        if (!g || g->arena_owner[a] != owner)
            return VP_E_NOT_FOUND;
    }
    for (size_t i = 0; i < count; i++) {
        struct pool_group *g = group_of_arena(p, numbers[i], &a);
        if (!g || g->arena_owner[a] != owner)
            continue; /* named twice */
        if (io_guard_on(GUARD_FREE_BEFORE_REUSE))
            set_held(g, a, true);
        pool_group_set_owner(p, g, a, 0);
        group_record_due(p, g);
    }
    return 0;
}

static void record_groups(struct pool *p, struct pool_batch *b)
{
    struct list *link;
    while ((link = list_pop(&p->space->due)))
        pool_group_record(b, container_of(link, struct pool_group, due_link));
}

/* Takes leases back that could not be recorded. The groups that were formed for them stay,
 * empty. */
static void lease_many_undo(struct pool *p, const uint64_t *numbers, unsigned count)
{
    uint32_t a;
    for (unsigned i = 0; i < count; i++) {
        struct pool_group *g = group_of_arena(p, numbers[i], &a);
        VP_VERIFY(g, !=, NULL);
        pool_group_set_owner(p, g, a, 0);
    }
}

/* Queues the records of the groups that are due. */
static int lease_many_record(struct pool *p)
{
    struct pool_batch b;
    pool_batch_init(&b);
    record_groups(p, &b);
    int rc = pool_log_append_nowait(p, &b);
    pool_batch_fini(&b);
    return rc;
}

/* Only counts the arenas: a caller that leased many finds them with pool_arena_list. The records go
 * out together, one for each group, not one for each arena. */
static CO int lease_many_at_home(void *arg)
{
    struct lease_call *c = arg;
    struct pool *p = c->pool;
    uint64_t number[POOL_LEASE_MANY];
    unsigned n = 0;
    int rc = pool_is_fenced(p) ? VP_E_POOL_FENCED : 0;
    while (!rc && n < c->wanted && n < POOL_LEASE_MANY) {
        struct pool_group *g;
        uint32_t arena;
        bool formed;
        rc = lease_unrecorded(c, &g, &arena, &formed);
        if (rc)
            break;
        group_record_due(p, g);
        number[n++] = (g->first_slot << p->space->slot_shift) + arena;
        c->spread++;
    }
    if (!n)
        return rc;
    rc = lease_many_record(p);
    if (rc)
        lease_many_undo(p, number, n);
    else
        c->got = n;
    pool_space_update_level(p);
    return rc ? rc : pool_log_drain(p);
}

CO int pool_arena_lease_many(struct pool *p, uint32_t owner, struct raid_profile profile,
                             unsigned spread, unsigned wanted, unsigned *got)
{
    struct lease_call c = {p, owner, profile, spread, NULL, .wanted = wanted};
    *got = 0;
    if (!owner || !raid_profile_is_supported(profile))
        return VP_E_INVALID;
    int rc = reactor_call(p->home, lease_many_at_home, &c);
    *got = c.got;
    return rc;
}

/* Whether another open group of the profile would be left without g. */
static bool has_sibling_with_room(const struct pool_group *g)
{
    return g->kin->count > (list_empty(&g->open_link) ? 0U : 1U);
}

static void give_back_empty(struct pool *p, struct pool_group *g)
{
    if (!pool_group_is_empty(g) || !has_sibling_with_room(g))
        return;
    struct pool_batch b;
    pool_batch_init(&b);
    pool_batch_delete(&b, POOL_RECORD_GROUP, 0, g->raid->id);
    if (pool_log_append_nowait(p, &b) == 0)
        pool_group_drop(p, g);
    pool_batch_fini(&b);
}

/* The return is durable: the arenas may be leased again. */
static void release_held(struct pool *p, const uint64_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t a;
        struct pool_group *g = group_of_arena(p, numbers[i], &a);
        if (!g || !bitmap_test(g->held_map, a))
            continue;
        set_held(g, a, false);
        pool_group_update_lists(p, g);
        give_back_empty(p, g);
    }
}

/* The return could not be recorded, so the owner keeps its arenas. Otherwise the next record of
 * their groups would give them to another volume while the owner goes on writing there. */
static void take_back_undo(struct pool *p, uint32_t owner, const uint64_t *numbers, size_t count)
{
    uint32_t a;
    for (size_t i = 0; i < count; i++) {
        struct pool_group *g = group_of_arena(p, numbers[i], &a);
        if (!g || g->arena_owner[a])
            continue; /* named twice */
        if (bitmap_test(g->held_map, a))
            set_held(g, a, false);
        pool_group_set_owner(p, g, a, owner);
    }
}

static CO int return_arenas(struct pool *p, uint32_t owner, const uint64_t *numbers, size_t count)
{
    int rc = take_back(p, owner, numbers, count);
    if (rc)
        return rc;
    struct pool_batch b;
    pool_batch_init(&b);
    record_groups(p, &b);
    rc = pool_commit_home(p, &b);
    pool_batch_fini(&b);
    if (rc == 0) {
        release_held(p, numbers, count);
        pool_space_changed(p);
    } else {
        take_back_undo(p, owner, numbers, count);
    }
    return rc;
}

/* A commit for each RETURN_MANY: nobody else leases or returns for this owner. */
static CO int return_all(struct pool *p, uint32_t owner)
{
    uint64_t numbers[RETURN_MANY], next = 0;
    size_t count;
    int rc = 0;
    while (!rc && (count = pool_arena_list(p, owner, &next, numbers, RETURN_MANY)) != 0)
        rc = return_arenas(p, owner, numbers, count);
    if (!rc)
        pool_owner_forget(p, owner);
    return rc;
}

static CO int return_at_home(void *arg)
{
    const struct return_call *c = arg;
    if (c->numbers)
        return return_arenas(c->pool, c->owner, c->numbers, c->count);
    return return_all(c->pool, c->owner);
}

CO int pool_arena_return(struct pool *p, uint32_t owner, const uint64_t *numbers, unsigned count)
{
    struct return_call c = {p, owner, numbers, count};
    if (!owner || (count && !numbers))
        return VP_E_INVALID;
    return count ? reactor_call(p->home, return_at_home, &c) : 0;
}

CO int pool_arena_return_all(struct pool *p, uint32_t owner)
{
    struct return_call c = {p, owner, NULL, 0};
    return owner ? reactor_call(p->home, return_at_home, &c) : VP_E_INVALID;
}

/* ---- lost writes --------------------------------------------------------------------------- */

/* The disk left service with writes that no flush had covered. */
static bool disk_lost_writes(const struct raid_disk *d)
{
    return !atomic_load(&d->in_service) &&
           atomic_load(&d->writes_done) > atomic_load(&d->writes_flushed);
}

static bool group_lost_writes(const struct pool_group *g)
{
    bool lost = false;
    for (unsigned m = 0; m < g->raid->width; m++)
        lost |= disk_lost_writes(g->raid->disk[m]);
    return lost && !raid_group_is_alive(g->raid);
}

/* Whether the owner has a lease in the slot, of a group that lost writes. */
static bool slot_lost_writes(struct pool *p, uint32_t owner, uint64_t slot)
{
    uint32_t a;
    uint64_t number = slot << p->space->slot_shift, found;
    const struct pool_group *g = group_of_arena(p, number, &a);
    return g && group_lost_writes(g) && slot_collect(p, owner, &number, &found, 1) != 0;
}

static bool any_disk_lost_writes(const struct pool *p)
{
    for (unsigned i = 0; i < p->disk_count; i++)
        if (disk_lost_writes(&p->disk[i].io))
            return true;
    return false;
}

static CO int flush_check_at_home(void *arg)
{
    const struct return_call *c = arg;
    struct pool *p = c->pool;
    const struct pool_owner *o;
    for (uint64_t slot = 0; any_disk_lost_writes(p) && (o = pool_owner_find(p, c->owner)); slot++) {
        slot = max_u64(slot, o->first_slot);
        if (slot > o->last_slot)
            return 0;
        if (slot_lost_writes(p, c->owner, slot))
            return VP_E_RAID_NO_COPY;
        if (slot % SLOTS_A_TURN == 0)
            co_yield ();
    }
    return 0;
}

CO int pool_flush_check(struct pool *p, uint32_t owner)
{
    struct return_call c = {p, owner, NULL, 0};
    if (!atomic_load_explicit(&p->disk_left, memory_order_acquire))
        return 0;
    return reactor_call(p->home, flush_check_at_home, &c);
}
