/* Block locks: who waits for whom, and in what order. */
#include "io/guard.h"
#include "tests/lib/on_reactor.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct lock_table table;
static char trace[256];

static void note(char what)
{
    size_t n = strlen(trace);
    trace[n] = what;
    trace[n + 1] = '\0';
}

struct locker {
    char name;
    uint64_t block, count;
    bool exclusive;
    unsigned yields; /* while it holds the lock */
};

/* Upper case: has it; lower case: gave it back. */
static void locker_run(void *arg)
{
    const struct locker *l = arg;
    struct block_lock lock;
    block_lock_take(&table, &lock, l->block, l->count, l->exclusive);
    note(l->name);
    for (unsigned i = 0; i < l->yields; i++)
        co_yield ();
    note((char)(l->name + 32));
    block_lock_drop(&table, &lock);
}

struct cast {
    const struct locker *locker;
    unsigned count;
};

static void spawn_all(void *arg)
{
    const struct cast *c = arg;
    for (unsigned i = 0; i < c->count; i++)
        check_ok(co_spawn(locker_run, (void *)(uintptr_t)&c->locker[i], "locker"));
}

static void play(const struct locker *l, unsigned count, const char *expected)
{
    struct cast c = {l, count};
    trace[0] = '\0';
    lock_table_init(&table);
    on_reactor(NULL, spawn_all, &c);
    assert_checked();
    assert_true(lock_table_is_empty(&table));
    assert_string_equal(trace, expected);
}

static void readers_share_a_block(void **state)
{
    (void)state;
    const struct locker l[] = {{'A', 5, 1, false, 2}, {'B', 5, 1, false, 2}};
    play(l, 2, "ABab");
}

static void writers_of_one_block_take_turns(void **state)
{
    (void)state;
    const struct locker l[] = {{'A', 5, 1, true, 2}, {'B', 5, 1, true, 1}, {'C', 5, 1, true, 1}};
    play(l, 3, "AaBbCc");
}

static void writers_of_different_blocks_go_together(void **state)
{
    (void)state;
    const struct locker l[] = {{'A', 5, 1, true, 2}, {'B', 6, 1, true, 2}};
    play(l, 2, "ABab");
}

static void a_writer_waits_for_readers_before_it_and_not_for_those_after(void **state)
{
    (void)state;
    const struct locker l[] = {{'A', 5, 1, false, 3}, {'B', 5, 1, true, 1}, {'C', 5, 1, false, 1}};
    play(l, 3, "AaBbCc");
}

static void whoever_conflicts_with_nobody_overtakes(void **state)
{
    (void)state;
    const struct locker l[] = {{'A', 5, 2, true, 4}, {'B', 6, 2, true, 1}, {'C', 9, 1, true, 1}};
    play(l, 3, "ACcaBb");
}

static void a_lock_over_regions_conflicts_in_each_of_them(void **state)
{
    (void)state;
    const struct locker l[] = {{'A', 60, 200, true, 3},
                               {'B', 130, 1, false, 1},
                               {'C', 259, 1, true, 1},
                               {'D', 260, 1, true, 1}};
    play(l, 4, "ADdaBCbc");
}

static void crossing_windows_do_not_deadlock(void **state)
{
    (void)state;
    const struct locker l[] = {
        {'A', 0, 1024, true, 2}, {'B', 512, 1024, true, 2}, {'C', 100, 900, true, 2}};
    play(l, 3, "AaBbCc");
}

static void without_its_guard_nobody_waits(void **state)
{
    (void)state;
    const struct locker l[] = {{'A', 5, 1, true, 2}, {'B', 5, 1, true, 2}};
    io_guard_disabled[GUARD_RANGE_LOCK] = true;
    play(l, 2, "ABab");
    io_guard_disabled[GUARD_RANGE_LOCK] = false;
}

/* Many lockers of random ranges: exclusive ones are alone on their blocks, and all come through. */
enum { SPACE = 300, LOCKERS = 200 };
static struct locker crowd[LOCKERS];
static int readers[SPACE], writers[SPACE];
static unsigned finished;

static void crowd_run(void *arg)
{
    const struct locker *l = arg;
    struct block_lock lock;
    block_lock_take(&table, &lock, l->block, l->count, l->exclusive);
    for (uint64_t b = l->block; b < l->block + l->count; b++) {
        check(writers[b] == 0 && (!l->exclusive || readers[b] == 0));
        *(l->exclusive ? &writers[b] : &readers[b]) += 1;
    }
    for (unsigned i = 0; i < l->yields; i++)
        co_yield ();
    for (uint64_t b = l->block; b < l->block + l->count; b++)
        *(l->exclusive ? &writers[b] : &readers[b]) -= 1;
    block_lock_drop(&table, &lock);
    finished++;
}

static void crowd_spawn(void *arg)
{
    uint64_t seed = *(uint64_t *)arg;
    for (unsigned i = 0; i < LOCKERS; i++) {
        uint64_t r = hash_mix(seed + i);
        uint64_t block = r % SPACE;
        crowd[i] = (struct locker){.block = block,
                                   .count = 1 + (r >> 20) % min_u64(90, SPACE - block),
                                   .exclusive = r >> 40 & 1,
                                   .yields = (unsigned)(r >> 50) % 5};
        check_ok(co_spawn(crowd_run, &crowd[i], "locker"));
    }
}

static void exclusive_holders_are_alone_in_a_random_crowd(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        finished = 0;
        lock_table_init(&table);
        on_reactor(NULL, crowd_spawn, &seed);
        if (finished != LOCKERS)
            printf("seed %llu\n", (unsigned long long)seed);
        assert_checked();
        assert_int_equal(finished, LOCKERS);
        assert_true(lock_table_is_empty(&table));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_share_a_block),
        cmocka_unit_test(writers_of_one_block_take_turns),
        cmocka_unit_test(writers_of_different_blocks_go_together),
        cmocka_unit_test(a_writer_waits_for_readers_before_it_and_not_for_those_after),
        cmocka_unit_test(whoever_conflicts_with_nobody_overtakes),
        cmocka_unit_test(a_lock_over_regions_conflicts_in_each_of_them),
        cmocka_unit_test(crossing_windows_do_not_deadlock),
        cmocka_unit_test(without_its_guard_nobody_waits),
        cmocka_unit_test(exclusive_holders_are_alone_in_a_random_crowd),
    };
    return cmocka_run_group_tests_name("volumes/lock", tests, NULL, NULL);
}
