/*
 * Log and table image: chains of segments, each a run of 4 KiB metadata pages filled with batches.
 * A batch starts at a page; what follows its `bytes` in the last page means nothing.
 *
 *     segment  │ batch 7 │ batch 8        │ JUMP 9 │ (unused) │
 *                                             └──▶ segment │ batch 10 │ …
 */
#ifndef VP_POOL_LOG_FORMAT_H
#define VP_POOL_LOG_FORMAT_H

#include "base/bytes.h"

#include <assert.h>
#include <stddef.h>

#define LOG_BATCH_MAGIC 0x4c475056U /* "VPGL" */

enum log_batch_flags {
    LOG_BATCH_MORE = 1, /* the next batch belongs to the same run: all of it counts or nothing   */
    LOG_BATCH_JUMP = 2, /* the body is a struct log_segment where the stream goes on; no records */
};

struct log_batch_header {
    struct le32 magic;
    struct le32 crc; /* CRC32C of header (this field zero) and body */
    uint8_t pool_uuid[16];
    struct le64 stream;
    struct le64 seq;   /* 1, 2, 3 … in its stream, JUMPs included */
    struct le32 bytes; /* header and body                         */
    struct le16 flags;
    uint8_t reserved[18];
} __attribute__((packed));
static_assert(sizeof(struct log_batch_header) == 64, "on disk");

#define LOG_PLACES     3U /* of a segment with up to so many copies */
#define LOG_COPIES_MAX 5U
/* Of 4 KiB; the geometry allows segments of 16 KiB to 1 MiB. */
#define LOG_SEGMENT_PAGES_MAX 256U

/* Where a segment is, on every disk that holds a copy, without asking any record. */
struct log_segment {
    struct le32 pages;
    uint8_t copies;
    uint8_t reserved[3];
    struct le64 place[LOG_PLACES]; /* disk index << 48 | offset on the disk / 4096 */
} __attribute__((packed));
static_assert(sizeof(struct log_segment) == 32, "on disk");

/* The same in the same bytes, of more than LOG_PLACES copies (ROOT_FEATURE_WIDE). All copies of a
 * segment are in one group, so the page in the extent is the same for all. */
struct log_segment_wide {
    struct le16 pages;
    struct le16 page_low; /* in the extent: the low 16 bits */
    uint8_t copies;
    uint8_t page_high; /* … the rest                     */
    uint8_t disk[LOG_COPIES_MAX];
    uint8_t reserved;
    struct le32 extent[LOG_COPIES_MAX]; /* on that disk */
} __attribute__((packed));
static_assert(sizeof(struct log_segment_wide) == sizeof(struct log_segment), "on disk");
static_assert(offsetof(struct log_segment_wide, copies) == offsetof(struct log_segment, copies),
              "it says which of the two it is");

#define LOG_PLACE_DISK_SHIFT 48

#endif
