/* Methods about attachments. */
#include "control/export.h"

#include <string.h>

/* ---- attach ------------------------------------------------------------------------------------
 */

struct attach_args {
    const char *volume, *nbd, *ublk, *owner, *group, *mode;
    bool readonly;
};
static const struct param attach_params[] = {
    PARAM(struct attach_args, volume, PARAM_STRING, true, 0, 0),
    PARAM(struct attach_args, nbd, PARAM_STRING, false, 0, ATTACHMENT_ADDRESS_MAX),
    PARAM(struct attach_args, ublk, PARAM_STRING, false, 0, 64),
    PARAM(struct attach_args, owner, PARAM_STRING, false, 0, 64),
    PARAM(struct attach_args, group, PARAM_STRING, false, 0, 64),
    PARAM(struct attach_args, mode, PARAM_STRING, false, 0, 8),
    PARAM(struct attach_args, readonly, PARAM_BOOL, false, 0, 0),
    {0}};

static CO int options_of(struct control *c, const struct attach_args *a,
                         struct attachment_options *o, struct vp_error *err)
{
    if (!a->nbd == !a->ublk)
        return vp_fail(err, VP_E_RPC_PARAMS,
                       "'attach' takes either 'nbd' (unix:PATH, tcp:HOST:PORT) or 'ublk' "
                       "(ublk:auto, ublk:N)");
    *o = (struct attachment_options){.kind = a->nbd ? &export_nbd : &export_ublk,
                                     .address = a->nbd ? a->nbd : a->ublk,
                                     .read_only = a->readonly};
    int rc = attachment_socket_parse(a->owner, a->group, a->mode, &o->socket, err);
    return rc ? rc : o->kind->check(c, o, err);
}

static CO int attach(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct attach_args *a = args;
    struct control_pool *p;
    const char *volume;
    int rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    struct attachment *attachment;
    struct attachment_options o;
    rc = options_of(c, a, &o, err);
    if (rc == 0)
        rc = attachment_add(c, p, volume, &o, &attachment, err);
    if (rc == 0)
        *result = attachment_json(attachment);
    control_pool_put(p);
    return rc;
}

/* ---- detach ------------------------------------------------------------------------------------
 */

struct detach_args {
    const char *volume, *nbd;
    bool all, ublk, force;
};
static const struct param detach_params[] = {
    PARAM(struct detach_args, volume, PARAM_STRING, true, 0, 0),
    PARAM(struct detach_args, nbd, PARAM_STRING, false, 0, ATTACHMENT_ADDRESS_MAX),
    PARAM(struct detach_args, all, PARAM_BOOL, false, 0, 0),
    PARAM(struct detach_args, ublk, PARAM_BOOL, false, 0, 0),
    PARAM(struct detach_args, force, PARAM_BOOL, false, 0, 0),
    {0}};

/* A move of another volume may have taken `a` to another pool since attachment_next. */
static bool matches(const struct attachment *a, const struct control_pool *p, const char *volume,
                    const struct detach_args *args)
{
    return a->pool == p && strcmp(a->volume, volume) == 0 &&
           (!args->nbd || strcmp(a->address, args->nbd) == 0) &&
           (!args->ublk || a->kind == &export_ublk);
}

static unsigned count_matching(const struct control_pool *p, const char *volume,
                               const struct detach_args *args)
{
    unsigned count = 0;
    for (const struct attachment *a = NULL; (a = attachment_next(p, a));)
        count += matches(a, p, volume, args);
    return count;
}

static CO int detach_matching(struct control *c, struct control_pool *p, const char *volume,
                              const struct detach_args *args, struct vp_error *err)
{
    unsigned count = count_matching(p, volume, args);
    if (count == 0)
        return vp_fail(err, VP_E_NOT_FOUND, "%s is not attached%s%s", args->volume,
                       args->nbd ? " at " : "", args->nbd ? args->nbd : "");
    if (count > 1 && !args->all)
        return vp_fail(
            err, VP_E_INVALID,
            "%s has %u attachments: name one with --nbd or --ublk, or end all of them with --all",
            args->volume, count);
    /* All of them or none: every one is looked at before the first ends. */
    int rc = 0;
    for (struct attachment *a = NULL; rc == 0 && (a = attachment_next(p, a));)
        if (!args->force && matches(a, p, volume, args))
            rc = attachment_check_unused(a, err);
    struct attachment *next;
    for (struct attachment *a = attachment_next(p, NULL); rc == 0 && a; a = next) {
        next = attachment_next(p, a);
        if (matches(a, p, volume, args))
            rc = attachment_remove(c, a, err);
    }
    return rc;
}

static CO int detach(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct detach_args *a = args;
    struct control_pool *p;
    const char *volume;
    int rc = control_volume_get(c, a->volume, &p, &volume, err);
    if (rc)
        return rc;
    struct attachment_change change;
    unsigned before = attachment_count(p, volume);
    rc = attachment_change_begin(c, &change, p, volume, err);
    if (rc == 0) {
        rc = detach_matching(c, p, volume, a, err);
        attachment_change_end(c, &change);
    }
    if (rc == 0)
        *result = json_pack("{s:i}", "detached", (int)(before - attachment_count(p, volume)));
    control_pool_put(p);
    return rc;
}

/* ---- attachments ----------------------------------------------------------------------------- */

static const struct param no_params[] = {{0}};

/* Runs alone, because asking a server for its figures yields. */
static CO int attachments(struct control *c, const void *args, json_t **result,
                          struct vp_error *err)
{
    (void)args;
    json_t *list = json_array();
    const struct attachment *a;
    list_for_each (a, &c->attachments, link) {
        if (!a->pool) /* gone */
            continue;
        if (json_array_append_new(list, attachment_json(a)) == 0)
            continue;
        json_decref(list);
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    }
    *result = json_pack("{s:o}", "attachments", list);
    return 0;
}

const struct method methods_attach[] = {
    {"attach", attach_params, METHOD_ALONE, attach},
    {"detach", detach_params, METHOD_ALONE, detach},
    {"attachments", no_params, METHOD_READS | METHOD_ALONE, attachments},
    {0}};
