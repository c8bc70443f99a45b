/* Methods about jobs: long work in the background (pool/job.h), of all pools. */
#include "control/control_impl.h"
#include "control/path.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOBS_SHOWN 1000U /* so that thousands of them never hold up the reactor */
#define INT(v)     ((json_int_t)(v))

static json_t *number_or_null(bool there, uint64_t n)
{
    return there ? json_integer(INT(n)) : json_null();
}

/* What it works on; null: something else. */
static json_t *job_volume(const struct control_pool *p, const struct pool_job *j)
{
    char volume[VOLUME_FULL_NAME_BYTES];
    if (control_job_is_of_disk(j) || j->kind == POOL_JOB_SCRUB || j->kind == POOL_JOB_BALANCE)
        return json_null();
    control_job_volume(p, j, volume);
    return json_string(volume);
}

static json_t *job_disk(const struct control_pool *p, const struct pool_job *j)
{
    struct pool_disk_info d;
    if (!control_job_is_of_disk(j))
        return json_null();
    control_job_disk(p, j, &d);
    return json_pack("{s:i, s:o}", "index", (int)d.index, "path", path_shown(d.path));
}

static json_t *job_json(const struct control_pool *p, const struct pool_job *j)
{
    char id[JOB_NAME_BYTES];
    int64_t left = pool_job_seconds_left(j);
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:s, s:o, s:I, s:I, s:I, s:o, s:I, s:I, s:o, s:s}",
                     "job", control_job_name(p, j->id, id), "kind", pool_job_kind_name(j->kind),
                     "volume", job_volume(p, j), "disk", job_disk(p, j), "state",
                     pool_job_state_name(j->state), "unit", pool_job_unit(j->kind), "total",
                     number_or_null(j->total > 0, j->total), "done", INT(j->done), "failed",
                     INT(j->failed), "rate", INT(pool_job_rate(j)), "seconds_left",
                     number_or_null(left >= 0, (uint64_t)left), "limit", INT(j->limit), "started",
                     INT(j->started), "ended", number_or_null(pool_job_has_ended(j), j->ended),
                     "error", j->rc ? vp_err_text(j->rc) : "");
}

/* ---- job.list -------------------------------------------------------------------------------- */

struct list_args {
    const char *pool;
};
static const struct param list_params[] = {PARAM(struct list_args, pool, PARAM_STRING, false, 0, 0),
                                           {0}};

struct list_walk {
    const struct control_pool *p;
    json_t *jobs;
    unsigned left_out;
};

static int list_job(struct pool_job *j, void *arg)
{
    struct list_walk *w = arg;
    if (json_array_size(w->jobs) >= JOBS_SHOWN || json_array_append_new(w->jobs, job_json(w->p, j)))
        w->left_out++;
    return 0;
}

static int list_pool(struct control_pool *p, void *arg)
{
    struct list_walk *w = arg;
    w->p = p;
    vp_ignore(pool_job_each(volumes_pool(p->vs), list_job, w), "list_job never fails");
    return 0;
}

static int list(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct list_args *a = args;
    struct list_walk w = {.jobs = json_array()};
    int rc = control_pools_each_open(c, a->pool, list_pool, &w, err);
    if (rc)
        json_decref(w.jobs);
    else
        *result = json_pack("{s:o, s:i}", "jobs", w.jobs, "left_out", (int)w.left_out);
    return rc;
}

/* ---- one job --------------------------------------------------------------------------------- */

struct job_args {
    const char *job; /* "POOL/N" */
};
static const struct param job_params[] = {PARAM(struct job_args, job, PARAM_STRING, true, 0, 0),
                                          {0}};

/* Splits "POOL/N" and takes a reference on the pool, which is open. */
static int job_pool_get(struct control *c, const char *text, struct control_pool **pool,
                        uint32_t *id, struct vp_error *err)
{
    const char *slash = strrchr(text, '/'), *digits = slash ? slash + 1 : "";
    char name[POOL_NAME_MAX + 1], *end = NULL;
    size_t len = slash ? (size_t)(slash - text) : 0;
    unsigned long n = digits[0] >= '1' && digits[0] <= '9' ? strtoul(digits, &end, 10) : 0;
    if (!len || len > POOL_NAME_MAX || !n || *end || n > UINT32_MAX)
        return vp_fail(err, VP_E_INVALID, "'%.100s' is not the name of a job: it is POOL/NUMBER",
                       text);
    memcpy(name, text, len);
    name[len] = '\0';
    *id = (uint32_t)n;
    return control_pool_get_open(c, name, pool, err);
}

static int job_show(struct control_pool *p, uint32_t id, json_t **result, struct vp_error *err)
{
    const struct pool_job *j = pool_job_find(volumes_pool(p->vs), id);
    if (!j)
        return pool_job_not_found(volumes_pool(p->vs), id, err);
    *result = job_json(p, j);
    return 0;
}

typedef int job_change_fn(struct pool *p, uint32_t id, struct vp_error *err);

static CO int job_change(struct control *c, const void *args, CO job_change_fn *fn, json_t **result,
                         struct vp_error *err)
{
    const struct job_args *a = args;
    struct control_pool *p;
    uint32_t id;
    int rc = job_pool_get(c, a->job, &p, &id, err);
    if (rc)
        return rc;
    rc = fn(volumes_pool(p->vs), id, err);
    if (!rc)
        rc = job_show(p, id, result, err);
    control_pool_put(p);
    return rc;
}

static CO int job_pause(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    return job_change(c, args, pool_job_pause, result, err);
}

static CO int job_resume(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    return job_change(c, args, pool_job_resume, result, err);
}

static CO int job_cancel(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    return job_change(c, args, pool_job_cancel, result, err);
}

struct limit_args {
    const char *job;
    uint64_t limit;
};
static const struct param limit_params[] = {
    PARAM(struct limit_args, job, PARAM_STRING, true, 0, 0),
    PARAM(struct limit_args, limit, PARAM_NUMBER, true, 0, INT64_MAX),
    {0}};

static CO int job_limit(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct limit_args *a = args;
    struct control_pool *p;
    uint32_t id;
    int rc = job_pool_get(c, a->job, &p, &id, err);
    if (rc)
        return rc;
    rc = pool_job_limit(volumes_pool(p->vs), id, a->limit, err);
    if (!rc)
        rc = job_show(p, id, result, err);
    control_pool_put(p);
    return rc;
}

/* ---- job.wait -------------------------------------------------------------------------------- */

#define WAIT_LOOK_NS UINT64_C(100000000)

struct wait_args {
    const char *job;
    uint64_t wait_ms;
};
static const struct param wait_params[] = {
    PARAM(struct wait_args, job, PARAM_STRING, true, 0, 0),
    PARAM(struct wait_args, wait_ms, PARAM_NUMBER, false, 0, 60000),
    {0}};

static int wait_look(struct control *c, const char *job, json_t **result, struct vp_error *err)
{
    struct control_pool *p;
    uint32_t id;
    int rc = job_pool_get(c, job, &p, &id, err);
    if (rc)
        return rc;
    rc = job_show(p, id, result, err);
    control_pool_put(p);
    return rc;
}

/* The pool may go meanwhile. So between two looks there is no reference on it, and no queue of the
 * pool is waited on. */
static CO int job_wait(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct wait_args *a = args;
    uint64_t deadline_ns = reactor_now_ns() + a->wait_ms * 1000000;
    for (;;) {
        int rc = wait_look(c, a->job, result, err);
        uint64_t now_ns = reactor_now_ns();
        if (rc || !json_is_null(json_object_get(*result, "ended")) || now_ns >= deadline_ns ||
            c->stopping)
            return rc;
        rc = control_server_wait(&c->server, &c->events.arrived,
                                 min_u64(deadline_ns, now_ns + WAIT_LOOK_NS), "the end of a job");
        if (rc == VP_E_CANCELLED)
            return 0;
        json_decref(*result);
        *result = NULL;
    }
}

const struct method methods_job[] = {{"job.list", list_params, METHOD_READS, list},
                                     {"job.wait", wait_params, METHOD_READS, job_wait},
                                     {"job.pause", job_params, 0, job_pause},
                                     {"job.resume", job_params, 0, job_resume},
                                     {"job.limit", limit_params, 0, job_limit},
                                     {"job.cancel", job_params, 0, job_cancel},
                                     {0}};
