/* The incoming half of a connection: few receives, each for many requests. */
#include "nbd/connection_impl.h"

#include "base/verify.h"
#include "io/net.h"

#include <stdlib.h>
#include <string.h>

/* After a large payload more of them are likely: then only headers are worth buffering, because
 * what is in the buffer must be copied once more. */
#define LARGE_PAYLOAD   ((size_t)32 << 10)
#define RECEIVE_HEADERS ((size_t)4 << 10)

int nbdx_stream_init(struct nbdx_stream *s, int fd)
{
    *s = (struct nbdx_stream){.fd = fd, .receive = NBDX_STREAM_BYTES};
    s->buf = malloc(NBDX_STREAM_BYTES);
    return s->buf ? 0 : VP_E_NO_MEMORY;
}

void nbdx_stream_fini(struct nbdx_stream *s)
{
    free(s->buf);
    s->buf = NULL;
}

static CO int stream_fill(struct nbdx_stream *s, size_t want)
{
    if (s->start == s->end)
        s->start = s->end = 0;
    if (s->start + want > NBDX_STREAM_BYTES) {
        memmove(s->buf, s->buf + s->start, s->end - s->start);
        s->end -= s->start;
        s->start = 0;
    }
    while (s->end - s->start < want) {
        size_t missing = want - (s->end - s->start);
        size_t room = NBDX_STREAM_BYTES - s->end;
        size_t ask = min_u64(room, max_u64(s->receive, missing));
        size_t got = 0;
        int rc = io_recv(s->fd, s->buf + s->end, ask, s->deadline_ns, &got);
        if (rc)
            return rc;
        if (!got)
            return VP_E_CLOSED;
        s->end += got;
        s->received_ns = reactor_turn_ns();
    }
    return 0;
}

CO int nbdx_stream_take(struct nbdx_stream *s, size_t n, const void **out)
{
    VP_VERIFY(n, <=, NBDX_STREAM_BYTES);
    if (s->end - s->start < n) {
        int rc = stream_fill(s, n);
        if (rc)
            return rc;
    }
    *out = s->buf + s->start;
    s->start += n;
    return 0;
}

CO int nbdx_stream_read(struct nbdx_stream *s, void *to, size_t n)
{
    size_t have = min_u64(n, s->end - s->start);
    memcpy(to, s->buf + s->start, have);
    s->start += have;
    s->receive = n >= LARGE_PAYLOAD ? RECEIVE_HEADERS : NBDX_STREAM_BYTES;
    if (have == n)
        return 0;
    return io_recv_all(s->fd, (char *)to + have, n - have, s->deadline_ns);
}

CO int nbdx_stream_skip(struct nbdx_stream *s, uint64_t n)
{
    while (n) {
        if (s->start == s->end) {
            int rc = stream_fill(s, 1);
            if (rc)
                return rc;
        }
        size_t step = min_u64(n, s->end - s->start);
        s->start += step;
        n -= step;
    }
    return 0;
}
