/*
 * Write intents: one durable bit for each region of 1024 chunks. It says that blocks there may
 * differ from their logged checksums after a crash, because they were being changed in place.
 *
 *  - A bit is set, durably, before the first change in place of its region
 *    (GUARD_INTENT_BEFORE_OVERWRITE). Requests that need regions at the same time share a commit.
 *    Only one such commit runs at a time, so the records of a word reach the log in the order of
 *    their values.
 *  - A bit is cleared at a checkpoint, when nothing was changed in place in its region since the
 *    checkpoint before and nothing is under way. It is cleared in memory first. Then the
 *    checkpoint's commit makes the data and their checksums durable. Then the root becomes durable,
 *    whose table image lacks the bit. A write that comes meanwhile sets the bit again through the
 *    log, which is replayed over the table image.
 *
 * A change in place belongs to the epoch in which it began. An epoch ends at a checkpoint, but only
 * when all changes of the epoch before have ended. So everything under way at that moment is marked
 * in `touched`. An epoch may end earlier (thin_intents_drain) under the same condition. What is
 * under way then belongs to an epoch that began after the last clearing, so its mark is there.
 *
 * A change in place that failed leaves what a crash leaves: some blocks are new, some are old, and
 * nobody knows which. The intent is durable, so the region counts as recovered from then on
 * (adopt.c).
 */
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "io/guard.h"
#include "thin/thin_impl.h"

int thin_intents_init(struct thin *t)
{
    co_queue_init(&t->intents.queue);
    co_queue_init(&t->intents.drained);
    pool_batch_init(&t->intents.batch);
    return thin_intents_resize(t, thin_chunks(t));
}

void thin_intents_fini(struct thin *t)
{
    struct thin_intents *in = &t->intents;
    free(in->wanted);
    free(in->durable);
    free(in->touched);
    free(in->recovered);
    free(in->sent);
    free(in->logged);
    pool_batch_fini(&in->batch);
}

static bool bitmap_grow(uint64_t **map, uint64_t words, uint64_t more)
{
    uint64_t *p = realloc(*map, more * sizeof(*p));
    if (!p)
        return false;
    memset(p + words, 0, (more - words) * sizeof(*p));
    *map = p;
    return true;
}

uint64_t thin_intent_words(uint64_t chunks)
{
    return max_u64(1, div_up(chunks, (uint64_t)THIN_REGION_CHUNKS * 64));
}

int thin_intents_resize(struct thin *t, uint64_t chunks)
{
    struct thin_intents *in = &t->intents;
    uint64_t words = thin_intent_words(chunks);
    if (words <= in->words)
        return 0; /* a volume that shrinks keeps its bits: they are cleared when quiet */
    if (!bitmap_grow(&in->wanted, in->words, words) ||
        !bitmap_grow(&in->durable, in->words, words) ||
        !bitmap_grow(&in->touched, in->words, words) ||
        !bitmap_grow(&in->recovered, in->words, words) ||
        !bitmap_grow(&in->sent, in->words, words) ||
        !bitmap_grow(&in->logged, bitmap_words(in->words), bitmap_words(words)))
        return VP_E_NO_MEMORY;
    in->words = words;
    return 0;
}

int thin_intents_load(struct thin *t, uint64_t word, const void *value, size_t len)
{
    struct thin_intents *in = &t->intents;
    struct thin_intent_record_disk r;
    if (len != sizeof(r))
        return VP_E_RECORD_BAD;
    memcpy(&r, value, sizeof(r));
    if (word >= in->words)
        return 0; /* of the part that a shrink cut off: nothing is mapped there */
    uint64_t bits = le64_get(r.regions);
    figure_sub(&t->figures.regions_to_resync, (uint64_t)__builtin_popcountll(in->recovered[word]));
    in->wanted[word] = in->durable[word] = in->recovered[word] = bits;
    figure_add(&t->figures.regions_to_resync, (uint64_t)__builtin_popcountll(bits));
    bitmap_set(in->logged, word);
    return 0;
}

/* ---- setting ------------------------------------------------------------------------------- */

/* One commit of every word that wants more than is durable. */
static CO int intents_commit(struct thin *t)
{
    struct thin_intents *in = &t->intents;
    uint64_t words = in->words; /* a resize meanwhile only adds */
    memcpy(in->sent, in->wanted, words * sizeof(*in->sent));
    pool_batch_clear(&in->batch);
    for (uint64_t w = 0; w < words; w++) {
        if (!(in->sent[w] & ~in->durable[w]))
            continue;
        struct thin_intent_record_disk r = {le64_make(in->sent[w])};
        pool_batch_set(&in->batch, POOL_RECORD_INTENT, t->id, w, &r, sizeof(r));
        bitmap_set(in->logged, w);
    }
    int rc = pool_commit(t->pool, &in->batch);
    for (uint64_t w = 0; w < words && !rc; w++) {
        uint64_t set = in->sent[w] & in->wanted[w]; /* a checkpoint may have cleared meanwhile */
        VP_VERIFY(in->durable[w] & ~in->wanted[w], ==, 0U);
        figure_add(&t->figures.intents_set, (uint64_t)__builtin_popcountll(set & ~in->durable[w]));
        in->durable[w] |= set;
    }
    return rc;
}

CO int thin_intent_ensure(struct thin *t, struct vchunk vchunk)
{
    struct thin_intents *in = &t->intents;
    uint64_t region = vchunk.n / THIN_REGION_CHUNKS;
    if (!io_guard_on(GUARD_INTENT_BEFORE_OVERWRITE)) {
        bitmap_set(in->wanted, region);
        bitmap_set(in->durable, region);
        return 0;
    }
    while (!bitmap_test(in->durable, region)) {
        bitmap_set(in->wanted, region);
        if (in->committing) {
            co_queue_wait(&in->queue, "intent");
            continue;
        }
        in->committing = true;
        int rc = intents_commit(t);
        in->committing = false;
        co_queue_wake_all(&in->queue);
        if (rc)
            return rc;
    }
    return 0;
}

unsigned thin_intent_enter(struct thin *t, struct vchunk vchunk)
{
    struct thin_intents *in = &t->intents;
    VP_CHECK(thin_intent_is_durable(in, vchunk), ==, true);
    bitmap_set(in->touched, vchunk.n / THIN_REGION_CHUNKS);
    in->writers[in->epoch]++;
    return in->epoch;
}

void thin_intent_leave(struct thin *t, unsigned epoch)
{
    struct thin_intents *in = &t->intents;
    VP_CHECK(in->writers[epoch], >, 0U);
    if (--in->writers[epoch] == 0 && in->draining)
        co_queue_wake_all(&in->drained);
}

void thin_intent_failed(struct thin *t, struct vchunk vchunk)
{
    struct thin_intents *in = &t->intents;
    uint64_t region = vchunk.n / THIN_REGION_CHUNKS;
    VP_VERIFY_TRUE(bitmap_test(in->durable, region)); /* while it is under way */
    in->failures++;
    t->resync_next = min_u64(t->resync_next, region);
    if (bitmap_test(in->recovered, region))
        return;
    bitmap_set(in->recovered, region);
    figure_add(&t->figures.regions_to_resync, 1);
    in->drain_needed = true;
}

static bool epoch_end(struct thin_intents *in)
{
    if (in->writers[!in->epoch])
        return false;
    in->epoch = !in->epoch;
    in->epochs++;
    return true;
}

CO void thin_intents_drain(struct thin *t)
{
    struct thin_intents *in = &t->intents;
    /* The end of the epoch before the one that begins now is that of everything under way now. */
    uint64_t end = in->epochs + 2;
    in->draining++;
    while (in->epochs < end)
        if (!epoch_end(in))
            co_queue_wait(&in->drained, "changes in place");
    in->draining--;
}

/* ---- clearing ------------------------------------------------------------------------------ */

static void intents_clear_quiet(struct thin_intents *in)
{
    if (!epoch_end(in))
        return; /* something is slow: the next checkpoint will do */
    for (uint64_t w = 0; w < in->words; w++) {
        /* A commit under way may make durable what nobody counts as a writer yet. */
        uint64_t keep = in->touched[w] | in->recovered[w] |
                        (in->committing ? in->wanted[w] & ~in->durable[w] : 0);
        in->wanted[w] &= keep;
        in->durable[w] &= keep;
        VP_VERIFY(in->durable[w] & ~in->wanted[w], ==, 0U);
        in->touched[w] = 0;
    }
}

void thin_checkpoint_intents(struct thin *t, struct pool_batch *b)
{
    struct thin_intents *in = &t->intents;
    intents_clear_quiet(in);
    /*
     * All words, changed or not, and with what a commit under way may have put into the table
     * already: the table image takes the place of the log before the cut, so nothing that counts
     * may be missing there, and a bit too many costs nothing but a look after a crash.
     */
    for (uint64_t w = bitmap_find(in->logged, in->words, 0, true); w < in->words;
         w = bitmap_find(in->logged, in->words, w + 1, true)) {
        struct thin_intent_record_disk r = {le64_make(in->wanted[w])};
        if (in->wanted[w])
            pool_batch_set(b, POOL_RECORD_INTENT, t->id, w, &r, sizeof(r));
        else
            pool_batch_delete(b, POOL_RECORD_INTENT, t->id, w);
    }
}
