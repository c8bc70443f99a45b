/*
 * Checkpoints: see docs/design.md, "Metadata". A checkpoint is fuzzy: writes and commits go on
 * while it is made.
 *
 *     cut the log ─ client writes dirty pages, commits ─ table image written ─ log drained ─
 *     flush (GUARD_PAGES_BEFORE_ROOT) ─ root ─ old pages free (GUARD_ROOT_BEFORE_RELEASE)
 *
 *  C1  Everything that any page or the table image can hold is in the log after the cut, or it was
 *      before the cut in a page that is dirty or in the table. So root + log from the cut = the
 *      last commit. The table is written as it is encoded, over many turns, so the image holds a
 *      record as it was in one of these turns. That does no harm: changes after the cut are in the
 *      log, and records that are not logged (TREE) change only before.
 *  C2  The log is drained between the last copy of a record and the root. So a record does not
 *      become durable through the table image before its batch, with the MAP records beside it, is
 *      durable.
 *  C3  A checkpoint that fails changes nothing durable: the old root, its log and its pages stay.
 */
#include "pool/meta_impl.h"

#include "base/log.h"
#include "io/guard.h"

enum { RETRY_NS = 1000000000 };

/* ---- image and root (which image: image.c) -------------------------------------------------- */

CO int pool_table_image_commit(struct pool *p, const struct pool_log_piece *piece)
{
    struct pool_root next = {
        .checkpoint = p->root.now.checkpoint + 1,
        .exported = p->root.now.exported || p->checkpoint.exporting,
        .piece[0] = *piece,
        .pieces = 1,
    };
    unsigned image = pool_image_plan(p);
    if (!io_guard_on(GUARD_ROOT_BEFORE_RELEASE))
        pool_meta_commit(p); /* a test: what the last root needs is used again too early */
    int rc = pool_image_write(p, image, &next);
    /* C2. It may also lie in a group that was formed for it, whose record is only queued yet. */
    if (!rc)
        rc = pool_log_drain(p);
    /* The root must name nothing that a power cut could still lose. */
    if (!rc && io_guard_on(GUARD_PAGES_BEFORE_ROOT))
        rc = raid_flush(p->raid_disk, p->disk_count);
    if (!rc)
        rc = pool_root_write(p, &next);
    if (!rc)
        pool_meta_commit(p);
    pool_image_end(p, image, !rc);
    return rc;
}

/* ---- a checkpoint ------------------------------------------------------------------------- */

/* CO. */
static CO int checkpoint_make(struct pool *p)
{
    struct pool_log_piece piece;
    if (pool_is_fenced(p))
        return VP_E_POOL_FENCED;
    pool_meta_prepare(p);
    int rc = pool_meta_is_narrow(p) ? pool_meta_widen(p) : 0;
    if (!rc && p->checkpoint.fill)
        rc = pool_meta_fill(p, p->checkpoint.fill);
    if (!rc && p->checkpoint.leave)
        rc = pool_meta_leave(p, p->checkpoint.leave);
    if (rc)
        return rc;
    pool_meta_preallocate_ahead(p);
    rc = pool_log_cut(p, &piece);
    if (!rc && p->client.checkpoint)
        rc = p->client.checkpoint(p->client.arg);
    if (!rc)
        rc = pool_table_image_commit(p, &piece);
    if (rc) {
        pool_log_cut_undo(p);
        pool_meta_rollback(p);
    }
    return rc; /* the memory stays for the next one, which must not have to wait for any */
}

/* Told once, not at every try. */
static void checkpoint_tell(struct pool *p, int rc)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    if (rc && !ck->rc && !pool_is_fenced(p))
        vp_warn("pool %s: checkpoint failed: %s; the last one stays, and it is tried again every "
                "second",
                p->name, vp_err_text(rc));
    if (!rc && ck->rc)
        vp_info("pool %s: checkpoints succeed again", p->name);
}

/* CO. Whoever asked until now is served by this one, or, if it fails, by the next. */
static CO void checkpoint_run(struct pool *p)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    hold_begin(RESOURCE_CHECKPOINT);
    ck->running = true;
    while (ck->held_off)
        co_queue_wait(&ck->may_begin, "a scrub of metadata");
    ck->started++;
    bool requested = atomic_exchange(&ck->requested, false);
    uint64_t began_ns = reactor_now_ns();
    int rc = checkpoint_make(p);
    ck->ended_ns = reactor_now_ns();
    ck->took_ns = ck->ended_ns - began_ns;
    checkpoint_tell(p, rc);
    ck->rc = rc;
    if (rc && requested && !pool_is_fenced(p))
        atomic_store(&ck->requested, true);
    if (rc && p->client.checkpoint_failed)
        p->client.checkpoint_failed(p->client.arg, rc);
    ck->finished = ck->started;
    ck->running = false;
    hold_end(RESOURCE_CHECKPOINT);
    co_queue_wake_all(&ck->done);
}

static CO int checkpoint_home(void *arg)
{
    struct pool *p = arg;
    struct pool_checkpoint_state *ck = &p->checkpoint;
    uint64_t want = ck->started + 1;
    while (ck->finished < want) {
        if (ck->running)
            co_queue_wait(&ck->done, "checkpoint");
        else
            checkpoint_run(p);
    }
    return ck->rc;
}

CO int pool_checkpoint(struct pool *p)
{
    hold_verify(RESOURCE_CHECKPOINT);
    return reactor_call_for_client(p->home, checkpoint_home, p);
}

uint32_t pool_checkpoint_number(const struct pool *p)
{
    return p->root.now.checkpoint;
}

uint64_t pool_checkpoint_took_ns(const struct pool *p)
{
    return p->checkpoint.took_ns;
}

/* ---- in the background ----------------------------------------------------------------------
 *
 * A request is a flag that the beginning of any checkpoint takes down, so a request that comes
 * while one runs is served by the next. At most one task works on it, here at home; it ends when
 * nothing is requested, and a request starts one when there is none. */

/* CO. One step: what runs is waited for; after a failure there is a pause. */
static CO void checkpoint_task_step(struct pool *p)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    uint64_t now = reactor_now_ns(), next = ck->rc ? ck->ended_ns + RETRY_NS : now;
    if (ck->running) {
        co_queue_wait(&ck->done, "checkpoint");
    } else if (next > now && !pool_is_fenced(p)) {
        ck->sleeper = co_self();
        vp_ignore(co_sleep_ns(next - now), "cut short when the pool closes");
        ck->sleeper = NULL;
    } else {
        checkpoint_run(p);
    }
}

static CO void checkpoint_task(void *arg)
{
    struct pool *p = arg;
    struct pool_checkpoint_state *ck = &p->checkpoint;
    do {
        while (!p->closing && (ck->running || atomic_load(&ck->requested)))
            checkpoint_task_step(p);
        atomic_store(&ck->task, false);
        /* A caller that asked before this line has seen a task and started none. */
    } while (!p->closing && atomic_load(&ck->requested) && !atomic_exchange(&ck->task, true));
    co_queue_wake_all(&ck->done);
}

int pool_checkpoint_ask(struct pool *p)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    if (pool_is_fenced(p))
        return VP_E_POOL_FENCED;
    if (p->closing)
        return VP_E_SHUTDOWN;
    if (atomic_load_explicit(&ck->requested, memory_order_relaxed) &&
        atomic_load_explicit(&ck->task, memory_order_relaxed))
        return 0;
    atomic_store(&ck->requested, true);
    if (atomic_exchange(&ck->task, true))
        return 0;
    int rc = reactor_post(p->home, checkpoint_task, p, "checkpoint");
    if (rc)
        atomic_store(&ck->task, false);
    return rc;
}

void pool_checkpoint_request(struct pool *p)
{
    vp_ignore(pool_checkpoint_ask(p), "whoever needs one asks again, or makes one");
}

void pool_checkpoints_hold(struct pool *p)
{
    atomic_store(&p->checkpoint.task, true);
}

void pool_checkpoints_release(struct pool *p)
{
    atomic_store(&p->checkpoint.requested, false); /* the client has not taken over yet */
    atomic_store(&p->checkpoint.task, false);
}

CO void pool_checkpoints_stop(struct pool *p)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    hold_verify(RESOURCE_CHECKPOINT);
    p->closing = true;
    while (ck->running || atomic_load(&ck->task)) {
        if (ck->sleeper)
            co_cancel(ck->sleeper);
        co_queue_wait(&ck->done, "checkpoint to end");
    }
}
