/*
 * Buffers of payload. Three bounds: a connection's own; the share that all NBD connections of a
 * reactor may hold of its I/O buffers (half of them), so that the volumes below always find buffers
 * for what they must copy; and what is fair. A buffer counts as the power of two that it takes up.
 *
 * Buffers are held for as long as others decide: by a read whose client does not fetch the reply, by
 * a write whose payload does not come, by a write that waits for space. So that only those clients
 * pay for it:
 *
 * 1. Half of the share is for guarantees, NBDX_GUARANTEE bytes for each connection. With them it
 *    always goes on, because pieces get smaller (nbdx_buffer_fit) for a connection that holds nothing.
 * 2. Of the other half a connection takes at most as much as is left for the others afterwards. So
 *    a few connections never use it up.
 * 3. A connection that holds buffers waits for its own ones only, and is not woken for others'.
 *
 * Only with more connections than the share has guarantees for (128 of 32 MiB), and for an answer that may not be
 * cut into pieces, is it others that a connection waits for. When it has waited for limits.stall_ms,
 * the connection whose client has kept it waiting longest, and longer than that, is hung up. A
 * stalled client that nobody suffers from is left alone.
 */
#include "nbd/connection_impl.h"

#include "base/log.h"
#include "base/verify.h"
#include "io/buffer.h"

/* One per reactor, that is, per thread. */
static _Thread_local struct {
    size_t used, max;
    size_t extra; /* what connections hold beyond their guarantee, together */
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

static size_t extra_of(size_t bytes)
{
    return bytes > NBDX_GUARANTEE ? bytes - NBDX_GUARANTEE : 0;
}

static bool may_take(const struct nbdx_connection *c, size_t cost)
{
    size_t extra = extra_of(c->buffer_bytes + cost);
    size_t of_others = share.extra - extra_of(c->buffer_bytes);
    return c->buffer_bytes + cost <= c->buffer_bytes_max && share.used + cost <= share.max &&
           (!extra || of_others + 2 * extra <= share.max / 2);
}

size_t nbdx_buffer_fit(struct nbdx_connection *c, size_t len, size_t extra)
{
    while (c->buffer_bytes && !may_take(c, cost_of(len + extra)))
        co_queue_wait(&c->buffer_queue, "nbd: buffers of the connection");
    while (len > NBDX_PIECE_MIN_BYTES && !may_take(c, cost_of(len + extra)))
        len = max_u64(cost_of(len) / 2, NBDX_PIECE_MIN_BYTES);
    return len;
}

/* Until something has changed that `c` waits for. */
static CO void buffer_wait(struct nbdx_connection *c)
{
    if (c->buffer_bytes) {
        co_queue_wait(&c->buffer_queue, "nbd: buffers of the connection");
        return;
    }
    int rc = co_queue_wait_until(&share.queue, reactor_now_ns() + c->stall_ns,
                                 "nbd: buffers of the reactor");
    if (rc == VP_E_TIMED_OUT)
        cut_longest_stalled(c->stall_ns);
}

static void buffer_count(struct nbdx_connection *c, size_t bytes)
{
    share.used += bytes - c->buffer_bytes;
    share.extra += extra_of(bytes) - extra_of(c->buffer_bytes);
    c->buffer_bytes = bytes;
}

void *nbdx_buffer_get(struct nbdx_connection *c, size_t len)
{
    size_t cost = cost_of(len);
    VP_VERIFY(cost, <=, 2 * NBDX_PIECE_BYTES);
    while (!may_take(c, cost))
        buffer_wait(c);
    buffer_count(c, c->buffer_bytes + cost);
    return io_buffer_get(len);
}

void nbdx_buffer_put(struct nbdx_connection *c, void *buf, size_t len)
{
    size_t cost = cost_of(len);
    io_buffer_put(buf, len);
    VP_VERIFY(c->buffer_bytes, >=, cost);
    buffer_count(c, c->buffer_bytes - cost);
    if (!co_queue_is_empty(&c->buffer_queue))
        co_queue_wake_all(&c->buffer_queue);
    if (!co_queue_is_empty(&share.queue))
        co_queue_wake_all(&share.queue);
}
