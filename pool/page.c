/*
 * Reading and writing pages of trees. Any reactor does so.
 *
 * Who has located a page uses the members that its group had then. When a member of a metadata
 * group leaves its disk (leave.c), its extent is free only when those have ended:
 * pool_pages_barrier. Nobody waits for anything but disks meanwhile.
 */
#include "io/buffer.h"
#include "io/guard.h"
#include "pool/meta_impl.h"

enum {
    PAGE_IO_MAX = 32, /* pages written in parallel */
    PAGE_READ_TRIES = 2,
};
/* Between two looks at the users of pages. */
#define PAGE_LOOK_NS UINT64_C(200000)

/* False for an address that no metadata group has: untrusted. */
bool pool_page_locate(struct pool *p, uint64_t addr, struct raid_io *io)
{
    uint64_t id = addr >> POOL_META_PAGES_BITS, at = pool_page_in_group(addr) * POOL_PAGE;
    struct pool_group *g = id <= UINT32_MAX ? pool_group_find(p, (uint32_t)id) : NULL;
    if (!g || g->role != POOL_GROUP_META || at >= g->raid->data_bytes)
        return false;
    *io = (struct raid_io){.group = g->raid, .at_bytes = at, .len = POOL_PAGE};
    return true;
}

/* Around all that locates pages and then uses it; any reactor. */
static unsigned page_use_begin(struct pool *p)
{
    for (;;) {
        unsigned phase = atomic_load(&p->page_phase) & 1;
        atomic_fetch_add(&p->page_users[phase], 1);
        if ((atomic_load(&p->page_phase) & 1) == phase)
            return phase;
        atomic_fetch_sub(&p->page_users[phase], 1);
    }
}

static void page_use_end(struct pool *p, unsigned phase)
{
    atomic_fetch_sub(&p->page_users[phase], 1);
}

CO void pool_pages_barrier(struct pool *p)
{
    unsigned before = atomic_fetch_add(&p->page_phase, 1) & 1;
    while (atomic_load(&p->page_users[before]))
        vp_ignore(co_sleep_ns(PAGE_LOOK_NS), "nobody cancels it; it looks again anyway");
}

static CO int page_read(struct pool *p, struct pool_page_ref ref, void *buf)
{
    struct raid_io io;
    if (!pool_page_locate(p, ref.addr, &io))
        return VP_E_PAGE_DAMAGED;
    /* A read from a disk that hangs can be given up only with a buffer of the reactor's. */
    void *own = io_buffer_try(POOL_PAGE);
    io.buf = own ? own : buf;
    io.crc = io_guard_on(GUARD_PAGE_CHECKSUM) ? &ref.crc : NULL;
    int rc = VP_E_IO;
    for (unsigned tries = PAGE_READ_TRIES; tries && rc && rc != VP_E_CHECKSUM; tries--)
        rc = raid_read(&io, 1);
    if (own) {
        memcpy(buf, own, POOL_PAGE);
        io_buffer_put(own, POOL_PAGE);
    }
    return !rc ? 0 : rc == VP_E_CHECKSUM ? VP_E_PAGE_DAMAGED : VP_E_PAGE_UNREADABLE;
}

CO int pool_page_read(struct pool *p, struct pool_page_ref ref, void *buf)
{
    unsigned use = page_use_begin(p);
    int rc = page_read(p, ref, buf);
    page_use_end(p, use);
    return rc;
}

CO int pool_page_write(struct pool *p, const uint64_t *addr, void *const *pages, unsigned count)
{
    struct raid_io io[PAGE_IO_MAX];
    while (count) {
        unsigned use = page_use_begin(p);
        unsigned n = count < PAGE_IO_MAX ? count : PAGE_IO_MAX;
        int rc = 0;
        for (unsigned i = 0; i < n && !rc; i++) {
            rc = pool_page_locate(p, addr[i], &io[i]) ? 0 : VP_E_INVALID;
            io[i].buf = pages[i];
        }
        if (!rc)
            rc = raid_write_metadata(io, n);
        page_use_end(p, use);
        if (rc)
            return rc;
        addr += n;
        pages += n;
        count -= n;
    }
    return 0;
}
