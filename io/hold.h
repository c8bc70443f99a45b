/*
 * What a coroutine holds, and what it must not wait for meanwhile: the rules of docs/design.md,
 * "Resources", that are verified in code. A broken rule is a hang that only some load shows. With
 * the check a broken rule aborts in every test that takes the path, without that load.
 *
 * - A mutex with a resource (co_mutex_init_for) verifies its rule first, and marks its owner.
 * - A call of another reactor takes the marks of its caller along, because the caller keeps what it
 *   holds until the call returns. A reactor_call adds the mark of the reserve, also when it calls
 *   the reactor that it is on. So tests with one reactor find what hangs with several.
 * - hold_verify stands where requests wait for long. A request that does not wait pays nothing.
 */
#ifndef VP_IO_HOLD_H
#define VP_IO_HOLD_H

/* In the order of the list in docs/design.md. */
enum resource {
    RESOURCE_UNNAMED,        /* a mutex without a rule                                     */
    RESOURCE_COMMANDS,       /* `control.lock`                                             */
    RESOURCE_VOLUME_CONTROL, /* `control` of a volume                                      */
    RESOURCE_CLIENT_CALL,    /* a coroutine for clients on another reactor: is waited for  */
    RESOURCE_ROOM,           /* room in the pool: is waited for                            */
    RESOURCE_CHECKPOINT,     /* held by the coroutine that makes it; others wait for it    */
    RESOURCE_VOLUME_OPENING, /* `opening` of a volume                                      */
    RESOURCE_RESERVE,        /* a coroutine of the reserve                                 */
    RESOURCES
};

#define HOLD_MARK(r) (1U << (r))

/* Verifies that the running coroutine may wait for r with what it holds. */
void hold_verify(enum resource r);

void hold_begin(enum resource r);
void hold_end(enum resource r);

/* The marks of the running coroutine. Another coroutine that does a part of its work, while the
 * first one waits, takes them. */
unsigned hold_marks(void);
void hold_take(unsigned marks);
void hold_drop(unsigned marks);

/*
 *     AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint();
 *
 * Until the end of the scope the coroutine may wait for a checkpoint with control.lock and a
 * volume's `control` held. A comment there says why the wait ends. Nothing excuses from the other
 * rules.
 */
struct hold_exception {
    unsigned before;
};
struct hold_exception hold_may_await_checkpoint(void);
void hold_exception_end(const struct hold_exception *e);
#define AUTO_HOLD __attribute__((cleanup(hold_exception_end), unused))

#endif
