/* Another daemon, as the mover sees it (migrate/peer.h): a pool of the same world behind an
 * unreliable way. */
#ifndef VP_TESTS_LIB_FAR_H
#define VP_TESTS_LIB_FAR_H

#include "migrate/migrate.h"
#include "migrate/peer.h"
#include "migrate/receive.h"
#include "tests/lib/sim_volumes.h"

struct far {
    struct sim_volumes *s;
    struct receive *receive;
    struct receive_claim claim;
    unsigned requests;  /* with data, so far            */
    unsigned lose_at;   /* this one is lost; 0: none    */
    unsigned fail_at;   /* this one fails there, also when others are lost; 0: none */
    unsigned lose_each; /* so many after each renewal, one is lost; 0: none */
    bool lands;         /* what is lost has been done   */
    bool frozen_only;   /* lose_at counts only requests of the freeze */
    uint64_t slow_ns;   /* each takes so long           */
    bool hangs;         /* requests wait for a cut      */
    bool lost;
    unsigned mirrored;           /* requests for which clients wait */
    unsigned written;            /* the others; with frozen_only those of the freeze */
    unsigned spoil_at;           /* a byte of this write is not kept; 0: none */
    bool spoils_mirrored;        /* … of those that are mirrored */
    unsigned reads;              /* so far */
    unsigned lose_read_at;       /* this one is lost; 0: none */
    unsigned fail_read_at;       /* this one fails; 0: none   */
    bool hangs_reads;            /* reads wait for a cut      */
    unsigned renewals, refusals; /* refusals: of the next attempts to renew */
    int refusal;                 /* … with this error; 0: nobody answers */
    unsigned silences;           /* of the next arrivals: carried out, and not answered */
    bool arrives_deaf;           /* … and not carried out */
    bool closed;
    const struct migrate *m;
    struct co_queue cut;
};

/* The volume becomes "w" of the world's other pool. */
extern const struct migrate_peer_ops far_ops; /* of a struct far */

#endif
