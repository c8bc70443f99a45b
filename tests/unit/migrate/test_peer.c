/*
 * A volume moves to another daemon, which here is a pool of the same world behind an unreliable
 * way: what the mover (migrate.c, ends.c, copy.c) does when that way breaks, hangs or is silent.
 */
#include "tests/lib/far.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "migrate/receive.h"
#include "volumes/front.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define MS(n)  ((uint64_t)(n)*1000000)
#define SIZE   (MIB(4) + 512) /* the last block is short */

static uint8_t data[1 << 20] __attribute__((aligned(4096)));
static uint8_t seen[2][1 << 20] __attribute__((aligned(4096)));
enum { PIECE_BLOCKS = sizeof(seen[0]) / 4096 };

static CO void pass_time(uint64_t ns)
{
    vp_ignore(co_sleep_ns(ns), "nobody cancels it");
}

/* ---- a client of the source ------------------------------------------------------------------ */

struct writer { /* writes the last quarter again and again, until it is refused */
    struct volume *v;
    struct front_client client;
    unsigned writes;
    int rc;
    bool stop, stopped;
};

static CO void writer_run(void *arg)
{
    struct writer *w = arg;
    static uint8_t buf[4096] __attribute__((aligned(4096)));
    for (unsigned i = 0; !w->stop && !w->rc; i++) {
        memset(buf, (int)i + 1, sizeof(buf));
        w->rc = front_write(&w->client, MIB(3) + KIB(4) * (i * 7 % 256), sizeof(buf), buf, 0);
        w->writes += !w->rc;
        pass_time(MS(1));
    }
    w->stopped = true;
}

static CO void writer_begin(struct writer *w, struct volume *v)
{
    *w = (struct writer){.v = v};
    front_client_init(&w->client, volume_front(v));
    check_ok(co_spawn(writer_run, w, "writer"));
}

static CO void writer_end(struct writer *w)
{
    w->stop = true;
    while (!w->stopped)
        pass_time(1000);
}

/* ---- moves ----------------------------------------------------------------------------------- */

/* The source as it is when it has left: what clients get, and what it held. */
struct left {
    struct volume *v;
    struct far *far;
    struct writer *writer; /* NULL: there is none */
    unsigned calls;
};

static CO void piece_read(struct volume *v, uint64_t block, uint64_t count, uint8_t *to)
{
    bool zero = false;
    check_ok(volume_beside_read(v, block, count, to, &zero));
    if (zero)
        memset(to, 0, count * 4096);
}

/* Nobody writes to either any more. */
static CO void check_same(struct volume *v, struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *there = NULL;
    if (!check_ok(volume_open(s->other, "w", false, &there, &err)))
        return;
    for (uint64_t block = 0; block < SIZE / 4096; block += PIECE_BLOCKS) {
        piece_read(v, block, PIECE_BLOCKS, seen[0]);
        piece_read(there, block, PIECE_BLOCKS, seen[1]);
        check(memcmp(seen[0], seen[1], sizeof(seen[0])) == 0);
    }
    volume_close(there);
}

static CO void export_left(void *arg, struct volume *source)
{
    struct left *l = arg;
    struct front_client c;
    l->calls++;
    front_client_init(&c, volume_front(source));
    check_ok(front_flush(&c));
    check_equal(front_read(&c, 0, 4096, data), VP_E_VOLUME_LEFT);
    check_equal(front_write(&c, 0, 4096, data, 0), VP_E_VOLUME_LEFT);
    check_equal(front_zero(&c, 0, 4096, 0), VP_E_VOLUME_LEFT);
    if (l->writer)
        writer_end(l->writer);
    check_same(source, l->far->s);
    volume_close(l->v);
}

static CO struct migrate *begin(struct far *f, struct left *l, const struct migrate_options *with)
{
    const struct migrate_peer peer = {&far_ops, f};
    const struct migrate_exports exports = {.left = export_left, .arg = l};
    struct migrate_options o = *with;
    struct vp_error err = {0};
    struct migrate *m = NULL;
    co_queue_init(&f->cut);
    l->far = f;
    o.from = f->s->vs;
    o.volume = o.name = "v";
    o.peer = &peer;
    o.peer_name = "unix:/far";
    o.to_name = "q/w";
    o.impact_percent = MIGRATE_IMPACT_ANY;
    o.exports = &exports;
    if (!check_ok(migrate_start(&o, &m, &err)))
        (void)fprintf(stderr, "%s\n", err.text);
    f->m = m;
    return m;
}

static CO struct migrate_status end(struct far *f, struct migrate *m, enum migrate_phase expected)
{
    migrate_wait(m);
    struct migrate_status is = *migrate_status(m);
    if (!check_equal(is.phase, expected))
        (void)fprintf(stderr, "%s\n", is.error);
    check(f->closed);
    migrate_free(m);
    f->m = NULL;
    return is;
}

static CO struct volume *source(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 4096 + 1);
    check_ok(volume_write(v, 0, sizeof(data), data, 0));
    check_ok(volume_write(v, SIZE - 512, 512, data, 0));
    return v;
}

/* Owners, and what no client wrote. */
static CO void check_there(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume_owner_info o = {0};
    struct volume *v = NULL;
    check_equal(volume_owner_get(s->vs, "v", &o), VP_E_NOT_FOUND);
    check_ok(volume_owner_get(s->other, "w", &o));
    check(o.ownership == VOLUME_OWNER && o.epoch == 2);
    if (!check_ok(volume_open(s->other, "w", false, &v, &err)))
        return;
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 4096 + 1);
    check_ok(volume_read(v, 0, sizeof(seen[0]), seen[0]));
    check(memcmp(seen[0], data, sizeof(data)) == 0);
    check_ok(volume_read(v, SIZE - 512, 512, seen[0]));
    check(memcmp(seen[0], data, 512) == 0);
    volume_close(v);
}

static CO void check_stays(struct sim_volumes *s, struct volume *v)
{
    struct volume_owner_info o = {0};
    check_equal(volume_owner_get(s->other, "w", &o), VP_E_NOT_FOUND);
    check_ok(volume_owner_get(s->vs, "v", &o));
    check(o.ownership == VOLUME_OWNER && o.epoch == 1 && !o.in_doubt);
    check_ok(volume_write(v, 0, 4096, data, 0));
    volume_close(v);
}

static void play(void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 1, .two_pools = true});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- it arrives ------------------------------------------------------------------------------ */

static CO void moves_in(struct sim_volumes *s, enum migrate_mode mode, struct far *f, bool busy)
{
    struct volume *v = source(s);
    struct writer w;
    struct left l = {.v = v, .writer = busy ? &w : NULL};
    f->s = s;
    if (busy)
        writer_begin(&w, v);
    struct migrate *m = begin(f, &l, &(struct migrate_options){.mode = mode});
    (void)end(f, m, MIGRATE_DONE);
    check_equal(l.calls, 1);
    if (busy)
        check(w.writes > 0);
    check_there(s);
}

static CO void moves_offline(struct sim_volumes *s)
{
    moves_in(s, MIGRATE_OFFLINE, &(struct far){0}, false);
}

static CO void moves_live(struct sim_volumes *s)
{
    moves_in(s, MIGRATE_LIVE, &(struct far){0}, true);
}

static CO void moves_mirrored(struct sim_volumes *s)
{
    struct far f = {0};
    moves_in(s, MIGRATE_MIRROR, &f, true);
    check(f.mirrored > 0 && f.mirrored < f.requests); /* on a way of their own, and only they */
}

static void a_volume_moves_in_each_mode_and_its_clients_are_told(void **state)
{
    (void)state;
    play(moves_offline);
    play(moves_live);
    play(moves_mirrored);
}

/* ---- the way breaks -------------------------------------------------------------------------- */

static struct far broken;

static CO void moves_broken(struct sim_volumes *s)
{
    struct far f = broken;
    moves_in(s, MIGRATE_MIRROR, &f, true);
    check_equal(f.renewals, 1);
}

static void what_was_on_its_way_when_the_way_broke_is_copied_again(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 16; n++) /* pieces of 64 KiB */
        for (unsigned lands = 0; lands < 2; lands++) {
            broken = (struct far){.lose_at = n, .lands = lands, .refusals = n % 3};
            play(moves_broken);
        }
}

static int refusal;

static CO void refuses_for_a_while(struct sim_volumes *s)
{
    struct far f = {.lose_at = 2, .refusals = 5, .refusal = refusal};
    moves_in(s, MIGRATE_LIVE, &f, true);
    check_equal(f.refusals, 0);
    check(f.renewals > 0);
}

static void a_move_waits_until_what_is_short_is_there_again(void **state)
{
    (void)state;
    static const int passing[] = {VP_E_AGAIN, VP_E_TIMED_OUT, VP_E_NO_MEMORY, VP_E_SYSTEM,
                                  VP_E_IO_TOO_MANY_COROUTINES};
    for (unsigned i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
        refusal = passing[i];
        play(refuses_for_a_while);
    }
}

static CO void is_gone(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .lose_at = 2, .refusals = UINT32_MAX, .refusal = VP_E_NOT_FOUND};
    struct left l = {.v = v};
    struct migrate *m = begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE});
    uint64_t since_ns = reactor_now_ns();
    struct migrate_status is = end(&f, m, MIGRATE_FAILED);
    check_equal(is.rc, VP_E_NOT_FOUND);
    check(reactor_now_ns() - since_ns < MS(5000));
    check_stays(s, v);
}

static void a_move_does_not_wait_for_a_target_that_is_gone(void **state)
{
    (void)state;
    play(is_gone);
}

static CO void breaks_in_the_freeze(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .lose_at = 1, .frozen_only = true};
    struct writer w;
    struct left l = {.v = v, .writer = &w};
    writer_begin(&w, v);
    struct migrate *m =
        begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE, .pause_ms = 1000});
    struct migrate_status is = end(&f, m, MIGRATE_DONE);
    check_equal(f.renewals, 1);
    check_equal(is.freezes, 2);
    check(is.frozen_ns > 0 && is.frozen_longest_ns >= is.frozen_ns);
    check(is.frozen_all_ns > is.frozen_longest_ns);
    check_there(s);
}

static void clients_go_on_when_the_way_breaks_while_they_wait(void **state)
{
    (void)state;
    play(breaks_in_the_freeze);
}

static CO void is_lost_for_good(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .lose_at = 3, .refusals = UINT32_MAX};
    struct left l = {.v = v};
    uint64_t since_ns = reactor_now_ns();
    struct migrate *m =
        begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE, .lost_ms = 2000});
    struct migrate_status is = end(&f, m, MIGRATE_FAILED);
    check_equal(is.rc, VP_E_PEER_LOST);
    check(reactor_now_ns() - since_ns < MS(5000));
    check_stays(s, v);
}

static CO void breaks_again_and_again(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .lose_each = 1};
    struct left l = {.v = v};
    struct migrate *m = begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE});
    struct migrate_status is = end(&f, m, MIGRATE_FAILED);
    check_equal(is.rc, VP_E_PEER_LOST);
    check(f.renewals >= 10 && f.renewals <= 1000);
    check_stays(s, v);
}

static CO void breaks_offline(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .lose_at = 1};
    struct left l = {.v = v};
    struct migrate *m = begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_OFFLINE});
    struct migrate_status is = end(&f, m, MIGRATE_FAILED);
    check_equal(is.rc, VP_E_PEER_LOST);
    check_stays(s, v);
}

/* What fails beside a request that is lost ends the move, too: nobody copies it again. */
static CO void fails_beside(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .lose_at = 2, .fail_at = 3};
    struct left l = {.v = v};
    struct migrate *m = begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE});
    struct migrate_status is = end(&f, m, MIGRATE_FAILED);
    check_equal(is.rc, VP_E_IO);
    check_stays(s, v);
}

static void an_error_beside_a_lost_request_is_not_forgotten(void **state)
{
    (void)state;
    play(fails_beside);
}

static void a_way_that_stays_broken_ends_the_move(void **state)
{
    (void)state;
    play(is_lost_for_good);
    play(breaks_again_and_again);
    play(breaks_offline);
}

static CO void hangs(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .hangs = true};
    struct left l = {.v = v};
    struct vp_error err;
    struct migrate *m = begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE});
    pass_time(MS(500));
    check_equal(migrate_status(m)->phase, MIGRATE_COPYING);
    check_ok(volume_write(v, 0, 4096, data, 0)); /* clients do not notice */
    uint64_t since_ns = reactor_now_ns();
    check_ok(migrate_cancel(m, &err));
    (void)end(&f, m, MIGRATE_CANCELLED);
    check(reactor_now_ns() - since_ns < MS(1000));
    check_stays(s, v);
}

static void a_cancel_does_not_wait_for_a_way_that_hangs(void **state)
{
    (void)state;
    play(hangs);
}

/* ---- the word that it has arrived ------------------------------------------------------------ */

static CO void answers_late(struct sim_volumes *s)
{
    struct far f = {.silences = 5};
    moves_in(s, MIGRATE_LIVE, &f, true);
    check_equal(f.silences, 0);
}

static void the_question_whether_it_has_arrived_is_asked_again(void **state)
{
    (void)state;
    play(answers_late);
}

static bool deaf;

static CO void says_nothing(struct sim_volumes *s)
{
    struct volume *v = source(s), *again;
    struct far f = {.s = s, .silences = UINT32_MAX, .arrives_deaf = deaf};
    struct left l = {.v = v};
    struct vp_error err = {0};
    struct volume_owner_info o = {0};
    enum migrate_verdict verdict;
    struct migrate *m =
        begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE, .answer_ms = 3000});
    (void)end(&f, m, MIGRATE_IN_DOUBT);
    volume_close(v);
    check_ok(volume_owner_get(s->vs, "v", &o));
    check(o.in_doubt && strcmp(o.move.peer, "unix:/far") == 0);
    check_equal(volume_open(s->vs, "v", false, &again, &err), VP_E_VOLUME_MOVING);
    check_ok(receive_decide(s->other, &f.claim, &verdict, &err));
    check_equal(verdict, deaf ? MIGRATE_HAS_NOT : MIGRATE_HAS_ARRIVED);
    check_ok(migrate_decide(s->vs, "v", verdict == MIGRATE_HAS_ARRIVED, NULL, &err));
    check_equal(migrate_decide(s->vs, "v", true, NULL, &err), deaf ? VP_E_INVALID : VP_E_NOT_FOUND);
    if (!deaf) {
        check_ok(receive_confirm(s->other, &f.claim, &err));
        check_there(s);
    } else if (check_ok(volume_open(s->vs, "v", false, &again, &err))) {
        check_stays(s, again);
    }
}

static void without_an_answer_it_is_in_doubt_until_the_other_side_decides(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        deaf = i;
        play(says_nothing);
    }
}

/* The daemon stops while the other one says nothing. */
static CO void stops(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .silences = UINT32_MAX, .arrives_deaf = true};
    struct left l = {.v = v};
    struct volume_owner_info o = {0};
    struct migrate *m = begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE});
    while (migrate_status(m)->phase < MIGRATE_SWITCHING)
        pass_time(1000);
    pass_time(MS(1200));
    uint64_t since_ns = reactor_now_ns();
    unsigned asked = f.silences;
    migrate_stop(m);
    (void)end(&f, m, MIGRATE_IN_DOUBT);
    check(reactor_now_ns() - since_ns < MS(1000));
    check(asked - f.silences <= 1);
    volume_close(v);
    check_ok(volume_owner_get(s->vs, "v", &o));
    check(o.in_doubt);
}

static void a_stop_does_not_wait_for_an_answer_that_does_not_come(void **state)
{
    (void)state;
    play(stops);
}

static CO void is_declined(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .silences = 2, .arrives_deaf = true};
    struct left l = {.v = v};
    struct vp_error err = {0};
    struct migrate *m = begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE});
    while (migrate_status(m)->phase < MIGRATE_SWITCHING)
        pass_time(1000);
    check_equal(migrate_cancel(m, &err), VP_E_BUSY);
    check_ok(receive_decline(f.receive, &err));
    struct migrate_status is = end(&f, m, MIGRATE_FAILED);
    check_equal(is.rc, VP_E_NOT_FOUND);
    check_stays(s, v);
}

static void it_goes_on_here_when_the_other_side_denies_it(void **state)
{
    (void)state;
    play(is_declined);
}

/* ---- what was copied is compared (--verify) -------------------------------------------------- */

struct verified { /* a move that does so */
    struct far far;
    enum migrate_mode mode;
    bool busy;
    uint64_t pause_ms;
    enum migrate_phase ends;
    unsigned renewals;
    struct migrate_status is;
};
static struct verified *verified;

static CO void verifies(struct sim_volumes *s)
{
    struct verified *x = verified;
    struct volume *v = source(s);
    struct writer w;
    struct left l = {.v = v, .writer = x->busy ? &w : NULL};
    x->far.s = s;
    if (x->busy)
        writer_begin(&w, v);
    const struct migrate_options o = {.mode = x->mode, .pause_ms = x->pause_ms, .verify = true};
    x->is = end(&x->far, begin(&x->far, &l, &o), x->ends);
    check_equal(x->far.renewals, x->renewals);
    check(x->is.verify && x->is.checks > 0);
    if (x->ends == MIGRATE_DONE) {
        check_there(s);
        return;
    }
    if (x->busy)
        writer_end(&w);
    check_equal(l.calls, 0);
    check_ok(volume_read(v, 0, sizeof(seen[0]), seen[0]));
    check(memcmp(seen[0], data, sizeof(data)) == 0);
    check_stays(s, v);
}

static void play_verified(struct verified *x)
{
    verified = x;
    play(verifies);
}

static void what_was_copied_is_read_back_and_compared(void **state)
{
    (void)state;
    struct verified idle = {.mode = MIGRATE_LIVE, .ends = MIGRATE_DONE};
    play_verified(&idle);
    assert_int_equal(idle.is.checked_bytes, sizeof(data) + 512);
    assert_int_equal(idle.is.unchecked_bytes, 0);
    assert_int_equal(idle.is.checks, 1);
    static const enum migrate_mode modes[] = {MIGRATE_LIVE, MIGRATE_MIRROR};
    for (unsigned i = 0; i < 2; i++) {
        struct verified busy = {
            .mode = modes[i], .busy = true, .far.slow_ns = MS(1), .ends = MIGRATE_DONE};
        play_verified(&busy);
        assert_int_equal(busy.far.mirrored > 0, i);
        assert_true(busy.is.checked_bytes > sizeof(data) + 512);
        assert_true(busy.is.unchecked_bytes < KIB(640)); /* what fits into 20 ms */
    }
}

static void check_differs(struct verified *x, uint64_t from, uint64_t below)
{
    x->ends = MIGRATE_FAILED;
    play_verified(x);
    unsigned long long at = 1;
    const char *where = strstr(x->is.error, " at byte ");
    assert_int_equal(x->is.rc, VP_E_COPY_DIFFERS);
    assert_non_null(strstr(x->is.error, "q/w differs from "));
    assert_non_null(where);
    assert_int_equal(sscanf(where, " at byte %llu", &at), 1);
    assert_int_equal(at % 4096, 0);
    assert_in_range(at, from, below - 1);
}

static void a_block_that_the_target_has_not_kept_ends_the_move_before_the_switch(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= sizeof(data) / KIB(64); n += 5) /* a piece of the scan */
        check_differs(&(struct verified){.mode = MIGRATE_LIVE, .far.spoil_at = n},
                      KIB(64) * (n - 1), KIB(64) * n);
    check_differs(
        &(struct verified){.mode = MIGRATE_MIRROR,
                           .busy = true,
                           .far = {.slow_ns = MS(1), .spoil_at = 1, .spoils_mirrored = true}},
        MIB(3), MIB(4));
    check_differs(&(struct verified){.mode = MIGRATE_LIVE,
                                     .busy = true,
                                     .pause_ms = 1000,
                                     .far = {.slow_ns = MS(1), .spoil_at = 1, .frozen_only = true}},
                  MIB(3), MIB(4));
}

static void what_is_lost_while_it_compares_is_compared_again(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 16; n += 3) {
        struct verified x = {.mode = MIGRATE_LIVE,
                             .far.lose_read_at = n,
                             .far.refusals = n % 3,
                             .renewals = 1,
                             .ends = MIGRATE_DONE};
        play_verified(&x);
        assert_int_equal(x.is.unchecked_bytes, 0);
        assert_int_equal(x.is.checked_bytes, sizeof(data) + 512);
    }
    play_verified(
        &(struct verified){.mode = MIGRATE_LIVE,
                           .busy = true,
                           .pause_ms = 1000,
                           .far = {.slow_ns = MS(1), .lose_read_at = 1, .frozen_only = true},
                           .renewals = 1,
                           .ends = MIGRATE_DONE});
}

static void what_cannot_be_read_back_ends_the_move(void **state)
{
    (void)state;
    struct verified x = {.mode = MIGRATE_LIVE, .far.fail_read_at = 1, .ends = MIGRATE_FAILED};
    play_verified(&x);
    assert_int_equal(x.is.rc, VP_E_IO);
    assert_non_null(strstr(x.is.error, "reading back q/w at byte "));
}

static CO void hangs_while_it_compares(struct sim_volumes *s)
{
    struct volume *v = source(s);
    struct far f = {.s = s, .hangs_reads = true};
    struct left l = {.v = v};
    struct vp_error err;
    struct migrate *m =
        begin(&f, &l, &(struct migrate_options){.mode = MIGRATE_LIVE, .verify = true});
    pass_time(MS(500));
    check_equal(migrate_status(m)->phase, MIGRATE_COPYING);
    check_equal(migrate_status(m)->checks, 1);
    check_ok(volume_write(v, 0, 4096, data, 0)); /* clients do not notice */
    uint64_t since_ns = reactor_now_ns();
    check_ok(migrate_cancel(m, &err));
    (void)end(&f, m, MIGRATE_CANCELLED);
    check(reactor_now_ns() - since_ns < MS(1000));
    check_stays(s, v);
}

static void a_cancel_while_it_compares_leaves_the_volume(void **state)
{
    (void)state;
    play(hangs_while_it_compares);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_moves_in_each_mode_and_its_clients_are_told),
        cmocka_unit_test(what_was_on_its_way_when_the_way_broke_is_copied_again),
        cmocka_unit_test(a_move_waits_until_what_is_short_is_there_again),
        cmocka_unit_test(a_move_does_not_wait_for_a_target_that_is_gone),
        cmocka_unit_test(clients_go_on_when_the_way_breaks_while_they_wait),
        cmocka_unit_test(an_error_beside_a_lost_request_is_not_forgotten),
        cmocka_unit_test(a_way_that_stays_broken_ends_the_move),
        cmocka_unit_test(a_cancel_does_not_wait_for_a_way_that_hangs),
        cmocka_unit_test(the_question_whether_it_has_arrived_is_asked_again),
        cmocka_unit_test(without_an_answer_it_is_in_doubt_until_the_other_side_decides),
        cmocka_unit_test(a_stop_does_not_wait_for_an_answer_that_does_not_come),
        cmocka_unit_test(it_goes_on_here_when_the_other_side_denies_it),
        cmocka_unit_test(what_was_copied_is_read_back_and_compared),
        cmocka_unit_test(a_block_that_the_target_has_not_kept_ends_the_move_before_the_switch),
        cmocka_unit_test(what_is_lost_while_it_compares_is_compared_again),
        cmocka_unit_test(what_cannot_be_read_back_ends_the_move),
        cmocka_unit_test(a_cancel_while_it_compares_leaves_the_volume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
