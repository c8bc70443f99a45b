/*
 * Bytes of thin/ on disk: pages of the map and space trees, and the values of TREE, STAT, INTENT,
 * MAP and SPACE records. Little-endian, packed; docs/format.md describes them in words.
 *
 * A page's checksum is in the pointer to it (struct thin_page_ref_disk), so that a lost, stale or
 * misdirected write is noticed; the header says which page it is, so that a pointer to the wrong
 * page is noticed too.
 */
#ifndef VP_THIN_THIN_FORMAT_H
#define VP_THIN_THIN_FORMAT_H

#include "base/bytes.h"
#include "pool/pool.h"

#include <assert.h>

#define THIN_PAGE_MAGIC   0x50545056U /* "VPTP" */
#define THIN_PAGE_VERSION 1U

/* Offset 0 of every tree page; entries follow, from the lowest key up. */
struct thin_page_header {
    struct le32 magic;
    struct le16 version;
    uint8_t tree;  /* enum pool_tree */
    uint8_t level; /* 0 = leaf */
    struct le32 volume;
    struct le32 entry_bytes;
    struct le64 index;      /* of the page in its level: which keys it holds        */
    struct le32 generation; /* of the checkpoint that wrote it                      */
    uint8_t reserved[36];   /* 0 */
} __attribute__((packed));
static_assert(sizeof(struct thin_page_header) == 64, "page header");
static_assert(offsetof(struct thin_page_header, index) == 16, "page header");

#define THIN_PAGE_ROOM (POOL_PAGE - (uint32_t)sizeof(struct thin_page_header))

/* An interior page's entry. addr 0: no key below has a value. */
struct thin_page_ref_disk {
    struct le64 addr;
    struct le32 crc; /* CRC32C of the whole page */
    struct le32 generation;
} __attribute__((packed));
static_assert(sizeof(struct thin_page_ref_disk) == 16, "page reference");

#define THIN_FANOUT (THIN_PAGE_ROOM / sizeof(struct thin_page_ref_disk))
static_assert(THIN_FANOUT == 252, "pointers in an interior page");

/*
 * The map tree's entry, key = vchunk; also the value of a MAP record. Behind the fixed part follow
 * the valid bits (block i is bit i mod 8 of byte i / 8; max(8, blocks / 8) bytes) and a le32 CRC32C
 * for each block, meaningless where the bit is clear. All zero: not mapped.
 */
struct thin_map_entry_disk {
    struct le64 pchunk;           /* 0 = not mapped                                          */
    struct le32 generation_flags; /* low 28 bits: generation at the last write; flags: 0      */
} __attribute__((packed));
static_assert(sizeof(struct thin_map_entry_disk) == 12, "map entry");
#define THIN_GENERATION_MASK 0x0fffffffU

/* The space tree's entry, key = arena number; also the value of a SPACE record: bit i = chunk i of
 * the arena is in use. */
struct thin_space_entry_disk {
    struct le64 used;
} __attribute__((packed));
static_assert(THIN_PAGE_ROOM / sizeof(struct thin_space_entry_disk) == 504, "space leaf");

/* Key: enum pool_tree. */
struct thin_tree_record_disk {
    struct thin_page_ref_disk root;
    uint8_t height; /* levels; 0 = the tree is empty */
    uint8_t reserved[7];
} __attribute__((packed));
static_assert(sizeof(struct thin_tree_record_disk) == 24, "TREE record");

/* Key: 0. */
struct thin_stat_record_disk {
    struct le64 allocated_chunks;
    struct le64 valid_blocks;
    struct le64 generation; /* the volume's current one */
    struct le64 reserved;
} __attribute__((packed));
static_assert(sizeof(struct thin_stat_record_disk) == 32, "STAT record");

/* Key: number of the word; bit i: blocks of region key × 64 + i may differ from their CRCs. */
struct thin_intent_record_disk {
    struct le64 regions;
} __attribute__((packed));

#define THIN_REGION_CHUNKS 1024U

#endif
