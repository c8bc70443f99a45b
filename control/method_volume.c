/* Methods about volumes. */
#include "control/control_impl.h"

#include <stdio.h>
#include <string.h>

/* A sentence for calls below that return a code only. */
static int not_found(struct vp_error *err, int rc, const char *volume)
{
    return rc == VP_E_NOT_FOUND
               ? vp_fail(err, rc, "no volume '%.200s': `vpool volume list` shows all", volume)
               : vp_fail(err, rc, "volume '%.200s': %s", volume, vp_err_text(rc));
}

/* For people, in one of two static buffers. */
static const char *size_text(uint64_t bytes)
{
    static char buf[2][24];
    static unsigned next;
    return bytes_format_size(bytes, buf[next++ % 2], sizeof(buf[0]));
}

struct volume_arg {
    const char *volume;
};
static const struct param volume_params[] = {
    PARAM(struct volume_arg, volume, PARAM_STRING, true, 0, 0), {0}};

/* ---- volume.create --------------------------------------------------------------------------- */

struct create_args {
    const char *volume, *raid;
    uint64_t size;
    const json_t *options;
};
static const struct param create_params[] = {
    PARAM(struct create_args, volume, PARAM_STRING, true, 0, 0),
    PARAM(struct create_args, size, PARAM_NUMBER, true, 1, VOLUME_SIZE_MAX),
    PARAM(struct create_args, raid, PARAM_STRING, false, 0, 0),
    PARAM(struct create_args, options, PARAM_STRINGS, false, 0, 32),
    {0}};

static int options_of(const struct create_args *a, struct volume_options *o, struct vp_error *err)
{
    o->size_bytes = a->size;
    if (a->raid) {
        o->has_profile = raid_profile_parse(a->raid, &o->profile);
        if (!o->has_profile)
            return vp_fail(err, VP_E_RPC_PARAMS,
                           "'%s' is no redundancy profile: write single, mirror or mirror:N",
                           a->raid);
        int rc = pool_profile_check(o->profile, err);
        if (rc)
            return rc;
    }
    for (unsigned i = 0; i < params_count(a->options); i++) {
        int rc = volume_option_parse(params_string(a->options, i), o, err);
        if (rc)
            return rc;
    }
    return 0;
}

static CO int show_into(struct control_pool *p, const char *volume, json_t **result,
                        struct vp_error *err)
{
    struct volume_info info;
    int rc = volume_info_get(p->vs, volume, &info);
    if (rc)
        return not_found(err, rc, volume);
    *result = show_volume(p, &info);
    return 0;
}

static CO int create(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct create_args *a = args;
    struct volume_options o = {0};
    int rc = options_of(a, &o, err);
    if (rc)
        return rc;
    struct control_pool *p;
    const char *volume;
    rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    rc = volume_create(p->vs, volume, &o, err);
    if (rc == 0)
        rc = show_into(p, volume, result, err);
    if (rc == 0)
        control_event(c, VP_LOG_INFO, "volume.created", a->volume, "%s", size_text(a->size));
    control_pool_put(p);
    return rc;
}

/* ---- volume.list, volume.show ---------------------------------------------------------------- */

struct list_args {
    const char *pool, *after;
    uint64_t limit;
};
static const struct param list_params[] = {
    PARAM(struct list_args, pool, PARAM_STRING, true, 0, 0),
    PARAM(struct list_args, after, PARAM_STRING, false, 0, VOLUME_NAME_MAX),
    PARAM(struct list_args, limit, PARAM_NUMBER, false, 1, 1000),
    {0}};

/* A reply has at most 1000 volumes, so that thousands of them never hold up the reactor. */
struct list_walk {
    const struct control_pool *p;
    const char *after;
    size_t limit;
    json_t *volumes;
    char last[VOLUME_NAME_MAX + 1];
    bool more;
};

static int list_volume(const struct volume_info *info, void *arg)
{
    struct list_walk *w = arg;
    if (w->after && strcmp(info->name, w->after) <= 0)
        return 0;
    if (json_array_size(w->volumes) == w->limit) {
        w->more = true;
        return 1;
    }
    memcpy(w->last, info->name, sizeof(w->last));
    return json_array_append_new(w->volumes, show_volume(w->p, info)) ? VP_E_NO_MEMORY : 0;
}

/* The list's figures are those of the last commits: asks the volumes that are open. */
static CO void refresh_open(struct control_pool *p, json_t *volumes)
{
    for (size_t i = 0; i < json_array_size(volumes); i++) {
        const json_t *v = json_array_get(volumes, i);
        struct volume_info info;
        if (json_integer_value(json_object_get(v, "open_count")) == 0 ||
            volume_info_get(p->vs, json_string_value(json_object_get(v, "name")), &info))
            continue;
        (void)json_array_set_new(volumes, i, show_volume(p, &info)); /* else: the older figures */
    }
}

static CO int list(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct list_args *a = args;
    struct control_pool *p;
    int rc = control_pool_get_open(c, a->pool, &p, err);
    if (rc)
        return rc;
    struct list_walk w = {.p = p,
                          .after = a->after,
                          .limit = a->limit ? (size_t)a->limit : 1000,
                          .volumes = json_array()};
    int ended = volume_each(p->vs, list_volume, &w);
    if (ended < 0)
        vp_warn("no memory to list the volumes of pool '%s'", p->name);
    refresh_open(p, w.volumes);
    *result = json_pack("{s:o, s:s?}", "volumes", w.volumes, "next", w.more ? w.last : NULL);
    control_pool_put(p);
    return 0;
}

static CO int show(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct volume_arg *a = args;
    struct control_pool *p;
    const char *volume;
    int rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    rc = show_into(p, volume, result, err);
    control_pool_put(p);
    return rc;
}

/* ---- volume.resize --------------------------------------------------------------------------- */

struct resize_args {
    const char *volume;
    uint64_t size;
    bool force, dry_run;
};
static const struct param resize_params[] = {
    PARAM(struct resize_args, volume, PARAM_STRING, true, 0, 0),
    PARAM(struct resize_args, size, PARAM_NUMBER, true, 1, VOLUME_SIZE_MAX),
    PARAM(struct resize_args, force, PARAM_BOOL, false, 0, 0),
    PARAM(struct resize_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};

static CO int resize_now(struct control *c, struct control_pool *p, const char *volume,
                         const struct resize_args *a, uint64_t from, const char *users,
                         struct vp_error *err)
{
    bool under_users = a->size < from && users[0];
    int rc = volume_resize(p->vs, volume, a->size, a->force, err);
    if (rc)
        return rc;
    attachments_resize(c, p, volume);
    control_event(c, under_users ? VP_LOG_WARN : VP_LOG_INFO, "volume.resized", a->volume,
                  "%s to %s%s%s", size_text(from), size_text(a->size),
                  under_users ? " while it was in use: " : "", under_users ? users : "");
    return 0;
}

static CO int resize_in(struct control *c, struct control_pool *p, const char *volume,
                        const struct resize_args *a, json_t **result, struct vp_error *err)
{
    struct volume_info info;
    int rc = volume_info_get(p->vs, volume, &info);
    if (rc)
        return not_found(err, rc, a->volume);
    uint64_t from = info.options.size_bytes;
    char users[400];
    attachments_used_by(p, volume, users, sizeof(users));
    if (a->size < from && users[0] && !a->force)
        return vp_fail(err, VP_E_SHRINK_REFUSED,
                       "%s is in use (%s), and what is beyond the new end would be lost under it: "
                       "end that first, or use --force",
                       a->volume, users);
    rc = volume_check_stays(p->vs, volume, err);
    if (rc == 0 && !a->dry_run)
        rc = resize_now(c, p, volume, a, from, users, err);
    if (rc)
        return rc;
    *result = json_pack("{s:s, s:b, s:I, s:I, s:b, s:s}", "volume", a->volume, "dry_run",
                        a->dry_run, "from_bytes", (json_int_t)from, "to_bytes", (json_int_t)a->size,
                        "shrinks", a->size < from, "used_by", users);
    return 0;
}

static CO int resize(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct resize_args *a = args;
    struct control_pool *p;
    const char *volume;
    int rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    rc = resize_in(c, p, volume, a, result, err);
    control_pool_put(p);
    return rc;
}

/* ---- volume.rename, volume.delete ------------------------------------------------------------ */

/* A move keeps its attachments, so it is named first. */
static CO int refuse_when_attached(const struct control_pool *p, const char *volume,
                                   const char *what, struct vp_error *err)
{
    unsigned count = attachment_count(p, volume);
    char users[400];
    int rc = volume_check_stays(p->vs, volume, err);
    if (rc || count == 0)
        return rc;
    attachments_used_by(p, volume, users, sizeof(users));
    if (users[0])
        return vp_fail(err, VP_E_BUSY,
                       "%s/%s is in use (%s): end that and detach the volume before you %s it",
                       p->name, volume, users, what);
    return vp_fail(err, VP_E_BUSY,
                   "%s/%s has %u attachment%s, which nobody uses now: detach the volume before you "
                   "%s it (`vpool detach %s/%s%s`)",
                   p->name, volume, count, count == 1 ? "" : "s", what, p->name, volume,
                   count == 1 ? "" : " --all");
}

struct rename_args {
    const char *volume, *to;
};
static const struct param rename_params[] = {
    PARAM(struct rename_args, volume, PARAM_STRING, true, 0, 0),
    PARAM(struct rename_args, to, PARAM_STRING, true, 0, 0),
    {0}};

/* The new name, with or without "POOL/" in front. */
static int name_in_pool(const struct control_pool *p, const char *to, const char **name,
                        struct vp_error *err)
{
    const char *slash = strchr(to, '/');
    *name = slash ? slash + 1 : to;
    size_t len = strlen(p->name);
    if (slash && ((size_t)(slash - to) != len || memcmp(to, p->name, len) != 0))
        return vp_fail(err, VP_E_INVALID, "'%s' is in another pool: a rename stays in '%s'", to,
                       p->name);
    if (!volume_name_is_valid(*name))
        return vp_fail(err, VP_E_NAME_INVALID,
                       "'%.130s' is not a volume's name: up to 127 letters, digits and _.:-, a "
                       "letter or digit first",
                       *name);
    return 0;
}

static CO int rename_volume(struct control *c, const void *args, json_t **result,
                            struct vp_error *err)
{
    const struct rename_args *a = args;
    struct control_pool *p;
    const char *volume, *to;
    int rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    rc = name_in_pool(p, a->to, &to, err);
    if (rc == 0)
        rc = refuse_when_attached(p, volume, "rename", err);
    if (rc == 0)
        rc = volume_rename(p->vs, volume, to, err);
    if (rc == 0)
        rc = show_into(p, to, result, err);
    if (rc == 0)
        control_event(c, VP_LOG_INFO, "volume.renamed", a->volume, "to %s", to);
    control_pool_put(p);
    return rc;
}

struct delete_args {
    const char *volume;
    uint64_t limit;
    bool dry_run;
};
static const struct param delete_params[] = {
    PARAM(struct delete_args, volume, PARAM_STRING, true, 0, 0),
    PARAM(struct delete_args, limit, PARAM_NUMBER, false, 0, INT64_MAX),
    PARAM(struct delete_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};

/* The limit holds from the first step on: nothing yields before it is set. */
static CO int delete_now(struct control *c, struct control_pool *p, const char *volume,
                         const struct volume_info *info, const struct delete_args *a, uint32_t *job,
                         struct vp_error *err)
{
    int rc = volume_delete(p->vs, volume, err);
    if (rc)
        return rc;
    const struct pool_job *j = pool_job_find_of(volumes_pool(p->vs), POOL_JOB_DELETE, info->id);
    *job = j ? j->id : 0;
    if (a->limit && j)
        rc = pool_job_limit(volumes_pool(p->vs), *job, a->limit, err);
    control_event(c, VP_LOG_WARN, "volume.deleted", a->volume, "%s were allocated",
                  size_text(info->allocated_bytes));
    return rc;
}

static CO int delete_in(struct control *c, struct control_pool *p, const char *volume,
                        const struct delete_args *a, json_t **result, struct vp_error *err)
{
    struct volume_info info;
    uint32_t id = 0;
    char job[JOB_NAME_BYTES];
    int rc = volume_info_get(p->vs, volume, &info);
    if (rc)
        return not_found(err, rc, a->volume);
    rc = refuse_when_attached(p, volume, "delete", err);
    if (rc == 0 && !a->dry_run)
        rc = delete_now(c, p, volume, &info, a, &id, err);
    if (rc)
        return rc;
    *result = json_pack("{s:s, s:b, s:I, s:I, s:s?}", "volume", a->volume, "dry_run", a->dry_run,
                        "size_bytes", (json_int_t)info.options.size_bytes, "allocated_bytes",
                        (json_int_t)info.allocated_bytes, "job",
                        a->dry_run ? NULL : control_job_name(p, id, job));
    return 0;
}

static CO int delete_volume(struct control *c, const void *args, json_t **result,
                            struct vp_error *err)
{
    const struct delete_args *a = args;
    struct control_pool *p;
    const char *volume;
    int rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    rc = delete_in(c, p, volume, a, result, err);
    control_pool_put(p);
    return rc;
}

/* ---- volume.get, volume.set ------------------------------------------------------------------ */

static CO int get(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct volume_arg *a = args;
    struct control_pool *p;
    const char *volume;
    int rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    struct volume_info info;
    rc = volume_info_get(p->vs, volume, &info);
    control_pool_put(p);
    if (rc)
        return not_found(err, rc, a->volume);
    *result = show_volume_options(&info.options);
    if (*result &&
        json_object_set_new(*result, "size", json_integer((json_int_t)info.options.size_bytes))) {
        json_decref(*result);
        *result = NULL;
    }
    return 0;
}

struct set_args {
    const char *volume, *key, *value;
};
static const struct param set_params[] = {PARAM(struct set_args, volume, PARAM_STRING, true, 0, 0),
                                          PARAM(struct set_args, key, PARAM_STRING, true, 0, 0),
                                          PARAM(struct set_args, value, PARAM_STRING, true, 0, 0),
                                          {0}};

static CO int set(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct set_args *a = args;
    struct control_pool *p;
    const char *volume;
    int rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    rc = volume_property_set(p->vs, volume, a->key, a->value, err);
    if (rc == 0)
        rc = show_into(p, volume, result, err);
    control_pool_put(p);
    return rc;
}

const struct method methods_volume[] = {
    {"volume.create", create_params, METHOD_ALONE, create},
    {"volume.list", list_params, METHOD_READS, list},
    {"volume.show", volume_params, METHOD_READS, show},
    {"volume.resize", resize_params, METHOD_ALONE | METHOD_DESTROYS, resize},
    {"volume.rename", rename_params, METHOD_ALONE, rename_volume},
    {"volume.delete", delete_params, METHOD_ALONE | METHOD_DESTROYS, delete_volume},
    {"volume.get", volume_params, METHOD_READS, get},
    {"volume.set", set_params, METHOD_ALONE, set},
    {0}};
