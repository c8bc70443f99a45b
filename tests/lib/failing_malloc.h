/*
 * Allocations that fail once, for one test program: fail_in = n lets the allocation after the next n
 * fail. To be included once, by the file that has main(). CAN_FAIL is false where the allocator
 * belongs to the address sanitizer. The simulator itself tries again (sim_impl.h, sim_alloc).
 */
#ifndef VP_TESTS_FAILING_MALLOC_H
#define VP_TESTS_FAILING_MALLOC_H

#include <stdbool.h>
#include <stdlib.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { CAN_FAIL = false };
static long fail_in;
#else
enum { CAN_FAIL = true };
static long fail_in = -1;

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);
extern void *__libc_memalign(size_t align, size_t n);

static bool allocation_fails(void)
{
    return fail_in >= 0 && fail_in-- == 0;
}

void *malloc(size_t n)
{
    return allocation_fails() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return allocation_fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return allocation_fails() ? NULL : __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    return allocation_fails() ? NULL : __libc_memalign(align, n);
}
#endif

#endif
