/* Methods about jobs: long work in the background (pool/job.h), of all pools. */
#include "control/control_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define JOBS_SHOWN 1000U /* so that thousands of them never hold up the reactor */
#define INT(v)     ((json_int_t)(v))

static json_t *number_or_null(bool there, uint64_t n)
{
    return there ? json_integer(INT(n)) : json_null();
}

/* The volume by its present name, or by the one that it had. */
static json_t *job_json(const struct control_pool *p, const struct pool_job *j)
{
    char id[JOB_NAME_BYTES], volume[VOLUME_FULL_NAME_BYTES];
    const char *name = volume_name_of_id(p->vs, j->volume);
    int64_t left = pool_job_seconds_left(j);
    (void)snprintf(id, sizeof(id), "%s/%" PRIu32, p->name, j->id);
    control_volume_name(p->name, name ? name : j->name, volume);
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:o, s:I, s:o, s:s}", "job", id, "kind",
        pool_job_kind_name(j->kind), "volume", volume, "state", pool_job_state_name(j->state),
        "unit", pool_job_unit(j->kind), "total", number_or_null(j->total > 0, j->total), "done",
        INT(j->done), "failed", INT(j->failed), "rate", INT(pool_job_rate(j)), "seconds_left",
        number_or_null(left >= 0, (uint64_t)left), "started", INT(j->started), "ended",
        number_or_null(pool_job_has_ended(j), j->ended), "error", j->rc ? vp_err_text(j->rc) : "");
}

void control_job_name(struct control_pool *p, enum pool_job_kind kind, uint32_t volume,
                      char out[static JOB_NAME_BYTES])
{
    const struct pool_job *j = pool_job_find_of(volumes_pool(p->vs), kind, volume);
    (void)snprintf(out, JOB_NAME_BYTES, "%s/%" PRIu32, p->name, j ? j->id : 0);
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

static int list(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct list_args *a = args;
    struct control_pool *p, *only = NULL;
    if (a->pool) {
        int rc = control_pool_get_open(c, a->pool, &only, err);
        if (rc)
            return rc;
        control_pool_put(only); /* nothing yields from here on */
    }
    struct list_walk w = {.jobs = json_array()};
    list_for_each (p, &c->pools, link) {
        if (!p->vs || (only && p != only))
            continue;
        w.p = p;
        vp_ignore(pool_job_each(volumes_pool(p->vs), list_job, &w), "list_job never fails");
    }
    *result = json_pack("{s:o, s:i}", "jobs", w.jobs, "left_out", (int)w.left_out);
    return 0;
}

const struct method methods_job[] = {{"job.list", list_params, METHOD_READS, list}, {0}};
