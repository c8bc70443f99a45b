/*
 * Stacks of coroutines. Mapping a stack with its guard page costs microseconds and two entries in
 * the kernel's list of mappings. So stacks are kept: by the reactor while it lives, then in a cache
 * of the whole process. The next reactor takes them from there (a simulator makes thousands of
 * reactors a second).
 */
#include "io/co_impl.h"
#include "io/memory_impl.h"
#include "io/sanitize_impl.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE         4096U
#define CACHE_STACKS 1024U
#define USUAL_BYTES  (16U << 10) /* of a stack: what serving a request takes, and some more */
#define COLOURS      32U         /* starts of stacks are spread over a page's cache lines … */
#define COLOUR_BYTES 128U /* … else the hot ends of all stacks meet in the same few cache sets */

static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
static struct list cache = {&cache, &cache}; /* co.link, all of the same map_bytes */
static unsigned cache_count, next_colour;

static size_t map_size(size_t stack_bytes)
{
#ifdef SAN_ADDRESS
    stack_bytes *= 4; /* red zones around every local variable */
#endif
    size_t inside = stack_bytes + sizeof(struct co) + (size_t)COLOURS * COLOUR_BYTES;
    return PAGE + ((inside + PAGE - 1) & ~(size_t)(PAGE - 1));
}

static void stack_unmap(struct co *co)
{
    co_context_fini(&co->context);
    san_stack_deregister(co->valgrind_id);
    (void)munmap(co->map, co->map_bytes);
}

static void stack_prepare(struct co *co, void (*entry)(void *arg))
{
    unsigned char *bottom = (unsigned char *)co->map + PAGE;
    co_context_init(&co->context, bottom, (size_t)((unsigned char *)co - bottom), entry, co);
}

static struct co *stack_map(size_t bytes, unsigned colour, void (*entry)(void *arg))
{
    unsigned char *map = mmap(NULL, bytes, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (map == MAP_FAILED)
        return NULL;
    if (mprotect(map + PAGE, bytes - PAGE, PROT_READ | PROT_WRITE) != 0) {
        (void)munmap(map, bytes);
        return NULL;
    }
    uintptr_t at = (uintptr_t)map + bytes - sizeof(struct co) - (size_t)colour * COLOUR_BYTES;
    struct co *co = (struct co *)(at & ~(uintptr_t)63);
    memset(co, 0, sizeof(*co));
    co->map = map;
    co->map_bytes = bytes;
    co->valgrind_id = (unsigned)san_stack_register(map + PAGE, (unsigned char *)co);
    list_init(&co->link);
    list_init(&co->live_link);
    stack_prepare(co, entry);
    return co;
}

struct co *co_stack_get(size_t stack_bytes, void (*entry)(void *arg))
{
    size_t bytes = map_size(stack_bytes);
    struct co *co = NULL;
    pthread_mutex_lock(&cache_lock);
    if (cache_count > 0 && list_first(&cache, struct co, link)->map_bytes == bytes) {
        co = container_of(list_pop(&cache), struct co, link);
        cache_count--;
    }
    unsigned colour = next_colour++ % COLOURS;
    pthread_mutex_unlock(&cache_lock);
    return co ? co : stack_map(bytes, colour, entry);
}

void co_stack_fault_in(struct co *co)
{
    if (co->faulted_in)
        return;
    co->faulted_in = true;
    uintptr_t top = (uintptr_t)co & ~(uintptr_t)(PAGE - 1); /* co's own page is in use */
    uintptr_t bottom = (uintptr_t)co->map + PAGE;
    uintptr_t from = top - bottom > USUAL_BYTES ? top - USUAL_BYTES : bottom;
    vp_ignore(io_fault_in((void *)from, top - from),
              "memory that is not there now is taken when it is used");
}

void co_stack_put_list(struct list *idle)
{
    struct list *e;
    pthread_mutex_lock(&cache_lock);
    while ((e = list_pop(idle))) {
        struct co *co = container_of(e, struct co, link);
        bool same =
            cache_count == 0 || list_first(&cache, struct co, link)->map_bytes == co->map_bytes;
        if (same && cache_count < CACHE_STACKS) {
            list_add_head(&cache, &co->link);
            cache_count++;
        } else {
            stack_unmap(co);
        }
    }
    pthread_mutex_unlock(&cache_lock);
}

void co_stack_reset(struct co *co, void (*entry)(void *arg))
{
    co_context_fini(&co->context);
    stack_prepare(co, entry);
}
