/* Shared by receivers.c, receivers_message.c and receivers_exports.c. */
#ifndef VP_CONTROL_RECEIVERS_IMPL_H
#define VP_CONTROL_RECEIVERS_IMPL_H

#include "control/control_impl.h"
#include "control/receivers.h"

struct receiver {
    struct list link;
    struct control *control;
    struct control_pool *pool; /* a reference; NULL: it has ended */
    struct co_mutex lock;
    unsigned users;    /* who is, or waits to be, in its lock; its watcher */
    bool exports_held; /* they neither come nor go */
    bool forgotten;    /* on no list: the last user frees it */
    struct co_queue ended;

    struct vp_uuid id, volume_uuid, source_pool;
    uint64_t epoch, total_bytes;
    char volume[VOLUME_FULL_NAME_MAX + 1], from[VOLUME_FULL_NAME_MAX + 1];
    char host[VOLUME_PEER_MAX + 1];
    char secret[RECEIVER_SECRET_TEXT];
    struct receive *receive;     /* NULL: being made, or ended */
    struct nbdx_server *session; /* NULL: none */
    uint64_t generation;         /* of the last session; 0: there was none */
    uint64_t heard_ns;           /* when the source was heard of */
    uint64_t started, ended_at;  /* seconds since 1970 */
    uint64_t copied_bytes;       /* of one that has ended */
    const char *phase;
    char error[512];
};

/* For receive_admit. */
struct receive_exports receiver_exports(struct receiver *r);
/* In the lock. Exports neither come nor go, until the move has ended or exports_held is taken back.
 */
CO void receiver_exports_hold(struct receiver *r);
/* In the lock, held: the volume has arrived, and serves them. */
void receiver_exports_arrived(struct receiver *r);

struct receiver *receiver_find(const struct control *c, struct vp_uuid id);
/* False: it has ended meanwhile, and is not locked. */
CO bool receiver_lock(struct receiver *r);
void receiver_unlock(struct receiver *r);

/* In the lock: */

/* Nothing that came by the session lands any more. */
CO void receiver_session_end(struct receiver *r);
/* The first one counts: why it ends. */
void receiver_note(struct receiver *r, const char *why);
/* Its say ends: what is there is in the pool's records. */
CO void receiver_end(struct receiver *r);
/* The target is deleted. The move ends in any case; after an error it is settled later. */
CO int receiver_decline(struct receiver *r, const char *why, struct vp_error *err) must_check;

#endif
