/* The pools that the daemon knows: open ones, and those which could not be imported. */
#include "control/control_impl.h"

#include "base/attr.h"
#include "control/offload.h"
#include "control/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- finding ------------------------------------------------------------------------------- */

struct control_pool *control_pool_find(struct control *c, const char *name)
{
    struct vp_uuid uuid;
    bool is_uuid = vp_uuid_parse(name, &uuid);
    struct control_pool *p;
    list_for_each (p, &c->pools, link)
        if (strcmp(p->name, name) == 0 || (is_uuid && vp_uuid_equal(p->uuid, uuid)))
            return p;
    return NULL;
}

int control_pool_get(struct control *c, const char *name, struct control_pool **out,
                     struct vp_error *err)
{
    struct control_pool *p = control_pool_find(c, name);
    if (!p)
        return vp_fail(err, VP_E_NOT_FOUND,
                       "no pool '%.80s' here: `vpool list` shows those that are open, `vpool scan` "
                       "those that could be imported",
                       name);
    p->users++;
    *out = p;
    return 0;
}

int control_pool_get_open(struct control *c, const char *name, struct control_pool **out,
                          struct vp_error *err)
{
    int rc = control_pool_get(c, name, out, err);
    if (rc || (*out)->vs)
        return rc;
    control_pool_put(*out);
    return vp_fail(err, (*out)->rc, "pool '%s' is not open: %s", (*out)->name, (*out)->error);
}

void control_pool_put(struct control_pool *p)
{
    if (--p->users == 0)
        co_queue_wake_all(&p->unused);
}

int control_volume_get(struct control *c, const char *text, struct control_pool **pool,
                       const char **volume, struct vp_error *err)
{
    const char *slash = strchr(text, '/');
    char name[VP_UUID_TEXT > POOL_NAME_MAX ? VP_UUID_TEXT + 1 : POOL_NAME_MAX + 1];
    size_t len = slash ? (size_t)(slash - text) : 0;
    if (!slash || len == 0 || len >= sizeof(name) || !slash[1])
        return vp_fail(err, VP_E_NAME_INVALID, "'%.80s' is not a volume: write POOL/VOLUME", text);
    if (!volume_name_is_valid(slash + 1))
        return vp_fail(err, VP_E_NAME_INVALID,
                       "'%.130s' is not a volume's name: up to 127 letters, digits and _.:-, a "
                       "letter or digit first",
                       slash + 1);
    memcpy(name, text, len);
    name[len] = 0;
    *volume = slash + 1;
    return control_pool_get_open(c, name, pool, err);
}

void control_volume_name(const char *pool, const char *volume,
                         char out[static VOLUME_FULL_NAME_BYTES])
{
    (void)snprintf(out, VOLUME_FULL_NAME_BYTES, "%s/%s", pool, volume[0] ? volume : "?");
}

/* ---- the list ------------------------------------------------------------------------------ */

static struct control_pool *pool_new(struct control *c, const char *name, struct vp_uuid uuid)
{
    struct control_pool *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    (void)snprintf(p->name, sizeof(p->name), "%s", name);
    p->uuid = uuid;
    p->next_attachment = 1;
    co_queue_init(&p->unused);
    list_init(&p->attachments);
    health_init(&p->health);
    list_add_tail(&c->pools, &p->link);
    return p;
}

void control_pool_detach(struct control_pool *p)
{
    list_del(&p->link);
    while (p->users)
        co_queue_wait(&p->unused, "users of a pool that leaves");
}

void control_pool_free(struct control_pool *p)
{
    if (!p)
        return;
    list_del(&p->link);
    health_fini(&p->health);
    json_decref(p->paths);
    free(p);
}

/* Where the open pool's disks are now; those that are missing keep no path. */
static json_t *paths_of(struct volumes *vs)
{
    json_t *paths = json_array();
    const struct pool *pool = volumes_pool(vs);
    for (unsigned i = 0; paths && i < pool_disk_count(pool); i++) {
        struct pool_disk_info disk;
        pool_disk_info_get(pool, i, &disk);
        if (disk.path[0] && json_array_append_new(paths, json_string(disk.path)))
            break;
    }
    return paths;
}

static struct control_pool *find_same(struct control *c, struct vp_uuid uuid)
{
    struct control_pool *p;
    list_for_each (p, &c->pools, link)
        if (vp_uuid_equal(p->uuid, uuid))
            return p;
    return NULL;
}

int control_pool_add(struct control *c, struct volumes *vs, struct control_pool **out,
                     struct vp_error *err)
{
    const struct pool *pool = volumes_pool(vs);
    struct control_pool *p = find_same(c, pool_uuid(pool));
    json_t *paths = paths_of(vs);
    if (!p && paths)
        p = pool_new(c, pool_name(pool), pool_uuid(pool));
    if (!p || !paths) {
        json_decref(paths);
        vp_ignore(volumes_close(vs, false), "nothing was written since it was opened");
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    }
    (void)snprintf(p->name, sizeof(p->name), "%s", pool_name(pool));
    json_decref(p->paths);
    p->paths = paths;
    p->vs = vs;
    p->rc = 0;
    p->error[0] = 0;
    history_load(c, p);
    attachments_start(c, p);
    *out = p;
    return 0;
}

/* ---- opening ------------------------------------------------------------------------------- */

static struct volumes_config volumes_config_of(struct control *c)
{
    return (struct volumes_config){
        .reactors = c->options.reactors,
        .reactor_count = c->options.reactor_count,
        .metadata_bytes = c->config->metadata_bytes,
        .commit_interval_ms = (unsigned)c->config->commit_interval_ms,
        .background = true,
    };
}

int control_volumes_create(struct control *c, const struct pool_create_options *o,
                           const char *const *paths, unsigned count, struct volumes **out,
                           struct vp_error *err)
{
    struct volumes_config config = volumes_config_of(c);
    return volumes_create(o, paths, count, &config, out, err);
}

int control_pool_import(struct control *c, const json_t *paths, struct control_pool **out,
                        struct vp_error *err)
{
    const char *list[POOL_DISKS_MAX];
    unsigned count = 0;
    for (; count < params_count(paths) && count < POOL_DISKS_MAX; count++)
        list[count] = params_string(paths, count);
    struct volumes_config config = volumes_config_of(c);
    struct volumes *vs;
    int rc = volumes_import(list, count, &config, &vs, err);
    if (rc == 0)
        rc = control_pool_add(c, vs, out, err);
    if (rc == 0)
        control_event(c, VP_LOG_INFO, "pool.imported", (*out)->name, "%u volume%s, %s",
                      volumes_count((*out)->vs), volumes_count((*out)->vs) == 1 ? "" : "s",
                      pool_state(volumes_pool((*out)->vs)));
    return rc;
}

/* ---- the cache of paths -------------------------------------------------------------------- */

struct save {
    const char *dir;
    const char *text;
    struct vp_error *err;
};

static int save_blocking(void *arg)
{
    const struct save *s = arg;
    return state_save(s->dir, s->text, s->err);
}

static json_t *cache_json(struct control *c)
{
    json_t *pools = json_array();
    struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        char uuid[VP_UUID_TEXT];
        json_t *entry = json_pack("{s:s, s:s, s:O}", "name", p->name, "uuid",
                                  vp_uuid_format(p->uuid, uuid), "disks", p->paths);
        if (json_array_append_new(pools, entry))
            break;
    }
    return json_pack("{s:i, s:o}", "version", 1, "pools", pools);
}

int control_pools_save(struct control *c, struct vp_error *err)
{
    json_t *cache = cache_json(c);
    char *text = cache ? json_dumps(cache, JSON_INDENT(1)) : NULL;
    json_decref(cache);
    *err = (struct vp_error){0};
    struct save save = {.dir = c->config->state_dir, .text = text, .err = err};
    int rc = text ? offload_run(save_blocking, &save) : VP_E_NO_MEMORY;
    free(text);
    if (rc && !err->text[0])
        rc = vp_fail(err, rc, "the list of pools could not be written: %s", vp_err_text(rc));
    if (rc && !c->state_unsaved)
        control_event(c, VP_LOG_ERROR, "daemon.state-unsaved", "daemon",
                      "%s: until it can be, a restart may not find pools by itself", err->text);
    if (!rc && c->state_unsaved)
        control_event(c, VP_LOG_INFO, "daemon.state-saved", "daemon",
                      "the list of pools is written");
    c->state_unsaved = rc;
    return rc;
}

void control_pools_save_later(struct control *c)
{
    struct vp_error err;
    vp_ignore(control_pools_save(c, &err), "there is an event, and the monitor tries again");
}

/* The disks have moved: look for the pool's uuid in the configured directories. */
CO static int import_by_uuid(struct control *c, struct vp_uuid uuid, struct control_pool **out,
                             struct vp_error *err)
{
    const char *dirs[CONTROL_DISK_DIRS_MAX];
    for (unsigned i = 0; i < c->config->disk_dir_count; i++)
        dirs[i] = c->config->disk_dirs[i];
    struct pool_found *found = NULL;
    unsigned count = 0;
    int rc = pool_scan(dirs, c->config->disk_dir_count, &found, &count, err);
    if (rc)
        return rc;
    rc = VP_E_NOT_FOUND;
    for (unsigned i = 0; i < count && rc == VP_E_NOT_FOUND; i++) {
        if (!vp_uuid_equal(found[i].uuid, uuid))
            continue;
        json_t *paths = json_array();
        for (unsigned k = 0; k < found[i].path_count; k++)
            (void)json_array_append_new(paths, json_string(found[i].paths[k]));
        rc = control_pool_import(c, paths, out, err);
        json_decref(paths);
    }
    free(found);
    return rc;
}

/* Those of the paths that can be opened: a pool that can do without the others comes up degraded.
 * When none can, all of them, so that the import says what is wrong. Blocks shortly. */
static json_t *paths_present(json_t *paths)
{
    json_t *present = json_array();
    size_t i;
    json_t *path;
    json_array_foreach(paths, i, path)
    {
        const char *text = json_string_value(path);
        AUTO_FD int fd = text ? open(text, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
        if (fd < 0)
            vp_warn("disk %s can not be opened: %s", text ? text : "?", strerror(errno));
        else if (json_array_append(present, path))
            break;
    }
    if (json_array_size(present))
        return present;
    json_decref(present);
    return json_incref(paths);
}

CO static void restore_one(struct control *c, const json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *uuid_text = json_string_value(json_object_get(entry, "uuid"));
    json_t *paths = json_object_get(entry, "disks");
    struct vp_uuid uuid;
    if (!name || !uuid_text || !vp_uuid_parse(uuid_text, &uuid) || !json_is_array(paths)) {
        vp_warn("an entry of %s/pools.json does not decode: skipped", c->config->state_dir);
        return;
    }
    struct control_pool *p;
    struct vp_error first = {0}, second = {0};
    json_t *present = paths_present(paths);
    int rc;
    do
        rc = control_pool_import(c, present, &p, &first);
    while (control_predecessor_lets_go(c, rc));
    json_decref(present);
    if (rc == 0 || import_by_uuid(c, uuid, &p, &second) == 0)
        return;
    p = pool_new(c, name, uuid);
    if (!p)
        return;
    p->paths = json_incref(paths);
    p->rc = rc;
    (void)snprintf(p->error, sizeof(p->error), "%s", first.text);
    control_event(c, VP_LOG_ERROR, "pool.import-failed", name, "%s", first.text);
}

void control_pools_restore(struct control *c)
{
    json_t *cache;
    struct vp_error err = {0};
    if (state_load(c->config->state_dir, &cache, &err)) {
        control_event(c, VP_LOG_WARN, "daemon.state-damaged", "daemon",
                      "%s; import the pools with `vpool import --all`", err.text);
        return;
    }
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(cache, "pools"), i, entry) restore_one(c, entry);
    json_decref(cache);
}

int control_pools_close(struct control *c)
{
    int first = 0;
    while (!list_empty(&c->pools)) {
        struct control_pool *p = list_first(&c->pools, struct control_pool, link);
        control_pool_detach(p);
        attachments_stop(c, p, true);
        if (p->vs)
            history_save(c, p);
        int rc = p->vs ? volumes_close(p->vs, false) : 0;
        if (rc)
            vp_error_log("pool '%s' did not close cleanly (%s); its log has all that was "
                         "acknowledged",
                         p->name, vp_err_text(rc));
        first = first ? first : rc;
        control_pool_free(p);
    }
    return first;
}
