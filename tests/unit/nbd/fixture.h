/*
 * A reactor on a thread of its own, two volumes in memory, and clients made of raw bytes. The
 * test's thread is the client; what it waits for has a deadline.
 */
#ifndef VP_TESTS_NBD_FIXTURE_H
#define VP_TESTS_NBD_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nbd/nbd_format.h"
#include "nbd/server.h"
#include "tests/unit/nbd/fake_volume.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FIXTURE_SIZE ((uint64_t)8 << 20)

struct fixture {
    struct reactor *reactor;
    pthread_t thread;
    struct front volume, other;
    struct nbdx_export exports[2];
    unsigned export_count;
    struct nbdx_limits limits;
    _Atomic unsigned serving; /* nbdx_serve_fd calls under way */
    _Atomic int rc;           /* of the last that ended */
};

static struct fixture fx;

/* Every test ends within this, or fails. */
#define PATIENCE_S 10

#define wait_for(cond)                                                                             \
    do {                                                                                           \
        time_t until_ = time(NULL) + PATIENCE_S;                                                   \
        while (!(cond)) {                                                                          \
            assert_true(time(NULL) < until_);                                                      \
            usleep(200);                                                                           \
        }                                                                                          \
    } while (0)

static void *fixture_thread(void *arg)
{
    (void)arg;
    reactor_run(fx.reactor, NULL, NULL);
    return NULL;
}

static inline int fixture_up(void **state)
{
    (void)state;
    memset(&fx, 0, sizeof(fx));
    struct vp_error err = {0};
    if (reactor_new(&(struct reactor_config){0}, &fx.reactor, &err)) {
        print_error("%s\n", err.text);
        return -1;
    }
    fake_volume_init(&fx.volume, fx.reactor, FIXTURE_SIZE);
    fake_volume_init(&fx.other, fx.reactor, FIXTURE_SIZE / 2);
    fx.exports[0] = (struct nbdx_export){.name = "p/v", .front = &fx.volume};
    fx.exports[1] =
        (struct nbdx_export){.name = "p/other", .description = "another", .front = &fx.other};
    fx.export_count = 1;
    return pthread_create(&fx.thread, NULL, fixture_thread, NULL);
}

static inline int fixture_down(void **state)
{
    (void)state;
    wait_for(fx.serving == 0);
    reactor_stop(fx.reactor);
    pthread_join(fx.thread, NULL);
    reactor_free(fx.reactor);
    fake_volume_fini(&fx.volume);
    fake_volume_fini(&fx.other);
    return 0;
}

/* ---- clients ------------------------------------------------------------------------------- */

static void serve_main(void *arg)
{
    fx.rc = nbdx_serve_fd((int)(intptr_t)arg, fx.exports, fx.export_count, &fx.limits);
    fx.serving--;
}

/* As the acceptor does: a connection is no work of the reserve. */
static inline int serve_spawn(void *fd)
{
    return co_spawn(serve_main, fd, "serve");
}

static inline int client_connect(void)
{
    int fd[2];
    struct timeval t = {.tv_sec = PATIENCE_S};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    assert_int_equal(setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)), 0);
    fx.serving++;
    assert_int_equal(reactor_call_blocking(fx.reactor, serve_spawn, (void *)(intptr_t)fd[1]), 0);
    return fd[0];
}

static inline void client_send(int fd, const void *data, size_t len)
{
    const char *p = data;
    while (len) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        assert_true(n > 0);
        p += n;
        len -= (size_t)n;
    }
}

/* A ring that ends elsewhere interrupts system calls with a timeout. */
static inline ssize_t client_recv_some(int fd, void *data, size_t len)
{
    for (;;) {
        ssize_t n = recv(fd, data, len, 0);
        if (n >= 0 || errno != EINTR)
            return n;
    }
}

static inline void client_recv(int fd, void *data, size_t len)
{
    char *p = data;
    while (len) {
        ssize_t n = client_recv_some(fd, p, len);
        assert_true(n > 0);
        p += n;
        len -= (size_t)n;
    }
}

/* The server has hung up, and says nothing more. */
static inline void client_expect_end(int fd)
{
    char c;
    ssize_t n = client_recv_some(fd, &c, 1);
    assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
    close(fd);
}

/* ---- options ------------------------------------------------------------------------------- */

static inline int client_greeted(uint32_t flags)
{
    int fd = client_connect();
    struct nbdx_greeting g;
    struct be32 f = be32_make(flags);
    client_recv(fd, &g, sizeof(g));
    assert_true(be64_get(g.magic) == NBDX_MAGIC && be64_get(g.option_magic) == NBDX_OPTION_MAGIC);
    assert_int_equal(be16_get(g.flags), 3);
    client_send(fd, &f, sizeof(f));
    return fd;
}

static inline void option_send(int fd, uint32_t option, const void *data, uint32_t len)
{
    struct nbdx_option o = {be64_make(NBDX_OPTION_MAGIC), be32_make(option), be32_make(len)};
    client_send(fd, &o, sizeof(o));
    client_send(fd, data, len);
}

/* The payload goes to buf (4096 bytes); its length is returned. */
static inline uint32_t option_expect(int fd, uint32_t option, uint32_t type, void *buf)
{
    struct nbdx_option_reply r;
    char sink[4096];
    client_recv(fd, &r, sizeof(r));
    assert_true(be64_get(r.magic) == NBDX_OPTION_REPLY_MAGIC);
    assert_int_equal(be32_get(r.option), option);
    assert_int_equal(be32_get(r.type), type);
    uint32_t len = be32_get(r.length);
    assert_true(len <= sizeof(sink));
    client_recv(fd, buf ? buf : sink, len);
    return len;
}

static inline void option_is_answered(int fd, uint32_t option, const void *data, uint32_t len,
                                      uint32_t type)
{
    option_send(fd, option, data, len);
    option_expect(fd, option, type, NULL);
}

/* name, then `count` information requests 0, 1, … */
static inline uint32_t info_payload(void *buf, const char *name, uint16_t count)
{
    struct be32 n = be32_make((uint32_t)strlen(name));
    struct be16 c = be16_make(count);
    char *p = buf;
    memcpy(p, &n, 4);
    memcpy(p + 4, name, strlen(name));
    p += 4 + strlen(name);
    memcpy(p, &c, 2);
    p += 2;
    for (uint16_t i = 0; i < count; i++, p += 2) {
        c = be16_make(i);
        memcpy(p, &c, 2);
    }
    return (uint32_t)(p - (char *)buf);
}

static inline uint32_t meta_payload(void *buf, const char *name, const char *query)
{
    struct be32 n = be32_make((uint32_t)strlen(name));
    char *p = buf;
    memcpy(p, &n, 4);
    memcpy(p + 4, name, strlen(name));
    p += 4 + strlen(name);
    n = be32_make(query ? 1 : 0);
    memcpy(p, &n, 4);
    p += 4;
    if (query) {
        n = be32_make((uint32_t)strlen(query));
        memcpy(p, &n, 4);
        memcpy(p + 4, query, strlen(query));
        p += 4 + strlen(query);
    }
    return (uint32_t)(p - (char *)buf);
}

enum mode { SIMPLE, STRUCTURED, EXTENDED };

/* A client in transmission, with base:allocation unless SIMPLE. */
static inline int client_ready(enum mode mode)
{
    char buf[256];
    int fd = client_greeted(3);
    if (mode != SIMPLE) {
        option_is_answered(
            fd, mode == STRUCTURED ? NBDX_OPT_STRUCTURED_REPLY : NBDX_OPT_EXTENDED_HEADERS, NULL, 0,
            NBDX_REP_ACK);
        option_send(fd, NBDX_OPT_SET_META_CONTEXT, buf,
                    meta_payload(buf, "p/v", NBDX_META_CONTEXT_ALLOCATION));
        option_expect(fd, NBDX_OPT_SET_META_CONTEXT, NBDX_REP_META_CONTEXT, NULL);
        option_expect(fd, NBDX_OPT_SET_META_CONTEXT, NBDX_REP_ACK, NULL);
    }
    option_send(fd, NBDX_OPT_GO, buf, info_payload(buf, "p/v", 0));
    option_expect(fd, NBDX_OPT_GO, NBDX_REP_INFO, NULL);
    option_expect(fd, NBDX_OPT_GO, NBDX_REP_ACK, NULL);
    return fd;
}

/* ---- commands ------------------------------------------------------------------------------ */

static inline size_t command_bytes(void *buf, enum mode mode, unsigned command, unsigned flags,
                                   uint64_t cookie, uint64_t offset, uint64_t len)
{
    if (mode == EXTENDED) {
        struct nbdx_request_extended r = {be32_make(NBDX_REQUEST_MAGIC_EXT),
                                          be16_make((uint16_t)flags),
                                          be16_make((uint16_t)command),
                                          be64_make(cookie),
                                          be64_make(offset),
                                          be64_make(len)};
        memcpy(buf, &r, sizeof(r));
        return sizeof(r);
    }
    struct nbdx_request_compact r = {be32_make(NBDX_REQUEST_MAGIC),
                                     be16_make((uint16_t)flags),
                                     be16_make((uint16_t)command),
                                     be64_make(cookie),
                                     be64_make(offset),
                                     be32_make((uint32_t)len)};
    memcpy(buf, &r, sizeof(r));
    return sizeof(r);
}

static inline void command_send(int fd, enum mode mode, unsigned command, unsigned flags,
                                uint64_t cookie, uint64_t offset, uint64_t len)
{
    char buf[64];
    client_send(fd, buf, command_bytes(buf, mode, command, flags, cookie, offset, len));
}

static inline void simple_expect(int fd, uint64_t cookie, uint32_t error)
{
    struct nbdx_simple_reply r;
    client_recv(fd, &r, sizeof(r));
    assert_int_equal(be32_get(r.magic), NBDX_SIMPLE_REPLY_MAGIC);
    assert_int_equal(be32_get(r.error), error);
    assert_true(be64_get(r.cookie) == cookie);
}

struct chunk {
    uint16_t flags, type;
    uint64_t cookie, offset, length;
    unsigned char head[12]; /* the first bytes of the payload; the rest stays in the socket */
};

static inline struct chunk chunk_expect(int fd, enum mode mode, unsigned type, unsigned head)
{
    struct chunk k = {0};
    if (mode == EXTENDED) {
        struct nbdx_extended_reply r;
        client_recv(fd, &r, sizeof(r));
        assert_int_equal(be32_get(r.magic), NBDX_EXTENDED_REPLY_MAGIC);
        k = (struct chunk){be16_get(r.flags),  be16_get(r.type),   be64_get(r.cookie),
                           be64_get(r.offset), be64_get(r.length), {0}};
    } else {
        struct nbdx_structured_reply r;
        client_recv(fd, &r, sizeof(r));
        assert_int_equal(be32_get(r.magic), NBDX_STRUCTURED_REPLY_MAGIC);
        k = (struct chunk){
            be16_get(r.flags), be16_get(r.type), be64_get(r.cookie), 0, be32_get(r.length), {0}};
    }
    assert_int_equal(k.type, type);
    assert_true(k.length >= head);
    client_recv(fd, k.head, head);
    return k;
}

static inline uint32_t head_u32(const struct chunk *k, unsigned at)
{
    struct be32 v;
    memcpy(&v, k->head + at, 4);
    return be32_get(v);
}
static inline uint64_t head_u64(const struct chunk *k, unsigned at)
{
    struct be64 v;
    memcpy(&v, k->head + at, 8);
    return be64_get(v);
}

static inline void chunk_error_expect(int fd, enum mode mode, uint64_t cookie, uint32_t error)
{
    struct chunk k = chunk_expect(fd, mode, NBDX_REPLY_TYPE_ERROR, 6);
    assert_true(k.cookie == cookie);
    assert_int_equal(k.flags, NBDX_REPLY_FLAG_DONE);
    assert_int_equal(head_u32(&k, 0), error);
}

/* The answer to whatever has no data: `error` may be 0. */
static inline void answer_expect(int fd, enum mode mode, unsigned command, uint64_t cookie,
                                 uint32_t error)
{
    bool chunks =
        mode == EXTENDED ||
        (mode == STRUCTURED && (command == NBDX_CMD_READ || command == NBDX_CMD_BLOCK_STATUS));
    if (!chunks)
        simple_expect(fd, cookie, error);
    else if (error)
        chunk_error_expect(fd, mode, cookie, error);
    else
        assert_true(chunk_expect(fd, mode, NBDX_REPLY_TYPE_NONE, 0).cookie == cookie);
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

/* Afterwards the test may look at the volume's memory. */
static inline void fixture_sync(void)
{
    assert_int_equal(reactor_call_blocking(fx.reactor, nothing, NULL), 0);
}

static inline void client_leave(int fd, enum mode mode)
{
    command_send(fd, mode, NBDX_CMD_DISC, 0, 0, 0, 0);
    client_expect_end(fd);
    fixture_sync();
}

#define nbd_test(fn) cmocka_unit_test_setup_teardown(fn, fixture_up, fixture_down)

#endif
