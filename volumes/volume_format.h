/*
 * The VOLUME record (pool_record_kind POOL_RECORD_VOLUME, scope: volume id, key 0), the COUNTER
 * that numbers volumes, and the COUNTER of a volume's errors. Little-endian. Version 1 is the fixed
 * part and a name. Version 2 has the ownership between them: a volume that never moved has version
 * 1. The pool's log and table image carry the checksum; decoding still trusts nothing.
 */
#ifndef VP_VOLUMES_VOLUME_FORMAT_H
#define VP_VOLUMES_VOLUME_FORMAT_H

#include "base/bytes.h"

#include <assert.h>

#define VOLUME_RECORD_VERSION       1
#define VOLUME_RECORD_VERSION_MOVED 2 /* decision 0012: older releases leave that volume alone */

enum volume_record_flags {
    VOLUME_RECORD_ZERO_DETECT = 1,
    VOLUME_RECORD_SYNC_ALWAYS = 2,
    VOLUME_RECORD_READ_ONLY = 4,
    VOLUME_RECORD_FLAGS_KNOWN = 7,
};
enum volume_record_state {
    VOLUME_RECORD_LIVE = 1,
    VOLUME_RECORD_DELETING = 2, /* name is free; arenas, pages and records are to go */
};
enum volume_record_policy {
    VOLUME_RECORD_PAUSE = 1,
    VOLUME_RECORD_ENOSPC = 2,
};

struct volume_record_disk {
    struct le16 version;
    struct le16 name_len; /* 1 … VOLUME_NAME_MAX */
    uint8_t profile_kind, profile_data, profile_extra;
    uint8_t state;
    uint8_t uuid[16];
    struct le64 size_bytes;
    struct le64 reserve_bytes;
    struct le64 created_seconds;
    struct le32 sector_bytes;
    struct le16 flags;
    uint8_t full_policy;
    uint8_t zero;
    /* version 2: struct volume_owner_disk */
    /* char name[name_len]                 */
    /* version 2: char other[other_len]    */
    /* version 2: char peer[peer_len]      */
} __attribute__((packed));
static_assert(sizeof(struct volume_record_disk) == 56, "on-disk size");
static_assert(offsetof(struct volume_record_disk, uuid) == 8, "on-disk layout");
static_assert(offsetof(struct volume_record_disk, size_bytes) == 24, "on-disk layout");
static_assert(offsetof(struct volume_record_disk, flags) == 52, "on-disk layout");

/* Who owns the volume (owner.h). */
struct volume_owner_disk {
    struct le64 epoch;
    uint8_t ownership; /* enum volume_ownership                                     */
    uint8_t other_len; /* of "POOL/VOL" of the other side, 0 … VOLUME_FULL_NAME_MAX */
    uint8_t peer_len;  /* of the other side's daemon; 0: it was this one                   */
    uint8_t zero[5];
    uint8_t move[16], pool[16]; /* uuids of the move and of the other side's pool; OWNER: zeros */
} __attribute__((packed));
static_assert(sizeof(struct volume_owner_disk) == 48, "on-disk size");
static_assert(offsetof(struct volume_owner_disk, move) == 16, "on-disk layout");

/* COUNTER record with this key: le64, the next volume id. Ids are never used twice in a pool. */
#define VOLUME_COUNTER_NEXT_ID 1

/* COUNTER record with this key, scope: volume id. Older releases leave it alone, also when they
 * delete the volume. (Key 2 is pool/'s.) */
#define VOLUME_COUNTER_ERRORS 3

struct volume_errors_disk {
    struct le64 since;           /* seconds since 1970: the epoch of the counters           */
    struct le64 checksum_errors; /* requests that failed for want of a good copy */
    struct le64 healed_blocks;   /* bad copies of a block that were rewritten from a good one */
} __attribute__((packed));
static_assert(sizeof(struct volume_errors_disk) == 24, "on-disk size");

/* COUNTER record with this key, scope: index of a disk that is being filled (fill.c). What lies
 * before this place is on it, durably. It counts for the disk with this uuid only. */
#define VOLUME_COUNTER_FILL 4

struct volume_fill_disk {
    uint8_t disk_uuid[16];
    struct le32 volume; /* id */
    struct le32 zero;
    struct le64 block;
} __attribute__((packed));
static_assert(sizeof(struct volume_fill_disk) == 32, "on-disk size");

/* COUNTER record with this key, scope 0: the last scrub of the pool, under way or ended (scrub.c).
 * The fixed part, then `findings` of the other struct. */
#define VOLUME_COUNTER_SCRUB 5

struct volume_scrub_disk {
    uint8_t state; /* enum volumes_scrub_state */
    uint8_t zero[3];
    struct le32 findings;
    struct le64 started, ended;  /* seconds since 1970; ended is 0 while it is under way     */
    struct le32 volume;          /* what lies before this place was compared: id …            */
    struct le32 skipped_volumes; /* that could not be scrubbed                                */
    struct le64 block;           /* … and block                                               */
    struct le64 compared_bytes;  /* of all copies                                             */
    struct le64 healed_blocks, bad_blocks, lost_blocks; /* enum raid_found */
    struct le64 findings_left_out;                      /* there were more than are kept      */
    struct le64 metadata_bytes; /* compared, of pages of trees, of all copies */
    struct le64 missing_bytes;  /* data and metadata without a copy in service that could be read */
} __attribute__((packed));
static_assert(sizeof(struct volume_scrub_disk) == 96, "on-disk size");

/* A run of bad blocks of one copy. */
struct volume_scrub_finding_disk {
    struct le32 volume;       /* id */
    struct le32 disk;         /* index */
    struct le64 block, count; /* of the volume; of metadata: the page's address, 1 */
    struct le64 seconds;      /* since 1970 */
    uint8_t found;            /* enum raid_found */
    uint8_t unreadable;       /* 1: the device did not give it; 0: its checksum did not match */
    uint8_t metadata;         /* 1: a page of the volume's trees */
    uint8_t zero[5];
} __attribute__((packed));
static_assert(sizeof(struct volume_scrub_finding_disk) == 40, "on-disk size");

/*
 * COUNTER record with this key, scope: id of a volume that has become another daemon's. That one
 * has not confirmed yet that it knows (left.c). An older release keeps the record, and tells
 * nobody.
 */
#define VOLUME_COUNTER_LEFT 6
#define VOLUME_LEFT_VERSION 1

struct volume_left_disk {
    struct le16 version;
    uint8_t name_len;  /* of the volume's name here, 1 … VOLUME_NAME_MAX */
    uint8_t other_len; /* of "POOL/VOL" there, 1 … VOLUME_FULL_NAME_MAX  */
    uint8_t peer_len;  /* of the daemon's address, 1 … VOLUME_PEER_MAX   */
    uint8_t zero[3];
    struct le64 epoch;                      /* of the volume when it left */
    uint8_t move[16], pool[16], volume[16]; /* uuids: the move, the pool there, the volume */
    /* char name[name_len], other[other_len], peer[peer_len] */
} __attribute__((packed));
static_assert(sizeof(struct volume_left_disk) == 64, "on-disk size");
static_assert(offsetof(struct volume_left_disk, move) == 16, "on-disk layout");

#endif
