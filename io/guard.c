/* See guard.h. */
#include "io/guard.h"

bool io_guard_disabled[GUARD_COUNT];

static const struct {
    const char *name, *text;
} guards[GUARD_COUNT] = {
#define IO_GUARD(name, text) {#name, text},
#include "io/guards.def"
#undef IO_GUARD
};

const char *io_guard_name(enum io_guard id)
{
    return guards[id].name;
}

const char *io_guard_text(enum io_guard id)
{
    return guards[id].text;
}
