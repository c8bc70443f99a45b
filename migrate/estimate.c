/*
 * What a move would take, before it begins.
 *
 * For a second it is counted how much clients write. No more than that becomes dirty: what they
 * write twice is dirty once. In the meantime data of the volume are read for a fifth of a second,
 * piece by piece, so that requests come in between. A copy reads and writes, so half of that rate
 * is expected of it, and no more than its limit. Nothing is made or written for this.
 */
#include "base/bytes.h"
#include "io/buffer.h"
#include "migrate/migrate_impl.h"

#define SAMPLE_NS       UINT64_C(1000000000)
#define READ_NS         (SAMPLE_NS / 5)
#define PIECE_BYTES     (UINT64_C(64) << 10)
#define EXTENTS         16U
#define PAUSE_MS        20U                  /* when no other is wanted */
#define LAST_ROUND_NS   UINT64_C(20000000)   /* that clients write in before they are stopped */
#define SCATTERED_BYTES (UINT64_C(32) << 20) /* a second, of the last blocks (live.c) */

struct read_sample {
    struct volume *v;
    uint64_t bytes, ns;
};

static CO int extent_read(struct read_sample *s, const struct volume_extent *e, void *buf,
                          uint64_t deadline_ns)
{
    uint64_t block = e->offset / COPY_BLOCK, end = (e->offset + e->len) / COPY_BLOCK;
    bool zero;
    int rc = 0;
    while (!e->hole && !e->zero && block < end && !rc && reactor_now_ns() < deadline_ns) {
        uint64_t n = min_u64(PIECE_BYTES / COPY_BLOCK, end - block);
        rc = volume_beside_read(s->v, block, n, buf, &zero);
        s->bytes += n * COPY_BLOCK;
        block += n;
        vp_ignore(co_sleep_ns(1), "requests of clients come first");
    }
    return rc;
}

/* On the volume's reactor. */
static CO int sample_read(void *arg)
{
    struct read_sample *s = arg;
    struct volume_extent e[EXTENTS];
    uint64_t since_ns = reactor_now_ns(), at = 0, size = volume_size(s->v);
    void *buf = io_buffer_get(PIECE_BYTES);
    int rc = 0;
    while (!rc && at < size && reactor_now_ns() - since_ns < READ_NS) {
        unsigned n = 0;
        rc = volume_beside_extents(s->v, at, size - at, e, EXTENTS, &n);
        for (unsigned i = 0; i < n && !rc; i++)
            rc = extent_read(s, &e[i], buf, since_ns + READ_NS);
        at = !rc && n > 0 ? e[n - 1].offset + e[n - 1].len : size;
    }
    io_buffer_put(buf, PIECE_BYTES);
    s->ns = reactor_now_ns() - since_ns;
    return rc;
}

static uint64_t per_second(uint64_t units, uint64_t ns)
{
    return (uint64_t)((double)units * 1e9 / (double)max_u64(ns, 1));
}

/* What is dirty when they are stopped is what they wrote since the last round. */
static uint64_t pause_expect(const struct migrate_options *o, const struct migrate_estimate *e)
{
    uint64_t most_ns = (o->pause_ms ? o->pause_ms : PAUSE_MS) * UINT64_C(1000000);
    if (o->mode == MIGRATE_OFFLINE)
        return e->outlook.ns;
    return min_u64(most_ns, (uint64_t)((double)e->written_bytes * (double)LAST_ROUND_NS /
                                       (double)SCATTERED_BYTES));
}

static void estimate_conclude(const struct migrate_options *o, struct migrate_estimate *e)
{
    bool limited = o->limit_bytes && o->mode != MIGRATE_OFFLINE;
    if (limited)
        e->rate_bytes = min_u64(e->rate_bytes, o->limit_bytes);
    e->outlook = outlook_of(&(struct outlook_now){
        .left_bytes = e->bytes,
        .check_bytes = o->verify && o->mode != MIGRATE_OFFLINE ? e->bytes : 0,
        .rate_bytes = e->rate_bytes,
        .dirtied_bytes = o->mode == MIGRATE_OFFLINE ? 0 : e->written_bytes,
    });
    e->pause_ns = pause_expect(o, e);
}

CO int migrate_estimate(const struct migrate_options *o, const struct migrate_plan *plan,
                        struct migrate_estimate *out, struct vp_error *err)
{
    struct read_sample s = {0};
    *out = (struct migrate_estimate){.bytes = plan->allocated_bytes};
    int rc = volume_open(o->from, o->volume, true, &s.v, err);
    if (rc)
        return rc;
    const struct volume_figures *f = volume_figures(s.v);
    uint64_t since_ns = reactor_now_ns(), before = figure_get(&f->bytes_written);
    rc = reactor_call_for_client(volume_reactor(s.v), sample_read, &s);
    uint64_t took_ns = reactor_now_ns() - since_ns;
    if (!rc && took_ns < SAMPLE_NS)
        vp_ignore(co_sleep_ns(SAMPLE_NS - took_ns), "a shorter sample says it, too");
    out->written_bytes =
        per_second(figure_get(&f->bytes_written) - before, reactor_now_ns() - since_ns);
    if (rc)
        rc = vp_fail(err, rc, "reading %s: %s", volume_full_name(s.v), vp_err_text(rc));
    volume_close(s.v);
    out->rate_bytes = per_second(s.bytes, s.ns) / 2;
    estimate_conclude(o, out);
    return rc;
}
