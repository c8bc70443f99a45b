/*
 * The outgoing half of a connection. A request that has an answer puts it into the queue. One
 * coroutine, the writer, sends everything that is queued with one sendmsg. The writer is woken
 * behind the requests that completed in the same turn of the loop, so their answers travel
 * together.
 *
 * The data of a simple reply must follow its header with nothing between. A large read is answered
 * in parts, so from its first part to its last it has the stream to itself (`exclusive`). It
 * already holds the buffer that it needs, so it waits for no request that waits for the stream.
 */
#include "nbd/connection_impl.h"

#include "base/verify.h"
#include "io/net.h"

/* One sendmsg at most carries this and one more part; a stall is measured over it. */
#define BATCH_BYTES ((size_t)2 << 20)

/* ---- the queue ----------------------------------------------------------------------------- */

/* Nothing comes between the parts of an answer. */
static bool may_be_sent(const struct nbdx_connection *c, const struct nbdx_request *rq)
{
    return !c->exclusive || rq == c->exclusive || nbdx_is_gone(c);
}

static bool something_to_send(const struct nbdx_connection *c)
{
    return !list_empty(&c->replies) &&
           may_be_sent(c, list_first(&c->replies, struct nbdx_request, link));
}

void nbdx_writer_kick(struct nbdx_connection *c)
{
    if (c->writer_idle) {
        c->writer_idle = false;
        co_wake(c->writer);
    }
}

static void reply_queue(struct nbdx_request *rq)
{
    struct nbdx_connection *c = rq->conn;
    if (c->exclusive == rq)
        list_add_head(&c->replies, &rq->link);
    else
        list_add_tail(&c->replies, &rq->link);
    nbdx_writer_kick(c);
}

/* Queues a part; when it is not the last, returns once it is sent and the request lives on. */
static CO void reply_part(struct nbdx_request *rq, bool last)
{
    rq->waiter = last ? NULL : co_self();
    reply_queue(rq);
    if (!last)
        co_suspend("nbd: a part of a reply");
}

/* Takes replies off the queue into c->batch. */
static unsigned batch_collect(struct nbdx_connection *c, struct list *taken)
{
    unsigned n = 0;
    size_t bytes = 0;
    struct nbdx_request *rq;
    list_for_each (rq, &c->replies, link) {
        if (!may_be_sent(c, rq) || bytes >= BATCH_BYTES || n + rq->iov_count > NBDX_BATCH_IOV)
            break;
        for (unsigned i = 0; i < rq->iov_count; i++) {
            bytes += rq->iov[i].iov_len;
            c->batch[n++] = rq->iov[i];
        }
        c->exclusive = rq->more ? rq : NULL;
    }
    list_cut_head(&c->replies, &rq->link, taken);
    return n;
}

/* The kernel has all of the answer at `now`. */
static void answer_count(const struct nbdx_connection *c, const struct nbdx_request *rq,
                         uint64_t now)
{
    struct histogram *h = rq->command < NBDX_COMMANDS ? c->latency[rq->command] : NULL;
    if (h)
        histogram_add(h, now - rq->received_ns);
}

/* They were sent, or nobody is there. */
static void batch_end(const struct nbdx_connection *c, const struct list *taken, bool sent)
{
    struct nbdx_request *rq, *next;
    uint64_t now = reactor_turn_ns();
    list_for_each_safe (rq, next, taken, link) {
        struct co *waiter = rq->waiter;
        if (waiter) {
            rq->waiter = NULL;
            co_wake(waiter);
            continue;
        }
        if (sent)
            answer_count(c, rq, now);
        nbdx_request_free(rq);
    }
}

static CO void batch_send(struct nbdx_connection *c)
{
    struct list taken;
    unsigned n = batch_collect(c, &taken);
    int rc = VP_E_CLOSED;
    if (!nbdx_is_gone(c)) {
        c->sending_since_ns = reactor_turn_ns();
        rc = io_sendv_all(c->fd, c->batch, n, 0);
        c->sending_since_ns = 0;
        if (rc)
            nbdx_connection_cut(c);
    }
    batch_end(c, &taken, !rc);
}

CO void nbdx_writer_main(void *arg)
{
    struct nbdx_connection *c = arg;
    c->writer = co_self();
    for (;;) {
        while (!something_to_send(c) && c->state != NBDX_ENDING) {
            c->writer_idle = true;
            co_suspend("nbd: replies");
        }
        if (!something_to_send(c))
            break;
        batch_send(c);
    }
    nbdx_helper_end(c);
}

/* ---- what replies look like ---------------------------------------------------------------- */

/* Appends a piece to the reply; the header pieces point into the request. */
static void iov_add(struct nbdx_request *rq, void *base, size_t len)
{
    rq->iov[rq->iov_count++] = (struct iovec){base, len};
}

static size_t simple_header(const struct nbdx_request *rq, void *to)
{
    *(struct nbdx_simple_reply *)to = (struct nbdx_simple_reply){be32_make(NBDX_SIMPLE_REPLY_MAGIC),
                                                                 be32_make(rq->error), rq->cookie};
    return sizeof(struct nbdx_simple_reply);
}

static size_t chunk_header(const struct nbdx_request *rq, void *to, bool done, unsigned type,
                           uint64_t len)
{
    struct be16 flags = be16_make(done ? NBDX_REPLY_FLAG_DONE : 0);
    if (rq->conn->extended) {
        *(struct nbdx_extended_reply *)to =
            (struct nbdx_extended_reply){be32_make(NBDX_EXTENDED_REPLY_MAGIC),
                                         flags,
                                         be16_make((uint16_t)type),
                                         rq->cookie,
                                         be64_make(rq->offset),
                                         be64_make(len)};
        return sizeof(struct nbdx_extended_reply);
    }
    *(struct nbdx_structured_reply *)to = (struct nbdx_structured_reply){
        be32_make(NBDX_STRUCTURED_REPLY_MAGIC), flags, be16_make((uint16_t)type), rq->cookie,
        be32_make((uint32_t)len)};
    return sizeof(struct nbdx_structured_reply);
}

/* Which replies may not be simple: [Structured reply chunk message]. */
static bool must_be_chunks(const struct nbdx_request *rq)
{
    return rq->conn->extended || (rq->conn->structured && (rq->command == NBDX_CMD_READ ||
                                                           rq->command == NBDX_CMD_BLOCK_STATUS));
}

void nbdx_reply_end(struct nbdx_request *rq)
{
    if (rq->error)
        figure_add(&rq->conn->figures->errors, 1);
    rq->more = false;
    rq->iov = rq->own_iov;
    rq->iov_count = 0;
    size_t n;
    if (!must_be_chunks(rq)) {
        n = simple_header(rq, rq->header);
    } else if (rq->error) {
        n = chunk_header(rq, rq->header, true, NBDX_REPLY_TYPE_ERROR,
                         sizeof(struct nbdx_chunk_error));
        *(struct nbdx_chunk_error *)(rq->header + n) =
            (struct nbdx_chunk_error){be32_make(rq->error), be16_make(0)};
        n += sizeof(struct nbdx_chunk_error);
    } else {
        n = chunk_header(rq, rq->header, true, NBDX_REPLY_TYPE_NONE, 0);
    }
    iov_add(rq, rq->header, n);
    reply_queue(rq);
}

CO void nbdx_reply_data(struct nbdx_request *rq, uint64_t offset, size_t len, bool first, bool last)
{
    rq->iov = rq->own_iov;
    rq->iov_count = 0;
    if (must_be_chunks(rq)) {
        size_t n = chunk_header(rq, rq->header, last, NBDX_REPLY_TYPE_OFFSET_DATA,
                                sizeof(struct nbdx_chunk_data) + len);
        *(struct nbdx_chunk_data *)(rq->header + n) = (struct nbdx_chunk_data){be64_make(offset)};
        iov_add(rq, rq->header, n + sizeof(struct nbdx_chunk_data));
    } else {
        if (first)
            iov_add(rq, rq->header, simple_header(rq, rq->header));
        rq->more = !last;
    }
    iov_add(rq, rq->buf, len);
    reply_part(rq, last);
}

void nbdx_reply_chunk_add(struct nbdx_request *rq, uint64_t offset, size_t len, void *data,
                          bool done)
{
    VP_VERIFY(rq->chunk_count, <, NBDX_CHUNKS_MAX);
    unsigned char *header = rq->chunks->header[rq->chunk_count++];
    size_t n;
    if (data) {
        n = chunk_header(rq, header, done, NBDX_REPLY_TYPE_OFFSET_DATA,
                         sizeof(struct nbdx_chunk_data) + len);
        *(struct nbdx_chunk_data *)(header + n) = (struct nbdx_chunk_data){be64_make(offset)};
        n += sizeof(struct nbdx_chunk_data);
    } else {
        n = chunk_header(rq, header, done, NBDX_REPLY_TYPE_OFFSET_HOLE,
                         sizeof(struct nbdx_chunk_hole));
        *(struct nbdx_chunk_hole *)(header + n) =
            (struct nbdx_chunk_hole){be64_make(offset), be32_make((uint32_t)len)};
        n += sizeof(struct nbdx_chunk_hole);
    }
    iov_add(rq, header, n);
    if (data)
        iov_add(rq, data, len);
}

CO void nbdx_reply_chunks(struct nbdx_request *rq, bool last)
{
    reply_part(rq, last);
}

void nbdx_reply_status(struct nbdx_request *rq, unsigned n)
{
    bool extended = rq->conn->extended;
    size_t each = extended ? sizeof(struct nbdx_descriptor_ext) : sizeof(struct nbdx_descriptor);
    /* In place, from the front: a descriptor is smaller than what it is made from. */
    static_assert(sizeof(struct nbdx_descriptor_ext) <= sizeof(struct volume_extent), "shrinks");
    unsigned char *to = rq->buf;
    for (unsigned i = 0; i < n; i++, to += each) {
        struct volume_extent e = ((const struct volume_extent *)rq->buf)[i];
        uint32_t state = (e.hole ? NBDX_STATE_HOLE : 0) | (e.zero ? NBDX_STATE_ZERO : 0);
        if (extended)
            *(struct nbdx_descriptor_ext *)(void *)to =
                (struct nbdx_descriptor_ext){be64_make(e.len), be64_make(state)};
        else
            *(struct nbdx_descriptor *)(void *)to =
                (struct nbdx_descriptor){be32_make((uint32_t)e.len), be32_make(state)};
    }
    rq->iov = rq->own_iov;
    rq->iov_count = 0;
    size_t head =
        extended ? sizeof(struct nbdx_chunk_status_ext) : sizeof(struct nbdx_chunk_status);
    size_t h =
        chunk_header(rq, rq->header, true,
                     extended ? NBDX_REPLY_TYPE_BLOCK_STATUS_EXT : NBDX_REPLY_TYPE_BLOCK_STATUS,
                     head + n * each);
    struct nbdx_chunk_status_ext s = {be32_make(NBDX_META_ID_ALLOCATION), be32_make(n)};
    memcpy(rq->header + h, &s, head);
    iov_add(rq, rq->header, h + head);
    iov_add(rq, rq->buf, n * each);
    reply_queue(rq);
}
