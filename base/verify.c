/* The end of a process whose own invariant broke: one line on stderr, then abort for the core. */
#include "base/verify.h"

#include <stdio.h>
#include <stdlib.h>

void vp_verify_failed(const char *file, int line, const char *expr, long long a, long long b)
{
    (void)fprintf(stderr, "%s:%d: broken invariant: %s (%lld, %lld)\n", file, line, expr, a, b);
    abort();
}
