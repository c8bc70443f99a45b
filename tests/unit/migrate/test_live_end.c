/* When a live move comes to its end: what is counted on for the pause, and what is not. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "io/device.h"
#include "migrate/migrate.h"
#include "volumes/front.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define MS(n)  ((uint64_t)(n)*1000000)
#define SIZE   MIB(16)

static void play(void (*body)(struct sim_volumes *s), uint64_t seed)
{
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = seed, .two_pools = true});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

static CO void pass_time(uint64_t ns)
{
    vp_ignore(co_sleep_ns(ns), "nobody cancels it");
}

/* ---- clients ------------------------------------------------------------------------------ */

/* Writes the same bytes again and again, each to a range of its own. */
struct writer {
    struct front_client client;
    struct volume **v;
    uint64_t at, len, every_ns, longest_ns;
    unsigned writes;
    bool stop, stopped;
};

static uint8_t data[MIB(4)] __attribute__((aligned(4096)));

static CO void writer_work(void *arg)
{
    struct writer *w = arg;
    while (!w->stop) {
        uint64_t since_ns = reactor_now_ns();
        check_ok(front_write(&w->client, w->at, w->len, data, 0));
        w->longest_ns = max_u64(w->longest_ns, reactor_now_ns() - since_ns);
        w->writes++;
        pass_time(w->every_ns);
    }
    w->stopped = true;
}

static CO void writer_go(struct writer *w, struct volume **v, uint64_t at, uint64_t len,
                         uint64_t every_ns)
{
    *w = (struct writer){.v = v, .at = at, .len = len, .every_ns = every_ns};
    front_client_init(&w->client, volume_front(*v));
    check_ok(co_spawn(writer_work, w, "writer"));
}

static CO void writer_end(struct writer *w)
{
    w->stop = true;
    while (!w->stopped)
        pass_time(1000);
}

/* ---- moves -------------------------------------------------------------------------------- */

static CO void export_switched(void *arg, struct volume *source, struct volume *target)
{
    struct volume **v = arg, *opened;
    struct vp_error err = {0};
    check_ok(volume_open(target->vs, "w", false, &opened, &err));
    check(opened == target);
    *v = target;
    volume_close(source);
}

static CO struct migrate *move_begin(struct sim_volumes *s, struct volume **v,
                                     const struct migrate_options *with)
{
    struct migrate_exports exports = {.switched = export_switched, .arg = v};
    struct migrate_options o = *with;
    struct vp_error err = {0};
    struct migrate *m = NULL;
    o.from = s->vs;
    o.to = s->other;
    o.volume = "v";
    o.name = "w";
    o.exports = &exports;
    if (!check_ok(migrate_start(&o, &m, &err)))
        (void)fprintf(stderr, "%s\n", err.text);
    return m;
}

static CO struct migrate_status move_end(struct migrate *m)
{
    migrate_wait(m);
    struct migrate_status is = *migrate_status(m);
    if (!check_equal(is.phase, MIGRATE_DONE))
        (void)fprintf(stderr, "%s\n", is.error);
    migrate_free(m);
    return is;
}

static CO void wait_for(const struct migrate *m, enum migrate_phase phase)
{
    while (!migrate_has_ended(m) && migrate_status(m)->phase < phase)
        pass_time(1000);
    check_equal(migrate_status(m)->phase, phase);
}

/* Every write of some disks takes long, from now on. */
static void disks_stall(struct sim_volumes *s, unsigned first, unsigned writes, uint64_t ns)
{
    for (unsigned d = first; d < first + 2; d++)
        for (unsigned i = 0; i < writes; i++)
            sim_disk_inject(sim_disk_find(s->world, s->name[d]), SIM_FAULT_STALL, 1 << IO_WRITE, i,
                            ns);
}

/* What changes while the intent is recorded is copied without the limit, and nobody waits for what
 * the limit would have allowed. */
static CO void limited_and_intends_slowly(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct migrate *m =
        move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .limit_bytes = KIB(64)});
    const struct pool_job *job = pool_job_find(volumes_pool(s->vs), migrate_status(m)->job);
    disks_stall(s, 0, 8, MS(100));
    while (!job->hurry)
        pass_time(1000);
    check_ok(volume_zero(v, 0, MIB(4), 0)); /* of a hole: it writes to no disk */
    uint64_t since_ns = reactor_now_ns();
    struct migrate_status is = move_end(m);
    check_equal(is.zero_bytes, MIB(4));
    check(reactor_now_ns() - since_ns < MS(5000));
    volume_close(v);
}

static void a_limit_does_not_delay_what_is_left_after_the_intent(void **state)
{
    (void)state;
    play(limited_and_intends_slowly, 1);
}

/* What is left is copied without the limit. So the limit says nothing about the pause. */
static CO void is_limited(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct writer w;
    check_ok(volume_write(v, 0, MIB(4), data, 0));
    writer_go(&w, &v, 0, MIB(2), MS(200));
    struct migrate *m =
        move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .limit_bytes = MIB(2)});
    while (!migrate_status(m)->rounds)
        pass_time(MS(1));
    w.len = KIB(256);
    struct migrate_status is = move_end(m);
    check(is.mirrored_bytes == 0 && is.rounds <= 2);
    writer_end(&w);
    volume_close(v);
}

static void a_limited_copy_says_nothing_about_the_pause(void **state)
{
    (void)state;
    play(is_limited, 2);
}

/* Blocks that are being mirrored are dirty, and need no copy. */
static CO void is_busy(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct writer w[4];
    for (unsigned i = 0; i < 4; i++)
        writer_go(&w[i], &v, MIB(i), KIB(256), 1000);
    struct migrate *m =
        move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_MIRROR, .pause_ms = 5});
    struct migrate_status is = move_end(m);
    check(is.mirrored_bytes > 0 && is.rounds < 20);
    for (unsigned i = 0; i < 4; i++)
        writer_end(&w[i]);
    volume_close(v);
}

static void what_is_being_mirrored_does_not_keep_a_move_from_its_end(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++)
        play(is_busy, seed);
}

static CO void writes_a_lot(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct writer w;
    writer_go(&w, &v, 0, sizeof(data), 1000);
    struct migrate *m = move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_MIRROR});
    struct migrate_status is = move_end(m);
    check(is.mirrored_bytes > 0);
    writer_end(&w);
    volume_close(v);
}

static void large_writes_are_mirrored(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        play(writes_a_lot, seed);
}

/* A write of the mirror is late when the move could stop the clients. They would wait for it. */
static uint64_t the_lead_ns; /* the write's, before the move goes on */

static CO void is_late(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct writer w[4];
    struct vp_error err = {0};
    for (unsigned i = 0; i < 4; i++)
        writer_go(&w[i], &v, MIB(i), KIB(128), 20000);
    struct migrate *m = move_begin(
        s, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .pause_ms = 1, .mirror_ms = 200});
    wait_for(m, MIGRATE_MIRRORING);
    check_ok(pool_job_pause(volumes_pool(s->vs), migrate_status(m)->job, &err));
    pass_time(MS(60)); /* the step that was under way */
    for (unsigned i = 1; i < 4; i++)
        writer_end(&w[i]);
    w[0].len = 4096;
    w[0].every_ns = MS(1);
    pass_time(MS(30));
    w[0].longest_ns = 0;
    disks_stall(s, 2, 1, MS(5000));
    pass_time(the_lead_ns);
    check_ok(pool_job_resume(volumes_pool(s->vs), migrate_status(m)->job, &err));
    check_equal(move_end(m).rc, 0);
    check(w[0].longest_ns < MS(1000));
    writer_end(&w[0]);
    volume_close(v);
}

static void clients_are_not_stopped_while_a_mirrored_write_is_late(void **state)
{
    (void)state;
    the_lead_ns = MS(300);
    for (uint64_t seed = 1; seed <= 2; seed++)
        play(is_late, seed);
}

static void
clients_do_not_wait_for_a_mirrored_write_that_is_late_when_they_are_stopped(void **state)
{
    (void)state;
    the_lead_ns = MS(1);
    for (uint64_t seed = 1; seed <= 2; seed++)
        play(is_late, seed);
}

static CO void sleeper(void *stop)
{
    while (!*(bool *)stop)
        pass_time(MS(50));
}

/* All coroutines of the reactor are somebody else's when it is to be mirrored. */
static CO void has_no_coroutines(struct sim_volumes *s)
{
    static bool stop;
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    uint64_t since_ns = reactor_now_ns();
    check_ok(volume_write(v, 0, MIB(4), data, 0));
    struct migrate *m = move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_MIRROR});
    stop = false;
    while (co_spawn(sleeper, &stop, "somebody else's") == 0)
        ;
    migrate_wait(m);
    struct migrate_status is = *migrate_status(m);
    migrate_free(m);
    stop = true;
    check_equal(is.phase, MIGRATE_FAILED);
    check_equal(is.rc, VP_E_IO_TOO_MANY_COROUTINES);
    check(strstr(is.error, "too much is going on here to mirror p/v") != NULL);
    check(reactor_now_ns() - since_ns > MS(3000)); /* it was not given up at once */
    pass_time(MS(100));
    volume_close(v);
}

static void a_move_that_cannot_be_mirrored_says_why_after_a_while(void **state)
{
    (void)state;
    play(has_no_coroutines, 1);
}

/* The copy's own requests are no clients'. */
static CO void is_idle(struct sim_volumes *s)
{
    struct volume_info info = {0};
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    check_ok(volume_write(v, 0, MIB(4), data, 0));
    struct migrate_status is =
        move_end(move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_LIVE}));
    check(is.copied_bytes == MIB(4) && is.requests == 0 && is.longest_ns == 0);
    check_ok(volume_info_get(s->other, "w", &info));
    check_equal(histogram_count(info.figures->write_latency), 0);
    check_ok(volume_write(v, 0, 4096, data, 0));
    check_ok(volume_info_get(s->other, "w", &info));
    check_equal(histogram_count(info.figures->write_latency), 1);
    volume_close(v);
}

static void the_requests_of_a_copy_are_not_counted_as_those_of_clients(void **state)
{
    (void)state;
    play(is_idle, 3);
}

/* ---- a guest ------------------------------------------------------------------------------- */

static void note_ready(void *arg)
{
    unsigned *times = arg;
    (*times)++;
}

static CO void wait_until_ready(const struct migrate *m)
{
    while (!migrate_has_ended(m) && !migrate_status(m)->ready)
        pass_time(1000);
    check(migrate_status(m)->ready);
}

/* So long that it has more rounds than a move may have that waits for nobody. */
static CO void follows_until_paused(struct sim_volumes *s)
{
    unsigned ready = 0;
    struct vp_error err = {0};
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct writer w;
    memset(data, 7, sizeof(data));
    check_ok(volume_write(v, 0, sizeof(data), data, 0));
    writer_go(&w, &v, 0, MIB(2), MS(20));
    struct migrate *m = move_begin(s, &v,
                                   &(struct migrate_options){.mode = MIGRATE_LIVE,
                                                             .guest_ms = 600000,
                                                             .impact_percent = MIGRATE_IMPACT_ANY,
                                                             .ready = note_ready,
                                                             .ready_arg = &ready});
    check_equal(migrate_guest_paused(m, &err), VP_E_BUSY);
    wait_until_ready(m);
    check_equal(ready, 1);
    uint64_t rounds = migrate_status(m)->rounds;
    for (unsigned i = 0; i < 300; i++) {
        pass_time(MS(100));
        w.every_ns = MS(20) + MS(i % 5 * 20);
    }
    check(!migrate_has_ended(m) && migrate_status(m)->ready);
    check(migrate_status(m)->rounds - rounds > 108 || migrate_status(m)->mirrored_bytes > 0);
    writer_end(&w);
    check_ok(migrate_guest_paused(m, &err));
    check_ok(migrate_guest_paused(m, &err));
    struct migrate_status is = move_end(m);
    check(!is.ready && is.frozen_ns < MS(1000));
    check_equal(ready, 1);
    volume_close(v);
}

static void a_move_follows_its_guest_until_that_is_paused(void **state)
{
    (void)state;
    play(follows_until_paused, 5);
}

static CO void check_stays(struct sim_volumes *s, struct volume *v, struct migrate *m,
                           enum migrate_phase expected)
{
    struct vp_error err = {0};
    migrate_wait(m);
    check_equal(migrate_status(m)->phase, expected);
    check(!migrate_status(m)->ready);
    check_equal(migrate_guest_paused(m, &err), VP_E_INVALID);
    check_ok(volume_write(v, 0, MIB(1), data, 0));
    check_equal(volume_owner_get(s->other, "w", &(struct volume_owner_info){0}), VP_E_NOT_FOUND);
    migrate_free(m);
    volume_close(v);
}

static CO void nobody_pauses(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    uint64_t since_ns = reactor_now_ns();
    struct migrate *m =
        move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_MIRROR, .guest_ms = 2000});
    migrate_wait(m);
    check(reactor_now_ns() - since_ns >= MS(2000) && reactor_now_ns() - since_ns < MS(4000));
    check(strstr(migrate_status(m)->error, "nobody said that the guest is paused") != NULL);
    check_stays(s, v, m, MIGRATE_FAILED);
}

static void a_guest_that_is_never_paused_ends_the_move(void **state)
{
    (void)state;
    play(nobody_pauses, 6);
}

static CO void cancelled_when_ready(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct migrate *m =
        move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .guest_ms = 600000});
    wait_until_ready(m);
    check_ok(migrate_cancel(m, &err));
    check_stays(s, v, m, MIGRATE_CANCELLED);
}

static void a_move_that_waits_for_a_guest_is_cancelled(void **state)
{
    (void)state;
    play(cancelled_when_ready, 7);
}

/* A job that is paused copies nothing; a guest that is paused does not wait for somebody to resume
 * it. */
static CO void paused_job(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct migrate *m =
        move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .guest_ms = 600000});
    wait_until_ready(m);
    check_ok(pool_job_pause(volumes_pool(s->vs), migrate_status(m)->job, &err));
    check_ok(volume_write(v, 0, MIB(4), data, 0));
    pass_time(MS(500));
    check_ok(migrate_guest_paused(m, &err));
    vp_ignore(move_end(m).rounds, "it is done");
    volume_close(v);
}

static void a_paused_guest_does_not_wait_for_a_paused_job(void **state)
{
    (void)state;
    play(paused_job, 8);
}

static CO void nobody_is_awaited(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct migrate *m = move_begin(s, &v, &(struct migrate_options){.mode = MIGRATE_LIVE});
    check_equal(migrate_guest_paused(m, &err), VP_E_INVALID);
    vp_ignore(move_end(m).rounds, "it is done");
    volume_close(v);
}

static void a_move_that_waits_for_nobody_says_so(void **state)
{
    (void)state;
    play(nobody_is_awaited, 9);
}

int main(void)
{
    memset(data, 7, sizeof(data)); /* zeros would become holes, without a write to a disk */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_being_mirrored_does_not_keep_a_move_from_its_end),
        cmocka_unit_test(a_limited_copy_says_nothing_about_the_pause),
        cmocka_unit_test(large_writes_are_mirrored),
        cmocka_unit_test(clients_are_not_stopped_while_a_mirrored_write_is_late),
        cmocka_unit_test(
            clients_do_not_wait_for_a_mirrored_write_that_is_late_when_they_are_stopped),
        cmocka_unit_test(a_move_that_cannot_be_mirrored_says_why_after_a_while),
        cmocka_unit_test(a_limit_does_not_delay_what_is_left_after_the_intent),
        cmocka_unit_test(the_requests_of_a_copy_are_not_counted_as_those_of_clients),
        cmocka_unit_test(a_move_follows_its_guest_until_that_is_paused),
        cmocka_unit_test(a_guest_that_is_never_paused_ends_the_move),
        cmocka_unit_test(a_move_that_waits_for_a_guest_is_cancelled),
        cmocka_unit_test(a_paused_guest_does_not_wait_for_a_paused_job),
        cmocka_unit_test(a_move_that_waits_for_nobody_says_so),
    };
    return cmocka_run_group_tests_name("migrate/live_end", tests, NULL, NULL);
}
