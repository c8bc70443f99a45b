/* What is counted of a volume's requests, and how long they took. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCK = 4096, LEN = 1 << 20 };
static uint8_t data[LEN] __attribute__((aligned(4096)));

static bool is_between(const struct histogram *h, uint64_t least_ns, uint64_t most_ns)
{
    return histogram_permille_ns(h, 0) >= least_ns && histogram_permille_ns(h, 999) <= most_ns;
}

/* The simulated disks take 1 to 100 us, and time stands still while code runs. */
static CO void requests(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", LEN);
    struct volume_info info;
    if (!v)
        return;
    check_ok(volume_info_get(s->vs, "v", &info));
    const struct volume_figures *f = info.figures;
    memset(data, 1, LEN);
    check_ok(volume_read(v, 0, BLOCK, data)); /* a hole: no disk is asked */
    check(is_between(f->read_latency, 0, 127));
    for (unsigned i = 0; i < 16; i++)
        check_ok(volume_write(v, i * BLOCK, 2 * BLOCK, data, 0));
    check_ok(volume_flush(v));
    check_ok(volume_discard(v, 0, BLOCK, 0));
    check_ok(volume_read(v, BLOCK, BLOCK, data));
    check_equal(figure_get(&f->reads), 2);
    check_equal(figure_get(&f->bytes_read), 2 * BLOCK);
    check_equal(figure_get(&f->writes), 16);
    check_equal(figure_get(&f->bytes_written), 32 * BLOCK);
    check_equal(figure_get(&f->flushes), 1);
    check_equal(figure_get(&f->discards), 1);
    check_equal(figure_get(&f->waiting_for_space), 0);
    check_equal(histogram_count(f->read_latency), 2);
    check(is_between(f->read_latency, 0, 115000) &&
          histogram_permille_ns(f->read_latency, 999) >= 1000);
    check_equal(histogram_count(f->write_latency), 16);
    check(is_between(f->write_latency, 1000, 500000));
    check_equal(histogram_count(f->flush_latency), 1);
    check(is_between(f->flush_latency, 2000, 500000)); /* the disk and the log */
}

static void requests_are_counted_with_their_latencies(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 1});
    sim_volumes_run(s, requests);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- over a volume's life -------------------------------------------------------------------- */

static CO void close_and_open(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", LEN);
    struct volume_info info;
    if (!v)
        return;
    memset(data, 1, LEN);
    check_ok(volume_write(v, 0, BLOCK, data, 0));
    volume_close(v);
    for (unsigned i = 0; i < 3; i++) { /* its map is closed */
        check_ok(pool_checkpoint(volumes_pool(s->vs)));
        sim_volumes_settle(s);
    }
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(histogram_count(info.figures->write_latency), 1);
    v = sim_volumes_open(s, "v");
    if (!v)
        return;
    check_ok(volume_write(v, 0, BLOCK, data, 0));
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(histogram_count(info.figures->write_latency), 2);
    check_equal(figure_get(&info.figures->writes), 2);
}

static CO void never_opened(struct sim_volumes *s)
{
    struct volume_info info;
    check_ok(volume_info_get(s->vs, "v", &info));
    check(!info.figures->read_latency); /* and no memory is spent on it */
    check_equal(figure_get(&info.figures->writes), 0);
}

static void figures_outlive_the_open_map(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 2});
    sim_volumes_run(s, close_and_open);
    sim_volumes_run(s, never_opened);
    sim_volumes_free(s);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_counted_with_their_latencies),
        cmocka_unit_test(figures_outlive_the_open_map),
    };
    return cmocka_run_group_tests_name("volumes/figures", tests, NULL, NULL);
}
