/* Making a sparse file that serves as a disk. */
#include "base/attr.h"
#include "io/device.h"
#include "io/offload.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct file_create {
    const char *path;
    uint64_t size_bytes;
    struct vp_error *err;
};

static int create_blocking(void *arg)
{
    const struct file_create *f = arg;
    AUTO_FD int fd = open(f->path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return vp_fail_errno(f->err, vp_err_from_errno(errno), errno, "%s: cannot be created",
                             f->path);
    if (ftruncate(fd, (off_t)f->size_bytes) != 0 || fsync(fd) != 0) {
        int rc = vp_fail_errno(f->err, vp_err_from_errno(errno), errno,
                               "%s: cannot be made %llu bytes long", f->path,
                               (unsigned long long)f->size_bytes);
        (void)unlink(f->path);
        return rc;
    }
    return 0;
}

CO int io_file_create(const char *path, uint64_t size_bytes, struct vp_error *err)
{
    struct file_create f = {path, size_bytes, err};
    return offload_run(create_blocking, &f);
}
