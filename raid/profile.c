/* Names of redundancy profiles, and which of them this release serves. */
#include "raid/profile.h"

#include <stdio.h>
#include <string.h>

#define MIRROR_COPIES_MAX 8U

/* A decimal number without sign or leading zeros up to RAID_WIDTH_MAX; advances *text. */
static bool parse_number(const char **text, uint8_t *out)
{
    unsigned v = 0;
    const char *p = *text;
    if (*p < '1' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        v = v * 10 + (unsigned)(*p - '0');
        if (v > RAID_WIDTH_MAX)
            return false;
    }
    *text = p;
    *out = (uint8_t)v;
    return true;
}

static bool parse_mirror(const char *text, struct raid_profile *out)
{
    uint8_t copies = 2;
    if (*text == ':') {
        text++;
        if (!parse_number(&text, &copies))
            return false;
    }
    if (*text || copies < 2 || copies > MIRROR_COPIES_MAX)
        return false;
    *out = (struct raid_profile){RAID_MIRROR, 1, (uint8_t)(copies - 1)};
    return true;
}

/* "K+M"; `parity` is what M must be, 0 for any. */
static bool parse_parity(const char *text, unsigned parity, struct raid_profile *out)
{
    uint8_t k, m;
    if (!parse_number(&text, &k) || *text++ != '+' || !parse_number(&text, &m) || *text)
        return false;
    if (k < 2 || (parity && m != parity) || (unsigned)k + m > RAID_WIDTH_MAX)
        return false;
    *out = (struct raid_profile){RAID_PARITY, k, m};
    return true;
}

bool raid_profile_parse(const char *text, struct raid_profile *out)
{
    if (strcmp(text, "single") == 0) {
        *out = (struct raid_profile){RAID_SINGLE, 1, 0};
        return true;
    }
    if (strncmp(text, "mirror", 6) == 0)
        return parse_mirror(text + 6, out);
    if (strncmp(text, "raid5:", 6) == 0)
        return parse_parity(text + 6, 1, out);
    if (strncmp(text, "raid6:", 6) == 0)
        return parse_parity(text + 6, 2, out);
    if (strncmp(text, "raid:", 5) == 0)
        return parse_parity(text + 5, 0, out);
    return false;
}

const char *raid_profile_format(struct raid_profile p, char out[RAID_PROFILE_TEXT])
{
    const char *parity = p.extra == 1 ? "raid5" : p.extra == 2 ? "raid6" : "raid";
    switch (p.kind) {
    case RAID_SINGLE:
        snprintf(out, RAID_PROFILE_TEXT, "single");
        break;
    case RAID_MIRROR:
        snprintf(out, RAID_PROFILE_TEXT, "mirror:%u", raid_profile_width(p));
        break;
    case RAID_PARITY:
        snprintf(out, RAID_PROFILE_TEXT, "%s:%u+%u", parity, p.data, p.extra);
        break;
    default:
        snprintf(out, RAID_PROFILE_TEXT, "unknown:%u", p.kind);
    }
    return out;
}

bool raid_profile_is_supported(struct raid_profile p)
{
    if (p.data != 1)
        return false;
    if (p.kind == RAID_SINGLE)
        return p.extra == 0;
    return p.kind == RAID_MIRROR && p.extra >= 1 && p.extra < MIRROR_COPIES_MAX;
}

bool raid_profile_equal(struct raid_profile a, struct raid_profile b)
{
    return a.kind == b.kind && a.data == b.data && a.extra == b.extra;
}
