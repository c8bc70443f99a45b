/*
 * The ublk devices of this kernel, whoever made them: what a starting daemon finds, and what
 * happens to a device whose daemon never comes back. A target of this process is stopped by
 * target.h.
 */
#ifndef VP_UBLK_DEVICE_H
#define VP_UBLK_DEVICE_H

#include "base/error.h"
#include "io/co.h"

#include <stdbool.h>
#include <stdint.h>

enum ublkx_life {
    UBLKX_UNSTARTED, /* it has a number, and nobody sees it                   */
    UBLKX_SERVED,    /* its server is there, or the kernel takes it to be     */
    UBLKX_WAITING,   /* its server is gone, and requests wait for the next    */
    UBLKX_FAILING,   /* its server is gone, and requests end with errors      */
};

struct ublkx_device {
    int number;
    enum ublkx_life life;
    int server_pid; /* of the last server */
    uint64_t tag;   /* what its server gave it, if anything: see ublkx_options.tag */
};

/* VP_E_NOT_FOUND: there is none of that number. Others as ublkx_features. CO. */
CO int ublkx_device_look(int number, struct ublkx_device *out, struct vp_error *err) must_check;

/*
 * CO. Removes the device that was looked at. Requests that wait end with errors, and users that
 * have the device open get errors from now on. `known(arg, number, false)` is called when nobody
 * sees the device any more and its number is not yet free. If the device could then not be deleted,
 * it is called with `true`, so that this can be tried again. VP_E_BUSY: the device is served, or is
 * another one by now; VP_E_NOT_FOUND, VP_E_UBLK_…
 */
CO int ublkx_device_discard(const struct ublkx_device *d,
                            CO int (*known)(void *arg, int number, bool there,
                                            struct vp_error *err),
                            void *arg, struct vp_error *err) must_check;

#endif
