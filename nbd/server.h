/*
 * The NBD server. One `struct nbdx_server` for each attachment has a listening socket and the
 * exports that are reached through it. Instead of listening, a server may be given its connections.
 * nbd/README.md has the structure, docs/nbd.md says what clients get.
 *
 * Threads: a server belongs to the reactor that started it, and its functions are called there
 * (those marked CO may be called from any reactor). Requests of a volume run on the volume's
 * reactor.
 */
#ifndef VP_NBD_SERVER_H
#define VP_NBD_SERVER_H

#include "base/error.h"
#include "base/figure.h"
#include "io/co.h"
#include "volumes/front.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBDX_EXPORTS_MAX 64
#define NBDX_ALIASES_MAX 7
#define NBDX_PATH_MAX    107 /* sun_path */

/* ---- where to listen ----------------------------------------------------------------------- */

enum nbdx_address_kind {
    NBDX_UNIX,  /* path, permissions 0660                                           */
    NBDX_TCP,   /* host (empty: 127.0.0.1) and port ("0" picks a free one)          */
    NBDX_FD,    /* an inherited listening socket, which the server then owns        */
    NBDX_GIVEN, /* nowhere: connections are handed in by nbdx_server_give */
};
struct nbdx_address {
    enum nbdx_address_kind kind;
    char path[NBDX_PATH_MAX + 1];
    char host[256];
    char port[16];
    int fd;
};

/* "unix:PATH", "tcp:HOST:PORT", "tcp:[V6]:PORT", "tcp::PORT". VP_E_INVALID with what to write. */
int nbdx_address_parse(const char *text, struct nbdx_address *out, struct vp_error *err) must_check;

/* ---- what is served ------------------------------------------------------------------------ */

struct nbdx_export {
    const char *name;           /* "POOL/VOL"; copied                                           */
    const char *const *aliases; /* clients find it by these too, and are shown `name`; copied   */
    unsigned alias_count;       /* at most NBDX_ALIASES_MAX                                     */
    const char *description;    /* NULL: none; copied                                           */
    struct front *front;        /* of a volume that is open until nbdx_server_stop has returned */
    bool read_only;             /* in addition to the volume's own property                     */
};

/* Connections of several servers, bounded together; owned by the caller, outlives the servers. */
struct nbdx_total {
    unsigned max; /* 0 = no bound */
    _Atomic unsigned used;
};

/* 0 means the default, which is in brackets. At the limit of `connections`, or of the total, a new
 * connection is closed. At the other limits the server reads no more from that connection until
 * something has been answered. */
struct nbdx_limits {
    unsigned connections;  /* of this server [64]                                               */
    unsigned handshake_ms; /* from connect to the start of transmission [10000]                 */
    unsigned requests;     /* in flight per connection [128], at most NBDX_REQUESTS_MAX         */
    size_t buffer_bytes;   /* of payload in flight per connection [16 MiB], at least 2 MiB      */
    unsigned stall_ms;     /* a connection that waits so long for others' buffers has the one hung
                              up whose client stalls longest while it holds some [10000]        */
};
#define NBDX_REQUESTS_MAX 1024

struct nbdx_server_options {
    struct nbdx_address address;
    const struct nbdx_export *exports; /* with exactly one, the empty name means it too */
    unsigned export_count;             /* 1..NBDX_EXPORTS_MAX                           */
    struct nbdx_limits limits;
    struct nbdx_total *total; /* NULL: no bound beyond this server's own */
};

struct nbdx_server;

/*
 * CO. Listens, and serves from now on. With one export everything runs on the reactor of its
 * volume. With several, handshakes run on the calling reactor, and a connection then moves to the
 * reactor of its volume. Errors: VP_E_INVALID, VP_E_EXISTS (somebody listens there),
 * VP_E_PERMISSION, VP_E_SYSTEM, VP_E_NO_MEMORY, VP_E_IO_TOO_MANY_COROUTINES.
 */
CO int nbdx_server_start(const struct nbdx_server_options *o, struct nbdx_server **out,
                         struct vp_error *err) must_check;

/*
 * Ends the service and frees the server. There are no new connections, and the socket file is
 * unlinked. Requests that have started are answered as they end, and all others with NBD_ESHUTDOWN.
 * Requests that wait for space are cancelled. Connections that are still there after `deadline_ms`
 * are cut (0: at once and without an answer, for a server that comes back). Requests that a disk
 * still holds are always waited for. So nothing of a client can land afterwards.
 */
CO void nbdx_server_stop(struct nbdx_server *s, unsigned deadline_ms);

/* CO. Nobody listens any more, and the socket file is unlinked. Connections that are there go
 * on. */
CO void nbdx_server_close(struct nbdx_server *s);

/*
 * CO. Serves the connected client on `fd`, which the server owns from now on, also after an error.
 * The server's greeting is the next that the client sees. For a server of any kind of address; from
 * any reactor. The limits are those of accepted connections, and so is what nbdx_server_stop
 * promises. No call begins when nbdx_server_stop has been called; one that is under way by then is
 * waited for. Errors: VP_E_SHUTDOWN (the server stops), VP_E_AGAIN (at the limit of connections, or
 * no coroutine), VP_E_NO_MEMORY.
 */
CO int nbdx_server_give(struct nbdx_server *s, int fd) must_check;

/*
 * CO. Export `index` of a server that runs is called `name` from now on, and is found by these
 * aliases too, by new connections and by those that still shake hands. Connections are not
 * disturbed. VP_E_NO_MEMORY: it keeps the names that it had.
 */
CO int nbdx_server_rename(struct nbdx_server *s, unsigned index, const char *name,
                          const char *const *aliases, unsigned alias_count) must_check;

/* How clients name export `index`: "nbd+unix:///POOL/VOL?socket=PATH", "nbd://HOST:PORT/POOL/VOL".
 * False when `size` is too small, and for a server without an address. */
bool nbdx_server_uri(const struct nbdx_server *s, unsigned index, char *out, size_t size);
/* The TCP port that was taken; 0 for unix sockets. */
unsigned nbdx_server_port(const struct nbdx_server *s);

/* ---- figures ------------------------------------------------------------------------------- */

struct nbdx_figures {
#define FIGURE FIGURE_FIELD
#include "nbd/figures.def"
};
extern const struct figure_set nbdx_figure_set;

/* Adds to `sum` what all exports of the server have counted, as figure_set_add does. Any reactor.
 */
void nbdx_server_figures(const struct nbdx_server *s, struct nbdx_figures *sum);

struct nbdx_connection_info {
    char peer[64]; /* "pid 123 uid 0", "127.0.0.1:4711", "?" */
    unsigned pid, uid;
    char export_name[160]; /* "" while the handshake goes on */
    bool structured, extended;
    unsigned in_flight;
    uint64_t connected_ns; /* reactor clock */
};
struct nbdx_server_stats {
    unsigned connections;
    uint64_t accepted, refused; /* since the start; refused: over a limit                       */
    uint64_t handshakes_failed; /* garbage, unknown export, deadline                            */
};
/* `info` (may be NULL) receives up to `max` connections, *count how many. CO: asks the server's
 * reactor. */
CO void nbdx_server_stats(struct nbdx_server *s, struct nbdx_server_stats *out,
                          struct nbdx_connection_info *info, unsigned max, unsigned *count);

/* ---- captive servers ----------------------------------------------------------------------- */

/* Serves one connected client on `fd` (owned from now on) until it is gone; on the calling reactor
 * or, after the handshake, on the volume's. VP_E_NBD_PROTOCOL when the handshake failed. */
CO int nbdx_serve_fd(int fd, const struct nbdx_export *exports, unsigned export_count,
                     const struct nbdx_limits *limits) must_check;

/* Returns when at least one client came and all are gone, or the server stops. */
CO void nbdx_server_wait_unused(struct nbdx_server *s);
/* Makes nbdx_server_wait_unused return now (a signal came). On the server's reactor. */
void nbdx_server_end_wait(struct nbdx_server *s);

#endif
