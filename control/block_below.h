/* What a disk stands on: whether some block device is below a path. */
#ifndef VP_CONTROL_BLOCK_BELOW_H
#define VP_CONTROL_BLOCK_BELOW_H

#include "control/block_users.h"

#include <sys/types.h>

#define BLOCK_NAME_MAX 48

struct block_names {
    char (*name)[BLOCK_NAME_MAX]; /* "ublkb3" */
    unsigned count;
};

/*
 * The first of `names` that the block device `dev` is, or stands on: as a partition, through the
 * device mapper or md, or through a loop device on a file of a file system there. NULL: none.
 * Borrowed from `names`. May wait for the file systems that hold the files of loop devices.
 */
const char *block_below(const struct block_users_roots *roots, dev_t dev,
                        const struct block_names *names);
/* The same for a path to a block device, or to a file, there or not, which stands on its file
 * system's device.
 * A file system without one (btrfs, NFS) is not looked through. */
const char *block_below_path(const struct block_users_roots *roots, const char *path,
                             const struct block_names *names);

#endif
