/*
 * Exports to NBD clients, at "unix:PATH" or "tcp:HOST:PORT". attachment.served is a struct
 * nbdx_server.
 */
#include "control/address.h"
#include "control/export.h"
#include "nbd/server.h"

#include <stdio.h>
#include <string.h>

#define STOP_MS        500 /* clients that do not leave by themselves are cut after this */
#define CLIENTS_NAMED  4   /* in a message */
#define SETTLE_NS      UINT64_C(1000000000)
#define SETTLE_STEP_NS UINT64_C(20000000)

/* ---- where --------------------------------------------------------------------------------- */

static int nbd_check(struct control *c, const struct attachment_options *o, struct vp_error *err)
{
    struct nbdx_address address;
    int rc = nbdx_address_parse(o->address, &address, err);
    if (rc == 0)
        rc = control_address_check(&address, c->config->nbd_tcp_bind, "NBD", "nbd.tcp-bind", err);
    return rc || address.kind == NBDX_UNIX ? rc : export_check_no_socket(o, err);
}

/* ---- serving ------------------------------------------------------------------------------- */

/* The port that was taken comes back after a restart. */
static void name_port(struct attachment *a, const struct nbdx_address *address)
{
    const char *host = address->host;
    (void)snprintf(a->address, sizeof(a->address), strchr(host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u",
                   host, nbdx_server_port(a->served));
}

static_assert(ATTACHMENT_ALIASES_MAX == NBDX_ALIASES_MAX, "a server has all that are remembered");

static unsigned aliases_of(const struct attachment *a,
                           const char *out[static ATTACHMENT_ALIASES_MAX])
{
    for (unsigned i = 0; i < a->aliases.count; i++)
        out[i] = a->aliases.name[i];
    return a->aliases.count;
}

static CO int server_start(struct control *c, const struct attachment *a,
                           const struct nbdx_address *address, struct nbdx_server **out,
                           struct vp_error *err)
{
    const char *aliases[ATTACHMENT_ALIASES_MAX];
    struct nbdx_export export = {.name = volume_full_name(a->v),
                                 .aliases = aliases,
                                 .alias_count = aliases_of(a, aliases),
                                 .front = volume_front(a->v),
                                 .read_only = a->read_only};
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
    return nbdx_server_start(&o, out, err);
}

static CO int nbd_start(struct control *c, struct attachment *a, struct vp_error *err)
{
    struct nbdx_address address;
    struct nbdx_server *server = NULL;
    int rc = nbdx_address_parse(a->address, &address, err);
    if (rc == 0)
        rc = server_start(c, a, &address, &server, err);
    if (rc)
        return rc;
    if (address.kind == NBDX_UNIX) {
        rc = attachment_socket_apply(a->socket, address.path, err);
        if (rc) {
            nbdx_server_stop(server, 0);
            return rc;
        }
    }
    a->served = server;
    if (!nbdx_server_uri(server, 0, a->uri, sizeof(a->uri)))
        a->uri[0] = 0;
    if (address.kind == NBDX_TCP)
        name_port(a, &address);
    return 0;
}

static CO int nbd_stop(struct attachment *a, struct vp_error *err)
{
    struct nbdx_server *server = a->served;
    (void)err;
    a->served = NULL; /* others may look at it */
    nbdx_server_stop(server, STOP_MS);
    return 0;
}

/* Clients that reconnect would take an answer of ESHUTDOWN for an I/O error, so they are hung up
 * on. */
static CO void nbd_leave(struct attachment *a)
{
    struct nbdx_server *server = a->served;
    a->served = NULL;
    nbdx_server_stop(server, 0);
}

static CO void nbd_moved(struct control *c, struct attachment *a)
{
    const char *aliases[ATTACHMENT_ALIASES_MAX];
    int rc =
        nbdx_server_rename(a->served, 0, volume_full_name(a->v), aliases, aliases_of(a, aliases));
    if (rc)
        control_event(c, VP_LOG_WARN, "attachment.name", volume_full_name(a->v),
                      "%s: new clients find it by its former name only, until the daemon is "
                      "restarted: %s",
                      a->address, vp_err_text(rc));
    else if (!nbdx_server_uri(a->served, 0, a->uri, sizeof(a->uri)))
        a->uri[0] = 0;
}

static CO void nbd_close(struct attachment *a)
{
    nbdx_server_close(a->served);
}

/* ---- who uses it --------------------------------------------------------------------------- */

/* "pid 123 uid 0, 127.0.0.1:4711 and 3 more"; returns how many clients are connected. */
static CO unsigned clients_text(const struct attachment *a, char *text, size_t size)
{
    struct nbdx_connection_info info[CLIENTS_NAMED];
    struct nbdx_server_stats stats = {0};
    unsigned named = 0;
    text[0] = 0;
    if (a->served)
        nbdx_server_stats(a->served, &stats, info, CLIENTS_NAMED, &named);
    size_t len = 0;
    for (unsigned i = 0; i < named && len < size; i++)
        len += (size_t)snprintf(text + len, size - len, "%s%s", i ? ", " : "", info[i].peer);
    if (stats.connections > named && len < size)
        (void)snprintf(text + len, size - len, " and %u more", stats.connections - named);
    return stats.connections;
}

/* A client that has just gone is seen to be gone a moment later. */
static CO int nbd_check_unused(const struct attachment *a, struct vp_error *err)
{
    char clients[CLIENTS_NAMED * 80];
    uint64_t deadline_ns = reactor_now_ns() + SETTLE_NS;
    while (clients_text(a, clients, sizeof(clients)))
        if (reactor_now_ns() >= deadline_ns || co_sleep_ns(SETTLE_STEP_NS))
            return vp_fail(err, VP_E_BUSY,
                           "%s of %s/%s is in use by clients (%s): shut them down, or use --force "
                           "and have them see errors",
                           a->address, a->pool->name, a->volume, clients);
    return 0;
}

static CO void nbd_users(const struct attachment *a, char *text, size_t size)
{
    vp_ignore((int)clients_text(a, text, size), "the text is what is wanted");
}

static json_t *aliases_json(const struct attachment_aliases *aliases)
{
    json_t *names = json_array();
    for (unsigned i = 0; names && i < aliases->count; i++)
        if (json_array_append_new(names, json_string(aliases->name[i])))
            break; /* no memory: some are missing in the reply */
    return names;
}

static json_t *nbd_figures(const struct attachment *a, bool with_buckets)
{
    struct nbdx_figures sum = {0};
    if (!figure_histograms_new(&nbdx_figure_set, &sum))
        return NULL;
    if (a->served)
        nbdx_server_figures(a->served, &sum);
    json_t *entry = show_figures(&nbdx_figure_set, &sum, with_buckets);
    figure_histograms_free(&nbdx_figure_set, &sum);
    return entry;
}

static CO json_t *nbd_describe(const struct attachment *a)
{
    struct nbdx_server_stats stats = {0};
    unsigned shown;
    if (a->served)
        nbdx_server_stats(a->served, &stats, NULL, 0, &shown);
    json_t *object = json_pack("{s:i, s:I}", "connections", (int)stats.connections, "accepted",
                               (json_int_t)stats.accepted);
    attachment_socket_show(a->socket, object);
    (void)json_object_set_new(object, "aliases", aliases_json(&a->aliases));
    return object;
}

const struct export_kind export_nbd = {.name = "nbd",
                                       .number = ATTACHMENT_NBD,
                                       .check = nbd_check,
                                       .start = nbd_start,
                                       .stop = nbd_stop,
                                       .leave = nbd_leave,
                                       .moved = nbd_moved,
                                       .close = nbd_close,
                                       .check_unused = nbd_check_unused,
                                       .users = nbd_users,
                                       .figures = nbd_figures,
                                       .describe = nbd_describe};
