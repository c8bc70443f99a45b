/*
 * I/O on block devices and regular files through the reactor's ring.
 *
 * An operation is one ring request at a time. After a short transfer the rest is submitted again.
 * Discard on a block device is the ring's discard command (6.12) where the kernel has it, else a
 * hole punched by fallocate, which releases and zeros. On a file discard is a punched hole. Zeroing
 * punches a hole, or writes zeros by FALLOC_FL_ZERO_RANGE where holes are not known.
 *
 * On memory file systems the kernel hands each ring request to a worker thread, which costs several
 * times the copy itself. There a plain system call does the transfer. It never waits.
 */
#include "base/verify.h"
#include "io/offload.h"
#include "io/reactor_impl.h"
#include "io/region_impl.h"
#include "io/sanitize_impl.h"
#include "io/uring_device_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRANSFER_MAX                                                                               \
    (1U << 30)           /* of one ring request; the kernel's own limit is just under 2 GiB */
#define RETRIES_MAX 100U /* of EINTR and EAGAIN, without any progress */
#define PUNCH       (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define ZERO_RANGE  (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE)

#ifndef BLOCK_URING_CMD_DISCARD
#define BLOCK_URING_CMD_DISCARD _IO(0x12, 0)
#endif

static struct uring_device *device_of(struct io_op *op)
{
    return container_of(op->dev, struct uring_device, dev);
}

static int code_of(int err)
{
    switch (err) {
    case ENODEV:
    case ENXIO:
    case EBADF:
        return VP_E_IO_NO_DEVICE;
    case ENOSPC:
    case EDQUOT:
        return VP_E_NO_SPACE;
    case EAGAIN:
        return VP_E_AGAIN;
    case EOPNOTSUPP:
        return VP_E_NOT_SUPPORTED;
    case ENOMEM:
        return VP_E_NO_MEMORY;
    default:
        return VP_E_IO;
    }
}

static bool is_transfer(const struct io_op *op)
{
    return op->kind == IO_READ || op->kind == IO_WRITE;
}

static void complete_later(struct io_op *op, int rc)
{
    op->rc = rc;
    list_add_tail(&reactor_current->completed, &op->link);
}

/* ---- preparing a ring request --------------------------------------------------------------- */

static void transfer_prep(struct ring_req *req, struct io_uring_sqe *sqe)
{
    struct io_op *op = container_of(req, struct io_op, req);
    struct uring_device *d = device_of(op);
    bool is_read = op->kind == IO_READ;
    /* The address within a slot is the offset in it. */
    void *buf = (void *)((uintptr_t)op->buf + op->done_bytes);
    uint64_t left = op->len - op->done_bytes, offset = op->offset + op->done_bytes;
    unsigned len = left < TRANSFER_MAX ? (unsigned)left : TRANSFER_MAX;
    int fixed = op->slot ? (int)op->slot : region_fixed_index(reactor_current->region, buf, len);
    op->fixed = fixed >= 0;
    if (fixed >= 0) {
        io_uring_prep_rw(is_read ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED, sqe, d->fd, buf,
                         len, offset);
        sqe->buf_index = (uint16_t)fixed;
    } else {
        io_uring_prep_rw(is_read ? IORING_OP_READ : IORING_OP_WRITE, sqe, d->fd, buf, len, offset);
    }
    if (!is_read && (op->flags & IO_FUA || d->buffered))
        sqe->rw_flags = RWF_DSYNC;
}

static bool uses_discard_command(struct uring_device *d, const struct io_op *op)
{
    return op->kind == IO_DISCARD && !d->dev.info.is_file && !atomic_load(&d->no_discard_command);
}

static void prep_discard_command(struct io_op *op, struct io_uring_sqe *sqe, int fd)
{
    io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, NULL, 0, 0);
    sqe->cmd_op = BLOCK_URING_CMD_DISCARD;
    sqe->addr = op->offset;
    sqe->addr3 = op->len;
}

static int hole_mode(struct uring_device *d, const struct io_op *op)
{
    return op->kind == IO_ZERO && atomic_load(&d->no_punch) ? ZERO_RANGE : PUNCH;
}

static void command_prep(struct ring_req *req, struct io_uring_sqe *sqe)
{
    struct io_op *op = container_of(req, struct io_op, req);
    struct uring_device *d = device_of(op);
    if (op->kind == IO_FLUSH)
        io_uring_prep_fsync(sqe, d->fd, IORING_FSYNC_DATASYNC);
    else if (uses_discard_command(d, op))
        prep_discard_command(op, sqe, d->fd);
    else
        io_uring_prep_fallocate(sqe, d->fd, hole_mode(d, op), (off_t)op->offset, (off_t)op->len);
}

/* ---- completing ---------------------------------------------------------------------------- */

static void resubmit(struct io_op *op)
{
    ring_submit(reactor_current->ring, &op->req);
}

/* The kernel did `bytes` more of a transfer. True when there is more to do. */
static bool transferred(struct io_op *op, uint64_t bytes, int *rc)
{
    uint64_t whole = bytes - bytes % op->dev->info.sector_bytes;
    op->done_bytes += whole;
    *rc = 0;
    if (op->done_bytes == op->len)
        return false;
    if (whole > 0)
        return true;
    *rc = op->kind == IO_READ ? VP_E_IO_SHORT : VP_E_IO; /* it ended before */
    return false;
}

/* `err` means that the way tried is not known here. True when there is another way. */
static bool other_way(struct uring_device *d, struct io_op *op, int err)
{
    if (uses_discard_command(d, op) && (err == EOPNOTSUPP || err == EINVAL || err == ENOTTY)) {
        atomic_store(&d->no_discard_command, true);
        return true;
    }
    if (op->kind == IO_ZERO && err == EOPNOTSUPP && !atomic_load(&d->no_punch)) {
        atomic_store(&d->no_punch, true);
        return true;
    }
    return false;
}

/* A transfer that was short, another kind of operation, or one that failed. */
static __attribute__((noinline)) void op_done_in_part(struct io_op *op, int res)
{
    int rc = 0;
    bool more = false;
    if (res == -EINTR || res == -EAGAIN) {
        more = ++op->retries <= RETRIES_MAX;
        rc = VP_E_AGAIN; /* later (device.c) */
    } else if (res < 0) {
        more = other_way(device_of(op), op, -res);
        rc = code_of(-res);
        /* A block device whose size is 0 since it was removed says so as well. */
        if (rc == VP_E_NO_SPACE && !op->dev->info.is_file)
            rc = VP_E_IO;
    } else if (is_transfer(op)) {
        more = transferred(op, (uint64_t)res, &rc);
    }
    if (more)
        resubmit(op);
    else
        io_op_complete(op, rc);
}

static void op_done(struct ring_req *req, int res)
{
    struct io_op *op = container_of(req, struct io_op, req);
    if (op->kind == IO_READ && !op->slot && res > 0)
        san_kernel_wrote((unsigned char *)op->buf + op->done_bytes, (size_t)res);
    if ((uint64_t)res == op->len) /* all of it at once */
        io_op_complete(op, 0);
    else
        op_done_in_part(op, res);
}

/* ---- memory file systems ------------------------------------------------------------------- */

static int copy_now(struct uring_device *d, struct io_op *op)
{
    int rc = 0;
    bool more = op->len > 0;
    while (more) {
        unsigned char *buf = (unsigned char *)op->buf + op->done_bytes;
        size_t left = op->len - op->done_bytes;
        off_t offset = (off_t)(op->offset + op->done_bytes);
        ssize_t n = op->kind == IO_READ ? pread(d->fd, buf, left, offset)
                                        : pwrite(d->fd, buf, left, offset);
        if (n >= 0)
            more = transferred(op, (uint64_t)n, &rc);
        else if (errno != EINTR)
            return code_of(errno);
    }
    return rc;
}

static int punch_now(struct uring_device *d, struct io_op *op)
{
    while (fallocate(d->fd, PUNCH, (off_t)op->offset, (off_t)op->len) != 0)
        if (errno != EINTR)
            return code_of(errno);
    return 0;
}

static __attribute__((noinline)) int do_now(struct uring_device *d, struct io_op *op)
{
    switch (op->kind) {
    case IO_READ:
    case IO_WRITE:
        return copy_now(d, op);
    case IO_DISCARD:
    case IO_ZERO:
        return punch_now(d, op);
    case IO_FLUSH:
        break; /* nothing there is durable, ever */
    }
    return 0;
}

/* ---- the device table ------------------------------------------------------------------------ */

static void verify_aligned(const struct io_op *op)
{
    uint64_t mask = op->dev->info.sector_bytes - 1;
    VP_VERIFY((op->offset | op->len) & mask, ==, 0U);
    if (is_transfer(op))
        VP_VERIFY((uintptr_t)op->buf & mask, ==, 0U);
}

static void uring_submit(struct io_dev *dev, struct io_op *op)
{
    struct uring_device *d = container_of(dev, struct uring_device, dev);
    if (op->kind != IO_FLUSH)
        verify_aligned(op);
    if (op->len > dev->info.size_bytes || op->offset > dev->info.size_bytes - op->len)
        complete_later(op, VP_E_IO_SHORT); /* never let a file grow */
    else if (op->kind == IO_FLUSH ? !dev->info.write_cache : op->len == 0)
        complete_later(op, 0);
    else if (d->in_memory && !op->slot)
        complete_later(op, do_now(d, op));
    else {
        op->req.prep = is_transfer(op) ? transfer_prep : command_prep;
        op->req.done = op_done;
        ring_submit(reactor_current->ring, &op->req);
    }
}

static int close_blocking(void *fd)
{
    return close(*(const int *)fd);
}

/* The last one to close a disk waits until the kernel has written what others left in its cache. */
static CO void uring_close(struct io_dev *dev)
{
    struct uring_device *d = container_of(dev, struct uring_device, dev);
    if (offload_run(close_blocking, &d->fd) == VP_E_NO_MEMORY) /* no thread */
        close(d->fd);
}

static void uring_free(struct io_dev *dev)
{
    free(container_of(dev, struct uring_device, dev));
}

struct preallocation {
    int fd;
    uint64_t offset, len;
};

static int preallocate_blocking(void *arg)
{
    const struct preallocation *a = arg;
    int rc;
    do
        rc = fallocate(a->fd, FALLOC_FL_KEEP_SIZE, (off_t)a->offset, (off_t)a->len);
    while (rc && errno == EINTR);
    return rc && (errno == ENOSPC || errno == EDQUOT) ? VP_E_NO_SPACE : 0;
}

static CO int uring_preallocate(struct io_dev *dev, uint64_t offset, uint64_t len)
{
    struct preallocation a = {container_of(dev, struct uring_device, dev)->fd, offset, len};
    return dev->info.is_file ? offload_run(preallocate_blocking, &a) : 0;
}

struct look {
    int fd;
    const char *path;
    struct io_dev_sight *out;
};

static int look_blocking(void *arg)
{
    const struct look *l = arg;
    struct stat here, there;
    if (fstat(l->fd, &here) != 0)
        return VP_E_SYSTEM;
    bool block = S_ISBLK(here.st_mode), found = stat(l->path, &there) == 0;
    l->out->removed = here.st_nlink == 0 && !block;
    l->out->at_path = found && (block ? S_ISBLK(there.st_mode) && there.st_rdev == here.st_rdev
                                      : there.st_dev == here.st_dev && there.st_ino == here.st_ino);
    l->out->size_bytes = (uint64_t)here.st_size;
    return block && ioctl(l->fd, BLKGETSIZE64, &l->out->size_bytes) != 0 ? VP_E_SYSTEM : 0;
}

static CO int uring_look(struct io_dev *dev, struct io_dev_sight *out)
{
    struct look l = {container_of(dev, struct uring_device, dev)->fd, dev->info.path, out};
    return offload_run(look_blocking, &l);
}

const struct io_dev_ops uring_device_ops = {.submit = uring_submit,
                                            .close = uring_close,
                                            .free = uring_free,
                                            .look = uring_look,
                                            .preallocate = uring_preallocate};
