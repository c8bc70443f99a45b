/*
 * The look-up tables of groups: by number, and by slot of arena numbers. Any reactor reads them
 * without a lock. They have room for as many groups as the disks do. With another disk larger ones
 * take their place: what is published in them was copied before, and late readers of the ones
 * before find there what they found before. So those stay until the pool closes.
 */
#include "base/verify.h"
#include "pool/disk_impl.h"

#include <stdlib.h>

static unsigned log2_of(uint32_t pow2)
{
    return (unsigned)__builtin_ctz(pow2);
}

/* ---- tables -------------------------------------------------------------------------------- */

/* The tables' memory before they grew. */
struct pool_outgrown {
    struct list link; /* pool_space_map.outgrown */
    _Atomic(struct pool_group *) *slot, *id;
};

static uint64_t extents_of_all(const struct pool *p)
{
    uint64_t extents = 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        extents += p->disk[i].extents_total;
    return extents;
}

static int tables_new(uint64_t extents, struct pool_space_growth *g)
{
    /* Groups of wide parity have up to two slots for each of their extents. */
    if (extents > UINT32_MAX / 2 - 1)
        return VP_E_TOO_BIG;
    g->ids = (uint32_t)extents + 1;
    g->slots = 2 * (uint32_t)extents + 1;
    g->id = calloc(g->ids, sizeof(*g->id));
    g->slot = calloc(g->slots, sizeof(*g->slot));
    return g->id && g->slot ? 0 : VP_E_NO_MEMORY;
}

/* The table has room for more from here on. */
static void table_set(struct pool_group_table *t, _Atomic(struct pool_group *) *entry,
                      uint32_t size)
{
    atomic_store_explicit(&t->entry, entry, memory_order_release);
    atomic_store_explicit(&t->size, size, memory_order_release);
}

int pool_space_map_new(struct pool *p)
{
    struct pool_space_growth g = {0};
    struct pool_space_map *s = calloc(1, sizeof(*s));
    if (!s)
        return VP_E_NO_MEMORY;
    p->space = s;
    uint32_t per_extent = p->geometry.extent_bytes / p->geometry.chunk_bytes;
    s->chunk_shift = log2_of(p->geometry.chunk_bytes);
    s->slot_shift = log2_of(per_extent > POOL_ARENA_CHUNKS ? per_extent / POOL_ARENA_CHUNKS : 1);
    s->slots_from = s->ids_from = 1;
    list_init(&s->kinds);
    list_init(&s->empty);
    list_init(&s->due);
    list_init(&s->dead);
    list_init(&s->outdated);
    list_init(&s->outgrown);
    int rc = tables_new(extents_of_all(p), &g);
    table_set(&s->id, g.id, g.id ? g.ids : 0);
    table_set(&s->slot, g.slot, g.slot ? g.slots : 0);
    return rc ? rc : hash_init(&s->owners, 64) ? 0 : VP_E_NO_MEMORY;
}

bool pool_space_map_free_some(struct pool *p)
{
    struct pool_space_map *s = p->space;
    if (!s)
        return false;
    if (!list_empty(&s->outgrown)) {
        struct pool_outgrown *o = container_of(list_pop(&s->outgrown), struct pool_outgrown, link);
        free(o->slot);
        free(o->id);
        free(o);
        return true;
    }
    if (s->slot.entry) {
        free(s->slot.entry);
        table_set(&s->slot, NULL, 0);
        return true;
    }
    pool_members_free_all(&s->outdated);
    pool_group_index_free(s);
    free(s->id.entry);
    free(s);
    p->space = NULL;
    return false;
}

int pool_space_growth_prepare(struct pool *p, uint32_t more_extents, struct pool_space_growth *out)
{
    *out = (struct pool_space_growth){.outgrown = calloc(1, sizeof(*out->outgrown))};
    int rc = tables_new(extents_of_all(p) + more_extents, out);
    if (!rc && !out->outgrown)
        rc = VP_E_NO_MEMORY;
    if (rc)
        pool_space_growth_free(out);
    return rc;
}

static void entries_copy(_Atomic(struct pool_group *) *to, const struct pool_group_table *from)
{
    for (uint32_t i = 0; i < from->size; i++)
        atomic_store_explicit(&to[i], pool_group_at(from, i), memory_order_relaxed);
}

void pool_space_grow(struct pool *p, struct pool_space_growth *g)
{
    struct pool_space_map *s = p->space;
    VP_VERIFY(g->ids, >=, s->id.size);
    entries_copy(g->id, &s->id);
    entries_copy(g->slot, &s->slot);
    g->outgrown->id = s->id.entry;
    g->outgrown->slot = s->slot.entry;
    list_add_tail(&s->outgrown, &g->outgrown->link);
    table_set(&s->id, g->id, g->ids);
    table_set(&s->slot, g->slot, g->slots);
    *g = (struct pool_space_growth){0};
}

void pool_space_growth_free(struct pool_space_growth *g)
{
    free(g->id);
    free(g->slot);
    free(g->outgrown);
    *g = (struct pool_space_growth){0};
}

struct pool_group *pool_group_find(struct pool *p, uint32_t id)
{
    return pool_group_at(&p->space->id, id);
}

void pool_group_set(struct pool_group_table *t, uint64_t n, struct pool_group *g)
{
    VP_VERIFY(n, <, t->size);
    atomic_store_explicit(&t->entry[n], g, memory_order_release);
}
