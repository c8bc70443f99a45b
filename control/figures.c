/* Figures as JSON: a set's table says what there is, docs/rpc.md how it looks. */
#include "control/control_impl.h"

#define INT(v) ((json_int_t)(v))

/* [[the longest duration of a bucket, how many], …] of those that are not empty. */
static json_t *buckets_json(const struct histogram *h)
{
    json_t *list = json_array();
    for (unsigned i = 0; list && h && i < HISTOGRAM_BUCKETS; i++) {
        uint64_t n = figure_get(&h->bucket[i]);
        if (n && json_array_append_new(
                     list, json_pack("[I, I]", INT(histogram_bucket_end_ns(i)), INT(n))))
            break;
    }
    return list;
}

static json_t *histogram_json(const struct histogram *h, bool with_buckets)
{
    json_t *entry = json_pack("{s:I, s:I, s:I, s:I}", "count", INT(h ? histogram_count(h) : 0),
                              "mean_ns", INT(h ? histogram_mean_ns(h) : 0), "p50_ns",
                              INT(h ? histogram_permille_ns(h, 500) : 0), "p99_ns",
                              INT(h ? histogram_permille_ns(h, 990) : 0));
    if (with_buckets && entry && json_object_set_new(entry, "buckets", buckets_json(h))) {
        json_decref(entry);
        return NULL;
    }
    return entry;
}

json_t *show_figures(const struct figure_set *set, const void *figures, bool with_buckets)
{
    json_t *entry = json_object();
    for (unsigned i = 0; entry && i < set->count; i++) {
        const struct figure *f = &set->figure[i];
        json_t *value = f->kind == FIGURE_HISTOGRAM
                            ? histogram_json(figure_histogram(f, figures), with_buckets)
                            : json_integer(INT(figure_value(f, figures)));
        if (json_object_set_new(entry, f->name, value)) {
            json_decref(entry);
            return NULL;
        }
    }
    return entry;
}

json_t *show_disk_figures(const struct pool_disk_info *d, bool with_buckets)
{
    struct raid_figures sum = {0};
    if (!figure_histograms_new(&raid_figure_set, &sum))
        return NULL;
    raid_disk_figures_sum(d->io, &sum);
    json_t *entry = show_figures(&raid_figure_set, &sum, with_buckets);
    figure_histograms_free(&raid_figure_set, &sum);
    return entry;
}
