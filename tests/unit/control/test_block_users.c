/* Who uses a block device, over files as the kernel has them in /proc and /sys. */
#include "control/block_users.h"
#include "tests/lib/temp_tree.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char top[64], proc[80], sys[80];
static struct block_users_roots roots = {proc, sys};

static void open_in(const char *pid, const char *name, const char *target)
{
    char path[200];
    (void)snprintf(path, sizeof(path), "%s/comm", pid);
    temp_tree_put(proc, path, name);
    (void)snprintf(path, sizeof(path), "%s/fd", pid);
    temp_tree_put(proc, path, NULL);
    (void)snprintf(path, sizeof(path), "%s/fd/3", pid);
    temp_tree_link(proc, path, target);
}

static int setup(void **state)
{
    (void)state;
    if (temp_tree_make(top))
        return -1;
    (void)snprintf(proc, sizeof(proc), "%s/proc", top);
    (void)snprintf(sys, sizeof(sys), "%s/sys", top);
    temp_tree_put(sys, "class/block/ublkb7/dev", "259:0\n");
    temp_tree_put(sys, "class/block/ublkb7/holders", NULL);
    temp_tree_put(sys, "class/block/ublkb7/ublkb7p1/partition", "1\n");
    temp_tree_put(sys, "class/block/ublkb7p1/dev", "259:1\n");
    temp_tree_put(sys, "class/block/ublkb7p1/holders", NULL);
    temp_tree_put(sys, "class/block/ublkb70/dev", "259:9\n");
    temp_tree_put(proc, "self/mountinfo", "");
    temp_tree_put(proc, "swaps", "Filename Type Size Used Priority\n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return temp_tree_remove(top);
}

static void assert_users(const char *text)
{
    struct block_users_of of = {.device = "ublkb7"};
    char is[500];
    assert_int_equal(block_users_find(&roots, &of, 1), 0);
    block_users_text(&of.users, is, sizeof(is));
    assert_string_equal(is, text);
}

static void a_device_without_users_has_none(void **state)
{
    (void)state;
    assert_users("");
}

static void a_device_that_is_not_there_has_none(void **state)
{
    (void)state;
    struct block_users_of of = {.device = "ublkb8"};
    assert_int_equal(block_users_find(&roots, &of, 1), 0);
    assert_int_equal(of.users.count, 0);
}

static void mounts_are_found_by_number_also_of_partitions_and_with_blanks(void **state)
{
    (void)state;
    temp_tree_put(proc, "self/mountinfo",
                  "30 1 259:1 / /srv/two\\040words rw - ext4 /dev/root rw\n"
                  "31 1 8:1 / /other rw shared:1 - ext4 /dev/sda1 rw\n"
                  "nonsense\n");
    assert_users("mounted at /srv/two words");
}

static void a_mount_that_is_listed_twice_is_one(void **state)
{
    (void)state;
    temp_tree_put(
        proc, "self/mountinfo",
        "30 1 259:1 / /srv rw - ext4 /dev/root rw\n31 1 259:1 / /srv rw - ext4 /dev/root rw\n");
    assert_users("mounted at /srv");
}

static void a_mount_with_a_number_of_its_own_is_found_by_its_source(void **state)
{
    (void)state;
    temp_tree_put(proc, "self/mountinfo",
                  "30 1 0:44 /sub /srv rw shared:5 - btrfs /dev/ublkb7 rw\n");
    assert_users("mounted at /srv");
}

static void a_source_that_anybody_may_choose_is_no_use(void **state)
{
    (void)state;
    temp_tree_put(proc, "self/mountinfo",
                  "30 1 0:44 / /home/u/a rw - fuse /dev/ublkb7 rw\n"
                  "31 1 0:45 / /home/u/b rw - fuse.btrfs /dev/ublkb7 rw\n");
    assert_users("");
}

static void nothing_that_a_terminal_obeys_is_in_a_name(void **state)
{
    (void)state;
    temp_tree_put(proc, "self/mountinfo",
                  "30 1 259:0 / /a\033[31m\\012\177\302\2331mb\u00fc rw - ext4 x rw\n");
    open_in("12", "\033]0;title\a\n", "/dev/ublkb7");
    assert_users("mounted at /a?[31m????1mb\u00fc; open in ?]0;title? (pid 12)");
}

static void a_device_whose_name_begins_likewise_is_another(void **state)
{
    (void)state;
    temp_tree_put(proc, "self/mountinfo", "30 1 259:9 / /srv rw - ext4 /dev/ublkb70 rw\n");
    open_in("12", "fio\n", "/dev/ublkb70");
    assert_users("");
}

static void holders_are_followed_to_what_uses_them(void **state)
{
    (void)state;
    temp_tree_put(sys, "class/block/ublkb7p1/holders/dm-3/dev", "253:3\n");
    temp_tree_put(sys, "class/block/dm-3/dev", "253:3\n");
    temp_tree_put(sys, "class/block/dm-3/dm/name", "vg-lv\n");
    temp_tree_put(sys, "class/block/dm-3/holders", NULL);
    temp_tree_put(proc, "self/mountinfo", "30 1 253:3 / /srv rw - xfs /dev/mapper/vg-lv rw\n");
    assert_users("held by dm-3 (vg-lv); mounted at /srv");
}

static void swap_and_open_files_are_found(void **state)
{
    (void)state;
    temp_tree_put(proc, "swaps",
                  "Filename\t\tType\t\tSize\tUsed\tPriority\n/dev/ublkb7p1 partition 1 0 -2\n");
    open_in("12", "qemu-system\n", "/dev/ublkb7");
    open_in("13", "cat\n", "/dev/null");
    assert_users("swap on ublkb7p1; open in qemu-system (pid 12)");
}

static void of_many_devices_each_has_its_own_users(void **state)
{
    (void)state;
    char again[128];
    temp_tree_put(proc, "self/mountinfo",
                  "30 1 259:1 / /srv rw - ext4 x rw\n31 1 259:9 / /mnt rw - ext4 x rw\n");
    temp_tree_put(sys, "class/block/ublkb7p1/holders/md0/dev", "9:0\n");
    temp_tree_put(sys, "class/block/ublkb70/holders/md0/dev", "9:0\n");
    temp_tree_put(proc, "swaps", "Filename\n/dev/md0 partition 1 0 -2\n");
    open_in("12", "cmp\n", "/dev/ublkb7");
    (void)snprintf(again, sizeof(again), "%s/12/fd/4", proc);
    assert_int_equal(symlink("/dev/ublkb70", again), 0);
    struct block_users_of of[] = {
        {.device = "ublkb7"}, {.device = "ublkb70"}, {.device = "ublkc7"}};
    static const char *const expected[] = {
        "held by md0; mounted at /srv; swap on md0; open in cmp (pid 12)",
        "held by md0; mounted at /mnt; swap on md0; open in cmp (pid 12)", ""};
    assert_int_equal(block_users_find(&roots, of, 3), 0);
    for (int i = 0; i < 3; i++) {
        char is[500];
        block_users_text(&of[i].users, is, sizeof(is));
        assert_string_equal(is, expected[i]);
    }
}

static void more_users_than_are_told_are_counted(void **state)
{
    (void)state;
    char text[4096] = "";
    size_t at = 0;
    for (unsigned i = 0; i < BLOCK_USERS_MAX + 8; i++)
        at +=
            (size_t)snprintf(text + at, sizeof(text) - at, "30 1 259:0 / /m%u rw - ext4 x rw\n", i);
    temp_tree_put(proc, "self/mountinfo", text);
    assert_users("mounted at /m0; mounted at /m1; mounted at /m2; mounted at /m3; 36 more");
}

static void a_text_that_is_cut_stays_utf8(void **state)
{
    (void)state;
    struct block_users users = {.user = {{.use = BLOCK_MOUNTED, .what = "/\u00fc"}}, .count = 1};
    char text[sizeof("mounted at /") + 1]; /* and half a letter */
    block_users_text(&users, text, sizeof(text));
    assert_string_equal(text, "mounted at /?");
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_device_without_users_has_none),
        T(a_device_that_is_not_there_has_none),
        T(mounts_are_found_by_number_also_of_partitions_and_with_blanks),
        T(a_mount_that_is_listed_twice_is_one),
        T(a_mount_with_a_number_of_its_own_is_found_by_its_source),
        T(a_source_that_anybody_may_choose_is_no_use),
        T(nothing_that_a_terminal_obeys_is_in_a_name),
        T(a_device_whose_name_begins_likewise_is_another),
        T(holders_are_followed_to_what_uses_them),
        T(swap_and_open_files_are_found),
        T(of_many_devices_each_has_its_own_users),
        T(more_users_than_are_told_are_counted),
        T(a_text_that_is_cut_stays_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
