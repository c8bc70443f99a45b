/*
 * I/O on one RAID group: copies, checksums, healing, and what happens when a member fails.
 *
 * A group is a set of extents, each on its own disk. Its data space is linear, 0 … data_bytes-1.
 * Any reactor may do I/O on any group; the caller holds the block locks (volumes/) that keep two
 * writes, or a read and a write, of one block apart.
 */
#ifndef VP_RAID_RAID_H
#define VP_RAID_RAID_H

#include "io/co.h"
#include "io/device.h"
#include "raid/profile.h"

#include <stdatomic.h>
#include <stdint.h>

#define RAID_BLOCK 4096U

struct flush_turn; /* flush.c */

/* One disk of the pool as I/O sees it. Owned by pool/, which changes `dev` only while nobody can
 * be using it. */
struct raid_disk {
    struct io_dev *dev;         /* NULL: absent                                                  */
    _Atomic bool in_service;    /* false: neither read nor written, but for `data_only`          */
    _Atomic bool data_only;     /* out of service, but groups with their only copy here go on    */
    _Atomic bool eject_pending; /* out of service, but that is not durable yet                */
    unsigned index;             /* in the pool                                                   */

    /* Writes completed, and the value of it that a completed flush covers: a flush with nothing
     * to cover costs no I/O. */
    _Atomic uint64_t writes_done, writes_flushed;
    /* One flush is in flight at a time (flush.c). */
    _Atomic(struct flush_turn *) flush_turn;
    _Atomic int flush_failed; /* the code of a failed flush, for good */

    _Atomic uint64_t reads, writes, flushes, bytes_read, bytes_written;
    _Atomic uint64_t read_errors, write_errors, checksum_errors, healed_blocks;

    /*
     * Takes the disk out of service for good (until an operator acts): when it returns 0 the
     * ejection is durable in the pool's metadata, so a write that missed this disk may be
     * acknowledged. CO. An error means that the pool cannot do without it or cannot record it.
     * For a disk that is out already it waits until that is durable.
     */
    int (*eject)(struct raid_disk *disk, int rc, const char *why);
    void *owner;
};

struct raid_group {
    uint32_t id;
    struct raid_profile profile;
    unsigned width;
    uint32_t unit_bytes; /* stripe unit = the pool's chunk; 0 for metadata groups               */
    uint64_t data_bytes;
    _Atomic bool healing; /* one reader at a time rewrites bad blocks; others only serve        */
    struct raid_disk *disk[RAID_WIDTH_MAX];
    uint64_t base_bytes[RAID_WIDTH_MAX]; /* where the extent starts on its disk                 */
};

/* One contiguous piece inside one group; whole blocks. */
struct raid_io {
    struct raid_group *group;
    uint64_t at_bytes;
    void *buf;
    uint32_t len;
    const uint32_t *crc; /* read: CRC32C of each block, NULL = do not verify (metadata does)    */
    int rc;              /* the piece's result                                                  */
    _Atomic uint64_t *healed; /* read: blocks that were healed are added; NULL: nobody counts   */
};

/*
 * Reads the pieces in parallel. A block whose CRC does not match, or a member that fails to read,
 * is taken from another copy; what was wrong is rewritten and counted. Returns the first error,
 * each piece has its own: VP_E_CHECKSUM (no copy matches), VP_E_RAID_NO_COPY (none is readable).
 * Meanwhile disks may leave service.
 */
CO int raid_read(struct raid_io *io, unsigned count) must_check;

/*
 * Writes the pieces in parallel, each to every member in service. A member that fails is ejected
 * (durably, GUARD_EJECT_BEFORE_ACK) when another one has the data; without another the piece
 * fails with VP_E_RAID_NO_COPY and may be old, new or mixed on the disk.
 */
CO int raid_write(struct raid_io *io, unsigned count) must_check;

/* Copies of a piece (1 for single, N for mirror). */
unsigned raid_copies(const struct raid_group *g);
/* No yield: whether the group's data can be served. */
bool raid_group_is_alive(const struct raid_group *g);
/* No yield: whether enough members are in service for new data to be placed there as well. */
bool raid_group_is_in_service(const struct raid_group *g);
/* No yield: out of service, but still the only member of its groups of one copy. */
bool raid_disk_is_data_only(const struct raid_disk *d);
/* Reads one copy, unverified. VP_E_RAID_DISK_OUT when its disk is not in service. */
CO int raid_read_copy(struct raid_group *g, unsigned copy, uint64_t at_bytes, void *buf,
                      uint32_t len) must_check;
/* Writes one copy. */
CO int raid_write_copy(struct raid_group *g, unsigned copy, uint64_t at_bytes, const void *buf,
                       uint32_t len) must_check;

/* Gives the piece's space back to the devices that can; content undefined afterwards. Errors of
 * devices are counted, not returned. */
CO void raid_discard(struct raid_group *g, uint64_t at_bytes, uint64_t len);

/*
 * Makes every write completed before the call durable on all disks that serve, in parallel; skips
 * disks with nothing to flush. A disk whose flush fails is ejected, never flushed again and
 * believed; its data then exist only on its mirrors (who has data without a mirror finds its group
 * unreadable: raid_group_is_alive, pool_flush_check). Errors: that of `eject` (e.g.
 * VP_E_POOL_FENCED).
 */
CO int raid_flush(struct raid_disk *const *disks, unsigned count) must_check;

#endif
