/*
 * A move between two hosts: the source's end, which is a migrate_peer over a link, and the end that
 * receives. What control/ does in a daemon is done here for a host.
 *
 * 1. Each target has a secret, which its maker is told. A message may come twice, late, and to a
 *    host that has been down meanwhile: another target of the same move is not the one that was
 *    copied to.
 * 2. A session of a move has a generation. Before a new generation begins no request of an older
 *    one is left, and what comes of an older one is refused (GUARD_MOVE_GENERATION).
 * 3. Before the volume arrives, or what becomes of the move is decided, its session ends.
 * 4. The receiver declines when it has heard nothing of the source for 60 s.
 * 5. A source in doubt asks again and again, and the receiver's answer stays true.
 */
#ifndef VP_TESTS_SIM_PEER_H
#define VP_TESTS_SIM_PEER_H

#include "migrate/receive.h"
#include "tests/sim/link.h"
#include "tests/sim/rig.h"

struct host;

/* The source's end of one move. The maker has it until the move has ended. */
struct peer {
    struct host *host;
    struct receive_claim claim;
    uint64_t secret;
    unsigned generation, connection;
    bool lost; /* nothing is sent before a renewal */
    bool open; /* the receiver is told that we are here */
    struct co_queue stop;
    struct co_group keeper;
    struct migrate_peer peer;
};
void peer_init(struct peer *p, struct host *h, struct volumes *vs, const char *volume);

/* Of one host, in one life. */
struct peers {
    struct list calls;    /* that wait for a reply */
    struct list incoming; /* moves to this host */
};
void peers_init(struct peers *p);
/* For a life that ended. */
void peers_forget(struct peers *p);

#define PEER_REPLY_NS UINT64_C(2000000000) /* how long a reply is waited for */
/* CO. Sends *m to the other host and waits. What a reply carries goes to reply->data, if that is
 * set. Errors: those of the reply; VP_E_PEER_LOST: none came. */
int peer_ask(struct host *h, struct message *m, uint64_t wait_ns, struct message *reply);
/* A reply came. In the reactor's context. */
void peer_reply(struct host *h, const struct message *m);
/* A message for this host, in its reactor's context. */
void peer_receive(struct host *h, const struct message *m);
/* The connections that there were have broken: what waits in one ends. In the reactor's context. */
void peer_broken(struct host *h);
/* CO. Declines what is silent, and asks about what is in doubt, once. */
void peer_monitor(struct host *h);
/* CO. Moves that are at work no more are forgotten. */
void peers_close(struct host *h);
/* A target is here that has neither arrived nor been declined. */
bool peer_is_receiving(const struct host *h);

#endif
