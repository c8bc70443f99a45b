/* Block devices and files: transfers, errors, locks, many at once, every way of the kernel.
 * threads: yes */
#include "io/buffer.h"
#include "io/device.h"
#include "tests/lib/on_reactor.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE  (8U << 20)
#define BLOCK 4096U

static char path[256];

/* ---- files to work on ----------------------------------------------------------------------- */

static bool make_file(const char *dir, uint64_t size)
{
    (void)snprintf(path, sizeof(path), "%s/vpool-test-XXXXXX", dir);
    int fd = mkstemp(path);
    if (fd < 0)
        return false;
    bool ok = ftruncate(fd, (off_t)size) == 0;
    close(fd);
    return ok;
}

/* On a file system with a disk behind it: the build folder's, or where else the test runs. */
static int disk_file(void **state)
{
    (void)state;
    return make_file(access("build", W_OK) == 0 ? "build" : ".", SIZE) ? 0 : -1;
}

static int memory_file(void **state)
{
    (void)state;
    return make_file("/dev/shm", SIZE) ? 0 : -1;
}

static int remove_file(void **state)
{
    (void)state;
    unsetenv("VPOOL_IO_DISABLE");
    return unlink(path);
}

static struct io_dev *open_or_fail(unsigned flags)
{
    struct io_dev *dev = NULL;
    struct vp_error err = {0};
    if (io_dev_open(path, flags, &dev, &err) != 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        abort();
    }
    return dev;
}

/* ---- transfers ----------------------------------------------------------------------------- */

static void fill(unsigned char *buf, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t v = (seed + i) * 0x9e3779b97f4a7c15ULL;
        memcpy(buf + i, &v, 8);
    }
}

static bool is_filled(const unsigned char *buf, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i += 8) {
        uint64_t v = (seed + i) * 0x9e3779b97f4a7c15ULL;
        if (memcmp(buf + i, &v, 8) != 0)
            return false;
    }
    return true;
}

/* What sysfs says of the disk that holds the file, or 512. */
static unsigned atomic_below(const char *file)
{
    struct stat st;
    char name[100];
    unsigned physical = 0;
    assert_int_equal(stat(file, &st), 0);
    for (unsigned i = 0; i < 2 && !physical; i++) {
        (void)snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/%squeue/physical_block_size",
                       major(st.st_dev), minor(st.st_dev), i ? "../" : "");
        FILE *f = fopen(name, "re");
        if (f && fscanf(f, "%u", &physical) != 1)
            physical = 0;
        if (f)
            (void)fclose(f);
    }
    return physical >= 4096 ? 4096 : 512;
}

static void write_read_discard(void *arg)
{
    (void)arg;
    struct io_dev *dev = open_or_fail(0);
    const struct io_dev_info *info = io_dev_info(dev);
    check_equal(info->size_bytes, SIZE);
    check(info->is_file);
    check_equal(info->atomic_bytes, atomic_below(path));
    unsigned char *a = io_buffer_get(256 << 10), *b = io_buffer_get(256 << 10);
    fill(a, 256 << 10, 7);
    check_ok(io_dev_write(dev, 1 << 20, a, 256 << 10, 0));
    check_ok(io_dev_write(dev, 2 << 20, a, BLOCK, IO_FUA));
    check_ok(io_dev_flush(dev));
    memset(b, 0, 256 << 10);
    check_ok(io_dev_read(dev, 1 << 20, b, 256 << 10));
    check(is_filled(b, 256 << 10, 7));
    check_ok(io_dev_discard(dev, 1 << 20, BLOCK));
    check_ok(io_dev_zero(dev, (1 << 20) + 2 * BLOCK, BLOCK));
    check_ok(io_dev_read(dev, 1 << 20, b, 256 << 10));
    check(memcmp(b + 2 * BLOCK, io_zeros, BLOCK) == 0);
    check(memcmp(b + BLOCK, a + BLOCK, BLOCK) == 0);
    check_ok(io_dev_write(dev, 0, io_zeros, 1 << 20, 0));
    check_ok(io_dev_write(dev, 0, a, 0, 0));
    io_buffer_put(a, 256 << 10);
    io_buffer_put(b, 256 << 10);
    io_dev_close(dev);
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    on_reactor(NULL, write_read_discard, NULL);
    assert_checked();
}

static void everything_works_without(const char *features)
{
    setenv("VPOOL_IO_DISABLE", features, 1);
    on_reactor(NULL, write_read_discard, NULL);
    unsetenv("VPOOL_IO_DISABLE");
    assert_checked();
}

static void the_kernels_features_can_be_missing_one_by_one_and_all(void **state)
{
    (void)state;
    everything_works_without("defer_taskrun");
    everything_works_without("single_issuer");
    everything_works_without("fixed_buffers");
    everything_works_without("inline_io");
    everything_works_without("single_issuer,defer_taskrun,coop_taskrun,fixed_buffers,inline_io");
}

static void look_at_features(void *arg)
{
    *(struct reactor_features *)arg = reactor_features(reactor_self());
}

static void disabled_features_are_off(void **state)
{
    (void)state;
    struct reactor_features f;
    on_reactor(NULL, look_at_features, &f);
    print_message("single_issuer %d, defer_taskrun %d, fixed_buffers %d\n", f.single_issuer,
                  f.defer_taskrun, f.fixed_buffers);
    setenv("VPOOL_IO_DISABLE", "single_issuer,fixed_buffers", 1);
    on_reactor(NULL, look_at_features, &f);
    unsetenv("VPOOL_IO_DISABLE");
    assert_false(f.single_issuer || f.defer_taskrun || f.fixed_buffers);
}

static void read_into_plain_memory(void *arg)
{
    (void)arg;
    struct io_dev *dev = open_or_fail(0);
    unsigned char *mem = aligned_alloc(4096, 16 << 10);
    fill(mem, 16 << 10, 3);
    check_ok(io_dev_write(dev, 0, mem, 16 << 10, 0));
    memset(mem, 0, 16 << 10);
    check_ok(io_dev_read(dev, 0, mem, 16 << 10));
    check(is_filled(mem, 16 << 10, 3));
    free(mem);
    io_dev_close(dev);
}

static void memory_outside_of_the_region_works_too(void **state)
{
    (void)state;
    on_reactor(NULL, read_into_plain_memory, NULL);
    assert_checked();
}

/* ---- many at once -------------------------------------------------------------------------- */

#define MANY 5000U

static void thousands(void *arg)
{
    (void)arg;
    struct io_dev *dev = open_or_fail(0);
    struct io_op *op = calloc(MANY, sizeof(*op));
    unsigned char *buf = io_buffer_get(1 << 20), *back = io_buffer_get(1 << 20);
    fill(buf, 1 << 20, 11);
    struct io_batch b;
    io_batch_init(&b);
    for (unsigned i = 0; i < MANY; i++) {
        uint64_t at = (uint64_t)(i % 256) * BLOCK;
        io_op_set(&op[i], dev, IO_WRITE, at, buf + at, BLOCK, 0);
        io_batch_add(&b, &op[i]);
    }
    check_ok(io_batch_wait(&b));
    io_batch_init(&b);
    for (unsigned i = 0; i < MANY; i++) {
        uint64_t at = (uint64_t)(i % 256) * BLOCK;
        io_op_set(&op[i], dev, IO_READ, at, back + at, BLOCK, 0);
        io_batch_add(&b, &op[i]);
    }
    check_ok(io_batch_wait(&b));
    check(is_filled(back, 1 << 20, 11));
    io_buffer_put(buf, 1 << 20);
    io_buffer_put(back, 1 << 20);
    free(op);
    io_dev_close(dev);
}

static void thousands_of_operations_pass_a_ring_of_eight(void **state)
{
    (void)state;
    struct reactor_config small = {.ring_entries = 8, .max_coroutines = 4};
    on_reactor(&small, thousands, NULL);
    assert_checked();
}

static void an_overflowing_completion_queue_loses_nothing(void **state)
{
    (void)state;
    struct reactor_config small = {.ring_entries = 8, .max_coroutines = 4};
    setenv("VPOOL_IO_DISABLE", "inflight_limit", 1);
    on_reactor(&small, thousands, NULL);
    unsetenv("VPOOL_IO_DISABLE");
    assert_checked();
}

static void parallel_writer(void *arg)
{
    struct io_dev *dev = arg;
    unsigned char *buf = io_buffer_get(64 << 10);
    for (unsigned i = 0; i < 50; i++)
        check_ok(io_dev_write(dev, (i % 16) * (64U << 10), buf, 64 << 10, 0));
    io_buffer_put(buf, 64 << 10);
}

static void need_threads(void)
{
    if (reactor_threads_work())
        return;
    print_message("two reactors cannot run under valgrind\n");
    skip();
}

static struct io_dev *shared;

static void spawn_writers(void *arg)
{
    (void)arg;
    for (int i = 0; i < 8; i++)
        check_ok(co_spawn(parallel_writer, shared, "writer"));
}

static int run_writers(void *arg)
{
    (void)arg;
    parallel_writer(shared);
    return 0;
}

static void close_shared(void *arg)
{
    (void)arg;
    io_dev_close(shared);
    shared = open_or_fail(0); /* nobody holds the lock any more */
    io_dev_close(shared);
}

static void a_device_serves_two_reactors_and_closes_in_a_third(void **state)
{
    (void)state;
    need_threads();
    shared = open_or_fail(0);
    struct reactor_thread *a = reactor_thread_start(NULL), *b = reactor_thread_start(NULL);
    assert_int_equal(reactor_post(reactor_thread_reactor(a), spawn_writers, NULL, "a"), 0);
    assert_int_equal(reactor_call_blocking(reactor_thread_reactor(b), run_writers, NULL), 0);
    assert_int_equal(reactor_call_blocking(reactor_thread_reactor(a), run_writers, NULL), 0);
    reactor_thread_join(a); /* its writers are done with the device */
    on_reactor(NULL, close_shared, NULL);
    reactor_thread_join(b); /* it ran, and let go of the device when told to */
    assert_checked();
}

/* ---- errors -------------------------------------------------------------------------------- */

static void beyond_the_end(void *arg)
{
    (void)arg;
    struct io_dev *dev = open_or_fail(0);
    unsigned char *buf = io_buffer_get(2 * BLOCK);
    check_equal(io_dev_read(dev, SIZE - BLOCK, buf, 2 * BLOCK), VP_E_IO_SHORT);
    check_equal(io_dev_write(dev, SIZE, buf, BLOCK, 0), VP_E_IO_SHORT);
    check_equal(io_dev_read(dev, UINT64_MAX - BLOCK + 1, buf, BLOCK), VP_E_IO_SHORT);
    check_equal(truncate(path, SIZE / 2), 0); /* behind our back */
    check_equal(io_dev_read(dev, SIZE / 2 - BLOCK, buf, 2 * BLOCK), VP_E_IO_SHORT);
    check_equal(io_dev_read(dev, SIZE - BLOCK, buf, BLOCK), VP_E_IO_SHORT);
    check_ok(io_dev_read(dev, 0, buf, BLOCK));
    io_buffer_put(buf, 2 * BLOCK);
    io_dev_close(dev);
}

static void a_read_past_the_end_is_short(void **state)
{
    (void)state;
    on_reactor(NULL, beyond_the_end, NULL);
    assert_checked();
}

static void a_second_opener_is_refused(void **state)
{
    (void)state;
    struct vp_error err = {0};
    struct io_dev *first = open_or_fail(0), *second = NULL;
    assert_int_equal(io_dev_open(path, 0, &second, &err), VP_E_IO_BUSY_DEVICE);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(io_dev_open(path, IO_OPEN_READ_ONLY, &second, &err), VP_E_IO_BUSY_DEVICE);
    assert_int_equal(io_dev_open(path, IO_OPEN_READ_ONLY | IO_OPEN_SHARED, &second, &err), 0);
    io_dev_close(second);
    io_dev_close(first);
    assert_int_equal(io_dev_open(path, 0, &first, &err), 0);
    io_dev_close(first);
    io_dev_close(NULL);
}

static void what_is_not_a_disk_is_refused(void **state)
{
    (void)state;
    struct vp_error err = {0};
    struct io_dev *dev = NULL;
    assert_int_equal(io_dev_open("/nonexistent/disk", 0, &dev, &err), VP_E_NOT_FOUND);
    assert_non_null(strstr(err.text, "/nonexistent/disk"));
    assert_int_equal(io_dev_open("/dev/null", 0, &dev, &err), VP_E_NOT_SUPPORTED);
    assert_int_equal(io_dev_open("/dev", 0, &dev, &err), VP_E_NOT_SUPPORTED);
    assert_null(dev);
}

static void write_read_only(void *arg)
{
    (void)arg;
    struct io_dev *dev = open_or_fail(IO_OPEN_READ_ONLY);
    unsigned char *buf = io_buffer_get(BLOCK);
    check_ok(io_dev_read(dev, 0, buf, BLOCK));
    check(io_dev_write(dev, 0, buf, BLOCK, 0) != 0);
    io_buffer_put(buf, BLOCK);
    io_dev_close(dev);
}

static void a_device_opened_for_reading_refuses_writes(void **state)
{
    (void)state;
    on_reactor(NULL, write_read_only, NULL);
    assert_checked();
}

/* ---- loop devices -------------------------------------------------------------------------- */

static char loop[64];

static bool loop_attach(void)
{
    char command[512];
    (void)snprintf(command, sizeof(command), "losetup --find --show %s 2>/dev/null", path);
    FILE *p = popen(command, "re");
    if (!p)
        return false;
    bool ok = fgets(loop, sizeof(loop), p) != NULL;
    ok = pclose(p) == 0 && ok;
    loop[strcspn(loop, "\n")] = '\0';
    return ok;
}

static void use_loop_device(void *arg)
{
    (void)arg;
    char file[sizeof(path)];
    memcpy(file, path, sizeof(path));
    memcpy(path, loop, sizeof(loop));
    struct io_dev *dev = open_or_fail(0), *second = NULL;
    memcpy(path, file, sizeof(path));
    check_equal(io_dev_open(loop, 0, &second, NULL), VP_E_IO_BUSY_DEVICE);
    const struct io_dev_info *info = io_dev_info(dev);
    check_equal(info->size_bytes, SIZE);
    check(!info->is_file);
    check(info->sector_bytes == 512 || info->sector_bytes == 4096);
    unsigned char *a = io_buffer_get(64 << 10), *b = io_buffer_get(64 << 10);
    fill(a, 64 << 10, 5);
    check_ok(io_dev_write(dev, 4096, a, 64 << 10, IO_FUA));
    check_ok(io_dev_flush(dev));
    check_ok(io_dev_read(dev, 4096, b, 64 << 10));
    check(is_filled(b, 64 << 10, 5));
    if (info->can_zero) {
        check_ok(io_dev_zero(dev, 4096, BLOCK));
        check_ok(io_dev_read(dev, 4096, b, BLOCK));
        check(memcmp(b, io_zeros, BLOCK) == 0);
    }
    if (info->can_discard)
        check_ok(io_dev_discard(dev, 0, 64 << 10));
    check_equal(io_dev_read(dev, SIZE, b, BLOCK), VP_E_IO_SHORT);
    io_buffer_put(a, 64 << 10);
    io_buffer_put(b, 64 << 10);
    io_dev_close(dev);
}

static void a_block_device_works_as_a_file_does(void **state)
{
    (void)state;
    if (!loop_attach()) {
        print_message("no loop devices here (losetup failed: not root, or no kernel support)\n");
        skip();
    }
    on_reactor(NULL, use_loop_device, NULL);
    setenv("VPOOL_IO_DISABLE", "fixed_buffers", 1);
    on_reactor(NULL, use_loop_device, NULL);
    unsetenv("VPOOL_IO_DISABLE");
    char command[128];
    (void)snprintf(command, sizeof(command), "losetup -d %s", loop);
    assert_int_equal(system(command), 0);
    assert_checked();
}

#define ON_BOTH(test)                                                                              \
    {#test " (disk)", test, disk_file, remove_file, NULL},                                         \
    {                                                                                              \
#test " (memory)", test, memory_file, remove_file, NULL                                    \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(what_was_written_is_read),
        ON_BOTH(the_kernels_features_can_be_missing_one_by_one_and_all),
        ON_BOTH(memory_outside_of_the_region_works_too),
        ON_BOTH(thousands_of_operations_pass_a_ring_of_eight),
        ON_BOTH(an_overflowing_completion_queue_loses_nothing),
        ON_BOTH(a_device_serves_two_reactors_and_closes_in_a_third),
        ON_BOTH(a_read_past_the_end_is_short),
        ON_BOTH(a_second_opener_is_refused),
        ON_BOTH(a_device_opened_for_reading_refuses_writes),
        cmocka_unit_test(disabled_features_are_off),
        cmocka_unit_test(what_is_not_a_disk_is_refused),
        cmocka_unit_test_setup_teardown(a_block_device_works_as_a_file_does, disk_file,
                                        remove_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
