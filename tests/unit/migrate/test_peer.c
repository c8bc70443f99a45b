/*
 * A volume moves to another daemon, which here is a pool of the same world behind an unreliable
 * way: what the mover (migrate.c, ends.c, copy.c) does when that way breaks, hangs or is silent.
 */
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

/* ---- the other daemon ------------------------------------------------------------------------ */

struct far {
    struct sim_volumes *s;
    struct receive *receive;
    struct receive_claim claim;
    unsigned requests;  /* with data, so far            */
    unsigned lose_at;   /* this one is lost; 0: none    */
    unsigned fail_at;   /* this one fails there, also when others are lost; 0: none */
    unsigned lose_each; /* so many after each renewal, one is lost; 0: none */
    bool lands;         /* what is lost has been done   */
    bool frozen_only;   /* lose_at counts only requests of the freeze */
    bool hangs;         /* requests wait for a cut      */
    bool lost;
    unsigned mirrored;           /* requests for which clients wait */
    unsigned renewals, refusals; /* refusals: of the next attempts to renew */
    int refusal;                 /* … with this error; 0: nobody answers */
    unsigned silences;           /* of the next arrivals: carried out, and not answered */
    bool arrives_deaf;           /* … and not carried out */
    bool closed;
    const struct migrate *m;
    struct co_queue cut;
};

static CO int far_make(void *arg, const struct migrate_offer *offer, struct reactor *beside,
                       struct vp_uuid *pool, struct vp_error *err)
{
    struct far *f = arg;
    (void)beside;
    *pool = pool_uuid(volumes_pool(f->s->other));
    f->claim = (struct receive_claim){offer->source.id, offer->info->uuid, offer->epoch};
    return receive_begin(f->s->other, "w", offer, &f->receive, err);
}

static CO int far_renew(void *arg, struct vp_error *err)
{
    struct far *f = arg;
    if (f->refusals && f->refusals-- > 0)
        return vp_fail(err, f->refusal ? f->refusal : VP_E_PEER_LOST, "nobody answers");
    f->lost = false;
    f->requests = f->lose_each ? 0 : f->requests;
    f->renewals++;
    return 0;
}

static void far_cut(void *arg)
{
    struct far *f = arg;
    f->lost = true;
    co_queue_wake_all(&f->cut);
}

/* Whether this request is lost. */
static bool far_loses(struct far *f)
{
    bool counts = !f->frozen_only || (f->m && migrate_status(f->m)->phase == MIGRATE_DRAINING);
    f->requests += counts;
    if ((f->lose_at && counts && f->requests == f->lose_at) ||
        (f->lose_each && f->requests >= f->lose_each))
        f->lost = true;
    return f->lost;
}

static CO int far_request(struct far *f, uint64_t offset, uint64_t len, const void *buf)
{
    struct volume *v = receive_volume(f->receive);
    while (f->hangs && !f->lost)
        co_queue_wait(&f->cut, "a test");
    bool was_lost = f->lost, loses = far_loses(f);
    if (f->fail_at && f->requests == f->fail_at)
        return VP_E_IO;
    if (was_lost || (loses && !f->lands))
        return VP_E_PEER_LOST;
    int rc = buf ? volume_write(v, offset, len, buf, 0) : volume_zero(v, offset, len, 0);
    return loses ? VP_E_PEER_LOST : rc;
}

static CO int far_write(void *arg, uint64_t offset, uint64_t len, const void *buf)
{
    return far_request(arg, offset, len, buf);
}

static CO int far_zero(void *arg, uint64_t offset, uint64_t len)
{
    return far_request(arg, offset, len, NULL);
}

static CO int far_write_mirrored(void *arg, uint64_t offset, uint64_t len, const void *buf)
{
    ((struct far *)arg)->mirrored++;
    return far_request(arg, offset, len, buf);
}

static CO int far_zero_mirrored(void *arg, uint64_t offset, uint64_t len)
{
    ((struct far *)arg)->mirrored++;
    return far_request(arg, offset, len, NULL);
}

static CO int far_flush(void *arg)
{
    struct far *f = arg;
    return f->lost ? VP_E_PEER_LOST : volume_flush(receive_volume(f->receive));
}

static CO int far_arrive(void *arg, enum migrate_verdict *verdict, struct vp_error *err)
{
    struct far *f = arg;
    bool silent = f->silences && f->silences-- > 0;
    *verdict = MIGRATE_NOT_KNOWN;
    if (silent && f->arrives_deaf)
        return vp_fail(err, VP_E_PEER_LOST, "nobody answers");
    int rc = receive_arrive(f->receive, verdict, err);
    if (silent) {
        *verdict = MIGRATE_NOT_KNOWN;
        return vp_fail(err, VP_E_PEER_LOST, "nobody answers");
    }
    return *verdict == MIGRATE_HAS_NOT ? VP_E_NOT_FOUND : rc;
}

static CO int far_decline(void *arg, struct vp_error *err)
{
    return receive_decline(((struct far *)arg)->receive, err);
}

static CO int far_confirm(void *arg, struct vp_error *err)
{
    struct far *f = arg;
    return receive_confirm(f->s->other, &f->claim, err);
}

static CO void far_close(void *arg)
{
    struct far *f = arg;
    receive_free(f->receive);
    f->receive = NULL;
    f->closed = true;
}

static const struct migrate_peer_ops far_ops = {.make = far_make,
                                                .renew = far_renew,
                                                .cut = far_cut,
                                                .arrive = far_arrive,
                                                .decline = far_decline,
                                                .confirm = far_confirm,
                                                .close = far_close,
                                                .write = far_write,
                                                .zero = far_zero,
                                                .write_mirrored = far_write_mirrored,
                                                .zero_mirrored = far_zero_mirrored,
                                                .flush = far_flush};

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
