/*
 * What goes on without being asked: deletions, recovered regions (resync), volumes that can become
 * inactive, and a commit every few seconds of what clients do not flush. Coroutines at home; the
 * simulator has none and calls volumes_background_step.
 *
 * A job that fails is tried again with the next round: what stops it (a fenced pool, memory) also
 * stops the clients, who report it.
 */
#include "base/log.h"
#include "volumes/volumes_impl.h"

/* ---- jobs --------------------------------------------------------------------------------- */

static CO int job_delete(struct volumes *vs, bool *more)
{
    struct volume *v;
    list_for_each (v, &vs->deleting, delete_link) {
        if (!volume_delete_can_go_on(v))
            continue;
        *more = true;
        return volume_delete_step(v);
    }
    return 0;
}

struct resync_call {
    struct volume *v;
    bool more;
};

static CO int resync_on_reactor(void *arg)
{
    struct resync_call *c = arg;
    struct volume_io *io = c->v->io;
    io->uncommitted = true;
    return thin_resync_step(io->thin, &c->more);
}

static CO int resync_activate(struct volume *v)
{
    co_mutex_lock(&v->control);
    int rc = v->state == VOLUME_ONLINE ? volume_activate(v, false) : VP_E_VOLUME_FAULTED;
    co_mutex_unlock(&v->control);
    return rc;
}

/* Volumes in which an overwrite failed since the last look. */
static void resync_collect(struct volumes *vs)
{
    struct volume *v;
    list_for_each (v, &vs->active, active_link)
        if (atomic_exchange_explicit(&v->resync_wanted, false, memory_order_relaxed) &&
            v->state == VOLUME_ONLINE && list_empty(&v->resync_link))
            list_add_tail(&vs->resync, &v->resync_link);
}

/* One region of the first volume that has some; a volume is done, or given up, when it leaves the
 * list: what stays recovered is looked at again when it is read. */
static CO int job_resync(struct volumes *vs, bool *more)
{
    resync_collect(vs);
    if (list_empty(&vs->resync))
        return 0;
    struct resync_call c = {.v = list_first(&vs->resync, struct volume, resync_link)};
    *more = true;
    volume_pin(c.v);
    int rc = resync_activate(c.v);
    if (!rc)
        rc = reactor_call(c.v->reactor, resync_on_reactor, &c);
    if (rc && rc != VP_E_VOLUME_FAULTED)
        vp_warn("volume %s: a region that was being overwritten could not be verified: %s",
                volume_full_name(c.v), vp_err_text(rc));
    if (!c.more)
        list_del(&c.v->resync_link);
    volume_unpin(c.v);
    return 0;
}

/* Volumes that nobody has open become inactive, once for each checkpoint: before it they have
 * dirty pages. */
static CO int job_idle(struct volumes *vs, bool *more)
{
    uint32_t now = pool_checkpoint_number(vs->pool);
    struct volume *v;
    list_for_each (v, &vs->active, active_link) {
        if (v->open_count > 0 || v->state != VOLUME_ONLINE || v->idle_checkpoint == now)
            continue;
        bool done;
        *more = true;
        v->idle_checkpoint = now;
        volume_pin(v); /* not freed while we wait for the mutex */
        co_mutex_lock(&v->control);
        volume_unpin(v);
        int rc = volume_deactivate(v, &done);
        co_mutex_unlock(&v->control);
        return rc;
    }
    return 0;
}

CO int volumes_background_step(struct volumes *vs, bool *more)
{
    *more = false;
    int rc = job_delete(vs, more);
    if (!rc)
        rc = job_resync(vs, more);
    if (!rc)
        rc = job_idle(vs, more);
    return rc;
}

/* ---- coroutines --------------------------------------------------------------------------- */

/* Time between two regions, so that clients have most of the disks. */
#define BACKGROUND_PAUSE_NS UINT64_C(2000000)
#define BACKGROUND_IDLE_NS  UINT64_C(1000000000)

static CO void background(void *arg)
{
    struct volumes *vs = arg;
    while (!vs->closing) {
        bool more;
        int rc = volumes_background_step(vs, &more);
        if (rc)
            vp_debug("background work of pool %s: %s", pool_name(vs->pool), vp_err_text(rc));
        uint64_t pause = more && !rc ? BACKGROUND_PAUSE_NS : BACKGROUND_IDLE_NS;
        if (!vs->closing)
            vp_ignore(co_queue_wait_until(&vs->work, reactor_now_ns() + pause, "background work"),
                      "time or work, both mean: look again");
    }
    co_group_leave(&vs->workers, 0);
}

static CO int commit_one(struct volume *v)
{
    return v->io ? volume_commit(v) : 0;
}

/* A failed commit keeps its changes; the client's next flush tries again and reports. */
static CO void commit_all(struct volumes *vs)
{
    struct sweep sweep = {0};
    struct volume *v;
    list_for_each (v, &vs->active, active_link)
        sweep_add(&sweep, v);
    int rc = sweep_run(&sweep, commit_one, false);
    if (rc)
        vp_debug("timed commit of pool %s: %s", pool_name(vs->pool), vp_err_text(rc));
}

static CO void commit_timer(void *arg)
{
    struct volumes *vs = arg;
    while (!vs->closing) {
        uint64_t at = reactor_now_ns() + (uint64_t)vs->config.commit_interval_ms * 1000000;
        vp_ignore(co_queue_wait_until(&vs->timer, at, "commit timer"), "time, or the end");
        if (vs->closing)
            break;
        commit_all(vs);
    }
    co_group_leave(&vs->workers, 0);
}

static int start(struct volumes *vs, void (*fn)(void *arg), const char *name)
{
    co_group_enter(&vs->workers);
    int rc = co_spawn(fn, vs, name);
    if (rc)
        co_group_leave(&vs->workers, 0);
    return rc;
}

int volumes_background_start(struct volumes *vs)
{
    if (!vs->config.background)
        return 0;
    int rc = start(vs, background, "volumes background");
    if (!rc && vs->config.commit_interval_ms != UINT32_MAX)
        rc = start(vs, commit_timer, "volumes commit timer");
    return rc;
}

CO void volumes_background_stop(struct volumes *vs)
{
    co_queue_wake_all(&vs->work);
    co_queue_wake_all(&vs->timer);
    vp_ignore(co_group_wait(&vs->workers), "the workers return no errors");
}
