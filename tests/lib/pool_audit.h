/* What a pool keeps about its groups, against what a walk over all of them finds. */
#ifndef VP_TESTS_POOL_AUDIT_H
#define VP_TESTS_POOL_AUDIT_H

#include "pool/pool.h"

/* HOME, no yield. NULL, or what differs. */
const char *pool_audit(struct pool *p);

#endif
