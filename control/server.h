/*
 * The control socket: a unix stream socket on which each line is a JSON-RPC frame. Home reactor.
 *
 * A connection is a coroutine that answers its requests one after the other. Bounds: connections,
 * bytes of a frame, time from a frame's first byte to its newline, time to take a reply. Where
 * connections are short, those that wait for their clients make room for new ones.
 */
#ifndef VP_CONTROL_SERVER_H
#define VP_CONTROL_SERVER_H

#include "base/error.h"
#include "base/list.h"
#include "control/rpc.h"
#include "io/co.h"

#include <sys/stat.h>
#include <sys/types.h>

struct control_server {
    const struct rpc *rpc; /* borrowed until control_server_stop has returned */
    const char *path;      /* borrowed likewise */
    unsigned connections_max;
    uint64_t frame_timeout_ns;
    gid_t socket_gid;

    int listen_fd;
    struct stat file; /* of the socket: only this one is unlinked */
    bool stopping;
    struct co *acceptor; /* NULL when it has ended */
    struct list connections;
    unsigned count, admitted; /* count: with those that are refused or were cut, and end */
    struct co_queue gone;     /* somebody of the above has ended */
};

/* Listens on `path`, mode 0660, group `group` ("" = the process's). Errors with a sentence. */
CO int control_server_listen(struct control_server *s, const char *path, const char *group,
                             struct vp_error *err) must_check;
/* Accepts from now on. `rpc`, `connections_max` and `frame_timeout_ns` are set before. */
int control_server_start(struct control_server *s) must_check;
/* No new connections; waits for requests under way to be answered, for a second for a client that
 * does not take its reply, then closes and unlinks. The caller has woken whatever a request waits
 * for. */
CO void control_server_stop(struct control_server *s);

/* In a call: as co_queue_wait_until, for something that may never come. The connection can be cut
 * meanwhile (VP_E_CANCELLED), as if it were silent. */
CO int control_server_wait(struct control_server *s, struct co_queue *q, uint64_t deadline_ns,
                           const char *why) must_check;

#endif
