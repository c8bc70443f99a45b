/*
 * When a volume that is copied under its clients' writes may be frozen.
 *
 *     the scan      all that is allocated is copied once
 *     rounds        what has changed meanwhile is copied, again and again: each round is shorter
 *                   than the one before, as long as the copy is faster than the changes
 *     mirroring     when rounds do not get shorter: what changes goes to both sides, and only what
 *                   was dirty before is left
 *
 * The clients may be made to wait when the copy of what is dirty takes no longer than the pause
 * that is wanted, at the rate of the last round, but no faster than RATE_SCATTERED. The rates of
 * the scan and of a large round say little, because they read and write long runs, and the rest is
 * scattered. The rate of a round is that of its steps: the time in which the job was paused or
 * waited for its limit does not count, nor that in which the copy rested for the clients' sake
 * (impact.c), because what is left is copied without them. What is being
 * mirrored is not left: it has ended when the clients are stopped. While a write of the mirror is
 * late they are not stopped, because nothing is copied until it has ended.
 *
 * A move may have to wait until somebody has stopped the clients (live_await_guest). Then it is
 * ready, and rounds follow what the clients write, until that one comes.
 *
 * Every way ends. Rounds that do not get shorter lead to mirroring, or are counted. A mirror that
 * stops because the target is too slow begins again, a few times. Then the move fails: the volume
 * cannot move at this rate.
 */
#include "base/verify.h"
#include "migrate/migrate_impl.h"

#include <inttypes.h>

enum {
    ROUNDS_MAX = 8,        /* before it is mirrored                       */
    ROUNDS_MIRRORED = 100, /* and after that                              */
    STOPS_MAX = 3,         /* of mirroring                                */
    CHECKS_MAX = 16,       /* before the freeze; what is left then is compared in the freeze */
};
/* No more is counted on for what is left: blocks that lie apart, 8192 a second. */
#define RATE_SCATTERED (UINT64_C(32) << 20)
/* Less than this says nothing about the rate. */
#define RATE_BYTES_MIN (UINT64_C(256) << 10)
#define SECOND_NS      UINT64_C(1000000000)
#define PAUSE_NS_MAX   1e18 /* of a prediction: 30 years */

static uint64_t live_bytes(const struct migrate *m)
{
    return m->status.copied_bytes + m->status.zero_bytes;
}

static uint64_t rate_of(uint64_t bytes, uint64_t ns)
{
    return max_u64((uint64_t)((double)bytes * 1e9 / (double)max_u64(ns, 1)), 1);
}

/* So many bytes were copied since, by the clock of the move. False: too few. */
static bool live_measure(struct migrate *m, uint64_t bytes, uint64_t since_ns)
{
    if (bytes < RATE_BYTES_MIN)
        return false;
    m->status.rate_bytes = rate_of(bytes, migrate_clock_ns(m) - since_ns);
    return true;
}

static bool live_may_freeze(struct migrate *m)
{
    struct migrate_status *s = &m->status;
    bool mirrors = s->mode != MIGRATE_MIRROR || m->copy.seen.mirrors;
    uint64_t rate = m->round_rate ? min_u64(m->round_rate, RATE_SCATTERED) : RATE_SCATTERED;
    double ns = (double)s->dirty_bytes * (double)SECOND_NS / (double)rate;
    s->pause_ns = ns < PAUSE_NS_MAX ? max_u64((uint64_t)ns, 1) : (uint64_t)PAUSE_NS_MAX;
    return mirrors && !m->copy.seen.late && !m->copy.seen.lost && s->pause_ns <= m->pause_ns;
}

/* What is not compared yet would not fit into the pause that is wanted. */
static bool live_must_check(const struct migrate *m)
{
    const struct migrate_status *s = &m->status;
    double ns = (double)m->copy.seen.unchecked_bytes * (double)SECOND_NS / (double)RATE_SCATTERED;
    return m->verifies && s->checks - m->checks_from < CHECKS_MAX &&
           ns + (double)s->pause_ns > (double)m->pause_ns;
}

/* How much is dirty, when it is the job's turn. When this returns the job is neither paused nor
 * ahead of its limit, unless it is in a hurry: then neither counts. */
static CO int live_look(struct migrate *m)
{
    int rc = 0;
    do {
        rc = migrate_await_turn(m);
        if (!rc)
            migrate_look(m);
        while (!rc && m->copy.seen.lost) {
            rc = migrate_renew(m);
            if (!rc)
                migrate_look(m);
        }
    } while (!rc && !m->job->hurry && !pool_job_may_go_on(m->job));
    return rc;
}

static CO int live_scan(struct migrate *m)
{
    uint64_t since_ns = migrate_clock_ns(m);
    int rc = 0;
    while (!rc && !copy_scan_is_done(&m->copy)) {
        rc = migrate_copy_step(m);
        live_measure(m, live_bytes(m), since_ns);
    }
    return rc ? rc : migrate_flush(m);
}

static CO int live_round(struct migrate *m)
{
    uint64_t since_ns = migrate_clock_ns(m), before = live_bytes(m), steps_ns = m->steps_ns;
    m->status.rounds++;
    pool_job_count(m->job, m->status.dirty_bytes);
    int rc = migrate_call(m, copy_round_begin, &m->copy);
    while (!rc && !copy_round_is_done(&m->copy))
        rc = migrate_copy_step(m);
    if (live_measure(m, live_bytes(m) - before, since_ns))
        m->round_rate = rate_of(live_bytes(m) - before, m->steps_ns - steps_ns);
    return rc ? rc : migrate_flush(m);
}

/* Those that count. */
static unsigned rounds_so_far(const struct migrate *m)
{
    return m->status.rounds - m->rounds_from;
}

/* Compares all that was not compared yet, once; `until_ns`: as far as the time is enough. */
static CO int live_check(struct migrate *m, uint64_t until_ns)
{
    pool_job_count(m->job, m->copy.seen.unchecked_bytes);
    int rc = migrate_call(m, copy_check_begin, &m->copy);
    while (!rc && !copy_round_is_done(&m->copy) && reactor_now_ns() < until_ns)
        rc = migrate_copy_step(m);
    copy_check_end(&m->copy);
    return rc;
}

/* While clients write. */
static CO int live_check_all(struct migrate *m)
{
    if (!m->verifies)
        return 0;
    m->status.checks++;
    return live_check(m, UINT64_MAX);
}

/* A mirror does not begin when too much is going on. After a while, and another round, it is tried
 * again. */
static CO int live_mirror(struct migrate *m)
{
    struct mirror *mirror = m->mirror ? m->mirror : mirror_new(&m->copy, m->mirror_ns);
    if (!mirror)
        return migrate_fail(m, VP_E_NO_MEMORY, "out of memory for mirroring");
    m->mirror = mirror;
    int rc = reactor_call(volume_reactor(m->source), mirror_start, mirror);
    if (rc && rounds_so_far(m) > ROUNDS_MAX + ROUNDS_MIRRORED)
        return migrate_fail(m, rc, "too much is going on here to mirror %s: try again later",
                            m->status.from);
    if (rc)
        migrate_rest(m, UINT64_MAX);
    else
        migrate_phase_move(m, MIGRATE_MIRRORING);
    return 0;
}

static int live_never(struct migrate *m, const char *why)
{
    return migrate_fail(m, VP_E_TIMED_OUT,
                        "never at this rate: clients of %s change it faster than %s takes it (%s): "
                        "let them write less, allow a longer pause, or use --mode offline",
                        m->status.from, m->status.to, why);
}

/* What the next round begins with. `before`: what was dirty before the last one. */
static CO int live_choose(struct migrate *m, uint64_t before)
{
    const struct migrate_status *s = &m->status;
    if (s->phase == MIGRATE_MIRRORING) {
        if (rounds_so_far(m) > ROUNDS_MAX + ROUNDS_MIRRORED)
            return live_never(m, "what is dirty does not get less");
        if (m->copy.seen.mirrors)
            return 0;
        if (m->copy.seen.stops - m->stops_from > STOPS_MAX + s->breaks)
            return live_never(m, "it does not write in time what is mirrored");
        return migrate_call(m, mirror_again, m->mirror);
    }
    bool shrinks = s->dirty_bytes / 3 < before / 4;
    return s->mode == MIGRATE_MIRROR || !shrinks || rounds_so_far(m) >= ROUNDS_MAX ? live_mirror(m)
                                                                                   : 0;
}

CO int live_begin(struct migrate *m)
{
    m->copy.checks = m->verifies;
    int rc = reactor_call(volume_reactor(m->source), copy_track, &m->copy);
    if (rc)
        return migrate_fail(m, rc, "changes of %s cannot be tracked: %s", m->status.from,
                            vp_err_text(rc));
    rc = live_scan(m);
    return rc ? rc : live_check_all(m);
}

CO int live_rounds(struct migrate *m)
{
    int rc = 0;
    for (uint64_t before = UINT64_MAX; !rc;) {
        rc = live_look(m);
        bool may_freeze = !rc && live_may_freeze(m);
        if (may_freeze && live_must_check(m)) {
            rc = live_check_all(m);
            before = UINT64_MAX; /* it is no fault of the rounds when more is dirty now */
            continue;
        }
        if (rc || may_freeze)
            break;
        uint64_t dirty = m->status.dirty_bytes;
        rc = live_choose(m, before);
        before = dirty;
        rc = rc ? rc : live_round(m);
    }
    return rc;
}

static bool guest_is_due(struct migrate *m)
{
    return !m->guest_paused && !m->cancelled;
}

/* Clients could be stopped, and somebody else stops them. */
CO int live_await_guest(struct migrate *m)
{
    uint64_t deadline_ns = migrate_clock_ns(m) + m->guest_ns;
    int rc = 0;
    if (!m->guest_ns)
        return 0;
    m->status.ready = true;
    if (m->ready)
        m->ready(m->ready_arg);
    while (!rc && guest_is_due(m)) {
        if (migrate_clock_ns(m) >= deadline_ns)
            rc = migrate_fail(m, VP_E_TIMED_OUT,
                              "it was ready, and within %" PRIu64
                              " s nobody said that the guest is paused",
                              m->guest_ns / SECOND_NS);
        else
            migrate_rest(m, deadline_ns + m->paused_ns);
        m->rounds_from = m->status.rounds;
        m->stops_from = m->copy.seen.stops;
        m->checks_from = m->status.checks;
        if (!rc && guest_is_due(m))
            rc = live_rounds(m);
    }
    m->status.ready = false;
    return rc ? rc : migrate_await_turn(m);
}

CO int live_drain(struct migrate *m)
{
    int rc = 0;
    while (!rc && !copy_scan_is_done(&m->copy))
        rc = migrate_copy_step(m);
    if (!rc && m->copy.tracked) {
        rc = migrate_call(m, copy_round_begin, &m->copy);
        while (!rc && !copy_round_is_done(&m->copy))
            rc = migrate_copy_step(m);
    }
    rc = rc ? rc : migrate_flush(m);
    return rc || !m->verifies ? rc : live_check(m, m->frozen_at_ns + m->pause_ns);
}

CO void live_end(struct migrate *m)
{
    struct reactor *on = m->source ? volume_reactor(m->source) : NULL;
    deadline_end(m);
    impact_end(m);
    if (m->mirror && m->mirror->slot_count)
        vp_ignore(migrate_call(m, mirror_end, m->mirror), "its workers report nothing");
    if (m->copy.tracked)
        vp_ignore(reactor_call(on, copy_untrack, &m->copy), "it does not fail");
    m->copy.mirror = NULL;
    mirror_free(m->mirror);
    m->mirror = NULL;
    copy_fini(&m->copy);
}
