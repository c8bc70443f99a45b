/*
 * The other side of a move, as the mover (migrate.c) sees it: where the data go, and who says
 * whether the volume has arrived. There are three implementations: a pool of this daemon
 * (peer_local.c), another daemon (control/), and a host of the simulator.
 */
#ifndef VP_MIGRATE_PEER_H
#define VP_MIGRATE_PEER_H

#include "volumes/owner.h"

/* What the target is made from. */
struct migrate_offer {
    struct volume_move source;      /* the move's id; the source's pool and volume; `peer`: the name
                                       of the source's daemon, "" when it is this one */
    uint64_t epoch;                 /* of the source */
    const struct volume_info *info; /* the source's uuid, time of creation, options, space */
};

enum migrate_verdict {
    MIGRATE_NOT_KNOWN,   /* nobody there answers */
    MIGRATE_HAS_ARRIVED, /* durably              */
    MIGRATE_HAS_NOT,     /* durably: and never will */
};

struct migrate_peer_ops {
    /* ---- HOME ---- */

    /* Makes an empty TARGET, and opens it for the data that come from `beside`, the reactor of the
     * source. *pool: its pool. Errors, each with what to do; nothing is left then. */
    CO int (*make)(void *arg, const struct migrate_offer *offer, struct reactor *beside,
                   struct vp_uuid *pool, struct vp_error *err);
    /* After VP_E_PEER_LOST: opens it again. Nothing that was sent before lands any more once this
     * has succeeded. VP_E_PEER_LOST: not now; it may be tried again. So may it after errors of
     * something that is short here or there for a while: VP_E_AGAIN, VP_E_TIMED_OUT,
     * VP_E_NO_MEMORY, VP_E_SYSTEM, VP_E_IO_TOO_MANY_COROUTINES. Other errors: there is no target
     * any more. NULL: it is never lost. */
    CO int (*renew)(void *arg, struct vp_error *err);
    /* All that waits for the data's way ends soon with VP_E_PEER_LOST, and so does what comes
     * before the next `renew`. No yield. NULL: as above. */
    void (*cut)(void *arg);
    /* The frozen source has been copied and flushed: TARGET becomes ARRIVED. 0 only if it has. The
     * error says why not, also with MIGRATE_HAS_NOT (receive.h returns 0 for that); after
     * MIGRATE_NOT_KNOWN the call may be made again. */
    CO int (*arrive)(void *arg, enum migrate_verdict *verdict, struct vp_error *err);
    /* The move ends without effect: the target is deleted. Not after `arrive`, unless that said
     * MIGRATE_HAS_NOT. An error is no harm: whoever asks later deletes it then. */
    CO int (*decline)(void *arg, struct vp_error *err);
    /* The source is deleted: ARRIVED becomes OWNER. After an error it stays ARRIVED: it is served,
     * and cannot be deleted before that is done by migrate_settle or migrate_forget. */
    CO int (*confirm)(void *arg, struct vp_error *err);
    /* After this the mover calls nothing more. A target that is there stays. */
    CO void (*close)(void *arg);

    /* ---- on the reactor of the source ---- */

    /* Errors: those of volume_write; VP_E_PEER_LOST: nobody knows whether it has landed, or will
     * before the next `renew` has succeeded. Any number at once. */
    CO int (*write)(void *arg, uint64_t offset, uint64_t len, const void *buf);
    CO int (*zero)(void *arg, uint64_t offset, uint64_t len);
    /* The same for a client that waits: it does not wait behind requests of the two above. NULL:
     * those do it. */
    CO int (*write_mirrored)(void *arg, uint64_t offset, uint64_t len, const void *buf);
    CO int (*zero_mirrored)(void *arg, uint64_t offset, uint64_t len);
    /* What was answered before by any of these is durable. */
    CO int (*flush)(void *arg);
    /* What the target holds. Errors: those of volume_read; VP_E_PEER_LOST. NULL: nobody verifies a
     * move to it. */
    CO int (*read)(void *arg, uint64_t offset, uint64_t len, void *buf);
};

struct migrate_peer {
    const struct migrate_peer_ops *ops;
    void *arg;
};

#endif
