/* Deletions and resyncs as jobs: numbers, progress, records, restarts. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "pool/job.h"
#include "pool/job_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)

static uint8_t data[1 << 20] __attribute__((aligned(4096)));

static void play(void (*const *body)(struct sim_volumes *s), uint64_t seed)
{
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = seed});
    for (unsigned i = 0; body[i]; i++) {
        if (i)
            sim_volumes_power_cut(s, seed + i);
        sim_volumes_run(s, body[i]);
    }
    sim_volumes_free(s);
    assert_checked();
}

#define PLAY(seed, ...) play((void (*const[])(struct sim_volumes *s)){__VA_ARGS__, NULL}, seed)

static CO bool fill(struct sim_volumes *s, const char *name, uint64_t bytes)
{
    struct volume *v = sim_volumes_volume(s, name, bytes);
    if (!v)
        return false;
    for (uint64_t at = 0; at < bytes; at += sizeof(data))
        check_ok(volume_write(v, at, sizeof(data), data, 0));
    check_ok(volume_flush(v));
    volume_close(v);
    return true;
}

/* The only job of its kind, whatever its state; NULL when there is none. */
static struct pool_job *job_of(struct sim_volumes *s, enum pool_job_kind kind)
{
    return pool_job_find_of(volumes_pool(s->vs), kind, 1);
}

static unsigned records_of_jobs;

static int count_record(const struct pool_record *r, void *arg)
{
    (void)arg;
    records_of_jobs += r->key == JOB_COUNTER_KEY && r->scope > 0;
    return 0;
}

static unsigned count_records(struct sim_volumes *s)
{
    records_of_jobs = 0;
    check_ok(pool_record_each(volumes_pool(s->vs), POOL_RECORD_COUNTER, count_record, NULL));
    return records_of_jobs;
}

static CO void delete_to_the_end(struct sim_volumes *s)
{
    for (unsigned i = 0; i < 2; i++) {
        sim_volumes_settle(s);
        check_ok(pool_checkpoint(volumes_pool(s->vs)));
    }
    sim_volumes_settle(s);
}

/* ---- deletion -------------------------------------------------------------------------------- */

static uint32_t id_before;

static CO void deletion(struct sim_volumes *s)
{
    struct vp_error err;
    if (!fill(s, "v", MIB(8)))
        return;
    check_ok(volume_delete(s->vs, "v", &err));
    struct pool_job *j = job_of(s, POOL_JOB_DELETE);
    if (!check(j != NULL))
        return;
    check_equal(j->state, POOL_JOB_RUNNING);
    check(j->total >= MIB(8) && j->done == 0 && j->counted);
    check(strcmp(j->name, "v") == 0);
    check_equal(count_records(s), 1);
    uint64_t total = j->total;
    bool more;
    check_ok(volumes_background_step(s->vs, &more));
    check_equal(j->done, 0); /* its map is closed */
    check_ok(volumes_background_step(s->vs, &more));
    check_equal(j->done, total);
    check_equal(j->state, POOL_JOB_RUNNING);
    delete_to_the_end(s);
    check_equal(j->state, POOL_JOB_DONE);
    check(j->done == total && j->total == total && j->failed == 0 && j->rc == 0);
    check_equal(count_records(s), 0);
    check(pool_job_find(volumes_pool(s->vs), j->id) == j);
}

static void a_deletion_is_a_job_until_its_records_are_gone(void **state)
{
    (void)state;
    PLAY(1, deletion);
}

static CO void deletion_begins(struct sim_volumes *s)
{
    struct vp_error err;
    bool more;
    if (!fill(s, "v", MIB(8)))
        return;
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_ok(volume_delete(s->vs, "v", &err));
    struct pool_job *j = job_of(s, POOL_JOB_DELETE);
    if (!check(j != NULL))
        return;
    id_before = j->id;
    check_ok(volumes_background_step(s->vs, &more));
}

static CO void deletion_goes_on(struct sim_volumes *s)
{
    struct pool_job *j = job_of(s, POOL_JOB_DELETE);
    if (!check(j != NULL))
        return;
    check_equal(j->id, id_before);
    check(j->total >= MIB(8));
    check(strcmp(j->name, "v") == 0);
    delete_to_the_end(s);
    check_equal(j->state, POOL_JOB_DONE);
    check_equal(j->done, j->total);
    check_equal(count_records(s), 0);
}

static CO void number_is_not_used_again(struct sim_volumes *s)
{
    struct vp_error err;
    check(job_of(s, POOL_JOB_DELETE) == NULL);
    if (!fill(s, "w", MIB(1)))
        return;
    check_ok(volume_delete(s->vs, "w", &err));
    const struct pool_job *j = pool_job_find_of(volumes_pool(s->vs), POOL_JOB_DELETE, 2);
    check(j && j->id > id_before);
}

static void a_deletion_keeps_its_number_over_a_crash_and_no_other_job_gets_it(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 15; seed++)
        PLAY(seed, deletion_begins, deletion_goes_on, number_is_not_used_again);
}

/* ---- resync ---------------------------------------------------------------------------------- */

static CO void overwrite(struct sim_volumes *s)
{
    if (!fill(s, "v", MIB(8)))
        return;
    struct volume *v = sim_volumes_open(s, "v");
    if (!v)
        return;
    data[0] ^= 1;
    check_ok(volume_write(v, MIB(2), sizeof(data), data, 0));
    check_ok(volume_flush(v));
}

static CO void resync(struct sim_volumes *s)
{
    struct pool_job *j = job_of(s, POOL_JOB_RESYNC);
    if (!check(j != NULL))
        return;
    check(!j->counted && j->state == POOL_JOB_RUNNING);
    check_equal(pool_job_seconds_left(j), -1);
    sim_volumes_settle(s);
    check_equal(j->state, POOL_JOB_DONE);
    check(j->total == MIB(64) && j->done == MIB(64) && j->failed == 0);
    check_equal(count_records(s), 0);
}

static void a_resync_after_a_crash_is_a_job(void **state)
{
    (void)state;
    PLAY(20, overwrite, resync);
}

static CO void resync_is_cut_short(struct sim_volumes *s)
{
    struct vp_error err;
    struct pool_job *j = job_of(s, POOL_JOB_RESYNC);
    if (!check(j != NULL))
        return;
    check_ok(volume_delete(s->vs, "v", &err));
    check_equal(j->state, POOL_JOB_CANCELLED);
    check_equal(count_records(s), 1); /* the deletion's */
    delete_to_the_end(s);
    check_equal(count_records(s), 0);
}

static void a_deletion_cancels_the_resync_of_its_volume(void **state)
{
    (void)state;
    PLAY(30, overwrite, resync_is_cut_short);
}

/* ---- pause, limit ---------------------------------------------------------------------------- */

static uint64_t leased(struct sim_volumes *s)
{
    struct pool_space space;
    pool_space_get(volumes_pool(s->vs), &space);
    return space.leased_bytes;
}

static CO void deletion_is_paused(struct sim_volumes *s)
{
    struct vp_error err;
    struct pool *p = volumes_pool(s->vs);
    struct volume *user;
    if (!fill(s, "v", MIB(8)))
        return;
    check_ok(volume_delete(s->vs, "v", &err));
    struct pool_job *j = job_of(s, POOL_JOB_DELETE);
    if (!check(j != NULL))
        return;
    check_ok(pool_job_pause(p, j->id, &err));
    check_ok(pool_job_pause(p, j->id, &err));
    check_ok(pool_job_limit(p, j->id, MIB(2), &err));
    delete_to_the_end(s);
    check_equal(j->state, POOL_JOB_PAUSED);
    check(leased(s) >= MIB(8) && j->done == 0);
    check_equal(pool_job_rate(j), 0);
    check_equal(volume_open(s->vs, "v", false, &user, &err), VP_E_NOT_FOUND);
    id_before = j->id;
}

static CO void deletion_is_still_paused(struct sim_volumes *s)
{
    struct vp_error err;
    struct pool *p = volumes_pool(s->vs);
    struct pool_job *j = job_of(s, POOL_JOB_DELETE);
    if (!check(j != NULL))
        return;
    check(j->id == id_before && j->state == POOL_JOB_PAUSED && j->limit == MIB(2));
    delete_to_the_end(s);
    check(leased(s) >= MIB(8));
    check_ok(pool_job_limit(p, j->id, 0, &err));
    check_ok(pool_job_resume(p, j->id, &err));
    delete_to_the_end(s);
    check_equal(j->state, POOL_JOB_DONE);
    check_equal(leased(s), 0);
    check_equal(count_records(s), 0);
    check_equal(pool_job_pause(p, j->id, &err), VP_E_NOT_FOUND);
    check_equal(pool_job_resume(p, j->id + 1, &err), VP_E_NOT_FOUND);
}

static void a_paused_deletion_stays_paused_over_crashes_until_it_is_resumed(void **state)
{
    (void)state;
    for (uint64_t seed = 60; seed < 65; seed++)
        PLAY(seed, deletion_is_paused, deletion_is_still_paused);
}

static CO void resync_is_paused(struct sim_volumes *s)
{
    struct vp_error err;
    struct pool_job *j = job_of(s, POOL_JOB_RESYNC);
    if (!check(j != NULL))
        return;
    check_ok(pool_job_pause(volumes_pool(s->vs), j->id, &err));
    sim_volumes_settle(s);
    check(j->state == POOL_JOB_PAUSED && j->done == 0);
    id_before = j->id;
}

static CO void resync_is_still_paused(struct sim_volumes *s)
{
    struct vp_error err;
    struct pool_job *j = job_of(s, POOL_JOB_RESYNC);
    if (!check(j != NULL))
        return;
    check(j->id == id_before && j->state == POOL_JOB_PAUSED);
    check_equal(pool_job_cancel(volumes_pool(s->vs), j->id, &err), VP_E_NOT_SUPPORTED);
    check_ok(pool_job_resume(volumes_pool(s->vs), j->id, &err));
    sim_volumes_settle(s);
    check_equal(j->state, POOL_JOB_DONE);
}

static void a_paused_resync_stays_paused_over_a_crash_and_is_not_cancelled(void **state)
{
    (void)state;
    PLAY(70, overwrite, resync_is_paused, resync_is_still_paused);
}

static CO void deletion_is_limited(struct sim_volumes *s)
{
    struct vp_error err;
    struct pool *p = volumes_pool(s->vs);
    if (!fill(s, "v", MIB(8)))
        return;
    check_ok(volume_delete(s->vs, "v", &err));
    struct pool_job *j = job_of(s, POOL_JOB_DELETE);
    if (!check(j != NULL))
        return;
    check_ok(pool_job_limit(p, j->id, MIB(2), &err));
    uint64_t began_ns = reactor_now_ns();
    while (j->state == POOL_JOB_RUNNING) {
        sim_volumes_settle(s);
        uint64_t due_ns = pool_jobs_due_ns(p), now_ns = reactor_now_ns();
        if (j->state == POOL_JOB_RUNNING && check(due_ns != UINT64_MAX) && due_ns > now_ns)
            check_ok(co_sleep_ns(due_ns - now_ns));
    }
    double seconds = (double)(reactor_now_ns() - began_ns) / 1e9, wanted = (double)j->done / MIB(2);
    check(seconds >= wanted - 1.1 && seconds <= wanted + 0.5);
    delete_to_the_end(s);
    check_equal(j->state, POOL_JOB_DONE);
}

static void a_limited_deletion_gives_back_so_much_a_second(void **state)
{
    (void)state;
    PLAY(80, deletion_is_limited);
}

struct pausing {
    struct sim_volumes *s;
    uint32_t id;
    bool ended;
};

static CO void pause_meanwhile(void *arg)
{
    struct pausing *a = arg;
    struct vp_error err;
    int rc = pool_job_pause(volumes_pool(a->s->vs), a->id, &err);
    check(rc == 0 || rc == VP_E_BUSY || rc == VP_E_NOT_FOUND);
    a->ended = true;
}

/* At every point of the deletion's steps: it ends, or is paused; no record of it is left over. */
static CO void pauses_at_any_point(struct sim_volumes *s)
{
    struct vp_error err;
    struct pool *p = volumes_pool(s->vs);
    for (unsigned at = 0; at < 40; at++) {
        struct volume_options o = {.size_bytes = MIB(1)};
        check_ok(volume_create(s->vs, "v", &o, &err));
        struct volume *v = sim_volumes_open(s, "v");
        if (!v)
            return;
        check_ok(volume_write(v, 0, sizeof(data), data, VOLUME_FUA));
        volume_close(v);
        check_ok(volume_delete(s->vs, "v", &err));
        struct pausing a = {.s = s};
        for (a.id = 1; !pool_job_find(p, a.id) || pool_job_has_ended(pool_job_find(p, a.id));)
            a.id++;
        bool more;
        for (unsigned i = 0; i < at % 4; i++)
            check_ok(volumes_background_step(s->vs, &more));
        check_ok(co_spawn(pause_meanwhile, &a, "pause"));
        for (unsigned i = 0; i < at / 4; i++)
            co_yield ();
        delete_to_the_end(s);
        while (!a.ended)
            co_yield ();
        const struct pool_job *j = pool_job_find(p, a.id);
        if (j->state == POOL_JOB_PAUSED)
            check_ok(pool_job_resume(p, a.id, &err));
        delete_to_the_end(s);
        check_equal(j->state, POOL_JOB_DONE);
        check_equal(count_records(s), 0);
    }
}

static void a_pause_at_any_point_of_a_deletion_leaves_nothing_behind(void **state)
{
    (void)state;
    PLAY(90, pauses_at_any_point);
}

/* ---- records --------------------------------------------------------------------------------- */

static CO void foreign_records(struct sim_volumes *s)
{
    struct pool_batch b;
    pool_batch_init(&b);
    struct job_record_disk newer = {.kind = 200, .state = JOB_RECORD_RUNNING};
    struct job_record_disk left = {.kind = POOL_JOB_DELETE, .volume = le32_make(77)};
    pool_batch_set(&b, POOL_RECORD_COUNTER, 5, JOB_COUNTER_KEY, &newer, sizeof(newer));
    pool_batch_set(&b, POOL_RECORD_COUNTER, 6, JOB_COUNTER_KEY, &left, sizeof(left));
    pool_batch_set(&b, POOL_RECORD_COUNTER, 7, JOB_COUNTER_KEY, "short", 5);
    check_ok(pool_commit(volumes_pool(s->vs), &b));
    pool_batch_fini(&b);
}

static CO void foreign_records_are_kept(struct sim_volumes *s)
{
    struct pool_record r;
    struct pool *p = volumes_pool(s->vs);
    check(pool_record_get(p, POOL_RECORD_COUNTER, 5, JOB_COUNTER_KEY, &r));
    check(!pool_record_get(p, POOL_RECORD_COUNTER, 6, JOB_COUNTER_KEY, &r));
    check(pool_record_get(p, POOL_RECORD_COUNTER, 7, JOB_COUNTER_KEY, &r));
    check(!pool_job_find(p, 5) && !pool_job_find(p, 6) && !pool_job_find(p, 7));
    struct vp_error err;
    if (!fill(s, "v", MIB(1)))
        return;
    check_ok(volume_delete(s->vs, "v", &err));
    const struct pool_job *j = job_of(s, POOL_JOB_DELETE);
    check(j && j->id == 8);
}

static void a_job_without_work_is_forgotten_and_one_of_a_newer_release_stays(void **state)
{
    (void)state;
    PLAY(40, foreign_records, foreign_records_are_kept);
}

static CO void many_deletions(struct sim_volumes *s)
{
    struct vp_error err;
    for (unsigned i = 0; i < POOL_JOBS_REMEMBERED + 10; i++) {
        struct volume_options o = {.size_bytes = MIB(1)};
        check_ok(volume_create(s->vs, "v", &o, &err));
        check_ok(volume_delete(s->vs, "v", &err));
        sim_volumes_settle(s);
    }
    check(!pool_job_find(volumes_pool(s->vs), 10));
    const struct pool_job *j = pool_job_find(volumes_pool(s->vs), 11);
    check(j && j->state == POOL_JOB_DONE);
}

static void jobs_that_ended_long_ago_are_forgotten(void **state)
{
    (void)state;
    PLAY(50, many_deletions);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_deletion_is_a_job_until_its_records_are_gone),
        cmocka_unit_test(a_deletion_keeps_its_number_over_a_crash_and_no_other_job_gets_it),
        cmocka_unit_test(a_resync_after_a_crash_is_a_job),
        cmocka_unit_test(a_deletion_cancels_the_resync_of_its_volume),
        cmocka_unit_test(a_paused_deletion_stays_paused_over_crashes_until_it_is_resumed),
        cmocka_unit_test(a_paused_resync_stays_paused_over_a_crash_and_is_not_cancelled),
        cmocka_unit_test(a_limited_deletion_gives_back_so_much_a_second),
        cmocka_unit_test(a_pause_at_any_point_of_a_deletion_leaves_nothing_behind),
        cmocka_unit_test(a_job_without_work_is_forgotten_and_one_of_a_newer_release_stays),
        cmocka_unit_test(jobs_that_ended_long_ago_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
