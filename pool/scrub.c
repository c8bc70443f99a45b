/*
 * Scrubbing metadata: all copies of the pages of trees are compared with the checksums that point
 * to them, and healed. Whoever has the trees gives the references, one after the other.
 *
 *  S1  A page's place is written again only after a checkpoint gave the page back. So no checkpoint
 *      may be under way from the moment at which a reference was read in memory until its copies
 *      were healed: a heal would overwrite what is in its place then. Checkpoints are held off for
 *      that long, which is some reads of the disks.
 *  S2  The log and the table image are not compared. A checkpoint with a full image takes the place
 *      of both (pool_metadata_renew). Labels and roots are looked at all the time (watch.c).
 */
#include "io/hold.h"
#include "pool/meta_impl.h"

CO void pool_checkpoints_hold_off(struct pool *p)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    hold_verify(RESOURCE_CHECKPOINT);
    while (ck->running)
        co_queue_wait(&ck->done, "checkpoint");
    ck->held_off++;
    hold_begin(RESOURCE_CHECKPOINT); /* a checkpoint waits for us now */
}

void pool_checkpoints_go_on(struct pool *p)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    VP_VERIFY(ck->held_off, >, 0U);
    hold_end(RESOURCE_CHECKPOINT);
    if (!--ck->held_off)
        co_queue_wake_all(&ck->may_begin);
}

CO int pool_pages_scrub(struct pool *p, const struct pool_page_ref *ref, unsigned count, void *buf,
                        struct raid_scrub *s)
{
    struct raid_io io[POOL_PAGES_SCRUB_MAX];
    uint32_t crc[POOL_PAGES_SCRUB_MAX];
    VP_VERIFY(count, <=, (unsigned)POOL_PAGES_SCRUB_MAX);
    VP_VERIFY(p->checkpoint.held_off, >, 0U);
    int rc = 0;
    for (unsigned i = 0; i < count && !rc; i++) {
        rc = pool_page_locate(p, ref[i].addr, &io[i]) ? 0 : VP_E_PAGE_DAMAGED;
        crc[i] = ref[i].crc;
        io[i].crc = &crc[i];
        io[i].buf = (uint8_t *)buf + (size_t)i * POOL_PAGE;
    }
    if (!rc)
        raid_scrub(s, io, count);
    return rc;
}

CO int pool_metadata_renew(struct pool *p)
{
    p->checkpoint.renew = true;
    return pool_checkpoint(p);
}
