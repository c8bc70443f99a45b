/* What a disk stands on, over a tree as the kernel has it in /sys. */
#include "control/block_below.h"
#include "tests/lib/temp_tree.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

static char top[64], sys[80];
static struct block_users_roots roots = {"/nonexistent", sys};
static char name_of[2][BLOCK_NAME_MAX] = {"ublkb1", "ublkb7"};
static const struct block_names names = {name_of, 2};

static void put(const char *path, const char *text)
{
    temp_tree_put(sys, path, text);
}

static void link_to(const char *path, const char *target)
{
    char to[300];
    (void)snprintf(to, sizeof(to), "%s/%s", sys, target);
    temp_tree_link(sys, path, to);
}

/* A device at `folder` (of /sys/devices) with its number and name. */
static void device(const char *folder, const char *number, const char *name)
{
    char path[200], text[200], target[200];
    (void)snprintf(path, sizeof(path), "devices/%s/dev", folder);
    (void)snprintf(text, sizeof(text), "%s\n", number);
    put(path, text);
    (void)snprintf(path, sizeof(path), "devices/%s/uevent", folder);
    (void)snprintf(text, sizeof(text), "MAJOR=1\nDEVNAME=%s\nDEVTYPE=disk\n", name);
    put(path, text);
    (void)snprintf(path, sizeof(path), "dev/block/%s", number);
    (void)snprintf(target, sizeof(target), "devices/%s", folder);
    link_to(path, target);
}

/* sda, ublkb7 and ublkb70; ublkb7p1; dm-0 on ublkb7p1, md1 on sda and dm-0; dm-9 on itself. */
static int setup(void **state)
{
    (void)state;
    if (temp_tree_make(top))
        return -1;
    (void)snprintf(sys, sizeof(sys), "%s/sys", top);
    device("sda", "8:0", "sda");
    device("ublkb7", "259:0", "ublkb7");
    device("ublkb70", "259:9", "ublkb70");
    device("ublkb7/ublkb7p1", "259:1", "ublkb7p1");
    put("devices/ublkb7/ublkb7p1/partition", "1\n");
    device("dm-0", "253:0", "dm-0");
    link_to("devices/dm-0/slaves/ublkb7p1", "devices/ublkb7/ublkb7p1");
    device("md1", "9:1", "md1");
    link_to("devices/md1/slaves/sda", "devices/sda");
    link_to("devices/md1/slaves/dm-0", "devices/dm-0");
    device("dm-9", "253:9", "dm-9");
    link_to("devices/dm-9/slaves/dm-9", "devices/dm-9");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return temp_tree_remove(top);
}

static const char *below(unsigned major_number, unsigned minor_number)
{
    const char *found = block_below(&roots, makedev(major_number, minor_number), &names);
    return found ? found : "none";
}

static void a_device_is_below_itself_its_partitions_and_what_is_made_of_them(void **state)
{
    (void)state;
    assert_string_equal(below(259, 0), "ublkb7");
    assert_string_equal(below(259, 1), "ublkb7");
    assert_string_equal(below(253, 0), "ublkb7");
    assert_string_equal(below(9, 1), "ublkb7");
}

static void other_devices_stand_on_none(void **state)
{
    (void)state;
    assert_string_equal(below(8, 0), "none");
    assert_string_equal(below(259, 9), "none"); /* ublkb70 */
    assert_string_equal(below(77, 7), "none");  /* nothing there */
    assert_string_equal(below(253, 9), "none"); /* a circle ends */
}

/* Sixteen layers of four volumes, each on all four of the layer below: 4^15 ways to the disk. */
static void what_many_ways_lead_to_is_looked_at_once(void **state)
{
    (void)state;
    enum { LAYERS = 15, WIDTH = 4 };
    char name[32], number[32], link[100], target[100];
    for (unsigned i = 0; i < LAYERS * WIDTH; i++) {
        (void)snprintf(name, sizeof(name), "dm-%u", 100 + i);
        (void)snprintf(number, sizeof(number), "253:%u", 100 + i);
        device(name, number, name);
        for (unsigned k = 0; k < WIDTH && i >= WIDTH; k++) {
            unsigned below_it = 100 + (i / WIDTH - 1) * WIDTH + k;
            (void)snprintf(link, sizeof(link), "devices/%s/slaves/dm-%u", name, below_it);
            (void)snprintf(target, sizeof(target), "devices/dm-%u", below_it);
            link_to(link, target);
        }
    }
    assert_string_equal(below(253, 100 + LAYERS * WIDTH - 1), "none");
    link_to("devices/dm-100/slaves/ublkb7", "devices/ublkb7");
    assert_string_equal(below(253, 100 + LAYERS * WIDTH - 1), "ublkb7");
}

/* The file system of the temporary directory gets a device in the tree. */
static void a_file_stands_on_its_file_systems_device_before_it_is_there_too(void **state)
{
    (void)state;
    struct stat st;
    char number[32], file[100], loop[120];
    assert_int_equal(stat(top, &st), 0);
    (void)snprintf(file, sizeof(file), "%s/disk.img", top);
    assert_null(block_below_path(&roots, file, &names));
    (void)snprintf(number, sizeof(number), "%u:%u", major(st.st_dev), minor(st.st_dev));
    device("ublkb1", number, "ublkb1");
    assert_string_equal(block_below_path(&roots, file, &names), "ublkb1");
    put("../disk.img", "");
    assert_string_equal(block_below_path(&roots, file, &names), "ublkb1");

    device("loop3", "7:3", "loop3");
    (void)snprintf(loop, sizeof(loop), "%s\n", file);
    put("devices/loop3/loop/backing_file", loop);
    assert_string_equal(below(7, 3), "ublkb1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            a_device_is_below_itself_its_partitions_and_what_is_made_of_them, setup, teardown),
        cmocka_unit_test_setup_teardown(other_devices_stand_on_none, setup, teardown),
        cmocka_unit_test_setup_teardown(what_many_ways_lead_to_is_looked_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_file_stands_on_its_file_systems_device_before_it_is_there_too, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
