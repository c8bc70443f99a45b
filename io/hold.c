/* The rules of hold.h: one row for each resource, with what nobody holds who waits for it. */
#include "io/hold.h"

#include "base/verify.h"
#include "io/reactor_impl.h"

#define EXCEPTION HOLD_MARK(RESOURCES)

enum {
    CONTROLS = HOLD_MARK(RESOURCE_COMMANDS) | HOLD_MARK(RESOURCE_VOLUME_CONTROL),
    /* What a checkpoint needs before it ends. */
    OF_CHECKPOINT = HOLD_MARK(RESOURCE_CHECKPOINT) | HOLD_MARK(RESOURCE_VOLUME_OPENING) |
                    HOLD_MARK(RESOURCE_RESERVE),
};

static const unsigned not_while_held[RESOURCES] = {
    [RESOURCE_COMMANDS] = CONTROLS | OF_CHECKPOINT,
    [RESOURCE_VOLUME_CONTROL] = HOLD_MARK(RESOURCE_VOLUME_CONTROL) | OF_CHECKPOINT,
    [RESOURCE_CLIENT_CALL] = OF_CHECKPOINT,
    [RESOURCE_ROOM] = CONTROLS | OF_CHECKPOINT,
    [RESOURCE_CHECKPOINT] = CONTROLS | OF_CHECKPOINT,
    [RESOURCE_VOLUME_OPENING] = HOLD_MARK(RESOURCE_VOLUME_OPENING),
};

unsigned hold_marks(void)
{
    const struct co *co = co_self();
    return co ? co->held : 0;
}

void hold_take(unsigned marks)
{
    struct co *co = co_self();
    if (co)
        co->held |= marks;
}

void hold_drop(unsigned marks)
{
    struct co *co = co_self();
    if (co)
        co->held &= ~marks;
}

void hold_verify(enum resource r)
{
    unsigned forbidden = not_while_held[r], held = hold_marks();
    if (r == RESOURCE_CHECKPOINT && (held & EXCEPTION))
        forbidden = OF_CHECKPOINT;
    VP_VERIFY(held & forbidden, ==, 0U);
}

void hold_begin(enum resource r)
{
    hold_take(HOLD_MARK(r));
}

void hold_end(enum resource r)
{
    hold_drop(HOLD_MARK(r));
}

struct hold_exception hold_may_await_checkpoint(void)
{
    struct hold_exception e = {hold_marks()};
    hold_take(EXCEPTION);
    return e;
}

void hold_exception_end(const struct hold_exception *e)
{
    hold_drop(EXCEPTION & ~e->before);
}
