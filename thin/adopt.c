/*
 * Recovered regions, after a crash or a failed overwrite. A block in such a region may have been
 * overwritten at that moment. So its copies may differ from its logged checksum and from each
 * other.
 *
 * A copy that matches the checksum is the truth. Where no copy matches, the first readable one is
 * adopted. All copies are written (GUARD_ADOPT_EQUALISE): the others to be equal, and the adopted
 * copy too, because after a failed flush it may be only in the disk's cache and never leave it. The
 * copies and the new checksum are committed before the block is served. So two reads never
 * disagree, whatever fails later.
 *
 * A disk that is being filled (raid/fill.c) is no copy here. It gets what was adopted when the
 * region is verified as a whole, or when it is filled.
 *
 * Readers do this for the blocks that they read, under their block locks. A background job
 * (thin_resync_step) does it for whole chunks. It keeps writers out of a chunk by
 * thin->resync_chunk. It knows the writers that began after the region was recovered
 * (thin->active). It first lets older writers end.
 */
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/crc.h"
#include "io/guard.h"
#include "thin/thin_impl.h"

/* Half of adopt_buf is the truth so far, half the copy that is looked at. */
enum { PIECE = THIN_ADOPT_BLOCKS };

struct adopt_piece {
    struct raid_group *group;
    uint64_t at_bytes;
    unsigned first, count; /* blocks of the chunk */
    uint32_t crc[PIECE];   /* as logged           */
    bool known[PIECE];     /* a copy was readable */
    bool good[PIECE];      /* … and matches       */
    bool differs[PIECE];   /* copies are not equal */
};

/* Takes one copy of one block into account. */
static void copy_see(struct adopt_piece *p, unsigned i, uint8_t *truth, const uint8_t *copy)
{
    bool good = vp_crc32c(copy, POOL_BLOCK) == p->crc[i];
    if (p->known[i] && memcmp(truth, copy, POOL_BLOCK) != 0)
        p->differs[i] = true;
    if (!p->known[i] || (good && !p->good[i]))
        memcpy(truth, copy, POOL_BLOCK);
    p->known[i] = true;
    p->good[i] |= good;
}

/* Reads one copy of all blocks; one by one when they cannot be read together. */
static CO void copy_read(struct thin *t, struct adopt_piece *p, unsigned copy)
{
    uint8_t *truth = t->adopt_buf, *buf = truth + PIECE * POOL_BLOCK;
    if (raid_copy_is_behind(p->group, copy) && io_guard_on(GUARD_BEHIND_NOT_READ))
        return;
    int all = raid_read_copy(p->group, copy, p->at_bytes, buf, p->count * POOL_BLOCK);
    if (all == VP_E_RAID_DISK_OUT)
        return;
    for (unsigned i = 0; i < p->count; i++) {
        size_t at = (size_t)i * POOL_BLOCK;
        int rc = all ? raid_read_copy(p->group, copy, p->at_bytes + at, buf + at, POOL_BLOCK) : 0;
        if (rc)
            p->differs[i] = true; /* writing it may heal it */
        else
            copy_see(p, i, truth + at, buf + at);
    }
}

static CO int piece_equalise(struct thin *t, struct adopt_piece *p)
{
    struct raid_io io[PIECE];
    unsigned n = 0;
    for (unsigned i = 0; i < p->count; i++)
        if (p->known[i] && (p->differs[i] || !p->good[i]))
            io[n++] = (struct raid_io){
                .group = p->group,
                .at_bytes = p->at_bytes + (uint64_t)i * POOL_BLOCK,
                .buf = t->adopt_buf + (size_t)i * POOL_BLOCK,
                .len = POOL_BLOCK,
                .written = &t->unflushed,
            };
    if (!n || !io_guard_on(GUARD_ADOPT_EQUALISE))
        return 0;
    t->adopt_unsaved = true;
    return raid_write(io, n);
}

/* The checksums of adopted blocks. */
static CO int piece_record(struct thin *t, struct vchunk vchunk, const struct adopt_piece *p)
{
    struct thin_page *leaf;
    int rc = thin_tree_get(&t->map, vchunk.n, false, &leaf);
    if (rc || !leaf)
        return rc;
    struct thin_map_entry e = thin_map_at(t, leaf, vchunk);
    for (unsigned i = 0; i < p->count; i++) {
        if (!p->known[i] || p->good[i] || !thin_map_is_valid(e, p->first + i))
            continue;
        e.crc[p->first + i] =
            le32_make(vp_crc32c(t->adopt_buf + (size_t)i * POOL_BLOCK, POOL_BLOCK));
        figure_add(&t->figures.adopted_blocks, 1);
        t->adopt_unsaved = true;
        thin_leaf_changed(leaf, vchunk.n, false);
    }
    thin_page_unpin(leaf);
    return 0;
}

/* Where the valid blocks of an entry lie that begin at or after *first, and their checksums. */
static int piece_take(struct thin *t, struct thin_map_entry e, unsigned *first, unsigned end,
                      struct adopt_piece *p)
{
    while (*first < end && !thin_map_is_valid(e, *first))
        (*first)++;
    if (*first >= end || !thin_map_is_mapped(e))
        return 0;
    struct pchunk c = thin_map_pchunk(e);
    p->first = *first;
    p->count = (unsigned)min_u64(thin_map_run(e, *first, end), PIECE);
    for (unsigned i = 0; i < p->count; i++)
        p->crc[i] = le32_get(e.crc[*first + i]);
    *first += p->count;
    if (!pool_chunk_locate(t->pool, c, &p->group, &p->at_bytes))
        return VP_E_MAP_BAD;
    p->at_bytes += (uint64_t)p->first * POOL_BLOCK;
    return 0;
}

/* The next run of valid blocks in [*first, end); count 0: none. */
static CO int piece_find(struct thin *t, struct vchunk vchunk, unsigned *first, unsigned end,
                         struct adopt_piece *p)
{
    struct thin_page *leaf;
    memset(p, 0, sizeof(*p));
    int rc = thin_tree_get(&t->map, vchunk.n, false, &leaf);
    if (rc || !leaf)
        return rc;
    rc = piece_take(t, thin_map_at(t, leaf, vchunk), first, end, p);
    thin_page_unpin(leaf);
    return rc;
}

/* CO. Copies that are behind may have been filled up to here. */
static CO int piece_give(struct thin *t, const struct adopt_piece *p)
{
    int rc = 0;
    for (unsigned c = 0; c < raid_copies(p->group); c++) {
        if (!raid_copy_is_behind(p->group, c))
            continue;
        bitmap_set(t->unflushed.word, p->group->disk[c]->index);
        t->adopt_unsaved = true;
        for (unsigned i = 0; i < p->count && !rc; i++)
            if (p->known[i])
                rc = raid_write_copy(p->group, c, p->at_bytes + (uint64_t)i * POOL_BLOCK,
                                     t->adopt_buf + (size_t)i * POOL_BLOCK, POOL_BLOCK);
    }
    return rc == VP_E_RAID_DISK_OUT ? 0 : rc;
}

/* Some copy is not there now, and may be the one that is known. */
static bool may_be_known(const struct raid_group *g)
{
    for (unsigned c = 0; c < raid_copies(g); c++)
        if (g->width > 1 && !raid_disk_is_current(g->disk[c]))
            return true;
    return false;
}

/* Without the commit. Under adopt_lock. `all`: copies that are behind are written, too, and what
 * only a copy may have that does not count now is an error. */
static CO int chunk_adopt(struct thin *t, struct vchunk vchunk, unsigned first, unsigned end,
                          bool all)
{
    struct adopt_piece p;
    int unknown = 0;
    if (!t->adopt_buf)
        t->adopt_buf = aligned_alloc(POOL_BLOCK, (size_t)2 * PIECE * POOL_BLOCK);
    if (!t->adopt_buf)
        return VP_E_NO_MEMORY;
    for (;;) {
        int rc = piece_find(t, vchunk, &first, end, &p);
        if (rc || !p.count)
            return rc ? rc : unknown;
        for (unsigned c = 0; c < raid_copies(p.group); c++)
            copy_read(t, &p, c);
        rc = piece_equalise(t, &p);
        if (!rc)
            rc = piece_record(t, vchunk, &p);
        if (!rc && all)
            rc = piece_give(t, &p);
        if (rc)
            return rc;
        for (unsigned i = 0; i < p.count && all && may_be_known(p.group); i++)
            unknown = p.known[i] ? unknown : VP_E_RAID_NO_COPY;
    }
}

/* Under adopt_lock. */
static CO int adopt_save(struct thin *t)
{
    if (!t->adopt_unsaved)
        return 0;
    int rc = thin_commit(t);
    if (!rc)
        t->adopt_unsaved = false;
    return rc;
}

CO int thin_adopt_locked(struct thin *t, struct vchunk vchunk, unsigned first, unsigned count)
{
    int rc = chunk_adopt(t, vchunk, first, first + count, false);
    return rc ? rc : adopt_save(t);
}

CO int thin_adopt(struct thin *t, struct vchunk vchunk, unsigned first, unsigned count)
{
    co_mutex_lock(&t->adopt_lock);
    int rc = thin_adopt_locked(t, vchunk, first, count);
    co_mutex_unlock(&t->adopt_lock);
    return rc;
}

/* ---- resync -------------------------------------------------------------------------------- */

CO void thin_resync_wait(struct thin *t, struct vchunk vchunk)
{
    while (thin_is_resynced(t, vchunk))
        co_queue_wait(&t->resync_queue, "resync of the chunk");
}

/* Keeps writers out of the chunk, and waits for those inside. */
static CO int resync_chunk(struct thin *t, struct vchunk vchunk)
{
    t->resync_chunk = vchunk;
    while (thin_chunk_is_active(t, vchunk))
        co_queue_wait(&t->resync_queue, "writers of the chunk");
    unsigned use = thin_use_begin(t);
    co_mutex_lock(&t->adopt_lock);
    int rc = chunk_adopt(t, vchunk, 0, t->chunk_blocks, true);
    co_mutex_unlock(&t->adopt_lock);
    thin_use_end(t, use);
    t->resync_chunk.n = UINT64_MAX;
    co_queue_wake_all(&t->resync_queue);
    return rc;
}

static CO int resync_region(struct thin *t, uint64_t region)
{
    uint64_t key = region * THIN_REGION_CHUNKS, end = key + THIN_REGION_CHUNKS;
    int rc = 0, unknown = 0;
    if (t->intents.drain_needed) {
        t->intents.drain_needed = false; /* the next failure sets it again */
        thin_intents_drain(t);
    }
    while (!rc) {
        struct thin_page *leaf;
        rc = thin_tree_seek(&t->map, &key, end, &leaf);
        if (rc || !leaf)
            break;
        uint64_t leaf_end = min_u64(end, thin_leaf_first(leaf) + t->map.leaf_entries);
        for (; key < leaf_end && !rc; key++) {
            if (thin_map_is_mapped(thin_map_at(t, leaf, (struct vchunk){key})))
                rc = resync_chunk(t, (struct vchunk){key});
            if (rc == VP_E_RAID_NO_COPY) { /* the other chunks do not wait for it */
                unknown = rc;
                rc = 0;
            }
        }
        thin_page_unpin(leaf);
    }
    co_mutex_lock(&t->adopt_lock);
    if (!rc)
        rc = adopt_save(t);
    co_mutex_unlock(&t->adopt_lock);
    return rc ? rc : unknown;
}

CO int thin_resync_step(struct thin *t, bool *more)
{
    struct thin_intents *in = &t->intents;
    uint64_t regions = in->words * 64;
    uint64_t r = figure_get(&t->figures.regions_to_resync)
                     ? bitmap_find(in->recovered, regions, t->resync_next, true)
                     : regions;
    *more = false;
    if (r >= regions)
        return 0;
    t->resync_next = r + 1; /* a region that fails stays recovered, and does not hold up others */
    uint64_t failures = in->failures;
    int rc = resync_region(t, r);
    if (!rc && in->failures == failures) { /* else an overwrite may have failed here meanwhile */
        bitmap_clear(in->recovered, r);
        figure_sub(&t->figures.regions_to_resync, 1);
    }
    *more = bitmap_find(in->recovered, regions, t->resync_next, true) < regions;
    return rc;
}
