/* Block devices and regular files, private to io/: uring_open.c finds out what one is,
 * uring_device.c does its I/O. */
#ifndef VP_IO_URING_DEVICE_IMPL_H
#define VP_IO_URING_DEVICE_IMPL_H

#include "io/device.h"
#include "io/ring_impl.h"

#include <stdatomic.h>

struct uring_device {
    struct io_dev dev;
    int fd;
    bool in_memory; /* a memory file system: the transfer is a copy, done within submit */
    bool buffered;  /* through the page cache, and so each write with RWF_DSYNC (W1)      */
    /* Ways that the kernel turned out not to know, any reactor: not tried again. */
    _Atomic bool no_discard_command, no_punch;
};

int uring_device_open(const char *path, unsigned flags, struct io_dev **out, struct vp_error *err);

extern const struct io_dev_ops uring_device_ops;

#endif
