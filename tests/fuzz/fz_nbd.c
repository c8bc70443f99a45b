/*
 * Bytes of a client against the real server over a volume in memory. The first byte says where they
 * go: 0 from the greeting on; 1, 2, 3 into the transmission phase with simple, structured, extended
 * replies. Whatever comes, the connection ends when we hang up, and nothing of it is left.
 */
#include "nbd/nbd_format.h"
#include "nbd/server.h"
#include "tests/unit/nbd/fake_volume.h"

#include "base/log.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define VOLUME_BYTES (1U << 20)

static struct reactor *reactor;
static struct front volume;
static _Atomic bool serving;

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
    if (reactor_new(&(struct reactor_config){0}, &reactor, &err)) {
        fprintf(stderr, "fz_nbd: %s\n", err.text);
        exit(1);
    }
    fake_volume_init(&volume, reactor, VOLUME_BYTES);
    if (pthread_create(&thread, NULL, reactor_thread, NULL))
        exit(1);
}

static void serve(void *arg)
{
    struct nbdx_export export = {.name = "p/v", .description = "fuzz", .front = &volume};
    struct nbdx_limits limits = {.requests = 16, .buffer_bytes = (size_t)4 << 20};
    vp_ignore(nbdx_serve_fd((int)(intptr_t)arg, &export, 1, &limits), "most inputs are garbage");
    serving = false;
}

/* As the acceptor does: a connection is no work of the reserve. */
static int serve_spawn(void *fd)
{
    return co_spawn(serve, fd, "serve");
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

/* Reads away what the server says; waits up to `ms` for something. False when it hung up. */
static bool drain(int fd, int ms)
{
    static char sink[1 << 16];
    struct pollfd p = {fd, POLLIN, 0};
    while (poll(&p, 1, ms) > 0) {
        ssize_t n = recv(fd, sink, sizeof(sink), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        ms = 0;
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
        if (!drain(fd, n > 0 ? 0 : 1))
            return false;
    }
    return true;
}

static bool option(int fd, uint32_t type, const void *data, uint32_t size)
{
    struct nbdx_option o = {be64_make(NBDX_OPTION_MAGIC), be32_make(type), be32_make(size)};
    return feed(fd, &o, sizeof(o)) && feed(fd, data, size);
}

static bool negotiate(int fd, unsigned mode)
{
    static const char context[] = "\0\0\0\3p/v\0\0\0\1\0\0\0\17base:allocation";
    static const char go[] = "\0\0\0\3p/v\0\0";
    struct be32 flags = be32_make(3);
    if (!feed(fd, &flags, sizeof(flags)))
        return false;
    if (mode > 1 &&
        !(option(fd, mode == 2 ? NBDX_OPT_STRUCTURED_REPLY : NBDX_OPT_EXTENDED_HEADERS, NULL, 0) &&
          option(fd, NBDX_OPT_SET_META_CONTEXT, context, sizeof(context) - 1)))
        return false;
    return option(fd, NBDX_OPT_GO, go, sizeof(go) - 1);
}

/* Until the server has taken all we sent and had a few turns to work on it. */
static void settle(int fd)
{
    int queued = 1;
    for (unsigned i = 0; i < 1000 && queued; i++) {
        if (!drain(fd, 0) || ioctl(fd, SIOCOUTQ, &queued))
            return;
        vp_ignore(reactor_call_blocking(reactor, nothing, NULL), "only to take a turn");
    }
    for (unsigned i = 0; i < 4; i++)
        vp_ignore(reactor_call_blocking(reactor, nothing, NULL), "only to take a turn");
    drain(fd, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd[2];
    if (!reactor)
        start();
    if (!size || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
        return 0;
    serving = true;
    if (reactor_call_blocking(reactor, serve_spawn, (void *)(intptr_t)fd[1]))
        abort();
    unsigned mode = data[0] & 3;
    if ((mode == 0 || negotiate(fd[0], mode)) && feed(fd[0], data + 1, size - 1))
        settle(fd[0]);
    close(fd[0]);
    for (unsigned turns = 0; serving; turns++) {
        if (turns > 200000)
            abort(); /* it must end when the client is gone */
        vp_ignore(reactor_call_blocking(reactor, nothing, NULL), "only to take a turn");
    }
    return 0;
}
