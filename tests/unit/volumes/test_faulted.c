/* A damaged volume is faulted, with the reason, and stays so; the others go on. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "thin/thin_format.h"
#include "volumes/volume_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)

static uint8_t data[1 << 20] __attribute__((aligned(4096)));

/* Flips a bit in every copy of the pages of a volume's trees, as the magic and the id find them;
 * with leaf >= 0 only of that leaf of its map. */
static unsigned damage_pages_at(struct sim_volumes *s, uint32_t volume, int64_t leaf)
{
    unsigned hits = 0;
    for (unsigned d = 0; d < s->config.disks; d++) {
        struct sim_disk *disk = sim_disk_find(s->world, s->name[d]);
        for (uint64_t at = 0; at < s->config.disk_bytes; at += 4096) {
            struct thin_page_header h;
            sim_disk_peek(disk, at, &h, sizeof(h));
            if (le32_get(h.magic) != THIN_PAGE_MAGIC || le32_get(h.volume) != volume)
                continue;
            if (leaf >= 0 &&
                (h.tree != POOL_TREE_MAP || h.level || le64_get(h.index) != (uint64_t)leaf))
                continue;
            sim_disk_flip_bit(disk, at + 100, 3);
            hits++;
        }
    }
    return hits;
}

static unsigned damage_pages(struct sim_volumes *s, uint32_t volume)
{
    return damage_pages_at(s, volume, -1);
}

static CO void two_volumes(struct sim_volumes *s)
{
    static const char *const name[] = {"bad", "good"};
    for (unsigned i = 0; i < 2; i++) {
        struct volume *v = sim_volumes_volume(s, name[i], MIB(8));
        if (!v)
            return;
        memset(data, (int)i + 1, sizeof(data));
        for (uint64_t at = 0; at < MIB(8); at += MIB(1))
            check_ok(volume_write(v, at, MIB(1), data, 0));
        volume_close(v);
    }
    check_ok(sim_volumes_close(s));
}

static CO void write_to_both(struct sim_volumes *s)
{
    two_volumes(s);
    check_ok(sim_volumes_reopen(s));
    static const char *const name[] = {"bad", "good"};
    for (unsigned i = 0; i < 2; i++) {
        struct volume *v = sim_volumes_open(s, name[i]);
        check_ok(volume_write(v, 0, 4096, data, VOLUME_FUA));
    }
}

static unsigned listed_faulted;

static int list_one(const struct volume_info *info, void *arg)
{
    (void)arg;
    if (info->state == VOLUME_FAULTED) {
        listed_faulted++;
        check(strcmp(info->name, "bad") == 0);
        check(info->fault[0] != '\0');
    }
    return 0;
}

static CO void one_is_faulted(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = NULL;
    int rc = volume_open(s->vs, "bad", false, &v, &err);
    if (!rc) { /* the root alone was loaded; the damage shows when it is used */
        check_equal(volume_read(v, 0, 4096, data), VP_E_PAGE_DAMAGED);
        volume_close(v);
    } else {
        check_equal(rc, VP_E_VOLUME_FAULTED);
        check(strstr(err.text, "bad") != NULL);
        listed_faulted = 0;
        check_ok(volume_each(s->vs, list_one, NULL));
        check_equal(listed_faulted, 1);
        check_equal(volume_resize(s->vs, "bad", MIB(1), true, &err), VP_E_VOLUME_FAULTED);
    }
    v = sim_volumes_open(s, "good");
    if (!v)
        return;
    check_ok(volume_read(v, MIB(1), 4096, data));
    check_equal(data[7], 2);
    check_ok(volume_write(v, 0, 4096, data, VOLUME_FUA));
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
}

static void a_volume_with_damaged_pages_does_not_harm_the_others(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 1});
    sim_volumes_run(s, two_volumes);
    assert_checked();
    assert_true(damage_pages(s, 1) > 0);
    sim_volumes_run(s, one_is_faulted);
    assert_checked();
    sim_volumes_run(s, one_is_faulted);
    sim_volumes_free(s);
    assert_checked();
}

static CO void bad_is_whole(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "bad");
    if (!v)
        return;
    check_ok(volume_read(v, 0, 4096, data));
    check_equal(data[9], 2);
    check_ok(volume_read(v, 4096, 4096, data));
    check_equal(data[9], 1);
}

static void a_faulted_volumes_changes_stay_in_the_log_through_checkpoints(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 2});
    sim_volumes_run(s, write_to_both);
    assert_checked();
    assert_true(damage_pages(s, 1) > 0);
    for (unsigned i = 0; i < 3; i++) {
        sim_volumes_run(s, one_is_faulted);
        assert_checked();
    }
    /* Repaired (the same bits once more), the volume has all that was ever flushed. */
    assert_true(damage_pages(s, 1) > 0);
    sim_volumes_run(s, bad_is_whole);
    sim_volumes_free(s);
    assert_checked();
}

static CO void delete_bad(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume_info info;
    struct pool_space space;
    check_ok(volume_delete(s->vs, "bad", &err));
    check_ok(volume_delete(s->vs, "good", &err));
    for (unsigned i = 0; i < 2; i++) {
        sim_volumes_settle(s);
        check_ok(pool_checkpoint(volumes_pool(s->vs)));
    }
    check_equal(volume_info_get(s->vs, "bad", &info), VP_E_NOT_FOUND);
    pool_space_get(volumes_pool(s->vs), &space);
    check_equal(space.leased_bytes, 0);
}

static void a_damaged_volume_can_be_deleted(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 3});
    sim_volumes_run(s, write_to_both);
    assert_checked();
    assert_true(damage_pages(s, 1) > 0);
    sim_volumes_run(s, delete_bad);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- shrinking ---------------------------------------------------------------------------- */

static bool reads_as(struct volume *v, uint64_t offset, uint8_t value)
{
    return check_ok(volume_read(v, offset, 4096, data)) && data[0] == value && data[4095] == value;
}

/* The map's third leaf, from 6 MiB on, cannot be read. */
static CO void shrink_bad(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = sim_volumes_open(s, "bad");
    if (!v)
        return;
    check_equal(volume_resize(s->vs, "bad", MIB(1), true, &err), VP_E_PAGE_DAMAGED);
    check(strstr(err.text, "still has 8388608 bytes; behind the first 1048576 of them, 4194304 "
                           "are discarded and up to 3145728 more may be") != NULL);
    check_equal(volume_size(v), MIB(8));
    check(reads_as(v, MIB(1) - 4096, 1));
    check(reads_as(v, MIB(1), 0));
    check(reads_as(v, MIB(5) - 4096, 0));
    check_ok(volume_flush(v));
}

static CO void shrink_again(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = sim_volumes_open(s, "bad");
    if (!v)
        return;
    check(reads_as(v, MIB(1) - 4096, 1));
    check(reads_as(v, MIB(6), 1));
    check_ok(volume_resize(s->vs, "bad", MIB(1), true, &err));
    check_ok(volume_resize(s->vs, "bad", MIB(8), true, &err));
    check(reads_as(v, MIB(6), 0));
}

static void a_shrink_that_fails_says_how_far_it_came_and_leaves_the_size(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 5});
    sim_volumes_run(s, two_volumes);
    assert_true(damage_pages_at(s, 1, 2) > 0);
    sim_volumes_run(s, shrink_bad);
    assert_checked();
    assert_true(damage_pages_at(s, 1, 2) > 0); /* repaired */
    sim_volumes_run(s, shrink_again);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- records ------------------------------------------------------------------------------ */

static CO void bad_record(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "good", MIB(1));
    struct pool_batch b;
    struct volume_record_disk d = {.version = le16_make(99)};
    check(v != NULL);
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_VOLUME, 77, 0, &d, sizeof(d));
    check_ok(pool_commit(volumes_pool(s->vs), &b));
    pool_batch_fini(&b);
}

static CO void bad_record_is_shown(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume_info info;
    struct volume *v;
    check_ok(volume_info_get(s->vs, "damaged-record-77", &info));
    check_equal(info.state, VOLUME_FAULTED);
    check_equal(volume_open(s->vs, info.name, false, &v, &err), VP_E_VOLUME_FAULTED);
    check(sim_volumes_open(s, "good") != NULL);
    struct volume_options o = {.size_bytes = MIB(1)};
    check_ok(volume_create(s->vs, "next", &o, &err));
    check_ok(volume_info_get(s->vs, "next", &info));
    check(info.id > 77);
}

static void a_record_that_does_not_decode_is_shown_as_a_faulted_volume(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 4});
    sim_volumes_run(s, bad_record);
    sim_volumes_run(s, bad_record_is_shown);
    sim_volumes_free(s);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_with_damaged_pages_does_not_harm_the_others),
        cmocka_unit_test(a_faulted_volumes_changes_stay_in_the_log_through_checkpoints),
        cmocka_unit_test(a_damaged_volume_can_be_deleted),
        cmocka_unit_test(a_shrink_that_fails_says_how_far_it_came_and_leaves_the_size),
        cmocka_unit_test(a_record_that_does_not_decode_is_shown_as_a_faulted_volume),
    };
    return cmocka_run_group_tests_name("volumes/faulted", tests, NULL, NULL);
}
