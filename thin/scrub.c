/*
 * Scrubbing: every copy of a volume's blocks is compared with their checksums (raid/scrub.c), chunk
 * by chunk (pass.c).
 *
 * A block in a region that a crash left behind has no checksum that counts before it is adopted:
 * the pass does that first.
 */
#include "thin/thin_impl.h"

struct scrub {
    struct thin_pass pass;
    struct thin_scrub *out;
};

static bool wants(const struct thin_pass *p, const struct raid_group *g)
{
    (void)p;
    (void)g;
    return true;
}

static void found(const struct raid_finding *f, void *arg)
{
    const struct scrub *s = arg;
    s->out->found(s->pass.block[f->piece] + f->block, f, s->out->arg);
}

static CO int window_scrub(struct thin_pass *p)
{
    struct scrub *s = container_of(p, struct scrub, pass);
    struct raid_scrub scrub = {.found = found, .arg = s};
    raid_scrub(&scrub, p->io, p->pieces);
    s->out->compared_bytes += scrub.compared_bytes;
    return 0;
}

CO int thin_scrub(struct thin *t, uint64_t block, uint64_t count, struct thin_scrub *out)
{
    struct scrub s = {.pass = {.t = t, .wants = wants, .run = window_scrub}, .out = out};
    return thin_pass(&s.pass, block, count);
}
