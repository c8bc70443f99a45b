/* Which reactor an activated volume goes to: the one with the fewest, or the one that is asked for.
 * It stays there until it is inactive again. */
#include "base/verify.h"
#include "volumes/volumes_impl.h"

struct volumes_slot *volumes_slot_choose(struct volumes *vs, const struct reactor *beside)
{
    if (beside)
        return volumes_slot_of(vs, beside);
    struct volumes_slot *best = &vs->slot[0];
    for (unsigned i = 1; i < vs->slots; i++)
        if (vs->slot[i].active < best->active)
            best = &vs->slot[i];
    return best;
}

struct volumes_slot *volumes_slot_of(struct volumes *vs, const struct reactor *r)
{
    unsigned i = 0;
    while (i < vs->slots && vs->slot[i].reactor != r)
        i++;
    VP_VERIFY(i, <, vs->slots);
    return &vs->slot[i];
}
