/*
 * Buffers of payload, and coroutines of requests. There are three bounds: the connection's own
 * bound; the share of the reactor's I/O buffers and coroutines that all NBD connections may hold
 * (half of the buffers, so that the volumes below always find buffers for what they must copy); and
 * what is fair (io/share.h). A buffer counts as the power of two that it takes up.
 *
 * Others decide how long buffers and coroutines are held: a read holds them while its client does
 * not fetch the reply, and a write while its payload does not come or while it waits for space.
 * Only those clients may pay for that:
 *
 * 1. With its guarantee of buffers, NBDX_GUARANTEE bytes, a connection always goes on, because
 *    pieces get smaller (nbdx_buffer_fit) for a connection that holds nothing.
 * 2. Where a connection may have no further coroutine, its reader serves the request itself.
 *
 * A connection waits for others only when there are more connections than the share has guarantees
 * for (128 of 32 MiB), or for an answer that may not be cut into pieces. When it has waited for
 * limits.stall_ms, the connection is hung up whose client has kept it waiting longest, and longer
 * than that. A stalled client that harms nobody is left alone.
 */
#include "nbd/connection_impl.h"

#include "base/log.h"
#include "base/verify.h"
#include "io/buffer.h"

/* One per reactor, that is, per thread. */
static _Thread_local struct {
    struct io_share buffers, coroutines;
    struct co_queue queue; /* for buffers */
    struct list connections;
} reactor_share;

void nbdx_memory_join(struct nbdx_connection *c)
{
    if (!reactor_share.connections.next) {
        list_init(&reactor_share.connections);
        co_queue_init(&reactor_share.queue);
    }
    reactor_share.buffers.max = max_u64(io_buffer_total() / 2, 2 * NBDX_PIECE_BYTES);
    reactor_share.buffers.guarantee = NBDX_GUARANTEE;
    reactor_share.coroutines.max = co_clients_max() / 2;
    reactor_share.coroutines.guarantee = NBDX_GUARANTEE_COROUTINES;
    c->buffers.share = &reactor_share.buffers;
    c->coroutines = (struct io_share_holder){.share = &reactor_share.coroutines, .max = SIZE_MAX};
    list_add_tail(&reactor_share.connections, &c->share_link);
}

void nbdx_memory_leave(struct nbdx_connection *c)
{
    VP_VERIFY(c->buffers.held, ==, (size_t)0);
    VP_VERIFY(c->coroutines.held, ==, (size_t)0);
    list_del(&c->share_link);
}

static uint64_t stalled_since(const struct nbdx_connection *c)
{
    uint64_t s = c->sending_since_ns, r = c->receiving_since_ns;
    return !s || (r && r < s) ? r : s;
}

static void cut_longest_stalled(uint64_t stall_ns)
{
    struct nbdx_connection *c, *worst = NULL;
    list_for_each (c, &reactor_share.connections, share_link) {
        if (!nbdx_is_gone(c) && c->buffers.held && stalled_since(c) &&
            (!worst || stalled_since(c) < stalled_since(worst)))
            worst = c;
    }
    if (!worst || stalled_since(worst) + stall_ns > reactor_now_ns())
        return;
    vp_warn("nbd: %s stalled and held %zu bytes of buffers that others wait for: hung up",
            worst->peer, worst->buffers.held);
    nbdx_connection_cut(worst);
}

static size_t cost_of(size_t len)
{
    return len <= 4096 ? 4096 : (size_t)1 << (64 - __builtin_clzll(len - 1));
}

CO size_t nbdx_buffer_fit(struct nbdx_connection *c, size_t len, size_t extra)
{
    while (c->buffers.held && !io_share_may_take(&c->buffers, cost_of(len + extra)))
        co_queue_wait(&c->buffer_queue, "nbd: buffers of the connection");
    while (len > NBDX_PIECE_MIN_BYTES && !io_share_may_take(&c->buffers, cost_of(len + extra)))
        len = max_u64(cost_of(len) / 2, NBDX_PIECE_MIN_BYTES);
    return len;
}

/* Until something has changed that `c` waits for. */
static CO void buffer_wait(struct nbdx_connection *c)
{
    if (c->buffers.held) {
        co_queue_wait(&c->buffer_queue, "nbd: buffers of the connection");
        return;
    }
    int rc = co_queue_wait_until(&reactor_share.queue, reactor_now_ns() + c->stall_ns,
                                 "nbd: buffers of the reactor");
    if (rc == VP_E_TIMED_OUT)
        cut_longest_stalled(c->stall_ns);
}

CO void *nbdx_buffer_get(struct nbdx_connection *c, size_t len)
{
    size_t cost = cost_of(len);
    VP_VERIFY(cost, <=, 2 * NBDX_PIECE_BYTES);
    while (!io_share_may_take(&c->buffers, cost))
        buffer_wait(c);
    io_share_take(&c->buffers, cost);
    return io_buffer_get(len);
}

void nbdx_buffer_put(struct nbdx_connection *c, void *buf, size_t len)
{
    size_t cost = cost_of(len);
    io_buffer_put(buf, len);
    io_share_give(&c->buffers, cost);
    if (!co_queue_is_empty(&c->buffer_queue))
        co_queue_wake_all(&c->buffer_queue);
    if (!co_queue_is_empty(&reactor_share.queue))
        co_queue_wake_all(&reactor_share.queue);
}
