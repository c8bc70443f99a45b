/*
 * Deletion in the background, after the VOLUME record says DELETING; resumed from there after a
 * crash. Each step may run twice.
 *
 * 1. VOLUME_DELETE_ARENAS: the map is closed as it is, and every arena goes back. Data space is
 * free.
 * 2. VOLUME_DELETE_PAGES: inside a checkpoint the pages that the TREE records reach are released
 *    and the table image gets empty TREE records: old root with all pages, or new root with none.
 *    (Released earlier, pages could be used again while a durable TREE record still names them;
 *    records deleted earlier, a crash would leak the pages.)
 * 3. VOLUME_DELETE_RECORDS: once that checkpoint is complete, the records go.
 */
#include "base/log.h"
#include "base/verify.h"
#include "pool/keep.h"
#include "volumes/volumes_impl.h"

static bool has_tree(struct volume *v)
{
    struct pool_record r;
    return pool_record_get(v->vs->pool, POOL_RECORD_TREE, v->id, POOL_TREE_MAP, &r) ||
           pool_record_get(v->vs->pool, POOL_RECORD_TREE, v->id, POOL_TREE_SPACE, &r);
}

static CO int return_arenas(struct volume *v)
{
    struct volumes *vs = v->vs;
    volume_detach(v);
    pool_keep_forget(vs->pool, v->id); /* what it wrote there may soon be somebody else's */
    volume_replay_drop(v);
    int rc = pool_arena_return_all(vs->pool, v->id);
    if (rc)
        return rc;
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
    int rc = pool_commit(p, &d.batch);
    pool_batch_fini(&d.batch);
    return rc;
}

static CO int delete_step_locked(struct volume *v, bool *gone)
{
    *gone = false;
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
    case VOLUME_DELETE_ARENAS:
        return true;
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
    while (v->delete_step == VOLUME_DELETE_ARENAS && v->pins > 0) {
        co_mutex_unlock(&v->control);
        co_queue_wait(&v->unpinned, "volume to be deleted");
        co_mutex_lock(&v->control);
    }
}

CO int volume_delete_step(struct volume *v)
{
    bool gone;
    delete_control_take(v);
    int rc = delete_step_locked(v, &gone);
    co_mutex_unlock(&v->control);
    /* Nobody finds it by name any more; who waited for the mutex, or pinned it, is let through
     * before it is freed. */
    while (gone && (v->control.owner || v->pins > 0))
        co_yield ();
    if (gone)
        volume_free(v);
    return rc;
}
