/* Who waits for a checkpoint or for room, and what goes on meanwhile (docs/design.md,
 * "Resources"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/aborts.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"
#include "volumes/volumes_impl.h"

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define CHUNK  KIB(64)

static uint8_t data[CHUNK] __attribute__((aligned(4096)));

/* ---- a shrink against the first checkpoint after a crash ----------------------------------- */

enum { LEAVES = 100 };
static bool resized, checkpointed;

static void change_each_leaf(struct volume *v, unsigned chunk)
{
    for (unsigned i = 0; i < LEAVES; i++)
        check_ok(volume_zero(v, i * MIB(3) + chunk * CHUNK, CHUNK, VOLUME_NO_HOLE));
    check_ok(volume_flush(v));
}

static void change_and_crash(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(400));
    change_each_leaf(v, 0);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    change_each_leaf(v, 1);
}

static void shrink_main(void *arg)
{
    struct sim_volumes *s = arg;
    struct vp_error err = {0};
    check_ok(volume_resize(s->vs, "v", MIB(1), true, &err));
    resized = true;
}

static void checkpoint_main(void *arg)
{
    struct sim_volumes *s = arg;
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    checkpointed = true;
}

static void shrink_against_checkpoint(struct sim_volumes *s)
{
    check_ok(co_spawn(shrink_main, s, "shrink"));
    check_ok(co_spawn(checkpoint_main, s, "checkpoint"));
    vp_ignore(co_sleep_ns(UINT64_C(60000000000)), "longer than both take");
    check(resized);
    check(checkpointed);
}

static void a_shrink_and_the_first_checkpoint_after_a_crash_both_end(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(
        &(struct sim_volumes_config){.seed = 1, .disk_bytes = MIB(400), .metadata_bytes = MIB(64)});
    sim_volumes_run(s, change_and_crash);
    sim_volumes_power_cut(s, 7);
    s->config.metadata_bytes = KIB(256); /* the leaves of the log's records are all that fits */
    sim_volumes_run(s, shrink_against_checkpoint);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- a command that would wait -------------------------------------------------------------- */

static bool stops; /* the end of the background's checkpoints, not one of its own */

static void checkpoint_with_control(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(16));
    co_mutex_lock(&v->control);
    if (stops)
        pool_checkpoints_stop(volumes_pool(s->vs));
    else
        check_ok(pool_checkpoint(volumes_pool(s->vs)));
    co_mutex_unlock(&v->control);
}

static void run_checkpoint_with_control(void *arg)
{
    (void)arg;
    sim_volumes_run(sim_volumes_new(&(struct sim_volumes_config){.seed = 1}),
                    checkpoint_with_control);
}

static void a_wait_for_a_checkpoint_with_a_control_lock_held_aborts(void **state)
{
    (void)state;
    stops = false;
    assert_true(call_aborts(run_checkpoint_with_control, NULL));
    stops = true;
    assert_true(call_aborts(run_checkpoint_with_control, NULL));
}

/* ---- many writers, little memory ------------------------------------------------------------ */

enum { WRITERS = 48, WRITES = 400 };
static unsigned writers_left;
static uint64_t longest_ns, all_ns;

static void write_widely(void *arg)
{
    struct volume *v = arg;
    uint64_t seed = writers_left * 7919;
    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t began = reactor_now_ns();
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        check_ok(volume_write(v, (seed >> 20) % (MIB(3000) / CHUNK) * CHUNK, KIB(4), data, 0));
        uint64_t took = reactor_now_ns() - began;
        longest_ns = max_u64(longest_ns, took);
        all_ns += took;
    }
    writers_left--;
}

static void write_with_little_memory(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(3000));
    writers_left = 0;
    for (unsigned i = 0; i < WRITERS; i++) {
        check_ok(co_spawn(write_widely, v, "writer"));
        writers_left++;
    }
    for (unsigned i = 0; writers_left > 0 && i < 600; i++)
        vp_ignore(co_sleep_ns(UINT64_C(100000000)), "writers");
    check_equal(writers_left, 0);
}

static void writers_short_of_metadata_memory_are_slowed_and_never_stopped_for_long(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(
        &(struct sim_volumes_config){.seed = 1, .disk_bytes = MIB(3000), .metadata_bytes = MIB(1)});
    longest_ns = all_ns = 0;
    sim_volumes_run(s, write_with_little_memory);
    sim_volumes_free(s);
    print_message("longest %llu us, mean %llu us\n", (unsigned long long)longest_ns / 1000,
                  (unsigned long long)all_ns / (WRITERS * WRITES) / 1000);
    assert_true(longest_ns < 10000000);
    assert_checked();
}

/* ---- a reserve ------------------------------------------------------------------------------ */

static void reserve_much(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct pool_space space;
    struct volume_options o = {.size_bytes = MIB(2000), .reserve_bytes = MIB(1500)};
    uint64_t began = reactor_now_ns();
    check_ok(volume_create(s->vs, "r", &o, &err));
    uint64_t took = reactor_now_ns() - began;
    print_message("a reserve of 1.5 GiB: %llu us\n", (unsigned long long)took / 1000);
    check(took < 20000000); /* some durable writes, not hundreds */
    pool_space_get(volumes_pool(s->vs), &space);
    struct volume *v = sim_volumes_open(s, "r");
    for (uint64_t at = 0; at < MIB(1500); at += MIB(1))
        check_ok(volume_write(v, at, CHUNK, data, 0));
}

static void a_reserve_is_leased_by_few_durable_writes_and_can_be_used(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){
        .seed = 1, .disk_bytes = MIB(1200), .metadata_bytes = MIB(16)});
    sim_volumes_run(s, reserve_much);
    sim_volumes_free(s);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shrink_and_the_first_checkpoint_after_a_crash_both_end),
        cmocka_unit_test(a_wait_for_a_checkpoint_with_a_control_lock_held_aborts),
        cmocka_unit_test(writers_short_of_metadata_memory_are_slowed_and_never_stopped_for_long),
        cmocka_unit_test(a_reserve_is_leased_by_few_durable_writes_and_can_be_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
