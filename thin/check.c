/* Looking at a whole map: thin_extents, thin_next_mapped, thin_walk, and thin_check, which compares
 * it with the space tree. */
#include <stdlib.h>

#include "thin/thin_impl.h"

enum { LEAVES_A_TURN = 16 }; /* looked through before others have their turn */

/* ---- extents ------------------------------------------------------------------------------- */

struct extents {
    struct thin_extent *out;
    unsigned max, n;
};

/* False: there is no room for another run. */
static bool extents_add(struct extents *x, uint64_t block, uint64_t count, bool allocated,
                        bool zero)
{
    struct thin_extent *last = x->n ? &x->out[x->n - 1] : NULL;
    if (last && last->allocated == allocated && last->zero == zero) {
        last->count += count;
        return true;
    }
    if (x->n == x->max)
        return false;
    x->out[x->n++] = (struct thin_extent){block, count, allocated, zero};
    return true;
}

/* Blocks [block, end) of one chunk. */
static bool extents_add_chunk(const struct thin *t, struct extents *x, struct thin_map_entry e,
                              uint64_t block, uint64_t end)
{
    if (!thin_map_is_mapped(e))
        return extents_add(x, block, end - block, false, true);
    unsigned at = (unsigned)(block & (t->chunk_blocks - 1));
    unsigned stop = at + (unsigned)(end - block);
    while (at < stop) {
        unsigned run = thin_map_run(e, at, stop);
        if (!extents_add(x, block, run, true, !thin_map_is_valid(e, at)))
            return false;
        block += run;
        at += run;
    }
    return true;
}

/* What one leaf says about [*block, end). */
static bool extents_add_leaf(const struct thin *t, struct extents *x, const struct thin_page *leaf,
                             uint64_t *block, uint64_t end)
{
    uint64_t leaf_end = (thin_leaf_first(leaf) + t->map.leaf_entries) << t->chunk_shift;
    while (*block < end && *block < leaf_end) {
        struct vchunk vchunk = thin_vchunk_of(t, *block);
        uint64_t stop = min_u64(end, (vchunk.n + 1) << t->chunk_shift);
        if (!extents_add_chunk(t, x, thin_map_at(t, leaf, vchunk), *block, stop))
            return false;
        *block = stop;
    }
    return true;
}

CO int thin_extents(struct thin *t, uint64_t block, uint64_t count, struct thin_extent *out,
                    unsigned max, unsigned *n)
{
    struct extents x = {.out = out, .max = max};
    if (!count || !max || block > t->size_blocks || count > t->size_blocks - block)
        return VP_E_RANGE;
    uint64_t end = block + count;
    bool room = true;
    for (unsigned leaves = 1; block < end && room; leaves++) {
        struct thin_page *leaf;
        uint64_t key = block >> t->chunk_shift;
        int rc = thin_tree_seek(&t->map, &key, div_up(end, t->chunk_blocks), &leaf);
        if (rc)
            return rc;
        uint64_t hole_end = leaf ? min_u64(end, key << t->chunk_shift) : end;
        if (hole_end > block) {
            room = extents_add(&x, block, hole_end - block, false, true);
            block = hole_end;
        }
        if (leaf && room)
            room = extents_add_leaf(t, &x, leaf, &block, end);
        if (leaf)
            thin_page_unpin(leaf);
        if (leaves % LEAVES_A_TURN == 0)
            co_yield ();
    }
    *n = x.n;
    return 0;
}

CO int thin_next_mapped(struct thin *t, uint64_t block, uint64_t end, uint64_t *next)
{
    uint64_t key = block >> t->chunk_shift, end_key = div_up(end, t->chunk_blocks);
    *next = end;
    for (unsigned leaves = 1;; leaves++) {
        struct thin_page *leaf;
        int rc = thin_tree_seek(&t->map, &key, end_key, &leaf);
        if (rc || !leaf)
            return rc;
        uint64_t stop = min_u64(end_key, thin_leaf_first(leaf) + t->map.leaf_entries);
        while (key < stop && !thin_map_is_mapped(thin_map_at(t, leaf, (struct vchunk){key})))
            key++;
        thin_page_unpin(leaf);
        if (key < stop) {
            *next = max_u64(block, key << t->chunk_shift);
            return 0;
        }
        if (leaves % LEAVES_A_TURN == 0)
            co_yield ();
    }
}

/* ---- walking ------------------------------------------------------------------------------- */

CO int thin_walk(struct thin *t, int (*fn)(const struct thin_chunk_info *c, void *arg), void *arg)
{
    uint64_t key = 0;
    for (;;) {
        struct thin_page *leaf;
        int rc = thin_tree_seek(&t->map, &key, THIN_KEY_MAX, &leaf);
        if (rc || !leaf)
            return rc;
        uint64_t end = thin_leaf_first(leaf) + t->map.leaf_entries;
        for (; key < end && !rc; key++) {
            struct thin_map_entry e = thin_map_at(t, leaf, (struct vchunk){key});
            if (!thin_map_is_mapped(e))
                continue;
            struct thin_chunk_info info = {
                .at = {key},
                .chunk = thin_map_pchunk(e),
                .generation = le32_get(e.fixed->generation_flags) & THIN_GENERATION_MASK,
                .valid_blocks = thin_map_count_valid(e, 0, t->chunk_blocks),
            };
            rc = fn(&info, arg);
        }
        thin_page_unpin(leaf);
        if (rc)
            return rc;
    }
}

/* ---- the audit ----------------------------------------------------------------------------- */

/* One arena as the map uses it. */
struct audit_arena {
    struct hash_node node;
    uint64_t used;
};

struct audit {
    struct thin *t;
    struct thin_audit *out;
    struct hash arenas;
};

static int audit_chunk(const struct thin_chunk_info *c, void *arg)
{
    struct audit *a = arg;
    uint64_t number = pchunk_arena(c->chunk), bit = UINT64_C(1) << pchunk_index(c->chunk);
    struct hash_node *n = hash_find(&a->arenas, number);
    struct audit_arena *arena = n ? container_of(n, struct audit_arena, node) : NULL;
    if (!arena) {
        arena = calloc(1, sizeof(*arena));
        if (!arena)
            return VP_E_NO_MEMORY;
        hash_add(&a->arenas, &arena->node, number);
    }
    a->out->mapped++;
    a->out->doubled += (arena->used & bit) != 0;
    arena->used |= bit;
    return 0;
}

/* Compares one leaf of the space tree; what is equal in both is taken out of the hash. */
static void audit_leaf(struct audit *a, const struct thin_page *leaf)
{
    uint64_t first = thin_leaf_first(leaf);
    for (uint64_t number = first; number < first + leaf->tree->leaf_entries; number++) {
        const struct thin_space_entry_disk *e = (const void *)thin_leaf_entry(leaf, number);
        uint64_t marked = le64_get(e->used), used = 0;
        struct hash_node *n = hash_find(&a->arenas, number);
        if (n) {
            struct audit_arena *arena = container_of(n, struct audit_arena, node);
            used = arena->used;
            hash_del(&a->arenas, n);
            free(arena);
        }
        a->out->leaked += (uint64_t)__builtin_popcountll(marked & ~used);
        a->out->unmarked += (uint64_t)__builtin_popcountll(used & ~marked);
    }
}

static void audit_rest(struct hash_node *n, void *arg)
{
    struct audit *a = arg;
    struct audit_arena *arena = container_of(n, struct audit_arena, node);
    a->out->unmarked += (uint64_t)__builtin_popcountll(arena->used);
    hash_del(&a->arenas, n);
    free(arena);
}

CO int thin_check(struct thin *t, struct thin_audit *out)
{
    struct audit a = {.t = t, .out = out};
    memset(out, 0, sizeof(*out));
    if (!hash_init(&a.arenas, 64))
        return VP_E_NO_MEMORY;
    int rc = thin_walk(t, audit_chunk, &a);
    uint64_t key = 0;
    while (!rc) {
        struct thin_page *leaf;
        rc = thin_tree_seek(&t->space_tree, &key, THIN_KEY_MAX, &leaf);
        if (rc || !leaf)
            break;
        audit_leaf(&a, leaf);
        key = thin_leaf_first(leaf) + t->space_tree.leaf_entries;
        thin_page_unpin(leaf);
    }
    hash_for_each(&a.arenas, audit_rest, &a);
    hash_fini(&a.arenas);
    return rc;
}
