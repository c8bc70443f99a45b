/*
 * What a pool remembers about itself, in COUNTER records, which older releases leave alone: the
 * error counters of each disk and where the disk was seen last (scope: disk index), and the pool's
 * last events (scope: slot). The log's checksum covers them.
 */
#ifndef VP_CONTROL_HISTORY_FORMAT_H
#define VP_CONTROL_HISTORY_FORMAT_H

#include "base/bytes.h"

#include <assert.h>

#define HISTORY_DISK_KEY  16U /* of the COUNTER records */
#define HISTORY_EVENT_KEY 17U
#define HISTORY_PLACE_KEY 18U
#define HISTORY_EVENTS    128U

struct history_disk_disk {
    struct vp_uuid uuid; /* of the disk: another one at this index starts with zeros */
    struct le64 since;   /* seconds since 1970: the epoch of the counters */
    struct le64 read_errors, write_errors, checksum_errors, healed_blocks;
} __attribute__((packed));
static_assert(sizeof(struct history_disk_disk) == 56, "on-disk size");

struct history_place_disk {
    struct vp_uuid uuid;          /* of the disk */
    struct le16 path_len;         /* bytes */
    uint8_t serial_len, reserved; /* bytes; zero */
    char text[];                  /* path, serial number; no ends */
} __attribute__((packed));
static_assert(sizeof(struct history_place_disk) == 20, "on-disk size");

struct history_event_disk {
    struct le64 number; /* of this pool's events; in slot number % HISTORY_EVENTS */
    struct le64 seconds;
    uint8_t level; /* 0 error, 1 warn, 2 info */
    uint8_t kind_len, subject_len, reserved;
    struct le32 text_len;
    char text[]; /* kind, subject, text; no ends */
} __attribute__((packed));
static_assert(sizeof(struct history_event_disk) == 24, "on-disk size");

#endif
