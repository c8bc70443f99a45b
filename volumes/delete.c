/*
 * Deletion in the background, after the VOLUME record says DELETING. After a crash it goes on from
 * there. Each step may run twice.
 *
 * 1. VOLUME_DELETE_MAP: the map is closed as it is, also the map of a paused deletion: dirty pages
 *    of a map that no checkpoint writes any more would take memory from others.
 * 2. VOLUME_DELETE_ARENAS: the arenas go back, some at a step. Then their data space is free. This
 *    part can be paused and limited. The parts that follow are short.
 * 3. VOLUME_DELETE_PAGES: inside a checkpoint the pages that the TREE records reach are released,
 *    and the table image gets empty TREE records. So a crash finds the old root with all pages, or
 *    the new root with none. (If pages were released earlier, they could be used again while a
 *    durable TREE record still names them. If records were deleted earlier, a crash would leak the
 *    pages.)
 * 4. VOLUME_DELETE_RECORDS: once that checkpoint is complete, the records go.
 */
#include "base/log.h"
#include "base/verify.h"
#include "pool/keep.h"
#include "volumes/volumes_impl.h"

enum { DELETE_ARENAS_A_STEP = 1024 };

static bool has_tree(struct volume *v)
{
    struct pool_record r;
    return pool_record_get(v->vs->pool, POOL_RECORD_TREE, v->id, POOL_TREE_MAP, &r) ||
           pool_record_get(v->vs->pool, POOL_RECORD_TREE, v->id, POOL_TREE_SPACE, &r);
}

uint64_t volume_delete_bytes(const struct volume *v)
{
    struct pool *p = v->vs->pool;
    return pool_arena_count(p, v->id) * pool_arena_bytes(p, v->options.profile);
}

int volume_delete_take_job(struct volume *v)
{
    if (v->delete_job)
        return 0;
    v->delete_job = pool_job_take(v->vs->pool, POOL_JOB_DELETE, v->id, volume_text(v));
    if (!v->delete_job)
        return VP_E_NO_MEMORY;
    pool_job_count(v->delete_job, volume_delete_bytes(v));
    return 0;
}

static CO void close_map(struct volume *v)
{
    volume_detach(v);
    pool_keep_forget(v->vs->pool, v->id); /* what it wrote there may soon be somebody else's */
    volume_replay_drop(v);
    v->delete_step = VOLUME_DELETE_ARENAS;
}

static CO int return_some(struct volume *v, size_t *count)
{
    uint64_t numbers[DELETE_ARENAS_A_STEP], from = v->delete_from;
    struct pool *p = v->vs->pool;
    uint64_t arena_bytes = pool_arena_bytes(p, v->options.profile);
    uint64_t most = max_u64(pool_job_step_units(v->delete_job) / arena_bytes, 1);
    *count = pool_arena_list(p, v->id, &from, numbers, min_u64(most, DELETE_ARENAS_A_STEP));
    if (!*count) /* the pool forgets the family */
        return pool_arena_return_all(p, v->id);
    int rc = pool_arena_return(p, v->id, numbers, (unsigned)*count);
    if (rc)
        return rc;
    v->delete_from = from;
    pool_job_advance(v->delete_job, *count * arena_bytes, 0);
    return 0;
}

static CO int return_arenas(struct volume *v)
{
    struct volumes *vs = v->vs;
    size_t count;
    int rc = return_some(v, &count);
    if (rc || count || v->delete_job->state == POOL_JOB_PAUSED)
        return rc;
    pool_job_ending(v->delete_job);
    if (!has_tree(v)) {
        v->delete_step = VOLUME_DELETE_RECORDS;
        return 0;
    }
    v->delete_step = VOLUME_DELETE_PAGES;
    pool_checkpoint_request(vs->pool);
    return 0;
}

struct destroy_call {
    struct thin *thin;
};

static CO int destroy_on_reactor(void *arg)
{
    struct destroy_call *c = arg;
    int rc = thin_destroy_pages(c->thin);
    thin_close(c->thin);
    return rc;
}

/* A tree that cannot be read keeps its pages for ever; vpool-check counts them. Better than a
 * volume that can never be deleted. Only memory will be there again: then the checkpoint fails, and
 * the next one begins anew. */
static CO int destroy_tree(struct volume *v)
{
    struct reactor *reactor;
    struct destroy_call c = {0};
    int rc = volume_thin_open_durable(v, &reactor, &c.thin);
    if (!rc)
        rc = reactor_call(reactor, destroy_on_reactor, &c);
    if (rc == VP_E_NO_MEMORY)
        return rc;
    if (rc)
        vp_warn("volume %u is deleted, but its metadata pages are lost: %s", v->id,
                vp_err_text(rc));
    return 0;
}

CO int volume_delete_pages(struct volume *v)
{
    if (v->delete_step != VOLUME_DELETE_PAGES)
        return 0;
    struct thin_roots none = {0};
    int rc = destroy_tree(v);
    if (!rc)
        rc = volume_roots_put(v, &none);
    if (rc)
        return rc;
    v->delete_step = VOLUME_DELETE_RECORDS;
    v->delete_checkpoint = pool_checkpoint_number(v->vs->pool) + 1;
    return 0;
}

struct record_deletion {
    uint32_t id;
    struct pool_batch batch;
};

static int delete_if_owned(const struct pool_record *r, void *arg)
{
    struct record_deletion *d = arg;
    if (r->scope == d->id)
        pool_batch_delete(&d->batch, (enum pool_record_kind)r->kind, r->scope, r->key);
    return 0;
}

static CO int delete_records(struct volume *v)
{
    struct pool *p = v->vs->pool;
    struct record_deletion d = {.id = v->id};
    pool_batch_init(&d.batch);
    vp_ignore(pool_record_each(p, POOL_RECORD_INTENT, delete_if_owned, &d), "always 0");
    pool_batch_delete(&d.batch, POOL_RECORD_TREE, v->id, POOL_TREE_MAP);
    pool_batch_delete(&d.batch, POOL_RECORD_TREE, v->id, POOL_TREE_SPACE);
    pool_batch_delete(&d.batch, POOL_RECORD_STAT, v->id, 0);
    pool_batch_delete(&d.batch, POOL_RECORD_COUNTER, v->id, POOL_COUNTER_COMMITS);
    pool_batch_delete(&d.batch, POOL_RECORD_COUNTER, v->id, VOLUME_COUNTER_ERRORS);
    pool_batch_delete(&d.batch, POOL_RECORD_VOLUME, v->id, 0);
    pool_job_remove(v->delete_job, &d.batch);
    int rc = pool_commit(p, &d.batch);
    pool_batch_fini(&d.batch);
    return rc;
}

static CO int delete_step_locked(struct volume *v, bool *gone)
{
    *gone = false;
    if (v->delete_step == VOLUME_DELETE_MAP) {
        close_map(v);
        return 0;
    }
    if (v->delete_step == VOLUME_DELETE_ARENAS)
        return return_arenas(v);
    if (v->delete_step != VOLUME_DELETE_RECORDS ||
        pool_checkpoint_number(v->vs->pool) < v->delete_checkpoint)
        return 0;
    int rc = delete_records(v);
    *gone = !rc;
    return rc;
}

bool volume_delete_can_go_on(const struct volume *v)
{
    switch (v->delete_step) {
    case VOLUME_DELETE_MAP:
        return true;
    case VOLUME_DELETE_ARENAS:
        return !v->delete_job || pool_job_may_go_on(v->delete_job);
    case VOLUME_DELETE_PAGES:
        return false; /* the next checkpoint does it */
    case VOLUME_DELETE_RECORDS:
        return pool_checkpoint_number(v->vs->pool) >= v->delete_checkpoint;
    }
    return false;
}

/* A checkpoint pins v, and is not waited for with the lock held. */
static CO void delete_control_take(struct volume *v)
{
    co_mutex_lock(&v->control);
    while (v->delete_step == VOLUME_DELETE_MAP && v->pins > 0) {
        co_mutex_unlock(&v->control);
        co_queue_wait(&v->unpinned, "volume to be deleted");
        co_mutex_lock(&v->control);
    }
}

CO int volume_delete_step(struct volume *v)
{
    bool gone;
    int rc = volume_delete_take_job(v);
    if (rc)
        return rc;
    delete_control_take(v);
    rc = delete_step_locked(v, &gone);
    co_mutex_unlock(&v->control);
    v->delete_job->rc = rc;
    if (gone)
        pool_job_end(v->vs->pool, v->delete_job, POOL_JOB_DONE);
    /* Nobody finds the volume by name any more. Callers that wait for the mutex, or have the volume
     * pinned, are let through before it is freed. */
    while (gone && (v->control.owner || v->pins > 0))
        co_yield ();
    if (gone)
        volume_free(v);
    return rc;
}
