/* A volume moves between two pools of one world. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
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
#define SIZE   (MIB(8) + 512) /* the last block is short */

static uint8_t data[1 << 20] __attribute__((aligned(4096)));
static uint8_t seen[1 << 20] __attribute__((aligned(4096)));

static struct sim_volumes *start(void)
{
    return sim_volumes_new(&(struct sim_volumes_config){.seed = 1, .two_pools = true});
}

static void play(void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s = start();
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- helpers ------------------------------------------------------------------------------ */

static void fill(uint8_t *at, size_t len, uint8_t with)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)(with + i * 7 + i / 4096);
}

/* Data at both ends and in the middle, zeros that were written, and holes between. */
static CO void write_all(struct volume *v, uint8_t with)
{
    fill(data, sizeof(data), with);
    check_ok(volume_write(v, 0, KIB(64), data, 0));
    memset(seen, 0, sizeof(seen));
    check_ok(volume_write(v, KIB(64), KIB(64), seen, 0));
    check_ok(volume_write(v, MIB(4) + KIB(4), MIB(1), data, 0));
    check_ok(volume_write(v, SIZE - 512, 512, data, 0));
    check_ok(volume_flush(v));
}

static CO void check_range(struct volume *v, uint64_t at, size_t len, const uint8_t *expected)
{
    check_ok(volume_read(v, at, len, seen));
    check(memcmp(seen, expected, len) == 0);
}

static CO void check_all(struct volume *v, uint8_t with)
{
    static const uint8_t zeros[1 << 16];
    fill(data, sizeof(data), with);
    check_range(v, 0, KIB(64), data);
    check_range(v, KIB(64), KIB(64), zeros);
    check_range(v, MIB(2), KIB(64), zeros);
    check_range(v, MIB(4) + KIB(4), MIB(1), data);
    check_range(v, SIZE - 512, 512, data);
}

static struct migrate_options options(struct sim_volumes *s)
{
    return (struct migrate_options){
        .from = s->vs, .to = s->other, .volume = "v", .name = "w", .mode = MIGRATE_OFFLINE};
}

static CO struct migrate *begin_with(struct sim_volumes *s, const struct migrate_exports *exports)
{
    struct migrate_options o = options(s);
    struct vp_error err = {0};
    struct migrate *m = NULL;
    o.exports = exports;
    if (!check_ok(migrate_start(&o, &m, &err)))
        (void)fprintf(stderr, "%s\n", err.text);
    return m;
}

static CO struct migrate *begin(struct sim_volumes *s)
{
    return begin_with(s, NULL);
}

static CO void check_owner(struct volumes *vs, const char *name, enum volume_ownership is,
                           uint64_t epoch)
{
    struct volume_owner_info o = {0};
    if (!check_ok(volume_owner_get(vs, name, &o)))
        return;
    check_equal(o.ownership, is);
    check_equal(o.epoch, epoch);
}

static bool has(struct volumes *vs, const char *name)
{
    struct volume_owner_info o;
    return volume_owner_get(vs, name, &o) == 0;
}

/* ---- the way of a move -------------------------------------------------------------------- */

static CO void moves(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct volume_info before, after;
    struct vp_error err = {0};
    write_all(v, 3);
    volume_close(v);
    check_ok(volume_info_get(s->vs, "v", &before));
    struct migrate *m = begin(s);
    migrate_wait(m);
    check_equal(migrate_status(m)->phase, MIGRATE_DONE);
    check_equal(migrate_status(m)->copied_bytes, KIB(64) + MIB(1) + 512);
    check_equal(migrate_status(m)->zero_bytes, KIB(64));
    migrate_free(m);
    check(!has(s->vs, "v"));
    check_owner(s->other, "w", VOLUME_OWNER, 2);
    check_ok(volume_info_get(s->other, "w", &after));
    check(vp_uuid_equal(before.uuid, after.uuid));
    check_equal(after.options.size_bytes, SIZE);
    check_equal(after.valid_bytes, KIB(64) + MIB(1) + KIB(4));
    check_ok(volume_open(s->other, "w", false, &v, &err));
    check_all(v, 3);
    volume_close(v);
    sim_volumes_settle(s);
    check_ok(volumes_close(s->other, false));
    s->other = NULL;
    check_ok(sim_volumes_close(s));
    check_ok(sim_volumes_reopen(s));
    check_owner(s->other, "w", VOLUME_OWNER, 2);
    check_equal(volumes_count(s->vs), 0);
}

static void a_volume_moves_with_its_data_and_its_identity(void **state)
{
    (void)state;
    play(moves);
}

struct writer {
    struct front_client client;
    unsigned writes;
    bool stop, stopped;
    int rc;
};

/* Writes block after block of the first MiB, again and again. */
static CO void write_on(void *arg)
{
    struct writer *w = arg;
    static uint8_t block[4096] __attribute__((aligned(4096)));
    while (!w->stop && !w->rc) {
        memset(block, (int)(w->writes / 256 + 1), sizeof(block));
        w->rc = front_write(&w->client, KIB(4) * (w->writes % 256), sizeof(block), block, 0);
        w->writes += !w->rc;
    }
    w->stopped = true;
}

static CO void writer_end(struct writer *w)
{
    w->stop = true;
    while (!w->stopped)
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    check_equal(w->rc, 0);
}

static CO void check_written(struct volume *v, const struct writer *w)
{
    for (unsigned i = 0; i < 256 && i < w->writes; i++) {
        unsigned last = (w->writes - 1 - i) / 256 * 256 + i;
        check_ok(volume_read(v, KIB(4) * i, KIB(4), seen));
        check_equal(seen[17], (uint8_t)(last / 256 + 1));
    }
}

/* As an export that served the source. */
static CO void export_switched(void *arg, struct volume *source, struct volume *target)
{
    struct sim_volumes *s = arg;
    struct volume *v;
    struct vp_error err = {0};
    check_ok(volume_open(s->other, "w", false, &v, &err));
    check(v == target);
    volume_close(source);
}

static CO void moves_under_writes(struct sim_volumes *s)
{
    struct migrate_exports exports = {.switched = export_switched, .arg = s};
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    static struct writer w;
    write_all(v, 5);
    w = (struct writer){0};
    front_client_init(&w.client, volume_front(v));
    check_ok(co_spawn(write_on, &w, "writer"));
    while (w.writes < 100)
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    struct migrate *m = begin_with(s, &exports);
    unsigned before = w.writes;
    migrate_wait(m);
    check_equal(migrate_status(m)->phase, MIGRATE_DONE);
    check(migrate_status(m)->frozen_ns > 0);
    migrate_free(m);
    while (w.writes < before + 300)
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    writer_end(&w);
    v = volume_find(s->other, "w"); /* which is open */
    check_written(v, &w);
    volume_close(v);
    check(!has(s->vs, "v"));
}

static void a_client_writes_on_over_a_move_and_nothing_of_it_is_lost(void **state)
{
    (void)state;
    play(moves_under_writes);
}

/* Takes all the space that pool "p" has. */
static CO struct volume *pool_fill(struct sim_volumes *s)
{
    struct volume_options o = {.size_bytes = MIB(1024), .full_policy = VOLUME_FULL_ENOSPC};
    struct volume *hog = NULL;
    struct vp_error err = {0};
    int rc = 0;
    check_ok(volume_create(s->vs, "hog", &o, &err));
    if (!check_ok(volume_open(s->vs, "hog", false, &hog, &err)))
        return NULL;
    fill(data, sizeof(data), 1);
    for (uint64_t at = 0; !rc; at += KIB(64))
        rc = volume_write(hog, at, KIB(64), data, 0);
    check_equal(rc, VP_E_NO_SPACE);
    return hog;
}

static uint64_t waiting(struct sim_volumes *s)
{
    struct volume_info info;
    check_ok(volume_info_get(s->vs, "v", &info));
    return figure_get(&info.figures->waiting_for_space);
}

static CO void moves_out_of_a_full_pool(struct sim_volumes *s)
{
    struct migrate_exports exports = {.switched = export_switched, .arg = s};
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    static struct writer w;
    write_all(v, 5);
    struct volume *hog = pool_fill(s);
    if (!hog)
        return;
    w = (struct writer){0};
    front_client_init(&w.client, volume_front(v));
    check_ok(co_spawn(write_on, &w, "writer"));
    while (!waiting(s) && !w.stopped) /* it goes through the chunks that the volume has */
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    unsigned before = w.writes;
    vp_ignore(co_sleep_ns(UINT64_C(1000000000)), "nobody cancels it");
    check_equal(w.writes, before); /* there is no room, and none comes */
    struct migrate *m = begin_with(s, &exports);
    if (!m)
        return;
    migrate_wait(m);
    check_equal(migrate_status(m)->phase, MIGRATE_DONE);
    migrate_free(m);
    while (w.writes < before + 300 && !w.stopped)
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    writer_end(&w);
    v = volume_find(s->other, "w"); /* which is open */
    check_written(v, &w);
    volume_close(v);
    volume_close(hog);
}

static void a_writer_that_waits_in_a_full_pool_goes_on_in_the_new_one(void **state)
{
    (void)state;
    play(moves_out_of_a_full_pool);
}

/* ---- the ends ----------------------------------------------------------------------------- */

static CO void check_went_on(struct sim_volumes *s, uint8_t with)
{
    struct vp_error err = {0};
    struct volume *v;
    check_owner(s->vs, "v", VOLUME_OWNER, 1);
    check(!has(s->other, "w"));
    if (!check_ok(volume_open(s->vs, "v", false, &v, &err)))
        return;
    check_all(v, with);
    check_ok(volume_write(v, 0, KIB(4), data, 0));
    volume_close(v);
    check_ok(volume_resize(s->vs, "v", SIZE + MIB(1), false, &err));
}

static CO void is_cancelled(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    struct vp_error err = {0};
    write_all(v, 9);
    volume_close(v);
    struct migrate *m = begin(s);
    check_ok(migrate_cancel(m, &err));
    migrate_wait(m);
    check_equal(migrate_status(m)->phase, MIGRATE_CANCELLED);
    check_equal(migrate_cancel(m, &err), VP_E_BUSY);
    migrate_free(m);
    check_went_on(s, 9);
}

static void a_cancelled_move_leaves_nothing(void **state)
{
    (void)state;
    play(is_cancelled);
}

static CO int hog_fills(void *arg, struct volume *source, struct volume *target,
                        struct vp_error *err)
{
    int rc = 0;
    (void)source, (void)target, (void)err;
    fill(data, sizeof(data), 1);
    for (uint64_t at = 0; !rc; at += sizeof(data))
        rc = volume_write(arg, at, sizeof(data), data, 0);
    check_equal(rc, VP_E_NO_SPACE);
    return 0;
}

/* The target's pool fills up once the plan has found room there. */
static CO void target_is_full(struct sim_volumes *s)
{
    struct volume_options o = {.size_bytes = MIB(1024), .full_policy = VOLUME_FULL_ENOSPC};
    struct migrate_exports exports = {.prepare = hog_fills};
    struct volume *v = sim_volumes_volume(s, "v", SIZE), *hog;
    struct vp_error err = {0};
    write_all(v, 11);
    volume_close(v);
    check_ok(volume_create(s->other, "hog", &o, &err));
    check_ok(volume_open(s->other, "hog", false, &hog, &err));
    exports.arg = hog;
    struct migrate *m = begin_with(s, &exports);
    migrate_wait(m);
    check_equal(migrate_status(m)->phase, MIGRATE_FAILED);
    check_equal(migrate_status(m)->rc, VP_E_NO_SPACE);
    check(strstr(migrate_status(m)->error, "writing q/w at byte") != NULL);
    migrate_free(m);
    volume_close(hog);
    check_went_on(s, 11);
}

static void a_full_target_ends_a_move_and_the_source_goes_on(void **state)
{
    (void)state;
    play(target_is_full);
}

static CO void refuses(struct sim_volumes *s)
{
    struct volume_options small = {.size_bytes = MIB(1)};
    struct vp_error err = {0};
    struct migrate_options o = options(s);
    struct migrate *m = NULL;
    struct volume *v;
    check_equal(migrate_start(&o, &m, &err), VP_E_NOT_FOUND);
    v = sim_volumes_volume(s, "v", SIZE);
    write_all(v, 1);
    volume_close(v);
    o.to = s->vs;
    check_equal(migrate_start(&o, &m, &err), VP_E_INVALID);
    o.to = s->other;
    o.name = "a/b";
    check_equal(migrate_start(&o, &m, &err), VP_E_NAME_INVALID);
    o.name = "w";
    check_ok(volume_create(s->other, "w", &small, &err));
    check_equal(migrate_start(&o, &m, &err), VP_E_EXISTS);
    check_ok(volume_delete(s->other, "w", &err));
    m = begin(s);
    check_owner(s->vs, "v", VOLUME_INTENT, 1);
    check_owner(s->other, "w", VOLUME_TARGET, 1);
    check_equal(volume_resize(s->vs, "v", SIZE * 2, false, &err), VP_E_VOLUME_MOVING);
    check(strstr(err.text, "vpool migrate cancel p/v") != NULL);
    check_equal(volume_rename(s->vs, "v", "x", &err), VP_E_VOLUME_MOVING);
    check_equal(volume_delete(s->vs, "v", &err), VP_E_VOLUME_MOVING);
    check_equal(volume_property_set(s->vs, "v", "sync", "always", &err), VP_E_VOLUME_MOVING);
    check_equal(volume_delete(s->other, "w", &err), VP_E_VOLUME_MOVING);
    check_equal(volume_open(s->other, "w", false, &v, &err), VP_E_VOLUME_MOVING);
    check_equal(migrate_forget(s->vs, "v", NULL, 0, NULL, &err), VP_E_BUSY);
    struct migrate *second = NULL;
    check_equal(migrate_start(&o, &second, &err), VP_E_VOLUME_MOVING);
    migrate_wait(m);
    migrate_free(m);
}

static void what_would_disturb_a_move_is_refused(void **state)
{
    (void)state;
    play(refuses);
}

/* ---- after a crash ------------------------------------------------------------------------ */

static enum migrate_phase cut_at;

static CO void stops_in_a_phase(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    write_all(v, 21);
    volume_close(v);
    struct migrate *m = begin(s);
    while (migrate_status(m)->phase < cut_at && !migrate_has_ended(m))
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    free(m); /* the daemon is killed */
}

static CO void is_settled(struct sim_volumes *s)
{
    struct volumes *const both[] = {s->other, s->vs};
    struct vp_error err = {0};
    struct volume *v;
    check_ok(migrate_settle(s->vs, both, 2, NULL));
    check_ok(migrate_settle(s->other, both, 2, NULL));
    bool here = has(s->vs, "v"), there = has(s->other, "w");
    check(here != there);
    check_owner(here ? s->vs : s->other, here ? "v" : "w", VOLUME_OWNER, here ? 1 : 2);
    if (check_ok(volume_open(here ? s->vs : s->other, here ? "v" : "w", false, &v, &err))) {
        check_all(v, 21);
        volume_close(v);
    }
}

/* The commit point is passed, and the daemon does no more. */
static CO void switched_and_stuck(void *arg, struct volume *source, struct volume *target)
{
    (void)source, (void)target;
    *(bool *)arg = true;
    co_suspend("the daemon is killed meanwhile");
}

static CO void arrives_and_is_cut_off(struct sim_volumes *s)
{
    static bool stuck;
    struct migrate_exports exports = {.switched = switched_and_stuck, .arg = &stuck};
    struct volume *v = sim_volumes_volume(s, "v", SIZE);
    write_all(v, 21);
    volume_close(v);
    stuck = false;
    struct migrate *m = begin_with(s, &exports);
    while (!stuck)
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    check_owner(s->vs, "v", VOLUME_INTENT, 1);
    check_owner(s->other, "w", VOLUME_ARRIVED, 2);
    free(m); /* the daemon is killed */
}

static void after_a_kill_in_any_phase_one_pool_has_the_volume(void **state)
{
    (void)state;
    static const enum migrate_phase phases[] = {MIGRATE_FREEZING, MIGRATE_DRAINING, MIGRATE_DONE};
    for (unsigned i = 0; i <= sizeof(phases) / sizeof(phases[0]); i++) {
        bool switched = i == sizeof(phases) / sizeof(phases[0]);
        struct sim_volumes *s = start();
        cut_at = switched ? MIGRATE_SWITCHING : phases[i];
        sim_volumes_run(s, switched ? arrives_and_is_cut_off : stops_in_a_phase);
        sim_volumes_run(s, is_settled);
        sim_volumes_free(s);
        assert_checked();
    }
}

static CO void is_in_doubt(struct sim_volumes *s)
{
    struct volumes *const one[] = {s->vs};
    struct volume_owner_info o = {0};
    struct vp_error err = {0};
    struct volume *v;
    check_ok(migrate_settle(s->vs, one, 1, NULL));
    check_ok(volume_owner_get(s->vs, "v", &o));
    check(o.in_doubt);
    check_equal(volume_open(s->vs, "v", false, &v, &err), VP_E_VOLUME_MOVING);
    check(strstr(err.text, "vpool migrate forget p/v") != NULL);
    check_equal(volume_delete(s->vs, "v", &err), VP_E_VOLUME_MOVING);
}

static CO void is_forgotten(struct sim_volumes *s)
{
    struct volumes *const both[] = {s->vs, s->other};
    struct vp_error err = {0};
    is_in_doubt(s);
    check_ok(migrate_forget(s->vs, "v", NULL, 0, NULL, &err));
    check_owner(s->vs, "v", VOLUME_OWNER, 3);
    check_equal(migrate_forget(s->vs, "v", NULL, 0, NULL, &err), VP_E_INVALID);
    /* The other pool comes back after all. */
    check_ok(migrate_settle(s->other, both, 2, NULL));
    check(!has(s->other, "w"));
    check_owner(s->vs, "v", VOLUME_OWNER, 3);
}

static void without_the_other_pool_a_volume_is_in_doubt_until_that_is_given_up(void **state)
{
    (void)state;
    cut_at = MIGRATE_DRAINING;
    struct sim_volumes *s = start();
    sim_volumes_run(s, stops_in_a_phase);
    sim_volumes_run(s, is_forgotten);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- a side that was given up comes back ---------------------------------------------------- */

static CO int open_rc(struct volumes *vs, const char *name)
{
    struct volume *v;
    struct vp_error err = {0};
    int rc = volume_open(vs, name, false, &v, &err);
    if (rc == 0)
        volume_close(v);
    return rc;
}

static CO void settle_both(struct sim_volumes *s)
{
    struct volumes *const both[] = {s->vs, s->other};
    check_ok(migrate_settle(s->vs, both, 2, NULL));
    check_ok(migrate_settle(s->other, both, 2, NULL));
}

/* The target was told that the source will never come back. It does. */
static CO void target_forgets(struct sim_volumes *s)
{
    struct vp_error err = {0};
    check_ok(migrate_forget(s->other, "w", &s->other, 1, NULL, &err));
    check_owner(s->other, "w", VOLUME_OWNER, 2);
    check_equal(open_rc(s->vs, "v"), VP_E_VOLUME_MOVING);
    settle_both(s);
    check(!has(s->vs, "v"));
    check_owner(s->other, "w", VOLUME_OWNER, 2);
}

/* The source was told that the target will never come back. It does, with the volume. */
static CO void source_forgets(struct sim_volumes *s)
{
    struct vp_error err = {0};
    check_ok(migrate_forget(s->vs, "v", &s->vs, 1, NULL, &err));
    check_owner(s->vs, "v", VOLUME_OWNER, 3);
    settle_both(s);
    check_owner(s->vs, "v", VOLUME_OWNER, 3);
    check_owner(s->other, "w", VOLUME_SUPERSEDED, 2);
}

/* Whichever pool is opened first. */
static CO void only_one_is_served(struct sim_volumes *s)
{
    bool here = has(s->vs, "v");
    check_equal(open_rc(s->other, "w"), here ? VP_E_VOLUME_SUPERSEDED : 0);
    settle_both(s);
    check_equal(open_rc(s->vs, "v"), here ? 0 : VP_E_NOT_FOUND);
    check_equal(open_rc(s->other, "w"), here ? VP_E_VOLUME_SUPERSEDED : 0);
}

static void a_side_that_was_given_up_is_never_served_beside_the_other(void **state)
{
    (void)state;
    void (*const forgets[])(struct sim_volumes * s) = {target_forgets, source_forgets};
    for (unsigned i = 0; i < 2; i++) {
        struct sim_volumes *s = start();
        sim_volumes_run(s, arrives_and_is_cut_off);
        sim_volumes_run(s, forgets[i]);
        sim_volumes_run(s, only_one_is_served);
        sim_volumes_free(s);
        assert_checked();
    }
}

static CO void forgets_with_both(struct sim_volumes *s)
{
    struct volumes *const both[] = {s->vs, s->other};
    struct vp_error err = {0};
    check_ok(migrate_forget(s->vs, "v", both, 2, NULL, &err));
    check(!has(s->vs, "v"));
    check_owner(s->other, "w", VOLUME_OWNER, 2);
}

static void a_side_that_can_be_asked_is_not_given_up(void **state)
{
    (void)state;
    struct sim_volumes *s = start();
    sim_volumes_run(s, arrives_and_is_cut_off);
    sim_volumes_run(s, forgets_with_both);
    sim_volumes_free(s);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_moves_with_its_data_and_its_identity),
        cmocka_unit_test(a_client_writes_on_over_a_move_and_nothing_of_it_is_lost),
        cmocka_unit_test(a_writer_that_waits_in_a_full_pool_goes_on_in_the_new_one),
        cmocka_unit_test(a_cancelled_move_leaves_nothing),
        cmocka_unit_test(a_full_target_ends_a_move_and_the_source_goes_on),
        cmocka_unit_test(what_would_disturb_a_move_is_refused),
        cmocka_unit_test(after_a_kill_in_any_phase_one_pool_has_the_volume),
        cmocka_unit_test(without_the_other_pool_a_volume_is_in_doubt_until_that_is_given_up),
        cmocka_unit_test(a_side_that_was_given_up_is_never_served_beside_the_other),
        cmocka_unit_test(a_side_that_can_be_asked_is_not_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
