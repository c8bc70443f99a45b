/* See far.h. */
#include "tests/lib/far.h"

#include "base/bytes.h"

#include <string.h>

enum { SPOILED = 512, SPOILED_BYTE = 5 };

static CO int far_make(void *arg, const struct migrate_offer *offer, struct reactor *beside,
                       struct vp_uuid *pool, struct vp_error *err)
{
    struct far *f = arg;
    (void)beside;
    *pool = pool_uuid(volumes_pool(f->s->other));
    f->claim = (struct receive_claim){offer->source.id, offer->info->uuid, offer->epoch};
    return receive_begin(f->s->other, "w", offer, &f->receive, err);
}

static CO int far_renew(void *arg, struct vp_error *err)
{
    struct far *f = arg;
    if (f->refusals && f->refusals-- > 0)
        return vp_fail(err, f->refusal ? f->refusal : VP_E_PEER_LOST, "nobody answers");
    f->lost = false;
    f->requests = f->lose_each ? 0 : f->requests;
    f->renewals++;
    return 0;
}

static void far_cut(void *arg)
{
    struct far *f = arg;
    f->lost = true;
    co_queue_wake_all(&f->cut);
}

static bool far_counts(const struct far *f)
{
    return !f->frozen_only || (f->m && migrate_status(f->m)->phase == MIGRATE_DRAINING);
}

/* Whether this request is lost. */
static bool far_loses(struct far *f)
{
    bool counts = far_counts(f);
    f->requests += counts;
    if ((f->lose_at && counts && f->requests == f->lose_at) ||
        (f->lose_each && f->requests >= f->lose_each))
        f->lost = true;
    return f->lost;
}

static CO int far_request(struct far *f, uint64_t offset, uint64_t len, const void *buf)
{
    struct volume *v = receive_volume(f->receive);
    while (f->hangs && !f->lost)
        co_queue_wait(&f->cut, "a test");
    if (f->slow_ns)
        vp_ignore(co_sleep_ns(f->slow_ns), "nobody cancels it");
    bool was_lost = f->lost, loses = far_loses(f);
    if (f->fail_at && f->requests == f->fail_at)
        return VP_E_IO;
    if (was_lost || (loses && !f->lands))
        return VP_E_PEER_LOST;
    int rc = buf ? volume_write(v, offset, len, buf, 0) : volume_zero(v, offset, len, 0);
    return loses ? VP_E_PEER_LOST : rc;
}

/* The write has been answered as if it had been kept. */
static CO int far_spoil(struct far *f, uint64_t offset, const void *buf)
{
    static uint8_t wrong[SPOILED] __attribute__((aligned(4096)));
    memcpy(wrong, buf, SPOILED);
    wrong[SPOILED_BYTE] ^= 1;
    return volume_write(receive_volume(f->receive), offset, SPOILED, wrong, 0);
}

static CO int far_write(void *arg, uint64_t offset, uint64_t len, const void *buf)
{
    struct far *f = arg;
    f->written += far_counts(f);
    bool spoils = !f->spoils_mirrored && far_counts(f) && f->written == f->spoil_at;
    int rc = far_request(f, offset, len, buf);
    return rc || !spoils ? rc : far_spoil(f, offset, buf);
}

static CO int far_zero(void *arg, uint64_t offset, uint64_t len)
{
    return far_request(arg, offset, len, NULL);
}

static CO int far_write_mirrored(void *arg, uint64_t offset, uint64_t len, const void *buf)
{
    struct far *f = arg;
    f->mirrored++;
    bool spoils = f->spoils_mirrored && f->mirrored == f->spoil_at;
    int rc = far_request(f, offset, len, buf);
    return rc || !spoils ? rc : far_spoil(f, offset, buf);
}

static CO int far_zero_mirrored(void *arg, uint64_t offset, uint64_t len)
{
    ((struct far *)arg)->mirrored++;
    return far_request(arg, offset, len, NULL);
}

static CO int far_read(void *arg, uint64_t offset, uint64_t len, void *buf)
{
    struct far *f = arg;
    while (f->hangs_reads && !f->lost)
        co_queue_wait(&f->cut, "a test");
    if (f->slow_ns)
        vp_ignore(co_sleep_ns(f->slow_ns), "nobody cancels it");
    f->reads += far_counts(f);
    if (far_counts(f) && f->reads == f->lose_read_at)
        f->lost = true;
    if (f->lost)
        return VP_E_PEER_LOST;
    if (f->fail_read_at && f->reads == f->fail_read_at)
        return VP_E_IO;
    return volume_read(receive_volume(f->receive), offset, len, buf);
}

static CO int far_flush(void *arg)
{
    struct far *f = arg;
    return f->lost ? VP_E_PEER_LOST : volume_flush(receive_volume(f->receive));
}

static CO int far_arrive(void *arg, enum migrate_verdict *verdict, struct vp_error *err)
{
    struct far *f = arg;
    bool silent = f->silences && f->silences-- > 0;
    *verdict = MIGRATE_NOT_KNOWN;
    if (silent && f->arrives_deaf)
        return vp_fail(err, VP_E_PEER_LOST, "nobody answers");
    int rc = receive_arrive(f->receive, verdict, err);
    if (silent) {
        *verdict = MIGRATE_NOT_KNOWN;
        return vp_fail(err, VP_E_PEER_LOST, "nobody answers");
    }
    return *verdict == MIGRATE_HAS_NOT ? VP_E_NOT_FOUND : rc;
}

static CO int far_decline(void *arg, struct vp_error *err)
{
    return receive_decline(((struct far *)arg)->receive, err);
}

static CO int far_confirm(void *arg, struct vp_error *err)
{
    struct far *f = arg;
    return receive_confirm(f->s->other, &f->claim, err);
}

static CO void far_close(void *arg)
{
    struct far *f = arg;
    receive_free(f->receive);
    f->receive = NULL;
    f->closed = true;
}

const struct migrate_peer_ops far_ops = {.make = far_make,
                                         .renew = far_renew,
                                         .cut = far_cut,
                                         .arrive = far_arrive,
                                         .decline = far_decline,
                                         .confirm = far_confirm,
                                         .close = far_close,
                                         .write = far_write,
                                         .zero = far_zero,
                                         .write_mirrored = far_write_mirrored,
                                         .zero_mirrored = far_zero_mirrored,
                                         .read = far_read,
                                         .flush = far_flush};
