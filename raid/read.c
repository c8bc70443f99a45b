/*
 * Reading a group: verifying the copy that was chosen (choose.c), falling back to other copies, and
 * healing.
 *
 * The hot path is one operation for each piece, in windows on the stack. raid_recover looks at a
 * piece only when its operation failed or a block does not match its checksum. It reads runs of bad
 * blocks from the other copies, first as a whole, then block by block, and writes what is good over
 * the copies that were bad. A copy that failed to read as a whole may still have any single block.
 * So block by block every copy is asked again, the first one too.
 *
 * The caller keeps writers of these blocks away, but not other readers. Two readers that heal one
 * block at a time would have two writes in flight at one place. So only one reader of a group heals
 * at a time. Other readers only serve, and the next reader finds what they left.
 *
 * A failed read means nothing for its disk as long as the block can be rewritten. A disk that is
 * gone altogether is ejected once another copy has the data.
 */
#include "base/log.h"
#include "io/reactor.h"
#include "raid/raid_impl.h"

/* For those who wait until another reader has healed. */
#define HEAL_LOOK_NS UINT64_C(100000)

unsigned raid_copies(const struct raid_group *g)
{
    return g->profile.kind == RAID_MIRROR ? g->width : 1;
}

bool raid_disk_is_data_only(const struct raid_disk *d)
{
    return atomic_load_explicit(&d->data_only, memory_order_acquire) &&
           !atomic_load_explicit(&d->flush_failed, memory_order_acquire);
}

bool raid_disk_is_read_only(const struct raid_disk *d)
{
    return atomic_load_explicit(&d->data_only, memory_order_acquire) &&
           atomic_load_explicit(&d->flush_failed, memory_order_acquire);
}

bool raid_disk_is_current(const struct raid_disk *d)
{
    return raid_disk_is_in_service(d) && !raid_disk_is_behind(d);
}

bool raid_copy_is_behind(const struct raid_group *g, unsigned copy)
{
    const struct raid_disk *d = g->disk[copy];
    if (copy >= g->width)
        return raid_has_target(g) && raid_disk_is_in_service(d);
    return g->width > 1 && raid_disk_is_in_service(d) && raid_disk_is_behind(d);
}

bool raid_group_is_alive(const struct raid_group *g)
{
    unsigned alive = 0;
    for (unsigned i = 0; i < g->width; i++)
        alive += raid_disk_counts(g->disk[i], g->width);
    return alive >= g->profile.data;
}

bool raid_group_is_in_service(const struct raid_group *g)
{
    unsigned in_service = 0;
    for (unsigned i = 0; i < g->width; i++)
        in_service += raid_disk_is_in_service(g->disk[i]) && raid_disk_counts(g->disk[i], g->width);
    return in_service >= g->profile.data;
}

CO int raid_read_copy(struct raid_group *g, unsigned copy, uint64_t at_bytes, void *buf,
                      uint32_t len)
{
    VP_VERIFY(copy, <, g->width);
    raid_check_bounds(g, at_bytes, len);
    struct raid_disk *d = g->disk[copy];
    if (!raid_disk_serves_reads(d, g->width))
        return VP_E_RAID_DISK_OUT;
    uint64_t begin_ns = reactor_turn_ns();
    int rc = io_dev_read(d->dev, g->base_bytes[copy] + at_bytes, buf, len);
    raid_figure_read(d, rc, len, reactor_turn_ns() - begin_ns);
    return rc;
}

/* ---- verifying ---------------------------------------------------------------------------- */

static bool verifies(const struct raid_io *io)
{
    return io->crc && io_guard_on(GUARD_DATA_CHECKSUM);
}

/* The first block in [from, to) that matches (`want`) or does not; `to` when there is none. */
static uint32_t find_block(const struct raid_io *io, uint32_t from, uint32_t to, bool want)
{
    while (from < to && raid_block_matches(io, from) != want)
        from++;
    return from;
}

static bool run_matches(const struct raid_io *io, uint32_t from, uint32_t to)
{
    return !verifies(io) || find_block(io, from, to, false) == to;
}

/* ---- recovering --------------------------------------------------------------------------- */

/* Which copies of a run were found bad, as a bit mask. A copy that mismatched is bad in every block
 * of the run. A copy that is unreadable has at least one block that cannot be read. */
struct bad_copies {
    uint32_t unreadable, mismatched;
};

static void *block_address(const struct raid_io *io, uint32_t block)
{
    return (uint8_t *)io->buf + (size_t)block * RAID_BLOCK;
}

static void count_healed(const struct raid_io *io, struct raid_disk *d, uint32_t blocks)
{
    figure_add_shared(&d->figures.healed_blocks, blocks);
    if (io->healed)
        figure_add_shared(io->healed, blocks);
}

/* Writes the good run over its bad copies. When that fails, the bad copies stay bad, and the
 * checksum (or the unreadable sector) still says so. A mask of those that were written. */
static CO uint32_t heal_copies(struct raid_io *io, uint32_t from, uint32_t to,
                               struct bad_copies bad)
{
    struct raid_group *g = io->group;
    uint64_t at = io->at_bytes + (uint64_t)from * RAID_BLOCK;
    uint32_t len = (to - from) * RAID_BLOCK, healed = 0;
    for (unsigned c = 0; c < raid_copies(g); c++) {
        struct raid_disk *d = g->disk[c];
        if (!((bad.unreadable | bad.mismatched) >> c & 1) || !raid_disk_serves(d, g->width))
            continue;
        if (bad.mismatched >> c & 1)
            figure_add_shared(&d->figures.checksum_errors, to - from);
        int rc = raid_write_copy(g, c, at, block_address(io, from), len);
        raid_write_is_noted(io, d);
        if (rc)
            vp_warn("disk %u: blocks at byte %llu could not be healed: %s", d->index,
                    (unsigned long long)(g->base_bytes[c] + at), vp_err_text(rc));
        else
            count_healed(io, d, to - from);
        healed |= rc ? 0 : 1U << c;
    }
    return healed;
}

static CO void heal_run(struct raid_io *io, uint32_t from, uint32_t to, struct bad_copies bad)
{
    if (atomic_exchange(&io->group->healing, true))
        return;
    (void)heal_copies(io, from, to, bad);
    atomic_store(&io->group->healing, false);
}

CO uint32_t raid_heal_block(struct raid_io *block, uint32_t unreadable, uint32_t mismatched)
{
    while (atomic_exchange(&block->group->healing, true))
        vp_ignore(co_sleep_ns(HEAL_LOOK_NS), "nobody cancels it; it looks again anyway");
    uint32_t healed = heal_copies(block, 0, 1, (struct bad_copies){unreadable, mismatched});
    atomic_store(&block->group->healing, false);
    return healed;
}

/* Tries every copy not known bad for the run as a whole. 0 when it is good, and healed. */
static CO int recover_from_copies(struct raid_io *io, uint32_t from, uint32_t to,
                                  struct bad_copies *bad)
{
    struct raid_group *g = io->group;
    for (unsigned c = 0; c < raid_copies(g); c++) {
        if ((bad->unreadable | bad->mismatched) >> c & 1)
            continue;
        int rc = raid_read_copy(g, c, io->at_bytes + (uint64_t)from * RAID_BLOCK,
                                block_address(io, from), (to - from) * RAID_BLOCK);
        if (rc == 0 && run_matches(io, from, to)) {
            heal_run(io, from, to, *bad);
            return 0;
        }
        if (rc == 0)
            bad->mismatched |= 1U << c;
        else if (rc != VP_E_RAID_DISK_OUT)
            bad->unreadable |= 1U << c;
    }
    return bad->mismatched ? VP_E_CHECKSUM : VP_E_RAID_NO_COPY;
}

/* Counts a block that could not be healed, at the disk where it was seen. */
static void count_lost_block(const struct raid_io *io, uint32_t mismatched)
{
    for (unsigned c = 0; c < raid_copies(io->group); c++)
        if (mismatched >> c & 1)
            figure_add_shared(&io->group->disk[c]->figures.checksum_errors, 1);
}

/* Recovers a run whose copies in `bad` are known bad. */
static CO int recover_run(struct raid_io *io, uint32_t from, uint32_t to, struct bad_copies bad)
{
    struct bad_copies found = bad;
    int first_rc = recover_from_copies(io, from, to, &found);
    if (first_rc == 0)
        return 0;
    if (to - from == 1) {
        count_lost_block(io, found.mismatched);
        return first_rc;
    }
    /* No copy has the whole run. Each single block may be whole on some copy. */
    first_rc = 0;
    for (uint32_t b = from; b < to; b++) {
        found = (struct bad_copies){.mismatched = bad.mismatched};
        int rc = recover_from_copies(io, b, b + 1, &found);
        if (rc)
            count_lost_block(io, found.mismatched);
        if (rc && !first_rc)
            first_rc = rc;
    }
    return first_rc;
}

/* The disk does not answer any more. It leaves service, since others have the data. A read does not
 * depend on the record of that. */
static void leave_if_gone(struct raid_group *g, int copy, const struct io_dev *dev, int rc)
{
    if (rc == VP_E_IO_NO_DEVICE && raid_disk_is_in_service(g->disk[copy]))
        vp_ignore(raid_disk_leave(g->disk[copy], dev, rc, "the device is gone"),
                  "eject reports by itself, and the data were read from another copy");
}

/* `copy` on `dev` failed with `rc`, or some of its blocks do not match (rc is 0). */
static CO __attribute__((noinline)) int raid_recover(struct raid_io *io, int copy,
                                                     const struct io_dev *dev, int rc)
{
    uint32_t blocks = io->len / RAID_BLOCK;
    struct bad_copies bad = {0};
    if (rc) {
        bad.unreadable = 1U << copy;
        int recovered = recover_run(io, 0, blocks, bad);
        if (recovered == 0)
            leave_if_gone(io->group, copy, dev, rc);
        return recovered;
    }
    bad.mismatched = 1U << copy;
    int first_rc = 0;
    for (uint32_t from = find_block(io, 0, blocks, false); from < blocks;) {
        uint32_t to = find_block(io, from, blocks, true);
        rc = recover_run(io, from, to, bad);
        if (rc && !first_rc)
            first_rc = rc;
        from = find_block(io, to, blocks, false);
    }
    return first_rc;
}

/* ---- reading ------------------------------------------------------------------------------ */

static int choose_copy(const struct raid_group *g, uint64_t at_bytes, unsigned self)
{
    if (g->width > 1)
        return raid_choose_of_mirror(g, at_bytes, self);
    return raid_disk_serves_reads(g->disk[0], 1) ? 0 : -1;
}

/* Up to RAID_WINDOW pieces at once. */
static CO int read_window(struct raid_io *io, unsigned count)
{
    struct io_op op[RAID_WINDOW];
    int8_t copy[RAID_WINDOW];
    struct io_batch batch;
    unsigned self = reactor_self_index();
    io_batch_init(&batch);
    for (unsigned i = 0; i < count; i++) {
        struct raid_group *g = io[i].group;
        raid_check_bounds(g, io[i].at_bytes, io[i].len);
        copy[i] = (int8_t)choose_copy(g, io[i].at_bytes, self);
        if (copy[i] < 0)
            continue;
        io_op_set(&op[i], g->disk[copy[i]]->dev, IO_READ, g->base_bytes[copy[i]] + io[i].at_bytes,
                  io[i].buf, io[i].len, 0);
        io_batch_add(&batch, &op[i]);
    }
    vp_ignore(io_batch_wait(&batch), "each operation's result is looked at below");

    int first_rc = 0;
    for (unsigned i = 0; i < count; i++) {
        io[i].rc = VP_E_RAID_NO_COPY;
        if (copy[i] >= 0) {
            struct raid_disk *d = io[i].group->disk[copy[i]];
            raid_count_read(d, self, op[i].rc, io[i].len, io_op_took_ns(&op[i]));
            if (io[i].group->width > 1)
                raid_choice_ended(d, self, op[i].rc, io_op_took_ns(&op[i]));
            io[i].rc = op[i].rc;
            if (op[i].rc || !run_matches(&io[i], 0, io[i].len / RAID_BLOCK))
                io[i].rc = raid_recover(&io[i], copy[i], op[i].dev, op[i].rc);
        } else if (verifies(&io[i])) {
            io[i].rc = raid_read_behind(&io[i]);
        }
        if (io[i].rc && !first_rc)
            first_rc = io[i].rc;
    }
    return first_rc;
}

CO int raid_read(struct raid_io *io, unsigned count)
{
    int first_rc = 0;
    if (count <= RAID_WINDOW)
        return read_window(io, count);
    while (count) {
        unsigned n = count < RAID_WINDOW ? count : RAID_WINDOW;
        int rc = read_window(io, n);
        if (rc && !first_rc)
            first_rc = rc;
        io += n;
        count -= n;
    }
    return first_rc;
}
