/*
 * A disk's label as it stands on the disk, in four copies: blocks 0 and 1 of the label area at the
 * start, and blocks 0 and 1 of the one at the end (which starts at POOL_LABEL_AREA before the end
 * of the disk, rounded down to 4096). All integers are little-endian; reserved bytes are zero and
 * covered by the checksum.
 *
 * A label says who a disk is. It is written when the disk joins a pool, or returns into service
 * with a new uuid; what the pool currently thinks of the disk is in the roots.
 */
#ifndef VP_POOL_LABEL_FORMAT_H
#define VP_POOL_LABEL_FORMAT_H

#include "base/bytes.h"

#include <assert.h>

#define POOL_LABEL_MAGIC   "VPOOLLBL"
#define POOL_LABEL_VERSION 1U
#define POOL_LABEL_COPIES  4U

/* Features: an unknown COMPAT bit is ignored; an unknown RO_COMPAT or INCOMPAT bit refuses the
 * import (this release has no read-only import). None is in use yet. */
#define POOL_FEATURES_COMPAT    UINT64_C(0)
#define POOL_FEATURES_RO_COMPAT UINT64_C(0)
#define POOL_FEATURES_INCOMPAT  UINT64_C(0)

struct pool_label_disk {
    uint8_t magic[8];
    struct le32 version;
    struct le32 crc; /* CRC32C of the 4096 bytes with this field zero */
    uint8_t pool_uuid[16];
    uint8_t disk_uuid[16];
    char pool_name[64];     /* padded with NUL, at least one */
    struct le32 disk_index; /* in the pool's disk table */
    struct le32 disk_count; /* of the pool when this was written */
    struct le32 chunk_bytes;
    struct le32 extent_bytes;
    struct le32 log_segment_bytes;
    struct le32 reserved0;
    struct le64
        size_bytes; /* of the disk that are used: tells where the label area at the end is */
    struct le64 features_compat;
    struct le64 features_ro_compat;
    struct le64 features_incompat;
    struct le64 epoch;    /* starts at 1; where copies differ, the highest counts */
    uint8_t was_uuid[16]; /* of this disk, until it returned into service; or zero */
    uint8_t reserved1[3904];
} __attribute__((packed));
static_assert(offsetof(struct pool_label_disk, pool_uuid) == 16, "label layout");
static_assert(offsetof(struct pool_label_disk, pool_name) == 48, "label layout");
static_assert(offsetof(struct pool_label_disk, size_bytes) == 136, "label layout");
static_assert(offsetof(struct pool_label_disk, epoch) == 168, "label layout");
static_assert(sizeof(struct pool_label_disk) == 4096, "a label is one block");

#endif
