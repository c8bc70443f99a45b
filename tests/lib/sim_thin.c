/* See sim_thin.h. */
#include "tests/lib/sim_thin.h"

#include "base/verify.h"
#include "tests/lib/on_reactor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VOLUME = 1 };

static void config_complete(struct sim_thin_config *c)
{
    c->disks = c->disks ? c->disks : 2;
    c->disk_bytes = c->disk_bytes ? c->disk_bytes : 64 << 20;
    c->profile = c->profile ? c->profile : "single";
    c->geometry.chunk_bytes = c->geometry.chunk_bytes ? c->geometry.chunk_bytes : 64 << 10;
    c->geometry.extent_bytes = c->geometry.extent_bytes ? c->geometry.extent_bytes : 1 << 20;
    c->geometry.log_segment_bytes =
        c->geometry.log_segment_bytes ? c->geometry.log_segment_bytes : 64 << 10;
    c->volume_blocks = c->volume_blocks ? c->volume_blocks : 4096;
    c->cache_bytes = c->cache_bytes ? c->cache_bytes : 1 << 20;
}

struct sim_thin *sim_thin_new(const struct sim_thin_config *config)
{
    struct sim_thin *st = calloc(1, sizeof(*st));
    VP_VERIFY(st, !=, NULL);
    st->config = *config;
    config_complete(&st->config);
    st->world = sim_world_new(config->seed);
    for (unsigned i = 0; i < st->config.disks; i++) {
        (void)snprintf(st->name[i], sizeof(st->name[i]), "d%u", i);
        struct sim_disk_config d = {
            .name = st->name[i],
            .size_bytes = st->config.disk_bytes,
            .sector_bytes = 4096,
            .atomic_bytes = 4096,
            .write_cache = true,
            .can_discard = st->config.discard,
            .latency_min_ns = 1000,
            .latency_max_ns = 100000,
        };
        (void)sim_disk_add(st->world, &d);
    }
    pool_batch_init(&st->replay);
    pool_batch_init(&st->intents);
    return st;
}

void sim_thin_free(struct sim_thin *st)
{
    pool_batch_fini(&st->replay);
    pool_batch_fini(&st->intents);
    sim_world_free(st->world);
    free(st);
}

struct sim_disk *sim_thin_disk(struct sim_thin *st, unsigned i)
{
    return sim_disk_find(st->world, st->name[i]);
}

static void run_body(void *arg)
{
    struct sim_thin *st = arg;
    st->body(st, st->arg);
    sim_thin_abandon(st);
}

void sim_thin_run(struct sim_thin *st, void (*body)(struct sim_thin *st, void *arg), void *arg)
{
    struct reactor_config config = {.sim = st->world, .buffer_bytes = 8 << 20};
    st->body = body;
    st->arg = arg;
    on_reactor(&config, run_body, st);
    sim_thin_abandon(st); /* the world may have stopped in the middle of the body */
}

void sim_thin_power_cut(struct sim_thin *st, uint64_t seed)
{
    struct sim_snapshot *s = sim_snapshot_take(st->world);
    unsigned n = sim_snapshot_pending(s);
    struct sim_choice *choice = calloc(n + 1, sizeof(*choice));
    VP_VERIFY(choice, !=, NULL);
    for (unsigned i = 0; i < n; i++) {
        choice[i].fate = (enum sim_fate)sim_below(st->world, 3);
        choice[i].units = sim_random(st->world);
    }
    struct sim_world *next = sim_world_from_snapshot(s, choice, seed);
    sim_snapshot_free(s);
    sim_world_free(st->world);
    free(choice);
    st->world = next;
}

/* ---- what volumes/ does -------------------------------------------------------------------- */

static int client_replay(void *arg, enum pool_record_kind kind, bool is_delete, uint32_t scope,
                         uint64_t key, const void *value, uint32_t len)
{
    struct sim_thin *st = arg;
    if (is_delete)
        pool_batch_delete(&st->replay, kind, scope, key);
    else
        pool_batch_set(&st->replay, kind, scope, key, value, len);
    return st->replay.failed ? VP_E_NO_MEMORY : 0;
}

static int roots_put(struct sim_thin *st)
{
    struct thin_roots roots = thin_checkpoint_roots(st->thin);
    int rc = 0;
    for (unsigned i = 0; i < 2 && !rc; i++) {
        uint8_t r[THIN_TREE_RECORD_BYTES];
        thin_tree_record(roots.root[i], roots.height[i], r);
        rc = pool_record_put_in_table_image(st->pool, POOL_RECORD_TREE, VOLUME, i, r, sizeof(r));
    }
    return rc;
}

static int intents_put(struct sim_thin *st, const struct pool_batch *b)
{
    struct pool_record r;
    bool is_delete;
    size_t at = 0;
    int rc;
    while ((rc = pool_batch_next(b, &at, &r, &is_delete)) == 1) {
        rc = pool_record_put_in_table_image(st->pool, (enum pool_record_kind)r.kind, r.scope, r.key,
                                            is_delete ? NULL : r.value, r.len);
        if (rc)
            break;
    }
    return rc;
}

static int client_checkpoint(void *arg)
{
    struct sim_thin *st = arg;
    if (!st->thin)
        return 0;
    pool_batch_clear(&st->intents);
    int rc = thin_checkpoint_pages(st->thin);
    if (!rc) {
        thin_checkpoint_intents(st->thin, &st->intents);
        rc = thin_commit(st->thin);
    }
    if (!rc)
        rc = roots_put(st);
    if (!rc)
        rc = intents_put(st, &st->intents);
    st->checkpoints += !rc;
    return rc;
}

static int gather(const struct pool_record *r, void *arg)
{
    pool_batch_set(arg, (enum pool_record_kind)r->kind, r->scope, r->key, r->value, r->len);
    return 0;
}

static CO int volume_open(struct sim_thin *st, bool fresh)
{
    struct thin_config c = {
        .pool = st->pool,
        .cache = st->cache,
        .id = VOLUME,
        .size_blocks = st->config.volume_blocks,
        .profile = pool_default_profile(st->pool),
        .reserve_bytes = st->config.reserve_bytes,
        .discard_devices = st->config.discard,
    };
    struct pool_batch table;
    pool_batch_init(&table);
    static const enum pool_record_kind kinds[] = {POOL_RECORD_TREE, POOL_RECORD_STAT,
                                                  POOL_RECORD_INTENT, POOL_RECORD_COUNTER};
    for (unsigned i = 0; i < 4; i++)
        VP_VERIFY(pool_record_each(st->pool, kinds[i], gather, &table), ==, 0);
    struct thin_state state = {.table = &table, .replay = &st->replay};
    int rc = table.failed ? VP_E_NO_MEMORY : thin_open(&c, fresh ? NULL : &state, &st->thin);
    pool_batch_fini(&table);
    pool_batch_clear(&st->replay);
    return rc;
}

CO int sim_thin_create(struct sim_thin *st)
{
    const char *paths[SIM_THIN_DISKS_MAX];
    struct vp_error err = {0};
    struct pool_create_options o = {.name = "p", .geometry = st->config.geometry, .force = true};
    VP_VERIFY_TRUE(raid_profile_parse(st->config.profile, &o.profile));
    for (unsigned i = 0; i < st->config.disks; i++)
        paths[i] = st->name[i];
    int rc = pool_create(&o, paths, st->config.disks, &st->pool, &err);
    if (rc) {
        (void)fprintf(stderr, "create: %s\n", err.text);
        return rc;
    }
    struct pool_client client = {
        .arg = st, .replay = client_replay, .checkpoint = client_checkpoint};
    pool_set_client(st->pool, &client);
    rc = thin_cache_new(st->config.cache_bytes, &st->cache);
    return rc ? rc : volume_open(st, true);
}

static CO int pool_and_volume_open(struct sim_thin *st)
{
    const char *paths[SIM_THIN_DISKS_MAX];
    struct vp_error err = {0};
    struct pool_client client = {
        .arg = st, .replay = client_replay, .checkpoint = client_checkpoint};
    for (unsigned i = 0; i < st->config.disks; i++)
        paths[i] = st->name[i];
    int rc = pool_import(paths, st->config.disks, 0, &client, &st->pool, &err);
    if (rc) {
        (void)fprintf(stderr, "import: %s\n", err.text);
        return rc;
    }
    rc = thin_cache_new(st->config.cache_bytes, &st->cache);
    return rc ? rc : volume_open(st, false);
}

CO int sim_thin_import(struct sim_thin *st)
{
    int rc = pool_and_volume_open(st);
    if (rc)
        sim_thin_abandon(st);
    return rc;
}

CO int sim_thin_close(struct sim_thin *st)
{
    int rc = thin_commit(st->thin);
    /* Twice: what is still marked as touched is quiet in the second one. */
    int rc2 = rc ? rc : pool_checkpoint(st->pool);
    int rc3 = rc2 ? rc2 : pool_checkpoint(st->pool);
    thin_quiesce(st->thin);
    thin_close(st->thin);
    st->thin = NULL;
    int rc4 = pool_close(st->pool, false);
    st->pool = NULL;
    thin_cache_free(st->cache);
    st->cache = NULL;
    return rc3 ? rc3 : rc4;
}

void sim_thin_abandon(struct sim_thin *st)
{
    if (reactor_self() && st->pool) /* else their coroutines are gone already */
        pool_checkpoints_stop(st->pool);
    if (reactor_self() && st->thin)
        thin_quiesce(st->thin);
    thin_close(st->thin);
    st->thin = NULL;
    if (st->pool)
        pool_abandon(st->pool);
    st->pool = NULL;
    thin_cache_free(st->cache);
    st->cache = NULL;
    pool_batch_clear(&st->replay);
}
