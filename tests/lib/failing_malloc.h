/*
 * Allocations that fail once, for unit tests: with fail_in = n the allocation after the next n
 * fails. The linker puts the functions of failing_malloc.c in front of malloc and its kind (the
 * Makefile, --wrap), so this works under the sanitizers and under valgrind too. Allocations inside
 * the C library and other libraries never fail. The simulator itself tries again (sim_impl.h,
 * sim_alloc).
 */
#ifndef VP_TESTS_FAILING_MALLOC_H
#define VP_TESTS_FAILING_MALLOC_H

extern long fail_in; /* allocations that succeed before one fails; negative: none fails */

#endif
