/* A move that an operator pauses and resumes, or that has a deadline: to a pool of this daemon, and
 * to another daemon. */
#include "tests/lib/far.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "io/reactor.h"
#include "pool/job.h"
#include "volumes/front.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)
#define MS(n)  ((uint64_t)(n)*1000000)
#define SIZE   MIB(16)

static uint8_t data[MIB(1)] __attribute__((aligned(4096)));

static void play(void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 1, .two_pools = true});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

static CO void pass_time(uint64_t ns)
{
    vp_ignore(co_sleep_ns(ns), "nobody cancels it");
}

/* Eight MiB are written. */
static CO struct volume *source(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    memset(data, 7, sizeof(data));
    for (uint64_t at = 0; at < MIB(8); at += MIB(1))
        check_ok(volume_write(v, at, sizeof(data), data, 0));
    return v;
}

/* ---- clients --------------------------------------------------------------------------------- */

/* Writes 4 KiB after 4 KiB, behind what the source has. */
struct writer {
    struct front_client client;
    uint64_t at, longest_ns;
    bool stop, stopped;
};

static CO void writer_work(void *arg)
{
    struct writer *w = arg;
    for (; !w->stop; w->at += 4096) {
        uint64_t since_ns = reactor_now_ns();
        check_ok(front_write(&w->client, MIB(8) + w->at % MIB(4), 4096, data, 0));
        w->longest_ns = max_u64(w->longest_ns, reactor_now_ns() - since_ns);
        pass_time(MS(10));
    }
    w->stopped = true;
}

static CO void writer_go(struct writer *w, struct volume *v)
{
    *w = (struct writer){0};
    front_client_init(&w->client, volume_front(v));
    check_ok(co_spawn(writer_work, w, "writer"));
}

static CO void writer_end(struct writer *w)
{
    w->stop = true;
    while (!w->stopped)
        pass_time(1000);
}

/* ---- moves ----------------------------------------------------------------------------------- */

static CO void export_switched(void *arg, struct volume *from, struct volume *to)
{
    struct volume **v = arg, *opened;
    struct vp_error err = {0};
    check_ok(volume_open(to->vs, "w", false, &opened, &err));
    *v = to;
    volume_close(from);
}

static CO void export_left(void *arg, struct volume *from)
{
    struct volume **v = arg;
    check(*v == from);
    volume_close(*v);
    *v = NULL;
}

/* `far`: to another daemon; NULL: to the other pool. */
static CO struct migrate *begin(struct sim_volumes *s, struct far *far, struct volume **v,
                                const struct migrate_options *with)
{
    const struct migrate_peer peer = {&far_ops, far};
    const struct migrate_exports exports = {
        .switched = export_switched, .left = export_left, .arg = v};
    struct migrate_options o = *with;
    struct vp_error err = {0};
    struct migrate *m = NULL;
    o.from = s->vs;
    o.volume = "v";
    o.name = "w";
    o.exports = &exports;
    if (far) {
        far->s = s;
        co_queue_init(&far->cut);
        o.peer = &peer;
        o.peer_name = "unix:/far";
        o.to_name = "q/w";
    } else {
        o.to = s->other;
    }
    if (!check_ok(migrate_start(&o, &m, &err)))
        (void)fprintf(stderr, "%s\n", err.text);
    if (far)
        far->m = m;
    return m;
}

static CO struct migrate_status end(struct migrate *m, struct volume *const *v,
                                    enum migrate_phase expected)
{
    migrate_wait(m);
    struct migrate_status is = *migrate_status(m);
    if (!check_equal(is.phase, expected))
        (void)fprintf(stderr, "%s\n", is.error);
    migrate_free(m);
    if (*v)
        volume_close(*v);
    return is;
}

static CO void pause_now(struct migrate *m)
{
    struct vp_error err = {0};
    if (!check_ok(migrate_pause(m, &err)))
        (void)fprintf(stderr, "%s\n", err.text);
    check(migrate_is_paused(m));
    pass_time(MS(300)); /* the step that was under way */
}

static CO void resume_now(struct migrate *m)
{
    struct vp_error err = {0};
    check_ok(migrate_resume(m, &err));
    check(!migrate_is_paused(m));
}

/* ---- pause and resume ------------------------------------------------------------------------ */

static CO void pauses(struct sim_volumes *s, struct far *far)
{
    struct volume *v = source(s);
    struct writer w;
    struct migrate *m =
        begin(s, far, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .limit_bytes = MIB(1)});
    const struct migrate_status *now = migrate_status(m);
    pass_time(MS(1500));
    check(!migrate_is_paused(m));
    pause_now(m);
    writer_go(&w, v);
    uint64_t copied = now->copied_bytes;
    check(copied > 0 && copied < MIB(4));
    pass_time(MS(1000));
    uint64_t dirty = now->dirty_bytes;
    check(dirty > 0);
    pass_time(MS(600000));
    check_equal(now->copied_bytes, copied);
    check(now->dirty_bytes > dirty);
    check_equal(now->phase, MIGRATE_COPYING);
    check_equal(now->freezes, 0);
    check(w.longest_ns < MS(100));
    writer_end(&w);
    pause_now(m); /* once more does nothing */
    resume_now(m);
    resume_now(m);
    struct migrate_status is = end(m, &v, MIGRATE_DONE);
    check(is.copied_bytes >= MIB(8) + is.again_bytes && is.again_bytes >= dirty);
}

static CO void pauses_local(struct sim_volumes *s)
{
    pauses(s, NULL);
}

static CO void pauses_far(struct sim_volumes *s)
{
    struct far far = {0};
    pauses(s, &far);
    check_equal(far.renewals, 0);
}

static void a_paused_move_copies_nothing_and_clients_go_on(void **state)
{
    (void)state;
    play(pauses_local);
    play(pauses_far);
}

static CO void rate_after_a_pause(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct migrate *m =
        begin(s, NULL, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .limit_bytes = MIB(1)});
    pass_time(MS(1500));
    pause_now(m);
    pass_time(MS(100000));
    resume_now(m);
    pass_time(MS(2000));
    check_equal(migrate_status(m)->phase, MIGRATE_COPYING);
    check(migrate_status(m)->rate_bytes > MIB(1) / 2);
    check(!migrate_status(m)->outlook.never);
    (void)end(m, &v, MIGRATE_DONE);
}

static void the_time_of_a_pause_is_not_in_the_rate(void **state)
{
    (void)state;
    play(rate_after_a_pause);
}

static CO void guest_waits_on(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = source(s);
    struct migrate *m =
        begin(s, NULL, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .guest_ms = 5000});
    while (!migrate_has_ended(m) && !migrate_status(m)->ready)
        pass_time(MS(1));
    pause_now(m);
    pass_time(MS(60000));
    resume_now(m);
    pass_time(MS(3000));
    check(migrate_status(m)->ready);
    check_ok(migrate_guest_paused(m, &err));
    check(!migrate_is_paused(m));
    (void)end(m, &v, MIGRATE_DONE);
}

static void the_time_of_a_pause_is_not_in_the_wait_for_a_guest(void **state)
{
    (void)state;
    play(guest_waits_on);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static CO void check_refused(struct migrate *m, int rc, const char *text)
{
    struct vp_error err = {0};
    check_equal(migrate_pause(m, &err), rc);
    if (!check(strstr(err.text, text) != NULL))
        (void)fprintf(stderr, "%s\n", err.text);
    check_equal(migrate_resume(m, &err), rc);
    check(!migrate_is_paused(m));
}

static CO void is_too_late(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far far = {.slow_ns = MS(20)};
    struct migrate *m =
        begin(s, &far, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .guest_ms = 60000});
    struct vp_error err;
    while (!migrate_has_ended(m) && !migrate_status(m)->ready)
        pass_time(MS(1));
    check_ok(migrate_guest_paused(m, &err));
    check_refused(m, VP_E_BUSY, "the switch of p/v to q/w has begun");
    migrate_wait(m);
    check_refused(m, VP_E_BUSY, "p/v to q/w is done");
    (void)end(m, &v, MIGRATE_DONE);
}

static CO void is_offline(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far far = {.slow_ns = MS(20)};
    struct migrate *m = begin(s, &far, &v, &(struct migrate_options){.mode = MIGRATE_OFFLINE});
    check_refused(m, VP_E_NOT_SUPPORTED, "clients of p/v wait while it is copied");
    (void)end(m, &v, MIGRATE_DONE);
}

static void a_move_for_which_clients_wait_is_not_paused(void **state)
{
    (void)state;
    play(is_too_late);
    play(is_offline);
}

/* ---- ends while it is paused ----------------------------------------------------------------- */

static CO void breaks(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far far = {0};
    struct migrate *m =
        begin(s, &far, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .limit_bytes = MIB(1)});
    pass_time(MS(1500));
    pause_now(m);
    far.lost = true;
    pass_time(MS(10000));
    check_equal(far.renewals, 1);
    check_equal(migrate_status(m)->breaks, 1);
    check(migrate_is_paused(m));
    resume_now(m);
    (void)end(m, &v, MIGRATE_DONE);
}

static CO void breaks_for_good(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far far = {0};
    struct migrate *m = begin(
        s, &far, &v,
        &(struct migrate_options){.mode = MIGRATE_LIVE, .limit_bytes = MIB(1), .lost_ms = 2000});
    pass_time(MS(1500));
    pause_now(m);
    far.lost = true;
    far.refusals = UINT32_MAX;
    uint64_t since_ns = reactor_now_ns();
    check_equal(end(m, &v, MIGRATE_FAILED).rc, VP_E_PEER_LOST);
    check(reactor_now_ns() - since_ns < MS(9000));
}

static void a_connection_that_breaks_in_a_pause_is_made_again(void **state)
{
    (void)state;
    play(breaks);
    play(breaks_for_good);
}

static CO void ends_paused(struct sim_volumes *s, bool stop)
{
    struct vp_error err;
    struct volume *v = source(s);
    struct far far = {0};
    struct migrate *m =
        begin(s, &far, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .limit_bytes = MIB(1)});
    pass_time(MS(1500));
    pause_now(m);
    pass_time(MS(20000));
    uint64_t since_ns = reactor_now_ns();
    if (stop)
        migrate_stop(m);
    else
        check_ok(migrate_cancel(m, &err));
    migrate_wait(m);
    check(reactor_now_ns() - since_ns < MS(1000));
    check_ok(volume_write(v, 0, 4096, data, 0));
    check_equal(volume_owner_get(s->other, "w", &(struct volume_owner_info){0}), VP_E_NOT_FOUND);
    (void)end(m, &v, MIGRATE_CANCELLED);
}

static CO void is_cancelled(struct sim_volumes *s)
{
    ends_paused(s, false);
}

static CO void is_stopped(struct sim_volumes *s)
{
    ends_paused(s, true);
}

static void a_paused_move_is_cancelled_and_a_stop_of_the_daemon_ends_it(void **state)
{
    (void)state;
    play(is_cancelled);
    play(is_stopped);
}

static CO void hangs_until_cancelled(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = source(s);
    struct far far = {.hangs = true};
    struct migrate *m = begin(s, &far, &v, &(struct migrate_options){.mode = MIGRATE_OFFLINE});
    pass_time(MS(1000));
    check_ok(migrate_cancel(m, &err));
    (void)end(m, &v, MIGRATE_CANCELLED);
}

static void an_offline_move_that_hangs_and_is_cancelled_says_so(void **state)
{
    (void)state;
    play(hangs_until_cancelled);
}

/* ---- the deadline ---------------------------------------------------------------------------- */

static CO void check_expired(struct migrate *m, struct volume **v, struct volumes *there,
                             uint64_t since_ns, uint64_t deadline_ns)
{
    migrate_wait(m);
    uint64_t took_ns = reactor_now_ns() - since_ns;
    check(took_ns >= deadline_ns && took_ns < deadline_ns + MS(1000));
    check_ok(volume_write(*v, 0, 4096, data, 0));
    check_equal(volume_owner_get(there, "w", &(struct volume_owner_info){0}), VP_E_NOT_FOUND);
    struct migrate_status is = end(m, v, MIGRATE_FAILED);
    check_equal(is.rc, VP_E_TIMED_OUT);
    check(strstr(is.error, "its deadline has passed with ") != NULL);
}

/* 8 MiB at one a second. */
static CO void is_too_slow(struct sim_volumes *s)
{
    struct volume *v = source(s);
    uint64_t since_ns = reactor_now_ns();
    struct migrate *m =
        begin(s, NULL, &v,
              &(struct migrate_options){
                  .mode = MIGRATE_LIVE, .limit_bytes = MIB(1), .deadline_ms = 4000});
    pass_time(MS(2500));
    check(migrate_is_late(m));
    check_equal(migrate_status(m)->phase, MIGRATE_COPYING);
    check_expired(m, &v, s->other, since_ns, MS(4000));
}

static CO void is_in_time(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct migrate *m =
        begin(s, NULL, &v,
              &(struct migrate_options){
                  .mode = MIGRATE_LIVE, .limit_bytes = MIB(1), .deadline_ms = 60000});
    pass_time(MS(2500));
    check(!migrate_is_late(m) && migrate_status(m)->outlook.known);
    check_equal(end(m, &v, MIGRATE_DONE).rc, 0);
}

static CO void is_paused_too_long(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far far = {0};
    uint64_t since_ns = reactor_now_ns();
    struct migrate *m =
        begin(s, &far, &v,
              &(struct migrate_options){
                  .mode = MIGRATE_LIVE, .limit_bytes = MIB(1), .deadline_ms = 30000});
    pass_time(MS(1500));
    pause_now(m);
    check(!migrate_is_late(m));
    pass_time(MS(27000));
    check(migrate_is_late(m));
    check_expired(m, &v, s->other, since_ns, MS(30000));
}

static CO void hangs(struct sim_volumes *s, enum migrate_mode mode)
{
    struct volume *v = source(s);
    struct far far = {.hangs = true};
    uint64_t since_ns = reactor_now_ns();
    struct migrate *m =
        begin(s, &far, &v, &(struct migrate_options){.mode = mode, .deadline_ms = 3000});
    check_expired(m, &v, s->other, since_ns, MS(3000));
}

static CO void hangs_live(struct sim_volumes *s)
{
    hangs(s, MIGRATE_LIVE);
}

static CO void hangs_offline(struct sim_volumes *s)
{
    hangs(s, MIGRATE_OFFLINE);
}

static void a_move_ends_at_its_deadline_whatever_it_waits_for(void **state)
{
    (void)state;
    play(is_too_slow);
    play(is_paused_too_long);
    play(hangs_live);
    play(hangs_offline);
}

static void a_move_that_is_in_time_ends_as_one_without_a_deadline(void **state)
{
    (void)state;
    play(is_in_time);
}

/* The other side does not answer at the switch, until after the deadline. */
static CO void is_in_the_switch(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far far = {.silences = 8};
    struct migrate *m =
        begin(s, &far, &v, &(struct migrate_options){.mode = MIGRATE_LIVE, .deadline_ms = 2000});
    while (!migrate_has_ended(m) && migrate_status(m)->phase < MIGRATE_SWITCHING)
        pass_time(MS(1));
    uint64_t since_ns = reactor_now_ns();
    migrate_wait(m);
    check(reactor_now_ns() - since_ns > MS(2000));
    (void)end(m, &v, MIGRATE_DONE);
}

static void a_deadline_does_nothing_once_the_switch_has_begun(void **state)
{
    (void)state;
    play(is_in_the_switch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_paused_move_copies_nothing_and_clients_go_on),
        cmocka_unit_test(the_time_of_a_pause_is_not_in_the_rate),
        cmocka_unit_test(the_time_of_a_pause_is_not_in_the_wait_for_a_guest),
        cmocka_unit_test(a_move_for_which_clients_wait_is_not_paused),
        cmocka_unit_test(a_connection_that_breaks_in_a_pause_is_made_again),
        cmocka_unit_test(a_paused_move_is_cancelled_and_a_stop_of_the_daemon_ends_it),
        cmocka_unit_test(an_offline_move_that_hangs_and_is_cancelled_says_so),
        cmocka_unit_test(a_move_ends_at_its_deadline_whatever_it_waits_for),
        cmocka_unit_test(a_move_that_is_in_time_ends_as_one_without_a_deadline),
        cmocka_unit_test(a_deadline_does_nothing_once_the_switch_has_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
