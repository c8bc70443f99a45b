/*
 * Life of the daemon: start, serve, stop; and how methods are run.
 *
 * The start: main has taken the lock of the state directory. The control socket listens; a second
 * daemon on it is refused here. Pools and attachments come back under control.lock. Requests are
 * answered.
 *
 * The stop: new requests are refused, and those under way are answered. Moves end. Exports end:
 * NBD's connections are hung up, and block devices stay without a server. Pools commit, write a
 * checkpoint and close. Reactors stop.
 */
#include "control/address.h"
#include "control/ublk_devices.h"

#include "io/net.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define MONITOR_NS         UINT64_C(1000000000)
#define PREDECESSOR_NS     UINT64_C(1500000000) /* P11: serving again within two seconds */
#define PREDECESSOR_NAP_NS UINT64_C(10000000)

/* ---- running a method ---------------------------------------------------------------------- */

static CO int method_run(struct control *c, const struct method *m, const void *args,
                         json_t **result, struct vp_error *err)
{
    while (!(m->flags & METHOD_EARLY) && !c->started && !c->stopping)
        co_queue_wait(&c->state_changed, "the daemon starts");
    if (!(m->flags & METHOD_ALONE))
        return m->fn(c, args, result, err);
    co_mutex_lock(&c->lock);
    attachments_reap(c);
    int rc = c->stopping ? vp_fail(err, VP_E_SHUTDOWN, "the daemon is stopping")
                         : m->fn(c, args, result, err);
    co_mutex_unlock(&c->lock);
    return rc;
}

/* ---- signals ------------------------------------------------------------------------------- */

void control_request_stop(struct control *c, const char *why)
{
    if (c->stopping)
        return;
    control_event(c, VP_LOG_INFO, "daemon.stopping", "daemon", "%s", why);
    c->stopping = true;
    co_queue_wake_all(&c->state_changed);
    co_queue_wake_all(&c->events.arrived);
}

static void on_signal(struct control *c, const struct signalfd_siginfo *info)
{
    if (info->ssi_signo == SIGHUP) {
        if (c->options.reopen_log)
            c->options.reopen_log(c->options.ready_arg);
    } else if (c->stopping) {
        vp_warn("second signal: ending at once; the next start recovers from the log");
        _exit(1);
    } else {
        control_request_stop(c, info->ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
    }
}

static CO void signal_watch(void *arg)
{
    struct control *c = arg;
    c->signal_watcher = co_self();
    while (!c->signal_watcher_ended) {
        unsigned events;
        if (io_poll(c->options.signal_fd, POLLIN, 0, &events))
            continue; /* cancelled: the flag ends the loop */
        struct signalfd_siginfo info;
        while (read(c->options.signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
            on_signal(c, &info);
    }
    c->signal_watcher = NULL;
    co_queue_wake_all(&c->state_changed);
}

static CO void signal_watch_end(struct control *c)
{
    c->signal_watcher_ended = true;
    if (c->signal_watcher)
        co_cancel(c->signal_watcher);
    while (c->signal_watcher)
        co_queue_wait(&c->state_changed, "signal watcher ends");
}

/* ---- start, serve, stop -------------------------------------------------------------------- */

static void tell_ready(struct control *c, int rc, const char *text)
{
    if (c->options.ready)
        c->options.ready(c->options.ready_arg, rc, text);
}

CO bool control_predecessor_lets_go(struct control *c, int rc)
{
    if (rc != VP_E_EXISTS && rc != VP_E_POOL_ACTIVE && rc != VP_E_IO_BUSY_DEVICE)
        return false;
    if (c->started || reactor_now_ns() > c->start_ns + PREDECESSOR_NS)
        return false;
    return co_sleep_ns(PREDECESSOR_NAP_NS) == 0;
}

static CO int listen_for_clients(struct control *c, struct vp_error *err)
{
    struct control_server *s = &c->server;
    int rc;
    s->rpc = &c->rpc;
    s->name = "control";
    s->limit = "control.max-connections";
    s->connections_max = (unsigned)c->config->control_connections_max;
    s->frame_timeout_ns = c->config->control_frame_timeout_ms * 1000000;
    do
        rc = control_server_listen(s, c->config->socket, c->config->socket_group, err);
    while (control_predecessor_lets_go(c, rc));
    return rc;
}

/* Daemons that come before the pools are here wait to be accepted. */
static CO int listen_for_peers(struct control *c, struct vp_error *err)
{
    struct control_server *s = &c->peer_server;
    struct nbdx_address *at = &c->peer_address;
    int rc = control_migrate_address(c->config, at, err);
    if (rc || !c->config->migrate_listen[0])
        return rc;
    s->rpc = &c->peer_rpc;
    s->name = "migration";
    s->limit = "migrate.max-connections";
    s->connections_max = (unsigned)c->config->migrate_connections_max;
    s->frame_timeout_ns = c->config->control_frame_timeout_ms * 1000000;
    do
        rc = at->kind == NBDX_UNIX
                 ? control_server_listen(s, at->path, c->config->socket_group, err)
                 : control_server_listen_tcp(s, at->host, at->port, err);
    while (control_predecessor_lets_go(c, rc));
    return rc;
}

static CO int start(struct control *c, struct vp_error *err)
{
    int rc = listen_for_clients(c, err);
    if (rc == 0)
        rc = listen_for_peers(c, err);
    if (rc)
        return rc;
    rc = co_spawn(signal_watch, c, "signals");
    if (rc == 0)
        rc = control_server_start(&c->server);
    if (rc)
        return vp_fail(err, rc, "starting the control socket: %s", vp_err_text(rc));
    co_mutex_lock(&c->lock);
    move_reports_load(c);
    control_pools_restore(c);
    co_mutex_unlock(&c->lock);
    if (c->peer_server.listen_fd >= 0)
        rc = control_server_start(&c->peer_server);
    if (rc)
        return vp_fail(err, rc, "starting the socket for migrations: %s", vp_err_text(rc));
    c->started = true;
    co_queue_wake_all(&c->state_changed);
    control_event(c, VP_LOG_INFO, "daemon.started", "daemon",
                  "version " VPOOL_VERSION ", %u reactors", c->options.reactor_count);
    notify_send("READY=1");
    tell_ready(c, 0, "");
    co_mutex_lock(&c->lock);
    ublk_report_orphans(c);
    co_mutex_unlock(&c->lock);
    return 0;
}

static CO void serve(struct control *c)
{
    while (!c->stopping) {
        monitor_tend(c);
        monitor_look(c);
        int rc = co_queue_wait_until(&c->state_changed, reactor_now_ns() + MONITOR_NS, "monitor");
        vp_ignore(rc, "time passed or the state changed: the loop looks at both");
    }
}

static CO void stop(struct control *c)
{
    notify_send("STOPPING=1");
    control_server_stop(&c->server);
    control_server_stop(&c->peer_server);
    receivers_end(c);
    migrations_end(c); /* their ends take the lock */
    while (c->tending || c->looking || c->migrations.asking)
        co_queue_wait(&c->state_changed, "what is tried again ends");
    co_mutex_lock(&c->lock);
    int rc = control_pools_close(c);
    attachments_reap(c);
    co_mutex_unlock(&c->lock);
    move_reports_save(c);
    if (c->rc == 0)
        c->rc = rc;
    signal_watch_end(c);
}

CO void control_main(void *arg)
{
    struct control *c = arg;
    struct vp_error err = {0};
    c->start_ns = reactor_now_ns();
    c->events.epoch = reactor_wall_seconds();
    c->rc = start(c, &err);
    if (c->rc) {
        tell_ready(c, c->rc, err.text);
        c->stopping = true;
    }
    serve(c);
    stop(c);
    for (unsigned i = c->options.reactor_count; i > 0; i--)
        reactor_stop(c->options.reactors[i - 1]);
}

int control_new(const struct control_options *o, struct control **out, struct vp_error *err)
{
    struct control *c = calloc(1, sizeof(*c));
    if (!c || event_ring_init(&c->events)) {
        free(c);
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    }
    c->options = *o;
    c->config = o->config;
    list_init(&c->pools);
    migrations_init(&c->migrations);
    receivers_init(&c->receivers);
    list_init(&c->attachments);
    list_init(&c->moves);
    list_init(&c->attachment_changes);
    co_queue_init(&c->attachment_changed);
    co_mutex_init_for(&c->lock, RESOURCE_COMMANDS);
    co_queue_init(&c->state_changed);
    c->rpc = (struct rpc){.tables = methods_all, .run = method_run, .control = c};
    control_server_init(&c->server);
    control_server_init(&c->peer_server);
    c->peer_rpc = (struct rpc){.tables = methods_of_peers, .run = control_peer_run, .control = c};
    c->nbd_total.max = (unsigned)o->config->nbd_connections_max;
    *out = c;
    return 0;
}

int control_result(const struct control *c)
{
    return c->rc;
}

void control_free(struct control *c)
{
    if (!c)
        return;
    receivers_fini(&c->receivers);
    migrations_fini(&c->migrations);
    move_reports_fini(&c->reports);
    event_ring_fini(&c->events);
    free(c);
}
