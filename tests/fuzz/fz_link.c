/*
 * Bytes of a hostile NBD server against a link of a move. The first byte says where they begin: 0
 * at the greeting; else behind an honest handshake, with four requests under way (their cookies are
 * 1 to 4). Whatever comes, every call returns one of its errors, and the link ends when we hang up.
 */
#include "io/net.h"
#include "io/reactor.h"
#include "migrate/link.h"
#include "nbd/nbd_format.h"

#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXPORT_BYTES (UINT64_C(1) << 20)
#define CALL_BYTES   8192U
#define CALLS        4U

static struct reactor *reactor;
static _Atomic bool linking;

static struct call {
    struct link *l;
    unsigned index;
    int rc;
    unsigned char buf[CALL_BYTES];
} call[CALLS];
static unsigned calling;

/* ---- the link ------------------------------------------------------------------------------ */

static void call_main(void *arg)
{
    struct call *c = arg;
    uint64_t at = (uint64_t)c->index * CALL_BYTES;
    switch (c->index) {
    case 0:
        c->rc = link_read(c->l, at, CALL_BYTES, c->buf);
        break;
    case 1:
        c->rc = link_write(c->l, at, CALL_BYTES, c->buf);
        break;
    case 2:
        c->rc = link_zero(c->l, at, CALL_BYTES);
        break;
    default:
        c->rc = link_flush(c->l);
        break;
    }
    memset(c->buf, 0xa5, CALL_BYTES);
    calling--;
}

static bool is_known(int rc)
{
    static const int known[] = {0,
                                VP_E_PEER_LOST,
                                VP_E_IO,
                                VP_E_NO_SPACE,
                                VP_E_PERMISSION,
                                VP_E_INVALID,
                                VP_E_TOO_BIG,
                                VP_E_NOT_SUPPORTED,
                                VP_E_NO_MEMORY,
                                VP_E_RANGE};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (rc == known[i])
            return true;
    return false;
}

static void link_use(struct link *l)
{
    for (unsigned i = 0; i < CALLS; i++) {
        call[i] = (struct call){.l = l, .index = i};
        calling++;
        if (co_spawn(call_main, &call[i], "call"))
            abort();
    }
    while (calling > 0)
        co_yield ();
    for (unsigned i = 0; i < CALLS; i++) {
        if (!is_known(call[i].rc))
            abort();
        for (unsigned k = 0; k < CALL_BYTES; k++)
            if (call[i].buf[k] != 0xa5)
                abort(); /* somebody used the buffer after the call */
    }
    while (!link_is_lost(l)) /* until we hang up */
        co_yield ();
    link_close(l);
}

static void link_main(void *fd)
{
    struct link *l;
    struct vp_error err = {0};
    if (link_open((int)(intptr_t)fd, "x", 0, &l, &err) == 0)
        link_use(l);
    else if (!err.text[0])
        abort();
    linking = false;
}

static int link_spawn(void *fd)
{
    return co_spawn(link_main, fd, "link");
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

/* ---- the server ---------------------------------------------------------------------------- */

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

static void *reactor_thread(void *arg)
{
    reactor_run(reactor, NULL, NULL);
    return arg;
}

static void start(void)
{
    struct vp_error err = {0};
    pthread_t thread;
    vp_log_set_sink(drop_line, NULL);
    if (reactor_new(&(struct reactor_config){0}, &reactor, &err) ||
        pthread_create(&thread, NULL, reactor_thread, NULL)) {
        fprintf(stderr, "fz_link: %s\n", err.text);
        exit(1);
    }
}

/* What the link says is read away. False when it hung up. */
static bool drain(int fd)
{
    static char sink[1 << 16];
    struct pollfd p = {fd, POLLIN, 0};
    while (poll(&p, 1, 0) > 0) {
        ssize_t n = recv(fd, sink, sizeof(sink), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return false;
    }
    return true;
}

static bool feed(int fd, const void *data, size_t size)
{
    const char *p = data;
    while (size) {
        ssize_t n = send(fd, p, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (n > 0) {
            p += n;
            size -= (size_t)n;
        }
        if (!drain(fd))
            return false;
    }
    return true;
}

static bool answer(int fd, uint32_t option, uint32_t type, const void *data, uint32_t len)
{
    struct nbdx_option_reply r = {be64_make(NBDX_OPTION_REPLY_MAGIC), be32_make(option),
                                  be32_make(type), be32_make(len)};
    return feed(fd, &r, sizeof(r)) && feed(fd, data, len);
}

static bool negotiate(int fd)
{
    struct nbdx_greeting g = {be64_make(NBDX_MAGIC), be64_make(NBDX_OPTION_MAGIC), be16_make(3)};
    struct nbdx_info_export e = {
        be16_make(NBDX_INFO_EXPORT), be64_make(EXPORT_BYTES),
        be16_make(NBDX_FLAG_HAS_FLAGS | NBDX_FLAG_SEND_FLUSH | NBDX_FLAG_SEND_WRITE_ZEROES)};
    return feed(fd, &g, sizeof(g)) &&
           answer(fd, NBDX_OPT_STRUCTURED_REPLY, NBDX_REP_ACK, NULL, 0) &&
           answer(fd, NBDX_OPT_GO, NBDX_REP_INFO, &e, sizeof(e)) &&
           answer(fd, NBDX_OPT_GO, NBDX_REP_ACK, NULL, 0);
}

/* A few turns, in which the link sends its requests or looks at what came. */
static void settle(int fd)
{
    for (unsigned i = 0; i < 12 && linking; i++) {
        vp_ignore(reactor_call_blocking(reactor, nothing, NULL), "only to take a turn");
        if (!drain(fd))
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd[2];
    if (!reactor)
        start();
    if (!size || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
        return 0;
    linking = true;
    if (reactor_call_blocking(reactor, link_spawn, (void *)(intptr_t)fd[1]))
        abort();
    bool ok = data[0] == 0 || negotiate(fd[0]);
    if (ok && data[0])
        settle(fd[0]); /* an answer to a request that was not sent ends the link at once */
    if (ok && feed(fd[0], data + 1, size - 1))
        settle(fd[0]);
    close(fd[0]);
    for (unsigned turns = 0; linking; turns++) {
        if (turns > 200000)
            abort(); /* it must end when the server is gone */
        vp_ignore(reactor_call_blocking(reactor, nothing, NULL), "only to take a turn");
    }
    return 0;
}
