/*
 * Redundancy profiles: single, mirror:N, and the parity profiles raid5, raid6, raid:K+M. The parity
 * profiles have their encoding here already, so that serving them will need no change of format.
 */
#ifndef VP_RAID_PROFILE_H
#define VP_RAID_PROFILE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define RAID_WIDTH_MAX 32

enum raid_kind { RAID_SINGLE = 1, RAID_MIRROR = 2, RAID_PARITY = 3 };

/* `data` disks' worth of data in a stripe; `extra` further copies (mirror) or parity units. */
struct raid_profile {
    uint8_t kind;
    uint8_t data;
    uint8_t extra;
};

#define RAID_PROFILE_TEXT 16

/* Parses "single", "mirror" (= mirror:2), "mirror:N", "raid5:K+1" …; false when malformed. */
bool raid_profile_parse(const char *text, struct raid_profile *out);
const char *raid_profile_format(struct raid_profile p, char out[RAID_PROFILE_TEXT]);
/* Whether this release serves the profile, which may come from a disk (untrusted). */
bool raid_profile_is_supported(struct raid_profile p);
bool raid_profile_equal(struct raid_profile a, struct raid_profile b);

static inline unsigned raid_profile_width(struct raid_profile p)
{
    return (unsigned)p.data + p.extra;
}

#endif
