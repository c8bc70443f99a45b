/* The pools that the daemon knows: open ones, and those which could not be imported. */
#include "control/control_impl.h"

#include "base/attr.h"
#include "base/verify.h"
#include "control/own_devices.h"
#include "control/path.h"
#include "control/state.h"
#include "io/offload.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MIN_NS (UINT64_C(1) << 30) /* about a second … */
#define RETRY_MAX_NS (UINT64_C(1) << 35) /* … to half a minute: imports read the whole log */
#define WAIT_LOOK_NS UINT64_C(500000000) /* while disks are waited for: labels only */

/* ---- finding ------------------------------------------------------------------------------- */

struct control_pool *control_pool_find(struct control *c, const char *name)
{
    struct vp_uuid uuid;
    bool is_uuid = vp_uuid_parse(name, &uuid);
    struct control_pool *p, *closed = NULL;
    list_for_each (p, &c->pools, link) {
        if (strcmp(p->name, name) != 0 && !(is_uuid && vp_uuid_equal(p->uuid, uuid)))
            continue;
        if (p->vs)
            return p;
        closed = closed ? closed : p; /* an open pool of this name may follow */
    }
    return closed;
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

int control_pools_each_open(struct control *c, const char *name,
                            int (*fn)(struct control_pool *p, void *arg), void *arg,
                            struct vp_error *err)
{
    struct control_pool *p, *only = NULL;
    int rc = name ? control_pool_get_open(c, name, &only, err) : 0;
    if (rc)
        return rc;
    list_for_each (p, &c->pools, link)
        if (p->vs && (!only || p == only) && fn(p, arg))
            break;
    if (only)
        control_pool_put(only);
    return 0;
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
    p->control = c;
    p->uuid = uuid;
    p->next_attachment = 1;
    co_queue_init(&p->unused);
    health_init(&p->health);
    list_add_tail(&c->pools, &p->link);
    return p;
}

CO void control_pool_detach(struct control_pool *p)
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
    json_decref(p->left);
    json_decref(p->paths);
    free(p);
}

/* Where the open pool's disks are now; those that are missing keep no path. NULL: memory is out. */
static json_t *paths_of(struct volumes *vs)
{
    json_t *paths = json_array();
    const struct pool *pool = volumes_pool(vs);
    for (unsigned i = 0; paths && i < pool_disk_count(pool); i++) {
        struct pool_disk_info disk;
        pool_disk_info_get(pool, i, &disk);
        if (!disk.path[0] || json_array_append_new(paths, path_to_json(disk.path)) == 0)
            continue;
        json_decref(paths);
        paths = NULL;
    }
    return paths;
}

CO void control_pool_disk_comes(struct control *c, struct control_pool *p, const char *path)
{
    json_t *paths = json_copy(p->paths);
    if (paths && json_array_insert_new(paths, 0, path_to_json(path)) == 0) {
        json_decref(p->paths);
        p->paths = paths;
    } else {
        json_decref(paths); /* then a restart may not find the disk by itself */
    }
    control_pools_save_later(c);
}

CO void control_pool_disks_changed(struct control *c, struct control_pool *p)
{
    json_t *paths = paths_of(p->vs);
    if (paths) { /* else those from before, until the next import */
        json_decref(p->paths);
        p->paths = paths;
    }
    control_pools_save_later(c);
}

static struct control_pool *find_same(struct control *c, struct vp_uuid uuid)
{
    struct control_pool *p;
    list_for_each (p, &c->pools, link)
        if (vp_uuid_equal(p->uuid, uuid))
            return p;
    return NULL;
}

CO int control_pool_add(struct control *c, struct volumes *vs, struct control_pool **out,
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
    spares_load(p);
    migrations_settle(c);
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

CO int control_volumes_create(struct control *c, const struct pool_create_options *o,
                              const char *const *paths, unsigned count, struct volumes **out,
                              struct vp_error *err)
{
    struct volumes_config config = volumes_config_of(c);
    return volumes_create(o, paths, count, &config, out, err);
}

CO int control_pool_import(struct control *c, const struct pool_found *f, unsigned flags,
                           struct control_pool **out, struct vp_error *err)
{
    struct volumes_config config = volumes_config_of(c);
    config.import_flags = flags;
    struct volumes *vs;
    const char *paths[POOL_DISKS_MAX];
    const struct control_pool *same = control_pool_find(c, f->name);
    if (same && same->vs)
        return vp_fail(err, VP_E_EXISTS,
                       "a pool named '%s' is open already: export that one before this is imported",
                       f->name);
    for (unsigned i = 0; i < f->path_count; i++)
        paths[i] = f->paths[i];
    int rc = volumes_import(paths, f->path_count, &config, &vs, err);
    if (rc == 0)
        rc = control_pool_add(c, vs, out, err);
    if (rc)
        return rc;
    bool degraded = flags & POOL_IMPORT_DEGRADED;
    control_event(c, degraded ? VP_LOG_WARN : VP_LOG_INFO, "pool.imported", (*out)->name,
                  "%u volume%s, %s%s", volumes_count((*out)->vs),
                  volumes_count((*out)->vs) == 1 ? "" : "s", pool_state(volumes_pool((*out)->vs)),
                  degraded ? "; disks that are missing were given up by request" : "");
    return 0;
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
    return state_save(s->dir, STATE_POOLS, s->text, s->err);
}

static json_t *cache_json(struct control *c)
{
    json_t *pools = json_array();
    struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        char uuid[VP_UUID_TEXT];
        json_t *entry = json_pack("{s:s, s:s, s:O}", "name", p->name, "uuid",
                                  vp_uuid_format(p->uuid, uuid), "disks", p->paths);
        if (json_array_append_new(pools, entry)) { /* a shorter list would forget pools */
            json_decref(pools);
            return NULL;
        }
    }
    return json_pack("{s:i, s:o}", "version", 1, "pools", pools);
}

CO int control_pools_save(struct control *c, struct vp_error *err)
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

CO void control_pools_save_later(struct control *c)
{
    struct vp_error err;
    vp_ignore(control_pools_save(c, &err), "there is an event, and the monitor tries again");
}

/* ---- finding remembered pools again --------------------------------------------------------- */

/* Where to look for disks: paths that are remembered, then the configured directories. */
struct places {
    char path[POOL_DISKS_MAX][CONTROL_PATH_BYTES];
    const char *list[POOL_DISKS_MAX + CONTROL_DISK_DIRS_MAX];
    unsigned remembered, count;
};

static struct places *places_new(struct control *c, const json_t *paths)
{
    struct places *l = calloc(1, sizeof(*l));
    size_t i;
    json_t *path;
    if (!l)
        return NULL;
    json_array_foreach(paths, i, path)
    {
        if (l->count == POOL_DISKS_MAX || !path_of_json(path, l->path[l->count]))
            continue;
        l->list[l->count] = l->path[l->count];
        l->count++;
    }
    l->remembered = l->count;
    for (unsigned d = 0; d < c->config->disk_dir_count; d++)
        l->list[l->count++] = c->config->disk_dirs[d];
    return l;
}

static bool is_found_at(const struct pool_found *f, const char *path)
{
    for (unsigned i = 0; i < f->path_count; i++)
        if (strcmp(f->paths[i], path) == 0)
            return true;
    return false;
}

/* VP_E_AGAIN: says which disks are not here. */
static int fail_incomplete(const struct places *l, const struct pool_found *f, unsigned wanted,
                           struct vp_error *err)
{
    char text[300] = "";
    size_t len = 0;
    for (unsigned i = 0; i < l->remembered && len < sizeof(text); i++)
        if (!is_found_at(f, l->list[i]))
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len ? ", " : "",
                                    l->list[i]);
    return vp_fail(err, VP_E_AGAIN, "%u of its %u disks missing (no longer at %s)",
                   wanted - f->disks_found, wanted, text);
}

/* CO. Imports the pool of this uuid from those of the first `count` places whose labels are its, if
 * these are `wanted` disks, or all. VP_E_NOT_FOUND: none is. VP_E_AGAIN: some are missing. */
static CO int import_from(struct control *c, const struct places *l, unsigned count,
                          struct vp_uuid uuid, unsigned wanted, struct vp_error *err)
{
    struct pool_found *found = NULL;
    struct control_pool *p;
    unsigned pools = 0;
    struct own_devices own;
    int rc = own_devices_get(c, &own, err);
    if (rc)
        return rc;
    const struct pool_scan_filter filter = own_devices_filter(&own);
    rc = pool_scan(l->list, count, &filter, &found, &pools, err);
    own_devices_free(&own);
    if (rc)
        return rc;
    rc = VP_E_NOT_FOUND;
    for (unsigned i = 0; i < pools && rc == VP_E_NOT_FOUND; i++) {
        if (!vp_uuid_equal(found[i].uuid, uuid))
            continue;
        unsigned needed = (unsigned)min_u64(wanted, found[i].disks_total);
        rc = found[i].disks_found < needed ? fail_incomplete(l, &found[i], needed, err)
                                           : control_pool_import(c, &found[i], 0, &p, err);
    }
    free(found);
    return rc;
}

/* CO. From the remembered paths, where all disks are there; else from the configured directories
 * too. As many disks are needed as were there last, or any if `partly`. A disk that was missing
 * last time is out of service: it is taken when it is found, and not waited for. */
static CO int import_remembered(struct control *c, const json_t *paths, struct vp_uuid uuid,
                                bool partly, struct vp_error *err)
{
    struct places *l = places_new(c, paths);
    if (!l)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    int rc = import_from(c, l, l->remembered, uuid, POOL_DISKS_MAX, err);
    if (rc == VP_E_AGAIN || rc == VP_E_NOT_FOUND)
        rc = import_from(c, l, l->count, uuid, partly ? 0 : l->remembered, err);
    if (rc == VP_E_NOT_FOUND)
        rc = vp_fail(err, rc,
                     "none of its disks is at a path where it was, or in a directory of disk-dirs; "
                     "import it with `vpool import -d DIR` when they are there");
    free(l);
    return rc;
}

static struct control_pool *pool_unavailable(struct control *c, const char *name,
                                             struct vp_uuid uuid, json_t *paths)
{
    struct control_pool *p = pool_new(c, name, uuid);
    if (!p)
        return NULL;
    p->paths = json_incref(paths);
    p->rc = VP_E_AGAIN;
    p->retry_after_ns = RETRY_MIN_NS;
    (void)snprintf(p->error, sizeof(p->error), "it is being imported");
    return p;
}

/* Some of its disks are here. The others may come late, at boot for example: without them it is
 * imported when import-wait is over, since from then on they are stale. */
static void pool_wait_for_disks(struct control *c, struct control_pool *p, const char *which)
{
    uint64_t now = reactor_now_ns();
    if (!p->wait_until_ns)
        p->wait_until_ns = now + c->config->import_wait_s * 1000000000;
    p->retry_ns = min_u64(now + WAIT_LOOK_NS, p->wait_until_ns);
    (void)snprintf(p->error, sizeof(p->error),
                   "%.350s: waiting for %" PRIu64
                   " s more (import-wait); `vpool import %s` does not "
                   "wait",
                   which, (p->wait_until_ns - now + 999999999) / 1000000000, p->name);
}

/* CO. One try; what it said is kept. */
static CO int pool_try(struct control *c, struct control_pool *p)
{
    struct vp_error err = {0};
    uint64_t now = reactor_now_ns();
    bool partly = !c->config->import_wait_s || (p->wait_until_ns && now >= p->wait_until_ns);
    int rc = import_remembered(c, p->paths, p->uuid, partly, &err);
    if (rc == 0)
        return 0;
    p->rc = rc;
    if (rc == VP_E_AGAIN && !partly) {
        pool_wait_for_disks(c, p, err.text);
        return rc;
    }
    p->wait_until_ns = 0; /* disks that come later are waited for again */
    (void)snprintf(p->error, sizeof(p->error), "%s", err.text);
    p->retry_after_ns = min_u64(2 * p->retry_after_ns, RETRY_MAX_NS);
    p->retry_ns = reactor_now_ns() + p->retry_after_ns;
    return rc;
}

/* CO. A pool that cannot be imported stays on the list, and is tried again later. */
static CO void restore_one(struct control *c, const json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "name"));
    const char *uuid_text = json_string_value(json_object_get(entry, "uuid"));
    json_t *paths = json_object_get(entry, "disks");
    struct vp_uuid uuid;
    if (!name || !uuid_text || !vp_uuid_parse(uuid_text, &uuid) || !json_is_array(paths)) {
        vp_warn("an entry of %s/pools.json does not decode: skipped", c->config->state_dir);
        return;
    }
    if (find_same(c, uuid))
        return;
    struct control_pool *p = pool_unavailable(c, name, uuid, paths);
    if (!p)
        return;
    int rc;
    do
        rc = pool_try(c, p);
    while (control_predecessor_lets_go(c, rc));
    if (p->wait_until_ns && rc)
        control_event(c, VP_LOG_WARN, "pool.waits-for-disks", p->name, "%s", p->error);
    else if (rc)
        control_event(c, VP_LOG_ERROR, "pool.import-failed", p->name,
                      "%s; it is tried again from time to time", p->error);
}

/* The next pool whose time has come; NULL: there is none. */
static struct control_pool *pool_due(struct control *c, uint64_t now)
{
    struct control_pool *p;
    list_for_each (p, &c->pools, link)
        if (!p->vs && p->users == 0 && p->retry_ns <= now)
            return p;
    return NULL;
}

CO void control_pools_retry(struct control *c)
{
    uint64_t now = reactor_now_ns();
    bool any = false;
    struct control_pool *p;
    while (!c->stopping && (p = pool_due(c, now)))
        any |= pool_try(c, p) == 0;
    if (any)
        control_pools_save_later(c);
}

CO void control_pools_restore(struct control *c)
{
    json_t *cache;
    struct vp_error err = {0};
    if (state_load(c->config->state_dir, STATE_POOLS, &cache, &err)) {
        control_event(c, VP_LOG_WARN, "daemon.state-damaged", "daemon",
                      "%s; import the pools with `vpool import --all`", err.text);
        return;
    }
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(cache, "pools"), i, entry) restore_one(c, entry);
    json_decref(cache);
}

CO int control_pools_close(struct control *c)
{
    int first = 0;
    VP_VERIFY_TRUE(list_empty(&c->receivers.at_work) && list_empty(&c->migrations.at_work));
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
