/*
 * Figures of disks. What comes with every request is counted in parts, one for each reactor, so
 * that reactors which share a disk do not write to the same cache line. Flushes and errors are
 * rare: any reactor counts them in `figures`, which home loads and clears. A reader adds all up.
 */
#include "io/reactor.h"
#include "raid/raid_impl.h"

#include <stdlib.h>

static const struct figure rows[] = {
#define FIGURE(...) FIGURE_ROW(struct raid_figures, __VA_ARGS__)
#include "raid/figures.def"
};
const struct figure_set raid_figure_set = {"disk", rows, sizeof(rows) / sizeof(rows[0])};

bool raid_disk_figures_new(struct raid_disk *d)
{
    unsigned count = reactor_index_end();
    d->parts = calloc(count, sizeof(*d->parts));
    d->part_count = d->parts ? count : 0;
    if (d->parts && figure_histograms_new(&raid_figure_set, &d->figures))
        return true;
    raid_disk_figures_free(d);
    return false;
}

void raid_disk_figures_free(struct raid_disk *d)
{
    figure_histograms_free(&raid_figure_set, &d->figures);
    free(d->parts);
    d->parts = NULL;
    d->part_count = 0;
}

static void part_add(struct raid_figures *sum, const struct raid_part *p)
{
    figure_add(&sum->reads, histogram_count(&p->read_latency));
    figure_add(&sum->writes, histogram_count(&p->write_latency));
    figure_add(&sum->bytes_read, figure_get(&p->bytes_read));
    figure_add(&sum->bytes_written, figure_get(&p->bytes_written));
    if (sum->read_latency)
        histogram_merge(sum->read_latency, &p->read_latency);
    if (sum->write_latency)
        histogram_merge(sum->write_latency, &p->write_latency);
}

void raid_disk_figures_sum(const struct raid_disk *d, struct raid_figures *sum)
{
    figure_set_add(&raid_figure_set, sum, &d->figures);
    for (unsigned i = 0; i < d->part_count; i++)
        part_add(sum, &d->parts[i]);
}

void raid_count_apart(_Atomic uint64_t *count, _Atomic uint64_t *bytes, uint64_t len)
{
    figure_add_shared(count, 1);
    figure_add_shared(bytes, len);
}

void raid_figure_read(struct raid_disk *d, int rc, uint64_t len, uint64_t took_ns)
{
    raid_count_read(d, reactor_self_index(), rc, len, took_ns);
}

void raid_figure_write(struct raid_disk *d, int rc, uint64_t len, uint64_t took_ns)
{
    raid_count_write(d, reactor_self_index(), rc, len, took_ns);
}
