/* The part of devices that is the same for all: batches, single operations, completion. */
#include "io/device.h"

#include "base/verify.h"
#include "io/reactor_impl.h"
#include "io/uring_device_impl.h"

int io_dev_open(const char *path, unsigned flags, struct io_dev **out, struct vp_error *err)
{
    if (reactor_current && reactor_current->config.sim)
        return sim_reactor_dev_open(reactor_current->config.sim, path, flags, out, err);
    return uring_device_open(path, flags, out, err);
}

void io_dev_close(struct io_dev *dev)
{
    if (dev)
        dev->ops->close(dev);
}

const struct io_dev_info *io_dev_info(const struct io_dev *dev)
{
    return &dev->info;
}

/* ---- batches ------------------------------------------------------------------------------- */

void io_batch_init(struct io_batch *b)
{
    b->pending = 0;
    b->rc = 0;
    b->waiter = NULL;
}

void io_batch_add(struct io_batch *b, struct io_op *op)
{
    b->pending++;
    op->rc = 0;
    op->batch = b;
    op->done_bytes = 0;
    op->retries = 0;
    op->submitted_ns = reactor_current->turn_ns;
    op->dev->ops->submit(op->dev, op);
}

int io_batch_wait(struct io_batch *b)
{
    VP_VERIFY(b->waiter, ==, NULL);
    if (b->pending > 0) {
        b->waiter = co_self();
        co_suspend("device");
    }
    return b->rc;
}

void io_op_complete(struct io_op *op, int rc)
{
    struct io_batch *b = op->batch;
    op->rc = rc;
    if (rc != 0 && b->rc == 0)
        b->rc = rc;
    VP_VERIFY(b->pending, >, 0U);
    if (--b->pending > 0 || !b->waiter)
        return;
    struct co *waiter = b->waiter;
    b->waiter = NULL;
    co_wake(waiter);
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

int io_dev_read(struct io_dev *dev, uint64_t offset, void *buf, uint32_t len)
{
    return one(dev, IO_READ, offset, buf, len, 0);
}

int io_dev_write(struct io_dev *dev, uint64_t offset, const void *buf, uint32_t len, unsigned flags)
{
    return one(dev, IO_WRITE, offset, buf, len, flags);
}

int io_dev_read_slot(struct io_dev *dev, uint64_t offset, unsigned slot, uint32_t len)
{
    return one_slot(dev, IO_READ, offset, slot, len, 0);
}

int io_dev_write_slot(struct io_dev *dev, uint64_t offset, unsigned slot, uint32_t len,
                      unsigned flags)
{
    return one_slot(dev, IO_WRITE, offset, slot, len, flags);
}

int io_dev_flush(struct io_dev *dev)
{
    return one(dev, IO_FLUSH, 0, NULL, 0, 0);
}

int io_dev_discard(struct io_dev *dev, uint64_t offset, uint64_t len)
{
    return one(dev, IO_DISCARD, offset, NULL, len, 0);
}

int io_dev_zero(struct io_dev *dev, uint64_t offset, uint64_t len)
{
    return one(dev, IO_ZERO, offset, NULL, len, 0);
}
