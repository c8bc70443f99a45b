/* The error table and the two ways to report from it. */
#include "base/error.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct entry {
    const char *name;
    int errno_class;
    const char *sentence;
};

static const struct entry table[] = {
#define VP_ERROR(name, errno_class, sentence) {#name, errno_class, sentence},
#include "base/errors.def"
#undef VP_ERROR
};

static const struct entry *find(int rc)
{
    if (rc <= VP_E_BASE || rc >= VP_E_END)
        return NULL;
    return &table[rc - VP_E_BASE - 1];
}

int vp_err_class(int rc)
{
    if (rc == 0)
        return 0;
    const struct entry *e = find(rc);
    return e ? e->errno_class : EIO;
}

const char *vp_err_name(int rc)
{
    if (rc == 0)
        return "OK";
    const struct entry *e = find(rc);
    return e ? e->name : "UNKNOWN";
}

int vp_err_from_name(const char *name)
{
    for (int rc = VP_E_BASE + 1; rc < VP_E_END; rc++)
        if (strcmp(table[rc - VP_E_BASE - 1].name, name) == 0)
            return rc;
    return 0;
}

const char *vp_err_text(int rc)
{
    if (rc == 0)
        return "no error";
    const struct entry *e = find(rc);
    return e ? e->sentence : "unknown error";
}

int vp_err_from_errno(int err)
{
    switch (err) {
    case 0:
        return 0;
    case EINVAL:
        return VP_E_INVALID;
    case ENOMEM:
        return VP_E_NO_MEMORY;
    case EIO:
        return VP_E_IO;
    case ENOSPC:
    case EDQUOT:
        return VP_E_NO_SPACE;
    case EPERM:
    case EACCES:
        return VP_E_PERMISSION;
    case EROFS:
        return VP_E_READ_ONLY;
    case ENOENT:
        return VP_E_NOT_FOUND;
    case EEXIST:
        return VP_E_EXISTS;
    case EBUSY:
        return VP_E_BUSY;
    case EOPNOTSUPP:
    case ENOSYS:
        return VP_E_NOT_SUPPORTED;
    case EAGAIN:
    case EINTR:
        return VP_E_AGAIN;
    case ECANCELED:
        return VP_E_CANCELLED;
    case ETIME:
    case ETIMEDOUT:
        return VP_E_TIMED_OUT;
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return VP_E_CLOSED;
    case ENODEV:
    case ENXIO:
    case EBADF:
        return VP_E_IO_NO_DEVICE;
    default:
        return VP_E_SYSTEM;
    }
}

static void say(struct vp_error *err, int rc, const char *fmt, va_list ap)
{
    err->rc = rc;
    if (vsnprintf(err->text, sizeof(err->text), fmt, ap) < 0)
        err->text[0] = '\0';
    bytes_make_printable(err->text);
}

int vp_fail(struct vp_error *err, int rc, const char *fmt, ...)
{
    if (!err)
        return rc;
    va_list ap;
    va_start(ap, fmt);
    say(err, rc, fmt, ap);
    va_end(ap);
    return rc;
}

int vp_fail_errno(struct vp_error *err, int rc, int errnum, const char *fmt, ...)
{
    if (!err)
        return rc;
    va_list ap;
    va_start(ap, fmt);
    say(err, rc, fmt, ap);
    va_end(ap);
    size_t used = strlen(err->text);
    if (used < sizeof(err->text))
        (void)snprintf(err->text + used, sizeof(err->text) - used, ": %s", strerror(errnum));
    bytes_make_printable(err->text);
    return rc;
}
