/* Methods about pools. */
#include "control/control_impl.h"
#include "control/own_devices.h"
#include "control/path.h"
#include "io/offload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct pool_arg {
    const char *pool;
};
static const struct param no_params[] = {{0}};
static const struct param pool_params[] = {PARAM(struct pool_arg, pool, PARAM_STRING, true, 0, 0),
                                           {0}};

/* ---- pool.create ----------------------------------------------------------------------------- */

struct create_args {
    const char *pool, *raid;
    uint64_t size;
    const json_t *disks, *options;
    bool force;
};
static const struct param create_params[] = {
    PARAM(struct create_args, pool, PARAM_STRING, true, 0, POOL_NAME_MAX),
    PARAM(struct create_args, disks, PARAM_PATHS, true, 1, POOL_DISKS_MAX),
    PARAM(struct create_args, raid, PARAM_STRING, false, 0, 0),
    PARAM(struct create_args, size, PARAM_NUMBER, false, 0, INT64_MAX),
    PARAM(struct create_args, options, PARAM_STRINGS, false, 0, 32),
    PARAM(struct create_args, force, PARAM_BOOL, false, 0, 0),
    {0}};

static int raid_of(const char *text, struct raid_profile *out, struct vp_error *err)
{
    if (!raid_profile_parse(text, out))
        return vp_fail(err, VP_E_RPC_PARAMS,
                       "'%s' is no redundancy profile: write single, mirror or mirror:N", text);
    return pool_profile_check(*out, err);
}

/* "chunk=64K", "extent=64M": the geometry; everything else is a property of the pool. */
static int geometry_option(const char *option, struct pool_geometry *g, bool *taken,
                           struct vp_error *err)
{
    static const struct {
        const char *key;
        size_t offset;
    } keys[] = {{"chunk=", offsetof(struct pool_geometry, chunk_bytes)},
                {"extent=", offsetof(struct pool_geometry, extent_bytes)},
                {"log-segment=", offsetof(struct pool_geometry, log_segment_bytes)}};
    *taken = false;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        size_t len = strlen(keys[i].key);
        if (strncmp(option, keys[i].key, len) != 0)
            continue;
        uint64_t v;
        if (!bytes_parse_size(option + len, &v) || v > UINT32_MAX || !is_pow2(v))
            return vp_fail(err, VP_E_RPC_PARAMS,
                           "'%s': the value must be a power of two such as 64K", option);
        *(uint32_t *)((char *)g + keys[i].offset) = (uint32_t)v;
        *taken = true;
    }
    return 0;
}

static bool property_is_known(const char *key, size_t len)
{
    static const char *const known[] = {"comment"};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strlen(known[i]) == len && memcmp(known[i], key, len) == 0)
            return true;
    return false;
}

static int split_options(const json_t *options, struct pool_create_options *o,
                         const char **properties, struct vp_error *err)
{
    for (unsigned i = 0; i < params_count(options); i++) {
        const char *option = params_string(options, i);
        const char *equals = strchr(option, '=');
        bool taken;
        int rc = geometry_option(option, &o->geometry, &taken, err);
        if (rc)
            return rc;
        if (!taken && (!equals || !property_is_known(option, (size_t)(equals - option))))
            return vp_fail(err, VP_E_RPC_PARAMS,
                           "unknown option '%.60s': a pool takes chunk=SIZE, extent=SIZE, "
                           "log-segment=SIZE and comment=TEXT",
                           option);
        if (!taken)
            properties[o->property_count++] = option;
    }
    return 0;
}

/* Nobody has said what several disks are for: it stays `single`, but not in silence. */
static void warn_of_single(json_t *shown, unsigned disks)
{
    char text[120];
    (void)snprintf(text, sizeof(text),
                   "%u disks, and no copy of anything: volumes are `single` by default", disks);
    json_t *w = json_pack("{s:s, s:s}", "text", text, "action",
                          "create the pool with --raid mirror, or its volumes");
    (void)json_array_append_new(json_object_get(shown, "warnings"), w);
}

static CO int create(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct create_args *a = args;
    const char *properties[32], *paths[POOL_DISKS_MAX];
    struct pool_create_options o = {
        .name = a->pool, .create_size_bytes = a->size, .force = a->force, .properties = properties};
    int rc = raid_of(a->raid ? a->raid : "single", &o.profile, err);
    if (rc == 0)
        rc = split_options(a->options, &o, properties, err);
    if (rc)
        return rc;
    if (!volume_name_is_valid(a->pool)) /* pools and volumes are named alike */
        return vp_fail(err, VP_E_NAME_INVALID,
                       "'%s' is not a pool's name: up to 63 letters, digits and _.:-, a letter or "
                       "digit first",
                       a->pool);
    if (control_pool_find(c, a->pool))
        return vp_fail(err, VP_E_EXISTS, "there is a pool '%s' already: choose another name",
                       a->pool);
    unsigned count = params_count(a->disks);
    for (unsigned i = 0; i < count; i++)
        paths[i] = params_string(a->disks, i);
    struct volumes *vs;
    struct control_pool *p;
    struct vp_error unsaved;
    rc = own_devices_check(c, paths, count, err);
    if (rc)
        return rc;
    if (control_pools_save(c, &unsaved)) /* sooner than make a pool that a restart does not find */
        return vp_fail(err, unsaved.rc, "the pool is not created, because %s", unsaved.text);
    rc = control_volumes_create(c, &o, paths, count, &vs, err);
    if (rc == 0)
        rc = control_pool_add(c, vs, &p, err);
    if (rc)
        return rc;
    control_event(c, VP_LOG_INFO, "pool.created", p->name, "%u disk%s", count,
                  count == 1 ? "" : "s");
    rc = control_pools_save(c, &unsaved);
    if (rc)
        return vp_fail(err, rc,
                       "pool '%s' was created and is open, but %s: make room there, or after a "
                       "restart it has to be imported by hand (`vpool import %s -d DIR`)",
                       p->name, unsaved.text, p->name);
    *result = show_pool(p);
    if (!a->raid && count > 1)
        warn_of_single(*result, count);
    show_warn_limits(*result, p);
    return 0;
}

/* ---- pool.list, pool.status ------------------------------------------------------------------ */

static int list(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    (void)args;
    (void)err;
    json_t *pools = json_array();
    struct control_pool *p;
    list_for_each (p, &c->pools, link)
        if (json_array_append_new(pools, show_pool_brief(p)))
            break;
    *result = json_pack("{s:o}", "pools", pools);
    return 0;
}

static CO int status(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct pool_arg *a = args;
    struct control_pool *p;
    int rc = control_pool_get(c, a->pool, &p, err);
    if (rc)
        return rc;
    *result = show_pool(p);
    control_pool_put(p);
    return 0;
}

/* ---- pool.export, pool.destroy --------------------------------------------------------------- */

struct leave_args {
    const char *pool;
    bool dry_run;
};
static const struct param leave_params[] = {
    PARAM(struct leave_args, pool, PARAM_STRING, true, 0, 0),
    PARAM(struct leave_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};

static int refuse_when_attached(const struct control_pool *p, const char *what,
                                struct vp_error *err)
{
    unsigned count = attachment_count(p, NULL);
    if (count == 0)
        return 0;
    return vp_fail(err, VP_E_BUSY,
                   "pool '%s' has %u attachment%s: detach before you %s it (`vpool attachments` "
                   "lists what is attached, and who uses it)",
                   p->name, count, count == 1 ? "" : "s", what);
}

struct export_args {
    const char *pool;
    bool force;
};
static const struct param export_params[] = {
    PARAM(struct export_args, pool, PARAM_STRING, true, 0, 0),
    PARAM(struct export_args, force, PARAM_BOOL, false, 0, 0),
    {0}};

static CO int check_unused(const struct control_pool *p, struct vp_error *err)
{
    int rc = 0;
    for (const struct attachment *a = NULL; rc == 0 && (a = attachment_next(p, a));)
        rc = attachment_check_unused(a, err);
    return rc;
}

/* Attachments end and stay remembered: they come back wherever the pool is imported. */
static CO int export_pool(struct control *c, const void *args, json_t **result,
                          struct vp_error *err)
{
    const struct export_args *a = args;
    struct control_pool *p = control_pool_find(c, a->pool);
    if (!p)
        return vp_fail(err, VP_E_NOT_FOUND, "no pool '%.80s' here", a->pool);
    int rc = a->force ? 0 : check_unused(p, err);
    if (rc == 0)
        rc = migrations_refuse(c, p, "export", err); /* last: nothing yields before the detach */
    if (rc)
        return rc;
    control_pool_detach(p);
    attachments_stop(c, p, false);
    bool was_open = p->vs;
    if (was_open)
        history_save(c, p);
    /* First: a kill in between must not make the next daemon import an exported pool. */
    control_pools_save_later(c);
    rc = was_open ? volumes_close(p->vs, true) : 0;
    control_event(c, VP_LOG_INFO, was_open ? "pool.exported" : "pool.forgotten", p->name, "%s",
                  rc ? vp_err_text(rc) : "cleanly");
    if (rc)
        rc = vp_fail(err, rc,
                     "pool '%s' was closed, but not cleanly (%s): an import will recover it",
                     p->name, vp_err_text(rc));
    else
        *result = json_pack("{s:s, s:b}", "pool", p->name, "was_open", was_open);
    control_pool_free(p);
    return rc;
}

static json_t *destroy_plan(const struct control_pool *p, bool dry_run)
{
    json_t *shown = show_pool_brief(p);
    json_t *plan =
        json_pack("{s:s, s:b, s:O*, s:O*}", "pool", p->name, "dry_run", dry_run, "volumes",
                  json_object_get(shown, "volumes"), "space", json_object_get(shown, "space"));
    json_decref(shown);
    return plan;
}

static CO int destroy(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct leave_args *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    control_pool_put(p); /* the lock is held: nobody else takes it off the list */
    rc = migrations_refuse(c, p, "destroy", err);
    if (rc == 0)
        rc = refuse_when_attached(p, "destroy", err);
    if (rc)
        return rc;
    *result = destroy_plan(p, a->dry_run);
    if (a->dry_run)
        return 0;
    control_pool_detach(p);
    rc = volumes_destroy(p->vs, err);
    control_pools_save_later(c);
    if (rc == 0)
        control_event(c, VP_LOG_WARN, "pool.destroyed", p->name, "by request");
    control_pool_free(p);
    return rc;
}

/* ---- pool.scan, pool.import ------------------------------------------------------------------ */

struct scan_args {
    const json_t *paths;
    const char *pool;
    bool all, degraded;
};
static const struct param scan_params[] = {
    PARAM(struct scan_args, paths, PARAM_PATHS, false, 0, POOL_DISKS_MAX), {0}};
static const struct param import_params[] = {
    PARAM(struct scan_args, paths, PARAM_PATHS, false, 0, POOL_DISKS_MAX),
    PARAM(struct scan_args, pool, PARAM_STRING, false, 0, 0),
    PARAM(struct scan_args, all, PARAM_BOOL, false, 0, 0),
    PARAM(struct scan_args, degraded, PARAM_BOOL, false, 0, 0),
    {0}};

static int look_at_paths(void *arg)
{
    const json_t *paths = arg;
    for (unsigned i = 0; i < params_count(paths); i++)
        if (access(params_string(paths, i), F_OK) != 0)
            return -(int)i - 1;
    return 0;
}

/* A place that is named and does not exist is an error; one that holds no pool is not. */
static CO int check_paths(const json_t *given, struct vp_error *err)
{
    int missing = params_count(given) ? offload_run(look_at_paths, (void *)(uintptr_t)given) : 0;
    if (missing >= 0 || missing < -POOL_DISKS_MAX)
        return 0; /* without a thread to look, the scan says what it finds */
    return vp_fail(err, VP_E_NOT_FOUND, "%s does not exist, or may not be looked at",
                   params_string(given, (unsigned)(-missing - 1)));
}

/* The given disks and directories, or the configured ones. */
static CO int scan_paths(struct control *c, const json_t *given, struct pool_found **found,
                         unsigned *count, struct vp_error *err)
{
    const char *paths[POOL_DISKS_MAX];
    int rc = check_paths(given, err);
    if (rc)
        return rc;
    unsigned n = params_count(given);
    for (unsigned i = 0; i < n; i++)
        paths[i] = params_string(given, i);
    if (n == 0)
        for (; n < c->config->disk_dir_count; n++)
            paths[n] = c->config->disk_dirs[n];
    struct own_devices own;
    rc = own_devices_get(c, &own, err);
    if (rc)
        return rc;
    const struct pool_scan_filter filter = own_devices_filter(&own);
    rc = own_devices_refuse(&own, paths, params_count(given), err);
    if (rc == 0)
        rc = pool_scan(paths, n, &filter, found, count, err);
    own_devices_free(&own);
    return rc;
}

/* NULL: memory is out. */
static json_t *found_paths(const struct pool_found *f)
{
    json_t *paths = json_array();
    for (unsigned i = 0; i < f->path_count; i++) {
        if (json_array_append_new(paths, path_shown(f->paths[i])) == 0)
            continue;
        json_decref(paths);
        return NULL;
    }
    return paths;
}

static struct control_pool *open_pool_of(struct control *c, const struct pool_found *f)
{
    char uuid[VP_UUID_TEXT];
    struct control_pool *p = control_pool_find(c, vp_uuid_format(f->uuid, uuid));
    return p && p->vs ? p : NULL;
}

static CO int scan(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct scan_args *a = args;
    struct pool_found *found = NULL;
    unsigned count = 0;
    int rc = scan_paths(c, a->paths, &found, &count, err);
    if (rc)
        return rc;
    json_t *pools = json_array();
    for (unsigned i = 0; i < count; i++) {
        char uuid[VP_UUID_TEXT];
        json_t *entry =
            json_pack("{s:s, s:s, s:i, s:i, s:b, s:o}", "name", found[i].name, "uuid",
                      vp_uuid_format(found[i].uuid, uuid), "disks_total", (int)found[i].disks_total,
                      "disks_found", (int)found[i].disks_found, "open",
                      open_pool_of(c, &found[i]) != NULL, "paths", found_paths(&found[i]));
        if (json_array_append_new(pools, entry)) {
            json_decref(pools);
            free(found);
            return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
        }
    }
    free(found);
    *result = json_pack("{s:o}", "pools", pools);
    return 0;
}

static bool found_matches(const struct pool_found *f, const char *wanted)
{
    struct vp_uuid uuid;
    return !wanted || strcmp(f->name, wanted) == 0 ||
           (vp_uuid_parse(wanted, &uuid) && vp_uuid_equal(uuid, f->uuid));
}

/* A found pool's import: into `done` or, with the reason, into `failed`. */
static CO int import_one(struct control *c, const struct pool_found *f, unsigned flags,
                         json_t *done, json_t *failed, struct vp_error *err)
{
    struct control_pool *p;
    struct vp_error why = {0};
    int rc = control_pool_import(c, f, flags, &p, &why);
    if (rc == 0) {
        json_t *shown = show_pool_brief(p);
        show_warn_limits(shown, p);
        return json_array_append_new(done, shown) ? VP_E_NO_MEMORY : 0;
    }
    *err = why;
    return json_array_append_new(failed, json_pack("{s:s, s:s, s:s}", "name", f->name, "error_name",
                                                   vp_err_name(rc), "error", why.text))
               ? VP_E_NO_MEMORY
               : 0;
}

static int check_ambiguous(struct control *c, const struct pool_found *found, unsigned count,
                           const char *wanted, struct vp_error *err)
{
    unsigned matching = 0;
    for (unsigned i = 0; i < count; i++)
        if (found_matches(&found[i], wanted)) {
            matching++;
            if (open_pool_of(c, &found[i]))
                return vp_fail(err, VP_E_EXISTS, "pool '%s' is open already", wanted);
        }
    if (matching == 0)
        return vp_fail(err, VP_E_NOT_FOUND,
                       "no pool '%.80s' was found: name its disks or their directory with -d, and "
                       "see `vpool scan`",
                       wanted);
    if (matching > 1)
        return vp_fail(err, VP_E_INVALID,
                       "%u pools are named '%s': give the uuid that `vpool scan` shows", matching,
                       wanted);
    return 0;
}

static CO int import_found(struct control *c, const struct scan_args *a,
                           const struct pool_found *found, unsigned count, json_t **result,
                           struct vp_error *err)
{
    json_t *done = json_array(), *failed = json_array();
    unsigned flags = a->degraded ? POOL_IMPORT_DEGRADED : 0;
    int rc = a->pool ? check_ambiguous(c, found, count, a->pool, err) : 0;
    for (unsigned i = 0; i < count && rc == 0; i++)
        if (found_matches(&found[i], a->pool) && !open_pool_of(c, &found[i]))
            rc = import_one(c, &found[i], flags, done, failed, err);
    /* The call names one pool, so the pool's failure is the call's. */
    if (rc == 0 && a->pool && json_array_size(failed))
        rc = err->rc;
    control_pools_save_later(c);
    if (rc) {
        json_decref(done);
        json_decref(failed);
        return rc;
    }
    *result = json_pack("{s:o, s:o}", "imported", done, "failed", failed);
    return 0;
}

static CO int import_pools(struct control *c, const void *args, json_t **result,
                           struct vp_error *err)
{
    const struct scan_args *a = args;
    if (!a->pool == !a->all)
        return vp_fail(err, VP_E_RPC_PARAMS, "give either 'pool' or 'all'");
    if (a->all && a->degraded)
        return vp_fail(err, VP_E_RPC_PARAMS,
                       "'degraded' gives up the disks that are missing, so name the pool");
    struct pool_found *found = NULL;
    unsigned count = 0;
    int rc = scan_paths(c, a->paths, &found, &count, err);
    if (rc == 0)
        rc = import_found(c, a, found, count, result, err);
    free(found);
    return rc;
}

/* ---- pool.get, pool.set, pool.checkpoint ----------------------------------------------------- */

struct set_args {
    const char *pool, *key, *value;
};
static const struct param set_params[] = {PARAM(struct set_args, pool, PARAM_STRING, true, 0, 0),
                                          PARAM(struct set_args, key, PARAM_STRING, true, 0, 0),
                                          PARAM(struct set_args, value, PARAM_STRING, true, 0, 0),
                                          {0}};

static int get(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct pool_arg *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    struct pool *pool = volumes_pool(p->vs);
    struct pool_geometry g = pool_geometry(pool);
    const char *comment = pool_property_get(pool, "comment");
    char raid[RAID_PROFILE_TEXT];
    *result = json_pack("{s:s, s:i, s:i, s:i, s:s}", "raid",
                        raid_profile_format(pool_default_profile(pool), raid), "chunk",
                        (int)g.chunk_bytes, "extent", (int)g.extent_bytes, "log-segment",
                        (int)g.log_segment_bytes, "comment", comment ? comment : "");
    control_pool_put(p);
    return 0;
}

static CO int set(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct set_args *a = args;
    if (!property_is_known(a->key, strlen(a->key)))
        return vp_fail(err, VP_E_RPC_PARAMS, "'%.60s' cannot be set on a pool: only 'comment' can",
                       a->key);
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    rc = pool_property_set(volumes_pool(p->vs), a->key, a->value);
    control_pool_put(p);
    if (rc)
        return vp_fail(err, rc, "setting '%s': %s", a->key, vp_err_text(rc));
    *result = json_pack("{s:s}", a->key, a->value);
    return 0;
}

static CO int checkpoint(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct pool_arg *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    struct pool *pool = volumes_pool(p->vs);
    rc = pool_checkpoint(pool);
    if (rc == 0)
        *result = json_pack("{s:i}", "checkpoint", (int)pool_checkpoint_number(pool));
    else
        rc = vp_fail(err, rc, "checkpoint of '%s': %s", p->name, vp_err_text(rc));
    control_pool_put(p);
    return rc;
}

static CO int clear(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct pool_arg *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    history_clear(c, p);
    control_event(c, VP_LOG_INFO, "pool.cleared", p->name, "error counters start again from zero");
    *result = show_pool(p);
    control_pool_put(p);
    return 0;
}

const struct method methods_pool[] = {
    {"pool.create", create_params, METHOD_ALONE, create},
    {"pool.list", no_params, METHOD_READS, list},
    {"pool.status", pool_params, METHOD_READS, status},
    {"pool.destroy", leave_params, METHOD_ALONE | METHOD_DESTROYS, destroy},
    {"pool.export", export_params, METHOD_ALONE, export_pool},
    {"pool.scan", scan_params, METHOD_READS, scan},
    {"pool.import", import_params, METHOD_ALONE, import_pools},
    {"pool.get", pool_params, METHOD_READS, get},
    {"pool.set", set_params, METHOD_ALONE, set},
    {"pool.checkpoint", pool_params, 0, checkpoint},
    {"pool.clear", pool_params, METHOD_ALONE, clear},
    {0}};
