/*
 * Writing. A request is cut into windows of parts, one part a chunk. Each part is prepared: its
 * leaf is in memory and pinned, a chunk is allocated where there is none, and the region's intent
 * is durable where valid blocks are overwritten. Then the window's data are written in parallel.
 * Then, part by part, valid bits and checksums change in memory. A commit makes them durable later.
 *
 * From its preparation on the leaf of a part is due (thin_page_enter). So the room that the change
 * will need at the next checkpoint is promised before anything is written. A part that has to wait
 * for a checkpoint ends its window: the parts before it are written first.
 *
 * Two rules keep a chunk from being freed under a writer. The valid blocks that a writer overwrites
 * are locked by it, so they stay valid. A writer that writes the first data into blocks is in
 * thin->active, and the last writer to leave that table frees a chunk that has no valid block.
 */
#include <string.h>

#include "base/crc.h"
#include "thin/thin_impl.h"

enum { EPOCH_NONE = 2 };

struct write_part {
    struct vchunk vchunk;
    unsigned first, count; /* blocks in the chunk                  */
    unsigned io, crc;      /* index of its piece, of its first CRC */
    unsigned epoch;        /* of the change in place, if it is one */
    bool active;
    struct thin_page *leaf; /* pinned */
    struct thin_map_entry entry;
    struct thin_active node;
};

struct write_window {
    unsigned parts, pieces, crcs;
    struct write_part part[THIN_WINDOW_PIECES];
    struct raid_io io[THIN_WINDOW_PIECES];
    uint32_t crc[THIN_WINDOW_BLOCKS];
};

enum part_need {
    PART_READY,
    PART_NEEDS_CHUNK,
    PART_NEEDS_INTENT,
    PART_NEEDS_RESYNC,
    PART_NEEDS_META,   /* room for the pages that an overwrite makes dirty */
    PART_NEEDS_GROWTH, /* room for more metadata than there are            */
};
enum { WINDOW_ENDS = 1 }; /* the next part has to wait for a checkpoint, which holds nothing */

/* Says what is missing, or registers the part as under way. No yield. */
static enum part_need part_enter(struct thin *t, struct write_part *p)
{
    bool recovered = thin_intent_is_recovered(t, p->vchunk);
    if (recovered && thin_is_resynced(t, p->vchunk))
        return PART_NEEDS_RESYNC;
    unsigned valid = 0;
    p->entry = thin_map_at(t, p->leaf, p->vchunk);
    if (!p->leaf->due && !thin_may_change(t))
        return PART_NEEDS_META;
    if (thin_map_is_mapped(p->entry))
        valid = thin_map_count_valid(p->entry, p->first, p->count);
    else if (!thin_has_meta_room(t))
        return PART_NEEDS_GROWTH;
    else if (!thin_chunk_alloc(t, p->leaf, p->vchunk))
        return PART_NEEDS_CHUNK;
    p->epoch = EPOCH_NONE;
    if (valid) {
        if (!thin_intent_is_durable(&t->intents, p->vchunk))
            return PART_NEEDS_INTENT;
        p->epoch = thin_intent_enter(t, p->vchunk);
    }
    p->active = valid < p->count || recovered;
    if (p->active)
        hash_add(&t->active, &p->node.node, p->vchunk.n);
    thin_page_enter(p->leaf);
    return PART_READY;
}

static CO int growth_provide(struct thin *t)
{
    int rc = pool_checkpoint(t->pool);
    return rc ? rc : thin_has_meta_room(t) ? 0 : VP_E_NO_SPACE;
}

static CO int part_provide(struct thin *t, struct vchunk vchunk, enum part_need need)
{
    switch (need) {
    case PART_NEEDS_META:
        return thin_change_wait(t);
    case PART_NEEDS_GROWTH:
        return growth_provide(t);
    case PART_NEEDS_CHUNK:
        return thin_space_refill(t);
    case PART_NEEDS_INTENT:
        return thin_intent_ensure(t, vchunk);
    case PART_NEEDS_RESYNC:
        thin_resync_wait(t, vchunk);
        return 0;
    case PART_READY:
        break;
    }
    return 0;
}

/* Everything may change while it waits; it starts again after each wait. Nobody waits for a
 * checkpoint with parts that are prepared: their pages stay due, so there might never be room. */
static CO int part_prepare(struct thin *t, struct write_part *p, bool is_first)
{
    for (;;) {
        int rc = thin_tree_get(&t->map, p->vchunk.n, true, &p->leaf);
        if (rc)
            return rc;
        enum part_need need = part_enter(t, p);
        if (need == PART_READY)
            return 0;
        thin_page_unpin(p->leaf);
        if (!is_first && (need == PART_NEEDS_META || need == PART_NEEDS_GROWTH))
            return WINDOW_ENDS;
        rc = part_provide(t, p->vchunk, need);
        if (rc)
            return rc;
    }
}

/* The part ends with rc: what it wrote becomes visible, or it failed. No yield. */
static void part_leave(struct thin *t, const struct write_window *w, struct write_part *p, int rc)
{
    struct thin_map_entry e = p->entry;
    if (!rc) {
        unsigned fresh = thin_map_set_valid(e, p->first, p->count, true);
        if (fresh) {
            figure_add(&t->figures.valid_blocks, fresh);
            thin_stat_changed(t);
        }
        for (unsigned i = 0; i < p->count; i++)
            e.crc[p->first + i] = le32_make(w->crc[p->crc + i]);
        e.fixed->generation_flags = le32_make(t->generation & THIN_GENERATION_MASK);
        thin_leaf_changed(p->leaf, p->vchunk.n, false);
    }
    thin_page_leave(p->leaf);
    thin_page_unpin(p->leaf);
    if (p->epoch != EPOCH_NONE)
        thin_intent_leave(t, p->epoch);
    if (p->active) {
        hash_del(&t->active, &p->node.node);
        if (thin_is_resynced(t, p->vchunk))
            co_queue_wake_all(&t->resync_queue);
    }
}

/* Adds the part's data to the window's pieces. */
static int window_add(struct thin *t, struct write_window *w, struct write_part *p,
                      const uint8_t *buf)
{
    struct raid_io *last = w->pieces ? &w->io[w->pieces - 1] : NULL;
    struct raid_group *group;
    uint64_t at;
    if (!pool_chunk_locate(t->pool, thin_map_pchunk(p->entry), &group, &at))
        return VP_E_MAP_BAD;
    at += (uint64_t)p->first * POOL_BLOCK;
    p->crc = w->crcs;
    for (unsigned i = 0; i < p->count; i++)
        w->crc[w->crcs++] = vp_crc32c(buf + (size_t)i * POOL_BLOCK, POOL_BLOCK);
    if (last && last->group == group && last->at_bytes + last->len == at) {
        last->len += p->count * POOL_BLOCK; /* the parts of a window follow each other in memory */
    } else {
        w->io[w->pieces++] = (struct raid_io){
            .group = group,
            .at_bytes = at,
            .buf = (void *)(uintptr_t)buf,
            .len = p->count * POOL_BLOCK,
            .written = &t->unflushed,
        };
    }
    p->io = w->pieces - 1;
    return 0;
}

/* Prepares one more part; WINDOW_ENDS or an error leave the window as it was. */
static CO int window_prepare(struct thin *t, struct write_window *w, uint64_t block, unsigned count,
                             const uint8_t *buf)
{
    struct write_part *p = &w->part[w->parts];
    p->vchunk = thin_vchunk_of(t, block);
    p->first = (unsigned)(block & (t->chunk_blocks - 1));
    p->count = count;
    int rc = part_prepare(t, p, w->parts == 0);
    if (rc)
        return rc;
    rc = window_add(t, w, p, buf);
    if (rc) { /* a damaged map */
        part_leave(t, w, p, rc);
        return rc;
    }
    w->parts++;
    return 0;
}

/* Some parts failed. */
static __attribute__((noinline)) CO void window_fail(struct thin *t, struct write_window *w)
{
    for (unsigned i = 0; i < w->parts; i++)
        if (w->io[w->part[i].io].rc && w->part[i].epoch != EPOCH_NONE)
            thin_intent_failed(t, w->part[i].vchunk);
    for (unsigned i = 0; i < w->parts; i++)
        part_leave(t, w, &w->part[i], w->io[w->part[i].io].rc);
    for (unsigned i = 0; i < w->parts; i++)
        if (w->io[w->part[i].io].rc)
            vp_ignore(thin_chunk_release_unused(t, w->part[i].vchunk),
                      "the write's own error counts; the chunk stays mapped without data");
}

/* Writes the window's data and makes them visible. Others change other blocks meanwhile. */
static CO int window_write(struct thin *t, struct write_window *w)
{
    int rc = w->pieces ? raid_write(w->io, w->pieces) : 0;
    if (rc)
        window_fail(t, w);
    for (unsigned i = 0; !rc && i < w->parts; i++)
        part_leave(t, w, &w->part[i], 0);
    return rc;
}

static inline CO int write_windows(struct thin *t, uint64_t block, uint64_t count, const void *buf)
{
    struct write_window w;
    const uint8_t *from = buf;
    while (count) {
        int rc = thin_throttle(t);
        unsigned use = thin_use_begin(t);
        w.parts = w.pieces = w.crcs = 0;
        while (!rc && count && w.parts < THIN_WINDOW_PIECES && w.crcs < THIN_WINDOW_BLOCKS) {
            uint64_t room = min_u64(t->chunk_blocks - (block & (t->chunk_blocks - 1)),
                                    THIN_WINDOW_BLOCKS - w.crcs);
            unsigned n = (unsigned)min_u64(count, room);
            rc = window_prepare(t, &w, block, n, from);
            if (rc)
                break;
            block += n;
            count -= n;
            from += (size_t)n * POOL_BLOCK;
        }
        int write_rc = window_write(t, &w);
        thin_use_end(t, use);
        if (rc < 0 || write_rc)
            return rc < 0 ? rc : write_rc;
    }
    return 0;
}

CO int thin_write(struct thin *t, uint64_t block, uint64_t count, const void *buf)
{
    if (block > t->size_blocks || count > t->size_blocks - block)
        return VP_E_RANGE;
    int rc = write_windows(t, block, count, buf);
    return rc ? rc : thin_keep(t);
}
