/*
 * The root: one 4 KiB block, in slot (number mod 8) of the label area at the start and of the one
 * at the end of every disk in service. Slot s is at 64 KiB + s × 4 KiB of its area.
 */
#ifndef VP_POOL_ROOT_FORMAT_H
#define VP_POOL_ROOT_FORMAT_H

#include "pool/log_format.h"

#include <stddef.h>

#define ROOT_MAGIC   "vpoolRT1"
#define ROOT_VERSION 1U
#define ROOT_BYTES   4096U
#define ROOT_NAME    64U
#define ROOT_PIECES  8U
#define ROOT_DISKS   96U
#define ROOT_DELTAS  7U

/* Incompatible: what the table image lacks is in deltas. Set in the roots that name any. */
#define ROOT_FEATURE_DELTAS 1U
/* Incompatible: metadata may have more than LOG_PLACES copies (struct log_segment_wide). */
#define ROOT_FEATURE_WIDE 2U
/* Incompatible: some disk is being filled (POOL_DISK_BEHIND). Set in the roots that have such a
 * disk. */
#define ROOT_FEATURE_BEHIND 4U
/* Incompatible: some disk was removed (POOL_DISK_NONE). Set in the roots that have such a row. */
#define ROOT_FEATURE_REMOVED 8U

enum root_flags { ROOT_EXPORTED = 1 };

struct root_table_image {
    struct log_segment start;
    struct le64 stream;
    struct le64 batches; /* numbered 1 … batches, JUMPs included */
} __attribute__((packed));
static_assert(sizeof(struct root_table_image) == 48, "on disk");

/* A piece of the log. Only the last piece is open: last_seq is all ones. */
struct root_piece {
    struct log_segment start;
    struct le64 stream;
    struct le64 first_seq;
    struct le64 last_seq;
} __attribute__((packed));
static_assert(sizeof(struct root_piece) == 56, "on disk");

struct root_disk {
    uint8_t uuid[16];
    uint8_t state;        /* enum pool_disk_state */
    uint8_t out_after[3]; /* pool_out_after, little-endian; 0: data that may not be served, unless
                             `read_only` has the disk */
    struct le32 extents;
    struct le64 size_bytes;
} __attribute__((packed));
static_assert(sizeof(struct root_disk) == 32, "on disk");

struct root_block {
    uint8_t magic[8];
    struct le32 version;
    struct le32 crc; /* CRC32C of the 4096 bytes, this field zero */
    uint8_t pool_uuid[16];
    uint8_t name[ROOT_NAME]; /* zero-terminated */
    struct le64 number;
    struct le64 features_compat, features_ro, features_incompat;
    struct le32 chunk_bytes, extent_bytes, log_segment_bytes;
    uint8_t profile[3]; /* default for volumes: kind, data, extra */
    uint8_t flags;
    struct le32 checkpoint;
    struct le16 disks;
    struct le16 pieces;
    struct root_table_image table_image;
    struct root_piece piece[ROOT_PIECES];
    struct root_disk disk[ROOT_DISKS];
    struct le16 deltas; /* with ROOT_FEATURE_DELTAS */
    uint8_t reserved_deltas[6];
    struct root_table_image delta[ROOT_DELTAS]; /* in the order in which they are applied */
    uint8_t read_only[ROOT_DISKS / 8]; /* bit i: disk i is out, and its data can only be read */
    uint8_t promised; /* members of the widest group that volumes may form; 0: of `profile` */
    uint8_t leaves[ROOT_DISKS / 8]; /* bit i: disk i is being emptied */
    uint8_t reserved[7];
} __attribute__((packed));
static_assert(sizeof(struct root_block) == ROOT_BYTES, "on disk");
static_assert(offsetof(struct root_block, number) == 96, "on disk");
static_assert(offsetof(struct root_block, table_image) == 152, "on disk");
static_assert(offsetof(struct root_block, disk) == 648, "on disk");
static_assert(offsetof(struct root_block, delta) == 3728, "on disk");
static_assert(offsetof(struct root_block, read_only) == 4064, "on disk");

#endif
