/* The control commands of the ublk driver, each with its deadline and its error in a sentence. */
#include "ublk/device.h"

#include "ublk/target_impl.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define TIMEOUT_MS 30000U /* adding, starting, asking                                        */
#define STOP_TIMEOUT_MS                                                                            \
    120000U /* stopping writes back what the page cache holds of the device    */
#define PREDECESSOR_NS   (UINT64_C(15) * 1000000000)
#define PREDECESSOR_STEP (UINT64_C(20) * 1000000)
#define NUMBER_FREE_NS   (UINT64_C(2) * 1000000000)
#define NO_QUEUE         0xffffU
#define SECTOR_SHIFT     9

/* Runs one command; `data` (may be NULL) goes in and out. The driver's result. */
static CO int command(uint32_t op, unsigned number, void *data, uint16_t len, uint64_t word,
                      unsigned timeout_ms)
{
    struct ublkx_ctl_cmd cmd = {
        .dev_id = number, .queue_id = NO_QUEUE, .len = data ? len : 0, .data = word};
    struct io_control c = {.path = UBLKX_CONTROL_PATH, .op = op};
    memcpy(c.payload, &cmd, sizeof(cmd));
    if (data) {
        c.data_at = offsetof(struct ublkx_ctl_cmd, addr);
        memcpy(c.data, data, len);
    }
    int res = io_control_run(&c, timeout_ms);
    if (res >= 0 && data)
        memcpy(data, c.data, len);
    return res;
}

static int no_driver(struct vp_error *err)
{
    struct utsname u;
    unsigned major = 0, minor = 0;
    if (uname(&u) == 0 && sscanf(u.release, "%u.%u", &major, &minor) == 2 &&
        (major < 6 || (major == 6 && minor < 5)))
        return vp_fail(
            err, VP_E_UBLK_TOO_OLD,
            "this machine runs Linux %u.%u, and block devices need the ublk driver of 6.5 "
            "or later: attach with --nbd",
            major, minor);
    return vp_fail(
        err, VP_E_UBLK_NONE,
        "there is no " UBLKX_CONTROL_PATH
        ": load the driver with `modprobe ublk_drv` (if there is no such module, the kernel "
        "was built without CONFIG_BLK_DEV_UBLK; a container has to be given the device), or "
        "attach with --nbd");
}

static int failed(int res, const char *what, unsigned number, struct vp_error *err)
{
    if (res == -ENOENT)
        return no_driver(err);
    if (res == -EACCES || res == -EPERM)
        return vp_fail(err, VP_E_PERMISSION,
                       "%s a ublk device is not permitted: the daemon has to run as root, with "
                       "CAP_SYS_ADMIN, and in a container with access to " UBLKX_CONTROL_PATH
                       "; or attach with --nbd",
                       what);
    if (res == -ETIMEDOUT)
        return vp_fail(err, VP_E_UBLK_STUCK,
                       "%s ublk device %u: no answer from the kernel in time; see `dmesg`", what,
                       number);
    if (res == -ENODEV)
        return vp_fail(err, VP_E_NOT_FOUND, "%s: there is no ublk device %u", what, number);
    if (res == -EEXIST)
        return vp_fail(err, VP_E_EXISTS, "%s: ublk device %u exists already", what, number);
    return vp_fail_errno(err, VP_E_UBLK_REFUSED, -res, "%s ublk device %u", what, number);
}

static CO int simple(uint32_t op, unsigned number, uint64_t word, unsigned timeout_ms,
                     const char *what, struct vp_error *err)
{
    int res = command(op, number, NULL, 0, word, timeout_ms);
    return res < 0 ? failed(res, what, number, err) : 0;
}

CO int ublkx_features(uint64_t *out, struct vp_error *err)
{
    *out = 0;
    int res = command(UBLKX_CTL_GET_FEATURES, UINT32_MAX, out, sizeof(*out), 0, TIMEOUT_MS);
    if (res == -EOPNOTSUPP || res == -EINVAL || res == -ENODEV)
        return vp_fail(err, VP_E_UBLK_TOO_OLD,
                       "this kernel's ublk driver is older than Linux 6.5; attach with --nbd");
    if (res < 0)
        return failed(res, "asking for features of", 0, err);
    uint64_t needed = UBLKX_F_USER_RECOVERY | UBLKX_F_RECOVERY_REISSUE | UBLKX_F_IOCTL_ENCODE;
    if ((*out & needed) != needed)
        return vp_fail(err, VP_E_UBLK_TOO_OLD,
                       "this kernel's ublk driver cannot hand a device over to another process "
                       "(features 0x%llx); attach with --nbd",
                       (unsigned long long)*out);
    return 0;
}

CO int ublkx_device_info(int number, struct ublkx_dev_info *out, struct vp_error *err)
{
    memset(out, 0, sizeof(*out));
    int res = command(UBLKX_CTL_GET_DEV_INFO, (unsigned)number, out, sizeof(*out), 0, TIMEOUT_MS);
    return res < 0 ? failed(res, "asking for", (unsigned)number, err) : 0;
}

CO int ublkx_device_add(struct ublkx_dev_info *info, struct vp_error *err)
{
    uint64_t asked = info->flags;
    int res = command(UBLKX_CTL_ADD_DEV, info->dev_id, info, sizeof(*info), 0, TIMEOUT_MS);
    if (res < 0)
        return failed(res, "adding", info->dev_id, err);
    if ((info->flags & asked) == asked)
        return 0;
    /* Unknown flags are dropped silently, and without these a killed daemon costs errors. */
    unsigned number = info->dev_id;
    vp_ignore(ublkx_device_delete(number, NULL), "what was wrong is told below");
    return vp_fail(err, VP_E_UBLK_TOO_OLD,
                   "ublk device %u came with flags 0x%llx, but 0x%llx are needed", number,
                   (unsigned long long)info->flags, (unsigned long long)asked);
}

/* The tag is part of a volume's uuid, which is no secret; the rest only root can have given it. */
int ublkx_device_check_ours(const struct ublkx_dev_info *i, uint64_t tag, struct vp_error *err)
{
    const uint64_t needed = UBLKX_F_USER_RECOVERY | UBLKX_F_RECOVERY_REISSUE;
    const char *why = NULL;
    if (i->server_flags != tag)
        why = "its tag is not this volume's";
    else if ((i->flags & needed) != needed || (i->flags & UBLKX_F_AUTO_BUF_REG))
        why = "it was made with other flags than vpool's devices";
    else if ((i->flags & UBLKX_F_UNPRIVILEGED_DEV) || (i->owner_uid && i->owner_uid != geteuid()))
        why = "it was made by another user";
    else if (!i->nr_hw_queues || i->nr_hw_queues > UBLKX_QUEUES_MAX || !i->queue_depth ||
             (unsigned)i->nr_hw_queues * i->queue_depth > UBLKX_TAGS_MAX || !i->max_io_buf_bytes ||
             i->max_io_buf_bytes > UBLKX_IO_BYTES_MAX)
        why = "its queues, depth or request size are none that vpool's devices can have";
    return why ? vp_fail(err, VP_E_EXISTS, "/dev/ublkb%u belongs to somebody else: %s", i->dev_id,
                         why)
               : 0;
}

static uint8_t shift_of(uint32_t bytes)
{
    return (uint8_t)(31 - __builtin_clz(bytes));
}

static void params_fill(const struct ublkx_target *t, struct ublkx_params *p)
{
    const uint32_t block = 4096, many = 1U << 21; /* sectors: 1 GiB */
    const struct ublkx_backend *b = &t->backend;
    *p = (struct ublkx_params){
        .len = sizeof(*p), .types = UBLKX_PARAM_BASIC | (b->no_discard ? 0 : UBLKX_PARAM_DISCARD)};
    p->basic.attrs = (t->read_only ? UBLKX_ATTR_READ_ONLY : 0) |
                     (b->volatile_cache ? UBLKX_ATTR_VOLATILE_CACHE | UBLKX_ATTR_FUA : 0);
    p->basic.logical_bs_shift = shift_of(b->sector_bytes);
    p->basic.physical_bs_shift = shift_of(block);
    p->basic.io_min_shift = shift_of(block);
    p->basic.io_opt_shift = shift_of(b->optimal_bytes);
    p->basic.max_sectors = t->info.max_io_buf_bytes >> SECTOR_SHIFT;
    p->basic.dev_sectors = b->ops->size(b->arg) >> SECTOR_SHIFT;
    if (t->copies == UBLKX_NO_COPY) { /* what is given to us goes to a disk as it is */
        p->types |= UBLKX_PARAM_DMA_ALIGN;
        p->dma.mask = b->sector_bytes - 1;
    }
    p->discard.granularity = block;
    p->discard.max_discard_sectors = many;
    p->discard.max_discard_segments = 1;
    p->discard.max_write_zeroes_sectors = many;
}

CO int ublkx_device_params(const struct ublkx_target *t, struct vp_error *err)
{
    struct ublkx_params p;
    params_fill(t, &p);
    int res = command(UBLKX_CTL_SET_PARAMS, t->info.dev_id, &p, sizeof(p), 0, TIMEOUT_MS);
    return res < 0 ? failed(res, "describing", t->info.dev_id, err) : 0;
}

CO int ublkx_device_has_cache(const struct ublkx_target *t, bool *out, struct vp_error *err)
{
    struct ublkx_params p = {.len = sizeof(p)};
    int res = command(UBLKX_CTL_GET_PARAMS, t->info.dev_id, &p, sizeof(p), 0, TIMEOUT_MS);
    *out = res >= 0 && (p.basic.attrs & UBLKX_ATTR_VOLATILE_CACHE);
    return res < 0 ? failed(res, "asking for", t->info.dev_id, err) : 0;
}

CO int ublkx_device_start(const struct ublkx_target *t, struct vp_error *err)
{
    return simple(UBLKX_CTL_START_DEV, t->info.dev_id, (uint64_t)getpid(), TIMEOUT_MS, "starting",
                  err);
}

CO int ublkx_device_stop(unsigned number, struct vp_error *err)
{
    return simple(UBLKX_CTL_STOP_DEV, number, 0, STOP_TIMEOUT_MS, "stopping", err);
}

/* The device goes at once, but its number is free only when its last user closes it. That is waited
 * for shortly, and is no failure. Linux 6.5 and 6.6 know only how to wait. */
CO int ublkx_device_delete(unsigned number, struct vp_error *err)
{
    uint64_t deadline = reactor_now_ns() + NUMBER_FREE_NS;
    if (command(UBLKX_CTL_DEL_DEV_ASYNC, number, NULL, 0, 0, TIMEOUT_MS) < 0)
        return simple(UBLKX_CTL_DEL_DEV, number, 0, TIMEOUT_MS, "deleting", err);
    struct ublkx_dev_info info;
    while (ublkx_device_info((int)number, &info, NULL) != VP_E_NOT_FOUND) {
        if (reactor_now_ns() >= deadline) {
            vp_info("/dev/ublkb%u is gone; its number is free when the last user closes it",
                    number);
            break;
        }
        vp_ignore(co_sleep_ns(PREDECESSOR_STEP), "the deadline ends this loop");
    }
    return 0;
}

CO int ublkx_device_resize(const struct ublkx_target *t, struct vp_error *err)
{
    uint64_t sectors = t->backend.ops->size(t->backend.arg) >> SECTOR_SHIFT;
    return simple(UBLKX_CTL_UPDATE_SIZE, t->info.dev_id, sectors, TIMEOUT_MS, "resizing", err);
}

CO int ublkx_device_recovery_begin(unsigned number, struct vp_error *err)
{
    uint64_t deadline = reactor_now_ns() + PREDECESSOR_NS;
    for (;;) {
        int res = command(UBLKX_CTL_START_RECOVERY, number, NULL, 0, 0, TIMEOUT_MS);
        if (res >= 0)
            return 0;
        if (res != -EBUSY || reactor_now_ns() >= deadline)
            return failed(res, "taking over", number, err);
        /* The kernel has not yet noticed that the old server is gone, or is still at its end. */
        vp_ignore(co_sleep_ns(PREDECESSOR_STEP), "the deadline ends this loop");
    }
}

CO int ublkx_device_recovery_end(const struct ublkx_target *t, struct vp_error *err)
{
    return simple(UBLKX_CTL_END_RECOVERY, t->info.dev_id, (uint64_t)getpid(), TIMEOUT_MS,
                  "taking over", err);
}

/* ---- devices of others ----------------------------------------------------------------------- */

static enum ublkx_life life_of(unsigned state)
{
    return state == UBLKX_DEV_LIVE       ? UBLKX_SERVED
           : state == UBLKX_DEV_QUIESCED ? UBLKX_WAITING
           : state == UBLKX_DEV_FAIL_IO  ? UBLKX_FAILING
                                         : UBLKX_UNSTARTED;
}

CO int ublkx_device_look(int number, struct ublkx_device *out, struct vp_error *err)
{
    struct ublkx_dev_info info;
    int rc = ublkx_device_info(number, &info, err);
    if (rc)
        return rc;
    *out = (struct ublkx_device){.number = number,
                                 .life = life_of(info.state),
                                 .server_pid = info.server_pid,
                                 .tag = info.server_flags};
    return 0;
}

CO int ublkx_device_discard(const struct ublkx_device *d,
                            CO int (*known)(void *arg, int number, bool there,
                                            struct vp_error *err),
                            void *arg, struct vp_error *err)
{
    struct ublkx_device now;
    int rc = ublkx_device_look(d->number, &now, err);
    if (rc)
        return rc;
    if (now.tag != d->tag || now.life == UBLKX_SERVED)
        return vp_fail(err, VP_E_BUSY, "/dev/ublkb%d is served again, by process %d", d->number,
                       now.server_pid);
    rc = ublkx_device_stop((unsigned)d->number, err);
    if (rc)
        return rc;
    vp_ignore(known(arg, d->number, false, NULL), "it has said so");
    rc = ublkx_device_delete((unsigned)d->number, err);
    if (rc && rc != VP_E_NOT_FOUND)
        vp_ignore(known(arg, d->number, true, NULL), "it has said so");
    return rc;
}
