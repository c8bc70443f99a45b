/*
 * Socket operations as ring requests.
 *
 * A deadline or co_cancel can end the wait of a coroutine for such an operation. The kernel may be
 * using the buffer at that moment. So the request is cancelled in the ring, and the coroutine still
 * waits for its completion. What the request brought all the same (bytes, a connection) is its
 * result and is not lost.
 */
#include "io/net.h"

#include "base/verify.h"
#include "io/reactor_impl.h"
#include "io/ring_impl.h"
#include "io/sanitize_impl.h"

#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum net_kind { NET_ACCEPT, NET_RECV, NET_SEND, NET_POLL };

/* On the stack of the coroutine that waits. */
struct net_op {
    struct ring_req req, cancel_req;
    enum net_kind kind;
    int fd;
    void *buf;
    size_t len;
    int flags;
    struct msghdr msg;
    unsigned events;

    struct co *co;
    struct timer timer;
    unsigned pending; /* ring requests: this one, and its cancellation */
    int res;          /* of the kernel                                 */
    int cut_rc;       /* why it was cut short                          */
};

static void net_prep(struct ring_req *req, struct io_uring_sqe *sqe)
{
    struct net_op *op = container_of(req, struct net_op, req);
    switch (op->kind) {
    case NET_ACCEPT:
        io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_CLOEXEC);
        break;
    case NET_RECV:
        io_uring_prep_recv(sqe, op->fd, op->buf, op->len, op->flags);
        break;
    case NET_SEND:
        io_uring_prep_sendmsg(sqe, op->fd, &op->msg, (unsigned)op->flags);
        break;
    case NET_POLL:
        io_uring_prep_poll_add(sqe, op->fd, op->events);
        break;
    }
}

/* From the wake-up on nothing may cut the request: the coroutine runs later in this turn or in the
 * next one, behind due timers, and then its stack is used for something else. */
static void net_finish(struct net_op *op)
{
    if (op->pending > 0)
        return;
    timer_disarm(&op->timer);
    co_wake(op->co);
}

static void net_done(struct ring_req *req, int res)
{
    struct net_op *op = container_of(req, struct net_op, req);
    op->res = res;
    if (op->kind == NET_RECV && res > 0)
        san_kernel_wrote(op->buf, (size_t)res);
    op->pending--;
    net_finish(op);
}

static void cancel_prep(struct ring_req *req, struct io_uring_sqe *sqe)
{
    ring_prep_cancel(sqe, &container_of(req, struct net_op, cancel_req)->req);
}

static void cancel_done(struct ring_req *req, int res)
{
    struct net_op *op = container_of(req, struct net_op, cancel_req);
    (void)res; /* cancelled, or too late: the request's own completion tells */
    op->pending--;
    net_finish(op);
}

static void net_cut(struct net_op *op, int rc)
{
    if (op->cut_rc != 0)
        return; /* once is enough */
    op->cut_rc = rc;
    struct ring *ring = reactor_current->ring;
    if (ring_withdraw(ring, &op->req)) {
        op->res = -ECANCELED;
        op->pending--;
        net_finish(op);
        return;
    }
    op->pending++;
    ring_submit_free(ring, &op->cancel_req);
}

static void net_timeout(struct timer *t)
{
    net_cut(container_of(t, struct net_op, timer), VP_E_TIMED_OUT);
}

static void net_cancel(void *arg)
{
    net_cut(arg, VP_E_CANCELLED);
}

/* Runs the request. Its result or the negative errno is in op->res. When a deadline or a
 * cancellation ended the request, that reason is returned. */
static CO int net_run(struct net_op *op, uint64_t deadline_ns, const char *why)
{
    VP_VERIFY(reactor_current->ring, !=, NULL); /* a simulated world has no sockets */
    op->req.prep = net_prep;
    op->req.done = net_done;
    op->cancel_req.prep = cancel_prep;
    op->cancel_req.done = cancel_done;
    list_init(&op->cancel_req.link);
    op->co = co_self();
    op->cut_rc = 0;
    timer_init(&op->timer, net_timeout);
    do {
        op->pending = 1;
        ring_submit_free(reactor_current->ring, &op->req);
        if (deadline_ns)
            timer_arm(&op->timer, deadline_ns);
        co_suspend_cancellable(why, net_cancel, op);
    } while (op->cut_rc == 0 && (op->res == -EINTR || op->res == -EAGAIN));
    if (op->res >= 0)
        return 0;
    if (op->cut_rc != 0 && (op->res == -ECANCELED || op->res == -EINTR || op->res == -EAGAIN))
        return op->cut_rc;
    return vp_err_from_errno(-op->res);
}

/* ---- net.h --------------------------------------------------------------------------------- */

CO int io_accept(int listen_fd, uint64_t deadline_ns, int *out_fd)
{
    for (;;) {
        struct net_op op = {.kind = NET_ACCEPT, .fd = listen_fd};
        int rc = net_run(&op, deadline_ns, "accept");
        if (op.res == -ECONNABORTED)
            continue; /* that client is gone; the next one please */
        if (rc == 0)
            *out_fd = op.res;
        return rc;
    }
}

static CO int recv_some(int fd, void *buf, size_t len, int flags, uint64_t deadline_ns, size_t *got,
                        bool *cut)
{
    struct net_op op = {.kind = NET_RECV, .fd = fd, .buf = buf, .len = len, .flags = flags};
    int rc = net_run(&op, deadline_ns, "recv");
    *got = rc == 0 ? (size_t)op.res : 0;
    *cut = op.cut_rc != 0;
    if (rc == 0 && *cut && op.res > 0)
        return flags & MSG_WAITALL && (size_t)op.res < len ? op.cut_rc : 0;
    return rc;
}

CO int io_recv(int fd, void *buf, size_t len, uint64_t deadline_ns, size_t *got)
{
    bool cut;
    return recv_some(fd, buf, len, 0, deadline_ns, got, &cut);
}

CO int io_recv_all(int fd, void *buf, size_t len, uint64_t deadline_ns)
{
    unsigned char *p = buf;
    while (len > 0) {
        size_t got;
        bool cut;
        int rc = recv_some(fd, p, len, MSG_WAITALL, deadline_ns, &got, &cut);
        if (rc != 0)
            return rc;
        if (got == 0)
            return VP_E_CLOSED;
        p += got;
        len -= got;
    }
    return 0;
}

/* Drops what was sent from the front of the vector. */
static void iov_advance(struct iovec **iov, unsigned *count, size_t sent)
{
    while (*count > 0 && sent >= (*iov)->iov_len) {
        sent -= (*iov)->iov_len;
        ++*iov;
        --*count;
    }
    if (sent > 0) {
        (*iov)->iov_base = (unsigned char *)(*iov)->iov_base + sent;
        (*iov)->iov_len -= sent;
    }
}

static unsigned iov_limit(unsigned count)
{
    return count < IOV_MAX ? count : IOV_MAX;
}

/* What the socket's buffer takes at once needs no ring request, and that is most answers. Errors
 * are left to the ring request that follows. */
static void send_at_once(int fd, struct iovec **iov, unsigned *count)
{
    ssize_t sent;
    do {
        struct msghdr msg = {.msg_iov = *iov, .msg_iovlen = iov_limit(*count)};
        sent = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0)
            iov_advance(iov, count, (size_t)sent);
    } while (sent > 0 && *count > 0);
}

CO int io_sendv_all(int fd, struct iovec *iov, unsigned iov_count, uint64_t deadline_ns)
{
    iov_advance(&iov, &iov_count, 0);           /* empty ones in front */
    VP_VERIFY(reactor_current->ring, !=, NULL); /* a simulated world has no sockets */
    if (iov_count > 0)
        send_at_once(fd, &iov, &iov_count);
    while (iov_count > 0) {
        struct net_op op = {.kind = NET_SEND, .fd = fd, .flags = MSG_NOSIGNAL | MSG_WAITALL};
        op.msg.msg_iov = iov;
        op.msg.msg_iovlen = iov_limit(iov_count);
        int rc = net_run(&op, deadline_ns, "send");
        if (rc != 0)
            return rc;
        iov_advance(&iov, &iov_count, (size_t)op.res);
        if (op.cut_rc != 0 && iov_count > 0)
            return op.cut_rc;
    }
    return 0;
}

CO int io_send_all(int fd, const void *buf, size_t len, uint64_t deadline_ns)
{
    struct iovec iov = {(void *)(uintptr_t)buf, len};
    return io_sendv_all(fd, &iov, 1, deadline_ns);
}

CO int io_poll(int fd, unsigned events, uint64_t deadline_ns, unsigned *revents)
{
    struct net_op op = {.kind = NET_POLL, .fd = fd, .events = events};
    int rc = net_run(&op, deadline_ns, "poll");
    *revents = rc == 0 ? (unsigned)op.res : 0;
    return rc;
}

unsigned io_ready(int fd, unsigned events)
{
    struct pollfd p = {.fd = fd, .events = (short)events};
    return poll(&p, 1, 0) > 0 ? (unsigned)p.revents : 0;
}

void io_shutdown(int fd)
{
    (void)shutdown(fd, SHUT_RDWR); /* not connected any more: as wanted */
}

void io_close(int fd)
{
    close(fd);
}
