/* Which copy is read: on simulated disks of different speed, measured in simulated time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/list.h"
#include "io/reactor.h"
#include "io/sim.h"
#include "raid/raid.h"
#include "tests/lib/on_reactor.h"

enum { COPIES = 2, BASE = 1 << 20, DATA = 64 << 20, REGION = 4 << 20, FAST_NS = 100000 };

static struct fixture {
    struct sim_world *world;
    struct sim_disk *sim[COPIES];
    struct raid_disk disk[COPIES];
    struct raid_group group;
    bool queues;     /* the disks do one read after the other, else any number at once */
    uint64_t slower; /* disk 1 is, by so many times */
    unsigned running;
    struct co_queue all_done;
    uint64_t reads, next; /* to be done in all, and the number of the next one */
    uint64_t step;        /* bytes between two reads */
} f;

/* A disk that does one read after the other; in front of a simulated one. */
static struct queued {
    struct io_dev dev;
    struct list ops;
    uint64_t op_ns;
    bool busy;
} queued[COPIES];

static void queued_main(void *arg)
{
    struct queued *q = arg;
    while (!list_empty(&q->ops)) {
        struct io_op *op = container_of(list_pop(&q->ops), struct io_op, link);
        check_ok(co_sleep_ns(q->op_ns));
        io_op_complete(op, 0);
    }
    q->busy = false;
}

static void queued_submit(struct io_dev *dev, struct io_op *op)
{
    struct queued *q = container_of(dev, struct queued, dev);
    list_add_tail(&q->ops, &op->link);
    if (!q->busy)
        check_ok(co_spawn(queued_main, q, "queue of a disk"));
    q->busy = true;
}

static struct io_dev *queued_new(struct queued *q, uint64_t op_ns)
{
    static const struct io_dev_ops ops = {.submit = queued_submit};
    *q = (struct queued){.dev.ops = &ops, .op_ns = op_ns};
    list_init(&q->ops);
    return &q->dev;
}

static void disk_open(unsigned i)
{
    static const char *const names[COPIES] = {"d0", "d1"};
    struct raid_disk *d = &f.disk[i];
    if (f.queues)
        d->dev = queued_new(&queued[i], i ? f.slower * FAST_NS : FAST_NS);
    else
        check_ok(io_dev_open(names[i], 0, &d->dev, NULL));
    d->index = i;
    check(raid_disk_figures_new(d));
    atomic_store(&d->in_service, true);
    f.group.disk[i] = d;
    f.group.base_bytes[i] = BASE;
}

static void run_in_world(void *body)
{
    for (unsigned i = 0; i < COPIES; i++)
        disk_open(i);
    ((void (*)(void))body)();
    for (unsigned i = 0; i < COPIES; i++) {
        if (!f.queues)
            io_dev_close(f.disk[i].dev);
        raid_disk_figures_free(&f.disk[i]);
    }
}

/* Disk 1 is `slower` times as slow as disk 0. It is the own disk of region 0. */
static void with(bool queues, unsigned slower, void (*body)(void))
{
    static const char *const names[COPIES] = {"d0", "d1"};
    memset(&f, 0, sizeof(f));
    f.queues = queues;
    f.slower = slower;
    f.world = sim_world_new(7);
    f.group = (struct raid_group){.id = 1,
                                  .width = COPIES,
                                  .written = COPIES,
                                  .data_bytes = DATA,
                                  .profile = {RAID_MIRROR, 1, COPIES - 1}};
    f.step = REGION + RAID_BLOCK;
    for (unsigned i = 0; i < COPIES; i++) {
        uint64_t ns = i ? (uint64_t)slower * FAST_NS : FAST_NS;
        struct sim_disk_config c = {.name = names[i],
                                    .size_bytes = BASE + DATA,
                                    .sector_bytes = 4096,
                                    .atomic_bytes = 4096,
                                    .latency_min_ns = ns,
                                    .latency_max_ns = ns};
        f.sim[i] = sim_disk_add(f.world, &c);
    }
    struct reactor_config config = {.sim = f.world};
    on_reactor(&config, run_in_world, (void *)body);
    sim_world_free(f.world);
    assert_checked();
}

static void with_disks(unsigned slower, void (*body)(void))
{
    with(false, slower, body);
}
static void with_queues(unsigned slower, void (*body)(void))
{
    with(true, slower, body);
}

static void reader_main(void *arg)
{
    (void)arg;
    static _Alignas(4096) uint8_t buf[RAID_BLOCK]; /* nobody looks at what was read */
    while (f.next < f.reads) {
        struct raid_io io = {.group = &f.group, .buf = buf, .len = RAID_BLOCK};
        io.at_bytes = f.next++ * f.step % DATA / RAID_BLOCK * RAID_BLOCK;
        check_ok(raid_read(&io, 1));
    }
    if (--f.running == 0)
        co_queue_wake_all(&f.all_done);
}

/* Reads so many blocks with so many readers; returns the time that it took. */
static uint64_t read_blocks(unsigned readers, uint64_t reads)
{
    uint64_t begin_ns = sim_now_ns(f.world);
    f.next = 0;
    f.reads = reads;
    f.running = readers;
    co_queue_init(&f.all_done);
    for (unsigned i = 0; i < readers; i++)
        check_ok(co_spawn(reader_main, NULL, "reader"));
    if (f.running)
        co_queue_wait(&f.all_done, "readers");
    return sim_now_ns(f.world) - begin_ns;
}

static uint64_t reads_of(unsigned disk)
{
    return sim_disk_ops(f.sim[disk], IO_READ);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void body_equal(void)
{
    read_blocks(1, 1000);
    check(reads_of(0) > 450 && reads_of(0) < 550);
    uint64_t before[COPIES] = {reads_of(0), reads_of(1)};
    f.step = RAID_BLOCK; /* one region only: the 4 MiB of disk 1 */
    read_blocks(1, REGION / RAID_BLOCK);
    check(reads_of(1) - before[1] >= REGION / RAID_BLOCK - 1); /* one to get to know disk 0 */
    check(reads_of(0) - before[0] <= 1);
}
static void disks_that_are_equal_share_the_regions(void **state)
{
    (void)state;
    with_disks(1, body_equal);
}

static void body_one_busy_place(void)
{
    f.step = 0; /* always the same block, whose own disk is disk 1 */
    uint64_t took_ns = read_blocks(32, 4000);
    check(took_ns * 9 <= UINT64_C(4000) / 2 * FAST_NS * 10);
}
static void readers_of_one_place_use_both_disks(void **state)
{
    (void)state;
    with_queues(1, body_one_busy_place);
}

/* 0.9 of what the fast disk and a tenth of it give together. */
static void body_ten_to_one(void)
{
    uint64_t took_ns = read_blocks(32, 20000);
    check(took_ns * 9 * 11 <= UINT64_C(20000) * FAST_NS * 10 * 10);
}
static void readers_get_what_a_fast_and_a_slow_disk_give(void **state)
{
    (void)state;
    with_queues(10, body_ten_to_one);
}

static void body_slow_alone(void)
{
    uint64_t took_ns = read_blocks(1, 20000);
    check(took_ns * 98 <= UINT64_C(20000) * FAST_NS * 100);
    check(reads_of(1) > 1); /* it is tried now and then */
}
static void one_reader_is_as_fast_as_the_fast_disk(void **state)
{
    (void)state;
    with_disks(10, body_slow_alone);
}

static void body_slow_shared(void)
{
    uint64_t took_ns = read_blocks(32, 64000);
    /* Disks here take any number of reads at once: 32 readers, one latency each. */
    check(took_ns * 9 <= UINT64_C(64000) / 32 * FAST_NS * 10);
    check(reads_of(1) < 64000 / 10);
}
static void many_readers_leave_the_slow_disk_alone(void **state)
{
    (void)state;
    with_disks(10, body_slow_shared);
}

static void body_recovers(void)
{
    read_blocks(1, 100);
    for (unsigned i = 0; i < 8; i++)
        sim_disk_inject(f.sim[1], SIM_FAULT_STALL, 1U << IO_READ, i, 100 * FAST_NS);
    f.step = 0;
    uint64_t before = reads_of(1);
    read_blocks(1, 20);
    check(reads_of(1) - before <= 2); /* one was enough to know */
    read_blocks(1, 20000);            /* the other stalls are met by single reads */
    before = reads_of(1);
    read_blocks(1, 1000);
    check_equal(reads_of(1) - before, 1000);
}
static void a_disk_that_is_fast_again_gets_its_regions_back(void **state)
{
    (void)state;
    with_disks(1, body_recovers);
}

static void body_failing(void)
{
    read_blocks(1, 100);
    f.step = 0;
    sim_disk_set_unreadable(f.sim[1], BASE);
    uint64_t before = reads_of(1);
    read_blocks(1, 1);
    check_equal(reads_of(1) - before, 1);
    sim_disk_set_dead(f.sim[1], true);
    before = reads_of(1);
    for (unsigned i = 0; i < 3000; i++)
        read_blocks(1, 1);
    check(reads_of(1) - before < 100); /* to fail is no way to be fast */
}
static int eject_nobody(struct raid_disk *d, int rc, const char *why)
{
    (void)d;
    (void)rc;
    (void)why;
    return VP_E_POOL_FENCED; /* so that it goes on failing */
}
static void body_failing_disk(void)
{
    for (unsigned i = 0; i < COPIES; i++)
        f.disk[i].eject = eject_nobody;
    body_failing();
}
static void a_disk_that_fails_at_once_attracts_no_reads(void **state)
{
    (void)state;
    with_disks(1, body_failing_disk);
}

static void body_out(void)
{
    atomic_store(&f.disk[0].in_service, false);
    uint64_t took_ns = read_blocks(4, 400);
    check_equal(reads_of(0), 0);
    check_equal(took_ns, 400 / 4 * 10 * FAST_NS);
}
static void a_disk_out_of_service_is_not_read_however_fast(void **state)
{
    (void)state;
    with_disks(10, body_out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(disks_that_are_equal_share_the_regions),
        cmocka_unit_test(readers_of_one_place_use_both_disks),
        cmocka_unit_test(readers_get_what_a_fast_and_a_slow_disk_give),
        cmocka_unit_test(one_reader_is_as_fast_as_the_fast_disk),
        cmocka_unit_test(many_readers_leave_the_slow_disk_alone),
        cmocka_unit_test(a_disk_that_is_fast_again_gets_its_regions_back),
        cmocka_unit_test(a_disk_that_fails_at_once_attracts_no_reads),
        cmocka_unit_test(a_disk_out_of_service_is_not_read_however_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
