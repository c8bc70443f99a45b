/*
 * /run/vpool/ublk/ublkbN: whose volume the block device N is. Lines of KEY=VALUE, for three
 * readers:
 *
 *   - the udev rule, which makes the stable name from it and so never has to ask a daemon;
 *   - a daemon of another state directory, which learns that a device without a server is one of
 *     ours: the same number and the same tag;
 *   - people.
 *
 * A record is there before the device can be seen and until it cannot be seen any more, while the
 * number is still taken. One without a device is a leftover: somebody else removed the device. A
 * daemon does not take it for that of the next device of that number, whose tag is another; but
 * udev cannot see tags, so leftovers are removed at the start. Devices and /run both end with the
 * machine's uptime. All of this blocks (tmpfs): run it offloaded.
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
/* Whether both are of the same volume. The pool does not count: a volume may move to another pool,
 * and keeps its uuid. */
bool ublk_record_is_of(const struct ublk_record *r, const struct ublk_record *volume);
/* Tells udev that device `number`, and then each of its partitions, has changed, so that it reads
 * the record again. `block_dir` is the kernel's: it has "ublkbN". An errno's code. */
int ublk_announce(const char *block_dir, int number) must_check;
/* One that is not there is fine. */
int ublk_record_remove(const char *dir, int number) must_check;

/*
 * Removes the records of devices that are not there, because somebody else removed those. Each
 * device is looked for in `class_dir` (the kernel's: "ublkcN") just before its record goes. Where
 * it cannot be told, the record stays. An errno's code, the last of several.
 */
int ublk_records_forget_leftovers(const char *dir, const char *class_dir) must_check;

#define UBLK_NUMBERS_MAX 4096
struct ublk_numbers {
    int number[UBLK_NUMBERS_MAX]; /* ascending */
    unsigned count;
};
/* The N of all "PREFIXN" in a directory, at most as many as there is room for; none when it is not
 * there. An errno's code: they are not known. */
int ublk_numbers_in(const char *dir, const char *prefix, struct ublk_numbers *out) must_check;
/* "ublkbN" or "ublkcN" to N; -1 when it is neither. */
int ublk_number_of(const char *name, const char *prefix);

#endif
