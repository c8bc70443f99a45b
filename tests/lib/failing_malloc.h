/*
 * Allocations that fail once, for unit tests: fail_in = n lets the allocation after the next n
 * fail. The linker puts the functions of failing_malloc.c before malloc and its kind (the Makefile,
 * --wrap), so that it works under the sanitizers and under valgrind too. Allocations inside the C
 * library and other libraries never fail. The simulator itself tries again (sim_impl.h, sim_alloc).
 */
#ifndef VP_TESTS_FAILING_MALLOC_H
#define VP_TESTS_FAILING_MALLOC_H

extern long fail_in; /* allocations that succeed before one fails; negative: none fails */

#endif
