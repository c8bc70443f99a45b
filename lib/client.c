/*
 * Connection, frames, and the JSON-RPC envelope. Only memory bounds a reply, because it comes from
 * a daemon that the caller trusts with its data.
 */
#include "lib/client_impl.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REPLY_MAX (256U << 20)

struct vpool_client {
    int fd;
    unsigned timeout_ms;
    long long next_id;
    char *buf; /* owned: what was received and not yet consumed */
    size_t len, capacity;
};

const char *vpool_version(void)
{
    return VPOOL_VERSION;
}

int vpool_fail(struct vpool_error *err, int rc, const char *fmt, ...)
{
    if (!err)
        return -1;
    *err = (struct vpool_error){.errnum = vp_err_class(rc)};
    (void)snprintf(err->name, sizeof(err->name), "%s", vp_err_name(rc));
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    return -1;
}

/* ---- connection ------------------------------------------------------------------------------ */

static int connect_socket(const char *path, struct vpool_error *err)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(to.sun_path))
        return vpool_fail(err, VP_E_INVALID, "the socket's path is too long: %s", path);
    memcpy(to.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return vpool_fail(err, VP_E_SYSTEM, "socket: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    int why = errno;
    close(fd);
    if (why == EACCES || why == EPERM)
        return vpool_fail(err, VP_E_PERMISSION,
                          "%s: you may not connect; be root or a member of the socket's group",
                          path);
    return vpool_fail(err, VP_E_NO_DAEMON,
                      "no daemon answers on %s (%s): start vpoold, or name its socket with -s or "
                      "VPOOL_SOCKET",
                      path, strerror(why));
}

int vpool_connect(const char *socket_path, unsigned timeout_ms, struct vpool_client **out,
                  struct vpool_error *err)
{
    const char *path = socket_path ? socket_path : getenv("VPOOL_SOCKET");
    struct vpool_client *c = calloc(1, sizeof(*c));
    if (!c)
        return vpool_fail(err, VP_E_NO_MEMORY, "out of memory");
    c->fd = connect_socket(path && path[0] ? path : VPOOL_DEFAULT_SOCKET, err);
    if (c->fd < 0) {
        free(c);
        return -1;
    }
    c->timeout_ms = timeout_ms ? timeout_ms : 60000;
    c->next_id = 1;
    *out = c;
    return 0;
}

void vpool_close(struct vpool_client *c)
{
    if (!c)
        return;
    close(c->fd);
    free(c->buf);
    free(c);
}

int vpool_peer(const struct vpool_client *c, pid_t *pid, uid_t *uid, struct vpool_error *err)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
        return vpool_fail(err, VP_E_SYSTEM, "SO_PEERCRED: %s", strerror(errno));
    *pid = peer.pid;
    *uid = peer.uid;
    return 0;
}

/* ---- frames ------------------------------------------------------------------------------------
 */

static long long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int wait_for(struct vpool_client *c, short events, long long deadline_ms,
                    struct vpool_error *err)
{
    for (;;) {
        long long left = deadline_ms - now_ms();
        struct pollfd p = {.fd = c->fd, .events = events};
        int n = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (n > 0)
            return 0;
        if (n == 0)
            return vpool_fail(err, VP_E_TIMED_OUT,
                              "the daemon did not answer within %u ms; what was asked may still be "
                              "carried out",
                              c->timeout_ms);
        if (errno != EINTR)
            return vpool_fail(err, VP_E_SYSTEM, "poll: %s", strerror(errno));
    }
}

static int send_frame(struct vpool_client *c, const char *text, size_t len, long long deadline_ms,
                      struct vpool_error *err)
{
    while (len) {
        if (wait_for(c, POLLOUT, deadline_ms, err))
            return -1;
        ssize_t n = send(c->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return vpool_fail(err, VP_E_CLOSED, "the daemon closed the connection (%s)",
                              strerror(errno));
        text += n;
        len -= (size_t)n;
    }
    return 0;
}

static int make_room(struct vpool_client *c, struct vpool_error *err)
{
    if (c->len < c->capacity)
        return 0;
    size_t capacity = c->capacity ? c->capacity * 2 : 16384;
    char *buf = capacity <= REPLY_MAX ? realloc(c->buf, capacity) : NULL;
    if (!buf)
        return vpool_fail(err, VP_E_NO_MEMORY, "the reply does not fit in memory");
    c->buf = buf;
    c->capacity = capacity;
    return 0;
}

static int receive_some(struct vpool_client *c, long long deadline_ms, struct vpool_error *err)
{
    if (make_room(c, err) || wait_for(c, POLLIN, deadline_ms, err))
        return -1;
    ssize_t n = recv(c->fd, c->buf + c->len, c->capacity - c->len, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return 0;
    if (n <= 0)
        return vpool_fail(err, VP_E_CLOSED, "the daemon closed the connection%s%s",
                          n ? ": " : " before it answered", n ? strerror(errno) : "");
    c->len += (size_t)n;
    return 0;
}

static json_t *receive_frame(struct vpool_client *c, long long deadline_ms, struct vpool_error *err)
{
    size_t looked_at = 0;
    char *newline = NULL;
    while (c->len == looked_at ||
           !(newline = memchr(c->buf + looked_at, '\n', c->len - looked_at))) {
        looked_at = c->len;
        if (receive_some(c, deadline_ms, err))
            return NULL;
    }
    json_error_t why;
    json_t *reply = json_loadb(c->buf, (size_t)(newline - c->buf), 0, &why);
    if (!reply)
        vpool_fail(err, VP_E_RPC_PROTOCOL, "the daemon's reply is not JSON: %s", why.text);
    c->len -= (size_t)(newline + 1 - c->buf);
    memmove(c->buf, newline + 1, c->len);
    return reply;
}

/* ---- calls --------------------------------------------------------------------------------------
 */

static int take_error(const json_t *error, struct vpool_error *err)
{
    const json_t *data = json_object_get(error, "data");
    const char *text = json_string_value(json_object_get(error, "message"));
    const char *name = json_string_value(json_object_get(data, "name"));
    vpool_fail(err, VP_E_RPC_PROTOCOL, "%s", text ? text : "an error without a message");
    if (!err)
        return -1;
    err->rpc_code = (int)json_integer_value(json_object_get(error, "code"));
    err->errnum = (int)json_integer_value(json_object_get(data, "errno"));
    (void)snprintf(err->name, sizeof(err->name), "%s", name ? name : "UNKNOWN");
    return -1;
}

static int exchange(struct vpool_client *c, const char *frame, long long id, json_t **reply,
                    struct vpool_error *err)
{
    long long deadline_ms = now_ms() + c->timeout_ms;
    if (send_frame(c, frame, strlen(frame), deadline_ms, err)) {
        /* The daemon may have said why before it closed. */
        *reply = receive_frame(c, deadline_ms, NULL);
        (void)shutdown(c->fd, SHUT_WR); /* behind half a frame nothing can be sent */
        return *reply ? 0 : -1;
    }
    for (;;) {
        *reply = receive_frame(c, deadline_ms, err);
        if (!*reply)
            return -1;
        const json_t *got = json_object_get(*reply, "id");
        if (json_is_null(got) || json_integer_value(got) == id)
            return 0;
        bool late = json_is_integer(got) && json_integer_value(got) < id;
        json_decref(*reply);
        if (!late) /* else: to an earlier call, which had timed out */
            return vpool_fail(err, VP_E_RPC_PROTOCOL, "the daemon answered another request");
    }
}

/* Takes the reference of params (may be NULL). */
static char *make_frame(const char *method, json_t *params, long long id)
{
    json_t *request =
        json_pack("{s:s, s:I, s:s}", "jsonrpc", "2.0", "id", (json_int_t)id, "method", method);
    if (params && json_object_set_new(request, "params", params)) {
        json_decref(request);
        return NULL;
    }
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    size_t len = text ? strlen(text) : 0;
    char *frame = text ? realloc(text, len + 2) : NULL;
    if (!frame) {
        free(text);
        return NULL;
    }
    memcpy(frame + len, "\n", 2);
    return frame;
}

int vpool_call_json(struct vpool_client *c, const char *method, json_t *params, json_t **result,
                    struct vpool_error *err)
{
    long long id = c->next_id++;
    char *frame = make_frame(method, params, id);
    if (!frame)
        return vpool_fail(err, VP_E_NO_MEMORY, "out of memory, or text that is not UTF-8");
    json_t *reply = NULL;
    int rc = exchange(c, frame, id, &reply, err);
    free(frame);
    if (rc)
        return -1;
    const json_t *error = json_object_get(reply, "error");
    json_t *value = json_object_get(reply, "result");
    if (error || !value)
        rc = error ? take_error(error, err)
                   : vpool_fail(err, VP_E_RPC_PROTOCOL, "the daemon's reply has no result");
    else if (result)
        *result = json_incref(value);
    json_decref(reply);
    return rc;
}

int vpool_call(struct vpool_client *c, const char *method, const char *params, char **result,
               struct vpool_error *err)
{
    json_error_t why;
    json_t *decoded = params ? json_loads(params, JSON_REJECT_DUPLICATES, &why) : NULL;
    if (params && !decoded)
        return vpool_fail(err, VP_E_RPC_PARAMS, "the parameters are not JSON: %s", why.text);
    json_t *value = NULL;
    if (vpool_call_json(c, method, decoded, &value, err))
        return -1;
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
    json_decref(value);
    if (!text)
        return vpool_fail(err, VP_E_NO_MEMORY, "out of memory");
    if (result)
        *result = text;
    else
        free(text);
    return 0;
}
