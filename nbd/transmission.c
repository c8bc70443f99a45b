/*
 * The transmission phase. A connection has these coroutines: the reader (this one, which also ends
 * the connection), the writer (reply.c), one for each request (request.c), and a watcher. The
 * watcher learns at once when the peer hangs up, also while the reader waits for a request or a
 * buffer to come free. Requests that such a client still has queued here must not be executed after
 * they were sent again elsewhere (nbd/README.md, invariant 1).
 */
#include "nbd/connection_impl.h"

#include "base/log.h"
#include "base/verify.h"
#include "io/net.h"

#include <poll.h>
#include <stdlib.h>

/* ---- requests: a fixed number -------------------------------------------------------------- */

static unsigned in_flight(const struct nbdx_connection *c)
{
    return atomic_load_explicit(&c->in_flight, memory_order_relaxed);
}

static void in_flight_set(struct nbdx_connection *c, unsigned n)
{
    atomic_store_explicit(&c->in_flight, n, memory_order_relaxed);
}

/* Waits for one: the connection may be gone afterwards. */
static CO struct nbdx_request *request_get(struct nbdx_connection *c)
{
    while (list_empty(&c->free_requests))
        co_queue_wait(&c->request_queue, "nbd: requests of the connection");
    struct nbdx_request *rq = container_of(list_pop(&c->free_requests), struct nbdx_request, link);
    in_flight_set(c, in_flight(c) + 1);
    rq->parent = NULL;
    rq->pieces = 0;
    rq->error = NBDX_OK;
    rq->more = false;
    return rq;
}

void nbdx_request_free(struct nbdx_request *rq)
{
    struct nbdx_connection *c = rq->conn;
    if (rq->buf)
        nbdx_buffer_put(c, rq->buf, rq->buf_bytes);
    rq->buf = NULL;
    rq->chunks = NULL;
    list_add_head(&c->free_requests, &rq->link);
    in_flight_set(c, in_flight(c) - 1);
    if (!co_queue_is_empty(&c->request_queue))
        co_queue_wake_one(&c->request_queue);
}

static CO void request_run(void *arg)
{
    struct nbdx_request *rq = arg;
    struct nbdx_connection *c = rq->conn;
    nbdx_request_main(rq); /* does not wait after it has let go of the request: c is still there */
    io_share_give(&c->coroutines, 1);
}

/* When the connection may have no further coroutine, or there is none left, the reader serves the
 * request itself: back-pressure. */
static CO void request_start(struct nbdx_request *rq)
{
    struct nbdx_connection *c = rq->conn;
    if (io_share_may_take(&c->coroutines, 1) && !co_spawn(request_run, rq, "nbd-request"))
        io_share_take(&c->coroutines, 1);
    else
        nbdx_request_main(rq);
}

/* ---- states, hanging up -------------------------------------------------------------------- */

void nbdx_connection_move(struct nbdx_connection *c, enum nbdx_connection_state to)
{
    static const unsigned next[] = {
        [NBDX_OPEN] = 1U << NBDX_STOPPING | 1U << NBDX_GONE | 1U << NBDX_ENDING,
        [NBDX_STOPPING] = 1U << NBDX_GONE | 1U << NBDX_ENDING,
        [NBDX_GONE] = 1U << NBDX_ENDING,
        [NBDX_ENDING] = 0,
    };
    VP_VERIFY(next[c->state] & 1U << to, !=, 0U);
    c->state = to;
}

void nbdx_connection_cut(struct nbdx_connection *c)
{
    if (c->state >= NBDX_GONE)
        return;
    nbdx_connection_move(c, NBDX_GONE);
    io_shutdown(c->fd);
    if (c->requests)
        front_client_go(&c->client);
    nbdx_writer_kick(c); /* a part that nobody may follow now */
}

void nbdx_connection_shutdown(struct nbdx_connection *c)
{
    if (c->state >= NBDX_STOPPING)
        return;
    nbdx_connection_move(c, NBDX_STOPPING);
    if (c->requests)
        front_client_leave(&c->client);
}

void nbdx_helper_end(struct nbdx_connection *c)
{
    VP_VERIFY(c->helpers, >, 0U);
    c->helpers--;
    co_queue_wake_all(&c->helpers_queue);
}

static CO void watcher_main(void *arg)
{
    struct nbdx_connection *c = arg;
    unsigned events;
    c->watcher = co_self();
    if (c->state != NBDX_ENDING) {
        int rc = io_poll(c->fd, POLLRDHUP, 0, &events);
        if (rc != VP_E_CANCELLED)
            nbdx_connection_cut(c);
    }
    c->watcher = NULL;
    nbdx_helper_end(c);
}

/* ---- the reader ---------------------------------------------------------------------------- */

struct wire_request {
    uint16_t flags, command;
    struct be64 cookie;
    uint64_t offset, length;
};

static CO int header_read(struct nbdx_connection *c, struct wire_request *w)
{
    const void *p;
    int rc;
    if (c->extended) {
        rc = nbdx_stream_take(&c->in, sizeof(struct nbdx_request_extended), &p);
        if (rc)
            return rc;
        const struct nbdx_request_extended *e = p;
        if (be32_get(e->magic) != NBDX_REQUEST_MAGIC_EXT)
            return VP_E_NBD_PROTOCOL;
        *w = (struct wire_request){be16_get(e->flags), be16_get(e->type), e->cookie,
                                   be64_get(e->offset), be64_get(e->length)};
        return 0;
    }
    rc = nbdx_stream_take(&c->in, sizeof(struct nbdx_request_compact), &p);
    if (rc)
        return rc;
    const struct nbdx_request_compact *r = p;
    if (be32_get(r->magic) != NBDX_REQUEST_MAGIC)
        return VP_E_NBD_PROTOCOL;
    *w = (struct wire_request){be16_get(r->flags), be16_get(r->type), r->cookie,
                               be64_get(r->offset), be32_get(r->length)};
    return 0;
}

/* Receives `len` bytes of payload into a buffer of `rq`, which has passed the volume's front. */
static CO int payload_receive(struct nbdx_request *rq, size_t len)
{
    struct nbdx_connection *c = rq->conn;
    rq->buf_bytes = len;
    rq->buf = nbdx_buffer_get(c, len);
    if (nbdx_is_gone(c))
        return VP_E_CLOSED;
    c->receiving_since_ns = reactor_turn_ns();
    int rc = nbdx_stream_read(&c->in, rq->buf, len);
    c->receiving_since_ns = 0;
    return rc;
}

/* The next piece of a large write, `done` bytes into it. */
static CO int piece_receive(struct nbdx_request *piece, struct nbdx_request *rq, uint64_t done)
{
    struct nbdx_connection *c = rq->conn;
    int rc = done ? front_pass(&c->client) : 0; /* the first was admitted with all */
    if (rc)
        return rc;
    uint64_t len = nbdx_buffer_fit(c, min_u64(rq->length - done, NBDX_PIECE_BYTES), 0);
    piece->parent = rq;
    piece->command = rq->command;
    piece->flags = rq->flags;
    piece->offset = rq->offset + done;
    piece->length = len;
    return payload_receive(piece, len);
}

/* A large write runs in pieces while later ones still arrive. */
static CO int write_in_pieces(struct nbdx_request *rq)
{
    struct nbdx_connection *c = rq->conn;
    int rc = 0;
    rq->pieces = 1;
    for (uint64_t done = 0; done < rq->length && !rc;) {
        struct nbdx_request *piece = request_get(c);
        rc = piece_receive(piece, rq, done);
        if (rc) {
            nbdx_request_free(piece);
            rq->error = NBDX_EIO;
            break;
        }
        done += piece->length;
        rq->pieces++;
        request_start(piece);
    }
    nbdx_request_piece_end(rq);
    return rc;
}

/* Has payload: WRITE always, others when they say so (and are refused). */
static uint64_t payload_of(const struct nbdx_connection *c, const struct wire_request *w)
{
    bool claims = c->extended && (w->flags & NBDX_CMD_FLAG_PAYLOAD_LEN);
    return w->command == NBDX_CMD_WRITE || claims ? w->length : 0;
}

static void request_fill(struct nbdx_request *rq, const struct wire_request *w)
{
    rq->cookie = w->cookie;
    rq->command = w->command;
    rq->flags = w->flags;
    rq->offset = w->offset;
    rq->length = w->length;
    rq->received_ns = rq->conn->in.received_ns;
    figure_add(&rq->conn->figures->requests, 1);
}

/* Brings in the payload and starts (or refuses) the request; `rq` is not the caller's any more. */
static CO int request_accept(struct nbdx_request *rq, uint64_t payload)
{
    struct nbdx_connection *c = rq->conn;
    rq->error = c->state >= NBDX_STOPPING ? NBDX_ESHUTDOWN : nbdx_request_check(rq);
    int rc = 0;
    if (!rq->error && payload) {
        rc = front_admit(&c->client, payload);
        if (rc) {
            nbdx_request_free(rq);
            return rc;
        }
        figure_add(&c->figures->bytes_written, payload);
        if (payload > NBDX_PIECE_BYTES || payload > nbdx_buffer_fit(c, payload, 0))
            return write_in_pieces(rq);
        rc = payload_receive(rq, payload);
    } else if (payload) {
        rc = nbdx_stream_skip(&c->in, payload);
    }
    if (rc)
        nbdx_request_free(rq);
    else if (rq->error)
        nbdx_reply_end(rq);
    else
        request_start(rq);
    return rc;
}

/* Returns why it ended; VP_E_CLOSED with *disconnect when the client said so. */
static CO int reader_loop(struct nbdx_connection *c, bool *disconnect)
{
    for (;;) {
        struct nbdx_request *rq = request_get(c);
        struct wire_request w;
        int rc = nbdx_is_gone(c) ? VP_E_CLOSED : header_read(c, &w);
        if (!rc && w.command == NBDX_CMD_DISC) {
            *disconnect = true;
            rc = VP_E_CLOSED;
        }
        if (!rc && payload_of(c, &w) > NBDX_LENGTH_MAX)
            rc = VP_E_NBD_PROTOCOL;
        if (rc) {
            nbdx_request_free(rq);
            return rc;
        }
        request_fill(rq, &w);
        rc = request_accept(rq, payload_of(c, &w));
        if (rc)
            return rc;
    }
}

/* ---- the connection -------------------------------------------------------------------------- */

static int transmission_init(struct nbdx_connection *c)
{
    list_init(&c->free_requests);
    list_init(&c->replies);
    co_queue_init(&c->request_queue);
    co_queue_init(&c->buffer_queue);
    co_queue_init(&c->helpers_queue);
    front_client_init(&c->client, c->export->front);
    nbdx_figures_join(c);
    c->requests = calloc(c->request_count, sizeof(*c->requests));
    if (!c->requests)
        return VP_E_NO_MEMORY;
    for (unsigned i = 0; i < c->request_count; i++) {
        c->requests[i].conn = c;
        list_add_tail(&c->free_requests, &c->requests[i].link);
    }
    return 0;
}

static int helpers_start(struct nbdx_connection *c)
{
    int rc = co_spawn(nbdx_writer_main, c, "nbd-writer");
    if (rc)
        return rc;
    c->helpers++;
    rc = co_spawn(watcher_main, c, "nbd-watcher");
    if (!rc)
        c->helpers++;
    return rc;
}

static CO void helpers_stop(struct nbdx_connection *c)
{
    nbdx_connection_move(c, NBDX_ENDING);
    nbdx_writer_kick(c);
    if (c->watcher)
        co_cancel(c->watcher);
    while (c->helpers)
        co_queue_wait(&c->helpers_queue, "nbd: helpers of the connection");
}

CO int nbdx_transmission(struct nbdx_connection *c)
{
    int rc = transmission_init(c);
    if (rc)
        return rc;
    nbdx_memory_join(c);
    c->in.deadline_ns = 0;
    bool disconnect = false;
    rc = helpers_start(c);
    if (!rc)
        rc = reader_loop(c, &disconnect);
    /* After DISC the answers that are due are still sent; otherwise nobody reads them. */
    if (!disconnect)
        nbdx_connection_cut(c);
    while (in_flight(c))
        co_queue_wait(&c->request_queue, "nbd: the last requests of the connection");
    helpers_stop(c);
    nbdx_memory_leave(c);
    free(c->requests);
    c->requests = NULL;
    return rc == VP_E_CLOSED || rc == VP_E_CANCELLED ? 0 : rc;
}
