/*
 * Scrubbing: every copy of a block is read and compared with the block's checksum; a copy that is
 * bad gets what a good one has.
 *
 * A disk that is behind is passed over, since it is being filled. Where no other copy is good, one
 * that is behind may be: its checksum tells. A copy counts as healed when it was written and then
 * read back.
 *
 * The caller holds the block locks as a reader, so no block is written meanwhile. Whether a heal is
 * durable is the caller's to see to: raid_io.written says which disks to flush.
 */
#include "base/bytes.h"
#include "io/reactor.h"
#include "raid/raid_impl.h"

#include <assert.h>

static_assert(RAID_WIDTH_MAX <= 32, "a mask has a bit for each copy");

/* The copies of a block that are bad, by how that was seen. */
struct bad_block {
    uint32_t unreadable, mismatched;
};

struct scrub_window {
    struct raid_scrub *s;
    struct raid_io *io;
    unsigned count;
    uint32_t looked; /* a bit for each piece of which some copy was looked at */
    struct bad_block bad[RAID_SCRUB_BLOCKS]; /* of all pieces, one after the other */
};

/* Its disk serves the copy for reading, and has all that it should have. */
static bool copy_counts(const struct raid_group *g, unsigned copy)
{
    return copy < raid_copies(g) && raid_disk_serves_reads(g->disk[copy], g->width) &&
           !raid_copy_is_behind(g, copy);
}

static bool another_counts(const struct raid_group *g, unsigned copy)
{
    for (unsigned c = 0; c < raid_copies(g); c++)
        if (c != copy && copy_counts(g, c))
            return true;
    return false;
}

/* ---- looking --------------------------------------------------------------------------------- */

/* CO. A copy that could not be read as a whole: which of its blocks? False: its disk has left. */
static CO bool blocks_look(struct scrub_window *w, const struct raid_io *io, struct bad_block *bad,
                           unsigned copy)
{
    for (uint32_t b = 0; b < io->len / RAID_BLOCK; b++) {
        struct raid_io block = raid_block_of(io, b);
        int rc = raid_read_copy(io->group, copy, block.at_bytes, block.buf, RAID_BLOCK);
        if (rc == VP_E_RAID_DISK_OUT || rc == VP_E_IO_NO_DEVICE)
            return false;
        w->s->compared_bytes += RAID_BLOCK;
        if (rc)
            bad[b].unreadable |= 1U << copy;
        else if (!raid_block_matches(io, b))
            bad[b].mismatched |= 1U << copy;
    }
    return true;
}

static void blocks_compare(struct scrub_window *w, const struct raid_io *io, struct bad_block *bad,
                           unsigned copy)
{
    w->s->compared_bytes += io->len;
    for (uint32_t b = 0; b < io->len / RAID_BLOCK; b++)
        if (!raid_block_matches(io, b))
            bad[b].mismatched |= 1U << copy;
}

/* CO. Copy number `copy` of each piece that has it. */
static CO void copies_look(struct scrub_window *w, unsigned copy)
{
    struct io_op op[RAID_SCRUB_MAX];
    struct io_batch batch;
    uint32_t asked = 0;
    io_batch_init(&batch);
    for (unsigned i = 0; i < w->count; i++) {
        const struct raid_io *io = &w->io[i];
        const struct raid_group *g = io->group;
        if (!copy_counts(g, copy))
            continue;
        asked |= 1U << i;
        io_op_set(&op[i], g->disk[copy]->dev, IO_READ, g->base_bytes[copy] + io->at_bytes, io->buf,
                  io->len, 0);
        io_batch_add(&batch, &op[i]);
    }
    vp_ignore(io_batch_wait(&batch), "each operation's result is looked at below");
    struct bad_block *bad = w->bad;
    for (unsigned i = 0; i < w->count; bad += w->io[i++].len / RAID_BLOCK) {
        struct raid_io *io = &w->io[i];
        struct raid_disk *d = asked >> i & 1 ? io->group->disk[copy] : NULL;
        if (!d)
            continue;
        raid_count_read(d, reactor_self_index(), op[i].rc, io->len, io_op_took_ns(&op[i]));
        if (op[i].rc == VP_E_IO_NO_DEVICE && another_counts(io->group, copy))
            vp_ignore(raid_disk_leave(d, op[i].dev, op[i].rc, "the device is gone"),
                      "eject reports by itself, and another copy has the data");
        else if (op[i].rc && !blocks_look(w, io, bad, copy))
            continue;
        else if (!op[i].rc)
            blocks_compare(w, io, bad, copy);
        w->looked |= op[i].rc == VP_E_IO_NO_DEVICE ? 0 : 1U << i;
    }
}

/* ---- mending --------------------------------------------------------------------------------- */

/* CO. The block's buffer gets what a copy has that matches. False: there is none. */
static CO bool good_read(struct raid_io *block, const struct bad_block *bad)
{
    const struct raid_group *g = block->group;
    for (unsigned c = 0; c < raid_copies(g); c++) {
        if ((bad->unreadable | bad->mismatched) >> c & 1 || !copy_counts(g, c))
            continue;
        if (!raid_read_copy(block->group, c, block->at_bytes, block->buf, RAID_BLOCK) &&
            raid_block_matches(block, 0))
            return true;
    }
    return raid_read_behind(block) == 0;
}

/* CO. */
static CO bool is_good_now(const struct raid_io *block, unsigned copy)
{
    return !raid_read_copy(block->group, copy, block->at_bytes, block->buf, RAID_BLOCK) &&
           raid_block_matches(block, 0);
}

static CO void block_mend(struct raid_scrub *s, const struct raid_io *io, unsigned piece,
                          uint32_t b, const struct bad_block *bad)
{
    struct raid_io block = raid_block_of(io, b);
    const struct raid_group *g = io->group;
    uint32_t copies = bad->unreadable | bad->mismatched;
    bool lost = !good_read(&block, bad);
    uint32_t written = lost ? 0 : raid_heal_block(&block, bad->unreadable, bad->mismatched);
    for (unsigned c = 0; c < raid_copies(g); c++) {
        if (!(copies >> c & 1))
            continue;
        if (lost && bad->mismatched >> c & 1)
            figure_add_shared(&g->disk[c]->figures.checksum_errors, 1);
        bool out = !copy_counts(g, c); /* it has left meanwhile, so its copy does not count */
        if (out && !lost)
            continue;
        s->found(&(struct raid_finding){.piece = piece,
                                        .block = b,
                                        .disk = g->disk[c]->index,
                                        .unreadable = bad->unreadable >> c & 1,
                                        .state = lost ? RAID_LOST
                                                 : written >> c & 1 && is_good_now(&block, c)
                                                     ? RAID_HEALED
                                                     : RAID_NOT_HEALED},
                 s->arg);
    }
}

CO void raid_scrub(struct raid_scrub *s, struct raid_io *io, unsigned count)
{
    struct scrub_window w = {.s = s, .io = io, .count = count};
    unsigned copies = 0, blocks = 0;
    VP_VERIFY(count, <=, RAID_SCRUB_MAX);
    for (unsigned i = 0; i < count; i++) {
        raid_check_bounds(io[i].group, io[i].at_bytes, io[i].len);
        copies = (unsigned)max_u64(copies, raid_copies(io[i].group));
        blocks += io[i].len / RAID_BLOCK;
    }
    VP_VERIFY(blocks, <=, RAID_SCRUB_BLOCKS);
    for (unsigned c = 0; c < copies; c++)
        copies_look(&w, c);
    const struct bad_block *bad = w.bad;
    for (unsigned i = 0; i < count; i++)
        s->missing_bytes += w.looked >> i & 1 ? 0 : io[i].len;
    for (unsigned i = 0; i < count; i++)
        for (uint32_t b = 0; b < io[i].len / RAID_BLOCK; b++, bad++)
            if (bad->unreadable | bad->mismatched)
                block_mend(s, &io[i], i, b, bad);
}
