/* Private to lib/. */
#ifndef VP_LIB_CLIENT_IMPL_H
#define VP_LIB_CLIENT_IMPL_H

#include "base/error.h"
#include "lib/vpool.h"

#include <jansson.h>

/* Fills in *err (may be NULL); returns -1. */
int vpool_fail(struct vpool_error *err, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* vpool_call with decoded JSON; takes the reference of `params` (NULL: none). */
int vpool_call_json(struct vpool_client *c, const char *method, json_t *params, json_t **result,
                    struct vpool_error *err);

#endif
