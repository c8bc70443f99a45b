/*
 * The value of a GROUP record (key: group id): the head, then `members` times struct
 * pool_group_member_disk, then `arenas` times le32: the volume id (family) that leases the arena,
 * 0 = free. Its length is exactly that.
 *
 * `members` = `data` + `extra` for every profile; with parity the member order is the order of
 * units before rotation. The profile's encoding is that of raid/profile.h.
 */
#ifndef VP_POOL_GROUP_FORMAT_H
#define VP_POOL_GROUP_FORMAT_H

#include "base/bytes.h"

#include <assert.h>

struct pool_group_disk {
    uint8_t role; /* 1 data, 2 metadata          */
    uint8_t kind; /* 1 single, 2 mirror, 3 parity */
    uint8_t data;
    uint8_t extra;
    uint8_t members;
    uint8_t reserved[3];
    struct le32 arenas;     /* 0 for metadata              */
    struct le32 slots;      /* 0 for metadata              */
    struct le64 first_slot; /* 0 for metadata              */
} __attribute__((packed));
static_assert(sizeof(struct pool_group_disk) == 24, "group layout");

struct pool_group_member_disk {
    struct le32 disk; /* index */
    struct le32 extent;
} __attribute__((packed));
static_assert(sizeof(struct pool_group_member_disk) == 8, "group layout");

#endif
