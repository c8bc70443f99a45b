#include "migrate/outlook.h"

#define NS_MAX 1e18 /* 30 years */

/*
 * What is left is L bytes, and the copy takes R a second while D a second become dirty: L ÷ R
 * seconds for a first pass, then (L ÷ R) × D bytes are dirty, and so on. The sum is L ÷ (R - D).
 * Blocks that are dirtied twice count once in D, so D gets less as more is dirty: it ends sooner.
 * To compare both sides is two reads where a copy is a read and a write: the rate is taken as R.
 */
struct outlook outlook_of(const struct outlook_now *now)
{
    double left = (double)now->left_bytes + (double)now->dirty_bytes;
    double gain = (double)now->rate_bytes - (double)now->dirtied_bytes;
    if (!now->rate_bytes)
        return (struct outlook){0};
    struct outlook o = {.known = true, .never = gain <= 0 && left > 0, .drift = -gain};
    double ns = gain > 0 ? left * 1e9 / gain : 0;
    ns += (double)now->check_bytes * 1e9 / (double)now->rate_bytes;
    o.ns = ns < NS_MAX ? (uint64_t)ns : (uint64_t)NS_MAX;
    return o;
}
