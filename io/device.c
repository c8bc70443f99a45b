/* What is the same for all devices: batches, single operations, completion. */
#include "io/device.h"

#include "base/log.h"
#include "base/verify.h"
#include "io/hang_impl.h"
#include "io/offload.h"
#include "io/reactor_impl.h"
#include "io/uring_device_impl.h"

struct opening {
    const char *path;
    unsigned flags;
    struct io_dev **out;
    struct vp_error *err;
};

static int open_blocking(void *arg)
{
    const struct opening *o = arg;
    return uring_device_open(o->path, o->flags, o->out, o->err);
}

CO int io_dev_open(const char *path, unsigned flags, struct io_dev **out, struct vp_error *err)
{
    struct opening o = {path, flags, out, err};
    if (reactor_current && reactor_current->config.sim)
        return sim_reactor_dev_open(reactor_current->config.sim, path, flags, out, err);
    return offload_run(open_blocking, &o);
}

CO void io_dev_close(struct io_dev *dev)
{
    if (!dev)
        return;
    hang_watch_end(dev);
    dev->ops->close(dev);
    io_dev_put(dev);
}

const struct io_dev_info *io_dev_info(const struct io_dev *dev)
{
    return &dev->info;
}

CO int io_dev_look(struct io_dev *dev, struct io_dev_sight *out)
{
    return dev->ops->look ? dev->ops->look(dev, out) : VP_E_NOT_SUPPORTED;
}

CO int io_dev_preallocate(struct io_dev *dev, uint64_t offset, uint64_t len)
{
    return dev->ops->preallocate ? dev->ops->preallocate(dev, offset, len) : 0;
}

void io_dev_wait_for_room(struct io_dev *dev)
{
    if (dev)
        atomic_store(&dev->waits_for_room, true);
}

bool io_dev_is_full(const struct io_dev *dev)
{
    return atomic_load_explicit(&dev->full, memory_order_relaxed) > 0;
}

/* ---- what is short for a while ------------------------------------------------------------- */

#define SHORT_RETRY_NS  20000000U    /* all operations of a reactor that wait are tried again   */
#define SHORT_REPORT_NS 60000000000U /* a full file system is reported once in this time        */
/* When the kernel lacks memory or answers EAGAIN for longer than this, the disk has failed: a
 * device that is gone may answer in any way for ever. Room below a file is waited for without
 * end. */
#define SHORT_AGAIN_NS  1000000000U
#define SHORT_MEMORY_NS 10000000000U

/*
 * Whether the failure is about what the kernel lacks, and not about the disk. A flush without
 * memory is a failure of the disk: it may report writes that the kernel has given up, so it must
 * not be asked again and believed (raid/flush.c). A flush without room reports no write of ours.
 * Each write reached the disk before it completed, or the kernel need not write it any more
 * (uring_open.c, W1).
 */
static bool op_is_short(const struct io_op *op, int rc)
{
    uint64_t waited_ns = reactor_turn_ns() - op->submitted_ns;
    if (rc == VP_E_AGAIN)
        return waited_ns < SHORT_AGAIN_NS &&
               (op->kind == IO_READ || op->kind == IO_WRITE || op->kind == IO_FLUSH);
    if (rc == VP_E_NO_MEMORY)
        return waited_ns < SHORT_MEMORY_NS && (op->kind == IO_READ || op->kind == IO_WRITE);
    return rc == VP_E_NO_SPACE && op->kind != IO_READ && op->kind != IO_DISCARD &&
           atomic_load_explicit(&op->dev->waits_for_room, memory_order_relaxed);
}

static void report_full(struct io_dev *dev)
{
    uint64_t now = reactor_now_ns(), last = atomic_load(&dev->reported_at_ns);
    if ((last && now - last < SHORT_REPORT_NS) ||
        !atomic_compare_exchange_strong(&dev->reported_at_ns, &last, now))
        return;
    vp_warn("%s: the file system that holds it is full; writes wait until there is room again",
            dev->info.path);
}

static void op_wait(struct io_op *op, int rc)
{
    struct reactor *r = reactor_current;
    op->rc = rc;
    if (rc == VP_E_NO_SPACE) {
        atomic_fetch_add(&op->dev->full, 1);
        report_full(op->dev);
    }
    if (list_empty(&r->waiting_ops))
        timer_arm(&r->waiting_timer, reactor_turn_ns() + SHORT_RETRY_NS);
    list_add_tail(&r->waiting_ops, &op->link);
}

void reactor_retry_ops(struct timer *t)
{
    struct reactor *r = container_of(t, struct reactor, waiting_timer);
    struct list due, *e;
    list_init(&due);
    while ((e = list_pop(&r->waiting_ops)))
        list_add_tail(&due, e);
    while ((e = list_pop(&due))) {
        struct io_op *op = container_of(e, struct io_op, link);
        if (op->rc == VP_E_NO_SPACE) {
            atomic_fetch_sub(&op->dev->full, 1);
            op->submitted_ns = reactor_clock_ns; /* its device answers, however often it has to */
        }
        op->rc = 0;
        op->dev->ops->submit(op->dev, op);
        hang_scan_begin(r);
    }
}

/* ---- batches ------------------------------------------------------------------------------- */

void io_batch_add(struct io_batch *b, struct io_op *op)
{
    b->pending++;
    op->rc = 0;
    op->batch = b;
    op->done_bytes = 0;
    op->retries = 0;
    op->submitted_ns = reactor_clock_ns;
    op->dev->ops->submit(op->dev, op);
    hang_scan_begin(reactor_current);
}

CO int io_batch_wait(struct io_batch *b)
{
    VP_VERIFY(b->waiter, ==, NULL);
    if (b->pending > 0) {
        b->waiter = reactor_current->running;
        co_suspend("device");
    }
    return b->rc;
}

static inline void op_end(struct io_op *op, int rc)
{
    struct io_batch *b = op->batch;
    op->rc = rc;
    op->done_ns = reactor_clock_ns;
    VP_VERIFY(b->pending, >, 0U);
    if (--b->pending > 0 || !b->waiter)
        return;
    struct co *waiter = b->waiter;
    b->waiter = NULL;
    co_wake(waiter);
}

static void op_end_failed(struct io_op *op, int rc)
{
    if (op->kind == IO_WRITE && op->flags & IO_FUA)
        atomic_store(&op->dev->durable_failed, true);
    if (!op->batch->rc)
        op->batch->rc = rc;
    op_end(op, rc);
}

static __attribute__((noinline)) void op_failed(struct io_op *op, int rc)
{
    if (op_is_short(op, rc))
        op_wait(op, rc);
    else
        op_end_failed(op, rc);
}

void hang_op_end(struct io_op *op)
{
    op_end_failed(op, VP_E_IO_SILENT);
}

void io_op_complete(struct io_op *op, int rc)
{
    hang_answered(op->dev);
    if (rc)
        op_failed(op, rc);
    else
        op_end(op, 0);
}

void reactor_complete_local(struct reactor *r)
{
    struct list *e;
    while ((e = list_pop(&r->completed))) {
        struct io_op *op = container_of(e, struct io_op, link);
        io_op_complete(op, op->rc);
    }
}

/* ---- one at a time ------------------------------------------------------------------------- */

static CO int run(struct io_op *op)
{
    struct io_batch b;
    io_batch_init(&b);
    io_batch_add(&b, op);
    return io_batch_wait(&b);
}

static CO int one(struct io_dev *dev, enum io_kind kind, uint64_t offset, const void *buf,
                  uint64_t len, unsigned flags)
{
    struct io_op op;
    io_op_set(&op, dev, kind, offset, buf, len, flags);
    return run(&op);
}

static CO int one_slot(struct io_dev *dev, enum io_kind kind, uint64_t offset, unsigned slot,
                       uint64_t len, unsigned flags)
{
    struct io_op op;
    VP_VERIFY(reactor_current->ring, !=, NULL); /* a simulated world has no drivers */
    io_op_set(&op, dev, kind, offset, NULL, len, flags);
    op.slot = slot;
    return run(&op);
}

CO int io_dev_read(struct io_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
    return one(dev, IO_READ, offset, buf, len, 0);
}

CO int io_dev_write(struct io_dev *dev, uint64_t offset, const void *buf, uint32_t len,
                    unsigned flags)
{
    return one(dev, IO_WRITE, offset, buf, len, flags);
}

CO int io_dev_read_slot(struct io_dev *dev, uint64_t offset, unsigned slot, uint32_t len)
{
    return one_slot(dev, IO_READ, offset, slot, len, 0);
}

CO int io_dev_write_slot(struct io_dev *dev, uint64_t offset, unsigned slot, uint32_t len,
                         unsigned flags)
{
    return one_slot(dev, IO_WRITE, offset, slot, len, flags);
}

CO int io_dev_flush(struct io_dev *dev)
{
    return one(dev, IO_FLUSH, 0, NULL, 0, 0);
}

CO int io_dev_discard(struct io_dev *dev, uint64_t offset, uint64_t len)
{
    return one(dev, IO_DISCARD, offset, NULL, len, 0);
}

CO int io_dev_zero(struct io_dev *dev, uint64_t offset, uint64_t len)
{
    return one(dev, IO_ZERO, offset, NULL, len, 0);
}
