/*
 * What volumes do for the pool's import and checkpoints (struct pool_client).
 *
 * Import: MAP and SPACE records of the log are kept, volume by volume, in order, until the volume
 * is activated. Records of volumes that are gone or being deleted are dropped.
 *
 * A checkpoint does the following for every volume that is active or has such records, several at a
 * time:
 *
 * 1. thin_checkpoint_intents clears the intents of quiet regions in memory.
 * 2. thin_checkpoint_pages, then thin_commit: see docs/design.md, "Checkpoint".
 * 3. At home, TREE and INTENT records go into the table image, not into the log. An intent that is
 *    set again meanwhile is in the log behind the cut, and is replayed over the table image.
 *
 * A volume that was inactive when the checkpoint began, and has nothing to replay, needs nothing.
 * Its TREE records are true, and what it does from now on is in the log behind the cut. A volume
 * that cannot be opened keeps its changes all the same: its records are committed once more, behind
 * the cut.
 */
#include "base/log.h"
#include "volumes/volumes_impl.h"

#include <stdlib.h>

/* ---- replay ------------------------------------------------------------------------------- */

static struct replay_node *replay_node_of(struct volumes *vs, uint32_t id)
{
    struct hash_node *found = hash_find(&vs->replay, id);
    if (found)
        return container_of(found, struct replay_node, node);
    struct replay_node *n = calloc(1, sizeof(*n));
    if (!n)
        return NULL;
    pool_batch_init(&n->batch);
    hash_add(&vs->replay, &n->node, id);
    return n;
}

static int replay(void *arg, enum pool_record_kind kind, bool is_delete, uint32_t scope,
                  uint64_t key, const void *value, uint32_t len)
{
    struct volumes *vs = arg;
    struct replay_node *n = replay_node_of(vs, scope);
    if (!n)
        return VP_E_NO_MEMORY;
    if (is_delete)
        pool_batch_delete(&n->batch, kind, scope, key);
    else
        pool_batch_set(&n->batch, kind, scope, key, value, len);
    return n->batch.failed ? VP_E_NO_MEMORY : 0;
}

static void replay_node_free(struct hash_node *node, void *arg)
{
    struct volumes *vs = arg;
    struct replay_node *n = container_of(node, struct replay_node, node);
    hash_del(&vs->replay, node);
    pool_batch_fini(&n->batch);
    free(n);
}

void volumes_replay_free(struct volumes *vs)
{
    if (vs->replay.bucket)
        hash_for_each(&vs->replay, replay_node_free, vs);
    hash_fini(&vs->replay);
}

struct handing {
    struct volumes *vs;
    int rc;
};

static void replay_hand_over(struct hash_node *node, void *arg)
{
    struct handing *h = arg;
    struct replay_node *n = container_of(node, struct replay_node, node);
    struct volume *v = volume_find_id(h->vs, (uint32_t)node->key);
    if (!v || v->state == VOLUME_DELETING)
        return;
    v->replay = calloc(1, sizeof(*v->replay));
    if (!v->replay) {
        h->rc = VP_E_NO_MEMORY;
        return;
    }
    *v->replay = n->batch;
    pool_batch_init(&n->batch);
    list_add_tail(&h->vs->replaying, &v->replay_link);
}

int volumes_replay_assign(struct volumes *vs)
{
    struct handing h = {.vs = vs};
    hash_for_each(&vs->replay, replay_hand_over, &h);
    volumes_replay_free(vs);
    return h.rc;
}

/* ---- checkpoint --------------------------------------------------------------------------- */

struct checkpoint_call {
    struct volume *v;
    struct thin_roots roots;
    struct pool_batch intents;
};

static CO int checkpoint_on_reactor(void *arg)
{
    struct checkpoint_call *c = arg;
    struct volume_io *io = c->v->io;
    thin_checkpoint_intents(io->thin, &c->intents);
    int rc = c->intents.failed ? VP_E_NO_MEMORY : thin_checkpoint_pages(io->thin);
    if (!rc)
        rc = volume_io_commit(io);
    c->roots = thin_checkpoint_roots(io->thin);
    return rc;
}

int volume_roots_put(struct volume *v, const struct thin_roots *roots)
{
    int rc = 0;
    for (unsigned i = 0; i < 2 && !rc; i++) {
        uint8_t bytes[THIN_TREE_RECORD_BYTES];
        thin_tree_record(roots->root[i], roots->height[i], bytes);
        rc = pool_record_put_in_table_image(v->vs->pool, POOL_RECORD_TREE, v->id, i, bytes,
                                            sizeof(bytes));
    }
    return rc;
}

static int put_intents(struct volume *v, const struct pool_batch *b)
{
    struct pool_record r;
    size_t at = 0;
    bool is_delete;
    int rc;
    while ((rc = pool_batch_next(b, &at, &r, &is_delete)) == 1) {
        const void *value = is_delete ? NULL : r.value; /* NULL takes the record out */
        rc = pool_record_put_in_table_image(v->vs->pool, POOL_RECORD_INTENT, v->id, r.key, value,
                                            r.len);
        if (rc)
            return rc;
    }
    return rc;
}

/* Not under v->control, whose holder may wait for this very checkpoint. */
static CO int checkpoint_inactive(struct volume *v)
{
    co_mutex_lock(&v->opening);
    int rc = v->replay ? volume_activate_opening(v, NULL, false) : 0;
    if (rc && v->replay) {
        vp_warn("volume %s: its changes stay in the log: %s", volume_full_name(v), vp_err_text(rc));
        rc = pool_commit(v->vs->pool, v->replay);
    }
    co_mutex_unlock(&v->opening);
    return rc;
}

/* v is pinned. */
static CO int checkpoint_one(struct volume *v)
{
    if (v->state == VOLUME_DELETING)
        return volume_delete_pages(v);
    int rc = v->io ? 0 : checkpoint_inactive(v);
    if (rc || !v->io)
        return rc;
    struct checkpoint_call c = {.v = v};
    pool_batch_init(&c.intents);
    rc = reactor_call(v->reactor, checkpoint_on_reactor, &c);
    if (!rc)
        rc = volume_roots_put(v, &c.roots);
    if (!rc)
        rc = put_intents(v, &c.intents);
    pool_batch_fini(&c.intents);
    return rc;
}

/* All volumes that this checkpoint is about. */
static int collect(struct volumes *vs, struct sweep *sweep)
{
    struct volume *v;
    list_for_each (v, &vs->active, active_link) {
        if (v->state != VOLUME_DELETING)
            sweep_add(sweep, v);
    }
    list_for_each (v, &vs->replaying, replay_link) {
        if (v->state != VOLUME_DELETING)
            sweep_add(sweep, v);
    }
    list_for_each (v, &vs->deleting, delete_link) {
        if (v->delete_step == VOLUME_DELETE_PAGES)
            sweep_add(sweep, v);
    }
    return sweep->failed ? VP_E_NO_MEMORY : 0;
}

static CO int checkpoint(void *arg)
{
    struct volumes *vs = arg;
    struct sweep sweep = {0};
    int rc = collect(vs, &sweep);
    int sweep_rc = sweep_run(&sweep, rc ? NULL : checkpoint_one, true);
    return rc ? rc : sweep_rc;
}

struct failed_call {
    struct thin_cache *cache;
    int rc;
};

static int failed_on_reactor(void *arg)
{
    const struct failed_call *c = arg;
    thin_cache_checkpoint_failed(c->cache, c->rc);
    return 0;
}

static CO void checkpoint_failed(void *arg, int rc)
{
    struct volumes *vs = arg;
    for (unsigned i = 0; i < vs->slots; i++) {
        struct failed_call c = {vs->slot[i].cache, rc};
        vp_ignore(reactor_call(vs->slot[i].reactor, failed_on_reactor, &c), "nobody waits there");
    }
}

struct pool_client volumes_client(struct volumes *vs)
{
    return (struct pool_client){
        .arg = vs,
        .replay = replay,
        .checkpoint = checkpoint,
        .checkpoint_failed = checkpoint_failed,
    };
}
