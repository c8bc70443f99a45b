/* The scrub of a pool (volumes/scrub.c): begin, end, and what the last one found. */
#include "control/control_impl.h"
#include "control/path.h"

#include <inttypes.h>
#include <string.h>

#define INT(v) ((json_int_t)(v))

struct scrub_args {
    const char *pool, *action;
    uint64_t limit;
};
static const struct param scrub_params[] = {
    PARAM(struct scrub_args, pool, PARAM_STRING, true, 0, 0),
    PARAM(struct scrub_args, action, PARAM_STRING, false, 0, 0),
    PARAM(struct scrub_args, limit, PARAM_NUMBER, false, 0, INT64_MAX),
    {0}};

static const char *found_name(enum raid_found found)
{
    return found == RAID_HEALED ? "healed" : found == RAID_NOT_HEALED ? "bad" : "lost";
}

static const char *state_name(const struct volumes_scrub_report *r, const struct pool_job *j)
{
    static const char *const names[] = {
        [VOLUMES_SCRUB_NONE] = "none",       [VOLUMES_SCRUB_RUNNING] = "running",
        [VOLUMES_SCRUB_DONE] = "done",       [VOLUMES_SCRUB_FAILED] = "failed",
        [VOLUMES_SCRUB_STOPPED] = "stopped",
    };
    return j && j->state == POOL_JOB_PAUSED ? "paused" : names[r->state];
}

/* "tank/vm1", or "volume 7 of tank, which is deleted" */
static void finding_volume(const struct control_pool *p, uint32_t id, char *out, size_t size)
{
    const char *name = volume_name_of_id(p->vs, id);
    if (name)
        (void)snprintf(out, size, "%s/%s", p->name, name);
    else
        (void)snprintf(out, size, "volume %" PRIu32 " of %s, which is deleted", id, p->name);
}

static json_t *finding_json(const struct control_pool *p, const struct volumes_scrub_finding *f)
{
    char volume[VOLUME_FULL_NAME_BYTES + 32];
    struct pool_disk_info d = {.path = ""};
    const struct pool *pool = volumes_pool(p->vs);
    finding_volume(p, f->volume, volume, sizeof(volume));
    if (f->disk < pool_disk_count(pool)) /* it may be from a damaged record */
        pool_disk_info_get(pool, f->disk, &d);
    return json_pack("{s:s, s:b, s:I, s:I, s:i, s:o, s:s, s:s, s:I}", "volume", volume, "metadata",
                     f->metadata, "offset", INT(f->offset), "bytes", INT(f->bytes), "disk",
                     (int)f->disk, "path", path_shown(d.path), "what",
                     f->unreadable ? "unreadable" : "checksum", "result", found_name(f->found),
                     "time", INT(f->seconds));
}

static json_t *findings_json(const struct control_pool *p, const struct volumes_scrub_report *r)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < r->findings; i++)
        if (json_array_append_new(list, finding_json(p, &r->finding[i])))
            break;
    return list;
}

json_t *scrub_json(const struct control_pool *p, bool findings)
{
    const struct volumes_scrub_report *r = volumes_scrub_report(p->vs);
    const struct pool_job *j = volumes_scrub_job(p->vs);
    char job[JOB_NAME_BYTES];
    return json_pack(
        "{s:s, s:s, s:s?, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:o*, s:I}", "pool", p->name,
        "state", state_name(r, j), "job", j ? control_job_name(p, j->id, job) : NULL, "started",
        r->started ? json_integer(INT(r->started)) : json_null(), "ended",
        r->ended ? json_integer(INT(r->ended)) : json_null(), "compared_bytes",
        INT(r->compared_bytes), "metadata_bytes", INT(r->metadata_bytes), "missing_bytes",
        INT(r->missing_bytes), "healed_blocks", INT(r->healed_blocks), "bad_blocks",
        INT(r->bad_blocks), "lost_blocks", INT(r->lost_blocks), "skipped_volumes",
        (int)r->skipped_volumes, "findings", findings ? findings_json(p, r) : NULL,
        "findings_left_out", INT(r->findings_left_out));
}

static CO int scrub_pool(struct control_pool *p, const struct scrub_args *a, json_t **result,
                         struct vp_error *err)
{
    const char *action = a->action ? a->action : "show";
    int rc = 0;
    if (strcmp(action, "start") == 0)
        rc = volumes_scrub_start(p->vs, a->limit, err);
    else if (strcmp(action, "stop") == 0)
        rc = volumes_scrub_stop(p->vs, err);
    else if (strcmp(action, "show") != 0)
        rc = vp_fail(err, VP_E_INVALID, "'%.50s' is no action: it is start, stop or show", action);
    if (!rc)
        *result = scrub_json(p, true);
    return rc;
}

static CO int scrub(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct scrub_args *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    rc = scrub_pool(p, a, result, err);
    control_pool_put(p);
    return rc;
}

const struct method methods_scrub[] = {{"pool.scrub", scrub_params, 0, scrub}, {0}};

/* ---- by time, and what the monitor tells --------------------------------------------------- */

#define DAY_SECONDS UINT64_C(86400)

static bool is_due(const struct control *c, const struct control_pool *p)
{
    const struct volumes_scrub_report *r = volumes_scrub_report(p->vs);
    uint64_t every = c->config->scrub_days * DAY_SECONDS, now = reactor_wall_seconds();
    return every && r->state != VOLUMES_SCRUB_RUNNING && (!r->started || now >= r->started + every);
}

CO void scrub_when_due(struct control *c, struct control_pool *p)
{
    struct vp_error err = {0};
    if (is_due(c, p) && volumes_scrub_start(p->vs, c->config->scrub_limit, &err))
        vp_debug("the scrub of pool %s that is due: %s", p->name, err.text);
}

static void tell_finding(struct control *c, const struct control_pool *p,
                         const struct volumes_scrub_finding *f)
{
    static const char *const ends[] = {[RAID_HEALED] = "healed",
                                       [RAID_NOT_HEALED] =
                                           "another copy is good, but this one cannot be rewritten",
                                       [RAID_LOST] = "no copy in service is good"};
    char volume[VOLUME_FULL_NAME_BYTES + 32];
    struct pool_disk_info d = {.path = ""};
    finding_volume(p, f->volume, volume, sizeof(volume));
    pool_disk_info_get(volumes_pool(p->vs), f->disk, &d);
    control_event(c, f->found == RAID_HEALED ? VP_LOG_WARN : VP_LOG_ERROR, "scrub.found", p->name,
                  "%s: %s%" PRIu64 " bytes at %" PRIu64 " on disk %u (%s) %s: %s", volume,
                  f->metadata ? "metadata, " : "", f->bytes, f->offset, f->disk, d.path,
                  f->unreadable ? "cannot be read" : "do not match their checksums",
                  ends[f->found]);
}

static void tell_end(struct control *c, const struct control_pool *p,
                     const struct volumes_scrub_report *r)
{
    char size[24];
    control_event(c,
                  r->lost_blocks || r->bad_blocks || r->state == VOLUMES_SCRUB_FAILED ? VP_LOG_ERROR
                                                                                      : VP_LOG_INFO,
                  "scrub.ended", p->name,
                  "the scrub %s: %s compared; %" PRIu64 " blocks healed, %" PRIu64 " bad, %" PRIu64
                  " lost; %" PRIu32 " volumes left out",
                  r->state == VOLUMES_SCRUB_STOPPED  ? "was stopped"
                  : r->state == VOLUMES_SCRUB_FAILED ? "could not compare all"
                                                     : "is complete",
                  bytes_format_size(r->compared_bytes, size, sizeof(size)), r->healed_blocks,
                  r->bad_blocks, r->lost_blocks, r->skipped_volumes);
}

void scrub_look(struct control *c, struct control_pool *p)
{
    const struct volumes_scrub_report *r = volumes_scrub_report(p->vs);
    struct scrub_seen *seen = &p->seen.scrub;
    if (seen->started != r->started && p->seen.scrub.valid)
        seen->findings = 0;
    for (; seen->valid && seen->findings < r->findings; seen->findings++)
        tell_finding(c, p, &r->finding[seen->findings]);
    if (seen->valid && r->ended && (seen->started != r->started || !seen->ended))
        tell_end(c, p, r);
    *seen = (struct scrub_seen){
        .valid = true, .started = r->started, .ended = r->ended, .findings = r->findings};
}
