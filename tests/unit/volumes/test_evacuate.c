/* A disk is removed: what it has goes to others, while its volumes are used. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "pool/disk_impl.h"
#include "pool/job.h"
#include "pool/meta_impl.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEN = 8 << 20 };
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

static struct pool *pool_of(struct sim_volumes *s)
{
    return volumes_pool(s->vs);
}

static void check_state(struct sim_volumes *s, unsigned disk, const char *state)
{
    struct pool_disk_info info;
    pool_disk_info_get(pool_of(s), disk, &info);
    if (strcmp(info.state, state) != 0)
        print_error("disk %u: %s\n", disk, info.state);
    check(strcmp(info.state, state) == 0);
}

static CO struct volume *volume_new_of(struct sim_volumes *s, const char *profile)
{
    struct volume_options o = {.size_bytes = LEN, .has_profile = true};
    struct vp_error err;
    (void)raid_profile_parse(profile, &o.profile);
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

static CO int leaves(struct sim_volumes *s, unsigned disk, struct vp_error *err)
{
    *err = (struct vp_error){0};
    int rc = pool_disk_leave_begin(pool_of(s), disk, err);
    if (!rc)
        check_ok(volumes_disk_leaves(s->vs, 0));
    return rc;
}

static CO void must_leave(struct sim_volumes *s, unsigned disk)
{
    struct vp_error err;
    int rc = leaves(s, disk, &err);
    if (rc)
        print_error("%s\n", err.text);
    check_ok(rc);
    check_state(s, disk, "removing");
}

/* The next life is not given the device. */
static void is_gone(struct sim_volumes *s, unsigned disk)
{
    check_state(s, disk, "removed");
    for (s->config.disks--; disk < s->config.disks; disk++)
        memcpy(s->name[disk], s->name[disk + 1], sizeof(s->name[disk]));
}

static void run_bodies(unsigned disks, const char *profile, sim_volumes_body *const *bodies,
                       unsigned count)
{
    sim_volumes_lives(&(struct sim_volumes_config){.seed = 7, .disks = disks, .profile = profile},
                      bodies, count);
    assert_checked();
}

static CO void reads_all(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "safe");
    if (!v)
        return;
    check_all(v);
    volume_close(v);
}

/* ---- the whole way --------------------------------------------------------------------------- */

/* Steps with a write between any two of them, so that it goes to both places. */
static CO void evacuate_beside_writes(struct sim_volumes *s, struct volume *v)
{
    bool more = true;
    for (unsigned i = 0; more && i < 1000; i++) {
        uint64_t at = (uint64_t)i * 37 % (LEN / 65536) * 65536;
        memset(data + at + 512, (int)i, 4096);
        check_ok(volume_write(v, at, 65536, data + at, 0));
        check_ok(volumes_background_step(s->vs, &more));
    }
}

static CO void is_removed(struct sim_volumes *s, const char *profile)
{
    struct volume *v = volume_new_of(s, profile);
    if (!v)
        return;
    write_all(v, 1);
    must_leave(s, 1);
    check(volumes_evacuation_job(s->vs, 1) != NULL);
    evacuate_beside_writes(s, v);
    sim_volumes_settle(s);
    is_gone(s, 1);
    check(volumes_evacuation_job(s->vs, 1) == NULL);
    check(strcmp(pool_state(pool_of(s)), "online") == 0);
    check_all(v);
    check_ok(volume_flush(v));
    sim_disk_set_dead(sim_disk_find(s->world, "d1"), true);
    check_all(v);
    write_all(v, 2);
    volume_close(v);
    struct pool_risk risk = pool_risk_now(pool_of(s));
    check_equal(risk.degraded_bytes, 0);
    check_equal(risk.lost_bytes, 0);
}

static CO void mirror_is_removed(struct sim_volumes *s)
{
    is_removed(s, "mirror");
}

static CO void single_is_removed(struct sim_volumes *s)
{
    is_removed(s, "single");
}

/* The device lies around. */
static CO void reads_all_without_it(struct sim_volumes *s)
{
    check_state(s, 1, "removed");
    check(strcmp(pool_state(pool_of(s)), "online") == 0);
    reads_all(s);
}

static void a_disk_of_a_mirror_is_removed_while_its_volume_is_written(void **state)
{
    (void)state;
    run_bodies(3, "mirror",
               (sim_volumes_body *const[]){mirror_is_removed, reads_all_without_it, reads_all}, 3);
}

static void a_disk_with_the_only_copy_is_removed(void **state)
{
    (void)state;
    run_bodies(2, "single",
               (sim_volumes_body *const[]){single_is_removed, reads_all_without_it, reads_all}, 3);
}

/* ---- cut off --------------------------------------------------------------------------------- */

static CO void begins_to_leave(struct sim_volumes *s)
{
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    bool more;
    write_all(v, 1);
    must_leave(s, 1);
    for (unsigned i = 0; i < 4; i++)
        check_ok(volumes_background_step(s->vs, &more));
    write_all(v, 2);
    check_state(s, 1, "removing");
}

static CO void goes_on_leaving(struct sim_volumes *s)
{
    check_state(s, 1, "removing");
    check(volumes_evacuation_job(s->vs, 1) != NULL);
    reads_all(s);
    sim_volumes_settle(s);
    is_gone(s, 1);
    reads_all(s);
}

static void a_power_cut_finds_the_disk_leaving_and_it_goes_on(void **state)
{
    (void)state;
    run_bodies(3, "mirror",
               (sim_volumes_body *const[]){begins_to_leave, goes_on_leaving, reads_all}, 3);
}

/* ---- it stays -------------------------------------------------------------------------------- */

static CO void stays(struct sim_volumes *s)
{
    struct volume *v = volume_new_of(s, "mirror");
    struct vp_error err;
    bool more;
    if (!v)
        return;
    write_all(v, 1);
    must_leave(s, 1);
    check_equal(leaves(s, 1, &err), VP_E_BUSY);
    check_equal(leaves(s, 0, &err), VP_E_BUSY);
    check_ok(volumes_background_step(s->vs, &more));
    check_ok(volumes_background_step(s->vs, &more));
    check(pool_moves_are_there(pool_of(s)));
    struct pool_job *j = pool_job_find_of(pool_of(s), POOL_JOB_REMOVE, 1);
    if (!j)
        return;
    check_ok(pool_job_cancel(pool_of(s), j->id, &err));
    sim_volumes_settle(s);
    check_equal(j->state, POOL_JOB_CANCELLED);
    check(!pool_moves_are_there(pool_of(s)));
    check_state(s, 1, "online");
    check_all(v);
    write_all(v, 2);
    must_leave(s, 1); /* once more */
    sim_volumes_settle(s);
    is_gone(s, 1);
    check_all(v);
    volume_close(v);
}

static void a_removal_that_is_cancelled_leaves_the_disk_in_the_pool(void **state)
{
    (void)state;
    run_bodies(3, "mirror", (sim_volumes_body *const[]){stays, reads_all}, 2);
}

/* ---- refused --------------------------------------------------------------------------------- */

static CO void is_refused(struct sim_volumes *s)
{
    struct volume *v = volume_new_of(s, "mirror");
    struct vp_error err;
    if (!v)
        return;
    write_all(v, 1);
    check_equal(leaves(s, 1, &err), VP_E_NO_SPACE);
    check(strstr(err.text, "another copy of the same data") != NULL);
    check(strstr(err.text, "vpool add") != NULL);
    check_equal(leaves(s, 7, &err), VP_E_NOT_FOUND);
    check_state(s, 1, "online");
    check_all(v);
    volume_close(v);
}

static void a_mirror_of_two_disks_cannot_lose_one(void **state)
{
    (void)state;
    run_bodies(2, "mirror", (sim_volumes_body *const[]){is_refused, reads_all}, 2);
}

/* ---- what fails ------------------------------------------------------------------------------ */

static CO void target_dies(struct sim_volumes *s)
{
    struct volume *v = volume_new_of(s, "mirror");
    bool more;
    if (!v)
        return;
    write_all(v, 1);
    must_leave(s, 0);
    check_ok(volumes_background_step(s->vs, &more));
    const struct pool_move *m =
        container_of(pool_of(s)->moves.all.next, const struct pool_move, link);
    unsigned target = m->to->io.index;
    check(pool_moves_are_there(pool_of(s)));
    sim_disk_set_dead(sim_disk_find(s->world, s->name[target]), true);
    write_all(v, 2); /* no client notices */
    check_state(s, target, "ejected");
    sim_volumes_settle(s);
    check_state(s, 0, "removed");
    check_all(v);
    volume_close(v);
}

static void a_target_that_dies_harms_nobody(void **state)
{
    (void)state;
    run_bodies(4, "mirror", (sim_volumes_body *const[]){target_dies}, 1);
}

static CO void dead_disk_is_removed(struct sim_volumes *s)
{
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    write_all(v, 1);
    sim_disk_set_dead(sim_disk_find(s->world, "d1"), true);
    write_all(v, 2);
    check_state(s, 1, "ejected");
    struct vp_error err;
    check_ok(leaves(s, 1, &err));
    sim_volumes_settle(s);
    is_gone(s, 1);
    struct pool_risk risk = pool_risk_now(pool_of(s));
    check_equal(risk.survives, 1);
    check_equal(risk.degraded_bytes, 0);
    check_all(v);
    volume_close(v);
}

static void a_dead_disk_is_removed_and_its_mirrors_are_whole_again(void **state)
{
    (void)state;
    run_bodies(3, "mirror", (sim_volumes_body *const[]){dead_disk_is_removed, reads_all}, 2);
}

/* Until nothing moves any more, whatever was tried again after a rest. */
static CO void settle_long(struct sim_volumes *s)
{
    for (unsigned i = 0; i < 8; i++) {
        sim_volumes_settle(s);
        vp_ignore(co_sleep_ns(UINT64_C(301000000000)), "time for what rests");
    }
}

/* All is copied, and nothing recorded. */
static CO void copy_all(struct sim_volumes *s, const struct volume *v)
{
    bool more;
    check_ok(volumes_background_step(s->vs, &more));
    for (unsigned i = 0; i < 1000 && v->evacuates; i++)
        check_ok(volumes_background_step(s->vs, &more));
    check(!v->evacuates && pool_moves_are_there(pool_of(s)));
}

/* No data are left on it. */
static CO void empty_of_data(struct sim_volumes *s)
{
    bool more;
    for (unsigned i = 0; i < 1000 && s->vs->evacuation.at != EVACUATION_METADATA; i++)
        check_ok(volumes_background_step(s->vs, &more));
    check_equal(s->vs->evacuation.at, EVACUATION_METADATA);
}

static CO unsigned is_added(struct sim_volumes *s, const char *path)
{
    unsigned index = 0;
    struct vp_error err = {0};
    check_ok(pool_disk_add(pool_of(s), path, false, &index, &err));
    check_ok(volumes_disk_came(s->vs, index, 0));
    sim_volumes_settle(s);
    check_state(s, index, "online");
    return index;
}

/* With one more device, in no pool. */
static void run_with_device(unsigned disks, const char *profile, sim_volumes_body *body)
{
    struct sim_volumes *s = sim_volumes_new(
        &(struct sim_volumes_config){.seed = 7, .disks = disks, .profile = profile});
    sim_volumes_disk_add(s, "more", 64 << 20);
    sim_volumes_disk_add(s, "other", 64 << 20);
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

static CO void target_is_replaced(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = volume_new_of(s, "single");
    if (!v)
        return;
    write_all(v, 1);
    unsigned target = is_added(s, "more");
    must_leave(s, 0);
    struct pool_job *j = pool_job_find_of(pool_of(s), POOL_JOB_REMOVE, 0);
    copy_all(s, v);
    check_ok(pool_job_pause(pool_of(s), j->id, &err));
    check_ok(pool_disk_offline(pool_of(s), target, &err));
    struct pool_return_options o = {.disk = target, .path = "other", .replace = true};
    check_ok(pool_disk_return(pool_of(s), &o, &err));
    sim_volumes_settle(s);
    check_state(s, target, "online"); /* what was to move there is not on it */
    check_ok(pool_job_resume(pool_of(s), j->id, &err));
    settle_long(s);
    check_state(s, 0, "removed");
    check_all(v);
    volume_close(v);
}

static void a_target_that_is_replaced_is_copied_again(void **state)
{
    (void)state;
    run_with_device(1, "single", target_is_replaced);
}

static CO void last_metadata_stay(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    write_all(v, 1);
    check_ok(pool_checkpoint(pool_of(s)));
    sim_disk_set_dead(sim_disk_find(s->world, "d1"), true);
    write_all(v, 2);
    (void)is_added(s, "more");
    vp_ignore(leaves(s, 0, &err), "it has no place for a copy that is due");
    settle_long(s);
    const struct pool_group *g;
    list_for_each (g, &pool_of(s)->meta_groups, link)
        check(raid_group_is_alive(g->raid));
    check_all(v);
    check_ok(pool_checkpoint(pool_of(s)));
    volume_close(v);
}

static void the_last_good_copy_of_metadata_does_not_go(void **state)
{
    (void)state;
    run_with_device(2, "mirror", last_metadata_stay);
}

/* All pages of trees in the first metadata group, on disk 0. */
static void metadata_rot(struct sim_volumes *s)
{
    static uint8_t page[POOL_PAGE];
    const struct pool_meta_group *g = pool_of(s)->meta.group[0];
    const struct raid_group *r = g->group->raid;
    memset(page, 0x5a, sizeof(page));
    for (uint64_t n = 0; n < g->pages; n++)
        if (bitmap_test(g->used, n) && !bitmap_test(g->segment, n))
            sim_disk_poke(sim_disk_find(s->world, "d0"), r->base_bytes[0] + n * POOL_PAGE, page,
                          POOL_PAGE);
}

static CO void rotten_metadata_wait(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    write_all(v, 1);
    check_ok(pool_checkpoint(pool_of(s)));
    metadata_rot(s);
    (void)is_added(s, "more");
    must_leave(s, 1); /* the only good copy */
    settle_long(s);
    check_state(s, 1, "removing");
    check_ok(volumes_scrub_start(s->vs, 0, &err));
    settle_long(s);
    check_state(s, 1, "removed");
    volume_close(v);
    check_ok(sim_volumes_close(s));
}

static void metadata_that_rotted_are_scrubbed_before_a_good_copy_goes(void **state)
{
    (void)state;
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 3, .disks = 2, .profile = "mirror"});
    sim_volumes_disk_add(s, "more", 64 << 20);
    sim_volumes_run(s, rotten_metadata_wait);
    (void)snprintf(s->name[1], sizeof(s->name[1]), "more");
    sim_volumes_run(s, reads_all);
    sim_volumes_free(s);
    assert_checked();
}

static CO void data_come_late(struct sim_volumes *s)
{
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    write_all(v, 1);
    must_leave(s, 0);
    s->vs->evacuation.at = EVACUATION_METADATA; /* as if data had come since the last look */
    settle_long(s);
    check_state(s, 0, "removed");
    check_all(v);
    volume_close(v);
}

static void data_that_come_late_move_as_well(void **state)
{
    (void)state;
    run_bodies(4, "mirror", (sim_volumes_body *const[]){data_come_late}, 1);
}

static CO void look_at_it(void *arg)
{
    pool_disk_look(arg, 0);
}

static CO void is_looked_at(struct sim_volumes *s)
{
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    write_all(v, 1);
    must_leave(s, 0);
    empty_of_data(s);
    sim_disk_inject(sim_disk_find(s->world, "d0"), SIM_FAULT_STALL, 1U << IO_READ, 0,
                    UINT64_C(15000000000));
    check_ok(co_spawn(look_at_it, pool_of(s), "look"));
    vp_ignore(co_sleep_ns(1000), "it begins");
    settle_long(s);
    check_state(s, 0, "removed");
    volume_close(v);
}

static void a_device_is_closed_when_nobody_looks_at_it(void **state)
{
    (void)state;
    run_bodies(4, "mirror", (sim_volumes_body *const[]){is_looked_at}, 1);
}

static CO void another_returns(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    write_all(v, 1);
    sim_disk_set_dead(sim_disk_find(s->world, "d1"), true);
    write_all(v, 2);
    check_ok(leaves(s, 1, &err));
    settle_long(s);
    check_state(s, 1, "removed");
    check_ok(pool_disk_offline(pool_of(s), 2, &err));
    check_ok(pool_disk_return(pool_of(s), &(struct pool_return_options){.disk = 2}, &err));
    volume_close(v);
}

static void old_roots_that_call_a_removed_disk_out_are_no_split(void **state)
{
    (void)state;
    run_bodies(4, "mirror", (sim_volumes_body *const[]){another_returns}, 1);
}

static CO void root_write_again(void *arg)
{
    struct pool *p = arg;
    check_ok(pool_root_write(p, &p->root.now));
}

static CO void root_fails_there(struct sim_volumes *s)
{
    struct pool *p = pool_of(s);
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    write_all(v, 1);
    must_leave(s, 0);
    empty_of_data(s);
    check_ok(pool_disk_leave_metadata(p, 0));
    pool_moves_free(p);
    sim_disk_inject(sim_disk_find(s->world, "d0"), SIM_FAULT_STALL, 1U << IO_WRITE, 0,
                    UINT64_C(1000000000));
    check_ok(co_spawn(root_write_again, p, "root"));
    vp_ignore(co_sleep_ns(1000), "it begins");
    sim_disk_set_dead(sim_disk_find(s->world, "d0"), true);
    check_ok(pool_disk_leave_end(p, 0));
    check_state(s, 0, "removed");
    check(!atomic_load(&p->disk[0].io.data_only));
    check_ok(pool_root_write(p, &p->root.now));
    volume_close(v);
}

static void a_root_that_fails_on_it_does_not_bring_it_back(void **state)
{
    (void)state;
    run_bodies(4, "mirror", (sim_volumes_body *const[]){root_fails_there}, 1);
}

static CO void pool_is_fenced_meanwhile(struct sim_volumes *s)
{
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    write_all(v, 1);
    must_leave(s, 0);
    empty_of_data(s);
    check_ok(pool_disk_leave_metadata(pool_of(s), 0));
    pool_fence(pool_of(s), "a test");
    pool_moves_free(pool_of(s));
    check_equal(pool_disk_leave_end(pool_of(s), 0), VP_E_POOL_FENCED);
}

static void a_fenced_pool_keeps_its_disk(void **state)
{
    (void)state;
    run_bodies(4, "mirror", (sim_volumes_body *const[]){pool_is_fenced_meanwhile}, 1);
}

/* ---- balance --------------------------------------------------------------------------------- */

static CO void is_balanced(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = volume_new_of(s, "mirror");
    if (!v)
        return;
    write_all(v, 1);
    unsigned added = is_added(s, "more");
    check(pool_unbalanced_bytes(pool_of(s)) > 0);
    check_ok(volumes_balance_start(s->vs, 0, &err));
    check_equal(volumes_balance_start(s->vs, 0, &err), VP_E_BUSY);
    evacuate_beside_writes(s, v);
    settle_long(s);
    check(volumes_balance_job(s->vs) == NULL);
    check_equal(pool_unbalanced_bytes(pool_of(s)), 0);
    struct pool_disk_info info;
    pool_disk_info_get(pool_of(s), added, &info);
    check(info.extents_used > 1);
    check_all(v);
    sim_disk_set_dead(sim_disk_find(s->world, "d0"), true);
    check_all(v);
    volume_close(v);
}

static void data_move_to_a_disk_that_was_added(void **state)
{
    (void)state;
    run_with_device(2, "mirror", is_balanced);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_of_a_mirror_is_removed_while_its_volume_is_written),
        cmocka_unit_test(a_disk_with_the_only_copy_is_removed),
        cmocka_unit_test(a_power_cut_finds_the_disk_leaving_and_it_goes_on),
        cmocka_unit_test(a_removal_that_is_cancelled_leaves_the_disk_in_the_pool),
        cmocka_unit_test(a_mirror_of_two_disks_cannot_lose_one),
        cmocka_unit_test(a_target_that_dies_harms_nobody),
        cmocka_unit_test(a_dead_disk_is_removed_and_its_mirrors_are_whole_again),
        cmocka_unit_test(a_target_that_is_replaced_is_copied_again),
        cmocka_unit_test(the_last_good_copy_of_metadata_does_not_go),
        cmocka_unit_test(metadata_that_rotted_are_scrubbed_before_a_good_copy_goes),
        cmocka_unit_test(data_that_come_late_move_as_well),
        cmocka_unit_test(a_device_is_closed_when_nobody_looks_at_it),
        cmocka_unit_test(old_roots_that_call_a_removed_disk_out_are_no_split),
        cmocka_unit_test(a_root_that_fails_on_it_does_not_bring_it_back),
        cmocka_unit_test(a_fenced_pool_keeps_its_disk),
        cmocka_unit_test(data_move_to_a_disk_that_was_added),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
