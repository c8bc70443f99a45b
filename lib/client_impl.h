/* Private to lib/. */
#ifndef VP_LIB_CLIENT_IMPL_H
#define VP_LIB_CLIENT_IMPL_H

#include "base/error.h"
#include "lib/client.h"

/* Fills in *err (may be NULL); returns -1. */
int vpool_fail(struct vpool_error *err, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
