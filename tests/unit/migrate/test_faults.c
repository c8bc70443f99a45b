/*
 * Disks of a move's source or target fail once, or die, at one of many moments: in each mode, to a
 * pool of this daemon and of another one. Whatever the end is, clients see no error of the target,
 * and after a restart one pool has the volume, with its data.
 */
#include "tests/lib/far.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "base/figure.h"
#include "volumes/front.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define MS(n)  ((uint64_t)(n)*1000000)
#define SIZE   MIB(16)

static uint8_t data[1 << 20] __attribute__((aligned(4096)));
static uint8_t seen[1 << 20] __attribute__((aligned(4096)));

/* What befalls which disks, and when. */
static struct {
    enum migrate_mode mode;
    bool is_far, at_source;
    enum sim_fault fault;
    unsigned kinds;
    uint64_t nth;
    bool fills; /* no fault: a pool is filled, the source's before the move, the target's in it */
} now;
static unsigned failed, done, doubts;

/* ---- a client that writes here and there ----------------------------------------------------- */

struct writer {
    struct sim_volumes *s;
    struct volume *v; /* that it has open */
    struct front_client client;
    unsigned writes;
    int rc;
    bool stop, stopped;
};

static CO void writer_run(void *arg)
{
    struct writer *w = arg;
    static uint8_t block[4096] __attribute__((aligned(4096)));
    for (unsigned i = 0; !w->stop && !w->rc; i++) {
        memset(block, (int)i + 1, sizeof(block));
        w->rc = front_write(&w->client, MIB(2) + KIB(64) * (i * 7 % 200), sizeof(block), block, 0);
        w->writes += !w->rc;
        vp_ignore(co_sleep_ns(MS(1) / 4), "nobody cancels it");
    }
    w->stopped = true;
}

static CO void writer_end(struct writer *w)
{
    w->stop = true;
    while (!w->stopped)
        vp_ignore(co_sleep_ns(MS(1)), "nobody cancels it");
    volume_close(w->v);
}

/* ---- its export ------------------------------------------------------------------------------ */

static CO void export_switched(void *arg, struct volume *before, struct volume *target)
{
    struct writer *w = arg;
    struct vp_error err = {0};
    check_ok(volume_open(w->s->other, "w", false, &w->v, &err));
    check(w->v == target);
    volume_close(before);
}

/* It has left, or is in doubt: its client is told, and goes. */
static CO void export_end(void *arg, struct volume *v)
{
    struct writer *w = arg;
    check(w->v == v);
    w->stop = true;
    front_client_go(&w->client);
    writer_end(w);
}

/* ---- room ------------------------------------------------------------------------------------ */

static struct volume *hog; /* takes all the space of its pool */

static CO void hog_open(struct volumes *vs)
{
    struct volume_options o = {.size_bytes = MIB(1024), .full_policy = VOLUME_FULL_ENOSPC};
    struct vp_error err = {0};
    check_ok(volume_create(vs, "hog", &o, &err));
    check_ok(volume_open(vs, "hog", false, &hog, &err));
}

static CO void hog_fill(void)
{
    int rc = 0;
    for (uint64_t at = 0; !rc; at += KIB(64))
        rc = volume_write(hog, at, KIB(64), data, 0);
    check_equal(rc, VP_E_NO_SPACE);
}

/* Once the plan has found room there. */
static CO int prepare_and_fill(void *arg, struct volume *source, struct volume *target,
                               struct vp_error *err)
{
    (void)arg, (void)source, (void)target, (void)err;
    hog_fill();
    return 0;
}

static CO int make_and_fill(void *arg, const struct migrate_offer *offer, struct reactor *beside,
                            struct vp_uuid *pool, struct vp_error *err)
{
    int rc = far_ops.make(arg, offer, beside, pool, err);
    hog_fill();
    return rc;
}

/* ---- one move -------------------------------------------------------------------------------- */

static CO struct migrate *begin(struct writer *w, struct far *f)
{
    bool fills = now.fills && !now.at_source;
    static struct migrate_peer_ops ops;
    const struct migrate_peer peer = {&ops, f};
    const struct migrate_exports exports = {.prepare = fills ? prepare_and_fill : NULL,
                                            .switched = export_switched,
                                            .left = export_end,
                                            .withdraw = export_end,
                                            .arg = w};
    ops = far_ops;
    if (fills)
        ops.make = make_and_fill;
    const struct migrate_options o = {.from = w->s->vs,
                                      .to = now.is_far ? NULL : w->s->other,
                                      .volume = "v",
                                      .name = "w",
                                      .mode = now.mode,
                                      .peer = now.is_far ? &peer : NULL,
                                      .peer_name = "unix:/far",
                                      .to_name = "q/w",
                                      .lost_ms = 2000,
                                      .answer_ms = 2000,
                                      .impact_percent = MIGRATE_IMPACT_ANY,
                                      .exports = &exports};
    struct migrate *m = NULL;
    struct vp_error err = {0};
    co_queue_init(&f->cut);
    if (!check_ok(migrate_start(&o, &m, &err)))
        (void)fprintf(stderr, "%s\n", err.text);
    f->m = m;
    return m;
}

static void inject(struct sim_volumes *s)
{
    unsigned first = now.at_source ? 0 : 2;
    for (unsigned d = first; d < first + 2; d++)
        sim_disk_inject(sim_disk_find(s->world, s->name[d]), now.fault, now.kinds, now.nth, 0);
}

static CO void check_ended(struct writer *w, const struct migrate_status *is)
{
    failed += is->phase == MIGRATE_FAILED;
    done += is->phase == MIGRATE_DONE;
    doubts += is->phase == MIGRATE_IN_DOUBT;
    check(is->phase == MIGRATE_DONE || is->error[0]);
    if (is->phase != MIGRATE_FAILED || now.at_source)
        return;
    for (unsigned before = w->writes; !w->rc && w->writes < before + 5;)
        vp_ignore(co_sleep_ns(MS(1)), "nobody cancels it");
    check_equal(w->rc, 0);
}

static CO void await_writer_without_room(struct sim_volumes *s)
{
    struct volume_info info;
    do {
        check_ok(volume_info_get(s->vs, "v", &info));
        vp_ignore(co_sleep_ns(MS(1)), "nobody cancels it");
    } while (!figure_get(&info.figures->waiting_for_space));
}

static CO void moves_and_fails(struct sim_volumes *s)
{
    static struct writer w;
    struct far f = {.s = s};
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    hog = NULL;
    if (now.fills)
        hog_open(now.at_source ? s->vs : s->other);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 7 + i / 4096 + 1);
    check_ok(volume_write(v, 0, sizeof(data), data, 0));
    check_ok(volume_flush(v));
    if (hog && now.at_source)
        hog_fill();
    w = (struct writer){.s = s, .v = v};
    front_client_init(&w.client, volume_front(v));
    check_ok(co_spawn(writer_run, &w, "writer"));
    if (hog && now.at_source)
        await_writer_without_room(s);
    unsigned writes = w.writes;
    struct migrate *m = begin(&w, &f);
    if (!m)
        return;
    if (!now.fills)
        inject(s);
    migrate_wait(m);
    check_ended(&w, migrate_status(m));
    if (hog && now.at_source && !now.is_far) /* there is room where it is now */
        while (w.writes < writes + 5 && !w.rc)
            vp_ignore(co_sleep_ns(MS(1)), "nobody cancels it");
    migrate_free(m);
    if (!w.stopped)
        writer_end(&w);
    if (hog && now.at_source)
        check(now.is_far ? w.rc == VP_E_VOLUME_LEFT || w.rc == VP_E_CANCELLED : !w.rc);
    if (hog)
        volume_close(hog);
    for (unsigned d = 0; d < 4; d++)
        sim_disk_heal(sim_disk_find(s->world, s->name[d]));
}

/* ---- afterwards ------------------------------------------------------------------------------ */

static bool has(struct volumes *vs, const char *name)
{
    struct volume_owner_info o;
    return volume_owner_get(vs, name, &o) == 0;
}

static CO void has_one_owner(struct sim_volumes *s)
{
    struct volumes *const both[] = {s->other, s->vs};
    struct vp_error err = {0};
    struct volume *v = NULL;
    check_ok(migrate_settle(s->vs, both, 2, NULL));
    check_ok(migrate_settle(s->other, both, 2, NULL));
    bool here = has(s->vs, "v");
    check(here != has(s->other, "w"));
    if (!check_ok(volume_open(here ? s->vs : s->other, here ? "v" : "w", false, &v, &err)))
        return;
    check_ok(volume_read(v, 0, sizeof(seen), seen));
    check(memcmp(seen, data, sizeof(seen)) == 0);
    volume_close(v);
}

static void play(void)
{
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 3, .two_pools = true});
    sim_volumes_run(s, moves_and_fails);
    sim_volumes_run(s, has_one_owner);
    sim_volumes_free(s);
    assert_checked();
}

/* In each mode, to either kind of pool, at moments that lie further and further apart. */
static void play_all(bool at_source, enum sim_fault fault, unsigned kinds, uint64_t last)
{
    static const enum migrate_mode modes[] = {MIGRATE_OFFLINE, MIGRATE_LIVE, MIGRATE_MIRROR};
    failed = done = doubts = 0;
    now.at_source = at_source;
    now.fault = fault;
    now.kinds = kinds;
    for (unsigned i = 0; i < 6; i++)
        for (now.nth = 0; now.nth < last; now.nth += 1 + now.nth / 4) {
            now.mode = modes[i % 3];
            now.is_far = i >= 3;
            play();
        }
    (void)printf("%u moves failed, %u were done, %u in doubt\n", failed, done, doubts);
}

static void play_full(bool at_source)
{
    static const enum migrate_mode modes[] = {MIGRATE_OFFLINE, MIGRATE_LIVE, MIGRATE_MIRROR};
    failed = done = doubts = 0;
    now.at_source = at_source;
    now.fills = true;
    for (unsigned i = 0; i < 6; i++) {
        now.mode = modes[i % 3];
        now.is_far = i >= 3;
        play();
    }
    now.fills = false;
}

static void a_target_that_fills_up_ends_the_move_and_clients_go_on(void **state)
{
    (void)state;
    play_full(false);
    assert_int_equal(failed, 6);
}

static void a_writer_that_waits_for_room_at_the_source_does_not_keep_the_volume_there(void **state)
{
    (void)state;
    play_full(true);
    assert_int_equal(done, 6);
}

static void a_target_whose_flush_fails_once_ends_the_move_or_has_all_of_it(void **state)
{
    (void)state;
    play_all(false, SIM_FAULT_ERROR, 1U << IO_FLUSH, 12);
    assert_true(failed > 0 && done > 0);
}

static void a_target_whose_write_fails_once_ends_the_move_or_has_all_of_it(void **state)
{
    (void)state;
    play_all(false, SIM_FAULT_ERROR, 1U << IO_WRITE, 60);
    assert_true(failed > 0 && done > 0);
}

static void a_target_disk_that_dies_ends_the_move(void **state)
{
    (void)state;
    play_all(false, SIM_FAULT_DEAD, 1U << IO_WRITE, 60);
    assert_true(failed > 0);
}

static void a_source_whose_flush_fails_once_loses_nothing_that_was_flushed(void **state)
{
    (void)state;
    play_all(true, SIM_FAULT_ERROR, 1U << IO_FLUSH, 12);
    assert_true(done > 0);
}

static void a_source_disk_that_dies_loses_nothing_that_was_flushed(void **state)
{
    (void)state;
    play_all(true, SIM_FAULT_DEAD, (1U << IO_READ) | (1U << IO_WRITE), 60);
    assert_true(failed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_target_that_fills_up_ends_the_move_and_clients_go_on),
        cmocka_unit_test(a_writer_that_waits_for_room_at_the_source_does_not_keep_the_volume_there),
        cmocka_unit_test(a_target_whose_flush_fails_once_ends_the_move_or_has_all_of_it),
        cmocka_unit_test(a_target_whose_write_fails_once_ends_the_move_or_has_all_of_it),
        cmocka_unit_test(a_target_disk_that_dies_ends_the_move),
        cmocka_unit_test(a_source_whose_flush_fails_once_loses_nothing_that_was_flushed),
        cmocka_unit_test(a_source_disk_that_dies_loses_nothing_that_was_flushed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
