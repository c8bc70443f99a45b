/*
 * Drivers that are served from user space through a character device. Their commands pass through
 * the ring (IORING_OP_URING_CMD). They share memory with us. Their control commands may block for
 * long, so these run on threads of their own.
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

/* The caller's storage for one command at a time. It belongs to the kernel while io_command_run
 * runs, and after io_command_abandon until the process ends. */
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

/* Runs c->op with c->payload on c->fd and returns the driver's result. This may take for ever.
 * Returns -ECANCELED when the command was abandoned. A coroutine runs one command at a time. */
CO int io_command_run(struct io_command *c) must_check;

/*
 * For the end of the process. The coroutine that waits for `c` goes on. The driver keeps the
 * command until the ring is closed, and nobody learns its result, so its storage must stay. Call it
 * on the same reactor. Without effect when nobody waits.
 */
void io_command_abandon(struct io_command *c);

/* Copies between `buf` and the driver's memory at `offset` of its device. This is a plain system
 * call, because a copy waits for nobody. Returns the bytes copied, or a negative errno. */
int64_t io_driver_copy_in(int fd, uint64_t offset, void *buf, size_t len) must_check;
int64_t io_driver_copy_out(int fd, uint64_t offset, const void *buf, size_t len) must_check;

/*
 * Slots of the ring's table of buffers that the driver fills and empties: `count` consecutive slots
 * of those that reactor_config.driver_buffers asked for. io_dev_read_slot and io_dev_write_slot use
 * them. One owner at a time. Returns the first slot; 0 when there are not so many or somebody has
 * them.
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
 * negative errno when the driver refused or there is no such device) and the data that it filled
 * in. Returns -ETIMEDOUT when the command still runs after `timeout_ms`. Then the thread stays with
 * the command, and nobody learns the result.
 */
CO int io_control_run(struct io_control *c, unsigned timeout_ms) must_check;

/* Whether the block device is open exclusively (mounted, in a volume group, swap). 0, VP_E_BUSY, or
 * another error. Runs on a thread of its own, since opening a device may need the device to be
 * served. */
CO int io_block_is_claimed(const char *path, unsigned timeout_ms) must_check;

/* ---- serving what the page cache writes back to: memory.c ------------------------------------ */

/*
 * When the kernel looks for memory it may wait for a process that serves a block device. If that
 * process waits for memory itself, it waits for itself. So the memory that requests need is taken
 * before the requests come.
 */

/* The process's memory stays in RAM, once touched. False when not permitted. */
bool io_memory_lock(void);
/*
 * From now on this reactor serves a device to which the page cache writes back. Allocations of its
 * thread no longer wait for write-back (PR_SET_IO_FLUSHER; without CAP_SYS_RESOURCE it is not
 * permitted, and that is logged). The memory that the reactor's requests may need is taken, as far
 * as there is any. This is the stacks of coroutines from now on, some heap (which may be gone
 * before the next device is served), and all its buffers (buffer_bytes). The buffers are taken a
 * little later, because users may be waiting. Call it for each device.
 */
void io_serve_page_cache(void);

#endif
