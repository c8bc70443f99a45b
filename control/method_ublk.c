/* Methods about the kernel's ublk devices, attached here or not. */
#include "control/ublk_devices.h"
#include "ublk/target.h"

#include <stdio.h>
#include <string.h>

static const char *state_name(const struct ublk_seen *s)
{
    static const char *const names[] = {"unstarted", "serving", "waiting", "failing"};
    return s->error.rc ? "unknown" : names[s->device.life];
}

static const char *owner_name(enum ublk_owner owner)
{
    static const char *const names[] = {"here", "elsewhere", "orphan", "other", "unknown"};
    return names[owner];
}

/* Whose it is, "" when that is not known. */
static void volume_of(const struct ublk_seen *s, char out[static VOLUME_FULL_NAME_BYTES])
{
    out[0] = 0;
    if (s->attachment)
        control_volume_name(s->attachment->pool->name, s->attachment->volume, out);
    else if (s->recorded)
        control_volume_name(s->record.pool, s->record.volume, out);
}

static json_t *device_json(const struct ublk_seen *s)
{
    char path[32], volume[VOLUME_FULL_NAME_BYTES], used_by[400];
    (void)snprintf(path, sizeof(path), "/dev/ublkb%d", s->device.number);
    volume_of(s, volume);
    block_users_text(&s->users, used_by, sizeof(used_by));
    return json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:i, s:o, s:s}", "number", s->device.number,
                     "device", path, "owner", owner_name(s->owner), "volume", volume, "state",
                     state_name(s), "error", s->error.text, "server_pid", s->server_pid, "users",
                     show_block_users(&s->users), "used_by", used_by);
}

/* ---- ublk.list ----------------------------------------------------------------------------- */

static const struct param no_params[] = {{0}};

static int add_to_list(struct control *c, struct ublk_seen *s, void *arg)
{
    (void)c;
    return json_array_append_new(arg, device_json(s)) ? VP_E_NO_MEMORY : 0;
}

static CO int ublk_list(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    (void)args;
    uint64_t features;
    struct vp_error why = {0};
    bool available = ublkx_features(&features, &why) == 0;
    json_t *list = json_array();
    int rc = ublk_each(c, true, add_to_list, list, err);
    if (rc) {
        json_decref(list);
        return rc;
    }
    *result = json_pack("{s:b, s:s, s:o}", "available", available, "reason",
                        available ? "" : why.text, "devices", list);
    return 0;
}

/* ---- ublk.remove --------------------------------------------------------------------------- */

struct remove_args {
    uint64_t number;
    bool force, dry_run;
};
static const struct param remove_params[] = {
    PARAM(struct remove_args, number, PARAM_NUMBER, true, 0, UBLKX_NUMBER_MAX),
    PARAM(struct remove_args, force, PARAM_BOOL, false, 0, 0),
    PARAM(struct remove_args, dry_run, PARAM_BOOL, false, 0, 0),
    {0}};

/* What no --force overrides. */
static int refuse_what_is_not_an_orphan(const struct ublk_seen *s, struct vp_error *err)
{
    int n = s->device.number;
    char volume[VOLUME_FULL_NAME_BYTES];
    volume_of(s, volume);
    switch (s->owner) {
    case UBLK_SERVED_HERE:
        return vp_fail(err, VP_E_BUSY,
                       "/dev/ublkb%d is an attachment of %s: end it with `vpool detach %s --ublk`",
                       n, volume, volume);
    case UBLK_SERVED_ELSEWHERE:
        return vp_fail(err, VP_E_BUSY,
                       "/dev/ublkb%d (%s) is served by process %d, or was until a moment ago: "
                       "detach it there, or end that process first",
                       n, volume, s->server_pid);
    case UBLK_OF_OTHERS:
        return vp_fail(err, VP_E_PERMISSION,
                       "/dev/ublkb%d was not made by vpool (there is no " UBLK_RECORD_DIR
                       "/ublkb%d with its tag), so it is not touched",
                       n, n);
    case UBLK_UNKNOWN:
        return vp_fail(err, s->error.rc, "%s", s->error.text);
    case UBLK_ORPHAN:
        break;
    }
    return 0;
}

/* Where the volume is, or would be if that pool were open. The record may name the pool that the
 * volume has left. */
static const struct control_pool *pool_of_volume(struct control *c, const struct ublk_record *r)
{
    char uuid[VP_UUID_TEXT];
    const struct control_pool *p;
    list_for_each (p, &c->pools, link)
        if (p->vs && volume_name_of_uuid(p->vs, r->volume_uuid))
            return p;
    return control_pool_find(c, vp_uuid_format(r->pool_uuid, uuid));
}

static int refuse_what_may_come_back(struct control *c, const struct ublk_seen *s,
                                     struct vp_error *err)
{
    char users[400];
    const struct control_pool *p = pool_of_volume(c, &s->record);
    if (p)
        return vp_fail(err, VP_E_BUSY,
                       "/dev/ublkb%d is of %s/%s, and this daemon knows pool '%s': have it served "
                       "again (`vpool status %s` says what is in the way), or use --force and have "
                       "its users see errors",
                       s->device.number, s->record.pool, s->record.volume, p->name, p->name);
    if (s->users.count == 0)
        return 0;
    block_users_text(&s->users, users, sizeof(users));
    return vp_fail(err, VP_E_BUSY,
                   "/dev/ublkb%d is in use (%s): end that, or use --force and have its users see "
                   "errors",
                   s->device.number, users);
}

/* Its volume may move, with an attachment that is not served. */
static CO int remove_orphan(struct control *c, const struct ublk_seen *s, struct vp_error *err)
{
    struct attachment_change change;
    const struct control_pool *p = pool_of_volume(c, &s->record);
    const char *volume = p && p->vs ? volume_name_of_uuid(p->vs, s->record.volume_uuid) : NULL;
    if (!volume)
        return ublk_remove(s, err);
    char name[VOLUME_NAME_MAX + 1];
    memcpy(name, volume, strlen(volume) + 1);
    int rc = attachment_change_begin(c, &change, p, name, err);
    if (rc)
        return rc;
    rc = ublk_remove(s, err);
    attachment_change_end(c, &change);
    return rc;
}

static CO int ublk_remove_method(struct control *c, const void *args, json_t **result,
                                 struct vp_error *err)
{
    const struct remove_args *a = args;
    struct ublk_seen s;
    int rc = ublk_look(c, (int)a->number, &s, err);
    if (rc == 0)
        rc = refuse_what_is_not_an_orphan(&s, err);
    if (rc == 0 && !a->force)
        rc = refuse_what_may_come_back(c, &s, err);
    if (rc == 0 && !a->dry_run)
        rc = remove_orphan(c, &s, err);
    if (rc)
        return rc;
    char subject[VOLUME_FULL_NAME_BYTES];
    volume_of(&s, subject);
    if (!a->dry_run)
        control_event(c, VP_LOG_WARN, "ublk.removed", subject,
                      "/dev/ublkb%d is gone; requests that waited have failed", s.device.number);
    *result = json_pack("{s:b, s:o}", "dry_run", a->dry_run, "device", device_json(&s));
    return 0;
}

const struct method methods_ublk[] = {
    {"ublk.list", no_params, METHOD_READS | METHOD_ALONE, ublk_list},
    {"ublk.remove", remove_params, METHOD_ALONE | METHOD_DESTROYS, ublk_remove_method},
    {0}};
