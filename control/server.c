/*
 * See server.h. A connection that is not at work must not keep others out. Where places are
 * short, a new connection takes the place of a connection that waits for its client: for a request,
 * for its reply to be taken, or for events. Of the connections of the user with the most, the one
 * that has waited longest goes. A call that is worked on is never cut. When all are at work, a few
 * places are left for root.
 */
#include "control/server.h"

#include "base/log.h"
#include "base/verify.h"
#include "control/peer.h"
#include "io/net.h"
#include "io/reactor.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FRAME_START      4096U
#define REPLY_TIMEOUT_NS UINT64_C(30000000000)
#define REPLY_GRACE_NS   UINT64_C(1000000000) /* a reply that is not taken for so long may be cut */
#define ROOT_PLACES      4U
#define REFUSED_MAX      16U /* connections that are being told so */
#define UID_UNKNOWN      UINT_MAX

enum connection_state {
    CONNECTION_IS_NEW, /* not admitted yet, or refused */
    CONNECTION_RECEIVES,
    CONNECTION_WORKS,
    CONNECTION_WAITS, /* in a call, for something that may never come */
    CONNECTION_SENDS,
    CONNECTION_IS_CUT,
};

struct connection {
    struct list link;
    struct control_server *server;
    struct co *co;
    enum connection_state state;
    uint64_t since_ns; /* it is in this state */
    struct {
        unsigned uid; /* UID_UNKNOWN: of TCP */
        char text[64];
    } client;
    int fd; /* -1: handed over */
    char note[CONTROL_SERVER_NOTE];
    void (*heir)(void *arg, int fd); /* gets the descriptor after the reply; or NULL */
    void *heir_arg;
    char *buf; /* owned; grows to RPC_FRAME_MAX */
    size_t len, capacity;
};

/* ---- places -------------------------------------------------------------------------------- */

static void connection_move(struct connection *c, enum connection_state to)
{
    if (c->state == CONNECTION_IS_CUT)
        return;
    c->state = to;
    c->since_ns = reactor_now_ns();
}

static bool may_be_cut(const struct connection *c)
{
    switch (c->state) {
    case CONNECTION_RECEIVES:
    case CONNECTION_WAITS:
        return true;
    case CONNECTION_SENDS:
        return reactor_now_ns() >= c->since_ns + REPLY_GRACE_NS;
    case CONNECTION_IS_NEW:
    case CONNECTION_WORKS:
    case CONNECTION_IS_CUT:
        break;
    }
    return false;
}

static unsigned count_of_user(const struct control_server *s, unsigned uid)
{
    unsigned n = 0;
    const struct connection *c;
    list_for_each (c, &s->connections, link)
        n += c->client.uid == uid && c->state != CONNECTION_IS_NEW && c->state != CONNECTION_IS_CUT;
    return n;
}

/* NULL: all are at work. */
static struct connection *least_entitled(const struct control_server *s)
{
    struct connection *c, *worst = NULL;
    unsigned most = 0;
    list_for_each (c, &s->connections, link) {
        if (!may_be_cut(c))
            continue;
        unsigned n = count_of_user(s, c->client.uid);
        if (!worst || n > most || (n == most && c->since_ns < worst->since_ns)) {
            worst = c;
            most = n;
        }
    }
    return worst;
}

/* It ends in the next turns of the loop. */
static void connection_cut(struct connection *c, const char *why)
{
    vp_info("%s: a connection of %s is closed, because %s: it had waited for its client for %.1f s",
            c->server->name, c->client.text, why, (double)(reactor_now_ns() - c->since_ns) / 1e9);
    bool waits = c->state == CONNECTION_WAITS;
    connection_move(c, CONNECTION_IS_CUT);
    c->server->admitted--;
    io_shutdown(c->fd);
    if (waits)
        co_cancel(c->co);
}

static bool connection_admit(struct connection *c)
{
    struct control_server *s = c->server;
    if (s->admitted >= s->connections_max) {
        struct connection *other = least_entitled(s);
        bool is_root = c->client.uid == 0 || c->client.uid == geteuid();
        if (other)
            connection_cut(other, "another needs its place");
        else if (!is_root || s->admitted >= s->connections_max + ROOT_PLACES)
            return false;
    }
    s->admitted++;
    connection_move(c, CONNECTION_RECEIVES);
    return true;
}

/* Whose call this is. */
static struct connection *connection_self(const struct control_server *s)
{
    struct connection *c, *mine = NULL;
    list_for_each (c, &s->connections, link)
        if (c->co == co_self())
            mine = c;
    VP_VERIFY_TRUE(mine != NULL);
    return mine;
}

char *control_server_note(struct control_server *s)
{
    return connection_self(s)->note;
}

void control_server_hand_over(struct control_server *s, void (*fn)(void *arg, int fd), void *arg)
{
    struct connection *c = connection_self(s);
    VP_VERIFY_TRUE(!c->heir);
    c->heir = fn;
    c->heir_arg = arg;
}

CO int control_server_wait(struct control_server *s, struct co_queue *q, uint64_t deadline_ns,
                           const char *why)
{
    struct connection *mine = connection_self(s);
    connection_move(mine, CONNECTION_WAITS);
    int rc = co_queue_wait_until(q, deadline_ns, why);
    connection_move(mine, CONNECTION_WORKS);
    return rc;
}

/* ---- one connection ------------------------------------------------------------------------ */

static CO int send_reply(struct connection *c, char *reply, size_t len)
{
    if (!reply)
        return 0;
    int rc = io_send_all(c->fd, reply, len, reactor_now_ns() + REPLY_TIMEOUT_NS);
    free(reply);
    return rc;
}

static CO int refuse(struct connection *c, int rc, const char *text)
{
    size_t len;
    char *reply = rpc_refusal(RPC_INVALID_REQUEST, rc, text, &len);
    vp_ignore(send_reply(c, reply, len), "the connection is closed next");
    return rc;
}

static int make_room(struct connection *c)
{
    if (c->len < c->capacity)
        return 0;
    if (c->capacity >= RPC_FRAME_MAX)
        return VP_E_TOO_BIG;
    size_t capacity = c->capacity ? c->capacity * 2 : FRAME_START;
    char *buf = realloc(c->buf, capacity);
    if (!buf)
        return VP_E_NO_MEMORY;
    c->buf = buf;
    c->capacity = capacity;
    return 0;
}

/* Receives until a whole frame is at the start of the buffer; *frame_len excludes the newline. */
static CO int receive_frame(struct connection *c, size_t *frame_len)
{
    size_t looked_at = 0;
    uint64_t deadline_ns = c->len ? reactor_now_ns() + c->server->frame_timeout_ns : 0;
    for (;;) {
        char *newline =
            c->len > looked_at ? memchr(c->buf + looked_at, '\n', c->len - looked_at) : NULL;
        if (newline) {
            *frame_len = (size_t)(newline - c->buf);
            return 0;
        }
        looked_at = c->len;
        int rc = make_room(c);
        if (rc == VP_E_TOO_BIG)
            return refuse(c, rc, "the frame is longer than 1 MiB");
        size_t got = 0;
        if (rc == 0)
            rc = io_recv(c->fd, c->buf + c->len, c->capacity - c->len, deadline_ns, &got);
        if (rc == VP_E_TIMED_OUT)
            return refuse(c, rc, "the frame did not end in time");
        if (rc == 0 && got == 0)
            rc = VP_E_CLOSED;
        if (rc)
            return rc;
        if (c->len == 0)
            deadline_ns = reactor_now_ns() + c->server->frame_timeout_ns;
        c->len += got;
    }
}

/* The client has waited for the reply, so what it sends next is for the heir. */
static CO int connection_hand_over(struct connection *c, bool clean)
{
    int fd = -1;
    if (clean && c->state != CONNECTION_IS_CUT) {
        fd = c->fd;
        c->fd = -1;
        connection_move(c, CONNECTION_WORKS);
    }
    c->heir(c->heir_arg, fd);
    return VP_E_CLOSED;
}

static CO int serve_frame(struct connection *c)
{
    size_t frame_len = 0;
    int rc = receive_frame(c, &frame_len);
    if (rc || c->state == CONNECTION_IS_CUT)
        return rc ? rc : VP_E_CLOSED;
    size_t reply_len = 0;
    connection_move(c, CONNECTION_WORKS);
    char *reply = frame_len ? rpc_handle(c->server->rpc, c->buf, frame_len, &reply_len) : NULL;
    bool is_answered = reply != NULL;
    connection_move(c, CONNECTION_SENDS);
    rc = send_reply(c, reply, reply_len);
    c->len -= frame_len + 1;
    if (c->heir)
        return connection_hand_over(c, rc == 0 && is_answered && c->len == 0);
    connection_move(c, CONNECTION_RECEIVES);
    memmove(c->buf, c->buf + frame_len + 1, c->len);
    return rc;
}

/* Over TCP: the address is all that is known of it. A client that lost its power is noticed after a
 * few minutes. */
static void connection_name_tcp(struct connection *c)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof(a);
    char host[46], port[6];
    const int on = 1;
    c->client.uid = UID_UNKNOWN;
    if (getpeername(c->fd, (struct sockaddr *)&a, &len) ||
        getnameinfo((const struct sockaddr *)&a, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV))
        (void)snprintf(c->client.text, sizeof(c->client.text), "an unknown address");
    else
        (void)snprintf(c->client.text, sizeof(c->client.text), "%s:%s", host, port);
    (void)setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)); /* else it takes longer */
}

/* False: it may not use this socket. */
static bool connection_is_allowed(struct connection *c)
{
    struct peer peer;
    if (!c->server->path) {
        connection_name_tcp(c);
        return true;
    }
    if (!peer_of_socket(c->fd, &peer) || !peer_is_allowed(&peer, geteuid(), c->server->socket_gid))
        return false;
    c->client.uid = peer.uid;
    (void)snprintf(c->client.text, sizeof(c->client.text), "process %d, user %u", peer.pid,
                   peer.uid);
    return true;
}

static CO void connection_refuse_too_many(struct connection *c)
{
    char text[160];
    (void)snprintf(text, sizeof(text),
                   "too many connections to the %s socket, and all are at work: try again, or "
                   "raise %s",
                   c->server->name, c->server->limit);
    vp_ignore(refuse(c, VP_E_AGAIN, text), "it is closed next");
}

static CO void connection_serve(struct connection *c)
{
    struct control_server *s = c->server;
    if (!connection_is_allowed(c)) {
        vp_ignore(refuse(c, VP_E_PERMISSION,
                         "you may not use this socket: be root or a member of its group"),
                  "it is closed next");
        return;
    }
    if (!connection_admit(c)) {
        connection_refuse_too_many(c);
        return;
    }
    while (!s->stopping && c->state != CONNECTION_IS_CUT && serve_frame(c) == 0)
        ;
    if (c->state != CONNECTION_IS_CUT)
        s->admitted--;
}

static CO void connection_run(void *arg)
{
    struct connection *c = arg;
    struct control_server *s = c->server;
    c->co = co_self();
    connection_serve(c);
    if (c->fd >= 0)
        io_close(c->fd);
    free(c->buf);
    list_del(&c->link);
    free(c);
    s->count--;
    co_queue_wake_all(&s->gone);
}

/* ---- the listener -------------------------------------------------------------------------- */

static void connection_start(struct control_server *s, int fd)
{
    struct connection *c = calloc(1, sizeof(*c));
    if (!c) {
        io_close(fd);
        return;
    }
    c->server = s;
    c->fd = fd;
    list_add_tail(&s->connections, &c->link);
    s->count++;
    if (co_spawn(connection_run, c, "connection of a client")) {
        s->count--;
        list_del(&c->link);
        free(c);
        io_close(fd);
    }
}

static CO void acceptor_run(void *arg)
{
    struct control_server *s = arg;
    s->acceptor = co_self();
    while (!s->stopping) {
        int fd = -1;
        int rc = io_accept(s->listen_fd, 0, &fd);
        if (rc == 0 && s->count < s->connections_max + ROOT_PLACES + REFUSED_MAX)
            connection_start(s, fd);
        else if (rc == 0)
            io_close(fd);
        else if (!s->stopping) /* out of descriptors, most likely: it passes */
            vp_ignore(co_sleep_ns(100000000), "a cancelled sleep ends the loop");
    }
    s->acceptor = NULL;
    co_queue_wake_all(&s->gone);
}

static int group_of_socket(struct control_server *s, const char *group, struct vp_error *err)
{
    s->socket_gid = getegid();
    if (!group[0])
        return 0;
    const struct group *g = getgrnam(group);
    if (!g)
        return vp_fail(err, VP_E_NOT_FOUND,
                       "socket-group '%s' does not exist: create it or change the configuration",
                       group);
    s->socket_gid = g->gr_gid;
    return 0;
}

void control_server_init(struct control_server *s)
{
    s->listen_fd = -1;
    list_init(&s->connections);
    co_queue_init(&s->gone);
}

int control_server_listen_tcp(struct control_server *s, const char *host, const char *port,
                              struct vp_error *err)
{
    return io_listen_tcp(host, port, &s->listen_fd, &s->port, err);
}

CO int control_server_listen(struct control_server *s, const char *path, const char *group,
                             struct vp_error *err)
{
    s->path = path;
    int rc = group_of_socket(s, group, err);
    if (rc)
        return rc;
    rc = io_listen_unix(path, 0660, &s->listen_fd, &s->file, err);
    if (rc)
        return rc;
    if (group[0] && chown(path, (uid_t)-1, s->socket_gid)) {
        rc = vp_fail_errno(err, VP_E_PERMISSION, errno, "giving %s to group '%s'", path, group);
        io_close(s->listen_fd);
        s->listen_fd = -1;
    }
    return rc;
}

int control_server_start(struct control_server *s)
{
    return co_spawn(acceptor_run, s, "control acceptor");
}

CO void control_server_stop(struct control_server *s)
{
    s->stopping = true;
    if (s->acceptor)
        co_cancel(s->acceptor);
    struct connection *c;
    list_for_each (c, &s->connections, link)
        if (c->fd >= 0)
            (void)shutdown(c->fd, SHUT_RD); /* the reply under way still goes out */
    while (s->acceptor || s->count) {
        uint64_t deadline_ns = reactor_now_ns() + REPLY_GRACE_NS;
        if (co_queue_wait_until(&s->gone, deadline_ns, "control connections end") == 0)
            continue;
        list_for_each (c, &s->connections, link)
            if (may_be_cut(c)) /* its reply is not taken */
                connection_cut(c, "the daemon ends");
    }
    if (s->listen_fd >= 0) {
        if (s->path)
            io_unlisten_unix(s->path, &s->file);
        io_close(s->listen_fd);
        s->listen_fd = -1;
    }
}
