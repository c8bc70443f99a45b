/*
 * For the one who moves a volume: reads beside its gate, and the exchange of its front with that of
 * another volume.
 *
 *     clients ──> front A ──> from         clients ──> front A ──> to
 *                 front B ──> to     ══>               front B ──> from
 *
 * A front has what belongs to clients: their requests, the gate, tokens. What belongs to a volume
 * stays with the volume: what is behind its front, the map, block locks, marks, figures, size and
 * properties. Clients hold the front, so they do not notice.
 *
 * 1. Both volumes are frozen. So no request has looked at what is behind its front and is still at
 *    work there. Those that are held look when they pass (front.c, 6).
 * 2. A read beside the gate counts in `beside`, not in `running`: a freeze does not wait for it,
 *    and a closed gate does not stop it. The end of the pool waits for it, and no exchange happens
 *    meanwhile.
 * 3. Two threads look for the volume of a front or the front of a volume: their reactor, which
 *    exchanges them, and home. So both pointers are atomic. They need no order: volumes and fronts
 *    are made at home, and the reactor learns of them by a call from there.
 * 4. Whoever finds a volume through a front has done with it before it yields. On the reactor an
 *    exchange comes before that or after it. At home a volume is closed and freed before it or
 *    after it, and it was found behind a front of an open volume. So it does not go away meanwhile.
 *
 * On the volumes' reactor; nothing here allocates. Tested by tests/unit/volumes/test_exchange.c.
 */
#include "base/verify.h"
#include "volumes/volumes_impl.h"

/* ---- beside the gate ---------------------------------------------------------------------- */

static int beside_begin(struct front *f)
{
    if (f->gate == FRONT_ENDED)
        return VP_E_CANCELLED;
    f->beside++;
    return 0;
}

static void beside_end(struct front *f)
{
    VP_VERIFY(f->beside, >, 0U);
    f->beside--;
    if (f->gate == FRONT_ENDED)
        co_queue_wake_all(&f->quiet);
}

CO int volume_beside_read(struct volume *v, uint64_t block, uint64_t count, void *buf, bool *zero)
{
    struct front *f = volume_front(v);
    int rc = beside_begin(f);
    if (rc)
        return rc;
    rc = volume_blocks_read(v, block, count, buf, zero);
    beside_end(f);
    return rc;
}

CO int volume_beside_extents(struct volume *v, uint64_t offset, uint64_t len,
                             struct volume_extent *out, unsigned max, unsigned *n)
{
    struct front *f = volume_front(v);
    struct front_extents_request e = {
        .request = {.kind = FRONT_EXTENTS, .offset = offset, .len = len, .data = out},
        .max = max,
        .n = n};
    int rc = beside_begin(f);
    if (rc)
        return rc;
    rc = volume_front_ops.run[FRONT_EXTENTS](v, &e.request);
    beside_end(f);
    return rc;
}

/* ---- exchange ----------------------------------------------------------------------------- */

static void exchange_verify(const struct volume *v, const struct front *f)
{
    VP_VERIFY_TRUE(f->reactor == reactor_self());
    VP_VERIFY_TRUE(f->volume == v);
    VP_VERIFY_TRUE(f->gate == FRONT_FROZEN);
    VP_VERIFY(f->beside, ==, 0U);
}

static void front_give(struct front *f, struct volume *v, const struct front_ops *ops, void *arg)
{
    f->ops = ops;
    f->arg = arg;
    atomic_store_explicit(&f->volume, v, memory_order_relaxed);
    atomic_store_explicit(&v->io->front, f, memory_order_relaxed);
}

static void latency_forget(struct histogram *h)
{
    if (h)
        histogram_subtract(h, h);
}

/* Until now only the one who moves it has sent requests. */
static void latencies_forget(const struct volume_figures *f)
{
    latency_forget(f->read_latency);
    latency_forget(f->write_latency);
    latency_forget(f->flush_latency);
}

void volume_fronts_exchange(struct volume *from, struct volume *to)
{
    struct front *a = volume_front(from), *b = volume_front(to);
    const struct front_ops *a_ops = a->ops;
    void *a_arg = a->arg;
    VP_VERIFY_TRUE(pool_home(from->vs->pool) == pool_home(to->vs->pool)); /* 4 */
    exchange_verify(from, a);
    exchange_verify(to, b);
    front_give(a, to, b->ops, b->arg);
    front_give(b, from, a_ops, a_arg);
    latencies_forget(&to->figures);
}
