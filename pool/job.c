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

#define MARK_NS UINT64_C(10000000000)

static const struct {
    const char *name, *unit;
} kinds[] = {
    [POOL_JOB_DELETE] = {"delete", "bytes"},
    [POOL_JOB_RESYNC] = {"resync", "bytes"},
};

static bool kind_is_known(unsigned kind)
{
    return kind == POOL_JOB_DELETE || kind == POOL_JOB_RESYNC;
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
    [POOL_JOB_RUNNING] = {"running", 1U << POOL_JOB_ENDING},
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

static void marks_reset(struct pool_job *j)
{
    j->mark[0].ns = j->mark[1].ns = reactor_now_ns();
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
                                .state = JOB_RECORD_RUNNING,
                                .volume = le32_make(j->volume),
                                .started = le64_make(j->started),
                                .total = le64_make(j->total),
                                .done = le64_make(j->done)};
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
    j->state = j->told = POOL_JOB_RUNNING;
    j->volume = le32_get(d.volume);
    j->started = le64_get(d.started);
    j->total = le64_get(d.total);
    j->done = le64_get(d.done);
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
    return j->state == POOL_JOB_RUNNING;
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

/* ---- the end --------------------------------------------------------------------------------- */

void pool_job_end(struct pool *p, struct pool_job *j, enum pool_job_state state)
{
    struct pool_jobs *jobs = &p->jobs;
    job_remove_nowait(p, j);
    pool_job_ending(j);
    job_move(j, state);
    if (state == POOL_JOB_DONE)
        j->total = j->done;
    j->ended = reactor_wall_seconds();
    list_del(&j->link);
    list_add_tail(&jobs->ended, &j->link);
    if (jobs->ended_count++ < POOL_JOBS_REMEMBERED)
        return;
    pool_job_drop(list_first(&jobs->ended, struct pool_job, link));
    jobs->ended_count--;
}
