/*
 * `vpool doctor`: everything that needs attention, each finding with the command that helps. Also:
 * what a killed daemon has left in memory for a pool that never came again. It is collected after a
 * day.
 */
#include "control/ublk_devices.h"

#include "pool/keep.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLLECT_AFTER_SECONDS (24 * 3600U)
#define COLLECT_EVERY_NS      UINT64_C(3600000000000)

static void add(json_t *list, const char *subject, const char *text, const char *action,
                const char *command)
{
    json_t *f = json_pack("{s:s, s:s, s:s, s:s}", "subject", subject, "text", text, "action",
                          action, "command", command);
    (void)json_array_append_new(list, f); /* no memory: one finding less */
}

/* ---- kept memory --------------------------------------------------------------------------- */

/* Nobody here will take it: the pool is not known, or it is open and has taken what was for it. */
static bool is_left(struct control *c, const struct pool_keep_left *l)
{
    char uuid[VP_UUID_TEXT];
    const struct control_pool *p = control_pool_find(c, vp_uuid_format(l->pool, uuid));
    return l->volumes && (p ? p->vs != NULL : !l->owned);
}

static int add_kept(struct control *c, json_t *list)
{
    struct pool_keep_left *left;
    unsigned n;
    int rc = pool_keeps_left(&left, &n);
    for (unsigned i = 0; i < n; i++) {
        char uuid[VP_UUID_TEXT], text[200], size[24], command[80];
        if (!is_left(c, &left[i]))
            continue;
        vp_uuid_format(left[i].pool, uuid);
        (void)snprintf(text, sizeof(text),
                       "%s of memory hold what a killed daemon had acknowledged and not committed, "
                       "of %u volume%s of a pool %s",
                       bytes_format_size(left[i].bytes, size, sizeof(size)), left[i].volumes,
                       left[i].volumes == 1 ? "" : "s",
                       control_pool_find(c, uuid) ? "of which a copy or an older state is open here"
                                                  : "that is not known here");
        (void)snprintf(command, sizeof(command), "vpool doctor --forget %s", uuid);
        add(list, uuid, text,
            "import the pool, whose volumes then have it; or forget it (it is collected a day "
            "after "
            "its last use)",
            command);
    }
    free(left);
    return rc;
}

void doctor_collect(struct control *c)
{
    struct pool_keep_left *left;
    unsigned n;
    if (reactor_now_ns() < c->next_collect_ns)
        return;
    c->next_collect_ns = reactor_now_ns() + COLLECT_EVERY_NS;
    vp_ignore(pool_keeps_left(&left, &n), "it is tried again in an hour");
    for (unsigned i = 0; i < n; i++) {
        char uuid[VP_UUID_TEXT], size[24];
        if (!is_left(c, &left[i]) || left[i].age_seconds < COLLECT_AFTER_SECONDS)
            continue;
        pool_keeps_left_forget(left[i].pool);
        control_event(c, VP_LOG_WARN, "daemon.kept-memory", vp_uuid_format(left[i].pool, uuid),
                      "no pool took what a killed daemon had kept: %s of memory were freed",
                      bytes_format_size(left[i].bytes, size, sizeof(size)));
    }
    free(left);
}

/* ---- pools and devices --------------------------------------------------------------------- */

static CO void add_pool(const struct control_pool *p, json_t *list)
{
    char command[120];
    if (!p->vs) {
        (void)snprintf(command, sizeof(command), "vpool import %s", p->name);
        add(list, p->name, p->error, "bring its disks back and import it, or forget it by `export`",
            command);
        return;
    }
    json_t *shown = show_pool(p);
    size_t i;
    const json_t *w;
    (void)snprintf(command, sizeof(command), "vpool status %s", p->name);
    json_array_foreach(json_object_get(shown, "warnings"), i, w)
    {
        const char *own = json_string_value(json_object_get(w, "command"));
        add(list, p->name, json_string_value(json_object_get(w, "text")),
            json_string_value(json_object_get(w, "action")), own && own[0] ? own : command);
    }
    json_decref(shown);
}

static int add_orphan(struct control *c, struct ublk_seen *s, void *arg)
{
    char subject[32], command[60];
    (void)c;
    if (s->owner != UBLK_ORPHAN)
        return 0;
    (void)snprintf(subject, sizeof(subject), "/dev/ublkb%d", s->device.number);
    (void)snprintf(command, sizeof(command), "vpool ublk remove %d", s->device.number);
    add(arg, subject, "the daemon that served this device does not come back; its users wait",
        "import its pool here, or remove the device", command);
    return 0;
}

/* ---- methods ------------------------------------------------------------------------------- */

static const struct param no_params[] = {{0}};

static CO int doctor(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    (void)args;
    json_t *list = json_array();
    struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        add_pool(p, list);
        p->next_look_ns = 0; /* this waits for no disk: what is found is said the next time */
    }
    if (c->state_unsaved)
        add(list, "daemon", "the list of pools could not be written to the state directory",
            "make room there; it is tried again every few seconds", "vpool events");
    int rc = ublk_each(c, false, add_orphan, list, err);
    if (!rc) {
        rc = add_kept(c, list);
        if (rc)
            vp_fail(err, rc, "kept memory cannot be looked through");
    }
    if (rc) {
        json_decref(list);
        return rc;
    }
    *result = json_pack("{s:o}", "findings", list);
    return 0;
}

struct forget_args {
    const char *pool;
};
static const struct param forget_params[] = {
    PARAM(struct forget_args, pool, PARAM_STRING, true, 0, 0), {0}};

/* What is kept of the pool; false: nothing. */
static bool left_find(const struct pool_keep_left *left, unsigned n, struct vp_uuid pool,
                      struct pool_keep_left *out)
{
    for (unsigned i = 0; i < n; i++)
        if (vp_uuid_equal(left[i].pool, pool)) {
            *out = left[i];
            return true;
        }
    return false;
}

static int forget(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct forget_args *a = args;
    struct vp_uuid pool;
    if (!vp_uuid_parse(a->pool, &pool))
        return vp_fail(err, VP_E_RPC_PARAMS, "'%.60s' is not the uuid of a pool", a->pool);
    struct pool_keep_left *left, of_pool;
    unsigned n;
    int rc = pool_keeps_left(&left, &n);
    if (rc)
        return vp_fail(err, rc, "kept memory cannot be looked through");
    bool found = left_find(left, n, pool, &of_pool);
    free(left);
    if (!found)
        return vp_fail(err, VP_E_NOT_FOUND, "nothing is kept of pool %s", a->pool);
    if (!is_left(c, &of_pool))
        return vp_fail(err, VP_E_BUSY,
                       "pool %s is known here or has a daemon: it needs what is kept", a->pool);
    pool_keeps_left_forget(pool);
    *result = json_pack("{s:s, s:I}", "pool", a->pool, "bytes", (json_int_t)of_pool.bytes);
    return 0;
}

const struct method methods_doctor[] = {{"doctor", no_params, METHOD_READS | METHOD_ALONE, doctor},
                                        {"doctor.forget", forget_params, METHOD_ALONE, forget},
                                        {0}};
