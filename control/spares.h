/*
 * Spare devices of a pool: when a disk has been out of service for a while, one of them takes its
 * place by itself (pool_disk_return).
 *
 * A spare is empty, and nothing is written to it before it is used. So it is known by its path, its
 * serial number and size, and the machine, in a property of the pool: what is at that path on
 * another machine, or another device, is not used. It is looked at once a minute, and once more
 * when it is used: a device on which something is recognised by then is not overwritten. HOME.
 */
#ifndef VP_CONTROL_SPARES_H
#define VP_CONTROL_SPARES_H

#include "base/error.h"
#include "control/disk_place.h"
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
        char serial[sizeof(((struct disk_place *)0)->serial)]; /* "": it has none */
        uint64_t size_bytes;
        char machine[40]; /* /etc/machine-id */
        int rc;           /* 0: it can be used */
        char error[256];  /* else why not */
    } spare[SPARES_MAX];
    /* since when a disk is out, in this life of the daemon; 0: it is not */
    uint64_t out_since_ns[POOL_DISKS_MAX];
    /* after a try that failed: when the next one is, and the pause then */
    uint64_t try_ns[POOL_DISKS_MAX], pause_ns[POOL_DISKS_MAX];
};

/* A pool was opened. No yield. */
void spares_load(struct control_pool *p);
/* Errors with a sentence: VP_E_EXISTS (it is one), VP_E_TOO_BIG, those of pool_device_check and of
 * pool_property_set. */
CO int spares_add(struct control *c, struct control_pool *p, const char *path, bool force,
                  struct vp_error *err) must_check;
/* VP_E_NOT_FOUND; those of pool_property_set. */
bool spares_have(const struct control_pool *p, const char *path);
CO int spares_remove(struct control *c, struct control_pool *p, const char *path,
                     struct vp_error *err) must_check;
/* Each minute: whether they can be used. Waits for devices, so without control.lock; the pool is
 * pinned. */
CO void spares_look(struct control *c, struct control_pool *p);
/* Every few seconds, under control.lock: uses them. */
CO void spares_tend(struct control *c, struct control_pool *p);
/* The device at `path` is a disk of the pool now: it is no spare any more. */
CO void spares_used(struct control_pool *p, const char *path);
/* [{path, usable, error}] */
json_t *spares_json(const struct control_pool *p);

#endif
