/* Switching between stacks: our own few instructions (co_switch.S), ucontext on other machines. */
#include "base/verify.h"
#include "io/co_impl.h"
#include "io/sanitize_impl.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#ifdef CO_USE_UCONTEXT

static void switch_stack(struct co_context *from, struct co_context *to)
{
    VP_VERIFY(swapcontext(&from->uc, &to->uc), ==, 0);
}

/* makecontext passes ints only: the two pointers travel as four halves. */
static void start(unsigned fn_high, unsigned fn_low, unsigned arg_high, unsigned arg_low)
{
    uintptr_t fn = (uintptr_t)((uint64_t)fn_high << 32 | fn_low);
    uintptr_t arg = (uintptr_t)((uint64_t)arg_high << 32 | arg_low);
    ((void (*)(void *))fn)((void *)arg);
}

static void prepare_stack(struct co_context *c, void (*entry)(void *arg), void *arg)
{
    uint64_t fn = (uintptr_t)entry, a = (uintptr_t)arg;
    VP_VERIFY(getcontext(&c->uc), ==, 0);
    c->uc.uc_stack.ss_sp = (void *)(uintptr_t)c->stack_bottom;
    c->uc.uc_stack.ss_size = c->stack_bytes;
    c->uc.uc_link = NULL;
    makecontext(&c->uc, (void (*)(void))start, 4, (unsigned)(fn >> 32), (unsigned)fn,
                (unsigned)(a >> 32), (unsigned)a);
}

#else

void co_switch_stack(void **save_sp, void *load_sp);
void co_switch_entry(void);

static inline void switch_stack(struct co_context *from, struct co_context *to)
{
    co_switch_stack(&from->sp, to->sp);
}

/* Lays out the frame that co_switch_stack pops: registers, then where it returns to. */
static void prepare_stack(struct co_context *c, void (*entry)(void *arg), void *arg)
{
    uintptr_t top = ((uintptr_t)c->stack_bottom + c->stack_bytes) & ~(uintptr_t)15;
#if defined(__x86_64__)
    uintptr_t *frame = (uintptr_t *)top - 7; /* r15 r14 r13 r12 rbx rbp rip */
    memset(frame, 0, 7 * sizeof(*frame));
    frame[2] = (uintptr_t)arg;
    frame[3] = (uintptr_t)entry;
    frame[6] = (uintptr_t)co_switch_entry;
#else
    uintptr_t *frame = (uintptr_t *)top - 20; /* x29 x30 x19 … x28 d8 … d15 */
    memset(frame, 0, 20 * sizeof(*frame));
    frame[1] = (uintptr_t)co_switch_entry;
    frame[2] = (uintptr_t)entry;
    frame[3] = (uintptr_t)arg;
#endif
    c->sp = frame;
}

#endif

void co_context_switch(struct co_context *from, struct co_context *to)
{
    san_switch_start(&from->asan_fake_stack, to->stack_bottom, to->stack_bytes);
    san_fiber_switch(to->tsan_fiber);
    switch_stack(from, to);
    san_switch_finish(from->asan_fake_stack);
}

void co_context_init(struct co_context *c, void *stack_bottom, size_t stack_bytes,
                     void (*entry)(void *arg), void *arg)
{
    c->asan_fake_stack = NULL;
    c->stack_bottom = stack_bottom;
    c->stack_bytes = stack_bytes;
    c->tsan_fiber = san_fiber_new();
    san_unpoison(stack_bottom, stack_bytes);
    prepare_stack(c, entry, arg);
}

void co_context_init_thread(struct co_context *c)
{
    memset(c, 0, sizeof(*c));
    c->tsan_fiber = san_fiber_current();
#ifdef SAN_ADDRESS
    static _Thread_local struct co_context own; /* the look-up is slow */
    if (!own.stack_bytes) {
        pthread_attr_t attr;
        void *bottom;
        VP_VERIFY(pthread_getattr_np(pthread_self(), &attr), ==, 0);
        VP_VERIFY(pthread_attr_getstack(&attr, &bottom, &own.stack_bytes), ==, 0);
        own.stack_bottom = bottom;
        (void)pthread_attr_destroy(&attr);
    }
    c->stack_bottom = own.stack_bottom;
    c->stack_bytes = own.stack_bytes;
#endif
}

void co_context_entered(struct co_context *c)
{
    san_switch_finish(c->asan_fake_stack);
    (void)c;
}

void co_context_fini(struct co_context *c)
{
    san_fiber_free(c->tsan_fiber);
    c->tsan_fiber = NULL;
}
