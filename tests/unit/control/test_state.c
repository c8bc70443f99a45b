/* The state directory: its lock, and the cache of pools. */
#include "control/state.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof(dir), "/tmp/vpool-unit.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static void remove_in_dir(const char *name)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)unlink(path);
}

static int teardown(void **state)
{
    (void)state;
    remove_in_dir("vpoold.lock");
    remove_in_dir("pools.json");
    remove_in_dir("moves.json");
    return rmdir(dir);
}

static void the_second_lock_is_refused_and_names_the_first(void **state)
{
    (void)state;
    struct vp_error err = {0};
    int first = -1, second = -1;
    assert_int_equal(state_lock(dir, &first, &err), 0);
    assert_int_equal(state_lock(dir, &second, &err), VP_E_BUSY);
    char pid[24];
    (void)snprintf(pid, sizeof(pid), "(pid %ld)", (long)getpid());
    assert_non_null(strstr(err.text, pid));
    close(first);
    assert_int_equal(state_lock(dir, &second, &err), 0);
    close(second);
}

static void a_missing_parent_directory_is_refused(void **state)
{
    (void)state;
    struct vp_error err = {0};
    int fd = -1;
    assert_int_equal(state_lock("/no/such/place", &fd, &err), VP_E_NOT_FOUND);
    assert_non_null(strstr(err.text, "/no/such/place"));
}

static void a_lock_is_tried_without_taking_it(void **state)
{
    (void)state;
    struct vp_error err = {0};
    int fd = -1;
    assert_int_equal(state_lock_try(dir, &err), VP_E_NOT_FOUND);
    assert_non_null(strstr(err.text, "vpoold.lock"));
    assert_int_equal(state_lock(dir, &fd, &err), 0);
    assert_int_equal(state_lock_try(dir, &err), 0);
    close(fd);
    assert_int_equal(state_lock_try(dir, &err), 0);
    assert_int_equal(state_lock(dir, &fd, &err), 0);
    close(fd);
}

static void no_cache_is_an_empty_one(void **state)
{
    (void)state;
    struct vp_error err = {0};
    json_t *cache = NULL;
    assert_int_equal(state_load(dir, STATE_POOLS, &cache, &err), 0);
    assert_int_equal(json_array_size(json_object_get(cache, "pools")), 0);
    json_decref(cache);
}

static void what_was_saved_is_loaded(void **state)
{
    (void)state;
    struct vp_error err = {0};
    json_t *cache = NULL;
    assert_int_equal(state_save(dir, STATE_POOLS, "{\"pools\": [1]}", NULL), 0);
    assert_int_equal(state_save(dir, STATE_POOLS, "{\"pools\": [1, 2]}", NULL), 0);
    assert_int_equal(state_load(dir, STATE_POOLS, &cache, &err), 0);
    assert_int_equal(json_array_size(json_object_get(cache, "pools")), 2);
    json_decref(cache);
}

static void the_reports_of_moves_have_a_file_of_their_own(void **state)
{
    (void)state;
    struct vp_error err = {0};
    json_t *file = NULL;
    assert_int_equal(state_save(dir, STATE_POOLS, "{\"pools\": [1]}", NULL), 0);
    assert_int_equal(state_load(dir, STATE_MOVES, &file, &err), 0);
    assert_int_equal(json_array_size(json_object_get(file, "moves")), 0);
    json_decref(file);
    assert_int_equal(state_save(dir, STATE_MOVES, "{\"moves\": [1, 2, 3]}", NULL), 0);
    assert_int_equal(state_load(dir, STATE_MOVES, &file, &err), 0);
    assert_int_equal(json_array_size(json_object_get(file, "moves")), 3);
    json_decref(file);
    assert_int_equal(state_save(dir, STATE_MOVES, "{\"pools\": []}", NULL), 0);
    assert_int_equal(state_load(dir, STATE_MOVES, &file, &err), VP_E_INVALID);
    assert_non_null(strstr(err.text, "moves.json: no list of moves"));
}

static void a_damaged_cache_is_an_error_that_names_it(void **state)
{
    (void)state;
    static const char *const damaged[] = {"", "{", "[]", "{\"pools\": 1}", "{}"};
    for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
        struct vp_error err = {0};
        json_t *cache = NULL;
        assert_int_equal(state_save(dir, STATE_POOLS, damaged[i], NULL), 0);
        assert_int_equal(state_load(dir, STATE_POOLS, &cache, &err), VP_E_INVALID);
        assert_non_null(strstr(err.text, "pools.json"));
    }
}

static void a_cache_that_cannot_be_looked_at_is_an_error(void **state)
{
    (void)state;
    char path[128];
    struct vp_error err = {0};
    json_t *cache = NULL;
    (void)snprintf(path, sizeof(path), "%s/pools.json", dir);
    assert_int_equal(symlink("pools.json", path), 0); /* ELOOP */
    assert_int_not_equal(state_load(dir, STATE_POOLS, &cache, &err), 0);
    assert_null(cache);
    assert_non_null(strstr(err.text, "pools.json: Too many levels of symbolic links"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_second_lock_is_refused_and_names_the_first, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_lock_is_tried_without_taking_it, setup, teardown),
        cmocka_unit_test(a_missing_parent_directory_is_refused),
        cmocka_unit_test_setup_teardown(no_cache_is_an_empty_one, setup, teardown),
        cmocka_unit_test_setup_teardown(the_reports_of_moves_have_a_file_of_their_own, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_was_saved_is_loaded, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_cache_is_an_error_that_names_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cache_that_cannot_be_looked_at_is_an_error, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
