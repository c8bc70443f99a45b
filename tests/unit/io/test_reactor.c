/* The loop, timers, messages between reactors, buffers. threads: yes */
#include "io/buffer.h"
#include "io/driver.h"
#include "io/reactor.h"
#include "io/sim.h"
#include "tests/lib/on_reactor.h"

#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define MS 1000000ULL

/* ---- timers -------------------------------------------------------------------------------- */

#define TIMERS 500

static struct timer tickers[TIMERS];
static uint64_t last_ns;
static unsigned fired;

static void tick(struct timer *t)
{
    check(t->at_ns >= last_ns);
    check(reactor_turn_ns() >= t->at_ns);
    last_ns = t->at_ns;
    fired++;
}

static void arm_many(void *arg)
{
    (void)arg;
    uint64_t now = reactor_now_ns();
    fired = 0;
    last_ns = 0;
    unsigned seed = 12345;
    for (int i = 0; i < TIMERS; i++) {
        seed = seed * 1103515245 + 12345;
        timer_init(&tickers[i], tick);
        timer_arm(&tickers[i], now + seed % (5 * MS));
    }
    for (int i = 0; i < TIMERS; i += 5)
        timer_disarm(&tickers[i]);
    timer_disarm(&tickers[0]); /* not armed: no effect */
    timer_arm(&tickers[1], now + 4 * MS);
    timer_arm(&tickers[1], now + 1 * MS); /* moved */
    check_ok(co_sleep_ns(10 * MS));
    check_equal(fired, TIMERS - TIMERS / 5);
}

static void timers_fire_in_order_and_not_when_disarmed(void **state)
{
    (void)state;
    on_reactor(NULL, arm_many, NULL);
    assert_checked();
}

static void sleep_idle(void *arg)
{
    const struct reactor_figures *f = reactor_figures(reactor_self());
    uint64_t before = figure_get(&f->turns);
    check_ok(co_sleep_ns(30 * MS));
    *(uint64_t *)arg = figure_get(&f->turns) - before;
}

static void an_idle_reactor_sleeps(void **state)
{
    (void)state;
    uint64_t turns;
    on_reactor(NULL, sleep_idle, &turns);
    assert_checked();
    assert_in_range(turns, 1, 20);
    struct reactor_config polling = {.poll_us = 5000};
    on_reactor(&polling, sleep_idle, &turns);
    assert_checked();
    assert_true(turns > 20);
}

static void need_threads(void)
{
    if (reactor_threads_work())
        return;
    print_message("two reactors cannot run under valgrind\n");
    skip();
}

/* ---- messages ------------------------------------------------------------------------------ */

#define CALLERS 200
#define CALLS   100

struct side {
    struct reactor *to;
    uint64_t served; /* touched by the other side's calls only: by one thread */
    unsigned left;
};
static struct side sides[2];

static int serve(void *arg)
{
    struct side *s = arg;
    s->served++;
    if (s->served % 3 == 0)
        co_yield ();
    return s->served % 7 == 0 ? VP_E_AGAIN : 0;
}

static void call_often(void *arg)
{
    struct side *mine = arg, *theirs = &sides[mine == &sides[0]];
    for (int i = 0; i < CALLS; i++) {
        int rc = reactor_call(mine->to, serve, theirs);
        check(rc == 0 || rc == VP_E_AGAIN);
    }
    mine->left--;
}

static void spawn_callers(void *arg)
{
    for (int i = 0; i < CALLERS; i++)
        while (co_spawn(call_often, arg, "caller") != 0)
            co_yield (); /* the other side's calls have the rest of the coroutines */
}

static int wait_for_callers(void *arg)
{
    struct side *s = arg;
    while (s->left > 0)
        check_ok(co_sleep_ns(MS / 10));
    return 0;
}

static void two_reactors_call_each_other(const struct reactor_config *config)
{
    struct reactor_thread *t[2];
    for (int i = 0; i < 2; i++)
        t[i] = reactor_thread_start(config);
    for (int i = 0; i < 2; i++)
        sides[i] = (struct side){.to = reactor_thread_reactor(t[!i]), .left = CALLERS};
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            reactor_post(reactor_thread_reactor(t[i]), spawn_callers, &sides[i], "callers"), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            reactor_call_blocking(reactor_thread_reactor(t[i]), wait_for_callers, &sides[i]), 0);
    for (int i = 0; i < 2; i++)
        reactor_thread_join(t[i]);
    assert_int_equal(sides[0].served, CALLERS * CALLS);
    assert_int_equal(sides[1].served, CALLERS * CALLS);
    assert_checked();
}

static void calls_between_busy_reactors_all_arrive(void **state)
{
    (void)state;
    need_threads();
    two_reactors_call_each_other(NULL);
}

static void reactors_short_of_coroutines_still_answer_each_other(void **state)
{
    (void)state;
    need_threads();
    /* The callers and two more: requests wait in the mailbox while the replies get through. */
    struct reactor_config tight = {.max_coroutines = CALLERS + 2};
    two_reactors_call_each_other(&tight);
}

/* ---- every coroutine for clients waits for what only a call can bring ------------------------ */

enum { HELD = 16 };
static struct co_queue exhausted_queue;
static _Atomic bool exhausted_go, client_ran;

static void wait_for_the_call(void *arg)
{
    (void)arg;
    while (!atomic_load(&exhausted_go))
        co_queue_wait(&exhausted_queue, "the call");
}

static int exhaust_begin(void *arg)
{
    (void)arg;
    co_queue_init(&exhausted_queue);
    return 0;
}

static int bring(void *arg)
{
    (void)arg;
    atomic_store(&exhausted_go, true);
    co_queue_wake_all(&exhausted_queue);
    return 0;
}

static int run_for_client(void *arg)
{
    (void)arg;
    atomic_store(&client_ran, true);
    return 0;
}

static void call_for_client(void *arg)
{
    check_ok(reactor_call_for_client(arg, run_for_client, NULL));
}

static int call_exhausted(void *arg)
{
    check_ok(co_spawn(call_for_client, arg, "for a client"));
    vp_ignore(co_sleep_ns(10000000), "time in which it must not run");
    check(!atomic_load(&client_ran)); /* what lasts as long as a client leaves the reserve alone */
    return reactor_call(arg, bring, NULL);
}

static void a_call_finds_a_coroutine_when_requests_hold_all_others(void **state)
{
    (void)state;
    need_threads();
    struct reactor_thread *full =
        reactor_thread_start(&(struct reactor_config){.max_coroutines = HELD});
    struct reactor_thread *home = reactor_thread_start(NULL);
    struct reactor *r = reactor_thread_reactor(full);
    assert_int_equal(reactor_call_blocking(r, exhaust_begin, NULL), 0);
    for (unsigned i = 0; i < HELD; i++)
        assert_int_equal(reactor_post(r, wait_for_the_call, NULL, "waits"), 0);
    assert_int_equal(reactor_call_blocking(reactor_thread_reactor(home), call_exhausted, r), 0);
    reactor_thread_join(home);
    reactor_thread_join(full);
    assert_true(atomic_load(&client_ran));
    assert_checked();
}

static _Atomic unsigned posted;

static void count_post(void *arg)
{
    (void)arg;
    atomic_fetch_add(&posted, 1);
}

static void *post_many(void *arg)
{
    for (int i = 0; i < 5000; i++)
        check_ok(reactor_post(arg, count_post, NULL, "post"));
    return NULL;
}

static void posts_of_several_threads_all_run_even_when_the_ring_was_full(void **state)
{
    (void)state;
    need_threads();
    atomic_store(&posted, 0);
    struct reactor_thread *t = reactor_thread_start(NULL);
    pthread_t thread[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, post_many, reactor_thread_reactor(t)), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    reactor_thread_join(t);
    assert_int_equal(atomic_load(&posted), 15000);
    assert_checked();
}

static int nothing(void *arg)
{
    (void)arg;
    return 0;
}

static void call_stopped(void *arg)
{
    check_equal(reactor_call(arg, nothing, NULL), VP_E_SHUTDOWN);
    check_equal(reactor_post(arg, count_post, NULL, "post"), VP_E_SHUTDOWN);
    check_ok(reactor_call(reactor_self(), nothing, NULL));
}

static void a_stopped_reactor_refuses_messages(void **state)
{
    (void)state;
    struct reactor_config config = {0};
    struct reactor *r;
    struct vp_error err;
    assert_int_equal(reactor_new(&config, &r, &err), 0);
    assert_int_equal(reactor_post(r, count_post, NULL, "before the run"), 0);
    atomic_store(&posted, 0);
    reactor_stop(r);
    reactor_run(r, NULL, NULL);
    assert_int_equal(atomic_load(&posted), 1); /* what was accepted is done */
    assert_int_equal(reactor_call_blocking(r, nothing, NULL), VP_E_SHUTDOWN);
    on_reactor(NULL, call_stopped, r);
    reactor_free(r);
    assert_checked();
}

/* ---- buffers ------------------------------------------------------------------------------- */

static void split_and_merge(void *arg)
{
    static void *all[2048];
    (void)arg;
    unsigned n = 0;
    void *big = io_buffer_try(IO_BUFFER_MAX);
    check_equal(figure_get(&reactor_figures(reactor_self())->buffer_bytes_used), IO_BUFFER_MAX);
    while (n < 2048 && (all[n] = io_buffer_try(4096)) != NULL) {
        check_equal((uintptr_t)all[n] % 4096, 0);
        memset(all[n], (int)n, 4096);
        n++;
    }
    check_equal(n, 1024); /* the other 4 MiB */
    for (unsigned i = 0; i < n; i++)
        check_equal(*(unsigned char *)all[i], (unsigned char)i);
    for (unsigned i = 0; i < n; i++)
        io_buffer_put(all[i * 7 % n], 4096);
    void *merged = io_buffer_try(IO_BUFFER_MAX);
    check(merged != NULL);
    check(io_buffer_try(1) == NULL);
    io_buffer_put(merged, IO_BUFFER_MAX);
    io_buffer_put(big, IO_BUFFER_MAX);
    check_equal(figure_get(&reactor_figures(reactor_self())->buffer_bytes_used), 0);
}

static void buffers_split_and_merge(void **state)
{
    (void)state;
    struct reactor_config config = {.buffer_bytes = 8U << 20};
    on_reactor(&config, split_and_merge, NULL);
    assert_checked();
}

static char got[64];
static unsigned got_count;

static void get_size(void *arg)
{
    size_t len = *(size_t *)arg;
    void *buf = io_buffer_get(len);
    got[got_count++] = len == IO_BUFFER_MAX ? 'L' : 's';
    co_yield ();
    io_buffer_put(buf, len);
}

static void exhaust(void *arg)
{
    (void)arg;
    static size_t large = IO_BUFFER_MAX, little = 4096;
    got_count = 0;
    void *mine = io_buffer_get(4096);
    check_ok(co_spawn(get_size, &large, "large"));
    check_ok(co_spawn(get_size, &little, "small"));
    check_ok(co_spawn(get_size, &large, "large"));
    check_ok(co_spawn(get_size, &little, "small"));
    co_yield ();
    check_equal(got_count, 0); /* the small ones do not overtake */
    check(io_buffer_try(4096) == NULL);
    io_buffer_put(mine, 4096);
}

static void who_waits_for_a_buffer_is_not_overtaken(void **state)
{
    (void)state;
    struct reactor_config config = {.buffer_bytes = 4U << 20};
    on_reactor(&config, exhaust, NULL);
    assert_checked();
    assert_memory_equal(got, "LsLs", 4);
}

static size_t pages_missing(void *from, size_t len)
{
    static unsigned char resident[IO_BUFFER_MAX / 4096];
    check_ok(mincore(from, len, resident));
    size_t n = 0;
    for (size_t i = 0; i < len / 4096; i++)
        n += !(resident[i] & 1);
    return n;
}

static void look_below(void *arg)
{
    (void)arg;
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0) & ~(uintptr_t)4095;
    check_equal(pages_missing((void *)(frame - 8192), 8192), 0);
}

static void take(void *arg)
{
    (void)arg;
    io_serve_page_cache();
    io_serve_page_cache(); /* as for a second device */
    for (unsigned i = 0; i < 8; i++)
        co_yield ();
    void *all[2] = {io_buffer_try(IO_BUFFER_MAX), io_buffer_try(IO_BUFFER_MAX)};
    for (unsigned i = 0; i < 2; i++) {
        check_equal(pages_missing(all[i], IO_BUFFER_MAX), 0);
        io_buffer_put(all[i], IO_BUFFER_MAX);
    }
    for (unsigned i = 0; i < 40; i++) /* more than are made ahead */
        check_ok(co_spawn(look_below, NULL, "look"));
}

static void memory_that_was_taken_is_there(void **state)
{
    (void)state;
    struct reactor_config config = {.buffer_bytes = 8U << 20};
    on_reactor(&config, take, NULL);
    assert_checked();
}

/* Where malloc is glibc's. */
static void pieces_that_are_freed_are_merged_at_once(void **state)
{
    (void)state;
    static void *piece[1000];
    struct reactor_config config = {0};
    struct reactor *r;
    struct vp_error err;
    assert_int_equal(reactor_new(&config, &r, &err), 0);
    reactor_free(r);
    for (unsigned i = 0; i < 1000; i++)
        piece[i] = malloc(64);
    for (unsigned i = 0; i < 1000; i++)
        free(piece[i]);
    assert_int_equal(mallinfo2().fsmblks, 0); /* bytes that wait to be merged */
}

#define CHURNS 20000

static void churn(void *arg)
{
    unsigned seed = *(unsigned *)arg;
    struct {
        unsigned char *buf;
        size_t len;
    } held[32] = {0};
    for (int i = 0; i < CHURNS; i++) {
        seed = seed * 1103515245 + 12345;
        unsigned slot = seed >> 16 & 31;
        if (held[slot].buf) {
            check_equal(held[slot].buf[0], slot);
            check_equal(held[slot].buf[held[slot].len - 1], slot);
            io_buffer_put(held[slot].buf, held[slot].len);
            held[slot].buf = NULL;
            continue;
        }
        held[slot].len = 1 + (seed >> 8 & 0xfff) * (size_t)(1 + (seed >> 24));
        held[slot].buf = io_buffer_try(held[slot].len);
        if (held[slot].buf) {
            held[slot].buf[0] = (unsigned char)slot;
            held[slot].buf[held[slot].len - 1] = (unsigned char)slot;
        }
    }
    for (unsigned slot = 0; slot < 32; slot++)
        if (held[slot].buf)
            io_buffer_put(held[slot].buf, held[slot].len);
    void *one = io_buffer_try(IO_BUFFER_MAX), *two = io_buffer_try(IO_BUFFER_MAX);
    check(one && two); /* nothing leaked, everything merged */
    io_buffer_put(one, IO_BUFFER_MAX);
    io_buffer_put(two, IO_BUFFER_MAX);
    check_equal(figure_get(&reactor_figures(reactor_self())->buffer_bytes_used), 0);
}

static void random_gets_and_puts_never_overlap(void **state)
{
    (void)state;
    struct reactor_config config = {.buffer_bytes = 8U << 20};
    for (unsigned seed = 1; seed <= 5; seed++) {
        unsigned used = seed;
        on_reactor(&config, churn, &used);
        if (check_failures() > 0)
            fail_msg("failed with seed %u", seed);
    }
}

/* ---- a simulated world --------------------------------------------------------------------- */

static void long_sleep(void *arg)
{
    (void)arg;
    uint64_t began = reactor_now_ns();
    check_ok(co_sleep_ns(3600ULL * 1000 * MS));
    check_equal(reactor_now_ns() - began, 3600ULL * 1000 * MS);
    void *buf = io_buffer_get(4096);
    memset(buf, 1, 4096);
    io_buffer_put(buf, 4096);
}

static void wait_for_ever(void *arg)
{
    (void)arg;
    (void)io_buffer_get(4096); /* abandoned with the coroutine */
    co_suspend("for ever");
    check(false);
}

static void a_simulated_hour_takes_no_time(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        struct sim_world *w = sim_world_new(1);
        struct reactor_config config = {.sim = w};
        on_reactor(&config, long_sleep, NULL);
        on_reactor(&config, wait_for_ever, NULL);
        sim_world_free(w);
    }
    assert_checked();
}

/* ---- slots for drivers ----------------------------------------------------------------------- */

static void take_slots(void *arg)
{
    bool *has_table = arg;
    const unsigned slabs = 8;
    *has_table = reactor_features(reactor_self()).fixed_buffers;
    if (!*has_table)
        return;
    check_equal(io_driver_slots_get(101), 0);
    check_equal(io_driver_slots_get(100), slabs);
    check_equal(io_driver_slots_get(1), 0);
    io_driver_slots_put();
    check_equal(io_driver_slots_get(1), slabs);
}

static void slots_for_drivers_lie_behind_the_regions_and_have_one_owner(void **state)
{
    (void)state;
    struct reactor_config config = {.buffer_bytes = 8 * IO_BUFFER_MAX, .driver_buffers = 100};
    bool has_table = false;
    on_reactor(&config, take_slots, &has_table);
    assert_checked();
    if (!has_table) {
        print_message("this kernel's rings have no table of buffers\n");
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_order_and_not_when_disarmed),
        cmocka_unit_test(an_idle_reactor_sleeps),
        cmocka_unit_test(calls_between_busy_reactors_all_arrive),
        cmocka_unit_test(reactors_short_of_coroutines_still_answer_each_other),
        cmocka_unit_test(a_call_finds_a_coroutine_when_requests_hold_all_others),
        cmocka_unit_test(posts_of_several_threads_all_run_even_when_the_ring_was_full),
        cmocka_unit_test(a_stopped_reactor_refuses_messages),
        cmocka_unit_test(buffers_split_and_merge),
        cmocka_unit_test(who_waits_for_a_buffer_is_not_overtaken),
        cmocka_unit_test(memory_that_was_taken_is_there),
        cmocka_unit_test(pieces_that_are_freed_are_merged_at_once),
        cmocka_unit_test(random_gets_and_puts_never_overlap),
        cmocka_unit_test(a_simulated_hour_takes_no_time),
        cmocka_unit_test(slots_for_drivers_lie_behind_the_regions_and_have_one_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
