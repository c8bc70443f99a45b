/*
 * The copy of a frozen volume: several coroutines, each with one buffer, take piece after piece of
 * what is allocated.
 *
 * A piece is read whole and written in runs that are not zero, so that the copy takes no more room
 * than the data need. Whoever takes a piece moves the cursor past it without a yield in between,
 * so no piece is taken twice and none is left out.
 */
#include "base/verify.h"
#include "io/buffer.h"
#include "migrate/migrate_impl.h"

#define COPY_PIECE_BYTES (UINT64_C(1) << 20)
#define COPY_WORKERS     4U
#define COPY_BLOCK       4096U

void copy_init(struct copy *c, struct volume *from, struct volume *to)
{
    *c = (struct copy){.from = from, .to = to, .size_bytes = volume_size(from)};
    co_mutex_init(&c->lock);
}

bool copy_is_done(const struct copy *c)
{
    return c->at_bytes == c->size_bytes;
}

struct piece {
    uint64_t offset, len; /* len 0: there is none */
};

/* The next piece of the extents that are known. Holes are passed over. */
static struct piece piece_next(struct copy *c)
{
    while (c->extent_next < c->extent_count) {
        const struct volume_extent *e = &c->extent[c->extent_next];
        uint64_t end = e->offset + e->len;
        if (e->hole || e->zero || c->at_bytes >= end) {
            c->at_bytes = max_u64(c->at_bytes, end);
            c->extent_next++;
            continue;
        }
        struct piece p = {c->at_bytes, min_u64(end - c->at_bytes, COPY_PIECE_BYTES)};
        c->at_bytes += p.len;
        return p;
    }
    return (struct piece){0};
}

static CO int extents_load(struct copy *c)
{
    c->extent_next = c->extent_count = 0;
    return volume_frozen_extents(c->from, c->at_bytes, c->size_bytes - c->at_bytes, c->extent,
                                 COPY_EXTENTS, &c->extent_count);
}

/* Takes the next piece of this step. */
static CO int piece_take(struct copy *c, struct piece *out)
{
    int rc = 0;
    *out = (struct piece){0};
    co_mutex_lock(&c->lock);
    while (!rc && !c->rc && !out->len && c->left_bytes) {
        *out = piece_next(c);
        if (out->len)
            c->left_bytes -= min_u64(out->len, c->left_bytes);
        else if (copy_is_done(c))
            break;
        else
            rc = extents_load(c);
    }
    co_mutex_unlock(&c->lock);
    return rc;
}

/* The length of the run of blocks from `at` on that are all zero, or all not. The last block of a
 * volume may be short. */
static uint64_t run_length(const uint8_t *buf, uint64_t at, uint64_t len, bool *zero)
{
    uint64_t end = at;
    while (end < len) {
        uint64_t n = min_u64(COPY_BLOCK, len - end);
        bool is_zero = bytes_are_zero(buf + end, n);
        if (end == at)
            *zero = is_zero;
        else if (is_zero != *zero)
            break;
        end += n;
    }
    return end - at;
}

static CO int piece_write(struct copy *c, const struct piece *p, const uint8_t *buf)
{
    int rc = 0;
    for (uint64_t at = 0; at < p->len && !rc;) {
        bool zero = false;
        uint64_t n = run_length(buf, at, p->len, &zero);
        if (!zero)
            rc = volume_write(c->to, p->offset + at, n, buf + at, 0);
        if (!rc)
            *(zero ? &c->zero_bytes : &c->copied_bytes) += n;
        at += n;
    }
    return rc;
}

static void copy_fail(struct copy *c, int rc, uint64_t at, bool there)
{
    if (c->rc)
        return;
    c->rc = rc;
    c->failed_at = at;
    c->failed_there = there;
}

static CO void copy_work(struct copy *c)
{
    uint8_t *buf = io_buffer_get(COPY_PIECE_BYTES);
    struct piece p;
    for (;;) {
        int rc = piece_take(c, &p);
        if (rc)
            copy_fail(c, rc, c->at_bytes, false);
        if (rc || !p.len)
            break;
        rc = volume_frozen_read(c->from, p.offset, p.len, buf);
        if (rc) {
            copy_fail(c, rc, p.offset, false);
            break;
        }
        rc = piece_write(c, &p, buf);
        if (rc) {
            copy_fail(c, rc, p.offset, true);
            break;
        }
    }
    io_buffer_put(buf, COPY_PIECE_BYTES);
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
    c->left_bytes = COPY_STEP_BYTES;
    co_group_init(&c->workers);
    for (unsigned i = 1; i < COPY_WORKERS; i++) {
        co_group_enter(&c->workers);
        if (co_spawn(copy_worker, c, "copy of a volume")) { /* fewer do it too */
            co_group_leave(&c->workers, 0);
            break;
        }
    }
    copy_work(c);
    vp_ignore(co_group_wait(&c->workers), "they report in the copy");
    return c->rc;
}
