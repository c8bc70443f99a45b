/* Simulated disks, driven through a reactor: cache, flush, FUA, discard, faults, death. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/device.h"
#include "io/reactor.h"
#include "io/sim.h"
#include "tests/lib/aborts.h"

enum { BLOCK = 4096 };
#define MIB (UINT64_C(1) << 20)

struct fixture {
    struct sim_world *w;
    struct sim_disk *disk;
    struct io_dev *dev;
    void (*body)(struct fixture *f);
    unsigned char *buf;
};

static void open_and_run(void *arg)
{
    struct fixture *f = arg;
    struct vp_error err;
    assert_int_equal(io_dev_open("d0", 0, &f->dev, &err), 0);
    f->body(f);
    io_dev_close(f->dev);
}

static void run_in(struct fixture *f, void (*body)(struct fixture *f))
{
    struct reactor_config config = {.sim = f->w};
    struct reactor *r;
    struct vp_error err;
    f->disk = sim_disk_find(f->w, "d0");
    f->body = body;
    f->buf = aligned_alloc(BLOCK, 16 * BLOCK);
    assert_int_equal(reactor_new(&config, &r, &err), 0);
    reactor_run(r, open_and_run, f);
    reactor_free(r);
    free(f->buf);
}

static struct sim_world *new_world(bool cache, uint32_t atomic)
{
    struct sim_world *w = sim_world_new(42);
    struct sim_disk_config config = {.name = "d0",
                                     .size_bytes = 8 * MIB,
                                     .sector_bytes = 512,
                                     .atomic_bytes = atomic,
                                     .write_cache = cache,
                                     .can_discard = true,
                                     .latency_min_ns = 1000,
                                     .latency_max_ns = 90000};
    (void)sim_disk_add(w, &config);
    return w;
}

/* Runs `body` in a fresh world. */
static void run_fresh(bool cache, uint32_t atomic, void (*body)(struct fixture *f))
{
    struct fixture f = {.w = new_world(cache, atomic)};
    run_in(&f, body);
    sim_world_free(f.w);
}

static void write_byte(struct fixture *f, uint64_t block, unsigned char with, unsigned flags)
{
    memset(f->buf, with, BLOCK);
    assert_int_equal(io_dev_write(f->dev, block * BLOCK, f->buf, BLOCK, flags), 0);
}

static int read_byte(struct fixture *f, uint64_t block)
{
    assert_int_equal(io_dev_read(f->dev, block * BLOCK, f->buf, BLOCK), 0);
    for (unsigned i = 1; i < BLOCK; i++)
        if (f->buf[i] != f->buf[0])
            return -1; /* noise or torn */
    return f->buf[0];
}

/* What a block holds after a power cut with every pending write dropped, or kept. */
static int after_cut(struct fixture *f, uint64_t block, enum sim_fate fate)
{
    struct sim_snapshot *s = sim_snapshot_take(f->w);
    struct sim_choice choice[64] = {0};
    for (unsigned i = 0; i < sim_snapshot_pending(s); i++)
        choice[i].fate = fate;
    struct sim_world *w = sim_world_from_snapshot(s, choice, 1);
    unsigned char got[BLOCK];
    sim_disk_peek(sim_disk_find(w, "d0"), block * BLOCK, got, BLOCK);
    sim_world_free(w);
    sim_snapshot_free(s);
    for (unsigned i = 1; i < BLOCK; i++)
        if (got[i] != got[0])
            return -1;
    return got[0];
}

static void body_cache(struct fixture *f)
{
    write_byte(f, 3, 1, 0);
    assert_int_equal(read_byte(f, 3), 1);
    assert_int_equal(after_cut(f, 3, SIM_DROP), -1);
    assert_int_equal(after_cut(f, 3, SIM_KEEP), 1);
    assert_int_equal(io_dev_flush(f->dev), 0);
    assert_int_equal(after_cut(f, 3, SIM_DROP), 1);
    write_byte(f, 3, 2, 0);
    assert_int_equal(read_byte(f, 3), 2);
    assert_int_equal(after_cut(f, 3, SIM_DROP), 1);
}
static void a_completed_write_is_seen_and_durable_after_a_flush(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_cache);
}

static void body_no_cache(struct fixture *f)
{
    write_byte(f, 3, 1, 0);
    assert_int_equal(after_cut(f, 3, SIM_DROP), 1);
}
static void without_a_cache_a_completed_write_is_durable(void **state)
{
    (void)state;
    run_fresh(false, 4096, body_no_cache);
}

static void body_flush_order(struct fixture *f)
{
    struct io_batch b;
    struct io_op w1, flush, w2;
    unsigned char *second = f->buf + BLOCK;
    memset(f->buf, 1, BLOCK);
    memset(second, 2, BLOCK);
    /* Both writes are in flight when the flush is submitted: it covers neither, whichever
     * completes first. */
    io_batch_init(&b);
    io_op_set(&w1, f->dev, IO_WRITE, 0, f->buf, BLOCK, 0);
    io_op_set(&w2, f->dev, IO_WRITE, BLOCK, second, BLOCK, 0);
    io_op_set(&flush, f->dev, IO_FLUSH, 0, NULL, 0, 0);
    io_batch_add(&b, &w1);
    io_batch_add(&b, &w2);
    io_batch_add(&b, &flush);
    assert_int_equal(io_batch_wait(&b), 0);
    assert_int_equal(after_cut(f, 0, SIM_DROP), -1);
    assert_int_equal(after_cut(f, 1, SIM_DROP), -1);
    assert_int_equal(io_dev_flush(f->dev), 0);
    assert_int_equal(after_cut(f, 0, SIM_DROP), 1);
}
static void a_flush_covers_only_what_had_completed_when_it_was_submitted(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_flush_order);
}

static void body_fua(struct fixture *f)
{
    write_byte(f, 0, 1, 0);
    write_byte(f, 1, 2, IO_FUA);
    assert_int_equal(after_cut(f, 0, SIM_DROP), -1);
    assert_int_equal(after_cut(f, 1, SIM_DROP), 2);
    write_byte(f, 0, 3, IO_FUA); /* over a cached one, which must not come back */
    assert_int_equal(after_cut(f, 0, SIM_DROP), 3);
    assert_int_equal(after_cut(f, 0, SIM_KEEP), 3);
    assert_int_equal(io_dev_flush(f->dev), 0);
    assert_int_equal(after_cut(f, 0, SIM_DROP), 3);
}
static void a_fua_write_is_durable_by_itself_and_covers_nothing_else(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_fua);
}

static void body_discard(struct fixture *f)
{
    write_byte(f, 5, 9, IO_FUA);
    assert_int_equal(io_dev_discard(f->dev, 5 * BLOCK, BLOCK), 0);
    assert_int_equal(read_byte(f, 5), -1);
    assert_int_equal(after_cut(f, 5, SIM_DROP), 9);
    assert_int_equal(after_cut(f, 5, SIM_KEEP), -1);
    assert_int_equal(io_dev_zero(f->dev, 5 * BLOCK, BLOCK), 0);
    assert_int_equal(read_byte(f, 5), 0);
    assert_int_equal(io_dev_flush(f->dev), 0);
    assert_int_equal(after_cut(f, 5, SIM_DROP), 0);
}
static void discard_and_zero_wait_in_the_cache_like_writes(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_discard);
}

static void body_error(struct fixture *f)
{
    write_byte(f, 0, 1, IO_FUA);
    sim_disk_inject(f->disk, SIM_FAULT_ERROR, 1U << IO_READ, 1, 0);
    assert_int_equal(read_byte(f, 0), 1);
    assert_int_equal(io_dev_read(f->dev, 0, f->buf, BLOCK), VP_E_IO);
    assert_int_equal(read_byte(f, 0), 1);
}
static void an_injected_error_meets_the_nth_op_of_its_kind(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_error);
}

static void body_lies(struct fixture *f)
{
    write_byte(f, 0, 1, IO_FUA);
    sim_disk_inject(f->disk, SIM_FAULT_LOST, 1U << IO_WRITE, 0, 0);
    write_byte(f, 0, 2, IO_FUA);
    assert_int_equal(read_byte(f, 0), 1);
    sim_disk_inject(f->disk, SIM_FAULT_MISDIRECT, 1U << IO_WRITE, 0, 8 * BLOCK);
    write_byte(f, 0, 3, IO_FUA);
    assert_int_equal(read_byte(f, 0), 1);
    assert_int_equal(read_byte(f, 8), 3);
    sim_disk_inject(f->disk, SIM_FAULT_FLIP, 1U << IO_WRITE, 0, 8 * 100 + 1);
    write_byte(f, 0, 4, 0);
    (void)read_byte(f, 0);
    assert_int_equal(f->buf[100], 4 ^ 2);
    assert_int_equal(f->buf[99], 4);
}
static void lost_misdirected_and_flipped_writes_succeed_and_lie(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_lies);
}

static void body_failed_flush(struct fixture *f)
{
    unsigned survived = 0;
    for (unsigned i = 0; i < 32; i++)
        write_byte(f, i, (unsigned char)(i + 1), 0);
    sim_disk_inject(f->disk, SIM_FAULT_ERROR, 1U << IO_FLUSH, 0, 0);
    assert_int_equal(io_dev_flush(f->dev), VP_E_IO);
    assert_int_equal(io_dev_flush(f->dev), 0);
    for (unsigned i = 0; i < 32; i++) {
        assert_int_equal(read_byte(f, i), i + 1);
        survived += after_cut(f, i, SIM_DROP) == (int)i + 1;
    }
    assert_in_range(survived, 1, 31);
}
static void after_a_failed_flush_a_later_success_proves_nothing(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_failed_flush);
}

static void body_death(struct fixture *f)
{
    write_byte(f, 0, 1, IO_FUA);
    sim_disk_inject(f->disk, SIM_FAULT_DEAD, 1U << IO_WRITE, 0, 0);
    memset(f->buf, 2, BLOCK);
    assert_int_equal(io_dev_write(f->dev, 0, f->buf, BLOCK, 0), VP_E_IO_NO_DEVICE);
    assert_int_equal(io_dev_read(f->dev, 0, f->buf, BLOCK), VP_E_IO_NO_DEVICE);
    assert_int_equal(io_dev_flush(f->dev), VP_E_IO_NO_DEVICE);
    sim_disk_set_dead(f->disk, false);
    assert_int_equal(read_byte(f, 0), 1);
}
static void a_dead_disk_fails_everything_and_returns_with_its_old_content(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_death);
}

static void body_stall(struct fixture *f)
{
    sim_disk_inject(f->disk, SIM_FAULT_STALL, 1U << IO_WRITE, 0, 5000000000);
    uint64_t from = reactor_now_ns();
    write_byte(f, 0, 1, 0);
    assert_true(reactor_now_ns() - from >= 5000000000);
}
static void a_stalled_write_completes_late(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_stall);
}

static void body_poke(struct fixture *f)
{
    write_byte(f, 0, 1, 0);
    sim_disk_flip_bit(f->disk, 7, 0);
    assert_int_equal(io_dev_flush(f->dev), 0);
    (void)read_byte(f, 0);
    assert_int_equal(f->buf[7], 0);
    assert_int_equal(f->buf[8], 1);
}
static void a_flipped_bit_stays_flipped_after_the_cache_is_flushed(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_poke);
}

static void body_past_the_end(struct fixture *f)
{
    assert_int_equal(io_dev_read(f->dev, 8 * MIB - 512, f->buf, 1024), VP_E_IO_SHORT);
    assert_int_equal(io_dev_write(f->dev, 8 * MIB, f->buf, 512, 0), VP_E_IO_SHORT);
}
static void a_transfer_past_the_end_is_refused(void **state)
{
    (void)state;
    run_fresh(true, 4096, body_past_the_end);
}

static void body_two_writes(struct fixture *f)
{
    struct io_batch b;
    struct io_op first, second;
    memset(f->buf, 1, 2 * BLOCK);
    memset(f->buf + 2 * BLOCK, 2, BLOCK);
    io_batch_init(&b);
    io_op_set(&first, f->dev, IO_WRITE, 0, f->buf, 2 * BLOCK, 0);
    io_op_set(&second, f->dev, IO_WRITE, BLOCK, f->buf + 2 * BLOCK, BLOCK, 0);
    io_batch_add(&b, &first);
    io_batch_add(&b, &second);
    (void)io_batch_wait(&b);
}

static void run_two_writes(void *arg)
{
    (void)arg;
    run_fresh(true, 4096, body_two_writes);
}

static void two_writes_in_flight_at_the_same_place_abort(void **state)
{
    (void)state;
    assert_true(call_aborts(run_two_writes, NULL));
}

static void body_read_during_write(struct fixture *f)
{
    struct io_batch b;
    struct io_op write, read[12];
    unsigned mixed = 0;
    unsigned char *got = f->buf + BLOCK;
    write_byte(f, 0, 1, 0);
    memset(f->buf, 2, BLOCK);
    io_batch_init(&b);
    io_op_set(&write, f->dev, IO_WRITE, 0, f->buf, BLOCK, 0);
    io_batch_add(&b, &write);
    for (unsigned i = 0; i < 12; i++) {
        io_op_set(&read[i], f->dev, IO_READ, 0, got + (size_t)i * BLOCK, BLOCK, 0);
        io_batch_add(&b, &read[i]);
    }
    assert_int_equal(io_batch_wait(&b), 0);
    for (unsigned i = 0; i < 12; i++)
        for (unsigned s = 1; s < 8; s++)
            mixed += got[i * BLOCK + s * 512] != got[i * BLOCK];
    assert_true(mixed > 0);
}
static void a_read_during_a_write_may_see_a_mixture(void **state)
{
    (void)state;
    run_fresh(true, 512, body_read_during_write);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_completed_write_is_seen_and_durable_after_a_flush),
        cmocka_unit_test(without_a_cache_a_completed_write_is_durable),
        cmocka_unit_test(a_flush_covers_only_what_had_completed_when_it_was_submitted),
        cmocka_unit_test(a_fua_write_is_durable_by_itself_and_covers_nothing_else),
        cmocka_unit_test(discard_and_zero_wait_in_the_cache_like_writes),
        cmocka_unit_test(an_injected_error_meets_the_nth_op_of_its_kind),
        cmocka_unit_test(lost_misdirected_and_flipped_writes_succeed_and_lie),
        cmocka_unit_test(after_a_failed_flush_a_later_success_proves_nothing),
        cmocka_unit_test(a_dead_disk_fails_everything_and_returns_with_its_old_content),
        cmocka_unit_test(a_stalled_write_completes_late),
        cmocka_unit_test(a_flipped_bit_stays_flipped_after_the_cache_is_flushed),
        cmocka_unit_test(two_writes_in_flight_at_the_same_place_abort),
        cmocka_unit_test(a_read_during_a_write_may_see_a_mixture),
        cmocka_unit_test(a_transfer_past_the_end_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
