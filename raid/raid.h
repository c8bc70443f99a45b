/*
 * I/O on one RAID group: copies, checksums, healing, and what happens when a member fails.
 *
 * A group is a set of extents, each on its own disk. Its data space is linear, from 0 to
 * data_bytes-1. Any reactor may do I/O on any group. The caller holds the block locks (volumes/)
 * that keep two writes, or a read and a write, of one block apart.
 */
#ifndef VP_RAID_RAID_H
#define VP_RAID_RAID_H

#include "base/bitmap.h"
#include "base/figure.h"
#include "io/co.h"
#include "io/device.h"
#include "raid/profile.h"

#include <stdatomic.h>
#include <stdint.h>

#define RAID_BLOCK 4096U

struct flush_turn; /* flush.c */

/* Disks of a pool, by raid_disk.index. */
#define RAID_DISKS_MAX 128
struct raid_disk_set {
    uint64_t word[RAID_DISKS_MAX / 64];
};

struct raid_figures {
#define FIGURE FIGURE_FIELD
#include "raid/figures.def"
};
extern const struct figure_set raid_figure_set;

/* One disk of the pool as I/O sees it. pool/ owns it, and changes `dev` only while nobody can be
 * using it. */
struct raid_disk {
    struct io_dev *dev;         /* NULL: absent                                                  */
    _Atomic bool in_service;    /* false: neither read nor written, but for `data_only`          */
    _Atomic bool behind;        /* in service, and lacks data that its mirrors have: written, and
                                   read only where it has the only copy                       */
    _Atomic bool data_only;     /* out of service, but groups with their only copy here go on;
                                   for reading only once flush_failed is set                     */
    _Atomic bool eject_pending; /* out of service, but that is not durable yet                */
    unsigned index;             /* in the pool                                                   */

    /* The number of completed writes, and the part of it that a completed flush covers. A flush
     * with nothing to cover costs no I/O. */
    _Atomic uint64_t writes_done, writes_flushed;
    /* One flush is in flight at a time (flush.c). */
    _Atomic(struct flush_turn *) flush_turn;
    _Atomic int
        flush_failed; /* the code of a failed flush, or of what may have been one, for good */

    struct raid_figures figures; /* flushes, errors, and what `parts` do not have (figures.c) */
    struct raid_part *parts;     /* one for each reactor: the rest                            */
    unsigned part_count;

    /*
     * CO. Takes the disk out of service, until an operator acts. When it returns 0 the ejection is
     * durable in the pool's metadata, so a write that missed this disk may be acknowledged. For a
     * disk that is out already it waits until that ejection is durable. With VP_E_RAID_DISK_OUT it
     * only waits: the disk was seen out, and may be in service again. An error means that the
     * pool cannot do without the disk or cannot record the ejection.
     */
    int (*eject)(struct raid_disk *disk, int rc, const char *why);
    void *owner;
};

/* What becomes of a target. */
enum raid_move_state {
    RAID_MOVE_COPIES = 0, /* it is being filled                                  */
    RAID_MOVE_RECORDS,    /* it is to be recorded as a member: the outcome is open */
    RAID_MOVE_DONE,       /* it is a member, also after a crash                  */
    RAID_MOVE_GIVEN_UP,   /* it is none                                          */
};

/*
 * The members of a group, as I/O uses them. All of it stays as it is while anybody may look at it,
 * but for the flags. When a member moves, pool/ puts another such table in the place of this one
 * (pool/members.c).
 *
 * While a member moves, its new place is a *target*: member `width`, which gets all writes, is not
 * read, and counts for nothing. A write that the target missed, or that failed, says so in
 * `target_lost` before it returns. While the move is being recorded (RAID_MOVE_RECORDS), it waits
 * first for the end of that: if the target is a member then, in the place of member `target_of`,
 * the write has missed a member.
 */
struct raid_group {
    uint32_t id;
    struct raid_profile profile;
    unsigned width;   /* members that count                                                     */
    unsigned written; /* members that are written: the same, and one more with a target         */
    uint32_t unit_bytes; /* stripe unit = the pool's chunk; 0 for metadata groups               */
    uint64_t data_bytes;
    _Atomic bool healing; /* one reader at a time rewrites bad blocks; others only serve        */
    _Atomic bool target_lost; /* the target lacks something, or may                             */
    _Atomic(enum raid_move_state) move_state;
    unsigned target_of; /* the member whose place the target takes */
    struct raid_disk *disk[RAID_WIDTH_MAX + 1];
    uint64_t base_bytes[RAID_WIDTH_MAX + 1]; /* where the extent starts on its disk             */
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
    struct raid_disk_set *written; /* disks that were written to are added, also where that failed;
                                      no later than the piece ends; NULL: nobody asks            */
};

/*
 * Reads the pieces in parallel. Where no copy that counts is in service, copies that are behind are
 * read, and blocks that match their checksums are right. When the CRC of a block does not match, or
 * a member fails to read, the block is read from another copy. The bad copy is rewritten, and the
 * repair is counted. Disks may leave service meanwhile. Each piece has its own result; the first
 * error is returned: VP_E_CHECKSUM (no copy matches), VP_E_RAID_NO_COPY (no copy is readable).
 */
CO int raid_read(struct raid_io *io, unsigned count) must_check;

/*
 * Writes the pieces in parallel, each to every member in service. When a member fails and another
 * one has the data, the failed member is ejected (durably, GUARD_EJECT_BEFORE_ACK). Without another
 * member the piece fails with VP_E_RAID_NO_COPY, and its blocks on the disk may be old, new or
 * mixed.
 */
CO int raid_write(struct raid_io *io, unsigned count) must_check;
/* The same for metadata: a member that fails is tried again before it is ejected. */
CO int raid_write_metadata(struct raid_io *io, unsigned count) must_check;

/* How often a write of metadata is tried, over about a second (retry.c). */
#define RAID_METADATA_TRIES 4U
/*
 * CO. For writes of metadata that passed by raid_write. Of the complete operations, op[i] on
 * disk[i], those that failed are submitted again, until they succeed or may not be tried any more.
 * The caller looks at each op's rc afterwards. Of a durable write (IO_FUA) that failed for good it
 * is noted on the disk what its failure may have lost.
 */
CO void raid_retry(struct raid_disk *const *disk, struct io_op *op, unsigned count);
/* For a durable write that failed for good and did not come to raid_retry: notes what that may have
 * lost. */
void raid_durable_write_failed(struct raid_disk *d, int rc);

/* The number of copies of a piece (1 for single, N for mirror). */
unsigned raid_copies(const struct raid_group *g);
/* No yield. Whether the disk is in service and has all that it should have. */
bool raid_disk_is_current(const struct raid_disk *d);
/* No yield. Whether the disk takes writes of this copy and lacks what was written before. `copy`
 * may be the target. */
bool raid_copy_is_behind(const struct raid_group *g, unsigned copy);
/* No yield. Whether a member is about to move to another disk, which is `copy` raid_target(). */
static inline bool raid_has_target(const struct raid_group *g)
{
    return g->written > g->width;
}
static inline unsigned raid_target(const struct raid_group *g)
{
    return g->width;
}
/* No yield. The target lacks something: it does not become a member. */
void raid_target_is_lost(struct raid_group *g);
/* No yield. Whether the group's data can be served. */
bool raid_group_is_alive(const struct raid_group *g);
/* No yield. Whether enough members are in service to place new data in the group as well. */
bool raid_group_is_in_service(const struct raid_group *g);
/* No yield. Whether the disk is out of service and its groups of one member go on. */
bool raid_disk_is_data_only(const struct raid_disk *d);
/* No yield. The same, but they can only be read. */
bool raid_disk_is_read_only(const struct raid_disk *d);
/* Reads one copy, unverified. VP_E_RAID_DISK_OUT when its disk does not serve it for reading. */
CO int raid_read_copy(struct raid_group *g, unsigned copy, uint64_t at_bytes, void *buf,
                      uint32_t len) must_check;
/* Writes one copy, or the target. */
CO int raid_write_copy(struct raid_group *g, unsigned copy, uint64_t at_bytes, const void *buf,
                       uint32_t len) must_check;

/* Tells the devices that take discards that the piece's space is free. The content is undefined
 * afterwards. Errors of devices are counted, not returned. */
CO void raid_discard(struct raid_group *g, uint64_t at_bytes, uint64_t len);

/*
 * Gives copy `copy[i]` of each piece, whose disk is behind, or the target, what the other copies
 * have, by the piece's checksums. `compare`: the copy is read first, and not written where it is
 * right already. A block that no other copy has is taken from this copy, if it matches there. Each
 * piece has its own result; the first error is returned: VP_E_AGAIN (no other copy is in service
 * that could have it), VP_E_CHECKSUM and VP_E_RAID_NO_COPY as raid_read (what
 * could be read was written), VP_E_RAID_DISK_OUT (the disk has left service), those of the write.
 * At most RAID_FILL_MAX pieces. The caller keeps writers of these blocks away.
 */
#define RAID_FILL_MAX 16U
CO int raid_fill(struct raid_io *io, const unsigned *copy, unsigned count, bool compare) must_check;

/* One bad copy of a block, as a scrub found it, and what became of it. */
struct raid_finding {
    unsigned piece;  /* of the pieces that were scrubbed … */
    uint32_t block;  /* … and the block of it              */
    unsigned disk;   /* index in the pool                  */
    bool unreadable; /* the device did not give it; else it does not match its checksum */
    enum raid_found {
        RAID_HEALED = 1, /* it was rewritten and read back; durable when its disk was flushed */
        RAID_NOT_HEALED, /* another copy is good, but this one stays bad                     */
        RAID_LOST        /* no copy in service is good                                       */
    } state;
};

/* A scrub's result; zeroed but for `found` and `arg`. */
struct raid_scrub {
    void (*found)(const struct raid_finding *f, void *arg); /* does not yield */
    void *arg;
    uint64_t compared_bytes; /* of all copies: added up */
    uint64_t missing_bytes;  /* of pieces of which no copy in service could be looked at */
};

/*
 * Reads every copy of each piece, but those on disks that are behind, compares each block with its
 * checksum, and rewrites what is bad from what is good. Pieces have checksums and buffers, which
 * hold anything afterwards. At most RAID_SCRUB_MAX pieces, of RAID_SCRUB_BLOCKS blocks together. A
 * disk whose device is gone leaves service where another copy counts. The caller keeps writers of
 * these blocks away.
 */
#define RAID_SCRUB_MAX    16U
#define RAID_SCRUB_BLOCKS 256U
CO void raid_scrub(struct raid_scrub *s, struct raid_io *io, unsigned count);

/*
 * Makes every write durable that completed before the call, on all disks given that serve, in
 * parallel.
 * Disks with nothing to flush are skipped. A disk whose flush fails is ejected: it is never flushed
 * again and believed. Its data then exist only on its mirrors. A group without a mirror can only be
 * read (raid_group_is_alive, pool_flush_check). A durable write that failed may be a failed flush
 * as well (retry.c). Errors: those of `eject` (for example VP_E_POOL_FENCED).
 */
CO int raid_flush(struct raid_disk *const *disks, unsigned count) must_check;

/* ---- figures ------------------------------------------------------------------------------- */

/* Memory for the latencies, and for the parts of all reactors made so far. Without it, and on a
 * reactor made later, transfers are counted in `figures`, without latencies. False: no memory. */
bool raid_disk_figures_new(struct raid_disk *d) must_check;
void raid_disk_figures_free(struct raid_disk *d);
/* Adds all to `sum`, whose histograms have memory, or are left out. */
void raid_disk_figures_sum(const struct raid_disk *d, struct raid_figures *sum);
/* For transfers that do not pass through raid/, after they ended; not about durability. */
void raid_figure_read(struct raid_disk *d, int rc, uint64_t len, uint64_t took_ns);
void raid_figure_write(struct raid_disk *d, int rc, uint64_t len, uint64_t took_ns);

#endif
