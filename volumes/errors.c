/*
 * Errors of volumes over restarts. A volume's counters of errors, and the time since which they
 * count, are kept in a COUNTER record (volume_format.h). control/history.c, which has a clock,
 * saves them every few seconds, and before the pool closes. A kill loses the errors that came after
 * the last save.
 *
 * A volume has no record until it had some error. The record goes with its volume (delete.c), and
 * none is written for a volume that is being deleted: nothing yields between the look at the
 * volume's state and pool_commit, which puts the record into the table at once.
 */
#include "base/verify.h"
#include "volumes/volumes_impl.h"

#define ERRORS_NOT_SAVED UINT64_MAX

/* Counters only grow, but for a clear, so their sum tells whether they changed. */
static uint64_t sum_of(const struct volume *v)
{
    return figure_get(&v->figures.checksum_errors) + figure_get(&v->figures.healed_blocks);
}

void volume_errors_load(struct volume *v)
{
    struct pool_record r;
    struct volume_errors_disk d;
    v->errors.since = reactor_wall_seconds();
    if (!pool_record_get(v->vs->pool, POOL_RECORD_COUNTER, v->id, VOLUME_COUNTER_ERRORS, &r) ||
        r.len < sizeof(d))
        return;
    memcpy(&d, r.value, sizeof(d));
    v->errors.since = le64_get(d.since);
    v->errors.is_recorded = true;
    figure_add_shared(&v->figures.checksum_errors, le64_get(d.checksum_errors));
    figure_add_shared(&v->figures.healed_blocks, le64_get(d.healed_blocks));
    v->errors.saved = sum_of(v);
}

static void errors_put(struct volume *v, uint64_t save, struct pool_batch *b)
{
    uint64_t sum = sum_of(v);
    if (v->state == VOLUME_DELETING || v->name->pending || sum == v->errors.saved)
        return;
    struct volume_errors_disk d = {
        .since = le64_make(v->errors.since),
        .checksum_errors = le64_make(figure_get(&v->figures.checksum_errors)),
        .healed_blocks = le64_make(figure_get(&v->figures.healed_blocks)),
    };
    pool_batch_set(b, POOL_RECORD_COUNTER, v->id, VOLUME_COUNTER_ERRORS, &d, sizeof(d));
    v->errors.is_recorded = true;
    v->errors.saved = sum;
    v->errors.save = save;
}

CO int volumes_errors_save(struct volumes *vs)
{
    uint64_t save = ++vs->errors_save;
    struct pool_batch b;
    struct volume *v;
    pool_batch_init(&b);
    list_for_each (v, &vs->all, link)
        errors_put(v, save, &b);
    int rc = b.count ? pool_commit(vs->pool, &b) : 0;
    pool_batch_fini(&b);
    if (rc)
        list_for_each (v, &vs->all, link)
            if (v->errors.save == save)
                v->errors.saved = ERRORS_NOT_SAVED;
    return rc;
}

void volumes_errors_clear(struct volumes *vs)
{
    struct volume *v;
    list_for_each (v, &vs->all, link) {
        figure_put(&v->figures.checksum_errors, 0);
        figure_put(&v->figures.healed_blocks, 0);
        v->errors.since = reactor_wall_seconds();
        if (v->errors.is_recorded)
            v->errors.saved = ERRORS_NOT_SAVED; /* the zeros are saved as well */
    }
}
