/*
 * The frame of jobs (job.h). What a job does is its owner's; here are numbers, states, figures and
 * records.
 *
 * Records: a job that starts with a change of its own (a deletion) commits its record with it. Any
 * other record goes into the log without waiting for it (pool_log_append_nowait). Whichever of them
 * a crash loses does no harm: a job whose work is still to be done starts again under a new number,
 * and a record whose work is done is forgotten by the next import.
 */
#include "pool/job.h"

#include "base/verify.h"
#include "pool/job_format.h"
#include "pool/pool_impl.h"

#include <stdlib.h>
#include <string.h>

#define MARK_NS     UINT64_C(10000000000)
#define SECOND_NS   UINT64_C(1000000000)
#define COST_MAX_NS 1e18 /* of a step, under a limit: 30 years */

/* What a kind cannot do has the reason; NULL: it can. */
static const struct {
    const char *name, *unit;
    const char *no_cancel;
} kinds[] = {
    [POOL_JOB_DELETE] = {"delete", "bytes",
                         .no_cancel = "a deletion cannot be cancelled: its volume is gone already, "
                                      "and only the space comes back; it can be paused"},
    [POOL_JOB_RESYNC] = {"resync", "bytes",
                         .no_cancel = "a resync cannot be cancelled: until it ends, copies may "
                                      "differ; it can be paused or limited"},
    [POOL_JOB_MIGRATE] = {"migrate", "bytes", .no_cancel = NULL},
    [POOL_JOB_REBUILD] = {"rebuild", "bytes",
                          .no_cancel =
                              "a rebuild cannot be cancelled; it can be paused or limited, and "
                              "`vpool offline` takes its disk out of service"},
    [POOL_JOB_SCRUB] = {"scrub", "bytes", .no_cancel = NULL},
    [POOL_JOB_REMOVE] = {"remove", "bytes", .no_cancel = NULL},
    [POOL_JOB_BALANCE] = {"rebalance", "bytes", .no_cancel = NULL},
};

static bool kind_is_known(unsigned kind)
{
    return kind < sizeof(kinds) / sizeof(kinds[0]) && kinds[kind].name;
}

const char *pool_job_kind_name(enum pool_job_kind kind)
{
    return kinds[kind].name;
}

const char *pool_job_unit(enum pool_job_kind kind)
{
    return kinds[kind].unit;
}

/* ---- states ---------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    unsigned next; /* bits: states that may follow */
} states[] = {
    [POOL_JOB_RUNNING] = {"running", 1U << POOL_JOB_PAUSED | 1U << POOL_JOB_ENDING},
    [POOL_JOB_PAUSED] = {"paused", 1U << POOL_JOB_RUNNING | 1U << POOL_JOB_ENDING},
    [POOL_JOB_ENDING] = {"ending",
                         1U << POOL_JOB_DONE | 1U << POOL_JOB_FAILED | 1U << POOL_JOB_CANCELLED},
    [POOL_JOB_DONE] = {"done", 0},
    [POOL_JOB_FAILED] = {"failed", 0},
    [POOL_JOB_CANCELLED] = {"cancelled", 0},
};

const char *pool_job_state_name(enum pool_job_state state)
{
    return states[state].name;
}

static void job_move(struct pool_job *j, enum pool_job_state to)
{
    VP_VERIFY(states[j->state].next & 1U << to, !=, 0U);
    j->state = to;
}

/* ---- the table ------------------------------------------------------------------------------- */

void pool_jobs_init(struct pool_jobs *jobs)
{
    list_init(&jobs->running);
    list_init(&jobs->ended);
    jobs->next_id = 1;
}

void pool_jobs_fini(struct pool_jobs *jobs)
{
    while (!list_empty(&jobs->running))
        pool_job_drop(list_first(&jobs->running, struct pool_job, link));
    while (!list_empty(&jobs->ended))
        pool_job_drop(list_first(&jobs->ended, struct pool_job, link));
}

void pool_job_drop(struct pool_job *j)
{
    list_del(&j->link);
    free(j);
}

/* Its rate, and what its limit allows, count from now. */
static void marks_reset(struct pool_job *j)
{
    j->mark[0].ns = j->mark[1].ns = j->due_ns = reactor_now_ns();
    j->mark[0].done = j->mark[1].done = j->done;
}

static void name_set(struct pool_job *j, const char *name)
{
    memcpy(j->name, name, strnlen(name, POOL_JOB_NAME_MAX));
}

struct pool_job *pool_job_new(struct pool *p, enum pool_job_kind kind, uint32_t volume,
                              const char *name)
{
    struct pool_job *j = calloc(1, sizeof(*j));
    if (!j)
        return NULL;
    j->id = p->jobs.next_id++;
    j->kind = kind;
    j->state = POOL_JOB_RUNNING;
    j->volume = volume;
    j->started = reactor_wall_seconds();
    j->taken = true;
    name_set(j, name);
    marks_reset(j);
    list_add_tail(&p->jobs.running, &j->link);
    return j;
}

void pool_job_cancel_by(struct pool_job *j, pool_job_cancel_fn *fn, void *arg)
{
    VP_VERIFY(kinds[j->kind].no_cancel, ==, NULL);
    j->cancel.fn = fn;
    j->cancel.arg = arg;
}

struct pool_job *pool_job_find(struct pool *p, uint32_t id)
{
    struct pool_job *j;
    list_for_each (j, &p->jobs.running, link)
        if (j->id == id)
            return j;
    list_for_each (j, &p->jobs.ended, link)
        if (j->id == id)
            return j;
    return NULL;
}

struct pool_job *pool_job_find_of(struct pool *p, enum pool_job_kind kind, uint32_t volume)
{
    struct pool_job *j, *newest = NULL;
    list_for_each (j, &p->jobs.running, link)
        if (j->kind == kind && j->volume == volume)
            return j;
    list_for_each (j, &p->jobs.ended, link)
        if (j->kind == kind && j->volume == volume)
            newest = j;
    return newest;
}

int pool_job_not_found(const struct pool *p, uint32_t id, struct vp_error *err)
{
    return vp_fail(err, VP_E_NOT_FOUND,
                   "no job %s/%u: `vpool jobs %s` shows all; one that ended long ago is forgotten",
                   p->name, id, p->name);
}

int pool_job_each(struct pool *p, int (*fn)(struct pool_job *j, void *arg), void *arg)
{
    struct list *const lists[] = {&p->jobs.running, &p->jobs.ended};
    for (unsigned i = 0; i < 2; i++) {
        struct pool_job *j;
        list_for_each (j, lists[i], link) {
            int rc = 0;
            CO_NO_YIELD {
                rc = fn(j, arg);
            }
            if (rc)
                return rc;
        }
    }
    return 0;
}

/* ---- records --------------------------------------------------------------------------------- */

void pool_job_put(const struct pool *p, const struct pool_job *j, struct pool_batch *b)
{
    struct le64 next = le64_make(p->jobs.next_id);
    struct job_record_disk d = {.kind = (uint8_t)j->kind,
                                .state = j->state == POOL_JOB_PAUSED ? JOB_RECORD_PAUSED
                                                                     : JOB_RECORD_RUNNING,
                                .volume = le32_make(j->volume),
                                .started = le64_make(j->started),
                                .total = le64_make(j->total),
                                .done = le64_make(j->done),
                                .limit = le64_make(j->limit)};
    pool_batch_set(b, POOL_RECORD_COUNTER, 0, JOB_COUNTER_KEY, &next, sizeof(next));
    pool_batch_set(b, POOL_RECORD_COUNTER, j->id, JOB_COUNTER_KEY, &d, sizeof(d));
}

void pool_job_remove(const struct pool_job *j, struct pool_batch *b)
{
    pool_batch_delete(b, POOL_RECORD_COUNTER, j->id, JOB_COUNTER_KEY);
}

static int job_put_nowait(struct pool *p, const struct pool_job *j)
{
    struct pool_batch b;
    pool_batch_init(&b);
    pool_job_put(p, j, &b);
    int rc = pool_log_append_nowait(p, &b);
    pool_batch_fini(&b);
    return rc;
}

static void job_remove_nowait(struct pool *p, const struct pool_job *j)
{
    struct pool_record r;
    struct pool_batch b;
    if (!pool_record_get(p, POOL_RECORD_COUNTER, j->id, JOB_COUNTER_KEY, &r))
        return;
    pool_batch_init(&b);
    pool_job_remove(j, &b);
    vp_ignore(pool_log_append_nowait(p, &b), "no memory: the next import forgets it");
    pool_batch_fini(&b);
}

static int next_id_load(struct pool_jobs *jobs, const struct pool_record *r)
{
    struct le64 next;
    if (r->len != sizeof(next))
        return 0;
    memcpy(&next, r->value, sizeof(next));
    if (le64_get(next) < UINT32_MAX && le64_get(next) > jobs->next_id)
        jobs->next_id = (uint32_t)le64_get(next);
    return 0;
}

static int job_load(const struct pool_record *r, void *arg)
{
    struct pool_jobs *jobs = arg;
    struct job_record_disk d;
    if (r->key != JOB_COUNTER_KEY)
        return 0;
    if (!r->scope)
        return next_id_load(jobs, r);
    if (r->scope < UINT32_MAX && r->scope >= jobs->next_id)
        jobs->next_id = r->scope + 1;
    if (r->len < sizeof(d))
        return 0;
    memcpy(&d, r->value, sizeof(d));
    if (!kind_is_known(d.kind))
        return 0;
    struct pool_job *j = calloc(1, sizeof(*j));
    if (!j)
        return VP_E_NO_MEMORY;
    j->id = r->scope;
    j->kind = (enum pool_job_kind)d.kind;
    j->state = j->told = d.state == JOB_RECORD_PAUSED ? POOL_JOB_PAUSED : POOL_JOB_RUNNING;
    j->volume = le32_get(d.volume);
    j->started = le64_get(d.started);
    j->total = le64_get(d.total);
    j->done = le64_get(d.done);
    j->limit = le64_get(d.limit);
    marks_reset(j);
    list_add_tail(&jobs->running, &j->link);
    return 0;
}

int pool_jobs_load(struct pool *p)
{
    return pool_record_each(p, POOL_RECORD_COUNTER, job_load, &p->jobs);
}

struct pool_job *pool_job_take(struct pool *p, enum pool_job_kind kind, uint32_t volume,
                               const char *name)
{
    struct pool_job *j;
    list_for_each (j, &p->jobs.running, link) {
        if (j->taken || j->kind != kind || j->volume != volume)
            continue;
        j->taken = true;
        name_set(j, name);
        return j;
    }
    j = pool_job_new(p, kind, volume, name);
    if (j && job_put_nowait(p, j)) {
        pool_job_drop(j);
        return NULL;
    }
    return j;
}

void pool_jobs_forget_left(struct pool *p)
{
    struct pool_job *j, *next;
    list_for_each_safe (j, next, &p->jobs.running, link) {
        if (j->taken)
            continue;
        job_remove_nowait(p, j);
        pool_job_drop(j);
    }
}

/* ---- progress -------------------------------------------------------------------------------- */

void pool_job_count(struct pool_job *j, uint64_t left)
{
    j->total = max_u64(j->total, left);
    j->done = j->total - left;
    j->counted = true;
    marks_reset(j);
}

bool pool_job_may_go_on(const struct pool_job *j)
{
    return j->state == POOL_JOB_RUNNING && reactor_now_ns() >= j->due_ns;
}

uint64_t pool_job_step_units(const struct pool_job *j)
{
    return j->limit ? j->limit : UINT64_MAX;
}

uint64_t pool_jobs_due_ns(const struct pool *p)
{
    uint64_t due_ns = UINT64_MAX;
    const struct pool_job *j;
    list_for_each (j, &p->jobs.running, link)
        if (j->state == POOL_JOB_RUNNING && j->limit)
            due_ns = min_u64(due_ns, j->due_ns);
    return due_ns;
}

/* A step that took long, or began late, is made up for, by up to a second. */
static void limit_apply(struct pool_job *j, uint64_t units, uint64_t now_ns)
{
    double cost_ns = j->limit ? (double)units * 1e9 / (double)j->limit : 0;
    if (!j->limit)
        return;
    uint64_t from_ns = max_u64(j->due_ns, now_ns > SECOND_NS ? now_ns - SECOND_NS : 0);
    j->due_ns = from_ns + (cost_ns < COST_MAX_NS ? (uint64_t)cost_ns : (uint64_t)COST_MAX_NS);
}

void pool_job_advance(struct pool_job *j, uint64_t units, int rc)
{
    uint64_t now = reactor_now_ns();
    if (now > j->mark[1].ns + MARK_NS) {
        j->mark[0] = j->mark[1];
        j->mark[1].ns = now;
        j->mark[1].done = j->done;
    }
    j->done += units;
    j->total = max_u64(j->total, j->done);
    limit_apply(j, units, now);
    if (!rc)
        return;
    j->failed += units;
    j->rc = rc;
}

uint64_t pool_job_rate(const struct pool_job *j)
{
    uint64_t now = reactor_now_ns();
    if (j->state != POOL_JOB_RUNNING || now <= j->mark[0].ns)
        return 0;
    return (uint64_t)((double)(j->done - j->mark[0].done) * 1e9 / (double)(now - j->mark[0].ns));
}

int64_t pool_job_seconds_left(const struct pool_job *j)
{
    uint64_t rate = pool_job_rate(j);
    return rate && j->counted ? (int64_t)div_up(j->total - j->done, rate) : -1;
}

void pool_job_ending(struct pool_job *j)
{
    if (j->state != POOL_JOB_ENDING)
        job_move(j, POOL_JOB_ENDING);
}

/* ---- commands -------------------------------------------------------------------------------- */

/* One that a command can still change. */
static int job_find_changeable(struct pool *p, uint32_t id, struct pool_job **out,
                               struct vp_error *err)
{
    struct pool_job *j = *out = pool_job_find(p, id);
    if (!j)
        return pool_job_not_found(p, id, err);
    if (pool_job_has_ended(j))
        return vp_fail(err, VP_E_NOT_FOUND, "job %s/%u has ended: %s", p->name, id,
                       states[j->state].name);
    if (j->state == POOL_JOB_ENDING)
        return vp_fail(err, VP_E_BUSY, "job %s/%u is ending: what is left to do is short", p->name,
                       id);
    return 0;
}

static int job_refuse(const struct pool *p, const struct pool_job *j, const char *reason,
                      struct vp_error *err)
{
    return reason ? vp_fail(err, VP_E_NOT_SUPPORTED, "job %s/%u: %s", p->name, j->id, reason) : 0;
}

/* The job may end while its record becomes durable. When the commit fails, the job gets its old
 * state and limit back. */
static CO int job_commit(struct pool *p, uint32_t id, const struct pool_job *before,
                         struct vp_error *err)
{
    struct pool_batch b;
    pool_batch_init(&b);
    pool_job_put(p, pool_job_find(p, id), &b);
    int rc = pool_commit(p, &b);
    pool_batch_fini(&b);
    if (!rc)
        return 0;
    struct pool_job *j = pool_job_find(p, id);
    if (j && (j->state == POOL_JOB_RUNNING || j->state == POOL_JOB_PAUSED)) {
        if (j->state != before->state)
            job_move(j, before->state);
        j->limit = before->limit;
    }
    return vp_fail(err, rc, "the change of job %s/%u could not be recorded: %s", p->name, id,
                   vp_err_text(rc));
}

static CO int job_set_state(struct pool *p, uint32_t id, enum pool_job_state to,
                            struct vp_error *err)
{
    struct pool_job *j;
    int rc = job_find_changeable(p, id, &j, err);
    if (rc == 0)
        rc = job_refuse(p, j, j->hurry, err);
    if (rc)
        return rc;
    const struct pool_job before = *j;
    if (j->state != to)
        job_move(j, to);
    marks_reset(j);
    return job_commit(p, id, &before, err);
}

CO int pool_job_pause(struct pool *p, uint32_t id, struct vp_error *err)
{
    return job_set_state(p, id, POOL_JOB_PAUSED, err);
}

CO int pool_job_resume(struct pool *p, uint32_t id, struct vp_error *err)
{
    return job_set_state(p, id, POOL_JOB_RUNNING, err);
}

CO int pool_job_limit(struct pool *p, uint32_t id, uint64_t limit, struct vp_error *err)
{
    struct pool_job *j;
    int rc = job_find_changeable(p, id, &j, err);
    if (rc == 0)
        rc = job_refuse(p, j, j->hurry, err);
    if (rc)
        return rc;
    const struct pool_job before = *j;
    j->limit = limit;
    marks_reset(j); /* what the old limit asked for does not count */
    return job_commit(p, id, &before, err);
}

int pool_job_cancel(struct pool *p, uint32_t id, struct vp_error *err)
{
    struct pool_job *j;
    int rc = job_find_changeable(p, id, &j, err);
    if (rc == 0)
        rc = job_refuse(p, j, kinds[j->kind].no_cancel, err);
    if (rc)
        return rc;
    if (!j->cancel.fn)
        return vp_fail(err, VP_E_BUSY, "job %s/%u has just begun: try again", p->name, id);
    return j->cancel.fn(j->cancel.arg, err);
}

/* ---- the end --------------------------------------------------------------------------------- */

void pool_job_end(struct pool *p, struct pool_job *j, enum pool_job_state state)
{
    struct pool_jobs *jobs = &p->jobs;
    job_remove_nowait(p, j);
    pool_job_ending(j);
    job_move(j, state);
    if (state == POOL_JOB_DONE)
        j->total = j->done;
    j->cancel.fn = NULL;
    j->ended = reactor_wall_seconds();
    list_del(&j->link);
    list_add_tail(&jobs->ended, &j->link);
    if (jobs->ended_count++ < POOL_JOBS_REMEMBERED)
        return;
    pool_job_drop(list_first(&jobs->ended, struct pool_job, link));
    jobs->ended_count--;
}
