/* Once a second: what has changed about the pools becomes events; what failed is tried again. */
#include "control/control_impl.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* What brings a disk into service again tells it itself (disk.returns, disk.replaced), and what
 * lets it go (disk.leaves). */
static void tell_state(struct control *c, const struct control_pool *p,
                       const struct pool_disk_info *d, const char *before)
{
    if (strcmp(d->state, "rebuilding") == 0 || strcmp(d->state, "removing") == 0)
        return;
    if (d->removed)
        control_event(c, VP_LOG_INFO, "disk.removed", p->name,
                      "disk %u is empty, and no disk of the pool any more", d->index);
    else if (strcmp(before, "removing") == 0 && strcmp(d->state, "online") == 0)
        control_event(c, VP_LOG_INFO, "disk.stays", p->name,
                      "disk %u (%s) stays, with what has not moved", d->index, d->path);
    else if (strcmp(d->state, "online") == 0)
        control_event(c, VP_LOG_INFO, "disk.rebuilt", p->name,
                      "disk %u (%s) has what it lacked, and counts again", d->index, d->path);
    else
        control_event(c, VP_LOG_ERROR, "disk.state", p->name, "disk %u (%s) is %s%s%s", d->index,
                      d->path, d->state, d->reason[0] ? ": " : "", d->reason);
}

static bool serves(const struct pool_disk_info *d)
{
    return strcmp(d->state, "online") == 0 || strcmp(d->state, "rebuilding") == 0;
}

/* One that leaves because of it is told of by its state. */
static void look_at_silence(struct control *c, struct control_pool *p,
                            const struct pool_disk_info *d, struct disk_seen *seen)
{
    bool was = p->seen.valid && seen->silent;
    if (d->silent && !was)
        control_event(c, VP_LOG_ERROR, "disk.silent", p->name, "disk %u (%s): %s", d->index,
                      d->path, d->reason);
    if (!d->silent && was && serves(d))
        control_event(c, VP_LOG_INFO, "disk.silent", p->name, "disk %u (%s) answers again",
                      d->index, d->path);
    seen->silent = d->silent;
}

static void look_at_disk(struct control *c, struct control_pool *p, const struct pool_disk_info *d,
                         struct disk_seen *seen)
{
    uint64_t errors = 0, healed = 0;
    if (d->io) {
        errors = figure_get(&d->io->figures.read_errors) +
                 figure_get(&d->io->figures.write_errors) +
                 figure_get(&d->io->figures.checksum_errors);
        healed = figure_get(&d->io->figures.healed_blocks);
    }
    if ((p->seen.valid || seen->state[0]) && strcmp(seen->state, d->state) != 0)
        tell_state(c, p, d, seen->state);
    if (p->seen.valid && (errors > seen->errors || healed > seen->healed))
        control_event(c, VP_LOG_WARN, "disk.errors", p->name,
                      "disk %u (%s): %" PRIu64 " errors (%" PRIu64 " more), %" PRIu64
                      " blocks healed",
                      d->index, d->path, errors, errors - seen->errors, healed);
    if (p->seen.valid && errors > seen->errors)
        p->next_look_ns = 0;
    if (d->full != (p->seen.valid && seen->full))
        control_event(c, d->full ? VP_LOG_ERROR : VP_LOG_INFO, "disk.full", p->name,
                      "disk %u (%s): %s", d->index, d->path,
                      d->full
                          ? "the file system that holds it is full, writes wait; make room there, "
                            "and they go on by themselves"
                          : "there is room again, writes go on");
    look_at_silence(c, p, d, seen);
    if (d->finding[0] && (!p->seen.valid || strcmp(seen->finding, d->finding) != 0))
        control_event(c, VP_LOG_ERROR, "disk.changed", p->name, "disk %u (%s): %s", d->index,
                      d->path, d->finding);
    memcpy(seen->finding, d->finding, sizeof(seen->finding));
    seen->full = d->full;
    (void)snprintf(seen->state, sizeof(seen->state), "%s", d->state);
    seen->errors = errors;
    seen->healed = healed;
}

static void look_at_level(struct control *c, struct control_pool *p, const struct pool_space *space)
{
    if (p->seen.valid ? space->level == p->seen.level : space->level == POOL_OK)
        return;
    enum vp_log_level severity = space->level == POOL_OK     ? VP_LOG_INFO
                                 : space->level == POOL_FULL ? VP_LOG_ERROR
                                                             : VP_LOG_WARN;
    control_event(c, severity, "pool.space", p->name,
                  "space is %s: %" PRIu64 " of %" PRIu64 " MiB are free", show_level(space->level),
                  space->free_bytes >> 20, space->total_bytes >> 20);
}

static void look_at_pool(struct control *c, struct control_pool *p)
{
    struct pool *pool = volumes_pool(p->vs);
    struct pool_space space;
    pool_space_get(pool, &space);
    const char *state = pool_state(pool);
    const char *before = p->seen.valid ? p->seen.state : "online";
    if (strcmp(before, state) != 0)
        control_event(c, strcmp(state, "online") == 0 ? VP_LOG_INFO : VP_LOG_ERROR, "pool.state",
                      p->name, "the pool is %s", state);
    look_at_level(c, p, &space);
    for (unsigned i = 0; i < pool_disk_count(pool) && i < POOL_DISKS_MAX; i++) {
        struct pool_disk_info d;
        pool_disk_info_get(pool, i, &d);
        look_at_disk(c, p, &d, &p->seen.disk[i]);
    }
    (void)snprintf(p->seen.state, sizeof(p->seen.state), "%s", state);
    p->seen.level = space.level;
    p->seen.valid = true;
}

void monitor_look(struct control *c)
{
    struct control_pool *p;
    migrations_look(c);
    migrations_look_left(c);
    move_reports_look(c);
    list_for_each (p, &c->pools, link) {
        if (!p->vs)
            continue;
        look_at_pool(c, p);
        health_look(c, p);
        jobs_look(c, p);
        scrub_look(c, p);
    }
}

/* ---- trying again -------------------------------------------------------------------------- */

#define TEND_NS UINT64_C(5000000000)

static CO void tend_locked(struct control *c, bool due)
{
    if (due)
        doctor_collect(c);
    if (due && c->state_unsaved)
        control_pools_save_later(c);
    struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        if (!p->vs)
            continue;
        health_walk(p);
        if (due)
            attachments_retry(c, p);
        if (due)
            spares_tend(c, p);
    }
    if (due && c->migrations.unsettled)
        migrations_settle(c);
    control_pools_retry(c);
}

/* Without the lock, since a commit waits for disks: each pool is pinned meanwhile. */
static CO void save_histories(struct control *c)
{
    struct control_pool *p;
again:
    list_for_each (p, &c->pools, link) {
        if (!p->vs || reactor_now_ns() < p->history.next_save_ns)
            continue;
        p->history.next_save_ns = reactor_now_ns() + TEND_NS;
        p->users++;
        history_save(c, p);
        control_pool_put(p);
        goto again; /* the list may be another one */
    }
}

/* The same, of scrubs that are due by time. */
static CO void start_scrubs(struct control *c)
{
    struct control_pool *p;
again:
    list_for_each (p, &c->pools, link) {
        if (!p->vs || reactor_now_ns() < p->next_scrub_look_ns)
            continue;
        p->next_scrub_look_ns = reactor_now_ns() + TEND_NS;
        p->users++;
        scrub_when_due(c, p);
        control_pool_put(p);
        goto again; /* the list may be another one */
    }
}

static CO void tend(void *arg)
{
    struct control *c = arg;
    bool due = reactor_now_ns() >= c->next_tend_ns;
    if (!c->lock.owner) {
        co_mutex_lock(&c->lock);
        attachments_reap(c);
        tend_locked(c, due);
        co_mutex_unlock(&c->lock);
        if (due)
            c->next_tend_ns = reactor_now_ns() + TEND_NS;
    }
    save_histories(c);
    start_scrubs(c);
    if (due)
        move_reports_save(c);
    c->tending = false;
    /* Only then somebody waits for it. The looks wait there too, and go on by time. */
    if (c->stopping)
        co_queue_wake_all(&c->state_changed);
}

/* ---- whether disks are what they were -------------------------------------------------------- */

#define LOOK_NS UINT64_C(60000000000) /* and soon after an error */

static struct control_pool *look_due(struct control *c)
{
    struct control_pool *p;
    list_for_each (p, &c->pools, link)
        if (p->vs && !c->stopping && reactor_now_ns() >= p->next_look_ns)
            return p;
    return NULL;
}

/* In a coroutine of its own: a disk that does not answer holds up nothing else. */
static CO void look_at_disks(void *arg)
{
    struct control *c = arg;
    struct control_pool *p;
    while ((p = look_due(c))) {
        struct pool *pool = volumes_pool(p->vs);
        p->next_look_ns = reactor_now_ns() + LOOK_NS;
        p->users++;
        for (unsigned i = 0; i < pool_disk_count(pool) && !c->stopping; i++)
            pool_disk_look(pool, i);
        spares_look(c, p);
        control_pool_put(p);
    }
    c->looking = false;
    if (c->stopping)
        co_queue_wake_all(&c->state_changed);
}

void monitor_tend(struct control *c)
{
    migrations_ask(c);
    if (!c->looking && look_due(c)) {
        c->looking = true;
        if (co_spawn(look_at_disks, c, "looking at disks"))
            c->looking = false; /* at the next look, then */
    }
    if (c->tending)
        return;
    c->tending = true;
    if (co_spawn(tend, c, "tending"))
        c->tending = false; /* at the next look, then */
}
