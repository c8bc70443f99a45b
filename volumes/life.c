/*
 * A pool's volumes come and go with the pool.
 *
 * The end, in this order: no new opens; background work ends; requests that wait for room are
 * cancelled and those that run are waited for; every volume commits and drops its intents; a
 * checkpoint writes all pages; the maps are closed; the pool closes.
 */
#include "base/log.h"
#include "volumes/volumes_impl.h"

#include <stdlib.h>

/* ---- begin -------------------------------------------------------------------------------- */

static int slots_init(struct volumes *vs)
{
    size_t bytes = vs->config.metadata_bytes ? vs->config.metadata_bytes : VOLUMES_METADATA_BYTES;
    for (unsigned i = 0; i < vs->config.reactor_count; i++) {
        vs->slot[i].reactor = vs->reactors[i];
        int rc = thin_cache_new(bytes / vs->config.reactor_count, &vs->slot[i].cache);
        if (rc)
            return rc;
        vs->slots++;
    }
    return 0;
}

static void volumes_free(struct volumes *vs)
{
    if (!vs)
        return;
    struct volume *v, *next;
    list_for_each_safe (v, next, &vs->all, link)
        volume_free(v);
    for (unsigned i = 0; i < vs->slots; i++)
        thin_cache_free(vs->slot[i].cache);
    volumes_replay_free(vs);
    volumes_left_free(vs);
    hash_fini(&vs->by_name);
    hash_fini(&vs->by_id);
    free(vs);
}

static int volumes_new(const struct volumes_config *config, struct volumes **out)
{
    if (config->reactor_count < 1 || config->reactor_count > VOLUMES_REACTORS_MAX)
        return VP_E_INVALID;
    struct volumes *vs = calloc(1, sizeof(*vs));
    if (!vs)
        return VP_E_NO_MEMORY;
    vs->config = *config;
    memcpy(vs->reactors, config->reactors, config->reactor_count * sizeof(vs->reactors[0]));
    vs->config.reactors = vs->reactors;
    if (!vs->config.commit_interval_ms)
        vs->config.commit_interval_ms = VOLUMES_COMMIT_MS;
    if (!vs->config.fill_bytes)
        vs->config.fill_bytes = VOLUMES_FILL_BYTES;
    vs->next_id = 1;
    list_init(&vs->all);
    list_init(&vs->active);
    list_init(&vs->replaying);
    list_init(&vs->resync);
    list_init(&vs->deleting);
    list_init(&vs->left);
    co_group_init(&vs->workers);
    co_group_init(&vs->room_workers);
    co_queue_init(&vs->work);
    co_queue_init(&vs->timer);
    co_queue_init(&vs->room_news);
    co_queue_init(&vs->given_back);
    if (!hash_init(&vs->by_name, 64) || !hash_init(&vs->by_id, 64) || !hash_init(&vs->replay, 64) ||
        slots_init(vs)) {
        volumes_free(vs);
        return VP_E_NO_MEMORY;
    }
    *out = vs;
    return 0;
}

static CO void workers_stop(struct volumes *vs)
{
    hold_verify(RESOURCE_CHECKPOINT); /* a worker may be waiting for one */
    vs->closing = true;
    volumes_background_stop(vs);
    volumes_room_stop(vs);
}

static int workers_start(struct volumes *vs)
{
    const char *discard = pool_property_get(vs->pool, "discard");
    vs->discard_devices = !discard || strcmp(discard, "off") != 0;
    int rc = volumes_room_start(vs);
    return rc ? rc : volumes_background_start(vs);
}

static CO void detach_all(struct volumes *vs)
{
    while (!list_empty(&vs->active)) {
        volume_detach(list_first(&vs->active, struct volume, active_link));
        co_yield (); /* its kept memory is unmapped, which may take milliseconds */
    }
}

/* The end of a create or import that failed after the pool was there. Without a checkpoint: it
 * would take the place of a log whose records of volumes are in nobody's memory. */
static CO void undo_open(struct volumes *vs)
{
    /* The command that opens a pool holds control.lock, and no checkpoint takes it. */
    AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint();
    workers_stop(vs);
    pool_checkpoints_stop(vs->pool);
    detach_all(vs);
    pool_abandon_in_turns(vs->pool);
    volumes_free(vs);
}

CO int volumes_create(const struct pool_create_options *o, const char *const *paths, unsigned count,
                      const struct volumes_config *config, struct volumes **out,
                      struct vp_error *err)
{
    struct volumes *vs;
    int rc = volumes_new(config, &vs);
    if (rc)
        return vp_fail(err, rc, "%s", vp_err_text(rc));
    rc = pool_create(o, paths, count, &vs->pool, err);
    if (rc) {
        volumes_free(vs);
        return rc;
    }
    struct pool_client client = volumes_client(vs);
    pool_set_client(vs->pool, &client);
    rc = workers_start(vs);
    if (rc) {
        undo_open(vs);
        return vp_fail(err, rc, "%s", vp_err_text(rc));
    }
    *out = vs;
    return 0;
}

/* ---- import ------------------------------------------------------------------------------- */

static int import_volume(const struct pool_record *r, void *arg)
{
    return volume_adopt_record(arg, r);
}

/* A volume with intents was written to in place when the pool went down. */
static int import_intent(const struct pool_record *r, void *arg)
{
    struct volumes *vs = arg;
    struct volume *v = volume_find_id(vs, r->scope);
    return v && v->state == VOLUME_ONLINE ? volume_resync_add(v) : 0;
}

/* Deletions go on where they were. */
static int import_deletions(struct volumes *vs)
{
    struct volume *v;
    list_for_each (v, &vs->deleting, delete_link) {
        int rc = volume_delete_take_job(v);
        if (rc)
            return rc;
    }
    return 0;
}

static CO int import_records(struct volumes *vs)
{
    struct pool_record r;
    if (pool_record_get(vs->pool, POOL_RECORD_COUNTER, 0, VOLUME_COUNTER_NEXT_ID, &r) &&
        r.len == sizeof(struct le64)) {
        struct le64 next;
        memcpy(&next, r.value, sizeof(next));
        vs->next_id = max_u64(vs->next_id, le64_get(next));
    }
    int rc = pool_record_each(vs->pool, POOL_RECORD_VOLUME, import_volume, vs);
    if (!rc)
        rc = volumes_replay_assign(vs);
    if (!rc)
        rc = pool_record_each(vs->pool, POOL_RECORD_INTENT, import_intent, vs);
    if (!rc)
        rc = import_deletions(vs);
    if (!rc)
        rc = volumes_fill_begin(vs);
    if (!rc)
        rc = volumes_disk_leaves(vs, 0); /* if one was leaving */
    if (!rc)
        rc = volumes_scrub_load(vs);
    if (!rc)
        rc = volumes_left_load(vs);
    if (!rc)
        pool_jobs_forget_left(vs->pool);
    return rc;
}

CO int volumes_import(const char *const *paths, unsigned count, const struct volumes_config *config,
                      struct volumes **out, struct vp_error *err)
{
    struct volumes *vs;
    int rc = volumes_new(config, &vs);
    if (rc)
        return vp_fail(err, rc, "%s", vp_err_text(rc));
    struct pool_client client = volumes_client(vs);
    rc = pool_import(paths, count, config->import_flags, &client, &vs->pool, err);
    if (rc) {
        volumes_free(vs);
        return rc;
    }
    rc = import_records(vs);
    if (!rc)
        rc = workers_start(vs);
    if (rc) {
        undo_open(vs);
        return vp_fail(err, rc, "the volumes could not be loaded: %s", vp_err_text(rc));
    }
    *out = vs;
    return 0;
}

/* ---- end ---------------------------------------------------------------------------------- */

static CO int drain_on_reactor(void *arg)
{
    struct volume *v = arg;
    front_end(volume_front(v));
    return 0;
}

static CO void drain_all(struct volumes *vs)
{
    struct volume *v;
    list_for_each (v, &vs->active, active_link) {
        volume_pin(v);
        vp_ignore(reactor_call(v->reactor, drain_on_reactor, v), "it cannot fail");
        volume_unpin(v);
    }
}

/* The first error; every volume is tried. */
static CO int settle_all(struct volumes *vs)
{
    struct sweep sweep = {0};
    struct volume *v;
    list_for_each (v, &vs->active, active_link) {
        if (v->state != VOLUME_DELETING)
            sweep_add(&sweep, v);
    }
    int rc = sweep_run(&sweep, volume_settle, false);
    return rc || !sweep.failed ? rc : VP_E_NO_MEMORY;
}

CO int volumes_close(struct volumes *vs, bool mark_exported)
{
    /* The command that closes a pool holds control.lock. No checkpoint takes it, and nobody is left
     * here to hold a volume's lock. */
    AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint();
    workers_stop(vs);
    drain_all(vs);
    int rc = settle_all(vs); /* which may need a checkpoint */
    int checkpoint_rc = pool_checkpoint(vs->pool);
    pool_checkpoints_stop(vs->pool); /* they use the maps */
    detach_all(vs);
    int close_rc = pool_close(vs->pool, mark_exported);
    volumes_free(vs);
    rc = rc ? rc : checkpoint_rc;
    return rc ? rc : close_rc;
}

CO int volumes_destroy(struct volumes *vs, struct vp_error *err)
{
    AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint(); /* as in volumes_close */
    workers_stop(vs);
    drain_all(vs);
    pool_checkpoints_stop(vs->pool);
    detach_all(vs);
    int rc = pool_destroy(vs->pool, err);
    volumes_free(vs);
    return rc;
}

/* There is one thread, and its coroutines were abandoned. So the maps are closed from here. */
CO void volumes_abandon(struct volumes *vs)
{
    struct volume *v;
    list_for_each (v, &vs->active, active_link) {
        thin_close(v->io->thin);
        volume_io_free(v->io);
        v->io = NULL;
    }
    pool_abandon(vs->pool);
    volumes_free(vs);
}

struct pool *volumes_pool(const struct volumes *vs)
{
    return vs->pool;
}
