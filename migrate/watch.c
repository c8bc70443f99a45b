/*
 * How long clients wait at a closed gate for the rest of the copy.
 *
 * The copy of the rest waits for the disks of the target, and nothing of the target's may reach a
 * client before the switch. So a coroutine beside the copy looks at the time. When that is over, or
 * the move is cancelled, it opens the gate of the source: clients go on there, what they change is
 * dirty, and the copy ends when it comes back from the target. An offline move has no such time:
 * there clients wait for as long as the copy takes.
 *
 * Home alone decides: whoever ends the watch (watch_end) finds the gate frozen, or the move
 * cancelled or overdue. The switch begins after that, so no gate is opened in the middle of it.
 */
#include "base/verify.h"
#include "migrate/migrate_impl.h"

static bool watch_is_over(struct migrate *m, uint64_t deadline_ns)
{
    if (deadline_ns && reactor_now_ns() >= deadline_ns)
        m->overdue = true;
    return m->overdue || m->cancelled;
}

static CO void watch_work(void *arg)
{
    struct migrate *m = arg;
    uint64_t deadline_ns = m->status.mode == MIGRATE_OFFLINE ? 0 : m->frozen_at_ns + m->hold_ns;
    while (m->drains && !watch_is_over(m, deadline_ns))
        vp_ignore(co_queue_wait_until(&m->hold, deadline_ns, "the rest of a volume that moves"),
                  "it looks again");
    if (m->drains) {
        migrate_thaw(m, m->source);
        migrate_cut(m);
    }
    co_group_leave(&m->watch, 0);
}

CO int watch_begin(struct migrate *m)
{
    co_group_init(&m->watch);
    m->drains = true;
    co_group_enter(&m->watch);
    int rc = co_spawn(watch_work, m, "pause of a migration");
    if (!rc)
        return 0;
    co_group_leave(&m->watch, 0);
    m->drains = false;
    return migrate_fail(m, rc, "too much is going on: try again");
}

CO void watch_end(struct migrate *m)
{
    if (!m->drains)
        return;
    m->drains = false;
    co_queue_wake_all(&m->hold);
    vp_ignore(co_group_wait(&m->watch), "it reports nothing");
    VP_VERIFY_TRUE(m->frozen || m->cancelled || m->overdue);
}
