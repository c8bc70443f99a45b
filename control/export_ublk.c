/*
 * Exports that are block devices of this machine. The address is "ublk:auto" or "ublk:N", with
 * ",queues=N" and ",depth=N" as wished; once served it names the device, so that the same one comes
 * back.
 */
#include "base/attr.h"
#include "control/export.h"
#include "control/ublk_devices.h"
#include "io/driver.h"
#include "io/offload.h"
#include "ublk/target.h"
#include "ublk/volume_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_NS      UINT64_C(1000000000)
#define SETTLE_STEP_NS UINT64_C(50000000)

#define PREFIX         "ublk:"

/* attachment.served */
struct export_device {
    struct ublkx_target *target;
    struct front_client client; /* the device, towards the volume */
    struct ublk_record record;  /* of the device */
    bool has_other_names;       /* before it was taken over: the volume has moved since */
};

struct address {
    int number; /* -1: the kernel chooses */
    unsigned queues, depth;
};

/* 1 … max from `text`, which goes on at *end. */
static bool number_parse(const char *text, unsigned long max, unsigned *out, char **end)
{
    unsigned long v = text[0] >= '0' && text[0] <= '9' ? strtoul(text, end, 10) : max + 1;
    *out = (unsigned)v;
    return v <= max;
}

static bool address_parse(const char *text, struct address *out)
{
    char *p = (char *)(uintptr_t)(text + strlen(PREFIX));
    unsigned number;
    *out = (struct address){.number = -1};
    if (strncmp(text, PREFIX, strlen(PREFIX)) != 0)
        return false;
    if (strncmp(p, "auto", 4) == 0)
        p += 4;
    else if (number_parse(p, UBLKX_NUMBER_MAX, &number, &p))
        out->number = (int)number;
    else
        return false;
    while (*p) {
        bool ok =
            strncmp(p, ",queues=", 8) == 0 ? number_parse(p + 8, UBLKX_QUEUES_MAX, &out->queues, &p)
            : strncmp(p, ",depth=", 7) == 0 ? number_parse(p + 7, UBLKX_TAGS_MAX, &out->depth, &p)
                                            : false;
        if (!ok)
            return false;
    }
    return true;
}

static int address_read(const char *text, struct address *out, struct vp_error *err)
{
    return address_parse(text, out)
               ? 0
               : vp_fail(err, VP_E_INVALID,
                         "'%s' is not a ublk address: ublk:auto or ublk:N, with ,queues=1..%u and "
                         ",depth=1..%u",
                         text, UBLKX_QUEUES_MAX, UBLKX_TAGS_MAX);
}

static int ublk_check(struct control *c, const struct attachment_options *o, struct vp_error *err)
{
    struct address address;
    (void)c;
    int rc = address_read(o->address, &address, err);
    return rc ? rc : export_check_no_socket(o, err);
}

/* `wanted` leaves the number, queues and depth open, or asks for those that `a` has. */
static int ublk_check_same(const struct attachment *a, const char *wanted, struct vp_error *err)
{
    struct address is, want;
    int rc = address_read(a->address, &is, err);
    if (rc == 0)
        rc = address_read(wanted, &want, err);
    if (rc)
        return rc;
    if ((want.number < 0 || want.number == is.number) &&
        (!want.queues || want.queues == is.queues) && (!want.depth || want.depth == is.depth))
        return 0;
    return vp_fail(err, VP_E_EXISTS,
                   "%s/%s has an attachment as %s that is not served (%s): attach it without a "
                   "number, queues and depth to try again, or detach it first",
                   a->pool->name, a->volume, a->address, a->error);
}

/* ---- serving ------------------------------------------------------------------------------- */

/* Tells our device from those of other volumes: by the volume's identity. */
static uint64_t tag_of(const struct volume_info *info)
{
    uint64_t tag;
    memcpy(&tag, &info->uuid, sizeof(tag));
    return tag ? tag : 1;
}

/* Where the volume is, and what it is called. */
static void record_name(struct ublk_record *r, const struct attachment *a)
{
    r->pool_uuid = pool_uuid(volumes_pool(a->pool->vs));
    (void)snprintf(r->pool, sizeof(r->pool), "%s", a->pool->name);
    (void)snprintf(r->volume, sizeof(r->volume), "%s", a->volume);
}

static struct ublk_record record_of(const struct attachment *a, const struct volume_info *info)
{
    struct ublk_record r = {.tag = tag_of(info), .volume_uuid = info->uuid};
    record_name(&r, a);
    return r;
}

static int serve_page_cache(void *arg)
{
    (void)arg;
    io_serve_page_cache();
    return 0;
}

/* A request of one volume may wait for a checkpoint, and that for every reactor of the pool. */
static CO void all_serve_page_cache(struct control *c)
{
    if (c->serves_page_cache)
        return;
    c->serves_page_cache = true;
    for (unsigned i = 0; i < c->options.reactor_count; i++)
        vp_ignore(reactor_call(c->options.reactors[i], serve_page_cache, NULL),
                  "it does not fail, and reactors run as long as there are attachments");
}

static CO int target_start(const struct attachment *a, const struct address *address,
                           struct export_device *d, struct vp_error *err)
{
    struct ublkx_options o = {
        .backend = ublkx_volume_backend(a->v, &d->client),
        .number = address->number,
        .queues = address->queues,
        .depth = address->depth,
        .read_only = a->read_only,
        .tag = d->record.tag,
        .take_over = ublk_device_is_recorded(&d->record, address->number, &d->has_other_names),
        .known = ublk_device_known,
        .known_arg = &d->record};
    return ublkx_target_start(&o, &d->target, err);
}

/* The names in /dev/vpool, which udev makes. */
static CO void names_follow(struct control *c, const struct attachment *a)
{
    struct vp_error err = {0};
    if (ublk_device_announce(export_ublk_number(a), &err))
        control_event(c, VP_LOG_WARN, "attachment.name", volume_full_name(a->v), "%s", err.text);
}

/* Also takes over the device that a killed daemon left. */
static CO int ublk_start(struct control *c, struct attachment *a, struct vp_error *err)
{
    struct address address;
    struct volume_info info;
    uint64_t features;
    int rc = address_read(a->address, &address, err);
    if (rc)
        return rc;
    rc = volume_info_get(a->pool->vs, a->volume, &info);
    if (rc)
        return vp_fail(err, rc, "no volume '%s' in pool '%s'", a->volume, a->pool->name);
    rc = ublkx_features(&features, err);
    if (rc) /* no driver: refused before the reactors take memory for its requests */
        return rc;
    AUTO_FREE struct export_device *d = calloc(1, sizeof(*d));
    if (!d)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    d->record = record_of(a, &info);
    all_serve_page_cache(c);
    rc = target_start(a, &address, d, err);
    if (rc)
        return rc;
    struct ublkx_stats s = ublkx_target_stats(d->target);
    (void)snprintf(a->address, sizeof(a->address), PREFIX "%d,queues=%u,depth=%u",
                   ublkx_target_number(d->target), s.queues, s.depth);
    (void)snprintf(a->uri, sizeof(a->uri), "%s", ublkx_target_path(d->target));
    bool renamed = s.recovered && d->has_other_names;
    a->served = steal(d);
    if (renamed)
        names_follow(c, a);
    return 0;
}

static CO int ublk_stop(struct attachment *a, struct vp_error *err)
{
    struct export_device *d = a->served;
    int rc = ublkx_target_stop(&d->target, err);
    if (!d->target) {
        a->served = NULL;
        free(d);
    }
    return rc;
}

/* The device stays for the next daemon. */
static CO void ublk_leave(struct attachment *a)
{
    struct export_device *d = a->served;
    a->served = NULL;
    ublkx_target_leave(d->target);
    free(d);
}

/*
 * The device says for good whether it has a volatile cache. Where it has one, its users flush what
 * a power cut must not take, and count on it that a kill of the daemon takes nothing
 * (ublk/volume_backend.c).
 */
static CO int ublk_check_move(const struct attachment *a, struct volume *target,
                              struct vp_error *err)
{
    const struct export_device *d = a->served;
    bool survives_kill = volume_take_memory(target);
    if (survives_kill || !ublkx_target_stats(d->target).volatile_cache)
        return 0;
    return vp_fail(
        err, VP_E_NOT_SUPPORTED,
        "%s is served so that a kill of the daemon loses no write that was answered, and "
        "in %s it could, since there is no shared memory (/dev/shm) for it: make room "
        "there, or detach the device first",
        a->uri, volume_full_name(target));
}

static CO void ublk_moved(struct control *c, struct attachment *a)
{
    struct export_device *d = a->served;
    struct vp_error err = {0};
    record_name(&d->record, a);
    if (ublk_device_known(&d->record, export_ublk_number(a), true, &err))
        control_event(c, VP_LOG_WARN, "attachment.name", volume_full_name(a->v), "%s", err.text);
    else
        names_follow(c, a);
}

static CO int ublk_resize(struct attachment *a, struct vp_error *err)
{
    struct export_device *d = a->served;
    return ublkx_target_resize(d->target, err);
}

int export_ublk_number(const struct attachment *a)
{
    const struct export_device *d = a->served;
    return d && a->kind == &export_ublk ? ublkx_target_number(d->target) : -1;
}

/* ---- who uses it --------------------------------------------------------------------------- */

static int users_blocking(void *of)
{
    return block_users_find(&block_users_kernel, of, 1);
}

static CO int users_find(const struct attachment *a, struct block_users_of *out)
{
    *out = (struct block_users_of){0};
    if (!a->served)
        return 0;
    (void)snprintf(out->device, sizeof(out->device), "ublkb%d", export_ublk_number(a));
    return offload_run(users_blocking, out);
}

/* As ublkx_target_check_unclaimed. */
static CO int check_unclaimed(const struct attachment *a)
{
    const struct export_device *d = a->served;
    return d ? ublkx_target_check_unclaimed(d->target) : 0;
}

/* Users that are udev and its helpers do not count: they open a device for a moment after every
 * change. */
static bool passes_by_itself(const struct block_users *users)
{
    for (unsigned i = 0; i < users->count && i < BLOCK_USERS_MAX; i++)
        if (users->user[i].use != BLOCK_OPEN)
            return false;
    return users->count > 0;
}

/* The users of the device, once helpers of udev had their moment. */
static CO int users_settle(const struct attachment *a, struct block_users_of *of)
{
    int rc = users_find(a, of);
    uint64_t deadline = reactor_now_ns() + SETTLE_NS;
    while (!rc && passes_by_itself(&of->users) && reactor_now_ns() < deadline &&
           co_sleep_ns(SETTLE_STEP_NS) == 0)
        rc = users_find(a, of);
    return rc;
}

static CO int ublk_check_unused(const struct attachment *a, struct vp_error *err)
{
    struct block_users_of of;
    char text[400];
    int rc = users_settle(a, &of);
    int claim_rc = check_unclaimed(a);
    if (!rc && !claim_rc && of.users.count == 0)
        return 0;
    if (of.users.count == 0 && claim_rc != VP_E_BUSY)
        return vp_fail(
            err, VP_E_BUSY,
            "whether %s is in use could not be found out (%s): try again, or detach with "
            "--force and have its users see errors",
            a->uri, vp_err_text(rc ? rc : claim_rc));
    block_users_text(&of.users, text, sizeof(text));
    return vp_fail(err, VP_E_BUSY,
                   "%s is mounted or in use (%s): end that, or use --force and have its users see "
                   "errors",
                   a->uri,
                   of.users.count ? text
                                  : "by what cannot be seen from here, such as a mount in "
                                    "another mount namespace");
}

static CO void ublk_users(const struct attachment *a, char *text, size_t size)
{
    struct block_users_of of;
    int rc = users_find(a, &of);
    block_users_text(&of.users, text, size);
    if (!text[0] && (rc || check_unclaimed(a) == VP_E_BUSY))
        (void)snprintf(text, size, "what cannot be seen from here");
}

static json_t *ublk_figures(const struct attachment *a, bool with_buckets)
{
    static const struct ublkx_figures none;
    const struct export_device *d = a->served;
    return show_figures(&ublkx_figure_set, d ? ublkx_target_stats(d->target).figures : &none,
                        with_buckets);
}

static CO json_t *ublk_describe(const struct attachment *a)
{
    struct ublkx_stats s = {0};
    bool used = false;
    struct block_users_of of;
    char used_by[400];
    vp_ignore(users_find(a, &of), "then nobody can be named");
    block_users_text(&of.users, used_by, sizeof(used_by));
    const struct export_device *d = a->served;
    if (d) {
        s = ublkx_target_stats(d->target);
        used = check_unclaimed(a) == VP_E_BUSY;
    }
    return json_pack("{s:i, s:b, s:b, s:o, s:s}", "connections", (int)used, "recovered",
                     s.recovered, "user_copy", s.user_copy, "users", show_block_users(&of.users),
                     "used_by", used_by);
}

const struct export_kind export_ublk = {.name = "ublk",
                                        .number = ATTACHMENT_UBLK,
                                        .is_device = true,
                                        .check = ublk_check,
                                        .start = ublk_start,
                                        .stop = ublk_stop,
                                        .leave = ublk_leave,
                                        .resize = ublk_resize,
                                        .check_move = ublk_check_move,
                                        .moved = ublk_moved,
                                        .check_unused = ublk_check_unused,
                                        .users = ublk_users,
                                        .figures = ublk_figures,
                                        .describe = ublk_describe,
                                        .check_same = ublk_check_same};
