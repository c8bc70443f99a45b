/*
 * VP_VERIFY(a, op, b): an invariant of our own code, on in release builds; prints its operands and
 * aborts. Never for bytes that came from a disk, a socket, a guest, a file or a command line.
 */
#ifndef VP_BASE_VERIFY_H
#define VP_BASE_VERIFY_H

#include <stdint.h>

_Noreturn void vp_verify_failed(const char *file, int line, const char *expr, long long a,
                                long long b);

#define VP_VERIFY(a, op, b)                                                                        \
    do {                                                                                           \
        __typeof__(a) vp_a_ = (a);                                                                 \
        __typeof__(b) vp_b_ = (b);                                                                 \
        if (__builtin_expect(!(vp_a_ op vp_b_), 0))                                                \
            vp_verify_failed(__FILE__, __LINE__, #a " " #op " " #b, (long long)(intptr_t)vp_a_,    \
                             (long long)(intptr_t)vp_b_);                                          \
    } while (0)

/* The same for a condition without two operands worth printing. */
#define VP_VERIFY_TRUE(cond)                                                                       \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            vp_verify_failed(__FILE__, __LINE__, #cond, 0, 1);                                     \
    } while (0)

/* VP_VERIFY of the flavours for tests (all but release): for what every request would pay for. */
#ifdef VPOOL_CHECKED
#define VP_CHECK(a, op, b) VP_VERIFY(a, op, b)
#else
#define VP_CHECK(a, op, b) ((void)sizeof((a)op(b)))
#endif

#endif
