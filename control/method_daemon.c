/* Methods about the daemon itself, its events and its counters. */
#include "control/control_impl.h"
#include "control/export.h"

#include "control/path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct param no_params[] = {{0}};

/* ---- daemon.info, daemon.stats --------------------------------------------------------------- */

/* Where other daemons find this one; null: nowhere. */
static json_t *info_migrate_listen(const struct control *c)
{
    const struct nbdx_address *a = &c->peer_address;
    char text[CONTROL_ADDRESS_MAX];
    if (c->peer_server.listen_fd < 0)
        return json_null();
    if (a->kind == NBDX_UNIX)
        (void)snprintf(text, sizeof(text), "unix:%s", a->path);
    else
        (void)snprintf(text, sizeof(text), strchr(a->host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u",
                       a->host, c->peer_server.port);
    return json_string(text);
}

static int daemon_info(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    (void)args;
    (void)err;
    struct reactor_features f = reactor_features(c->options.reactors[0]);
    *result = json_pack("{s:s, s:i, s:s, s:s, s:b, s:i, s:I, s:o, s:{s:b, s:b, s:b}}", "version",
                        VPOOL_VERSION, "pid", (int)getpid(), "socket", c->config->socket,
                        "state_dir", c->config->state_dir, "started", c->started, "reactors",
                        (int)c->options.reactor_count, "uptime_ms",
                        (json_int_t)((reactor_now_ns() - c->start_ns) / 1000000), "migrate_listen",
                        info_migrate_listen(c), "io", "single_issuer", f.single_issuer,
                        "defer_taskrun", f.defer_taskrun, "fixed_buffers", f.fixed_buffers);
    return 0;
}

static int daemon_stats(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    (void)args;
    json_t *list = json_array();
    for (unsigned i = 0; list && i < c->options.reactor_count; i++) {
        const struct reactor *r = c->options.reactors[i];
        json_t *entry = show_figures(&reactor_figure_set, reactor_figures(r), false);
        if (json_object_set_new(entry, "index", json_integer(reactor_index(r))) ||
            json_array_append(list, entry)) {
            json_decref(list);
            list = NULL;
        }
        json_decref(entry);
    }
    if (!list)
        return vp_fail(err, VP_E_NO_MEMORY, "no memory for the reactors' figures");
    *result = json_pack("{s:o, s:{s:i, s:i}, s:i}", "reactors", list, "nbd_connections", "used",
                        (int)c->nbd_total.used, "max", (int)c->nbd_total.max, "control_connections",
                        (int)c->server.admitted);
    return 0;
}

/* ---- daemon.leave ---------------------------------------------------------------------------- */

struct leave_args {
    uint64_t pid;
};
static const struct param leave_params[] = {
    PARAM(struct leave_args, pid, PARAM_NUMBER, true, 1, INT32_MAX), {0}};

/* This method does not wait for its turn: its caller has a daemon that waits, and is told at once.
 * The caller names the daemon that is to leave. Of two callers, the second one may have reached the
 * daemon that the first one started. */
static int daemon_leave(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct leave_args *a = args;
    if (a->pid != (uint64_t)getpid())
        return vp_fail(err, VP_E_NOT_FOUND,
                       "process %d, which answers now, was not asked for and stays", (int)getpid());
    if (getenv("NOTIFY_SOCKET"))
        return vp_fail(
            err, VP_E_NOT_SUPPORTED,
            "it runs under systemd, which would take it for ended: use `systemctl restart "
            "vpoold`, which lets block devices stay as well");
    if (c->stopping)
        return vp_fail(err, VP_E_SHUTDOWN, "it is stopping already");
    if (c->lock.owner)
        return vp_fail(err, VP_E_BUSY, "another command is under way");
    *result = json_pack("{s:s, s:i}", "version", VPOOL_VERSION, "pid", (int)getpid());
    control_request_stop(c, "another daemon takes over");
    return 0;
}

/* ---- daemon.log-level --------------------------------------------------------------------------
 */

struct log_args {
    const char *level;
};
static const struct param log_params[] = {PARAM(struct log_args, level, PARAM_STRING, true, 0, 16),
                                          {0}};

static int log_level(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    (void)c;
    const struct log_args *a = args;
    int level = vp_log_level_parse(a->level);
    if (level < 0)
        return vp_fail(err, VP_E_RPC_PARAMS,
                       "'%s' is no log level: write error, warn, info or debug", a->level);
    vp_log_set_level((enum vp_log_level)level);
    *result = json_pack("{s:s}", "level", a->level);
    return 0;
}

/* ---- events ---------------------------------------------------------------------------------- */

struct events_args {
    uint64_t since, wait_ms, max;
};
static const struct param events_params[] = {
    PARAM(struct events_args, since, PARAM_NUMBER, false, 0, INT64_MAX),
    PARAM(struct events_args, wait_ms, PARAM_NUMBER, false, 0, 60000),
    PARAM(struct events_args, max, PARAM_NUMBER, false, 1, EVENT_RING),
    {0}};

static CO int events(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    (void)err;
    const struct events_args *a = args;
    uint64_t deadline_ns = reactor_now_ns() + a->wait_ms * 1000000;
    while (a->wait_ms && !c->stopping && !event_is_there(&c->events, a->since))
        if (control_server_wait(&c->server, &c->events.arrived, deadline_ns, "events"))
            break;
    *result = event_list(&c->events, a->since, a->max ? (unsigned)a->max : EVENT_RING);
    return 0;
}

/* ---- iostat ---------------------------------------------------------------------------------- */

struct iostat_args {
    const char *pool;
    bool buckets;
};
static const struct param iostat_params[] = {
    PARAM(struct iostat_args, pool, PARAM_STRING, false, 0, 0),
    PARAM(struct iostat_args, buckets, PARAM_BOOL, false, 0, 0),
    {0}};

struct iostat_walk {
    json_t *volumes;
    bool buckets;
};

/* Volumes that were never used are left out: with thousands of volumes most of them. */
static int iostat_volume(const struct volume_info *info, void *arg)
{
    struct iostat_walk *w = arg;
    const struct volume_figures *f = info->figures;
    if (figure_get(&f->reads) + figure_get(&f->writes) + figure_get(&f->flushes) +
            figure_get(&f->discards) ==
        0)
        return 0;
    json_t *entry = show_figures(&volume_figure_set, f, w->buckets);
    if (entry && json_object_set_new(entry, "name", json_string(info->name)) == 0)
        return json_array_append_new(w->volumes, entry) ? VP_E_NO_MEMORY : 0;
    json_decref(entry);
    return VP_E_NO_MEMORY;
}

static json_t *iostat_volumes(const struct control_pool *p, bool buckets)
{
    struct iostat_walk w = {.volumes = json_array(), .buckets = buckets};
    if (volume_each(p->vs, iostat_volume, &w) == 0)
        return w.volumes;
    json_decref(w.volumes);
    return NULL;
}

static json_t *iostat_disks(const struct control_pool *p, bool buckets)
{
    json_t *disks = json_array();
    const struct pool *pool = volumes_pool(p->vs);
    bool failed = false;
    for (unsigned i = 0; i < pool_disk_count(pool); i++) {
        struct pool_disk_info d;
        pool_disk_info_get(pool, i, &d);
        if (d.removed)
            continue;
        json_t *entry = show_disk_figures(&d, buckets);
        const char *path = d.path[0] ? d.path : p->history.disk[i].place.path;
        failed |= !entry || json_object_set_new(entry, "path", path_shown(path)) ||
                  json_array_append(disks, entry);
        json_decref(entry);
    }
    if (!failed)
        return disks;
    json_decref(disks);
    return NULL;
}

/* Those without requests are left out, as volumes are. */
static json_t *iostat_attachments(const struct control_pool *p, bool buckets)
{
    json_t *attachments = json_array();
    bool failed = false;
    for (const struct attachment *a = NULL; (a = attachment_next(p, a));) {
        json_t *entry = a->kind->figures(a, buckets);
        bool is_used = json_integer_value(json_object_get(entry, "requests")) > 0;
        failed |= !entry || json_object_set_new(entry, "volume", json_string(a->volume)) ||
                  json_object_set_new(entry, "kind", json_string(a->kind->name)) ||
                  json_object_set_new(entry, "address", json_string(a->address)) ||
                  (is_used && json_array_append(attachments, entry));
        json_decref(entry);
    }
    if (!failed)
        return attachments;
    json_decref(attachments);
    return NULL;
}

static json_t *iostat_pool(const struct control_pool *p, bool buckets)
{
    return json_pack("{s:s, s:o, s:o, s:o}", "name", p->name, "disks", iostat_disks(p, buckets),
                     "volumes", iostat_volumes(p, buckets), "attachments",
                     iostat_attachments(p, buckets));
}

struct pools_walk {
    json_t *pools;
    bool buckets;
};

static int iostat_add(struct control_pool *p, void *arg)
{
    struct pools_walk *w = arg;
    return json_array_append_new(w->pools, iostat_pool(p, w->buckets));
}

static int iostat(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct iostat_args *a = args;
    struct pools_walk w = {.pools = json_array(), .buckets = a->buckets};
    int rc = control_pools_each_open(c, a->pool, iostat_add, &w, err);
    if (rc)
        json_decref(w.pools);
    else
        *result =
            json_pack("{s:I, s:o}", "time_ns", (json_int_t)reactor_now_ns(), "pools", w.pools);
    return rc;
}

const struct method methods_daemon[] = {
    {"daemon.info", no_params, METHOD_READS | METHOD_EARLY, daemon_info},
    {"daemon.stats", no_params, METHOD_READS | METHOD_EARLY, daemon_stats},
    {"daemon.leave", leave_params, 0, daemon_leave},
    {"daemon.log-level", log_params, METHOD_EARLY, log_level},
    {"events", events_params, METHOD_READS | METHOD_EARLY, events},
    {"iostat", iostat_params, METHOD_READS, iostat},
    {0}};

const struct method *const methods_all[] = {
    methods_daemon,  methods_pool,   methods_disk, methods_scrub,
    methods_volume,  methods_attach, methods_ublk, methods_job,
    methods_migrate, methods_doctor, NULL};
