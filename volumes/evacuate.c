/*
 * Evacuating: data move between disks (pool/move.c has the way of a group), some groups at a time.
 * Either a disk that is to be removed gives all that it has to others (pool/leave.c), or all disks
 * of a pool get about as full (pool/balance.c). One of these at a time; a removal comes first.
 *
 *     BEGIN ── groups got targets ──> COPY ── all copied ──> commit, barrier, free ──> BEGIN
 *       └── nothing is left to move ──> METADATA ──> the disk is removed; or the balance is done
 *
 * 1. Only volumes that lease arenas in the groups that move are walked (walk.c), and only chunks in
 *    those groups are copied, under block locks as a reader. What is written meanwhile goes to both
 *    places.
 * 2. A volume of which something cannot be copied keeps its groups where they are. All are tried
 *    again after a rest, and so are groups for which there is no room.
 * 3. A crash finds what was committed. The groups that were under way begin anew.
 * 4. A job that is cancelled leaves the disk in the pool, with what has not moved.
 *
 * Tested in tests/unit/volumes/test_evacuate.c.
 */
#include "base/log.h"
#include "volumes/volumes_impl.h"

#include <stdio.h>

enum { GROUPS_AT_ONCE = 1024 };
#define REST_NS     UINT64_C(5000000000) /* after a failure, and twice as long each time */
#define REST_MAX_NS UINT64_C(300000000000)

/* ---- barriers ------------------------------------------------------------------------------- */

static CO int barrier_on_reactor(void *arg)
{
    const struct volume *v = arg;
    thin_barrier(v->io->thin);
    return 0;
}

static CO int volume_barrier(struct volume *v)
{
    return v->io ? reactor_call_for_client(v->reactor, barrier_on_reactor, v)
                 : 0; /* pinned, so it stays */
}

/* CO. All volumes that are active now. One that becomes active later finds what is so now. */
static CO void users_wait(void *arg)
{
    struct volumes *vs = arg;
    bool all;
    do {
        struct sweep sweep = {0};
        struct volume *v;
        list_for_each (v, &vs->active, active_link)
            sweep_add(&sweep, v);
        all = !sweep.failed;
        vp_ignore(sweep_run(&sweep, volume_barrier, false), "a barrier does not fail");
        if (!all)
            vp_ignore(co_sleep_ns(REST_NS), "memory may come");
    } while (!all);
}

/* CO. */
static CO void barrier(struct volumes *vs)
{
    pool_barrier(vs->pool, users_wait, vs);
}

/* ---- the job -------------------------------------------------------------------------------- */

static bool is_balance(const struct volumes_evacuation *e)
{
    return e->job->kind == POOL_JOB_BALANCE;
}

static bool goes_on(const struct volumes *vs)
{
    const struct volumes_evacuation *e = &vs->evacuation;
    struct pool_leaving now;
    if (is_balance(e))
        return true;
    return pool_disk_to_empty(vs->pool, 0, &now) && now.disk == e->disk.disk &&
           vp_uuid_equal(now.uuid, e->disk.uuid);
}

static int evacuation_cancel(void *arg, struct vp_error *err)
{
    struct volumes *vs = arg;
    (void)err;
    vs->evacuation.cancel = true;
    co_queue_wake_all(&vs->work);
    return 0;
}

/* A command wants a balance, or an earlier life of the pool had begun one. */
static bool balance_is_wanted(struct volumes *vs)
{
    const struct pool_job *j = pool_job_find_of(vs->pool, POOL_JOB_BALANCE, 0);
    return vs->evacuation.balance || (j && !pool_job_has_ended(j));
}

static struct pool_job *job_take(struct volumes *vs)
{
    struct volumes_evacuation *e = &vs->evacuation;
    char name[POOL_JOB_NAME_MAX + 1];
    if (!pool_disk_to_empty(vs->pool, 0, &e->disk))
        return pool_job_take(vs->pool, POOL_JOB_BALANCE, 0, pool_name(vs->pool));
    (void)snprintf(name, sizeof(name), "disk %u", e->disk.disk);
    return pool_job_take(vs->pool, POOL_JOB_REMOVE, e->disk.disk, name);
}

static int evacuation_begin(struct volumes *vs)
{
    struct volumes_evacuation *e = &vs->evacuation;
    if (e->job || (!pool_disk_to_empty(vs->pool, 0, &e->disk) && !balance_is_wanted(vs)))
        return 0;
    e->job = job_take(vs);
    if (!e->job)
        return VP_E_NO_MEMORY;
    pool_job_cancel_by(e->job, evacuation_cancel, vs);
    e->at = EVACUATION_BEGIN;
    e->cancel = e->told = false;
    e->balance = e->balance && !is_balance(e);
    e->rest_until_ns = e->rest_ns = 0;
    if (e->limit) {
        e->job->limit = e->limit;
        e->limit = 0;
    }
    return 0;
}

static void evacuation_end(struct volumes *vs, enum pool_job_state state)
{
    pool_job_end(vs->pool, vs->evacuation.job, state);
    vs->evacuation.job = NULL;
}

static void rest(struct volumes_evacuation *e)
{
    e->rest_ns = e->rest_ns ? min_u64(2 * e->rest_ns, REST_MAX_NS) : REST_NS;
    e->rest_until_ns = reactor_now_ns() + e->rest_ns;
}

/* CO. 4. */
static CO int step_cancel(struct volumes *vs)
{
    struct volumes_evacuation *e = &vs->evacuation;
    pool_moves_give_up(vs->pool);
    barrier(vs);
    pool_moves_free(vs->pool);
    int rc = is_balance(e) ? 0 : pool_disk_leave_cancel(vs->pool, e->disk.disk);
    if (!rc)
        evacuation_end(vs, POOL_JOB_CANCELLED);
    return rc;
}

/* ---- groups get targets --------------------------------------------------------------------- */

static void owner_mark(void *arg, uint32_t owner)
{
    struct volume *v = volume_find_id(arg, owner);
    if (v)
        v->evacuates = true;
}

static void tell_once(struct volumes *vs, const char *what)
{
    struct volumes_evacuation *e = &vs->evacuation;
    if (!e->told)
        vp_warn("pool %s: not all data can move%s now: %s; it is tried again", pool_name(vs->pool),
                is_balance(e) ? "" : " off the disk that is to be removed", what);
    e->told = true;
}

/* CO. The first count of what is to move. */
static CO void work_count(struct volumes *vs)
{
    struct volumes_evacuation *e = &vs->evacuation;
    if (!e->job->counted)
        pool_job_count(e->job, is_balance(e) ? pool_unbalanced_bytes(vs->pool)
                                             : pool_disk_data_bytes(vs->pool, e->disk.disk));
}

/* CO. */
static CO int step_begin(struct volumes *vs)
{
    struct volumes_evacuation *e = &vs->evacuation;
    struct pool_moves_begun b;
    work_count(vs);
    int rc = is_balance(e) ? pool_moves_balance(vs->pool, GROUPS_AT_ONCE, &b)
                           : pool_moves_begin(vs->pool, e->disk.disk, GROUPS_AT_ONCE, &b);
    if (rc)
        return rc;
    if (b.begun) {
        e->at = EVACUATION_COPY;
        e->volume = 0;
        e->block = 0;
        pool_moves_owners(vs->pool, owner_mark, vs);
    } else if (b.stuck) {
        tell_once(vs, "no other disk has room, or only disks with another copy of the same data");
        rest(e);
    } else if (is_balance(e)) {
        evacuation_end(vs, e->job->rc ? POOL_JOB_FAILED : POOL_JOB_DONE);
    } else {
        e->at = EVACUATION_METADATA;
    }
    return 0;
}

/* ---- copying -------------------------------------------------------------------------------- */

struct evacuate_call {
    struct volume_walk walk;
    struct thin_fill_result result;
};

static CO int window_evacuate(struct thin *t, uint64_t block, uint64_t count, void *arg)
{
    struct evacuate_call *c = arg;
    return thin_fill_targets(t, block, count, &c->result);
}

static struct volume *volume_next(struct volumes *vs)
{
    struct volume *v, *first = NULL;
    list_for_each (v, &vs->all, link)
        if (v->evacuates && v->state != VOLUME_DELETING && (!first || v->id < first->id))
            first = v;
    return first;
}

/* 2. */
static void volume_failed(struct volumes *vs, const struct volume *v, int rc)
{
    char what[160];
    (void)snprintf(what, sizeof(what), "volume %s: %s", volume_full_name(v), vp_err_text(rc));
    tell_once(vs, what);
    pool_moves_owner_failed(vs->pool, v->id);
}

static void result_take(struct volumes *vs, const struct evacuate_call *c)
{
    struct volumes_evacuation *e = &vs->evacuation;
    const struct thin_fill_result *r = &c->result;
    if (r->filled_bytes)
        pool_job_advance(e->job, r->filled_bytes, 0);
    if (r->lost_bytes) {
        vp_warn("volume %s: %llu bytes match their checksums on no disk; they move as they are",
                volume_full_name(c->walk.v), (unsigned long long)r->lost_bytes);
        pool_job_advance(e->job, r->lost_bytes, VP_E_CHECKSUM);
    }
    if (r->unread_bytes || r->waits_bytes)
        tell_once(vs, "some data cannot be read now");
}

/* CO. The next chunks of a volume. */
static CO int step_of_volume(struct volumes *vs, struct volume *v)
{
    struct volumes_evacuation *e = &vs->evacuation;
    struct evacuate_call c = {.result = {0}};
    c.walk = (struct volume_walk){
        .v = v,
        .window = window_evacuate,
        .arg = &c,
        .at = v->id == e->volume ? e->block : 0,
        .bytes = min_u64(pool_job_step_units(e->job), vs->config.fill_bytes),
    };
    volume_pin(v);
    int rc = volume_walk(&c.walk);
    result_take(vs, &c);
    e->volume = v->id;
    e->block = c.walk.at;
    if (rc)
        volume_failed(vs, v, rc);
    if (rc || c.walk.done)
        v->evacuates = false;
    volume_unpin(v);
    return rc == VP_E_POOL_FENCED ? rc : 0;
}

/* CO. All was copied that can be. */
static CO int step_commit(struct volumes *vs)
{
    struct volumes_evacuation *e = &vs->evacuation;
    unsigned recorded;
    int rc = pool_moves_commit(vs->pool, &recorded);
    barrier(vs);
    pool_moves_free(vs->pool);
    e->at = EVACUATION_BEGIN;
    if (!rc && recorded)
        e->rest_ns = 0;
    else
        rest(e);
    return rc;
}

/* ---- the end -------------------------------------------------------------------------------- */

/* CO. */
static CO int step_metadata(struct volumes *vs)
{
    struct volumes_evacuation *e = &vs->evacuation;
    int rc = pool_disk_leave_metadata(vs->pool, e->disk.disk);
    barrier(vs);
    pool_moves_free(vs->pool);
    if (!rc)
        pool_job_ending(e->job);
    if (!rc)
        rc = pool_disk_leave_end(vs->pool, e->disk.disk);
    if (!rc) {
        barrier(vs);
        pool_disk_leave_close(vs->pool, e->disk.disk);
        evacuation_end(vs, e->job->rc ? POOL_JOB_FAILED : POOL_JOB_DONE);
        return 0;
    }
    if (rc == VP_E_AGAIN && e->job->state != POOL_JOB_ENDING)
        e->at = EVACUATION_BEGIN;
    else
        tell_once(vs, vp_err_text(rc));
    rest(e);
    return rc == VP_E_POOL_FENCED ? rc : 0;
}

static CO int evacuation_step(struct volumes *vs, bool *more)
{
    struct volumes_evacuation *e = &vs->evacuation;
    int rc = evacuation_begin(vs);
    if (rc || !e->job)
        return rc;
    if (!goes_on(vs)) { /* nobody but this file ends it */
        evacuation_end(vs, POOL_JOB_CANCELLED);
        return 0;
    }
    struct pool_leaving leaving; /* a removal comes first */
    e->cancel |= is_balance(e) && pool_disk_to_empty(vs->pool, 0, &leaving);
    if (e->cancel) {
        *more = true;
        return step_cancel(vs);
    }
    bool may = e->job->state == POOL_JOB_ENDING || pool_job_may_go_on(e->job);
    if (reactor_now_ns() < e->rest_until_ns || !may)
        return 0;
    *more = true;
    if (e->at == EVACUATION_BEGIN)
        return step_begin(vs);
    if (e->at == EVACUATION_METADATA)
        return step_metadata(vs);
    struct volume *v = volume_next(vs);
    return v ? step_of_volume(vs, v) : step_commit(vs);
}

/* ---- one at a time -------------------------------------------------------------------------- */

CO int volumes_evacuate_step(struct volumes *vs, bool *more)
{
    if (vs->evacuation.busy)
        return 0;
    vs->evacuation.busy = true;
    int rc = evacuation_step(vs, more);
    vs->evacuation.busy = false;
    return rc;
}

int volumes_disk_leaves(struct volumes *vs, uint64_t limit)
{
    vs->evacuation.limit = limit;
    co_queue_wake_all(&vs->work);
    return vs->evacuation.busy ? 0 : evacuation_begin(vs);
}

const struct pool_job *volumes_evacuation_job(const struct volumes *vs, unsigned disk)
{
    const struct volumes_evacuation *e = &vs->evacuation;
    return e->job && !is_balance(e) && e->disk.disk == disk ? e->job : NULL;
}

int volumes_balance_start(struct volumes *vs, uint64_t limit, struct vp_error *err)
{
    struct volumes_evacuation *e = &vs->evacuation;
    struct pool_leaving leaving;
    const char *name = pool_name(vs->pool);
    if (pool_disk_to_empty(vs->pool, 0, &leaving))
        return vp_fail(err, VP_E_BUSY, "pool %s: disk %u is being removed; its data move now", name,
                       leaving.disk);
    if (e->job || e->busy)
        return vp_fail(err, VP_E_BUSY, "pool %s is being balanced already: `vpool jobs %s`", name,
                       name);
    e->limit = limit;
    e->balance = true;
    co_queue_wake_all(&vs->work);
    int rc = evacuation_begin(vs);
    return rc ? vp_fail(err, rc, "pool %s: %s", name, vp_err_text(rc)) : 0;
}

int volumes_balance_stop(struct volumes *vs, struct vp_error *err)
{
    if (!volumes_balance_job(vs))
        return vp_fail(err, VP_E_NOT_FOUND, "pool %s is not being balanced", pool_name(vs->pool));
    return evacuation_cancel(vs, err);
}

const struct pool_job *volumes_balance_job(const struct volumes *vs)
{
    return vs->evacuation.job && is_balance(&vs->evacuation) ? vs->evacuation.job : NULL;
}

int volumes_disk_stays(struct volumes *vs, unsigned disk, struct vp_error *err)
{
    if (!volumes_evacuation_job(vs, disk))
        return vp_fail(err, VP_E_NOT_FOUND, "pool %s: disk %u is not being removed",
                       pool_name(vs->pool), disk);
    return evacuation_cancel(vs, err);
}
