/* A pool gets one more disk. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "pool/job.h"
#include "pool/pool_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEN = 48 << 20, STEP = 1 << 20, DISK_BYTES = 64 << 20 };
static uint8_t data[STEP] __attribute__((aligned(4096)));
static uint8_t copy[STEP] __attribute__((aligned(4096)));

static struct volume_options options(const char *profile)
{
    struct volume_options o = {
        .size_bytes = 4 * (uint64_t)LEN, .has_profile = true, .full_policy = VOLUME_FULL_ENOSPC};
    (void)raid_profile_parse(profile, &o.profile);
    return o;
}

static void fill_data(uint64_t at)
{
    for (size_t i = 0; i < STEP; i++)
        data[i] = (uint8_t)(at / STEP + 1 + i / 4096);
    memcpy(data, &at, sizeof(at));
}

/* Until there is no room, or `end`; how far it came. */
static CO uint64_t write_from(struct volume *v, uint64_t at, uint64_t end)
{
    int rc = 0;
    for (; at < end; at += STEP) {
        fill_data(at);
        rc = volume_write(v, at, STEP, data, 0);
        if (rc)
            break;
    }
    check(rc == 0 || rc == VP_E_NO_SPACE);
    check_ok(volume_flush(v));
    return at;
}

static CO void check_to(struct volume *v, uint64_t end)
{
    for (uint64_t at = 0; at < end; at += STEP) {
        fill_data(at);
        check_ok(volume_read(v, at, STEP, copy));
        check(memcmp(copy, data, STEP) == 0);
    }
}

static CO int add(struct sim_volumes *s, const char *path, bool force, struct vp_error *err)
{
    unsigned index = 99, count = pool_disk_count(volumes_pool(s->vs));
    *err = (struct vp_error){0};
    int rc = pool_disk_add(volumes_pool(s->vs), path, force, &index, err);
    check(!rc == !err->text[0]);
    check_equal(pool_disk_count(volumes_pool(s->vs)), count + !rc);
    if (!rc)
        check_equal(index, count);
    return rc;
}

static const char *state_of(struct sim_volumes *s, unsigned i)
{
    static struct pool_disk_info info;
    pool_disk_info_get(volumes_pool(s->vs), i, &info);
    return info.state;
}

static CO void joins(struct sim_volumes *s, const char *path)
{
    struct vp_error err;
    unsigned i = pool_disk_count(volumes_pool(s->vs));
    check_ok(add(s, path, false, &err));
    check(strcmp(state_of(s, i), "rebuilding") == 0);
    sim_volumes_settle(s);
    check(strcmp(state_of(s, i), "online") == 0);
    check(strcmp(pool_state(volumes_pool(s->vs)), "online") == 0);
}

static void run_bodies(const struct sim_volumes_config *config, sim_volumes_body *const *bodies,
                       unsigned count)
{
    sim_volumes_lives(config, bodies, count);
    assert_checked();
}

/* ---- room ------------------------------------------------------------------------------------ */

static uint64_t written, more_written;

static CO void is_full_and_grows(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume_options o = options("single");
    check_ok(volume_create(s->vs, "v", &o, &err));
    struct volume *v = sim_volumes_open(s, "v");
    if (!v)
        return;
    written = write_from(v, 0, o.size_bytes);
    check(written < DISK_BYTES);
    sim_volumes_disk_add(s, "more", 2 * DISK_BYTES);
    joins(s, "more");
    more_written = write_from(v, written, o.size_bytes);
    check(more_written > DISK_BYTES + written); /* all of the new disk, which is twice as large */
    check_to(v, more_written);
    volume_close(v);
    (void)snprintf(s->name[1], sizeof(s->name[1]), "more");
    s->config.disks = 2;
}

static CO void has_both(struct sim_volumes *s)
{
    check_equal(pool_disk_count(volumes_pool(s->vs)), 2);
    struct volume *v = sim_volumes_open(s, "v");
    if (!v)
        return;
    check_to(v, more_written);
    volume_close(v);
}

static void a_full_pool_has_room_again(void **state)
{
    (void)state;
    run_bodies(&(struct sim_volumes_config){.seed = 3, .disks = 1},
               (sim_volumes_body *const[]){is_full_and_grows, has_both}, 2);
}

/* ---- redundancy ------------------------------------------------------------------------------ */

static CO void gets_a_third(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume_options three = options("mirror:3"), two = options("mirror");
    check_equal(volume_create(s->vs, "three", &three, &err), VP_E_DISK_TOO_FEW);
    check_ok(volume_create(s->vs, "two", &two, &err));
    struct volume *v = sim_volumes_open(s, "two");
    if (!v)
        return;
    check_equal(write_from(v, 0, 8 * STEP), 8 * STEP);
    sim_volumes_disk_add(s, "more", DISK_BYTES);
    joins(s, "more");
    check_ok(volume_create(s->vs, "three", &three, &err));
    struct volume *w = sim_volumes_open(s, "three");
    if (!w)
        return;
    check_equal(write_from(w, 0, 8 * STEP), 8 * STEP);
    check_to(v, 8 * STEP);
    volume_close(v);
    volume_close(w);
    check_ok(pool_disk_offline(volumes_pool(s->vs), 0, &err));
    check_ok(pool_disk_offline(volumes_pool(s->vs), 1, &err) == VP_E_RAID_NO_COPY ? 0 : VP_E_IO);
    (void)snprintf(s->name[2], sizeof(s->name[2]), "more");
    s->config.disks = 3;
}

static CO void has_all_three(struct sim_volumes *s)
{
    for (unsigned i = 0; i < 2; i++) {
        struct volume *v = sim_volumes_open(s, i ? "two" : "three");
        if (!v)
            return;
        check_to(v, 8 * STEP);
        volume_close(v);
    }
}

static void wider_volumes_are_possible_then(void **state)
{
    (void)state;
    run_bodies(&(struct sim_volumes_config){.seed = 5, .profile = "mirror"},
               (sim_volumes_body *const[]){gets_a_third, has_all_three}, 2);
}

/* ---- a root that only the new disk has ------------------------------------------------------ */

enum { AREA = 1 << 20 };
static uint8_t heads[2][AREA], tails[2][AREA];

/* The cut comes when the new disk alone has the root that names it. */
static CO void is_cut_off(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume_options o = options("mirror");
    check_ok(volume_create(s->vs, "v", &o, &err));
    sim_volumes_disk_add(s, "more", DISK_BYTES);
    for (unsigned i = 0; i < 2; i++) {
        sim_disk_peek(sim_disk_find(s->world, s->name[i]), 0, heads[i], AREA);
        sim_disk_peek(sim_disk_find(s->world, s->name[i]), DISK_BYTES - AREA, tails[i], AREA);
    }
    check_ok(add(s, "more", false, &err));
    for (unsigned i = 0; i < 2; i++) {
        sim_disk_poke(sim_disk_find(s->world, s->name[i]), 0, heads[i], AREA);
        sim_disk_poke(sim_disk_find(s->world, s->name[i]), DISK_BYTES - AREA, tails[i], AREA);
    }
}

/* Without it: the sealing root has the same number. What is flushed then counts. */
static CO void goes_on_without_it(struct sim_volumes *s)
{
    check_equal(pool_disk_count(volumes_pool(s->vs)), 2);
    struct volume *v = sim_volumes_open(s, "v");
    if (!v)
        return;
    check_equal(write_from(v, 0, 4 * STEP), 4 * STEP);
    volume_close(v);
    (void)snprintf(s->name[0], sizeof(s->name[0]), "more"); /* it is looked at first */
    (void)snprintf(s->name[1], sizeof(s->name[1]), "d0");
    (void)snprintf(s->name[2], sizeof(s->name[2]), "d1");
    s->config.disks = 3;
}

static CO void has_what_was_flushed(struct sim_volumes *s)
{
    check_equal(pool_disk_count(volumes_pool(s->vs)), 2);
    struct volume *v = sim_volumes_open(s, "v");
    if (!v)
        return;
    check_to(v, 4 * STEP);
    volume_close(v);
}

static void a_root_that_only_the_new_disk_has_does_not_count_later(void **state)
{
    (void)state;
    run_bodies(&(struct sim_volumes_config){.seed = 10, .profile = "mirror"},
               (sim_volumes_body *const[]){is_cut_off, goes_on_without_it, has_what_was_flushed},
               3);
}

/* ---- what is refused, and what fails -------------------------------------------------------- */

static CO void is_refused(struct sim_volumes *s)
{
    struct vp_error err;
    check_equal(add(s, "d0", true, &err), VP_E_IO_BUSY_DEVICE);
    check_equal(add(s, "nowhere", false, &err), VP_E_NOT_FOUND);
    sim_volumes_disk_add(s, "small", 2 << 20);
    check_equal(add(s, "small", false, &err), VP_E_DISK_TOO_SMALL);
    check(strstr(err.text, "small has 2M") != NULL);
    sim_volumes_disk_add(s, "more", DISK_BYTES);
    static uint8_t labels[1 << 20];
    sim_disk_peek(sim_disk_find(s->world, "d0"), 0, labels, sizeof(labels));
    sim_disk_poke(sim_disk_find(s->world, "more"), 0, labels, sizeof(labels));
    check_equal(add(s, "more", false, &err), VP_E_DISK_HOLDS_DATA);
    check_ok(add(s, "more", true, &err));
    check_equal(add(s, "more", true, &err), VP_E_IO_BUSY_DEVICE);
    sim_volumes_settle(s);
    check(strcmp(state_of(s, 2), "online") == 0);
}

static void what_cannot_be_added_is_refused(void **state)
{
    (void)state;
    run_bodies(&(struct sim_volumes_config){.seed = 6, .profile = "mirror"},
               (sim_volumes_body *const[]){is_refused}, 1);
}

/* Each write to the new disk fails in turn, until it is one of the pool's. That root fails there,
 * so it is out of service at once, and comes back. */
static CO void fails_at_first(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume_options o = options("mirror");
    check_ok(volume_create(s->vs, "v", &o, &err));
    struct volume *v = sim_volumes_open(s, "v");
    if (!v)
        return;
    sim_volumes_disk_add(s, "more", DISK_BYTES);
    int rc = VP_E_IO;
    for (unsigned n = 0; n < 40 && rc == VP_E_IO; n++) {
        struct sim_disk *d = sim_disk_find(s->world, "more");
        sim_disk_inject(d, SIM_FAULT_ERROR, 1U << IO_WRITE | 1U << IO_FLUSH, n, 0);
        unsigned index;
        rc = pool_disk_add(volumes_pool(s->vs), "more", false, &index, &err);
        sim_disk_heal(d);
        check_equal(pool_disk_count(volumes_pool(s->vs)), rc == VP_E_IO ? 2 : 3);
        check(strcmp(pool_state(volumes_pool(s->vs)), rc == VP_E_IO ? "online" : "degraded") == 0);
    }
    check_equal(rc, VP_E_RAID_DISK_OUT);
    check(strcmp(state_of(s, 2), "ejected") == 0);
    check_ok(pool_disk_return(volumes_pool(s->vs), &(struct pool_return_options){.disk = 2}, &err));
    check_equal(write_from(v, 0, 8 * STEP), 8 * STEP);
    sim_volumes_settle(s);
    check(strcmp(pool_state(volumes_pool(s->vs)), "online") == 0);
    check_to(v, 8 * STEP);
    volume_close(v);
}

static void a_device_that_fails_at_first_is_no_disk_of_the_pool(void **state)
{
    (void)state;
    run_bodies(&(struct sim_volumes_config){.seed = 8, .profile = "mirror"},
               (sim_volumes_body *const[]){fails_at_first}, 1);
}

static CO void has_as_many_as_there_can_be(struct sim_volumes *s)
{
    struct vp_error err;
    char name[16];
    for (unsigned i = pool_disk_count(volumes_pool(s->vs)); i < POOL_DISKS_MAX; i++) {
        (void)snprintf(name, sizeof(name), "more%u", i);
        sim_volumes_disk_add(s, name, 8 << 20);
        check_ok(add(s, name, false, &err));
    }
    sim_volumes_disk_add(s, "last", 8 << 20);
    check_equal(add(s, "last", false, &err), VP_E_TOO_BIG);
    sim_volumes_settle(s);
    check(strcmp(pool_state(volumes_pool(s->vs)), "online") == 0);
    struct volume_options o = options("mirror");
    check_ok(volume_create(s->vs, "v", &o, &err));
    struct volume *v = sim_volumes_open(s, "v");
    if (!v)
        return;
    check_equal(write_from(v, 0, LEN), LEN);
    check_to(v, LEN);
    volume_close(v);
}

static void a_pool_has_as_many_disks_as_there_can_be(void **state)
{
    (void)state;
    run_bodies(&(struct sim_volumes_config){.seed = 9, .profile = "mirror", .disk_bytes = 8 << 20},
               (sim_volumes_body *const[]){has_as_many_as_there_can_be}, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_pool_has_room_again),
        cmocka_unit_test(wider_volumes_are_possible_then),
        cmocka_unit_test(a_root_that_only_the_new_disk_has_does_not_count_later),
        cmocka_unit_test(what_cannot_be_added_is_refused),
        cmocka_unit_test(a_device_that_fails_at_first_is_no_disk_of_the_pool),
        cmocka_unit_test(a_pool_has_as_many_disks_as_there_can_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
