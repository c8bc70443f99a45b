/*
 * Requests: any byte range of a volume, turned into whole blocks under block locks.
 *
 * A request is worked on in windows, in ascending order. A window is locked, done and unlocked. So
 * a request of any length needs bounded locks and buffers. It is atomic for each block, not as a
 * whole, which is what disks promise too.
 *
 * 1. Whole blocks with an aligned buffer go down as they are. Everything else goes through a bounce
 *    buffer. A write reads the blocks that it changes in part, under their exclusive lock.
 * 2. The bounce buffer is taken before the locks (lock.c, rule 2).
 * 3. Where the volume's size is no multiple of a block, the rest of the last block is zero: writes
 *    stop at the size, and shrinking zeroes what it cuts off.
 * 4. The size is looked at once, when a request has passed the gate: no volume shrinks while a
 *    request is in flight (table.c, GUARD_SHRINK_AFTER_WRITERS).
 * 5. Under the locks of every window, a change also looks whether its client is gone. Whatever
 *    replaced that client may have written there already (GUARD_CLIENT_GONE).
 *
 * On the volume's reactor; nothing here allocates.
 */
#include "base/verify.h"
#include "io/buffer.h"
#include "io/guard.h"
#include "volumes/volumes_impl.h"

enum request_kind { REQUEST_READ, REQUEST_WRITE, REQUEST_ZERO };
enum { ZERO_WINDOWS_A_TURN = 8 };

/* A change at work. */
struct request {
    struct volume *v;
    struct front_request *q; /* with what is left to do; its client is NULL: a shrink */
    void *bounce;
    size_t bounce_len;
    const struct volume_marks *told; /* is told of the window's data, too; NULL: nobody */
    void *change;                    /* what that returned */
    struct full_wait full;
};

/* A piece of a request: bytes [offset, offset+len), in blocks [block, block+count). */
struct window {
    uint64_t offset, len;
    uint64_t block, count;
};

static unsigned flags_of(const struct volume *v)
{
    return atomic_load_explicit(&v->flags, memory_order_relaxed);
}

static int range_check(const struct volume *v, uint64_t offset, uint64_t len, uint64_t max)
{
    uint64_t size = atomic_load_explicit(&v->size_bytes, memory_order_relaxed);
    if (offset > size || len > size - offset)
        return VP_E_RANGE;
    return len <= max ? 0 : VP_E_TOO_BIG;
}

/* The next window of at most `max_blocks`. */
static struct window window_next(const struct front_request *q, uint64_t max_blocks)
{
    struct window w = {.offset = q->offset, .block = q->offset / VOLUME_BLOCK};
    uint64_t end = min_u64(q->offset + q->len, (w.block + max_blocks) * VOLUME_BLOCK);
    w.len = end - q->offset;
    w.count = div_up(end, VOLUME_BLOCK) - w.block;
    return w;
}

static void request_advance(struct front_request *q, uint64_t len)
{
    q->offset += len;
    q->len -= len;
    if (q->data)
        q->data = (uint8_t *)q->data + len;
}

static bool request_is_aligned(const struct front_request *q)
{
    return is_aligned(q->offset | q->len | (uintptr_t)q->data, VOLUME_BLOCK);
}

static void request_end(struct volume *v, int rc)
{
    if (rc == VP_E_CHECKSUM || rc == VP_E_RAID_NO_COPY)
        figure_add_shared(&v->figures.checksum_errors, 1);
}

/* ---- read --------------------------------------------------------------------------------- */

static CO int read_window(struct volume *v, const struct window *w, void *buf)
{
    struct volume_io *io = v->io;
    struct block_lock lock;
    block_lock_take(&io->locks, &lock, w->block, w->count, false);
    int rc = thin_read(io->thin, w->block, w->count, buf);
    block_lock_drop(&io->locks, &lock);
    return rc;
}

/* Whether blocks read as zeros, by the map alone. */
static CO int blocks_are_zero(struct volume *v, uint64_t block, uint64_t count, bool *zero)
{
    struct thin_extent e;
    unsigned n;
    int rc = thin_extents(v->io->thin, block, count, &e, 1, &n);
    *zero = !rc && e.zero && e.count == count;
    return rc;
}

CO int volume_blocks_read(struct volume *v, uint64_t block, uint64_t count, void *buf, bool *zero)
{
    struct volume_io *io = v->io;
    struct block_lock lock;
    if (block + count > div_up(volume_size(v), VOLUME_BLOCK) || count > VOLUME_WINDOW_BLOCKS)
        return VP_E_RANGE;
    block_lock_take(&io->locks, &lock, block, count, false);
    int rc = blocks_are_zero(v, block, count, zero);
    if (!rc && !*zero)
        rc = thin_read(io->thin, block, count, buf);
    block_lock_drop(&io->locks, &lock);
    request_end(v, rc);
    return rc;
}

static CO int read_direct(struct volume *v, struct front_request *q)
{
    int rc = 0;
    while (q->len > 0 && !rc) {
        struct window w = window_next(q, VOLUME_WINDOW_BLOCKS);
        rc = read_window(v, &w, q->data);
        request_advance(q, w.len);
    }
    return rc;
}

/* A bounce buffer for what is left of a request: one window's. */
static uint64_t bounce_bytes(const struct front_request *q)
{
    uint64_t span = q->offset % VOLUME_BLOCK + q->len;
    return min_u64(align_up(span, VOLUME_BLOCK), VOLUME_BOUNCE_BLOCKS * VOLUME_BLOCK);
}

static CO int read_bounced(struct volume *v, struct front_request *q)
{
    uint64_t bytes = bounce_bytes(q);
    uint8_t *bounce = io_buffer_get(bytes);
    int rc = 0;
    while (q->len > 0 && !rc) {
        struct window w = window_next(q, bytes / VOLUME_BLOCK);
        rc = read_window(v, &w, bounce);
        if (!rc)
            memcpy(q->data, bounce + w.offset % VOLUME_BLOCK, w.len);
        request_advance(q, w.len);
    }
    io_buffer_put(bounce, bytes);
    return rc;
}

static CO int volume_run_read(void *arg, struct front_request *q)
{
    struct volume *v = arg;
    uint64_t len = q->len;
    int rc = range_check(v, q->offset, len, VOLUME_REQUEST_MAX);
    if (rc || len == 0)
        return rc;
    rc = request_is_aligned(q) ? read_direct(v, q) : read_bounced(v, q);
    request_end(v, rc);
    figure_add(&v->figures.reads, 1);
    figure_add(&v->figures.bytes_read, len);
    return rc;
}

/* ---- write -------------------------------------------------------------------------------- */

/* Length of the run of blocks at `buf` that are all zero, or all not. */
static uint64_t zero_run_length(const uint8_t *buf, uint64_t count, bool *zero)
{
    *zero = bytes_are_zero(buf, VOLUME_BLOCK);
    uint64_t n = 1;
    while (n < count && bytes_are_zero(buf + n * VOLUME_BLOCK, VOLUME_BLOCK) == *zero)
        n++;
    return n;
}

static __attribute__((noinline)) CO int write_detecting(struct thin *t, uint64_t block,
                                                        uint64_t count, const uint8_t *buf)
{
    int rc = 0;
    while (count > 0 && !rc) {
        bool zero;
        uint64_t n = zero_run_length(buf, count, &zero);
        rc = zero ? thin_zero(t, block, n, false) : thin_write(t, block, n, buf);
        block += n;
        count -= n;
        buf += n * VOLUME_BLOCK;
    }
    return rc;
}

static __attribute__((noinline)) void write_failed(struct volume *v)
{
    if (figure_get(&thin_figures(v->io->thin)->regions_to_resync))
        atomic_store_explicit(&v->resync_wanted, true, memory_order_relaxed);
}

static __attribute__((noinline)) void change_begin(struct request *r, uint64_t block,
                                                   uint64_t count, const void *data)
{
    const struct volume_marks *now = &r->v->io->marks;
    if (now->begin == r->told->begin && now->arg == r->told->arg)
        r->change = now->begin(now->arg, block, count, data);
}

static CO int write_blocks(struct request *r, uint64_t block, uint64_t count, const void *buf)
{
    struct volume_io *io = r->v->io;
    if (r->told)
        change_begin(r, block, count, buf);
    bool detect = flags_of(r->v) & VOLUME_IS_ZERO_DETECT;
    int rc = detect ? write_detecting(io->thin, block, count, buf)
                    : thin_write(io->thin, block, count, buf);
    io->uncommitted = true; /* not before: a commit meanwhile does not hold it */
    if (rc)
        write_failed(r->v);
    return rc;
}

/* The window's blocks in r->bounce: those that the window covers in part are read first. */
static CO int merge_window(struct request *r, const struct window *w)
{
    struct thin *t = r->v->io->thin;
    uint8_t *bounce = r->bounce;
    uint64_t skip = w->offset % VOLUME_BLOCK, end = skip + w->len;
    uint64_t last = w->count - 1;
    bool head = skip > 0 || end < VOLUME_BLOCK;
    bool tail = !is_aligned(end, VOLUME_BLOCK) && (last > 0 || !head);
    int rc = head ? thin_read(t, w->block, 1, bounce) : 0;
    if (!rc && tail)
        rc = thin_read(t, w->block + last, 1, bounce + last * VOLUME_BLOCK);
    if (rc)
        return rc;
    if (r->q->data)
        memcpy(bounce + skip, r->q->data, w->len);
    else
        memset(bounce + skip, 0, w->len);
    return 0;
}

static CO int write_window_locked(struct request *r, const struct window *w)
{
    const void *buf = r->q->data;
    if (r->bounce) {
        int rc = merge_window(r, w);
        if (rc)
            return rc;
        buf = r->bounce;
    }
    return write_blocks(r, w->block, w->count, buf);
}

static bool client_is_gone(const struct request *r)
{
    const struct front_client *c = r->q->client;
    return c && c->state == FRONT_CLIENT_GONE && io_guard_on(GUARD_CLIENT_GONE);
}

/* Without the bounce buffer, which others need; its contents are made anew under the locks. */
static CO int room_wait(struct request *r)
{
    if (r->bounce)
        io_buffer_put(r->bounce, r->bounce_len);
    int rc = volume_full_wait(r->v, &r->full, r->q);
    if (r->bounce)
        r->bounce = io_buffer_get(r->bounce_len);
    return rc;
}

static __attribute__((noinline)) CO int
window_change_told(struct request *r, const struct window *w,
                   int (*locked)(struct request *r, const struct window *w))
{
    const struct volume_marks marks = r->v->io->marks; /* they may be others when it ends */
    marks.mark(marks.arg, w->block, w->count);
    r->told = marks.begin ? &marks : NULL;
    r->change = NULL;
    int rc = locked(r, w);
    if (r->change)
        marks.end(marks.arg, r->change, rc);
    r->told = NULL;
    return rc;
}

/* Under the window's exclusive locks. */
static CO int window_change(struct request *r, const struct window *w,
                            int (*locked)(struct request *r, const struct window *w))
{
    if (client_is_gone(r))
        return VP_E_CANCELLED;
    return r->v->io->marks.mark ? window_change_told(r, w, locked) : locked(r, w);
}

/* Locks, works, unlocks; while the pool is full, again and again as the policy says. */
static CO int window_run(struct request *r, const struct window *w,
                         int (*locked)(struct request *r, const struct window *w))
{
    struct volume_io *io = r->v->io;
    for (;;) {
        struct block_lock lock;
        block_lock_take(&io->locks, &lock, w->block, w->count, true);
        int rc = window_change(r, w, locked);
        block_lock_drop(&io->locks, &lock);
        if (rc != VP_E_NO_SPACE && rc != VP_E_POOL_FULL_META)
            return rc;
        rc = room_wait(r);
        if (rc)
            return rc;
    }
}

/* Whoever is told of data copies them. */
static uint64_t window_blocks(const struct request *r)
{
    if (r->bounce)
        return r->bounce_len / VOLUME_BLOCK;
    return r->v->io->marks.begin ? VOLUME_TOLD_BLOCKS : VOLUME_WINDOW_BLOCKS;
}

static CO int write_range(struct request *r)
{
    uint64_t bytes = 0;
    if (!request_is_aligned(r->q)) {
        bytes = bounce_bytes(r->q);
        r->bounce = io_buffer_get(bytes);
        r->bounce_len = bytes;
    }
    int rc = 0;
    while (r->q->len > 0 && !rc) {
        struct window w = window_next(r->q, window_blocks(r));
        rc = window_run(r, &w, write_window_locked);
        if (!rc)
            request_advance(r->q, w.len);
    }
    if (r->bounce)
        io_buffer_put(r->bounce, bytes);
    r->bounce = NULL;
    return rc;
}

/* A commit whose success a client is told of: nothing that it covers may have gone with a disk. */
static CO int commit_for_client(struct volume *v)
{
    /* The room that this leaves in the log is for the checkpoint itself. The next commit reports an
     * error. */
    if (!pool_meta_may_change(v->vs->pool, 0) && !pool_meta_is_exhausted(v->vs->pool, 0))
        vp_ignore(pool_checkpoint(v->vs->pool), "the commit finds out what is left");
    int rc = volume_io_commit(v->io);
    return rc ? rc : pool_flush_check(v->vs->pool, v->id);
}

/* The end of every request that changed something: durable now, if that was asked for. */
static CO int change_end(struct request *r, int rc)
{
    struct volume *v = r->v;
    if (r->full.counted)
        volume_full_done(v, &r->full);
    if (!rc && ((r->q->flags & VOLUME_FUA) || (flags_of(v) & VOLUME_IS_SYNC_ALWAYS)))
        rc = commit_for_client(v);
    request_end(v, rc);
    return rc;
}

static CO int volume_run_write(void *arg, struct front_request *q)
{
    struct volume *v = arg;
    if (flags_of(v) & VOLUME_IS_READ_ONLY)
        return VP_E_READ_ONLY;
    uint64_t len = q->len;
    int rc = range_check(v, q->offset, len, VOLUME_REQUEST_MAX);
    if (rc)
        return rc;
    struct request r = {.v = v, .q = q};
    rc = change_end(&r, write_range(&r));
    bool again = rc == FRONT_COME_AGAIN;
    figure_add(&v->figures.writes, !again);
    figure_add(&v->figures.bytes_written, again ? len - q->len : len);
    return rc;
}

static CO int volume_run_flush(void *arg, struct front_request *q)
{
    struct volume *v = arg;
    (void)q;
    int rc = commit_for_client(v);
    request_end(v, rc);
    figure_add(&v->figures.flushes, 1);
    return rc;
}

/* ---- zero and discard --------------------------------------------------------------------- */

static CO int zero_window_locked(struct request *r, const struct window *w)
{
    if (r->told)
        change_begin(r, w->block, w->count, NULL);
    int rc = thin_zero(r->v->io->thin, w->block, w->count, r->q->flags & VOLUME_NO_HOLE);
    r->v->io->uncommitted = true;
    return rc;
}

/* Blocks that are a hole need no work: skips them, so that a discard of a whole empty volume does
 * not visit each of its chunks. Without locks: the answer was true at one moment of the request. */
static CO int zero_skip_hole(struct request *r, bool *skipped)
{
    struct front_request *q = r->q;
    uint64_t block = q->offset / VOLUME_BLOCK, next;
    *skipped = false;
    if ((q->flags & VOLUME_NO_HOLE) || q->len <= VOLUME_WINDOW_BLOCKS * VOLUME_BLOCK)
        return 0;
    int rc = thin_next_mapped(r->v->io->thin, block, block + q->len / VOLUME_BLOCK, &next);
    if (rc || next == block)
        return rc;
    request_advance(q, (next - block) * VOLUME_BLOCK);
    *skipped = true;
    return 0;
}

/* Others get their turn, and a gate that closes does not wait for the end of a long range. */
static CO int zero_pause(const struct request *r)
{
    co_yield ();
    int verdict = r->q->client ? front_request_verdict(r->q) : 0;
    return verdict == FRONT_COME_AGAIN ? verdict : 0;
}

/* Whole blocks only. A range may be in memory as a whole. */
static CO int zero_blocks(struct request *r)
{
    struct front_request *q = r->q;
    int rc = 0;
    for (unsigned windows = 1; q->len > 0 && !rc; windows++) {
        bool skipped;
        rc = zero_skip_hole(r, &skipped);
        if (!rc && !skipped) {
            struct window w = window_next(q, VOLUME_WINDOW_BLOCKS);
            rc = window_run(r, &w, zero_window_locked);
            if (!rc)
                request_advance(q, w.len);
        }
        if (!rc && windows % ZERO_WINDOWS_A_TURN == 0)
            rc = zero_pause(r);
    }
    return rc;
}

/* A part of one block: zeros are merged in; a block that becomes all zero is unmapped, and one that
 * is a hole stays one. */
static CO int zero_part_locked(struct request *r, const struct window *w)
{
    int rc = merge_window(r, w);
    if (rc)
        return rc;
    if (bytes_are_zero(r->bounce, VOLUME_BLOCK))
        return zero_window_locked(r, w);
    return write_blocks(r, w->block, 1, r->bounce);
}

static CO int zero_part(struct request *r, uint64_t len)
{
    struct window w = {r->q->offset, len, r->q->offset / VOLUME_BLOCK, 1};
    if (len == 0)
        return 0;
    r->bounce = io_buffer_get(VOLUME_BLOCK);
    r->bounce_len = VOLUME_BLOCK;
    int rc = window_run(r, &w, zero_part_locked);
    io_buffer_put(r->bounce, VOLUME_BLOCK);
    r->bounce = NULL;
    if (!rc)
        request_advance(r->q, len);
    return rc;
}

/* Head, whole blocks, tail. What was not done is left in the request. */
static CO int zero_range(struct request *r)
{
    struct front_request *q = r->q;
    int rc = zero_part(r, min_u64(align_up(q->offset, VOLUME_BLOCK) - q->offset, q->len));
    if (rc)
        return rc;
    uint64_t tail = q->len % VOLUME_BLOCK;
    q->len -= tail;
    rc = zero_blocks(r);
    q->len += tail;
    return rc ? rc : zero_part(r, tail);
}

/* The common end of zero and discard: freed chunks may be what other requests wait for, also when
 * the client went in the middle, or the request comes again. */
static CO int zero_end(struct request *r, int rc)
{
    if (!rc || rc == VP_E_CANCELLED || rc == FRONT_COME_AGAIN) {
        int freed = volume_full_freed(r->v);
        rc = rc ? rc : freed;
    }
    if (rc != FRONT_COME_AGAIN)
        figure_add(&r->v->figures.discards, 1);
    return change_end(r, rc);
}

static CO int volume_run_zero(void *arg, struct front_request *q)
{
    struct volume *v = arg;
    if (flags_of(v) & VOLUME_IS_READ_ONLY)
        return VP_E_READ_ONLY;
    int rc = range_check(v, q->offset, q->len, UINT64_MAX);
    if (rc)
        return rc;
    struct request r = {.v = v, .q = q};
    return zero_end(&r, zero_range(&r));
}

static CO int volume_run_discard(void *arg, struct front_request *q)
{
    struct volume *v = arg;
    if (flags_of(v) & VOLUME_IS_READ_ONLY)
        return VP_E_READ_ONLY;
    int rc = range_check(v, q->offset, q->len, UINT64_MAX);
    if (rc)
        return rc;
    uint64_t end = q->offset + q->len;
    /* The last block of an odd size counts as whole: its rest is zero anyway. */
    if (end != volume_size(v))
        end = align_down(end, VOLUME_BLOCK);
    q->offset = align_up(q->offset, VOLUME_BLOCK);
    q->len = end > q->offset ? end - q->offset : 0;
    q->flags &= VOLUME_FUA;
    struct request r = {.v = v, .q = q};
    return zero_end(&r, zero_range(&r));
}

CO int volume_zero_tail(struct volume *v, uint64_t *offset, uint64_t end)
{
    struct front_request q = {.offset = *offset, .len = end - *offset};
    struct request r = {.v = v, .q = &q, .full.never_pauses = true};
    int rc = zero_range(&r);
    *offset = q.offset;
    return zero_end(&r, rc);
}

void volume_marks_set(struct volume *v, const struct volume_marks *m)
{
    v->io->marks = m ? *m : (struct volume_marks){0};
    if (m)
        lock_table_each_exclusive(&v->io->locks, m->mark, m->arg);
}

/* ---- block status ------------------------------------------------------------------------- */

/* Cuts extents of whole blocks down to the bytes asked for. */
static unsigned extents_clip(const struct thin_extent *in, unsigned n, uint64_t offset,
                             uint64_t end, struct volume_extent *out)
{
    unsigned used = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t from = max_u64(in[i].block * VOLUME_BLOCK, offset);
        uint64_t to = min_u64((in[i].block + in[i].count) * VOLUME_BLOCK, end);
        if (from < to)
            out[used++] = (struct volume_extent){from, to - from, !in[i].allocated, in[i].zero};
    }
    return used;
}

#define EXTENTS_STEP 64U

static CO int extents_find(struct volume *v, uint64_t offset, uint64_t len,
                           struct volume_extent *out, unsigned max, unsigned *n)
{
    struct thin_extent found[EXTENTS_STEP];
    uint64_t at = offset, end = offset + len;
    int rc = 0;
    while (*n < max && at < end && !rc) {
        uint64_t block = at / VOLUME_BLOCK;
        unsigned got, want = (unsigned)min_u64(EXTENTS_STEP, max - *n);
        rc = thin_extents(v->io->thin, block, div_up(end, VOLUME_BLOCK) - block, found, want, &got);
        if (rc)
            break;
        *n += extents_clip(found, got, at, end, out + *n);
        at = (found[got - 1].block + found[got - 1].count) * VOLUME_BLOCK;
    }
    return rc;
}

static CO int volume_run_extents(void *arg, struct front_request *q)
{
    struct volume *v = arg;
    struct front_extents_request *e = container_of(q, struct front_extents_request, request);
    *e->n = 0;
    int rc = range_check(v, q->offset, q->len, UINT64_MAX);
    if (rc || q->len == 0 || e->max == 0)
        return rc ? rc : VP_E_INVALID;
    rc = extents_find(v, q->offset, q->len, q->data, e->max, e->n);
    request_end(v, rc);
    return rc;
}

/* ---- behind the front --------------------------------------------------------------------- */

const struct front_ops volume_front_ops = {
    .run = {[FRONT_READ] = volume_run_read,
            [FRONT_WRITE] = volume_run_write,
            [FRONT_FLUSH] = volume_run_flush,
            [FRONT_DISCARD] = volume_run_discard,
            [FRONT_ZERO] = volume_run_zero,
            [FRONT_EXTENTS] = volume_run_extents},
    .rouse = volume_full_rouse,
};
