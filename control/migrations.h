/*
 * Moves of volumes between pools of this daemon, and to other daemons (migrate/migrate.h): those at
 * work, the last ones that ended, and what moves of an earlier life have left in doubt.
 *
 * A move at work holds a reference on both pools. So whoever takes a pool away first asks
 * migrations_refuse, or ends all moves. A move takes control.lock only when its volume has left for
 * another daemon, and its exports end. Home reactor only.
 */
#ifndef VP_CONTROL_MIGRATIONS_H
#define VP_CONTROL_MIGRATIONS_H

#include "base/list.h"
#include "migrate/migrate.h"

#include <jansson.h>
#include <stdbool.h>

#define MIGRATIONS_REMEMBERED 16 /* that have ended, the newest ones */

struct control;
struct control_pool;
struct migration;
struct move_out;

struct migrations { /* part of struct control */
    struct list at_work, ended;
    unsigned ended_count;
    /* The last migrations_settle had an error, or a move could not record its end: the monitor
     * calls migrations_settle. */
    bool unsettled;
    uint64_t tell_ns;   /* when other daemons are told again of volumes that have left */
    bool asking;        /* a coroutine asks other daemons about volumes in doubt          */
    bool answer_failed; /* what one said could not be recorded, and an event has told */
};

void migrations_init(struct migrations *ms);
/* None is at work. */
void migrations_fini(struct migrations *ms);

/* ---- migrations.c: moves at work ------------------------------------------------------------- */

/* A move from one pool to another, as `o` says, but for its exports, which are set here. `to` NULL:
 * to another daemon, by `out`, which belongs to the move from now on, also after an error. The
 * caller holds references on both pools; the move takes its own. Borrowed until the next yield.
 * Errors: those of migrate_start; VP_E_VOLUME_MOVING: a move at work has one of the two names;
 * VP_E_SHUTDOWN and VP_E_NOT_FOUND: the daemon stops, or one of the pools leaves. */
CO int migration_start(struct control *c, struct control_pool *from, struct control_pool *to,
                       struct move_out *out, const struct migrate_options *o,
                       const struct migration **started, struct vp_error *err) must_check;
/* The one of this id, at work or ended; NULL. */
const struct migration *migration_find(struct control *c, struct vp_uuid id);
/* The one at work that has this volume, "POOL/VOL", on either side; NULL. */
const struct migration *migration_of(struct control *c, const char *volume);
/* Asks the move of this volume to end without effect. VP_E_NOT_FOUND, VP_E_BUSY. */
int migration_cancel(struct control *c, const char *volume, const struct migration **out,
                     struct vp_error *err) must_check;
/* Pauses the move of this volume, or resumes it (migrate_pause, migrate_resume). *out is NULL when
 * the move has ended meanwhile and is forgotten. VP_E_NOT_FOUND, VP_E_BUSY, VP_E_NOT_SUPPORTED. */
CO int migration_pause(struct control *c, const char *volume, bool paused,
                       const struct migration **out, struct vp_error *err) must_check;
/* The guest that uses this volume is paused: its move goes on (migrate_guest_paused).
 * VP_E_NOT_FOUND, VP_E_INVALID, VP_E_BUSY. */
int migration_guest_paused(struct control *c, const char *volume, const struct migration **out,
                           struct vp_error *err) must_check;
struct vp_uuid migration_id(const struct migration *g);
/* The volume is the other side's, or it has ended otherwise. */
bool migration_has_switched(const struct migration *g);
bool migration_has_ended(const struct migration *g);
json_t *migration_json(const struct migration *g);
/* Those of a volume, or (NULL) all: at work first, then ended, the oldest first. */
json_t *migrations_json(struct control *c, const char *volume);

/* VP_E_BUSY, with the command that helps, while a move at work has this pool on either side. No
 * yield: the caller takes the pool off the list before the next one. `what`: "export" it. */
int migrations_refuse(struct control *c, const struct control_pool *p, const char *what,
                      struct vp_error *err) must_check;
/* Those that have ended give their pools back, and are told of. No yield. */
void migrations_reap(struct control *c);
/* The same, from time to time: those that wait for disks, are paused or go
 * on, or are late, are told of. No yield. */
void migrations_look(struct control *c);
/* The daemon stops: cancels all and waits for their ends. None is being started. The caller does
 * not hold control.lock: the end of a move may take it. */
CO void migrations_end(struct control *c);

/* ---- migrations_left.c: what moves have left ------------------------------------------------- */

/* A pool was opened, or the last call had an error: lets all open pools find out who owns the
 * volumes that moves have left, and starts the attachments of those that are clear now. The caller
 * holds control.lock. */
CO void migrations_settle(struct control *c);
/* Notes what is in doubt now, in control_pool.left, and adds events for what is new. No yield. */
void migrations_look_left(struct control *c);
/* Those of a volume, or (NULL) all that are left, as of the last look: [{volume, side, other, why}]
 */
json_t *migrations_left_json(const struct control *c, const char *volume);
/* The same of one pool, borrowed until the next yield; NULL: nothing. An object, by "VOL". */
json_t *migrations_left_of(const struct control_pool *p);
/* "may have moved to POOL/VOL: why it is not known", of an entry. */
#define MIGRATIONS_LEFT_TEXT (VOLUME_FULL_NAME_MAX + 540)
const char *migrations_left_text(const json_t *entry, char to[static MIGRATIONS_LEFT_TEXT]);
/* How many of them are not served; whether this one is not. */
unsigned migrations_left_unserved(const struct control_pool *p);
bool migrations_left_unserved_is(const struct control_pool *p, const char *volume);
/* A note that a volume of this name has left (volumes_left_each), and where to. */
bool migrations_gone_find(struct volumes *vs, const char *volume, struct volume_left *out);
/* All of them are given up: the daemons there are not told any more. The caller holds control.lock.
 */
CO int migrations_gone_forget(struct control *c, struct control_pool *p, const char *volume,
                              struct vp_error *err) must_check;
/* "left", "target", "arrived", "superseded": the pool's side of a move; NULL: none. */
const char *migration_side(const struct volume_owner_info *o);
/* The move in the record of a volume: {id, side, other}; null. */
json_t *migration_side_json(struct volumes *vs, const char *volume);
bool migration_other_is_open(struct control *c, const struct volume_owner_info *o);
/* Starts, unless it still runs, what asks other daemons about volumes in doubt, and tells them of
 * volumes that have left. */
void migrations_ask(struct control *c);
/* The other side of a volume's move is given up, or is asked if it is open (migrate_forget). The
 * caller holds control.lock. */
CO int migration_forget(struct control *c, struct control_pool *p, const char *volume,
                        struct vp_error *err) must_check;

#endif
