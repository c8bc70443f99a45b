/* Disks of a pool: creation, scanning, who may take them, ejection. threads: yes */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "pool/disk_impl.h"
#include "pool/label_format.h"
#include "pool/meta_impl.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

enum { DISK = SIM_POOL_DISK_BYTES };

static const char *const paths_of[] = {"d0", "d1", "d2", "d3"};
static const struct raid_profile single = {RAID_SINGLE, 1, 0};
static const struct raid_profile mirror = {RAID_MIRROR, 1, 1};

static struct sim_world *world;

static void in_world(unsigned disks, void (*body)(void *arg))
{
    world = sim_pool_world(11, disks);
    sim_pool_run(world, body, NULL);
    sim_world_free(world);
    assert_checked();
}

static int create(const char *name, const char *const *paths, unsigned count, bool force)
{
    struct pool_create_options o = {.name = name, .profile = single, .force = force};
    struct vp_error err = {0};
    struct pool *p;
    int rc = pool_create(&o, paths, count, &p, &err);
    check(!rc == !err.text[0]);
    return rc ? rc : pool_close(p, true);
}

static int import_rc(const char *const *paths, unsigned count, struct pool **out)
{
    struct vp_error err = {0};
    int rc = pool_import(paths, count, 0, NULL, out, &err);
    check(!rc == !err.text[0]);
    return rc;
}

/* A mirrored pool on the first disks; NULL noted as a failure. */
static struct pool *open_new(unsigned disks)
{
    struct pool *p = NULL;
    check_ok(sim_pool_create(disks, &p, NULL));
    return p;
}

static struct pool *open_again(unsigned disks)
{
    struct pool *p = NULL;
    check_ok(sim_pool_import(disks, NULL, &p, NULL));
    return p;
}

/* ---- finding ------------------------------------------------------------------------------- */

static void body_scan(void *arg)
{
    (void)arg;
    struct pool_found *found;
    unsigned count;
    check_ok(create("one", paths_of, 2, false));
    check_ok(create("two", paths_of + 2, 1, false));
    check_ok(pool_scan(paths_of, 4, NULL, &found, &count, NULL));
    check_equal(count, 2);
    check(strcmp(found[0].name, "one") == 0 && strcmp(found[1].name, "two") == 0);
    check_equal(found[0].disks_total, 2);
    check_equal(found[0].disks_found, 2);
    check(strcmp(found[1].paths[0], "d2") == 0);
    free(found);
}
static void pools_are_found_by_their_labels(void **state)
{
    (void)state;
    in_world(4, body_scan);
}

static void scan_and_count(unsigned pools, unsigned disks_of_first, uint64_t most_ns)
{
    struct pool_found *found = NULL;
    unsigned count = 0;
    uint64_t began_ns = reactor_now_ns();
    check_ok(pool_scan(paths_of, 3, NULL, &found, &count, NULL));
    check(reactor_now_ns() - began_ns <= most_ns);
    check_equal(count, pools);
    check_equal(found[0].disks_found, disks_of_first);
    free(found);
}

static void body_silent(void *arg)
{
    (void)arg;
    const uint64_t second = 1000000000;
    check_ok(create("one", paths_of, 2, false));
    check_ok(create("two", paths_of + 2, 1, false));
    sim_disk_inject(sim_disk_find(world, "d1"), SIM_FAULT_STALL, 1U << IO_READ, 0, 120 * second);
    scan_and_count(2, 1, 30 * second);
    scan_and_count(2, 1, second);
    check_ok(co_sleep_ns(120 * second));
    scan_and_count(2, 2, second);
}
static void a_disk_that_does_not_answer_holds_up_no_scan_for_long(void **state)
{
    (void)state;
    in_world(3, body_silent);
}

static void body_swapped(void *arg)
{
    (void)arg;
    check_ok(create("one", paths_of, 3, false));
    const char *const other_order[] = {"d2", "d0", "d1", "d0"};
    struct pool *p;
    check_ok(import_rc(other_order, 4, &p));
    struct pool_disk_info info;
    pool_disk_info_get(p, 0, &info);
    check(strcmp(info.path, "d0") == 0);
    pool_disk_info_get(p, 2, &info);
    check(strcmp(info.path, "d2") == 0 && strcmp(info.state, "online") == 0);
    check(strcmp(pool_state(p), "online") == 0);
    check_ok(pool_close(p, false));
}
static void disks_are_told_by_label_not_by_path(void **state)
{
    (void)state;
    in_world(3, body_swapped);
}

static void body_other_pool(void *arg)
{
    (void)arg;
    struct pool *p;
    check_ok(create("one", paths_of, 1, false));
    check_ok(create("two", paths_of + 1, 1, false));
    check_equal(import_rc(paths_of, 2, &p), VP_E_INVALID);
    check_equal(import_rc(paths_of, 3, &p), VP_E_INVALID);
    check_equal(import_rc(paths_of + 2, 1, &p), VP_E_LABEL_NONE);
    check_equal(import_rc(paths_of, 0, &p), VP_E_INVALID);
}
static void a_disk_of_another_pool_or_of_none_is_refused(void **state)
{
    (void)state;
    in_world(3, body_other_pool);
}

static void body_clone(void *arg)
{
    (void)arg;
    struct pool *p;
    check_ok(create("one", paths_of, 1, false));
    uint8_t *bytes = malloc(DISK);
    sim_disk_peek(sim_disk_find(world, "d0"), 0, bytes, DISK);
    sim_disk_poke(sim_disk_find(world, "d1"), 0, bytes, DISK);
    free(bytes);
    struct pool_found *found;
    unsigned count;
    check_ok(pool_scan(paths_of, 2, NULL, &found, &count, NULL));
    check_equal(count, 1);
    check_equal(found[0].disks_found, 1);
    check_equal(found[0].path_count, 2);
    const char *const both[] = {found[0].paths[0], found[0].paths[1]};
    check_equal(import_rc(both, found[0].path_count, &p), VP_E_POOL_SPLIT);
    free(found);
    check_equal(import_rc(paths_of, 2, &p), VP_E_POOL_SPLIT);
    check_ok(import_rc(paths_of + 1, 1, &p));
    check_ok(pool_close(p, false));
}
static void copies_of_one_disk_are_refused_together(void **state)
{
    (void)state;
    in_world(2, body_clone);
}

/* A disk that was copied to a larger one, where its labels at the start were overwritten then. */
static void body_grown(void *arg)
{
    static const uint8_t nothing[2 * 4096];
    static const char *const path[] = {"large"};
    struct sim_disk_config config = {
        .name = "large", .size_bytes = 3 * DISK / 2, .sector_bytes = 512, .atomic_bytes = 4096};
    (void)arg;
    struct sim_disk *large = sim_disk_add(world, &config);
    struct pool *p;
    check_ok(create("one", paths_of, 1, false));
    uint8_t *bytes = malloc(DISK);
    sim_disk_peek(sim_disk_find(world, "d0"), 0, bytes, DISK);
    sim_disk_poke(large, 0, bytes, DISK);
    free(bytes);
    sim_disk_poke(large, 0, nothing, sizeof(nothing));
    check_ok(import_rc(path, 1, &p));
    check_ok(pool_close(p, false));
}
static void a_disk_that_has_grown_is_found_without_its_first_labels(void **state)
{
    (void)state;
    in_world(1, body_grown);
}

/* ---- taking -------------------------------------------------------------------------------- */

static void body_active(void *arg)
{
    (void)arg;
    struct pool *p = open_new(2), *second;
    check_equal(import_rc(paths_of, 2, &second), VP_E_POOL_ACTIVE);
    check_equal(import_rc(paths_of + 1, 1, &second), VP_E_POOL_ACTIVE);
    check_equal(create("mine", paths_of, 1, true), VP_E_IO_BUSY_DEVICE);
    check_ok(pool_close(p, false));
}
static void a_pool_in_use_is_refused_to_a_second_daemon(void **state)
{
    (void)state;
    in_world(2, body_active);
}

/* The labels of the second disk. */
static bool second_label_fails(const void *buf, uint64_t len, void *arg)
{
    (void)arg;
    struct pool_label l;
    return len == POOL_BLOCK && pool_label_decode(buf, &l) == 0 && l.disk_index == 1;
}

static void body_half_labelled(void *arg)
{
    (void)arg;
    struct pool_found *found = NULL;
    unsigned count = 0;
    sim_world_on_write(world, second_label_fails, NULL);
    check(create("one", paths_of, 2, false) != 0);
    sim_world_on_write(world, NULL, NULL);
    check_ok(pool_scan(paths_of, 2, NULL, &found, &count, NULL));
    check_equal(count, 0);
    free(found);
    check_ok(create("one", paths_of, 2, false));
}
static void a_creation_that_fails_midway_leaves_no_label(void **state)
{
    (void)state;
    in_world(2, body_half_labelled);
}

static void body_holds(void *arg)
{
    (void)arg;
    struct pool *p;
    check_ok(create("one", paths_of, 1, false));
    check_equal(create("two", paths_of, 2, false), VP_E_DISK_HOLDS_DATA);
    for (unsigned copy = 0; copy < 4; copy++) /* even a damaged label is respected */
        sim_disk_flip_bit(sim_disk_find(world, "d0"),
                          pool_label_at(pool_tail_bytes(DISK), copy) + 99, 0);
    check_equal(create("two", paths_of, 2, false), VP_E_DISK_HOLDS_DATA);
    check_ok(create("two", paths_of, 2, true));
    check_ok(import_rc(paths_of, 2, &p));
    check_ok(pool_destroy(p, NULL));
    check_equal(import_rc(paths_of, 1, &p), VP_E_LABEL_NONE);
    check_ok(create("three", paths_of, 2, false));
}
static void a_disk_of_a_pool_is_taken_only_by_force_or_after_destroying(void **state)
{
    (void)state;
    in_world(2, body_holds);
}

static void body_refusals(void *arg)
{
    (void)arg;
    struct pool_create_options o = {.name = "tank", .profile = mirror};
    struct vp_error err = {0};
    struct pool *p;
    check_equal(pool_create(&o, paths_of, 1, &p, &err), VP_E_DISK_TOO_FEW);
    o.profile = (struct raid_profile){RAID_PARITY, 2, 1};
    check_equal(pool_create(&o, paths_of, 3, &p, &err), VP_E_NOT_SUPPORTED);
    o.profile = single;
    o.geometry.extent_bytes = 16 << 20;
    check_equal(pool_create(&o, paths_of, 1, &p, &err), VP_E_DISK_TOO_SMALL);
    o.geometry = (struct pool_geometry){.chunk_bytes = 5};
    check_equal(pool_create(&o, paths_of, 1, &p, &err), VP_E_INVALID);
    o.geometry = (struct pool_geometry){0};
    check_equal(pool_create(&o, paths_of, 0, &p, &err), VP_E_INVALID);
    const char *const twice[] = {"d0", "d0"};
    check_equal(pool_create(&o, twice, 2, &p, &err), VP_E_IO_BUSY_DEVICE);
    const char *const missing[] = {"d0", "nosuch"};
    check_equal(pool_create(&o, missing, 2, &p, &err), VP_E_NOT_FOUND);
    check_ok(create("tank", paths_of, 1, false)); /* nothing was left open or written */
}
static void a_creation_that_can_not_be_is_refused_with_its_reason(void **state)
{
    (void)state;
    in_world(3, body_refusals);
}

/* ---- crashes during creation --------------------------------------------------------------- */

static bool cut_at(struct sim_world *w, uint64_t event, void *arg)
{
    (void)w;
    return event < *(uint64_t *)arg;
}
static bool created;
static struct pool *cut_pool; /* what the cut left in memory */
static void body_create_only(void *arg)
{
    (void)arg;
    created = sim_pool_create(2, &cut_pool, NULL) == 0;
}
static void body_after_crash(void *arg)
{
    struct pool *p;
    struct vp_error err = {0};
    int rc = pool_import(paths_of, 2, 0, NULL, &p, &err);
    if (rc == 0)
        check_ok(pool_close(p, false));
    else
        check(!*(bool *)arg);
    /* Whatever was left, the disks can be used for a pool. */
    check_ok(create("again", paths_of, 2, true));
}

static void a_crash_during_creation_leaves_a_whole_pool_or_none(void **state)
{
    (void)state;
    created = false;
    for (uint64_t event = 1; !created; event += 3) {
        struct sim_world *w = sim_pool_world(event, 2);
        sim_world_on_event(w, cut_at, &event);
        sim_pool_run(w, body_create_only, NULL);
        pool_abandon(cut_pool);
        cut_pool = NULL;
        struct sim_snapshot *s = sim_snapshot_take(w);
        unsigned pending = sim_snapshot_pending(s);
        struct sim_choice *choices = calloc(pending + 1, sizeof(*choices));
        for (unsigned i = 0; i < pending; i++)
            choices[i].fate = sim_below(w, 2) ? SIM_KEEP : SIM_DROP;
        struct sim_world *after = sim_world_from_snapshot(s, choices, event);
        sim_pool_run(after, body_after_crash, &created);
        free(choices);
        sim_world_free(after);
        sim_snapshot_free(s);
        sim_world_free(w);
        assert_checked();
    }
}

/* ---- ejection ------------------------------------------------------------------------------ */

static void body_eject(void *arg)
{
    (void)arg;
    struct pool *p = open_new(3);
    struct raid_disk *d = pool_disks(p, &(unsigned){0})[1];
    check_ok(d->eject(d, VP_E_IO, "a test says so"));
    check_ok(d->eject(d, VP_E_IO, "again"));
    check(!d->in_service && !d->eject_pending);
    check(strcmp(pool_state(p), "degraded") == 0);
    struct pool_disk_info info;
    pool_disk_info_get(p, 1, &info);
    check(strcmp(info.state, "ejected") == 0 && strstr(info.reason, "a test says so"));
    pool_abandon(p); /* a crash */
    p = open_again(3);
    pool_disk_info_get(p, 1, &info);
    check(strcmp(info.state, "stale") == 0);
    check(!pool_disks(p, &(unsigned){0})[1]->in_service);
    check_ok(pool_close(p, false));
}
static void an_ejection_survives_a_crash(void **state)
{
    (void)state;
    in_world(3, body_eject);
}

static void body_last(void *arg)
{
    (void)arg;
    struct pool *p = open_new(2);
    struct raid_disk *const *d = pool_disks(p, &(unsigned){0});
    check_ok(d[0]->eject(d[0], VP_E_IO, "first"));
    check_equal(d[1]->eject(d[1], VP_E_IO, "second"), VP_E_POOL_FENCED);
    check(strcmp(pool_state(p), "fenced") == 0);
    check(d[1]->in_service); /* reads go on */
    struct pool_arena a;
    check_equal(pool_arena_lease(p, 1, mirror, 0, &a), VP_E_POOL_FENCED);
    vp_ignore(pool_close(p, false), "it is fenced");
}
static void the_last_disk_with_metadata_is_not_ejected_but_fences(void **state)
{
    (void)state;
    in_world(2, body_last);
}

static void body_dead(void *arg)
{
    (void)arg;
    struct pool *p = open_new(3);
    struct raid_disk *d = pool_disks(p, &(unsigned){0})[2];
    sim_disk_set_dead(sim_disk_find(world, "d2"), true);
    check_ok(d->eject(d, VP_E_IO_NO_DEVICE, "it is gone"));
    check_ok(pool_property_set(p, "after", "1"));
    check_ok(pool_close(p, false));
    p = open_again(2);
    check(strcmp(pool_property_get(p, "after"), "1") == 0);
    struct pool_disk_info info;
    pool_disk_info_get(p, 2, &info);
    check(strcmp(info.state, "missing") == 0);
    check_ok(pool_close(p, false));
}
static void a_pool_goes_on_without_a_dead_disk(void **state)
{
    (void)state;
    in_world(3, body_dead);
}

/* ---- real files ---------------------------------------------------------------------------- */

static char directory[64];
static char file[4][96];
static const char *const files[4] = {file[0], file[1], file[2], file[3]};

static int make_directory(void **state)
{
    (void)state;
    (void)snprintf(directory, sizeof(directory), "/tmp/vpool-test-disks-XXXXXX");
    if (!mkdtemp(directory))
        return -1;
    for (unsigned i = 0; i < 4; i++)
        (void)snprintf(file[i], sizeof(file[i]), "%s/disk%u", directory, i);
    return 0;
}

static int remove_directory(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++)
        (void)unlink(file[i]);
    return rmdir(directory);
}

static void body_files(void *arg)
{
    (void)arg;
    struct pool_create_options o = {.name = "files", .profile = mirror};
    struct vp_error err = {0};
    struct pool *p, *second;
    struct stat st;
    o.create_size_bytes = 4096;
    check_equal(pool_create(&o, files, 2, &p, &err), VP_E_DISK_TOO_SMALL);
    check(stat(file[0], &st) != 0); /* what it made is gone again */
    o.create_size_bytes = (64 << 20) + 100;
    check_ok(pool_create(&o, files, 2, &p, &err));
    check(stat(file[0], &st) == 0 && st.st_size == 64 << 20);
    check(st.st_blocks * 512 < 16 << 20);
    check_equal(import_rc(files, 2, &second), VP_E_POOL_ACTIVE);
    check_ok(pool_close(p, true));

    struct pool_found *found;
    unsigned count;
    const char *const where[] = {directory};
    check_ok(pool_scan(where, 1, NULL, &found, &count, NULL));
    check_equal(count, 1);
    check_equal(found[0].disks_found, 2);
    free(found);
    check_equal(pool_create(&o, files, 2, &p, &err), VP_E_DISK_HOLDS_DATA);
    check_ok(import_rc(files, 2, &p));
    check_ok(pool_destroy(p, &err));
    check_ok(pool_scan(where, 1, NULL, &found, &count, NULL));
    check_equal(count, 0);
    free(found);
}
static void files_are_created_locked_found_and_wiped(void **state)
{
    (void)state;
    on_reactor(NULL, body_files, NULL);
    assert_checked();
}

static void body_foreign(void *arg)
{
    struct pool_create_options o = {.name = "files", .profile = single};
    struct vp_error err = {0};
    struct pool *p;
    check_equal(pool_create(&o, files + 2, 1, &p, &err), VP_E_DISK_HOLDS_DATA);
    check(strstr(err.text, arg) != NULL);
    o.force = true;
    check_ok(pool_create(&o, files + 2, 1, &p, &err));
    check_ok(pool_destroy(p, NULL));
}

static void a_file_system_is_recognised(void **state)
{
    (void)state;
    char command[256];
    (void)snprintf(command, sizeof(command),
                   "PATH=$PATH:/sbin:/usr/sbin mke2fs -q -F %s 32M >/dev/null 2>&1", file[2]);
    if (system(command) != 0) {
        print_message("SKIPPED: mke2fs is not here\n");
        skip();
    }
    on_reactor(NULL, body_foreign, (void *)(uintptr_t) "ext");
    assert_checked();
}

static void a_partition_table_is_recognised(void **state)
{
    (void)state;
    static const uint8_t entry[16] = {0, 0, 2, 0, 0x83, 0, 3, 0, 0, 8, 0, 0, 0, 0x40, 0, 0};
    FILE *f = fopen(file[2], "w");
    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), 32 << 20), 0);
    assert_int_equal(fseek(f, 446, SEEK_SET), 0);
    assert_int_equal(fwrite(entry, sizeof(entry), 1, f), 1);
    assert_int_equal(fseek(f, 510, SEEK_SET), 0);
    assert_int_equal(fwrite("\x55\xaa", 2, 1, f), 1);
    assert_int_equal(fclose(f), 0);
    on_reactor(NULL, body_foreign, (void *)(uintptr_t) "partition table");
    assert_checked();
}

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

/* ---- what became of a disk ----------------------------------------------------------------- */

static void overwrite_labels(void *arg)
{
    (void)arg;
    struct pool *p = open_new(1);
    struct pool_disk_info info;
    static uint8_t noise[POOL_LABEL_AREA];
    if (!p)
        return;
    pool_disk_look(p, 0);
    pool_disk_info_get(p, 0, &info);
    check_equal(info.finding[0], 0);
    memset(noise, 0x5a, sizeof(noise));
    sim_disk_poke(sim_disk_find(world, "d0"), 0, noise, sizeof(noise));
    sim_disk_poke(sim_disk_find(world, "d0"), DISK - sizeof(noise), noise, sizeof(noise));
    pool_disk_look(p, 0);
    pool_disk_info_get(p, 0, &info);
    check(strstr(info.finding, "4 copies of its label") != NULL);
    pool_abandon(p); /* as after a kill */
    check_ok(import_rc(paths_of, 1, &p));
    if (p)
        check_ok(pool_close(p, true));
}

static void labels_and_roots_that_are_overwritten_are_written_again(void **state)
{
    (void)state;
    in_world(1, overwrite_labels);
}

static void overwrite_labels_and_fail_flush(void *arg)
{
    (void)arg;
    struct pool *p = open_new(2);
    static uint8_t noise[POOL_LABEL_AREA];
    if (!p)
        return;
    sim_disk_poke(sim_disk_find(world, "d0"), 0, noise, sizeof(noise));
    sim_disk_inject(sim_disk_find(world, "d0"), SIM_FAULT_ERROR, 1U << IO_FLUSH, 0, 0);
    pool_disk_look(p, 0);
    check(!atomic_load(&p->disk[0].io.in_service));
    check(strstr(p->disk[0].finding, "could not be written again") != NULL);
    check_ok(pool_close(p, true));
}

/* Data that were waiting for a flush are gone with it, and no later flush would tell. */
static void a_flush_that_fails_while_labels_are_written_again_ejects(void **state)
{
    (void)state;
    in_world(2, overwrite_labels_and_fail_flush);
}

/* Looks at d0 after `block` was put there: it is left, and `finding` says so. */
static void check_left_alone(struct pool *p, uint64_t at, const void *block, const char *finding)
{
    static uint8_t now[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
    sim_disk_poke(sim_disk_find(world, "d0"), at, block, POOL_BLOCK);
    p->disk[0].finding[0] = 0;
    pool_disk_look(p, 0);
    check(strstr(p->disk[0].finding, finding) != NULL);
    check_ok(io_dev_read(p->disk[0].io.dev, at, now, sizeof(now)));
    check(memcmp(now, block, sizeof(now)) == 0);
}

static void take_disk_away(void *arg)
{
    (void)arg;
    static uint8_t block[POOL_BLOCK] __attribute__((aligned(POOL_BLOCK)));
    struct pool *p = open_new(2);
    struct pool_label l;
    if (!p)
        return;
    check_ok(io_dev_read(p->disk[0].io.dev, 0, block, sizeof(block)));
    check_ok(pool_label_decode(block, &l));
    l.pool_uuid.b[0] ^= 1;
    pool_label_encode(&l, block);
    check_left_alone(p, 0, block, "were left as they are");
    check_ok(sim_pool_commit_counter(p, 1, 1));
    struct pool_root newer = p->root.now;
    newer.number++;
    root_block_encode(p, &newer, block);
    check_left_alone(p, POOL_ROOT_AT + newer.number % POOL_ROOT_SLOTS * ROOT_BYTES, block,
                     "a newer root");
    /* What it gives to others, and we to ours, is the same space. */
    check_equal(sim_pool_commit_counter(p, 1, 2), VP_E_POOL_FENCED);
    pool_abandon(p);
}

static void what_another_pool_or_daemon_wrote_to_a_disk_is_left_alone(void **state)
{
    (void)state;
    in_world(2, take_disk_away);
}

static void look_at_first_disk(void *arg)
{
    pool_disk_look(arg, 0);
}

static void look_and_checkpoint(void *arg)
{
    (void)arg;
    struct pool *p = open_new(2);
    if (!p)
        return;
    /* The newest root at the head, after the labels. */
    sim_disk_inject(sim_disk_find(world, "d0"), SIM_FAULT_STALL, 1U << IO_READ, POOL_LABEL_COPIES,
                    UINT64_C(60000000000));
    check_ok(co_spawn(look_at_first_disk, p, "look"));
    check_ok(co_sleep_ns(UINT64_C(1000000000)));
    uint64_t began_ns = reactor_now_ns();
    check_ok(pool_checkpoint(p));
    check(reactor_now_ns() - began_ns < UINT64_C(1000000000));
    check_ok(co_sleep_ns(UINT64_C(3000000000)));
    check_equal(p->disk[0].state, POOL_DISK_OUT);
    check(strstr(p->disk[0].reason, "does not answer") != NULL);
    check_equal(io_dev_late(p->disk[0].io.dev), 1);
    check_ok(co_sleep_ns(UINT64_C(60000000000)));
    check_equal(io_dev_late(p->disk[0].io.dev), 0);
    check_equal(p->disk[0].finding[0], 0);
    check_ok(pool_close(p, false));
}

static void a_look_at_a_disk_that_does_not_answer_holds_up_no_root(void **state)
{
    (void)state;
    in_world(2, look_and_checkpoint);
}

int main(void)
{
    vp_log_set_sink(drop_line, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pools_are_found_by_their_labels),
        cmocka_unit_test(a_disk_that_does_not_answer_holds_up_no_scan_for_long),
        cmocka_unit_test(disks_are_told_by_label_not_by_path),
        cmocka_unit_test(a_disk_of_another_pool_or_of_none_is_refused),
        cmocka_unit_test(copies_of_one_disk_are_refused_together),
        cmocka_unit_test(a_disk_that_has_grown_is_found_without_its_first_labels),
        cmocka_unit_test(a_pool_in_use_is_refused_to_a_second_daemon),
        cmocka_unit_test(a_disk_of_a_pool_is_taken_only_by_force_or_after_destroying),
        cmocka_unit_test(a_creation_that_fails_midway_leaves_no_label),
        cmocka_unit_test(a_creation_that_can_not_be_is_refused_with_its_reason),
        cmocka_unit_test(a_crash_during_creation_leaves_a_whole_pool_or_none),
        cmocka_unit_test(an_ejection_survives_a_crash),
        cmocka_unit_test(the_last_disk_with_metadata_is_not_ejected_but_fences),
        cmocka_unit_test(a_pool_goes_on_without_a_dead_disk),
        cmocka_unit_test_setup_teardown(files_are_created_locked_found_and_wiped, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(a_file_system_is_recognised, make_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(a_partition_table_is_recognised, make_directory,
                                        remove_directory),
        cmocka_unit_test(labels_and_roots_that_are_overwritten_are_written_again),
        cmocka_unit_test(a_flush_that_fails_while_labels_are_written_again_ejects),
        cmocka_unit_test(what_another_pool_or_daemon_wrote_to_a_disk_is_left_alone),
        cmocka_unit_test(a_look_at_a_disk_that_does_not_answer_holds_up_no_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
