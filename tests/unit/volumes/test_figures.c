/* What is counted of the requests of volumes and of their disks, and how long they took. */
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
    return histogram_permille_ns(h, 0) >= least_ns && histogram_permille_ns(h, 1000) <= most_ns;
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

/* ---- the map --------------------------------------------------------------------------------- */

static int info_is(const struct volume_info *info, void *arg)
{
    check_equal(info->valid_bytes, *(const uint64_t *)arg);
    return 0;
}

/* What is not yet committed is in no record, and lists show it all the same. */
static CO void map_counts(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", LEN);
    struct volume_info info;
    uint64_t valid = (uint64_t)3 * BLOCK;
    if (!v)
        return;
    memset(data, 1, LEN);
    check_ok(volume_write(v, 0, 3 * BLOCK, data, 0));
    check_ok(volume_info_get(s->vs, "v", &info));
    if (!check(info.map != NULL))
        return;
    check_equal(figure_get(&info.map->valid_blocks), 3);
    check_equal(figure_get(&info.map->allocated_chunks), 1);
    check(figure_get(&info.map->leased_arenas) > 0);
    uint64_t commits = figure_get(&info.map->commits);
    check_equal(volume_each(s->vs, info_is, &valid), 0);
    check_ok(volume_flush(v));
    check(figure_get(&info.map->commits) > commits);
    check_ok(volume_discard(v, 0, LEN, 0));
    check_equal(figure_get(&info.map->valid_blocks), 0);
    check_equal(figure_get(&info.map->allocated_chunks), 0);
}

static void the_figures_of_the_open_map_are_those_of_now(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 4});
    sim_volumes_run(s, map_counts);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- disks ---------------------------------------------------------------------------------- */

/* A member that is slow shows, though a request waits for both. */
static CO void slow_member(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", LEN);
    struct raid_figures sum[2] = {0};
    unsigned n;
    if (!v)
        return;
    struct raid_disk *const *d = pool_disks(volumes_pool(s->vs), &n);
    check_ok(volume_write(v, 0, LEN, data, VOLUME_FUA));
    sim_disk_inject(sim_disk_find(s->world, "d1"), SIM_FAULT_STALL, 1 << IO_WRITE, 0, 500000000);
    check_ok(volume_write(v, 0, BLOCK, data, 0));
    for (unsigned i = 0; i < 16; i++)
        check_ok(volume_read(v, i * BLOCK, BLOCK, data));
    check_ok(volume_flush(v));
    for (unsigned i = 0; i < 2; i++) {
        check(figure_histograms_new(&raid_figure_set, &sum[i]));
        raid_disk_figures_sum(d[i], &sum[i]);
        check(figure_get(&sum[i].writes) > 0 && figure_get(&sum[i].bytes_written) >= LEN);
        check_equal(figure_get(&sum[i].writes), histogram_count(sum[i].write_latency));
        check_equal(figure_get(&sum[i].reads), histogram_count(sum[i].read_latency));
        check_equal(figure_get(&sum[i].flushes), histogram_count(sum[i].flush_latency));
        check(figure_get(&sum[i].flushes) > 0);
        check(is_between(sum[i].flush_latency, 1000, 1000000));
    }
    check(figure_get(&sum[0].reads) + figure_get(&sum[1].reads) >= 16);
    check(is_between(sum[0].write_latency, 1000, 1000000));
    check(!is_between(sum[1].write_latency, 1000, 1000000));
    check(is_between(sum[1].write_latency, 1000, 600000000));
    for (unsigned i = 0; i < 2; i++)
        figure_histograms_free(&raid_figure_set, &sum[i]);
}

static void each_disk_has_its_own_latencies(void **state)
{
    (void)state;
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 3, .profile = "mirror"});
    sim_volumes_run(s, slow_member);
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
    check(!info.map);
    check_equal(info.valid_bytes, BLOCK); /* of its record */
    v = sim_volumes_open(s, "v");
    if (!v)
        return;
    check_ok(volume_write(v, 0, BLOCK, data, 0));
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(histogram_count(info.figures->write_latency), 2);
    check(info.map && figure_get(&info.map->commits) == 0);
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
        cmocka_unit_test(the_figures_of_the_open_map_are_those_of_now),
        cmocka_unit_test(each_disk_has_its_own_latencies),
        cmocka_unit_test(figures_outlive_the_open_map),
    };
    return cmocka_run_group_tests_name("volumes/figures", tests, NULL, NULL);
}
