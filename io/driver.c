/*
 * Pass-through commands in the reactor's ring, and small system calls around them. A command may
 * wait for ever (the fetch of an idle device's tag). So commands are ring requests of the free
 * kind, one for each coroutine (ring_impl.h).
 */
#include "io/driver.h"

#include "base/verify.h"
#include "io/reactor_impl.h"
#include "io/ring_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int io_driver_open(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

void io_driver_close(int fd)
{
    close(fd);
}

const void *io_driver_map(int fd, uint64_t offset, size_t len)
{
    void *map = mmap(NULL, len, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, (off_t)offset);
    return map == MAP_FAILED ? NULL : map;
}

void io_driver_unmap(const void *map, size_t len)
{
    if (map)
        munmap((void *)(uintptr_t)map, len);
}

void *io_pages_new(size_t len)
{
    void *map =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return map == MAP_FAILED ? NULL : map;
}

void io_pages_free(void *pages, size_t len)
{
    if (pages)
        munmap(pages, len);
}

/* ---- commands ------------------------------------------------------------------------------ */

static void command_prep(struct ring_req *req, struct io_uring_sqe *sqe)
{
    struct io_command *c = container_of(req, struct io_command, req);
    io_uring_prep_rw(IORING_OP_URING_CMD, sqe, c->fd, NULL, 0, 0);
    sqe->cmd_op = c->op;
    sqe->addr = c->addr;
    memcpy((unsigned char *)sqe + offsetof(struct io_uring_sqe, addr3), c->payload,
           sizeof(c->payload));
}

static void command_done(struct ring_req *req, int res)
{
    struct io_command *c = container_of(req, struct io_command, req);
    if (c->abandoned) {
        ring_forget(reactor_current->ring, -1);
        return;
    }
    c->res = res;
    co_wake(c->co);
    c->co = NULL;
}

CO int io_command_run(struct io_command *c)
{
    VP_VERIFY(reactor_current->ring, !=, NULL); /* a simulated world has no drivers */
    c->req.prep = command_prep;
    c->req.done = command_done;
    c->co = co_self();
    ring_submit_free(reactor_current->ring, &c->req);
    co_suspend("a driver's command");
    return c->res;
}

void io_command_abandon(struct io_command *c)
{
    if (!c->co)
        return; /* nobody waits, or the result is there */
    c->res = -ECANCELED;
    c->abandoned = true;
    if (!ring_withdraw(reactor_current->ring, &c->req))
        ring_forget(reactor_current->ring, 1);
    co_wake(c->co);
    c->co = NULL;
}

unsigned io_driver_slots_get(unsigned count)
{
    return ring_driver_slots_get(reactor_current->ring, count);
}

void io_driver_slots_put(void)
{
    ring_driver_slots_put(reactor_current->ring);
}

int64_t io_driver_copy_in(int fd, uint64_t offset, void *buf, size_t len)
{
    ssize_t n;
    do
        n = pread(fd, buf, len, (off_t)offset);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int64_t io_driver_copy_out(int fd, uint64_t offset, const void *buf, size_t len)
{
    ssize_t n;
    do
        n = pwrite(fd, buf, len, (off_t)offset);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}
