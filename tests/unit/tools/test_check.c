/*
 * vpool-check on pools that the simulator wrote: clean and crashed ones are clean, every kind of
 * damage is noticed, garbage harms nobody. The disks are copied to files, since the tool is a
 * program of its own.
 * valgrind: no (power cuts abandon coroutines with their memory, the tool is another process)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"
#include "thin/thin_format.h"
#include "volumes/volume_format.h"

enum { DISKS = 2, DISK = 12 << 20, VOLUME = 2 << 20 };

static char tool[512], directory[600], file[DISKS][700];
static uint8_t *image[DISKS];
static uint64_t seed_base;

/* ---- pools --------------------------------------------------------------------------------- */

static uint8_t buf[128 << 10];

/* One random operation; what fails for lack of room is no failure. */
static CO void operate(struct sim_volumes *s, struct volume *v, uint64_t r)
{
    uint64_t at = hash_mix(r) % (VOLUME - sizeof(buf)), len = 1 + hash_mix(r + 1) % sizeof(buf);
    memset(buf, (int)(r | 1), sizeof(buf));
    int rc = 0;
    switch (hash_mix(r + 2) % 8) {
    case 0:
        rc = volume_zero(v, at, len, 0);
        break;
    case 1:
        rc = volume_discard(v, at & ~UINT64_C(65535), 128 << 10, 0);
        break;
    case 2:
        rc = volume_flush(v);
        break;
    case 3:
        rc = hash_mix(r + 3) % 4 ? 0 : pool_checkpoint(volumes_pool(s->vs));
        break;
    default:
        rc = volume_write(v, at, len, buf, 0);
    }
    check(rc == 0 || rc == VP_E_NO_SPACE);
}

static uint64_t script_seed;
static bool script_closes;

static CO void script(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "one", VOLUME);
    struct volume *gone = sim_volumes_volume(s, "gone", VOLUME);
    if (!v || !gone)
        return;
    for (uint64_t i = 0; i < 12; i++) {
        operate(s, v, script_seed * 1000 + i);
        operate(s, gone, script_seed * 2000 + i);
    }
    check_ok(volume_flush(v));
    volume_close(gone);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_ok(volume_delete(s->vs, "gone", NULL));
    for (uint64_t i = 0; i < 12; i++)
        operate(s, v, script_seed * 3000 + i);
    check_ok(volume_flush(v));
    volume_close(v);
    if (script_closes)
        check_ok(sim_volumes_close(s));
}

static bool cut_at(struct sim_world *w, uint64_t event, void *arg)
{
    (void)w;
    return event < *(uint64_t *)arg;
}
static uint64_t cut_event;
static CO void script_cut(struct sim_volumes *s)
{
    sim_world_on_event(s->world, cut_at, &cut_event);
    script(s);
}

static void save(struct sim_volumes *s)
{
    for (unsigned i = 0; i < DISKS; i++)
        sim_disk_peek(sim_disk_find(s->world, s->name[i]), 0, image[i], DISK);
}

static const char *make_profile = "mirror";

/* What a script leaves, with all it wrote on the disks, in image[]. */
static void make_pool_by(void (*fn)(struct sim_volumes *s), uint64_t seed)
{
    struct sim_volumes_config config = {
        .seed = seed, .disks = DISKS, .disk_bytes = DISK, .profile = make_profile};
    struct sim_volumes *s = sim_volumes_new(&config);
    script_seed = seed;
    sim_volumes_run(s, fn);
    save(s);
    sim_volumes_free(s);
    assert_checked();
}

/* A pool that was used and then closed, or killed. */
static void make_pool(uint64_t seed, bool close)
{
    script_closes = close;
    make_pool_by(script, seed);
}

static unsigned script_checkpoints;

static CO void script_young(struct sim_volumes *s)
{
    for (unsigned i = 0; i < script_checkpoints; i++)
        check_ok(pool_checkpoint(volumes_pool(s->vs)));
}

/* Without volumes, and with so many checkpoints after its creation. */
static void make_young_pool(uint64_t seed, unsigned checkpoints)
{
    script_checkpoints = checkpoints;
    make_pool_by(script_young, seed);
}

/* A volume with one written chunk, in its second half; then records that the engine would not
 * write. */
static CO void script_wrong(struct sim_volumes *s)
{
    struct pool *p = volumes_pool(s->vs);
    struct volume *v = sim_volumes_volume(s, "v", VOLUME);
    check_ok(volume_write(v, VOLUME / 2, 4096, buf, 0));
    volume_close(v);
    struct pool_record r;
    check(pool_record_get(p, POOL_RECORD_VOLUME, 1, 0, &r));
    char record[256];
    check(r.len <= sizeof(record));
    memcpy(record, r.value, r.len);
    ((struct volume_record_disk *)record)->size_bytes = le64_make(VOLUME / 4);
    uint16_t len = (uint16_t)r.len;
    struct pool_batch b;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_VOLUME, 1, 0, record, len);
    pool_batch_set(&b, POOL_RECORD_STAT, 77, 0, &(struct thin_stat_record_disk){0},
                   sizeof(struct thin_stat_record_disk));
    check_ok(pool_commit(p, &b));
    pool_batch_fini(&b);
}

static uint8_t *image_before; /* of d0, before it left */

/* d0 fails a write of metadata and leaves; it has data that have no other copy. */
static CO void script_data_only(struct sim_volumes *s)
{
    struct sim_disk *d0 = sim_disk_find(s->world, s->name[0]);
    struct volume *v = sim_volumes_volume(s, "v", VOLUME);
    for (uint64_t at = 0; v && at < VOLUME; at += sizeof(buf))
        check_ok(volume_write(v, at, sizeof(buf), buf, 0));
    check_ok(volume_flush(v));
    sim_disk_peek(d0, 0, image_before, DISK);
    sim_disk_fail(d0, 1U << IO_WRITE, RAID_METADATA_TRIES);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_equal(pool_disks_out(volumes_pool(s->vs)), 1);
    check_ok(volume_flush(v));
    volume_close(v);
}

/* The same, with the power cut somewhere. */
static void make_crashed(uint64_t seed)
{
    struct sim_volumes_config config = {
        .seed = seed, .disks = DISKS, .disk_bytes = DISK, .profile = "mirror"};
    struct sim_volumes *s = sim_volumes_new(&config);
    script_seed = seed;
    script_closes = false;
    cut_event = 200 + hash_mix(seed) % 1200;
    sim_volumes_run(s, script_cut);
    sim_volumes_power_cut(s, seed + 1);
    save(s);
    sim_volumes_free(s);
    (void)check_failures(); /* operations fail when the power goes */
}

/* ---- the tool ------------------------------------------------------------------------------ */

static void write_files(void)
{
    for (unsigned i = 0; i < DISKS; i++) {
        FILE *f = fopen(file[i], "w");
        assert_non_null(f);
        assert_int_equal(fwrite(image[i], DISK, 1, f), 1);
        assert_int_equal(fclose(f), 0);
    }
}

static char output[1 << 20];

/* Exit code; what it printed is in output. */
static int run(const char *options, unsigned disks)
{
    char command[4096];
    size_t n = (size_t)snprintf(command, sizeof(command), "%s %s", tool, options);
    for (unsigned i = 0; i < disks; i++)
        n += (size_t)snprintf(command + n, sizeof(command) - n, " %s", file[i]);
    (void)snprintf(command + n, sizeof(command) - n, " 2>&1");
    FILE *p = popen(command, "r");
    assert_non_null(p);
    size_t len = fread(output, 1, sizeof(output) - 1, p);
    output[len] = 0;
    while (fread(command, 1, sizeof(command), p) > 0)
        ;
    int status = pclose(p);
    if (!WIFEXITED(status) || WEXITSTATUS(status) > 2)
        fail_msg("vpool-check died (status %d):\n%s", status, output);
    return WEXITSTATUS(status);
}

static void assert_exit(int code, const char *options, unsigned disks, uint64_t seed)
{
    int got = run(options, disks);
    if (got != code)
        fail_msg("seed %llu: `%s` exited with %d, not %d:\n%s", (unsigned long long)seed, options,
                 got, code, output);
}

/* ---- tests --------------------------------------------------------------------------------- */

static void a_closed_pool_is_clean(void **state)
{
    (void)state;
    for (uint64_t seed = seed_base; seed < seed_base + 5; seed++) {
        make_pool(seed, true);
        write_files();
        assert_exit(0, "--data", DISKS, seed);
        assert_non_null(strstr(output, "volume 1:"));
    }
}

static void what_a_power_cut_leaves_is_clean(void **state)
{
    (void)state;
    for (uint64_t seed = seed_base; seed < seed_base + 40; seed++) {
        make_crashed(seed);
        write_files();
        assert_exit(0, "--data", DISKS, seed);
    }
}

static json_t *report(const char *options)
{
    (void)run(options, DISKS);
    json_t *o = json_loads(output, 0, NULL);
    if (!o)
        fail_msg("%s: not JSON:\n%s", options, output);
    return o;
}

static bool has_note(const json_t *o, const char *text)
{
    size_t i;
    const json_t *note;
    json_array_foreach(
        json_object_get(o, "notes"), i,
        note) if (strstr(json_string_value(json_object_get(note, "text")), text)) return true;
    return false;
}

/* The one loss that the disks do not show: the last batch of a log with an open end. */
static bool is_said_of_the_logs_end(const json_t *before, const json_t *after)
{
    json_int_t had = json_integer_value(json_object_get(json_object_get(before, "log"), "batches"));
    json_int_t has = json_integer_value(json_object_get(json_object_get(after, "log"), "batches"));
    return has_note(after, "at the end, is not on this copy") ||
           (has < had && has_note(after, "it ends before batch"));
}

/* 1 damaged and noticed, 0 there was nothing to damage, and that was said. */
static int damage_is_noticed(const char *kind, uint64_t seed, const json_t *before)
{
    char options[128];
    (void)snprintf(options, sizeof(options), "--damage %s --seed %llu --i-mean-it", kind,
                   (unsigned long long)seed);
    write_files();
    int code = run(options, DISKS);
    json_t *after = report("--data --json");
    bool clean = json_is_true(json_object_get(after, "clean"));
    if (code && (code != 1 || !clean || json_equal(before, after) == 0))
        fail_msg("%s: exit code %d, and yet something has changed", options, code);
    if (!code && clean && !(strncmp(kind, "log", 3) == 0 && is_said_of_the_logs_end(before, after)))
        fail_msg("after %s: clean", options);
    json_decref(after);
    return code ? 0 : 1;
}

static const char *const things[] = {"label", "root", "image", "log", "page", "data"};
enum { THINGS = sizeof(things) / sizeof(things[0]) };

/* Which of the things could be damaged, as a mask; bit THINGS: extents. */
static unsigned damage_everything(uint64_t seed)
{
    static const char *const how[] = {"flip", "zero", "flip-all", "zero-all"};
    write_files();
    json_t *before = report("--data --json");
    assert_true(json_is_true(json_object_get(before, "clean")));
    unsigned mask = damage_is_noticed("extent-swap", seed, before) ? 1U << THINGS : 0;
    for (unsigned i = 0; i < THINGS; i++)
        for (unsigned k = 0; k < sizeof(how) / sizeof(how[0]); k++) {
            char kind[64];
            (void)snprintf(kind, sizeof(kind), "%s-%s", things[i], how[k]);
            if (damage_is_noticed(kind, seed, before))
                mask |= 1U << i;
        }
    json_decref(before);
    return mask;
}

static void every_kind_of_damage_is_noticed(void **state)
{
    (void)state;
    for (uint64_t seed = seed_base; seed < seed_base + 2; seed++) {
        make_pool(seed, false);
        assert_int_equal(damage_everything(seed), (2U << THINGS) - 1);
    }
}

static void every_kind_of_damage_is_noticed_at_every_age(void **state)
{
    (void)state;
    for (unsigned checkpoints = 0; checkpoints < 10; checkpoints += 3) {
        make_young_pool(seed_base, checkpoints);
        assert_int_equal(damage_everything(seed_base) & 7, 7); /* it has no volume */
    }
    make_pool(seed_base, true);
    assert_int_equal(damage_everything(seed_base), ((2U << THINGS) - 1) & ~(1U << 3)); /* no log */
}

static void damage_needs_to_be_meant(void **state)
{
    (void)state;
    make_pool(seed_base, false);
    write_files();
    assert_exit(2, "--damage log-flip --seed 1", DISKS, 0);
    assert_exit(2, "--damage nonsense --i-mean-it", DISKS, 0);
    assert_exit(0, "--damage list", 0, 0);
    assert_exit(0, "--data", DISKS, 0);
}

static void missing_and_wrong_disks_are_named(void **state)
{
    (void)state;
    make_pool(seed_base, false);
    write_files();
    assert_exit(1, "", 1, 0);
    assert_non_null(strstr(output, "is not among those given"));
    assert_exit(2, "", 0, 0);
    assert_exit(1, "/nonexistent", 0, 0);
    assert_exit(1, "/dev/null", 0, 0);
    char options[1024];
    (void)snprintf(options, sizeof(options), "%s", file[0]);
    assert_exit(1, options, DISKS, 0); /* the first one twice */
}

static void the_dump_says_everything(void **state)
{
    (void)state;
    make_pool(seed_base, false);
    write_files();
    assert_exit(0, "--dump", DISKS, 0);
    json_t *o = json_loads(output, 0, NULL);
    assert_non_null(o);
    assert_true(json_is_true(json_object_get(o, "clean")));
    assert_true(json_array_size(json_object_get(o, "records")) > 3);
    json_t *volume = json_array_get(json_object_get(o, "volumes"), 0);
    assert_true(json_array_size(json_object_get(volume, "chunks")) > 0);
    assert_true(json_array_size(json_object_get(volume, "pages")) > 0);
    json_decref(o);
}

static void chunks_behind_the_end_and_records_of_no_volume_are_problems(void **state)
{
    (void)state;
    make_pool_by(script_wrong, seed_base);
    write_files();
    assert_exit(1, "", DISKS, seed_base);
    assert_non_null(strstr(output, "is behind its end"));
    assert_non_null(strstr(output, "a STAT record (key 0) is of volume 77, which is gone"));
    assert_non_null(strstr(output, "2 problems"));
}

static void data_on_a_disk_that_is_out_are_checked_unless_it_was_set_back(void **state)
{
    (void)state;
    image_before = malloc(DISK);
    assert_non_null(image_before);
    make_profile = "single";
    make_pool_by(script_data_only, seed_base);
    make_profile = "mirror";
    write_files();
    assert_exit(0, "--data", DISKS, seed_base);
    assert_non_null(strstr(output, "data that have no other copy are served from it"));
    json_t *before = report("--data --json");
    for (uint64_t seed = seed_base; seed < seed_base + 8; seed++) /* on either disk */
        assert_int_equal(damage_is_noticed("data-flip", seed, before), 1);
    json_decref(before);
    memcpy(image[0], image_before, DISK);
    free(image_before);
    write_files();
    assert_exit(1, "--data", DISKS, seed_base);
    assert_non_null(strstr(output, "an older state of disk 0"));
}

/* Garbage everywhere, also where checksums do not reach: it says so and ends. */
static void garbage_never_crashes_it(void **state)
{
    (void)state;
    make_pool(seed_base, false);
    uint64_t random = seed_base;
    for (unsigned round = 0; round < 30; round++) {
        write_files();
        for (unsigned k = 0; k < 1U << round % 8; k++) {
            random = hash_mix(random + 1);
            FILE *f = fopen(file[random % DISKS], "r+");
            assert_non_null(f);
            uint64_t where = hash_mix(random) % (round % 2 ? DISK : 2 << 20);
            assert_int_equal(fseek(f, (long)where, SEEK_SET), 0);
            assert_int_equal(fwrite(&random, sizeof(random), 1, f), 1);
            assert_int_equal(fclose(f), 0);
        }
        (void)run("--dump --data", DISKS);
    }
    for (unsigned i = 0; i < DISKS; i++) {
        assert_int_equal(truncate(file[i], DISK / 2 + 77), 0);
    }
    assert_exit(1, "--dump", DISKS, 0);
}

/* A power cut abandons coroutines with all that they had allocated. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

/* build/<flavour>/tests/unit/tools/test_check → build/<flavour>/vpool-check */
static int set_up(void **state)
{
    (void)state;
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n < 0)
        return -1;
    self[n] = 0;
    for (unsigned up = 0; up < 4; up++) {
        char *slash = strrchr(self, '/');
        if (!slash)
            return -1;
        *slash = 0;
    }
    (void)snprintf(tool, sizeof(tool), "%s/vpool-check", self);
    (void)snprintf(directory, sizeof(directory), "%s/test-check-XXXXXX", self);
    if (access(tool, X_OK) != 0 || !mkdtemp(directory))
        return -1;
    for (unsigned i = 0; i < DISKS; i++) {
        (void)snprintf(file[i], sizeof(file[i]), "%s/disk%u", directory, i);
        image[i] = malloc(DISK);
        if (!image[i])
            return -1;
    }
    const char *seed = getenv("VPOOL_SEED");
    seed_base = seed ? strtoull(seed, NULL, 0) : 1;
    print_message("VPOOL_SEED=%llu\n", (unsigned long long)seed_base);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < DISKS; i++) {
        (void)unlink(file[i]);
        free(image[i]);
    }
    return rmdir(directory);
}

int main(void)
{
    vp_log_set_sink(drop_line, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_closed_pool_is_clean),
        cmocka_unit_test(what_a_power_cut_leaves_is_clean),
        cmocka_unit_test(every_kind_of_damage_is_noticed),
        cmocka_unit_test(every_kind_of_damage_is_noticed_at_every_age),
        cmocka_unit_test(damage_needs_to_be_meant),
        cmocka_unit_test(missing_and_wrong_disks_are_named),
        cmocka_unit_test(the_dump_says_everything),
        cmocka_unit_test(chunks_behind_the_end_and_records_of_no_volume_are_problems),
        cmocka_unit_test(data_on_a_disk_that_is_out_are_checked_unless_it_was_set_back),
        cmocka_unit_test(garbage_never_crashes_it),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
