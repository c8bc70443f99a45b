/*
 * Who uses a block device, for messages and lists: mounts, swap, processes that have it open, and
 * devices made from it (device-mapper, md). The device itself, its partitions and in turn those
 * devices count. Only what can be seen from here is found: not mounts of other mount namespaces,
 * and processes only with the right to look at them (CAP_SYS_PTRACE). Only the kernel knows for
 * certain that nobody uses a device.
 */
#ifndef VP_CONTROL_BLOCK_USERS_H
#define VP_CONTROL_BLOCK_USERS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>

#define BLOCK_USERS_MAX 32

enum block_use { BLOCK_MOUNTED, BLOCK_SWAP, BLOCK_HELD, BLOCK_OPEN };

struct block_user {
    enum block_use use;
    char device[48]; /* "ublkb7p1": which of the devices       */
    char what[256];  /* mount point; name of the holder; name of the process */
    int pid;         /* BLOCK_OPEN */
};

struct block_users {
    struct block_user user[BLOCK_USERS_MAX];
    unsigned count; /* of all that were found; those beyond the table are only counted */
};

/* Where the kernel's files are; the tests have their own. */
struct block_users_roots {
    const char *proc, *sys;
};
extern const struct block_users_roots block_users_kernel; /* /proc, /sys */

struct block_users_of {
    char device[48]; /* "ublkb7"; or a character device, of which only openers count */
    struct block_users users;
};

/*
 * Looks who uses each of `count` devices. Reads many files of /proc and /sys, once for all devices;
 * none of them waits for a device: run it offloaded. A device that is not there has no users.
 * VP_E_NO_MEMORY.
 */
int block_users_find(const struct block_users_roots *roots, struct block_users_of *of,
                     unsigned count) must_check;

/* "mounted at /srv; swap on ublkb7p2; held by dm-0 (vg-lv); open in qemu (pid 12); 3 more". UTF-8,
 * also where it had to be cut. */
void block_users_text(const struct block_users *users, char *out, size_t size);

const char *block_use_name(enum block_use use); /* "mount", "swap", "holder", "process" */

#endif
