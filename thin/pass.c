/*
 * A pass: the valid blocks of some chunks, with their checksums, in windows for somebody who works
 * on their copies as they are on the disks (fill.c, scrub.c).
 *
 * The caller holds block locks of the chunks, as a reader. So their valid blocks stay valid where
 * they are, and nothing is pinned while the devices work. Blocks that a crash left unequal are
 * adopted first, as for any reader. Nobody adopts meanwhile (adopt_lock), so their checksums stay
 * as well.
 */
#include <stdlib.h>

#include "thin/thin_impl.h"

/* CO. What the window has. */
static CO int window_run(struct thin_pass *p)
{
    int rc = p->pieces ? p->run(p) : 0;
    p->pieces = p->blocks = 0;
    p->recovered = false;
    return rc;
}

/* Adds a run of valid blocks; block number `first` of `vchunk` is its first one. */
static void window_add(struct thin_pass *p, struct vchunk vchunk, struct thin_map_entry e,
                       struct raid_group *g, uint64_t at_bytes, unsigned first, unsigned count)
{
    struct thin *t = p->t;
    for (unsigned i = 0; i < count; i++)
        p->crc[p->blocks + i] = le32_get(e.crc[first + i]);
    p->block[p->pieces] = vchunk.n * t->chunk_blocks + first;
    p->io[p->pieces++] = (struct raid_io){
        .group = g,
        .at_bytes = at_bytes + (uint64_t)first * POOL_BLOCK,
        .buf = t->pass_buf + (size_t)p->blocks * POOL_BLOCK,
        .len = count * POOL_BLOCK,
        .crc = &p->crc[p->blocks],
        .healed = t->config.healed_blocks,
        .written = &t->unflushed,
    };
    p->blocks += count;
}

/* No yield. The runs of valid blocks of a chunk from *first on, as far as the window has room. */
static int window_add_chunk(struct thin_pass *p, struct vchunk vchunk, struct thin_map_entry e,
                            unsigned *first)
{
    unsigned chunk_blocks = p->t->chunk_blocks;
    struct pchunk c = thin_map_pchunk(e);
    struct raid_group *g;
    uint64_t at_bytes;
    if (c.n && !pool_chunk_locate(p->t->pool, c, &g, &at_bytes))
        return VP_E_MAP_BAD;
    if (!c.n || !p->wants(p, g))
        *first = chunk_blocks;
    while (*first < chunk_blocks && p->pieces < THIN_PASS_PIECES && p->blocks < THIN_PASS_BLOCKS) {
        unsigned run = thin_map_run(e, *first, chunk_blocks);
        if (thin_map_is_valid(e, *first)) {
            run = (unsigned)min_u64(run, THIN_PASS_BLOCKS - p->blocks);
            window_add(p, vchunk, e, g, at_bytes, *first, run);
        }
        *first += run;
    }
    return 0;
}

static CO int pass_chunk(struct thin_pass *p, struct vchunk vchunk)
{
    struct thin *t = p->t;
    bool recovered = thin_intent_is_recovered(t, vchunk);
    int rc = recovered ? thin_adopt_locked(t, vchunk, 0, t->chunk_blocks) : 0;
    for (unsigned first = 0; first < t->chunk_blocks && !rc;) {
        struct thin_page *leaf;
        p->recovered |= recovered;
        rc = thin_tree_get(&t->map, vchunk.n, false, &leaf);
        if (rc || !leaf)
            return rc;
        rc = window_add_chunk(p, vchunk, thin_map_at(t, leaf, vchunk), &first);
        thin_page_unpin(leaf);
        if (!rc && first < t->chunk_blocks)
            rc = window_run(p);
    }
    return rc;
}

CO int thin_pass(struct thin_pass *p, uint64_t block, uint64_t count)
{
    struct thin *t = p->t;
    VP_VERIFY_TRUE(is_aligned(block | count, t->chunk_blocks));
    if (!t->pass_buf)
        t->pass_buf = aligned_alloc(POOL_BLOCK, (size_t)THIN_PASS_BLOCKS * POOL_BLOCK);
    int rc = t->pass_buf ? 0 : VP_E_NO_MEMORY;
    unsigned use = thin_use_begin(t);
    co_mutex_lock(&t->adopt_lock);
    for (uint64_t at = block; at < block + count && !rc; at += t->chunk_blocks)
        rc = pass_chunk(p, thin_vchunk_of(t, at));
    if (!rc)
        rc = window_run(p);
    co_mutex_unlock(&t->adopt_lock);
    thin_use_end(t, use);
    return rc;
}

void thin_pass_ended(struct thin *t)
{
    free(t->pass_buf);
    t->pass_buf = NULL;
}
