/* Listening sockets, and who is at the other end. Control path only. A socket's file may be in a
 * file system on a disk that this very reactor serves. So calls that touch the file run on a thread
 * of their own. */
#include "io/net.h"

#include "base/attr.h"
#include "io/offload.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 128

static int listen_failed(const char *where, struct vp_error *err)
{
    int rc = errno == EACCES || errno == EPERM ? VP_E_PERMISSION
             : errno == EADDRINUSE             ? VP_E_EXISTS
                                               : VP_E_SYSTEM;
    return vp_fail_errno(err, rc, errno, "cannot listen on %s", where);
}

/* Does somebody accept connections there? A stale socket file refuses. */
static bool is_alive(const struct sockaddr_un *addr)
{
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return true; /* not known: leave the file alone */
    if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
        return true;
    return errno != ECONNREFUSED;
}

/* Takes away a socket file of that name on which nobody listens. */
static int remove_stale(const struct sockaddr_un *addr, struct vp_error *err)
{
    struct stat st;
    if (lstat(addr->sun_path, &st) != 0)
        return errno == ENOENT ? 0 : listen_failed(addr->sun_path, err);
    if (!S_ISSOCK(st.st_mode))
        return vp_fail(err, VP_E_EXISTS, "%s exists and is not a socket; move it away",
                       addr->sun_path);
    if (is_alive(addr))
        return vp_fail(err, VP_E_EXISTS, "somebody listens on %s already", addr->sun_path);
    if (unlink(addr->sun_path) != 0 && errno != ENOENT)
        return listen_failed(addr->sun_path, err);
    return 0;
}

struct listen_unix {
    const char *path;
    unsigned mode;
    int *out_fd;
    struct stat *file;
    struct vp_error *err;
};

static int listen_unix_blocking(void *arg)
{
    const struct listen_unix *l = arg;
    const char *path = l->path;
    struct vp_error *err = l->err;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path))
        return vp_fail(err, VP_E_TOO_BIG, "the socket path %s is longer than %zu bytes", path,
                       sizeof(addr.sun_path) - 1);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    int rc = remove_stale(&addr, err);
    if (rc != 0)
        return rc;
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return listen_failed(path, err);
    /* The permissions are right before anybody can connect: that takes listen. */
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
        return listen_failed(path, err);
    if (chmod(path, (mode_t)l->mode) != 0 || lstat(path, l->file) != 0 ||
        listen(fd, BACKLOG) != 0) {
        rc = listen_failed(path, err);
        (void)unlink(path);
        return rc;
    }
    *l->out_fd = steal_fd(&fd);
    return 0;
}

CO int io_listen_unix(const char *path, unsigned mode, int *out_fd, struct stat *file,
                      struct vp_error *err)
{
    struct listen_unix l = {path, mode, out_fd, file, err};
    return offload_run(listen_unix_blocking, &l);
}

struct unlisten {
    const char *path;
    const struct stat *file;
};

static int unlisten_blocking(void *arg)
{
    const struct unlisten *u = arg;
    struct stat now;
    bool ours =
        lstat(u->path, &now) == 0 && now.st_dev == u->file->st_dev && now.st_ino == u->file->st_ino;
    return ours ? unlink(u->path) : 0;
}

CO void io_unlisten_unix(const char *path, const struct stat *file)
{
    struct unlisten u = {path, file};
    vp_ignore(offload_run(unlisten_blocking, &u), "a stale socket is replaced at the next start");
}

static int listen_on(const struct addrinfo *ai, const char *where, struct vp_error *err)
{
    AUTO_FD int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, ai->ai_protocol);
    int on = 1;
    /* NODELAY is inherited by the connections that are accepted. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        bind(fd, ai->ai_addr, ai->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0)
        return listen_failed(where, err);
    return steal_fd(&fd);
}

static unsigned port_of(int fd)
{
    struct sockaddr_storage addr = {0};
    socklen_t len = sizeof(addr);
    if (getsockname(fd, (struct sockaddr *)&addr, &len) != 0)
        return 0;
    return addr.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&addr)->sin6_port)
                                      : ntohs(((struct sockaddr_in *)&addr)->sin_port);
}

int io_listen_tcp(const char *host, const char *port, int *out_fd, unsigned *out_port,
                  struct vp_error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    if (strcmp(host, "localhost") != 0) /* asking a name server would hold up the reactor */
        hints.ai_flags |= AI_NUMERICHOST;
    char where[300];
    (void)snprintf(where, sizeof(where), "%s:%s", host, port);
    int rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0)
        return vp_fail(err, VP_E_INVALID,
                       "%s is not an address to listen on: %s (write its number)", where,
                       gai_strerror(rc));
    int fd = -1;
    for (const struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next)
        fd = listen_on(ai, where, err);
    freeaddrinfo(list);
    if (fd < 0)
        return fd; /* the code of the last try */
    if (err)
        *err = (struct vp_error){0}; /* of an address tried before */
    *out_fd = fd;
    *out_port = port_of(fd);
    return 0;
}

int io_peer_credentials(int fd, unsigned *pid, unsigned *uid, unsigned *gid)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
        return vp_err_from_errno(errno);
    *pid = (unsigned)cred.pid;
    *uid = cred.uid;
    *gid = cred.gid;
    return 0;
}
