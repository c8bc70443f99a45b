/*
 * Before a change is acknowledged its records are kept in memory that outlives the daemon
 * (pool/keep.h). So a kill of the daemon does not lose the change.
 *
 * An append takes all entries that changed since the last append, whichever request changed them.
 * This is needed because a chunk that one request allocated may hold the first blocks of another
 * request, which ends earlier. So what is kept is the state of one moment, as in a commit. An entry
 * stays marked until an append took it, even if a commit took it before, since that commit may
 * never become durable.
 */
#include "io/guard.h"
#include "thin/thin_impl.h"

/* Marked leaves stay in memory: where appends find no memory the marks must not grow. */
#define UNKEPT_BYTES_MAX (64U << 10)

static void set_kept(struct thin *t)
{
    thin_marked_clear(t, THIN_UNKEPT);
    t->stat_unkept = false;
    t->unkept_bytes = 0;
}

/* No yield. */
static enum pool_keep_result keep_append(struct thin *t)
{
    struct pool_batch b;
    if (t->keep_blocked)
        return POOL_KEEP_FULL;
    size_t stat = t->stat_unkept ? pool_record_bytes(sizeof(struct thin_stat_record_disk)) : 0;
    enum pool_keep_result result = pool_keep_append_begin(t->keep, t->unkept_bytes + stat, &b);
    if (result != POOL_KEPT)
        return result;
    thin_marked_collect(t, THIN_UNKEPT, &b);
    if (t->stat_unkept)
        thin_stat_collect(t, &b);
    pool_keep_append_end(t->keep, &b);
    return POOL_KEPT;
}

CO int thin_keep(struct thin *t)
{
    /* While blocked, what is not marked may be in a commit that is not durable yet. */
    if (!t->unkept_bytes && !t->stat_unkept && !t->keep_blocked)
        return 0;
    enum pool_keep_result result = io_guard_on(GUARD_KEEP_BEFORE_ACK) ? keep_append(t) : POOL_KEPT;
    if (result == POOL_KEEP_FULL || result == POOL_KEEP_TOO_BIG) {
        t->keep_by_commit |= result == POOL_KEEP_TOO_BIG || t->unkept_bytes > UNKEPT_BYTES_MAX;
        return thin_commit(t);
    }
    set_kept(t);
    return 0;
}

void thin_keep_commit_begin(struct thin *t)
{
    pool_keep_commit_begin(t->keep, t->commit_number);
    if (t->keep_by_commit) {
        set_kept(t);
        t->keep_by_commit = false;
        t->keep_blocked = true;
    }
}

void thin_keep_commit_end(struct thin *t, bool durable)
{
    pool_keep_commit_end(t->keep, durable);
    if (durable)
        t->keep_blocked = false;
}

/* Takes memory for a commit. Nearly all records of a commit are in appends since the commit before
 * it began, so pool_keep_bytes_max bounds them. UNKEPT_BYTES_MAX bounds the last few, which are not
 * kept yet. */
static CO void batch_take(struct thin *t)
{
    while (t->committing)
        co_queue_wait(&t->commit_queue, "commit");
    size_t len = pool_keep_bytes_max(t->keep) + UNKEPT_BYTES_MAX;
    vp_ignore(pool_batch_take_memory(&t->batch, len) ? 0 : VP_E_NO_MEMORY,
              "what is not there now is asked for again when it is used");
}

CO bool thin_take_memory(struct thin *t)
{
    thin_cache_take(t);
    batch_take(t);
    return pool_keep_take_memory(t->keep);
}
