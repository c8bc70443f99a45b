/*
 * One request against the volume. Each request runs in its own coroutine, so requests overtake each
 * other freely. The volume orders those that touch the same blocks.
 */
#include "nbd/connection_impl.h"

#include "base/verify.h"

#include <errno.h>

#define STATUS_EXTENTS_MAX 512U
/* Instead of an error (which is negative): a piece is to be read again as a smaller one. */
#define READ_SMALLER 1

uint32_t nbdx_error_of(int rc, uint16_t command)
{
    bool grows = command == NBDX_CMD_WRITE || command == NBDX_CMD_WRITE_ZEROES;
    if (rc == VP_E_RANGE)
        return grows ? NBDX_ENOSPC : NBDX_EINVAL;
    switch (vp_err_class(rc)) {
    case 0:
        return NBDX_OK;
    case EPERM:
        return NBDX_EPERM;
    case EINVAL:
        return NBDX_EINVAL;
    case ENOSPC:
        return NBDX_ENOSPC;
    case ENOTSUP:
        return NBDX_ENOTSUP;
    case ESHUTDOWN:
    case ECANCELED:
        return NBDX_ESHUTDOWN;
    default:
        return NBDX_EIO; /* never ENOMEM: clients take it for their own */
    }
}

static bool is_over(const struct nbdx_connection *c)
{
    return c->state >= NBDX_STOPPING;
}

/* ---- refusing ------------------------------------------------------------------------------ */

static const uint16_t flags_allowed[] = {
    [NBDX_CMD_READ] = NBDX_CMD_FLAG_FUA | NBDX_CMD_FLAG_DF,
    [NBDX_CMD_WRITE] = NBDX_CMD_FLAG_FUA | NBDX_CMD_FLAG_PAYLOAD_LEN,
    [NBDX_CMD_DISC] = NBDX_CMD_FLAG_FUA,
    [NBDX_CMD_FLUSH] = NBDX_CMD_FLAG_FUA,
    [NBDX_CMD_TRIM] = NBDX_CMD_FLAG_FUA,
    [NBDX_CMD_CACHE] = NBDX_CMD_FLAG_FUA,
    [NBDX_CMD_WRITE_ZEROES] = NBDX_CMD_FLAG_FUA | NBDX_CMD_FLAG_NO_HOLE | NBDX_CMD_FLAG_FAST_ZERO,
    [NBDX_CMD_BLOCK_STATUS] = NBDX_CMD_FLAG_FUA | NBDX_CMD_FLAG_REQ_ONE,
};

static uint32_t flags_check(const struct nbdx_request *rq)
{
    const struct nbdx_connection *c = rq->conn;
    if (rq->command >= sizeof(flags_allowed) / sizeof(flags_allowed[0]))
        return NBDX_EINVAL;
    unsigned allowed = flags_allowed[rq->command];
    if (!c->structured)
        allowed &= ~NBDX_CMD_FLAG_DF;
    if (!c->extended)
        allowed &= ~NBDX_CMD_FLAG_PAYLOAD_LEN;
    return rq->flags & ~allowed ? NBDX_EINVAL : NBDX_OK;
}

static uint32_t length_check(const struct nbdx_request *rq)
{
    if ((rq->command == NBDX_CMD_READ || rq->command == NBDX_CMD_WRITE) &&
        rq->length > NBDX_LENGTH_MAX)
        return NBDX_EINVAL;
    /* Without fragments it must fit one piece; up to 64 KiB is guaranteed by the specification. */
    if ((rq->flags & NBDX_CMD_FLAG_DF) && rq->length > NBDX_PIECE_BYTES)
        return NBDX_EOVERFLOW;
    uint64_t size = front_size(rq->conn->export->front);
    if (rq->offset > size || rq->length > size - rq->offset)
        return nbdx_error_of(VP_E_RANGE, rq->command);
    return NBDX_OK;
}

uint32_t nbdx_request_check(const struct nbdx_request *rq)
{
    const struct nbdx_connection *c = rq->conn;
    uint32_t error = flags_check(rq);
    if (error)
        return error;
    bool modifies = rq->command == NBDX_CMD_WRITE || rq->command == NBDX_CMD_TRIM ||
                    rq->command == NBDX_CMD_WRITE_ZEROES;
    if (modifies && (c->transmission_flags & NBDX_FLAG_READ_ONLY))
        return NBDX_EPERM;
    if (rq->command == NBDX_CMD_BLOCK_STATUS && (c->meta_export != c->export || !rq->length))
        return NBDX_EINVAL;
    /* Allocating takes about as long as writing zeros. */
    if ((rq->flags & NBDX_CMD_FLAG_FAST_ZERO) && (rq->flags & NBDX_CMD_FLAG_NO_HOLE))
        return NBDX_ENOTSUP;
    return rq->command == NBDX_CMD_FLUSH ? NBDX_OK : length_check(rq);
}

/* ---- reading ------------------------------------------------------------------------------- */

static CO void buffer_for(struct nbdx_request *rq, size_t len)
{
    if (rq->buf)
        return;
    rq->buf_bytes = len;
    rq->buf = nbdx_buffer_get(rq->conn, len);
}

static CO int read_plain(struct nbdx_request *rq, uint64_t offset, size_t len, bool last)
{
    buffer_for(rq, len);
    if (nbdx_is_gone(rq->conn))
        return VP_E_SHUTDOWN;
    int rc = front_read(&rq->conn->client, offset, len, rq->buf);
    if (rc)
        return rc;
    nbdx_reply_data(rq, offset, len, offset == rq->offset, last);
    return 0;
}

/* Reads the data among `n` extents and replies with a chunk for each. */
static CO int read_extents(struct nbdx_request *rq, uint64_t offset, size_t len,
                           const struct volume_extent *e, unsigned n, bool last)
{
    size_t room = n > 1 ? align_up(len, 16) : 0; /* one extent is a hole here */
    buffer_for(rq, room + sizeof(struct nbdx_chunks));
    if (nbdx_is_gone(rq->conn))
        return VP_E_SHUTDOWN;
    rq->chunks = (void *)((char *)rq->buf + room);
    rq->chunk_count = rq->iov_count = 0;
    rq->iov = rq->chunks->iov;
    for (unsigned i = 0; i < n; i++) {
        char *data = e[i].zero ? NULL : (char *)rq->buf + (e[i].offset - offset);
        if (data) {
            int rc = front_read(&rq->conn->client, e[i].offset, e[i].len, data);
            if (rc)
                return rc;
        }
        nbdx_reply_chunk_add(rq, e[i].offset, e[i].len, data, last && i + 1 == n);
    }
    nbdx_reply_chunks(rq, last);
    return 0;
}

/* Large structured reads: holes are named, not sent. What the extents found at the start say is
 * what the read may return, since it overlaps everything that happens from then on. READ_SMALLER:
 * others took the buffers that there were for the piece. */
static CO int read_sparse(struct nbdx_request *rq, uint64_t offset, size_t len, bool last)
{
    struct volume_extent e[NBDX_CHUNKS_MAX];
    unsigned n = 0;
    int rc = front_extents(&rq->conn->client, offset, len, e, NBDX_CHUNKS_MAX - 1, &n);
    if (rc)
        return rc;
    uint64_t known = e[n - 1].offset + e[n - 1].len;
    if (known < offset + len)
        e[n++] = (struct volume_extent){known, offset + len - known, false, false};
    if (n == 1 && !e[0].zero)
        return read_plain(rq, offset, len, last);
    if (nbdx_buffer_fit(rq->conn, len, sizeof(struct nbdx_chunks)) < len)
        return READ_SMALLER;
    return read_extents(rq, offset, len, e, n, last);
}

static void buffer_release(struct nbdx_request *rq)
{
    if (rq->buf)
        nbdx_buffer_put(rq->conn, rq->buf, rq->buf_bytes);
    rq->buf = NULL;
    rq->chunks = NULL;
}

/* A part failed. The header of a simple reply may have promised data: then the connection is all
 * that can still fail. */
static void read_failed(struct nbdx_request *rq, int rc, bool first)
{
    struct nbdx_connection *c = rq->conn;
    if (!first && !c->structured)
        nbdx_connection_cut(c);
    rq->error = nbdx_error_of(rc, rq->command);
    nbdx_reply_end(rq);
}

/* The next piece of `left` bytes: what fits the buffer that there is, or one that can be had. */
static CO size_t piece_length(const struct nbdx_request *rq, uint64_t left)
{
    size_t len = min_u64(left, NBDX_PIECE_BYTES);
    if (rq->buf)
        return min_u64(len, rq->buf_bytes);
    if (rq->flags & NBDX_CMD_FLAG_DF)
        return len;
    return nbdx_buffer_fit(rq->conn, len, rq->conn->structured ? sizeof(struct nbdx_chunks) : 0);
}

static CO void request_read(struct nbdx_request *rq)
{
    struct nbdx_connection *c = rq->conn;
    uint64_t end = rq->offset + rq->length;
    figure_add(&c->figures->bytes_read, rq->length);
    if (!rq->length) {
        nbdx_reply_end(rq);
        return;
    }
    for (uint64_t at = rq->offset, len; at < end; at += len) {
        int rc = at > rq->offset ? front_pass(&c->client) : 0;
        if (rc) {
            read_failed(rq, rc, false);
            return;
        }
        len = piece_length(rq, end - at);
        bool last = at + len == end;
        bool sparse =
            c->structured && len >= NBDX_SPARSE_READ_BYTES && !(rq->flags & NBDX_CMD_FLAG_DF);
        rc = sparse ? read_sparse(rq, at, len, last) : read_plain(rq, at, len, last);
        if (rc == READ_SMALLER) {
            len = 0;
            continue;
        }
        if (rc) {
            read_failed(rq, rc, at == rq->offset);
            return;
        }
        if (last)
            return; /* sent and freed, or about to be */
        if (c->structured)
            buffer_release(rq); /* the next piece may need less, or none */
    }
}

/* ---- everything else ----------------------------------------------------------------------- */

static CO int status_reply(struct nbdx_request *rq)
{
    unsigned max = rq->flags & NBDX_CMD_FLAG_REQ_ONE ? 1 : STATUS_EXTENTS_MAX, n = 0;
    buffer_for(rq, max * sizeof(struct volume_extent));
    if (nbdx_is_gone(rq->conn))
        return VP_E_SHUTDOWN;
    int rc = front_extents(&rq->conn->client, rq->offset, rq->length, rq->buf, max, &n);
    if (rc)
        return rc;
    nbdx_reply_status(rq, n);
    return 0;
}

static CO int volume_command(const struct nbdx_request *rq)
{
    struct front_client *client = &rq->conn->client;
    unsigned flags = rq->flags & NBDX_CMD_FLAG_FUA ? VOLUME_FUA : 0;
    switch (rq->command) {
    case NBDX_CMD_WRITE:
        return rq->length ? front_write(client, rq->offset, rq->length, rq->buf, flags) : 0;
    case NBDX_CMD_TRIM:
        return rq->length ? front_discard(client, rq->offset, rq->length, flags) : 0;
    case NBDX_CMD_WRITE_ZEROES:
        if (rq->flags & NBDX_CMD_FLAG_NO_HOLE)
            flags |= VOLUME_NO_HOLE;
        return rq->length ? front_zero(client, rq->offset, rq->length, flags) : 0;
    case NBDX_CMD_FLUSH:
        return front_flush(client);
    default:
        return 0; /* CACHE: a hint */
    }
}

void nbdx_request_piece_end(struct nbdx_request *parent)
{
    if (--parent->pieces == 0)
        nbdx_reply_end(parent);
}

static CO void request_modify(struct nbdx_request *rq)
{
    struct nbdx_request *parent = rq->parent;
    if (!rq->error)
        rq->error = nbdx_error_of(volume_command(rq), rq->command);
    if (!parent) {
        nbdx_reply_end(rq);
        return;
    }
    if (rq->error)
        parent->error = rq->error;
    nbdx_request_free(rq);
    nbdx_request_piece_end(parent);
}

/* By the volume's front. A write was admitted before its payload came. */
static CO uint32_t request_admit(const struct nbdx_request *rq)
{
    if (rq->command == NBDX_CMD_WRITE)
        return NBDX_OK;
    uint64_t bytes = rq->command == NBDX_CMD_READ ? rq->length : 0;
    return nbdx_error_of(front_admit(&rq->conn->client, bytes), rq->command);
}

CO void nbdx_request_main(void *arg)
{
    struct nbdx_request *rq = arg;
    struct nbdx_connection *c = rq->conn;
    if (!rq->error)
        rq->error = request_admit(rq);
    /* Invariant 1 of README.md: nothing starts for a client that is not there. */
    if (is_over(c) && !rq->error)
        rq->error = NBDX_ESHUTDOWN;
    if (rq->error && !rq->parent) {
        nbdx_reply_end(rq);
    } else if (rq->command == NBDX_CMD_READ) {
        request_read(rq);
    } else if (rq->command == NBDX_CMD_BLOCK_STATUS) {
        int rc = status_reply(rq);
        if (rc) {
            rq->error = nbdx_error_of(rc, rq->command);
            nbdx_reply_end(rq);
        }
    } else {
        request_modify(rq);
    }
}
