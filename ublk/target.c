/*
 * The life of a device.
 *
 *     new:       ADD_DEV, SET_PARAMS, fetch all tags, START_DEV
 *     recovery:  START_USER_RECOVERY, fetch all tags, END_USER_RECOVERY
 *     stop:      STOP_DEV (answers what is in flight, ends the tags), close, DEL_DEV
 *     leave:     the tags let go of their commands; the device is quiesced when the process ends
 *
 * START_DEV returns only after the kernel has looked for partitions, which we serve meanwhile: so
 * control commands run on threads of their own (io/driver.h), and no reactor ever waits for one.
 */
#include "ublk/target_impl.h"

#include "base/log.h"
#include "base/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_DEFAULT 64U
#define CLAIM_MS      10000U

/* ---- states -------------------------------------------------------------------------------- */

void ublkx_target_move(struct ublkx_target *t, enum ublkx_state to)
{
    static const unsigned next[] = {
        [UBLKX_NEW] = 1U << UBLKX_SERVING | 1U << UBLKX_STOPPING | 1U << UBLKX_LEFT,
        [UBLKX_SERVING] = 1U << UBLKX_STOPPING | 1U << UBLKX_LEFT,
        [UBLKX_STOPPING] = 1U << UBLKX_STOPPING | 1U << UBLKX_CLOSED | 1U << UBLKX_LEFT,
        [UBLKX_CLOSED] = 0,
        [UBLKX_LEFT] = 0,
    };
    VP_VERIFY(next[t->state] & 1U << to, !=, 0U);
    t->state = to;
}

/* ---- calls to the backend's reactor -------------------------------------------------------- */

struct begin_call {
    struct ublkx_target *target;
    struct vp_error *err;
};

static CO int begin_here(void *arg)
{
    struct begin_call *call = arg;
    return ublkx_serve_begin(call->target, call->err);
}

static CO int end_here(void *arg)
{
    ublkx_serve_end(arg);
    return 0;
}

/* While the device is being stopped the kernel still writes back what it holds of it, and on a full
 * pool that would wait for space. */
static int stopping_here(void *arg)
{
    struct ublkx_target *t = arg;
    ublkx_target_move(t, UBLKX_STOPPING);
    t->backend.ops->leave(t->backend.arg);
    return 0;
}

static CO int leaving_here(void *arg)
{
    struct ublkx_target *t = arg;
    ublkx_target_move(t, UBLKX_LEFT);
    ublkx_serve_end(t);
    return 0;
}

/* ---- start --------------------------------------------------------------------------------- */

static int options_check(const struct ublkx_options *o, struct vp_error *err)
{
    unsigned queues = o->queues ? o->queues : 1, depth = o->depth ? o->depth : DEPTH_DEFAULT;
    if (queues > UBLKX_QUEUES_MAX)
        return vp_fail(err, VP_E_INVALID, "%u queues: 1 to %u are possible", queues,
                       UBLKX_QUEUES_MAX);
    if (depth > UBLKX_TAGS_MAX || queues * depth > UBLKX_TAGS_MAX)
        return vp_fail(err, VP_E_INVALID,
                       "%u queues of %u requests: at most %u requests for a device", queues, depth,
                       UBLKX_TAGS_MAX);
    VP_VERIFY(o->tag, !=, 0U);
    VP_VERIFY_TRUE(!o->zero_copy || (o->backend.ops->read_slot && o->number < 0));
    return 0;
}

static int features_check(const struct ublkx_options *o, uint64_t features, struct vp_error *err)
{
    if (o->zero_copy && !(features & UBLKX_F_AUTO_BUF_REG))
        return vp_fail(err, VP_E_UBLK_TOO_OLD,
                       "zero copy needs the ublk driver of Linux 6.16 or later");
    return 0;
}

static void target_free(struct ublkx_target *t)
{
    figure_histograms_free(&ublkx_figure_set, &t->figures);
    free(t);
}

static bool figures_new(struct ublkx_target *t)
{
    const struct ublkx_figures *f = &t->figures;
    if (!figure_histograms_new(&ublkx_figure_set, &t->figures))
        return false;
    t->latency[UBLKX_OP_READ] = f->read_latency;
    t->latency[UBLKX_OP_WRITE] = f->write_latency;
    t->latency[UBLKX_OP_FLUSH] = f->flush_latency;
    t->latency[UBLKX_OP_DISCARD] = t->latency[UBLKX_OP_WRITE_ZEROES] = f->discard_latency;
    return true;
}

static struct ublkx_target *target_new(const struct ublkx_options *o, uint64_t features)
{
    struct ublkx_target *t = calloc(1, sizeof(*t));
    if (!t || !figures_new(t)) {
        free(t);
        return NULL;
    }
    t->backend = o->backend;
    t->features = features;
    t->fd = -1;
    t->known = o->known;
    t->known_arg = o->known_arg;
    t->read_only = o->read_only || o->backend.read_only;
    t->copies = o->zero_copy ? UBLKX_NO_COPY : UBLKX_KERNEL_COPIES;
    co_queue_init(&t->changed);
    list_init(&t->left_link);
    t->info = (struct ublkx_dev_info){
        .nr_hw_queues = (uint16_t)(o->queues ? o->queues : 1),
        .queue_depth = (uint16_t)(o->depth ? o->depth : DEPTH_DEFAULT),
        .max_io_buf_bytes = UBLKX_IO_BYTES_MAX,
        .dev_id = (uint32_t)o->number,
        .server_flags = o->tag,
        .flags = UBLKX_F_USER_RECOVERY | UBLKX_F_RECOVERY_REISSUE | UBLKX_F_IOCTL_ENCODE};
    if (o->zero_copy)
        t->info.flags |= UBLKX_F_AUTO_BUF_REG;
    else if (!o->no_user_copy)
        t->info.flags |= features & UBLKX_F_USER_COPY;
    return t;
}

static void target_name(struct ublkx_target *t)
{
    if (t->info.flags & UBLKX_F_USER_COPY)
        t->copies = UBLKX_WE_COPY;
    (void)snprintf(t->path, sizeof(t->path), "/dev/ublkb%u", t->info.dev_id);
}

static CO int tell_there(struct ublkx_target *t, struct vp_error *err)
{
    return t->known ? t->known(t->known_arg, (int)t->info.dev_id, true, err) : 0;
}

static CO void tell_gone(struct ublkx_target *t)
{
    if (t->known)
        vp_ignore(t->known(t->known_arg, (int)t->info.dev_id, false, NULL), "it has said so");
}

static CO int serve_begin(struct ublkx_target *t, struct vp_error *err)
{
    struct begin_call call = {t, err};
    return reactor_call(t->backend.reactor, begin_here, &call);
}

/*
 * Takes the device away. Frees *t and sets it to NULL, unless the kernel does not stop the device:
 * that goes on sending requests, for whatever reason (what the page cache holds of it, perhaps, for
 * which the stop waits), so it is served on. Tags that have ended meanwhile are no harm.
 */
static CO int take_down(struct ublkx_target **target, struct vp_error *err)
{
    struct ublkx_target *t = *target;
    vp_ignore(reactor_call(t->backend.reactor, stopping_here, t),
              "without it, stopping waits for space");
    int rc = ublkx_device_stop(t->info.dev_id, err);
    if (rc && rc != VP_E_NOT_FOUND)
        return rc;
    vp_ignore(reactor_call(t->backend.reactor, end_here, t),
              "the reactor runs as long as what it serves");
    tell_gone(t); /* while its number is not yet another's */
    if (!rc) {
        rc = ublkx_device_delete(t->info.dev_id, err);
        if (rc && rc != VP_E_NOT_FOUND)
            vp_ignore(tell_there(t, NULL), "it is there still, and can be removed later");
    }
    target_free(t);
    *target = NULL;
    return rc == VP_E_NOT_FOUND ? 0 : rc; /* somebody else took it away */
}

static CO int start_new(struct ublkx_target *t, struct vp_error *err)
{
    struct vp_error ignored;
    int rc = ublkx_device_add(&t->info, err);
    if (rc) {
        target_free(t);
        return rc;
    }
    target_name(t);
    rc = tell_there(t, err);
    if (!rc)
        rc = ublkx_device_params(t, err);
    if (!rc)
        rc = serve_begin(t, err);
    if (!rc)
        rc = ublkx_device_start(t, err);
    if (rc && t->fetch_errno)
        vp_warn("%s: the driver refused to be served: %s", t->path, strerror(t->fetch_errno));
    if (!rc)
        return 0;
    vp_ignore(take_down(&t, &ignored), "why it did not start is what counts");
    if (t)
        ublkx_target_leave(t);
    return rc;
}

/* A device that was described without a volatile cache sends no flushes: then every write has to be
 * durable, whatever the backend could do otherwise. */
static CO int recovery_begin(struct ublkx_target *t, struct vp_error *err)
{
    bool has_cache;
    int rc = ublkx_device_has_cache(t, &has_cache, err);
    if (rc)
        return rc;
    t->backend.volatile_cache &= has_cache;
    return ublkx_device_recovery_begin(t->info.dev_id, err);
}

/*
 * The kernel issues again what the dead server had not answered. Nothing that the dead one did for
 * the same request can land afterwards: it was another process, and the pool's disks, which we have
 * locked since the import, were locked by it until the kernel had ended its last operation. A
 * target that this process has left is not taken over (is_left).
 */
static CO int start_recovered(struct ublkx_target *t, struct vp_error *err)
{
    int rc = recovery_begin(t, err);
    if (rc) {
        target_free(t);
        return rc;
    }
    target_name(t);
    vp_ignore(tell_there(t, NULL), "without, the record that is there stays");
    t->recovered = true;
    rc = serve_begin(t, err);
    if (!rc)
        rc = ublkx_device_recovery_end(t, err);
    if (rc) /* it stays, and its users wait: the next try may do better */
        ublkx_target_leave(t);
    else if ((t->features & UBLKX_F_UPDATE_SIZE) && ublkx_device_resize(t, NULL))
        vp_warn("%s keeps the size that it had", t->path);
    return rc;
}

/* Home reactor: what the kernel may still look at when the rings are closed, at the process's
 * end. */
static struct list left = {&left, &left};

/* Its commands are still in our ring, so that for the kernel it has a server. */
static bool is_left(int number)
{
    const struct ublkx_target *t;
    list_for_each (t, &left, left_link)
        if ((int)t->info.dev_id == number)
            return true;
    return false;
}

/* Looks whether the wanted device is there: *found, and then it is one that we may take over. */
static CO int look_for(const struct ublkx_options *o, struct ublkx_dev_info *info, bool *found,
                       struct vp_error *err)
{
    *found = false;
    if (o->number < 0)
        return 0;
    struct vp_error none = {0};
    int rc = ublkx_device_info(o->number, info, &none);
    if (rc == VP_E_NOT_FOUND)
        return 0;
    if (rc)
        return vp_fail(err, rc, "%s", none.text);
    rc = ublkx_device_check_ours(info, o->tag, err);
    if (rc)
        return rc;
    if (!o->take_over)
        return vp_fail(err, VP_E_EXISTS,
                       "/dev/ublkb%d has this volume's tag, but no record says that vpool made it, "
                       "so it is not taken over: remove it, or attach under another number",
                       o->number);
    *found = info->state == UBLKX_DEV_DEAD || !is_left(o->number);
    return *found ? 0
                  : vp_fail(err, VP_E_UBLK_STUCK,
                            "/dev/ublkb%d was left by this daemon when the kernel did not answer, "
                            "and is taken over only by the next one: restart the daemon",
                            o->number);
}

/* A device of ours that was added but never started cannot be taken over, so it is removed. */
static CO int discard_unstarted(struct ublkx_dev_info *info, bool *found, struct vp_error *err)
{
    if (!*found || info->state != UBLKX_DEV_DEAD)
        return 0;
    *found = false;
    return ublkx_device_delete(info->dev_id, err);
}

CO int ublkx_target_start(const struct ublkx_options *o, struct ublkx_target **out,
                          struct vp_error *err)
{
    uint64_t features;
    struct ublkx_dev_info info;
    bool found = false;
    int rc = options_check(o, err);
    if (!rc)
        rc = ublkx_features(&features, err);
    if (!rc)
        rc = features_check(o, features, err);
    if (!rc)
        rc = look_for(o, &info, &found, err);
    if (!rc)
        rc = discard_unstarted(&info, &found, err);
    if (rc)
        return rc;
    struct ublkx_target *t = target_new(o, features);
    if (!t)
        return vp_fail(err, VP_E_NO_MEMORY, "no memory for a ublk device");
    if (!io_memory_lock())
        vp_info("the daemon's memory is not locked (CAP_IPC_LOCK, LimitMEMLOCK=)");
    io_serve_page_cache();
    if (found)
        t->info = info;
    rc = found ? start_recovered(t, err) : start_new(t, err);
    if (rc)
        return rc;
    *out = t;
    return 0;
}

/* ---- stop, leave --------------------------------------------------------------------------- */

CO int ublkx_target_check_unclaimed(const struct ublkx_target *t)
{
    return io_block_is_claimed(t->path, CLAIM_MS);
}

CO int ublkx_target_stop(struct ublkx_target **t, struct vp_error *err)
{
    return take_down(t, err);
}

CO void ublkx_target_leave(struct ublkx_target *t)
{
    vp_ignore(reactor_call(t->backend.reactor, leaving_here, t),
              "its reactor runs as long as what it serves");
    list_add_tail(&left, &t->left_link);
}

/* ---- resize, figures ----------------------------------------------------------------------- */

CO int ublkx_target_resize(struct ublkx_target *t, struct vp_error *err)
{
    if (!(t->features & UBLKX_F_UPDATE_SIZE))
        return vp_fail(err, VP_E_NOT_SUPPORTED,
                       "%s keeps its size until it is attached again: this kernel cannot resize "
                       "ublk devices (Linux 6.16 can)",
                       t->path);
    return ublkx_device_resize(t, err);
}

int ublkx_target_number(const struct ublkx_target *t)
{
    return (int)t->info.dev_id;
}

const char *ublkx_target_path(const struct ublkx_target *t)
{
    return t->path;
}

static const struct figure rows[] = {
#define FIGURE(...) FIGURE_ROW(struct ublkx_figures, __VA_ARGS__)
#include "ublk/figures.def"
};
const struct figure_set ublkx_figure_set = {"device", rows, sizeof(rows) / sizeof(rows[0])};

struct ublkx_stats ublkx_target_stats(const struct ublkx_target *t)
{
    return (struct ublkx_stats){.queues = t->info.nr_hw_queues,
                                .depth = t->info.queue_depth,
                                .user_copy = t->copies == UBLKX_WE_COPY,
                                .recovered = t->recovered,
                                .volatile_cache = t->backend.volatile_cache,
                                .figures = &t->figures};
}
