/*
 * Commits and checkpoints of a volume.
 *
 * A commit (a) collects the records of everything that was acknowledged, at one moment, (b) flushes
 * the disks that the volume wrote to, so that what the records point at is durable
 * (GUARD_DATA_BEFORE_LOG), (c) appends the records to the log. One commit of a volume runs at a
 * time. Callers that arrive meanwhile are covered by the next commit, which the first of them runs
 * for all.
 *
 * The volume notes each disk that it writes to, when the device has answered and before the change
 * becomes visible (raid_io.written). A commit takes these disks and begins to flush them, with no
 * yield since it collected (GUARD_COMMIT_DISKS). So what it collects is on disks that it flushes,
 * or that an earlier commit flushed after the write. What other volumes wrote, and a disk that only
 * they use, does not hold it up. When a disk cannot be flushed and cannot leave service either, the
 * next commit flushes all of them again. An open volume has flushed all that it wrote in an earlier
 * life: it was closed after a commit, or the import flushed all disks.
 *
 * A commit that failed keeps its records. They are sent again, alone, before newer ones are
 * collected. Records are absolute, so only their order matters, and the batch does not grow.
 */
#include "io/guard.h"
#include "io/reactor.h"
#include "thin/thin_impl.h"

void thin_stat_collect(struct thin *t, struct pool_batch *b)
{
    struct thin_stat_record_disk r = {
        .allocated_chunks = le64_make(figure_get(&t->figures.allocated_chunks)),
        .valid_blocks = le64_make(figure_get(&t->figures.valid_blocks)),
        .generation = le64_make(t->generation),
    };
    pool_batch_set(b, POOL_RECORD_STAT, t->id, 0, &r, sizeof(r));
}

static void number_collect(struct thin *t, struct pool_batch *b)
{
    struct le64 number = le64_make(t->commit_number + 1);
    pool_batch_set(b, POOL_RECORD_COUNTER, t->id, POOL_COUNTER_COMMITS, &number, sizeof(number));
}

/* All or nothing: VP_E_NO_MEMORY leaves everything uncommitted. */
static int commit_collect(struct thin *t)
{
    struct pool_batch *b = &t->batch;
    size_t len = b->len;
    unsigned count = b->count;
    CO_NO_YIELD {
        thin_marked_collect(t, THIN_UNCOMMITTED, b);
        if (t->stat_changed)
            thin_stat_collect(t, b);
        if (b->count)
            number_collect(t, b);
        if (b->failed) { /* back to what an earlier commit left */
            b->len = len;
            b->count = count;
        } else {
            thin_marked_clear(t, THIN_UNCOMMITTED);
            t->commit_number += b->count > 0;
            thin_keep_commit_begin(t);
            t->stat_changed = false;
            t->uncommitted_bytes = 0;
            t->batch_pages += t->uncommitted_pages;
            t->uncommitted_pages = 0;
            thin_space_commit_begin(t);
        }
    }
    if (!b->failed)
        return 0;
    b->failed = false;
    return VP_E_NO_MEMORY;
}

/* Flushes the disks that the volume wrote to since they were flushed for it. */
static CO int data_flush(struct thin *t)
{
    struct raid_disk_set taken = t->unflushed;
    struct raid_disk *disk[POOL_DISKS_MAX];
    unsigned all, count = 0;
    struct raid_disk *const *disks = pool_disks(t->pool, &all);
    for (uint64_t i = 0; (i = bitmap_find(taken.word, all, i, true)) < all; i++)
        disk[count++] = disks[i];
    if (count > 1 && !io_guard_on(GUARD_COMMIT_DISKS))
        count--;
    t->unflushed = (struct raid_disk_set){0};
    unsigned use = thin_use_begin(t);
    int rc = count ? raid_flush(disk, count) : 0;
    thin_use_end(t, use);
    for (unsigned i = 0; rc && i < RAID_DISKS_MAX / 64; i++)
        t->unflushed.word[i] |= taken.word[i];
    return rc;
}

/* Makes the batch durable, and what was collected with it. */
static CO int commit_send(struct thin *t)
{
    int rc = 0;
    /* The log must never name data that a power cut could still lose. */
    if (io_guard_on(GUARD_DATA_BEFORE_LOG))
        rc = data_flush(t);
    if (!rc && t->batch.count) {
        rc = pool_commit(t->pool, &t->batch);
        figure_add(&t->figures.commits, 1);
    }
    if (!rc) {
        pool_batch_clear(&t->batch);
        pool_meta_dirty_add(t->pool, -(int64_t)t->batch_pages);
        t->batch_pages = 0;
    }
    thin_keep_commit_end(t, rc == 0);
    thin_space_commit_end(t, rc == 0);
    return rc;
}

/* Others read, write and free meanwhile; what they do belongs to the next commit. */
static CO int commit_run(struct thin *t)
{
    int rc = t->batch.count ? commit_send(t) : 0;
    if (!rc)
        rc = commit_collect(t);
    return rc ? rc : commit_send(t);
}

CO int thin_commit(struct thin *t)
{
    uint64_t mine = t->commits_begun + 1; /* the first one that begins after now */
    while (t->committing && t->commits_ended < mine)
        co_queue_wait(&t->commit_queue, "commit");
    if (t->commits_ended >= mine)
        return t->commit_rc; /* of that one or of a later one, which repeats what failed */
    t->committing = true;
    t->commits_begun++;
    int rc = commit_run(t);
    t->commit_rc = rc;
    t->commits_ended++;
    t->committing = false;
    co_queue_wake_all(&t->commit_queue);
    if (!rc && !t->tidying) {
        t->tidying = true;
        thin_space_tidy(t);
        t->tidying = false;
        co_queue_wake_all(&t->commit_queue);
    }
    return rc;
}

/* ---- checkpoints --------------------------------------------------------------------------- */

struct number_call {
    struct pool *pool;
    uint32_t number;
    uint64_t last_ns;
};

static int checkpoint_number(void *arg)
{
    struct number_call *c = arg;
    c->number = pool_checkpoint_number(c->pool) + 1; /* of the one under way */
    c->last_ns = pool_checkpoint_took_ns(c->pool);
    return 0;
}

CO int thin_checkpoint_pages(struct thin *t)
{
    struct number_call call = {.pool = t->pool};
    int rc = reactor_call(pool_home(t->pool), checkpoint_number, &call);
    if (!rc)
        thin_cache_checkpoint_begin(t->cache, call.number, call.last_ns);
    if (!rc)
        rc = thin_tree_write(&t->map, call.number);
    if (!rc)
        rc = thin_tree_write(&t->space_tree, call.number);
    return rc;
}

struct thin_roots thin_checkpoint_roots(const struct thin *t)
{
    return (struct thin_roots){
        .root = {t->map.saved_ref, t->space_tree.saved_ref},
        .height = {t->map.saved_height, t->space_tree.saved_height},
    };
}

void thin_tree_record(struct pool_page_ref root, uint8_t height,
                      uint8_t out[THIN_TREE_RECORD_BYTES])
{
    struct thin_tree_record_disk r = {.root = thin_ref_make(root), .height = height};
    static_assert(sizeof(r) == THIN_TREE_RECORD_BYTES, "TREE record");
    memcpy(out, &r, sizeof(r));
}

bool thin_is_dirty(const struct thin *t)
{
    return t->batch.count || t->stat_changed || thin_tree_is_dirty(&t->map) ||
           thin_tree_is_dirty(&t->space_tree);
}
