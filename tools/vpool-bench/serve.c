/*
 * Serving instead of measuring: a bare disk, or a volume of a pool made for it, becomes a ublk
 * device on which others put their load. The bare disk goes through the same target as a volume. So
 * the difference between the two is the cost of the engine, and the rest is the cost of ublk.
 */
#include "bench.h"

#include "base/crc.h"
#include "io/buffer.h"
#include "io/device.h"
#include "io/net.h"
#include "io/reactor.h"
#include "ublk/volume_backend.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int signal_fd = -1;

int bench_serve_prepare(struct vp_error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    return signal_fd >= 0 ? 0 : vp_fail_errno(err, VP_E_SYSTEM, errno, "cannot make a signalfd");
}

/* ---- a disk as a backend ------------------------------------------------------------------ */

struct disk {
    struct io_dev *dev;
    bool checksum;
    uint32_t sum; /* of all checksums: somebody uses them */
};

/* The checksum that a volume needs, so that its cost shows here too. */
static void checksum(struct disk *d, const unsigned char *buf, uint32_t len)
{
    for (uint32_t at = 0; d->checksum && at < len; at += 4096)
        d->sum += vp_crc32c(buf + at, len - at < 4096 ? len - at : 4096);
}

static CO int disk_read(void *arg, uint64_t offset, uint32_t len, void *buf)
{
    struct disk *d = arg;
    int rc = io_dev_read(d->dev, offset, buf, len);
    if (!rc)
        checksum(d, buf, len);
    return rc;
}

static CO int disk_write(void *arg, uint64_t offset, uint32_t len, const void *buf, unsigned flags)
{
    struct disk *d = arg;
    checksum(d, buf, len);
    return io_dev_write(d->dev, offset, buf, len, flags & UBLKX_DURABLE ? IO_FUA : 0);
}

static CO int disk_admit(void *arg, uint64_t bytes)
{
    (void)arg, (void)bytes;
    return 0;
}

static CO int disk_pass(void *arg)
{
    (void)arg;
    return 0;
}

static CO int disk_read_slot(void *arg, uint64_t offset, uint32_t len, unsigned slot)
{
    struct disk *d = arg;
    return io_dev_read_slot(d->dev, offset, slot, len);
}

static CO int disk_write_slot(void *arg, uint64_t offset, uint32_t len, unsigned slot,
                              unsigned flags)
{
    struct disk *d = arg;
    return io_dev_write_slot(d->dev, offset, slot, len, flags & UBLKX_DURABLE ? IO_FUA : 0);
}

static CO int disk_flush(void *arg)
{
    struct disk *d = arg;
    return io_dev_flush(d->dev);
}

static CO int disk_discard(void *arg, uint64_t offset, uint64_t len)
{
    struct disk *d = arg;
    return io_dev_discard(d->dev, offset, len);
}

/* What io_dev_zero does may leave a hole. */
static CO int zeros_write(struct io_dev *dev, uint64_t offset, uint64_t len)
{
    int rc = 0;
    for (uint64_t done = 0; !rc && done < len; done += sizeof(io_zeros)) {
        uint64_t left = len - done;
        uint32_t n = left < sizeof(io_zeros) ? (uint32_t)left : (uint32_t)sizeof(io_zeros);
        rc = io_dev_write(dev, offset + done, io_zeros, n, 0);
    }
    return rc;
}

static CO int disk_zero(void *arg, uint64_t offset, uint64_t len, unsigned flags)
{
    struct disk *d = arg;
    int rc =
        flags & UBLKX_NO_HOLE ? zeros_write(d->dev, offset, len) : io_dev_zero(d->dev, offset, len);
    return !rc && (flags & UBLKX_DURABLE) ? io_dev_flush(d->dev) : rc;
}

static void disk_leave(void *arg)
{
    (void)arg; /* nothing waits for space, and nothing comes after it */
}

static uint64_t disk_size(void *arg)
{
    const struct disk *d = arg;
    return io_dev_info(d->dev)->size_bytes;
}

static const struct ublkx_backend_ops disk_ops = {.admit = disk_admit,
                                                  .pass = disk_pass,
                                                  .read = disk_read,
                                                  .write = disk_write,
                                                  .flush = disk_flush,
                                                  .discard = disk_discard,
                                                  .zero = disk_zero,
                                                  .leave = disk_leave,
                                                  .go = disk_leave,
                                                  .size = disk_size,
                                                  .read_slot = disk_read_slot,
                                                  .write_slot = disk_write_slot};

static struct ublkx_backend disk_backend(struct disk *d)
{
    const struct io_dev_info *info = io_dev_info(d->dev);
    return (struct ublkx_backend){.ops = &disk_ops,
                                  .arg = d,
                                  .reactor = reactor_self(),
                                  .sector_bytes = info->sector_bytes,
                                  .optimal_bytes = 64U << 10, /* as a volume by default */
                                  .no_discard = !info->can_discard,
                                  .volatile_cache = info->write_cache};
}

/* ---- serving ------------------------------------------------------------------------------- */

static CO int serve(const struct bench_options *o, struct ublkx_backend backend,
                    struct vp_error *err)
{
    struct ublkx_options options = {.backend = backend,
                                    .number = -1,
                                    .queues = o->queues,
                                    .depth = o->depth,
                                    .zero_copy = o->zero_copy};
    reactor_random(&options.tag, sizeof(options.tag));
    options.tag |= 1; /* not 0 */
    struct ublkx_target *target;
    int rc = ublkx_target_start(&options, &target, err);
    if (rc)
        return rc;
    printf("%s\n", ublkx_target_path(target));
    (void)fflush(stdout);
    const struct reactor_figures *own = reactor_figures(reactor_self());
    uint64_t begin = figure_get(&own->enters);
    unsigned events;
    int waited = io_poll(signal_fd, POLLIN, 0, &events);
    const struct ublkx_figures *f = ublkx_target_stats(target).figures;
    unsigned long long requests = figure_get(&f->requests), errors = figure_get(&f->errors);
    uint64_t end = figure_get(&own->enters);
    rc = ublkx_target_stop(&target, err);
    if (target)
        ublkx_target_leave(target);
    if (rc)
        return rc;
    printf("%llu requests, %llu errors, %.1f requests an enter\n", requests, errors,
           (double)requests / (double)(end > begin ? end - begin : 1));
    return waited ? vp_fail(err, waited, "waiting for a signal: %s", vp_err_text(waited)) : 0;
}

CO int bench_serve_disk(const struct bench_options *o, struct vp_error *err)
{
    struct disk d = {.checksum = o->checksum};
    int rc = io_dev_open(o->disks[0], 0, &d.dev, err);
    if (rc)
        return rc;
    rc = serve(o, disk_backend(&d), err);
    io_dev_close(d.dev);
    return rc;
}

CO int bench_serve_volume(const struct bench_options *o, struct volume *v, struct vp_error *err)
{
    struct front_client client;
    return serve(o, ublkx_volume_backend(v, &client), err);
}
