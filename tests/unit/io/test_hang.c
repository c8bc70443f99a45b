/* Devices that do not answer: a pipe is a disk that completes a read when the test says so.
 * threads: yes */
#include "io/buffer.h"
#include "io/guard.h"
#include "io/sim.h"
#include "io/uring_device_impl.h"
#include "tests/lib/on_reactor.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define BLOCK 4096U
enum { MANY = 1000 };

/* ---- a device on the reading end of a pipe --------------------------------------------------- */

static unsigned freed, told;

static void pipe_free(struct io_dev *dev)
{
    freed++;
    free(container_of(dev, struct uring_device, dev));
}

/* Stays for late requests, which may end after the test's coroutine. */
static struct io_dev_ops pipe_ops;

struct pipe_dev {
    struct uring_device *d;
    int other_end;
};

static void pipe_open(struct pipe_dev *p)
{
    int fd[2];
    check_equal(pipe2(fd, O_CLOEXEC), 0);
    p->d = calloc(1, sizeof(*p->d));
    pipe_ops = uring_device_ops;
    pipe_ops.free = pipe_free;
    io_dev_init(&p->d->dev);
    p->d->dev.ops = &pipe_ops;
    p->d->dev.info =
        (struct io_dev_info){.size_bytes = 1 << 30, .sector_bytes = 512, .atomic_bytes = 512};
    (void)snprintf(p->d->dev.info.path, sizeof(p->d->dev.info.path), "pipe");
    p->d->fd = fd[0];
    p->other_end = fd[1];
}

static CO void give_up_told(void *arg)
{
    told++;
    io_dev_give_up(arg);
}

static CO void only_told(void *arg)
{
    (void)arg;
    told++;
}

static bool buffers_are_registered(void)
{
    void *buf = io_buffer_get(BLOCK); /* opens the first slab */
    io_buffer_put(buf, BLOCK);
    return reactor_features(reactor_self()).fixed_buffers;
}

/* ---- one read -------------------------------------------------------------------------------- */

static void late_read(void *arg)
{
    (void)arg;
    if (!buffers_are_registered())
        return;
    struct pipe_dev p;
    unsigned char *buf = io_buffer_get(BLOCK), sent[BLOCK];
    memset(sent, 0xaa, sizeof(sent));
    memset(buf, 1, BLOCK);
    pipe_open(&p);
    freed = told = 0;
    io_dev_watch(&p.d->dev, give_up_told, &p.d->dev);
    uint64_t begin_ns = reactor_now_ns();
    check_equal(io_dev_read(&p.d->dev, 0, buf, BLOCK), VP_E_IO_SILENT);
    check(reactor_now_ns() - begin_ns < UINT64_C(2500000000));
    check_equal(told, 1);
    check_equal(io_dev_late(&p.d->dev), 1);
    check(io_dev_silent_ns(&p.d->dev) >= IO_SILENT_NS);
    memset(buf, 2, BLOCK); /* somebody uses it again, also for the kernel */
    check_equal(write(p.other_end, sent, BLOCK), BLOCK);
    check_ok(co_sleep_ns(50000000));
    check_equal(io_dev_late(&p.d->dev), 0);
    check_equal(io_dev_silent_ns(&p.d->dev), 0);
    unsigned char left = io_guard_on(GUARD_LATE_IO) ? 2 : 0xaa;
    check(buf[0] == left && buf[BLOCK - 1] == left);

    /* It answers again, and the buffer's slab is registered again. */
    io_dev_take_back(&p.d->dev);
    memset(sent, 0xbb, sizeof(sent));
    check_equal(write(p.other_end, sent, BLOCK), BLOCK);
    check_ok(io_dev_read(&p.d->dev, 0, buf, BLOCK));
    check(buf[0] == 0xbb && buf[BLOCK - 1] == 0xbb);
    check(buffers_are_registered());
    io_dev_close(&p.d->dev);
    check_equal(freed, 1);
    close(p.other_end);
    io_buffer_put(buf, BLOCK);
}

static void a_late_read_touches_no_buffer_that_is_used_again(void **state)
{
    (void)state;
    on_reactor(NULL, late_read, NULL);
    assert_checked();
    io_guard_disabled[GUARD_LATE_IO] = true;
    on_reactor(NULL, late_read, NULL);
    io_guard_disabled[GUARD_LATE_IO] = false;
    assert_checked();
}

/* ---- a read that nobody may give up ---------------------------------------------------------- */

static void needed_read(void *arg)
{
    (void)arg;
    struct pipe_dev *p = arg;
    unsigned char *buf = io_buffer_get(BLOCK);
    check_ok(io_dev_read(&p->d->dev, 0, buf, BLOCK));
    check_equal(buf[0], 3);
    io_buffer_put(buf, BLOCK);
}

static void waits(void *arg)
{
    (void)arg;
    struct pipe_dev p;
    unsigned char sent[BLOCK];
    memset(sent, 3, sizeof(sent));
    pipe_open(&p);
    told = 0;
    io_dev_watch(&p.d->dev, only_told, NULL);
    check_ok(co_spawn(needed_read, &p, "reads"));
    check_ok(co_sleep_ns(UINT64_C(2000000000)));
    check(told >= 2);
    check_equal(write(p.other_end, sent, BLOCK), BLOCK);
    check_ok(co_sleep_ns(100000000));
    io_dev_close(&p.d->dev);
    close(p.other_end);
}

static void who_needs_the_device_goes_on_waiting(void **state)
{
    (void)state;
    on_reactor(NULL, waits, NULL);
    assert_checked();
}

/* ---- many, and the end ----------------------------------------------------------------------- */

struct many {
    struct pipe_dev p;
    unsigned ended, failed;
    uint64_t longest_ns;
};

static void one_of_many(void *arg)
{
    struct many *m = arg;
    void *buf = io_buffer_get(BLOCK);
    uint64_t begin_ns = reactor_now_ns();
    m->failed += io_dev_read(&m->p.d->dev, 0, buf, BLOCK) == VP_E_IO_SILENT;
    uint64_t took_ns = reactor_now_ns() - begin_ns;
    m->longest_ns = took_ns > m->longest_ns ? took_ns : m->longest_ns;
    io_buffer_put(buf, BLOCK);
    m->ended++;
}

static void many_hang(void *arg)
{
    (void)arg;
    if (!buffers_are_registered())
        return;
    struct many m = {0};
    pipe_open(&m.p);
    freed = told = 0;
    io_dev_watch(&m.p.d->dev, give_up_told, &m.p.d->dev);
    for (unsigned i = 0; i < MANY; i++)
        check_ok(co_spawn(one_of_many, &m, "reads"));
    while (m.ended < MANY)
        check_ok(co_sleep_ns(10000000));
    const struct reactor_figures *f = reactor_figures(reactor_self());
    check_equal(m.failed, MANY);
    check_equal(io_dev_late(&m.p.d->dev), MANY);
    check_equal(figure_get(&f->buffer_bytes_used), 0);
    check_equal(figure_get(&f->coroutines), 1);
    check(m.longest_ns < UINT64_C(2500000000));
    printf("%u hung requests: the longest waited %llu ms\n", MANY,
           (unsigned long long)(m.longest_ns / 1000000));
    void *all[16]; /* the whole region is there */
    for (unsigned i = 0; i < 16; i++)
        all[i] = io_buffer_try(IO_BUFFER_MAX);
    for (unsigned i = 0; i < 16; i++)
        check(all[i] != NULL);
    for (unsigned i = 0; i < 16; i++)
        io_buffer_put(all[i], IO_BUFFER_MAX);
    /* The device is closed, and the reactor ends, while the kernel has all of them. */
    io_dev_close(&m.p.d->dev);
    check_equal(freed, 0);
    close(m.p.other_end);
}

static void many_hung_requests_leave_all_buffers_and_coroutines(void **state)
{
    (void)state;
    on_reactor(NULL, many_hang, NULL);
    assert_checked();
    assert_true(freed <= 1);
}

/* ---- simulated ------------------------------------------------------------------------------- */

static struct sim_disk *disk;

static void simulated(void *arg)
{
    (void)arg;
    struct io_dev *dev;
    static _Alignas(BLOCK) unsigned char buf[BLOCK], other[BLOCK];
    check_ok(io_dev_open("d0", 0, &dev, NULL));
    memset(buf, 5, BLOCK);
    check_ok(io_dev_write(dev, 0, buf, BLOCK, IO_FUA));
    told = 0;
    io_dev_watch(dev, give_up_told, dev);
    sim_disk_hang(disk, UINT64_C(60000000000));
    uint64_t begin_ns = reactor_now_ns();
    check_equal(io_dev_read(dev, 0, buf, BLOCK), VP_E_IO_SILENT);
    check_equal(io_dev_write(dev, 0, other, BLOCK, 0), VP_E_IO_SILENT);
    check(reactor_now_ns() - begin_ns < UINT64_C(2000000000));
    memset(buf, 6, BLOCK);
    check_equal(told, 1);
    check_equal(io_dev_late(dev), 2);
    check_ok(co_sleep_ns(UINT64_C(60000000000)));
    check_equal(io_dev_late(dev), 0);
    check_equal(buf[0], io_guard_on(GUARD_LATE_IO) ? 6 : 5);
    io_dev_take_back(dev);
    check_ok(io_dev_read(dev, 0, buf, BLOCK)); /* the late write landed */
    check_equal(buf[0], 0);
    io_dev_close(dev);
}

static void simulate(void)
{
    struct sim_world *w = sim_world_new(7);
    struct sim_disk_config c = {.name = "d0",
                                .size_bytes = 1 << 20,
                                .sector_bytes = 512,
                                .atomic_bytes = 4096,
                                .write_cache = true,
                                .latency_min_ns = 1000,
                                .latency_max_ns = 100000};
    disk = sim_disk_add(w, &c);
    struct reactor_config config = {.sim = w};
    struct reactor *r;
    assert_int_equal(reactor_new(&config, &r, NULL), 0);
    reactor_run(r, simulated, NULL);
    reactor_free(r);
    sim_world_free(w);
    assert_checked();
}

static void a_simulated_disk_hangs(void **state)
{
    (void)state;
    simulate();
    io_guard_disabled[GUARD_LATE_IO] = true;
    simulate();
    io_guard_disabled[GUARD_LATE_IO] = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_late_read_touches_no_buffer_that_is_used_again),
        cmocka_unit_test(who_needs_the_device_goes_on_waiting),
        cmocka_unit_test(many_hung_requests_leave_all_buffers_and_coroutines),
        cmocka_unit_test(a_simulated_disk_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
