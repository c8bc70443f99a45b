/*
 * Discard and write-zeroes: blocks lose their valid bits, and a chunk without valid bits is freed.
 *
 * A chunk that is freed as a whole needs no intent, because nobody writes to it before its release
 * is durable. When only some bits go, a later write to these blocks may reach the disk before the
 * new map does. Then the map after a crash names old checksums for new data. So the region's intent
 * comes first, as for an overwrite.
 */
#include "thin/thin_impl.h"

enum zero_need {
    ZERO_DONE,
    ZERO_NEEDS_CHUNK,
    ZERO_NEEDS_INTENT,
    ZERO_NEEDS_RESYNC,
    ZERO_NEEDS_SPACE,
    ZERO_NEEDS_META, /* room for the pages that become dirty */
};

struct zero_part {
    struct vchunk vchunk;
    unsigned first, count;
    bool keep;
    bool must_go_on;              /* it is what makes room */
    struct thin_page *space_leaf; /* pinned, when not NULL: of … */
    uint64_t arena;
};

/* Does it, or says what is missing (> 0), or an error. No yield. */
static int zero_try(struct thin *t, struct zero_part *z, struct thin_page *leaf)
{
    struct thin_map_entry e = thin_map_at(t, leaf, z->vchunk);
    struct pchunk pchunk = thin_map_pchunk(e);
    if (thin_is_resynced(t, z->vchunk))
        return ZERO_NEEDS_RESYNC;
    if (!pchunk.n) {
        if (!z->keep)
            return ZERO_DONE;
        return thin_has_meta_room(t) && thin_chunk_alloc(t, leaf, z->vchunk) ? ZERO_DONE
                                                                             : ZERO_NEEDS_CHUNK;
    }
    if (!leaf->due && !z->must_go_on && !thin_may_change(t))
        return ZERO_NEEDS_META;
    unsigned clear = thin_map_count_valid(e, z->first, z->count);
    unsigned all = thin_map_count_valid(e, 0, t->chunk_blocks);
    if (clear == all && !z->keep && !thin_chunk_is_active(t, z->vchunk)) {
        if (!z->space_leaf || z->arena != pchunk_arena(pchunk)) {
            z->arena = pchunk_arena(pchunk);
            return ZERO_NEEDS_SPACE;
        }
        return thin_chunk_free(t, leaf, z->vchunk, z->space_leaf);
    }
    if (!clear)
        return ZERO_DONE;
    if (!thin_intent_is_durable(&t->intents, z->vchunk))
        return ZERO_NEEDS_INTENT;
    thin_intent_leave(t, thin_intent_enter(t, z->vchunk));
    figure_sub(&t->figures.valid_blocks, thin_map_set_valid(e, z->first, z->count, false));
    thin_stat_changed(t);
    thin_leaf_changed(leaf, z->vchunk.n, false);
    return ZERO_DONE;
}

static void zero_release(struct zero_part *z)
{
    if (z->space_leaf)
        thin_page_unpin(z->space_leaf);
    z->space_leaf = NULL;
}

static CO int zero_provide(struct thin *t, struct zero_part *z, enum zero_need need)
{
    switch (need) {
    case ZERO_NEEDS_CHUNK:
        return thin_has_meta_room(t) ? thin_space_refill(t) : VP_E_NO_SPACE;
    case ZERO_NEEDS_INTENT:
        return thin_intent_ensure(t, z->vchunk);
    case ZERO_NEEDS_RESYNC:
        thin_resync_wait(t, z->vchunk);
        return 0;
    case ZERO_NEEDS_META:
        zero_release(z);
        int rc = thin_change_wait(t);
        z->must_go_on = rc == VP_E_NO_SPACE;
        return z->must_go_on ? 0 : rc;
    case ZERO_NEEDS_SPACE:
        zero_release(z);
        return thin_tree_get(&t->space_tree, z->arena, true, &z->space_leaf);
    case ZERO_DONE:
        break;
    }
    return 0;
}

/* Everything may change while it waits; it starts again after each wait. */
static CO int zero_chunk(struct thin *t, struct vchunk vchunk, unsigned first, unsigned count,
                         bool keep)
{
    struct zero_part z = {.vchunk = vchunk, .first = first, .count = count, .keep = keep};
    int rc = thin_throttle(t);
    while (!rc) {
        struct thin_page *leaf;
        rc = thin_tree_get(&t->map, vchunk.n, keep, &leaf);
        if (rc || !leaf)
            break;
        rc = zero_try(t, &z, leaf);
        thin_page_unpin(leaf);
        if (rc <= 0)
            break;
        rc = zero_provide(t, &z, (enum zero_need)rc);
    }
    zero_release(&z);
    return rc;
}

CO int thin_chunk_release_unused(struct thin *t, struct vchunk vchunk)
{
    return zero_chunk(t, vchunk, 0, 0, false);
}

/* Moves `block` over chunks for which the map has no page. */
static CO int zero_skip(struct thin *t, uint64_t *block, uint64_t end)
{
    struct vchunk vchunk = thin_vchunk_of(t, *block);
    uint64_t key = vchunk.n;
    struct thin_page *leaf;
    int rc = thin_tree_seek(&t->map, &key, div_up(end, t->chunk_blocks), &leaf);
    if (rc)
        return rc;
    if (!leaf)
        *block = end;
    else
        thin_page_unpin(leaf);
    if (leaf && key > vchunk.n)
        *block = key << t->chunk_shift;
    return 0;
}

static CO int zero_range(struct thin *t, uint64_t block, uint64_t end, bool keep_allocated)
{
    while (block < end) {
        int rc = keep_allocated ? 0 : zero_skip(t, &block, end);
        if (rc || block >= end)
            return rc;
        unsigned first = (unsigned)(block & (t->chunk_blocks - 1));
        unsigned n = (unsigned)min_u64(end - block, t->chunk_blocks - first);
        rc = zero_chunk(t, thin_vchunk_of(t, block), first, n, keep_allocated);
        if (rc)
            return rc;
        block += n;
    }
    return 0;
}

CO int thin_zero(struct thin *t, uint64_t block, uint64_t count, bool keep_allocated)
{
    if (block > t->size_blocks || count > t->size_blocks - block)
        return VP_E_RANGE;
    int rc = zero_range(t, block, block + count, keep_allocated);
    return rc ? rc : thin_keep(t);
}
