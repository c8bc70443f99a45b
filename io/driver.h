/*
 * Drivers that are served from user space through a character device: commands passed through the
 * ring (IORING_OP_URING_CMD), shared memory, and control commands, which may block for long and so
 * run on a thread of their own.
 */
#ifndef VP_IO_DRIVER_H
#define VP_IO_DRIVER_H

#include "base/error.h"
#include "io/co.h"
#include "io/device.h"

#include <stddef.h>
#include <stdint.h>

/* Opens a character device for reading and writing, close-on-exec. A negative errno on failure. */
int io_driver_open(const char *path) must_check;
void io_driver_close(int fd);

/* Maps `len` bytes from `offset`, shared, read-only. NULL on failure. */
const void *io_driver_map(int fd, uint64_t offset, size_t len);
void io_driver_unmap(const void *map, size_t len);

/* Zeroed memory of its own mapping, page-aligned, taken from the system as it is touched. NULL when
 * there is none. */
void *io_pages_new(size_t len);
void io_pages_free(void *pages, size_t len);

/* ---- commands on the reactor's ring --------------------------------------------------------- */

#define IO_COMMAND_BYTES 16 /* that a 64-byte entry carries */

/* Caller's storage, for one command at a time; the kernel's from run to return, or after
 * io_command_abandon until the process ends. */
struct io_command {
    struct ring_req req;
    int fd;
    uint32_t op;
    uint64_t addr; /* of the entry; what it means is the driver's */
    unsigned char payload[IO_COMMAND_BYTES];
    struct co *co; /* who waits; NULL while the kernel does not have it */
    int res;
    bool abandoned;
};

/* Runs c->op with c->payload on c->fd and returns the driver's result, which may take for ever;
 * -ECANCELED when it was abandoned. One at a time for each coroutine. */
CO int io_command_run(struct io_command *c) must_check;

/*
 * For the end of the process: whoever waits for `c` goes on, but the driver keeps it until the ring
 * is closed, and nobody learns its result. Its storage must stay. Same reactor; without effect when
 * nobody waits.
 */
void io_command_abandon(struct io_command *c);

/* Copies between `buf` and the driver's memory at `offset` of its device. A plain system call,
 * since it is a copy and waits for nobody. Bytes copied, or a negative errno. */
int64_t io_driver_copy_in(int fd, uint64_t offset, void *buf, size_t len) must_check;
int64_t io_driver_copy_out(int fd, uint64_t offset, const void *buf, size_t len) must_check;

/*
 * Buffers that the driver puts into the ring's table, and takes out again: `count` consecutive
 * slots, of those that reactor_config.driver_buffers asked for. io_dev_read_slot and
 * io_dev_write_slot use them. One owner at a time. The first slot; 0: there are not so many, or
 * somebody has them.
 */
unsigned io_driver_slots_get(unsigned count) must_check;
void io_driver_slots_put(void);

/* ---- control commands ----------------------------------------------------------------------- */

#define IO_CONTROL_BYTES 80  /* that a 128-byte entry carries */
#define IO_CONTROL_DATA  256 /* of data in and out            */

struct io_control {
    const char *path; /* of the control device; static */
    uint32_t op;
    unsigned char payload[IO_CONTROL_BYTES];
    unsigned data_at; /* the address of `data` goes here in the payload, 8 bytes; */
    unsigned char data[IO_CONTROL_DATA]; /* 0: no data */
};

/*
 * Runs one control command on a thread and a ring of its own. Returns the driver's result (a
 * negative errno when it refused or when there is no such device) and the data it filled in;
 * -ETIMEDOUT when it is still at it after `timeout_ms`: then the thread stays with it, and nobody
 * learns the result.
 */
CO int io_control_run(struct io_control *c, unsigned timeout_ms) must_check;

/* Is the block device open by somebody who wants it for himself (mounted, in a volume group, swap)?
 * 0, VP_E_BUSY, or another error. On a thread of its own, as opening may need the device served. */
CO int io_block_is_claimed(const char *path, unsigned timeout_ms) must_check;

/* ---- serving what the page cache writes back to: memory.c ------------------------------------ */

/*
 * Who serves a block device may be what the kernel waits for while it looks for memory. A thread
 * that waits for memory then waits for itself. So what requests need is taken before they come.
 */

/* The process's memory stays in RAM, once touched. False when not permitted. */
bool io_memory_lock(void);
/*
 * From now on this reactor serves what the page cache writes back to. Its thread's allocations no
 * longer wait for write-back (PR_SET_IO_FLUSHER; not permitted without CAP_SYS_RESOURCE, which is
 * logged). The memory that its requests may need is taken, as far as there is any: the stacks of
 * coroutines from now on, some heap, which may be gone before the next device is served, and, a
 * little later since users may be waiting, all its buffers (buffer_bytes). To be called for each
 * device.
 */
void io_serve_page_cache(void);

#endif
