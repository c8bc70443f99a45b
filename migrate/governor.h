/*
 * How hard a move copies, so that clients of the volume do not wait much longer than before.
 *
 * The governor is told what requests take now, and steers how many bytes of the copy are in flight:
 * a little more as long as requests are not too slow (additive increase), and half as soon as they
 * are (multiplicative decrease). At the least that is in flight it makes the copy rest between
 * pieces, longer and longer. It never goes below the rate at which clients dirty the volume, with
 * some reserve: a copy that is slower does not come to an end.
 *
 * The law only: no clock, no I/O. impact.c measures. Tested by tests/unit/migrate/test_governor.c.
 */
#ifndef VP_MIGRATE_GOVERNOR_H
#define VP_MIGRATE_GOVERNOR_H

#include <stdbool.h>
#include <stdint.h>

#define GOVERNOR_FLIGHT_MIN  (UINT64_C(16) << 10)
#define GOVERNOR_FLIGHT_STEP (UINT64_C(32) << 10)
#define GOVERNOR_FLIGHT_MAX  (UINT64_C(1024) << 10)
#define GOVERNOR_PIECE_MAX   (UINT64_C(64) << 10)
#define GOVERNOR_REST_MIN_NS UINT64_C(50000)
#define GOVERNOR_REST_MAX_NS UINT64_C(4000000)
#define GOVERNOR_GRACE_NS    UINT64_C(50000) /* so much more is never too much */
#define GOVERNOR_ABOVE_PERCENT                                                                     \
    160U /* of the rate of the changes: a round then leaves
                                                  less than live.c wants of it */

struct governor {
    unsigned impact_percent; /* what requests may take, of what they took before; 0: anything */
    uint64_t before_ns;      /* what they took before; 0: nobody has sent any */
    uint64_t flight_bytes;
    uint64_t rest_ns; /* of each worker, after each piece */
    bool settled;     /* it was too much once: it grows by steps from now on */
};

struct governor_look {
    uint64_t latency_ns;    /* what requests take; 0: there were none */
    uint64_t rate_bytes;    /* a second, of the copy while it was not kept from copying */
    uint64_t dirtied_bytes; /* a second, that clients make dirty and the copy must catch up with */
};

struct governor_pace {
    unsigned workers;
    uint64_t piece_bytes; /* whole blocks of 4096 bytes */
    uint64_t rest_ns;
};

void governor_init(struct governor *g, unsigned impact_percent);
/* What requests may take now; UINT64_MAX: anything. */
uint64_t governor_limit_ns(const struct governor *g);
void governor_decide(struct governor *g, const struct governor_look *l);
struct governor_pace governor_pace(const struct governor *g);

#endif
