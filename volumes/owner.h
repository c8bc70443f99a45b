/*
 * Who owns a volume. While a volume moves to another pool there is a record of it in both pools.
 * Each record says what its pool knows, and an epoch that grows with every change of the owner.
 *
 *     the pool that it leaves     OWNER(e) ──→ INTENT(e) ──→ the volume is deleted
 *                                     ^────────────┘  the move ended without effect
 *     the pool that it comes to   TARGET(e) ──→ ARRIVED(e+1) ──→ OWNER(e+1)
 *                                     └──→ the volume is deleted
 *
 * 1. INTENT is durable before TARGET may become ARRIVED (GUARD_MOVE_INTENT_FIRST). So a pool that
 *    says OWNER is the owner.
 * 2. TARGET to ARRIVED is one commit, with everything that makes the volume usable there. It is the
 *    moment at which the owner changes (GUARD_MOVE_ARRIVES_LAST).
 * 3. Whoever finds INTENT after a crash asks the other pool. ARRIVED: the volume left. TARGET: the
 *    move ended without effect, once TARGET is deleted durably: a commit that failed may have made
 *    it ARRIVED after all (GUARD_MOVE_DECLINES_FIRST). No volume: the same. The other pool is not
 *    there: nobody knows, and the volume is in doubt and not served (GUARD_MOVE_DOUBT).
 * 4. ARRIVED stays until the other pool has durably deleted its INTENT. As long as it is there the
 *    volume is not deleted (GUARD_MOVE_KEEPS_ARRIVED), so "no volume" has one meaning in 3.
 * 5. Of two owners with one uuid the one with the lower epoch becomes SUPERSEDED, durably, when
 *    both pools are open: it is not served any more, and stays until somebody deletes it. There are
 *    two only when somebody gave up a side of a move (migrate_forget) that came back after all.
 *
 * Nothing but an owner that is not in doubt is opened by clients (volume_open), and a TARGET whose
 * clients wait for its arrival (volume_await_begin). Everything here: HOME.
 */
#ifndef VP_VOLUMES_OWNER_H
#define VP_VOLUMES_OWNER_H

#include "volumes/volume.h"

/* In records: numbers are never used for something else. */
enum volume_ownership {
    VOLUME_OWNER = 1,
    VOLUME_INTENT,
    VOLUME_TARGET,
    VOLUME_ARRIVED,
    VOLUME_SUPERSEDED,
};

#define VOLUME_FULL_NAME_MAX (POOL_NAME_MAX + 1 + VOLUME_NAME_MAX)

/* A move, in the record of either side. `peer`: at the source the address of the target's daemon
 * ("unix:PATH", "tcp:HOST:PORT"), at the target the name of the source's daemon; "": both pools
 * were open in one daemon. */
#define VOLUME_PEER_MAX 255
struct volume_move {
    struct vp_uuid id;                     /* both sides' */
    struct vp_uuid pool;                   /* the other side's */
    char volume[VOLUME_FULL_NAME_MAX + 1]; /* "POOL/VOL" of the other side, when the move began */
    char peer[VOLUME_PEER_MAX + 1];
};

/* Whether a record can have it: "POOL/VOL" are names, and `peer` is printable without spaces. */
bool volume_move_is_sound(const struct volume_move *m);

struct volume_owner_info {
    enum volume_ownership ownership; /* INTENT also from volume_leave_begin on */
    bool in_doubt;                   /* INTENT, and what the other side says is not known  */
    bool attended;                   /* a move that is at work here answers for the record */
    uint64_t epoch;
    struct vp_uuid uuid;
    struct volume_move move; /* all zeros for OWNER */
};
int volume_owner_get(struct volumes *vs, const char *name,
                     struct volume_owner_info *out) must_check;
/* The live volume of this uuid, "VOL", borrowed until the next yield; NULL. */
const char *volume_name_of_uuid(struct volumes *vs, struct vp_uuid uuid);
/* A volume's record did not decode when the pool was opened: NULL of the above says nothing. */
bool volumes_have_damaged_record(const struct volumes *vs);
/* VP_E_VOLUME_MOVING, with the command that helps, for a volume that is not plainly an OWNER: it is
 * neither resized, renamed, changed nor deleted. */
int volume_check_stays(struct volumes *vs, const char *name, struct vp_error *err) must_check;
/* Calls fn for each volume that is not plainly an OWNER, or whose epoch is above 1, until non-zero,
 * which is returned. No yield. */
int volume_each_moved(struct volumes *vs,
                      int (*fn)(const char *name, const struct volume_owner_info *o, void *arg),
                      void *arg);

/*
 * A TARGET: a volume that is empty and has the source's uuid, time of creation, epoch and options.
 * Errors: those of volume_create; VP_E_EXISTS: a volume of this uuid is there already;
 * VP_E_INVALID: the move is not sound.
 */
CO int volume_target_create(struct volumes *vs, const char *name, const struct volume_info *source,
                            uint64_t epoch, const struct volume_move *m,
                            struct vp_error *err) must_check;
/* Deletes a TARGET. VP_E_BUSY: it is open. */
CO int volume_target_delete(struct volumes *vs, const char *name, struct vp_error *err) must_check;

/* Opens an owner in whatever state, or a TARGET. `beside`: on this reactor, if the map is not open
 * yet (NULL: on any). */
CO int volume_open_to_move(struct volumes *vs, const char *name, struct reactor *beside,
                           struct volume **out, struct vp_error *err) must_check;

/*
 * Clients may open a TARGET before the volume has arrived (volumes/await.c). From
 * volume_await_begin on, what clients hold, its front, answers FLUSH with success and all else at
 * once with VP_E_VOLUME_AWAITED. Whoever moves the volume has a front of its own then, *way, and
 * sends its requests there. The caller has the volume open, and nobody else has. VP_E_NO_MEMORY.
 */
struct front;
CO int volume_await_begin(struct volume *v, struct front **way) must_check;
/* Frees `way`, which is idle. `arrived`: the volume serves its clients from now on, those that were
 * there before and new ones. Else no client has it open, and none opens it any more. */
CO void volume_await_end(struct volume *v, struct front *way, bool arrived);
/* Clients may open it, and wait for its arrival. */
bool volume_is_awaited(struct volumes *vs, const char *name);

/*
 * From now on the volume, an OWNER, is neither resized, renamed, changed nor deleted. Nothing is
 * recorded: after a crash it is an owner as before. The caller has it open. `m` is the caller's,
 * and stays until volume_leave_end, volume_intent_end, volume_intent_leave or
 * volume_move_unattended. VP_E_NOT_FOUND: its name is not `name` any more. VP_E_VOLUME_MOVING,
 * VP_E_VOLUME_FAULTED.
 */
CO int volume_leave_begin(struct volume *v, const char *name, const struct volume_move *m,
                          struct vp_error *err) must_check;
/* The volume stays, and its record never said INTENT. */
void volume_leave_end(struct volume *v);
/* OWNER → INTENT, of a volume that is about to leave (volume_leave_begin). */
CO int volume_intent_begin(struct volume *v, struct vp_error *err) must_check;
/* The commit of ARRIVED is about to be tried: nobody opens the source any more. False: it has
 * failed. */
void volume_intent_switches(struct volume *v, bool switches);
/* INTENT → OWNER. A gate that its move left closed is opened. `epochs` is added to the epoch: 0, or
 * 2 when the other side is given up and might have arrived. */
CO int volume_intent_end(struct volumes *vs, const char *name, unsigned epochs,
                         struct vp_error *err) must_check;
/* The move that was at work has ended, and its record stays: INTENT is in doubt. For either
 * side. */
void volume_move_unattended(struct volumes *vs, const char *name);
/* INTENT → deleted, in one commit with what `with` has. Where the other side is another daemon's
 * the pool notes that it has left (volumes_left_each). VP_E_BUSY: it is open. */
CO int volume_intent_leave(struct volumes *vs, const char *name, struct pool_batch *with,
                           struct vp_error *err) must_check;

/*
 * A volume that has left for another daemon. That one keeps it ARRIVED until it knows that it is
 * deleted here. Its pool keeps the note until somebody has told the other daemon, whatever happens
 * to this one (volumes/left.c).
 */
struct volume_left {
    struct volume_move move; /* `peer`: the other daemon's address */
    struct vp_uuid uuid;     /* the volume's */
    uint64_t epoch;          /* … when it left */
    char name[VOLUME_NAME_MAX + 1];
};
/* Calls fn for each until non-zero, which is returned. No yield. */
int volumes_left_each(struct volumes *vs, int (*fn)(const struct volume_left *l, void *arg),
                      void *arg);
/* The other daemon knows it, or is given up: the note of this move goes, durably. 0 too where there
 * is none. Errors: those of pool_commit. */
CO int volumes_left_forget(struct volumes *vs, struct vp_uuid move) must_check;

/*
 * TARGET → ARRIVED, in one commit with what `with` has. After an error *in_doubt says whether the
 * commit may be durable all the same.
 */
CO int volume_arrive(struct volumes *vs, const char *name, struct pool_batch *with,
                     bool *in_doubt) must_check;
/* ARRIVED → OWNER: the other side has deleted its INTENT, or is given up. */
CO int volume_arrival_confirm(struct volumes *vs, const char *name,
                              struct vp_error *err) must_check;

/*
 * OWNER or ARRIVED → SUPERSEDED: another pool has this volume with a higher epoch (`by`: its pool
 * and name). Whoever has it open goes on.
 */
CO int volume_supersede(struct volumes *vs, const char *name, const struct volume_move *by,
                        struct vp_error *err) must_check;

/*
 * The reads of whoever moves a volume, beside its gate, whether that is open or frozen. On the
 * volume's reactor, by whoever has it open. They are not counted in the volume's figures.
 *
 * volume_beside_read: whole blocks of 4096 bytes, at most VOLUME_BESIDE_BLOCKS, under their locks
 * (so every change of them is in the result as a whole, or comes after it), into a buffer aligned
 * to 4096. *zero: they all read as zeros, and the buffer was not touched. Errors: VP_E_RANGE, those
 * of volume_read; VP_E_CANCELLED: the pool is being closed.
 *
 * volume_beside_extents: as volume_extents. A change at work may be in it or not.
 */
#define VOLUME_BESIDE_BLOCKS 1024U
CO int volume_beside_read(struct volume *v, uint64_t block, uint64_t count, void *buf,
                          bool *zero) must_check;
CO int volume_beside_extents(struct volume *v, uint64_t offset, uint64_t len,
                             struct volume_extent *out, unsigned max, unsigned *n) must_check;

/*
 * Two volumes on one reactor, both frozen, exchange their fronts: clients of `from` are from now on
 * those of `to`, and requests that are held go there. Both stay frozen. The latencies of `to` are
 * those of its clients from now on. On that reactor.
 */
void volume_fronts_exchange(struct volume *from, struct volume *to);

#endif
