/* Jobs (pool/job.h) as the daemon sees them: their names, and events for what changed. */
#include "control/control_impl.h"

#include <inttypes.h>
#include <stdio.h>

/* One that ends sooner, as it should, is not worth an event. */
#define TOLD_AFTER_SECONDS 5

const char *control_job_name(const struct control_pool *p, uint32_t id,
                             char out[static JOB_NAME_BYTES])
{
    (void)snprintf(out, JOB_NAME_BYTES, "%s/%" PRIu32, p->name, id);
    return out;
}

void control_job_volume(const struct control_pool *p, const struct pool_job *j,
                        char out[static VOLUME_FULL_NAME_BYTES])
{
    const char *name = volume_name_of_id(p->vs, j->volume);
    control_volume_name(p->name, name ? name : j->name, out);
}

void control_job_disk(const struct control_pool *p, const struct pool_job *j,
                      struct pool_disk_info *out)
{
    const struct pool *pool = volumes_pool(p->vs);
    *out = (struct pool_disk_info){.index = j->volume};
    if (j->volume < pool_disk_count(pool)) /* it may be from a damaged record */
        pool_disk_info_get(pool, j->volume, out);
}

bool control_job_is_of_disk(const struct pool_job *j)
{
    return j->kind == POOL_JOB_REBUILD || j->kind == POOL_JOB_REMOVE;
}

void control_job_subject(const struct control_pool *p, const struct pool_job *j,
                         char out[static JOB_SUBJECT_BYTES])
{
    struct pool_disk_info d;
    if (j->kind == POOL_JOB_SCRUB || j->kind == POOL_JOB_BALANCE) {
        (void)snprintf(out, JOB_SUBJECT_BYTES, "%s", p->name);
        return;
    }
    if (!control_job_is_of_disk(j)) {
        control_job_volume(p, j, out);
        return;
    }
    control_job_disk(p, j, &d);
    if (d.removed)
        (void)snprintf(out, JOB_SUBJECT_BYTES, "disk %u of %s", d.index, p->name);
    else
        (void)snprintf(out, JOB_SUBJECT_BYTES, "disk %u (%s) of %s", d.index, d.path, p->name);
}

const struct pool_job *control_disk_job(const struct control_pool *p, unsigned disk)
{
    const struct pool_job *j = volumes_evacuation_job(p->vs, disk);
    return j ? j : volumes_fill_job(p->vs, disk);
}

/* ---- events ---------------------------------------------------------------------------------- */

struct jobs_look {
    struct control *c;
    struct control_pool *p;
};

static bool is_quick(const struct pool_job *j)
{
    uint64_t until = pool_job_has_ended(j) ? j->ended : reactor_wall_seconds();
    return !j->told && (j->state == POOL_JOB_RUNNING || j->state == POOL_JOB_DONE) &&
           until < j->started + TOLD_AFTER_SECONDS;
}

static void job_tell(const struct jobs_look *w, const struct pool_job *j)
{
    char subject[JOB_SUBJECT_BYTES], what[JOB_SUBJECT_BYTES + 32], size[24];
    bool of_disk = control_job_is_of_disk(j);
    control_job_subject(w->p, j, subject);
    (void)snprintf(what, sizeof(what), "%s%s%s", pool_job_kind_name(j->kind), of_disk ? " of " : "",
                   of_disk ? subject : "");
#define TELL(level, event, fmt, ...)                                                               \
    control_event(w->c, level, event, of_disk ? w->p->name : subject,                              \
                  "job %s/%" PRIu32 " (%s) " fmt, w->p->name, j->id, what, __VA_ARGS__)
    switch (j->state) {
    case POOL_JOB_RUNNING:
        if (j->told == POOL_JOB_PAUSED)
            TELL(VP_LOG_INFO, "job.resumed", "%s", "goes on");
        else
            TELL(VP_LOG_INFO, "job.started", "%s", "has begun");
        break;
    case POOL_JOB_PAUSED:
        TELL(VP_LOG_WARN, "job.paused", "is paused, with %s left",
             bytes_format_size(j->total - j->done, size, sizeof(size)));
        break;
    case POOL_JOB_DONE:
        TELL(VP_LOG_INFO, "job.done", "is done, after %" PRIu64 " s", j->ended - j->started);
        break;
    case POOL_JOB_FAILED:
        TELL(VP_LOG_ERROR, "job.failed", "has ended and could not do %s of its work: %s",
             j->failed ? bytes_format_size(j->failed, size, sizeof(size)) : "some",
             vp_err_text(j->rc));
        break;
    case POOL_JOB_CANCELLED:
        TELL(VP_LOG_INFO, "job.cancelled", "is cancelled: %s",
             j->kind == POOL_JOB_REBUILD ? "the disk has left service"
             : j->kind == POOL_JOB_SCRUB || j->kind == POOL_JOB_BALANCE || of_disk
                 ? "by request"
                 : "its volume was deleted");
        break;
    case POOL_JOB_ENDING:
        break;
    }
#undef TELL
}

/* A move has events of its own (migrations.c). */
static int job_look(struct pool_job *j, void *arg)
{
    if (j->kind == POOL_JOB_MIGRATE || j->state == j->told || j->state == POOL_JOB_ENDING ||
        is_quick(j))
        return 0;
    job_tell(arg, j);
    j->told = j->state;
    return 0;
}

void jobs_look(struct control *c, struct control_pool *p)
{
    struct jobs_look w = {c, p};
    vp_ignore(pool_job_each(volumes_pool(p->vs), job_look, &w), "job_look never fails");
}
