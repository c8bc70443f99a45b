/* A pool does not stand on block devices of its own daemon: the daemon would wait for itself. */
#ifndef VP_CONTROL_OWN_DEVICES_H
#define VP_CONTROL_OWN_DEVICES_H

#include "control/block_below.h"
#include "control/control_impl.h"

struct own_devices {
    struct block_names names; /* owned */
};

/* The block devices that this daemon serves, and vpool's devices without a server. A read of one of
 * these waits. Errors with a sentence. */
CO int own_devices_get(struct control *c, struct own_devices *out, struct vp_error *err) must_check;
void own_devices_free(struct own_devices *own);

/* VP_E_IO_BUSY_DEVICE, by name, when a path is such a device or stands on one. Opens nothing. */
CO int own_devices_refuse(const struct own_devices *own, const char *const *paths, unsigned count,
                          struct vp_error *err) must_check;
/* The same, of the devices as they are now. */
CO int own_devices_check(struct control *c, const char *const *paths, unsigned count,
                         struct vp_error *err) must_check;
/* A filter for pool_scan that leaves them out; `own` is needed as long. */
struct pool_scan_filter own_devices_filter(struct own_devices *own);

#endif
