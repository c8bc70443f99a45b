/* Where a disk is and which disk it is, in words for a person who looks for it in a machine. */
#ifndef VP_CONTROL_DISK_PLACE_H
#define VP_CONTROL_DISK_PLACE_H

#include "io/co.h"

struct disk_place {
    char path[256];
    char serial[64]; /* "" for a file, and where nobody knows one */
};

/* Fills in the serial number of the block device at place->path: udev's, else the kernel's. */
CO void disk_place_look(struct disk_place *place);

#endif
