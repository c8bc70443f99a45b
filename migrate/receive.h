/*
 * The side that a volume comes to, when the source is in another daemon. Whoever carries the
 * messages (control/, the simulator) calls this; migrate/peer.h is the other end of them.
 *
 *     OPEN ──arrive──> ARRIVED      the volume is here, and is served
 *       │  └────────> IN_DOUBT     the commit was tried, and the pool failed
 *       └──decline──> DECLINED     the target is deleted
 *
 * 1. One message at a time is worked on for each move: the caller has a lock for that.
 * 2. Before `arrive` the caller has ended the session that writes: no request of it is left, and
 *    none lands later. receive_arrive verifies that none is at work.
 * 3. "It has not arrived" is said only when it never will: the target was deleted durably before,
 *    or never was there (GUARD_MOVE_DECLINES_FIRST).
 *
 * All functions: HOME.
 */
#ifndef VP_MIGRATE_RECEIVE_H
#define VP_MIGRATE_RECEIVE_H

#include "migrate/migrate.h"
#include "migrate/peer.h"

enum receive_state { RECEIVE_OPEN = 1, RECEIVE_ARRIVED, RECEIVE_DECLINED, RECEIVE_IN_DOUBT };

struct receive;
/*
 * Checks, makes the TARGET, and opens it. The session writes to receive_volume. Errors, each with
 * what to do: VP_E_EXISTS (name or uuid taken here), VP_E_NO_SPACE, VP_E_NAME_INVALID, those of
 * volume_create.
 */
CO int receive_begin(struct volumes *vs, const char *name, const struct migrate_offer *offer,
                     struct receive **out, struct vp_error *err) must_check;
/* The target; open until receive_arrive, receive_decline or receive_free is called. */
struct volume *receive_volume(const struct receive *r);
/* Where the session writes to: the target's front, or after receive_admit a front beside it. */
struct front *receive_front(const struct receive *r);

/* What the layer above does about exports of a volume that has not arrived. */
struct receive_exports {
    /* The volume arrives: adds to `b` the records of the exports that there are. Until the end of
     * receive_arrive none comes or goes. */
    int (*arrive)(void *arg, struct pool_batch *b);
    /* The volume does not arrive, or nobody knows: exports end, and close it. */
    CO void (*end)(void *arg);
    void *arg;
};
/*
 * Clients may open the target from now on, and wait for its arrival (volume_await_begin). `x` is
 * copied. No session has begun. VP_E_NO_MEMORY.
 */
CO int receive_admit(struct receive *r, const struct receive_exports *x) must_check;
enum receive_state receive_state(const struct receive *r);
/*
 * TARGET becomes ARRIVED, durably. Call it again as often as the message comes: then it says what
 * became of the first call. 0: the verdict is known, and *err says why it is MIGRATE_HAS_NOT.
 * Errors: MIGRATE_NOT_KNOWN. VP_E_BUSY: requests of a session are at work, and nothing has changed.
 */
CO int receive_arrive(struct receive *r, enum migrate_verdict *verdict,
                      struct vp_error *err) must_check;
/* The target is deleted. Errors: it is still there (OPEN), or has arrived (VP_E_BUSY). */
CO int receive_decline(struct receive *r, struct vp_error *err) must_check;
/* In whatever state. A target that is OPEN stays for receive_decide or migrate_settle. */
CO void receive_free(struct receive *r);

/* What the source's daemon asks about a move that nobody here is at work for. */
struct receive_claim {
    struct vp_uuid move, volume; /* volume: its uuid */
    uint64_t epoch;              /* of the source    */
};
/*
 * Whether the volume has arrived in `vs`. A target of this move is deleted first. Results as those
 * of receive_arrive. Errors: a damaged record; the target is open, or cannot be deleted durably.
 */
CO int receive_decide(struct volumes *vs, const struct receive_claim *c,
                      enum migrate_verdict *verdict, struct vp_error *err) must_check;
/* The source is deleted: ARRIVED becomes OWNER. Where that has happened before, nothing. Errors: a
 * damaged record; those of pool_commit. */
CO int receive_confirm(struct volumes *vs, const struct receive_claim *c,
                       struct vp_error *err) must_check;

#endif
