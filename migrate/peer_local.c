/*
 * The other side of a move is a pool of this daemon (peer.h). The target is open on the reactor of
 * the source, so data are written by a plain call. It is never lost.
 *
 * Its `arrive` commits the records of the exports along with the volume.
 */
#include "migrate/migrate_impl.h"

static CO int local_make(void *arg, const struct migrate_offer *offer, struct reactor *beside,
                         struct vp_uuid *pool, struct vp_error *err)
{
    struct peer_local *p = arg;
    *pool = pool_uuid(volumes_pool(p->vs));
    int rc = volume_target_create(p->vs, p->name, offer->info, offer->epoch, &offer->source, err);
    if (rc)
        return rc;
    rc = volume_open_to_move(p->vs, p->name, beside, &p->target, err);
    if (rc) {
        struct vp_error ignored;
        if (volume_target_delete(p->vs, p->name, &ignored))
            volume_move_unattended(p->vs, p->name); /* settle.c tries that again */
    }
    return rc;
}

static CO int local_arrive(void *arg, enum migrate_verdict *verdict, struct vp_error *err)
{
    struct peer_local *p = arg;
    struct pool_batch b;
    bool in_doubt = false;
    pool_batch_init(&b);
    int rc = p->exports->arrive ? p->exports->arrive(p->exports->arg, p->target, &b) : 0;
    if (!rc)
        rc = volume_arrive(p->vs, p->name, &b, &in_doubt);
    pool_batch_fini(&b);
    *verdict = !rc ? MIGRATE_HAS_ARRIVED : in_doubt ? MIGRATE_NOT_KNOWN : MIGRATE_HAS_NOT;
    return rc ? vp_fail(err, rc, "%s", vp_err_text(rc)) : 0;
}

static CO void target_close(struct peer_local *p)
{
    if (p->target)
        volume_close(p->target);
    p->target = NULL;
}

static CO int local_decline(void *arg, struct vp_error *err)
{
    struct peer_local *p = arg;
    target_close(p);
    int rc = volume_target_delete(p->vs, p->name, err);
    if (rc)
        volume_move_unattended(p->vs, p->name);
    return rc;
}

static CO int local_confirm(void *arg, struct vp_error *err)
{
    struct peer_local *p = arg;
    target_close(p);
    int rc = volume_arrival_confirm(p->vs, p->name, err);
    if (rc)
        volume_move_unattended(p->vs, p->name);
    return rc;
}

static CO void local_close(void *arg)
{
    struct peer_local *p = arg;
    struct volume_owner_info o;
    target_close(p);
    if (!volume_owner_get(p->vs, p->name, &o) && o.attended && o.ownership != VOLUME_OWNER)
        volume_move_unattended(p->vs, p->name);
}

static CO int local_write(void *arg, uint64_t offset, uint64_t len, const void *buf)
{
    return volume_write(((struct peer_local *)arg)->target, offset, len, buf, 0);
}

static CO int local_zero(void *arg, uint64_t offset, uint64_t len)
{
    return volume_zero(((struct peer_local *)arg)->target, offset, len, 0);
}

static CO int local_read(void *arg, uint64_t offset, uint64_t len, void *buf)
{
    return volume_read(((struct peer_local *)arg)->target, offset, len, buf);
}

static CO int local_flush(void *arg)
{
    return volume_flush(((struct peer_local *)arg)->target);
}

const struct migrate_peer_ops peer_local_ops = {
    .make = local_make,
    .arrive = local_arrive,
    .decline = local_decline,
    .confirm = local_confirm,
    .close = local_close,
    .write = local_write,
    .zero = local_zero,
    .read = local_read,
    .flush = local_flush,
};
