/* See peer_protocol.h. */
#include "control/peer_protocol.h"

#include <string.h>
#include <unistd.h>

#define INT(v) ((json_int_t)(v))

static bool is_host_char(char ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') ||
           ch == '.' || ch == '_' || ch == '-';
}

bool peer_host_is_valid(const char *host)
{
    size_t len = strlen(host);
    for (size_t i = 0; i < len; i++)
        if (!is_host_char(host[i]))
            return false;
    return len > 0 && len < PEER_HOST_BYTES;
}

const char *peer_host_own(char out[static PEER_HOST_BYTES])
{
    if (gethostname(out, PEER_HOST_BYTES - 1) || !out[0])
        memcpy(out, "unnamed", sizeof("unnamed"));
    out[PEER_HOST_BYTES - 1] = 0;
    for (char *at = out; *at; at++)
        if (!is_host_char(*at))
            *at = '_';
    return out;
}

static json_t *options_json(const struct volume_options *o)
{
    char profile[RAID_PROFILE_TEXT];
    return json_pack("{s:I, s:I, s:s, s:s, s:b, s:b, s:b, s:I}", "size_bytes", INT(o->size_bytes),
                     "sector_bytes", INT(o->sector_bytes), "profile",
                     raid_profile_format(o->profile, profile), "full_policy",
                     o->full_policy == VOLUME_FULL_PAUSE ? "pause" : "enospc", "zero_detect",
                     o->zero_detect, "sync", o->sync_always, "read_only", o->read_only,
                     "reserve_bytes", INT(o->reserve_bytes));
}

json_t *peer_offer_json(const struct migrate_offer *o, const char *to)
{
    char id[VP_UUID_TEXT], pool[VP_UUID_TEXT], uuid[VP_UUID_TEXT];
    return json_pack("{s:s, s:s, s:s, s:s, s:I, s:{s:s, s:I}, s:o, s:I}", "to", to, "id",
                     vp_uuid_format(o->source.id, id), "pool", vp_uuid_format(o->source.pool, pool),
                     "volume", o->source.volume, "epoch", INT(o->epoch), "identity", "uuid",
                     vp_uuid_format(o->info->uuid, uuid), "created_seconds",
                     INT(o->info->created_seconds), "options", options_json(&o->info->options),
                     "allocated_bytes", INT(o->info->valid_bytes));
}

json_t *peer_claim_json(const struct receive_claim *c, struct vp_uuid pool)
{
    char id[VP_UUID_TEXT], pool_text[VP_UUID_TEXT], volume[VP_UUID_TEXT];
    return json_pack("{s:{s:s, s:s, s:s, s:I}}", "claim", "id", vp_uuid_format(c->move, id), "pool",
                     vp_uuid_format(pool, pool_text), "volume", vp_uuid_format(c->volume, volume),
                     "epoch", INT(c->epoch));
}
