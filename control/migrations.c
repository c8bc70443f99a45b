/* Moves at work, and the last ones that ended. */
#include "control/migrations.h"

#include "base/bytes.h"
#include "base/verify.h"
#include "control/migrate_exports.h"
#include "control/move_out.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INT(v) ((json_int_t)(v))

struct migration {
    struct list link;
    struct control_pool *from, *to; /* a reference on each; NULL: it has ended. `to` is also NULL
                                       when that is another daemon's */
    struct move_out *out;           /* owned; the way to another daemon */
    char volume[VOLUME_FULL_NAME_MAX + 1], target[VOLUME_FULL_NAME_MAX + 1];
    struct control_move exports; /* what becomes of them */
    struct migrate *m;           /* owned; NULL: it is being started, or has ended */
    struct migrate_status last;  /* of one that has ended */
    char job[JOB_NAME_BYTES];
    bool waits;  /* for disks, and an event has told */
    bool paused; /* … the same                       */
    bool late;   /* … the same, once                 */
};

#define WAITS_TEXT (2 * VOLUME_FULL_NAME_MAX + 160)

void migrations_init(struct migrations *ms)
{
    list_init(&ms->at_work);
    list_init(&ms->ended);
    ms->ended_count = 0;
    ms->unsettled = false;
}

void migrations_fini(struct migrations *ms)
{
    struct migration *g, *next;
    VP_VERIFY_TRUE(list_empty(&ms->at_work));
    list_for_each_safe (g, next, &ms->ended, link) {
        list_del(&g->link);
        free(g);
    }
}

/* ---- start ----------------------------------------------------------------------------------- */

/* No move at work, or one that is being started, has one of the two ("": no second one). */
static int migration_check_alone(struct control *c, const char *source, const char *target,
                                 struct vp_error *err)
{
    migrations_reap(c);
    const struct migration *g = migration_of(c, source);
    if (!g)
        g = migration_of(c, target);
    return g ? vp_fail(err, VP_E_VOLUME_MOVING,
                       "%s moves already, to %s: see `vpool migrate status`", g->volume, g->target)
             : 0;
}

/* On the list before the first yield, so that nobody takes one of the pools away. */
static struct migration *migration_new(struct control *c, struct control_pool *from,
                                       struct control_pool *to, const struct migrate_options *o)
{
    struct migration *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    control_volume_name(from->name, o->volume, g->volume);
    g->from = from;
    from->users++;
    if (to) {
        control_volume_name(to->name, o->name, g->target);
        g->to = to;
        to->users++;
        control_move_init(&g->exports, c, from, o->volume, to, o->name);
    } else {
        (void)snprintf(g->target, sizeof(g->target), "%s", o->to_name);
        control_move_init_out(&g->exports, c, from, o->volume, o->to_name);
    }
    list_add_tail(&c->migrations.at_work, &g->link);
    return g;
}

static bool side_is_left(const struct control_pool *p, const char *volume)
{
    struct volume_owner_info o;
    return volume_owner_get(p->vs, volume, &o) == 0 && o.ownership != VOLUME_OWNER &&
           o.ownership != VOLUME_SUPERSEDED && !o.attended;
}

/* It has ended, or could not be started. What it could not record is settled later. */
static void migration_let_go(struct control *c, struct migration *g)
{
    c->migrations.unsettled |=
        side_is_left(g->from, g->exports.volume) || (g->to && side_is_left(g->to, g->exports.name));
    control_move_end(&g->exports);
    list_del(&g->link);
    control_pool_put(g->from);
    if (g->to)
        control_pool_put(g->to);
    move_out_free(g->out);
    g->from = g->to = NULL;
    g->out = NULL;
}

static void migration_ready(void *arg)
{
    const struct migration *g = arg;
    control_event(g->exports.control, VP_LOG_INFO, "migration.ready", g->volume,
                  "the rest of it is small enough: %s waits until its guest is paused", g->target);
}

static int migration_job_cancel(void *arg, struct vp_error *err)
{
    return migrate_cancel(arg, err);
}

static void migration_started(struct control *c, struct migration *g)
{
    const struct migrate_status *s = migrate_status(g->m);
    struct pool_job *j = pool_job_find(volumes_pool(g->from->vs), s->job);
    control_job_name(g->from, s->job, g->job);
    if (j && !pool_job_has_ended(j))
        pool_job_cancel_by(j, migration_job_cancel, g->m);
    control_event(c, VP_LOG_INFO, "migration.started", g->volume, "to %s%s%s, %s", g->target,
                  s->peer[0] ? " at " : "", s->peer, migrate_mode_name(s->mode));
}

static int start_check(struct control *c, const struct control_pool *from,
                       const struct control_pool *to, const struct migrate_options *o,
                       struct vp_error *err)
{
    char source[VOLUME_FULL_NAME_BYTES], target[VOLUME_FULL_NAME_BYTES] = "";
    if (c->stopping)
        return vp_fail(err, VP_E_SHUTDOWN, "the daemon is stopping");
    if (control_pool_is_leaving(from) || (to && control_pool_is_leaving(to)))
        return vp_fail(err, VP_E_NOT_FOUND, "pool '%s' is being closed",
                       control_pool_is_leaving(from) ? from->name : to->name);
    control_volume_name(from->name, o->volume, source);
    if (to)
        control_volume_name(to->name, o->name, target);
    return migration_check_alone(c, source, target, err);
}

CO int migration_start(struct control *c, struct control_pool *from, struct control_pool *to,
                       struct move_out *out, const struct migrate_options *o,
                       const struct migration **started, struct vp_error *err)
{
    struct migrate_options with = *o;
    struct migrate_peer peer;
    int rc = start_check(c, from, to, o, err);
    struct migration *g = rc ? NULL : migration_new(c, from, to, o);
    if (!g) {
        move_out_free(out);
        return rc ? rc : vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    }
    g->out = out;
    if (out) {
        peer = move_out_peer(out);
        with.peer = &peer;
    }
    with.exports = &g->exports.exports;
    with.ready = migration_ready;
    with.ready_arg = g;
    rc = migrate_start(&with, &g->m, err);
    if (rc) {
        migration_let_go(c, g);
        free(g);
        return rc;
    }
    migration_started(c, g);
    *started = g;
    return 0;
}

/* ---- end ------------------------------------------------------------------------------------- */

/* "; 96M were compared, 4K of the last changes were not" */
static const char *migration_verified_text(const struct migrate_status *s, char *to, size_t size)
{
    char compared[24], left[24];
    *to = '\0';
    if (s->verify)
        (void)snprintf(to, size, "; %s were compared, %s of the last changes were not",
                       bytes_format_size(s->checked_bytes, compared, sizeof(compared)),
                       bytes_format_size(s->unchecked_bytes, left, sizeof(left)));
    return to;
}

/* "is silo/v now: 96M were copied, …; clients waited 4 ms" */
static void migration_tell_done(struct control *c, const struct migration *g)
{
    const struct migrate_status *s = &g->last;
    char copied[24], zero[24], again[24], mirrored[24], live[80] = "", verified[100];
    if (s->mode != MIGRATE_OFFLINE)
        (void)snprintf(live, sizeof(live), "; of both, %s again; %s were mirrored",
                       bytes_format_size(s->again_bytes, again, sizeof(again)),
                       bytes_format_size(s->mirrored_bytes, mirrored, sizeof(mirrored)));
    control_event(c, VP_LOG_INFO, "migration.done", g->volume,
                  "is %s now: %s were copied, %s were zeros%s%s; clients waited %" PRIu64 " ms",
                  g->target, bytes_format_size(s->copied_bytes, copied, sizeof(copied)),
                  bytes_format_size(s->zero_bytes, zero, sizeof(zero)), live,
                  migration_verified_text(s, verified, sizeof(verified)),
                  (s->frozen_all_ns + 999999) / 1000000);
}

static void migration_tell_end(struct control *c, const struct migration *g)
{
    const struct migrate_status *s = &g->last;
    switch (s->phase) {
    case MIGRATE_DONE:
        migration_tell_done(c, g);
        break;
    case MIGRATE_CANCELLED:
        control_event(c, VP_LOG_INFO, "migration.cancelled", g->volume,
                      "it stays, and %s is deleted", g->target);
        break;
    case MIGRATE_IN_DOUBT:
        control_event(c, VP_LOG_ERROR, "migration.failed", g->volume,
                      "nobody knows whether it has become %s: %s", g->target, s->error);
        break;
    default:
        control_event(c, VP_LOG_ERROR, "migration.failed", g->volume,
                      "it stays, and has not become %s: %s", g->target, s->error);
    }
}

static void migration_end(struct control *c, struct migration *g)
{
    struct migrations *ms = &c->migrations;
    g->last = *migrate_status(g->m);
    migrate_free(g->m);
    g->m = NULL;
    migration_let_go(c, g);
    list_add_tail(&ms->ended, &g->link);
    move_report_add(c, migration_json(g));
    migration_tell_end(c, g);
    if (ms->ended_count++ < MIGRATIONS_REMEMBERED)
        return;
    struct migration *oldest = list_first(&ms->ended, struct migration, link);
    list_del(&oldest->link);
    free(oldest);
    ms->ended_count--;
}

/* "for 35 s for …": it cannot end before these have answered. "": it does not wait. */
static const char *migration_waits_text(const struct migration *g, char to[static WAITS_TEXT])
{
    uint64_t ns = g->m ? migrate_waits_ns(g->m) : 0;
    to[0] = 0;
    if (ns && g->out)
        (void)snprintf(to, WAITS_TEXT, "for %" PRIu64 " s for the disks of %s or the daemon of %s",
                       ns / UINT64_C(1000000000), g->volume, g->target);
    else if (ns)
        (void)snprintf(to, WAITS_TEXT, "for %" PRIu64 " s for the disks of %s or of %s",
                       ns / UINT64_C(1000000000), g->volume, g->target);
    return to;
}

/* Also of a pause by the job of the move. */
static void migration_tell_pause(struct control *c, struct migration *g)
{
    bool before = g->paused;
    g->paused = g->m && migrate_is_paused(g->m);
    if (g->paused && !before)
        control_event(c, VP_LOG_WARN, "migration.paused", g->volume,
                      "its move to %s is paused, until `vpool migrate resume %s`", g->target,
                      g->volume);
    else if (before && !g->paused)
        control_event(c, VP_LOG_INFO, "migration.resumed", g->volume, "its move to %s goes on",
                      g->target);
}

static void migration_tell_late(struct control *c, struct migration *g)
{
    if (g->late || !g->m || !migrate_is_late(g->m))
        return;
    uint64_t now = reactor_wall_seconds(), deadline = migrate_status(g->m)->deadline;
    g->late = true;
    control_event(c, VP_LOG_WARN, "migration.late", g->volume,
                  "as it goes now, its move to %s does not end by its deadline, in %" PRIu64
                  " s, and then ends without effect",
                  g->target, deadline - min_u64(now, deadline));
}

void migrations_look(struct control *c)
{
    struct migration *g;
    migrations_reap(c);
    list_for_each (g, &c->migrations.at_work, link) {
        char text[WAITS_TEXT];
        bool before = g->waits;
        migration_tell_pause(c, g);
        migration_tell_late(c, g);
        g->waits = migration_waits_text(g, text)[0];
        if (g->waits && !before)
            control_event(c, VP_LOG_WARN, "migration.waits", g->volume,
                          "its move has waited %s, and cannot end before they answer", text);
    }
}

void migrations_reap(struct control *c)
{
    struct migration *g, *next;
    list_for_each_safe (g, next, &c->migrations.at_work, link)
        if (g->m && migrate_has_ended(g->m))
            migration_end(c, g);
}

CO void migrations_end(struct control *c)
{
    struct migration *g;
    list_for_each (g, &c->migrations.at_work, link)
        migrate_stop(g->m);
    while (!list_empty(&c->migrations.at_work)) {
        g = list_first(&c->migrations.at_work, struct migration, link);
        migrate_wait(g->m);
        migrations_reap(c);
    }
}

int migrations_refuse(struct control *c, const struct control_pool *p, const char *what,
                      struct vp_error *err)
{
    const struct migration *g;
    migrations_reap(c);
    list_for_each (g, &c->migrations.at_work, link)
        if (g->from == p || g->to == p)
            return vp_fail(err, VP_E_BUSY,
                           "%s moves to %s: wait for its end or cancel it (`vpool migrate cancel "
                           "%s`) before you %s pool '%s'",
                           g->volume, g->target, g->volume, what, p->name);
    return receivers_refuse(c, p, what, err);
}

/* ---- finding and showing --------------------------------------------------------------------- */

bool migration_has_ended(const struct migration *g)
{
    return !g->from;
}

/* Else it is being started, and may still fail. */
static bool migration_has_begun(const struct migration *g)
{
    return g->m || migration_has_ended(g);
}

static const struct migrate_status *migration_status(const struct migration *g)
{
    return g->m ? migrate_status(g->m) : &g->last;
}

const struct migration *migration_find(struct control *c, struct vp_uuid id)
{
    struct list *const lists[] = {&c->migrations.at_work, &c->migrations.ended};
    migrations_reap(c);
    for (unsigned i = 0; i < 2; i++) {
        const struct migration *g;
        list_for_each (g, lists[i], link)
            if (migration_has_begun(g) && vp_uuid_equal(migration_status(g)->id, id))
                return g;
    }
    return NULL;
}

/* The name of a volume in another daemon says nothing here. */
static bool migration_has(const struct migration *g, const char *volume)
{
    bool is_out = migration_has_begun(g) ? migration_status(g)->peer[0] : g->out != NULL;
    return strcmp(g->volume, volume) == 0 || (!is_out && strcmp(g->target, volume) == 0);
}

const struct migration *migration_of(struct control *c, const char *volume)
{
    const struct migration *g;
    list_for_each (g, &c->migrations.at_work, link)
        if (migration_has(g, volume))
            return g;
    return NULL;
}

/* The move at work that has this volume. */
static int migration_get(struct control *c, const char *volume, const struct migration **out,
                         struct vp_error *err)
{
    migrations_reap(c);
    const struct migration *g = *out = migration_of(c, volume);
    if (!g)
        return vp_fail(err, VP_E_NOT_FOUND,
                       "%s does not move: `vpool migrate status` shows what moves, and what has "
                       "moved",
                       volume);
    if (!g->m)
        return vp_fail(err, VP_E_BUSY, "the move of %s has just begun: try again", volume);
    return 0;
}

int migration_cancel(struct control *c, const char *volume, const struct migration **out,
                     struct vp_error *err)
{
    int rc = migration_get(c, volume, out, err);
    return rc ? rc : migrate_cancel((*out)->m, err);
}

CO int migration_pause(struct control *c, const char *volume, bool paused,
                       const struct migration **out, struct vp_error *err)
{
    const struct migration *g;
    int rc = migration_get(c, volume, &g, err);
    if (rc)
        return rc;
    struct vp_uuid id = migration_id(g);
    struct control_pool *from = g->from;
    from->users++; /* the move may end meanwhile */
    rc = paused ? migrate_pause(g->m, err) : migrate_resume(g->m, err);
    control_pool_put(from);
    *out = rc ? NULL : migration_find(c, id);
    return rc;
}

int migration_guest_paused(struct control *c, const char *volume, const struct migration **out,
                           struct vp_error *err)
{
    int rc = migration_get(c, volume, out, err);
    return rc ? rc : migrate_guest_paused((*out)->m, err);
}

struct vp_uuid migration_id(const struct migration *g)
{
    return migration_status(g)->id;
}

bool migration_has_switched(const struct migration *g)
{
    enum migrate_phase phase = migration_status(g)->phase;
    return phase == MIGRATE_LEAVING || phase >= MIGRATE_DONE;
}

static bool migration_is_live(const struct migrate_status *s)
{
    return s->phase == MIGRATE_COPYING || s->phase == MIGRATE_MIRRORING;
}

/* How long clients would wait if they were stopped now; null: not known, or they were. */
static json_t *migration_pause_json(const struct migrate_status *s)
{
    return migration_is_live(s) && s->pause_ns ? json_real((double)s->pause_ns / 1e6) : json_null();
}

/* Until clients can be stopped, as it goes now; null: not known, or never. */
static json_t *migration_left_json(const struct migrate_status *s)
{
    bool known = migration_is_live(s) && s->outlook.known && !s->outlook.never;
    return known ? json_integer(INT(div_up(s->outlook.ns, UINT64_C(1000000000)))) : json_null();
}

/* Whether rounds alone come to an end; null: not known. */
static json_t *migration_converges_json(const struct migrate_status *s)
{
    return migration_is_live(s) && s->outlook.known ? json_boolean(!s->outlook.never) : json_null();
}

/* Takes the reference of `to`. */
static json_t *migration_json_bytes(json_t *to, const struct migrate_status *s)
{
    const struct {
        const char *name;
        uint64_t bytes;
    } all[] = {{"total_bytes", s->total_bytes}, {"copied_bytes", s->copied_bytes},
               {"zero_bytes", s->zero_bytes},   {"again_bytes", s->again_bytes},
               {"dirty_bytes", s->dirty_bytes}, {"mirrored_bytes", s->mirrored_bytes},
               {"rounds", s->rounds},           {"pauses", s->freezes},
               {"requests", s->requests},       {"breaks", s->breaks}};
    for (size_t i = 0; to && i < sizeof(all) / sizeof(all[0]); i++)
        if (json_object_set_new(to, all[i].name, json_integer(INT(all[i].bytes)))) {
            json_decref(to);
            to = NULL;
        }
    return to;
}

static json_t *number_or_null(uint64_t n)
{
    return n ? json_integer(INT(n)) : json_null();
}

/* What was compared; null: nothing is to be. */
static json_t *migration_verify_json(const struct migrate_status *s)
{
    return s->verify
               ? json_pack("{s:I, s:I, s:I}", "compared_bytes", INT(s->checked_bytes),
                           "not_compared_bytes", INT(s->unchecked_bytes), "passes", INT(s->checks))
               : json_null();
}

/* What it costs clients. Takes the reference of `to`. */
static json_t *migration_json_cost(json_t *to, const struct migrate_status *s)
{
    json_t *cost = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "before_ns", number_or_null(s->before_ns),
        "during_ns", number_or_null(s->during_ns), "longest_ns", number_or_null(s->longest_ns),
        "predicted_ns", number_or_null(s->pause_ns), "frozen_all_ns",
        number_or_null(s->frozen_all_ns), "frozen_longest_ns", number_or_null(s->frozen_longest_ns),
        "dirtied_bytes", migration_is_live(s) ? json_integer(INT(s->dirtied_bytes)) : json_null(),
        "converges", migration_converges_json(s));
    if (!to || !cost || json_object_update(to, cost)) {
        json_decref(to);
        to = NULL;
    }
    json_decref(cost);
    return to;
}

json_t *migration_json(const struct migration *g)
{
    const struct migrate_status *s = migration_status(g);
    char id[VP_UUID_TEXT], waits[WAITS_TEXT];
    json_t *m = json_pack(
        "{s:s, s:s, s:s, s:s, s:b, s:s, s:s, s:b, s:b, s:o, s:b, s:s, s:I, s:o, s:o, s:o, s:o, "
        "s:o, "
        "s:o, s:s, s:s}",
        "id", vp_uuid_format(s->id, id), "from", g->volume, "to", g->target, "peer", s->peer,
        "incoming", 0, "mode", migrate_mode_name(s->mode), "phase", migrate_phase_name(s->phase),
        "ready", s->ready, "paused", g->m && migrate_is_paused(g->m), "deadline",
        number_or_null(s->deadline), "late", g->m && migrate_is_late(g->m), "job", g->job,
        "started", INT(s->started), "ended", number_or_null(migration_has_ended(g) ? s->ended : 0),
        "rate_bytes", number_or_null(s->rate_bytes), "seconds_left", migration_left_json(s),
        "pause_ms", migration_pause_json(s), "frozen_ns", number_or_null(s->frozen_ns), "verify",
        migration_verify_json(s), "waits", migration_waits_text(g, waits), "error", s->error);
    return migration_json_bytes(migration_json_cost(m, s), s);
}

json_t *migrations_json(struct control *c, const char *volume)
{
    struct list *const lists[] = {&c->migrations.at_work, &c->migrations.ended};
    json_t *all = json_array();
    migrations_reap(c);
    for (unsigned i = 0; i < 2; i++) {
        const struct migration *g;
        list_for_each (g, lists[i], link)
            if (migration_has_begun(g) && (!volume || migration_has(g, volume)) &&
                json_array_append_new(all, migration_json(g)))
                return all; /* no memory: some are missing */
    }
    receivers_add_json(c, volume, all);
    return all;
}
