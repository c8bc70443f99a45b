/* A disk comes into service again, or another one in its place, and gets what it lacks. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "pool/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEN = 16 << 20, PART = LEN / 128, DISK_BYTES = 64 << 20 };
static uint8_t data[LEN] __attribute__((aligned(4096)));
static uint8_t copy[LEN] __attribute__((aligned(4096)));

/* No two blocks are equal. */
static void data_new(unsigned seed)
{
    for (size_t i = 0; i < LEN; i++)
        data[i] = (uint8_t)(seed + (i & 4095));
    for (uint32_t b = 0; b < LEN / 4096; b++)
        memcpy(data + (size_t)b * 4096, &b, sizeof(b));
}

static const char *state_of(struct sim_volumes *s, unsigned disk)
{
    struct pool_disk_info info;
    pool_disk_info_get(volumes_pool(s->vs), disk, &info);
    return info.state;
}

static void check_state(struct sim_volumes *s, unsigned disk, const char *state)
{
    if (strcmp(state_of(s, disk), state) != 0)
        print_error("disk %u: %s\n", disk, state_of(s, disk));
    check(strcmp(state_of(s, disk), state) == 0);
}

static CO struct volume *mirrored(struct sim_volumes *s)
{
    struct volume_options o = {.size_bytes = LEN, .has_profile = true};
    struct vp_error err;
    (void)raid_profile_parse("mirror", &o.profile);
    check_ok(volume_create(s->vs, "safe", &o, &err));
    return sim_volumes_open(s, "safe");
}

static CO void write_all(struct volume *v, unsigned seed)
{
    data_new(seed);
    check_ok(volume_write(v, 0, LEN, data, 0));
    check_ok(volume_flush(v));
}

static CO void check_all(struct volume *v)
{
    memset(copy, 0, LEN);
    check_ok(volume_read(v, 0, LEN, copy));
    check(memcmp(copy, data, LEN) == 0);
}

static CO int comes(struct sim_volumes *s, const struct pool_return_options *o,
                    struct vp_error *err)
{
    *err = (struct vp_error){0};
    return pool_disk_return(volumes_pool(s->vs), o, err);
}

static CO void comes_back(struct sim_volumes *s, unsigned disk)
{
    struct vp_error err;
    int rc = comes(s, &(struct pool_return_options){.disk = disk}, &err);
    if (rc)
        print_error("%s\n", err.text);
    check_ok(rc);
    check_state(s, disk, "rebuilding");
}

static CO void goes(struct sim_volumes *s, unsigned disk)
{
    struct vp_error err = {0};
    int rc = pool_disk_offline(volumes_pool(s->vs), disk, &err);
    if (rc)
        print_error("%s\n", err.text);
    check_ok(rc);
    check_state(s, disk, "ejected");
}

/* ---- a disk returns ------------------------------------------------------------------------ */

static CO void returns(struct sim_volumes *s)
{
    struct volume *v = mirrored(s);
    if (!v)
        return;
    write_all(v, 1);
    goes(s, 1);
    write_all(v, 2);
    comes_back(s, 1);
    check(strcmp(pool_state(volumes_pool(s->vs)), "degraded") == 0);
    struct pool_space space;
    pool_space_get(volumes_pool(s->vs), &space);
    check_equal(space.level, POOL_OK); /* a group may be formed on it, beside one that is current */
    struct volume *second = sim_volumes_volume(s, "second", LEN);
    check_all(v);
    if (!second)
        return;
    check_ok(volume_write(second, 0, LEN, data, 0));
    volume_close(second);
    data_new(3); /* the second half changes while the disk is behind */
    check_ok(volume_write(v, LEN / 2, LEN / 2, data + LEN / 2, 0));
    check_ok(volume_flush(v));
    check_ok(volume_write(v, 0, LEN / 2, data, 0));
    sim_volumes_settle(s);
    check_state(s, 1, "online");
    check(strcmp(pool_state(volumes_pool(s->vs)), "online") == 0);
    check_all(v);
    check_ok(volume_flush(v));
    goes(s, 0); /* the disk that returned is alone with everything now */
    check_all(v);
    volume_close(v);
}

static CO void reads_all(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "safe");
    if (!v)
        return;
    check_all(v);
    volume_close(v);
}

/* One life after the other; with a power cut in between. */
static void run_bodies(unsigned disks, sim_volumes_body *const *bodies, unsigned count)
{
    sim_volumes_lives(&(struct sim_volumes_config){.seed = 7, .disks = disks, .profile = "mirror"},
                      bodies, count);
    assert_checked();
}

static void a_disk_that_returns_gets_what_it_missed_and_is_a_copy_then(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){returns, reads_all}, 2);
}

/* ---- while it is behind -------------------------------------------------------------------- */

static CO void is_left_behind(struct sim_volumes *s)
{
    struct volume *v = mirrored(s);
    if (!v)
        return;
    write_all(v, 1);
    goes(s, 1);
    write_all(v, 2);
    comes_back(s, 1);
    check_all(v);
    struct vp_error err = {0};
    check_equal(pool_disk_offline(volumes_pool(s->vs), 0, &err), VP_E_RAID_NO_COPY);
    check(strstr(err.text, "no other disk in service has a copy") != NULL);
    check_equal(comes(s, &(struct pool_return_options){.disk = 1}, &err), VP_E_BUSY);
    check_equal(comes(s, &(struct pool_return_options){.disk = 2}, &err), VP_E_NOT_FOUND);
    volume_close(v);
}

static CO void goes_on_being_filled(struct sim_volumes *s)
{
    bool more;
    check_state(s, 1, "rebuilding");
    struct pool_job *j = pool_job_find_of(volumes_pool(s->vs), POOL_JOB_REBUILD, 1);
    check(j && j->state == POOL_JOB_RUNNING);
    reads_all(s);
    check_ok(volumes_background_step(s->vs, &more));
    goes(s, 1); /* and comes again: from the beginning */
    check(pool_job_find_of(volumes_pool(s->vs), POOL_JOB_REBUILD, 1) != NULL);
    comes_back(s, 1);
    sim_volumes_settle(s);
    check_state(s, 1, "online");
    goes(s, 0);
    reads_all(s);
}

static void a_disk_that_is_behind_is_so_after_a_power_cut(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){is_left_behind, goes_on_being_filled, reads_all}, 3);
}

/* ---- another one in its place -------------------------------------------------------------- */

static CO void is_replaced(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = mirrored(s);
    if (!v)
        return;
    write_all(v, 1);
    sim_volumes_disk_add(s, "small", DISK_BYTES - (1 << 20));
    sim_volumes_disk_add(s, "spare", DISK_BYTES + (1 << 20));
    struct pool_return_options o = {.disk = 1, .path = "spare", .replace = true};
    check_equal(comes(s, &o, &err), VP_E_BUSY);
    sim_disk_set_dead(sim_disk_find(s->world, "d1"), true);
    write_all(v, 2);
    check_state(s, 1, "ejected");
    check(comes(s, &(struct pool_return_options){.disk = 1}, &err) != 0);
    check(strstr(err.text, "vpool replace") != NULL);
    o.path = "small";
    check_equal(comes(s, &o, &err), VP_E_DISK_TOO_SMALL);
    check(strstr(err.text, "63M") != NULL);
    o.path = "d0";
    check_equal(comes(s, &o, &err), VP_E_IO_BUSY_DEVICE);
    o.path = "spare";
    check_ok(comes(s, &o, &err));
    check_state(s, 1, "rebuilding");
    data_new(3);
    check_ok(volume_write(v, 0, LEN / 2, data, 0));
    check_ok(volume_write(v, LEN / 2, LEN / 2, data + LEN / 2, 0));
    sim_volumes_settle(s);
    check_state(s, 1, "online");
    goes(s, 0);
    check_all(v);
    write_all(v, 4);
    volume_close(v);
    (void)snprintf(s->name[1], sizeof(s->name[1]), "spare");
}

static void another_device_takes_the_place_of_a_dead_disk(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){is_replaced, reads_all}, 2);
}

/* ---- data without redundancy --------------------------------------------------------------- */

static CO void keeps_what_only_it_has(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *alone = sim_volumes_volume(s, "alone", LEN), *v = mirrored(s);
    if (!alone || !v)
        return;
    write_all(v, 1);
    check_ok(volume_write(alone, 0, LEN, data, 0));
    check_ok(volume_flush(alone));
    check_equal(pool_disk_offline(volumes_pool(s->vs), 1, &err), VP_E_RAID_NO_COPY);
    check(strstr(err.text, "without redundancy") != NULL);
    sim_disk_fail(sim_disk_find(s->world, "d1"), 1 << IO_WRITE, RAID_METADATA_TRIES);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_state(s, 1, "ejected");
    sim_volumes_disk_add(s, "spare", DISK_BYTES);
    struct pool_return_options o = {.disk = 1, .path = "spare", .replace = true};
    check_equal(comes(s, &o, &err), VP_E_RAID_NO_COPY);
    check_ok(volume_write(alone, 0, LEN, data, 0));
    comes_back(s, 1);
    check_all(alone);
    sim_volumes_settle(s);
    check_state(s, 1, "online");
    check_all(alone);
    check_ok(volume_flush(alone));
    check_all(v);
    volume_close(alone);
    volume_close(v);
}

static CO void has_it_still(struct sim_volumes *s)
{
    struct volume *alone = sim_volumes_open(s, "alone");
    if (!alone)
        return;
    check_all(alone);
    volume_close(alone);
    reads_all(s);
}

static void data_without_redundancy_stay_on_the_disk_that_returns(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 4});
    sim_volumes_run(s, keeps_what_only_it_has);
    sim_volumes_power_cut(s, 1);
    sim_volumes_run(s, has_it_still);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- faults while it is filled ------------------------------------------------------------- */

/* Finds a block of the data on a disk. */
static uint64_t place_of(struct sim_disk *d, const uint8_t *block)
{
    static uint8_t there[4096];
    for (uint64_t at = 0; at < DISK_BYTES; at += 4096) {
        sim_disk_peek(d, at, there, sizeof(there));
        if (memcmp(there, block, sizeof(there)) == 0)
            return at;
    }
    return 0;
}

static CO void meets_a_bad_block(struct sim_volumes *s)
{
    struct volume *v = mirrored(s);
    if (!v)
        return;
    write_all(v, 1);
    goes(s, 1);
    data_new(2);
    check_ok(volume_write(v, LEN / 2, LEN / 2, data + LEN / 2, 0));
    data_new(1);
    struct sim_disk *d0 = sim_disk_find(s->world, "d0");
    static uint8_t both[2][4096];
    memcpy(both[0], data, 4096); /* did not change: the disk that returns has it */
    data_new(2);
    memcpy(both[1], data + LEN / 2, 4096); /* has changed: nobody else has it */
    for (unsigned i = 0; i < 2; i++) {
        uint64_t at = place_of(d0, both[i]);
        check(at != 0);
        sim_disk_flip_bit(d0, at + 100, 3);
    }
    comes_back(s, 1);
    sim_volumes_settle(s);
    check_state(s, 1, "online");
    struct pool_job *j = pool_job_find_of(volumes_pool(s->vs), POOL_JOB_REBUILD, 1);
    check(j && j->state == POOL_JOB_FAILED && j->rc == VP_E_CHECKSUM);
    check_ok(volume_read(v, 0, 4096, copy));
    check(memcmp(copy, both[0], 4096) == 0);
    check_equal(volume_read(v, LEN / 2, 4096, copy), VP_E_CHECKSUM);
    check_ok(volume_read(v, LEN / 2 + 4096, LEN / 2 - 4096, copy));
    check(memcmp(copy, data + LEN / 2 + 4096, LEN / 2 - 4096) == 0);
    volume_close(v);
}

static void a_bad_block_is_named_and_all_others_are_filled(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){meets_a_bad_block}, 1);
}

static CO void dies_again(struct sim_volumes *s)
{
    bool more = true;
    struct volume *v = mirrored(s);
    if (!v)
        return;
    write_all(v, 1);
    goes(s, 1);
    write_all(v, 2);
    comes_back(s, 1);
    sim_disk_fail(sim_disk_find(s->world, "d1"), 1 << IO_WRITE, 1);
    while (more && volumes_background_step(s->vs, &more) == 0)
        ;
    check_state(s, 1, "ejected");
    sim_volumes_settle(s);
    struct pool_job *j = pool_job_find_of(volumes_pool(s->vs), POOL_JOB_REBUILD, 1);
    check(j && j->state == POOL_JOB_CANCELLED);
    check_all(v);
    write_all(v, 3);
    comes_back(s, 1);
    sim_volumes_settle(s);
    check_state(s, 1, "online");
    goes(s, 0);
    check_all(v);
    volume_close(v);
}

static void a_disk_that_fails_while_it_is_filled_leaves_and_may_return(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){dies_again, reads_all}, 2);
}

/* The other disk dies at each write of the end, one after the other. From the root on that makes
 * the disk count, the pool goes on with it. Before, it cannot. */
static unsigned dies_at, goes_on_with_it;

static CO void dies_at_the_end(struct sim_volumes *s)
{
    struct volume *v = mirrored(s);
    if (!v)
        return;
    write_all(v, 1);
    goes(s, 1);
    write_all(v, 2);
    comes_back(s, 1);
    const struct pool_job *j = NULL;
    for (bool more = true; more && (!j || j->done < LEN);) {
        check_ok(volumes_background_step(s->vs, &more));
        j = volumes_fill_job(s->vs, 1);
    }
    sim_disk_inject(sim_disk_find(s->world, "d0"), SIM_FAULT_DEAD, 1U << IO_WRITE, dies_at, 0);
    for (bool more = true; more && volumes_background_step(s->vs, &more) == 0;)
        ;
    bool fenced = strcmp(pool_state(volumes_pool(s->vs)), "fenced") == 0;
    if (fenced)
        check_state(s, 1, "rebuilding");
    else if (strcmp(state_of(s, 0), "ejected") == 0)
        goes_on_with_it++;
    if (!fenced && strcmp(state_of(s, 1), "online") == 0)
        check_all(v);
    volume_close(v);
}

static void a_source_that_dies_when_the_disk_counts_is_not_missed(void **state)
{
    (void)state;
    for (dies_at = goes_on_with_it = 0; dies_at < 40; dies_at++)
        run_bodies(2, (sim_volumes_body *const[]){dies_at_the_end}, 1);
    assert_true(goes_on_with_it > 0);
}

/* ---- the disk that has the data fails ------------------------------------------------------- */

static CO void meets_a_failing_source(struct sim_volumes *s)
{
    struct volume *v = mirrored(s);
    if (!v)
        return;
    write_all(v, 1);
    goes(s, 1);
    write_all(v, 2);
    comes_back(s, 1);
    data_new(3);
    sim_disk_fail(sim_disk_find(s->world, "d0"), 1 << IO_WRITE, 1);
    check_equal(volume_write(v, 0, 4096, data, 0), VP_E_RAID_NO_COPY);
    check_state(s, 0, "online"); /* it has the only copy of all the rest */
    write_all(v, 3);
    sim_volumes_settle(s);
    check_state(s, 1, "online");
    goes(s, 0);
    check_all(v);
    volume_close(v);
}

static void a_write_that_only_the_disk_took_that_is_behind_is_an_error(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){meets_a_failing_source, reads_all}, 2);
}

/* Also what is tried again after a rest. */
static CO void settle_long(struct sim_volumes *s)
{
    for (unsigned i = 0; i < 6; i++) {
        sim_volumes_settle(s);
        check_ok(co_sleep_ns(UINT64_C(60000000000)));
    }
}

/* Disk 1 is behind, and disk 0, which has what it lacks, leaves. */
static CO struct volume *source_leaves(struct sim_volumes *s)
{
    struct volume *v = mirrored(s);
    if (!v)
        return NULL;
    write_all(v, 1);
    goes(s, 1);
    write_all(v, 2);
    comes_back(s, 1);
    data_new(3);
    for (uint64_t at = 0; at < LEN; at += LEN / 16) /* in whatever groups */
        check_ok(volume_write(v, at, PART, data + at, 0));
    sim_disk_fail(sim_disk_find(s->world, "d0"), 1 << IO_FLUSH, 1);
    check(volume_flush(v) != 0); /* of some of it, disk 0 had the only copy that counts */
    check_state(s, 0, "ejected");
    return v;
}

static CO void waits_for_its_source(struct sim_volumes *s)
{
    struct volume *v = source_leaves(s);
    if (!v)
        return;
    settle_long(s);
    check_state(s, 1, "rebuilding"); /* what disk 0 had may come again */
    unsigned failed = 0;
    for (uint64_t at = 0; at < LEN; at += 4096) {
        int rc = volume_read(v, at, 4096, copy);
        failed += rc != 0;
        if (!rc && at % (LEN / 16) < PART)
            check(memcmp(copy, data + at, 4096) == 0);
    }
    check(failed > 0);
    check_equal(volume_write(v, 0, LEN, data, 0), VP_E_RAID_NO_COPY);
    comes_back(s, 0);
    settle_long(s);
    check_state(s, 0, "online");
    check_state(s, 1, "online");
    for (uint64_t at = 0; at < LEN; at += LEN / 16) {
        check_ok(volume_read(v, at, PART, copy));
        check(memcmp(copy, data + at, PART) == 0);
    }
    write_all(v, 4);
    check_all(v);
    volume_close(v);
}

static void a_disk_that_is_behind_waits_for_the_disk_that_has_the_rest(void **state)
{
    (void)state;
    run_bodies(3, (sim_volumes_body *const[]){waits_for_its_source, reads_all}, 2);
}

static CO void loses_its_source(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = source_leaves(s);
    if (!v)
        return;
    settle_long(s);
    sim_volumes_disk_add(s, "spare", DISK_BYTES);
    struct pool_return_options o = {.disk = 0, .path = "spare", .replace = true};
    check_equal(comes(s, &o, &err), VP_E_RAID_NO_COPY);
    check(strstr(err.text, "--force") != NULL);
    o.force = true;
    check_ok(comes(s, &o, &err));
    settle_long(s);
    check_state(s, 0, "online");
    check_state(s, 1, "online");
    unsigned lost = 0;
    for (uint64_t at = 0; at < LEN; at += 4096) {
        int rc = volume_read(v, at, 4096, copy);
        lost += rc == VP_E_CHECKSUM;
        check(!rc || rc == VP_E_CHECKSUM);
        if (!rc && at % (LEN / 16) < PART)
            check(memcmp(copy, data + at, 4096) == 0);
    }
    check(lost > 0);
    write_all(v, 4); /* all is in order again */
    check_all(v);
    volume_close(v);
    (void)snprintf(s->name[0], sizeof(s->name[0]), "spare");
}

static void what_is_lost_with_the_source_can_be_given_up(void **state)
{
    (void)state;
    run_bodies(3, (sim_volumes_body *const[]){loses_its_source, reads_all}, 2);
}

/* ---- a disk that went its own way ----------------------------------------------------------- */

static CO void makes_a_volume(struct sim_volumes *s)
{
    struct volume *v = mirrored(s);
    if (!v)
        return;
    write_all(v, 1);
    volume_close(v);
    check_ok(sim_volumes_close(s));
    (void)snprintf(s->name[0], sizeof(s->name[0]), "d1"); /* from now on it alone */
    s->config.disks = 1;
}

static CO void goes_on_alone(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "safe");
    if (!v)
        return;
    write_all(v, 2);
    volume_close(v);
    check_ok(sim_volumes_close(s));
    (void)snprintf(s->name[0], sizeof(s->name[0]), "d0"); /* and now the other one */
}

static CO void meets_the_other(struct sim_volumes *s)
{
    struct vp_error err;
    struct pool_return_options o = {.disk = 1, .path = "d1"};
    check_state(s, 1, "missing");
    check_equal(comes(s, &o, &err), VP_E_POOL_SPLIT);
    check(strstr(err.text, "knows what they do not") != NULL);
    check_state(s, 1, "missing");
    o.replace = true;
    check_equal(comes(s, &o, &err), VP_E_DISK_HOLDS_DATA);
    o.force = true;
    check_ok(comes(s, &o, &err));
    sim_volumes_settle(s);
    check_state(s, 1, "online");
    data_new(1);
    reads_all(s);
    check_ok(sim_volumes_close(s));
    (void)snprintf(s->name[0], sizeof(s->name[0]), "d1");
}

static void a_disk_that_was_used_alone_does_not_return_by_itself(void **state)
{
    (void)state;
    run_bodies(
        2, (sim_volumes_body *const[]){makes_a_volume, goes_on_alone, meets_the_other, reads_all},
        4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_returns_gets_what_it_missed_and_is_a_copy_then),
        cmocka_unit_test(a_disk_that_is_behind_is_so_after_a_power_cut),
        cmocka_unit_test(another_device_takes_the_place_of_a_dead_disk),
        cmocka_unit_test(data_without_redundancy_stay_on_the_disk_that_returns),
        cmocka_unit_test(a_bad_block_is_named_and_all_others_are_filled),
        cmocka_unit_test(a_source_that_dies_when_the_disk_counts_is_not_missed),
        cmocka_unit_test(a_disk_that_fails_while_it_is_filled_leaves_and_may_return),
        cmocka_unit_test(a_write_that_only_the_disk_took_that_is_behind_is_an_error),
        cmocka_unit_test(a_disk_that_is_behind_waits_for_the_disk_that_has_the_rest),
        cmocka_unit_test(what_is_lost_with_the_source_can_be_given_up),
        cmocka_unit_test(a_disk_that_was_used_alone_does_not_return_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
