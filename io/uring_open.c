/*
 * Opening a block device or a file, exclusively, and finding out what it can do.
 *
 * W1  No completed write of a file waits in the kernel's page cache. Either the write went around
 *     the cache (O_DIRECT), or it was written through (RWF_DSYNC), or memory is all there is
 *     (tmpfs). So a full file system reports the lack of room to the write itself, and the write is
 *     tried again while its data are at hand. A flush that fails for lack of room has lost none of
 *     our writes, so it can be tried again and believed.
 */
#include "io/uring_device_impl.h"

#include "base/attr.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FILE_SECTOR 4096U

/* ---- /sys ---------------------------------------------------------------------------------- */

/* The text of a queue attribute of a block device or, for a partition, of its disk. */
static bool queue_attribute(dev_t dev, const char *name, char *text, size_t size)
{
    static const char *const places[] = {"queue", "../queue"};
    for (size_t i = 0; i < 2; i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(dev), minor(dev),
                       places[i], name);
        FILE *f = fopen(path, "re");
        if (!f)
            continue;
        bool ok = fgets(text, (int)size, f) != NULL;
        (void)fclose(f);
        return ok;
    }
    return false;
}

static uint64_t queue_number(dev_t dev, const char *name)
{
    char text[64];
    return queue_attribute(dev, name, text, sizeof(text)) ? strtoull(text, NULL, 10) : 0;
}

/* "write through" is the only answer that makes a flush unnecessary. */
static bool has_write_cache(dev_t dev)
{
    char text[64];
    return !queue_attribute(dev, "write_cache", text, sizeof(text)) ||
           strncmp(text, "write through", 13) != 0;
}

/* ---- opening ------------------------------------------------------------------------------- */

static int open_failed(const char *path, struct vp_error *err)
{
    switch (errno) {
    case ENOENT:
        return vp_fail_errno(err, VP_E_NOT_FOUND, errno, "cannot open %s", path);
    case EACCES:
    case EPERM:
    case EROFS:
        return vp_fail_errno(err, VP_E_PERMISSION, errno, "cannot open %s", path);
    case EBUSY:
        return vp_fail(err, VP_E_IO_BUSY_DEVICE,
                       "%s is in use: mounted, or part of another pool, array or volume", path);
    case ENXIO:
    case ENODEV:
    case ENOMEDIUM:
        return vp_fail_errno(err, VP_E_IO_NO_DEVICE, errno, "cannot open %s", path);
    default:
        return vp_fail_errno(err, VP_E_SYSTEM, errno, "cannot open %s", path);
    }
}

static int open_block(struct uring_device *d, const char *path, unsigned flags, dev_t dev,
                      struct vp_error *err)
{
    int mode = (flags & IO_OPEN_READ_ONLY ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC;
    d->fd = open(path, mode | (flags & IO_OPEN_SHARED ? 0 : O_EXCL));
    if (d->fd < 0)
        return open_failed(path, err);
    struct io_dev_info *info = &d->dev.info;
    int sector = 0;
    unsigned physical = 0;
    if (ioctl(d->fd, BLKSSZGET, &sector) != 0 || ioctl(d->fd, BLKPBSZGET, &physical) != 0 ||
        ioctl(d->fd, BLKGETSIZE64, &info->size_bytes) != 0)
        return vp_fail_errno(err, VP_E_SYSTEM, errno, "cannot ask %s for its geometry", path);
    if (sector < 512 || sector > 4096 || (sector & (sector - 1)) != 0)
        return vp_fail(err, VP_E_NOT_SUPPORTED, "%s has sectors of %d bytes; 512 to 4096 are known",
                       path, sector);
    info->sector_bytes = (uint32_t)sector;
    info->atomic_bytes = physical < 4096 ? physical : 4096;
    if (info->atomic_bytes < info->sector_bytes)
        info->atomic_bytes = info->sector_bytes;
    info->write_cache = has_write_cache(dev);
    info->can_discard = queue_number(dev, "discard_max_bytes") > 0;
    info->can_zero = queue_number(dev, "write_zeroes_max_bytes") > 0;
    info->rotational = queue_number(dev, "rotational") != 0;
    info->is_loop = major(dev) == LOOP_MAJOR;
    return 0;
}

/* Turns on O_DIRECT where the file system takes it with our alignment; buffered I/O serves else. */
static bool try_direct(int fd)
{
#ifdef STATX_DIOALIGN
    struct statx stx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN) &&
        (stx.stx_dio_offset_align == 0 || stx.stx_dio_offset_align > FILE_SECTOR ||
         stx.stx_dio_mem_align > FILE_SECTOR))
        return false;
#endif
    int mode = fcntl(fd, F_GETFL);
    return mode >= 0 && fcntl(fd, F_SETFL, mode | O_DIRECT) == 0;
}

static int lock_file(int fd, const char *path, unsigned flags, struct vp_error *err)
{
    if (flags & IO_OPEN_SHARED)
        return 0;
    struct flock lock = {.l_type = flags & IO_OPEN_READ_ONLY ? F_RDLCK : F_WRLCK,
                         .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return vp_fail(err, VP_E_IO_BUSY_DEVICE,
                       "%s is in use by another process, or it is named twice", path);
    return vp_fail_errno(err, VP_E_SYSTEM, errno, "cannot lock %s", path);
}

static bool is_memory_fs(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
}

/* The atomic unit of the disk below. Nothing is known of a file system on several disks, or on
 * none. */
static uint32_t file_atomic_bytes(dev_t dev)
{
    uint64_t physical = queue_number(dev, "physical_block_size");
    return physical >= FILE_SECTOR ? FILE_SECTOR : 512;
}

static int open_file(struct uring_device *d, const char *path, unsigned flags,
                     const struct stat *st, struct vp_error *err)
{
    d->fd = open(path, (flags & IO_OPEN_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC);
    if (d->fd < 0)
        return open_failed(path, err);
    int rc = lock_file(d->fd, path, flags, err);
    if (rc != 0)
        return rc;
    bool memory = is_memory_fs(d->fd);
    d->in_memory = memory && !ring_feature_disabled("inline_io");
    d->buffered = !d->in_memory && !try_direct(d->fd) && !memory;
    struct io_dev_info *info = &d->dev.info;
    info->is_file = true;
    info->size_bytes = (uint64_t)st->st_size / FILE_SECTOR * FILE_SECTOR;
    info->sector_bytes = FILE_SECTOR;
    info->atomic_bytes = file_atomic_bytes(st->st_dev);
    info->write_cache = true;
    info->can_discard = true;
    info->can_zero = true;
    info->rotational = queue_number(st->st_dev, "rotational") != 0;
    return 0;
}

static int open_any(struct uring_device *d, const char *path, unsigned flags, struct vp_error *err)
{
    struct stat st;
    if (strlen(path) >= sizeof(d->dev.info.path))
        return vp_fail(err, VP_E_NOT_SUPPORTED, "the path %.40s… is too long", path);
    memcpy(d->dev.info.path, path, strlen(path) + 1);
    if (stat(path, &st) != 0)
        return open_failed(path, err);
    if (S_ISBLK(st.st_mode))
        return open_block(d, path, flags, st.st_rdev, err);
    if (S_ISREG(st.st_mode))
        return open_file(d, path, flags, &st, err);
    return vp_fail(err, VP_E_NOT_SUPPORTED, "%s is neither a block device nor a file", path);
}

int uring_device_open(const char *path, unsigned flags, struct io_dev **out, struct vp_error *err)
{
    AUTO_FREE struct uring_device *d = calloc(1, sizeof(*d));
    if (!d)
        return vp_fail(err, VP_E_NO_MEMORY, "no memory to open %s", path);
    d->fd = -1;
    io_dev_init(&d->dev);
    d->dev.ops = &uring_device_ops;
    int rc = open_any(d, path, flags, err);
    if (rc != 0) {
        if (d->fd >= 0)
            close(d->fd);
        return rc;
    }
    *out = &steal(d)->dev;
    return 0;
}
