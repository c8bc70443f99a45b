/* The inside of a coroutine, private to io/. */
#ifndef VP_IO_CO_IMPL_H
#define VP_IO_CO_IMPL_H

#include "base/list.h"
#include "io/co.h"

#include <stdbool.h>
#include <stddef.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#define CO_USE_UCONTEXT 1
#include <ucontext.h>
#endif

/* A place to switch to. The fields behind the first are for the sanitizers only. */
struct co_context {
#ifdef CO_USE_UCONTEXT
    ucontext_t uc;
#else
    void *sp; /* the callee-saved registers and the return address are on the stack */
#endif
    void *asan_fake_stack;
    const void *stack_bottom;
    size_t stack_bytes;
    void *tsan_fiber;
};

/* Leaves `from`, to continue where `to` was left. Same thread. */
void co_context_switch(struct co_context *from, struct co_context *to);
/* Makes `c` start entry(arg) on the stack when first switched to; entry never returns. */
void co_context_init(struct co_context *c, void *stack_bottom, size_t stack_bytes,
                     void (*entry)(void *arg), void *arg);
/* The first thing that entry does. */
void co_context_entered(struct co_context *c);
/* The context of the thread itself, before the first switch away from it. */
void co_context_init_thread(struct co_context *c);
void co_context_fini(struct co_context *c);

enum co_state { CO_IDLE, CO_READY, CO_RUNNING, CO_SUSPENDED };

/*
 * Lives at the top of its own stack's mapping, which is kept and used again after fn returned:
 * the next spawn on it costs no set-up at all (see co_main in co.c).
 *
 *     low                                                        high
 *     | guard page, no access | stack, grows down        | struct co |
 */
struct co {
    struct co_context context;
    struct list link;      /* in reactor.ready or reactor.idle_stacks */
    struct list live_link; /* in reactor.live                         */
    struct reactor *reactor;
    void (*fn)(void *arg);
    void *arg;
    const char *name;
    const char *why; /* what it waits for, while suspended */
    enum co_state state;
    unsigned no_yield_depth;
    unsigned held; /* marks (hold.h) */

    /* Set while it waits for something that co_cancel may cut short; called at most once. */
    void (*cancel)(void *cancel_arg);
    void *cancel_arg;

    void *map; /* the whole mapping, guard page included */
    size_t map_bytes;
    bool faulted_in;
    unsigned valgrind_id;
};

/* co_suspend, with what co_cancel shall do meanwhile. */
CO void co_suspend_cancellable(const char *why, void (*cancel)(void *arg), void *arg);

/* ---- stack.c: mappings with a guard page, kept for reuse in a cache of the whole process ----- */

/* A coroutine that never ran, from the cache or new; NULL when memory or mappings are out. */
struct co *co_stack_get(size_t stack_bytes, void (*entry)(void *arg));
/* Makes the kernel find memory for the part of the stack that is used as a rule. Once is enough. */
void co_stack_fault_in(struct co *co);
/* Gives a whole list of idle ones (co.link) back to the cache; frees what does not fit there. */
void co_stack_put_list(struct list *idle);
/* Makes an abandoned coroutine's stack as good as new. */
void co_stack_reset(struct co *co, void (*entry)(void *arg));

#endif
