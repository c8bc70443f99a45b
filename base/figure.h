/*
 * Figures: what is counted, what is so now, and how long something took.
 *
 * A figure is declared once, as a row FIGURE(kind, name, unit, sentence) in the figures.def of its
 * folder. From the rows come the fields of a struct and the table that describes them, a
 * `struct figure_set`, with which anything that shows figures goes through them: a new row is shown
 * everywhere.
 *
 *     struct volume_figures {                      the header
 *     #define FIGURE FIGURE_FIELD
 *     #include "volumes/figures.def"
 *     };
 *
 *     static const struct figure rows[] = {        the source
 *     #define FIGURE(...) FIGURE_ROW(struct volume_figures, __VA_ARGS__)
 *     #include "volumes/figures.def"
 *     };
 *
 * No locks: a figure is written by one thread and read by any thread, which sees a recent value.
 * The few that several threads write use figure_add_shared.
 */
#ifndef VP_BASE_FIGURE_H
#define VP_BASE_FIGURE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum figure_kind {
    FIGURE_COUNTER,   /* only grows, but for a clear   */
    FIGURE_GAUGE,     /* what is so now                */
    FIGURE_HISTOGRAM, /* how often which duration came */
};
enum figure_unit { FIGURE_ONE, FIGURE_BYTES, FIGURE_NANOSECONDS };

struct figure {
    const char *name;
    enum figure_kind kind;
    enum figure_unit unit;
    size_t offset;        /* of its field                       */
    const char *sentence; /* what it says, for people           */
};

struct figure_set {
    const char *subject; /* "volume"                            */
    const struct figure *figure;
    unsigned count;
};

/* ---- counters and gauges ------------------------------------------------------------------- */

static inline uint64_t figure_get(const _Atomic uint64_t *f)
{
    return atomic_load_explicit(f, memory_order_relaxed);
}

/* For the one thread that writes it. */
static inline void figure_add(_Atomic uint64_t *f, uint64_t n)
{
    atomic_store_explicit(f, figure_get(f) + n, memory_order_relaxed);
}

/* Of a gauge. */
static inline void figure_sub(_Atomic uint64_t *f, uint64_t n)
{
    atomic_store_explicit(f, figure_get(f) - n, memory_order_relaxed);
}

static inline void figure_add_shared(_Atomic uint64_t *f, uint64_t n)
{
    atomic_fetch_add_explicit(f, n, memory_order_relaxed);
}

static inline void figure_put(_Atomic uint64_t *f, uint64_t n)
{
    atomic_store_explicit(f, n, memory_order_relaxed);
}

/* ---- histograms ----------------------------------------------------------------------------
 *
 * Log-linear: durations in units of 128 ns; up to 8 units each has its bucket, from there on each
 * power of two has 8. A bucket is thus at most an eighth of its values wide. What takes longer than
 * 68 s counts as that.
 */
enum {
    HISTOGRAM_UNIT_SHIFT = 7, /* 128 ns */
    HISTOGRAM_SUB_SHIFT = 3,  /* 8 buckets for each power of two */
    HISTOGRAM_SUB = 1 << HISTOGRAM_SUB_SHIFT,
    HISTOGRAM_UNITS_SHIFT = 29, /* 2^29 units are 68 s */
    HISTOGRAM_BUCKETS = (HISTOGRAM_UNITS_SHIFT - HISTOGRAM_SUB_SHIFT + 1) * HISTOGRAM_SUB,
};

struct histogram {
    _Atomic uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket_of(uint64_t ns)
{
    const uint64_t units_max = (UINT64_C(1) << HISTOGRAM_UNITS_SHIFT) - 1;
    uint64_t units = ns >> HISTOGRAM_UNIT_SHIFT;
    if (__builtin_expect(units > units_max, 0))
        units = units_max;
    unsigned highest_bit = 63U ^ (unsigned)__builtin_clzll(units | HISTOGRAM_SUB);
    unsigned shift = highest_bit - HISTOGRAM_SUB_SHIFT;
    return (unsigned)(shift * HISTOGRAM_SUB + (units >> shift));
}

/* For the one thread that writes it. */
static inline void histogram_add(struct histogram *h, uint64_t ns)
{
    figure_add(&h->bucket[histogram_bucket_of(ns)], 1);
}

/* The longest duration that falls into bucket `i`. */
uint64_t histogram_bucket_end_ns(unsigned i);
/* Adds what `from` has (may be NULL), which may be written meanwhile. */
void histogram_merge(struct histogram *to, const struct histogram *from);
/* Takes away what `earlier`, the same histogram at an earlier time, had. */
void histogram_subtract(struct histogram *from, const struct histogram *earlier);
uint64_t histogram_count(const struct histogram *h);
/* As if each value were the middle of its bucket; 0 when there is none. */
uint64_t histogram_mean_ns(const struct histogram *h);
/* The end of the bucket that holds the value which `permille` of all values do not exceed (500: the
 * median); 0 when there is none. */
uint64_t histogram_permille_ns(const struct histogram *h, unsigned permille);

/* ---- sets ---------------------------------------------------------------------------------- */

#define FIGURE_TYPE_COUNTER                      _Atomic uint64_t
#define FIGURE_TYPE_GAUGE                        _Atomic uint64_t
#define FIGURE_TYPE_HISTOGRAM                    struct histogram *

#define FIGURE_FIELD(kind, name, unit, sentence) FIGURE_TYPE_##kind name;
#define FIGURE_ROW(type, kind, name, unit, sentence)                                               \
    {#name, FIGURE_##kind, FIGURE_##unit, offsetof(type, name), sentence},

/* The value of a counter or gauge of `figures`, the struct of the set. */
uint64_t figure_value(const struct figure *f, const void *figures);
/* NULL until figure_histograms_new. */
const struct histogram *figure_histogram(const struct figure *f, const void *figures);
/* Gives each histogram of `figures` its memory, if they have none. False: no memory, nothing has
 * changed. */
bool figure_histograms_new(const struct figure_set *set, void *figures);
void figure_histograms_free(const struct figure_set *set, void *figures);
/* Adds all of `from` to `to`, whose histograms have memory, or are left out. */
void figure_set_add(const struct figure_set *set, void *to, const void *from);

#endif
