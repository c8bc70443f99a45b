/* Several hosts in one thread: one clock, an order that the seed draws, the end of one of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "io/device.h"
#include "io/reactor.h"
#include "io/sim_hosts.h"

enum { BLOCK = 4096, HOSTS = 2, WRITES = 20, LOG_MAX = 4096, TICK_NS = 50000 };

/* What happened, in order. */
static struct entry {
    unsigned host, what;
    uint64_t at_ns;
} log_[LOG_MAX];
static unsigned log_count;

static void note(unsigned host, unsigned what)
{
    assert_in_range(log_count, 0, LOG_MAX - 1);
    log_[log_count++] = (struct entry){host, what, reactor_now_ns()};
}

struct place {
    unsigned index;
    struct sim_world *w;
    struct reactor *r;
    struct co_queue got;
    unsigned received;
    bool done;
};
static struct place place[HOSTS];
static struct sim_hosts *hosts;

static struct sim_world *new_world(uint64_t seed)
{
    struct sim_world *w = sim_world_new(seed);
    struct sim_disk_config config = {.name = "d0",
                                     .size_bytes = 4 << 20,
                                     .sector_bytes = 512,
                                     .atomic_bytes = BLOCK,
                                     .write_cache = true,
                                     .latency_min_ns = 1000,
                                     .latency_max_ns = 90000};
    (void)sim_disk_add(w, &config);
    return w;
}

static void begin(unsigned i, struct sim_world *w, void (*first)(void *arg))
{
    struct reactor_config config = {.sim = w, .max_coroutines = 16, .buffer_bytes = 4 << 20};
    struct vp_error err;
    place[i] = (struct place){.index = i, .w = w};
    assert_int_equal(reactor_new(&config, &place[i].r, &err), 0);
    co_queue_init(&place[i].got);
    sim_hosts_start(hosts, i, w, place[i].r, first, &place[i]);
}

static void begin_all(uint64_t seed, void (*first)(void *arg))
{
    log_count = 0;
    hosts = sim_hosts_new(seed);
    for (unsigned i = 0; i < HOSTS; i++)
        begin(i, new_world(seed + i), first);
}

static void end_one(unsigned i)
{
    sim_hosts_stop(hosts, i);
    reactor_free(place[i].r);
    sim_world_free(place[i].w);
}

static void end_all(void)
{
    for (unsigned i = 0; i < HOSTS; i++)
        end_one(i);
    sim_hosts_free(hosts);
}

/* ---- writes --------------------------------------------------------------------------------- */

static void write_blocks(void *arg)
{
    struct place *p = arg;
    struct io_dev *dev;
    static _Alignas(BLOCK) unsigned char buf[HOSTS][BLOCK];
    assert_int_equal(io_dev_open("d0", 0, &dev, NULL), 0);
    for (unsigned i = 0; i < WRITES; i++) {
        memset(buf[p->index], (int)i + 1, BLOCK);
        assert_int_equal(io_dev_write(dev, (uint64_t)i * BLOCK, buf[p->index], BLOCK, 0), 0);
        note(p->index, i);
    }
    io_dev_close(dev);
    p->done = true;
}

static uint64_t run_writes(uint64_t seed)
{
    uint64_t order = 0;
    begin_all(seed, write_blocks);
    while (sim_hosts_step(hosts))
        ;
    for (unsigned i = 0; i < log_count; i++)
        order = order * 31 + log_[i].host;
    for (unsigned i = 1; i < log_count; i++) /* one clock */
        assert_true(log_[i - 1].at_ns <= log_[i].at_ns);
    assert_int_equal(log_count, HOSTS * WRITES);
    assert_true(place[0].done && place[1].done);
    end_all();
    return order;
}

static void test_order(void **state)
{
    (void)state;
    uint64_t first = run_writes(1), second = run_writes(2);
    assert_int_equal(first, run_writes(1));
    assert_int_not_equal(first, second);
}

/* Hosts that could go on at the same moment: sometimes the one is first, sometimes the other. */
static void tick(void *arg)
{
    struct place *p = arg;
    for (unsigned i = 0; i < WRITES; i++) {
        assert_int_equal(co_sleep_ns(TICK_NS), 0);
        note(p->index, i);
    }
}

static void test_ties(void **state)
{
    unsigned first[HOSTS] = {0};
    (void)state;
    begin_all(7, tick);
    while (sim_hosts_step(hosts))
        ;
    for (unsigned i = 0; i < log_count; i += HOSTS) {
        assert_int_equal(log_[i].at_ns, log_[i + 1].at_ns);
        first[log_[i].host]++;
    }
    assert_true(first[0] > 0 && first[1] > 0);
    end_all();
}

/* ---- one of them ends ------------------------------------------------------------------------ */

static bool on_event(struct sim_world *w, uint64_t event, void *arg)
{
    struct sim_snapshot **taken = arg;
    if (event != WRITES)
        return true;
    *taken = sim_snapshot_take(w);
    return false;
}

/* Power goes on host 0. The other one goes on, and host 0 begins again in what its disk kept. */
static void test_power_cut(void **state)
{
    struct sim_snapshot *s = NULL;
    (void)state;
    begin_all(3, write_blocks);
    sim_world_on_event(place[0].w, on_event, &s);
    while (sim_hosts_is_up(hosts, 0))
        assert_true(sim_hosts_step(hosts));
    assert_non_null(s);
    assert_false(place[0].done);
    uint64_t cut_ns = sim_hosts_now_ns(hosts);
    end_one(0);

    unsigned n = sim_snapshot_pending(s);
    struct sim_choice *none = calloc(n + 1, sizeof(*none));
    struct sim_world *w = sim_world_from_snapshot(s, none, 9);
    free(none);
    sim_snapshot_free(s);
    while (sim_hosts_step(hosts))
        ;
    assert_true(place[1].done);
    assert_true(sim_hosts_now_ns(hosts) > cut_ns);
    begin(0, w, write_blocks);
    assert_int_equal(sim_now_ns(w), sim_hosts_now_ns(hosts)); /* its clock did not stay behind */
    while (sim_hosts_step(hosts))
        ;
    assert_true(place[0].done);
    end_all();
}

/* ---- what one host tells the other ---------------------------------------------------------- */

struct message {
    unsigned to;
};

static void receive(void *arg)
{
    struct message *m = arg;
    place[m->to].received++;
    co_queue_wake_all(&place[m->to].got);
    note(m->to, place[m->to].received);
}

static void deliver(void *arg)
{
    struct message *m = arg;
    if (sim_hosts_is_up(hosts, m->to))
        sim_hosts_on(hosts, m->to, receive, m);
    free(m);
}

static void send(unsigned to, uint64_t delay_ns)
{
    struct message *m = malloc(sizeof(*m));
    assert_non_null(m);
    *m = (struct message){to};
    sim_hosts_later(hosts, delay_ns, deliver, m);
}

/* They answer each other. */
static void talk(void *arg)
{
    struct place *p = arg;
    if (p->index == 0)
        send(1, TICK_NS);
    for (unsigned i = 1; i <= WRITES; i++) {
        while (p->received < i)
            co_queue_wait(&p->got, "a message");
        if (p->index == 1 || i < WRITES)
            send(!p->index, TICK_NS);
    }
    p->done = true;
}

static void test_messages(void **state)
{
    (void)state;
    begin_all(5, talk);
    uint64_t from_ns = sim_hosts_now_ns(hosts);
    while (sim_hosts_step(hosts))
        ;
    assert_true(place[0].done && place[1].done);
    assert_int_equal(log_count, 2 * WRITES);
    for (unsigned i = 0; i < log_count; i++) {
        assert_int_equal(log_[i].host, !(i % 2));
        assert_int_equal(log_[i].at_ns - from_ns, (i + 1) * TICK_NS);
    }
    end_all();
}

/* What comes for a host that is gone is not received. */
static void test_gone(void **state)
{
    (void)state;
    begin_all(5, talk);
    for (unsigned i = 0; i < HOSTS; i++) /* each runs until it waits; then the message is sent */
        assert_true(sim_hosts_step(hosts));
    end_one(1);
    begin(1, new_world(4), tick);
    sim_hosts_stop(hosts, 1);
    while (sim_hosts_step(hosts))
        ;
    assert_int_equal(log_count, 0);
    assert_false(place[0].done);
    end_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),     cmocka_unit_test(test_ties),
        cmocka_unit_test(test_power_cut), cmocka_unit_test(test_messages),
        cmocka_unit_test(test_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
