/* Names, options, deletion, restarts, many volumes. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

static uint8_t data[1 << 20] __attribute__((aligned(4096)));
static uint8_t seen[1 << 20] __attribute__((aligned(4096)));

static struct sim_volumes *start(uint64_t seed)
{
    return sim_volumes_new(&(struct sim_volumes_config){.seed = seed});
}

static void play(void (*body)(struct sim_volumes *s), uint64_t seed)
{
    struct sim_volumes *s = start(seed);
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

static CO int create(struct sim_volumes *s, const char *name, uint64_t size)
{
    struct vp_error err;
    struct volume_options o = {.size_bytes = size};
    return volume_create(s->vs, name, &o, &err);
}

/* ---- options ------------------------------------------------------------------------------ */

static void options_are_parsed_and_wrong_ones_refused_with_a_sentence(void **state)
{
    (void)state;
    struct volume_options o = {0};
    struct vp_error err = {0};
    assert_int_equal(volume_option_parse("full-policy=enospc", &o, &err), 0);
    assert_int_equal(o.full_policy, VOLUME_FULL_ENOSPC);
    assert_int_equal(volume_option_parse("zero-detect=on", &o, &err), 0);
    assert_int_equal(volume_option_parse("sync=always", &o, &err), 0);
    assert_int_equal(volume_option_parse("reserve=1G", &o, &err), 0);
    assert_int_equal(volume_option_parse("sector=4K", &o, &err), 0);
    assert_int_equal(volume_option_parse("raid=mirror:2", &o, &err), 0);
    assert_true(o.zero_detect && o.sync_always && o.has_profile);
    assert_int_equal(o.reserve_bytes, 1 << 30);
    assert_int_equal(o.sector_bytes, 4096);
    static const char *const wrong[] = {"",           "sync",           "sync=",     "sync=maybe",
                                        "reserve=-1", "sector=100",     "color=red", "=on",
                                        "raid=raid9", "zero-detect=yes"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        err.text[0] = '\0';
        assert_int_equal(volume_option_parse(wrong[i], &o, &err), VP_E_INVALID);
        assert_true(err.text[0] != '\0');
    }
}

static void names_have_their_rules(void **state)
{
    (void)state;
    char longest[VOLUME_NAME_MAX + 2];
    memset(longest, 'a', sizeof(longest));
    longest[VOLUME_NAME_MAX] = '\0';
    assert_true(volume_name_is_valid(longest));
    longest[VOLUME_NAME_MAX] = 'a';
    longest[VOLUME_NAME_MAX + 1] = '\0';
    assert_false(volume_name_is_valid(longest));
    assert_true(volume_name_is_valid("vm-1.disk_0:a"));
    static const char *const wrong[] = {"", "-a", ".a", "a/b", "a b", "a@b", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(volume_name_is_valid(wrong[i]));
}

static CO void wrong_options(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume_options o = {.size_bytes = 1000};
    check_equal(volume_create(s->vs, "v", &o, &err), VP_E_INVALID);
    o.size_bytes = 0;
    check_equal(volume_create(s->vs, "v", &o, &err), VP_E_INVALID);
    o.size_bytes = VOLUME_SIZE_MAX + 512;
    check_equal(volume_create(s->vs, "v", &o, &err), VP_E_TOO_BIG);
    o.size_bytes = MIB(1);
    check_equal(volume_create(s->vs, "a/b", &o, &err), VP_E_NAME_INVALID);
    check_ok(volume_create(s->vs, "v", &o, &err));
    check_equal(volume_create(s->vs, "v", &o, &err), VP_E_EXISTS);
    check_equal(volume_property_set(s->vs, "v", "sector", "4096", &err), VP_E_INVALID);
    check_equal(volume_property_set(s->vs, "v", "sync", "often", &err), VP_E_INVALID);
    check_equal(volume_property_set(s->vs, "w", "sync", "always", &err), VP_E_NOT_FOUND);
    check_equal(volume_delete(s->vs, "w", &err), VP_E_NOT_FOUND);
    check_equal(volumes_count(s->vs), 1);
}

static void wrong_sizes_names_and_keys_are_refused(void **state)
{
    (void)state;
    play(wrong_options, 1);
}

/* ---- rename, restart ---------------------------------------------------------------------- */

static CO void rename_open(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = sim_volumes_volume(s, "old", MIB(1)), *w;
    if (!v)
        return;
    check_ok(create(s, "taken", MIB(1)));
    const char *before = volume_full_name(v);
    memset(data, 1, 4096);
    check_ok(volume_write(v, 0, 4096, data, VOLUME_FUA));
    check_equal(volume_rename(s->vs, "old", "taken", &err), VP_E_EXISTS);
    check_equal(volume_rename(s->vs, "old", "a b", &err), VP_E_NAME_INVALID);
    check_ok(volume_rename(s->vs, "old", "new", &err));
    check(strcmp(before, "p/old") == 0);
    check(strcmp(volume_full_name(v), "p/new") == 0);
    check_equal(volume_open(s->vs, "old", false, &w, &err), VP_E_NOT_FOUND);
    check_ok(create(s, "old", MIB(2)));
    check_ok(volume_property_set(s->vs, "new", "sync", "always", &err));
}

static CO void renamed_is_there(struct sim_volumes *s)
{
    struct volume_info info;
    check_ok(volume_info_get(s->vs, "new", &info));
    check(info.options.sync_always && info.options.size_bytes == MIB(1));
    check_ok(volume_info_get(s->vs, "old", &info));
    check_equal(info.options.size_bytes, MIB(2));
    struct volume *v = sim_volumes_open(s, "new");
    if (!v)
        return;
    check_ok(volume_read(v, 0, 4096, seen));
    check(memcmp(seen, data, 4096) == 0);
}

static void a_renamed_open_volume_keeps_working_and_survives_a_crash(void **state)
{
    (void)state;
    struct sim_volumes *s = start(2);
    sim_volumes_run(s, rename_open);
    sim_volumes_power_cut(s, 22);
    sim_volumes_run(s, renamed_is_there);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- ids ---------------------------------------------------------------------------------- */

static uint32_t highest_id;

static CO void use_ids(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume_info info;
    for (int i = 0; i < 3; i++) {
        check_ok(create(s, "v", MIB(1)));
        check_ok(volume_info_get(s->vs, "v", &info));
        check(info.id > highest_id);
        highest_id = info.id;
        check_ok(volume_delete(s->vs, "v", &err));
        sim_volumes_settle(s);
    }
}

static void a_volumes_number_is_never_used_twice(void **state)
{
    (void)state;
    struct sim_volumes *s = start(3);
    highest_id = 0;
    for (unsigned i = 0; i < 3; i++) {
        sim_volumes_run(s, use_ids);
        sim_volumes_power_cut(s, i);
    }
    sim_volumes_free(s);
    assert_checked();
}

/* ---- deletion ----------------------------------------------------------------------------- */

static CO void fill(struct volume *v, uint8_t value)
{
    memset(data, value, sizeof(data));
    for (uint64_t at = 0; at < volume_size(v); at += sizeof(data))
        check_ok(volume_write(v, at, sizeof(data), data, 0));
    check_ok(volume_flush(v));
}

static CO void delete_returns_space(struct sim_volumes *s)
{
    struct vp_error err;
    struct pool *p = volumes_pool(s->vs);
    struct pool_space before = {0}, during, after;
    /* The first round leaves the group that the pool keeps open for the next lease. */
    for (unsigned round = 0; round < 4; round++) {
        struct volume *v = sim_volumes_volume(s, "v", MIB(8));
        if (!v)
            return;
        fill(v, (uint8_t)round);
        check_equal(volume_delete(s->vs, "v", &err), VP_E_BUSY);
        check_ok(pool_checkpoint(p));
        pool_space_get(p, &during);
        check(during.leased_bytes >= MIB(8));
        volume_close(v);
        check_ok(volume_delete(s->vs, "v", &err));
        check_equal(volume_open(s->vs, "v", false, &v, &err), VP_E_NOT_FOUND);
        sim_volumes_settle(s);
        check_ok(pool_checkpoint(p));
        sim_volumes_settle(s);
        check_ok(pool_checkpoint(p));
        pool_space_get(p, &after);
        if (round == 0)
            before = after;
        check_equal(after.leased_bytes, 0);
        check_equal(after.leased_bytes, before.leased_bytes);
        check_equal(after.data_bytes, before.data_bytes);
        check_equal(after.meta_pages_used, before.meta_pages_used);
    }
}

static void deleting_gives_every_byte_back(void **state)
{
    (void)state;
    play(delete_returns_space, 4);
}

static CO void delete_and_stop(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = sim_volumes_volume(s, "v", MIB(8));
    if (!v)
        return;
    fill(v, 1);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    fill(v, 2);
    volume_close(v);
    check_ok(volume_delete(s->vs, "v", &err));
}

static CO void deletion_goes_on(struct sim_volumes *s)
{
    struct pool_space space;
    struct volume_info info;
    check_equal(volume_info_get(s->vs, "v", &info), VP_E_NOT_FOUND);
    sim_volumes_settle(s);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    sim_volumes_settle(s);
    pool_space_get(volumes_pool(s->vs), &space);
    check_equal(space.leased_bytes, 0);
    struct pool_record r;
    check(!pool_record_get(volumes_pool(s->vs), POOL_RECORD_VOLUME, 1, 0, &r));
    check(!pool_record_get(volumes_pool(s->vs), POOL_RECORD_TREE, 1, POOL_TREE_MAP, &r));
}

static void a_deletion_goes_on_after_a_crash(void **state)
{
    (void)state;
    for (uint64_t seed = 5; seed < 10; seed++) {
        struct sim_volumes *s = start(seed);
        sim_volumes_run(s, delete_and_stop);
        sim_volumes_power_cut(s, seed);
        sim_volumes_run(s, deletion_goes_on);
        sim_volumes_free(s);
        assert_checked();
    }
}

static void checkpoint_in_background(void *arg)
{
    struct sim_volumes *s = arg;
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
}

static CO void delete_during_checkpoint(struct sim_volumes *s)
{
    struct vp_error err;
    for (unsigned i = 0; i < 10; i++) {
        struct volume *v = sim_volumes_volume(s, "v", MIB(4));
        struct volume *w = sim_volumes_volume(s, "w", MIB(4));
        if (!v || !w)
            return;
        fill(v, 1);
        fill(w, (uint8_t)i);
        check_ok(co_spawn(checkpoint_in_background, s, "checkpoint"));
        for (unsigned n = 0; n < i * 3; n++)
            co_yield ();
        volume_close(v);
        check_ok(volume_delete(s->vs, "v", &err));
        sim_volumes_settle(s);
        check_ok(volume_read(w, MIB(3), MIB(1), seen));
        check(seen[5] == i);
        volume_close(w);
        check_ok(pool_checkpoint(volumes_pool(s->vs)));
        sim_volumes_settle(s);
        check_ok(volume_delete(s->vs, "w", &err));
        sim_volumes_settle(s);
    }
    check_ok(sim_volumes_close(s));
    check_ok(sim_volumes_reopen(s));
    deletion_goes_on(s);
}

static void deleting_during_a_checkpoint_harms_nothing(void **state)
{
    (void)state;
    play(delete_during_checkpoint, 12);
}

/* ---- isolation ---------------------------------------------------------------------------- */

static CO void reuse(struct sim_volumes *s)
{
    struct vp_error err;
    for (unsigned i = 1; i < 8; i++) {
        struct volume *v = sim_volumes_volume(s, "v", MIB(16));
        if (!v)
            return;
        check_ok(volume_read(v, 0, MIB(1), seen));
        check(bytes_are_zero(seen, MIB(1)));
        /* One sector of every block: what it does not cover must still be zero. */
        memset(data, (int)i, 512);
        for (uint64_t at = 0; at < MIB(16); at += KIB(16))
            check_ok(volume_write(v, at, 512, data, 0));
        for (uint64_t at = 0; at < MIB(16); at += MIB(1)) {
            check_ok(volume_read(v, at, MIB(1), seen));
            for (uint64_t b = 0; b < MIB(1); b += KIB(16)) {
                check_equal(seen[b], i);
                check(bytes_are_zero(seen + b + 512, KIB(16) - 512));
            }
        }
        volume_close(v);
        check_ok(volume_delete(s->vs, "v", &err));
        sim_volumes_settle(s);
    }
}

static void a_new_volume_never_shows_an_old_ones_data(void **state)
{
    (void)state;
    play(reuse, 13);
}

/* ---- many --------------------------------------------------------------------------------- */

enum { MANY = 2000 };
static unsigned listed;
static char last_name[VOLUME_NAME_MAX + 1];

static int list_one(const struct volume_info *info, void *arg)
{
    (void)arg;
    check(strcmp(last_name, info->name) < 0);
    memcpy(last_name, info->name, sizeof(last_name));
    listed++;
    return 0;
}

static void many_name(char out[32], unsigned i)
{
    (void)snprintf(out, 32, "vol-%04u", i);
}

static CO void many_create(struct sim_volumes *s)
{
    char name[32];
    for (unsigned i = 0; i < MANY; i++) {
        many_name(name, (i * 7919) % MANY);
        check_ok(create(s, name, MIB(64)));
        if (i % 100)
            continue;
        struct volume *v = sim_volumes_open(s, name);
        if (!v)
            return;
        memset(data, (int)(i / 100), 4096);
        check_ok(volume_write(v, 0, 4096, data, VOLUME_FUA));
        volume_close(v);
    }
    check_ok(sim_volumes_close(s));
}

static CO void many_check(struct sim_volumes *s)
{
    char name[32];
    listed = 0;
    last_name[0] = '\0';
    check_ok(volume_each(s->vs, list_one, NULL));
    check_equal(listed, MANY);
    check_equal(volumes_count(s->vs), MANY);
    for (unsigned i = 0; i < MANY; i += 100) {
        many_name(name, (i * 7919) % MANY);
        struct volume *v = sim_volumes_open(s, name);
        if (!v)
            return;
        check_ok(volume_read(v, 0, 4096, seen));
        check_equal(seen[9], i / 100);
        volume_close(v);
    }
}

static void two_thousand_volumes_are_listed_in_order_and_survive(void **state)
{
    (void)state;
    struct sim_volumes *s = start(14);
    sim_volumes_run(s, many_create);
    sim_volumes_run(s, many_check);
    sim_volumes_run(s, many_check);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- idle volumes ------------------------------------------------------------------------- */

static CO void idle(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct volume_info info;
    if (!v)
        return;
    fill(v, 3);
    volume_close(v);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    sim_volumes_settle(s);
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(info.allocated_bytes, MIB(4));
    v = sim_volumes_open(s, "v");
    if (!v)
        return;
    check_ok(volume_read(v, MIB(3), MIB(1), seen));
    check(memcmp(seen, data, MIB(1)) == 0);
    volume_close(v);
}

static void an_idle_volume_is_put_away_and_comes_back(void **state)
{
    (void)state;
    play(idle, 15);
}

/* ---- the end while a checkpoint is being made ---------------------------------------------- */

static unsigned pauses;

static CO void destroy_during_checkpoint(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    if (!v)
        return;
    fill(v, 3);
    volume_close(v);
    pool_checkpoint_request(volumes_pool(s->vs));
    for (unsigned i = 0; i < pauses; i++)
        check_ok(co_sleep_ns(5000));
    struct volumes *vs = s->vs;
    s->vs = NULL;
    check_ok(volumes_destroy(vs, &err));
}

static void a_pool_is_destroyed_at_any_point_of_a_checkpoint(void **state)
{
    (void)state;
    /* From 1: a simulated world ends when only a posted task is left. */
    for (pauses = 1; pauses < 100; pauses++)
        play(destroy_during_checkpoint, 16);
}

/* ---- the commit timer ---------------------------------------------------------------------- */

static void write_in_background(void *arg)
{
    check_ok(volume_write(arg, 0, 4096, data, 0));
}

static CO void commit_during_write(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    if (!v)
        return;
    fill(v, 3);
    check_ok(volume_write(v, 0, 4096, data, VOLUME_FUA)); /* its intent is there */
    check_ok(co_spawn(write_in_background, v, "writer"));
    co_yield ();
    check(!front_is_idle(volume_front(v))); /* at the disk */
    check_ok(volume_flush(v));
    while (!front_is_idle(volume_front(v)))
        check_ok(co_sleep_ns(1000));
    check(v->io->uncommitted);
    volume_close(v);
}

static void a_write_that_ends_after_a_commit_is_left_for_the_next(void **state)
{
    (void)state;
    play(commit_during_write, 17);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_parsed_and_wrong_ones_refused_with_a_sentence),
        cmocka_unit_test(names_have_their_rules),
        cmocka_unit_test(wrong_sizes_names_and_keys_are_refused),
        cmocka_unit_test(a_renamed_open_volume_keeps_working_and_survives_a_crash),
        cmocka_unit_test(a_volumes_number_is_never_used_twice),
        cmocka_unit_test(deleting_gives_every_byte_back),
        cmocka_unit_test(a_deletion_goes_on_after_a_crash),
        cmocka_unit_test(deleting_during_a_checkpoint_harms_nothing),
        cmocka_unit_test(a_new_volume_never_shows_an_old_ones_data),
        cmocka_unit_test(two_thousand_volumes_are_listed_in_order_and_survive),
        cmocka_unit_test(an_idle_volume_is_put_away_and_comes_back),
        cmocka_unit_test(a_write_that_ends_after_a_commit_is_left_for_the_next),
        cmocka_unit_test(a_pool_is_destroyed_at_any_point_of_a_checkpoint),
    };
    return cmocka_run_group_tests_name("volumes/table", tests, NULL, NULL);
}
