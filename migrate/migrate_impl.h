/* The inside of migrate/, private to the folder. */
#ifndef VP_MIGRATE_MIGRATE_IMPL_H
#define VP_MIGRATE_MIGRATE_IMPL_H

#include "io/co.h"
#include "io/reactor.h"
#include "migrate/migrate.h"

/* ---- copy.c ------------------------------------------------------------------------------- */

#define COPY_EXTENTS 64U

/* The data of a frozen volume, on their way to another one on the same reactor. */
struct copy {
    struct volume *from, *to;
    uint64_t size_bytes;
    uint64_t at_bytes;                         /* what lies before was copied, or is being copied */
    struct volume_extent extent[COPY_EXTENTS]; /* the next ones, from at_bytes on */
    unsigned extent_count, extent_next;
    struct co_mutex lock;              /* held while the next extents are asked for */
    uint64_t left_bytes;               /* of this step */
    uint64_t copied_bytes, zero_bytes; /* so far */
    uint64_t failed_at;                /* where a read or write failed */
    bool failed_there;                 /* it was a write to the target */
    struct co_group workers;
    int rc;
};
void copy_init(struct copy *c, struct volume *from, struct volume *to);
/*
 * On the reactor of both, as an fn of reactor_call_for_client: copies up to COPY_STEP_BYTES more.
 * Holes are skipped, and zeros are read but not written. Errors: of the first read or write that
 * failed.
 */
#define COPY_STEP_BYTES (UINT64_C(16) << 20)
CO int copy_step(void *copy);
bool copy_is_done(const struct copy *c);

#endif
