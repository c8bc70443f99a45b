/*
 * Filling: a disk that is behind (raid/fill.c) gets what the other copies have of a volume's
 * chunks.
 *
 * The caller holds block locks of the chunks, as a reader. So their valid blocks stay valid where
 * they are, and nothing is pinned while the devices work. Blocks that a crash left unequal are
 * adopted first, as for any reader. Nobody adopts meanwhile (adopt_lock), so their checksums stay
 * as well.
 *
 * A block that cannot be read, in a region that a crash left behind, keeps the disk behind: else
 * what the disk has there, however old, would be adopted one day.
 */
#include <stdlib.h>

#include "thin/thin_impl.h"

struct fill_window {
    unsigned pieces, blocks;
    bool recovered; /* a region that a crash left behind is among them */
    struct raid_io io[RAID_FILL_MAX];
    unsigned copy[RAID_FILL_MAX];
    uint32_t crc[THIN_FILL_BLOCKS];
};

/* The copy of the group that is on the disk and behind; -1: none. */
static int copy_to_fill(const struct raid_group *g, const struct raid_disk *disk)
{
    for (unsigned c = 0; c < raid_copies(g); c++)
        if (g->disk[c] == disk && raid_copy_is_behind(g, c))
            return (int)c;
    return -1;
}

/* VP_E_AGAIN, VP_E_CHECKSUM and VP_E_RAID_NO_COPY are about blocks alone. */
static bool result_count(struct thin_fill_result *out, const struct raid_io *io, bool recovered)
{
    bool is_lost = io->rc == VP_E_CHECKSUM || io->rc == VP_E_RAID_NO_COPY;
    if (!io->rc)
        out->filled_bytes += io->len;
    else if (io->rc == VP_E_AGAIN || (is_lost && recovered))
        out->waits_bytes += io->len;
    else if (io->rc == VP_E_RAID_NO_COPY)
        out->unread_bytes += io->len;
    else if (is_lost)
        out->lost_bytes += io->len;
    else
        return false;
    return true;
}

/* CO. What the window has. Errors that are not about blocks. */
static CO int window_fill(struct fill_window *w, bool compare, struct thin_fill_result *out)
{
    int rc = w->pieces ? raid_fill(w->io, w->copy, w->pieces, compare) : 0;
    if (rc == VP_E_RAID_DISK_OUT)
        return rc;
    for (unsigned i = 0; i < w->pieces; i++)
        if (!result_count(out, &w->io[i], w->recovered))
            return w->io[i].rc;
    w->pieces = w->blocks = 0;
    w->recovered = false;
    return 0;
}

/* Adds a run of valid blocks. */
static void window_add(struct thin *t, struct fill_window *w, struct thin_map_entry e,
                       struct raid_group *g, unsigned copy, uint64_t at_bytes, unsigned first,
                       unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        w->crc[w->blocks + i] = le32_get(e.crc[first + i]);
    w->copy[w->pieces] = copy;
    w->io[w->pieces++] = (struct raid_io){
        .group = g,
        .at_bytes = at_bytes + (uint64_t)first * POOL_BLOCK,
        .buf = t->fill_buf + (size_t)w->blocks * POOL_BLOCK,
        .len = count * POOL_BLOCK,
        .crc = &w->crc[w->blocks],
        .healed = t->config.healed_blocks,
        .written = &t->unflushed,
    };
    w->blocks += count;
}

/* No yield. The runs of valid blocks of a chunk from *first on, as far as the window has room. */
static int window_add_chunk(struct thin *t, struct fill_window *w, struct thin_map_entry e,
                            const struct raid_disk *disk, unsigned *first)
{
    struct pchunk c = thin_map_pchunk(e);
    struct raid_group *g;
    uint64_t at_bytes;
    if (c.n && !pool_chunk_locate(t->pool, c, &g, &at_bytes))
        return VP_E_MAP_BAD;
    int copy = c.n ? copy_to_fill(g, disk) : -1;
    if (copy < 0)
        *first = t->chunk_blocks;
    while (*first < t->chunk_blocks && w->pieces < RAID_FILL_MAX && w->blocks < THIN_FILL_BLOCKS) {
        unsigned run = thin_map_run(e, *first, t->chunk_blocks);
        if (thin_map_is_valid(e, *first)) {
            run = (unsigned)min_u64(run, THIN_FILL_BLOCKS - w->blocks);
            window_add(t, w, e, g, (unsigned)copy, at_bytes, *first, run);
        }
        *first += run;
    }
    return 0;
}

static CO int chunk_fill(struct thin *t, struct fill_window *w, struct vchunk vchunk,
                         const struct raid_disk *disk, bool compare, struct thin_fill_result *out)
{
    bool recovered = thin_intent_is_recovered(t, vchunk);
    int rc = recovered ? thin_adopt_locked(t, vchunk, 0, t->chunk_blocks) : 0;
    for (unsigned first = 0; first < t->chunk_blocks && !rc;) {
        struct thin_page *leaf;
        w->recovered |= recovered;
        rc = thin_tree_get(&t->map, vchunk.n, false, &leaf);
        if (rc || !leaf)
            return rc;
        rc = window_add_chunk(t, w, thin_map_at(t, leaf, vchunk), disk, &first);
        thin_page_unpin(leaf);
        if (!rc && first < t->chunk_blocks)
            rc = window_fill(w, compare, out);
    }
    return rc;
}

CO int thin_fill(struct thin *t, uint64_t block, uint64_t count, const struct raid_disk *disk,
                 bool compare, struct thin_fill_result *out)
{
    struct fill_window w = {0};
    VP_VERIFY_TRUE(is_aligned(block | count, t->chunk_blocks));
    if (!t->fill_buf)
        t->fill_buf = aligned_alloc(POOL_BLOCK, (size_t)THIN_FILL_BLOCKS * POOL_BLOCK);
    int rc = t->fill_buf ? 0 : VP_E_NO_MEMORY;
    co_mutex_lock(&t->adopt_lock);
    for (uint64_t at = block; at < block + count && !rc; at += t->chunk_blocks)
        rc = chunk_fill(t, &w, thin_vchunk_of(t, at), disk, compare, out);
    if (!rc)
        rc = window_fill(&w, compare, out);
    co_mutex_unlock(&t->adopt_lock);
    return rc;
}

void thin_fill_ended(struct thin *t)
{
    free(t->fill_buf);
    t->fill_buf = NULL;
}
