/* Opening a volume from its records, resizing, closing. */
#include <stdlib.h>
#include <string.h>

#include "thin/thin_impl.h"

static int thin_new(const struct thin_config *config, struct thin **out)
{
    struct pool_geometry g = pool_geometry(config->pool);
    struct thin *t = calloc(1, sizeof(*t));
    if (!t)
        return VP_E_NO_MEMORY;
    t->config = *config;
    t->pool = config->pool;
    t->cache = config->cache;
    t->id = config->id;
    t->chunk_bytes = g.chunk_bytes;
    t->layout = thin_map_layout_make(g.chunk_bytes);
    t->chunk_blocks = t->layout.chunk_blocks;
    t->chunk_shift = (unsigned)__builtin_ctz(t->chunk_blocks);
    t->size_blocks = config->size_blocks;
    t->generation = 1;
    t->resync_chunk.n = UINT64_MAX;
    thin_tree_init(&t->map, t, POOL_TREE_MAP, t->layout.entry_bytes);
    thin_tree_init(&t->space_tree, t, POOL_TREE_SPACE, sizeof(struct thin_space_entry_disk));
    co_queue_init(&t->commit_queue);
    co_queue_init(&t->resync_queue);
    co_queue_init(&t->users_left);
    co_mutex_init(&t->adopt_lock);
    pool_batch_init(&t->batch);
    int rc = thin_chunks(t) > THIN_KEY_MAX ? VP_E_TOO_BIG : thin_intents_init(t);
    if (!rc)
        rc = thin_space_init(t);
    if (!rc && !hash_init(&t->active, 64))
        rc = VP_E_NO_MEMORY;
    if (rc) {
        thin_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

/* What was not committed never will be. */
static void records_forget(struct thin *t)
{
    pool_meta_dirty_add(t->pool, -(int64_t)(t->uncommitted_pages + t->batch_pages));
    t->uncommitted_pages = t->batch_pages = t->uncommitted_bytes = 0;
}

void thin_close(struct thin *t)
{
    if (!t)
        return;
    /* After a simulated power cut coroutines were abandoned in the middle of anything: what they
     * had on their stacks is not looked at. */
    thin_space_fini(t);
    thin_tree_fini(&t->map);
    thin_tree_fini(&t->space_tree);
    t->cache->wanted_pages -= t->wanted_pages;
    records_forget(t);
    thin_intents_fini(t);
    if (t->active.bucket)
        hash_fini(&t->active);
    pool_batch_fini(&t->batch);
    pool_keep_close(t->keep);
    free(t->adopt_buf);
    free(t->pass_buf);
    free(t);
}

/* ---- records ------------------------------------------------------------------------------- */

static int stat_load(struct thin *t, const struct pool_record *r)
{
    struct thin_stat_record_disk s;
    if (r->len != sizeof(s))
        return VP_E_RECORD_BAD;
    memcpy(&s, r->value, sizeof(s));
    figure_put(&t->figures.allocated_chunks, le64_get(s.allocated_chunks));
    figure_put(&t->figures.valid_blocks, le64_get(s.valid_blocks));
    if (le64_get(s.generation) == 0 || le64_get(s.generation) > THIN_GENERATION_MASK)
        return VP_E_RECORD_BAD;
    t->generation = (uint32_t)le64_get(s.generation);
    return 0;
}

static int counter_load(struct thin *t, const struct pool_record *r)
{
    struct le64 number;
    if (r->len != sizeof(number))
        return VP_E_RECORD_BAD;
    memcpy(&number, r->value, sizeof(number));
    if (r->key == POOL_COUNTER_COMMITS)
        t->commit_number = le64_get(number);
    return 0;
}

static int table_record_load(struct thin *t, const struct pool_record *r)
{
    switch (r->kind) {
    case POOL_RECORD_TREE:
        if (r->key > POOL_TREE_SPACE)
            return VP_E_RECORD_BAD;
        return thin_tree_load(r->key == POOL_TREE_MAP ? &t->map : &t->space_tree, r->value, r->len);
    case POOL_RECORD_STAT:
        return stat_load(t, r);
    case POOL_RECORD_INTENT:
        return thin_intents_load(t, r->key, r->value, r->len);
    case POOL_RECORD_COUNTER:
        return counter_load(t, r);
    default:
        return 0;
    }
}

/*
 * A MAP or SPACE record of the log: absolute, and in the log already, so not to be committed again.
 * Keys may lie behind the end of a volume that shrank later. That an entry makes sense is checked
 * where it is used: in between it may have named an arena that was given back later.
 */
static CO int replay_apply(struct thin *t, const struct pool_record *r, bool is_delete)
{
    struct thin_tree *tree = r->kind == POOL_RECORD_MAP ? &t->map : &t->space_tree;
    if (r->kind != POOL_RECORD_MAP && r->kind != POOL_RECORD_SPACE)
        return VP_E_RECORD_BAD;
    if (r->key >= THIN_KEY_MAX || (!is_delete && r->len != tree->entry_bytes))
        return VP_E_MAP_BAD;
    struct thin_page *leaf;
    uint8_t entry[POOL_PAGE]; /* the value is borrowed until we wait */
    if (!is_delete)
        memcpy(entry, r->value, r->len);
    else
        memset(entry, 0, tree->entry_bytes);
    int rc = thin_tree_get(tree, r->key, !is_delete, &leaf);
    if (rc || !leaf)
        return rc;
    memcpy(thin_leaf_entry(leaf, r->key), entry, tree->entry_bytes);
    thin_leaf_changed(leaf, r->key, true);
    thin_page_unpin(leaf);
    return 0;
}

static CO int state_load(struct thin *t, const struct thin_state *state)
{
    struct pool_record r;
    bool is_delete;
    size_t at = 0;
    int rc = 0;
    while (!rc && state->table && (rc = pool_batch_next(state->table, &at, &r, &is_delete)) == 1)
        rc = r.scope == t->id && !is_delete ? table_record_load(t, &r) : 0;
    at = 0;
    while (!rc && state->replay && (rc = pool_batch_next(state->replay, &at, &r, &is_delete)) == 1)
        rc = r.scope == t->id ? replay_apply(t, &r, is_delete) : 0;
    return rc;
}

CO int thin_open(const struct thin_config *config, const struct thin_state *state,
                 struct thin **out)
{
    struct thin *t;
    int rc = thin_new(config, &t);
    if (rc)
        return rc;
    if (state)
        rc = state_load(t, state);
    if (!rc)
        rc = pool_keep_open(t->pool, t->id, t->layout.entry_bytes, t->commit_number, &t->keep);
    if (!rc)
        rc = thin_space_open(t, state == NULL);
    if (rc) {
        thin_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

/* ---- the rest ------------------------------------------------------------------------------ */

CO int thin_resize(struct thin *t, uint64_t size_blocks)
{
    if (div_up(size_blocks, t->chunk_blocks) > THIN_KEY_MAX)
        return VP_E_TOO_BIG;
    int rc = thin_intents_resize(t, div_up(size_blocks, t->chunk_blocks));
    if (rc)
        return rc;
    t->size_blocks = size_blocks;
    if (t->wanted_pages)
        thin_cache_take(t);
    return 0;
}

CO int thin_destroy_pages(struct thin *t)
{
    /* Nothing of the volume is to be remembered: neither its arenas, nor what is not committed. */
    thin_space_fini(t);
    memset(&t->space, 0, sizeof(t->space));
    figure_put(&t->figures.leased_arenas, 0);
    int rc = thin_space_init(t);
    int map_rc = thin_tree_destroy(&t->map);
    int space_rc = thin_tree_destroy(&t->space_tree);
    pool_batch_clear(&t->batch);
    records_forget(t);
    t->stat_changed = t->stat_unkept = false;
    return rc ? rc : map_rc ? map_rc : space_rc;
}

static const struct figure rows[] = {
#define FIGURE(...) FIGURE_ROW(struct thin_figures, __VA_ARGS__)
#include "thin/figures.def"
};
const struct figure_set thin_figure_set = {"map", rows, sizeof(rows) / sizeof(rows[0])};

const struct thin_figures *thin_figures(const struct thin *t)
{
    return &t->figures;
}

uint64_t thin_region_bytes(const struct thin *t)
{
    return (uint64_t)THIN_REGION_CHUNKS * t->chunk_bytes;
}
