/*
 * Images of the table: what a checkpoint writes of the records, so that it costs what changed.
 *
 * A root names one full image and up to POOL_DELTAS deltas, each a chain of its own. A delta has
 * the records that were set since the image before it, and deletes of those that went. The full
 * image and the deltas in their order are the table; the log goes over them.
 *
 *     full │ delta 0 │ delta 1 │ … what no image has
 *          └ range 0 ┴ range 1 ┴ … the last range of pool_records
 *
 * A checkpoint where nothing changed writes no image. Else it writes a delta, and takes into it
 * each delta before that is at most GROWTH times what it has without; one at least when there are
 * POOL_DELTAS already. So their sizes fall by that factor, and a change is written again only a few
 * times. When a delta would be more than half of a full image, a full image is written and takes
 * the place of all; and also while metadata have little room, since older images stay where they
 * are as long as a delta needs them, and room for full images alone is what is promised (meta.c).
 *
 * A pool that is exported gets a full image: an older release, which does not know deltas, can open
 * it.
 *
 *  D1  An image holds each change before its copying began, but for records that changed again
 *      meanwhile: those are in the log after the cut (checkpoint.c, C1), and in the next image.
 *  D2  A deleted record is remembered (a delete in the next deltas) as long as an image that the
 *      next root could name may have it: until a full image is durable.
 *  D3  Segments of an image are freed when a root without it is durable, like all that it replaces.
 */
#include "base/verify.h"
#include "pool/meta_impl.h"

#include <stdlib.h>

enum { GROWTH = 4, RECORDS_A_TURN = 128, FORGOTTEN_A_TURN = 1024 };

/* ---- which one ---------------------------------------------------------------------------- */

/* Of the delta that has range `first` and all that follow. */
static uint64_t delta_bytes(const struct pool *p, unsigned first)
{
    return pool_records_changed_bytes(&p->records, first) +
           pool_meta_changed_bytes(p, p->records.from[first]);
}

/* Some image lacks a copy that its groups have got (widen.c, W3). */
static bool images_are_narrow(const struct pool *p)
{
    const struct pool_checkpoint_state *ck = &p->checkpoint;
    for (unsigned i = 0; i < ck->images; i++)
        for (unsigned k = 0; k < ck->image[i].segments; k++)
            if (pool_segment_is_narrow(p, &ck->image[i].segment[k]))
                return true;
    return false;
}

static unsigned image_choose(const struct pool *p)
{
    /* What is exported may go to an older release, which does not know deltas. */
    if (!p->checkpoint.images || (p->checkpoint.exporting && p->checkpoint.images > 1))
        return 0;
    if (images_are_narrow(p) || p->checkpoint.fill || p->checkpoint.renew)
        return 0;
    unsigned range = p->checkpoint.images - 1;
    uint64_t bytes = delta_bytes(p, range);
    if (!bytes)
        return POOL_IMAGE_NONE;
    for (; range; range--) {
        uint64_t with = delta_bytes(p, range - 1);
        if (range < POOL_DELTAS && with - bytes > GROWTH * bytes)
            break;
        bytes = with;
    }
    bool is_small = 2 * bytes <= pool_table_image_bytes(p) && !p->checkpoint.exporting;
    return is_small && pool_meta_has_room_for_delta(p, bytes) ? range + 1 : 0;
}

unsigned pool_image_plan(struct pool *p)
{
    const struct pool_checkpoint_state *ck = &p->checkpoint;
    unsigned at = image_choose(p);
    for (unsigned i = 0; i < ck->images && i < at; i++)
        for (unsigned k = 0; k < ck->image[i].segments; k++)
            pool_meta_keep_segment(p, &ck->image[i].segment[k]);
    return at;
}

/* ---- writing ------------------------------------------------------------------------------ */

/* Of what is encoded, writes as much as fills segments. */
static CO int image_write_whole_segments(struct pool *p)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    struct pool_batch *b = &ck->records;
    size_t at = 0, room;
    int rc = b->failed ? VP_E_NO_MEMORY : 0;
    while (!rc && b->len - at > (room = pool_stream_room(p, &ck->stream))) {
        rc = pool_stream_write(p, &ck->stream, b->bytes + at, room, true);
        at += room;
    }
    if (at)
        memmove(b->bytes, b->bytes + at, b->len - at);
    b->len -= at;
    return rc;
}

/* A large table takes many turns, and changes meanwhile (D1). */
static CO int image_write_records(struct pool *p, unsigned at)
{
    struct pool_batch *b = &p->checkpoint.records;
    struct pool_records *t = &p->records;
    uint32_t from = at ? t->from[at - 1] : 0;
    int rc = 0;
    pool_batch_clear(b);
    pool_records_encode_begin(t, from);
    while (!rc && pool_records_encode_some(t, b, RECORDS_A_TURN)) {
        co_yield ();
        rc = image_write_whole_segments(p);
    }
    for (unsigned i = 0; !rc && i < p->meta.groups; i++) {
        pool_meta_encode(p, p->meta.group[i], from, b);
        rc = image_write_whole_segments(p);
    }
    return rc;
}

/* As a chain of its own; memory for one segment of it does. */
static CO int image_write(struct pool *p, unsigned at, struct pool_table_image_ref *out)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    pool_records_range_begin(&p->records);
    int rc = pool_stream_open(p, &ck->stream, false);
    if (rc)
        return rc;
    *out = (struct pool_table_image_ref){.start = ck->stream.segment, .stream = ck->stream.id};
    rc = image_write_records(p, at);
    if (!rc)
        rc = pool_stream_write(p, &ck->stream, ck->records.bytes, ck->records.len, false);
    out->batches = ck->stream.next_seq - 1;
    if (!rc)
        VP_VERIFY(out->batches, >, 0U);
    return rc;
}

CO int pool_image_write(struct pool *p, unsigned at, struct pool_root *next)
{
    const struct pool_root *now = &p->root.now;
    next->table_image = now->table_image;
    next->deltas = at == POOL_IMAGE_NONE ? now->deltas : at;
    memcpy(next->delta, now->delta, sizeof(next->delta));
    if (at == POOL_IMAGE_NONE)
        return 0;
    return image_write(p, at, at ? &next->delta[at - 1] : &next->table_image);
}

/* ---- afterwards --------------------------------------------------------------------------- */

static void image_free(struct pool_image *im)
{
    free(im->segment);
    *im = (struct pool_image){0};
}

CO void pool_image_end(struct pool *p, unsigned at, bool durable)
{
    struct pool_checkpoint_state *ck = &p->checkpoint;
    if (at == POOL_IMAGE_NONE)
        return;
    if (!durable) {
        image_free(&ck->writing);
        pool_records_range_undo(&p->records);
        return;
    }
    while (ck->images > at)
        image_free(&ck->image[--ck->images]);
    ck->image[ck->images++] = ck->writing;
    ck->writing = (struct pool_image){0};
    ck->renew = ck->renew && at;
    if (at) {
        pool_records_range_join(&p->records, at - 1);
        return;
    }
    while (pool_records_forget_some(&p->records, FORGOTTEN_A_TURN))
        co_yield ();
    pool_records_range_reset(&p->records);
}

int pool_image_found(struct pool *p, const struct pool_segment *segment, unsigned count)
{
    struct pool_image *im = &p->checkpoint.image[p->checkpoint.images];
    im->segment = malloc((count ? count : 1) * sizeof(*segment));
    if (!im->segment)
        return VP_E_NO_MEMORY;
    memcpy(im->segment, segment, count * sizeof(*segment));
    im->segments = im->capacity = count;
    p->checkpoint.images++;
    return 0;
}

void pool_images_fini(struct pool *p)
{
    for (unsigned i = 0; i < 1 + POOL_DELTAS; i++)
        image_free(&p->checkpoint.image[i]);
    image_free(&p->checkpoint.writing);
}
