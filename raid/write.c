/*
 * Writing a group: every member that serves the group gets the data, in windows of operations on
 * the stack.
 *
 * A degraded write is safe to acknowledge only when the member that missed it is known to be out,
 * durably (GUARD_EJECT_BEFORE_ACK). Otherwise that member would come back after a crash with old
 * data, and would be read. So a failing member is ejected before the write returns. A write that
 * finds a member already out of service waits until the ejection is durable.
 *
 * Disks may leave service while operations are in flight. So a member counts as a copy only if it
 * took the write and still serves the group afterwards. A member that is behind takes the write
 * too, but is no copy: nobody could read the data there if it were the only one.
 *
 * The target of a move (raid.h) takes the write as well. Its failure harms nobody, unless it became
 * a member meanwhile.
 */
#include "io/reactor.h"
#include "raid/raid_impl.h"

/* Operations of the pieces of one window, in their order. */
struct write_window {
    struct io_batch batch;
    unsigned ops;
    struct io_op op[RAID_WINDOW];
    uint8_t member[RAID_WINDOW];
    uint8_t piece_ops[RAID_WINDOW]; /* how many a piece has */
};

static void add_piece(struct write_window *w, struct raid_io *io)
{
    struct raid_group *g = io->group;
    raid_check_bounds(g, io->at_bytes, io->len);
    for (unsigned m = 0; m < g->written; m++) {
        if (!raid_disk_serves(g->disk[m], g->width))
            continue;
        struct io_op *op = &w->op[w->ops];
        w->member[w->ops++] = (uint8_t)m;
        io_op_set(op, g->disk[m]->dev, IO_WRITE, g->base_bytes[m] + io->at_bytes, io->buf, io->len,
                  0);
        io_batch_add(&w->batch, op);
    }
}

/* ---- members ------------------------------------------------------------------------------- */

/* A piece of which not each of the members of a mask took the operations [first, end) and still
 * serves. The others are out of service, or leave it now. Then the write may be acknowledged if a
 * member that took it still serves. */
static CO int piece_settle_members(const struct write_window *w, struct raid_group *g,
                                   unsigned first, unsigned end, uint64_t mask)
{
    uint64_t written = 0, failed = 0;
    int fail_rc[RAID_WIDTH_MAX + 1];
    const struct io_dev *dev[RAID_WIDTH_MAX + 1];
    bool counts = false;
    for (unsigned i = first; i < end; i++) {
        unsigned m = w->member[i];
        const struct raid_disk *d = g->disk[m];
        if (w->op[i].dev != d->dev || !(mask >> m & 1))
            continue; /* another device is in its place, so it was out, and is behind */
        dev[m] = d->dev;
        fail_rc[m] = w->op[i].rc;
        *(w->op[i].rc ? &failed : &written) |= UINT64_C(1) << m;
        counts |= !w->op[i].rc && raid_disk_counts(d, g->width);
    }
    if (!counts) /* nobody leaves who has the only copy of what was there before */
        return VP_E_RAID_NO_COPY;
    for (unsigned m = 0; m < g->written; m++) {
        int rc = 0;
        if (failed >> m & 1)
            rc = raid_disk_leave(g->disk[m], dev[m], fail_rc[m], "a write failed");
        else if (mask >> m & 1 && !(written >> m & 1))
            rc = raid_disk_settle(g->disk[m]);
        if (rc)
            return rc;
    }
    for (unsigned m = 0; m < g->written; m++)
        if (written >> m & 1 && raid_disk_counts(g->disk[m], g->width))
            return 0;
    return VP_E_RAID_NO_COPY;
}

static uint64_t members_of(const struct raid_group *g)
{
    return (UINT64_C(1) << g->width) - 1;
}

/* Once the target has taken the place of one of them. */
static uint64_t members_then(const struct raid_group *g)
{
    return (members_of(g) | UINT64_C(1) << raid_target(g)) & ~(UINT64_C(1) << g->target_of);
}

/* ---- the target of a move -------------------------------------------------------------------- */

/* Between two looks at a move that is being recorded. */
#define MOVE_LOOK_NS UINT64_C(200000)

void raid_target_is_lost(struct raid_group *g)
{
    atomic_store(&g->target_lost, true);
}

/* CO. A piece that has settled with rc, as far as members are concerned. */
static CO int piece_settle_target(const struct write_window *w, struct raid_group *g,
                                  unsigned first, unsigned end, int rc)
{
    bool target_has = false;
    for (unsigned i = first; i < end; i++)
        target_has |= w->member[i] == raid_target(g) && !w->op[i].rc &&
                      w->op[i].dev == g->disk[raid_target(g)]->dev &&
                      raid_disk_is_in_service(g->disk[raid_target(g)]);
    if (!rc && target_has)
        return 0;
    if (!io_guard_on(GUARD_TARGET_LOST))
        return rc;
    raid_target_is_lost(g);
    while (atomic_load(&g->move_state) == RAID_MOVE_RECORDS)
        vp_ignore(co_sleep_ns(MOVE_LOOK_NS), "nobody cancels it; it looks again anyway");
    return atomic_load(&g->move_state) == RAID_MOVE_DONE
               ? piece_settle_members(w, g, first, end, members_then(g))
               : rc;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static __attribute__((noinline)) CO int
piece_settle(const struct write_window *w, struct raid_group *g, unsigned first, unsigned end)
{
    int rc = piece_settle_members(w, g, first, end, members_of(g));
    return raid_has_target(g) ? piece_settle_target(w, g, first, end, rc) : rc;
}

/* Evaluates a piece, whose operations are [first, end). */
static inline CO int piece_finish(const struct write_window *w, const struct raid_io *io,
                                  unsigned first, unsigned end)
{
    struct raid_group *g = io->group;
    bool whole = end - first == g->written;
    for (unsigned i = first; i < end; i++) {
        const struct io_op *op = &w->op[i];
        struct raid_disk *d = g->disk[w->member[i]];
        raid_count_write(d, reactor_self_index(), op->rc, io->len, io_op_took_ns(op));
        raid_write_is_done(d);
        raid_write_is_noted(io, d);
        whole &= !op->rc && raid_disk_counts(d, g->width);
    }
    return whole ? 0 : piece_settle(w, g, first, end);
}

/* CO. Metadata: each operation was tried once. */
static CO __attribute__((noinline)) void window_retry(struct write_window *w,
                                                      const struct raid_io *io, unsigned pieces)
{
    struct raid_disk *disk[RAID_WINDOW];
    unsigned next = 0;
    for (unsigned i = 0; i < pieces; i++)
        for (unsigned end = next + w->piece_ops[i]; next < end; next++)
            disk[next] = io[i].group->disk[w->member[next]];
    raid_retry(disk, w->op, w->ops);
}

/* Writes as many pieces as fit into a window; returns their number. */
static CO unsigned write_window(struct raid_io *io, unsigned count, bool metadata, int *first_rc)
{
    struct write_window w;
    unsigned pieces = 0;
    w.ops = 0;
    io_batch_init(&w.batch);
    while (pieces < count && pieces < RAID_WINDOW &&
           w.ops + io[pieces].group->written <= RAID_WINDOW) {
        unsigned before = w.ops;
        add_piece(&w, &io[pieces]);
        w.piece_ops[pieces++] = (uint8_t)(w.ops - before);
    }
    if (io_batch_wait(&w.batch) && metadata)
        window_retry(&w, io, pieces);

    unsigned next = 0; /* each operation has its own result */
    for (unsigned i = 0; i < pieces; i++) {
        io[i].rc = piece_finish(&w, &io[i], next, next + w.piece_ops[i]);
        next += w.piece_ops[i];
        if (io[i].rc && !*first_rc)
            *first_rc = io[i].rc;
    }
    return pieces;
}

static CO int write_pieces(struct raid_io *io, unsigned count, bool metadata)
{
    int first_rc = 0;
    while (count) {
        unsigned n = write_window(io, count, metadata, &first_rc);
        io += n;
        count -= n;
    }
    return first_rc;
}

CO int raid_write(struct raid_io *io, unsigned count)
{
    return write_pieces(io, count, false);
}

CO int raid_write_metadata(struct raid_io *io, unsigned count)
{
    return write_pieces(io, count, true);
}

CO int raid_write_copy(struct raid_group *g, unsigned copy, uint64_t at_bytes, const void *buf,
                       uint32_t len)
{
    VP_VERIFY(copy, <, g->written);
    raid_check_bounds(g, at_bytes, len);
    struct raid_disk *d = g->disk[copy];
    if (!raid_disk_serves(d, g->width))
        return VP_E_RAID_DISK_OUT;
    uint64_t begin_ns = reactor_turn_ns();
    int rc = io_dev_write(d->dev, g->base_bytes[copy] + at_bytes, buf, len, 0);
    raid_figure_write(d, rc, len, reactor_turn_ns() - begin_ns);
    raid_write_is_done(d);
    return rc;
}

CO void raid_discard(struct raid_group *g, uint64_t at_bytes, uint64_t len)
{
    struct io_op op[RAID_WIDTH_MAX];
    struct io_batch batch;
    io_batch_init(&batch);
    raid_check_bounds(g, at_bytes, len);
    for (unsigned m = 0; m < g->width; m++) {
        struct raid_disk *d = g->disk[m];
        if (!raid_disk_serves(d, g->width) || !io_dev_info(d->dev)->can_discard)
            continue;
        io_op_set(&op[m], d->dev, IO_DISCARD, g->base_bytes[m] + at_bytes, NULL, len, 0);
        io_batch_add(&batch, &op[m]);
    }
    vp_ignore(io_batch_wait(&batch), "space not given back is no fault of the data");
}
