/* Space of a volume: when chunks are taken, given back and used again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "io/device.h"
#include "tests/lib/block_model.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_thin.h"

static struct block_model model;

static void run(const struct sim_thin_config *config, void (*body)(struct sim_thin *st, void *arg))
{
    struct sim_thin *st = sim_thin_new(config);
    block_model_init(&model, st->config.volume_blocks);
    sim_thin_run(st, body, NULL);
    block_model_fini(&model);
    sim_thin_free(st);
    assert_checked();
}

static void check_audit(struct thin *t)
{
    struct thin_audit a;
    check_ok(thin_check(t, &a));
    check_equal(a.doubled + a.leaked + a.unmarked, 0);
    check_equal(a.mapped, figure_get(&thin_figures(t)->allocated_chunks));
}

static int note_chunk(const struct thin_chunk_info *c, void *arg)
{
    *(struct thin_chunk_info *)arg = *c;
    return 0;
}

/* The only chunk of the volume; chunk 0 when there is none. */
static CO struct thin_chunk_info only_chunk(struct sim_thin *st)
{
    struct thin_chunk_info c = {0};
    check_ok(thin_walk(st->thin, note_chunk, &c));
    return c;
}

static void accumulate_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 16, 16));
    check_equal(figure_get(&thin_figures(st->thin)->allocated_chunks), 1);
    for (unsigned i = 0; i < 16; i++) {
        check_equal(figure_get(&thin_figures(st->thin)->allocated_chunks), 1);
        check_equal(figure_get(&thin_figures(st->thin)->valid_blocks), 16 - i);
        check_ok(block_model_zero(&model, st->thin, 16 + (i * 7) % 16, 1, false));
    }
    check_equal(figure_get(&thin_figures(st->thin)->allocated_chunks), 0);
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
}

static void small_discards_add_up_until_the_chunk_is_free(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = 1};
    run(&c, accumulate_body);
}

static void quarantine_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 0, 1));
    uint64_t first = only_chunk(st).chunk.n;
    check_ok(thin_commit(st->thin));
    check_ok(block_model_zero(&model, st->thin, 0, 1, false));
    check_ok(block_model_write(&model, st->thin, 0, 1));
    check(only_chunk(st).chunk.n != first);
    check_ok(block_model_zero(&model, st->thin, 0, 1, false));
    check_ok(thin_commit(st->thin));
    check_ok(block_model_write(&model, st->thin, 0, 1));
    check_equal(only_chunk(st).chunk.n, first);
}

static void a_freed_chunk_is_used_again_only_after_a_commit(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = 1, .disks = 1};
    run(&c, quarantine_body);
    c.discard = true;
    run(&c, quarantine_body);
}

static void full_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    uint64_t written = 0;
    int rc = 0;
    while (!rc && written < model.blocks) {
        rc = block_model_write(&model, st->thin, written, 16);
        written += rc ? 0 : 16;
    }
    check_equal(rc, VP_E_NO_SPACE);
    check(written > 1024);
    /* Everything but new space still works. */
    check_ok(block_model_write(&model, st->thin, 0, 16));
    check_ok(block_model_commit(&model, st->thin));
    check_ok(pool_checkpoint(st->pool));
    check_equal(block_model_compare(&model, st->thin), 0);
    check_equal(block_model_write(&model, st->thin, written, 16), VP_E_NO_SPACE);
    /* Freed room is usable at once: the write commits by itself. */
    for (unsigned round = 0; round < 40; round++) {
        check_ok(block_model_zero(&model, st->thin, round * 16, 16, false));
        check_ok(block_model_write(&model, st->thin, written + (round % 4) * 16, 16));
        check_ok(block_model_zero(&model, st->thin, written + (round % 4) * 16, 16, false));
        check_ok(block_model_write(&model, st->thin, round * 16, 16));
    }
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
    check_ok(block_model_zero(&model, st->thin, 0, model.blocks, false));
    check_ok(thin_commit(st->thin));
    check_ok(thin_commit(st->thin));
    check(figure_get(&thin_figures(st->thin)->leased_arenas) <= 8);
    check_ok(block_model_write(&model, st->thin, 0, 64));
    check_ok(sim_thin_close(st));
}

/* Moves a chunk of its own to and fro: what it needs, it has freed before. */
struct mover {
    struct thin *t;
    struct co_group *all;
    uint64_t from, to; /* blocks */
};

static void mover_main(void *arg)
{
    struct mover *m = arg;
    static uint8_t data[16 * 4096] __attribute__((aligned(4096)));
    int rc = 0;
    for (unsigned i = 0; i < 60 && !rc; i++) {
        rc = thin_zero(m->t, m->from, 16, false);
        if (!rc && i % 3 == 0)
            rc = thin_commit(m->t);
        if (!rc)
            rc = thin_write(m->t, m->to, 16, data);
        uint64_t from = m->from;
        m->from = m->to;
        m->to = from;
    }
    co_group_leave(m->all, rc);
}

static void movers_body(struct sim_thin *st, void *arg)
{
    enum { MOVERS = 8 };
    struct mover m[MOVERS];
    struct co_group all;
    uint64_t end = 0;
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    while (thin_zero(st->thin, end, 16, true) == 0)
        end += 16;
    check(end + 16 * MOVERS < st->config.volume_blocks);
    co_group_init(&all);
    for (unsigned i = 0; i < MOVERS; i++) {
        m[i] = (struct mover){st->thin, &all, 32 * (uint64_t)i, end + 16 * (uint64_t)i};
        co_group_enter(&all);
        check_ok(co_spawn(mover_main, &m[i], "mover"));
    }
    check_ok(co_group_wait(&all));
    check_audit(st->thin);
}

static void whoever_freed_a_chunk_of_a_full_pool_can_write_one(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 8; seed++) {
        struct sim_thin_config c = {.seed = seed, .volume_blocks = 65536, .discard = seed % 2 != 0};
        run(&c, movers_body);
    }
}

static void a_full_pool_serves_what_needs_no_space_and_recovers(void **state)
{
    (void)state;
    struct sim_thin_config c = {
        .seed = 1, .disk_bytes = 16 << 20, .volume_blocks = 16384, .cache_bytes = 4 << 20};
    run(&c, full_body);
}

static void scan_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 0, 64));
    uint64_t leased = figure_get(&thin_figures(st->thin)->leased_arenas);
    for (unsigned i = 0; i < 6; i++) {
        check_ok(thin_commit(st->thin));
        if (i % 2)
            check_ok(sim_thin_close(st));
        else
            sim_thin_abandon(st);
        if (!check_ok(sim_thin_import(st)))
            return;
        check_equal(figure_get(&thin_figures(st->thin)->leased_arenas), leased);
        check_ok(block_model_write(&model, st->thin, 100 + i * 32, 32));
        check_equal(figure_get(&thin_figures(st->thin)->leased_arenas), leased);
    }
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
}

static void arenas_with_room_are_found_again_after_a_restart(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = 1, .geometry.extent_bytes = 4 << 20};
    run(&c, scan_body);
}

static void reserve_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check(figure_get(&thin_figures(st->thin)->leased_arenas) * (1 << 20) >=
          st->config.reserve_bytes);
    /* Somebody else takes the rest. */
    struct pool_arena a;
    int rc = 0;
    while (!rc)
        rc = pool_arena_lease(st->pool, 99, pool_default_profile(st->pool), 0, &a);
    check_equal(rc, VP_E_NO_SPACE);
    for (unsigned round = 0; round < 2; round++) {
        for (uint64_t b = 0; b < st->config.reserve_bytes / POOL_BLOCK; b += 64)
            check_ok(block_model_write(&model, st->thin, b, 64));
        check_equal(block_model_compare(&model, st->thin), 0);
        check_ok(block_model_zero(&model, st->thin, 0, model.blocks, false));
        check_ok(thin_commit(st->thin));
        check(figure_get(&thin_figures(st->thin)->leased_arenas) * (1 << 20) >=
              st->config.reserve_bytes);
    }
    uint64_t leased = figure_get(&thin_figures(st->thin)->leased_arenas);
    check_ok(sim_thin_close(st));
    if (!check_ok(sim_thin_import(st)))
        return;
    check_equal(figure_get(&thin_figures(st->thin)->leased_arenas), leased);
    check_ok(sim_thin_close(st));
}

static void reserved_space_can_always_be_written(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = 1, .disk_bytes = 32 << 20, .reserve_bytes = 10 << 20};
    run(&c, reserve_body);
}

/* A block into each chunk: every arena of several windows of the scan (arena_scan.c) is used. */
static void windows_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    uint64_t leased = figure_get(&thin_figures(st->thin)->leased_arenas);
    check(leased >= 600);
    check_ok(sim_thin_close(st));
    if (!check_ok(sim_thin_import(st)))
        return;
    for (uint64_t b = 0; b < st->config.reserve_bytes / POOL_BLOCK; b += 16)
        check_ok(block_model_write(&model, st->thin, b, 1));
    check(figure_get(&thin_figures(st->thin)->leased_arenas) <=
          leased + 2); /* two ahead, when all were found */
    check_ok(block_model_zero(&model, st->thin, 0, model.blocks / 2, false));
    check_ok(thin_give_back(st->thin));
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
}

static void a_scan_finds_all_arenas_of_many(void **state)
{
    (void)state;
    struct sim_thin_config c = {
        .seed = 1, .disk_bytes = 512 << 20, .volume_blocks = 153600, .reserve_bytes = 600 << 20};
    run(&c, windows_body);
}

static void failed_write_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 0, 16)); /* leases an arena */
    check_ok(thin_commit(st->thin));
    sim_disk_inject(sim_thin_disk(st, 0), SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_equal(block_model_write(&model, st->thin, 16, 4), VP_E_RAID_NO_COPY);
    check_equal(figure_get(&thin_figures(st->thin)->allocated_chunks), 1);
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
    check_ok(block_model_write(&model, st->thin, 16, 4));
    check_ok(thin_commit(st->thin));
    check_equal(block_model_compare(&model, st->thin), 0);
    check_audit(st->thin);
}

static void a_first_write_that_fails_leaves_no_chunk_behind(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = 1, .disks = 1};
    run(&c, failed_write_body);
}

static uint64_t bytes_written(const struct raid_disk *d)
{
    struct raid_figures sum = {0};
    raid_disk_figures_sum(d, &sum);
    return figure_get(&sum.bytes_written);
}

static void spread_body(struct sim_thin *st, void *arg)
{
    (void)arg;
    uint64_t before[4];
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 4000, 64)); /* leases an arena on each disk */
    unsigned n;
    struct raid_disk *const *d = pool_disks(st->pool, &n);
    check_equal(n, 4);
    for (unsigned i = 0; i < 4; i++)
        before[i] = bytes_written(d[i]);
    for (unsigned i = 0; i < 8; i++)
        check_ok(block_model_write(&model, st->thin, i * 16, 16));
    for (unsigned i = 0; i < 4; i++)
        check_equal(bytes_written(d[i]) - before[i], 2 << 16);
}

static void successive_chunks_lie_on_successive_disks(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = 1, .disks = 4};
    run(&c, spread_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_discards_add_up_until_the_chunk_is_free),
        cmocka_unit_test(a_freed_chunk_is_used_again_only_after_a_commit),
        cmocka_unit_test(whoever_freed_a_chunk_of_a_full_pool_can_write_one),
        cmocka_unit_test(a_full_pool_serves_what_needs_no_space_and_recovers),
        cmocka_unit_test(arenas_with_room_are_found_again_after_a_restart),
        cmocka_unit_test(reserved_space_can_always_be_written),
        cmocka_unit_test(a_scan_finds_all_arenas_of_many),
        cmocka_unit_test(a_first_write_that_fails_leaves_no_chunk_behind),
        cmocka_unit_test(successive_chunks_lie_on_successive_disks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
