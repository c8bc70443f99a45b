/*
 * Private to nbd/: a connection from accept to close. nbd/README.md has the picture.
 *
 * A connection is owned by the coroutine that serves it (server.c). It begins on the server's
 * reactor (handshake) and is then called over to its volume's (transmission); `reactor` says where
 * it is, and nobody else touches it.
 */
#ifndef VP_NBD_CONNECTION_IMPL_H
#define VP_NBD_CONNECTION_IMPL_H

#include "base/list.h"
#include "io/co.h"
#include "io/reactor.h"
#include "io/share.h"
#include "nbd/nbd_format.h"
#include "nbd/server.h"

#include <stdatomic.h>
#include <sys/uio.h>

/* ---- stream.c: what comes in ----------------------------------------------------------------
 *
 * One receive brings many requests; they are parsed where they lie. Payload that is not in the
 * buffer yet is received straight to its place.
 */
#define NBDX_STREAM_BYTES ((size_t)256 << 10)

struct nbdx_stream {
    int fd;
    uint64_t deadline_ns; /* of every receive; 0 = none              */
    uint64_t received_ns; /* the turn in which the newest bytes came */
    unsigned char *buf;
    size_t start, end; /* what is buffered: buf[start..end)       */
    size_t receive;    /* how much to ask for at once             */
};

int nbdx_stream_init(struct nbdx_stream *s, int fd) must_check;
void nbdx_stream_fini(struct nbdx_stream *s);
/* The next n ≤ NBDX_STREAM_BYTES bytes, in one piece, at *out; valid until the next call. Errors of
 * all three: VP_E_CLOSED, VP_E_CANCELLED, VP_E_TIMED_OUT. */
CO int nbdx_stream_take(struct nbdx_stream *s, size_t n, const void **out) must_check;
CO int nbdx_stream_read(struct nbdx_stream *s, void *to, size_t n) must_check;
CO int nbdx_stream_skip(struct nbdx_stream *s, uint64_t n) must_check;

/* ---- requests ------------------------------------------------------------------------------ */

/* Requests are served in pieces of at most this much, each with one buffer, so that a large one
 * cannot hold others up or deadlock with them over buffers. */
#define NBDX_PIECE_BYTES ((size_t)1 << 20)
/* … and in smaller ones, when this reactor's buffers are short: memory.c. */
#define NBDX_PIECE_MIN_BYTES ((size_t)64 << 10)
/* Of buffers, for each connection: the smallest piece and the headers of its chunks. */
#define NBDX_GUARANTEE ((size_t)128 << 10)
/* Of coroutines; beyond these and its share a connection's reader serves requests itself. */
#define NBDX_GUARANTEE_COROUTINES 8U
/* Structured reads from this size on report holes instead of sending zeros. */
#define NBDX_SPARSE_READ_BYTES ((size_t)64 << 10)
#define NBDX_CHUNKS_MAX        32U

/* A reply of several chunks; lies behind the data in their buffer. */
struct nbdx_chunks {
    struct iovec iov[2 * NBDX_CHUNKS_MAX];
    unsigned char header[NBDX_CHUNKS_MAX][48];
};
static_assert(sizeof(struct nbdx_chunks) <= 4096, "chunks fit one block");

struct nbdx_request {
    struct list link; /* among the free ones, or in the queue of replies */
    struct nbdx_connection *conn;
    struct nbdx_request *parent; /* of a piece of a large write                     */
    unsigned pieces;             /* of a large write: running ones, and the reader  */
    struct be64 cookie;
    uint64_t offset, length;
    uint64_t received_ns; /* the turn in which its header came              */
    uint16_t command, flags;
    uint32_t error; /* enum nbdx_error */
    void *buf;      /* payload, from nbdx_buffer_get; NULL = none */
    size_t buf_bytes;
    struct nbdx_chunks *chunks; /* or NULL; in buf */
    unsigned chunk_count;
    struct co *waiter; /* waits until this part is sent; the request lives on */
    bool more;         /* the rest of a simple reply follows: nothing may come between */
    unsigned iov_count;
    struct iovec *iov; /* own_iov or chunks->iov */
    struct iovec own_iov[2];
    unsigned char header[48];
};

/* ---- exports and connections --------------------------------------------------------------- */

/* Read and changed on the server's reactor. */
struct nbdx_names {
    char *name, *alias[NBDX_ALIASES_MAX];
    unsigned alias_count;
};

struct nbdx_served {
    struct nbdx_names names;
    char *description; /* "" = none */
    struct front *front;
    bool read_only;
    struct nbdx_figures *figures; /* written on the front's reactor */
};

#define NBDX_BATCH_IOV 256U

/*
 * What a connection still does. It goes forward only, by nbdx_connection_move on the connection's
 * reactor; a state may be left out.
 */
enum nbdx_connection_state {
    NBDX_OPEN,     /* shakes hands, or serves                                                 */
    NBDX_STOPPING, /* the server ends: what has not started gets ESHUTDOWN                    */
    NBDX_GONE,     /* nobody is there: what has not started is dropped, nothing is sent       */
    NBDX_ENDING,   /* all requests have ended: the writer and the watcher end                 */
};

/* What nbdx_server_stop has told a connection; it only grows. */
enum nbdx_told { NBDX_TOLD_NOTHING, NBDX_TOLD_TO_STOP, NBDX_TOLD_TO_GO };

struct nbdx_connection {
    struct nbdx_server *server;
    struct list link;        /* in the server's list; the server's reactor only        */
    struct reactor *reactor; /* where it is served now; set on the server's reactor    */
    unsigned pins;           /* who holds a pointer; the server's reactor only         */
    enum nbdx_told told;     /* the server's reactor only                              */
    int fd;
    char peer[64];
    unsigned pid, uid;
    uint64_t connected_ns;
    struct nbdx_stream in;

    /* Negotiated (handshake.c). */
    bool no_zeroes, structured, extended;
    const struct nbdx_served *export;      /* NULL until EXPORT_NAME or GO                     */
    const struct nbdx_served *meta_export; /* what SET_META_CONTEXT chose base:allocation for  */
    uint16_t transmission_flags;

    struct front_client client;               /* of the export's front; transmission only */
    struct nbdx_figures *figures;             /* the export's; transmission only */
    struct histogram *latency[NBDX_COMMANDS]; /* of these, by command */

    enum nbdx_connection_state state;

    /* Transmission. */
    unsigned helpers; /* the writer's and the watcher's coroutine */
    struct co *writer, *watcher;
    struct co_queue helpers_queue;

    unsigned request_count;
    _Atomic unsigned in_flight; /* requests not in `free_requests`; one writer */
    struct nbdx_request *requests;
    struct list free_requests;
    struct co_queue request_queue; /* waits for a free one, or for all of them */

    struct io_share_holder buffers, coroutines; /* memory.c */
    struct co_queue buffer_queue;
    uint64_t stall_ns;                             /* limits.stall_ms */
    uint64_t sending_since_ns, receiving_since_ns; /* 0 = not waiting for the peer */
    struct list share_link;

    struct list replies; /* whole or partial replies in the order of sending */
    bool writer_idle;
    const struct nbdx_request *exclusive; /* its next part must be sent next */
    struct iovec batch[NBDX_BATCH_IOV];
};

static inline bool nbdx_is_gone(const struct nbdx_connection *c)
{
    return c->state >= NBDX_GONE;
}

/* ---- memory.c: buffers and coroutines, bounded per connection and per reactor ---------------- */

void nbdx_memory_join(struct nbdx_connection *c);
void nbdx_memory_leave(struct nbdx_connection *c);
/* len ≤ a piece and the chunk headers of its reply. Waits for room: the connection may be gone
 * afterwards. */
CO void *nbdx_buffer_get(struct nbdx_connection *c, size_t len);
/* How much of `len` bytes of payload, and `extra` beside them, to ask for at once: that much can be
 * had now, if len is a piece that may be cut. Waits only for buffers of the connection itself. */
CO size_t nbdx_buffer_fit(struct nbdx_connection *c, size_t len, size_t extra);
void nbdx_buffer_put(struct nbdx_connection *c, void *buf, size_t len);

/* ---- handshake.c --------------------------------------------------------------------------- */

/* Negotiates until transmission begins: 0 with c->export set. VP_E_CLOSED when the client left in
 * an orderly way; VP_E_NBD_PROTOCOL, VP_E_TIMED_OUT. */
CO int nbdx_handshake(struct nbdx_connection *c) must_check;
CO int nbdx_option_reply(struct nbdx_connection *c, uint32_t option, uint32_t type,
                         const void *data, size_t len) must_check;
CO int nbdx_option_error(struct nbdx_connection *c, uint32_t option, uint32_t type,
                         const char *text) must_check;
/* The export of that name, or NULL. */
const struct nbdx_served *nbdx_export_find(const struct nbdx_connection *c, const char *name,
                                           size_t len);
/* A cursor over the payload of an option; false when it ends before. */
struct nbdx_cursor {
    const unsigned char *at;
    size_t left;
};
bool nbdx_cursor_u32(struct nbdx_cursor *d, uint32_t *out);
bool nbdx_cursor_u16(struct nbdx_cursor *d, uint16_t *out);
/* A length of 32 bits, at most NBDX_STRING_MAX, and so many bytes; borrowed from the payload. */
bool nbdx_cursor_string(struct nbdx_cursor *d, const char **out, uint32_t *len);

/* meta.c */
CO int nbdx_option_meta(struct nbdx_connection *c, uint32_t option,
                        struct nbdx_cursor d) must_check;

/* ---- transmission.c: the reader, and the life of the connection's coroutines --------------- */

/* Serves requests until the client is gone or stop; on the volume's reactor. When it returns, no
 * request of this connection is left anywhere. */
CO int nbdx_transmission(struct nbdx_connection *c) must_check;
void nbdx_connection_move(struct nbdx_connection *c, enum nbdx_connection_state to);
/* Hang up: nothing that has not started will. */
void nbdx_connection_cut(struct nbdx_connection *c);
/* The server ends: what has not started gets ESHUTDOWN. */
void nbdx_connection_shutdown(struct nbdx_connection *c);
void nbdx_request_free(struct nbdx_request *rq);
void nbdx_helper_end(struct nbdx_connection *c);

/* ---- request.c: one request against the volume --------------------------------------------- */

/* enum nbdx_error of a request's header, before its payload is looked at. */
uint32_t nbdx_request_check(const struct nbdx_request *rq);
/* A coroutine: serves the request, queues its reply (or frees it). */
CO void nbdx_request_main(void *arg);
/* Ends one of a large write's pieces or its reader; the last one queues the reply. */
void nbdx_request_piece_end(struct nbdx_request *parent);
uint32_t nbdx_error_of(int rc, uint16_t command);

/* ---- reply.c: what goes out ---------------------------------------------------------------- */

/* The last, or only, answer to a request: success without data, or rq->error. The request is freed
 * once it is sent. */
void nbdx_reply_end(struct nbdx_request *rq);
/*
 * A part of a read's reply, which is the whole one when it is `last`: then the request is freed
 * when that is sent. Otherwise returns when it is sent. rq->buf holds `len` bytes of the volume's
 * `offset`; or rq->chunks has been filled by nbdx_reply_chunk_add. `first`: a simple reply's header
 * goes before the first part.
 */
CO void nbdx_reply_data(struct nbdx_request *rq, uint64_t offset, size_t len, bool first,
                        bool last);
CO void nbdx_reply_chunks(struct nbdx_request *rq, bool last);
/* `data` NULL: a hole. `done`: the last chunk of the whole reply. */
void nbdx_reply_chunk_add(struct nbdx_request *rq, uint64_t offset, size_t len, void *data,
                          bool done);
/* n extents, which the caller has put at rq->buf as struct volume_extent; converted in place. */
void nbdx_reply_status(struct nbdx_request *rq, unsigned n);
/* A coroutine: sends all that is queued at once, again and again. */
CO void nbdx_writer_main(void *arg);
void nbdx_writer_kick(struct nbdx_connection *c);

/* ---- figures.c ----------------------------------------------------------------------------- */

/* NULL: no memory. */
struct nbdx_figures *nbdx_figures_new(void);
void nbdx_figures_free(struct nbdx_figures *f);
/* c->figures and c->latency, for c->export. */
void nbdx_figures_join(struct nbdx_connection *c);

/* ---- server.c ------------------------------------------------------------------------------ */

const struct nbdx_served *nbdx_server_exports(const struct nbdx_server *s, unsigned *count);
/* address.c: who is at the other end, and what the socket should be like. */
void nbdx_peer_describe(struct nbdx_connection *c);
bool nbdx_uri_format(const struct nbdx_address *a, unsigned port, const char *export, char *out,
                     size_t size);

#endif
