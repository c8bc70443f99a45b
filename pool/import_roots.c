/*
 * The first half of an import: all roots, the newest of them, and the disks on which it may count.
 * See import.c, I4, I7, I9.
 */
#include "pool/import_impl.h"

#include "base/log.h"
#include "io/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *name_of(const struct pool_import_state *im)
{
    return im->candidate[0]->label.pool_name;
}

static const uint8_t *slots_of(const struct pool_import_state *im, unsigned candidate,
                               unsigned side)
{
    return im->candidate[candidate]->slots[side];
}

static bool slot_is_unread(const struct pool_import_state *im, unsigned candidate, unsigned side,
                           uint64_t slot)
{
    return im->candidate[candidate]->unread[side] >> slot & 1;
}

/* The candidate's newest root is known: it has a valid one, and no slot is unreadable on both
 * sides. A root that is durable is on both. */
static bool roots_are_known(const struct pool_import_state *im, unsigned candidate)
{
    const struct pool_candidate *c = im->candidate[candidate];
    return im->newest[candidate] && !(c->unread[0] & c->unread[1]);
}

/* The slot that claims the highest number below `below`; NULL when none does. */
static const uint8_t *root_claim(const struct pool_import_state *im, unsigned candidate,
                                 uint64_t below)
{
    const uint8_t *best = NULL;
    uint64_t best_number = 0;
    for (unsigned i = 0; i < 2 * POOL_ROOT_SLOTS; i++) {
        const uint8_t *block =
            slots_of(im, candidate, i / POOL_ROOT_SLOTS) + i % POOL_ROOT_SLOTS * ROOT_BYTES;
        uint64_t n = le64_get(((const struct root_block *)block)->number);
        if (n >= below || n < best_number || (n == best_number && best))
            continue;
        best_number = n;
        best = block;
    }
    return best;
}

/* The candidate's newest valid root; claims are checked from the highest down. */
static bool root_newest(struct pool_import_state *im, unsigned candidate, uint64_t *number)
{
    const uint8_t *block;
    uint64_t below = UINT64_MAX;
    while ((block = root_claim(im, candidate, below))) {
        below = le64_get(((const struct root_block *)block)->number);
        for (unsigned side = 0; side < 2; side++) {
            block = slots_of(im, candidate, side) + below % POOL_ROOT_SLOTS * ROOT_BYTES;
            if (!root_block_check(block, im->candidate[0]->label.pool_uuid, number) ||
                *number != below)
                continue;
            im->newest[candidate] = block;
            return true;
        }
    }
    return false;
}

/* The candidate is this disk of the table; also if a crash came after its label had got a new uuid,
 * and before a root had it (return.c). */
static bool is_disk(const struct pool_candidate *c, struct vp_uuid disk)
{
    return vp_uuid_equal(c->label.disk_uuid, disk) || vp_uuid_equal(c->label.was_uuid, disk);
}

/* It does not count, or is none of the pool's disks any more. */
static bool state_is_out(enum pool_disk_state s)
{
    return s == POOL_DISK_OUT || s == POOL_DISK_NONE;
}

static bool calls_out(const struct root_image *r, const struct pool_candidate *c)
{
    for (unsigned i = 0; i < r->disks; i++)
        if (is_disk(c, r->disk[i].uuid))
            return state_is_out(r->disk[i].state);
    return true; /* it knows nothing of a disk that came with the root that was cut off */
}

/*
 * Two roots have one number. A root that a crash cut off is at one disk's head only. Then another
 * disk went on without that one, and its next root has the same number. That root calls the disk
 * out, and the root that was cut off calls nobody out: what the other disk wrote counts.
 */
static bool root_went_on_without(struct pool_import_state *im, unsigned candidate, unsigned other)
{
    const uint8_t *own = im->newest[candidate], *its = im->newest[other];
    if (memcmp(own, its, ROOT_BYTES) == 0 || root_block_decode(own, &im->image) ||
        root_block_decode(its, &im->other))
        return false;
    return calls_out(&im->image, im->candidate[other]) &&
           !calls_out(&im->other, im->candidate[candidate]);
}

static int roots_choose(struct pool_import_state *im)
{
    bool found = false;
    uint64_t best = 0, number = 0;
    for (unsigned i = 0; i < im->candidates; i++) {
        if (!root_newest(im, i, &number) || (found && number < best))
            continue;
        if (found && number == best && !root_went_on_without(im, i, im->winner))
            continue;
        found = true;
        best = number;
        im->winner = i;
    }
    if (!found)
        return vp_fail(im->err, VP_E_ROOT_NONE,
                       "pool %s: none of the %u disks has a valid root record; `vpool-check` shows "
                       "what is on them",
                       name_of(im), im->candidates);
    int rc = root_block_decode(im->newest[im->winner], &im->image);
    if (rc)
        return vp_fail(im->err, rc, "pool %s: root %llu on %s: %s", name_of(im),
                       (unsigned long long)best, im->candidate[im->winner]->path, vp_err_text(rc));
    return 0;
}

/* Some copy of the slot that the next root would have taken shows what was there before it. */
static bool next_root_never_was(const struct pool_import_state *im)
{
    uint64_t next = im->image.root.number + 1, slot = next % POOL_ROOT_SLOTS, number;
    for (unsigned d = 0; d < im->image.disks; d++) {
        if (im->image.disk[d].state != POOL_DISK_ONLINE || im->of_disk[d] < 0)
            continue;
        for (unsigned side = 0; side < 2; side++) {
            unsigned c = (unsigned)im->of_disk[d];
            const uint8_t *block = slots_of(im, c, side) + slot * ROOT_BYTES;
            if (slot_is_unread(im, c, side, slot))
                continue;
            if ((bytes_are_zero(block, ROOT_BYTES) && next <= POOL_ROOT_SLOTS) ||
                root_block_check(block, im->image.pool_uuid, &number))
                return true;
        }
    }
    return false;
}

/* ---- disks -------------------------------------------------------------------------------- */

static void identity_adopt(struct pool *p, const struct root_image *r)
{
    memcpy(p->name, r->name, sizeof(p->name));
    p->uuid = r->pool_uuid;
    p->geometry = r->geometry;
    p->default_profile = r->profile;
    p->promised = r->promised;
    p->wide = r->wide;
    p->features_compat = r->features_compat;
    p->features_ro = r->features_ro;
    p->features_incompat = r->features_incompat;
    p->root.now = r->root;
    p->disk_count = r->disks;
    for (unsigned i = 0; i < r->disks; i++) {
        struct pool_disk *d = &p->disk[i];
        d->pool = p;
        d->uuid = r->disk[i].uuid;
        d->state = r->disk[i].state;
        d->out_after = d->state == POOL_DISK_OUT ? r->disk[i].out_after : 0;
        d->read_only = r->disk[i].read_only;
        d->leaves = r->disk[i].leaves;
        d->extents_total = r->disk[i].extents;
        d->size_bytes = r->disk[i].size_bytes;
        d->tail_bytes = d->size_bytes - POOL_LABEL_AREA;
    }
}

/* Which candidate is which disk of the table. */
static int disks_match(struct pool_import_state *im)
{
    struct pool *p = im->p;
    for (unsigned d = 0; d < POOL_DISKS_MAX; d++)
        im->of_disk[d] = -1;
    for (unsigned c = 0; c < im->candidates; c++) {
        unsigned d = 0;
        if (im->candidate[c]->gone)
            continue; /* missing, as it would be had it gone a moment earlier */
        while (d < p->disk_count &&
               (!p->disk[d].state || !is_disk(im->candidate[c], p->disk[d].uuid)))
            d++;
        if (d == p->disk_count) {
            vp_warn("pool %s: %s has its label but is none of its disks; not used", p->name,
                    im->candidate[c]->path);
            continue;
        }
        if (im->candidate[c]->busy && p->disk[d].state != POOL_DISK_OUT)
            return vp_fail(im->err, VP_E_POOL_ACTIVE, "%s", im->candidate[c]->err.text);
        if (im->candidate[c]->busy) {
            vp_warn(
                "pool %s: %s is out of service, and somebody still has it, perhaps a daemon that "
                "waits for it; not used",
                p->name, im->candidate[c]->path);
            continue;
        }
        if (im->of_disk[d] >= 0)
            return vp_fail(im->err, VP_E_EXISTS,
                           "pool %s: %s and %s are copies of the same disk; give only one of them",
                           p->name, im->candidate[im->of_disk[d]]->path, im->candidate[c]->path);
        if (io_dev_info(im->candidate[c]->dev)->size_bytes < p->disk[d].size_bytes)
            return vp_fail(im->err, VP_E_DISK_TOO_SMALL,
                           "pool %s: %s has shrunk to %llu bytes; the pool uses %llu", p->name,
                           im->candidate[c]->path,
                           (unsigned long long)io_dev_info(im->candidate[c]->dev)->size_bytes,
                           (unsigned long long)p->disk[d].size_bytes);
        im->of_disk[d] = (int)c;
    }
    return 0;
}

/* The disk's own newest root calls a disk out that the winner counts on. A disk that was out is in
 * service again under a new uuid only (return.c), so an older root never does. */
static bool went_separate_ways(struct pool_import_state *im, unsigned disk)
{
    const uint8_t *block = im->newest[im->of_disk[disk]];
    if (!block || root_block_decode(block, &im->other))
        return false;
    for (unsigned i = 0; i < im->image.disks && i < im->other.disks; i++)
        if (im->image.disk[i].state == POOL_DISK_ONLINE && state_is_out(im->other.disk[i].state) &&
            vp_uuid_equal(im->image.disk[i].uuid, im->other.disk[i].uuid))
            return true;
    return false;
}

/* Somebody's tail has the newest root, so every head in service had it before. */
static bool newest_was_at_all_heads(const struct pool_import_state *im)
{
    uint64_t number, slot = im->image.root.number % POOL_ROOT_SLOTS;
    for (unsigned d = 0; d < im->image.disks; d++) {
        if (im->image.disk[d].state != POOL_DISK_ONLINE || im->of_disk[d] < 0)
            continue;
        const uint8_t *tail = slots_of(im, (unsigned)im->of_disk[d], 1) + slot * ROOT_BYTES;
        if (root_block_check(tail, im->image.pool_uuid, &number) && number == im->image.root.number)
            return true;
    }
    return false;
}

/*
 * The disk was set back. Each root was at the disk's head before the next root was begun (root.c,
 * R3), so the disk has at least the root before the newest. It has the newest root too when the
 * tail of some disk has it. If that root rotted at the disk's head, neither zeros nor an older root
 * is there.
 */
static bool disk_was_set_back(const struct pool_import_state *im, unsigned candidate)
{
    const struct root_block *own = (const struct root_block *)im->newest[candidate];
    uint64_t newest = im->image.root.number, number = le64_get(own->number), in_slot;
    if (number + 1 < newest)
        return true;
    const uint8_t *head = slots_of(im, candidate, 0) + newest % POOL_ROOT_SLOTS * ROOT_BYTES;
    return number < newest && newest_was_at_all_heads(im) &&
           !slot_is_unread(im, candidate, 0, newest % POOL_ROOT_SLOTS) &&
           (bytes_are_zero(head, ROOT_BYTES) ||
            root_block_check(head, im->image.pool_uuid, &in_slot));
}

/* Disks on which nobody may count go on as missing, or the import is refused (I7, I9). */
static int disks_doubt(struct pool_import_state *im)
{
    struct pool *p = im->p;
    unsigned online = 0, known = 0;
    int doubtful = -1;
    for (unsigned i = 0; i < p->disk_count; i++) {
        bool counts = p->disk[i].state == POOL_DISK_ONLINE;
        if (!counts && p->disk[i].state != POOL_DISK_BEHIND)
            continue;
        online += counts;
        if (im->of_disk[i] < 0)
            continue;
        unsigned c = (unsigned)im->of_disk[i];
        if (!roots_are_known(im, c)) {
            doubtful = counts ? (int)c : doubtful;
            im->doubt[i] = "its root records cannot be read";
        } else if (disk_was_set_back(im, c)) {
            im->doubt[i] = "an older state of the disk was put in its place";
        } else {
            known += counts;
        }
    }
    if (doubtful >= 0 && 2 * known <= online)
        return vp_fail(im->err, VP_E_ROOT_UNREADABLE,
                       "pool %s: the root records of %s cannot be read, and it may know more than "
                       "the other disks do; try again, or leave it out to import the pool as the "
                       "others know it",
                       p->name, im->candidate[doubtful]->path);
    return 0;
}

/* `here` of the `online` disks in service were found (I4). */
static int disks_suffice(struct pool_import_state *im, unsigned here, unsigned online)
{
    const char *name = im->p->name;
    if (!here)
        return vp_fail(im->err, VP_E_POOL_MISSING_DISK,
                       "pool %s: none of its %u disks in service was found; those that are here "
                       "were out of service before the pool stopped",
                       name, online);
    if (2 * here >= online || im->degraded)
        return 0;
    return vp_fail(im->err, VP_E_POOL_MISSING_DISK,
                   "pool %s: only %u of its %u disks in service were found; at least half are "
                   "needed, since the others may be in use elsewhere or know more. If they are "
                   "lost, `vpool import %s --degraded` goes on without them",
                   name, here, online, name);
}

static int disks_check(struct pool_import_state *im)
{
    struct pool *p = im->p;
    unsigned online = 0, here = 0;
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        if (d->state == POOL_DISK_ONLINE) {
            online++;
            here += im->of_disk[i] >= 0 && !im->doubt[i];
        }
        if (d->state && im->of_disk[i] >= 0 && io_guard_on(GUARD_STALE_DISK) &&
            went_separate_ways(im, i))
            return vp_fail(
                im->err, VP_E_POOL_SPLIT,
                "pool %s: %s and %s were used one without the other since; give only the "
                "one whose data you want",
                p->name, im->candidate[im->winner]->path, im->candidate[im->of_disk[i]]->path);
    }
    int rc = disks_suffice(im, here, online);
    if (rc)
        return rc;
    if (!next_root_never_was(im))
        return vp_fail(
            im->err, VP_E_ROOT_STALE,
            "pool %s: the root after number %llu is damaged in every copy; what that one "
            "names may be used again already. `vpool-check` shows more",
            p->name, (unsigned long long)im->image.root.number);
    return 0;
}

/*
 * A disk that went out while its data were current, and was not set back since: it has the newest
 * root that it took, or a later one (root.c, R4). GUARD_STALE_DISK is about what has copies.
 */
static bool disk_has_its_data(const struct pool_import_state *im, unsigned disk)
{
    uint32_t out_after = im->p->disk[disk].out_after;
    unsigned c = (unsigned)im->of_disk[disk];
    if (!out_after || !roots_are_known(im, c))
        return false;
    uint64_t own = le64_get(((const struct root_block *)im->newest[c])->number);
    uint32_t ahead = pool_out_after(own) + POOL_OUT_AFTER_MAX - out_after;
    return ahead % POOL_OUT_AFTER_MAX < POOL_OUT_AFTER_MAX / 2;
}

static int disks_adopt(struct pool_import_state *im)
{
    struct pool *p = im->p;
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        bool here = im->of_disk[i] >= 0;
        bool counts = d->state == POOL_DISK_ONLINE || d->state == POOL_DISK_BEHIND;
        im->was_behind[i] = d->state == POOL_DISK_BEHIND;
        if (counts && here && im->doubt[i]) {
            d->state = POOL_DISK_OUT;
            im->missing[i] = true;
            p->disk_changes++;
            vp_warn("pool %s: disk %u (%s) is ejected: %s", p->name, i,
                    im->candidate[im->of_disk[i]]->path, im->doubt[i]);
        } else if (counts && !here) {
            d->state = POOL_DISK_OUT;
            im->missing[i] = true;
            p->disk_changes++;
            vp_warn("pool %s: disk %u is missing; going on without it", p->name, i);
        } else if (d->state == POOL_DISK_OUT && here && !io_guard_on(GUARD_STALE_DISK)) {
            d->state = POOL_DISK_ONLINE;
        }
        /* Where it counts, the old uuid stays: roots that call it out are about this disk. */
        if (here && !counts &&
            !vp_uuid_equal(d->uuid, im->candidate[im->of_disk[i]]->label.disk_uuid)) {
            d->uuid = im->candidate[im->of_disk[i]]->label.disk_uuid;
            p->disk_changes++;
        }
        int rc = here ? pool_disk_adopt(p, i, im->candidate[im->of_disk[i]])
                      : pool_disk_adopt_missing(p, i, d->state ? "missing at import" : "removed");
        if (rc)
            return rc;
        if (here && d->stale && (d->read_only || disk_has_its_data(im, i))) {
            atomic_store(&d->io.flush_failed, d->read_only ? VP_E_IO : 0);
            atomic_store(&d->io.data_only, true);
            atomic_store(&p->disk_left, true);
        }
        if (im->doubt[i])
            (void)snprintf(d->reason, sizeof(d->reason), "%s", im->doubt[i]);
    }
    return 0;
}

CO int pool_import_roots_level(struct pool_import_state *im)
{
    uint64_t slot = im->image.root.number % POOL_ROOT_SLOTS, number;
    bool level = true;
    for (unsigned i = 0; i < im->p->disk_count; i++) {
        for (unsigned side = 0; side < 2 && atomic_load(&im->p->disk[i].io.in_service); side++) {
            const uint8_t *block = slots_of(im, (unsigned)im->of_disk[i], side) + slot * ROOT_BYTES;
            level &= root_block_check(block, im->image.pool_uuid, &number) &&
                     number == im->image.root.number;
        }
    }
    return level ? 0 : pool_root_repeat(im->p, im->newest[im->winner]);
}

CO int pool_import_roots(struct pool_import_state *im)
{
    im->newest = calloc(im->candidates, sizeof(*im->newest));
    if (!im->newest)
        return VP_E_NO_MEMORY;
    int rc = roots_choose(im);
    if (rc)
        return rc;
    identity_adopt(im->p, &im->image);
    rc = disks_match(im);
    if (!rc)
        rc = disks_doubt(im);
    if (!rc)
        rc = disks_check(im);
    return rc ? rc : disks_adopt(im);
}
