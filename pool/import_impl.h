/* The state of an import while it goes on: import.c, import_roots.c. */
#ifndef VP_POOL_IMPORT_IMPL_H
#define VP_POOL_IMPORT_IMPL_H

#include "pool/meta_impl.h"

struct pool_import_state {
    struct pool *p;
    struct vp_error *err;
    bool degraded; /* POOL_IMPORT_DEGRADED */
    struct pool_candidate **candidate;
    unsigned candidates;
    const uint8_t **newest; /* of each candidate, its newest valid root in slots, or NULL */
    unsigned winner;        /* the candidate that has the newest of all                   */
    struct root_image image, other;
    struct pool_root next; /* the sealing one: the newest, with its pieces as they were found */
    int of_disk[POOL_DISKS_MAX]; /* candidate of a disk of the table, or -1             */
    bool missing[POOL_DISKS_MAX];
    bool was_behind[POOL_DISKS_MAX];   /* … and it was no copy of what has others */
    const char *doubt[POOL_DISKS_MAX]; /* why a disk that is here is not counted on, or NULL */

    struct log_reader reader;
    struct pool_batch run;        /* bytes of a run of several batches                          */
    struct pool_batch keep;       /* bytes of the whole log, for merging pieces; failed: not all */
    struct pool_segment *segment; /* walked                                             */
    unsigned segments, segments_kept, segment_capacity;
    unsigned segments_of_images; /* the first ones */
    uint64_t log_pages;
    struct list keeps; /* of the daemon before, if it was killed (keep_recover.c) */
};

/* CO. Reads all roots, chooses the newest, and takes over its disks; says in p->import->err what is
 * wrong. */
CO int pool_import_roots(struct pool_import_state *im) must_check;
/* CO. The newest root is on all disks in service, before one that follows it (root.c, R3). */
CO int pool_import_roots_level(struct pool_import_state *im) must_check;

#endif
