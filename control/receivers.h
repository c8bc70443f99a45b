/*
 * Volumes that come from another daemon: the moves at work here, and the last ones that ended.
 * method_peer.c has the messages of the source's daemon, migrate/receive.h the records.
 *
 *     make ──→ session 1, 2, … ──→ arrive
 *                  └──────────────→ decline, cancel, the source is silent, the daemon stops
 *
 * 1. A session is an NBD server whose connections the source gives it (peer.data). A new session
 *    begins when the one before has ended: no request of that is left, and none lands later. So
 *    what the source sends in a session is newer than all that it sent before.
 * 2. Each move has a lock. It is held while a message is worked on, so that one message at a time
 *    is. A message that has waited looks whether the move is still at work.
 * 3. A move at work holds a reference on its pool. Whoever takes the pool away first asks
 *    receivers_refuse, or ends all moves.
 * 4. A move that has ended has no say any more. What became of the volume is asked of the pool's
 *    records (receive_decide), as after a restart.
 * 5. Exports of the volume may come and go before it has arrived (receivers_exports.c).
 *
 * Home reactor only. Tested by tests/integration/t_migrate_peer_receive.py.
 */
#ifndef VP_CONTROL_RECEIVERS_H
#define VP_CONTROL_RECEIVERS_H

#include "migrate/receive.h"

#include <jansson.h>

#define RECEIVERS_MAX        64 /* at work at the same time                       */
#define RECEIVERS_REMEMBERED 16 /* that have ended, the newest ones               */
#define RECEIVER_DATA_MAX    16 /* connections of a session                       */
#define RECEIVER_PATIENCE_S  60 /* a source that is silent for so long is given up */
#define RECEIVER_HOST_MAX    64 /* of a daemon's name                             */
#define RECEIVER_SECRET_TEXT 33 /* with its NUL                                   */

struct control;
struct control_pool;
struct receiver;

struct receivers { /* part of struct control */
    struct list at_work, ended;
    struct list messages; /* that wait for disks, or for each other */
    unsigned count, ended_count;
    unsigned watched; /* whose source's silence is counted */
    struct co_queue unwatched;
    struct vp_uuid life; /* of this daemon's start: another one, and no move goes on */
};

void receivers_init(struct receivers *rs);
/* None is at work. */
void receivers_fini(struct receivers *rs);

/* What the source of a move proves itself with. */
struct receiver_key {
    struct vp_uuid id;
    const char *secret;
};

struct receiver_made {
    char volume[VOLUME_FULL_NAME_MAX + 1];
    char secret[RECEIVER_SECRET_TEXT];
};
/* What the arguments of peer.make offer, from the daemon `host`; o->info is `info`. *volume: "VOL"
 * of the source, which is the target's name too unless another one is asked for. Errors:
 * parameters; VP_E_NOT_SUPPORTED. */
int peer_offer_decode(const void *args, const char *host, struct migrate_offer *o,
                      struct volume_info *info, const char **volume,
                      struct vp_error *err) must_check;
/* A move to `volume` of p begins; the caller holds a reference on p. Errors: those of
 * receive_begin; VP_E_EXISTS: the move is here already; VP_E_AGAIN: too many; VP_E_NOT_FOUND,
 * VP_E_SHUTDOWN. */
CO int receiver_make(struct control *c, struct control_pool *p, const char *volume,
                     const struct migrate_offer *o, struct receiver_made *out,
                     struct vp_error *err) must_check;

/* Errors of these: VP_E_NOT_FOUND: no such move is at work; VP_E_PERMISSION: another secret. */

/* A new session, after the one before has ended. */
CO int receiver_session(struct control *c, const struct receiver_key *k, uint64_t *generation,
                        struct vp_error *err) must_check;
/* Whether a connection for data may come now. VP_E_INVALID: the session is another one. */
int receiver_data_check(struct control *c, const struct receiver_key *k, uint64_t generation,
                        struct vp_error *err) must_check;
/* Takes `fd` into that session, or closes it. */
CO void receiver_data_give(struct control *c, struct vp_uuid id, uint64_t generation, int fd);
/* The source is still there. */
int receiver_keep(struct control *c, const struct receiver_key *k, struct vp_error *err) must_check;

struct receiver_claim {
    struct vp_uuid pool; /* of the target */
    struct receive_claim claim;
};
/* Ends the session. `arrive`: the volume arrives, if it still can; else it never will. 0: the
 * verdict is known. Errors: nobody knows; VP_E_AGAIN: the pool is not open. */
CO int receivers_verdict(struct control *c, const struct receiver_claim *k, bool arrive,
                         enum migrate_verdict *verdict, struct vp_error *err) must_check;
/* VP_E_AGAIN: the pool is not open. */
CO int receivers_confirm(struct control *c, const struct receiver_claim *k,
                         struct vp_error *err) must_check;

/* Why a command about the move of this volume is not for this daemon. VP_E_INVALID: it comes from
 * elsewhere, and `what` ("pause") is to be said there. VP_E_NOT_FOUND: it does not. */
int receiver_refuse(struct control *c, const char *volume, const char *what,
                    struct vp_error *err) must_check;
/* The operator's cancel, by the volume here, "POOL/VOL". *out: a new reference, the move as it
 * ended. VP_E_NOT_FOUND: it does not come from elsewhere. */
CO int receiver_cancel(struct control *c, const char *volume, json_t **out,
                       struct vp_error *err) must_check;
/* Adds those of a volume, or (NULL) all, to an array, as migrations_json does. */
void receivers_add_json(struct control *c, const char *volume, json_t *all);
/* The one of this id; NULL. A new reference. */
json_t *receiver_json_of(struct control *c, struct vp_uuid id);
/* As migrations_refuse. No yield. */
int receivers_refuse(const struct control *c, const struct control_pool *p, const char *what,
                     struct vp_error *err) must_check;
/* VP_E_VOLUME_MOVING: the volume arrives in this moment, or is given up: its exports stay. */
int receivers_refuse_change(const struct control *c, const struct control_pool *p,
                            const char *volume, struct vp_error *err) must_check;
/* The daemon stops: declines all. No message is worked on any more. */
CO void receivers_end(struct control *c);

#endif
