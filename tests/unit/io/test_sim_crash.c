/* Crash states of simulated disks: fates of pending writes, tears, hashes, cuts, determinism. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "io/device.h"
#include "io/reactor.h"
#include "io/sim.h"

enum { BLOCK = 4096, WRITES = 4 };

static struct sim_world *new_world(uint64_t seed, uint32_t atomic)
{
    static const char *const names[] = {"d0", "d1"};
    struct sim_world *w = sim_world_new(seed);
    for (unsigned i = 0; i < 2; i++) {
        struct sim_disk_config config = {.name = names[i],
                                         .size_bytes = 4 << 20,
                                         .sector_bytes = 512,
                                         .atomic_bytes = atomic,
                                         .write_cache = true,
                                         .latency_min_ns = 1000,
                                         .latency_max_ns = 90000};
        (void)sim_disk_add(w, &config);
    }
    return w;
}

static void run(struct sim_world *w, void (*first)(void *arg), void *arg)
{
    struct reactor_config config = {.sim = w};
    struct reactor *r;
    struct vp_error err;
    assert_int_equal(reactor_new(&config, &r, &err), 0);
    reactor_run(r, first, arg);
    reactor_free(r);
}

/* Writes block i of both disks with byte i + 1, all at once. */
static void write_all(void *arg)
{
    (void)arg;
    struct io_dev *dev[2];
    struct io_batch b;
    struct io_op op[2 * WRITES];
    /* Static: a power cut abandons this coroutine. */
    static _Alignas(BLOCK) unsigned char buf[WRITES * BLOCK];
    assert_int_equal(io_dev_open("d0", 0, &dev[0], NULL), 0);
    assert_int_equal(io_dev_open("d1", 0, &dev[1], NULL), 0);
    io_batch_init(&b);
    for (unsigned i = 0; i < WRITES; i++) {
        memset(buf + (size_t)i * BLOCK, (int)i + 1, BLOCK);
        for (unsigned k = 0; k < 2; k++) {
            io_op_set(&op[2 * i + k], dev[k], IO_WRITE, (uint64_t)i * BLOCK,
                      buf + (size_t)i * BLOCK, BLOCK, 0);
            io_batch_add(&b, &op[2 * i + k]);
        }
    }
    assert_int_equal(io_batch_wait(&b), 0);
    io_dev_close(dev[0]);
    io_dev_close(dev[1]);
}

static struct sim_snapshot *snapshot_of(uint64_t seed, uint32_t atomic)
{
    struct sim_world *w = new_world(seed, atomic);
    run(w, write_all, NULL);
    struct sim_snapshot *s = sim_snapshot_take(w);
    sim_world_free(w);
    assert_int_equal(sim_snapshot_pending(s), 2 * WRITES);
    return s;
}

static void peek(struct sim_world *w, const char *disk, uint64_t block, unsigned char *out)
{
    sim_disk_peek(sim_disk_find(w, disk), block * BLOCK, out, BLOCK);
}

static void each_write_is_kept_or_dropped_by_itself(void **state)
{
    (void)state;
    struct sim_snapshot *s = snapshot_of(1, 4096);
    struct sim_choice choice[2 * WRITES] = {0};
    unsigned char got[BLOCK], noise[BLOCK];
    choice[2].fate = SIM_KEEP; /* block 1 of d0 */
    choice[7].fate = SIM_KEEP; /* block 3 of d1 */
    struct sim_world *w = sim_world_from_snapshot(s, choice, 5);
    struct sim_world *fresh = new_world(1, 4096);
    peek(w, "d0", 1, got);
    assert_int_equal(got[0], 2);
    peek(w, "d1", 3, got);
    assert_int_equal(got[4095], 4);
    peek(w, "d1", 1, got);
    peek(fresh, "d1", 1, noise);
    assert_memory_equal(got, noise, BLOCK);
    sim_world_free(fresh);
    sim_world_free(w);
    sim_snapshot_free(s);
}

static void a_torn_write_keeps_whole_units(void **state)
{
    (void)state;
    struct sim_snapshot *s = snapshot_of(1, 512);
    struct sim_choice choice[2 * WRITES] = {0};
    unsigned char got[BLOCK];
    assert_int_equal(sim_snapshot_units(s, 0), 8);
    choice[0] = (struct sim_choice){SIM_TEAR, 1 << 2 | 1 << 7};
    struct sim_world *w = sim_world_from_snapshot(s, choice, 5);
    peek(w, "d0", 0, got);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(got[i * 512] == 1 && got[i * 512 + 511] == 1, i == 2 || i == 7);
    sim_world_free(w);
    sim_snapshot_free(s);

    s = snapshot_of(1, 4096);
    assert_int_equal(sim_snapshot_units(s, 0), 1);
    sim_snapshot_free(s);
}

static void different_choices_have_different_hashes_and_equal_images_equal_ones(void **state)
{
    (void)state;
    struct sim_snapshot *s = snapshot_of(1, 512);
    uint64_t seen[256];
    for (unsigned bits = 0; bits < 256; bits++) {
        struct sim_choice choice[2 * WRITES];
        for (unsigned i = 0; i < 2 * WRITES; i++)
            choice[i] = (struct sim_choice){bits >> i & 1 ? SIM_KEEP : SIM_DROP, 0};
        seen[bits] = sim_snapshot_hash(s, choice);
        for (unsigned i = 0; i < bits; i++)
            assert_int_not_equal(seen[i], seen[bits]);
        if (bits & 1) {
            choice[0] = (struct sim_choice){SIM_TEAR, 0xff};
            assert_int_equal(sim_snapshot_hash(s, choice), seen[bits]);
            choice[0] = (struct sim_choice){SIM_TEAR, 0x7f};
            assert_int_not_equal(sim_snapshot_hash(s, choice), seen[bits]);
        }
    }
    sim_snapshot_free(s);
}

static void a_world_from_a_snapshot_does_not_change_it(void **state)
{
    (void)state;
    struct sim_snapshot *s = snapshot_of(1, 4096);
    struct sim_choice none[2 * WRITES] = {0};
    uint64_t before = sim_snapshot_hash(s, none);
    struct sim_world *w = sim_world_from_snapshot(s, none, 5);
    run(w, write_all, NULL);
    sim_world_free(w);
    assert_int_equal(sim_snapshot_hash(s, none), before);
    sim_snapshot_free(s);
}

static void the_same_seed_gives_the_same_run(void **state)
{
    (void)state;
    uint64_t end_ns[3];
    static const uint64_t seeds[] = {9, 9, 10};
    for (unsigned i = 0; i < 3; i++) {
        struct sim_world *w = new_world(seeds[i], 4096);
        run(w, write_all, NULL);
        end_ns[i] = sim_now_ns(w);
        sim_world_free(w);
    }
    assert_int_equal(end_ns[0], end_ns[1]);
    assert_int_not_equal(end_ns[0], end_ns[2]);
}

static bool cut_at(struct sim_world *w, uint64_t event, void *arg)
{
    (void)w;
    return event != *(uint64_t *)arg;
}

static void noted(void *arg)
{
    write_all(NULL);
    *(bool *)arg = true;
}

static void a_power_cut_ends_the_run_at_its_event(void **state)
{
    (void)state;
    for (uint64_t at = 0; at <= 4 * WRITES; at++) {
        bool finished = false;
        struct sim_world *w = new_world(3, 4096);
        sim_world_on_event(w, cut_at, &at);
        run(w, noted, &finished);
        /* One event for each submission and each completion. */
        assert_int_equal(finished, at == 4 * WRITES);
        sim_world_free(w);
    }
}

static struct sim_snapshot *at_each[64];
static bool snap(struct sim_world *w, uint64_t event, void *arg)
{
    (void)arg;
    at_each[event] = sim_snapshot_take(w);
    return true;
}

static void a_snapshot_of_every_event_sees_what_was_submitted_before_it(void **state)
{
    (void)state;
    struct sim_world *w = new_world(3, 4096);
    sim_world_on_event(w, snap, NULL);
    run(w, write_all, NULL);
    for (unsigned i = 0; i < 4 * WRITES; i++) {
        unsigned expected = i < 2 * WRITES ? i : 2 * WRITES;
        assert_int_equal(sim_snapshot_pending(at_each[i]), expected);
        sim_snapshot_free(at_each[i]);
    }
    sim_world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_write_is_kept_or_dropped_by_itself),
        cmocka_unit_test(a_torn_write_keeps_whole_units),
        cmocka_unit_test(different_choices_have_different_hashes_and_equal_images_equal_ones),
        cmocka_unit_test(a_world_from_a_snapshot_does_not_change_it),
        cmocka_unit_test(the_same_seed_gives_the_same_run),
        cmocka_unit_test(a_power_cut_ends_the_run_at_its_event),
        cmocka_unit_test(a_snapshot_of_every_event_sees_what_was_submitted_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
