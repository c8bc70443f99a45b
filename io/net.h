/*
 * Sockets in a reactor's ring. Every call may be cut short by co_cancel or a deadline
 * (`deadline_ns` on the reactor's clock, 0 = none). Descriptors are plain numbers, owned by the
 * caller, and may be used on any one reactor at a time.
 */
#ifndef VP_IO_NET_H
#define VP_IO_NET_H

#include "base/error.h"
#include "io/co.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

/* Listens on a unix socket; `mode` are its permissions. A stale socket file (nobody listens) is
 * replaced. *file says which file it is. Errors with a sentence: VP_E_EXISTS (somebody listens),
 * VP_E_PERMISSION, VP_E_SYSTEM, VP_E_NO_MEMORY. */
CO int io_listen_unix(const char *path, unsigned mode, int *out_fd, struct stat *file,
                      struct vp_error *err) must_check;
/* Takes the socket's file away, unless it is another one by now. */
CO void io_unlisten_unix(const char *path, const struct stat *file);
/* Listens on TCP; `host` numeric or "localhost", `port` as text, "0" picks a free one;
 * *out_port is the real one. */
int io_listen_tcp(const char *host, const char *port, int *out_fd, unsigned *out_port,
                  struct vp_error *err) must_check;

/* A connected client's descriptor (close-on-exec), or an error. */
CO int io_accept(int listen_fd, uint64_t deadline_ns, int *out_fd) must_check;

/*
 * Connects; *out_fd is non-blocking and close-on-exec. For both: errors, each with a sentence, are
 * VP_E_REFUSED (nobody listens), VP_E_NOT_FOUND (no such file, no such host), VP_E_PERMISSION,
 * VP_E_UNREACHABLE (no way to that host), VP_E_TIMED_OUT, VP_E_CANCELLED, VP_E_TOO_BIG (the path),
 * VP_E_NO_MEMORY, VP_E_SYSTEM. Not in a simulated world.
 */
CO int io_connect_unix(const char *path, uint64_t deadline_ns, int *out_fd,
                       struct vp_error *err) must_check;
/* `host` is a name or a number, `port` a number as text. Every address of the host is tried in
 * turn, each with its part of the time. Small messages go at once (TCP_NODELAY). A peer that is
 * gone without a word is noticed after IO_CONNECT_SILENCE_MS: the next call says VP_E_TIMED_OUT. */
CO int io_connect_tcp(const char *host, const char *port, uint64_t deadline_ns, int *out_fd,
                      struct vp_error *err) must_check;
#define IO_CONNECT_SILENCE_MS 15000

/* Receives 1..len bytes into *got; *got = 0 at the end of the stream. Errors: VP_E_CLOSED (reset),
 * VP_E_CANCELLED, VP_E_TIMED_OUT. */
CO int io_recv(int fd, void *buf, size_t len, uint64_t deadline_ns, size_t *got) must_check;
/* Receives exactly len bytes; VP_E_CLOSED when the stream ends before. */
CO int io_recv_all(int fd, void *buf, size_t len, uint64_t deadline_ns) must_check;
/* Sends everything; changes iov. Never raises SIGPIPE. */
CO int io_sendv_all(int fd, struct iovec *iov, unsigned iov_count, uint64_t deadline_ns) must_check;
CO int io_send_all(int fd, const void *buf, size_t len, uint64_t deadline_ns) must_check;

/* Readable or writable (`events` as of poll(2)), for descriptors that are not sockets (a signalfd,
 * an eventfd, a pidfd). */
CO int io_poll(int fd, unsigned events, uint64_t deadline_ns, unsigned *revents) must_check;

/* Which of these events there are now; for a caller that has more to do if there are any. */
unsigned io_ready(int fd, unsigned events);

/* Ends both directions, so that whoever waits in recv or send returns. */
void io_shutdown(int fd);
void io_close(int fd);

/* Peer of a unix socket. */
int io_peer_credentials(int fd, unsigned *pid, unsigned *uid, unsigned *gid) must_check;

#endif
