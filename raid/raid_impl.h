/* Shared by the files of raid/: windows of operations, counters, leaving service. */
#ifndef VP_RAID_RAID_IMPL_H
#define VP_RAID_RAID_IMPL_H

#include "base/crc.h"
#include "base/verify.h"
#include "io/guard.h"
#include "raid/raid.h"

/* Operations in flight for one call at a time. They are on the coroutine's stack, 104 bytes each. A
 * request of 32 MiB reaches raid/ as up to 16 pieces, which is twice as many operations with two
 * copies. */
#define RAID_WINDOW 32U

static inline bool raid_disk_is_in_service(const struct raid_disk *d)
{
    return atomic_load_explicit(&d->in_service, memory_order_acquire);
}

/*
 * Whether a disk serves a group of `width` members. A disk that is out missed only writes that
 * another copy has: a failed write of a group with one member is reported and never acknowledged.
 * So the disk goes on with groups of one member. After a failed flush it goes on for reading only.
 * Nobody knows then which of the unflushed writes it has. But a block that matches its checksum is
 * right.
 */
static inline bool raid_disk_serves(const struct raid_disk *d, unsigned width)
{
    if (__builtin_expect(raid_disk_is_in_service(d), 1))
        return true;
    return width == 1 && raid_disk_is_data_only(d);
}

static inline bool raid_disk_is_behind(const struct raid_disk *d)
{
    return atomic_load_explicit(&d->behind, memory_order_acquire);
}

/* Whether what the disk has of a group of `width` members counts. A disk that is behind lacks only
 * what another copy has. */
static inline bool raid_disk_counts(const struct raid_disk *d, unsigned width)
{
    return raid_disk_serves(d, width) && (width == 1 || !raid_disk_is_behind(d));
}

/* The same for reads whose blocks are verified. */
static inline bool raid_disk_serves_reads(const struct raid_disk *d, unsigned width)
{
    if (__builtin_expect(raid_disk_is_in_service(d), 1))
        return width == 1 || !raid_disk_is_behind(d) || !io_guard_on(GUARD_BEHIND_NOT_READ);
    return width == 1 && atomic_load_explicit(&d->data_only, memory_order_acquire);
}

static inline void raid_check_bounds(const struct raid_group *g, uint64_t at_bytes, uint64_t len)
{
    VP_VERIFY(at_bytes, <=, g->data_bytes);
    VP_VERIFY(len, <=, g->data_bytes - at_bytes);
}

/* What one reactor knows of the reads of a disk; only that reactor looks at it (choose.c). */
struct raid_reads {
    uint64_t share_ns; /* a moving average of what a read took, divided by the reads in flight; 0:
                          none ended yet */
    uint32_t in_flight;
};

/* What one reactor counts of a disk. How many there were, the histograms know. */
struct raid_part {
    _Atomic uint64_t bytes_read, bytes_written;
    struct histogram read_latency, write_latency;
    struct raid_reads reads;
};

/*
 * Chooses the copy of a piece to read first, of a mirror, and counts the read as in flight on its
 * disk. -1: no disk of the group serves it. `self` is the calling reactor's index. No yield.
 */
int raid_choose_of_mirror(const struct raid_group *g, uint64_t at_bytes, unsigned self);
/* The read of the copy on d that was chosen has ended. */
void raid_choice_ended(struct raid_disk *d, unsigned self, int rc, uint64_t took_ns);

/* For a reactor without a part: it was made after the pool was opened. */
void raid_count_apart(_Atomic uint64_t *count, _Atomic uint64_t *bytes, uint64_t len);

static inline void raid_count_read(struct raid_disk *d, unsigned self, int rc, uint64_t len,
                                   uint64_t took_ns)
{
    if (rc)
        figure_add_shared(&d->figures.read_errors, 1);
    if (__builtin_expect(self >= d->part_count, 0)) {
        raid_count_apart(&d->figures.reads, &d->figures.bytes_read, len);
        return;
    }
    figure_add(&d->parts[self].bytes_read, len);
    histogram_add(&d->parts[self].read_latency, took_ns);
}

static inline void raid_count_write(struct raid_disk *d, unsigned self, int rc, uint64_t len,
                                    uint64_t took_ns)
{
    if (rc)
        figure_add_shared(&d->figures.write_errors, 1);
    if (__builtin_expect(self >= d->part_count, 0)) {
        raid_count_apart(&d->figures.writes, &d->figures.bytes_written, len);
        return;
    }
    figure_add(&d->parts[self].bytes_written, len);
    histogram_add(&d->parts[self].write_latency, took_ns);
}

/* For the next flush to cover. A failed write counts as done too: it may have left something in the
 * cache. */
static inline void raid_write_is_done(struct raid_disk *d)
{
    atomic_fetch_add_explicit(&d->writes_done, 1, memory_order_release);
}

/* The same, for the one who asked for it. Nothing yields in between: who takes the set and then
 * flushes, flushes what it says. */
static inline void raid_write_is_noted(const struct raid_io *io, const struct raid_disk *d)
{
    if (io->written)
        bitmap_set(io->written->word, d->index);
}

/*
 * CO. Takes the disk out of service because of what its device `dev` did, durably before it returns
 * 0 (GUARD_EJECT_BEFORE_ACK). When another device has taken the place of that one, which therefore
 * was out, it waits until that is durable.
 */
static inline int raid_disk_leave(struct raid_disk *d, const struct io_dev *dev, int why_rc,
                                  const char *why)
{
    if (dev != d->dev)
        why_rc = VP_E_RAID_DISK_OUT;
    if (io_guard_on(GUARD_EJECT_BEFORE_ACK))
        return d->eject(d, why_rc, why);
    atomic_store(&d->in_service, false);
    return 0;
}

/* CO. For a disk found out of service: if its ejection is not durable yet, waits until it is. */
static inline int raid_disk_settle(struct raid_disk *d)
{
    if (!atomic_load_explicit(&d->eject_pending, memory_order_acquire))
        return 0;
    return raid_disk_leave(d, d->dev, VP_E_RAID_DISK_OUT, "it is being ejected");
}

/* One block of a piece that has checksums. */
static inline struct raid_io raid_block_of(const struct raid_io *io, uint32_t b)
{
    struct raid_io block = *io;
    block.at_bytes += (uint64_t)b * RAID_BLOCK;
    block.buf = (uint8_t *)io->buf + (size_t)b * RAID_BLOCK;
    block.crc = &io->crc[b];
    block.len = RAID_BLOCK;
    return block;
}

static inline bool raid_block_matches(const struct raid_io *io, uint32_t b)
{
    return vp_crc32c((const uint8_t *)io->buf + (size_t)b * RAID_BLOCK, RAID_BLOCK) == io->crc[b];
}

/* CO. Reads blocks from copies that are behind, each from one that matches its checksum.
 * VP_E_RAID_NO_COPY: some block has none. (fill.c) */
CO int raid_read_behind(struct raid_io *io) must_check;
/* CO. Writes a block that is good over the copies of two masks; those that fail stay as they are.
 * Waits while another reader heals in this group. A mask of the copies that were written. */
CO uint32_t raid_heal_block(struct raid_io *block, uint32_t unreadable, uint32_t mismatched);

#endif
