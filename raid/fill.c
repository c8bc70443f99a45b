/*
 * Filling a disk that is behind: it gets what the other copies of its mirrors have.
 *
 * A disk that was away, or a new one in the place of another, is in service at once for writes. So
 * from that moment on it misses nothing. What was written before is copied piece by piece. Each
 * block is verified by its checksum on the way, so a bad block is healed from a third copy, or
 * named, and never copied. A disk that was away has most blocks already: with `compare` it is read
 * first, and only what differs is written.
 *
 * Where no other copy counts, because the disk that had it left while this one was filled, a copy
 * that is behind may have a block all the same. Its checksum tells. So both disks get back what
 * either has, and what neither has waits for another disk.
 *
 * The target of a move (raid.h) is filled in the same way. When a write to it fails, it is lost,
 * and its disk stays as it is.
 *
 * The caller holds the block locks as a reader. Other readers do not read the copy, and so do not
 * heal it meanwhile.
 */
#include "io/reactor.h"
#include "raid/raid_impl.h"

#include <string.h>

static bool piece_matches(const struct raid_io *io)
{
    for (uint32_t b = 0; b < io->len / RAID_BLOCK; b++)
        if (!raid_block_matches(io, b))
            return false;
    return true;
}

/* ---- the copy as it is ---------------------------------------------------------------------- */

/* CO. A bit for each piece that the copy has already. */
static CO uint32_t copies_compare(struct raid_io *io, const unsigned *copy, unsigned count)
{
    struct io_op op[RAID_FILL_MAX];
    struct io_batch batch;
    uint32_t right = 0;
    io_batch_init(&batch);
    for (unsigned i = 0; i < count; i++) {
        struct raid_group *g = io[i].group;
        io_op_set(&op[i], g->disk[copy[i]]->dev, IO_READ, g->base_bytes[copy[i]] + io[i].at_bytes,
                  io[i].buf, io[i].len, 0);
        io_batch_add(&batch, &op[i]);
    }
    vp_ignore(io_batch_wait(&batch), "what cannot be read is written");
    for (unsigned i = 0; i < count; i++) {
        struct raid_disk *d = io[i].group->disk[copy[i]];
        raid_count_read(d, reactor_self_index(), op[i].rc, io[i].len, io_op_took_ns(&op[i]));
        if (!op[i].rc && piece_matches(&io[i]))
            right |= 1U << i;
    }
    return right;
}

/* ---- what the others have ------------------------------------------------------------------- */

/* CO. One block. */
static CO int block_read_behind(struct raid_io *block)
{
    struct raid_group *g = block->group;
    for (unsigned c = 0; c < raid_copies(g); c++) {
        if (!raid_copy_is_behind(g, c))
            continue;
        int rc = io_dev_read(g->disk[c]->dev, g->base_bytes[c] + block->at_bytes, block->buf,
                             RAID_BLOCK);
        if (!rc && piece_matches(block))
            return 0;
    }
    return VP_E_RAID_NO_COPY;
}

CO int raid_read_behind(struct raid_io *io)
{
    int first_rc = 0;
    for (uint32_t b = 0; b < io->len / RAID_BLOCK; b++) {
        struct raid_io block = raid_block_of(io, b);
        int rc = block_read_behind(&block);
        first_rc = first_rc ? first_rc : rc;
    }
    return first_rc;
}

static uint32_t copies_but(const struct raid_group *g, unsigned copy)
{
    return ((1U << raid_copies(g)) - 1) & ~(1U << copy);
}

/* Some copy is out of service that may have what the others lack, and may come. */
static bool may_come(const struct raid_group *g)
{
    for (unsigned c = 0; c < raid_copies(g); c++)
        if (!raid_disk_is_in_service(g->disk[c]))
            return true;
    return false;
}

/* CO. A block that no copy has which counts, but one that is behind may have. */
static CO int block_rescue(struct raid_io *block, unsigned copy, int lost, bool was_alive)
{
    struct raid_group *g = block->group;
    if (block_read_behind(block) == 0) {
        (void)raid_heal_block(block, copies_but(g, copy), 0);
        return 0;
    }
    return (was_alive && raid_group_is_alive(g)) || !may_come(g) ? lost : VP_E_AGAIN;
}

/* CO. The copy failed a write. A disk that does so leaves, unless it is only a target. */
static CO void copy_failed(struct raid_group *g, unsigned copy, const struct io_dev *dev, int rc)
{
    if (copy == raid_target(g))
        raid_target_is_lost(g);
    else
        vp_ignore(raid_disk_leave(g->disk[copy], dev, rc, "a write failed"),
                  "eject reports by itself, and no data depend on this disk");
}

/* CO. */
static CO int block_write(const struct raid_io *block, unsigned copy)
{
    struct raid_disk *d = block->group->disk[copy];
    const struct io_dev *dev = d->dev;
    int rc = raid_write_copy(block->group, copy, block->at_bytes, block->buf, RAID_BLOCK);
    raid_write_is_noted(block, d);
    if (rc && rc != VP_E_RAID_DISK_OUT)
        copy_failed(block->group, copy, dev, rc);
    return rc;
}

/* CO. A block that is wrong everywhere is as wrong in its new place: what was there before must not
 * show. */
static CO void block_move_raw(const struct raid_io *block, unsigned copy)
{
    struct raid_group *g = block->group;
    int rc = VP_E_RAID_NO_COPY;
    for (unsigned c = 0; rc && c < raid_copies(g); c++)
        rc = raid_read_copy(g, c, block->at_bytes, block->buf, RAID_BLOCK);
    if (rc)
        memset(block->buf, 0, RAID_BLOCK);
    vp_ignore(block_write(block, copy), "a target that fails a write is lost");
}

/* What keeps a block from being lost for good goes before what says that it is lost. */
static unsigned rank_of(int rc)
{
    return !rc                       ? 0
           : rc == VP_E_CHECKSUM     ? 1
           : rc == VP_E_RAID_NO_COPY ? 2
           : rc == VP_E_AGAIN        ? 3
                                     : 4;
}

/* CO. Block by block; the error that says most. */
static CO int piece_fill_blocks(const struct raid_io *io, unsigned copy)
{
    int worst_rc = 0;
    for (uint32_t b = 0; b < io->len / RAID_BLOCK; b++) {
        struct raid_io block = raid_block_of(io, b);
        bool was_alive = raid_group_is_alive(io->group);
        int rc = raid_read(&block, 1);
        if (rc)
            rc = block_rescue(&block, copy, rc, was_alive);
        if (rc == VP_E_CHECKSUM && copy == raid_target(io->group))
            block_move_raw(&block, copy);
        if (!rc)
            rc = block_write(&block, copy);
        worst_rc = rank_of(rc) > rank_of(worst_rc) ? rc : worst_rc;
    }
    return worst_rc;
}

/* CO. A piece that could be read as a whole is written as a whole. */
static CO void copies_write(struct raid_io *io, const unsigned *copy, unsigned count, uint32_t todo)
{
    struct io_op op[RAID_FILL_MAX];
    struct io_batch batch;
    io_batch_init(&batch);
    for (unsigned i = 0; i < count; i++) {
        struct raid_group *g = io[i].group;
        if (!(todo >> i & 1) || io[i].rc)
            continue;
        if (!raid_copy_is_behind(g, copy[i])) {
            io[i].rc = VP_E_RAID_DISK_OUT;
            continue;
        }
        io_op_set(&op[i], g->disk[copy[i]]->dev, IO_WRITE, g->base_bytes[copy[i]] + io[i].at_bytes,
                  io[i].buf, io[i].len, 0);
        io_batch_add(&batch, &op[i]);
    }
    vp_ignore(io_batch_wait(&batch), "each operation's result is looked at below");
    for (unsigned i = 0; i < count; i++) {
        struct raid_disk *d = io[i].group->disk[copy[i]];
        if (!(todo >> i & 1) || io[i].rc)
            continue;
        raid_count_write(d, reactor_self_index(), op[i].rc, io[i].len, io_op_took_ns(&op[i]));
        raid_write_is_done(d);
        raid_write_is_noted(&io[i], d);
        io[i].rc = op[i].rc;
        if (op[i].rc)
            copy_failed(io[i].group, copy[i], op[i].dev, op[i].rc);
    }
}

CO int raid_fill(struct raid_io *io, const unsigned *copy, unsigned count, bool compare)
{
    VP_VERIFY(count, <=, RAID_FILL_MAX);
    uint32_t todo = (1U << count) - 1;
    for (unsigned i = 0; i < count; i++) {
        VP_VERIFY(copy[i], <, io[i].group->written);
        raid_check_bounds(io[i].group, io[i].at_bytes, io[i].len);
        io[i].rc = 0;
        if (!raid_copy_is_behind(io[i].group, copy[i]))
            return VP_E_RAID_DISK_OUT;
    }
    if (compare)
        todo &= ~copies_compare(io, copy, count);

    struct raid_io read[RAID_FILL_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++)
        if (todo >> i & 1)
            read[n++] = io[i];
    if (!n)
        return 0;
    vp_ignore(raid_read(read, n), "each piece has its own result");
    n = 0;
    for (unsigned i = 0; i < count; i++)
        if (todo >> i & 1)
            io[i].rc = read[n++].rc;
    uint32_t whole = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!(todo >> i & 1))
            continue;
        if (io[i].rc)
            io[i].rc = piece_fill_blocks(&io[i], copy[i]);
        else
            whole |= 1U << i;
    }
    copies_write(io, copy, count, whole);
    for (unsigned i = 0; i < count; i++)
        if (io[i].rc)
            return io[i].rc;
    return 0;
}
