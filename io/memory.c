/*
 * Memory that is taken before it is needed. When a page is touched for the first time the kernel
 * has to find memory for it. It may look for that memory in the caches of the very devices that are
 * served here (driver.h).
 *
 * Only memory that requests use is taken. A control command may still wait for memory, and so may a
 * request that needs more stack or heap than any request before it.
 */
#include "io/memory_impl.h"

#include "base/log.h"
#include "io/driver.h"
#include "io/reactor_impl.h"
#include "io/region_impl.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define HEAP_BYTES   (4U << 20)
#define HEAP_PIECE   (64U << 10) /* below what malloc maps by itself */
#define HEAP_KEPT    (64 << 20)  /* malloc returns what is free beyond that */
#define SPARE_STACKS 32U

bool io_memory_lock(void)
{
    return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) == 0;
}

/* Else glibc collects small pieces that were freed, and merges all of them with their neighbours
 * when some larger piece is freed. After a large pool that took 20 ms in one step. */
void memory_merge_at_once(void)
{
#ifdef M_MXFAST
    (void)mallopt(M_MXFAST, 0);
#endif
}

int io_fault_in(void *address, size_t len)
{
    return madvise(address, len, MADV_POPULATE_WRITE) == 0 ? 0 : -errno;
}

/* Free pieces stay with malloc, in this thread's arena. */
static void heap_take(void)
{
    void *piece[HEAP_BYTES / HEAP_PIECE];
    (void)mallopt(M_TRIM_THRESHOLD, HEAP_KEPT);
    for (unsigned i = 0; i < HEAP_BYTES / HEAP_PIECE; i++) {
        piece[i] = malloc(HEAP_PIECE);
        if (piece[i])
            memset(piece[i], 1, HEAP_PIECE); /* zeros need not be written, says the compiler */
    }
    for (unsigned i = 0; i < HEAP_BYTES / HEAP_PIECE; i++)
        free(piece[i]);
}

static CO void take_buffers(void *arg)
{
    struct reactor *r = arg;
    struct region *g = reactor_region(r);
    while (!atomic_load(&r->stop) && region_take_slab(g))
        co_yield (); /* a slab may take milliseconds */
}

void io_serve_page_cache(void)
{
    struct reactor *r = reactor_current;
    if (r->config.sim)
        return;
    if (!r->serves_page_cache && prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
        vp_info("reactor %u may not declare itself an I/O server (CAP_SYS_RESOURCE)",
                r->config.index);
    heap_take();
    if (r->serves_page_cache)
        return;
    r->serves_page_cache = true;
    co_stacks_take(r, SPARE_STACKS);
    if (co_spawn(take_buffers, r, "takes buffers"))
        vp_warn("reactor %u takes its buffers as they are needed: too much else is going on",
                r->config.index);
}
