/* Figures: reading histograms, and sets as a whole. */
#include "base/figure.h"

#include <stdlib.h>

/* ---- histograms ---------------------------------------------------------------------------- */

/* The smallest number of units that falls into bucket `i`. */
static uint64_t bucket_begin_units(unsigned i)
{
    if (i < HISTOGRAM_SUB)
        return i;
    unsigned shift = i / HISTOGRAM_SUB - 1;
    return (uint64_t)(i % HISTOGRAM_SUB + HISTOGRAM_SUB) << shift;
}

uint64_t histogram_bucket_end_ns(unsigned i)
{
    return (bucket_begin_units(i + 1) << HISTOGRAM_UNIT_SHIFT) - 1;
}

static uint64_t bucket_middle_ns(unsigned i)
{
    return ((bucket_begin_units(i) + bucket_begin_units(i + 1)) << HISTOGRAM_UNIT_SHIFT) / 2;
}

void histogram_merge(struct histogram *to, const struct histogram *from)
{
    for (unsigned i = 0; from && i < HISTOGRAM_BUCKETS; i++)
        figure_add(&to->bucket[i], figure_get(&from->bucket[i]));
}

void histogram_subtract(struct histogram *from, const struct histogram *earlier)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        figure_sub(&from->bucket[i], figure_get(&earlier->bucket[i]));
}

uint64_t histogram_count(const struct histogram *h)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        count += figure_get(&h->bucket[i]);
    return count;
}

uint64_t histogram_mean_ns(const struct histogram *h)
{
    double sum = 0, count = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        double n = (double)figure_get(&h->bucket[i]);
        sum += n * (double)bucket_middle_ns(i);
        count += n;
    }
    return count > 0 ? (uint64_t)(sum / count) : 0;
}

uint64_t histogram_permille_ns(const struct histogram *h, unsigned permille)
{
    uint64_t left = (uint64_t)((double)histogram_count(h) * permille / 1000);
    unsigned last = 0;
    bool any = false;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t n = figure_get(&h->bucket[i]);
        if (!n)
            continue;
        any = true;
        last = i;
        if (n > left)
            break;
        left -= n;
    }
    return any ? histogram_bucket_end_ns(last) : 0;
}

/* ---- sets ---------------------------------------------------------------------------------- */

static struct histogram **histogram_at(const struct figure *f, void *figures)
{
    return (struct histogram **)((char *)figures + f->offset);
}

uint64_t figure_value(const struct figure *f, const void *figures)
{
    return figure_get((const _Atomic uint64_t *)((const char *)figures + f->offset));
}

const struct histogram *figure_histogram(const struct figure *f, const void *figures)
{
    return *(struct histogram *const *)((const char *)figures + f->offset);
}

/* The field of the first histogram, which owns the memory of all; NULL when there is none. */
static struct histogram **histograms_of(const struct figure_set *set, void *figures, unsigned *n)
{
    struct histogram **first = NULL;
    *n = 0;
    for (unsigned i = 0; i < set->count; i++)
        if (set->figure[i].kind == FIGURE_HISTOGRAM && (*n)++ == 0)
            first = histogram_at(&set->figure[i], figures);
    return first;
}

static void histograms_spread(const struct figure_set *set, void *figures, struct histogram *h)
{
    for (unsigned i = 0; i < set->count; i++)
        if (set->figure[i].kind == FIGURE_HISTOGRAM)
            *histogram_at(&set->figure[i], figures) = h ? h++ : NULL;
}

bool figure_histograms_new(const struct figure_set *set, void *figures)
{
    unsigned n;
    struct histogram **first = histograms_of(set, figures, &n);
    if (!first || *first)
        return true;
    struct histogram *h = calloc(n, sizeof(*h));
    histograms_spread(set, figures, h);
    return h;
}

void figure_histograms_free(const struct figure_set *set, void *figures)
{
    unsigned n;
    struct histogram **first = histograms_of(set, figures, &n);
    if (first)
        free(*first);
    histograms_spread(set, figures, NULL);
}

void figure_set_add(const struct figure_set *set, void *to, const void *from)
{
    for (unsigned i = 0; i < set->count; i++) {
        const struct figure *f = &set->figure[i];
        if (f->kind != FIGURE_HISTOGRAM)
            figure_add((_Atomic uint64_t *)((char *)to + f->offset), figure_value(f, from));
        else if (*histogram_at(f, to))
            histogram_merge(*histogram_at(f, to), figure_histogram(f, from));
    }
}
