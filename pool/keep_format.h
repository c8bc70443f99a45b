/*
 * Kept memory of one volume (pool/keep.h): a header page, then two areas of groups. Host memory
 * that only a successor on the same machine reads, but under the rules of a disk format: it is
 * decoded as untrusted.
 *
 *     │ header │ area 0: group group group …      │ area 1: group …                │
 *
 * What lies behind `crc` changes while the memory is in use, each field by one store of 8 bytes.
 */
#ifndef VP_POOL_KEEP_FORMAT_H
#define VP_POOL_KEEP_FORMAT_H

#include "base/bytes.h"

#include <assert.h>
#include <stddef.h>

#define KEEP_MAGIC       UINT32_C(0x504b5056) /* "VPKP" */
#define KEEP_VERSION     1U
#define KEEP_HEADER_PAGE 4096U
#define KEEP_AREAS       2U

struct keep_area_header {
    struct le64 seq;  /* of two areas with content, the lower one is the older   */
    struct le64 used; /* bytes of groups; what lies behind them does not count    */
} __attribute__((packed));

struct keep_header {
    struct le32 magic, version;
    uint8_t boot_id[16]; /* another one: from before a reboot */
    uint8_t pool_uuid[16];
    struct le32 volume;
    struct le32 area_bytes;
    struct le32 reserved;
    struct le32 crc; /* CRC32C of all before */
    /* Belongs to the incarnation of the pool whose log has one of these streams. */
    struct le64 stream[2];
    struct keep_area_header area[KEEP_AREAS];
    struct le64 durable; /* number of the volume's last commit known to be in the log */
    /* At the last append the log of this stream had this batch. 0: an older release's. */
    struct le64 log_stream, log_seq;
} __attribute__((packed));
static_assert(offsetof(struct keep_header, crc) == 52, "kept memory");
static_assert(offsetof(struct keep_header, stream) == 56, "kept memory");
static_assert(offsetof(struct keep_header, area) == 72, "kept memory");
static_assert(offsetof(struct keep_header, durable) == 104, "kept memory");
static_assert(offsetof(struct keep_header, log_seq) == 120, "kept memory");
static_assert(sizeof(struct keep_header) == 128, "kept memory");

/* Then records (record_format.h), which belong together: all of them count, or none. */
struct keep_group_header {
    struct le32 crc;    /* CRC32C of what follows, and the records                          */
    struct le32 bytes;  /* of records                                                       */
    struct le64 commit; /* the volume's last commit that had begun: it does not cover these */
} __attribute__((packed));
static_assert(sizeof(struct keep_group_header) == 16, "kept memory");

#endif
