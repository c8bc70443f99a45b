/* The inside of migrate/, private to the folder. */
#ifndef VP_MIGRATE_MIGRATE_IMPL_H
#define VP_MIGRATE_MIGRATE_IMPL_H

#include "base/figure.h"
#include "base/list.h"
#include "io/co.h"
#include "io/reactor.h"
#include "migrate/dirty.h"
#include "migrate/governor.h"
#include "migrate/migrate.h"
#include "migrate/peer.h"

#define COPY_BLOCK 4096U

/* ---- copy.c ------------------------------------------------------------------------------- */

#define COPY_EXTENTS 64U

/* Why blocks are written to the target. */
enum copy_kind {
    COPY_FRESH,    /* a scan: they are holes there, so zeros are not written */
    COPY_AGAIN,    /* a round: zeros become holes                            */
    COPY_MIRRORED, /* the same, and a client waits                           */
};
enum copy_act { COPY_READS, COPY_WRITES, COPY_READS_BACK }; /* the source, the target, the target */

/* The data of a volume, on their way to the other side of its move. Of a volume that is not frozen:
 * with the blocks that have changed meanwhile. */
struct copy {
    struct volume *from;
    struct migrate_peer to;
    uint64_t size_bytes;
    /* The pace; between steps it may change. */
    uint64_t piece_bytes; /* what is read at once */
    unsigned worker_count;
    uint64_t rest_ns;        /* of each worker, after about piece_bytes; 0: none */
    uint64_t rested_ns;      /* in this step, of all workers */
    struct dirty dirty;      /* tracked: what is to be copied again */
    uint64_t dirtied_blocks; /* so far: that were clean and became dirty, and are not mirrored */
    uint64_t marked_blocks;  /* of these, those of the change that is being told of */
    bool tracked;
    /* Tracked (check.c): what is written to the target is compared with the source. */
    bool checks;
    bool checking;          /* the round compares, and does not copy */
    struct dirty unchecked; /* written to the target, and not compared since */
    uint64_t checked_bytes; /* so far */
    /* The scan: what is allocated, once. */
    uint64_t at_bytes;                         /* what lies before was copied, or is being copied */
    struct volume_extent extent[COPY_EXTENTS]; /* the next ones, from at_bytes on */
    unsigned extent_count, extent_next;
    struct co_mutex lock; /* held while the next extents are asked for */
    /* A round: what is dirty, once. */
    uint64_t round_block;
    uint64_t step_bytes, left_bytes; /* the most that a step copies; what is left of this one */
    struct list flying; /* pieces that are being copied, in the frames of their workers */
    struct mirror *mirror;
    bool unflushed; /* the target was written to since its last flush began */
    bool lost;      /* the target is not reached: nothing is copied until copy_found */
    uint64_t copied_bytes, zero_bytes, again_bytes; /* so far; again: in rounds, of both */
    uint64_t failed_at;                             /* where a read or write failed */
    enum copy_act failed_act;
    struct co_group workers;
    int rc;
    struct copy_view { /* as of the end of the last call of the reactor; home reads it then */
        uint64_t dirty_bytes; /* without what is being mirrored */
        uint64_t unchecked_bytes;
        uint64_t dirtied_bytes; /* so far */
        uint64_t mirrored_bytes, stops;
        bool mirrors, late; /* a write of the mirror is late */
        bool lost;
    } seen;
};
void copy_init(struct copy *c, struct volume *from, const struct migrate_peer *to);
/* Tracking has ended. */
void copy_fini(struct copy *c);

/* All on the reactor of the source; those with one `void *`, a copy, are for reactor_call. */

/* From now on what changes is dirty. VP_E_NO_MEMORY. */
int copy_track(void *copy) must_check;
/* Nothing is dirty any more, and changes are not marked. Mirroring has ended. */
int copy_untrack(void *copy) must_check;
/*
 * Copies up to step_bytes more, or a piece: first the scan, then the round that copy_round_begin
 * began. Holes are skipped, and zeros are read but not written. In a round they are made holes in
 * the target. Errors: of the first read or write that failed, for good. VP_E_PEER_LOST: what was
 * under way is dirty again (tracked), and the copy goes on after copy_found.
 */
#define COPY_STEP_BYTES (UINT64_C(16) << 20)
CO int copy_step(void *copy) must_check;
/* The target is reached again, and nothing that was sent before lands any more. Does not fail. */
CO int copy_found(void *copy) must_check;
bool copy_scan_is_done(const struct copy *c);
/* A round over all that is dirty now; what becomes dirty behind it waits for the next one. 0. */
int copy_round_begin(void *copy);
bool copy_round_is_done(const struct copy *c);
/* What the reactor alone may look at, into c->seen. Does not fail. */
int copy_look(void *copy) must_check;
/* As fast as it can, for clients that wait. */
void copy_pace_full(struct copy *c);
/* Flushes the target. */
CO int copy_flush(void *copy) must_check;
/* Verifies that the target has all of the frozen source: nothing is dirty, under way, or not
 * flushed. */
void copy_verify_whole(const struct copy *c);
/* The first error counts: it ends the copy. Of a target that is not reached any more: only that it
 * is. */
void copy_fail(struct copy *c, int rc, uint64_t block, enum copy_act act);
/* Whether one of these blocks is being copied. */
bool copy_is_flying(const struct copy *c, uint64_t block, uint64_t count);
/* Writes blocks to the target. Adds what was written and what was zero. */
CO int copy_write(struct copy *c, uint64_t block, uint64_t count, const uint8_t *buf,
                  enum copy_kind kind, uint64_t *written_bytes, uint64_t *zero_bytes) must_check;

/* ---- check.c ------------------------------------------------------------------------------ */

/* These blocks of the target are not compared any more. Nothing unless c->checks. */
void copy_unchecked_mark(struct copy *c, uint64_t block, uint64_t count);
/* Until copy_check_end the steps compare all that is unchecked now, once; copy_round_is_done says
 * when. VP_E_COPY_DIFFERS: of the step. */
int copy_check_begin(void *copy);
void copy_check_end(struct copy *c);
/* Compares blocks. `buf`: 2 × piece_bytes, which the blocks fit in once. */
CO void copy_check(struct copy *c, uint64_t block, uint64_t count, uint8_t *buf);

/* ---- mirror.c ----------------------------------------------------------------------------- */

#define MIRROR_SLOTS      32U
#define MIRROR_SLOT_BYTES (VOLUME_TOLD_BLOCKS * COPY_BLOCK)

/*
 *     FREE → WRITING → WRITTEN → FREE      the client waited for it
 *               └────→ LATE ───→ FREE      the client did not
 */
enum mirror_state { MIRROR_FREE, MIRROR_WRITING, MIRROR_WRITTEN, MIRROR_LATE };

struct mirror_slot { /* one change, on its way to the target */
    struct mirror *mirror;
    struct list link; /* in mirror.free */
    enum mirror_state state;
    uint64_t block, count;
    bool zero;
    uint8_t *data; /* MIRROR_SLOT_BYTES */
    uint64_t deadline_ns;
    int rc;
    struct co_queue work, written;
};

struct mirror {
    struct copy *copy;
    bool on; /* changes are mirrored */
    bool ending;
    uint64_t wait_ns;
    unsigned slot_count, late;
    struct mirror_slot slot[MIRROR_SLOTS];
    struct list free;
    struct co_queue quiet; /* a slot has become free */
    struct co_group workers;
    uint64_t mirrored_bytes, stops; /* so far */
    uint8_t *memory;
};
/* HOME. Memory for a mirror; NULL: there is none. */
struct mirror *mirror_new(struct copy *c, uint64_t wait_ns);
void mirror_free(struct mirror *m);
/* On the reactor, as fns of reactor_call. */

/* Changes are mirrored from now on. VP_E_IO_TOO_MANY_COROUTINES. */
int mirror_start(void *mirror) must_check;
/* After it has stopped by itself: again, once nothing is late any more. */
CO int mirror_again(void *mirror) must_check;
/* Changes are not mirrored any more. Waits until none is under way. */
CO int mirror_end(void *mirror) must_check;
/* For the marks of the copy. */
void *mirror_change_begin(void *copy, uint64_t block, uint64_t count, const void *data);
CO void mirror_change_end(void *copy, void *change, int rc);
/* Waits until no write of the mirror is late: whoever writes to the target then is newer. */
CO void mirror_await_late(struct mirror *m);
/* Changes are not mirrored any more, as after a stop. Waits until none is under way. */
CO void mirror_settle(struct mirror *m);
/* Blocks whose changes are being mirrored, and are dirty until that has ended. */
uint64_t mirror_blocks(const struct mirror *m);
/* No change is being mirrored. */
bool mirror_is_quiet(const struct mirror *m);

/* ---- peer_local.c ------------------------------------------------------------------------- */

struct peer_local { /* a pool of this daemon */
    struct volumes *vs;
    const char *name; /* "VOL" there */
    const struct migrate_exports *exports;
    struct volume *target; /* opened by `make`; NULL: not, or not any more */
};
extern const struct migrate_peer_ops peer_local_ops; /* of a struct peer_local */

/* ---- plan.c ------------------------------------------------------------------------------- */

/* Whether `vs` can have the volume `info` as `name`, and what room there is. Errors: those of
 * migrate_plan. */
int migrate_target_check(struct volumes *vs, const char *name, const struct volume_info *info,
                         struct migrate_plan *plan, struct vp_error *err) must_check;

/* ---- impact.c ----------------------------------------------------------------------------- */

struct impact { /* on the clients */
    struct governor law;
    bool on, watches, ending;
    struct co_group watcher;
    struct histogram waits;          /* written on the reactor */
    struct histogram requests_begin; /* as of the begin of the copy */
    bool began;
    /* As of the last decision. */
    struct histogram requests_since, waits_since;
    uint64_t since_ns, bytes_since, dirtied_since;
    uint64_t steps_ns;   /* in steps of the copy since then */
    uint64_t rate_bytes; /* a second, in steps */
    uint64_t probed_ns;
};

/* ---- migrate.c ---------------------------------------------------------------------------- */

struct migrate {
    struct migrate_status status;
    struct volumes *from_vs;
    char volume[VOLUME_NAME_MAX + 1], name[VOLUME_NAME_MAX + 1];
    struct migrate_exports exports;
    uint64_t freeze_ns, pause_ns, hold_ns, mirror_ns, lost_ns, answer_ns, limit_bytes;
    uint64_t guest_ns; /* it waits so long for whoever stops the clients; 0: for nobody */
    void (*ready)(void *arg);
    void *ready_arg;
    unsigned impact_percent; /* 0: anything */
    bool verifies;
    struct volume_move there, here; /* as the source's and the target's record have it */
    struct migrate_peer peer;       /* the other side */
    struct peer_local local;        /* … when that is a pool of this daemon; else all zeros */
    uint32_t volume_id;
    struct volume *source; /* opened by this move; NULL: not, or not any more */
    struct pool_job *job;  /* NULL: not yet, or not any more */
    struct copy copy;
    struct impact impact;
    struct mirror *mirror; /* NULL: there was none so far */
    bool leaving;          /* nobody changes the source */
    bool intended;         /* the source's record says INTENT */
    bool made;             /* the target is there              */
    bool held;             /* exports stay as they are         */
    bool frozen;           /* the source's gate is closed      */
    bool cancelled;        /* somebody wants it to end         */
    bool stopping;         /* the daemon does: nobody is asked again */
    bool guest_paused;     /* the clients are stopped, and wait for it */
    unsigned rounds_from;  /* rounds and stops before these do not count: they only followed the */
    uint64_t stops_from;   /* clients of a move that was ready; so did checks before these */
    unsigned checks_from;
    uint64_t steps_ns;        /* in steps of the copy, without its waits for a turn */
    uint64_t round_rate;      /* bytes a second, of the last round that says something; 0: none */
    uint64_t deadline_ns;     /* 0: none */
    bool expired;             /* it is cancelled because of that */
    bool due_begun, due_over; /* a coroutine waits for the deadline; it needs not any more */
    struct co_group due;
    struct co_queue due_wait;
    uint64_t paused_ns;      /* in which the job was paused */
    uint64_t pause_probe_ns; /* while it is: when the other side is looked for */
    uint64_t frozen_at_ns;
    uint64_t waits_since_ns; /* for disks or the other daemon; 0: not */
    bool drains;             /* watch.c watches how long clients wait */
    bool overdue;            /* they have waited for too long        */
    struct co_group watch;
    struct co_queue ended, turn, hold;
};
void migrate_phase_move(struct migrate *m, enum migrate_phase to);
/* What may wait for disks, or for the other daemon, is between these. */
void migrate_wait_begin(struct migrate *m);
void migrate_wait_end(struct migrate *m);
/* On the reactor of the source. */
CO int migrate_call(struct migrate *m, int (*fn)(void *arg), void *arg) must_check;
/* The first error counts. Returns rc. */
__attribute__((format(printf, 3, 4))) int migrate_fail(struct migrate *m, int rc, const char *fmt,
                                                       ...);
/* Waits until then, but no longer than 50 ms, and not once the move is cancelled. */
CO void migrate_rest(struct migrate *m, uint64_t until_ns);
/* Waits while the job of the move is paused or ahead of its limit. VP_E_CANCELLED, VP_E_TIMED_OUT
 * (what is left takes too long), and those of a flush: as migrate_fail has them. */
CO int migrate_await_turn(struct migrate *m) must_check;
/* What was copied, was zero, or was compared, so far. */
uint64_t migrate_done_bytes(const struct migrate *m);
/* The figures of the copy, as they are now, into the status. */
CO void migrate_look(struct migrate *m);
/* One step of the copy, when it is its turn. Errors: as migrate_fail has them. VP_E_CANCELLED. */
/* Both: where the target is not reached any more this waits until it is again, and clients go on.
 * While they wait (DRAINING) it returns VP_E_PEER_LOST at once, which is no failure yet. */
CO int migrate_copy_step(struct migrate *m) must_check;
CO int migrate_flush(struct migrate *m) must_check;
/* The target is reached again. Errors: as migrate_fail has them. */
CO int migrate_renew(struct migrate *m) must_check;
/* What waits for a target of another daemon goes on at once. No yield. */
void migrate_cut(struct migrate *m);
CO int migrate_freeze(struct migrate *m) must_check;

/* Opens the gate of v, which is served again. */
CO void migrate_thaw(struct migrate *m, struct volume *v);

/* ---- steer.c ------------------------------------------------------------------------------- */

/* Waits while the job is paused or ahead of its limit, and the move is not cancelled. Errors: as
 * migrate_fail has them: the other side is lost meanwhile. */
CO int migrate_await_job(struct migrate *m) must_check;
/* m->cancelled: the move is to end. Why is its error: VP_E_CANCELLED, or VP_E_TIMED_OUT at its
 * deadline. */
int migrate_fail_cancelled(struct migrate *m);
/* The move is to end as soon as it can. No yield. */
void migrate_break(struct migrate *m);
/* From now on the move is cancelled at its deadline, if it has one.
 * VP_E_IO_TOO_MANY_COROUTINES. */
int deadline_begin(struct migrate *m, struct vp_error *err) must_check;
/* Also of one that has not begun. The deadline does nothing any more. */
CO void deadline_end(struct migrate *m);
/* The reactor's clock, without the time in which the move was paused. */
uint64_t migrate_clock_ns(const struct migrate *m);

/* ---- ends.c ------------------------------------------------------------------------------- */

/* The frozen source has been copied: the move goes on to its end, done or not. */
CO void migrate_switch(struct migrate *m);
/* The source goes on as if nothing had been. */
CO void migrate_undo(struct migrate *m);

/* ---- impact.c, with a move ----------------------------------------------------------------- */

/* Measures what requests take, for a moment. */
CO void impact_begin(struct migrate *m);
/* Sets the pace of the next step, which should copy no more than is returned. */
uint64_t impact_pace(struct migrate *m);
/* After a step of so long. From time to time it waits for a moment, to measure. */
CO void impact_look(struct migrate *m, uint64_t step_ns);
/* Also of one that has not begun. */
CO void impact_end(struct migrate *m);

/* ---- watch.c ------------------------------------------------------------------------------ */

/* The source is frozen, and what is left is copied. When that takes too long, or the move is
 * cancelled, clients go on at once, whatever the copy waits for. VP_E_IO_TOO_MANY_COROUTINES, as
 * migrate_fail has it. */
CO int watch_begin(struct migrate *m) must_check;
/* The copy has ended. The source is frozen, unless the move is cancelled or overdue. */
CO void watch_end(struct migrate *m);

/* ---- live.c ------------------------------------------------------------------------------- */

/* Errors of all: as migrate_fail has them. */

/* Copies all that is allocated, once, while clients write. */
CO int live_begin(struct migrate *m) must_check;
/* Copies what has changed, until what is left takes no longer than the pause that is wanted. */
CO int live_rounds(struct migrate *m) must_check;
/* Waits for migrate_guest_paused, if the move is to, and copies what changes meanwhile. */
CO int live_await_guest(struct migrate *m) must_check;
/* The frozen source: copies what is left. */
CO int live_drain(struct migrate *m) must_check;
/* The copy ends, for good or not: changes are neither marked nor mirrored any more. */
CO void live_end(struct migrate *m);

#endif
