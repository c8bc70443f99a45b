/*
 * Requests: any byte range of a volume, turned into whole blocks under block locks.
 *
 * A request is worked on in windows, in ascending order; a window is locked, done, unlocked. So a
 * request of any length needs bounded locks and buffers, and is atomic for each block, not as a
 * whole, which is what disks promise too.
 *
 * 1. Whole blocks with an aligned buffer go down as they are. Everything else goes through a bounce
 *    buffer; a write reads the blocks that it changes in part, under their exclusive lock.
 * 2. The bounce buffer is taken before the locks (lock.c, rule 2).
 * 3. Where the volume's size is no multiple of a block, the rest of the last block is zero:
 *    writes stop at the size, and shrinking zeroes what it cuts off.
 * 4. The size is looked at again under the locks, because a volume may shrink while a request
 *    waits.
 * 5. Under the locks of every window, a change also looks whether its client is gone: what came
 *    instead of that client may have written there already (GUARD_CLIENT_GONE).
 *
 * On the volume's reactor; nothing here allocates.
 */
#include "io/buffer.h"
#include "io/guard.h"
#include "volumes/volumes_impl.h"

enum request_kind { REQUEST_READ, REQUEST_WRITE, REQUEST_ZERO };
enum { ZERO_WINDOWS_A_TURN = 8 };

struct request {
    struct volume *v;
    const struct volume_client *client; /* NULL: nobody who could go away */
    uint64_t offset, len;               /* what is left to do */
    uint8_t *data;                      /* read: to; write: from */
    unsigned flags;
    bool past_end; /* shrinking: beyond the size on purpose */
    void *bounce;
    size_t bounce_len;
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

static bool in_range(const struct volume *v, uint64_t offset, uint64_t len)
{
    uint64_t size = atomic_load_explicit(&v->size_bytes, memory_order_relaxed);
    return offset <= size && len <= size - offset;
}

static int range_check(const struct volume *v, uint64_t offset, uint64_t len, uint64_t max)
{
    if (!in_range(v, offset, len))
        return VP_E_RANGE;
    return len <= max ? 0 : VP_E_TOO_BIG;
}

/* The next window of at most `max_blocks`. */
static struct window window_next(const struct request *r, uint64_t max_blocks)
{
    struct window w = {.offset = r->offset, .block = r->offset / VOLUME_BLOCK};
    uint64_t end = min_u64(r->offset + r->len, (w.block + max_blocks) * VOLUME_BLOCK);
    w.len = end - r->offset;
    w.count = div_up(end, VOLUME_BLOCK) - w.block;
    return w;
}

static void request_advance(struct request *r, const struct window *w)
{
    r->offset += w->len;
    r->len -= w->len;
    if (r->data)
        r->data += w->len;
}

static bool request_is_aligned(const struct request *r)
{
    return is_aligned(r->offset | r->len | (uintptr_t)r->data, VOLUME_BLOCK);
}

/* Returns when that was, for `request_count`. Of what ends in the turn of the reactor in which it
 * began all that is known is that it was shorter than the turn. */
static uint64_t request_begin(struct volume *v)
{
    v->io->requests++;
    return reactor_turn_ns();
}

static inline __attribute__((always_inline)) void
request_count(_Atomic uint64_t *count, struct histogram *latency, uint64_t begin_ns)
{
    figure_add(count, 1);
    histogram_add(latency, reactor_turn_ns() - begin_ns);
}

static void request_end(struct volume *v, int rc)
{
    struct volume_io *io = v->io;
    if (rc == VP_E_CHECKSUM)
        figure_add_shared(&v->figures.checksum_errors, 1);
    if (--io->requests == 0)
        co_queue_wake_all(&io->drained);
}

/* ---- read --------------------------------------------------------------------------------- */

static CO int read_window(struct volume *v, const struct window *w, void *buf)
{
    struct volume_io *io = v->io;
    struct block_lock lock;
    block_lock_take(&io->locks, &lock, w->block, w->count, false);
    int rc =
        in_range(v, w->offset, w->len) ? thin_read(io->thin, w->block, w->count, buf) : VP_E_RANGE;
    block_lock_drop(&io->locks, &lock);
    return rc;
}

static CO int read_direct(struct request *r)
{
    int rc = 0;
    while (r->len > 0 && !rc) {
        struct window w = window_next(r, VOLUME_WINDOW_BLOCKS);
        rc = read_window(r->v, &w, r->data);
        request_advance(r, &w);
    }
    return rc;
}

/* A bounce buffer for what is left of a request: one window's. */
static uint64_t bounce_bytes(const struct request *r)
{
    uint64_t span = r->offset % VOLUME_BLOCK + r->len;
    return min_u64(align_up(span, VOLUME_BLOCK), VOLUME_BOUNCE_BLOCKS * VOLUME_BLOCK);
}

static CO int read_bounced(struct request *r)
{
    uint64_t bytes = bounce_bytes(r);
    uint8_t *bounce = io_buffer_get(bytes);
    int rc = 0;
    while (r->len > 0 && !rc) {
        struct window w = window_next(r, bytes / VOLUME_BLOCK);
        rc = read_window(r->v, &w, bounce);
        if (!rc)
            memcpy(r->data, bounce + w.offset % VOLUME_BLOCK, w.len);
        request_advance(r, &w);
    }
    io_buffer_put(bounce, bytes);
    return rc;
}

CO int volume_read(struct volume *v, uint64_t offset, uint64_t len, void *buf)
{
    int rc = range_check(v, offset, len, VOLUME_REQUEST_MAX);
    if (rc || len == 0)
        return rc;
    struct request r = {.v = v, .offset = offset, .len = len, .data = buf};
    uint64_t begin_ns = request_begin(v);
    rc = request_is_aligned(&r) ? read_direct(&r) : read_bounced(&r);
    request_end(v, rc);
    request_count(&v->figures.reads, v->figures.read_latency, begin_ns);
    figure_add(&v->figures.bytes_read, len);
    return rc;
}

/* ---- write -------------------------------------------------------------------------------- */

/* Length of the run of blocks at `buf` that are all zero, or all not. */
static uint64_t zero_run(const uint8_t *buf, uint64_t count, bool *zero)
{
    *zero = bytes_are_zero(buf, VOLUME_BLOCK);
    uint64_t n = 1;
    while (n < count && bytes_are_zero(buf + n * VOLUME_BLOCK, VOLUME_BLOCK) == *zero)
        n++;
    return n;
}

static CO int write_detecting(struct thin *t, uint64_t block, uint64_t count, const uint8_t *buf)
{
    int rc = 0;
    while (count > 0 && !rc) {
        bool zero;
        uint64_t n = zero_run(buf, count, &zero);
        rc = zero ? thin_zero(t, block, n, false) : thin_write(t, block, n, buf);
        block += n;
        count -= n;
        buf += n * VOLUME_BLOCK;
    }
    return rc;
}

static __attribute__((noinline)) void write_failed(struct volume *v)
{
    if (thin_stats(v->io->thin).regions_to_resync)
        atomic_store_explicit(&v->resync_wanted, true, memory_order_relaxed);
}

static CO int write_blocks(struct request *r, uint64_t block, uint64_t count, const void *buf)
{
    struct volume_io *io = r->v->io;
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
    if (r->data)
        memcpy(bounce + skip, r->data, w->len);
    else
        memset(bounce + skip, 0, w->len);
    return 0;
}

static CO int write_window_locked(struct request *r, const struct window *w)
{
    if (!r->past_end && !in_range(r->v, w->offset, w->len))
        return VP_E_RANGE;
    const void *buf = r->data;
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
    return r->client && r->client->state == VOLUME_CLIENT_GONE && io_guard_on(GUARD_CLIENT_GONE);
}

/* Without the bounce buffer, which others need; its contents are made anew under the locks. */
static CO int room_wait(struct request *r)
{
    if (r->bounce)
        io_buffer_put(r->bounce, r->bounce_len);
    int rc = volume_full_wait(r->v, &r->full, r->client);
    if (r->bounce)
        r->bounce = io_buffer_get(r->bounce_len);
    return rc;
}

/* Locks, works, unlocks; while the pool is full, again and again as the policy says. */
static CO int window_run(struct request *r, const struct window *w,
                         int (*locked)(struct request *r, const struct window *w))
{
    struct volume_io *io = r->v->io;
    for (;;) {
        struct block_lock lock;
        block_lock_take(&io->locks, &lock, w->block, w->count, true);
        int rc = client_is_gone(r) ? VP_E_CANCELLED : locked(r, w);
        block_lock_drop(&io->locks, &lock);
        if (rc != VP_E_NO_SPACE && rc != VP_E_POOL_FULL_META)
            return rc;
        rc = room_wait(r);
        if (rc)
            return rc;
    }
}

static CO int write_range(struct request *r)
{
    uint64_t bytes = 0;
    if (!request_is_aligned(r)) {
        bytes = bounce_bytes(r);
        r->bounce = io_buffer_get(bytes);
        r->bounce_len = bytes;
    }
    uint64_t max_blocks = r->bounce ? bytes / VOLUME_BLOCK : VOLUME_WINDOW_BLOCKS;
    int rc = 0;
    while (r->len > 0 && !rc) {
        struct window w = window_next(r, max_blocks);
        rc = window_run(r, &w, write_window_locked);
        request_advance(r, &w);
    }
    if (r->bounce)
        io_buffer_put(r->bounce, bytes);
    r->bounce = NULL;
    return rc;
}

/* A commit whose success a client is told of: nothing that it covers may have gone with a disk. */
static CO int commit_for_client(struct volume *v)
{
    /* What this leaves of the log is for the checkpoint itself. An error is the next commit's to
     * tell. */
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
    if (!rc && ((r->flags & VOLUME_FUA) || (flags_of(v) & VOLUME_IS_SYNC_ALWAYS)))
        rc = commit_for_client(v);
    request_end(v, rc);
    return rc;
}

static CO int request_write(struct volume *v, const struct volume_client *client, uint64_t offset,
                            uint64_t len, const void *buf, unsigned flags)
{
    if (flags_of(v) & VOLUME_IS_READ_ONLY)
        return VP_E_READ_ONLY;
    int rc = range_check(v, offset, len, VOLUME_REQUEST_MAX);
    if (rc)
        return rc;
    struct request r = {.v = v,
                        .client = client,
                        .offset = offset,
                        .len = len,
                        .data = (uint8_t *)(uintptr_t)buf,
                        .flags = flags};
    uint64_t begin_ns = request_begin(v);
    rc = change_end(&r, write_range(&r));
    request_count(&v->figures.writes, v->figures.write_latency, begin_ns);
    figure_add(&v->figures.bytes_written, len);
    return rc;
}

CO int volume_write(struct volume *v, uint64_t offset, uint64_t len, const void *buf,
                    unsigned flags)
{
    return request_write(v, NULL, offset, len, buf, flags);
}

CO int volume_client_write(struct volume_client *c, uint64_t offset, uint64_t len, const void *buf,
                           unsigned flags)
{
    return request_write(c->volume, c, offset, len, buf, flags);
}

CO int volume_flush(struct volume *v)
{
    uint64_t begin_ns = request_begin(v);
    int rc = commit_for_client(v);
    request_end(v, rc);
    request_count(&v->figures.flushes, v->figures.flush_latency, begin_ns);
    return rc;
}

/* ---- zero and discard --------------------------------------------------------------------- */

static CO int zero_window_locked(struct request *r, const struct window *w)
{
    if (!r->past_end && !in_range(r->v, w->offset, w->len))
        return VP_E_RANGE;
    int rc = thin_zero(r->v->io->thin, w->block, w->count, r->flags & VOLUME_NO_HOLE);
    r->v->io->uncommitted = true;
    return rc;
}

/* Blocks that are a hole need no work: skips them, so that a discard of a whole empty volume does
 * not visit each of its chunks. Without locks: the answer was true at one moment of the request. */
static CO int zero_skip_hole(struct request *r, bool *skipped)
{
    uint64_t block = r->offset / VOLUME_BLOCK, next;
    *skipped = false;
    if ((r->flags & VOLUME_NO_HOLE) || r->len <= VOLUME_WINDOW_BLOCKS * VOLUME_BLOCK)
        return 0;
    int rc = thin_next_mapped(r->v->io->thin, block, block + r->len / VOLUME_BLOCK, &next);
    if (rc || next == block)
        return rc;
    struct window hole = {.len = (next - block) * VOLUME_BLOCK};
    request_advance(r, &hole);
    *skipped = true;
    return 0;
}

/* Whole blocks only. A range may be in memory as a whole, so others get their turn in between. */
static CO int zero_blocks(struct request *r)
{
    for (unsigned windows = 1; r->len > 0; windows++) {
        bool skipped;
        int rc = zero_skip_hole(r, &skipped);
        if (rc)
            return rc;
        if (!skipped) {
            struct window w = window_next(r, VOLUME_WINDOW_BLOCKS);
            rc = window_run(r, &w, zero_window_locked);
            if (rc)
                return rc;
            request_advance(r, &w);
        }
        if (windows % ZERO_WINDOWS_A_TURN == 0)
            co_yield ();
    }
    return 0;
}

/* A part of one block: zeros are merged in; a block that becomes all zero is unmapped, and one that
 * is a hole stays one. */
static CO int zero_part_locked(struct request *r, const struct window *w)
{
    if (!r->past_end && !in_range(r->v, w->offset, w->len))
        return VP_E_RANGE;
    int rc = merge_window(r, w);
    if (rc)
        return rc;
    if (bytes_are_zero(r->bounce, VOLUME_BLOCK))
        return zero_window_locked(r, w);
    return write_blocks(r, w->block, 1, r->bounce);
}

static CO int zero_part(struct request *r, uint64_t len)
{
    struct window w = {r->offset, len, r->offset / VOLUME_BLOCK, 1};
    if (len == 0)
        return 0;
    r->bounce = io_buffer_get(VOLUME_BLOCK);
    r->bounce_len = VOLUME_BLOCK;
    int rc = window_run(r, &w, zero_part_locked);
    io_buffer_put(r->bounce, VOLUME_BLOCK);
    r->bounce = NULL;
    if (!rc)
        request_advance(r, &w);
    return rc;
}

/* Head, whole blocks, tail. What was not done is left in r. */
static CO int zero_range(struct request *r)
{
    uint64_t head = min_u64(align_up(r->offset, VOLUME_BLOCK) - r->offset, r->len);
    int rc = zero_part(r, head);
    if (rc)
        return rc;
    struct request whole = *r;
    whole.len = align_down(r->len, VOLUME_BLOCK);
    rc = zero_blocks(&whole);
    struct window done = {.len = whole.offset - r->offset};
    r->full = whole.full;
    request_advance(r, &done);
    return rc ? rc : zero_part(r, r->len);
}

/* The common end of zero and discard: freed chunks may be what other requests wait for, also when
 * the client went in the middle. */
static CO int zero_end(struct request *r, int rc)
{
    if (!rc || rc == VP_E_CANCELLED) {
        int freed = volume_full_freed(r->v);
        rc = rc ? rc : freed;
    }
    figure_add(&r->v->figures.discards, 1);
    return change_end(r, rc);
}

static CO int request_zero(struct volume *v, const struct volume_client *client, uint64_t offset,
                           uint64_t len, unsigned flags)
{
    if (flags_of(v) & VOLUME_IS_READ_ONLY)
        return VP_E_READ_ONLY;
    int rc = range_check(v, offset, len, UINT64_MAX);
    if (rc)
        return rc;
    struct request r = {.v = v, .client = client, .offset = offset, .len = len, .flags = flags};
    (void)request_begin(v);
    return zero_end(&r, zero_range(&r));
}

CO int volume_zero(struct volume *v, uint64_t offset, uint64_t len, unsigned flags)
{
    return request_zero(v, NULL, offset, len, flags);
}

CO int volume_client_zero(struct volume_client *c, uint64_t offset, uint64_t len, unsigned flags)
{
    return request_zero(c->volume, c, offset, len, flags);
}

static CO int request_discard(struct volume *v, const struct volume_client *client, uint64_t offset,
                              uint64_t len, unsigned flags)
{
    if (flags_of(v) & VOLUME_IS_READ_ONLY)
        return VP_E_READ_ONLY;
    int rc = range_check(v, offset, len, UINT64_MAX);
    if (rc)
        return rc;
    uint64_t end = offset + len, first = align_up(offset, VOLUME_BLOCK);
    /* The last block of an odd size counts as whole: its rest is zero anyway. */
    if (end != volume_size(v))
        end = align_down(end, VOLUME_BLOCK);
    struct request r = {.v = v,
                        .client = client,
                        .offset = first,
                        .len = end > first ? end - first : 0,
                        .flags = flags & VOLUME_FUA};
    (void)request_begin(v);
    return zero_end(&r, zero_range(&r));
}

CO int volume_discard(struct volume *v, uint64_t offset, uint64_t len, unsigned flags)
{
    return request_discard(v, NULL, offset, len, flags);
}

CO int volume_client_discard(struct volume_client *c, uint64_t offset, uint64_t len, unsigned flags)
{
    return request_discard(c->volume, c, offset, len, flags);
}

CO int volume_zero_tail(struct volume *v, uint64_t *offset, uint64_t end)
{
    struct request r = {
        .v = v,
        .offset = *offset,
        .len = end - *offset,
        .past_end = true,
        .full.never_pauses = true,
    };
    (void)request_begin(v);
    /* The size has changed: who locks blocks behind it from now on gives up. Who locked them before
     * may be about to fill what still looks like a hole. */
    if (io_guard_on(GUARD_SHRINK_AFTER_WRITERS))
        block_lock_drain(&v->io->locks, div_up(*offset, VOLUME_BLOCK));
    int rc = zero_range(&r);
    *offset = r.offset;
    return zero_end(&r, rc);
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

CO int volume_extents(struct volume *v, uint64_t offset, uint64_t len, struct volume_extent *out,
                      unsigned max, unsigned *n)
{
    *n = 0;
    int rc = range_check(v, offset, len, UINT64_MAX);
    if (rc || len == 0 || max == 0)
        return rc ? rc : VP_E_INVALID;
    struct thin_extent found[EXTENTS_STEP];
    uint64_t at = offset, end = offset + len;
    (void)request_begin(v);
    while (*n < max && at < end && !rc) {
        uint64_t block = at / VOLUME_BLOCK;
        unsigned got, want = (unsigned)min_u64(EXTENTS_STEP, max - *n);
        rc = thin_extents(v->io->thin, block, div_up(end, VOLUME_BLOCK) - block, found, want, &got);
        if (rc)
            break;
        *n += extents_clip(found, got, at, end, out + *n);
        at = (found[got - 1].block + found[got - 1].count) * VOLUME_BLOCK;
    }
    request_end(v, rc);
    return rc;
}
