/*
 * A volume moves to another pool (migrate.h). What the other side does, a pool of this daemon or of
 * another one, is behind peer.h.
 *
 *     1. The other side makes a TARGET as the source is, and opens it. From now on nobody resizes,
 *        renames or deletes the source.
 *     2. Live: its data are copied while its clients write (live.c).
 *     3. The source's record says INTENT, durably.
 *     4. The source is frozen: its clients wait at the gate. What is left (offline: all) is copied,
 *        and the target is flushed.
 *     5. The target's record says ARRIVED. Now the target is the volume. In this daemon the records
 *        of the exports are in the same commit.
 *     6. In this daemon the fronts are exchanged, and the gate opens: clients are served by the
 *        target. To another daemon clients go by themselves.
 *     7. The source is deleted, with the records of its exports, in one commit. The target's record
 *        says OWNER.
 *
 * Before 5 every error, and a cancel, ends in undo: the gate opens, the target is deleted, and the
 * source's record says OWNER. Clients have waited, and see no error. When nobody says what became
 * of 5 the volume is in doubt: its exports end, and who can tell decides later. An error of 7 is
 * left for later, too (5 to 7: ends.c).
 *
 * Another daemon may not be reached for a while. Before the freeze clients do not notice, and the
 * copy goes on once it is reached again. In the freeze clients go on, and are stopped again later.
 *
 * A move holds no lock while it copies. volumes/ refuses to change, delete or move a volume that is
 * about to leave, or is a TARGET. Only home runs this file, except for the steps of the copy, the
 * freeze, and the exchange, which run on the reactor of the source.
 */
#include "migrate/migrate_impl.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/verify.h"
#include "io/guard.h"
#include "volumes/front.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS_WAIT                                                                               \
    "the volume's clients wait for it, or will in a moment: it is neither paused nor limited, "    \
    "but it can be cancelled"
#define TURN_NS   UINT64_C(50000000) /* a move that is paused or limited looks again after this */
#define FREEZE_MS 10000U
#define PAUSE_MS  20U
#define HOLD_MS   5000U
#define MIRROR_MS 1000U
#define LOST_MS   30000U
#define ANSWER_MS 30000U
#define BREAKS_MAX                                                                                 \
    100U /* of the way to another daemon: one that breaks again and again is no way */
#define WAITS_NS  UINT64_C(10000000000) /* for disks: a step of the copy is far shorter */
#define RENEW_NS  UINT64_C(300000000)   /* between two attempts to reach the other daemon */
#define IMPACT_PC 200U                  /* percent */
#define MS_NS     UINT64_C(1000000)

/* ---- states ------------------------------------------------------------------------------- */

#define TO(phase) (1U << (phase))

static const unsigned phase_moves[] = {
    [MIGRATE_PREPARING] = TO(MIGRATE_COPYING) | TO(MIGRATE_FREEZING) | TO(MIGRATE_UNDOING),
    [MIGRATE_COPYING] = TO(MIGRATE_MIRRORING) | TO(MIGRATE_FREEZING) | TO(MIGRATE_UNDOING),
    [MIGRATE_MIRRORING] = TO(MIGRATE_FREEZING) | TO(MIGRATE_UNDOING),
    [MIGRATE_FREEZING] =
        TO(MIGRATE_DRAINING) | TO(MIGRATE_COPYING) | TO(MIGRATE_MIRRORING) | TO(MIGRATE_UNDOING),
    [MIGRATE_DRAINING] =
        TO(MIGRATE_SWITCHING) | TO(MIGRATE_COPYING) | TO(MIGRATE_MIRRORING) | TO(MIGRATE_UNDOING),
    [MIGRATE_SWITCHING] = TO(MIGRATE_LEAVING) | TO(MIGRATE_UNDOING) | TO(MIGRATE_IN_DOUBT),
    [MIGRATE_LEAVING] = TO(MIGRATE_DONE),
    [MIGRATE_UNDOING] = TO(MIGRATE_FAILED) | TO(MIGRATE_CANCELLED),
    [MIGRATE_DONE] = 0,
    [MIGRATE_FAILED] = 0,
    [MIGRATE_CANCELLED] = 0,
    [MIGRATE_IN_DOUBT] = 0,
};

void migrate_phase_move(struct migrate *m, enum migrate_phase to)
{
    VP_VERIFY_TRUE(phase_moves[m->status.phase] & TO(to));
    m->status.phase = to;
    vp_debug("migration of %s to %s: %s", m->status.from, m->status.to, migrate_phase_name(to));
}

bool migrate_has_ended(const struct migrate *m)
{
    return phase_moves[m->status.phase] == 0;
}

int migrate_fail(struct migrate *m, int rc, const char *fmt, ...)
{
    va_list args;
    if (m->status.rc)
        return rc;
    m->status.rc = rc;
    va_start(args, fmt);
    (void)vsnprintf(m->status.error, sizeof(m->status.error), fmt, args);
    va_end(args);
    bytes_make_printable(m->status.error); /* it may have been cut inside a character */
    return rc;
}

/* ---- waiting for disks -------------------------------------------------------------------- */

void migrate_wait_begin(struct migrate *m)
{
    VP_VERIFY(m->waits_since_ns, ==, 0U);
    m->waits_since_ns = reactor_now_ns();
}

void migrate_wait_end(struct migrate *m)
{
    m->waits_since_ns = 0;
}

uint64_t migrate_waits_ns(const struct migrate *m)
{
    uint64_t ns = m->waits_since_ns ? reactor_now_ns() - m->waits_since_ns : 0;
    return ns < WAITS_NS ? 0 : ns;
}

CO int migrate_call(struct migrate *m, int (*fn)(void *arg), void *arg)
{
    migrate_wait_begin(m);
    int rc = reactor_call_for_client(volume_reactor(m->source), fn, arg);
    migrate_wait_end(m);
    return rc;
}

/* ---- preparing ---------------------------------------------------------------------------- */

/* The other side. */
static void move_peer(struct migrate *m, const struct migrate_options *o)
{
    struct migrate_status *s = &m->status;
    if (o->peer) {
        m->peer = *o->peer;
        (void)snprintf(s->to, sizeof(s->to), "%s", o->to_name);
        (void)snprintf(s->peer, sizeof(s->peer), "%s", o->peer_name);
        memcpy(m->there.peer, s->peer, sizeof(s->peer));
        return;
    }
    (void)snprintf(m->name, sizeof(m->name), "%s", o->name);
    (void)snprintf(s->to, sizeof(s->to), "%s/%s", pool_name(volumes_pool(o->to)), m->name);
    m->local = (struct peer_local){.vs = o->to, .name = m->name, .exports = &m->exports};
    m->peer = (struct migrate_peer){&peer_local_ops, &m->local};
    m->there.pool = pool_uuid(volumes_pool(o->to));
}

static struct migrate *move_new(const struct migrate_options *o)
{
    static const struct migrate_exports none;
    struct migrate *m = calloc(1, sizeof(*m));
    const struct pool *from = volumes_pool(o->from);
    uint8_t random[16];
    if (!m)
        return NULL;
    reactor_random(random, sizeof(random));
    m->from_vs = o->from;
    m->exports = o->exports ? *o->exports : none;
    m->freeze_ns = (o->freeze_ms ? o->freeze_ms : FREEZE_MS) * MS_NS;
    m->limit_bytes = o->limit_bytes;
    m->impact_percent = o->impact_percent == MIGRATE_IMPACT_ANY ? 0
                        : o->impact_percent                     ? o->impact_percent
                                                                : IMPACT_PC;
    m->verifies = o->verify && o->mode != MIGRATE_OFFLINE;
    m->hold_ns = (o->hold_ms ? o->hold_ms : HOLD_MS) * MS_NS;
    m->pause_ns = (o->pause_ms ? o->pause_ms : PAUSE_MS) * MS_NS;
    m->mirror_ns = (o->mirror_ms ? o->mirror_ms : MIRROR_MS) * MS_NS;
    m->lost_ns = (o->lost_ms ? o->lost_ms : LOST_MS) * MS_NS;
    m->answer_ns = (o->answer_ms ? o->answer_ms : ANSWER_MS) * MS_NS;
    m->guest_ns = o->guest_ms * MS_NS;
    m->deadline_ns = o->deadline_ms ? reactor_now_ns() + o->deadline_ms * MS_NS : 0;
    m->ready = o->ready;
    m->ready_arg = o->ready_arg;
    (void)snprintf(m->volume, sizeof(m->volume), "%s", o->volume);
    struct migrate_status *s = &m->status;
    s->id = vp_uuid_from_random(random);
    s->mode = o->mode;
    s->verify = m->verifies;
    s->phase = MIGRATE_PREPARING;
    s->started = reactor_wall_seconds();
    s->deadline = o->deadline_ms ? s->started + div_up(o->deadline_ms, 1000) : 0;
    (void)snprintf(s->from, sizeof(s->from), "%s/%s", pool_name(from), m->volume);
    move_peer(m, o);
    m->there.id = m->here.id = s->id;
    m->here.pool = pool_uuid(from);
    memcpy(m->there.volume, s->to, sizeof(s->to));
    memcpy(m->here.volume, s->from, sizeof(s->from));
    co_queue_init(&m->ended);
    co_queue_init(&m->turn);
    co_queue_init(&m->hold);
    co_queue_init(&m->due_wait);
    return m;
}

/* The source's job. From now on nobody changes the source. */
static CO int source_take(struct migrate *m, struct vp_error *err)
{
    struct volume_info info;
    int rc = volume_info_get(m->from_vs, m->volume, &info);
    if (rc)
        return vp_fail(err, rc, "no volume %s", m->status.from);
    m->volume_id = info.id;
    m->job = pool_job_take(volumes_pool(m->from_vs), POOL_JOB_MIGRATE, m->volume_id, m->volume);
    if (!m->job)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    if (m->status.mode == MIGRATE_OFFLINE)
        m->job->hurry = CLIENTS_WAIT;
    else
        m->job->limit = m->limit_bytes;
    m->status.job = m->job->id;
    rc = volume_leave_begin(m->source, m->volume, &m->there, err);
    m->leaving = !rc;
    return rc;
}

static CO int target_make(struct migrate *m, struct vp_error *err)
{
    struct volume_info info;
    struct volume_owner_info owner;
    int rc = volume_info_get(m->from_vs, m->volume, &info);
    if (!rc)
        rc = volume_owner_get(m->from_vs, m->volume, &owner);
    if (rc)
        return vp_fail(err, rc, "no volume %s", m->status.from);
    m->status.total_bytes = info.valid_bytes;
    pool_job_count(m->job, m->status.total_bytes);
    const struct migrate_offer offer = {.source = m->here, .epoch = owner.epoch, .info = &info};
    rc = m->peer.ops->make(m->peer.arg, &offer, volume_reactor(m->source), &m->there.pool, err);
    m->made = !rc;
    return rc;
}

static CO int move_prepare(struct migrate *m, struct vp_error *err)
{
    int rc = volume_open_to_move(m->from_vs, m->volume, NULL, &m->source, err);
    if (!rc)
        rc = source_take(m, err);
    if (!rc)
        rc = target_make(m, err);
    if (!rc && m->local.target && m->exports.prepare) {
        rc = m->exports.prepare(m->exports.arg, m->source, m->local.target, err);
        m->held = !rc;
    }
    return rc;
}

/* ---- freeze and copy ---------------------------------------------------------------------- */

struct freeze_call {
    struct front *front;
    uint64_t wait_ns;
    struct front_late late;
};

static CO int freeze_on_reactor(void *arg)
{
    struct freeze_call *c = arg;
    return front_freeze(c->front, reactor_now_ns() + c->wait_ns, &c->late);
}

static int thaw_on_reactor(void *front)
{
    front_thaw(front);
    return 0;
}

/* Clients go on, after they were stopped or could not be. */
static void freeze_count(struct migrate *m)
{
    struct migrate_status *s = &m->status;
    m->frozen = false;
    s->freezes++;
    s->frozen_ns = reactor_now_ns() - m->frozen_at_ns;
    s->frozen_all_ns += s->frozen_ns;
    s->frozen_longest_ns = max_u64(s->frozen_longest_ns, s->frozen_ns);
}

CO void migrate_thaw(struct migrate *m, struct volume *v)
{
    vp_ignore(reactor_call(volume_reactor(v), thaw_on_reactor, volume_front(v)), "it cannot fail");
    freeze_count(m);
}

CO int migrate_freeze(struct migrate *m)
{
    struct freeze_call c = {.front = volume_front(m->source), .wait_ns = m->freeze_ns};
    m->frozen_at_ns = reactor_now_ns();
    int rc = reactor_call_for_client(volume_reactor(m->source), freeze_on_reactor, &c);
    m->frozen = !rc;
    if (!rc)
        return 0;
    freeze_count(m);
    return migrate_fail(m, rc, "clients of %s could not be stopped: %s%s%s", m->status.from,
                        vp_err_text(rc), c.late.count ? ", in flight: " : "", c.late.text);
}

void migrate_cut(struct migrate *m)
{
    if (m->peer.ops->cut)
        m->peer.ops->cut(m->peer.arg);
}

/* Errors of peer.renew that may pass. */
static bool renew_may_pass(int rc)
{
    return rc == VP_E_PEER_LOST || rc == VP_E_AGAIN || rc == VP_E_TIMED_OUT ||
           rc == VP_E_NO_MEMORY || rc == VP_E_SYSTEM || rc == VP_E_IO_TOO_MANY_COROUTINES;
}

CO int migrate_renew(struct migrate *m)
{
    uint64_t now_ns = reactor_now_ns(), deadline_ns = now_ns + m->lost_ns;
    int rc = VP_E_PEER_LOST;
    if (++m->status.breaks > BREAKS_MAX)
        return migrate_fail(m, VP_E_PEER_LOST, "%s: the connection has been lost %u times",
                            m->status.peer, BREAKS_MAX);
    vp_info("migration of %s to %s: %s is not reached any more", m->status.from, m->status.to,
            m->status.peer);
    while (rc && !m->cancelled) {
        struct vp_error err = {0};
        rc = m->peer.ops->renew(m->peer.arg, &err);
        now_ns = reactor_now_ns();
        if (rc && (!renew_may_pass(rc) || now_ns >= deadline_ns))
            return migrate_fail(m, rc, "%s: %s", m->status.peer,
                                err.text[0] ? err.text : vp_err_text(rc));
        if (rc)
            vp_ignore(co_queue_wait_until(&m->turn, now_ns + RENEW_NS, "another daemon"),
                      "it is tried again");
    }
    if (m->cancelled)
        return migrate_fail_cancelled(m);
    return migrate_call(m, copy_found, &m->copy);
}

/* From now on, until the end is known, both pools are asked who owns the volume. */
static CO int move_intend(struct migrate *m)
{
    struct vp_error err = {0};
    if (!io_guard_on(GUARD_MOVE_INTENT_FIRST))
        return 0;
    int rc = volume_intent_begin(m->source, &err);
    m->intended = !rc;
    return rc ? migrate_fail(m, rc, "%s", err.text) : 0;
}

uint64_t migrate_done_bytes(const struct migrate *m)
{
    return m->status.copied_bytes + m->status.zero_bytes + m->status.checked_bytes;
}

static void copy_tell(struct migrate *m)
{
    const struct copy *c = &m->copy;
    struct migrate_status *s = &m->status;
    uint64_t before = migrate_done_bytes(m);
    s->checked_bytes = c->checked_bytes;
    s->unchecked_bytes = c->seen.unchecked_bytes;
    s->copied_bytes = c->copied_bytes;
    s->zero_bytes = c->zero_bytes;
    s->again_bytes = c->again_bytes;
    s->dirty_bytes = c->seen.dirty_bytes;
    s->mirrored_bytes = c->seen.mirrored_bytes;
    pool_job_advance(m->job, migrate_done_bytes(m) - before, 0);
}

CO void migrate_look(struct migrate *m)
{
    vp_ignore(reactor_call(volume_reactor(m->source), copy_look, &m->copy), "it does not fail");
    copy_tell(m);
}

CO void migrate_rest(struct migrate *m, uint64_t until_ns)
{
    until_ns = min_u64(until_ns, reactor_now_ns() + TURN_NS);
    vp_ignore(co_queue_wait_until(&m->turn, until_ns, "the turn of a migration"), "it looks again");
}

/* Its job may be paused or limited while clients do not wait for it. */
CO int migrate_await_turn(struct migrate *m)
{
    int rc = migrate_await_job(m);
    if (rc && !m->cancelled)
        return rc;
    if (m->overdue)
        return migrate_fail(m, VP_E_TIMED_OUT,
                            "%s has not taken what was left within the %" PRIu64
                            " ms for which clients of %s may wait: look at the disks of its pool",
                            m->status.to, m->hold_ns / MS_NS, m->status.from);
    return m->cancelled ? migrate_fail_cancelled(m) : 0;
}

/* A limited copy goes in small steps, so that its reads and writes are spread over time. */
#define STEPS_A_SECOND 20U
/* Whoever compares while clients wait looks at the time after each step. */
#define CHECK_FROZEN_BYTES (UINT64_C(256) << 10)

/* The way to the target was cut because the move is to end. */
static bool is_cut(const struct migrate *m, int rc)
{
    return rc == VP_E_PEER_LOST && m->cancelled;
}

static int step_fail(struct migrate *m, int rc)
{
    static const char *const acts[] = {
        [COPY_READS] = "reading", [COPY_WRITES] = "writing", [COPY_READS_BACK] = "reading back"};
    const struct copy *c = &m->copy;
    if (is_cut(m, rc))
        return migrate_fail_cancelled(m);
    if (rc == VP_E_COPY_DIFFERS)
        return migrate_fail(m, rc,
                            "%s differs from %s in the 4 KiB at byte %" PRIu64
                            ", which it does not have as they were written to it: look at the "
                            "disks of its pool",
                            m->status.to, m->status.from, c->failed_at);
    const char *of = c->failed_act == COPY_READS ? m->status.from : m->status.to;
    return migrate_fail(m, rc, "%s %s at byte %" PRIu64 ": %s", acts[c->failed_act], of,
                        c->failed_at, vp_err_text(rc));
}

CO int migrate_copy_step(struct migrate *m)
{
    int rc = migrate_await_turn(m);
    if (rc)
        return rc;
    m->copy.step_bytes = min_u64(
        m->job->hurry ? UINT64_MAX : pool_job_step_units(m->job) / STEPS_A_SECOND, impact_pace(m));
    if (m->frozen && m->copy.checking)
        m->copy.step_bytes = min_u64(m->copy.step_bytes, CHECK_FROZEN_BYTES);
    uint64_t since_ns = reactor_now_ns();
    rc = migrate_call(m, copy_step, &m->copy);
    uint64_t step_ns = reactor_now_ns() - since_ns;
    m->steps_ns += step_ns - min_u64(m->copy.rested_ns / m->copy.worker_count, step_ns);
    copy_tell(m);
    if (rc == VP_E_PEER_LOST && m->copy.tracked)
        return m->status.phase == MIGRATE_DRAINING ? rc : migrate_renew(m);
    if (!rc) {
        impact_look(m, step_ns);
        return 0;
    }
    return step_fail(m, rc);
}

CO int migrate_flush(struct migrate *m)
{
    if (!io_guard_on(GUARD_MOVE_ARRIVES_LAST))
        return 0;
    int rc = migrate_call(m, copy_flush, &m->copy);
    copy_tell(m);
    while (rc == VP_E_PEER_LOST && m->copy.tracked) {
        int found = m->status.phase == MIGRATE_DRAINING ? rc : migrate_renew(m);
        if (found)
            return found;
        rc = migrate_call(m, copy_flush, &m->copy);
    }
    if (is_cut(m, rc))
        return migrate_fail_cancelled(m);
    return rc ? migrate_fail(m, rc, "flushing %s: %s", m->status.to, vp_err_text(rc)) : 0;
}

/* ---- all of it ---------------------------------------------------------------------------- */

/* While the intent is committed clients go on to write, and may write more than the pause allows:
 * then another round follows. */
static CO int move_copy_live(struct migrate *m)
{
    impact_begin(m);
    migrate_phase_move(m, MIGRATE_COPYING);
    int rc = live_begin(m);
    if (!rc)
        rc = live_rounds(m);
    if (!rc)
        rc = live_await_guest(m);
    m->job->hurry = CLIENTS_WAIT;
    if (!rc)
        rc = move_intend(m);
    return rc ? rc : live_rounds(m);
}

/* Whoever attaches or detaches a frozen volume would wait for it. */
static CO int move_hold_exports(struct migrate *m)
{
    struct vp_error err = {0};
    if (m->held || !m->status.peer[0] || !m->exports.hold)
        return 0;
    int rc = m->exports.hold(m->exports.arg, &err);
    m->held = !rc;
    return rc ? migrate_fail(m, rc, "%s", err.text) : 0;
}

/* Of a live move: another round follows, and then clients are stopped again. */
static CO void clients_go_on(struct migrate *m)
{
    migrate_thaw(m, m->source);
    bool mirrors = m->mirror && m->mirror->slot_count;
    migrate_phase_move(m, mirrors ? MIGRATE_MIRRORING : MIGRATE_COPYING);
}

/* Nothing is copied while a write of the mirror is late or the target is not reached, and clients
 * would wait for it. So they go on, and are stopped later. Each time the mirror has stopped once
 * more, which live_rounds counts, or the target was lost, which migrate_renew bounds in time. */
static CO int move_stop_clients(struct migrate *m)
{
    int held = move_hold_exports(m);
    if (held)
        return held;
    for (;;) {
        migrate_phase_move(m, MIGRATE_FREEZING);
        int rc = m->cancelled ? migrate_fail_cancelled(m) : migrate_freeze(m);
        if (rc)
            return rc;
        migrate_look(m);
        if (!m->copy.seen.late && !m->copy.seen.lost)
            return 0;
        clients_go_on(m);
        rc = live_rounds(m);
        if (rc)
            return rc;
    }
}

/* What is left is copied, while the clients wait. */
static CO int move_drain(struct migrate *m)
{
    migrate_phase_move(m, MIGRATE_DRAINING);
    int rc = watch_begin(m);
    if (!rc)
        rc = live_drain(m);
    watch_end(m);
    int over = m->status.rc ? 0 : migrate_await_turn(m);
    return over ? over : rc;
}

/* The target was not reached any more while clients waited: they go on until it is. */
static CO int move_resume(struct migrate *m)
{
    clients_go_on(m);
    int rc = migrate_renew(m);
    return rc ? rc : live_rounds(m);
}

static CO int move_copy(struct migrate *m)
{
    copy_init(&m->copy, m->source, &m->peer);
    int rc = m->status.mode == MIGRATE_OFFLINE ? move_intend(m) : move_copy_live(m);
    if (rc)
        return rc;
    for (;;) {
        rc = move_stop_clients(m);
        if (!rc)
            rc = move_drain(m);
        if (rc != VP_E_PEER_LOST || m->status.rc)
            return rc;
        rc = move_resume(m);
        if (rc)
            return rc;
    }
}

static CO void move_run(void *arg)
{
    struct migrate *m = arg;
    if (move_copy(m))
        migrate_undo(m);
    else
        migrate_switch(m);
}

static CO int start_refuse(const struct migrate_options *o, int rc)
{
    if (o->peer && o->peer->ops->close)
        o->peer->ops->close(o->peer->arg);
    return rc;
}

CO int migrate_start(const struct migrate_options *o, struct migrate **out, struct vp_error *err)
{
    struct migrate_plan plan;
    int rc = migrate_plan(o, &plan, err);
    if (rc)
        return start_refuse(o, rc);
    struct migrate *m = move_new(o);
    if (!m)
        return start_refuse(o, vp_fail(err, VP_E_NO_MEMORY, "out of memory"));
    rc = move_prepare(m, err);
    if (!rc)
        rc = deadline_begin(m, err);
    if (!rc && co_spawn(move_run, m, "migration"))
        rc = vp_fail(err, VP_E_IO_TOO_MANY_COROUTINES, "too much is going on: try again");
    if (rc) {
        vp_ignore(migrate_fail(m, rc, "%s", err->text), "it is returned");
        migrate_undo(m);
        free(m);
        return rc;
    }
    *out = m;
    return 0;
}

const struct migrate_status *migrate_status(const struct migrate *m)
{
    return &m->status;
}

int migrate_guest_paused(struct migrate *m, struct vp_error *err)
{
    const struct migrate_status *s = &m->status;
    if (!m->guest_ns || s->phase >= MIGRATE_UNDOING)
        return vp_fail(err, VP_E_INVALID, "the migration of %s to %s does not wait for a guest",
                       s->from, s->to);
    if (m->guest_paused)
        return 0;
    if (!s->ready)
        return vp_fail(err, VP_E_BUSY,
                       "the migration of %s to %s is not ready: a guest that is paused now would "
                       "stay so for long; the event 'migration.ready' says when it is",
                       s->from, s->to);
    m->guest_paused = true;
    m->job->hurry = CLIENTS_WAIT;
    co_queue_wake_all(&m->turn);
    return 0;
}

int migrate_cancel(struct migrate *m, struct vp_error *err)
{
    if (m->status.phase >= MIGRATE_SWITCHING)
        return vp_fail(err, VP_E_BUSY, "the migration of %s to %s is %s: it cannot be cancelled",
                       m->status.from, m->status.to, migrate_phase_name(m->status.phase));
    migrate_break(m);
    return 0;
}

void migrate_stop(struct migrate *m)
{
    struct vp_error err;
    m->stopping = true;
    co_queue_wake_all(&m->hold);
    vp_ignore(migrate_cancel(m, &err), "one that is past the point ends by itself");
}

CO void migrate_wait(struct migrate *m)
{
    while (!migrate_has_ended(m))
        co_queue_wait(&m->ended, "the end of a migration");
}

void migrate_free(struct migrate *m)
{
    VP_VERIFY_TRUE(!m || migrate_has_ended(m));
    free(m);
}
