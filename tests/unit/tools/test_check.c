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

enum { DISKS = 2, DISK = 12 << 20, VOLUME = 2 << 20 };

static char tool[512], directory[600], file[DISKS][700];
static uint8_t *image[DISKS];
static uint64_t seed_base;

/* ---- pools --------------------------------------------------------------------------------- */

static uint8_t buf[128 << 10];

/* One random operation; what fails for lack of room is no failure. */
CO static void operate(struct sim_volumes *s, struct volume *v, uint64_t r)
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

CO static void script(struct sim_volumes *s)
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
CO static void script_cut(struct sim_volumes *s)
{
    sim_world_on_event(s->world, cut_at, &cut_event);
    script(s);
}

static void save(struct sim_volumes *s)
{
    for (unsigned i = 0; i < DISKS; i++)
        sim_disk_peek(sim_disk_find(s->world, s->name[i]), 0, image[i], DISK);
}

/* A pool that was used and then closed, or killed with all it wrote on the disks, in image[]. */
static void make_pool(uint64_t seed, bool close)
{
    struct sim_volumes_config config = {
        .seed = seed, .disks = DISKS, .disk_bytes = DISK, .profile = "mirror"};
    struct sim_volumes *s = sim_volumes_new(&config);
    script_seed = seed;
    script_closes = close;
    sim_volumes_run(s, script);
    save(s);
    sim_volumes_free(s);
    assert_checked();
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

static void assert_damage_is_noticed(const char *kind, uint64_t seed)
{
    char options[128];
    (void)snprintf(options, sizeof(options), "--damage %s --seed %llu --i-mean-it", kind,
                   (unsigned long long)seed);
    write_files();
    assert_exit(0, options, DISKS, seed);
    int code = run("--data --json", DISKS);
    json_t *o = json_loads(output, 0, NULL);
    if (!o)
        fail_msg("after %s: not JSON:\n%s", options, output);
    /* What reads as zeros was perhaps never written: the log's last batch, one of the first roots. */
    bool may_be_clean = strncmp(kind, "log-zero", 8) == 0 || strncmp(kind, "root-zero", 9) == 0;
    if (code != 1 && !may_be_clean)
        fail_msg("after %s: exit code %d", options, code);
    assert_true((code == 1) == (json_array_size(json_object_get(o, "problems")) > 0));
    json_decref(o);
}

static void every_kind_of_damage_is_noticed(void **state)
{
    (void)state;
    static const char *const things[] = {"label", "root", "snapshot", "log", "page", "data"};
    static const char *const how[] = {"flip", "zero", "flip-all", "zero-all"};
    make_pool(seed_base, false);
    for (unsigned i = 0; i < sizeof(things) / sizeof(things[0]); i++)
        for (unsigned k = 0; k < sizeof(how) / sizeof(how[0]); k++)
            for (uint64_t seed = seed_base; seed < seed_base + 3; seed++) {
                char kind[64];
                (void)snprintf(kind, sizeof(kind), "%s-%s", things[i], how[k]);
                assert_damage_is_noticed(kind, seed);
            }
    write_files();
    assert_exit(0, "--damage extent-swap --seed 1 --i-mean-it", DISKS, 1);
    assert_exit(1, "--data", DISKS, 1);
}

static void damage_needs_to_be_meant(void **state)
{
    (void)state;
    make_pool(seed_base, false);
    write_files();
    assert_exit(2, "--damage log-flip --seed 1", DISKS, 0);
    assert_exit(1, "--damage nonsense --i-mean-it", DISKS, 0);
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
        cmocka_unit_test(damage_needs_to_be_meant),
        cmocka_unit_test(missing_and_wrong_disks_are_named),
        cmocka_unit_test(the_dump_says_everything),
        cmocka_unit_test(garbage_never_crashes_it),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
