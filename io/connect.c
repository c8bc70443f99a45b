/*
 * Outgoing connections. Control path only.
 *
 * A socket's file may be in a file system on a disk that this very reactor serves, and a name
 * server may be silent. So both look-ups run on a thread of their own, which the caller leaves
 * behind when its deadline passes (offload_run_until). A connection itself is begun without
 * waiting, and the ring tells when it is there.
 */
#include "io/net.h"

#include "base/attr.h"
#include "io/offload.h"
#include "io/reactor.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

/* A listener whose queue is full is asked again after so long. */
#define QUEUE_FULL_NS (UINT64_C(10) * 1000000)

/* ---- errors -------------------------------------------------------------------------------- */

/* The code is for callers, the words are for people. */
static const struct {
    int errnum, rc;
    const char *words;
} reasons[] = {
    {ECONNREFUSED, VP_E_REFUSED, "nobody listens there"},
    {ENOENT, VP_E_NOT_FOUND, "there is no such socket"},
    {EACCES, VP_E_PERMISSION, "no permission"},
    {EPERM, VP_E_PERMISSION, "no permission"},
    {ETIMEDOUT, VP_E_TIMED_OUT, "no answer"},
    {EHOSTUNREACH, VP_E_UNREACHABLE, "no way leads to that host"},
    {ENETUNREACH, VP_E_UNREACHABLE, "no way leads to that network"},
    {EHOSTDOWN, VP_E_UNREACHABLE, "that host is down"},
    {ENETDOWN, VP_E_UNREACHABLE, "the network is down"},
};

static int connect_refused_by(int errnum, const char *where, struct vp_error *err)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].errnum == errnum)
            return vp_fail(err, reasons[i].rc, "cannot connect to %s: %s", where, reasons[i].words);
    }
    return vp_fail_errno(err, vp_err_from_errno(errnum), errnum, "cannot connect to %s", where);
}

/* The wait for it ended with `rc`. */
static int connect_ended(int rc, const char *where, struct vp_error *err)
{
    if (rc == VP_E_TIMED_OUT)
        return vp_fail(err, rc, "cannot connect to %s: no answer in time", where);
    return vp_fail(err, rc, "cannot connect to %s: %s", where, vp_err_text(rc));
}

/* ---- unix ---------------------------------------------------------------------------------- */

/* One connection on its way; belongs to whoever may touch it (offload_run_until). */
struct unix_try {
    int fd;
    int errnum;
    struct sockaddr_un addr;
};

static void unix_try_free(void *arg)
{
    struct unix_try *t = arg;
    if (t->fd >= 0)
        io_close(t->fd);
    free(t);
}

static int unix_try_blocking(void *arg)
{
    struct unix_try *t = arg;
    t->errnum = 0;
    if (connect(t->fd, (const struct sockaddr *)&t->addr, sizeof(t->addr)) != 0)
        t->errnum = errno;
    return 0;
}

/* Until it is connected, or refused for another reason than a full queue. `*t` is NULL afterwards
 * if it is not ours any more. */
static CO int unix_try_run(struct unix_try **t, uint64_t deadline_ns)
{
    for (;;) {
        int fn_rc;
        int rc = offload_run_until(unix_try_blocking, *t, unix_try_free, deadline_ns, &fn_rc);
        if (rc) {
            *t = NULL;
            return rc;
        }
        if ((*t)->errnum != EAGAIN && (*t)->errnum != EINTR)
            return 0;
        if (deadline_ns && reactor_now_ns() >= deadline_ns)
            return VP_E_TIMED_OUT;
        rc = co_sleep_ns(QUEUE_FULL_NS);
        if (rc)
            return rc;
    }
}

CO int io_connect_unix(const char *path, uint64_t deadline_ns, int *out_fd, struct vp_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path))
        return vp_fail(err, VP_E_TOO_BIG, "the socket path %s is longer than %zu bytes", path,
                       sizeof(addr.sun_path) - 1);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    struct unix_try *t = malloc(sizeof(*t));
    if (!t)
        return connect_ended(VP_E_NO_MEMORY, path, err);
    *t = (struct unix_try){.addr = addr};
    t->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int rc;
    if (t->fd < 0) {
        rc = connect_refused_by(errno, path, err);
    } else {
        rc = unix_try_run(&t, deadline_ns);
        if (rc)
            rc = connect_ended(rc, path, err);
        else if (t->errnum)
            rc = connect_refused_by(t->errnum, path, err);
        else
            *out_fd = steal_fd(&t->fd);
    }
    if (t)
        unix_try_free(t);
    return rc;
}

/* ---- tcp ----------------------------------------------------------------------------------- */

struct lookup {
    char host[256], port[16];
    struct addrinfo *list;
    int gai, errnum;
};

static void lookup_free(void *arg)
{
    struct lookup *l = arg;
    if (l->list)
        freeaddrinfo(l->list);
    free(l);
}

static int lookup_blocking(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    l->gai = getaddrinfo(l->host, l->port, &hints, &l->list);
    l->errnum = errno;
    return 0;
}

/* The addresses of a host, owned by the caller, which calls lookup_free. */
static CO int lookup_run(const char *host, const char *port, uint64_t deadline_ns,
                         struct lookup **out, struct vp_error *err)
{
    if (strlen(host) >= sizeof((*out)->host) || strlen(port) >= sizeof((*out)->port))
        return vp_fail(err, VP_E_TOO_BIG, "the address %s:%s is too long", host, port);
    struct lookup *l = calloc(1, sizeof(*l));
    if (!l)
        return connect_ended(VP_E_NO_MEMORY, host, err);
    memcpy(l->host, host, strlen(host));
    memcpy(l->port, port, strlen(port));
    int fn_rc;
    int rc = offload_run_until(lookup_blocking, l, lookup_free, deadline_ns, &fn_rc);
    if (rc)
        return connect_ended(rc, host, err);
    if (l->gai == 0) {
        *out = l;
        return 0;
    }
    if (l->gai == EAI_SYSTEM)
        rc = connect_refused_by(l->errnum, host, err);
    else
        rc =
            vp_fail(err, l->gai == EAI_MEMORY ? VP_E_NO_MEMORY : VP_E_NOT_FOUND,
                    "cannot find the address of %s, port %s: %s", host, port, gai_strerror(l->gai));
    lookup_free(l);
    return rc;
}

static bool tcp_set_up(int fd)
{
    /* Probes notice a peer that is silent while we wait, the user timeout one that takes nothing of
     * what we send. */
    static const struct {
        int level, name, value;
    } set[] = {{IPPROTO_TCP, TCP_NODELAY, 1},
               {SOL_SOCKET, SO_KEEPALIVE, 1},
               {IPPROTO_TCP, TCP_KEEPIDLE, IO_CONNECT_SILENCE_MS / 3000},
               {IPPROTO_TCP, TCP_KEEPINTVL, IO_CONNECT_SILENCE_MS / 3000},
               {IPPROTO_TCP, TCP_KEEPCNT, 2},
               {IPPROTO_TCP, TCP_USER_TIMEOUT, IO_CONNECT_SILENCE_MS}};
    for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++) {
        if (setsockopt(fd, set[i].level, set[i].name, &set[i].value, sizeof(int)) != 0)
            return false;
    }
    return true;
}

/* To a port of this host from which connections start, TCP may connect a socket to itself. */
static bool is_its_own_peer(int fd)
{
    struct sockaddr_storage own = {0}, peer = {0};
    socklen_t own_len = sizeof(own), peer_len = sizeof(peer);
    return getsockname(fd, (struct sockaddr *)&own, &own_len) == 0 &&
           getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 && own_len == peer_len &&
           memcmp(&own, &peer, own_len) == 0;
}

/* 0 when it is connected; else the errno. */
static int connect_result(int fd)
{
    int errnum = 0;
    socklen_t len = sizeof(errnum);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &len) != 0)
        return errno;
    return errnum == 0 && is_its_own_peer(fd) ? ECONNREFUSED : errnum;
}

static CO int tcp_try(const struct addrinfo *ai, const char *where, uint64_t deadline_ns,
                      int *out_fd, struct vp_error *err)
{
    AUTO_FD int fd =
        socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol);
    unsigned revents;
    if (fd < 0 || !tcp_set_up(fd) ||
        (connect(fd, ai->ai_addr, ai->ai_addrlen) != 0 && errno != EINPROGRESS))
        return connect_refused_by(errno, where, err);
    int rc = io_poll(fd, POLLOUT, deadline_ns, &revents);
    if (rc)
        return connect_ended(rc, where, err);
    int errnum = connect_result(fd);
    if (errnum)
        return connect_refused_by(errnum, where, err);
    *out_fd = steal_fd(&fd);
    return 0;
}

/* When the next of `addresses` has to be there, so that the others have their part of the time. */
static uint64_t part_of(uint64_t deadline_ns, unsigned addresses)
{
    uint64_t now = reactor_now_ns();
    if (!deadline_ns || now >= deadline_ns)
        return deadline_ns;
    return now + (deadline_ns - now) / addresses;
}

CO int io_connect_tcp(const char *host, const char *port, uint64_t deadline_ns, int *out_fd,
                      struct vp_error *err)
{
    struct lookup *l = NULL;
    char where[300];
    int rc = lookup_run(host, port, deadline_ns, &l, err);
    if (rc)
        return rc;
    (void)snprintf(where, sizeof(where), "%s:%s", host, port);
    unsigned left = 0;
    for (const struct addrinfo *ai = l->list; ai; ai = ai->ai_next)
        left++;
    rc = VP_E_NOT_FOUND; /* a look-up that succeeds has at least one */
    for (const struct addrinfo *ai = l->list; ai && rc && rc != VP_E_CANCELLED; ai = ai->ai_next)
        rc = tcp_try(ai, where, part_of(deadline_ns, left--), out_fd, err);
    lookup_free(l);
    if (!rc && err)
        *err = (struct vp_error){0}; /* of an address tried before */
    return rc;
}
