/* The map of dirty blocks, against a plain array. */
#include "base/bytes.h"
#include "migrate/dirty.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { REGIONS = 5, BLOCKS = REGIONS * DIRTY_LEAF_BLOCKS - 77 };

static uint64_t random_state;

static uint64_t draw(uint64_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695040888963407U;
    return (random_state >> 33) % below;
}

static uint64_t count_of(const bool *model)
{
    uint64_t n = 0;
    for (uint64_t i = 0; i < BLOCKS; i++)
        n += model[i];
    return n;
}

/* Every run, as the map tells it. */
static void compare(const struct dirty *d, const bool *model)
{
    assert_int_equal(d->count, count_of(model));
    for (uint64_t at = 0; at < BLOCKS;) {
        bool is_dirty;
        uint64_t n = dirty_run(d, at, BLOCKS - at, &is_dirty);
        assert_in_range(n, 1, BLOCKS - at);
        for (uint64_t i = at; i < at + n; i++)
            assert_int_equal(model[i], is_dirty);
        at += n;
    }
}

/* One pass takes all that was dirty, in ascending order. */
static void take_all(struct dirty *d, bool *model, uint64_t max)
{
    uint64_t cursor = 0, end = 0, block, n;
    while ((n = dirty_take(d, &cursor, max, &block)) > 0) {
        assert_true(n <= max && block >= end && cursor == block + n);
        for (uint64_t i = block; i < block + n; i++) {
            assert_true(model[i]);
            model[i] = false;
        }
        end = block + n;
    }
    assert_int_equal(cursor, BLOCKS);
    assert_int_equal(d->count, 0);
    assert_int_equal(count_of(model), 0);
}

static void it_says_what_was_marked_and_cleared(void **state)
{
    (void)state;
    bool *model = calloc(BLOCKS, sizeof(*model));
    struct dirty d;
    assert_non_null(model);
    for (random_state = 1; random_state < 40; random_state++) {
        uint64_t seed = random_state;
        assert_int_equal(dirty_init(&d, BLOCKS, DIRTY_LEAVES_MAX), 0);
        memset(model, 0, BLOCKS * sizeof(*model));
        for (unsigned i = 0; i < 60; i++) {
            uint64_t block = draw(BLOCKS), count = 1 + draw(draw(4) ? 90 : BLOCKS);
            bool mark = draw(3) > 0;
            count = min_u64(count, BLOCKS - block);
            (mark ? dirty_mark : dirty_clear)(&d, block, count);
            memset(model + block, mark, count);
        }
        compare(&d, model);
        take_all(&d, model, 1 + draw(200));
        assert_int_equal(d.unused_count, REGIONS);
        dirty_fini(&d);
        random_state = seed;
    }
    free(model);
}

static void without_a_leaf_a_whole_region_is_dirty(void **state)
{
    (void)state;
    struct dirty d;
    bool is_dirty;
    uint64_t cursor = 0, block;
    assert_int_equal(dirty_init(&d, BLOCKS, 1), 0);
    dirty_mark(&d, 5, 1);
    dirty_mark(&d, 2 * DIRTY_LEAF_BLOCKS + 9, 1); /* no leaf is left */
    assert_int_equal(d.count, 1 + DIRTY_LEAF_BLOCKS);
    assert_int_equal(dirty_run(&d, 2 * DIRTY_LEAF_BLOCKS, 100, &is_dirty), 100);
    assert_true(is_dirty);
    dirty_clear(&d, 2 * DIRTY_LEAF_BLOCKS, 50); /* says nothing about the rest */
    assert_int_equal(d.count, 1 + DIRTY_LEAF_BLOCKS);
    dirty_mark(&d, BLOCKS - 1, 1); /* the last region is shorter */
    assert_int_equal(d.count, 1 + 2 * DIRTY_LEAF_BLOCKS - 77);

    assert_int_equal(dirty_take(&d, &cursor, 64, &block), 1);
    assert_int_equal(block, 5);
    assert_int_equal(dirty_take(&d, &cursor, 64, &block), 64);
    assert_int_equal(block, 2 * DIRTY_LEAF_BLOCKS);
    dirty_mark(&d, 2 * DIRTY_LEAF_BLOCKS + 3, 1); /* was taken: waits for the next pass */
    uint64_t taken = 64, n;
    while ((n = dirty_take(&d, &cursor, 1000, &block)) > 0)
        taken += n;
    assert_int_equal(taken, 2 * DIRTY_LEAF_BLOCKS - 77);
    assert_int_equal(d.count, 1);
    cursor = 0;
    assert_int_equal(dirty_take(&d, &cursor, 64, &block), 1);
    assert_int_equal(block, 2 * DIRTY_LEAF_BLOCKS + 3);
    assert_int_equal(d.count, 0);
    dirty_fini(&d);
}

/* It becomes coarse behind the cursor, or is passed in the middle. */
static void a_region_that_becomes_coarse_during_a_pass_is_taken_by_the_next(void **state)
{
    (void)state;
    struct dirty d;
    uint64_t cursor = 0, block, n, taken = 0;
    assert_int_equal(dirty_init(&d, BLOCKS, 1), 0);
    dirty_mark(&d, DIRTY_LEAF_BLOCKS + 7, 1);
    assert_int_equal(dirty_take(&d, &cursor, 64, &block), 1); /* its leaf is free again */
    dirty_mark(&d, 0, 1);                                     /* and is taken */
    dirty_mark(&d, DIRTY_LEAF_BLOCKS + 9, 1);
    assert_int_equal(d.count, 1 + DIRTY_LEAF_BLOCKS);
    assert_int_equal(dirty_take(&d, &cursor, 64, &block), 0);
    assert_int_equal(cursor, BLOCKS);
    cursor = 0;
    while ((n = dirty_take(&d, &cursor, 4096, &block)) > 0)
        taken += n;
    assert_int_equal(taken, 1 + DIRTY_LEAF_BLOCKS);
    assert_int_equal(d.count, 0);
    dirty_fini(&d);
}

/* A connection is lost in the middle of a round, and another one begins. */
static void what_a_pass_has_left_of_a_coarse_region_is_taken_by_the_next(void **state)
{
    (void)state;
    struct dirty d;
    uint64_t cursor = 0, block, n, taken = 0;
    assert_int_equal(dirty_init(&d, BLOCKS, 0), 0);
    dirty_mark(&d, DIRTY_LEAF_BLOCKS + 7, 1);
    assert_int_equal(dirty_take(&d, &cursor, 64, &block), 64);
    assert_false(dirty_has(&d, DIRTY_LEAF_BLOCKS + 63));
    assert_true(dirty_has(&d, DIRTY_LEAF_BLOCKS + 64)); /* the pass has not come to it */
    assert_false(dirty_has(&d, DIRTY_LEAF_BLOCKS - 1));
    assert_false(dirty_has(&d, 2 * DIRTY_LEAF_BLOCKS));
    dirty_pass_begin(&d);
    assert_int_equal(d.count, DIRTY_LEAF_BLOCKS);
    cursor = 0;
    while ((n = dirty_take(&d, &cursor, 1000, &block)) > 0)
        taken += n;
    assert_int_equal(taken, DIRTY_LEAF_BLOCKS);
    assert_int_equal(d.count, 0);
    dirty_pass_begin(&d);
    assert_int_equal(d.count, 0);
    dirty_fini(&d);
}

static void the_map_of_a_large_volume_is_small_and_is_passed_quickly(void **state)
{
    (void)state;
    struct dirty d;
    uint64_t blocks = (UINT64_C(1) << 50) / 4096, cursor = 0, block;
    assert_int_equal(dirty_init(&d, blocks, DIRTY_LEAVES_MAX), 0);
    assert_int_equal(dirty_take(&d, &cursor, 1, &block), 0);
    assert_int_equal(cursor, blocks);
    dirty_mark(&d, blocks - 1, 1);
    cursor = 0;
    assert_int_equal(dirty_take(&d, &cursor, 64, &block), 1);
    assert_int_equal(block, blocks - 1);
    dirty_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_what_was_marked_and_cleared),
        cmocka_unit_test(without_a_leaf_a_whole_region_is_dirty),
        cmocka_unit_test(a_region_that_becomes_coarse_during_a_pass_is_taken_by_the_next),
        cmocka_unit_test(what_a_pass_has_left_of_a_coarse_region_is_taken_by_the_next),
        cmocka_unit_test(the_map_of_a_large_volume_is_small_and_is_passed_quickly),
    };
    return cmocka_run_group_tests_name("migrate/dirty", tests, NULL, NULL);
}
