/*
 * libnbd in a reactor.
 *
 * libnbd is a state machine. It moves when a request is issued, and when it is told that its socket
 * is readable or writable. It never waits, and says which of the two it waits for. A coroutine, the
 * driver, waits for that in the ring. An issued request is sent at once as far as the socket takes
 * it. When the rest has to wait, libnbd wants to know about more than the driver polls for: then
 * the driver's poll is cut, and begins anew.
 *
 *     link_write ─► nbd_aio_pwrite ─► send            driver: io_poll ─► nbd_aio_notify_read
 *     waits      ◄──────────── call_end ◄─────────────────────────────────────┘
 *
 * 1. Callbacks run inside of libnbd, under its lock. They do not call libnbd, and do not yield.
 * 2. A request's buffer and its link_call are its caller's. libnbd refers to them until the request
 *    is completed, or the handle is closed, which calls no completion. So the end of the connection
 *    (link_end) closes the handle first and only then wakes the callers.
 * 3. link_end never runs inside of libnbd, since no callback calls it and nothing there yields.
 * 4. libnbd closes its descriptor when it thinks fit. A poll in the ring would keep the connection
 *    open beyond that, so libnbd has a duplicate, and link_end shuts the connection down itself.
 * 5. libnbd may only be told that the socket is readable when it is: it reads one answer for each
 *    time that it is told, and has no way back from an attempt in vain.
 */
#include "migrate/link.h"

#include "base/attr.h"
#include "base/list.h"
#include "base/verify.h"
#include "io/net.h"
#include "io/reactor.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* Every server takes requests of this size and alignment, or is refused. */
#define LINK_BLOCK 4096U
/* The largest payload that a server has to take when it does not say (NBD, [Size constraints]). */
#define LINK_PAYLOAD_MAX (UINT32_C(32) << 20)
/* Answers, one after the other, before other coroutines run. A server sends several at once. */
#define LINK_TURN 64U
/* Requests without payload have 32 bits for their length. */
#define LINK_ZERO_MAX (UINT64_C(1) << 30)

struct link {
    struct reactor *reactor;
    struct nbd_handle *nbd; /* NULL: lost                                                */
    int fd;                 /* the connection; libnbd has a duplicate                    */
    uint64_t size;
    bool flushes_all;
    uint32_t payload_max;
    uint64_t bytes; /* payload; where libnbd counts, what it had counted at the end      */
    char why[160];  /* it is lost                                                        */

    struct list calls;  /* issued and not completed                                      */
    struct list landed; /* reads that have an answer: in `notify` only                   */
    unsigned callers;   /* in a request                                                  */
    bool driving, closing;
    struct co *driver;     /* NULL until it runs                                         */
    unsigned polled;       /* events for which it waits in the ring                      */
    struct co_queue ended; /* the driver, or the last of the callers                     */
};

/* One request; on its caller's stack. */
struct link_call {
    struct link *owner;
    struct list link; /* in link.calls or link.landed while it is not done */
    struct co *co;    /* NULL while it does not wait                       */
    int64_t cookie;   /* libnbd's name for it; 0 while it is being issued   */
    bool done;
    int errnum; /* what the server answered, or ENOTCONN */
};

/* ---- the end ------------------------------------------------------------------------------- */

static void call_end(struct link_call *call, int errnum)
{
    list_del(&call->link);
    call->done = true;
    call->errnum = errnum;
    if (call->co)
        co_wake(call->co);
}

/* What was on the wire, where libnbd counts it. */
static uint64_t wire_bytes(const struct link *l)
{
#ifdef LIBNBD_HAVE_NBD_STATS_BYTES_SENT
    if (l->nbd)
        return nbd_stats_bytes_sent(l->nbd) + nbd_stats_bytes_received(l->nbd);
#endif
    return l->bytes;
}

/* The only way to be lost. `why` may be libnbd's own text. */
static void link_end(struct link *l, const char *why)
{
    if (!l->nbd)
        return;
    strncpy(l->why, why, sizeof(l->why) - 1);
    l->bytes = wire_bytes(l);
    nbd_close(l->nbd);
    l->nbd = NULL;
    io_shutdown(l->fd);
    while (!list_empty(&l->calls))
        call_end(list_first(&l->calls, struct link_call, link), ENOTCONN);
    if (l->driver)
        co_cancel(l->driver);
}

void link_cut(struct link *l)
{
    VP_VERIFY(l->reactor, ==, reactor_self());
    link_end(l, "it was cut from this side");
}

bool link_is_lost(const struct link *l)
{
    return !l->nbd;
}

const char *link_why_lost(const struct link *l)
{
    return l->why;
}

/* ---- libnbd's state machine ---------------------------------------------------------------- */

/* For what it waits, as of poll(2). */
static unsigned events_of(struct nbd_handle *nbd)
{
    unsigned direction = nbd_aio_get_direction(nbd);
    return (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0U) |
           (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0U);
}

/* Why it ended; NULL while it has not. Call it before the next call of libnbd. */
static const char *end_of(struct nbd_handle *nbd)
{
    if (nbd_aio_is_closed(nbd))
        return "the other side closed the connection";
    if (!nbd_aio_is_dead(nbd))
        return events_of(nbd) ? NULL : "libnbd waits for nothing any more";
    const char *text = nbd_get_error();
    const char *colon = text ? strstr(text, ": ") : NULL; /* behind the name of a function */
    return colon ? colon + 2 : "libnbd does not say why";
}

/* Whether the answer to a read was whole, only nbd_aio_command_completed says. */
static void landed_end(struct link *l)
{
    while (!list_empty(&l->landed)) {
        struct link_call *call = list_first(&l->landed, struct link_call, link);
        bool whole = nbd_aio_command_completed(l->nbd, (uint64_t)call->cookie) == 1;
        call_end(call, whole ? 0 : EIO);
    }
}

/* Tells it what a poll has found; errors too, since a receive or a send sees them. */
static void notify(struct link *l, unsigned revents)
{
    unsigned wants = events_of(l->nbd);
    int rc = 0;
    if (wants & POLLIN && revents & ~(unsigned)POLLOUT)
        rc = nbd_aio_notify_read(l->nbd);
    else if (wants & POLLOUT)
        rc = nbd_aio_notify_write(l->nbd);
    vp_ignore(rc, "end_of tells");
    landed_end(l);
}

/* As long as there is more to do, but not for longer than others can wait. */
static void attend(struct link *l, unsigned revents)
{
    for (unsigned n = 0; revents && n < LINK_TURN; n++) {
        notify(l, revents);
        const char *why = end_of(l->nbd);
        if (why) {
            link_end(l, why);
            return;
        }
        revents = io_ready(l->fd, events_of(l->nbd));
    }
}

/* The coroutine that waits for the connection. */
static CO void driver_main(void *arg)
{
    struct link *l = arg;
    l->driver = co_self();
    while (l->nbd && !l->closing) {
        unsigned revents;
        l->polled = events_of(l->nbd);
        int rc = io_poll(l->fd, l->polled, 0, &revents);
        l->polled = 0;
        if (!l->nbd)
            break;
        if (rc == 0)
            attend(l, revents);
        else if (rc != VP_E_CANCELLED)
            link_end(l, vp_err_text(rc));
    }
    l->driver = NULL;
    l->driving = false;
    co_queue_wake_all(&l->ended);
}

/* ---- requests ------------------------------------------------------------------------------ */

enum request_kind { LINK_WRITE, LINK_READ, LINK_ZERO, LINK_FLUSH };

struct request {
    enum request_kind kind;
    uint64_t offset, len;
    void *buf;
};

/* Inside of libnbd; 1: it frees its command now. A command that is still being issued it reads once
 * more (1.14: for the cookie), so that one is left to nbd_close. */
static int on_completion(void *arg, int *error)
{
    struct link_call *call = arg;
    call_end(call, *error);
    return call->cookie ? 1 : 0;
}

/* The same; libnbd keeps a read that has data until landed_end. */
static int on_read(void *arg, int *error)
{
    struct link_call *call = arg;
    if (*error)
        return on_completion(call, error);
    list_del(&call->link);
    list_add_tail(&call->owner->landed, &call->link);
    return 0;
}

/* The cookie, or -1. */
static int64_t issue(struct nbd_handle *nbd, const struct request *rq, struct link_call *call)
{
    nbd_completion_callback done = {.callback = rq->kind == LINK_READ ? on_read : on_completion,
                                    .user_data = call};
    switch (rq->kind) {
    case LINK_WRITE:
        return nbd_aio_pwrite(nbd, rq->buf, rq->len, rq->offset, done, 0);
    case LINK_READ:
        return nbd_aio_pread(nbd, rq->buf, rq->len, rq->offset, done, 0);
    case LINK_ZERO:
        return nbd_aio_zero(nbd, rq->len, rq->offset, done, 0);
    case LINK_FLUSH:
        return nbd_aio_flush(nbd, done, 0);
    }
    return -1;
}

static int code_of(int errnum)
{
    switch (errnum) {
    case ENOTCONN:
    case ESHUTDOWN:
        return VP_E_PEER_LOST;
    case EOVERFLOW:
        return VP_E_TOO_BIG;
    default:
        return vp_err_from_errno(errnum);
    }
}

/* After a request was issued: is the connection still there, and does the driver poll for all? */
static void look_after(struct link *l)
{
    const char *why = end_of(l->nbd);
    if (why)
        link_end(l, why);
    else if (l->polled && events_of(l->nbd) & ~l->polled)
        co_cancel(l->driver);
}

/* One request that the server takes at once. */
static CO int request_run(struct link *l, const struct request *rq)
{
    struct link_call call = {.owner = l};
    list_add_tail(&l->calls, &call.link);
    call.cookie = issue(l->nbd, rq, &call);
    if (call.cookie < 0 && !call.done) {
        int errnum = nbd_get_errno();
        call_end(&call, errnum ? errnum : EIO);
    }
    look_after(l);
    if (!call.done) {
        call.co = co_self();
        co_suspend("link: the answer of the other daemon");
    }
    if (call.errnum == ESHUTDOWN)
        link_end(l, "the other side shuts down");
    if (call.errnum)
        return code_of(call.errnum);
#ifndef LIBNBD_HAVE_NBD_STATS_BYTES_SENT
    if (rq->kind == LINK_READ || rq->kind == LINK_WRITE)
        l->bytes += rq->len;
#endif
    return 0;
}

/* In parts of at most `part` bytes. */
static CO int request_split(struct link *l, struct request whole, uint64_t part)
{
    VP_VERIFY(l->reactor, ==, reactor_self());
    if (!l->nbd)
        return VP_E_PEER_LOST;
    if (whole.offset > l->size || whole.len > l->size - whole.offset)
        return VP_E_RANGE;
    int rc = 0;
    l->callers++;
    while (whole.len > 0 && rc == 0) {
        struct request rq = whole;
        rq.len = whole.len < part ? whole.len : part;
        rc = l->nbd ? request_run(l, &rq) : VP_E_PEER_LOST;
        whole.offset += rq.len;
        whole.len -= rq.len;
        if (whole.buf)
            whole.buf = (unsigned char *)whole.buf + rq.len;
    }
    if (--l->callers == 0)
        co_queue_wake_all(&l->ended);
    return rc;
}

CO int link_write(struct link *l, uint64_t offset, uint64_t len, const void *buf)
{
    /* libnbd only reads the buffer of a write. */
    struct request rq = {LINK_WRITE, offset, len, (void *)(uintptr_t)buf};
    return request_split(l, rq, l->payload_max);
}

CO int link_read(struct link *l, uint64_t offset, uint64_t len, void *buf)
{
    return request_split(l, (struct request){LINK_READ, offset, len, buf}, l->payload_max);
}

CO int link_zero(struct link *l, uint64_t offset, uint64_t len)
{
    return request_split(l, (struct request){LINK_ZERO, offset, len, NULL}, LINK_ZERO_MAX);
}

CO int link_flush(struct link *l)
{
    VP_VERIFY(l->reactor, ==, reactor_self());
    if (!l->nbd)
        return VP_E_PEER_LOST;
    l->callers++;
    int rc = request_run(l, &(struct request){.kind = LINK_FLUSH});
    if (--l->callers == 0)
        co_queue_wake_all(&l->ended);
    return rc;
}

uint64_t link_size(const struct link *l)
{
    return l->size;
}

bool link_flushes_all(const struct link *l)
{
    return l->flushes_all;
}

uint64_t link_bytes(const struct link *l)
{
    return wire_bytes(l);
}

/* ---- begin and end ------------------------------------------------------------------------- */

static int open_failed(struct vp_error *err, int rc, const char *what)
{
    return vp_fail(err, rc, "no NBD connection to the other daemon: %s", what);
}

/* libnbd's text could show the export's name, which may hold a secret, only for an unknown one. */
static int handshake_failed(const struct link *l, const char *why, struct vp_error *err)
{
    switch (nbd_aio_is_dead(l->nbd) ? nbd_get_errno() : 0) {
    case ENOENT:
        return open_failed(err, VP_E_NOT_FOUND, "it does not know this export");
    case ENOMEM:
        return open_failed(err, VP_E_NO_MEMORY, why);
    case ENOTSUP:
        return open_failed(err, VP_E_NOT_SUPPORTED, why);
    default:
        return open_failed(err, VP_E_PEER_LOST, why);
    }
}

/* Until requests can be sent. */
static CO int handshake(struct link *l, uint64_t deadline_ns, struct vp_error *err)
{
    while (!nbd_aio_is_ready(l->nbd)) {
        unsigned revents;
        const char *why = end_of(l->nbd);
        if (why)
            return handshake_failed(l, why, err);
        int rc = io_poll(l->fd, events_of(l->nbd), deadline_ns, &revents);
        if (rc)
            return open_failed(err, rc,
                               rc == VP_E_TIMED_OUT ? "no answer in time" : vp_err_text(rc));
        notify(l, revents);
    }
    return 0;
}

static int take_over_limits(struct link *l, struct vp_error *err)
{
    int64_t size = nbd_get_size(l->nbd);
    int64_t least = nbd_get_block_size(l->nbd, LIBNBD_SIZE_MINIMUM);
    int64_t most = nbd_get_block_size(l->nbd, LIBNBD_SIZE_MAXIMUM);
    if (size < 0 || least < 0 || most < 0)
        return open_failed(err, VP_E_NOT_SUPPORTED, "its export has no size, or is too large");
    if (most == 0 || most > LINK_PAYLOAD_MAX)
        most = LINK_PAYLOAD_MAX;
    if (least > LINK_BLOCK || most < LINK_BLOCK)
        return open_failed(err, VP_E_NOT_SUPPORTED, "it does not take requests of 4096 bytes");
    if (nbd_can_flush(l->nbd) != 1 || nbd_can_zero(l->nbd) != 1)
        return open_failed(err, VP_E_NOT_SUPPORTED, "it lacks FLUSH or WRITE_ZEROES");
    l->size = (uint64_t)size;
    l->flushes_all = nbd_can_multi_conn(l->nbd) == 1;
    l->payload_max = (uint32_t)most / LINK_BLOCK * LINK_BLOCK;
    return 0;
}

/* libnbd takes a duplicate of the descriptor, and begins. */
static int handle_new(struct link *l, const char *export_name, struct vp_error *err)
{
    l->nbd = nbd_create();
    if (!l->nbd)
        return open_failed(err, VP_E_NO_MEMORY, "no memory");
    if (nbd_set_export_name(l->nbd, export_name) != 0)
        return open_failed(err, nbd_get_errno() == ENOMEM ? VP_E_NO_MEMORY : VP_E_INVALID,
                           "the name of the export cannot be sent");
    int duplicate = fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate < 0)
        return open_failed(err, VP_E_SYSTEM, "no descriptor is left");
    vp_ignore(nbd_aio_connect_socket(l->nbd, duplicate), "end_of tells; it owns the duplicate");
    return 0;
}

CO int link_open(int fd, const char *export_name, uint64_t deadline_ns, struct link **out,
                 struct vp_error *err)
{
    struct link *l = calloc(1, sizeof(*l));
    if (!l) {
        io_close(fd);
        return open_failed(err, VP_E_NO_MEMORY, "no memory");
    }
    l->reactor = reactor_self();
    l->fd = fd;
    list_init(&l->calls);
    list_init(&l->landed);
    co_queue_init(&l->ended);
    int rc = handle_new(l, export_name, err);
    if (rc == 0)
        rc = handshake(l, deadline_ns, err);
    if (rc == 0)
        rc = take_over_limits(l, err);
    if (rc == 0) {
        rc = co_spawn(driver_main, l, "link");
        l->driving = rc == 0;
        if (rc)
            vp_ignore(open_failed(err, rc, vp_err_text(rc)), "returned below");
    }
    if (rc) {
        link_close(l);
        return rc;
    }
    *out = l;
    return 0;
}

CO void link_close(struct link *l)
{
    if (!l)
        return;
    VP_VERIFY_TRUE(list_empty(&l->calls));
    if (l->nbd && nbd_aio_is_ready(l->nbd))
        vp_ignore(nbd_aio_disconnect(l->nbd, 0), "the end of the connection says the same");
    link_end(l, "it was closed from this side");
    l->closing = true;
    while (l->driving || l->callers) {
        if (l->driver)
            co_cancel(l->driver);
        co_queue_wait(&l->ended, "link: its driver and its callers");
    }
    io_close(l->fd);
    free(l);
}
