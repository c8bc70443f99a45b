/*
 * Devices that do not answer.
 *
 * A request that the kernel has cannot be taken back. A device may complete it late, or never. So a
 * device is looked at every SCAN_NS, by each reactor that has operations in flight. There is no
 * timer for an operation:
 *
 *     ANSWERS ── an operation is old, nothing was answered meanwhile ──> SILENT ── io_dev_give_up
 *        ^                                                                  │            │
 *        ├────────────────────────── it answers ────────────────────────────┘            v
 *        └──────────── io_dev_take_back, once nothing is late ─────────────────────── GIVEN UP
 *
 * The owner of a silent device is told, and decides. Where nobody has what the device has, waiting
 * goes on. When the device is given up, its operations end with VP_E_IO_SILENT. For each of them a
 * *late* operation, on the heap, takes its place in the ring until the kernel is done.
 *
 *  H1  No memory is in use that a late request may change. The pages of the operation's buffer stay
 *      with the kernel, which holds them, and other pages take their place at the same address
 *      (pages_renew). So callers keep their buffer, and no buffer is missing from the region while
 *      requests are late (GUARD_LATE_IO). This needs a buffer that the ring has registered: only
 *      of that the kernel has the pages from the start. It may look up another address when it
 *      gets to the transfer, which may be late as well.
 *  H2  Nothing on the caller's stack is known to the ring or to the device any more.
 *  H3  The device's memory lives until its last late request has ended, after the close too. The
 *      kernel keeps the device open for as long, so nobody opens it exclusively meanwhile.
 *  H4  Late requests do not count against the ring's limit, and nobody waits for them, not even the
 *      end of the ring.
 *  H5  An operation is given up only if a turn of the loop has handed it to the kernel. So its
 *      descriptor is not looked up after the device was closed.
 *
 * Time counts from the last moment at which the reactor came late to a scan. So a process that was
 * stopped, or got no processor, takes no device for silent: what has completed meanwhile is seen
 * first.
 *
 * A late write writes what it was given if its buffer was registered, or if the kernel had begun.
 * Else it may write anything, to a device that nobody reads.
 *
 * An operation cannot be given up, and goes on waiting, when its buffer is a driver's slot, or not
 * made of whole pages, or when it is a read into memory that is not registered (LimitMEMLOCK).
 */
#include "io/hang_impl.h"

#include "base/log.h"
#include "base/verify.h"
#include "io/buffer.h"
#include "io/guard.h"
#include "io/region_impl.h"
#include "io/ring_impl.h"
#include "io/sim_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SCAN_NS   UINT64_C(100000000)
#define LATE_SCAN (6 * SCAN_NS) /* a reactor that comes so late did not run */
#define PAGE      4096U

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

static _Atomic unsigned late_requests; /* of all devices */

unsigned io_late_requests(void)
{
    return atomic_load(&late_requests);
}

/* ---- the owner is told --------------------------------------------------------------------- */

void io_dev_watch(struct io_dev *dev, CO void (*told)(void *arg), void *arg)
{
    atomic_store(&dev->told_arg, arg);
    atomic_store(&dev->told, told);
}

void io_dev_put(struct io_dev *dev)
{
    if (atomic_fetch_sub(&dev->refs, 1) == 1)
        dev->ops->free(dev);
}

static CO void tell(void *arg)
{
    struct io_dev *dev = arg;
    CO void (*told)(void *arg) = atomic_load(&dev->told);
    if (told)
        told(atomic_load(&dev->told_arg));
    atomic_store(&dev->telling, false);
    io_dev_put(dev);
}

static void tell_begin(struct io_dev *dev)
{
    if (!atomic_load(&dev->told) || atomic_exchange(&dev->telling, true))
        return;
    atomic_fetch_add(&dev->refs, 1);
    if (co_spawn_reserved(tell, dev, "a silent device")) { /* at the next scan, then */
        atomic_store(&dev->telling, false);
        io_dev_put(dev);
    }
}

CO void hang_watch_end(struct io_dev *dev)
{
    io_dev_watch(dev, NULL, NULL);
    while (atomic_load(&dev->telling))
        vp_ignore(co_sleep_ns(1000000), "it looks again anyway");
}

void io_dev_give_up(struct io_dev *dev)
{
    atomic_store(&dev->given_up, true);
}

void io_dev_take_back(struct io_dev *dev)
{
    atomic_store(&dev->given_up, false);
}

unsigned io_dev_late(const struct io_dev *dev)
{
    return atomic_load(&dev->late);
}

uint64_t io_dev_silent_ns(const struct io_dev *dev)
{
    return atomic_load_explicit(&dev->silent_ns, memory_order_relaxed);
}

/* ---- giving up one operation ---------------------------------------------------------------- */

static bool is_constant(const struct io_op *op)
{
    return (uintptr_t)op->buf - (uintptr_t)io_zeros < sizeof(io_zeros);
}

/* H1. What is in the pages is kept where somebody may still want it. False: not possible now. */
static bool pages_renew(const struct io_op *op)
{
    if ((op->kind != IO_READ && op->kind != IO_WRITE) || is_constant(op))
        return true;
    if (op->slot || ((uintptr_t)op->buf | op->len) % PAGE || (op->kind == IO_READ && !op->fixed))
        return false;
    void *kept = op->kind == IO_WRITE ? malloc(op->len) : NULL;
    if (op->kind == IO_WRITE && !kept)
        return false;
    if (kept)
        memcpy(kept, op->buf, op->len);
    bool renewed = madvise(op->buf, op->len, MADV_DONTNEED) == 0 ||
                   madvise(op->buf, op->len, MADV_DONTNEED_LOCKED) == 0;
    if (renewed && kept)
        memcpy(op->buf, kept, op->len);
    free(kept);
    if (renewed)
        region_pages_changed(reactor_current->region, op->buf, op->len);
    return renewed;
}

/* H2, H3. NULL: no memory. */
static struct io_op *late_new(const struct io_op *op, size_t more)
{
    struct io_op *late = malloc(sizeof(*late) + more);
    if (!late)
        return NULL;
    *late = *op;
    late->batch = NULL;
    atomic_fetch_add(&op->dev->refs, 1);
    atomic_fetch_add(&op->dev->late, 1);
    atomic_fetch_add(&late_requests, 1);
    return late;
}

void io_late_complete(struct io_op *late)
{
    struct io_dev *dev = late->dev;
    hang_answered(dev);
    free(late);
    atomic_fetch_sub(&late_requests, 1);
    if (atomic_fetch_sub(&dev->late, 1) == 1)
        vp_info("%s: all requests that were given up have ended", dev->info.path);
    io_dev_put(dev);
}

/* The transfer may be short: the rest of it is nobody's any more. */
static void late_done(struct ring_req *req, int res)
{
    (void)res;
    if (reactor_current && reactor_current->ring)
        ring_request_left(reactor_current->ring, -1);
    io_late_complete(container_of(req, struct io_op, req));
}

/* In a simulated world there are no pages, so the late read gets memory of its own. */
struct io_op *hang_late_simulated(const struct io_op *op)
{
    bool own = op->kind == IO_READ && io_guard_on(GUARD_LATE_IO);
    struct io_op *late = late_new(op, own ? op->len : 0);
    if (late && own)
        late->buf = late + 1;
    return late;
}

/* ---- looking ------------------------------------------------------------------------------- */

/* How long the reactor has seen the operation in flight. */
static uint64_t age_of(const struct reactor *r, const struct io_op *op)
{
    uint64_t since = op->submitted_ns > r->hang_since_ns ? op->submitted_ns : r->hang_since_ns;
    return reactor_clock_ns > since ? reactor_clock_ns - since : 0;
}

static uint64_t patience_with(const struct io_dev_info *info)
{
    return info->is_file || info->is_loop ? IO_FILE_SILENT_NS
           : info->rotational             ? IO_ROTATIONAL_SILENT_NS
                                          : IO_SILENT_NS;
}

/* Whether the operation is to be given up. Notes what it says about its device. */
static bool op_look(const struct reactor *r, const struct io_op *op)
{
    struct io_dev *dev = op->dev;
    uint64_t patience = patience_with(&dev->info), age = age_of(r, op);
    if (atomic_load(&dev->given_up))
        return age >= SCAN_NS; /* H5 */
    if (age < patience)
        return false;
    uint64_t answered = atomic_load_explicit(&dev->answered_ns, memory_order_relaxed);
    bool answers = reactor_clock_ns < answered || reactor_clock_ns - answered < patience;
    if (answers && age < IO_LOST_TIMES * patience)
        return false;
    atomic_store_explicit(&dev->silent_ns, age, memory_order_relaxed);
    tell_begin(dev);
    return false;
}

static void request_look(struct ring_req **req, void *arg)
{
    struct reactor *r = arg;
    struct io_op *op = container_of(*req, struct io_op, req), *late;
    if ((*req)->done == late_done || !op_look(r, op) || !ring_may_leave(r->ring))
        return;
    if (io_guard_on(GUARD_LATE_IO) && !pages_renew(op))
        return;
    late = late_new(op, 0);
    if (!late)
        return;
    late->req.done = late_done;
    *req = &late->req;
    ring_request_left(r->ring, 1);
    hang_op_end(op);
}

static bool simulated_look(struct io_op *op, void *arg)
{
    return op_look(arg, op);
}

static bool look_at_all(struct reactor *r)
{
    if (r->config.sim)
        return sim_reactor_leave_ops(r->config.sim, simulated_look, r);
    ring_each_counted(r->ring, request_look, r);
    region_register_again(r->region);
    return ring_waited_for(r->ring) > 0;
}

void hang_scan(struct timer *t)
{
    struct reactor *r = container_of(t, struct reactor, hang_timer);
    if (reactor_clock_ns - r->hang_seen_ns > LATE_SCAN)
        r->hang_since_ns = reactor_clock_ns;
    r->hang_seen_ns = reactor_clock_ns;
    r->hang_scans = look_at_all(r);
    if (r->hang_scans)
        timer_arm(&r->hang_timer, reactor_clock_ns + SCAN_NS);
}

void hang_scan_stop(struct reactor *r)
{
    r->hang_scans = false;
    timer_disarm(&r->hang_timer);
}

void hang_scan_start(struct reactor *r)
{
    r->hang_scans = true;
    r->hang_seen_ns = reactor_clock_ns;
    timer_arm(&r->hang_timer, reactor_clock_ns + SCAN_NS);
}
