/* The control socket. */
#include "control/server.h"

#include "base/log.h"
#include "control/peer.h"
#include "io/net.h"
#include "io/reactor.h"

#include <errno.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FRAME_START      4096U
#define REPLY_TIMEOUT_NS UINT64_C(30000000000)

struct connection {
    struct list link;
    struct control_server *server;
    int fd;
    char *buf; /* owned; grows to RPC_FRAME_MAX */
    size_t len, capacity;
};

/* ---- one connection ------------------------------------------------------------------------ */

CO static int send_reply(struct connection *c, char *reply, size_t len)
{
    if (!reply)
        return 0;
    int rc = io_send_all(c->fd, reply, len, reactor_now_ns() + REPLY_TIMEOUT_NS);
    free(reply);
    return rc;
}

CO static int refuse(struct connection *c, int rc, const char *text)
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
CO static int receive_frame(struct connection *c, size_t *frame_len)
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

CO static int serve_frame(struct connection *c)
{
    size_t frame_len = 0;
    int rc = receive_frame(c, &frame_len);
    if (rc)
        return rc;
    size_t reply_len = 0;
    char *reply = frame_len ? rpc_handle(c->server->rpc, c->buf, frame_len, &reply_len) : NULL;
    rc = send_reply(c, reply, reply_len);
    c->len -= frame_len + 1;
    memmove(c->buf, c->buf + frame_len + 1, c->len);
    return rc;
}

CO static void connection_run(void *arg)
{
    struct connection *c = arg;
    struct control_server *s = c->server;
    struct peer peer;
    if (!peer_of_socket(c->fd, &peer) || !peer_is_allowed(&peer, geteuid(), s->socket_gid))
        vp_ignore(refuse(c, VP_E_PERMISSION,
                         "you may not use this socket: be root or a member of its group"),
                  "closed below");
    else if (s->count > s->connections_max)
        vp_ignore(refuse(c, VP_E_AGAIN, "too many connections to the control socket"),
                  "closed below");
    else
        while (!s->stopping && serve_frame(c) == 0)
            ;
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
    if (co_spawn(connection_run, c, "control connection")) {
        s->count--;
        list_del(&c->link);
        free(c);
        io_close(fd);
    }
}

CO static void acceptor_run(void *arg)
{
    struct control_server *s = arg;
    s->acceptor = co_self();
    while (!s->stopping) {
        int fd = -1;
        int rc = io_accept(s->listen_fd, 0, &fd);
        if (rc == 0 && s->count < s->connections_max + 16)
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

int control_server_listen(struct control_server *s, const char *path, const char *group,
                          struct vp_error *err)
{
    s->path = path;
    s->listen_fd = -1;
    list_init(&s->connections);
    co_queue_init(&s->gone);
    int rc = group_of_socket(s, group, err);
    if (rc)
        return rc;
    rc = io_listen_unix(path, 0660, &s->listen_fd, err);
    if (rc)
        return rc;
    if (lstat(path, &s->file))
        s->file = (struct stat){0};
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

void control_server_stop(struct control_server *s)
{
    s->stopping = true;
    if (s->acceptor)
        co_cancel(s->acceptor);
    struct connection *c;
    list_for_each (c, &s->connections, link)
        (void)shutdown(c->fd, SHUT_RD); /* the reply under way still goes out */
    while (s->acceptor || s->count)
        co_queue_wait(&s->gone, "control connections end");
    if (s->listen_fd >= 0) {
        struct stat now;
        if (lstat(s->path, &now) == 0 && now.st_dev == s->file.st_dev &&
            now.st_ino == s->file.st_ino) /* else it is another daemon's */
            (void)unlink(s->path);
        io_close(s->listen_fd);
        s->listen_fd = -1;
    }
}
