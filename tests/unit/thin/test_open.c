/* What a volume makes of records and pages that are damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/lib/block_model.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_thin.h"
#include "thin/thin_format.h"

static struct block_model model;

static void run(void (*body)(struct sim_thin *st, void *arg))
{
    struct sim_thin_config c = {.seed = 5};
    struct sim_thin *st = sim_thin_new(&c);
    block_model_init(&model, st->config.volume_blocks);
    sim_thin_run(st, body, NULL);
    block_model_fini(&model);
    sim_thin_free(st);
    assert_checked();
}

/* Opens volume 2 from the records, closes it, returns what opening gave. */
static CO int open_with(struct sim_thin *st, const struct pool_batch *table,
                        const struct pool_batch *replay, struct thin **out)
{
    struct thin_config c = {.pool = st->pool,
                            .cache = st->cache,
                            .id = 2,
                            .size_blocks = 4096,
                            .profile = pool_default_profile(st->pool)};
    struct thin_state state = {.table = table, .replay = replay};
    struct thin *t = NULL;
    int rc = thin_open(&c, &state, &t);
    if (out) {
        *out = t;
    } else if (t) {
        thin_quiesce(t);
        thin_close(t);
    }
    return rc;
}

static CO int open_record(struct sim_thin *st, enum pool_record_kind kind, uint64_t key,
                          const void *value, size_t len)
{
    struct pool_batch b;
    pool_batch_init(&b);
    pool_batch_set(&b, kind, 2, key, value, len);
    bool log = kind >= POOL_RECORD_TABLE_MAX;
    int rc = open_with(st, log ? NULL : &b, log ? &b : NULL, NULL);
    pool_batch_fini(&b);
    return rc;
}

static void bad_records_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    uint8_t bytes[4096] = {0};
    struct thin_tree_record_disk tree = {.height = 8, .root.addr = le64_make(4711)};
    struct thin_stat_record_disk stat = {.generation = le64_make(0)};
    if (!check_ok(sim_thin_create(st)))
        return;
    check_equal(open_record(st, POOL_RECORD_TREE, 0, &tree, sizeof(tree)), VP_E_MAP_TOO_DEEP);
    tree.height = 0;
    check_equal(open_record(st, POOL_RECORD_TREE, 0, &tree, sizeof(tree)), VP_E_MAP_BAD);
    tree.height = 1;
    check_equal(open_record(st, POOL_RECORD_TREE, 0, &tree, 23), VP_E_MAP_BAD);
    check_equal(open_record(st, POOL_RECORD_TREE, 7, &tree, sizeof(tree)), VP_E_RECORD_BAD);
    check_equal(open_record(st, POOL_RECORD_STAT, 0, &stat, sizeof(stat)), VP_E_RECORD_BAD);
    check_equal(open_record(st, POOL_RECORD_STAT, 0, &stat, 3), VP_E_RECORD_BAD);
    check_equal(open_record(st, POOL_RECORD_INTENT, 0, bytes, 7), VP_E_RECORD_BAD);
    check_equal(open_record(st, POOL_RECORD_INTENT, UINT64_MAX, bytes, 8), 0);
    check_equal(open_record(st, POOL_RECORD_MAP, 0, bytes, 83), VP_E_MAP_BAD);
    check_equal(open_record(st, POOL_RECORD_MAP, 0, bytes, 4096), VP_E_MAP_BAD);
    check_equal(open_record(st, POOL_RECORD_MAP, UINT64_MAX, bytes, 84), VP_E_MAP_BAD);
    check_equal(open_record(st, POOL_RECORD_SPACE, UINT64_C(1) << 44, bytes, 8), VP_E_MAP_BAD);
    check_equal(open_record(st, POOL_RECORD_SPACE, (UINT64_C(1) << 44) - 1, bytes, 8), 0);
    check_equal(open_record(st, POOL_RECORD_MAP, 1 << 30, bytes, 84), 0); /* it shrank later */
}

static void records_that_do_not_decode_are_refused(void **state)
{
    (void)state;
    run(bad_records_body);
}

static void wild_chunk_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    uint8_t entry[84];
    struct pool_batch b;
    struct thin *t;
    if (!check_ok(sim_thin_create(st)))
        return;
    pool_batch_init(&b);
    for (uint64_t i = 0; i < 4; i++) {
        static const uint64_t wild[] = {1, 63, UINT64_C(1) << 40, UINT64_MAX};
        memset(entry, 0xff, sizeof(entry));
        memcpy(entry, &wild[i], 8);
        pool_batch_set(&b, POOL_RECORD_MAP, 2, i, entry, sizeof(entry));
    }
    check_ok(open_with(st, NULL, &b, &t));
    block_fill(model.buf, 1, 0);
    for (uint64_t i = 0; i < 4 && t; i++) {
        check_equal(thin_read(t, i * 16 + 3, 1, model.buf), VP_E_MAP_BAD);
        check_equal(thin_write(t, i * 16 + 3, 1, model.buf), VP_E_MAP_BAD);
        check_equal(thin_zero(t, i * 16, 16, false), VP_E_MAP_BAD);
    }
    check_ok(thin_write(t, 64, 1, model.buf)); /* the next chunk is fine */
    check_ok(thin_read(t, 64, 1, model.buf));
    thin_quiesce(t);
    thin_close(t);
    pool_batch_fini(&b);
}

static void a_map_entry_that_names_no_chunk_is_an_error_of_its_blocks(void **state)
{
    (void)state;
    run(wild_chunk_body);
}

/* Calls fn for each copy of a leaf of the map on any disk. */
static unsigned leaves_each(struct sim_thin *st, uint64_t index,
                            void (*fn)(struct sim_disk *d, uint64_t at))
{
    unsigned n = 0;
    for (unsigned d = 0; d < st->config.disks; d++) {
        for (uint64_t at = 0; at < st->config.disk_bytes; at += POOL_PAGE) {
            struct thin_page_header h;
            sim_disk_peek(sim_thin_disk(st, d), at, &h, sizeof(h));
            if (le32_get(h.magic) != THIN_PAGE_MAGIC || h.tree != POOL_TREE_MAP || h.level ||
                le64_get(h.index) != index)
                continue;
            fn(sim_thin_disk(st, d), at);
            n++;
        }
    }
    return n;
}

static void flip(struct sim_disk *d, uint64_t at)
{
    sim_disk_flip_bit(d, at + 100, 1);
}

static void damaged_leaf_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 0, 16));
    check_ok(block_model_write(&model, st->thin, 48 * 16, 16));
    check_ok(sim_thin_close(st));
    check(leaves_each(st, 0, flip) >= 2);
    if (!check_ok(sim_thin_import(st)))
        return;
    check_equal(thin_read(st->thin, 0, 1, model.buf), VP_E_PAGE_DAMAGED);
    check_equal(thin_write(st->thin, 0, 1, model.buf), VP_E_PAGE_DAMAGED);
    check_equal(thin_zero(st->thin, 0, 1, false), VP_E_PAGE_DAMAGED);
    check_ok(thin_read(st->thin, 48 * 16, 16, model.buf));
    check_ok(thin_commit(st->thin));
    check_ok(pool_checkpoint(st->pool));
}

static void a_damaged_leaf_is_an_error_of_its_blocks(void **state)
{
    (void)state;
    run(damaged_leaf_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_that_do_not_decode_are_refused),
        cmocka_unit_test(a_map_entry_that_names_no_chunk_is_an_error_of_its_blocks),
        cmocka_unit_test(a_damaged_leaf_is_an_error_of_its_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
