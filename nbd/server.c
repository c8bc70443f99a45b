/*
 * A listening socket (or none: connections are given), its exports and its connections. A
 * connection is one coroutine on the server's reactor. For the transmission phase it calls over to
 * the volume's reactor. So only one thread touches everything here.
 */
#include "nbd/server.h"

#include "base/attr.h"
#include "base/log.h"
#include "base/verify.h"
#include "io/net.h"
#include "nbd/connection_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ACCEPT_RETRY_NS (UINT64_C(100) * 1000000) /* after EMFILE and the like */

struct nbdx_server {
    struct reactor *reactor;
    struct nbdx_address address;
    unsigned port;
    int listen_fd;    /* -1: none */
    struct stat file; /* of the unix socket: only this one is unlinked */
    struct nbdx_served *exports;
    unsigned export_count;
    struct nbdx_limits limits;
    struct nbdx_total *total;

    bool stopping;
    bool closed; /* takes no new connections */
    bool accepting;
    struct co *acceptor; /* NULL until it runs */
    struct list connections;
    unsigned connection_count;
    struct co_queue changed; /* a connection, the acceptor, a giver or a waiter ended */
    unsigned waiters;        /* in nbdx_server_wait_unused                            */
    _Atomic unsigned givers; /* in nbdx_server_give, on any reactor                   */
    bool wait_ended;

    uint64_t accepted, refused, handshakes_failed;
};

const struct nbdx_served *nbdx_server_exports(const struct nbdx_server *s, unsigned *count)
{
    *count = s->export_count;
    return s->exports;
}

/* ---- connections --------------------------------------------------------------------------- */

static bool total_enter(struct nbdx_total *t)
{
    if (!t)
        return true;
    if (atomic_fetch_add(&t->used, 1) < t->max || !t->max)
        return true;
    atomic_fetch_sub(&t->used, 1);
    return false;
}

static void total_leave(struct nbdx_total *t)
{
    if (t)
        atomic_fetch_sub(&t->used, 1);
}

static struct nbdx_connection *connection_new(struct nbdx_server *s, int fd)
{
    struct nbdx_connection *c = calloc(1, sizeof(*c));
    if (!c || nbdx_stream_init(&c->in, fd)) {
        free(c);
        return NULL;
    }
    c->server = s;
    c->reactor = s->reactor;
    c->fd = fd;
    c->connected_ns = reactor_now_ns();
    c->in.deadline_ns = c->connected_ns + UINT64_C(1000000) * s->limits.handshake_ms;
    c->request_count = s->limits.requests;
    c->buffers.max = s->limits.buffer_bytes;
    c->stall_ns = UINT64_C(1000000) * s->limits.stall_ms;
    nbdx_peer_describe(c);
    list_add_tail(&s->connections, &c->link);
    s->connection_count++;
    s->accepted++;
    return c;
}

static CO void connection_free(struct nbdx_connection *c)
{
    struct nbdx_server *s = c->server;
    while (c->pins)
        co_queue_wait(&s->changed, "nbd: somebody talks about the connection");
    list_del(&c->link);
    s->connection_count--;
    io_close(c->fd);
    nbdx_stream_fini(&c->in);
    free(c);
    total_leave(s->total);
    co_queue_wake_all(&s->changed);
}

static CO int transmission_call(void *arg)
{
    return nbdx_transmission(arg);
}

/* From handshake to the end; frees the connection. */
static CO int connection_serve(struct nbdx_connection *c)
{
    struct nbdx_server *s = c->server;
    int rc = nbdx_handshake(c);
    if (rc) {
        s->handshakes_failed += rc != VP_E_CLOSED;
        vp_debug("nbd: %s: handshake: %s", c->peer, vp_err_text(rc));
    } else {
        c->reactor = front_reactor(c->export->front);
        rc = reactor_call_for_client(c->reactor, transmission_call, c);
        if (rc)
            vp_info("nbd: %s on %s was hung up: %s", c->peer, c->export->names.name,
                    vp_err_text(rc));
    }
    connection_free(c);
    return rc == VP_E_CLOSED ? 0 : rc;
}

static CO void connection_main(void *arg)
{
    vp_ignore(connection_serve(arg), "told in the log, the client knows");
}

/* Takes `fd`. VP_E_AGAIN, VP_E_NO_MEMORY. */
static CO int connection_begin(struct nbdx_server *s, int fd)
{
    if (s->connection_count >= s->limits.connections || !total_enter(s->total)) {
        s->refused++;
        io_close(fd);
        return VP_E_AGAIN;
    }
    struct nbdx_connection *c = connection_new(s, fd);
    if (!c) {
        total_leave(s->total);
        io_close(fd);
        return VP_E_NO_MEMORY;
    }
    if (co_spawn(connection_main, c, "nbd-connection")) {
        connection_free(c); /* nobody can have pinned it yet */
        return VP_E_AGAIN;
    }
    return 0;
}

static CO void acceptor_main(void *arg)
{
    struct nbdx_server *s = arg;
    s->acceptor = co_self();
    while (!s->stopping && !s->closed) {
        int fd;
        int rc = io_accept(s->listen_fd, 0, &fd);
        if (!rc)
            vp_ignore(connection_begin(s, fd), "the client sees it");
        else if (!s->stopping && !s->closed)
            vp_ignore(co_sleep_ns(ACCEPT_RETRY_NS), "the loop looks at both");
    }
    s->acceptor = NULL;
    s->accepting = false;
    co_queue_wake_all(&s->changed);
}

/* ---- connections that are given ------------------------------------------------------------ */

struct give_call {
    struct nbdx_server *server;
    int fd; /* -1: taken */
};

static CO int give_here(void *arg)
{
    struct give_call *call = arg;
    struct nbdx_server *s = call->server;
    int rc = VP_E_SHUTDOWN;
    if (!s->stopping)
        rc = connection_begin(s, steal_fd(&call->fd));
    s->givers--;
    co_queue_wake_all(&s->changed); /* nbdx_server_stop may free the server next */
    return rc;
}

CO int nbdx_server_give(struct nbdx_server *s, int fd)
{
    struct give_call call = {s, fd};
    s->givers++;
    int rc = reactor_call(s->reactor, give_here, &call);
    if (call.fd >= 0)
        io_close(call.fd);
    return rc;
}

/* ---- start --------------------------------------------------------------------------------- */

static void names_free(struct nbdx_names *n)
{
    free(n->name);
    for (unsigned i = 0; i < n->alias_count; i++)
        free(n->alias[i]);
}

static int names_copy(struct nbdx_names *to, const char *name, const char *const *aliases,
                      unsigned alias_count)
{
    VP_VERIFY(alias_count, <=, (unsigned)NBDX_ALIASES_MAX);
    *to = (struct nbdx_names){.name = strdup(name)};
    bool ok = to->name;
    while (ok && to->alias_count < alias_count) {
        to->alias[to->alias_count] = strdup(aliases[to->alias_count]);
        ok = to->alias[to->alias_count++];
    }
    return ok ? 0 : VP_E_NO_MEMORY;
}

static void server_free(struct nbdx_server *s)
{
    if (s->listen_fd >= 0)
        io_close(s->listen_fd);
    for (unsigned i = 0; i < s->export_count; i++) {
        names_free(&s->exports[i].names);
        free(s->exports[i].description);
        nbdx_figures_free(s->exports[i].figures);
    }
    free(s->exports);
    free(s);
}

static void limits_default(struct nbdx_limits *l)
{
    l->connections = l->connections ? l->connections : 64;
    l->handshake_ms = l->handshake_ms ? l->handshake_ms : 10000;
    l->requests = l->requests ? l->requests : 128;
    l->stall_ms = l->stall_ms ? l->stall_ms : 10000;
    l->buffer_bytes = l->buffer_bytes ? l->buffer_bytes : (size_t)16 << 20;
}

static int limits_check(const struct nbdx_limits *l, struct vp_error *err)
{
    if (l->requests < 4 || l->requests > NBDX_REQUESTS_MAX)
        return vp_fail(err, VP_E_INVALID, "%u requests in flight: 4 to %u are possible",
                       l->requests, NBDX_REQUESTS_MAX);
    if (l->buffer_bytes < (size_t)2 << 20)
        return vp_fail(err, VP_E_INVALID, "%zu bytes of buffers for a connection: at least 2 MiB",
                       l->buffer_bytes);
    return 0;
}

static int exports_copy(struct nbdx_server *s, const struct nbdx_export *e, unsigned count)
{
    s->exports = calloc(count, sizeof(*s->exports));
    if (!s->exports)
        return VP_E_NO_MEMORY;
    for (unsigned i = 0; i < count; i++) {
        struct nbdx_served *to = &s->exports[s->export_count++];
        int rc = names_copy(&to->names, e[i].name, e[i].aliases, e[i].alias_count);
        to->description = strdup(e[i].description ? e[i].description : "");
        to->front = e[i].front;
        to->read_only = e[i].read_only;
        to->figures = nbdx_figures_new();
        if (rc || !to->description || !to->figures)
            return VP_E_NO_MEMORY;
    }
    return 0;
}

/* Everything but the listener. */
static int server_new(const struct nbdx_export *exports, unsigned count,
                      const struct nbdx_limits *limits, struct nbdx_server **out,
                      struct vp_error *err)
{
    if (!count || count > NBDX_EXPORTS_MAX)
        return vp_fail(err, VP_E_INVALID, "%u exports: 1 to %d are possible", count,
                       NBDX_EXPORTS_MAX);
    struct nbdx_server *s = calloc(1, sizeof(*s));
    if (!s)
        return vp_fail(err, VP_E_NO_MEMORY, "no memory for an NBD server");
    s->listen_fd = -1;
    if (limits)
        s->limits = *limits;
    limits_default(&s->limits);
    list_init(&s->connections);
    co_queue_init(&s->changed);
    int rc = limits_check(&s->limits, err);
    if (!rc) {
        rc = exports_copy(s, exports, count);
        if (rc)
            vp_ignore(vp_fail(err, rc, "no memory for an NBD server"), "returned below");
    }
    if (rc) {
        server_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

static CO int server_listen(struct nbdx_server *s, struct vp_error *err)
{
    const struct nbdx_address *a = &s->address;
    switch (a->kind) {
    case NBDX_UNIX:
        return io_listen_unix(a->path, 0660, &s->listen_fd, &s->file, err);
    case NBDX_TCP:
        return io_listen_tcp(a->host, a->port, &s->listen_fd, &s->port, err);
    case NBDX_FD:
        s->listen_fd = a->fd;
        return 0;
    case NBDX_GIVEN:
        return 0;
    }
    return vp_fail(err, VP_E_INVALID, "unknown kind of address %d", (int)a->kind);
}

static int server_begin(void *arg)
{
    struct nbdx_server *s = arg;
    if (s->listen_fd < 0)
        return 0;
    int rc = co_spawn(acceptor_main, s, "nbd-acceptor");
    s->accepting = !rc;
    return rc;
}

static CO void socket_unlink(const struct nbdx_server *s)
{
    if (s->address.kind == NBDX_UNIX)
        io_unlisten_unix(s->address.path, &s->file);
}

CO int nbdx_server_start(const struct nbdx_server_options *o, struct nbdx_server **out,
                         struct vp_error *err)
{
    struct nbdx_server *s;
    int rc = server_new(o->exports, o->export_count, &o->limits, &s, err);
    if (rc)
        return rc;
    s->address = o->address;
    s->total = o->total;
    s->reactor = s->export_count == 1 ? front_reactor(s->exports[0].front) : reactor_self();
    rc = server_listen(s, err);
    if (!rc) {
        rc = reactor_call(s->reactor, server_begin, s);
        if (rc) {
            vp_ignore(vp_fail(err, rc, "the NBD server cannot start: %s", vp_err_text(rc)),
                      "returned below");
            socket_unlink(s);
        }
    }
    if (rc) {
        server_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

/* ---- stop ---------------------------------------------------------------------------------- */

static int connection_tell(void *arg)
{
    struct nbdx_connection *c = arg;
    if (c->told == NBDX_TOLD_TO_GO)
        nbdx_connection_cut(c);
    else
        nbdx_connection_shutdown(c);
    return 0;
}

/* Tells every connection on its own reactor; the list changes meanwhile, so from the start each
 * time. */
static CO void connections_tell(struct nbdx_server *s, bool cut)
{
    for (bool found = true; found;) {
        struct nbdx_connection *c;
        found = false;
        list_for_each (c, &s->connections, link) {
            /* A connection without an export is still shaking hands: there is nothing to answer. */
            enum nbdx_told what = cut || !c->export ? NBDX_TOLD_TO_GO : NBDX_TOLD_TO_STOP;
            if (c->told >= what)
                continue;
            c->told = what;
            c->pins++;
            vp_ignore(reactor_call(c->reactor, connection_tell, c),
                      "a reactor that has ended serves nobody");
            c->pins--;
            co_queue_wake_all(&s->changed);
            found = true;
            break;
        }
    }
}

struct stop_call {
    struct nbdx_server *server;
    unsigned deadline_ms;
};

/* Nobody listens any more. */
static CO int server_close_here(void *arg)
{
    struct nbdx_server *s = arg;
    s->closed = true;
    while (s->accepting) {
        if (s->acceptor)
            co_cancel(s->acceptor);
        co_queue_wait(&s->changed, "nbd: the acceptor");
    }
    socket_unlink(s);
    if (s->listen_fd >= 0)
        io_close(s->listen_fd);
    s->listen_fd = -1;
    return 0;
}

CO void nbdx_server_close(struct nbdx_server *s)
{
    vp_ignore(reactor_call(s->reactor, server_close_here, s), "its reactor has ended");
}

static CO int server_stop_here(void *arg)
{
    struct stop_call *call = arg;
    struct nbdx_server *s = call->server;
    uint64_t deadline = reactor_now_ns() + UINT64_C(1000000) * call->deadline_ms;
    s->stopping = true;
    co_queue_wake_all(&s->changed);
    vp_ignore(server_close_here(s), "it does not fail");
    connections_tell(s, call->deadline_ms == 0);
    int rc = 0;
    while (s->connection_count && rc != VP_E_TIMED_OUT)
        rc = co_queue_wait_until(&s->changed, deadline, "nbd: clients of a server that stops");
    connections_tell(s, true);
    while (s->connection_count || s->waiters || s->givers)
        co_queue_wait(&s->changed, "nbd: connections that were cut");
    return 0;
}

CO void nbdx_server_stop(struct nbdx_server *s, unsigned deadline_ms)
{
    struct stop_call call = {s, deadline_ms};
    vp_ignore(reactor_call(s->reactor, server_stop_here, &call), "its reactor has ended");
    server_free(s);
}

/* ---- names --------------------------------------------------------------------------------- */

struct rename_call {
    struct nbdx_names *is, *new;
};

/* Whoever reads a name here copies it before it yields. */
static int rename_here(void *arg)
{
    const struct rename_call *call = arg;
    struct nbdx_names old = *call->is;
    *call->is = *call->new;
    *call->new = old;
    return 0;
}

CO int nbdx_server_rename(struct nbdx_server *s, unsigned index, const char *name,
                          const char *const *aliases, unsigned alias_count)
{
    struct nbdx_names names;
    VP_VERIFY(index, <, s->export_count);
    int rc = names_copy(&names, name, aliases, alias_count);
    struct rename_call call = {&s->exports[index].names, &names};
    if (rc == 0)
        rc = reactor_call(s->reactor, rename_here, &call);
    names_free(&names);
    return rc;
}

/* ---- what is told -------------------------------------------------------------------------- */

struct stats_call {
    struct nbdx_server *server;
    struct nbdx_server_stats *out;
    struct nbdx_connection_info *info;
    unsigned max, count;
};

static void info_fill(const struct nbdx_connection *c, struct nbdx_connection_info *i)
{
    *i = (struct nbdx_connection_info){
        .pid = c->pid,
        .uid = c->uid,
        .structured = c->structured,
        .extended = c->extended,
        .in_flight = c->in_flight,
        .connected_ns = c->connected_ns,
    };
    memcpy(i->peer, c->peer, sizeof(i->peer));
    if (c->export)
        strncpy(i->export_name, c->export->names.name, sizeof(i->export_name) - 1);
}

static int stats_here(void *arg)
{
    struct stats_call *call = arg;
    struct nbdx_server *s = call->server;
    struct nbdx_server_stats *out = call->out;
    struct nbdx_connection *c;
    out->connections = s->connection_count;
    out->accepted = s->accepted;
    out->refused = s->refused;
    out->handshakes_failed = s->handshakes_failed;
    list_for_each (c, &s->connections, link) {
        if (call->info && call->count < call->max)
            info_fill(c, &call->info[call->count++]);
    }
    return 0;
}

CO void nbdx_server_stats(struct nbdx_server *s, struct nbdx_server_stats *out,
                          struct nbdx_connection_info *info, unsigned max, unsigned *count)
{
    struct stats_call call = {s, out, info, max, 0};
    *out = (struct nbdx_server_stats){0};
    vp_ignore(reactor_call(s->reactor, stats_here, &call), "zeros then");
    if (count)
        *count = call.count;
}

bool nbdx_server_uri(const struct nbdx_server *s, unsigned index, char *out, size_t size)
{
    return index < s->export_count &&
           nbdx_uri_format(&s->address, s->port, s->exports[index].names.name, out, size);
}

unsigned nbdx_server_port(const struct nbdx_server *s)
{
    return s->port;
}

/* ---- captive servers ----------------------------------------------------------------------- */

CO int nbdx_serve_fd(int fd, const struct nbdx_export *exports, unsigned export_count,
                     const struct nbdx_limits *limits)
{
    AUTO_FD int owned = fd;
    struct nbdx_server *s;
    int rc = server_new(exports, export_count, limits, &s, NULL);
    if (rc)
        return rc;
    s->reactor = reactor_self();
    struct nbdx_connection *c = connection_new(s, fd);
    rc = VP_E_NO_MEMORY;
    if (c) {
        (void)steal_fd(&owned); /* the connection closes it */
        rc = connection_serve(c);
    }
    server_free(s);
    return rc;
}

static CO int wait_unused_here(void *arg)
{
    struct nbdx_server *s = arg;
    s->waiters++;
    while (!s->stopping && !s->wait_ended && (!s->accepted || s->connection_count))
        co_queue_wait(&s->changed, "nbd: clients of a captive server");
    s->waiters--;
    co_queue_wake_all(&s->changed);
    return 0;
}

CO void nbdx_server_wait_unused(struct nbdx_server *s)
{
    vp_ignore(reactor_call_for_client(s->reactor, wait_unused_here, s), "its reactor has ended");
}

void nbdx_server_end_wait(struct nbdx_server *s)
{
    s->wait_ended = true;
    co_queue_wake_all(&s->changed);
}
