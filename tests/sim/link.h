/*
 * What lies between the hosts: messages that are delayed, lost and doubled, connections that break,
 * and ways that are cut in one direction or in both.
 *
 * A message outside a connection is lost while its way is cut, and is sometimes delivered twice. A
 * message in a connection waits while its way is cut, and is delivered once, if at all. When a
 * connection breaks, its messages that are under way are lost, or come late: the other side had
 * received them, and had not looked at them yet. It does so after some time, or just before one of
 * the next messages that come to it. A session is asked for twice only after something befell the
 * link: else nobody asks again.
 */
#ifndef VP_TESTS_SIM_LINK_H
#define VP_TESTS_SIM_LINK_H

#include "base/list.h"
#include "io/sim_hosts.h"
#include "migrate/receive.h"

enum { LINK_HOSTS = 2 };

enum message_kind {
    /* outside connections: from the source of a move */
    MESSAGE_MAKE = 1,
    MESSAGE_SESSION,
    MESSAGE_KEEP,
    MESSAGE_ARRIVE,
    MESSAGE_DECIDE,
    MESSAGE_DECLINE,
    MESSAGE_CONFIRM,
    /* in connections */
    MESSAGE_WRITE,
    MESSAGE_ZERO,
    MESSAGE_FLUSH,
    MESSAGE_READ,
    /* both, from the target */
    MESSAGE_REPLY,
};

struct message {
    struct list link; /* in link_way.waiting or link.unread */
    struct link_way *way;
    enum message_kind kind;
    unsigned from, to;
    uint64_t request;    /* that is sent, or replied to; the sender's number */
    unsigned connection; /* 0: none */
    /* the request */
    struct receive_claim claim; /* names the move */
    uint64_t secret;            /* of the target that was made */
    unsigned generation;
    struct migrate_offer offer; /* of MESSAGE_MAKE; its info is: */
    struct volume_info info;
    char name[VOLUME_NAME_MAX + 1];
    uint64_t offset, len;
    unsigned char *data; /* of MESSAGE_WRITE, and of a reply to MESSAGE_READ: `len` bytes, the
                            message's own */
    /* the reply */
    int rc;
    struct vp_uuid pool;
    enum migrate_verdict verdict;
};

/* One direction. */
struct link_way {
    bool cut;
    struct list waiting; /* messages in connections, until the way is there again */
};

struct link {
    struct sim_hosts *hosts;
    struct link_way way[LINK_HOSTS][LINK_HOSTS]; /* from, to */
    struct list flying;                          /* all messages on their way */
    struct list unread;   /* those that are looked at before one that comes later */
    bool disturbed;       /* it was cut, or connections were broken */
    unsigned connections; /* numbers given out */
    unsigned broken;      /* connections up to this one are broken */
    /* On the host that gets it, in its reactor's context; *m lasts until it returns. */
    void (*receive)(void *arg, const struct message *m);
    /* Before each message is sent. False: its sender has just ended. */
    bool (*moment)(void *arg, unsigned from);
    void *arg;
};

void link_init(struct link *l, struct sim_hosts *hosts);
void link_fini(struct link *l);
/* Takes a copy of *m, and of its data. */
void link_send(struct link *l, const struct message *m);
/* A new connection's number. The one before is closed. */
unsigned link_connect(struct link *l);
bool link_is_broken(const struct link *l, unsigned connection);
/* All connections break that there are. */
void link_break(struct link *l);
void link_cut(struct link *l, unsigned from, unsigned to, bool cut);

#endif
