/*
 * A listening stream socket on which each line is a JSON-RPC frame: the control socket, and the one
 * for other daemons. Home reactor.
 *
 * A connection is a coroutine that answers its requests one after the other. Bounds: connections,
 * bytes of a frame, time from a frame's first byte to its newline, time to take a reply. Where
 * connections are short, those that wait for their clients make room for new ones.
 *
 * On a unix socket the kernel says who the client is, and only root, the daemon's user and the
 * socket's group may call. On TCP nobody says that: whoever reaches the port may call.
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
    const struct rpc *rpc; /* borrowed until control_server_stop has returned            */
    const char *name;      /* "control": what it is for, in messages; the rest likewise  */
    const char *limit;     /* "control.max-connections": the key                         */
    const char *path;      /* NULL: TCP                                                  */
    unsigned port;         /* of TCP */
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

/* Before all others; what is borrowed and the bounds are set then. */
void control_server_init(struct control_server *s);
/* Listens on `path`, mode 0660, group `group` ("" = the process's). Errors with a sentence. */
CO int control_server_listen(struct control_server *s, const char *path, const char *group,
                             struct vp_error *err) must_check;
/* Listens on TCP (io_listen_tcp). Errors with a sentence. */
int control_server_listen_tcp(struct control_server *s, const char *host, const char *port,
                              struct vp_error *err) must_check;
/* Accepts from now on. */
int control_server_start(struct control_server *s) must_check;
/* No new connections; waits for requests under way to be answered, for a second for a client that
 * does not take its reply, then closes and unlinks. The caller has woken whatever a request waits
 * for. */
CO void control_server_stop(struct control_server *s);

/* In a call: as co_queue_wait_until, for something that may never come. The connection can be cut
 * meanwhile (VP_E_CANCELLED), as if it were silent. */
CO int control_server_wait(struct control_server *s, struct co_queue *q, uint64_t deadline_ns,
                           const char *why) must_check;

/* In a call: what calls have noted about their connection; "" at first. To be written to. */
#define CONTROL_SERVER_NOTE 80
char *control_server_note(struct control_server *s);

/* In a call that succeeds: its reply is the last of the connection. Once that is sent, `fn` gets
 * the descriptor, which is fn's from then on. -1: the reply could not be sent, or the client did
 * not wait for it. fn is called once in any case; until it returns the connection has its place. */
void control_server_hand_over(struct control_server *s, void (*fn)(void *arg, int fd), void *arg);

#endif
