/*
 * /run/vpool/ublk/ublkbN: whose volume the block device N is. Lines of KEY=VALUE, for three readers:
 *
 *   - the udev rule, which makes the stable name from it and so never has to ask a daemon;
 *   - a daemon of another state directory, which learns that a device without a server is one of
 *     ours: the same number and the same tag;
 *   - people.
 *
 * A record is there before the device can be seen and until it can not be seen any more, while the
 * number is still taken: one without a device is a leftover, and never describes somebody else's.
 * Devices and /run both end with the machine's uptime. All of this blocks (tmpfs): run it offloaded.
 */
#ifndef VP_CONTROL_UBLK_RECORD_H
#define VP_CONTROL_UBLK_RECORD_H

#include "base/bytes.h"
#include "base/error.h"
#include "pool/pool.h"
#include "volumes/volume.h"

#include <stdbool.h>
#include <stdint.h>

#define UBLK_RECORD_DIR "/run/vpool/ublk" /* packaging/61-vpool.rules has it too */

struct ublk_record {
    int number;
    uint64_t tag; /* ublkx_options.tag */
    char pool[POOL_NAME_MAX + 1];
    char volume[VOLUME_NAME_MAX + 1];
    struct vp_uuid pool_uuid, volume_uuid;
};

/* Writes or replaces it, whole or not at all; makes the directory. An errno's code. */
int ublk_record_write(const char *dir, const struct ublk_record *r) must_check;
/* VP_E_NOT_FOUND; VP_E_INVALID: it is not one of ours. Nothing in the file is trusted. */
int ublk_record_read(const char *dir, int number, struct ublk_record *out) must_check;
/* One that is not there is fine. */
int ublk_record_remove(const char *dir, int number) must_check;

/* "ublkbN" or "ublkcN" to N; -1 when it is neither. */
int ublk_number_of(const char *name, const char *prefix);

#endif
