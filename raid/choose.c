/*
 * Which copy of a piece of a mirror is read.
 *
 * Each region of a group has a disk of its own, so that sequential reads remain sequential there
 * and all disks share the reads. A read goes to another copy when that one is expected to answer in
 * less than half the time. What a read took lately, divided by the reads in flight on the disk, is
 * the disk's share of time for one read. The expected time is that share, times the reads in flight
 * with the new one. So queues get longer in proportion to the speed of their disks, and a disk that
 * serves many reads at once is not taken for slow when it does.
 *
 * A reactor knows only its own reads: nothing here is shared between reactors. What others do to a
 * disk is in the time that its reads take.
 *
 * A disk that is passed over is expected to be a little faster each time. So it is tried again
 * after some thousand reads, and a disk that has become fast gets its regions back.
 */
#include "base/bytes.h"
#include "raid/raid_impl.h"

/* Reads of so many bytes in a row have the same disk. An arena of default chunks is as long. */
#define REGION_SHIFT 22

enum {
    AVERAGE_SHIFT = 3,  /* the last read is one eighth of the average                  */
    FORGIVE_SHIFT = 10, /* a disk that is passed over is forgiven one 1,024th          */
    FAILED_TIMES = 8,   /* a failed read counts as one that took so many times as long */
};
#define SHARE_MAX_NS UINT64_C(10000000000)

/* What the next read of the disk would take, if it waited for the others. A disk that nothing is
 * known of is tried with one read. */
static uint64_t cost_of(const struct raid_reads *r)
{
    if (__builtin_expect(!r->share_ns && r->in_flight, 0))
        return UINT64_MAX;
    return r->share_ns * (r->in_flight + 1);
}

/* The first copy from `first` on whose disk serves reads; -1: none. */
static int serving_copy(const struct raid_group *g, unsigned first, unsigned copies)
{
    for (unsigned i = 0; i < copies; i++) {
        unsigned c = first + i < copies ? first + i : first + i - copies;
        if (raid_disk_serves_reads(g->disk[c], g->width))
            return (int)c;
    }
    return -1;
}

/* Another copy that answers in less than half the time of copy `own`, or `own`. */
static int faster_copy(const struct raid_group *g, int own, unsigned copies, unsigned self)
{
    struct raid_reads *passed = &g->disk[own]->parts[self].reads;
    uint64_t least = cost_of(passed) / 2;
    int best = own;
    for (unsigned c = 0; c < copies && least; c++) {
        const struct raid_disk *d = g->disk[c];
        if ((int)c == own || self >= d->part_count || !raid_disk_serves_reads(d, copies))
            continue;
        uint64_t cost = cost_of(&d->parts[self].reads);
        if (cost >= least)
            continue;
        least = cost;
        best = (int)c;
    }
    if (best != own)
        passed->share_ns -= passed->share_ns >> FORGIVE_SHIFT;
    return best;
}

int raid_choose_of_mirror(const struct raid_group *g, uint64_t at_bytes, unsigned self)
{
    unsigned copies = g->width;
    int copy = serving_copy(g, (unsigned)((g->id + (at_bytes >> REGION_SHIFT)) % copies), copies);
    if (copy < 0 || self >= g->disk[copy]->part_count)
        return copy;
    copy = faster_copy(g, copy, copies, self);
    g->disk[copy]->parts[self].reads.in_flight++;
    return copy;
}

void raid_choice_ended(struct raid_disk *d, unsigned self, int rc, uint64_t took_ns)
{
    if (self >= d->part_count)
        return;
    struct raid_reads *r = &d->parts[self].reads;
    VP_CHECK(r->in_flight, >, 0U);
    took_ns /= r->in_flight--;
    if (rc)
        took_ns += r->share_ns * FAILED_TIMES;
    uint64_t part = r->share_ns - (r->share_ns >> AVERAGE_SHIFT);
    r->share_ns = min_u64(part + (took_ns >> AVERAGE_SHIFT), SHARE_MAX_NS);
}
