/* Records of block devices in /run. */
#include "control/ublk_record.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char top[64], dir[96];

static const struct ublk_record sample = {.number = 7,
                                          .tag = 0x00ff123456789abc,
                                          .pool = "tank",
                                          .volume = "vm-1:boot.a_b",
                                          .pool_uuid = {{1, 2, 3}},
                                          .volume_uuid = {{9, 8, 7}}};

static int setup(void **state)
{
    (void)state;
    (void)snprintf(top, sizeof(top), "/tmp/vpool-unit.XXXXXX");
    if (!mkdtemp(top))
        return -1;
    (void)snprintf(dir, sizeof(dir), "%s/vpool/ublk", top);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char parent[96];
    assert_int_equal(ublk_record_remove(dir, 7), 0);
    (void)rmdir(dir);
    (void)snprintf(parent, sizeof(parent), "%s/vpool", top);
    (void)rmdir(parent);
    return rmdir(top);
}

static void replace_text(const char *text)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/ublkb7", dir);
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static void a_record_reads_back_as_it_was_written(void **state)
{
    (void)state;
    struct ublk_record r;
    assert_int_equal(ublk_record_write(dir, &sample), 0);
    assert_int_equal(ublk_record_read(dir, 7, &r), 0);
    assert_int_equal(r.number, 7);
    assert_true(r.tag == sample.tag);
    assert_string_equal(r.pool, sample.pool);
    assert_string_equal(r.volume, sample.volume);
    assert_true(vp_uuid_equal(r.pool_uuid, sample.pool_uuid));
    assert_true(vp_uuid_equal(r.volume_uuid, sample.volume_uuid));
}

static void a_record_that_is_not_there_or_was_removed_is_not_found(void **state)
{
    (void)state;
    struct ublk_record r;
    assert_int_equal(ublk_record_read(dir, 7, &r), VP_E_NOT_FOUND);
    assert_int_equal(ublk_record_write(dir, &sample), 0);
    assert_int_equal(ublk_record_remove(dir, 7), 0);
    assert_int_equal(ublk_record_read(dir, 7, &r), VP_E_NOT_FOUND);
}

static void a_file_that_is_no_record_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "VPOOL_POOL=tank\n",
        "VPOOL_POOL=../../etc\nVPOOL_VOLUME=v\n"
        "VPOOL_POOL_UUID=01020300-0000-0000-0000-000000000000\n"
        "VPOOL_VOLUME_UUID=01020300-0000-0000-0000-000000000000\nVPOOL_TAG=0000000000000001\n",
        "VPOOL_POOL=tank\nVPOOL_VOLUME=v\nVPOOL_POOL_UUID=nonsense\n"
        "VPOOL_VOLUME_UUID=01020300-0000-0000-0000-000000000000\nVPOOL_TAG=0000000000000001\n",
        "VPOOL_POOL=tank\nVPOOL_VOLUME=v\nVPOOL_POOL_UUID=01020300-0000-0000-0000-000000000000\n"
        "VPOOL_VOLUME_UUID=01020300-0000-0000-0000-000000000000\nVPOOL_TAG=0000000000000000\n",
        "VPOOL_POOL=tank\nVPOOL_VOLUME=v\nVPOOL_POOL_UUID=01020300-0000-0000-0000-000000000000\n"
        "VPOOL_VOLUME_UUID=01020300-0000-0000-0000-000000000000\nVPOOL_TAG=1\n",
    };
    struct ublk_record r;
    assert_int_equal(ublk_record_write(dir, &sample), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        replace_text(bad[i]);
        assert_int_equal(ublk_record_read(dir, 7, &r), VP_E_INVALID);
    }
}

static void names_of_devices_have_a_number_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(ublk_number_of("ublkb7", "ublkb"), 7);
    assert_int_equal(ublk_number_of("ublkb0", "ublkb"), 0);
    assert_int_equal(ublk_number_of("ublkb7.new", "ublkb"), -1);
    assert_int_equal(ublk_number_of("ublkb7p1", "ublkb"), -1);
    assert_int_equal(ublk_number_of("ublkc7", "ublkb"), -1);
    assert_int_equal(ublk_number_of("ublkb", "ublkb"), -1);
    assert_int_equal(ublk_number_of("ublkb-1", "ublkb"), -1);
    assert_int_equal(ublk_number_of("ublkb99999999999999999999", "ublkb"), -1);
}

/* A directory or an empty file as the kernel's list of devices. */
static const char *beside(const char *name)
{
    static char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", top, name);
    return path;
}

static void only_records_of_devices_that_are_gone_are_forgotten(void **state)
{
    (void)state;
    struct ublk_record r, other = sample;
    other.number = 8;
    assert_int_equal(ublk_record_write(dir, &sample), 0);
    assert_int_equal(ublk_record_write(dir, &other), 0);
    assert_int_equal(mkdir(beside("class"), 0755), 0);
    assert_int_equal(mkdir(beside("class/ublkc7"), 0755), 0);
    assert_int_equal(ublk_records_forget_leftovers(dir, beside("class")), 0);
    assert_int_equal(ublk_record_read(dir, 7, &r), 0);
    assert_int_equal(ublk_record_read(dir, 8, &r), VP_E_NOT_FOUND);
    assert_int_equal(rmdir(beside("class/ublkc7")), 0);
    assert_int_equal(rmdir(beside("class")), 0);
}

static void a_device_that_can_not_be_looked_for_is_not_forgotten(void **state)
{
    (void)state;
    struct ublk_record r;
    assert_int_equal(ublk_record_write(dir, &sample), 0);
    int fd = open(beside("class"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600); /* ENOTDIR */
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(ublk_records_forget_leftovers(dir, beside("class")), 0);
    assert_int_equal(ublk_record_read(dir, 7, &r), 0);
    assert_int_equal(unlink(beside("class")), 0);
}

static void
a_directory_that_is_not_there_has_no_devices_and_one_that_can_not_be_read_is_told(void **state)
{
    (void)state;
    struct ublk_numbers n;
    assert_int_equal(ublk_numbers_in(dir, "ublkb", &n), 0);
    assert_int_equal(n.count, 0);
    assert_int_equal(ublk_record_write(dir, &sample), 0);
    assert_int_equal(ublk_numbers_in(dir, "ublkb", &n), 0);
    assert_int_equal(n.count, 1);
    assert_int_equal(n.number[0], 7);
    char file[128];
    (void)snprintf(file, sizeof(file), "%s/ublkb7", dir);
    assert_int_not_equal(ublk_numbers_in(file, "ublkb", &n), 0);
    assert_int_equal(n.count, 0);
}

static void a_record_is_of_a_volume_whatever_pool_that_is_in(void **state)
{
    (void)state;
    struct ublk_record r = sample;
    r.pool_uuid.b[0]++;
    (void)snprintf(r.pool, sizeof(r.pool), "other");
    assert_true(ublk_record_is_of(&sample, &r));
    r.volume_uuid.b[15]++;
    assert_false(ublk_record_is_of(&sample, &r));
    r = sample;
    r.tag++;
    assert_false(ublk_record_is_of(&sample, &r));
}

/* A file where the kernel would have one. */
static void uevent_make(const char *device)
{
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/%s", beside("block"), device);
    assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
    (void)snprintf(path, sizeof(path), "%s/%s/uevent", beside("block"), device);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

/* Whether "change" was written there; it goes. */
static bool uevent_take(const char *device)
{
    char path[200], text[8] = "";
    (void)snprintf(path, sizeof(path), "%s/%s/uevent", beside("block"), device);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, sizeof(text));
    close(fd);
    assert_int_equal(unlink(path), 0);
    *strrchr(path, '/') = 0;
    assert_int_equal(rmdir(path), 0);
    return n == 6 && memcmp(text, "change", 6) == 0;
}

static void a_device_and_its_partitions_are_announced_and_nothing_else(void **state)
{
    (void)state;
    assert_int_equal(mkdir(beside("block"), 0755), 0);
    assert_int_equal(ublk_announce(beside("block"), 7), VP_E_NOT_FOUND);
    static const char *const devices[] = {"ublkb7", "ublkb7/ublkb7p1", "ublkb7/ublkb7p12",
                                          "ublkb7/queue", "ublkb70"};
    for (unsigned i = 0; i < 5; i++)
        uevent_make(devices[i]);
    assert_int_equal(ublk_announce(beside("block"), 7), 0);
    for (unsigned i = 5; i > 0; i--)
        assert_int_equal(uevent_take(devices[i - 1]), i <= 3);
    assert_int_equal(rmdir(beside("block")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_record_reads_back_as_it_was_written, setup, teardown),
        cmocka_unit_test_setup_teardown(a_record_that_is_not_there_or_was_removed_is_not_found,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_no_record_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(only_records_of_devices_that_are_gone_are_forgotten, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_device_that_can_not_be_looked_for_is_not_forgotten, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            a_directory_that_is_not_there_has_no_devices_and_one_that_can_not_be_read_is_told,
            setup, teardown),
        cmocka_unit_test(a_record_is_of_a_volume_whatever_pool_that_is_in),
        cmocka_unit_test_setup_teardown(a_device_and_its_partitions_are_announced_and_nothing_else,
                                        setup, teardown),
        cmocka_unit_test(names_of_devices_have_a_number_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
