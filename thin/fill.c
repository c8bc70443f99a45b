/*
 * Filling: a disk that is behind (raid/fill.c) gets what the other copies have of a volume's chunks
 * (pass.c).
 *
 * A block that cannot be read, in a region that a crash left behind, keeps the disk behind: else
 * what the disk has there, however old, would be adopted one day.
 */
#include "thin/thin_impl.h"

struct fill {
    struct thin_pass pass;
    const struct raid_disk *disk;
    bool compare;
    struct thin_fill_result *out;
};

/* The copy of the group that is on the disk and behind; -1: none. */
static int copy_to_fill(const struct raid_group *g, const struct raid_disk *disk)
{
    for (unsigned c = 0; c < raid_copies(g); c++)
        if (g->disk[c] == disk && raid_copy_is_behind(g, c))
            return (int)c;
    return -1;
}

static bool wants(const struct thin_pass *p, const struct raid_group *g)
{
    return copy_to_fill(g, container_of(p, struct fill, pass)->disk) >= 0;
}

/* VP_E_AGAIN, VP_E_CHECKSUM and VP_E_RAID_NO_COPY are about blocks alone. */
static bool result_count(struct thin_fill_result *out, const struct raid_io *io, bool recovered)
{
    bool is_lost = io->rc == VP_E_CHECKSUM || io->rc == VP_E_RAID_NO_COPY;
    if (!io->rc)
        out->filled_bytes += io->len;
    else if (io->rc == VP_E_AGAIN || (is_lost && recovered))
        out->waits_bytes += io->len;
    else if (io->rc == VP_E_RAID_NO_COPY)
        out->unread_bytes += io->len;
    else if (is_lost)
        out->lost_bytes += io->len;
    else
        return false;
    return true;
}

/* CO. Errors that are not about blocks. */
static CO int window_fill(struct thin_pass *p)
{
    const struct fill *f = container_of(p, struct fill, pass);
    unsigned copy[THIN_PASS_PIECES];
    for (unsigned i = 0; i < p->pieces; i++) {
        int c = copy_to_fill(p->io[i].group, f->disk);
        if (c < 0)
            return VP_E_RAID_DISK_OUT;
        copy[i] = (unsigned)c;
    }
    int rc = raid_fill(p->io, copy, p->pieces, f->compare);
    if (rc == VP_E_RAID_DISK_OUT)
        return rc;
    for (unsigned i = 0; i < p->pieces; i++)
        if (!result_count(f->out, &p->io[i], p->recovered))
            return p->io[i].rc;
    return 0;
}

/* ---- targets of members that move ------------------------------------------------------------ */

static bool wants_target(const struct thin_pass *p, const struct raid_group *g)
{
    (void)p;
    return raid_has_target(g) && !atomic_load(&g->target_lost);
}

/* CO. A block with a wrong checksum everywhere is as wrong elsewhere. Another block that could not
 * be copied keeps its group where it is. */
static CO int window_fill_targets(struct thin_pass *p)
{
    const struct fill *f = container_of(p, struct fill, pass);
    unsigned copy[THIN_PASS_PIECES];
    for (unsigned i = 0; i < p->pieces; i++)
        copy[i] = raid_target(p->io[i].group);
    int rc = raid_fill(p->io, copy, p->pieces, false);
    for (unsigned i = 0; i < p->pieces; i++) {
        if (rc == VP_E_RAID_DISK_OUT)
            p->io[i].rc = rc;
        if (!result_count(f->out, &p->io[i], p->recovered) || p->io[i].rc == VP_E_AGAIN ||
            p->io[i].rc == VP_E_RAID_NO_COPY || (p->io[i].rc && p->recovered))
            raid_target_is_lost(p->io[i].group);
    }
    return 0;
}

CO int thin_fill_targets(struct thin *t, uint64_t block, uint64_t count,
                         struct thin_fill_result *out)
{
    struct fill f = {.pass = {.t = t, .wants = wants_target, .run = window_fill_targets},
                     .out = out};
    return thin_pass(&f.pass, block, count);
}

/* ---- a disk that is behind ------------------------------------------------------------------- */

CO int thin_fill(struct thin *t, uint64_t block, uint64_t count, const struct raid_disk *disk,
                 bool compare, struct thin_fill_result *out)
{
    struct fill f = {.pass = {.t = t, .wants = wants, .run = window_fill},
                     .disk = disk,
                     .compare = compare,
                     .out = out};
    return thin_pass(&f.pass, block, count);
}
