/* Mirrors on simulated disks: copies, healing, ejection before acknowledgement, flushes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/crc.h"
#include "base/log.h"
#include "io/guard.h"
#include "io/sim.h"
#include "raid/raid.h"
#include "tests/lib/on_reactor.h"

enum { COPIES = 3, BASE = 1 << 20, DATA = 1 << 20, BLOCKS = 16 };

/* A group of up to three sides, each on a simulated disk of its own. */
static struct fixture {
    struct sim_world *world;
    struct sim_disk *sim[COPIES];
    struct raid_disk disk[COPIES];
    struct raid_disk *disks[COPIES];
    struct raid_group group;
    unsigned copies;
    unsigned ejects;
    int eject_rc;
    unsigned acknowledged_at_eject; /* what `acknowledged` was */
    unsigned acknowledged;
} f;

static _Alignas(4096) uint8_t data[BLOCKS * RAID_BLOCK], back[BLOCKS * RAID_BLOCK];
static uint32_t crc[BLOCKS];

static int note_eject(struct raid_disk *d, int rc, const char *why)
{
    (void)rc;
    (void)why;
    f.ejects++;
    f.acknowledged_at_eject = f.acknowledged;
    if (f.eject_rc)
        return f.eject_rc;
    atomic_store(&d->in_service, false);
    atomic_store(&d->eject_pending, false);
    return 0;
}

static void fill(uint8_t seed)
{
    for (unsigned b = 0; b < BLOCKS; b++) {
        memset(data + b * RAID_BLOCK, seed + (int)b, RAID_BLOCK);
        crc[b] = vp_crc32c(data + b * RAID_BLOCK, RAID_BLOCK);
    }
}

static void open_disks(void)
{
    static const char *const names[COPIES] = {"d0", "d1", "d2"};
    for (unsigned i = 0; i < f.copies; i++) {
        struct raid_disk *d = &f.disk[i];
        check_ok(io_dev_open(names[i], 0, &d->dev, NULL));
        d->index = i;
        d->eject = note_eject;
        atomic_store(&d->in_service, true);
        f.disks[i] = d;
        f.group.disk[i] = d;
        f.group.base_bytes[i] = BASE;
    }
    f.group.id = 0;
    f.group.width = f.group.written = f.copies;
    f.group.data_bytes = DATA;
    f.group.profile =
        (struct raid_profile){f.copies > 1 ? RAID_MIRROR : RAID_SINGLE, 1, (uint8_t)(f.copies - 1)};
    fill(1);
}

static void run_in_world(void *body)
{
    open_disks();
    ((void (*)(void))body)();
    for (unsigned i = 0; i < f.copies; i++)
        io_dev_close(f.disk[i].dev);
}

static void with_copies(unsigned copies, void (*body)(void))
{
    static const char *const names[COPIES] = {"d0", "d1", "d2"};
    memset(&f, 0, sizeof(f));
    f.copies = copies;
    f.world = sim_world_new(7);
    for (unsigned i = 0; i < copies; i++) {
        struct sim_disk_config c = {.name = names[i],
                                    .size_bytes = 4 << 20,
                                    .sector_bytes = 4096,
                                    .atomic_bytes = 4096,
                                    .write_cache = true,
                                    .latency_min_ns = 1000,
                                    .latency_max_ns = 50000};
        f.sim[i] = sim_disk_add(f.world, &c);
    }
    struct reactor_config config = {.sim = f.world};
    on_reactor(&config, run_in_world, (void *)body);
    sim_world_free(f.world);
    assert_checked();
}

static int write_all(void)
{
    struct raid_io io = {.group = &f.group, .buf = data, .len = sizeof(data)};
    int rc = raid_write(&io, 1);
    f.acknowledged += rc == 0;
    return rc;
}

static int read_verified(void)
{
    struct raid_io io = {.group = &f.group, .buf = back, .len = sizeof(back), .crc = crc};
    memset(back, 0xee, sizeof(back));
    return raid_read(&io, 1);
}

static bool copy_is_good(unsigned copy)
{
    sim_disk_peek(f.sim[copy], BASE, back, sizeof(back));
    return memcmp(back, data, sizeof(data)) == 0;
}

/* ---- copies -------------------------------------------------------------------------------- */

static void body_every_copy(void)
{
    check_ok(write_all());
    for (unsigned i = 0; i < f.copies; i++)
        check(copy_is_good(i));
    check_ok(read_verified());
    check(memcmp(back, data, sizeof(data)) == 0);
}
static void a_write_reaches_every_copy(void **state)
{
    (void)state;
    with_copies(1, body_every_copy);
    with_copies(2, body_every_copy);
    with_copies(3, body_every_copy);
}

static void body_many_pieces(void)
{
    enum { PIECES = BLOCKS };
    struct raid_io io[PIECES * 3]; /* more than a window holds, each block in three places */
    for (unsigned i = 0; i < PIECES * 3; i++)
        io[i] = (struct raid_io){.group = &f.group,
                                 .at_bytes = (uint64_t)i * RAID_BLOCK,
                                 .buf = data + (i % PIECES) * RAID_BLOCK,
                                 .len = RAID_BLOCK,
                                 .crc = &crc[i % PIECES]};
    check_ok(raid_write(io, PIECES * 3));
    for (unsigned i = 0; i < PIECES * 3; i++)
        io[i].buf = back + (i % PIECES) * RAID_BLOCK;
    for (unsigned i = 0; i < 3; i++)
        check_ok(raid_read(io + i * PIECES, PIECES));
    check(memcmp(back, data, sizeof(data)) == 0);
    check_equal(f.disk[0].writes_done, PIECES * 3);
}
static void requests_larger_than_a_window_are_split(void **state)
{
    (void)state;
    with_copies(3, body_many_pieces);
}

static void body_single_copy(void)
{
    check_equal(raid_copies(&f.group), 2);
    check_ok(raid_write_copy(&f.group, 1, 4096, data, 4096));
    check_ok(raid_read_copy(&f.group, 1, 4096, back, 4096));
    check(memcmp(back, data, 4096) == 0);
    check_ok(raid_read_copy(&f.group, 0, 4096, back, 4096));
    check(memcmp(back, data, 4096) != 0);
    atomic_store(&f.disk[1].in_service, false);
    check_equal(raid_read_copy(&f.group, 1, 4096, back, 4096), VP_E_RAID_DISK_OUT);
    check_equal(raid_write_copy(&f.group, 1, 4096, data, 4096), VP_E_RAID_DISK_OUT);
}
static void a_copy_can_be_addressed_alone(void **state)
{
    (void)state;
    with_copies(2, body_single_copy);
}

/* ---- healing ------------------------------------------------------------------------------- */

static void body_heal(void)
{
    check_ok(write_all());
    for (unsigned b = 0; b < BLOCKS; b++)
        sim_disk_flip_bit(f.sim[b % 2], BASE + b * RAID_BLOCK + b, b % 8);
    check_ok(read_verified());
    check(memcmp(back, data, sizeof(data)) == 0);
    check_equal(figure_get(&f.disk[0].figures.checksum_errors) +
                    figure_get(&f.disk[1].figures.checksum_errors),
                BLOCKS / 2);
    check_equal(figure_get(&f.disk[0].figures.healed_blocks) +
                    figure_get(&f.disk[1].figures.healed_blocks),
                BLOCKS / 2);
    check(copy_is_good(0)); /* region 0 of group 0 is read from copy 0: that is what was healed */
    check(!copy_is_good(1));
}
static void a_flipped_bit_is_healed_from_the_mirror(void **state)
{
    (void)state;
    with_copies(2, body_heal);
}

static void body_heal_mixed(void)
{
    check_ok(write_all());
    sim_disk_flip_bit(f.sim[0], BASE + 2 * RAID_BLOCK, 0);
    sim_disk_flip_bit(f.sim[0], BASE + 3 * RAID_BLOCK, 0);
    sim_disk_flip_bit(f.sim[1], BASE + 3 * RAID_BLOCK, 1);
    sim_disk_flip_bit(f.sim[2], BASE + 2 * RAID_BLOCK, 2);
    check_ok(read_verified());
    check(memcmp(back, data, sizeof(data)) == 0);
    check(copy_is_good(0));
    check_ok(read_verified());
}
static void blocks_bad_on_different_copies_are_put_together(void **state)
{
    (void)state;
    with_copies(3, body_heal_mixed);
}

static void body_lost(void)
{
    check_ok(write_all());
    sim_disk_flip_bit(f.sim[0], BASE + 5 * RAID_BLOCK, 0);
    sim_disk_flip_bit(f.sim[1], BASE + 5 * RAID_BLOCK, 1);
    check_equal(read_verified(), VP_E_CHECKSUM);
    struct raid_io io = {.group = &f.group, .buf = back, .len = 5 * RAID_BLOCK, .crc = crc};
    check_ok(raid_read(&io, 1));
    io_guard_disabled[GUARD_DATA_CHECKSUM] = true;
    check_ok(read_verified());
    io_guard_disabled[GUARD_DATA_CHECKSUM] = false;
}
static void what_no_copy_can_heal_is_an_error_for_that_block(void **state)
{
    (void)state;
    with_copies(2, body_lost);
}

static void body_read_error(void)
{
    check_ok(write_all());
    sim_disk_inject(f.sim[0], SIM_FAULT_ERROR, 1 << IO_READ, 0, 0);
    check_ok(read_verified());
    check(memcmp(back, data, sizeof(data)) == 0);
    check_equal(figure_get(&f.disk[0].figures.read_errors), 1);
    check_equal(figure_get(&f.disk[0].figures.healed_blocks), BLOCKS);
    check_equal(f.ejects, 0);
}
static void an_unreadable_copy_is_rewritten(void **state)
{
    (void)state;
    with_copies(2, body_read_error);
}

/* As the two reads of a whole piece fail, no copy has it; each block is on one of them. */
static void body_bad_in_different_blocks(void)
{
    check_ok(write_all());
    for (unsigned c = 0; c < 2; c++)
        for (unsigned b = 2; b < BLOCKS; b += 5)
            sim_disk_set_unreadable(f.sim[c], BASE + (b + c) * RAID_BLOCK);
    sim_disk_flip_bit(f.sim[1], BASE + RAID_BLOCK, 0);
    check_ok(read_verified());
    check(memcmp(back, data, sizeof(data)) == 0);
    check_equal(f.ejects, 0);
    check_ok(raid_read_copy(&f.group, 0, 0, back, sizeof(back))); /* it is healed */
}
static void copies_that_are_unreadable_at_different_blocks_are_put_together(void **state)
{
    (void)state;
    with_copies(2, body_bad_in_different_blocks);
    with_copies(3, body_bad_in_different_blocks);
}

static void body_gone(void)
{
    check_ok(write_all());
    sim_disk_set_dead(f.sim[0], true);
    check_ok(read_verified());
    check(memcmp(back, data, sizeof(data)) == 0);
    check_equal(f.ejects, 1);
    sim_disk_set_dead(f.sim[1], true);
    check_equal(read_verified(), VP_E_RAID_NO_COPY);
    check_equal(f.ejects, 1);
}
static void a_disk_that_is_gone_is_ejected_by_a_read(void **state)
{
    (void)state;
    with_copies(2, body_gone);
}

static void concurrent_reader(void *arg)
{
    static _Alignas(4096) uint8_t mine[4][BLOCKS * RAID_BLOCK];
    static unsigned turn;
    uint8_t *buf = mine[turn++ % 4];
    struct raid_io io = {.group = &f.group, .buf = buf, .len = sizeof(data), .crc = crc};
    check_ok(raid_read(&io, 1));
    check(memcmp(buf, data, sizeof(data)) == 0);
    co_group_leave(arg, 0);
}
static void body_two_readers(void)
{
    check_ok(write_all());
    for (unsigned b = 0; b < BLOCKS; b++)
        sim_disk_flip_bit(f.sim[0], BASE + b * RAID_BLOCK, 3);
    struct co_group g;
    co_group_init(&g);
    for (unsigned i = 0; i < 4; i++) {
        co_group_enter(&g);
        check_ok(co_spawn(concurrent_reader, &g, "reader"));
    }
    check_ok(co_group_wait(&g)); /* the simulated disk dies of two writes at one place */
    check_ok(read_verified());
    check(copy_is_good(0));
}
static void readers_of_one_bad_block_do_not_collide(void **state)
{
    (void)state;
    with_copies(2, body_two_readers);
}

/* ---- ejection ------------------------------------------------------------------------------ */

static void body_write_error(void)
{
    sim_disk_inject(f.sim[1], SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_ok(write_all());
    check_equal(f.ejects, 1);
    check_equal(f.acknowledged_at_eject, 0);
    check(!f.disk[1].in_service);
    check(copy_is_good(0));
    check_ok(read_verified());
}
static void a_failed_member_is_ejected_before_the_acknowledgement(void **state)
{
    (void)state;
    with_copies(2, body_write_error);
}

static void body_all_fail(void)
{
    for (unsigned i = 0; i < f.copies; i++)
        sim_disk_inject(f.sim[i], SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_equal(write_all(), VP_E_RAID_NO_COPY);
    check_equal(f.ejects, 0); /* nobody else has the data: the disk may still be good for others */
    check_ok(write_all());
}
static void a_write_that_fails_everywhere_ejects_nobody(void **state)
{
    (void)state;
    with_copies(1, body_all_fail);
    with_copies(2, body_all_fail);
}

static uint64_t noted(struct raid_io *io, int (*transfer)(struct raid_io *io, unsigned count),
                      int rc)
{
    struct raid_disk_set set = {0};
    io->group = &f.group;
    io->written = &set;
    io->len = sizeof(data);
    check_equal(transfer(io, 1), rc);
    return set.word[0];
}

static void body_noted(void)
{
    struct raid_io write = {.buf = data}, read = {.buf = back, .crc = crc};
    check_equal(noted(&write, raid_write, 0), 7);
    check_equal(noted(&read, raid_read, 0), 0);
    sim_disk_flip_bit(f.sim[0], BASE, 3);       /* the copy that is read first */
    check_equal(noted(&read, raid_read, 0), 1); /* it was healed */
    sim_disk_inject(f.sim[2], SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_equal(noted(&write, raid_write, 0), 7); /* a part of it may be there */
    check(!f.disk[2].in_service);
    check_equal(noted(&write, raid_write, 0), 3);
    for (unsigned i = 0; i < 2; i++)
        sim_disk_inject(f.sim[i], SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_equal(noted(&write, raid_write, VP_E_RAID_NO_COPY), 3);
}
static void who_writes_is_told_which_disks_took_something(void **state)
{
    (void)state;
    with_copies(3, body_noted);
}

static void body_eject_fails(void)
{
    f.eject_rc = VP_E_POOL_FENCED;
    sim_disk_inject(f.sim[1], SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_equal(write_all(), VP_E_POOL_FENCED);
}
static void a_write_is_not_acknowledged_when_the_ejection_fails(void **state)
{
    (void)state;
    with_copies(2, body_eject_fails);
}

static void body_pending(void)
{
    atomic_store(&f.disk[0].in_service, false);
    atomic_store(&f.disk[0].eject_pending, true);
    check_ok(write_all());
    check_equal(f.ejects, 1);
    check_ok(write_all());
    check_equal(f.ejects, 1);
    atomic_store(&f.disk[0].eject_pending, true);
    check_ok(raid_flush(f.disks, f.copies));
    check_equal(f.ejects, 2);
}
static void who_finds_a_disk_out_waits_until_that_is_durable(void **state)
{
    (void)state;
    with_copies(2, body_pending);
}

/* The other member leaves service while the write is in flight. */
static int eject_both(struct raid_disk *d, int rc, const char *why)
{
    atomic_store(&f.disk[1].in_service, false);
    return note_eject(d, rc, why);
}
static void body_left_meanwhile(void)
{
    f.disk[0].eject = eject_both;
    sim_disk_inject(f.sim[0], SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_equal(write_all(), VP_E_RAID_NO_COPY);
}
static void a_copy_on_a_disk_that_left_meanwhile_does_not_count(void **state)
{
    (void)state;
    with_copies(2, body_left_meanwhile);
}

/* Kills a disk at every one of its operations in turn: data stay readable, and what was written
 * after the ejection is right. */
static unsigned lose_at, lose_disk;
static void body_lose(void)
{
    sim_disk_inject(f.sim[lose_disk], SIM_FAULT_DEAD, ~0U, lose_at, 0);
    for (unsigned round = 0; round < 4; round++) {
        fill((uint8_t)(round * 40));
        check_ok(write_all());
        check_ok(read_verified());
        check(memcmp(back, data, sizeof(data)) == 0);
        check_ok(raid_flush(f.disks, f.copies));
    }
    check(f.ejects <= 1);
    check_equal(f.ejects, !f.disk[lose_disk].in_service);
}
static void a_disk_may_die_at_any_operation(void **state)
{
    (void)state;
    for (lose_disk = 0; lose_disk < 2; lose_disk++)
        for (lose_at = 0; lose_at < 14; lose_at++)
            with_copies(2, body_lose);
}

/* ---- flush --------------------------------------------------------------------------------- */

static void body_skip_clean(void)
{
    check_ok(raid_flush(f.disks, f.copies));
    check_equal(figure_get(&f.disk[0].figures.flushes), 0);
    check_ok(write_all());
    check_ok(raid_flush(f.disks, f.copies));
    check_ok(raid_flush(f.disks, f.copies));
    check_equal(figure_get(&f.disk[0].figures.flushes), 1);
    check_equal(f.disk[0].writes_flushed, f.disk[0].writes_done);
}
static void clean_disks_are_not_flushed(void **state)
{
    (void)state;
    with_copies(2, body_skip_clean);
}

static void body_flush_error(void)
{
    check_ok(write_all());
    sim_disk_inject(f.sim[0], SIM_FAULT_ERROR, 1 << IO_FLUSH, 0, 0);
    check_ok(raid_flush(f.disks, f.copies));
    check_equal(f.ejects, 1);
    check(!f.disk[0].in_service);
    check_equal(f.disk[0].writes_flushed, 0);
    check_ok(write_all());
    check_ok(raid_flush(f.disks, f.copies));
    check_equal(figure_get(&f.disk[0].figures.flushes), 1); /* never again */
}
static void a_failed_flush_ejects_and_is_not_retried(void **state)
{
    (void)state;
    with_copies(2, body_flush_error);
}

static void flusher(void *arg)
{
    check_ok(raid_flush(f.disks, f.copies));
    co_group_leave(arg, 0);
}
static void body_write_during_flush(void)
{
    check_ok(write_all());
    sim_disk_inject(f.sim[0], SIM_FAULT_STALL, 1 << IO_FLUSH, 0, 10000000);
    struct co_group g;
    co_group_init(&g);
    co_group_enter(&g);
    check_ok(co_spawn(flusher, &g, "flusher"));
    co_yield ();
    check_ok(write_all());
    check_ok(co_group_wait(&g));
    check_equal(f.disk[0].writes_flushed, 1);
    check_equal(f.disk[0].writes_done, 2);
    check_ok(raid_flush(f.disks, f.copies));
    check_equal(figure_get(&f.disk[0].figures.flushes), 2);
}
static void a_write_during_a_flush_is_not_counted_as_flushed(void **state)
{
    (void)state;
    with_copies(1, body_write_during_flush);
}

/* The first flush reports that the cache was lost; a second one, asked for meanwhile, must not say
 * that all is well. */
static void body_two_flushes(void)
{
    check_ok(write_all());
    sim_disk_inject(f.sim[0], SIM_FAULT_ERROR, 1 << IO_FLUSH, 0, 0);
    struct co_group g;
    co_group_init(&g);
    for (unsigned i = 0; i < 3; i++) {
        co_group_enter(&g);
        check_ok(co_spawn(flusher, &g, "flusher"));
    }
    check_ok(co_group_wait(&g));
    check_equal(f.disk[0].writes_flushed, 0);
    check_equal(figure_get(&f.disk[0].figures.flushes), 1);
    check(!f.disk[0].in_service);
    check_equal(f.disk[1].writes_flushed, 1);
}
static void a_flush_beside_a_failed_one_is_not_believed(void **state)
{
    (void)state;
    with_copies(2, body_two_flushes);
}

static void body_shared_flush(void)
{
    check_ok(write_all());
    sim_disk_inject(f.sim[0], SIM_FAULT_STALL, 1 << IO_FLUSH, 0, 10000000);
    struct co_group g;
    co_group_init(&g);
    for (unsigned i = 0; i < 20; i++) {
        co_group_enter(&g);
        check_ok(co_spawn(flusher, &g, "flusher"));
    }
    check_ok(co_group_wait(&g));
    check_equal(figure_get(&f.disk[0].figures.flushes), 2);
}
static void flushes_that_wait_share_the_next_one(void **state)
{
    (void)state;
    with_copies(1, body_shared_flush);
}

/* ---- what the kernel lacks ----------------------------------------------------------------- */

static void body_full(void)
{
    io_dev_wait_for_room(f.disk[0].dev);
    sim_disk_inject(f.sim[0], SIM_FAULT_FULL, 1 << IO_WRITE, 0, 500000000);
    uint64_t before = reactor_now_ns();
    check_ok(write_all());
    check(reactor_now_ns() - before >= 500000000);
    check_equal(f.ejects, 0);
    check(f.disk[0].in_service && !io_dev_is_full(f.disk[0].dev));
    struct raid_io io = {.group = &f.group, .buf = back, .len = sizeof(back)};
    check_ok(raid_read_copy(&f.group, 0, 0, io.buf, io.len));
    check(memcmp(back, data, sizeof(data)) == 0);
}
/* What completed before is durable all the same once the flush has found room. */
static void body_full_flush(void)
{
    io_dev_wait_for_room(f.disk[0].dev);
    check_ok(write_all());
    sim_disk_inject(f.sim[0], SIM_FAULT_FULL, 1 << IO_FLUSH, 0, 500000000);
    uint64_t before = reactor_now_ns();
    check_ok(raid_flush(f.disks, f.copies));
    check(reactor_now_ns() - before >= 500000000);
    check_equal(f.ejects, 0);
    check(f.disk[0].in_service && !f.disk[0].flush_failed && !io_dev_is_full(f.disk[0].dev));
}
static void a_flush_waits_for_room_below_the_disk(void **state)
{
    (void)state;
    with_copies(2, body_full_flush);
}

static void a_write_waits_for_room_below_the_disk(void **state)
{
    (void)state;
    with_copies(2, body_full);
}

/* For half a second the kernel has no memory for, or postpones, what the disk is asked. */
static enum sim_fault short_of;
static void body_short_write(void)
{
    uint64_t before = reactor_now_ns();
    sim_disk_inject(f.sim[0], short_of, 1 << IO_WRITE, 0, 500000000);
    check_ok(write_all());
    check(reactor_now_ns() - before >= 500000000);
    check_equal(f.ejects, 0);
    check(copy_is_good(0));
    check(f.copies == 1 || copy_is_good(1));
}
static void body_short_read(void)
{
    check_ok(write_all());
    uint64_t before = reactor_now_ns();
    sim_disk_inject(f.sim[0], short_of, 1 << IO_READ, 0, 500000000);
    check_ok(read_verified());
    check(memcmp(back, data, sizeof(data)) == 0);
    check(reactor_now_ns() - before >= 500000000);
    check_equal(f.ejects, 0);
    check_equal(figure_get(&f.disk[0].figures.healed_blocks), 0);
}
static void a_transfer_waits_for_what_the_kernel_lacks(void **state)
{
    (void)state;
    static const enum sim_fault faults[] = {SIM_FAULT_NO_MEMORY, SIM_FAULT_AGAIN};
    for (unsigned i = 0; i < 2; i++) {
        short_of = faults[i];
        for (unsigned copies = 1; copies <= 2; copies++) {
            with_copies(copies, body_short_write);
            with_copies(copies, body_short_read);
        }
    }
}

static void body_postponed_flush(void)
{
    check_ok(write_all());
    uint64_t before = reactor_now_ns();
    sim_disk_inject(f.sim[0], SIM_FAULT_AGAIN, 1 << IO_FLUSH, 0, 500000000);
    check_ok(raid_flush(f.disks, f.copies));
    check(reactor_now_ns() - before >= 500000000);
    check_equal(f.ejects, 0);
    check(f.disk[0].in_service && !f.disk[0].flush_failed);
    check_equal(f.disk[0].writes_flushed, f.disk[0].writes_done);
}
static void a_flush_that_is_postponed_is_asked_again(void **state)
{
    (void)state;
    with_copies(1, body_postponed_flush);
    with_copies(2, body_postponed_flush);
}

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

int main(void)
{
    vp_log_set_sink(drop_line, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_reaches_every_copy),
        cmocka_unit_test(requests_larger_than_a_window_are_split),
        cmocka_unit_test(a_copy_can_be_addressed_alone),
        cmocka_unit_test(a_flipped_bit_is_healed_from_the_mirror),
        cmocka_unit_test(blocks_bad_on_different_copies_are_put_together),
        cmocka_unit_test(what_no_copy_can_heal_is_an_error_for_that_block),
        cmocka_unit_test(an_unreadable_copy_is_rewritten),
        cmocka_unit_test(copies_that_are_unreadable_at_different_blocks_are_put_together),
        cmocka_unit_test(a_disk_that_is_gone_is_ejected_by_a_read),
        cmocka_unit_test(readers_of_one_bad_block_do_not_collide),
        cmocka_unit_test(a_failed_member_is_ejected_before_the_acknowledgement),
        cmocka_unit_test(a_write_that_fails_everywhere_ejects_nobody),
        cmocka_unit_test(who_writes_is_told_which_disks_took_something),
        cmocka_unit_test(a_write_is_not_acknowledged_when_the_ejection_fails),
        cmocka_unit_test(who_finds_a_disk_out_waits_until_that_is_durable),
        cmocka_unit_test(a_copy_on_a_disk_that_left_meanwhile_does_not_count),
        cmocka_unit_test(a_disk_may_die_at_any_operation),
        cmocka_unit_test(clean_disks_are_not_flushed),
        cmocka_unit_test(a_failed_flush_ejects_and_is_not_retried),
        cmocka_unit_test(a_write_during_a_flush_is_not_counted_as_flushed),
        cmocka_unit_test(a_flush_beside_a_failed_one_is_not_believed),
        cmocka_unit_test(flushes_that_wait_share_the_next_one),
        cmocka_unit_test(a_write_waits_for_room_below_the_disk),
        cmocka_unit_test(a_flush_waits_for_room_below_the_disk),
        cmocka_unit_test(a_transfer_waits_for_what_the_kernel_lacks),
        cmocka_unit_test(a_flush_that_is_postponed_is_asked_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
