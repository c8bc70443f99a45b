/* Methods about moves of volumes between pools (docs/migration.md). */
#include "control/control_impl.h"
#include "control/move_out.h"

#include <stdio.h>
#include <string.h>

#define INT(v) ((json_int_t)(v))

/* ---- migrate.start --------------------------------------------------------------------------- */

struct start_args {
    const char *volume, *to, *mode, *peer;
    /* 0: not given */
    uint64_t max_downtime_ms, mirror_wait_ms, bandwidth_bytes, impact_percent, guest_wait_ms,
        deadline_ms;
    bool full_speed, verify, dry_run;
};
static const struct param start_params[] = {
    PARAM(struct start_args, volume, PARAM_STRING, true, 0, 0),
    PARAM(struct start_args, to, PARAM_STRING, true, 0, 0),
    PARAM(struct start_args, mode, PARAM_STRING, false, 0, 0),
    PARAM(struct start_args, peer, PARAM_STRING, false, 0, REMOTE_TEXT_MAX),
    PARAM(struct start_args, max_downtime_ms, PARAM_NUMBER, false, 1, 60000),
    PARAM(struct start_args, mirror_wait_ms, PARAM_NUMBER, false, 1, 10000),
    PARAM(struct start_args, bandwidth_bytes, PARAM_NUMBER, false, 1 << 20, UINT64_C(1) << 50),
    PARAM(struct start_args, impact_percent, PARAM_NUMBER, false, 101, 10000),
    PARAM(struct start_args, guest_wait_ms, PARAM_NUMBER, false, 1000, 86400000),
    PARAM(struct start_args, deadline_ms, PARAM_NUMBER, false, 1000, UINT64_C(2592000000)),
    PARAM(struct start_args, full_speed, PARAM_BOOL, false, 0, 0),
    PARAM(struct start_args, verify, PARAM_BOOL, false, 0, 0),
    PARAM(struct start_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};

/* From where to where, with a reference on both pools. */
struct way {
    struct control_pool *from, *to; /* to: NULL when that is another daemon's */
    const char *volume, *name;      /* "VOL" there and here */
    char target[VOLUME_FULL_NAME_BYTES];
};

static void way_put(struct way *w)
{
    if (w->to)
        control_pool_put(w->to);
    control_pool_put(w->from);
}

/* "POOL2", or "POOL2/VOL". What is wrong with it the other daemon says. */
static int way_get_out(const struct start_args *a, struct way *w, struct vp_error *err)
{
    int len = strchr(a->to, '/')
                  ? snprintf(w->target, sizeof(w->target), "%s", a->to)
                  : snprintf(w->target, sizeof(w->target), "%s/%s", a->to, w->volume);
    return (size_t)len < sizeof(w->target)
               ? 0
               : vp_fail(err, VP_E_NAME_INVALID, "'%.80s…' is not a volume's name", a->to);
}

static int way_get_to(struct control *c, const struct start_args *a, struct way *w,
                      struct vp_error *err)
{
    if (a->peer)
        return way_get_out(a, w, err);
    int rc = strchr(a->to, '/') ? control_volume_get(c, a->to, &w->to, &w->name, err)
                                : control_pool_get_open(c, a->to, &w->to, err);
    if (rc == 0)
        control_volume_name(w->to->name, w->name, w->target);
    return rc;
}

/* "POOL2" keeps the volume's name. */
static int way_get(struct control *c, const struct start_args *a, struct way *w,
                   struct vp_error *err)
{
    *w = (struct way){0};
    int rc = control_volume_get(c, a->volume, &w->from, &w->volume, err);
    if (rc)
        return rc;
    w->name = w->volume;
    rc = way_get_to(c, a, w, err);
    if (rc)
        control_pool_put(w->from);
    return rc;
}

static json_t *plan_json(const struct way *w, enum migrate_mode mode, const struct migrate_plan *p)
{
    char from[VOLUME_FULL_NAME_BYTES];
    control_volume_name(w->from->name, w->volume, from);
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:o, s:b}", "from", from, "to", w->target, "mode",
                     migrate_mode_name(mode), "size_bytes", INT(p->size_bytes), "allocated_bytes",
                     INT(p->allocated_bytes), "room_bytes",
                     w->to ? json_integer(INT(p->room_bytes)) : json_null(), "clients_wait",
                     mode == MIGRATE_OFFLINE);
}

/* What only a move beside its clients' writes can do. */
static int start_check(const struct start_args *a, enum migrate_mode mode, struct vp_error *err)
{
    const char *live = a->max_downtime_ms   ? "max_downtime_ms"
                       : a->mirror_wait_ms  ? "mirror_wait_ms"
                       : a->bandwidth_bytes ? "bandwidth_bytes"
                       : a->impact_percent  ? "impact_percent"
                       : a->guest_wait_ms   ? "guest_wait_ms"
                       : a->full_speed      ? "full_speed"
                       : a->verify          ? "verify"
                                            : NULL;
    if (mode == MIGRATE_OFFLINE && live)
        return vp_fail(err, VP_E_INVALID,
                       "%s has no meaning in mode 'offline', in which clients wait while all is "
                       "copied: use 'live' or 'mirror'",
                       live);
    if (a->impact_percent && a->full_speed)
        return vp_fail(err, VP_E_INVALID,
                       "impact_percent and full_speed exclude each other: a copy at full speed "
                       "does not look at what requests take");
    return 0;
}

static CO int start_plan(const struct migrate_options *o, struct move_out *out,
                         struct migrate_plan *plan, struct vp_error *err)
{
    struct migrate_options with = *o;
    struct migrate_peer peer;
    if (out) {
        peer = move_out_peer(out);
        with.peer = &peer;
    }
    return migrate_plan(&with, plan, err);
}

/* What a dry run says besides the plan, into `to`. */
static CO int estimate_add(const struct migrate_options *o, const struct migrate_plan *plan,
                           json_t *to, struct vp_error *err)
{
    struct migrate_estimate e;
    int rc = migrate_estimate(o, plan, &e, err);
    if (rc)
        return rc;
    bool ends = e.outlook.known && !e.outlook.never;
    json_t *meets = o->deadline_ms && ends ? json_boolean(e.outlook.ns / 1000000 <= o->deadline_ms)
                                           : json_null();
    json_t *estimate =
        json_pack("{s:I, s:I, s:I, s:o, s:o, s:I, s:o}", "bytes", INT(e.bytes), "rate_bytes",
                  INT(e.rate_bytes), "written_bytes", INT(e.written_bytes), "seconds",
                  ends ? json_real((double)e.outlook.ns / 1e9) : json_null(), "converges",
                  e.outlook.known ? json_boolean(!e.outlook.never) : json_null(), "pause_ns",
                  INT(e.pause_ns), "meets_deadline", meets);
    return json_object_set_new(to, "estimate", estimate)
               ? vp_fail(err, VP_E_NO_MEMORY, "out of memory")
               : 0;
}

static CO int start_on(struct control *c, const struct way *w, enum migrate_mode mode,
                       const struct start_args *a, json_t **result, struct vp_error *err)
{
    const struct migrate_options o = {.from = w->from->vs,
                                      .to = w->to ? w->to->vs : NULL,
                                      .volume = w->volume,
                                      .name = w->name,
                                      .mode = mode,
                                      .pause_ms = a->max_downtime_ms,
                                      .mirror_ms = a->mirror_wait_ms,
                                      .limit_bytes = a->bandwidth_bytes,
                                      .guest_ms = a->guest_wait_ms,
                                      .deadline_ms = a->deadline_ms,
                                      .verify = a->verify,
                                      .impact_percent = a->full_speed ? MIGRATE_IMPACT_ANY
                                                                      : (unsigned)a->impact_percent,
                                      .peer_name = a->peer,
                                      .to_name = w->target};
    struct migrate_plan plan;
    struct move_out *out = NULL;
    const struct migration *g = NULL;
    int rc = a->peer ? move_out_new(a->peer, w->target, &c->stopping, &out, err) : 0;
    if (rc)
        return rc;
    rc = start_plan(&o, out, &plan, err);
    if (rc || a->dry_run)
        move_out_free(out);
    else
        rc = migration_start(c, w->from, w->to, out, &o, &g, err);
    if (rc)
        return rc;
    json_t *started = g ? migration_json(g) : NULL;
    *result = json_pack("{s:o, s:O?, s:O?}", "plan", plan_json(w, mode, &plan), "id",
                        json_object_get(started, "id"), "job", json_object_get(started, "job"));
    json_decref(started);
    if (a->dry_run)
        rc = estimate_add(&o, &plan, *result, err);
    return rc;
}

static CO int start(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct start_args *a = args;
    enum migrate_mode mode;
    struct way w;
    int rc = migrate_mode_parse(a->mode ? a->mode : "live", &mode, err);
    if (rc == 0)
        rc = start_check(a, mode, err);
    if (rc == 0)
        rc = way_get(c, a, &w, err);
    if (rc)
        return rc;
    rc = start_on(c, &w, mode, a, result, err);
    way_put(&w);
    return rc;
}

/* ---- migrate.status, migrate.wait ------------------------------------------------------------ */

struct status_args {
    const char *volume;
};
static const struct param status_params[] = {
    PARAM(struct status_args, volume, PARAM_STRING, false, 0, 0), {0}};

static int status(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct status_args *a = args;
    (void)err;
    json_t *all = migrations_json(c, a->volume); /* first: it frees the names of what has ended */
    migrations_look_left(c);
    *result =
        json_pack("{s:o, s:o}", "migrations", all, "in_doubt", migrations_left_json(c, a->volume));
    return 0;
}

static int report(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct status_args *a = args;
    (void)err;
    migrations_reap(c);
    *result = json_pack("{s:o}", "moves", move_reports_json(c, a->volume));
    return 0;
}

#define WAIT_LOOK_NS   UINT64_C(100000000)
#define SWITCH_LOOK_NS UINT64_C(1000000) /* a guest waits */

struct wait_args {
    const char *id;
    uint64_t wait_ms;
};
static const struct param wait_params[] = {
    PARAM(struct wait_args, id, PARAM_STRING, true, 0, 0),
    PARAM(struct wait_args, wait_ms, PARAM_NUMBER, false, 0, 60000),
    {0}};

/* The move as it is, a new reference. NULL: it is not known. */
static json_t *wait_look(struct control *c, struct vp_uuid id)
{
    const struct migration *g = migration_find(c, id);
    return g ? migration_json(g) : receiver_json_of(c, id);
}

/* It may be forgotten meanwhile, when many others have ended since. */
static CO int wait(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct wait_args *a = args;
    uint64_t deadline_ns = reactor_now_ns() + a->wait_ms * 1000000;
    bool is_over = false; /* nobody waits any more */
    struct vp_uuid id;
    if (!vp_uuid_parse(a->id, &id))
        return vp_fail(err, VP_E_RPC_PARAMS, "'%.60s' is not the id of a migration", a->id);
    for (;;) {
        json_t *now = wait_look(c, id);
        uint64_t now_ns = reactor_now_ns();
        if (!now)
            return vp_fail(err, VP_E_NOT_FOUND,
                           "no migration %s: `vpool migrate status` shows all; one that ended long "
                           "ago is forgotten",
                           a->id);
        if (json_is_integer(json_object_get(now, "ended")) || now_ns >= deadline_ns ||
            c->stopping || is_over) {
            *result = now;
            return 0;
        }
        json_decref(now);
        is_over = control_server_wait(&c->server, &c->events.arrived,
                                      min_u64(deadline_ns, now_ns + WAIT_LOOK_NS),
                                      "the end of a migration") == VP_E_CANCELLED;
    }
}

/* ---- migrate.cancel, pause, resume, guest-paused, forget --------------------------------- */

struct cancel_args {
    const char *volume;
};
static const struct param cancel_params[] = {
    PARAM(struct cancel_args, volume, PARAM_STRING, true, 0, 0), {0}};

static CO int cancel(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct cancel_args *a = args;
    const struct migration *g;
    int rc = migration_cancel(c, a->volume, &g, err);
    if (rc == 0)
        *result = migration_json(g);
    return rc == VP_E_NOT_FOUND ? receiver_cancel(c, a->volume, result, err) : rc;
}

static CO int pause_or_resume(struct control *c, const struct cancel_args *a, bool paused,
                              json_t **result, struct vp_error *err)
{
    const struct migration *g;
    int rc = migration_pause(c, a->volume, paused, &g, err);
    if (rc == VP_E_NOT_FOUND)
        return receiver_refuse(c, a->volume, paused ? "pause" : "resume", err);
    if (rc == 0 && !g)
        return vp_fail(err, VP_E_NOT_FOUND, "the migration has ended, and is forgotten");
    if (rc == 0)
        *result = migration_json(g);
    return rc;
}

static CO int pause_move(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    return pause_or_resume(c, args, true, result, err);
}

static CO int resume_move(struct control *c, const void *args, json_t **result,
                          struct vp_error *err)
{
    return pause_or_resume(c, args, false, result, err);
}

/* Returns when the volume is the other side's, or is not going to be: the guest waits. */
static CO int guest_paused(struct control *c, const void *args, json_t **result,
                           struct vp_error *err)
{
    const struct cancel_args *a = args;
    const struct migration *g;
    struct vp_uuid id;
    bool is_over = false; /* nobody waits any more */
    int rc = migration_guest_paused(c, a->volume, &g, err);
    if (rc)
        return rc;
    id = migration_id(g);
    while (g && !migration_has_switched(g) && !c->stopping && !is_over) {
        is_over =
            control_server_wait(&c->server, &c->events.arrived, reactor_now_ns() + SWITCH_LOOK_NS,
                                "the switch of a migration") == VP_E_CANCELLED;
        g = migration_find(c, id);
    }
    if (!g)
        return vp_fail(err, VP_E_NOT_FOUND, "the migration has ended, and is forgotten");
    *result = migration_json(g);
    return 0;
}

struct forget_args {
    const char *volume;
    bool dry_run;
};
static const struct param forget_params[] = {
    PARAM(struct forget_args, volume, PARAM_STRING, true, 0, 0),
    PARAM(struct forget_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};

/* What can be forgotten: the record of a move that is not at work. */
static int forget_check(struct control *c, struct control_pool *p, const char *volume,
                        struct volume_owner_info *o, struct vp_error *err)
{
    char full[VOLUME_FULL_NAME_BYTES];
    control_volume_name(p->name, volume, full);
    migrations_reap(c);
    if (volume_owner_get(p->vs, volume, o))
        return vp_fail(err, VP_E_NOT_FOUND,
                       "no volume '%s', and none has left under this name: `vpool volume list` and "
                       "`vpool migrate status` show all",
                       full);
    const struct migration *g = migration_of(c, full);
    if (g)
        return vp_fail(err, VP_E_BUSY,
                       "the move of %s is at work: `vpool migrate cancel %s` ends it", full, full);
    if (o->ownership == VOLUME_OWNER)
        return vp_fail(err, VP_E_INVALID, "%s does not move, and no other pool is asked about it",
                       full);
    if (o->ownership == VOLUME_SUPERSEDED)
        return vp_fail(err, VP_E_VOLUME_SUPERSEDED,
                       "%s is an older copy of %s: use that one, and delete this one", full,
                       o->move.volume);
    return 0;
}

static CO int forget_in(struct control *c, struct control_pool *p, const char *volume, bool dry_run,
                        json_t **result, struct vp_error *err)
{
    struct volume_owner_info o;
    char full[VOLUME_FULL_NAME_BYTES];
    int rc = forget_check(c, p, volume, &o, err);
    bool is_asked = rc == 0 && migration_other_is_open(c, &o);
    if (rc == 0 && !dry_run)
        rc = migration_forget(c, p, volume, err);
    if (rc)
        return rc;
    control_volume_name(p->name, volume, full);
    *result = json_pack("{s:s, s:b, s:s, s:s, s:s}", "volume", full, "dry_run", dry_run, "side",
                        migration_side(&o), "other", o.move.volume, "becomes",
                        is_asked                       ? "settled"
                        : o.ownership == VOLUME_TARGET ? "deleted"
                                                       : "owner");
    return 0;
}

/* A volume that has left, and is not one of this name that came later and moves. */
static bool forgets_gone(struct control_pool *p, const char *volume, struct volume_left *l)
{
    struct volume_owner_info o;
    bool moves = volume_owner_get(p->vs, volume, &o) == 0 && o.ownership != VOLUME_OWNER;
    return !moves && migrations_gone_find(p->vs, volume, l);
}

static CO int forget_gone(struct control *c, struct control_pool *p, const struct volume_left *l,
                          bool dry_run, json_t **result, struct vp_error *err)
{
    char full[VOLUME_FULL_NAME_BYTES];
    control_volume_name(p->name, l->name, full);
    int rc = dry_run ? 0 : migrations_gone_forget(c, p, l->name, err);
    if (rc == 0)
        *result = json_pack("{s:s, s:b, s:s, s:s, s:s}", "volume", full, "dry_run", dry_run, "side",
                            "gone", "other", l->move.volume, "becomes", "gone");
    return rc;
}

static CO int forget(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct forget_args *a = args;
    struct control_pool *p;
    struct volume_left l;
    const char *volume;
    int rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    rc = forgets_gone(p, volume, &l) ? forget_gone(c, p, &l, a->dry_run, result, err)
                                     : forget_in(c, p, volume, a->dry_run, result, err);
    control_pool_put(p);
    return rc;
}

const struct method methods_migrate[] = {
    {"migrate.start", start_params, 0, start},
    {"migrate.status", status_params, METHOD_READS, status},
    {"migrate.report", status_params, METHOD_READS, report},
    {"migrate.wait", wait_params, METHOD_READS, wait},
    {"migrate.cancel", cancel_params, 0, cancel},
    {"migrate.pause", cancel_params, 0, pause_move},
    {"migrate.resume", cancel_params, 0, resume_move},
    {"migrate.guest-paused", cancel_params, 0, guest_paused},
    {"migrate.forget", forget_params, METHOD_ALONE | METHOD_DESTROYS, forget},
    {0}};
