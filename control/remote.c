/* Calls of another daemon's methods (remote.h). */
#include "control/remote.h"

#include "base/bytes.h"
#include "control/peer_protocol.h"
#include "control/rpc.h"
#include "io/net.h"
#include "io/reactor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS_NS     UINT64_C(1000000)
#define REPLY_MAX 65536U /* of a peer method: far less */
#define HELLO_ID  1
#define CALLED_ID 2

int remote_init(struct remote *r, const char *address, struct vp_error *err)
{
    *r = (struct remote){.fd = -1, .next_id = CALLED_ID};
    if (strlen(address) > REMOTE_TEXT_MAX)
        return vp_fail(err, VP_E_INVALID, "the address of the other daemon is longer than %d bytes",
                       REMOTE_TEXT_MAX);
    int rc = nbdx_address_parse(address, &r->address, err);
    if (rc)
        return rc;
    memcpy(r->text, address, strlen(address) + 1);
    co_mutex_init(&r->lock);
    return 0;
}

static void remote_drop(struct remote *r)
{
    if (r->fd >= 0)
        io_close(r->fd);
    r->fd = -1;
}

void remote_fini(struct remote *r)
{
    remote_drop(r);
}

/* ---- lines --------------------------------------------------------------------------------- */

/* A request, ended by a newline; malloc'ed, NULL: no memory. Takes the reference of params. */
static char *request_line(uint64_t id, const char *method, json_t *params)
{
    json_t *request = params ? json_pack("{s:s, s:I, s:s, s:o}", "jsonrpc", "2.0", "id",
                                         (json_int_t)id, "method", method, "params", params)
                             : NULL;
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL, *line = NULL;
    json_decref(request);
    if (text && asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    return line;
}

static char *hello_line(void)
{
    char host[PEER_HOST_BYTES];
    return request_line(
        HELLO_ID, "peer.hello",
        json_pack("{s:i, s:s}", "version", PEER_VERSION, "host", peer_host_own(host)));
}

static CO int connect_to(const struct nbdx_address *a, uint64_t deadline_ns, int *fd,
                         struct vp_error *err)
{
    const char *host = a->host[0] ? a->host : "127.0.0.1";
    int rc = a->kind == NBDX_UNIX ? io_connect_unix(a->path, deadline_ns, fd, err)
                                  : io_connect_tcp(host, a->port, deadline_ns, fd, err);
    return rc && rc != VP_E_NO_MEMORY ? VP_E_PEER_LOST : rc;
}

/* A line that is received. */
struct line {
    char *text; /* `len` bytes, without the newline */
    size_t len;
    bool alone; /* not a byte more is read, since the other side may speak another protocol next */
    bool more;  /* otherwise: something came behind it, which is lost */
};

static CO int line_receive(int fd, struct line *l, size_t size, uint64_t deadline_ns)
{
    size_t have = 0;
    while (have < size) {
        size_t got = 0;
        int rc = io_recv(fd, l->text + have, l->alone ? 1 : size - have, deadline_ns, &got);
        if (rc == 0 && got == 0)
            rc = VP_E_CLOSED;
        if (rc)
            return rc;
        const char *end = memchr(l->text + have, '\n', got);
        have += got;
        if (end) {
            l->len = (size_t)(end - l->text);
            l->more = l->len + 1 < have;
            return 0;
        }
    }
    return VP_E_TOO_BIG;
}

/* What the other daemon refused. */
static int reply_refusal(const json_t *error, struct vp_error *err)
{
    const char *name = json_string_value(json_object_get(json_object_get(error, "data"), "name"));
    const char *text = json_string_value(json_object_get(error, "message"));
    int rc = name ? vp_err_from_name(name) : 0;
    rc = vp_fail(err, rc ? rc : VP_E_IO, "%.400s", text ? text : "it refuses");
    bytes_make_printable(err->text);
    return rc;
}

static int reply_decode(const char *line, size_t len, uint64_t id, json_t **result,
                        struct vp_error *err)
{
    json_t *reply = rpc_frame_is_shallow(line, len)
                        ? json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL)
                        : NULL;
    const json_t *error = json_object_get(reply, "error");
    json_t *value = json_object_get(reply, "result");
    bool is_mine = json_integer_value(json_object_get(reply, "id")) == (json_int_t)id;
    int rc = VP_E_PEER_LOST;
    if (reply && is_mine && error)
        rc = reply_refusal(error, err);
    else if (reply && is_mine && json_is_object(value))
        rc = 0;
    else
        (void)vp_fail(err, rc, "it does not answer as a daemon of vpool does");
    *result = rc ? NULL : json_incref(value);
    json_decref(reply);
    return rc;
}

/* *result: NULL after an error. */
static CO int reply_receive(int fd, uint64_t id, uint64_t deadline_ns, struct line *l,
                            json_t **result, struct vp_error *err)
{
    l->text = malloc(REPLY_MAX);
    *result = NULL;
    if (!l->text)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    int rc = line_receive(fd, l, REPLY_MAX, deadline_ns);
    rc = rc ? vp_fail(err, VP_E_PEER_LOST, "it does not answer: %s", vp_err_text(rc))
            : reply_decode(l->text, l->len, id, result, err);
    free(l->text);
    return rc;
}

/* Sends a line and receives what it is answered. Takes the line; NULL: no memory. */
static CO int exchange(struct remote *r, char *line, uint64_t id, uint64_t deadline_ns,
                       json_t **result, struct vp_error *err)
{
    struct line reply = {0};
    *result = NULL;
    if (!line)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    int rc = io_send_all(r->fd, line, strlen(line), deadline_ns);
    free(line);
    rc = rc ? vp_fail(err, VP_E_PEER_LOST, "it does not listen: %s", vp_err_text(rc))
            : reply_receive(r->fd, id, deadline_ns, &reply, result, err);
    r->said_more = reply.more;
    return rc;
}

/* ---- calls --------------------------------------------------------------------------------- */

static CO int remote_connect(struct remote *r, uint64_t deadline_ns, struct vp_error *err)
{
    json_t *hello;
    if (r->fd >= 0)
        return 0;
    int rc = connect_to(&r->address, deadline_ns, &r->fd, err);
    if (rc)
        return rc;
    rc = exchange(r, hello_line(), HELLO_ID, deadline_ns, &hello, err);
    json_decref(hello);
    if (rc) /* without a hello it is of no use */
        remote_drop(r);
    return rc;
}

CO int remote_call(struct remote *r, const char *method, json_t *params, unsigned timeout_ms,
                   json_t **result, struct vp_error *err)
{
    uint64_t deadline_ns = reactor_now_ns() + timeout_ms * MS_NS;
    *result = NULL;
    co_mutex_lock(&r->lock);
    uint64_t id = r->next_id++;
    char *line = request_line(id, method, params);
    int rc = remote_connect(r, deadline_ns, err);
    if (rc)
        free(line);
    else
        rc = exchange(r, line, id, deadline_ns, result, err);
    /* An answer may still come, or one has come that nobody asked for. */
    if (rc == VP_E_PEER_LOST || rc == VP_E_NO_MEMORY || r->said_more)
        remote_drop(r);
    co_mutex_unlock(&r->lock);
    return rc;
}

/* ---- connections with another purpose ------------------------------------------------------ */

int remote_handover_init(struct remote_handover *h, const struct remote *r, const char *method,
                         json_t *params)
{
    char *hello = hello_line(), *line = request_line(CALLED_ID, method, params);
    *h = (struct remote_handover){.address = r->address};
    if (!hello || !line || asprintf(&h->lines, "%s%s", hello, line) < 0)
        h->lines = NULL;
    free(hello);
    free(line);
    return h->lines ? 0 : VP_E_NO_MEMORY;
}

void remote_handover_fini(struct remote_handover *h)
{
    free(h->lines);
    h->lines = NULL;
}

static CO int handover_call(const struct remote_handover *h, int fd, uint64_t deadline_ns,
                            struct vp_error *err)
{
    struct line reply = {.alone = true};
    json_t *result;
    int rc = io_send_all(fd, h->lines, strlen(h->lines), deadline_ns);
    if (rc)
        return vp_fail(err, VP_E_PEER_LOST, "it does not listen: %s", vp_err_text(rc));
    rc = reply_receive(fd, HELLO_ID, deadline_ns, &reply, &result, err);
    json_decref(result);
    if (rc)
        return rc;
    rc = reply_receive(fd, CALLED_ID, deadline_ns, &reply, &result, err);
    json_decref(result);
    return rc;
}

CO int remote_handover_run(const struct remote_handover *h, unsigned timeout_ms, int *fd,
                           struct vp_error *err)
{
    uint64_t deadline_ns = reactor_now_ns() + timeout_ms * MS_NS;
    int rc = connect_to(&h->address, deadline_ns, fd, err);
    if (rc)
        return rc;
    rc = handover_call(h, *fd, deadline_ns, err);
    if (rc) {
        io_close(*fd);
        *fd = -1;
    }
    return rc;
}
