/*
 * Guards: the named barriers and checks of guards.def, which a test can switch off one by one to
 * prove that the simulator notices. Product code asks io_guard_on(GUARD_X); it is true for ever
 * unless a test cleared it.
 */
#ifndef VP_IO_GUARD_H
#define VP_IO_GUARD_H

#include <stdbool.h>

enum io_guard {
#define IO_GUARD(name, text) GUARD_##name,
#include "io/guards.def"
#undef IO_GUARD
    GUARD_COUNT
};

extern bool io_guard_disabled[GUARD_COUNT];

static inline bool io_guard_on(enum io_guard id)
{
    return __builtin_expect(!io_guard_disabled[id], 1);
}

const char *io_guard_name(enum io_guard id);
const char *io_guard_text(enum io_guard id);

#endif
