/* The proof that the tests bite: each guard of io/guards.def is switched off, and then some
 * scenario must fail. */
#ifndef VP_TESTS_SIM_GUARDS_H
#define VP_TESTS_SIM_GUARDS_H

#include <stdbool.h>

/* Prints a table; false when the absence of one was not noticed. `baseline`: also make sure that
 * the scenario which noticed is content with all guards on (else that was seen before). */
bool guards_prove(unsigned jobs, bool baseline);

#endif
