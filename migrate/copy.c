/*
 * The copy of a volume, also while its clients write: several coroutines, each with one buffer,
 * take piece after piece, read it whole, and write the runs in it that are not zero.
 *
 *     the scan     what is allocated, from the first byte to the last
 *     a round      what has become dirty, from the first block to the last; again and again
 *
 * 1. A change marks its blocks dirty before it begins, under their exclusive lock (volume_marks).
 *    Whoever copies blocks first makes them clean, and then reads them under their shared lock. So
 *    a change is in what was read, or its blocks are dirty (GUARD_MOVE_MARKS_CHANGES,
 *    GUARD_MOVE_CLEARS_FIRST).
 * 2. The scan asks without locks what is allocated, and passes over what is dirty: a round copies
 *    that. So blocks that are often written are copied late, and a hole that has just got data is
 *    not missed.
 * 3. Whoever takes a piece moves the cursor past it without a yield in between. A round begins
 *    when all pieces of the scan, or of the round before, have been written (copy_round_begin). So
 *    no block is copied twice at the same time, and the older copy never lands last.
 * 4. What a mirror writes (mirror.c) and a piece do not meet. A change is not mirrored while a
 *    piece with its blocks is under way, and a piece is not written while a write of the mirror is
 *    late.
 * 5. Where the scan copies, the target is a hole. A round writes over what the scan or an earlier
 *    round has written.
 *
 * 6. Where the target is not reached any more, nobody knows whether what was under way has landed.
 *    Those blocks are dirty again (GUARD_MOVE_LOST_IS_DIRTY), so a round copies them, with their
 *    zeros, once the target is reached.
 *
 * Tested by tests/unit/migrate/ and by the simulator's moves.
 */
#include "base/verify.h"
#include "io/buffer.h"
#include "io/guard.h"
#include "migrate/migrate_impl.h"

#define COPY_PIECE_FROZEN_BYTES (UINT64_C(1) << 20)
#define COPY_PIECE_LIVE_BYTES   (UINT64_C(64) << 10)
#define COPY_WORKERS            4U
#define PIECE_COST_BYTES        (UINT64_C(8) << 10) /* a piece costs time as so many bytes do */

void copy_init(struct copy *c, struct volume *from, const struct migrate_peer *to)
{
    *c = (struct copy){.from = from,
                       .to = *to,
                       .size_bytes = volume_size(from),
                       .piece_bytes = COPY_PIECE_FROZEN_BYTES,
                       .worker_count = COPY_WORKERS};
    co_mutex_init(&c->lock);
    list_init(&c->flying);
}

void copy_fini(struct copy *c)
{
    VP_VERIFY_TRUE(!c->tracked);
    dirty_fini(&c->dirty);
    dirty_fini(&c->unchecked);
}

void copy_pace_full(struct copy *c)
{
    c->piece_bytes = c->tracked ? COPY_PIECE_LIVE_BYTES : COPY_PIECE_FROZEN_BYTES;
    c->worker_count = COPY_WORKERS;
    c->rest_ns = 0;
}

static uint64_t copy_blocks(const struct copy *c)
{
    return div_up(c->size_bytes, COPY_BLOCK);
}

/* ---- tracking ----------------------------------------------------------------------------- */

static void change_mark(void *copy, uint64_t block, uint64_t count)
{
    struct copy *c = copy;
    uint64_t before = c->dirty.count;
    if (io_guard_on(GUARD_MOVE_MARKS_CHANGES))
        dirty_mark(&c->dirty, block, count);
    c->marked_blocks = c->dirty.count - before;
    c->dirtied_blocks += c->marked_blocks;
}

int copy_track(void *copy)
{
    struct copy *c = copy;
    const struct volume_marks marks = {change_mark, mirror_change_begin, mirror_change_end, c};
    int rc = dirty_init(&c->dirty, copy_blocks(c), DIRTY_LEAVES_MAX);
    if (!rc && c->checks)
        rc = dirty_init(&c->unchecked, copy_blocks(c), DIRTY_LEAVES_MAX);
    if (rc)
        return rc;
    c->round_block = copy_blocks(c); /* none has begun */
    c->tracked = true;
    copy_pace_full(c);
    volume_marks_set(c->from, &marks);
    return 0;
}

int copy_untrack(void *copy)
{
    struct copy *c = copy;
    if (!c->tracked)
        return 0;
    VP_VERIFY_TRUE(!c->mirror || mirror_is_quiet(c->mirror));
    volume_marks_set(c->from, NULL);
    dirty_fini(&c->dirty);
    dirty_fini(&c->unchecked);
    c->tracked = c->checks = false;
    return 0;
}

int copy_look(void *copy)
{
    struct copy *c = copy;
    const struct mirror *m = c->mirror;
    uint64_t mirrored = m ? min_u64(mirror_blocks(m), c->dirty.count) : 0;
    c->seen = (struct copy_view){.dirty_bytes = (c->dirty.count - mirrored) * COPY_BLOCK,
                                 .unchecked_bytes = c->unchecked.count * COPY_BLOCK,
                                 .dirtied_bytes = c->dirtied_blocks * COPY_BLOCK,
                                 .mirrored_bytes = m ? m->mirrored_bytes : 0,
                                 .stops = m ? m->stops : 0,
                                 .mirrors = m && m->on,
                                 .late = m && m->late > 0 && io_guard_on(GUARD_MOVE_AWAITS_LATE),
                                 .lost = c->lost};
    return 0;
}

/* ---- pieces ------------------------------------------------------------------------------- */

/* Blocks that are being copied, in the frame of a worker. */
struct piece {
    struct list link;
    uint64_t block, count; /* count 0: there is none */
    bool fresh;            /* the target is a hole there */
};

bool copy_is_flying(const struct copy *c, uint64_t block, uint64_t count)
{
    const struct piece *p;
    list_for_each (p, &c->flying, link)
        if (block < p->block + p->count && p->block < block + count)
            return true;
    return false;
}

bool copy_scan_is_done(const struct copy *c)
{
    return c->at_bytes == c->size_bytes;
}

int copy_round_begin(void *copy)
{
    struct copy *c = copy;
    VP_VERIFY_TRUE(copy_scan_is_done(c));
    VP_VERIFY_TRUE(list_empty(&c->flying)); /* 3 */
    dirty_pass_begin(&c->dirty);
    c->round_block = 0;
    return 0;
}

bool copy_round_is_done(const struct copy *c)
{
    return c->round_block == copy_blocks(c);
}

/* From at_bytes on, in an extent with data: passes over what is dirty. Else what is clean. */
static void scan_take(struct copy *c, uint64_t end, struct piece *p)
{
    uint64_t block = c->at_bytes / COPY_BLOCK;
    uint64_t count = min_u64(div_up(end, COPY_BLOCK) - block, c->piece_bytes / COPY_BLOCK);
    bool is_dirty = false;
    if (c->tracked)
        count = dirty_run(&c->dirty, block, count, &is_dirty);
    if (!is_dirty)
        *p = (struct piece){.block = block, .count = count, .fresh = true};
    c->at_bytes = min_u64((block + count) * COPY_BLOCK, c->size_bytes);
}

/* The next piece of the extents that are known. Holes are passed over. */
static void scan_next(struct copy *c, struct piece *p)
{
    while (!p->count && c->extent_next < c->extent_count) {
        const struct volume_extent *e = &c->extent[c->extent_next];
        uint64_t end = e->offset + e->len;
        if (e->hole || e->zero || c->at_bytes >= end) {
            c->at_bytes = max_u64(c->at_bytes, end);
            c->extent_next++;
        } else {
            scan_take(c, end, p);
        }
    }
}

static CO int scan_load(struct copy *c)
{
    c->extent_next = c->extent_count = 0;
    return volume_beside_extents(c->from, c->at_bytes, c->size_bytes - c->at_bytes, c->extent,
                                 COPY_EXTENTS, &c->extent_count);
}

/* 3: what the scan has taken is written. */
static void round_verify(const struct copy *c)
{
    const struct piece *p;
    list_for_each (p, &c->flying, link)
        VP_VERIFY_TRUE(!p->fresh);
}

static void check_next(struct copy *c, struct piece *p)
{
    p->count = dirty_take(&c->unchecked, &c->round_block, c->piece_bytes / COPY_BLOCK, &p->block);
}

static void round_next(struct copy *c, struct piece *p)
{
    round_verify(c);
    p->count = dirty_take(&c->dirty, &c->round_block, c->piece_bytes / COPY_BLOCK, &p->block);
    if (p->count && !io_guard_on(GUARD_MOVE_CLEARS_FIRST))
        dirty_mark(&c->dirty, p->block, p->count);
}

static CO int piece_find(struct copy *c, struct piece *p)
{
    int rc = 0;
    while (!rc && !c->rc && !c->lost && !p->count && c->left_bytes) {
        if (!copy_scan_is_done(c))
            scan_next(c, p);
        if (!p->count && !copy_scan_is_done(c)) {
            rc = scan_load(c);
        } else if (!p->count) {
            if (c->tracked && !copy_round_is_done(c))
                (c->checking ? check_next : round_next)(c, p);
            break;
        }
    }
    return rc;
}

/* Takes the next piece of this step: from now on it flies. */
static CO int piece_take(struct copy *c, struct piece *p)
{
    *p = (struct piece){0};
    co_mutex_lock(&c->lock);
    int rc = piece_find(c, p);
    c->left_bytes -= min_u64(p->count * COPY_BLOCK, c->left_bytes);
    if (p->count && !c->checking)
        list_add_tail(&c->flying, &p->link);
    co_mutex_unlock(&c->lock);
    return rc;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* The length of the run of blocks at `buf` that are all zero, or all not. */
static uint64_t run_length(const uint8_t *buf, uint64_t count, bool *zero)
{
    uint64_t n = 1;
    *zero = bytes_are_zero(buf, COPY_BLOCK);
    while (n < count && bytes_are_zero(buf + n * COPY_BLOCK, COPY_BLOCK) == *zero)
        n++;
    return n;
}

/* One run. The last block of a volume may be short. */
static CO int run_write(struct copy *c, uint64_t block, uint64_t count, const uint8_t *buf,
                        bool zero, bool mirrored)
{
    const struct migrate_peer_ops *to = c->to.ops;
    uint64_t at = block * COPY_BLOCK, len = min_u64(count * COPY_BLOCK, c->size_bytes - at);
    c->unflushed = true;
    if (zero)
        return (mirrored && to->zero_mirrored ? to->zero_mirrored : to->zero)(c->to.arg, at, len);
    return (mirrored && to->write_mirrored ? to->write_mirrored : to->write)(c->to.arg, at, len,
                                                                             buf);
}

CO int copy_write(struct copy *c, uint64_t block, uint64_t count, const uint8_t *buf,
                  enum copy_kind kind, uint64_t *written_bytes, uint64_t *zero_bytes)
{
    int rc = 0;
    while (count > 0 && !rc) {
        bool zero = true;
        uint64_t n = buf ? run_length(buf, count, &zero) : count;
        if (!zero || kind != COPY_FRESH)
            rc = run_write(c, block, n, buf, zero, kind == COPY_MIRRORED);
        if (!rc)
            *(zero ? zero_bytes : written_bytes) +=
                min_u64(n * COPY_BLOCK, c->size_bytes - block * COPY_BLOCK);
        block += n;
        count -= n;
        buf = buf ? buf + n * COPY_BLOCK : NULL;
    }
    return rc;
}

void copy_fail(struct copy *c, int rc, uint64_t block, enum copy_act act)
{
    bool lost = act != COPY_READS && rc == VP_E_PEER_LOST;
    c->lost |= lost;
    if (c->rc || (lost && c->tracked))
        return;
    c->rc = rc;
    c->failed_at = block * COPY_BLOCK;
    c->failed_act = act;
}

/* Reads the piece and writes it. Blocks that a failure leaves are not dirty, since it ends the
 * copy; blocks of which nobody knows whether they have landed are (6). */
static CO void piece_copy(struct copy *c, const struct piece *p, uint8_t *buf)
{
    bool zero = false;
    uint64_t written_bytes = 0, zero_bytes = 0;
    int rc = volume_beside_read(c->from, p->block, p->count, buf, &zero);
    if (rc) {
        copy_fail(c, rc, p->block, COPY_READS);
        return;
    }
    if (c->mirror)
        mirror_await_late(c->mirror);
    copy_unchecked_mark(c, p->block, p->count);
    rc = copy_write(c, p->block, p->count, zero ? NULL : buf, p->fresh ? COPY_FRESH : COPY_AGAIN,
                    &written_bytes, &zero_bytes);
    if (rc)
        copy_fail(c, rc, p->block, COPY_WRITES);
    if (rc == VP_E_PEER_LOST && c->tracked && io_guard_on(GUARD_MOVE_LOST_IS_DIRTY))
        dirty_mark(&c->dirty, p->block, p->count);
    c->copied_bytes += written_bytes;
    c->zero_bytes += zero_bytes;
    c->again_bytes += p->fresh ? 0 : written_bytes + zero_bytes;
}

/* Requests of clients come first: the loop has looked for them when this returns. */
static CO void copy_rest(struct copy *c)
{
    uint64_t since_ns = reactor_now_ns();
    vp_ignore(co_sleep_ns(c->rest_ns), "nobody cancels it");
    c->rested_ns += reactor_now_ns() - since_ns;
}

static CO void piece_run(struct copy *c, struct piece *p, uint8_t *buf)
{
    if (c->checking) {
        copy_check(c, p->block, p->count, buf);
        return;
    }
    piece_copy(c, p, buf);
    if (!p->fresh && !io_guard_on(GUARD_MOVE_CLEARS_FIRST))
        dirty_clear(&c->dirty, p->block, p->count);
    list_del(&p->link);
}

static CO void copy_work(struct copy *c)
{
    uint64_t buf_bytes = c->checking ? 2 * c->piece_bytes : c->piece_bytes; /* both sides */
    uint8_t *buf = io_buffer_get(buf_bytes);
    uint64_t since_rest = 0;
    struct piece p;
    for (;;) {
        int rc = piece_take(c, &p);
        if (rc)
            copy_fail(c, rc, c->at_bytes / COPY_BLOCK, COPY_READS);
        if (rc || !p.count)
            break;
        piece_run(c, &p, buf);
        since_rest += p.count * COPY_BLOCK + PIECE_COST_BYTES;
        if (c->rest_ns && since_rest >= c->piece_bytes) {
            copy_rest(c);
            since_rest = 0;
        }
    }
    io_buffer_put(buf, buf_bytes);
}

static CO void copy_worker(void *arg)
{
    struct copy *c = arg;
    copy_work(c);
    co_group_leave(&c->workers, 0);
}

CO int copy_step(void *copy)
{
    struct copy *c = copy;
    c->left_bytes = max_u64(c->step_bytes, 1);
    c->rested_ns = 0;
    co_group_init(&c->workers);
    for (unsigned i = 1; i < c->worker_count; i++) {
        co_group_enter(&c->workers);
        if (co_spawn(copy_worker, c, "copy of a volume")) { /* fewer do it too */
            co_group_leave(&c->workers, 0);
            break;
        }
    }
    copy_work(c);
    vp_ignore(co_group_wait(&c->workers), "they report in the copy");
    VP_VERIFY_TRUE(list_empty(&c->flying));
    vp_ignore(copy_look(c), "it does not fail");
    return c->rc ? c->rc : c->lost ? VP_E_PEER_LOST : 0;
}

CO int copy_found(void *copy)
{
    struct copy *c = copy;
    if (c->mirror)
        mirror_settle(c->mirror);
    c->lost = false;
    return copy_look(c);
}

/* ---- the end ------------------------------------------------------------------------------ */

CO int copy_flush(void *copy)
{
    struct copy *c = copy;
    c->unflushed = false;
    int rc = c->to.ops->flush(c->to.arg);
    if (rc)
        c->unflushed = true;
    c->lost |= rc == VP_E_PEER_LOST;
    vp_ignore(copy_look(c), "it does not fail");
    if (c->rc) /* a mirrored write may have failed since the last step */
        return c->rc;
    return c->lost ? VP_E_PEER_LOST : rc;
}

void copy_verify_whole(const struct copy *c)
{
    VP_VERIFY_TRUE(copy_scan_is_done(c));
    VP_VERIFY_TRUE(!c->lost);
    VP_VERIFY(c->dirty.count, ==, 0U);
    VP_VERIFY_TRUE(list_empty(&c->flying));
    VP_VERIFY_TRUE(!c->mirror || mirror_is_quiet(c->mirror));
    VP_VERIFY_TRUE(!c->unflushed || !io_guard_on(GUARD_MOVE_ARRIVES_LAST));
}
