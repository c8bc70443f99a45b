/* Which paths stand on block devices of this daemon's own. Decided from sysfs, before any is
 * opened. */
#include "control/own_devices.h"

#include "control/ublk_devices.h"
#include "io/offload.h"

#include <stdio.h>
#include <stdlib.h>

static int add_name(struct control *c, struct ublk_seen *s, void *arg)
{
    struct block_names *n = arg;
    (void)c;
    if (s->owner != UBLK_SERVED_HERE && s->owner != UBLK_ORPHAN)
        return 0;
    void *more = realloc(n->name, (n->count + 1) * sizeof(*n->name));
    if (!more)
        return VP_E_NO_MEMORY;
    n->name = more;
    (void)snprintf(n->name[n->count++], sizeof(n->name[0]), "ublkb%d", s->device.number);
    return 0;
}

CO int own_devices_get(struct control *c, struct own_devices *out, struct vp_error *err)
{
    *out = (struct own_devices){0};
    int rc = ublk_each(c, false, add_name, &out->names, err);
    if (rc && !err->text[0])
        rc = vp_fail(err, rc, "listing the block devices of this daemon: %s", vp_err_text(rc));
    if (rc)
        own_devices_free(out);
    return rc;
}

void own_devices_free(struct own_devices *own)
{
    free(own->names.name);
    *own = (struct own_devices){0};
}

struct refusal {
    const struct own_devices *own;
    const char *const *paths;
    unsigned count;
    const char *path, *device; /* the first that is refused, or NULL */
};

static int refuse_blocking(void *arg)
{
    struct refusal *r = arg;
    for (unsigned i = 0; i < r->count && !r->device; i++) {
        r->path = r->paths[i];
        r->device = block_below_path(&block_users_kernel, r->path, &r->own->names);
    }
    return 0;
}

CO int own_devices_refuse(const struct own_devices *own, const char *const *paths, unsigned count,
                          struct vp_error *err)
{
    struct refusal r = {.own = own, .paths = paths, .count = count};
    int rc = own->names.count ? offload_run(refuse_blocking, &r) : 0;
    if (rc)
        return vp_fail(err, rc, "looking what the disks stand on: %s", vp_err_text(rc));
    return r.device ? vp_fail(err, VP_E_IO_BUSY_DEVICE,
                              "%s is, or stands on, /dev/%s, a block device of vpool's own: a pool "
                              "there would wait for itself; give disks that do not depend on its "
                              "volumes",
                              r.path, r.device)
                    : 0;
}

CO int own_devices_check(struct control *c, const char *const *paths, unsigned count,
                         struct vp_error *err)
{
    struct own_devices own;
    int rc = own_devices_get(c, &own, err);
    if (rc == 0)
        rc = own_devices_refuse(&own, paths, count, err);
    own_devices_free(&own);
    return rc;
}

static bool leave_out(void *arg, const char *path)
{
    const struct own_devices *own = arg;
    return own->names.count && block_below_path(&block_users_kernel, path, &own->names);
}

struct pool_scan_filter own_devices_filter(struct own_devices *own)
{
    return (struct pool_scan_filter){leave_out, own};
}
