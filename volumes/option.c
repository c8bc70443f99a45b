/* Volume options as text: "key=value", for creation and for properties of existing volumes. */
#include "volumes/volumes_impl.h"

#include <stdio.h>

bool volume_name_is_valid(const char *name)
{
    static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:-";
    size_t len = strlen(name);
    return len >= 1 && len <= VOLUME_NAME_MAX && strchr(first, name[0]) &&
           strspn(name, rest) == len;
}

static int parse_switch(const char *key, const char *value, bool *out, struct vp_error *err)
{
    if (strcmp(value, "on") == 0 || strcmp(value, "off") == 0) {
        *out = value[1] == 'n';
        return 0;
    }
    return vp_fail(err, VP_E_INVALID, "%s is 'on' or 'off', not '%s'", key, value);
}

static int parse_zero_detect(const char *value, struct volume_options *o, struct vp_error *err)
{
    return parse_switch("zero-detect", value, &o->zero_detect, err);
}

static int parse_read_only(const char *value, struct volume_options *o, struct vp_error *err)
{
    return parse_switch("read-only", value, &o->read_only, err);
}

static int parse_full_policy(const char *value, struct volume_options *o, struct vp_error *err)
{
    if (strcmp(value, "pause") == 0)
        o->full_policy = VOLUME_FULL_PAUSE;
    else if (strcmp(value, "enospc") == 0)
        o->full_policy = VOLUME_FULL_ENOSPC;
    else
        return vp_fail(err, VP_E_INVALID, "full-policy is 'pause' or 'enospc', not '%s'", value);
    return 0;
}

static int parse_sync(const char *value, struct volume_options *o, struct vp_error *err)
{
    if (strcmp(value, "always") == 0)
        o->sync_always = true;
    else if (strcmp(value, "standard") == 0)
        o->sync_always = false;
    else
        return vp_fail(err, VP_E_INVALID, "sync is 'standard' or 'always', not '%s'", value);
    return 0;
}

static int parse_reserve(const char *value, struct volume_options *o, struct vp_error *err)
{
    if (!bytes_parse_size(value, &o->reserve_bytes))
        return vp_fail(err, VP_E_INVALID, "reserve is a size like 10G, not '%s'", value);
    return 0;
}

static int parse_sector(const char *value, struct volume_options *o, struct vp_error *err)
{
    uint64_t n;
    if (!bytes_parse_size(value, &n) || (n != 512 && n != 4096))
        return vp_fail(err, VP_E_INVALID, "sector is 512 or 4096, not '%s'", value);
    o->sector_bytes = (uint32_t)n;
    return 0;
}

static int parse_raid(const char *value, struct volume_options *o, struct vp_error *err)
{
    o->has_profile = raid_profile_parse(value, &o->profile);
    if (!o->has_profile)
        return vp_fail(err, VP_E_INVALID, "raid is 'single' or 'mirror:N', not '%s'", value);
    return pool_profile_check(o->profile, err);
}

struct option {
    const char *key;
    bool changeable; /* also of an existing volume */
    int (*parse)(const char *value, struct volume_options *o, struct vp_error *err);
};
static const struct option options[] = {
    {"full-policy", true, parse_full_policy},
    {"zero-detect", true, parse_zero_detect},
    {"sync", true, parse_sync},
    {"read-only", true, parse_read_only},
    {"reserve", true, parse_reserve},
    {"sector", false, parse_sector},
    {"raid", false, parse_raid},
};

static const struct option *find(const char *key, size_t len)
{
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if (strlen(options[i].key) == len && memcmp(options[i].key, key, len) == 0)
            return &options[i];
    return NULL;
}

static int unknown(const char *key, int len, struct vp_error *err)
{
    return vp_fail(err, VP_E_INVALID,
                   "no volume option '%.*s': there are full-policy, zero-detect, sync, read-only, "
                   "reserve, and at creation sector and raid",
                   len, key);
}

int volume_option_parse(const char *key_value, struct volume_options *o, struct vp_error *err)
{
    const char *equals = strchr(key_value, '=');
    if (!equals)
        return vp_fail(err, VP_E_INVALID, "'%s' is not KEY=VALUE", key_value);
    const struct option *option = find(key_value, (size_t)(equals - key_value));
    if (!option)
        return unknown(key_value, (int)(equals - key_value), err);
    return option->parse(equals + 1, o, err);
}

int volume_property_parse(const char *key, const char *value, struct volume_options *o,
                          struct vp_error *err)
{
    const struct option *option = find(key, strlen(key));
    if (!option)
        return unknown(key, (int)strlen(key), err);
    if (!option->changeable)
        return vp_fail(err, VP_E_INVALID, "%s is fixed when a volume is created", key);
    return option->parse(value, o, err);
}
