/*
 * Spare devices of a pool: when a disk has been out of service for a while, one of them takes its
 * place by itself (pool_disk_return).
 *
 * A spare is empty, and nothing is written to it before it is used. It is remembered by its path,
 * in a property of the pool. It is looked at once a minute, and once more when it is used: a device
 * that holds something by then is not overwritten. HOME.
 */
#ifndef VP_CONTROL_SPARES_H
#define VP_CONTROL_SPARES_H

#include "base/error.h"
#include "control/path.h"
#include "io/co.h"
#include "pool/pool.h"

#include <jansson.h>

struct control;
struct control_pool;

#define SPARES_MAX 16U /* of a pool */

struct spares { /* part of struct control_pool */
    unsigned count;
    struct spare {
        char path[CONTROL_PATH_BYTES];
        int rc;          /* 0: it can be used */
        char error[256]; /* else why not */
    } spare[SPARES_MAX];
    uint64_t next_look_ns;
    /* since when a disk is out, in this life of the daemon; 0: it is not */
    uint64_t out_since_ns[POOL_DISKS_MAX];
    bool told[POOL_DISKS_MAX]; /* that none takes its place */
};

/* A pool was opened. No yield. */
void spares_load(struct control_pool *p);
/* Errors with a sentence: VP_E_EXISTS (it is one), VP_E_TOO_BIG, those of pool_device_check and of
 * pool_property_set. */
CO int spares_add(struct control *c, struct control_pool *p, const char *path, bool force,
                  struct vp_error *err) must_check;
/* VP_E_NOT_FOUND; those of pool_property_set. */
CO int spares_remove(struct control *c, struct control_pool *p, const char *path,
                     struct vp_error *err) must_check;
/* Every few seconds, under control.lock: looks at them, and uses them. */
CO void spares_tend(struct control *c, struct control_pool *p);
/* [{path, usable, error}] */
json_t *spares_json(const struct control_pool *p);

#endif
