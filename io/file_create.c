/* Making a sparse file that serves as a disk. */
#include "base/attr.h"
#include "io/device.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int io_file_create(const char *path, uint64_t size_bytes, struct vp_error *err)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return vp_fail_errno(err, vp_err_from_errno(errno), errno, "%s: can not be created", path);
    if (ftruncate(fd, (off_t)size_bytes) != 0 || fsync(fd) != 0) {
        int rc = vp_fail_errno(err, vp_err_from_errno(errno), errno,
                               "%s: can not be made %llu bytes long", path,
                               (unsigned long long)size_bytes);
        (void)unlink(path);
        return rc;
    }
    return 0;
}
