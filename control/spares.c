#include "control/spares.h"

#include "base/log.h"
#include "control/control_impl.h"
#include "control/own_devices.h"
#include "io/offload.h"

#include <stdio.h>
#include <string.h>

#define PROPERTY "spares"
/* After a try that failed, and twice as long each time. */
#define PAUSE_NS     UINT64_C(10000000000)
#define PAUSE_MAX_NS UINT64_C(600000000000)
#define SECOND_NS    UINT64_C(1000000000)

/* ---- the property ---------------------------------------------------------------------------- */

/* What does not decode is no spare. */
void spares_load(struct control_pool *p)
{
    struct spares *s = &p->spares;
    const char *text = pool_property_get(volumes_pool(p->vs), PROPERTY);
    json_t *list = text ? json_loads(text, 0, NULL) : NULL, *one;
    size_t i;
    json_array_foreach(list, i, one)
    {
        struct spare *spare = &s->spare[s->count];
        const char *serial, *machine;
        json_int_t size;
        json_t *path;
        if (s->count == SPARES_MAX ||
            json_unpack(one, "{s:o, s:s, s:s, s:I}", "path", &path, "serial", &serial, "machine",
                        &machine, "size", &size))
            continue;
        *spare = (struct spare){.size_bytes = (uint64_t)size};
        (void)snprintf(spare->serial, sizeof(spare->serial), "%s", serial);
        (void)snprintf(spare->machine, sizeof(spare->machine), "%s", machine);
        s->count += path_of_json(path, spare->path);
    }
    json_decref(list);
}

static CO int spares_save(struct control_pool *p, struct vp_error *err)
{
    json_t *list = json_array();
    int rc = list ? 0 : VP_E_NO_MEMORY;
    for (unsigned i = 0; i < p->spares.count && !rc; i++) {
        const struct spare *s = &p->spares.spare[i];
        json_t *one =
            json_pack("{s:o, s:s, s:s, s:I}", "path", path_to_json(s->path), "serial", s->serial,
                      "machine", s->machine, "size", (json_int_t)s->size_bytes);
        rc = json_array_append_new(list, one) ? VP_E_NO_MEMORY : 0;
    }
    char *text = rc ? NULL : json_dumps(list, JSON_COMPACT);
    json_decref(list);
    rc = text ? pool_property_set(volumes_pool(p->vs), PROPERTY, text) : VP_E_NO_MEMORY;
    free(text);
    return rc ? vp_fail(err, rc, "pool %s: its spares cannot be recorded: %s", p->name,
                        vp_err_text(rc))
              : 0;
}

/* ---- which device it is ---------------------------------------------------------------------- */

static int machine_read_blocking(void *arg)
{
    char *to = arg;
    FILE *f = fopen("/etc/machine-id", "re");
    if (!f || !fgets(to, (int)sizeof(((struct spare *)0)->machine), f))
        to[0] = 0; /* a machine without one is like any other such */
    if (f)
        (void)fclose(f);
    to[strcspn(to, "\n\"\\")] = 0;
    bytes_make_printable(to);
    return 0;
}

/* CO. */
static CO void identity_read(struct spare *s)
{
    struct disk_place place = {.serial = ""};
    memcpy(place.path, s->path, sizeof(place.path));
    disk_place_look(&place);
    memcpy(s->serial, place.serial, sizeof(s->serial));
    bytes_make_printable(s->serial);
    vp_ignore(offload_run(machine_read_blocking, s->machine), "empty says it");
}

/* CO. The device at the spare's path can be used, and is the one that was added. */
static CO int spare_check(struct control_pool *p, const struct spare *s, struct vp_error *err)
{
    struct spare now = {.size_bytes = 0};
    memcpy(now.path, s->path, sizeof(now.path));
    int rc = pool_device_check(volumes_pool(p->vs), now.path, false, &now.size_bytes, err);
    if (rc)
        return rc;
    identity_read(&now);
    if (strcmp(now.machine, s->machine) != 0)
        return vp_fail(err, VP_E_INVALID,
                       "%s became a spare on another machine; add it again if it is to be one here",
                       s->path);
    if (strcmp(now.serial, s->serial) != 0 || now.size_bytes != s->size_bytes)
        return vp_fail(err, VP_E_INVALID, "%s is not the device that became a spare", s->path);
    return 0;
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
    struct spare spare = {.rc = 0};
    (void)snprintf(spare.path, sizeof(spare.path), "%s", path);
    if (!rc)
        rc = pool_device_check(volumes_pool(p->vs), path, force, &spare.size_bytes, err);
    if (rc)
        return rc;
    identity_read(&spare);
    s->spare[s->count++] = spare;
    rc = spares_save(p, err);
    if (rc) {
        s->count--;
        return rc;
    }
    memset(s->try_ns, 0, sizeof(s->try_ns));
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
        return vp_fail(err, VP_E_NOT_FOUND, "%s is no spare of pool %s", path, p->name);
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

bool spares_have(const struct control_pool *p, const char *path)
{
    for (unsigned i = 0; i < p->spares.count; i++)
        if (strcmp(p->spares.spare[i].path, path) == 0)
            return true;
    return false;
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

CO void spares_look(struct control *c, struct control_pool *p)
{
    struct spares *s = &p->spares;
    for (unsigned i = 0; i < s->count; i++) {
        const struct spare was = s->spare[i];
        struct vp_error err = {0};
        int rc = spare_check(p, &was, &err);
        struct spare *spare = spare_find(p, was.path); /* it may be none any more */
        if (!spare)
            continue;
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
    if (d->by_request || d->removed || d->leaves || strcmp(d->state, "online") == 0 ||
        strcmp(d->state, "rebuilding") == 0)
        return 0;
    bool gone = strcmp(d->state, "missing") == 0;
    return max_u64(gone ? c->config->spare_after_missing_s : c->config->spare_after_s, 1) *
           SECOND_NS;
}

CO void spares_used(struct control_pool *p, const char *path)
{
    struct vp_error err = {0};
    struct spare *spare = spare_find(p, path);
    if (!spare)
        return;
    spare_drop(&p->spares, spare);
    if (spares_save(p, &err)) /* the next look says that it cannot be used */
        vp_warn("%s", err.text);
}

static bool is_out(const struct control_pool *p, unsigned index)
{
    struct pool_disk_info d;
    pool_disk_info_get(volumes_pool(p->vs), index, &d);
    return strcmp(d.state, "online") != 0 && strcmp(d.state, "rebuilding") != 0;
}

/* CO. The first one that fits. */
static CO void disk_replace(struct control *c, struct control_pool *p, unsigned index)
{
    struct spares *s = &p->spares;
    struct vp_error err = {0};
    for (unsigned i = 0; i < s->count; i++) {
        const struct spare spare = s->spare[i];
        err = (struct vp_error){0};
        int rc = spare_check(p, &spare, &err);
        if (!rc)
            rc = control_disk_replace(c, p, index, spare.path, &err);
        if (rc && is_out(p, index))
            continue;
        if (rc)
            vp_warn("%s", err.text);
        spares_used(p, spare.path);
        return;
    }
    if (!s->pause_ns[index] && s->count)
        control_event(c, VP_LOG_ERROR, "spare.failed", p->name,
                      "no spare can take the place of disk %u: %s", index, err.text);
    s->pause_ns[index] =
        s->pause_ns[index] ? min_u64(2 * s->pause_ns[index], PAUSE_MAX_NS) : PAUSE_NS;
    s->try_ns[index] = reactor_now_ns() + s->pause_ns[index];
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
            s->out_since_ns[i] = s->try_ns[i] = s->pause_ns[i] = 0;
            continue;
        }
        if (!s->out_since_ns[i])
            s->out_since_ns[i] = now;
        if (now - s->out_since_ns[i] >= patience && now >= s->try_ns[i] && s->count)
            disk_replace(c, p, i);
    }
}

CO void spares_tend(struct control *c, struct control_pool *p)
{
    if (p->spares.count)
        spares_use(c, p);
}
