/*
 * What an operator does to a move that goes on: it is paused, and resumed. And by when it has to
 * end.
 *
 * The job of the move (pool/job.h) has the pause. Whoever takes a step of the copy waits for the
 * job's turn first (migrate_await_turn), so a pause begins when the step under way has ended. What
 * clients change meanwhile is dirty, or is mirrored as before. Nobody waits for a move that is
 * paused. From the intent on clients wait for the copy, or will in a moment: then the job is in a
 * hurry, and is not paused.
 *
 * The time of a pause is no time of the move: rates and the wait for a guest are measured without
 * it (migrate_clock_ns).
 *
 * At the deadline of a move a coroutine beside it does what a cancel does, and the error says why.
 * So a move ends at its deadline whatever it waits for, also in a pause. Once the switch has begun
 * the deadline does nothing, as a cancel does nothing.
 */
#include "base/bytes.h"
#include "io/reactor.h"
#include "migrate/migrate_impl.h"

/* The other daemon is looked for so often while nothing is copied. */
#define PAUSED_PROBE_NS UINT64_C(5000000000)

/* ---- pause and resume ------------------------------------------------------------------------ */

static int pause_check(const struct migrate *m, struct vp_error *err)
{
    const struct migrate_status *s = &m->status;
    if (s->phase >= MIGRATE_SWITCHING)
        return vp_fail(err, VP_E_BUSY,
                       "the migration of %s to %s is %s: it is neither paused nor resumed", s->from,
                       s->to, migrate_phase_name(s->phase));
    if (s->mode == MIGRATE_OFFLINE)
        return vp_fail(err, VP_E_NOT_SUPPORTED,
                       "clients of %s wait while it is copied to %s: it is not paused, but it can "
                       "be cancelled",
                       s->from, s->to);
    if (m->job->hurry)
        return vp_fail(err, VP_E_BUSY,
                       "the switch of %s to %s has begun, and its clients wait for it, or will in "
                       "a moment: it is not paused, but it can be cancelled",
                       s->from, s->to);
    return 0;
}

CO int migrate_pause(struct migrate *m, struct vp_error *err)
{
    int rc = pause_check(m, err);
    return rc ? rc : pool_job_pause(volumes_pool(m->from_vs), m->status.job, err);
}

CO int migrate_resume(struct migrate *m, struct vp_error *err)
{
    int rc = pause_check(m, err);
    return rc ? rc : pool_job_resume(volumes_pool(m->from_vs), m->status.job, err);
}

bool migrate_is_paused(const struct migrate *m)
{
    return m->status.phase < MIGRATE_FREEZING && m->job && !m->job->hurry &&
           m->job->state == POOL_JOB_PAUSED;
}

uint64_t migrate_clock_ns(const struct migrate *m)
{
    return reactor_now_ns() - m->paused_ns;
}

/* One look while it is paused. The target is flushed from time to time: so a connection that is
 * lost is noticed and made again, as while it copies. */
static CO int pause_look(struct migrate *m)
{
    uint64_t now_ns = reactor_now_ns();
    migrate_look(m);
    if (!m->copy.tracked || now_ns < m->pause_probe_ns)
        return 0;
    m->pause_probe_ns = now_ns + PAUSED_PROBE_NS;
    return migrate_flush(m);
}

CO int migrate_await_job(struct migrate *m)
{
    int rc = 0;
    m->pause_probe_ns = reactor_now_ns() + PAUSED_PROBE_NS;
    while (!rc && !m->cancelled && !m->job->hurry && !pool_job_may_go_on(m->job)) {
        bool paused = m->job->state == POOL_JOB_PAUSED;
        uint64_t since_ns = reactor_now_ns();
        migrate_rest(m, paused ? UINT64_MAX : m->job->due_ns);
        if (paused && !m->cancelled)
            rc = pause_look(m);
        if (paused)
            m->paused_ns += reactor_now_ns() - since_ns;
    }
    return rc;
}

/* ---- the deadline ---------------------------------------------------------------------------- */

/* That were never copied, or have changed since. */
static uint64_t left_bytes(const struct migrate_status *s)
{
    uint64_t once = s->copied_bytes + s->zero_bytes - s->again_bytes;
    return (s->total_bytes > once ? s->total_bytes - once : 0) + s->dirty_bytes;
}

/* Where rounds alone do not come to an end it is mirrored: then all is copied once. What is to be
 * compared is read once more. */
bool migrate_is_late(const struct migrate *m)
{
    const struct migrate_status *s = &m->status;
    uint64_t now_ns = reactor_now_ns();
    if (!m->deadline_ns || s->phase >= MIGRATE_FREEZING || !s->outlook.known || !s->rate_bytes)
        return false;
    double left = (double)left_bytes(s), rate = (double)s->rate_bytes;
    double checks = m->verifies ? left + (double)s->unchecked_bytes : 0;
    double ns = s->outlook.never ? (left + checks) * 1e9 / rate : (double)s->outlook.ns;
    return ns > (double)(m->deadline_ns - min_u64(now_ns, m->deadline_ns));
}

int migrate_fail_cancelled(struct migrate *m)
{
    char left[24];
    const struct migrate_status *s = &m->status;
    if (!m->expired)
        return migrate_fail(m, VP_E_CANCELLED, "it was cancelled");
    return migrate_fail(m, VP_E_TIMED_OUT, "its deadline has passed with %s left to copy",
                        bytes_format_size(left_bytes(s), left, sizeof(left)));
}

void migrate_break(struct migrate *m)
{
    m->cancelled = true;
    migrate_cut(m);
    co_queue_wake_all(&m->turn);
    co_queue_wake_all(&m->hold);
}

static CO void deadline_work(void *arg)
{
    struct migrate *m = arg;
    while (!m->due_over && reactor_now_ns() < m->deadline_ns)
        vp_ignore(co_queue_wait_until(&m->due_wait, m->deadline_ns, "the deadline of a migration"),
                  "it looks again");
    if (!m->due_over && !m->cancelled && m->status.phase < MIGRATE_SWITCHING) {
        m->expired = true;
        migrate_break(m);
    }
    co_group_leave(&m->due, 0);
}

int deadline_begin(struct migrate *m, struct vp_error *err)
{
    if (!m->deadline_ns)
        return 0;
    co_group_init(&m->due);
    co_group_enter(&m->due);
    int rc = co_spawn(deadline_work, m, "deadline of a migration");
    m->due_begun = !rc;
    if (!rc)
        return 0;
    co_group_leave(&m->due, 0);
    return vp_fail(err, rc, "too much is going on: try again");
}

CO void deadline_end(struct migrate *m)
{
    if (!m->due_begun)
        return;
    m->due_over = true;
    co_queue_wake_all(&m->due_wait);
    vp_ignore(co_group_wait(&m->due), "it reports nothing");
    m->due_begun = false;
}
