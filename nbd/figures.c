/*
 * Figures of exports. All connections of an export run on the reactor of its volume, which alone
 * writes the figures.
 */
#include "nbd/connection_impl.h"

#include <stdlib.h>

static const struct figure rows[] = {
#define FIGURE(...) FIGURE_ROW(struct nbdx_figures, __VA_ARGS__)
#include "nbd/figures.def"
};
const struct figure_set nbdx_figure_set = {"export", rows, sizeof(rows) / sizeof(rows[0])};

struct nbdx_figures *nbdx_figures_new(void)
{
    struct nbdx_figures *f = calloc(1, sizeof(*f));
    if (f && figure_histograms_new(&nbdx_figure_set, f))
        return f;
    free(f);
    return NULL;
}

void nbdx_figures_free(struct nbdx_figures *f)
{
    if (f)
        figure_histograms_free(&nbdx_figure_set, f);
    free(f);
}

/* A hint (CACHE) has no answer that anybody waits for. */
void nbdx_figures_join(struct nbdx_connection *c)
{
    struct nbdx_figures *f = c->export->figures;
    c->figures = f;
    c->latency[NBDX_CMD_READ] = f->read_latency;
    c->latency[NBDX_CMD_WRITE] = f->write_latency;
    c->latency[NBDX_CMD_FLUSH] = f->flush_latency;
    c->latency[NBDX_CMD_TRIM] = c->latency[NBDX_CMD_WRITE_ZEROES] = f->discard_latency;
    c->latency[NBDX_CMD_BLOCK_STATUS] = f->status_latency;
}

void nbdx_server_figures(const struct nbdx_server *s, struct nbdx_figures *sum)
{
    unsigned count;
    const struct nbdx_served *e = nbdx_server_exports(s, &count);
    for (unsigned i = 0; i < count; i++)
        figure_set_add(&nbdx_figure_set, sum, e[i].figures);
}
