/* Methods about disks of a pool that come, and go: pool/return.c has what they do. */
#include "control/control_impl.h"
#include "control/own_devices.h"
#include "control/path.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct disk_args {
    const char *pool, *disk, *path;
    uint64_t limit;
    bool force, spare, dry_run, cancel;
};
static const struct param online_params[] = {
    PARAM(struct disk_args, pool, PARAM_STRING, true, 0, 0),
    PARAM(struct disk_args, disk, PARAM_STRING, true, 0, 0),
    PARAM(struct disk_args, path, PARAM_PATH, false, 0, 0),
    PARAM(struct disk_args, limit, PARAM_NUMBER, false, 0, INT64_MAX),
    PARAM(struct disk_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};
static const struct param replace_params[] = {
    PARAM(struct disk_args, pool, PARAM_STRING, true, 0, 0),
    PARAM(struct disk_args, disk, PARAM_STRING, true, 0, 0),
    PARAM(struct disk_args, path, PARAM_PATH, true, 0, 0),
    PARAM(struct disk_args, limit, PARAM_NUMBER, false, 0, INT64_MAX),
    PARAM(struct disk_args, force, PARAM_BOOL, false, 0, 0),
    PARAM(struct disk_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};
static const struct param add_params[] = {PARAM(struct disk_args, pool, PARAM_STRING, true, 0, 0),
                                          PARAM(struct disk_args, path, PARAM_PATH, true, 0, 0),
                                          PARAM(struct disk_args, force, PARAM_BOOL, false, 0, 0),
                                          PARAM(struct disk_args, spare, PARAM_BOOL, false, 0, 0),
                                          PARAM(struct disk_args, dry_run, PARAM_BOOL, false, 0, 0),
                                          {0}};
static const struct param remove_params[] = {
    PARAM(struct disk_args, pool, PARAM_STRING, true, 0, 0),
    PARAM(struct disk_args, disk, PARAM_STRING, true, 0, 0),
    PARAM(struct disk_args, limit, PARAM_NUMBER, false, 0, INT64_MAX),
    PARAM(struct disk_args, cancel, PARAM_BOOL, false, 0, 0),
    PARAM(struct disk_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};
static const struct param rebalance_params[] = {
    PARAM(struct disk_args, pool, PARAM_STRING, true, 0, 0),
    PARAM(struct disk_args, limit, PARAM_NUMBER, false, 0, INT64_MAX),
    PARAM(struct disk_args, cancel, PARAM_BOOL, false, 0, 0),
    PARAM(struct disk_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};
static const struct param offline_params[] = {
    PARAM(struct disk_args, pool, PARAM_STRING, true, 0, 0),
    PARAM(struct disk_args, disk, PARAM_STRING, true, 0, 0),
    PARAM(struct disk_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};

/* ---- which disk ----------------------------------------------------------------------------- */

enum match { MATCH_NONE, MATCH_LAST_PATH, MATCH };

/* A path where a disk is counts more than one where another disk was. */
static enum match disk_match(const struct control_pool *p, const struct pool_disk_info *d,
                             const char *text)
{
    struct vp_uuid uuid;
    const char *last = p->history.disk[d->index].place.path;
    if (vp_uuid_parse(text, &uuid))
        return vp_uuid_equal(uuid, d->uuid) ? MATCH : MATCH_NONE;
    if (d->path[0])
        return strcmp(d->path, text) == 0 ? MATCH : MATCH_NONE;
    return last[0] && strcmp(last, text) == 0 ? MATCH_LAST_PATH : MATCH_NONE;
}

static bool is_number(const char *text)
{
    size_t len = strlen(text);
    return len && len < 10 && strspn(text, "0123456789") == len;
}

/* An index, or the disk's path, its last path or its uuid. */
static int disk_find(const struct control_pool *p, const char *text, struct pool_disk_info *out,
                     struct vp_error *err)
{
    const struct pool *pool = volumes_pool(p->vs);
    unsigned count = pool_disk_count(pool), found[] = {0, 0, 0}, at = 0;
    enum match best = MATCH_NONE;
    if (is_number(text)) {
        at = (unsigned)strtoul(text, NULL, 10);
        best = at < count ? MATCH : MATCH_NONE;
        found[MATCH] = 1;
    }
    for (unsigned i = 0; i < count && !is_number(text); i++) {
        pool_disk_info_get(pool, i, out);
        enum match m = out->removed ? MATCH_NONE : disk_match(p, out, text);
        found[m]++;
        at = m > best ? i : at;
        best = m > best ? m : best;
    }
    if (best != MATCH_NONE)
        pool_disk_info_get(pool, at, out);
    if (best != MATCH_NONE && found[best] == 1 && !out->removed)
        return 0;
    if (best != MATCH_NONE && !out->removed)
        return vp_fail(err, VP_E_NOT_FOUND,
                       "%u disks of the pool %s were at %.200s: give the number or the uuid of one",
                       found[best], p->name, text);
    return vp_fail(err, VP_E_NOT_FOUND,
                   "pool %s has no disk '%.200s': give the number, the path or the uuid of one, as "
                   "`vpool status %s` shows it",
                   p->name, text, p->name);
}

/* ---- a disk that is missing is looked for --------------------------------------------------- */

static int fail_not_found(const struct control_pool *p, unsigned index, const char *last,
                          struct vp_error *err)
{
    return vp_fail(err, VP_E_NOT_FOUND,
                   "pool %s: disk %u is missing%s%s, and no place of disk-dirs has it; bring it "
                   "back, or say where it is now: `vpool online %s %u PATH`; if it is lost, `vpool "
                   "replace %s %u DEVICE` puts another one in its place",
                   p->name, index, last[0] ? "; it was last at " : "", last, p->name, index,
                   p->name, index);
}

/* Of what a scan has found: the path of the one device that is this disk. */
static int found_take(const struct control_pool *p, const struct pool_disk_info *d,
                      const struct pool_found *f, char path[static CONTROL_PATH_MAX],
                      struct vp_error *err)
{
    for (unsigned i = 0; i < f->path_count; i++) {
        if (!pool_found_is_disk(f, i, d->uuid))
            continue;
        if (path[0])
            return vp_fail(err, VP_E_INVALID,
                           "pool %s: %s and %s are copies of disk %u; say which one counts: `vpool "
                           "online %s %u PATH`",
                           p->name, path, f->paths[i], d->index, p->name, d->index);
        (void)snprintf(path, CONTROL_PATH_MAX, "%s", f->paths[i]);
    }
    return 0;
}

/* CO. Where it was last, and in the configured directories. */
static CO int disk_search(struct control *c, const struct control_pool *p,
                          const struct pool_disk_info *d, char path[static CONTROL_PATH_MAX],
                          struct vp_error *err)
{
    const char *places[1 + CONTROL_DISK_DIRS_MAX], *last = p->history.disk[d->index].place.path;
    unsigned n = 0, count = 0;
    struct pool_found *found = NULL;
    struct own_devices own;
    if (last[0])
        places[n++] = last;
    for (unsigned i = 0; i < c->config->disk_dir_count; i++)
        places[n++] = c->config->disk_dirs[i];
    int rc = own_devices_get(c, &own, err);
    if (rc)
        return rc;
    const struct pool_scan_filter filter = own_devices_filter(&own);
    rc = pool_scan(places, n, &filter, &found, &count, err);
    own_devices_free(&own);
    path[0] = 0;
    for (unsigned i = 0; i < count && !rc; i++)
        if (vp_uuid_equal(found[i].uuid, p->uuid))
            rc = found_take(p, d, &found[i], path, err);
    free(found);
    return rc || path[0] ? rc : fail_not_found(p, d->index, last, err);
}

/* ---- a disk comes --------------------------------------------------------------------------- */

static json_t *disk_json(const struct control_pool *p, unsigned index)
{
    struct pool_disk_info d;
    char name[JOB_NAME_BYTES];
    const struct pool_job *j = control_disk_job(p, index);
    pool_disk_info_get(volumes_pool(p->vs), index, &d);
    return json_pack("{s:s, s:i, s:o, s:s, s:s?}", "pool", p->name, "disk", (int)index, "path",
                     path_shown(d.path), "state", d.state, "job",
                     j ? control_job_name(p, j->id, name) : NULL);
}

/* What a dry run says: how much is in use on the disk, and how many disks may be lost without a
 * loss of data: now, and if the disks in with were taken and those in without were gone. */
static CO json_t *plan_json(const struct control_pool *p, unsigned index, const char *path,
                            unsigned with, unsigned without)
{
    struct pool *pool = volumes_pool(p->vs);
    struct pool_disk_info d = {.extents_used = 0};
    struct pool_risk now = pool_risk_now(pool), then = pool_risk_if(pool, with, without);
    if (index < pool_disk_count(pool))
        pool_disk_info_get(pool, index, &d);
    uint64_t bytes = (uint64_t)d.extents_used * pool_geometry(pool).extent_bytes;
    return json_pack("{s:s, s:b, s:i, s:o, s:I, s:i, s:i}", "pool", p->name, "dry_run", true,
                     "disk", (int)index, "path", path_shown(path ? path : d.path), "bytes",
                     (json_int_t)bytes, "survives", (int)now.survives, "survives_then",
                     (int)then.survives);
}

/* CO. What the daemon remembers of the disk is now another device's, or has another uuid. */
static CO void disk_came(struct control *c, struct control_pool *p, const struct disk_args *a,
                         const struct pool_disk_info *before, bool replace)
{
    struct pool_disk_info d;
    unsigned i = before->index;
    const char *was = before->path[0] ? before->path : p->history.disk[i].place.path;
    const char *serial = p->history.disk[i].place.serial;
    pool_disk_info_get(volumes_pool(p->vs), i, &d);
    if (replace)
        control_event(c, VP_LOG_INFO, "disk.replaced", p->name,
                      "disk %u, which was %s%s%s, is now %s, and gets all data%s", i,
                      was[0] ? was : "missing", serial[0] ? ", serial " : "", serial, a->path,
                      a->force ? "; what it held was overwritten by request" : "");
    else
        control_event(c, VP_LOG_INFO, "disk.returns", p->name,
                      "disk %u (%s) is in service again, and gets what it lacks", i, d.path);
    (void)snprintf(p->seen.disk[i].state, sizeof(p->seen.disk[i].state), "%s", d.state);
    history_disk_came(p, i, replace);
    control_pool_disks_changed(c, p);
}

/* CO. The job begins with its limit. */
static CO int job_begin(struct control_pool *p, unsigned index, uint64_t limit,
                        struct vp_error *err)
{
    int rc = volumes_disk_came(p->vs, index, limit);
    return rc ? vp_fail(err, rc, "pool %s: disk %u is in service, but its job: %s", p->name, index,
                        vp_err_text(rc))
              : 0;
}

static CO int disk_return(struct control *c, struct control_pool *p, const struct disk_args *a,
                          bool replace, json_t **result, struct vp_error *err)
{
    char found[CONTROL_PATH_MAX];
    struct pool_disk_info before;
    int rc = disk_find(p, a->disk, &before, err);
    if (rc)
        return rc;
    struct pool_return_options o = {.disk = before.index,
                                    .path = a->path,
                                    .replace = replace,
                                    .force = a->force,
                                    .dry_run = a->dry_run};
    if (o.path)
        rc = own_devices_check(c, &o.path, 1, err);
    if (!rc && !o.path && strcmp(before.state, "missing") == 0) {
        rc = disk_search(c, p, &before, found, err);
        o.path = found;
    }
    if (rc)
        return rc;
    if (a->dry_run) {
        rc = pool_disk_return(volumes_pool(p->vs), &o, err);
        if (!rc)
            *result = plan_json(p, before.index, o.path, before.index, POOL_NO_DISK);
        return rc;
    }
    if (o.path)
        control_pool_disk_comes(c, p, o.path);
    rc = pool_disk_return(volumes_pool(p->vs), &o, err);
    if (rc) {
        control_pool_disks_changed(c, p);
        return rc;
    }
    disk_came(c, p, a, &before, replace);
    if (replace)
        spares_used(p, a->path);
    rc = job_begin(p, before.index, a->limit, err);
    if (!rc)
        *result = disk_json(p, before.index);
    return rc;
}

static CO int online(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct disk_args *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    rc = disk_return(c, p, a, false, result, err);
    control_pool_put(p);
    return rc;
}

static CO int replace(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct disk_args *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    rc = disk_return(c, p, a, true, result, err);
    control_pool_put(p);
    return rc;
}

CO int control_disk_replace(struct control *c, struct control_pool *p, unsigned index,
                            const char *path, struct vp_error *err)
{
    char number[16];
    json_t *result = NULL;
    (void)snprintf(number, sizeof(number), "%u", index);
    const struct disk_args a = {.disk = number, .path = path};
    int rc = disk_return(c, p, &a, true, &result, err);
    json_decref(result);
    return rc;
}

/* ---- one more disk --------------------------------------------------------------------------- */

static CO int disk_add(struct control *c, struct control_pool *p, const struct disk_args *a,
                       json_t **result, struct vp_error *err)
{
    struct pool *pool = volumes_pool(p->vs);
    unsigned i = pool_disk_count(pool);
    struct pool_disk_info d;
    int rc = own_devices_check(c, &a->path, 1, err);
    if (!rc && a->dry_run) {
        rc = pool_disk_add_check(pool, a->path, a->force, err);
        if (!rc)
            *result = plan_json(p, i, a->path, POOL_NO_DISK, POOL_NO_DISK);
        return rc;
    }
    if (rc)
        return rc;
    control_pool_disk_comes(c, p, a->path);
    rc = pool_disk_add(pool, a->path, a->force, &i, err);
    if (pool_disk_count(pool) <= i) {
        control_pool_disks_changed(c, p);
        return rc;
    }
    pool_disk_info_get(pool, i, &d);
    control_event(c, VP_LOG_INFO, "disk.added", p->name, "disk %u (%s) was added%s", i, d.path,
                  a->force ? "; what it held was overwritten by request" : "");
    (void)snprintf(p->seen.disk[i].state, sizeof(p->seen.disk[i].state), "%s", d.state);
    history_disk_came(p, i, true);
    control_pool_disks_changed(c, p);
    spares_used(p, a->path);
    if (!rc) /* else it has failed already */
        rc = job_begin(p, i, 0, err);
    if (!rc)
        *result = disk_json(p, i);
    return rc;
}

static CO int add(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct disk_args *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    if (a->spare && a->dry_run)
        rc = vp_fail(err, VP_E_RPC_PARAMS, "a spare is not used at once: there is nothing to plan");
    else
        rc = a->spare ? spares_add(c, p, a->path, a->force, err) : disk_add(c, p, a, result, err);
    if (!rc && a->spare)
        *result = json_pack("{s:s, s:o}", "pool", p->name, "spares", spares_json(p));
    control_pool_put(p);
    return rc;
}

static CO int spare_remove(struct control *c, struct control_pool *p, const struct disk_args *a,
                           json_t **result, struct vp_error *err)
{
    if (a->dry_run || a->cancel || a->limit)
        return vp_fail(err, VP_E_RPC_PARAMS, "%s is a spare, which is empty: it goes at once",
                       a->disk);
    int rc = spares_remove(c, p, a->disk, err);
    if (!rc)
        *result = json_pack("{s:s, s:o}", "pool", p->name, "spares", spares_json(p));
    return rc;
}

/* CO. A disk gives what it has to others, as a job. */
static CO int disk_leaves(struct control *c, struct control_pool *p, const struct disk_args *a,
                          unsigned i, json_t **result, struct vp_error *err)
{
    struct pool *pool = volumes_pool(p->vs);
    struct pool_leave_plan plan;
    struct pool_disk_info d;
    int rc = a->dry_run ? pool_disk_leave_check(pool, i, &plan, err)
                        : pool_disk_leave_begin(pool, i, err);
    if (!rc && a->dry_run)
        *result = plan_json(p, i, NULL, POOL_NO_DISK, POOL_NO_DISK);
    if (rc || a->dry_run)
        return rc;
    pool_disk_info_get(pool, i, &d);
    control_event(c, VP_LOG_INFO, "disk.leaves", p->name,
                  "disk %u (%s) is to be removed: what it has moves to other disks", i, d.path);
    (void)snprintf(p->seen.disk[i].state, sizeof(p->seen.disk[i].state), "%s", d.state);
    rc = volumes_disk_leaves(p->vs, a->limit);
    if (rc)
        return vp_fail(err, rc, "pool %s: disk %u is to be removed, but its job: %s", p->name, i,
                       vp_err_text(rc));
    *result = disk_json(p, i);
    return 0;
}

static CO int disk_remove(struct control *c, struct control_pool *p, const struct disk_args *a,
                          json_t **result, struct vp_error *err)
{
    struct pool_disk_info d;
    int rc = disk_find(p, a->disk, &d, err);
    if (rc)
        return rc;
    if (!a->cancel)
        return disk_leaves(c, p, a, d.index, result, err);
    rc = volumes_disk_stays(p->vs, d.index, err);
    if (!rc)
        *result = disk_json(p, d.index);
    return rc;
}

static CO int remove_one(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct disk_args *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    rc = spares_have(p, a->disk) ? spare_remove(c, p, a, result, err)
                                 : disk_remove(c, p, a, result, err);
    control_pool_put(p);
    return rc;
}

/* ---- data move to emptier disks -------------------------------------------------------------- */

static json_t *balance_json(const struct control_pool *p, uint64_t bytes, bool dry_run)
{
    char name[JOB_NAME_BYTES];
    const struct pool_job *j = volumes_balance_job(p->vs);
    return json_pack("{s:s, s:b, s:I, s:s?}", "pool", p->name, "dry_run", dry_run, "bytes",
                     (json_int_t)bytes, "job", j ? control_job_name(p, j->id, name) : NULL);
}

static CO int balance_one(struct control *c, struct control_pool *p, const struct disk_args *a,
                          json_t **result, struct vp_error *err)
{
    uint64_t bytes = pool_unbalanced_bytes(volumes_pool(p->vs));
    int rc = 0;
    if (a->cancel)
        rc = volumes_balance_stop(p->vs, err);
    else if (!a->dry_run)
        rc = volumes_balance_start(p->vs, a->limit, err);
    if (rc)
        return rc;
    if (!a->cancel && !a->dry_run)
        control_event(c, VP_LOG_INFO, "pool.rebalance", p->name,
                      "data move to emptier disks, by request");
    *result = balance_json(p, bytes, a->dry_run);
    return 0;
}

static CO int rebalance(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct disk_args *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    rc = balance_one(c, p, a, result, err);
    control_pool_put(p);
    return rc;
}

/* ---- a disk goes ---------------------------------------------------------------------------- */

static CO int disk_offline(struct control *c, struct control_pool *p, const struct disk_args *a,
                           json_t **result, struct vp_error *err)
{
    struct pool_disk_info d;
    int rc = disk_find(p, a->disk, &d, err);
    if (rc)
        return rc;
    unsigned i = d.index;
    if (a->dry_run) {
        rc = pool_disk_offline_check(volumes_pool(p->vs), i, err);
        if (!rc)
            *result = plan_json(p, i, NULL, POOL_NO_DISK, i);
        return rc;
    }
    rc = pool_disk_offline(volumes_pool(p->vs), i, err);
    if (rc)
        return rc;
    control_event(c, VP_LOG_WARN, "disk.offline", p->name,
                  "disk %u (%s) is out of service by request", i, d.path);
    pool_disk_info_get(volumes_pool(p->vs), i, &d);
    (void)snprintf(p->seen.disk[i].state, sizeof(p->seen.disk[i].state), "%s", d.state);
    *result = disk_json(p, i);
    return 0;
}

static CO int offline(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct disk_args *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    rc = disk_offline(c, p, a, result, err);
    control_pool_put(p);
    return rc;
}

const struct method methods_disk[] = {{"pool.online", online_params, METHOD_ALONE, online},
                                      {"pool.replace", replace_params, METHOD_ALONE, replace},
                                      {"pool.add", add_params, METHOD_ALONE, add},
                                      {"pool.remove", remove_params, METHOD_ALONE, remove_one},
                                      {"pool.rebalance", rebalance_params, METHOD_ALONE, rebalance},
                                      {"pool.offline", offline_params, METHOD_ALONE, offline},
                                      {0}};
