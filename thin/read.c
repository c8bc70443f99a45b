/*
 * Reading. A request is cut into windows of pieces, and the pieces of a window are read in
 * parallel. Blocks without a valid bit are zeros. Nothing is pinned while the devices work: the
 * caller's block locks keep every block that is read valid, so its chunk cannot be freed, and the
 * checksums are copied.
 */
#include <string.h>

#include "thin/thin_impl.h"

struct read_window {
    unsigned pieces, crcs;
    struct raid_io io[THIN_WINDOW_PIECES];
    uint32_t crc[THIN_WINDOW_BLOCKS];
};

/* Adds a run of valid blocks; it may continue the piece before. */
static void window_add(struct thin *t, struct read_window *w, struct thin_map_entry e,
                       struct raid_group *group, uint64_t at_bytes, unsigned first, unsigned run,
                       uint8_t *buf)
{
    struct raid_io *last = w->pieces ? &w->io[w->pieces - 1] : NULL;
    uint32_t *crc = &w->crc[w->crcs];
    for (unsigned i = 0; i < run; i++)
        crc[i] = le32_get(e.crc[first + i]);
    w->crcs += run;
    if (last && last->group == group && last->at_bytes + last->len == at_bytes &&
        (uint8_t *)last->buf + last->len == buf) {
        last->len += run * POOL_BLOCK;
        return;
    }
    w->io[w->pieces++] = (struct raid_io){
        .group = group,
        .at_bytes = at_bytes,
        .buf = buf,
        .len = run * POOL_BLOCK,
        .crc = crc,
        .healed = t->config.healed_blocks,
        .written = &t->unflushed,
    };
}

/* Adds blocks [first, end) of a chunk; returns how many fitted, or an error. No yield. */
static int window_add_chunk(struct thin *t, struct read_window *w, struct thin_map_entry e,
                            unsigned first, unsigned end, uint8_t *buf)
{
    struct raid_group *group;
    uint64_t at_bytes;
    struct pchunk c = thin_map_pchunk(e);
    if (c.n == 0) {
        memset(buf, 0, (size_t)(end - first) * POOL_BLOCK);
        return (int)(end - first);
    }
    if (!pool_chunk_locate(t->pool, c, &group, &at_bytes))
        return VP_E_MAP_BAD;
    unsigned at = first;
    while (at < end && w->pieces < THIN_WINDOW_PIECES && w->crcs < THIN_WINDOW_BLOCKS) {
        uint8_t *to = buf + (size_t)(at - first) * POOL_BLOCK;
        unsigned run = thin_map_run(e, at, end);
        if (thin_map_is_valid(e, at)) {
            run = (unsigned)min_u64(run, THIN_WINDOW_BLOCKS - w->crcs);
            window_add(t, w, e, group, at_bytes + (uint64_t)at * POOL_BLOCK, at, run, to);
        } else {
            memset(to, 0, (size_t)run * POOL_BLOCK);
        }
        at += run;
    }
    return (int)(at - first);
}

/* Adds what lies in the chunk of `block`; returns how many blocks, or an error. Yields only when
 * the leaf is not in memory, or in a region that a crash left behind. A leaf that is in memory is
 * not pinned: nothing yields while it is looked at. */
static CO int read_chunk(struct thin *t, struct read_window *w, uint64_t block, uint64_t count,
                         uint8_t *buf)
{
    struct vchunk vchunk = thin_vchunk_of(t, block);
    unsigned first = (unsigned)(block & (t->chunk_blocks - 1));
    unsigned end = (unsigned)min_u64(t->chunk_blocks, first + count);
    if (thin_intent_is_recovered(t, vchunk)) {
        int rc = thin_adopt(t, vchunk, first, end - first);
        if (rc)
            return rc;
    }
    struct thin_page *leaf = thin_tree_peek(&t->map, vchunk.n);
    bool in_memory = leaf;
    if (in_memory) {
        t->cache->hits++;
    } else {
        int rc = thin_tree_get(&t->map, vchunk.n, false, &leaf);
        if (rc)
            return rc;
        if (!leaf) {
            memset(buf, 0, (size_t)(end - first) * POOL_BLOCK);
            return (int)(end - first);
        }
    }
    int added = window_add_chunk(t, w, thin_map_at(t, leaf, vchunk), first, end, buf);
    if (!in_memory)
        thin_page_unpin(leaf);
    return added;
}

static __attribute__((always_inline)) inline CO int read_windows(struct thin *t, uint64_t block,
                                                                 uint64_t count, void *buf)
{
    struct read_window w;
    uint8_t *to = buf;
    while (count) {
        w.pieces = w.crcs = 0;
        while (count && w.pieces < THIN_WINDOW_PIECES && w.crcs < THIN_WINDOW_BLOCKS) {
            int n = read_chunk(t, &w, block, count, to);
            if (n < 0)
                return n;
            block += (unsigned)n;
            count -= (unsigned)n;
            to += (size_t)n * POOL_BLOCK;
        }
        int rc = w.pieces ? raid_read(w.io, w.pieces) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

CO int thin_read(struct thin *t, uint64_t block, uint64_t count, void *buf)
{
    if (block > t->size_blocks || count > t->size_blocks - block)
        return VP_E_RANGE;
    unsigned use = thin_use_begin(t);
    int rc = read_windows(t, block, count, buf);
    thin_use_end(t, use);
    return rc;
}
