/* Power cuts, differing copies, flipped bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/guard.h"
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
    check_equal(a.doubled + a.leaked + a.unmarked, 0);
    check_equal(a.mapped, figure_get(&thin_figures(t)->allocated_chunks));
}

/* ---- power cuts at any moment --------------------------------------------------------------- */

struct cut {
    bool fresh;
    uint64_t at; /* event */
    uint64_t seen;
};

static bool cut_event(struct sim_world *w, uint64_t event, void *arg)
{
    struct cut *c = arg;
    (void)w;
    (void)event;
    return ++c->seen != c->at;
}

/* Each worker owns every n-th run of RUN blocks: all share chunks, nobody shares blocks. */
enum { WORKERS = 4, RUN = 3 };

struct worker {
    struct sim_thin *st;
    struct co_group *group;
    unsigned index;
    uint8_t buf[RUN * POOL_BLOCK] __attribute__((aligned(4096)));
};
static struct worker workers[WORKERS]; /* a power cut abandons their stacks */
static uint64_t
    run_began; /* model.seq then: what was not read since may be older than the model says */

static CO void worker_commit(struct worker *w)
{
    check_ok(thin_commit(w->st->thin));
    for (uint64_t b = 0; b < model.blocks; b++)
        if (b / RUN % WORKERS == w->index && model.done[b] > run_began)
            block_model_is_committed(&model, b);
}

static void worker(void *arg)
{
    struct worker *w = arg;
    struct thin *t = w->st->thin;
    for (unsigned i = 0; i < 30; i++) {
        uint64_t r = sim_random(w->st->world);
        unsigned count = 1 + (unsigned)(r >> 8) % RUN;
        uint64_t block = ((r >> 20) % (model.blocks / RUN / WORKERS) * WORKERS + w->index) * RUN;
        if (r % 8 == 0)
            worker_commit(w);
        else if (r % 8 < 4)
            check_ok(block_model_zero(&model, t, block, count, r % 16 < 4));
        else if (r % 64 == 12)
            check_ok(pool_checkpoint(w->st->pool));
        else
            check_ok(block_model_write_from(&model, t, block, count, w->buf));
    }
    co_group_leave(w->group, 0);
}

/* Large requests, one at a time. */
static CO void churn(struct sim_thin *st)
{
    for (unsigned i = 0; i < 30; i++) {
        uint64_t r = sim_random(st->world);
        unsigned count = 1 + (unsigned)(r >> 8) % (r & 64 ? 40 : 4);
        uint64_t block = (r >> 20) % (model.blocks - count + 1);
        if (r % 8 == 0)
            check_ok(block_model_commit(&model, st->thin));
        else if (r % 8 == 1) /* a whole chunk, which becomes free */
            check_ok(block_model_zero(&model, st->thin, align_down(block, 16),
                                      min_u64(16, model.blocks - align_down(block, 16)), false));
        else if (r % 8 == 2)
            check_ok(block_model_zero(&model, st->thin, block, count, r % 16 < 8));
        else if (r % 64 == 11)
            check_ok(pool_checkpoint(st->pool));
        else
            check_ok(block_model_write(&model, st->thin, block, count));
    }
}

static void cut_body(struct sim_thin *st, void *arg)
{
    static struct co_group g;
    struct cut *cut = arg;
    bool more;
    if (!check_ok(cut->fresh ? sim_thin_create(st) : sim_thin_import(st)))
        return;
    if (sim_below(st->world, 2)) { /* else workers meet what the crash left */
        check_equal(block_model_recover(&model, st->thin), 0);
        check_equal(block_model_compare(&model, st->thin), 0);
        check_audit(st->thin);
        sim_world_on_event(st->world, cut_event, cut);
        churn(st);
    }
    sim_world_on_event(st->world, cut_event, cut);
    run_began = model.seq;
    co_group_init(&g);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i].st = st;
        workers[i].group = &g;
        workers[i].index = i;
        co_group_enter(&g);
        check_ok(co_spawn(worker, &workers[i], "worker"));
    }
    check_ok(thin_resync_step(st->thin, &more));
    check_ok(co_group_wait(&g));
    sim_world_on_event(st->world, NULL, NULL);
}

static void cuts_run(const char *profile, uint64_t seed)
{
    struct sim_thin_config c = {.seed = seed, .profile = profile, .volume_blocks = 120 * RUN};
    struct sim_thin *st = sim_thin_new(&c);
    block_model_init(&model, c.volume_blocks);
    struct cut cut = {.fresh = true};
    for (unsigned i = 0; i < 12; i++) {
        cut.seen = 0;
        cut.at = 1 + sim_below(st->world, 600);
        sim_thin_run(st, cut_body, &cut);
        sim_thin_power_cut(st, seed + i);
        cut.fresh = false;
    }
    block_model_fini(&model);
    sim_thin_free(st);
    if (check_failures()) {
        print_message("again: SEED=%" PRIu64 " (%s)\n", seed, profile);
        fail();
    }
}

static void a_power_cut_leaves_every_block_old_or_new(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 10; i++) {
        cuts_run("single", seed_get() + i);
        cuts_run("mirror:2", seed_get() + i);
    }
}

static void reuse_before(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 0, 64));
    check_ok(block_model_commit(&model, st->thin));
    for (unsigned i = 0; i < 4; i++) {
        check_ok(block_model_zero(&model, st->thin, i * 16, 16, false));
        check_ok(block_model_write(&model, st->thin, 1024 + i * 16, 16));
    }
}

static void reuse_after(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_import(st)))
        return;
    check_equal(block_model_recover(&model, st->thin), 0);
    check_audit(st->thin);
}

static void discarded_data_stay_whole_until_the_discard_is_durable(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct sim_thin_config c = {.seed = i, .disks = 1};
        struct sim_thin *st = sim_thin_new(&c);
        block_model_init(&model, st->config.volume_blocks);
        sim_thin_run(st, reuse_before, NULL);
        sim_thin_power_cut(st, i);
        sim_thin_run(st, reuse_after, NULL);
        block_model_fini(&model);
        sim_thin_free(st);
        assert_checked();
    }
}

/* ---- copies that differ --------------------------------------------------------------------- */

static void find_chunk_bytes(struct sim_thin *st, unsigned disk, uint64_t seq, uint64_t block,
                             uint64_t *at)
{
    uint8_t want[POOL_BLOCK], have[POOL_BLOCK];
    block_fill(want, seq, block);
    for (*at = 0; *at < st->config.disk_bytes; *at += POOL_BLOCK) {
        sim_disk_peek(sim_thin_disk(st, disk), *at, have, sizeof(have));
        if (memcmp(want, have, POOL_BLOCK) == 0)
            return;
    }
    check(false && "the block is on the disk");
}

static uint64_t where[2]; /* of block 5 on both disks */

static void differ_before(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 0, 16));
    check_ok(thin_commit(st->thin));
    check_ok(block_model_write(&model, st->thin, 5, 1)); /* in place: the intent is set */
    check_equal(figure_get(&thin_figures(st->thin)->intents_set), 1);
    find_chunk_bytes(st, 0, 2, 5, &where[0]);
    find_chunk_bytes(st, 1, 2, 5, &where[1]);
}

static uint64_t seq_at_5(struct sim_thin *st)
{
    uint64_t seq;
    check_ok(thin_read(st->thin, 5, 1, model.buf));
    memcpy(&seq, model.buf, sizeof(seq));
    return seq;
}

struct versions {
    uint64_t first, second;
};

static void differ_after(struct sim_thin *st, void *arg)
{
    const struct versions *allowed = arg;
    uint8_t copy[2][POOL_BLOCK];
    if (!check_ok(sim_thin_import(st)))
        return;
    check_equal(figure_get(&thin_figures(st->thin)->regions_to_resync), 1);
    uint64_t served = seq_at_5(st);
    check(served == allowed->first || served == allowed->second);
    for (unsigned d = 0; d < 2; d++)
        sim_disk_peek(sim_thin_disk(st, d), where[d], copy[d], POOL_BLOCK);
    check(memcmp(copy[0], copy[1], POOL_BLOCK) == 0);
    bool more = true;
    while (more)
        check_ok(thin_resync_step(st->thin, &more));
    check_equal(figure_get(&thin_figures(st->thin)->regions_to_resync), 0);
    check_equal(seq_at_5(st), served);
}

/* Both copies are set to given versions of block 5, whose logged checksum is that of 1; one of the
 * allowed ones is served then, and stays. */
static void differ(uint64_t first, uint64_t second, struct versions allowed)
{
    struct sim_thin_config c = {.seed = 3, .profile = "mirror:2"};
    struct sim_thin *st = sim_thin_new(&c);
    uint8_t bytes[POOL_BLOCK];
    block_model_init(&model, st->config.volume_blocks);
    sim_thin_run(st, differ_before, NULL);
    block_fill(bytes, first, 5);
    sim_disk_poke(sim_thin_disk(st, 0), where[0], bytes, sizeof(bytes));
    block_fill(bytes, second, 5);
    sim_disk_poke(sim_thin_disk(st, 1), where[1], bytes, sizeof(bytes));
    sim_thin_run(st, differ_after, &allowed);
    block_model_fini(&model);
    sim_thin_free(st);
    assert_checked();
}

static void a_copy_that_matches_the_log_wins_over_one_that_does_not(void **state)
{
    (void)state;
    differ(1, 2, (struct versions){1, 1});
    differ(2, 1, (struct versions){1, 1});
}

static void without_a_match_one_copy_is_adopted_for_good(void **state)
{
    (void)state;
    differ(2, 2, (struct versions){2, 2});
    differ(7, 2, (struct versions){7, 2});
}

static void loss_after(struct sim_thin *st, void *arg)
{
    unsigned lost = *(const unsigned *)arg;
    if (!check_ok(sim_thin_import(st)))
        return;
    uint64_t served = seq_at_5(st);
    sim_disk_set_dead(sim_thin_disk(st, lost), true);
    check_equal(seq_at_5(st), served);
}

static void an_adopted_block_survives_the_loss_of_either_disk(void **state)
{
    (void)state;
    for (unsigned lost = 0; lost < 2; lost++) {
        struct sim_thin_config c = {.seed = 3, .profile = "mirror:2"};
        struct sim_thin *st = sim_thin_new(&c);
        uint8_t bytes[POOL_BLOCK];
        block_model_init(&model, st->config.volume_blocks);
        sim_thin_run(st, differ_before, NULL);
        block_fill(bytes, 7, 5);
        sim_disk_poke(sim_thin_disk(st, 0), where[0], bytes, sizeof(bytes));
        sim_thin_run(st, loss_after, &lost);
        block_model_fini(&model);
        sim_thin_free(st);
        assert_checked();
    }
}

static void resync_after(struct sim_thin *st, void *arg)
{
    (void)arg;
    uint8_t copy[2][POOL_BLOCK];
    if (!check_ok(sim_thin_import(st)))
        return;
    bool more = true;
    while (more)
        check_ok(thin_resync_step(st->thin, &more));
    check_equal(figure_get(&thin_figures(st->thin)->adopted_blocks), 1);
    for (unsigned d = 0; d < 2; d++)
        sim_disk_peek(sim_thin_disk(st, d), where[d], copy[d], POOL_BLOCK);
    check(memcmp(copy[0], copy[1], POOL_BLOCK) == 0);
    check_ok(sim_thin_close(st));
    if (!check_ok(sim_thin_import(st)))
        return;
    check_equal(figure_get(&thin_figures(st->thin)->regions_to_resync), 0);
    check(seq_at_5(st) == 7 || seq_at_5(st) == 2);
}

static void the_background_job_makes_copies_equal_and_clears_the_intents(void **state)
{
    (void)state;
    struct sim_thin_config c = {.seed = 3, .profile = "mirror:2"};
    struct sim_thin *st = sim_thin_new(&c);
    uint8_t bytes[POOL_BLOCK];
    block_model_init(&model, st->config.volume_blocks);
    sim_thin_run(st, differ_before, NULL);
    block_fill(bytes, 7, 5);
    sim_disk_poke(sim_thin_disk(st, 0), where[0], bytes, sizeof(bytes));
    sim_thin_run(st, resync_after, NULL);
    block_model_fini(&model);
    sim_thin_free(st);
    assert_checked();
}

/* ---- rot --------------------------------------------------------------------------------------
 */

static void flip_body(struct sim_thin *st, void *arg)
{
    bool single = *(const bool *)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    check_ok(block_model_write(&model, st->thin, 0, 16));
    check_ok(thin_commit(st->thin));
    unsigned disk = 0;
    uint64_t at;
    uint8_t have[POOL_BLOCK], want[POOL_BLOCK];
    block_fill(want, 1, 5);
    for (;; disk++) { /* single: on one of the disks */
        for (at = 0; at < st->config.disk_bytes; at += POOL_BLOCK) {
            sim_disk_peek(sim_thin_disk(st, disk), at, have, sizeof(have));
            if (memcmp(want, have, POOL_BLOCK) == 0)
                break;
        }
        if (at < st->config.disk_bytes || !check(disk < 1))
            break;
    }
    sim_disk_flip_bit(sim_thin_disk(st, disk), at + 77, 3);
    if (single) {
        check_equal(thin_read(st->thin, 4, 4, model.buf), VP_E_CHECKSUM);
        check_ok(thin_read(st->thin, 4, 1, model.buf));
        check_ok(thin_read(st->thin, 6, 10, model.buf));
        check_ok(block_model_write(&model, st->thin, 5, 1)); /* a write makes it good again */
    }
    for (unsigned i = 0; i < 4; i++)
        check_equal(block_model_compare(&model, st->thin), 0);
}

static void flip_run(const char *profile, bool single)
{
    struct sim_thin_config c = {.seed = 3, .profile = profile};
    struct sim_thin *st = sim_thin_new(&c);
    block_model_init(&model, st->config.volume_blocks);
    sim_thin_run(st, flip_body, &single);
    block_model_fini(&model);
    sim_thin_free(st);
    assert_checked();
}

static void a_flipped_bit_is_healed_from_the_mirror(void **state)
{
    (void)state;
    flip_run("mirror:2", false);
}

static void a_flipped_bit_without_a_mirror_fails_that_block_only(void **state)
{
    (void)state;
    flip_run("single", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_leaves_every_block_old_or_new),
        cmocka_unit_test(discarded_data_stay_whole_until_the_discard_is_durable),
        cmocka_unit_test(a_copy_that_matches_the_log_wins_over_one_that_does_not),
        cmocka_unit_test(without_a_match_one_copy_is_adopted_for_good),
        cmocka_unit_test(an_adopted_block_survives_the_loss_of_either_disk),
        cmocka_unit_test(the_background_job_makes_copies_equal_and_clears_the_intents),
        cmocka_unit_test(a_flipped_bit_is_healed_from_the_mirror),
        cmocka_unit_test(a_flipped_bit_without_a_mirror_fails_that_block_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
