/*
 * A volume moves to another pool, of this daemon or of another one. migrate/README.md has the
 * steps, volumes/owner.h the records that say who owns the volume.
 *
 * All functions: HOME (the pools of one daemon have one home reactor).
 */
#ifndef VP_MIGRATE_MIGRATE_H
#define VP_MIGRATE_MIGRATE_H

#include "migrate/outlook.h"
#include "pool/job.h"
#include "volumes/owner.h"

enum migrate_mode {
    MIGRATE_OFFLINE = 1, /* the volume is frozen, copied, and goes on in the other pool */
    MIGRATE_LIVE,        /* it is copied while clients write, and what they change is copied again
                            in rounds; it is mirrored when rounds alone do not come to an end */
    MIGRATE_MIRROR,      /* the same, and it is mirrored as soon as all of it was copied once */
};
/* "offline", "live", "mirror"; others are refused by their names. VP_E_NOT_SUPPORTED,
 * VP_E_INVALID. */
int migrate_mode_parse(const char *text, enum migrate_mode *out, struct vp_error *err) must_check;
const char *migrate_mode_name(enum migrate_mode mode);

/*
 *                  ┌───────── offline ─────────┐
 *     PREPARING ───┴→ COPYING ─→ (MIRRORING) ──┴→ FREEZING → DRAINING → SWITCHING → LEAVING → DONE
 *         └──────────────┴────────────┴──────────────┴──────────┴───────────┴─→ UNDOING → FAILED
 *                                                                           │         | CANCELLED
 *                                                                           └─→ IN_DOUBT
 */
enum migrate_phase {
    MIGRATE_PREPARING = 1, /* the target is made                               */
    MIGRATE_COPYING,       /* while clients write                              */
    MIGRATE_MIRRORING,     /* … and what they write goes to both sides         */
    MIGRATE_FREEZING,      /* requests in flight end */
    MIGRATE_DRAINING,      /* what is left is copied, while the clients wait; offline: all. Of both,
                              MIRRORING or COPYING again: the target was late, or not reached */
    MIGRATE_SWITCHING,     /* the commit point; not to be cancelled any more  */
    MIGRATE_LEAVING,       /* clients are served by the target; the source is deleted */
    MIGRATE_UNDOING,       /* the target is deleted; clients are served by the source */
    MIGRATE_DONE,
    MIGRATE_FAILED,
    MIGRATE_CANCELLED,
    MIGRATE_IN_DOUBT, /* the commit point was tried, and its pool failed */
};
const char *migrate_phase_name(enum migrate_phase phase);

/* What the layer above does about exports, at the moments that only migrate/ knows. */
struct migrate_exports {
    /* ---- to a pool of this daemon ---- */
    /* Before the freeze: whether `target` can serve what serves the source now. Once it has
     * succeeded, exports of the volume neither come nor go, and hold `target` open, until one of
     * `switched`, `kept` and `withdraw` is called. After an error none of them is. */
    CO int (*prepare)(void *arg, struct volume *source, struct volume *target,
                      struct vp_error *err);
    /* Adds to `b`, of the target's pool, the records of the exports that there are. */
    int (*arrive)(void *arg, struct volume *target, struct pool_batch *b);
    /* The move has failed: exports stay with the source, and close `target` if they have it. */
    CO void (*kept)(void *arg);
    /* Clients of the source are now those of `target`, and the volume is still frozen. What served
     * the source opens `target` and closes the source. */
    CO void (*switched)(void *arg, struct volume *source, struct volume *target);
    /* ---- to another daemon ---- */
    /* Before the freeze: exports of the volume neither come nor go any more, until one of `left`,
     * `kept` and `withdraw` is called. After an error none of them is. */
    CO int (*hold)(void *arg, struct vp_error *err);
    /* The volume has left, and all its clients get but for flushes is VP_E_VOLUME_LEFT. Exports end
     * when their clients are gone, or after a bounded time, and close the source. */
    CO void (*left)(void *arg, struct volume *source);
    /* ---- both ---- */
    /* The volume is in doubt, and is opened no more: exports end so that their users wait or come
     * again, and close both. */
    CO void (*withdraw)(void *arg, struct volume *source);
    /* Adds to `b` the deletion of the records of exports of a volume that has left `vs`. */
    int (*leave)(void *arg, struct volumes *vs, uint32_t volume_id, struct pool_batch *b);
    void *arg;
};

struct migrate_peer; /* peer.h */

#define MIGRATE_IMPACT_ANY UINT32_MAX /* impact_percent: it copies as fast as it can */

struct migrate_options {
    struct volumes *from, *to; /* to: NULL with `peer` */
    const char *volume, *name; /* "VOL" there and here */
    /* Another daemon; borrowed until the move has ended, which calls its `close`. NULL: `to`. */
    const struct migrate_peer *peer;
    const char *peer_name; /* its address                           */
    const char *to_name;   /* "POOL2/VOL" in that daemon, for people and for the record */
    enum migrate_mode mode;
    uint64_t freeze_ms;   /* how long requests in flight may take to end; 0: 10 s */
    uint64_t pause_ms;    /* live: how long the rest may take, while clients wait; 0: 20 */
    uint64_t hold_ms;     /* live: how long it may take at most, then the move fails; 0: 5000 */
    uint64_t limit_bytes; /* live: the copy's bytes a second, while clients write; 0: no limit */
    uint64_t mirror_ms;   /* live: how long a mirrored write waits for the target; 0: 1000 */
    uint64_t lost_ms;     /* live: how long the other daemon may not be reached; 0: 30,000 */
    uint64_t answer_ms;   /* how long clients wait for its word that the volume has arrived; 0:
                             30,000. Then the volume is in doubt */
    /* After its begin: unless the switch has begun then, it fails, and the volume stays. It
     * lengthens no pause, and makes the copy no faster. 0: none. */
    uint64_t deadline_ms;
    /* live: what requests may take while it copies, in percent of what they took before; 0: 200 */
    unsigned impact_percent;
    /* live: when clients could be stopped, the move waits so long for migrate_guest_paused, and
     * follows their writes meanwhile. Then it fails. 0: it waits for nobody. */
    uint64_t guest_ms;
    void (*ready)(void *arg); /* … it waits now; no yield. NULL: nobody is told */
    void *ready_arg;
    /* live: what was written there is read back and compared, and a difference ends the move */
    bool verify;
    const struct migrate_exports *exports; /* NULL: there are none */
};

struct migrate_plan {
    uint64_t size_bytes, allocated_bytes; /* allocated: at most so much is copied */
    uint64_t room_bytes; /* in the target's pool, for this volume's profile; with `peer` 0 */
};
/* Whether a volume can move, and what it costs. Errors, each with what to do: VP_E_NOT_FOUND,
 * VP_E_EXISTS (name or uuid taken there), VP_E_BUSY (it moves already), VP_E_NO_SPACE,
 * VP_E_VOLUME_FAULTED, VP_E_INVALID (the same pool). */
CO int migrate_plan(const struct migrate_options *o, struct migrate_plan *out,
                    struct vp_error *err) must_check;

struct migrate_estimate {
    uint64_t bytes;         /* that are copied at least */
    uint64_t rate_bytes;    /* a second, that are expected of the copy; 0: nothing is allocated */
    uint64_t written_bytes; /* a second, that clients write now: no more becomes dirty */
    struct outlook outlook; /* never: rounds alone do not come to an end */
    uint64_t pause_ns;      /* how long clients would wait at the end */
};
/* What a move would take that migrate_plan allows, as clients write now; about a second. Errors:
 * those of volume_open, and of reading. */
CO int migrate_estimate(const struct migrate_options *o, const struct migrate_plan *plan,
                        struct migrate_estimate *out, struct vp_error *err) must_check;

struct migrate_status {
    struct vp_uuid id;
    char from[VOLUME_FULL_NAME_MAX + 1], to[VOLUME_FULL_NAME_MAX + 1];
    char peer[VOLUME_PEER_MAX + 1]; /* "": this daemon */
    enum migrate_mode mode;
    enum migrate_phase phase;
    uint32_t job;            /* of the source's pool */
    uint64_t total_bytes;    /* allocated at the source; 0: not counted yet */
    uint64_t copied_bytes;   /* read and written       */
    uint64_t zero_bytes;     /* read, and all zeros: not written */
    uint64_t again_bytes;    /* of both, because clients had changed them meanwhile */
    uint64_t mirrored_bytes; /* written by clients to both sides */
    bool verify;
    uint64_t checked_bytes;   /* verify: that were the same on both sides, so far */
    uint64_t unchecked_bytes; /* verify: written there, and not compared since */
    unsigned checks;          /* verify: passes of comparing, before clients wait */
    uint64_t dirty_bytes;     /* to be copied again, as of the last look */
    uint64_t rate_bytes;      /* a second, of the copy while clients write; 0: not known */
    uint64_t pause_ns;        /* how long clients would have waited, as of the last look, had they
                                been stopped then; 0: not known */
    /* What clients' requests took, 99 of 100, and the longest; 0: not known, or there were none. */
    uint64_t before_ns, during_ns, longest_ns;
    uint64_t requests;       /* while it copied */
    uint64_t dirtied_bytes;  /* a second, that became dirty, as of the last look */
    struct outlook outlook;  /* live: how long it will still take */
    unsigned rounds;         /* over what was dirty, while clients wrote */
    unsigned breaks;         /* how often the other daemon was not reached any more */
    bool ready;              /* it waits for migrate_guest_paused */
    uint64_t started, ended; /* seconds since 1970; ended 0: not yet */
    uint64_t deadline;       /* the same; 0: none                    */
    /* How long clients waited when they were stopped: the last time, which is the switch of a move
     * that is done; all times; the longest time. 0: not yet known. */
    uint64_t frozen_ns, frozen_all_ns, frozen_longest_ns;
    unsigned freezes; /* how often they were stopped */
    int rc;
    char error[512];
};

/*
 * A move at work. The starter owns it. `from` and `to` stay open until it has ended; the pools'
 * owner refuses to close them, or cancels it and waits.
 */
struct migrate;
/* Checks, makes the target and both records, and begins; the rest goes on in a coroutine of its
 * own. Errors: those of migrate_plan and of the commits; nothing is left then. */
CO int migrate_start(const struct migrate_options *o, struct migrate **out,
                     struct vp_error *err) must_check;
const struct migrate_status *migrate_status(const struct migrate *m);
bool migrate_has_ended(const struct migrate *m);
/* How long it has waited for disks of one of the two pools, or for the other daemon, that answer
 * nothing. 0: it goes on, or has waited for less than ten seconds. */
uint64_t migrate_waits_ns(const struct migrate *m);
/*
 * Who runs the clients (a hypervisor) has stopped them: a move that waits for that (guest_ms) goes
 * on to its end. Calling it again does nothing. VP_E_INVALID: it was not asked to wait, or has
 * ended. VP_E_BUSY: it is not ready yet, and clients would be stopped for long.
 */
int migrate_guest_paused(struct migrate *m, struct vp_error *err) must_check;
/*
 * It copies nothing until it is resumed; the step under way ends. Clients write, and what they
 * change is copied afterwards. A target that is not reached meanwhile is waited for as while it
 * copies. Both do nothing to a move that is so already. The move may have ended, and be freed, when
 * they return. VP_E_BUSY: the switch has begun, or it is past it. VP_E_NOT_SUPPORTED: offline,
 * clients wait. Those of pool_job_pause.
 */
CO int migrate_pause(struct migrate *m, struct vp_error *err) must_check;
CO int migrate_resume(struct migrate *m, struct vp_error *err) must_check;
bool migrate_is_paused(const struct migrate *m);
/* It has a deadline, and will not have been copied by then, as it goes now. */
bool migrate_is_late(const struct migrate *m);
/* VP_E_BUSY: it is past the point. It ends soon, not at once. */
int migrate_cancel(struct migrate *m, struct vp_error *err) must_check;
/* The daemon stops: a move that can be cancelled is. One that is past the point asks the other
 * daemon nothing again: without an answer the volume is in doubt, and is settled later. */
void migrate_stop(struct migrate *m);
CO void migrate_wait(struct migrate *m);
/* One that has ended. */
void migrate_free(struct migrate *m);

/*
 * Settles what moves of an earlier life left in `vs`, as far as the pools in `open` can say (vs is
 * one of them). What they cannot say stays in doubt, and is no error. Call it whenever a pool was
 * opened, before its exports start, for every open pool with volumes in doubt. Errors: the first
 * of its commits; the others are tried. `exports`: for `leave`; NULL: there are none.
 */
CO int migrate_settle(struct volumes *vs, struct volumes *const *open, unsigned open_count,
                      const struct migrate_exports *exports) must_check;
/*
 * What the other side's daemon has said of a volume in doubt (INTENT, with the name of a peer):
 * arrived, and the volume is deleted; or not, and it is the owner. `arrived` and the records of the
 * exports are one commit. VP_E_INVALID: it is not in doubt any more.
 */
CO int migrate_decide(struct volumes *vs, const char *volume, bool arrived,
                      const struct migrate_exports *exports, struct vp_error *err) must_check;
/*
 * The other side of a volume's move is given up: it is lost, or will never come here. What is here
 * becomes an owner with a higher epoch (INTENT), plainly an owner (ARRIVED), or is deleted
 * (TARGET). Where the other side's pool is among the open ones it is asked instead
 * (migrate_settle). VP_E_INVALID: the volume does not move. VP_E_BUSY: its move is at work here, or
 * the other side's pool is open and cannot answer. VP_E_VOLUME_SUPERSEDED.
 */
CO int migrate_forget(struct volumes *vs, const char *volume, struct volumes *const *open,
                      unsigned open_count, const struct migrate_exports *exports,
                      struct vp_error *err) must_check;

#endif
