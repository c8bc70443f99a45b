/*
 * Attachments that are block devices of this machine. The address is "ublk:auto" or "ublk:N", with
 * ",queues=N" and ",depth=N" as wished; once served it names the device, so that the same one comes
 * back.
 */
#include "control/control_impl.h"

#include "ublk/volume_backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct address {
    int number; /* -1: the kernel chooses */
    unsigned queues, depth;
};

bool attachment_is_ublk(const char *address)
{
    return strncmp(address, "ublk:", 5) == 0;
}

/* 1 … max from `text`, which goes on at *end. */
static bool number_parse(const char *text, unsigned long max, unsigned *out, char **end)
{
    unsigned long v = text[0] >= '0' && text[0] <= '9' ? strtoul(text, end, 10) : max + 1;
    *out = (unsigned)v;
    return v <= max;
}

static bool address_parse(const char *text, struct address *out)
{
    char *p = (char *)(uintptr_t)(text + 5);
    unsigned number;
    *out = (struct address){.number = -1};
    if (strncmp(p, "auto", 4) == 0)
        p += 4;
    else if (number_parse(p, 1U << 19, &number, &p))
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

/* Tells our device from those of other volumes: by the volume's identity. */
static uint64_t tag_of(const struct volume_info *info)
{
    uint64_t tag;
    memcpy(&tag, &info->uuid, sizeof(tag));
    return tag ? tag : 1;
}

int attachment_ublk_start(struct attachment *a, struct vp_error *err)
{
    struct address address;
    struct volume_info info;
    if (!address_parse(a->address, &address))
        return vp_fail(err, VP_E_INVALID,
                       "'%s' is not a ublk address: ublk:auto or ublk:N, with ,queues=1..%u and "
                       ",depth=1..%u",
                       a->address, UBLKX_QUEUES_MAX, UBLKX_TAGS_MAX);
    int rc = volume_info_get(a->pool->vs, a->volume, &info);
    if (rc)
        return vp_fail(err, rc, "no volume '%s' in pool '%s'", a->volume, a->pool->name);
    struct ublkx_options o = {.backend = ublkx_volume_backend(a->v),
                              .number = address.number,
                              .queues = address.queues,
                              .depth = address.depth,
                              .read_only = a->read_only,
                              .tag = tag_of(&info)};
    rc = ublkx_target_start(&o, &a->target, err);
    if (rc)
        return rc;
    struct ublkx_stats s = ublkx_target_stats(a->target);
    (void)snprintf(a->address, sizeof(a->address), "ublk:%d,queues=%u,depth=%u",
                   ublkx_target_number(a->target), s.queues, s.depth);
    (void)snprintf(a->uri, sizeof(a->uri), "%s", ublkx_target_path(a->target));
    return 0;
}

json_t *attachment_ublk_json(const struct attachment *a, const char *subject)
{
    struct ublkx_stats s = {0};
    bool used = false;
    if (a->target) {
        s = ublkx_target_stats(a->target);
        used = ublkx_target_is_claimed(a->target);
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s, s:i, s:b, s:b, s:I, s:I, s:I, s:I}",
                     "volume", subject, "kind", "ublk", "address", a->address, "uri", a->uri,
                     "state", a->target ? "serving" : "failed", "read_only", a->read_only, "error",
                     a->error, "connections", (int)used, "recovered", s.recovered, "user_copy",
                     s.user_copy, "requests", (json_int_t)s.requests, "bytes_read",
                     (json_int_t)s.bytes_read, "bytes_written", (json_int_t)s.bytes_written,
                     "errors", (json_int_t)s.errors);
}

void attachments_ublk_resize(struct control *c, struct control_pool *p, const char *volume)
{
    struct attachment *a;
    list_for_each (a, &p->attachments, link) {
        struct vp_error err = {0};
        if (strcmp(a->volume, volume) == 0 && a->target && ublkx_target_resize(a->target, &err))
            control_event(c, VP_LOG_WARN, "attachment.size", volume_full_name(a->v), "%s",
                          err.text);
    }
}
