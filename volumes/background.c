/*
 * What goes on without being asked: deletions, resyncs, rebuilds and scrubs, which are jobs
 * (pool/job.h), volumes that can become inactive, and a commit every few seconds of what clients do
 * not flush. Coroutines at home; the simulator has none and calls volumes_background_step.
 *
 * A step that fails is tried again with the next round: what stops it (a fenced pool, memory) also
 * stops the clients, which report it.
 */
#include "base/log.h"
#include "volumes/volumes_impl.h"

/* ---- steps -------------------------------------------------------------------------------- */

static CO int delete_next(struct volumes *vs, bool *more)
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

/* Volumes that nobody has open become inactive, once for each checkpoint: before it they have
 * dirty pages. */
static CO int idle_next(struct volumes *vs, bool *more)
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
    int rc = delete_next(vs, more);
    if (!rc)
        rc = volume_resync_step(vs, more);
    int fill_rc = rc ? 0 : volumes_fill_step(vs, more);
    int evacuate_rc = rc ? 0 : volumes_evacuate_step(vs, more);
    int scrub_rc = rc || fill_rc ? 0 : volumes_scrub_step(vs, more);
    if (!rc)
        rc = idle_next(vs, more);
    return rc ? rc : fill_rc ? fill_rc : evacuate_rc ? evacuate_rc : scrub_rc;
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
        uint64_t now_ns = reactor_now_ns(), at_ns = now_ns + BACKGROUND_PAUSE_NS;
        if (!more || rc)
            at_ns = now_ns + BACKGROUND_IDLE_NS;
        if (!more)
            at_ns =
                min_u64(at_ns, max_u64(pool_jobs_due_ns(vs->pool), now_ns + BACKGROUND_PAUSE_NS));
        if (!vs->closing)
            vp_ignore(co_queue_wait_until(&vs->work, at_ns, "background work"),
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
