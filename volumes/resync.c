/*
 * Resync: the regions whose overwrites were cut off by a crash, or failed, are verified in the
 * background, one region at a time (thin_resync_step). A volume that has some is in vs->resync, and
 * has a job, from the moment at which this is known until every region was visited once, or until
 * the volume is deleted. A region that cannot be verified stays recovered: it is looked at again
 * when it is read, and after the next import.
 */
#include "base/log.h"
#include "volumes/volumes_impl.h"

int volume_resync_add(struct volume *v)
{
    if (!list_empty(&v->resync_link))
        return 0;
    v->resync_job = pool_job_take(v->vs->pool, POOL_JOB_RESYNC, v->id, volume_text(v));
    if (!v->resync_job)
        return VP_E_NO_MEMORY;
    list_add_tail(&v->vs->resync, &v->resync_link);
    return 0;
}

void volume_resync_end(struct volume *v, enum pool_job_state state)
{
    if (!v->resync_job)
        return;
    pool_job_end(v->vs->pool, v->resync_job, state);
    v->resync_job = NULL;
    list_del(&v->resync_link);
}

/* Volumes in which an overwrite failed since the last look. */
static void resync_collect(struct volumes *vs)
{
    struct volume *v;
    list_for_each (v, &vs->active, active_link)
        if (atomic_exchange_explicit(&v->resync_wanted, false, memory_order_relaxed) &&
            v->state == VOLUME_ONLINE && volume_resync_add(v)) /* no memory: at the next look */
            atomic_store_explicit(&v->resync_wanted, true, memory_order_relaxed);
}

static struct volume *resync_next(struct volumes *vs)
{
    struct volume *v;
    list_for_each (v, &vs->resync, resync_link)
        if (pool_job_may_go_on(v->resync_job))
            return v;
    return NULL;
}

struct resync_call {
    struct volume *v;
    uint64_t regions_before, region_bytes;
    bool more;
};

static CO int resync_on_reactor(void *arg)
{
    struct resync_call *c = arg;
    struct volume_io *io = c->v->io;
    c->regions_before = figure_get(&thin_figures(io->thin)->regions_to_resync);
    c->region_bytes = thin_region_bytes(io->thin);
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

/* A deletion may have ended the job while the step ran. */
static void resync_tell(const struct resync_call *c, int rc)
{
    struct pool_job *j = c->v->resync_job;
    uint64_t left = c->regions_before * c->region_bytes;
    if (!j)
        return;
    if (!j->counted)
        pool_job_count(j, left);
    pool_job_advance(j, left ? c->region_bytes : 0, rc);
    if (!c->more)
        volume_resync_end(c->v, j->rc ? POOL_JOB_FAILED : POOL_JOB_DONE);
}

CO int volume_resync_step(struct volumes *vs, bool *more)
{
    resync_collect(vs);
    struct resync_call c = {.v = resync_next(vs)};
    if (!c.v)
        return 0;
    *more = true;
    volume_pin(c.v);
    int rc = resync_activate(c.v);
    if (!rc)
        rc = reactor_call(c.v->reactor, resync_on_reactor, &c);
    if (rc && rc != VP_E_VOLUME_FAULTED)
        vp_warn("volume %s: a region that was being overwritten could not be verified: %s",
                volume_full_name(c.v), vp_err_text(rc));
    resync_tell(&c, rc);
    volume_unpin(c.v);
    return 0;
}
