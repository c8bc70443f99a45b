/*
 * Attachments: exports of volumes that the pool remembers.
 *
 * The record is committed after the server listens and before the client is told, and is deleted
 * before the server stops: at every crash a remembered attachment is one that was promised, and a
 * detached one does not come back.
 */
#include "control/control_impl.h"

#include "base/hash.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STOP_MS        500 /* clients that do not leave by themselves are cut after this */
#define WORKERS_MAX    32  /* attachments started or stopped at the same time */

#define RETRY_NS       UINT64_C(5000000000) /* and twice as long each time, up to 80 s */
#define CLIENTS_NAMED  4                    /* in a message */
#define SETTLE_NS      UINT64_C(1000000000)
#define SETTLE_STEP_NS UINT64_C(20000000)

/* ---- one attachment ------------------------------------------------------------------------ */

/* By number: what a name means is for its server to say. */
static bool is_loopback(const char *host)
{
    struct in_addr v4;
    return !host[0] || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0 ||
           (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

static int check_policy(struct control *c, const struct nbdx_address *a, struct vp_error *err)
{
    if (a->kind == NBDX_UNIX)
        return a->path[0] == '/'
                   ? 0
                   : vp_fail(err, VP_E_INVALID, "unix:%s: the path must be absolute", a->path);
    if (a->kind != NBDX_TCP)
        return vp_fail(err, VP_E_INVALID, "an attachment listens on unix:PATH or tcp:HOST:PORT");
    if (c->config->nbd_tcp_bind == CONTROL_TCP_OFF)
        return vp_fail(err, VP_E_PERMISSION,
                       "NBD over TCP is off: use unix:PATH, or set nbd.tcp-bind in vpoold.conf");
    const char *host = a->host;
    if (is_loopback(host) || c->config->nbd_tcp_bind == CONTROL_TCP_ANY)
        return 0;
    return vp_fail(err, VP_E_PERMISSION,
                   "'%s' is not a loopback address, and NBD without TLS is open to whoever reaches "
                   "it: use 127.0.0.1 or a unix socket, or set nbd.tcp-bind = \"any\" in "
                   "vpoold.conf",
                   host);
}

static struct nbdx_server *steal_server(struct attachment *a)
{
    struct nbdx_server *server = a->server;
    a->server = NULL;
    return server;
}

static CO int serve(struct control *c, struct attachment *a, struct nbdx_address *address,
                    struct vp_error *err)
{
    struct nbdx_export export = {
        .name = volume_full_name(a->v), .volume = a->v, .read_only = a->read_only};
    struct nbdx_server_options o = {
        .address = *address,
        .exports = &export,
        .export_count = 1,
        .limits = {.connections = (unsigned)c->config->nbd_connections_per_volume,
                   .handshake_ms = (unsigned)c->config->nbd_handshake_timeout_ms,
                   .requests = (unsigned)c->config->nbd_requests_per_connection,
                   .buffer_bytes = c->config->nbd_buffer_per_connection},
        .total = &c->nbd_total,
    };
    int rc = nbdx_server_start(&o, &a->server, err);
    if (rc)
        return rc;
    if (address->kind == NBDX_UNIX) {
        rc = attachment_socket_apply(a->socket, address->path, err);
        if (rc) {
            nbdx_server_stop(steal_server(a), 0);
            return rc;
        }
    }
    if (!nbdx_server_uri(a->server, 0, a->uri, sizeof(a->uri)))
        a->uri[0] = 0;
    if (address->kind == NBDX_TCP) { /* the port that was taken comes back after a restart */
        const char *host = address->host;
        (void)snprintf(a->address, sizeof(a->address),
                       strchr(host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u", host,
                       nbdx_server_port(a->server));
    }
    return 0;
}

/* Opens the volume and listens. */
static CO int attachment_start(struct control *c, struct attachment *a, struct vp_error *err)
{
    struct nbdx_address address;
    bool ublk = attachment_is_ublk(a->address);
    int rc = ublk ? 0 : nbdx_address_parse(a->address, &address, err);
    if (rc == 0 && !ublk)
        rc = check_policy(c, &address, err);
    if (rc == 0)
        rc = volume_open(a->pool->vs, a->volume, a->read_only, &a->v, err);
    if (rc)
        return rc;
    rc = ublk ? attachment_ublk_start(c, a, err) : serve(c, a, &address, err);
    if (rc) {
        volume_close(a->v);
        a->v = NULL;
    }
    return rc;
}

static bool is_serving(const struct attachment *a)
{
    return a->server || a->target;
}

enum stop {
    /* The daemon ends, and the next one goes on. A block device stays for it. NBD clients that
     * reconnect would take an answer of ESHUTDOWN for an I/O error, so they are hung up on. */
    STOP_LEAVE,
    STOP_POOL_GOES, /* it serves no more in any case; an error: its block device is still there */
    STOP_FOR_GOOD,  /* an error: its block device is still there, and served */
};

static CO int attachment_stop(struct attachment *a, enum stop how, struct vp_error *err)
{
    int rc = 0;
    if (!is_serving(a))
        return 0;
    if (a->server)
        nbdx_server_stop(a->server, how == STOP_LEAVE ? 0 : STOP_MS);
    else if (how != STOP_LEAVE)
        rc = ublkx_target_stop(&a->target, err);
    if (a->target && rc && how == STOP_FOR_GOOD)
        return rc;
    if (a->target)
        ublkx_target_leave(a->target);
    volume_close(a->v);
    a->server = NULL;
    a->target = NULL;
    a->v = NULL;
    return rc;
}

static void attachment_free(struct attachment *a)
{
    if (!a)
        return;
    list_del(&a->link);
    free(a);
}

static struct attachment *attachment_new(struct control_pool *p, const char *address, size_t len)
{
    struct attachment *a = len <= ATTACHMENT_ADDRESS_MAX ? calloc(1, sizeof(*a)) : NULL;
    if (!a)
        return NULL;
    list_init(&a->link);
    a->pool = p;
    memcpy(a->address, address, len);
    a->socket = attachment_socket_default();
    return a;
}

/* ---- records ------------------------------------------------------------------------------- */

static CO int record_write(const struct attachment *a)
{
    size_t len = strlen(a->address);
    struct attachment_socket_disk socket = {.uid = le32_make(a->socket.uid),
                                            .gid = le32_make(a->socket.gid),
                                            .mode = le16_make(a->socket.mode)};
    bool has_socket = !attachment_socket_is_default(a->socket);
    _Alignas(struct attachment_disk) char
        value[sizeof(struct attachment_disk) + ATTACHMENT_ADDRESS_MAX + sizeof(socket)] = {0};
    struct attachment_disk *d = (struct attachment_disk *)value;
    d->version = le16_make(ATTACHMENT_VERSION);
    d->kind = attachment_is_ublk(a->address) ? ATTACHMENT_UBLK : ATTACHMENT_NBD;
    d->flags =
        (uint8_t)((a->read_only ? ATTACHMENT_READ_ONLY : 0) | (has_socket ? ATTACHMENT_SOCKET : 0));
    d->volume_id = le32_make(a->volume_id);
    d->address_len = le16_make((uint16_t)len);
    memcpy(d->address, a->address, len);
    memcpy(d->address + len, &socket, sizeof(socket));
    struct pool_batch batch;
    pool_batch_init(&batch);
    pool_batch_set(&batch, POOL_RECORD_ATTACHMENT, 0, a->id, value,
                   sizeof(*d) + len + (has_socket ? sizeof(socket) : 0));
    int rc = pool_commit(volumes_pool(a->pool->vs), &batch);
    pool_batch_fini(&batch);
    return rc;
}

static CO int record_delete(const struct attachment *a)
{
    struct pool_batch batch;
    pool_batch_init(&batch);
    pool_batch_delete(&batch, POOL_RECORD_ATTACHMENT, 0, a->id);
    int rc = pool_commit(volumes_pool(a->pool->vs), &batch);
    pool_batch_fini(&batch);
    return rc;
}

/* What stands behind the address; the default when it is not whole. */
static struct attachment_socket record_socket(const struct attachment_disk *d, size_t len)
{
    struct attachment_socket_disk socket;
    size_t at = sizeof(*d) + le16_get(d->address_len);
    if (!(d->flags & ATTACHMENT_SOCKET) || len - at < sizeof(socket))
        return attachment_socket_default();
    memcpy(&socket, (const char *)d + at, sizeof(socket));
    uint16_t mode = le16_get(socket.mode);
    return (struct attachment_socket){.uid = le32_get(socket.uid),
                                      .gid = le32_get(socket.gid),
                                      .mode = mode <= 0777 ? mode : ATTACHMENT_MODE_UNSET};
}

/* One record from disk, so nothing about it is trusted. One that does not decode is left alone: a
 * newer release may know it. */
static int record_read(const struct pool_record *r, void *arg)
{
    struct control_pool *p = arg;
    const struct attachment_disk *d = r->value;
    if (r->key >= p->next_attachment && r->key < UINT64_MAX)
        p->next_attachment = r->key + 1;
    if (r->len < sizeof(*d) || le16_get(d->version) != ATTACHMENT_VERSION ||
        (d->kind != ATTACHMENT_NBD && d->kind != ATTACHMENT_UBLK) ||
        le16_get(d->address_len) > r->len - sizeof(*d)) {
        vp_warn("pool '%s': attachment %llu does not decode and is left alone", p->name,
                (unsigned long long)r->key);
        return 0;
    }
    struct attachment *a = attachment_new(p, d->address, le16_get(d->address_len));
    if (!a)
        return 0;
    a->id = r->key;
    a->volume_id = le32_get(d->volume_id);
    a->read_only = d->flags & ATTACHMENT_READ_ONLY;
    a->socket = record_socket(d, r->len);
    list_add_tail(&p->attachments, &a->link);
    return 0;
}

/* ---- all of a pool ------------------------------------------------------------------------- */

struct named { /* attachments by volume id, for one pass over all volumes */
    struct hash_node node;
    struct attachment *a;
};

static int name_volume(const struct volume_info *info, void *arg)
{
    struct hash *by_id = arg;
    for (const struct hash_node *n = hash_find(by_id, info->id); n; n = hash_find_next(n))
        memcpy(container_of(n, struct named, node)->a->volume, info->name, sizeof(info->name));
    return 0;
}

static int resolve_names(struct control_pool *p)
{
    struct attachment *a;
    size_t count = 0;
    list_for_each (a, &p->attachments, link)
        count++;
    struct named *named = calloc(count ? count : 1, sizeof(*named));
    struct hash by_id;
    if (!named || !hash_init(&by_id, count + 1)) {
        free(named);
        return VP_E_NO_MEMORY;
    }
    struct named *next = named;
    list_for_each (a, &p->attachments, link) {
        next->a = a;
        hash_add(&by_id, &next->node, a->volume_id);
        next++;
    }
    volume_each(p->vs, name_volume, &by_id);
    hash_fini(&by_id);
    free(named);
    return 0;
}

/* Several coroutines walk one list: each takes the next attachment until there is none. */
struct walk {
    struct control *c;
    struct control_pool *p;
    struct list *next;
    void (*fn)(struct control *c, struct attachment *a);
    struct co_group group;
};

static CO void walk_work(struct walk *w)
{
    while (w->next != &w->p->attachments) {
        struct attachment *a = container_of(w->next, struct attachment, link);
        w->next = w->next->next;
        w->fn(w->c, a);
    }
}

static CO void walk_worker(void *arg)
{
    struct walk *w = arg;
    walk_work(w);
    co_group_leave(&w->group, 0);
}

/* The list does not change meanwhile: the caller holds control.lock. */
static CO void attachments_walk(struct control *c, struct control_pool *p,
                                void (*fn)(struct control *c, struct attachment *a))
{
    struct walk w = {.c = c, .p = p, .next = p->attachments.next, .fn = fn};
    co_group_init(&w.group);
    for (unsigned i = 1; i < WORKERS_MAX; i++) {
        co_group_enter(&w.group);
        if (co_spawn(walk_worker, &w, "attachments")) {
            co_group_leave(&w.group, 0);
            break;
        }
    }
    walk_work(&w);
    vp_ignore(co_group_wait(&w.group), "workers report by attachment");
}

static void schedule_retry(struct attachment *a)
{
    a->retry_ns = reactor_now_ns() + (RETRY_NS << (a->retries < 4 ? a->retries : 4));
    a->retries++;
}

/* Says why once, not at every try. */
static void start_failed(struct control *c, struct attachment *a, const struct vp_error *why)
{
    char subject[VOLUME_FULL_NAME_BYTES];
    schedule_retry(a);
    if (strcmp(a->error, why->text) == 0)
        return;
    (void)snprintf(a->error, sizeof(a->error), "%s", why->text);
    control_volume_name(a->pool->name, a->volume, subject);
    control_event(c, VP_LOG_ERROR, "attachment.failed", subject, "%s: %s; it is tried again",
                  a->address, why->text);
}

static CO void restart_one(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    if (!a->volume[0])
        a->rc =
            vp_fail(&err, VP_E_NOT_FOUND, "volume number %u does not exist any more", a->volume_id);
    else
        do
            a->rc = attachment_start(c, a, &err);
        while (control_predecessor_lets_go(c, a->rc));
    if (a->rc)
        start_failed(c, a, &err);
}

static CO void retry_one(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    if (is_serving(a) || !a->volume[0] || reactor_now_ns() < a->retry_ns)
        return;
    a->rc = attachment_start(c, a, &err);
    if (a->rc) {
        start_failed(c, a, &err);
        return;
    }
    a->error[0] = 0;
    a->retries = 0;
    control_event(c, VP_LOG_INFO, "attachment.restored", volume_full_name(a->v), "%s", a->uri);
}

static CO void leave_one(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    (void)c;
    vp_ignore(attachment_stop(a, STOP_LEAVE, &err), "leaving a device never fails");
}

static CO void end_one(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    char subject[VOLUME_FULL_NAME_BYTES];
    control_volume_name(a->pool->name, a->volume, subject);
    if (attachment_stop(a, STOP_POOL_GOES, &err))
        control_event(c, VP_LOG_ERROR, "attachment.failed", subject, "%s: %s", a->address,
                      err.text);
}

void attachments_start(struct control *c, struct control_pool *p)
{
    pool_record_each(volumes_pool(p->vs), POOL_RECORD_ATTACHMENT, record_read, p);
    if (resolve_names(p))
        vp_error_log("pool '%s': no memory to start its attachments", p->name);
    attachments_walk(c, p, restart_one);
}

void attachments_retry(struct control *c, struct control_pool *p)
{
    const struct attachment *a;
    bool any = false;
    list_for_each (a, &p->attachments, link)
        any |= !is_serving(a) && reactor_now_ns() >= a->retry_ns;
    if (any)
        attachments_walk(c, p, retry_one);
}

void attachments_stop(struct control *c, struct control_pool *p, bool leave)
{
    attachments_walk(c, p, leave ? leave_one : end_one);
    while (!list_empty(&p->attachments))
        attachment_free(list_first(&p->attachments, struct attachment, link));
}

/* ---- attach ----------------------------------------------------------------------------- */

static struct attachment *find(struct control *c, const char *address)
{
    struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        struct attachment *a;
        list_for_each (a, &p->attachments, link)
            if (strcmp(a->address, address) == 0)
                return a;
    }
    return NULL;
}

/* Two block devices of one volume would have two page caches: one is enough. */
static struct attachment *find_ublk(struct control_pool *p, const char *volume)
{
    struct attachment *a;
    list_for_each (a, &p->attachments, link)
        if (attachment_is_ublk(a->address) && strcmp(a->volume, volume) == 0)
            return a;
    return NULL;
}

/* The address is taken by another attachment, or by this volume: then a failed one is tried again.
 */
static CO int attach_again(struct control *c, struct attachment *a, struct control_pool *p,
                           const char *volume, const struct attachment_options *o,
                           struct vp_error *err)
{
    if (a->pool != p || strcmp(a->volume, volume) != 0)
        return vp_fail(err, VP_E_EXISTS, "%s serves %s/%s already: choose another address",
                       a->address, a->pool->name, a->volume);
    if (is_serving(a))
        return vp_fail(err, VP_E_EXISTS, "%s/%s is attached at %s already", p->name, volume,
                       a->address);
    if (!attachment_socket_equal(a->socket, o->socket))
        return vp_fail(err, VP_E_EXISTS,
                       "%s/%s has an attachment at %s whose socket has another owner, group or "
                       "mode: detach it first",
                       p->name, volume, a->address);
    if (a->read_only != o->read_only)
        return vp_fail(err, VP_E_EXISTS,
                       "%s/%s has an attachment at %s that is %s: detach it first", p->name, volume,
                       a->address, a->read_only ? "read-only" : "writable");
    int rc = attachment_is_ublk(a->address) ? attachment_ublk_check_same(a, o->address, err) : 0;
    if (rc)
        return rc;
    struct vp_error why = {0};
    a->rc = attachment_start(c, a, &why);
    (void)snprintf(a->error, sizeof(a->error), "%s", why.text); /* or none any more */
    return a->rc ? vp_fail(err, a->rc, "%s", why.text) : 0;
}

/* Starts and remembers a; on failure nothing is left but `a` itself. */
static CO int attach_new(struct control *c, struct attachment *a, const char *volume,
                         struct vp_error *err)
{
    struct control_pool *p = a->pool;
    struct volume_info info;
    int rc = volume_info_get(p->vs, volume, &info);
    if (rc)
        return vp_fail(err, rc, "no volume '%s' in pool '%s'", volume, p->name);
    memcpy(a->volume, info.name, sizeof(a->volume));
    a->volume_id = info.id;
    a->id = p->next_attachment++;
    rc = attachment_start(c, a, err);
    if (rc)
        return rc;
    rc = record_write(a);
    if (rc == 0)
        return 0;
    struct vp_error stop = {0};
    if (attachment_stop(a, STOP_POOL_GOES, &stop))
        vp_error_log("%s", stop.text);
    return vp_fail(err, rc, "the attachment could not be recorded in the pool: %s",
                   vp_err_text(rc));
}

int attachment_add(struct control *c, struct control_pool *p, const char *volume,
                   const struct attachment_options *o, struct attachment **out,
                   struct vp_error *err)
{
    const char *address = o->address;
    struct attachment *a = attachment_is_ublk(address) ? find_ublk(p, volume) : find(c, address);
    if (a && attachment_is_ublk(address) && is_serving(a))
        return vp_fail(err, VP_E_EXISTS, "%s/%s is attached as %s already", p->name, volume,
                       a->uri);
    if (a) {
        *out = a;
        return attach_again(c, a, p, volume, o, err);
    }
    a = attachment_new(p, address, strlen(address));
    if (!a)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    a->read_only = o->read_only;
    a->socket = o->socket;
    int rc = attach_new(c, a, volume, err);
    if (rc) {
        attachment_free(a);
        return rc;
    }
    list_add_tail(&p->attachments, &a->link);
    control_event(c, VP_LOG_INFO, "attachment.added", volume_full_name(a->v), "%s", a->uri);
    *out = a;
    return 0;
}

/* ---- who uses it --------------------------------------------------------------------------- */

/* "pid 123 uid 0, 127.0.0.1:4711 and 3 more"; returns how many clients are connected. */
static CO unsigned clients_text(const struct attachment *a, char *text, size_t size)
{
    struct nbdx_connection_info info[CLIENTS_NAMED];
    struct nbdx_server_stats stats = {0};
    unsigned named = 0;
    text[0] = 0;
    if (a->server)
        nbdx_server_stats(a->server, &stats, info, CLIENTS_NAMED, &named);
    size_t len = 0;
    for (unsigned i = 0; i < named && len < size; i++)
        len += (size_t)snprintf(text + len, size - len, "%s%s", i ? ", " : "", info[i].peer);
    if (stats.connections > named && len < size)
        (void)snprintf(text + len, size - len, " and %u more", stats.connections - named);
    return stats.connections;
}

/* A client that has just gone is seen to be gone a moment later. */
static CO int check_no_clients(const struct attachment *a, struct vp_error *err)
{
    char clients[CLIENTS_NAMED * 80];
    uint64_t deadline_ns = reactor_now_ns() + SETTLE_NS;
    while (clients_text(a, clients, sizeof(clients)))
        if (reactor_now_ns() >= deadline_ns || co_sleep_ns(SETTLE_STEP_NS))
            return vp_fail(err, VP_E_BUSY,
                           "%s of %s is in use by clients (%s): shut them down, or use --force and "
                           "have them see errors",
                           a->address, volume_full_name(a->v), clients);
    return 0;
}

int attachment_check_unused(const struct attachment *a, struct vp_error *err)
{
    if (!is_serving(a))
        return 0;
    return a->target ? attachment_ublk_check_unused(a, err) : check_no_clients(a, err);
}

void attachments_used_by(const struct control_pool *p, const char *volume, char *text, size_t size)
{
    const struct attachment *a;
    size_t len = 0;
    text[0] = 0;
    list_for_each (a, &p->attachments, link) {
        char users[400];
        if (strcmp(a->volume, volume) != 0 || !is_serving(a))
            continue;
        if (a->target)
            attachment_ublk_used_by(a, users, sizeof(users));
        else
            vp_ignore((int)clients_text(a, users, sizeof(users)), "the text is what is wanted");
        if (users[0] && len < size)
            len += (size_t)snprintf(text + len, size - len, "%s%s: %s", len ? "; " : "",
                                    a->target ? a->uri : a->address, users);
    }
}

/* ---- detach -------------------------------------------------------------------------------- */

/* The kernel did not let go of its device, which is served on. So it stays an attachment, also for
 * the next daemon: else that one would leave the device alone, or make a second one of the
 * volume. */
static CO int remove_undo(struct control *c, struct attachment *a, const char *subject, int rc,
                          struct vp_error *err)
{
    int record_rc = record_write(a);
    if (record_rc)
        vp_error_log("%s: the attachment as %s could not be recorded again (%s)", subject,
                     a->address, vp_err_text(record_rc));
    control_event(c, VP_LOG_ERROR, "attachment.stuck", subject, "%s stays: %s", a->address,
                  err->text);
    return rc;
}

int attachment_remove(struct control *c, struct attachment *a, struct vp_error *err)
{
    int rc = record_delete(a);
    if (rc)
        return vp_fail(err, rc, "the pool could not record the detachment: %s", vp_err_text(rc));
    char subject[VOLUME_FULL_NAME_BYTES];
    control_volume_name(a->pool->name, a->volume, subject);
    rc = attachment_stop(a, STOP_FOR_GOOD, err);
    if (is_serving(a))
        return remove_undo(c, a, subject, rc, err);
    control_event(c, rc ? VP_LOG_ERROR : VP_LOG_INFO, "attachment.removed", subject, "%s%s%s",
                  a->address, rc ? ": " : "", rc ? err->text : "");
    attachment_free(a);
    return rc;
}

unsigned attachment_count(const struct control_pool *p, const char *volume)
{
    unsigned count = 0;
    struct attachment *a;
    list_for_each (a, &p->attachments, link)
        if (!volume || strcmp(a->volume, volume) == 0)
            count++;
    return count;
}

json_t *attachment_json(struct attachment *a)
{
    struct nbdx_server_stats stats = {0};
    unsigned shown;
    if (a->server)
        nbdx_server_stats(a->server, &stats, NULL, 0, &shown);
    char subject[VOLUME_FULL_NAME_BYTES];
    control_volume_name(a->pool->name, a->volume, subject);
    if (attachment_is_ublk(a->address))
        return attachment_ublk_json(a, subject);
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:i, s:I, s:I, s:I, s:I, s:I}", "volume", subject,
        "kind", "nbd", "address", a->address, "uri", a->uri, "state",
        a->server ? "serving" : "failed", "read_only", a->read_only, "error", a->error,
        "connections", (int)stats.connections, "accepted", (json_int_t)stats.accepted, "requests",
        (json_int_t)stats.requests, "bytes_read", (json_int_t)stats.bytes_read, "bytes_written",
        (json_int_t)stats.bytes_written, "errors", (json_int_t)stats.errors);
    attachment_socket_show(a->socket, object);
    return object;
}
