/* Data of a thin volume against a plain array, for all chunk sizes and profiles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "tests/lib/block_model.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_thin.h"

static uint64_t seed_get(void)
{
    const char *s = getenv("SEED");
    return s ? strtoull(s, NULL, 0) : 20261123;
}

static struct block_model model;

static void check_audit(struct thin *t)
{
    struct thin_audit a;
    check_ok(thin_check(t, &a));
    check_equal(a.doubled, 0);
    check_equal(a.leaked, 0);
    check_equal(a.unmarked, 0);
    check_equal(a.mapped, figure_get(&thin_figures(t)->allocated_chunks));
    uint64_t valid = 0;
    for (uint64_t i = 0; i < model.blocks; i++)
        valid += model.now[i] != 0;
    check_equal(valid, figure_get(&thin_figures(t)->valid_blocks));
}

/* Random writes, zeros and commits. */
static CO void churn(struct sim_thin *st, unsigned ops)
{
    for (unsigned i = 0; i < ops; i++) {
        uint64_t r = sim_random(st->world);
        unsigned count = 1 + (unsigned)(r >> 8) % (r & 64 ? BLOCK_MODEL_IO_MAX : 4);
        uint64_t block = (r >> 20) % (model.blocks - count + 1);
        int rc = 0;
        switch (r % 10) {
        case 0:
            rc = block_model_commit(&model, st->thin);
            break;
        case 1:
        case 2:
            rc = block_model_zero(&model, st->thin, block, count, false);
            break;
        case 3:
            rc = block_model_zero(&model, st->thin, block, count, true);
            break;
        default:
            rc = block_model_write(&model, st->thin, block, count);
        }
        check_ok(rc);
    }
}

static void churn_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_equal(block_model_compare(&model, st->thin), 0);
    churn(st, 400);
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
    check_ok(sim_thin_close(st));
    if (!check_ok(sim_thin_import(st)))
        return;
    check_equal(figure_get(&thin_figures(st->thin)->regions_to_resync), 0);
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
    churn(st, 200);
    check_ok(block_model_commit(&model, st->thin));
    sim_thin_abandon(st);
    if (!check_ok(sim_thin_import(st)))
        return;
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
    check_ok(sim_thin_close(st));
}

static void run(const struct sim_thin_config *config, void (*body)(struct sim_thin *st, void *arg))
{
    struct sim_thin *st = sim_thin_new(config);
    block_model_init(&model, st->config.volume_blocks);
    sim_thin_run(st, body, NULL);
    block_model_fini(&model);
    sim_thin_free(st);
    if (check_failures()) {
        print_message("again: SEED=%" PRIu64 "\n", config->seed);
        fail();
    }
}

static void reads_give_what_was_written_for_every_chunk_size(void **state)
{
    (void)state;
    for (uint32_t chunk = 16 << 10; chunk <= 1 << 20; chunk *= 2) {
        struct sim_thin_config c = {
            .seed = seed_get(), .disks = 3, .geometry.chunk_bytes = chunk, .volume_blocks = 3000};
        run(&c, churn_body);
    }
}

static void reads_give_what_was_written_on_mirrors(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = seed_get(), .disks = 3, .profile = "mirror:2"};
    run(&c, churn_body);
}

static void reads_give_what_was_written_on_devices_with_discard(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = seed_get(), .discard = true};
    run(&c, churn_body);
}

/* ---- several requests at once --------------------------------------------------------------- */

struct worker {
    struct sim_thin *st;
    struct co_group *group;
    unsigned index, of;
    uint64_t seed;
};

/* Each owns every n-th run of 5 blocks, so that all share chunks and nobody shares blocks. */
static void worker(void *arg)
{
    struct worker *w = arg;
    uint8_t *buf = aligned_alloc(POOL_BLOCK, (size_t)5 * POOL_BLOCK);
    uint64_t r = w->seed;
    for (unsigned i = 0; i < 120; i++) {
        r = hash_mix(r + i);
        uint64_t run_no = (r >> 8) % (model.blocks / 5 / w->of) * w->of + w->index;
        uint64_t block = run_no * 5, seq = ++model.seq;
        if (r % 8 == 0) {
            check_ok(thin_commit(w->st->thin));
            continue;
        }
        int rc;
        bool zero = r % 8 < 4;
        for (unsigned k = 0; k < 5; k++)
            block_fill(buf + (size_t)k * POOL_BLOCK, seq, block + k);
        rc =
            zero ? thin_zero(w->st->thin, block, 5, false) : thin_write(w->st->thin, block, 5, buf);
        check_ok(rc);
        for (unsigned k = 0; k < 5; k++)
            model.now[block + k] = zero ? 0 : seq;
    }
    free(buf);
    co_group_leave(w->group, 0);
}

static void concurrent_body(struct sim_thin *st, void *arg)
{
    enum { WORKERS = 16 };
    (void)arg;
    struct worker w[WORKERS];
    struct co_group g;
    if (!check_ok(sim_thin_create(st)))
        return;
    co_group_init(&g);
    for (unsigned i = 0; i < WORKERS; i++) {
        w[i] = (struct worker){st, &g, i, WORKERS, sim_random(st->world)};
        co_group_enter(&g);
        check_ok(co_spawn(worker, &w[i], "worker"));
    }
    for (unsigned i = 0; i < 6; i++)
        check_ok(pool_checkpoint(st->pool));
    check_ok(co_group_wait(&g));
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
    check_ok(thin_commit(st->thin));
    sim_thin_abandon(st);
    if (!check_ok(sim_thin_import(st)))
        return;
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
}

static void requests_that_share_chunks_do_not_disturb_each_other_or_checkpoints(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct sim_thin_config c = {.seed = seed_get() + i, .disks = 3, .volume_blocks = 1600};
        c.profile = i % 2 ? "mirror:2" : "single";
        run(&c, concurrent_body);
    }
}

static void the_same_with_a_cache_that_is_much_too_small(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct sim_thin_config c = {.seed = seed_get() + i,
                                    .disks = 3,
                                    .volume_blocks = 48 * 16 * 200,
                                    .cache_bytes = 64 * 4096,
                                    .disk_bytes = 256 << 20};
        run(&c, concurrent_body);
    }
}

/* ---- group commit --------------------------------------------------------------------------- */

struct committer {
    struct sim_thin *st;
    struct co_group *group;
    uint64_t block;
    uint8_t buf[POOL_BLOCK] __attribute__((aligned(4096)));
};

static void committer(void *arg)
{
    struct committer *c = arg;
    uint64_t before = figure_get(&thin_figures(c->st->thin)->commits);
    check_ok(block_model_write_from(&model, c->st->thin, c->block, 1, c->buf));
    check_ok(thin_commit(c->st->thin));
    check(figure_get(&thin_figures(c->st->thin)->commits) > before);
    co_group_leave(c->group, 0);
}

static void group_commit_body(struct sim_thin *st, void *arg)
{
    enum { COMMITTERS = 64 };
    static struct committer c[COMMITTERS];
    struct co_group g;
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 0, COMMITTERS));
    check_ok(thin_commit(st->thin));
    uint64_t before = figure_get(&thin_figures(st->thin)->commits);
    co_group_init(&g);
    for (unsigned i = 0; i < COMMITTERS; i++) {
        c[i].st = st;
        c[i].group = &g;
        c[i].block = i;
        co_group_enter(&g);
        check_ok(co_spawn(committer, &c[i], "committer"));
    }
    check_ok(co_group_wait(&g));
    check(figure_get(&thin_figures(st->thin)->commits) - before <= COMMITTERS / 4);
    before = figure_get(&thin_figures(st->thin)->commits);
    check_ok(thin_commit(st->thin)); /* nothing to do */
    check_equal(figure_get(&thin_figures(st->thin)->commits), before);
    sim_thin_abandon(st);
    if (check_ok(sim_thin_import(st)))
        check_equal(block_model_compare(&model, st->thin), 0);
}

static void commits_that_come_together_share_one(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = seed_get()};
    run(&c, group_commit_body);
}

/* ---- extents -------------------------------------------------------------------------------- */

static void extents_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    struct thin_extent x[8];
    unsigned n;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 20, 8));
    check_ok(thin_extents(st->thin, 0, 4096, x, 8, &n));
    check_equal(n, 5);
    check(x[0].count == 16 && !x[0].allocated && x[0].zero);
    check(x[1].count == 4 && x[1].allocated && x[1].zero);
    check(x[2].block == 20 && x[2].count == 8 && x[2].allocated && !x[2].zero);
    check(x[3].count == 4 && x[3].allocated && x[3].zero);
    check(x[4].block == 32 && x[4].count == 4096 - 32 && !x[4].allocated);
    check_ok(thin_extents(st->thin, 21, 4, x, 8, &n));
    check(n == 1 && x[0].block == 21 && x[0].count == 4 && !x[0].zero);
    check_ok(thin_extents(st->thin, 0, 4096, x, 2, &n));
    check_equal(n, 2);
    check_equal(thin_extents(st->thin, 4090, 7, x, 2, &n), VP_E_RANGE);
}

static void extents_tell_holes_from_zeros_from_data(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = seed_get()};
    run(&c, extents_body);
}

/* ---- the cache ------------------------------------------------------------------------------ */

static void sparse_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    enum { STEP = 48 * 16, SPOTS = 400 };
    uint8_t *buf = aligned_alloc(POOL_BLOCK, POOL_BLOCK),
            *back = aligned_alloc(POOL_BLOCK, POOL_BLOCK);
    if (!check_ok(sim_thin_create(st)))
        return;
    /* One block in each leaf of the map: many more leaves than the cache may hold. */
    for (uint64_t i = 0; i < SPOTS; i++) {
        block_fill(buf, i + 1, i * STEP);
        check_ok(thin_write(st->thin, i * STEP, 1, buf));
    }
    struct thin_cache_stats s = thin_cache_stats(st->cache);
    check(s.pages <= s.limit_pages + 8);
    check(st->checkpoints > 0);
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t i = 0; i < SPOTS; i++) {
            block_fill(buf, i + 1, i * STEP);
            check_ok(thin_read(st->thin, i * STEP, 1, back));
            check(memcmp(buf, back, POOL_BLOCK) == 0);
        }
        if (round == 0) {
            check_ok(sim_thin_close(st));
            if (!check_ok(sim_thin_import(st)))
                return;
        }
    }
    s = thin_cache_stats(st->cache);
    check(s.evictions > 0 && s.pages <= s.limit_pages + 8);
    struct thin_audit a;
    check_ok(thin_check(st->thin, &a));
    check(a.mapped == SPOTS && !a.leaked && !a.doubled && !a.unmarked);
    /* All of it away again: the pages go as well. */
    check_ok(thin_zero(st->thin, 0, st->config.volume_blocks, false));
    check_ok(thin_commit(st->thin));
    check_ok(pool_checkpoint(st->pool));
    check_equal(figure_get(&thin_figures(st->thin)->allocated_chunks), 0);
    struct thin_roots roots = thin_checkpoint_roots(st->thin);
    check(roots.height[0] == 0 && roots.root[0].addr == 0);
    check(roots.height[1] == 0 && roots.root[1].addr == 0);
    free(buf);
    free(back);
}

static void a_map_much_larger_than_the_cache_works_and_shrinks(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = seed_get(),
                                .volume_blocks = 48 * 16 * 400,
                                .cache_bytes = 64 * 4096,
                                .disk_bytes = 128 << 20};
    run(&c, sparse_body);
}

static void destroy_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    struct pool_space before, after;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(pool_checkpoint(st->pool));
    check_ok(pool_checkpoint(st->pool));
    pool_space_get(st->pool, &before);
    for (uint64_t i = 0; i < 300; i++)
        check_ok(block_model_write(&model, st->thin, i * 48 * 16, 1));
    check_ok(thin_commit(st->thin));
    check_ok(pool_checkpoint(st->pool));
    pool_space_get(st->pool, &after);
    check(after.meta_pages_used >= before.meta_pages_used + 300);
    check_ok(pool_arena_return_all(st->pool, 1));
    check_ok(thin_destroy_pages(st->thin));
    thin_close(st->thin);
    st->thin = NULL;
    check_ok(pool_checkpoint(st->pool));
    check_ok(pool_checkpoint(st->pool));
    pool_space_get(st->pool, &after);
    check(after.meta_pages_used <= before.meta_pages_used);
    check_equal(after.leased_bytes, 0);
}

static void a_deleted_volume_gives_every_page_back(void **state)
{
    (void)state;
    struct sim_thin_config c = {
        .seed = seed_get(), .volume_blocks = 48 * 16 * 300, .cache_bytes = 64 * 4096};
    run(&c, destroy_body);
}

static void resize_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 90, 10));
    check_equal(thin_write(st->thin, 95, 6, model.buf), VP_E_RANGE);
    uint64_t far = UINT64_C(1) << 34;
    check_ok(thin_resize(st->thin, far + 100));
    block_fill(model.buf, 7, far);
    check_ok(thin_write(st->thin, far, 1, model.buf));
    check_ok(thin_commit(st->thin));
    check_ok(pool_checkpoint(st->pool));
    check_equal(block_model_compare(&model, st->thin), 0);
    check_ok(thin_zero(st->thin, 100, far, false));
    check_ok(thin_resize(st->thin, 100));
    check_equal(figure_get(&thin_figures(st->thin)->allocated_chunks), 2);
    check_ok(thin_commit(st->thin));
    sim_thin_abandon(st);
    if (!check_ok(sim_thin_import(st)))
        return;
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
}

static void a_volume_grows_by_levels_and_shrinks_again(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = seed_get(), .volume_blocks = 100};
    run(&c, resize_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_give_what_was_written_for_every_chunk_size),
        cmocka_unit_test(reads_give_what_was_written_on_mirrors),
        cmocka_unit_test(reads_give_what_was_written_on_devices_with_discard),
        cmocka_unit_test(requests_that_share_chunks_do_not_disturb_each_other_or_checkpoints),
        cmocka_unit_test(the_same_with_a_cache_that_is_much_too_small),
        cmocka_unit_test(commits_that_come_together_share_one),
        cmocka_unit_test(extents_tell_holes_from_zeros_from_data),
        cmocka_unit_test(a_map_much_larger_than_the_cache_works_and_shrinks),
        cmocka_unit_test(a_deleted_volume_gives_every_page_back),
        cmocka_unit_test(a_volume_grows_by_levels_and_shrinks_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
