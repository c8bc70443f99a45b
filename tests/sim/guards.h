/* The proof that the tests notice a missing guard: each guard of io/guards.def is switched off, and
 * some scenario must fail then. */
#ifndef VP_TESTS_SIM_GUARDS_H
#define VP_TESTS_SIM_GUARDS_H

#include <stdbool.h>

/* Prints a table. False when no scenario noticed that some guard was off. `baseline`: also makes
 * sure that the scenario which noticed is content with all guards on (otherwise that was seen
 * before). */
bool guards_prove(unsigned jobs, bool baseline);

#endif
