/* Flushes of one disk from several reactors at the same time: the turns of raid/flush.c. Meant for
 * ThreadSanitizer above all; what a failed flush does to a mirror is in test_mirror.c.
 * threads: yes, valgrind: no. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "raid/raid.h"
#include "tests/lib/on_reactor.h"

enum { THREADS = 3, CALLERS = 8, FLUSHES = 30, FLUSHES_ALL = THREADS * CALLERS * FLUSHES };

static char path[] = "/tmp/vpool-flush-XXXXXX";
static struct raid_disk disk;
static _Atomic unsigned ended, failed, ejections;
static unsigned fails_after; /* so many flushes, the device fails; 0: never */

static int note_eject(struct raid_disk *d, int rc, const char *why)
{
    (void)rc;
    (void)why;
    atomic_fetch_add(&ejections, 1);
    atomic_store(&d->in_service, false);
    atomic_store(&d->eject_pending, false);
    return 0;
}

/* What a completed write leaves to be flushed; what raid_flush promises is looked at. */
static void caller_main(void *arg)
{
    (void)arg;
    struct raid_disk *const disks[] = {&disk};
    for (unsigned i = 0; i < FLUSHES; i++) {
        uint64_t mine = atomic_fetch_add(&disk.writes_done, 1) + 1;
        if (fails_after && mine == fails_after)
            atomic_store(&disk.flush_failed, VP_E_IO);
        check_ok(raid_flush(disks, 1));
        if (atomic_load(&disk.in_service))
            check(atomic_load(&disk.writes_flushed) >= mine);
        else
            atomic_fetch_add(&failed, 1);
    }
    atomic_fetch_add(&ended, 1);
}

static void callers_spawn(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < CALLERS; i++)
        check_ok(co_spawn(caller_main, NULL, "caller"));
}

static void flush_from_all_reactors(unsigned fails)
{
    fails_after = fails;
    disk = (struct raid_disk){.eject = note_eject};
    atomic_store(&disk.in_service, true);
    atomic_store(&ended, 0);
    atomic_store(&failed, 0);
    atomic_store(&ejections, 0);
    struct vp_error err;
    assert_int_equal(io_dev_open(path, 0, &disk.dev, &err), 0);
    assert_true(io_dev_info(disk.dev)->write_cache);
    struct reactor_thread *thread[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        thread[i] = reactor_thread_start(&(struct reactor_config){.index = i});
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(
            reactor_post(reactor_thread_reactor(thread[i]), callers_spawn, NULL, "callers"), 0);
    for (unsigned i = 0; i < THREADS; i++)
        reactor_thread_join(thread[i]); /* when its coroutines have ended */
    io_dev_close(disk.dev);
    assert_int_equal(atomic_load(&ended), THREADS * CALLERS);
    assert_null(atomic_load(&disk.flush_turn));
    assert_checked();
}

static void flushes_from_three_reactors_cover_what_was_written_and_share_turns(void **state)
{
    (void)state;
    flush_from_all_reactors(0);
    assert_int_equal(atomic_load(&disk.writes_flushed), FLUSHES_ALL);
    assert_true(figure_get(&disk.figures.flushes) < FLUSHES_ALL);
    assert_int_equal(atomic_load(&failed), 0);
}

static void a_disk_that_fails_a_flush_is_flushed_no_more_from_any_reactor(void **state)
{
    (void)state;
    flush_from_all_reactors(FLUSHES_ALL / 2);
    assert_true(atomic_load(&ejections) > 0);
    assert_true(atomic_load(&failed) > 0);
    assert_true(atomic_load(&disk.writes_flushed) < FLUSHES_ALL);
}

static int file_make(void **state)
{
    (void)state;
    vp_log_set_level(VP_LOG_ERROR);
    int fd = mkstemp(path);
    int rc = fd < 0 || ftruncate(fd, 1 << 20);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

static int file_remove(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flushes_from_three_reactors_cover_what_was_written_and_share_turns),
        cmocka_unit_test(a_disk_that_fails_a_flush_is_flushed_no_more_from_any_reactor),
    };
    return cmocka_run_group_tests(tests, file_make, file_remove);
}
