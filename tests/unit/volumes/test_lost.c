/* A disk that fails: who has a mirror goes on; who has not keeps its data, or is told. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEN = 1 << 20 };
static uint8_t data[LEN] __attribute__((aligned(4096)));

static CO struct volume *mirrored(struct sim_volumes *s)
{
    struct volume_options o = {.size_bytes = LEN, .has_profile = true};
    struct vp_error err;
    (void)raid_profile_parse("mirror", &o.profile);
    check_ok(volume_create(s->vs, "safe", &o, &err));
    return sim_volumes_open(s, "safe");
}

static CO void fail_a_flush(struct sim_volumes *s)
{
    struct volume *alone = sim_volumes_volume(s, "alone", LEN), *safe = mirrored(s);
    if (!alone || !safe)
        return;
    check_ok(volume_write(alone, 0, LEN, data, 0));
    check_ok(volume_write(safe, 0, LEN, data, 0));
    check_ok(volume_flush(safe));
    check_ok(volume_flush(alone));

    check_ok(volume_write(alone, 0, LEN, data, 0));
    check_ok(volume_write(safe, 0, LEN, data, 0));
    sim_disk_inject(sim_disk_find(s->world, "d1"), SIM_FAULT_ERROR, 1 << IO_FLUSH, 0, 0);
    check_ok(volume_flush(safe)); /* meets the failure; its data are on d0 too */
    check_equal(volume_flush(alone), VP_E_RAID_NO_COPY);
    check_equal(volume_flush(alone), VP_E_RAID_NO_COPY); /* said for as long as it is true */
    check_ok(volume_flush(safe));
    check_equal(volume_write(safe, 0, 4096, data, VOLUME_FUA), 0);
    check_ok(pool_checkpoint(volumes_pool(s->vs))); /* the pool itself is well */
    volume_close(alone);
    volume_close(safe);
}

static void a_lost_write_without_a_mirror_is_not_acknowledged(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 4});
    sim_volumes_run(s, fail_a_flush);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- a failed write of metadata ------------------------------------------------------------- */

static uint8_t copy[LEN] __attribute__((aligned(4096)));

static CO void check_alone(struct sim_volumes *s, const char *state)
{
    struct pool_disk_info info;
    pool_disk_info_get(volumes_pool(s->vs), 1, &info);
    check(strcmp(info.state, state) == 0);
    check(strstr(info.reason, "data still served") != NULL);
    struct volume *v = sim_volumes_open(s, "alone");
    if (!v)
        return;
    memset(copy, 0, LEN);
    check_ok(volume_read(v, 0, LEN, copy));
    check(memcmp(copy, data, LEN) == 0);
    memset(data, data[0] + 1, LEN);
    check_ok(volume_write(v, 0, LEN, data, 0));
    check_ok(volume_flush(v));
    check_ok(volume_read(v, 0, LEN, copy));
    check(memcmp(copy, data, LEN) == 0);
    volume_close(v);
}

static CO void eject_by_metadata(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "alone", LEN);
    if (!v)
        return;
    memset(data, 1, LEN);
    check_ok(volume_write(v, 0, LEN, data, 0));
    check_ok(volume_flush(v));
    volume_close(v);
    sim_disk_fail(sim_disk_find(s->world, "d1"), 1 << IO_WRITE, RAID_METADATA_TRIES);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_alone(s, "ejected");
}

static CO void see_it_stale(struct sim_volumes *s)
{
    check_alone(s, "stale");
}

enum { HALF = LEN / 2 };
static uint8_t newer[HALF] __attribute__((aligned(4096)));

/* The second half was flushed; writes of the first half may be lost. Nothing can be made durable,
 * and what was flushed can be read. */
static CO void check_read_only(struct sim_volumes *s, struct volume *v)
{
    struct pool_disk_info info;
    pool_disk_info_get(volumes_pool(s->vs), 1, &info);
    check(strstr(info.reason, "can only be read") != NULL);
    memset(copy, 0, LEN);
    check_ok(volume_read(v, HALF, HALF, copy));
    check(memcmp(copy, data + HALF, HALF) == 0);
    for (unsigned at = 0; at < HALF; at += 4096) {
        int rc = volume_read(v, at, 4096, copy);
        check(rc || memcmp(copy, data, 4096) == 0 || memcmp(copy, newer, 4096) == 0);
    }
    check_equal(volume_write(v, HALF, HALF, data + HALF, 0), VP_E_RAID_NO_COPY);
    check_equal(volume_flush(v), VP_E_RAID_NO_COPY);
    check_equal(volume_flush(v), VP_E_RAID_NO_COPY); /* said for as long as it is true */
}

static CO void see_it_read_only(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "alone");
    if (!v)
        return;
    check_read_only(s, v);
    volume_close(v);
}

/* Its flush fails while it is out. */
static CO void fail_its_flush(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "alone");
    if (!v)
        return;
    check_ok(volume_write(v, 0, LEN, data, 0));
    check_ok(volume_flush(v));
    memset(newer, 0x77, HALF);
    check_ok(volume_write(v, 0, HALF, newer, 0));
    sim_disk_inject(sim_disk_find(s->world, "d1"), SIM_FAULT_ERROR, 1 << IO_FLUSH, 0, 0);
    check_equal(volume_flush(v), VP_E_RAID_NO_COPY);
    check_read_only(s, v);
    volume_close(v);
}

static void a_disk_without_metadata_serves_its_data_until_a_flush_fails(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 5});
    sim_volumes_run(s, eject_by_metadata);
    sim_volumes_run(s, see_it_stale);
    sim_volumes_power_cut(s, 6);
    sim_volumes_run(s, see_it_stale);
    sim_volumes_run(s, fail_its_flush);
    sim_volumes_run(s, see_it_read_only);
    sim_volumes_power_cut(s, 7);
    sim_volumes_run(s, see_it_read_only);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- a write of metadata that fails a few times ---------------------------------------------- */

static unsigned failing_write; /* of a checkpoint; some of them are plain, some are durable */

static CO void fail_a_few_tries(struct sim_volumes *s)
{
    struct sim_disk *d1 = sim_disk_find(s->world, "d1");
    struct pool *p = volumes_pool(s->vs);
    struct volume *safe = mirrored(s);
    if (!safe)
        return;
    check_ok(volume_write(safe, 0, LEN, data, 0));
    check_ok(volume_flush(safe));
    for (unsigned i = 0; i < RAID_METADATA_TRIES - 1; i++)
        sim_disk_inject(d1, SIM_FAULT_ERROR, 1 << IO_WRITE, failing_write + i, 0);
    uint64_t before = sim_disk_ops(d1, IO_WRITE);
    check_ok(pool_checkpoint(p));
    check(sim_disk_ops(d1, IO_WRITE) - before > failing_write + RAID_METADATA_TRIES - 1);
    check(strcmp(pool_state(p), "online") == 0);
    check(figure_get(&pool_disks(p, &(unsigned){0})[1]->figures.write_errors) > 0);
    check_ok(volume_read(safe, 0, LEN, copy));
    check(memcmp(copy, data, LEN) == 0);
    volume_close(safe);
}

static void a_write_of_metadata_that_fails_a_few_times_ejects_nobody(void **state)
{
    (void)state;
    for (failing_write = 0; failing_write < 6; failing_write++) {
        struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 11});
        sim_volumes_run(s, fail_a_few_tries);
        sim_volumes_free(s);
    }
    assert_checked();
}

/* The failed write was durable, so it may have been its flush that failed: what waits in the disk's
 * cache may be lost, and a second try would hide that. */
static CO void fail_with_a_full_cache(struct sim_volumes *s)
{
    struct volume *safe = mirrored(s);
    if (!safe)
        return;
    check_ok(volume_write(safe, 0, LEN, data, 0));
    sim_disk_inject(sim_disk_find(s->world, "d1"), SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_ok(pool_property_set(volumes_pool(s->vs), "x", "y"));
    check(strcmp(pool_state(volumes_pool(s->vs)), "degraded") == 0);
    check_ok(volume_flush(safe));
    volume_close(safe);
}

static void a_durable_write_that_fails_is_not_repeated_over_an_unflushed_cache(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 12});
    sim_volumes_run(s, fail_with_a_full_cache);
    sim_volumes_free(s);
    assert_checked();
}

static CO void fail_alone_with_a_full_cache(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "alone", LEN);
    if (!v)
        return;
    memset(data, 1, LEN);
    memset(newer, 0x77, HALF);
    check_ok(volume_write(v, 0, LEN, data, 0));
    check_ok(volume_flush(v));
    check_ok(volume_write(v, 0, HALF, newer, 0));
    sim_disk_inject(sim_disk_find(s->world, "d1"), SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_ok(pool_property_set(volumes_pool(s->vs), "x", "y"));
    check(strcmp(pool_state(volumes_pool(s->vs)), "degraded") == 0);
    check_equal(volume_flush(v), VP_E_RAID_NO_COPY);
    check_read_only(s, v);
    volume_close(v);
}

static void a_flush_after_a_failed_durable_write_is_not_believed(void **state)
{
    (void)state;
    for (unsigned seed = 13; seed < 17; seed++) {
        struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = seed});
        sim_volumes_run(s, fail_alone_with_a_full_cache);
        sim_volumes_run(s, see_it_read_only);
        sim_volumes_power_cut(s, seed);
        sim_volumes_run(s, see_it_read_only);
        sim_volumes_free(s);
    }
    assert_checked();
}

/* The only disk cannot go, so the pool is fenced, and the next import finds it in order. */
static CO void fail_the_only_disk(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "alone", LEN);
    if (!v)
        return;
    memset(data, 1, LEN);
    memset(newer, 0x77, HALF);
    check_ok(volume_write(v, 0, HALF, data, 0));
    check_ok(volume_flush(v));
    check_ok(volume_write(v, HALF, HALF, newer, 0)); /* kept memory names it */
    sim_disk_inject(sim_disk_find(s->world, "d0"), SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_equal(pool_property_set(volumes_pool(s->vs), "x", "y"), VP_E_POOL_FENCED);
    check(volume_flush(v) != 0);
    volume_close(v);
}

static CO void see_nothing_unflushed(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "alone");
    if (!v)
        return;
    check_ok(volume_read(v, 0, LEN, copy));
    check(memcmp(copy, data, HALF) == 0);
    for (unsigned i = HALF; i < LEN; i++)
        check(copy[i] == 0);
    volume_close(v);
}

static void what_was_kept_is_forgotten_when_a_durable_write_fails_on_the_only_disk(void **state)
{
    (void)state;
    struct sim_volumes_config config = {.seed = 17, .disks = 1};
    struct sim_volumes *s = sim_volumes_new(&config);
    sim_volumes_run(s, fail_the_only_disk);
    sim_volumes_run(s, see_nothing_unflushed);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- an old image in the place of such a disk ------------------------------------------------ */

static uint8_t old_image[64 << 20];

static CO void see_it_unserved(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "alone");
    if (!v)
        return;
    check_equal(volume_read(v, 0, LEN, copy), VP_E_RAID_NO_COPY);
    volume_close(v);
}

static CO void eject_after_image(struct sim_volumes *s)
{
    struct sim_disk *d = sim_disk_find(s->world, "d1");
    sim_disk_peek(d, 0, old_image, sizeof(old_image));
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    eject_by_metadata(s);
}

static void an_old_image_of_such_a_disk_is_not_served(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 7});
    sim_volumes_run(s, eject_after_image);
    sim_disk_poke(sim_disk_find(s->world, "d1"), 0, old_image, sizeof(old_image));
    sim_volumes_run(s, see_it_unserved);
    sim_volumes_free(s);
    assert_checked();
}

static CO void image_after_eject(struct sim_volumes *s)
{
    eject_by_metadata(s);
    sim_disk_peek(sim_disk_find(s->world, "d1"), 0, old_image, sizeof(old_image));
    check_alone(s, "ejected");
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
}

static void an_image_from_after_its_ejection_is_not_served(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 8});
    sim_volumes_run(s, image_after_eject);
    sim_disk_poke(sim_disk_find(s->world, "d1"), 0, old_image, sizeof(old_image));
    sim_volumes_run(s, see_it_unserved);
    sim_volumes_free(s);
    assert_checked();
}

static CO void fail_its_roots(struct sim_volumes *s)
{
    eject_by_metadata(s);
    sim_disk_inject(sim_disk_find(s->world, "d1"), SIM_FAULT_ERROR, 1 << IO_WRITE, 0, 0);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check(strcmp(pool_state(volumes_pool(s->vs)), "degraded") == 0);
    for (unsigned i = 0; i < 20; i++)
        check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_alone(s, "ejected");
}

static void a_disk_that_fails_a_root_serves_its_data_as_before(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 9});
    sim_volumes_run(s, fail_its_roots);
    sim_volumes_run(s, see_it_stale);
    sim_volumes_power_cut(s, 10);
    sim_volumes_run(s, see_it_stale);
    sim_volumes_free(s);
    assert_checked();
}

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

int main(void)
{
    vp_log_set_sink(drop_line, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_write_without_a_mirror_is_not_acknowledged),
        cmocka_unit_test(a_disk_without_metadata_serves_its_data_until_a_flush_fails),
        cmocka_unit_test(a_write_of_metadata_that_fails_a_few_times_ejects_nobody),
        cmocka_unit_test(a_durable_write_that_fails_is_not_repeated_over_an_unflushed_cache),
        cmocka_unit_test(a_flush_after_a_failed_durable_write_is_not_believed),
        cmocka_unit_test(what_was_kept_is_forgotten_when_a_durable_write_fails_on_the_only_disk),
        cmocka_unit_test(an_old_image_of_such_a_disk_is_not_served),
        cmocka_unit_test(an_image_from_after_its_ejection_is_not_served),
        cmocka_unit_test(a_disk_that_fails_a_root_serves_its_data_as_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
