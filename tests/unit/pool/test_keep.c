/* Kept memory: what an import takes of a killed daemon, and what it must not take (keep.h, K1 …
 * K4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/device.h"
#include "io/keep.h"
#include "pool/keep.h"
#include "pool/keep_format.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

enum { VOLUME = 7, RECORD_BYTES = 84 };

static struct sim_world *world;
static struct pool *pool;
static struct pool_keep *keep;
static char name[IO_KEEP_NAME_MAX + 1];

/* What the client was given of volume 7's map: value of each key; 0: none, or deleted. */
static struct {
    uint64_t value[16];
    unsigned records;
} map;

static int on_replay(void *arg, enum pool_record_kind kind, bool is_delete, uint32_t scope,
                     uint64_t key, const void *value, uint32_t len)
{
    (void)arg;
    check(kind == POOL_RECORD_MAP && scope == VOLUME && key < 16);
    map.records++;
    map.value[key] = 0;
    if (!is_delete)
        memcpy(&map.value[key], value, len < 8 ? len : 8);
    return 0;
}

static int no_checkpoint(void *arg)
{
    (void)arg;
    return 0;
}

static const struct pool_client client = {.replay = on_replay, .checkpoint = no_checkpoint};

static void append(uint64_t key, uint64_t value)
{
    struct pool_batch b;
    if (!check_equal(pool_keep_append_begin(keep, pool_record_bytes(sizeof(value)), &b), POOL_KEPT))
        return;
    if (value)
        pool_batch_set(&b, POOL_RECORD_MAP, VOLUME, key, &value, sizeof(value));
    else
        pool_batch_delete(&b, POOL_RECORD_MAP, VOLUME, key);
    pool_keep_append_end(keep, &b);
}

static CO void commit_map(uint64_t number, uint64_t key, uint64_t value)
{
    struct pool_batch b;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_MAP, VOLUME, key, &value, sizeof(value));
    pool_batch_set(&b, POOL_RECORD_COUNTER, VOLUME, POOL_COUNTER_COMMITS, &number, sizeof(number));
    check_ok(pool_commit(pool, &b));
    pool_batch_fini(&b);
}

static int remember_name(const char *found, void *arg)
{
    (void)arg;
    (void)snprintf(name, sizeof(name), "%s", found);
    return 0;
}

/* A pool with a VOLUME record, and an open keep. */
static CO void begin(void)
{
    struct pool_batch b;
    memset(&map, 0, sizeof(map));
    check_ok(sim_pool_create(1, &pool, NULL));
    pool_set_client(pool, &client);
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_VOLUME, VOLUME, 0, "v", 1);
    check_ok(pool_commit(pool, &b));
    pool_batch_fini(&b);
    check_ok(pool_keep_open(pool, VOLUME, RECORD_BYTES, 0, &keep));
    check(pool_keep_take_memory(keep));
    check_ok(io_keep_each("vpool-", remember_name, NULL));
}

static CO void die(void)
{
    pool_keep_close(keep);
    pool_abandon(pool);
}

static CO void die_with_an_append(void)
{
    begin();
    append(1, 11);
    die();
}

static CO void kill_and_import(void)
{
    die();
    check_ok(sim_pool_import(1, &client, &pool, NULL));
}

static bool something_is_kept(void)
{
    name[0] = '\0';
    check_ok(io_keep_each("vpool-", remember_name, NULL));
    return name[0] != '\0';
}

static void in_world_of(unsigned disks, void (*body)(void *arg))
{
    world = sim_pool_world(3, disks);
    sim_pool_run(world, body, NULL);
    sim_world_free(world);
    assert_checked();
}

static void in_world(void (*body)(void *arg))
{
    in_world_of(1, body);
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void body_taken(void *arg)
{
    (void)arg;
    begin();
    append(1, 11);
    append(2, 22);
    append(1, 111);
    append(2, 0);
    append(3, 33);
    kill_and_import();
    check_equal(map.value[1], 111);
    check_equal(map.value[2], 0);
    check_equal(map.value[3], 33);
    check(!something_is_kept());
    /* It is in the log: the next import needs nothing else. */
    memset(&map, 0, sizeof(map));
    pool_abandon(pool);
    check_ok(sim_pool_import(1, &client, &pool, NULL));
    check_equal(map.value[1], 111);
    check_ok(pool_close(pool, false));
}
static void what_was_kept_is_in_the_log_after_an_import(void **state)
{
    (void)state;
    in_world(body_taken);
}

static void body_committed(void *arg)
{
    (void)arg;
    begin();
    append(1, 11);
    pool_keep_commit_begin(keep, 1);
    append(2, 22);
    commit_map(1, 1, 99); /* newer than what was appended before it began */
    kill_and_import();
    check_equal(map.value[1], 99);
    check_equal(map.value[2], 22);
    check_ok(pool_close(pool, false));
}
static void a_commit_is_not_undone_by_what_was_kept_before_it(void **state)
{
    (void)state;
    in_world(body_committed);
}

static void body_lost_commit(void *arg)
{
    (void)arg;
    begin();
    append(1, 11);
    pool_keep_commit_begin(keep, 1);
    append(2, 22);
    kill_and_import(); /* the commit was never written */
    check_equal(map.value[1], 11);
    check_equal(map.value[2], 22);
    check_ok(pool_close(pool, false));
}
static void what_a_commit_would_have_covered_is_taken_when_it_is_not_in_the_log(void **state)
{
    (void)state;
    in_world(body_lost_commit);
}

static void body_dropped(void *arg)
{
    (void)arg;
    begin();
    append(1, 11);
    pool_keep_commit_begin(keep, 1);
    append(2, 22);
    commit_map(1, 9, 99);
    pool_keep_commit_end(keep, true);
    kill_and_import();
    check_equal(map.value[1], 0); /* it would be in the log */
    check_equal(map.value[2], 22);
    check_ok(pool_close(pool, false));
}
static void a_durable_commit_empties_what_it_covers(void **state)
{
    (void)state;
    in_world(body_dropped);
}

static void body_failed_commit(void *arg)
{
    (void)arg;
    begin();
    append(1, 11);
    pool_keep_commit_begin(keep, 1);
    append(2, 22);
    pool_keep_commit_end(keep, false);
    append(3, 33);
    pool_keep_commit_begin(keep, 2);
    append(4, 44);
    commit_map(2, 9, 99);
    pool_keep_commit_end(keep, true); /* has 1 … 3 */
    append(5, 55);
    kill_and_import();
    check_equal(map.value[1], 0);
    check_equal(map.value[4], 44);
    check_equal(map.value[5], 55);
    check_ok(pool_close(pool, false));
}
static void after_a_failed_commit_nothing_is_dropped_too_early(void **state)
{
    (void)state;
    in_world(body_failed_commit);
}

static enum pool_keep_result append_large(size_t bytes)
{
    struct pool_batch b;
    uint8_t value[RECORD_BYTES] = {1};
    enum pool_keep_result result = pool_keep_append_begin(keep, bytes, &b);
    if (result != POOL_KEPT)
        return result;
    pool_batch_set(&b, POOL_RECORD_MAP, VOLUME, 5, value, sizeof(value));
    pool_keep_append_end(keep, &b);
    return POOL_KEPT;
}

static void body_full(void *arg)
{
    (void)arg;
    enum pool_keep_result result = POOL_KEPT;
    size_t bytes = pool_record_bytes(RECORD_BYTES);
    unsigned fitted = 0;
    begin();
    while ((result = append_large(bytes)) == POOL_KEPT)
        fitted++;
    check_equal(result, POOL_KEEP_FULL);
    check(fitted >= 8000);
    pool_keep_commit_begin(keep, 1); /* the other area */
    check_equal(append_large(bytes), POOL_KEPT);
    pool_keep_commit_end(keep, true);
    check_equal(append_large(2 << 20), POOL_KEEP_TOO_BIG);
    pool_keep_close(keep);
    check_ok(pool_close(pool, false));
}
static void a_full_area_asks_for_a_commit_which_makes_room(void **state)
{
    (void)state;
    in_world(body_full);
}

static void body_elsewhere(void *arg)
{
    (void)arg;
    die_with_an_append();
    /* Another host, which does not see this memory, has the pool for a while. */
    unsigned char copy[16384];
    char kept[sizeof(name)];
    memcpy(kept, name, sizeof(kept));
    check_ok(io_keep_read(kept, 0, copy, sizeof(copy)));
    io_keep_remove(kept);
    check_ok(sim_pool_import(1, &client, &pool, NULL));
    check_ok(pool_close(pool, false));
    struct io_keep back;
    check_ok(io_keep_new(kept, KEEP_HEADER_PAGE + 2 * (1U << 20), &back));
    check_ok(io_keep_reserve(&back, 0, sizeof(copy)));
    memcpy(back.base, copy, sizeof(copy));
    io_keep_close(&back);
    check_ok(sim_pool_import(1, &client, &pool, NULL));
    check_equal(map.records, 0);
    check(something_is_kept()); /* for the disks that it belongs to */
    ;
    check_ok(pool_close(pool, false));
}
static void a_pool_that_was_imported_elsewhere_since_does_not_take_it(void **state)
{
    (void)state;
    in_world(body_elsewhere);
}

/* Set back to before a commit that was durable: a copy of the disks takes the place of a snapshot.
 * The copy is used, and what is kept stays, for the disks that it belongs to. */
static void body_set_back(void *arg)
{
    (void)arg;
    const struct le64 later = le64_make(5);
    struct keep_header before, after;
    char kept[sizeof(name)];
    begin();
    append(1, 11);
    memcpy(kept, name, sizeof(kept));
    check_ok(io_keep_poke(kept, offsetof(struct keep_header, durable), &later, sizeof(later)));
    check_ok(io_keep_read(kept, 0, &before, sizeof(before)));
    kill_and_import();
    check_equal(map.records, 0);
    check_ok(pool_keep_open(pool, VOLUME, RECORD_BYTES, 0, &keep));
    append(2, 22);
    kill_and_import();
    check_equal(map.value[1], 0);
    check_equal(map.value[2], 22);
    pool_keep_forget_all(pool);
    check_ok(io_keep_read(kept, 0, &after, sizeof(after)));
    check(memcmp(&before, &after, sizeof(before)) == 0);
    check_ok(pool_close(pool, false));
}
static void disks_that_were_set_back_do_not_take_it(void **state)
{
    (void)state;
    in_world(body_set_back);
}

/* Set back to before something that the log said of no commit, as of a lease. */
static void body_lease_set_back(void *arg)
{
    (void)arg;
    uint8_t *image = malloc(SIM_POOL_DISK_BYTES);
    struct sim_disk *d = sim_disk_find(world, "d0");
    check(image != NULL);
    begin();
    append(1, 11);
    sim_disk_peek(d, 0, image, SIM_POOL_DISK_BYTES);
    check_ok(sim_pool_commit_counter(pool, 3, 33));
    append(2, 22);
    die();
    sim_disk_poke(d, 0, image, SIM_POOL_DISK_BYTES);
    free(image);
    check_ok(sim_pool_import(1, &client, &pool, NULL));
    check_equal(map.records, 0);
    check(something_is_kept());
    check_ok(pool_close(pool, false));
}
static void disks_without_a_lease_on_which_it_relies_do_not_take_it(void **state)
{
    (void)state;
    in_world(body_lease_set_back);
}

/* The same disks do, also after a checkpoint, which names the log from its cut on. */
static void body_log_goes_on(void *arg)
{
    (void)arg;
    begin();
    check_ok(sim_pool_commit_counter(pool, 3, 33));
    append(1, 11);
    check_ok(pool_checkpoint(pool));
    append(2, 22);
    check_ok(pool_checkpoint(pool));
    kill_and_import();
    check_equal(map.value[1], 11);
    check_equal(map.value[2], 22);
    check_ok(pool_close(pool, false));
}
static void a_log_that_went_on_takes_it(void **state)
{
    (void)state;
    in_world(body_log_goes_on);
}

static void body_older_release(void *arg)
{
    (void)arg;
    const struct le64 none[2] = {0};
    begin();
    append(1, 11);
    check_ok(io_keep_poke(name, offsetof(struct keep_header, log_stream), none, sizeof(none)));
    kill_and_import();
    check_equal(map.value[1], 11);
    check_ok(pool_close(pool, false));
}
static void what_an_older_release_kept_is_taken(void **state)
{
    (void)state;
    in_world(body_older_release);
}

static void body_owner_lives(void *arg)
{
    (void)arg;
    begin();
    append(1, 11);
    pool_abandon(pool); /* as if these disks were a copy: the keep stays open */
    check_ok(sim_pool_import(1, &client, &pool, NULL));
    check_equal(map.records, 0);
    check(something_is_kept());
    pool_keep_close(keep);
    check(something_is_kept());
    check_ok(pool_close(pool, false));
}
static void what_has_a_living_owner_is_left_alone(void **state)
{
    (void)state;
    in_world(body_owner_lives);
}

/* Writes fail after the import has flushed the only disk; the next import has a good day. */
static void body_failed_import(void *arg)
{
    (void)arg;
    die_with_an_append();
    for (unsigned i = 0; i < RAID_METADATA_TRIES; i++)
        sim_disk_inject(sim_disk_find(world, "d0"), SIM_FAULT_ERROR, 1U << IO_WRITE, 1 + i, 0);
    check(sim_pool_import(1, &client, &pool, NULL) != 0);
    check(something_is_kept());
    check_ok(sim_pool_import(1, &client, &pool, NULL));
    check_equal(map.value[1], 11);
    check_ok(pool_close(pool, false));
}
static void an_import_that_fails_leaves_it_for_the_next_one(void **state)
{
    (void)state;
    in_world(body_failed_import);
}

/* Killed in a commit: either area holds a value of key 1, and the newer value counts. */
static CO void die_with_two_appends(bool swapped)
{
    begin();
    if (swapped) {
        append(1, 8);
        pool_keep_commit_begin(keep, 1);
        commit_map(1, 1, 9);
        pool_keep_commit_end(keep, true);
    }
    append(1, 10);
    pool_keep_commit_begin(keep, 2);
    append(1, 11);
    die();
}

/* Each operation on kept memory fails once: it is not taken for memory that is not there, and what
 * was taken before is not undone. */
static bool areas_swapped;
static void body_unreadable(void *arg)
{
    uint64_t *n = arg;
    struct vp_error err = {0};
    die_with_two_appends(areas_swapped);
    uint64_t before = sim_world_keep_ops(world);
    sim_world_fail_keep_op(world, *n);
    int rc = sim_pool_import(1, &client, &pool, &err);
    bool failed = sim_world_keep_ops(world) - before > *n;
    sim_world_fail_keep_op(world, UINT64_MAX);
    check_equal(rc, failed ? VP_E_IO : 0);
    if (rc) {
        check(strstr(err.text, "kept in memory") != NULL);
        check(something_is_kept());
        check_ok(sim_pool_import(1, &client, &pool, NULL));
    }
    check_equal(map.value[1], 11);
    check(!something_is_kept());
    check_ok(pool_close(pool, false));
    *n = failed ? *n + 1 : 0;
}
static void an_import_that_cannot_read_it_is_refused_and_leaves_it(void **state)
{
    (void)state;
    for (unsigned swapped = 0; swapped < 2; swapped++) {
        uint64_t n = 0;
        areas_swapped = swapped;
        do {
            world = sim_pool_world(3, 1);
            sim_pool_run(world, body_unreadable, &n);
            sim_world_free(world);
            assert_checked();
        } while (n);
    }
}

/* A flush fails, or the durable write that comes before it. It may have lost what the next flush
 * would seem to make durable. */
static enum io_kind failing_kind;
static void body_failed_flush(void *arg)
{
    (void)arg;
    die_with_an_append();
    sim_disk_inject(sim_disk_find(world, "d0"), SIM_FAULT_ERROR, 1U << failing_kind, 0, 0);
    check(sim_pool_import(1, &client, &pool, NULL) != 0);
    check(!something_is_kept());
    check_ok(sim_pool_import(1, &client, &pool, NULL));
    check_equal(map.records, 0);
    check_ok(pool_close(pool, false));
}
static void an_import_whose_flush_fails_forgets_it(void **state)
{
    (void)state;
    for (failing_kind = IO_WRITE; failing_kind <= IO_FLUSH; failing_kind++)
        in_world(body_failed_flush);
}

static void body_checkpoint_flush(void *arg)
{
    (void)arg;
    begin();
    append(1, 11);
    sim_disk_inject(sim_disk_find(world, "d0"), SIM_FAULT_ERROR, 1U << IO_FLUSH, 0, 0);
    check(pool_checkpoint(pool) != 0);
    kill_and_import();
    check_equal(map.records, 0);
    check_ok(pool_close(pool, false));
}
static void a_checkpoint_whose_flush_fails_forgets_it(void **state)
{
    (void)state;
    in_world(body_checkpoint_flush);
}

/* The flush that an import begins with fails on one of two disks; then the import itself fails. */
static void body_ejection(void *arg)
{
    (void)arg;
    check_ok(sim_pool_create(2, &pool, NULL));
    check_ok(sim_pool_commit_counter(pool, 3, 33));
    pool_abandon(pool);
    sim_disk_inject(sim_disk_find(world, "d1"), SIM_FAULT_ERROR, 1U << IO_FLUSH, 0, 0);
    for (unsigned i = 0; i < RAID_METADATA_TRIES; i++)
        sim_disk_inject(sim_disk_find(world, "d0"), SIM_FAULT_ERROR, 1U << IO_WRITE, 2 + i, 0);
    check(sim_pool_import(2, &client, &pool, NULL) != 0);
    check_ok(sim_pool_import(2, &client, &pool, NULL));
    check_equal(sim_pool_counter(pool, 3), 33);
    check_ok(pool_close(pool, false));
}
static void an_ejection_in_an_import_leaves_a_pool_that_can_be_imported(void **state)
{
    (void)state;
    in_world_of(2, body_ejection);
}

static void body_small_pool(void *arg)
{
    (void)arg;
    size_t bytes = pool_record_bytes(RECORD_BYTES);
    begin();
    while (append_large(bytes) == POOL_KEPT)
        ;
    pool_keep_commit_begin(keep, 1);
    while (append_large(bytes) == POOL_KEPT)
        ;
    kill_and_import();
    check(map.value[5] != 0);
    check_ok(pool_close(pool, false));
}
static void two_full_areas_fit_into_the_log_of_a_small_pool(void **state)
{
    (void)state;
    in_world(body_small_pool);
}

static void body_collapsed(void *arg)
{
    (void)arg;
    begin();
    for (uint64_t i = 1; i <= 100; i++)
        append(i % 3, i);
    kill_and_import();
    check_equal(map.records, 3);
    check_equal(map.value[1], 100);
    check_equal(map.value[0], 99);
    check_equal(map.value[2], 98);
    check_ok(pool_close(pool, false));
}
static void of_each_key_only_the_last_record_goes_into_the_log(void **state)
{
    (void)state;
    in_world(body_collapsed);
}

static void body_no_volume(void *arg)
{
    (void)arg;
    struct pool_batch b;
    begin();
    append(1, 11);
    pool_batch_init(&b);
    pool_batch_delete(&b, POOL_RECORD_VOLUME, VOLUME, 0);
    check_ok(pool_commit(pool, &b));
    pool_batch_fini(&b);
    kill_and_import();
    check_equal(map.records, 0);
    check(something_is_kept()); /* K5: these disks may be an older copy */
    check_ok(pool_close(pool, false));
}
static void of_a_volume_that_is_gone_nothing_is_taken(void **state)
{
    (void)state;
    in_world(body_no_volume);
}

static void poke_byte(size_t offset)
{
    unsigned char byte;
    check_ok(io_keep_read(name, offset, &byte, 1));
    byte ^= 0x40;
    check_ok(io_keep_poke(name, offset, &byte, 1));
}

static void body_damaged_group(void *arg)
{
    (void)arg;
    size_t second = KEEP_HEADER_PAGE + sizeof(struct keep_group_header) + 24;
    begin();
    append(1, 11);
    append(2, 22);
    append(3, 33);
    poke_byte(second + sizeof(struct keep_group_header) + 20); /* in the second one's value */
    kill_and_import();
    check_equal(map.value[1], 11);
    check_equal(map.value[2], 0);
    check_equal(map.value[3], 0);
    check_ok(pool_close(pool, false));
}
static void a_damaged_group_ends_what_counts(void **state)
{
    (void)state;
    in_world(body_damaged_group);
}

static void body_damaged_header(void *arg)
{
    (void)arg;
    begin();
    append(1, 11);
    poke_byte(offsetof(struct keep_header, area_bytes));
    kill_and_import();
    check_equal(map.records, 0);
    check_ok(pool_close(pool, false));
}
static void a_damaged_header_is_not_believed(void **state)
{
    (void)state;
    in_world(body_damaged_header);
}

static void body_hostile_used(void *arg)
{
    (void)arg;
    struct le64 huge = le64_make(UINT64_MAX);
    begin();
    append(1, 11);
    check_ok(io_keep_poke(
        name, offsetof(struct keep_header, area) + offsetof(struct keep_area_header, used), &huge,
        sizeof(huge)));
    kill_and_import();
    check_equal(map.records, 0);
    check_ok(pool_close(pool, false));
}
static void a_length_beyond_the_area_is_refused(void **state)
{
    (void)state;
    in_world(body_hostile_used);
}

static void body_forgotten(void *arg)
{
    (void)arg;
    begin();
    append(1, 11);
    pool_keep_close(keep);
    check(something_is_kept());
    pool_keep_forget(pool, VOLUME);
    check(!something_is_kept());
    check_ok(pool_keep_open(pool, VOLUME, RECORD_BYTES, 0, &keep));
    check(pool_keep_take_memory(keep));
    pool_keep_close(keep); /* empty */
    check(!something_is_kept());
    check_ok(pool_close(pool, false));
}
static void nothing_stays_of_a_deleted_volume_or_an_empty_one(void **state)
{
    (void)state;
    in_world(body_forgotten);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_kept_is_in_the_log_after_an_import),
        cmocka_unit_test(a_commit_is_not_undone_by_what_was_kept_before_it),
        cmocka_unit_test(what_a_commit_would_have_covered_is_taken_when_it_is_not_in_the_log),
        cmocka_unit_test(a_durable_commit_empties_what_it_covers),
        cmocka_unit_test(after_a_failed_commit_nothing_is_dropped_too_early),
        cmocka_unit_test(a_full_area_asks_for_a_commit_which_makes_room),
        cmocka_unit_test(a_pool_that_was_imported_elsewhere_since_does_not_take_it),
        cmocka_unit_test(disks_that_were_set_back_do_not_take_it),
        cmocka_unit_test(disks_without_a_lease_on_which_it_relies_do_not_take_it),
        cmocka_unit_test(a_log_that_went_on_takes_it),
        cmocka_unit_test(what_an_older_release_kept_is_taken),
        cmocka_unit_test(what_has_a_living_owner_is_left_alone),
        cmocka_unit_test(an_import_that_fails_leaves_it_for_the_next_one),
        cmocka_unit_test(an_import_that_cannot_read_it_is_refused_and_leaves_it),
        cmocka_unit_test(an_import_whose_flush_fails_forgets_it),
        cmocka_unit_test(a_checkpoint_whose_flush_fails_forgets_it),
        cmocka_unit_test(an_ejection_in_an_import_leaves_a_pool_that_can_be_imported),
        cmocka_unit_test(two_full_areas_fit_into_the_log_of_a_small_pool),
        cmocka_unit_test(of_each_key_only_the_last_record_goes_into_the_log),
        cmocka_unit_test(of_a_volume_that_is_gone_nothing_is_taken),
        cmocka_unit_test(a_damaged_group_ends_what_counts),
        cmocka_unit_test(a_damaged_header_is_not_believed),
        cmocka_unit_test(a_length_beyond_the_area_is_refused),
        cmocka_unit_test(nothing_stays_of_a_deleted_volume_or_an_empty_one),
    };
    vp_log_set_level(VP_LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
