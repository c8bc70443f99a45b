#include "control/spares.h"

#include "base/log.h"
#include "control/control_impl.h"
#include "control/own_devices.h"

#include <stdio.h>
#include <string.h>

#define PROPERTY  "spares"
#define LOOK_NS   UINT64_C(60000000000)
#define SECOND_NS UINT64_C(1000000000)

/* ---- the property ---------------------------------------------------------------------------- */

/* What does not decode is no spare. */
void spares_load(struct control_pool *p)
{
    struct spares *s = &p->spares;
    const char *text = pool_property_get(volumes_pool(p->vs), PROPERTY);
    json_t *list = text ? json_loads(text, 0, NULL) : NULL, *path;
    size_t i;
    json_array_foreach(list, i, path)
    {
        if (s->count < SPARES_MAX && path_of_json(path, s->spare[s->count].path))
            s->count++;
    }
    json_decref(list);
}

static CO int spares_save(struct control_pool *p, struct vp_error *err)
{
    json_t *list = json_array();
    int rc = list ? 0 : VP_E_NO_MEMORY;
    for (unsigned i = 0; i < p->spares.count && !rc; i++)
        if (json_array_append_new(list, path_to_json(p->spares.spare[i].path)))
            rc = VP_E_NO_MEMORY;
    char *text = rc ? NULL : json_dumps(list, JSON_COMPACT);
    json_decref(list);
    rc = text ? pool_property_set(volumes_pool(p->vs), PROPERTY, text) : VP_E_NO_MEMORY;
    free(text);
    return rc ? vp_fail(err, rc, "pool %s: its spares cannot be recorded: %s", p->name,
                        vp_err_text(rc))
              : 0;
}

static struct spare *spare_find(struct control_pool *p, const char *path)
{
    for (unsigned i = 0; i < p->spares.count; i++)
        if (strcmp(p->spares.spare[i].path, path) == 0)
            return &p->spares.spare[i];
    return NULL;
}

static void spare_drop(struct spares *s, struct spare *spare)
{
    memmove(spare, spare + 1,
            (size_t)(&s->spare[s->count] - (spare + 1)) * sizeof(*spare)); /* those behind it */
    s->count--;
}

/* ---- commands -------------------------------------------------------------------------------- */

CO int spares_add(struct control *c, struct control_pool *p, const char *path, bool force,
                  struct vp_error *err)
{
    struct spares *s = &p->spares;
    if (spare_find(p, path))
        return vp_fail(err, VP_E_EXISTS, "%s is a spare of pool %s already", path, p->name);
    if (s->count == SPARES_MAX)
        return vp_fail(err, VP_E_TOO_BIG, "pool %s has %u spares already, which is the most",
                       p->name, s->count);
    if (strlen(path) >= sizeof(s->spare[0].path))
        return vp_fail(err, VP_E_INVALID, "%s: the path is too long", path);
    int rc = own_devices_check(c, &path, 1, err);
    if (!rc)
        rc = pool_device_check(volumes_pool(p->vs), path, force, err);
    if (rc)
        return rc;
    struct spare *spare = &s->spare[s->count++];
    *spare = (struct spare){.rc = 0};
    (void)snprintf(spare->path, sizeof(spare->path), "%s", path);
    rc = spares_save(p, err);
    if (rc) {
        s->count--;
        return rc;
    }
    control_event(c, VP_LOG_INFO, "spare.added", p->name, "%s is a spare%s", path,
                  force ? "; what it held was overwritten by request" : "");
    return 0;
}

CO int spares_remove(struct control *c, struct control_pool *p, const char *path,
                     struct vp_error *err)
{
    struct spares *s = &p->spares;
    struct spare *spare = spare_find(p, path);
    if (!spare)
        return vp_fail(err, VP_E_NOT_FOUND,
                       "%s is no spare of pool %s; to move data off a disk is not supported by "
                       "this release",
                       path, p->name);
    const struct spare was = *spare;
    spare_drop(s, spare);
    int rc = spares_save(p, err);
    if (rc) {
        s->spare[s->count++] = was;
        return rc;
    }
    control_event(c, VP_LOG_INFO, "spare.removed", p->name, "%s is no spare any more", path);
    return 0;
}

json_t *spares_json(const struct control_pool *p)
{
    json_t *list = json_array();
    for (unsigned i = 0; list && i < p->spares.count; i++) {
        const struct spare *s = &p->spares.spare[i];
        json_t *one = json_pack("{s:o, s:b, s:s}", "path", path_shown(s->path), "usable", !s->rc,
                                "error", s->error);
        if (json_array_append_new(list, one))
            break;
    }
    return list;
}

/* ---- looking at them ------------------------------------------------------------------------- */

static CO void spares_look(struct control *c, struct control_pool *p)
{
    struct spares *s = &p->spares;
    for (unsigned i = 0; i < s->count; i++) {
        struct spare *spare = &s->spare[i];
        struct vp_error err = {0};
        int rc = pool_device_check(volumes_pool(p->vs), spare->path, false, &err);
        if (rc != spare->rc)
            control_event(c, rc ? VP_LOG_ERROR : VP_LOG_INFO, "spare.state", p->name,
                          "the spare %s can%s be used%s%s", spare->path, rc ? "not" : "",
                          rc ? ": " : " again", err.text);
        spare->rc = rc;
        (void)snprintf(spare->error, sizeof(spare->error), "%.255s", err.text);
    }
}

/* ---- using them ------------------------------------------------------------------------------ */

/* For so long it may come back by itself; 0: it is not replaced. */
static uint64_t patience_ns(const struct control *c, const struct pool_disk_info *d)
{
    if (d->by_request || strcmp(d->state, "online") == 0 || strcmp(d->state, "rebuilding") == 0)
        return 0;
    bool gone = strcmp(d->state, "missing") == 0;
    return max_u64(gone ? c->config->spare_after_missing_s : c->config->spare_after_s, 1) *
           SECOND_NS;
}

/* CO. The first one that fits. */
static CO void disk_replace(struct control *c, struct control_pool *p, unsigned index)
{
    struct spares *s = &p->spares;
    struct vp_error err = {0};
    int rc = VP_E_NOT_FOUND;
    for (unsigned i = 0; i < s->count && rc; i++) {
        char path[CONTROL_PATH_BYTES];
        memcpy(path, s->spare[i].path, sizeof(path));
        err = (struct vp_error){0};
        rc = control_disk_replace(c, p, index, path, &err);
        if (rc)
            continue;
        spare_drop(s, &s->spare[i]);
        rc = spares_save(p, &err);
        if (rc) /* it is a disk of the pool now: the next look says that it cannot be used */
            vp_warn("%s", err.text);
        return;
    }
    if (!s->told[index] && s->count)
        control_event(c, VP_LOG_ERROR, "spare.failed", p->name,
                      "no spare can take the place of disk %u: %s", index, err.text);
    s->told[index] = true;
}

static CO void spares_use(struct control *c, struct control_pool *p)
{
    struct spares *s = &p->spares;
    struct pool *pool = volumes_pool(p->vs);
    for (unsigned i = 0; i < pool_disk_count(pool); i++) {
        struct pool_disk_info d;
        pool_disk_info_get(pool, i, &d);
        uint64_t patience = patience_ns(c, &d), now = reactor_now_ns();
        if (!patience) {
            s->out_since_ns[i] = 0;
            s->told[i] = false;
            continue;
        }
        if (!s->out_since_ns[i])
            s->out_since_ns[i] = now;
        if (now - s->out_since_ns[i] >= patience && s->count)
            disk_replace(c, p, i);
    }
}

CO void spares_tend(struct control *c, struct control_pool *p)
{
    struct spares *s = &p->spares;
    if (!s->count && !pool_disks_out(volumes_pool(p->vs)))
        return;
    if (reactor_now_ns() >= s->next_look_ns) {
        s->next_look_ns = reactor_now_ns() + LOOK_NS;
        spares_look(c, p);
    }
    spares_use(c, p);
}
