/* Memory that outlives the process, as the system gives it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "io/keep.h"
#include "tests/lib/on_reactor.h"

static int count_names(const char *found, void *arg)
{
    (void)found;
    ++*(unsigned *)arg;
    return 0;
}

static void body_shared_memory(void *arg)
{
    (void)arg;
    char own[64], back[8] = "";
    unsigned n = 0;
    uint64_t random;
    struct io_keep k;
    reactor_random(&random, sizeof(random));
    (void)snprintf(own, sizeof(own), "vpool-test-%llx", (unsigned long long)random);
    check_ok(io_keep_new(own, 1 << 16, &k));
    check_ok(io_keep_reserve(&k, 4096, 8192));
    check(!io_keep_has_room(&k, SIZE_MAX / 4));
    memcpy(k.base + 4096, "kept", 5);
    io_keep_close(&k);
    check_ok(io_keep_poke(own, 4096, "K", 1));
    check_ok(io_keep_read(own, 4096, back, 5));
    check(strcmp(back, "Kept") == 0);
    check_equal(io_keep_read(own, (1 << 16) - 2, back, 5), VP_E_IO_SHORT);
    check_ok(io_keep_each(own, count_names, &n));
    check_equal(n, 1);
    check_ok(io_keep_new(own, 4096, &k)); /* in its place, empty */
    io_keep_close(&k);
    check_ok(io_keep_read(own, 0, back, 5));
    check(back[0] == 0);
    io_keep_remove(own);
    check_equal(io_keep_read(own, 0, back, 5), VP_E_NOT_FOUND);
    unsigned char boot[IO_BOOT_ID_BYTES], zero[IO_BOOT_ID_BYTES] = {0};
    check_ok(io_boot_id(boot));
    check(memcmp(boot, zero, sizeof(boot)) != 0);
}
static void shared_memory_stays_under_its_name_until_it_is_removed(void **state)
{
    (void)state;
    on_reactor(NULL, body_shared_memory, NULL);
    assert_checked();
}

/* Without a free descriptor nothing can be looked at, which is not the same as nothing there. */
static void body_no_descriptor(void *arg)
{
    (void)arg;
    char own[64], byte;
    unsigned n = 0;
    bool owned;
    uint64_t random;
    struct io_keep k;
    struct rlimit limit;
    unsigned char boot[IO_BOOT_ID_BYTES];
    reactor_random(&random, sizeof(random));
    (void)snprintf(own, sizeof(own), "vpool-test-%llx", (unsigned long long)random);
    check_ok(io_keep_new(own, 4096, &k));
    check_ok(io_keep_is_owned(own, &owned));
    check(owned);
    check(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    check(setrlimit(RLIMIT_NOFILE, &(struct rlimit){.rlim_max = limit.rlim_max}) == 0);
    check_equal(io_keep_each(own, count_names, &n), VP_E_NO_MEMORY);
    check_equal(io_keep_is_owned(own, &owned), VP_E_NO_MEMORY);
    check_equal(io_keep_read(own, 0, &byte, 1), VP_E_NO_MEMORY);
    check_equal(io_boot_id(boot), VP_E_NO_MEMORY);
    check(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    io_keep_close(&k);
    check_ok(io_keep_is_owned(own, &owned));
    check(!owned);
    io_keep_remove(own);
}
static void a_shortage_of_descriptors_is_an_error(void **state)
{
    (void)state;
    on_reactor(NULL, body_no_descriptor, NULL);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_memory_stays_under_its_name_until_it_is_removed),
        cmocka_unit_test(a_shortage_of_descriptors_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
