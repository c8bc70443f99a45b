/*
 * Requests of a ublk device.
 *
 * Every tag of every queue is one coroutine on the backend's reactor. It fetches a request, serves
 * it, and commits the result with the next fetch, in one command. So nothing is allocated or
 * spawned on the data path. And all commands of a queue come from the thread that fetched first, as
 * kernels before 6.16 demand.
 *
 * Data are copied once. Either the kernel copies into memory that each tag keeps, or (user copy) we
 * copy between the kernel's request and an I/O buffer, which the tag holds only while it is busy.
 * All devices of a reactor have a share of these buffers, and each device has a fair part of that
 * share for its reads and one for its writes (io/share.h). So writes that wait for space take no
 * buffers away from another device, nor from reads of their own device. When reads (or writes) hold
 * no buffer, one request at a time gets a piece done, however many others there are.
 *
 * With zero copy no data are copied. Each tag has a slot in the ring's table of buffers. The kernel
 * puts the request's pages there before the fetch completes, and takes them back with the commit.
 * Nobody uses the slot after the backend has returned.
 *
 * The kernel writes the descriptors, so they are trusted. A volume checks ranges anyhow.
 */
#include "ublk/target_impl.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/verify.h"
#include "io/buffer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR_SHIFT     9
#define BUFFER_GUARANTEE ((size_t)64 << 10) /* of 16 MiB for 64 devices, each for two */

static uint64_t copy_offset(const struct ublkx_tag *tag)
{
    return UBLKX_COPY_BASE + ((uint64_t)tag->queue->id << UBLKX_COPY_QUEUE_SHIFT) +
           ((uint64_t)tag->tag << UBLKX_COPY_TAG_SHIFT);
}

/* ---- buffers (user copy) ------------------------------------------------------------------- */

/* One per reactor, that is, per thread. */
static _Thread_local struct io_share buffers;

static void buffers_join(struct ublkx_target *t)
{
    buffers.max = max_u64(io_buffer_total() / 4, (uint64_t)2 * UBLKX_IO_BYTES_MAX);
    buffers.guarantee = BUFFER_GUARANTEE;
    t->reads.share = t->writes.share = (struct io_share_holder){.share = &buffers, .max = SIZE_MAX};
    co_queue_init(&t->reads.queue);
    co_queue_init(&t->writes.queue);
}

static size_t cost_of(size_t len)
{
    return len <= 4096 ? 4096 : (size_t)1 << (64 - __builtin_clzll(len - 1));
}

/* A buffer for the next *len bytes of a request, which get fewer where buffers are short. */
static CO void *buffer_get(struct ublkx_buffers *b, uint32_t *len)
{
    while (b->share.held && !io_share_may_take(&b->share, cost_of(*len)))
        co_queue_wait(&b->queue, "ublk: buffers of the device");
    while (*len > BUFFER_GUARANTEE && !io_share_may_take(&b->share, cost_of(*len)))
        *len = (uint32_t)cost_of(*len) / 2;
    io_share_take(&b->share, cost_of(*len));
    return io_buffer_get(*len);
}

static void buffer_put(struct ublkx_buffers *b, void *buf, uint32_t len)
{
    io_buffer_put(buf, len);
    io_share_give(&b->share, cost_of(len));
    if (!co_queue_is_empty(&b->queue))
        co_queue_wake_all(&b->queue);
}

/* ---- one request --------------------------------------------------------------------------- */

static CO int read_piece(struct ublkx_tag *tag, uint64_t offset, uint32_t len, uint64_t copy_at,
                         void *buf)
{
    struct ublkx_target *t = tag->queue->target;
    int rc = t->backend.ops->read(t->backend.arg, offset, len, buf);
    if (!rc && io_driver_copy_out(t->fd, copy_at, buf, len) != len)
        rc = VP_E_IO;
    return rc;
}

static CO int write_piece(struct ublkx_tag *tag, uint64_t offset, uint32_t len, uint64_t copy_at,
                          void *buf, unsigned flags)
{
    struct ublkx_target *t = tag->queue->target;
    if (io_driver_copy_in(t->fd, copy_at, buf, len) != len)
        return VP_E_IO;
    return t->backend.ops->write(t->backend.arg, offset, len, buf, flags);
}

static CO int copy_request(struct ublkx_tag *tag, uint64_t offset, uint32_t len, bool is_read,
                           unsigned flags)
{
    struct ublkx_target *t = tag->queue->target;
    struct ublkx_buffers *b = is_read ? &t->reads : &t->writes;
    int rc = 0;
    for (uint32_t done = 0, part; done < len && !rc; done += part) {
        rc = done ? t->backend.ops->pass(t->backend.arg) : 0;
        if (rc)
            return rc;
        part = len - done;
        void *buf = buffer_get(b, &part);
        uint64_t copy_at = copy_offset(tag) + done;
        rc = is_read ? read_piece(tag, offset + done, part, copy_at, buf)
                     : write_piece(tag, offset + done, part, copy_at, buf, flags);
        buffer_put(b, buf, part);
    }
    return rc;
}

static CO int read_request(struct ublkx_tag *tag, uint64_t offset, uint32_t len)
{
    struct ublkx_target *t = tag->queue->target;
    if (t->copies == UBLKX_NO_COPY)
        return t->backend.ops->read_slot(t->backend.arg, offset, len, tag->slot);
    if (t->copies == UBLKX_KERNEL_COPIES)
        return t->backend.ops->read(t->backend.arg, offset, len, tag->buf);
    return copy_request(tag, offset, len, true, 0);
}

static CO int write_request(struct ublkx_tag *tag, uint64_t offset, uint32_t len, unsigned flags)
{
    struct ublkx_target *t = tag->queue->target;
    if (t->copies == UBLKX_NO_COPY)
        return t->backend.ops->write_slot(t->backend.arg, offset, len, tag->slot, flags);
    if (t->copies == UBLKX_KERNEL_COPIES)
        return t->backend.ops->write(t->backend.arg, offset, len, tag->buf, flags);
    return copy_request(tag, offset, len, false, flags);
}

static CO int request(struct ublkx_tag *tag, const struct ublkx_io_desc *d)
{
    struct ublkx_target *t = tag->queue->target;
    const struct ublkx_backend *b = &t->backend;
    unsigned durable = !b->volatile_cache || (d->op_flags & UBLKX_IO_FUA) ? UBLKX_DURABLE : 0;
    uint64_t offset = d->start_sector << SECTOR_SHIFT;
    uint64_t len = (uint64_t)d->sectors << SECTOR_SHIFT;
    unsigned op = d->op_flags & 0xff;
    if (op != UBLKX_OP_READ && op != UBLKX_OP_FLUSH && t->read_only)
        return VP_E_READ_ONLY;
    if ((op == UBLKX_OP_READ || op == UBLKX_OP_WRITE) && len > t->info.max_io_buf_bytes)
        return VP_E_RANGE;
    int rc = b->ops->admit(b->arg, op == UBLKX_OP_READ || op == UBLKX_OP_WRITE ? len : 0);
    if (rc)
        return rc;
    switch (op) {
    case UBLKX_OP_READ:
        return read_request(tag, offset, (uint32_t)len);
    case UBLKX_OP_WRITE:
        return write_request(tag, offset, (uint32_t)len, durable);
    case UBLKX_OP_FLUSH:
        return b->ops->flush(b->arg);
    case UBLKX_OP_DISCARD:
        return b->ops->discard(b->arg, offset, len);
    case UBLKX_OP_WRITE_ZEROES:
        return b->ops->zero(b->arg, offset, len,
                            durable | (d->op_flags & UBLKX_IO_NOUNMAP ? UBLKX_NO_HOLE : 0));
    default:
        return VP_E_NOT_SUPPORTED;
    }
}

static void request_count(struct ublkx_target *t, unsigned op, uint64_t took_ns)
{
    struct histogram *h = op < UBLKX_OPS ? t->latency[op] : NULL;
    figure_add(&t->figures.requests, 1);
    if (h)
        histogram_add(h, took_ns);
}

/* The result for the kernel: the bytes of a transfer, 0 for other requests, or a negative errno. */
static int result_of(struct ublkx_target *t, const struct ublkx_io_desc *d, int rc)
{
    unsigned op = d->op_flags & 0xff;
    if (rc) {
        figure_add(&t->figures.errors, 1);
        return rc == VP_E_CANCELLED ? -EIO : -vp_err_class(rc);
    }
    if (op != UBLKX_OP_READ && op != UBLKX_OP_WRITE)
        return 0;
    int bytes = (int)(d->sectors << SECTOR_SHIFT);
    figure_add(op == UBLKX_OP_READ ? &t->figures.bytes_read : &t->figures.bytes_written,
               (uint64_t)bytes);
    return bytes;
}

static CO int serve(struct ublkx_tag *tag)
{
    struct ublkx_io_desc d = tag->queue->desc[tag->tag];
    uint64_t since_ns = reactor_turn_ns(); /* it came in this turn */
    int rc = request(tag, &d);
    request_count(tag->queue->target, d.op_flags & 0xff, reactor_turn_ns() - since_ns);
    return result_of(tag->queue->target, &d, rc);
}

/* ---- tags ---------------------------------------------------------------------------------- */

static CO int fetch(struct ublkx_tag *tag, uint32_t op, int result)
{
    struct ublkx_target *t = tag->queue->target;
    struct ublkx_io_cmd cmd = {
        .q_id = tag->queue->id, .tag = tag->tag, .result = result, .addr = (uintptr_t)tag->buf};
    tag->command.fd = t->fd;
    tag->command.op = op;
    tag->command.addr = tag->slot;
    memcpy(tag->command.payload, &cmd, sizeof(cmd));
    return io_command_run(&tag->command);
}

static void part_ended(struct ublkx_target *t)
{
    VP_VERIFY(t->running, >, 0U);
    t->running--;
    co_queue_wake_all(&t->changed);
}

static CO void tag_main(void *arg)
{
    struct ublkx_tag *tag = arg;
    struct ublkx_target *t = tag->queue->target;
    int res = t->state == UBLKX_LEFT ? -ECANCELED : fetch(tag, UBLKX_IO_FETCH, -1);
    while (res == 0 && t->state != UBLKX_LEFT) {
        int result = serve(tag);
        if (t->state == UBLKX_LEFT)
            break; /* not committed: the kernel issues it again to the next server */
        res = fetch(tag, UBLKX_IO_COMMIT_AND_FETCH, result);
    }
    if (res != 0 && res != -ENODEV && res != -ECANCELED)
        t->fetch_errno = -res;
    part_ended(t);
}

/* ---- beginning and end --------------------------------------------------------------------- */

static size_t desc_bytes(const struct ublkx_target *t)
{
    return align_up(t->info.queue_depth * sizeof(struct ublkx_io_desc), 4096);
}

static size_t memory_bytes(const struct ublkx_target *t)
{
    return (size_t)t->info.queue_depth * t->info.max_io_buf_bytes;
}

static unsigned tag_count(const struct ublkx_target *t)
{
    return (unsigned)t->info.nr_hw_queues * t->info.queue_depth;
}

static bool queue_init(struct ublkx_target *t, uint16_t id)
{
    struct ublkx_queue *q = &t->queues[id];
    uint64_t at = (uint64_t)id * UBLKX_QUEUE_DEPTH_MAX * sizeof(struct ublkx_io_desc);
    q->target = t;
    q->id = id;
    q->desc = io_driver_map(t->fd, at, desc_bytes(t));
    q->tags = calloc(t->info.queue_depth, sizeof(*q->tags));
    bool kernel_copies = t->copies == UBLKX_KERNEL_COPIES, no_copy = t->copies == UBLKX_NO_COPY;
    q->memory = kernel_copies ? io_pages_new(memory_bytes(t)) : NULL;
    t->queue_count = id + 1U;
    if (!q->desc || !q->tags || (kernel_copies && !q->memory))
        return false;
    for (uint16_t i = 0; i < t->info.queue_depth; i++) {
        q->tags[i].queue = q;
        q->tags[i].tag = i;
        q->tags[i].buf = q->memory ? q->memory + (size_t)i * t->info.max_io_buf_bytes : NULL;
        q->tags[i].slot = no_copy ? t->first_slot + (unsigned)id * t->info.queue_depth + i : 0;
    }
    return true;
}

static void serve_close(struct ublkx_target *t)
{
    bool left = t->state == UBLKX_LEFT;
    for (unsigned i = 0; i < t->queue_count; i++) {
        struct ublkx_queue *q = &t->queues[i];
        io_driver_unmap(q->desc, desc_bytes(t));
        q->desc = NULL;
        if (left)
            continue; /* the commands that were left, and where the kernel may still copy to */
        io_pages_free(q->memory, memory_bytes(t));
        free(q->tags);
    }
    t->queue_count = left ? t->queue_count : 0;
    if (t->first_slot && !left) {
        io_driver_slots_put();
        t->first_slot = 0;
    }
    if (t->fd >= 0)
        io_driver_close(t->fd);
    t->fd = -1;
}

static int tags_spawn(struct ublkx_target *t)
{
    for (unsigned i = 0; i < t->queue_count; i++)
        for (unsigned k = 0; k < t->info.queue_depth; k++) {
            int rc = co_spawn(tag_main, &t->queues[i].tags[k], "ublk-tag");
            if (rc)
                return rc;
            t->running++;
        }
    return 0;
}

CO int ublkx_serve_begin(struct ublkx_target *t, struct vp_error *err)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/dev/ublkc%u", t->info.dev_id);
    t->fd = io_driver_open(path);
    if (t->fd < 0)
        return vp_fail_errno(err, VP_E_UBLK_REFUSED, -t->fd, "cannot open %s", path);
    if (t->copies == UBLKX_NO_COPY && !(t->first_slot = io_driver_slots_get(tag_count(t)))) {
        serve_close(t);
        return vp_fail(err, VP_E_NOT_SUPPORTED,
                       "%s: zero copy needs a table of buffers for %u requests, and this reactor's "
                       "ring has none",
                       path, tag_count(t));
    }
    for (uint16_t i = 0; i < t->info.nr_hw_queues; i++)
        if (!queue_init(t, i)) {
            serve_close(t);
            return vp_fail(err, VP_E_NO_MEMORY, "no memory for the queues of %s", path);
        }
    io_serve_page_cache();
    buffers_join(t);
    ublkx_target_move(t, UBLKX_SERVING);
    int rc = tags_spawn(t);
    if (rc)
        return vp_fail(err, rc,
                       "%u queues of %u requests are too many for this reactor: use --depth",
                       t->info.nr_hw_queues, t->info.queue_depth);
    return 0;
}

CO void ublkx_serve_end(struct ublkx_target *t)
{
    if (t->state == UBLKX_LEFT) {
        t->backend.ops->go(t->backend.arg); /* what is not committed is issued again */
        for (unsigned i = 0; i < t->queue_count; i++)
            for (unsigned k = 0; k < t->info.queue_depth; k++)
                io_command_abandon(&t->queues[i].tags[k].command);
    }
    while (t->running)
        co_queue_wait(&t->changed, "ublk: requests in flight");
    serve_close(t);
    if (t->state != UBLKX_LEFT)
        ublkx_target_move(t, UBLKX_CLOSED);
}
