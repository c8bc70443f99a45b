/* Tests of what a broken invariant does: it ends the process. */
#ifndef VP_TESTS_LIB_ABORTS_H
#define VP_TESTS_LIB_ABORTS_H

#include <stdbool.h>

/* Calls fn(arg) in a process of its own. True: it ended by abort(). False: fn returned. Whatever
 * else ends that process (a sanitizer, another signal) ends the caller as well. */
bool call_aborts(void (*fn)(void *arg), void *arg);

#endif
