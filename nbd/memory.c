/*
 * Buffers of payload. Two bounds: a connection's own, and the share that all NBD connections of a
 * reactor may hold of its I/O buffers (half of them), so that the volumes below always find buffers
 * for what they must copy. A buffer counts as the power of two that it takes up.
 *
 * Buffers are held across the network: by a read whose client does not fetch the reply, by a write
 * whose payload does not come. A few such clients could hold the whole share. So when somebody has
 * waited for limits.stall_ms for his share, the connection whose client has kept it waiting
 * longest, and longer than that, is hung up. A stalled client that nobody suffers from is left
 * alone.
 */
#include "nbd/connection_impl.h"

#include "base/log.h"
#include "base/verify.h"
#include "io/buffer.h"

/* One per reactor, that is, per thread. */
static _Thread_local struct {
    size_t used, max;
    struct co_queue queue;
    struct list connections;
} share;

void nbdx_memory_join(struct nbdx_connection *c)
{
    if (!share.connections.next) {
        list_init(&share.connections);
        co_queue_init(&share.queue);
    }
    share.max = max_u64(io_buffer_total() / 2, 2 * NBDX_PIECE_BYTES);
    list_add_tail(&share.connections, &c->share_link);
}

void nbdx_memory_leave(struct nbdx_connection *c)
{
    VP_VERIFY(c->buffer_bytes, ==, (size_t)0);
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
    list_for_each (c, &share.connections, share_link) {
        if (!c->gone && c->buffer_bytes && stalled_since(c) &&
            (!worst || stalled_since(c) < stalled_since(worst)))
            worst = c;
    }
    if (!worst || stalled_since(worst) + stall_ns > reactor_now_ns())
        return;
    vp_warn("nbd: %s stalled and held %zu bytes of buffers that others wait for: hung up",
            worst->peer, worst->buffer_bytes);
    nbdx_connection_cut(worst);
}

static size_t cost_of(size_t len)
{
    return len <= 4096 ? 4096 : (size_t)1 << (64 - __builtin_clzll(len - 1));
}

void *nbdx_buffer_get(struct nbdx_connection *c, size_t len)
{
    size_t cost = cost_of(len);
    VP_VERIFY(cost, <=, 2 * NBDX_PIECE_BYTES);
    for (;;) {
        if (c->buffer_bytes + cost > c->buffer_bytes_max)
            co_queue_wait(&c->buffer_queue, "nbd: buffers of the connection");
        else if (share.used + cost > share.max) {
            int rc = co_queue_wait_until(&share.queue, reactor_now_ns() + c->stall_ns,
                                         "nbd: buffers of the reactor");
            if (rc == VP_E_TIMED_OUT)
                cut_longest_stalled(c->stall_ns);
        } else
            break;
    }
    c->buffer_bytes += cost;
    share.used += cost;
    return io_buffer_get(len);
}

void nbdx_buffer_put(struct nbdx_connection *c, void *buf, size_t len)
{
    size_t cost = cost_of(len);
    io_buffer_put(buf, len);
    VP_VERIFY(c->buffer_bytes, >=, cost);
    c->buffer_bytes -= cost;
    share.used -= cost;
    if (!co_queue_is_empty(&c->buffer_queue))
        co_queue_wake_all(&c->buffer_queue);
    if (!co_queue_is_empty(&share.queue))
        co_queue_wake_all(&share.queue);
}
