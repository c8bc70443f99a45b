/*
 * Devices: one table of functions, behind which a block device, a file and a simulated disk look
 * the same.
 *
 * Offsets, lengths and addresses of buffers are multiples of info.sector_bytes (4096 always works).
 * A transfer is whole or an error: this layer handles short transfers, EINTR and EAGAIN. A transfer
 * for which the kernel has no memory says nothing about the disk, so it is tried again. So are a
 * write to a file whose file system is full, and a flush of that file (io_dev_wait_for_room).
 * device.c has the limits.
 *
 * A flush makes every write durable that had completed on this device, from whatever reactor,
 * before the flush was submitted. A write with IO_FUA is durable when it completes. After a failed
 * flush nothing unflushed may be believed: the caller ejects the disk. A failed write with IO_FUA
 * may be a failed flush.
 *
 * A device may fall silent: it completes nothing any more, perhaps for ever. Its owner is told, and
 * may give it up. Then all that is in flight there ends with VP_E_IO_SILENT (hang.c).
 */
#ifndef VP_IO_DEVICE_H
#define VP_IO_DEVICE_H

#include "base/error.h"
#include "io/co.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct io_dev;
struct io_op;

struct io_dev_info {
    uint64_t size_bytes;
    uint32_t sector_bytes; /* smallest transfer and its alignment: 512 or 4096                 */
    uint32_t atomic_bytes; /* a write of this much, so aligned, is never torn by a power cut   */
    bool write_cache;      /* volatile: a flush is needed                                      */
    bool can_discard;      /* discard gives space back; reads are undefined afterwards         */
    bool can_zero;         /* write-zeroes is cheaper than writing zeros                       */
    bool rotational;
    bool is_file;
    bool is_loop; /* a block device made of a file */
    char path[256];
};

enum io_open_flags {
    IO_OPEN_READ_ONLY = 1,
    IO_OPEN_SHARED = 2, /* no exclusive lock: only for looking at labels */
};

/*
 * Opens a block device (O_DIRECT, O_EXCL) or a regular file (O_DIRECT where the file system takes
 * it, an OFD lock). In a simulated world `path` names one of its disks. The device can be used from
 * any reactor. Calls that may wait for the device run on a thread of their own. Errors, each with a
 * sentence: VP_E_NOT_FOUND, VP_E_PERMISSION, VP_E_IO_BUSY_DEVICE (somebody has it),
 * VP_E_NOT_SUPPORTED (not a disk), VP_E_SYSTEM.
 */
CO int io_dev_open(const char *path, unsigned flags, struct io_dev **out,
                   struct vp_error *err) must_check;
/* Creates a sparse file to be used as a disk, and makes it durable. VP_E_EXISTS, VP_E_NOT_FOUND,
 * VP_E_PERMISSION, VP_E_NO_SPACE, VP_E_SYSTEM, each with a sentence. On a thread of its own. */
CO int io_file_create(const char *path, uint64_t size_bytes, struct vp_error *err) must_check;
/* What became of it since it was opened. */
struct io_dev_sight {
    bool removed;        /* a file without a name: it goes when it is closed      */
    bool at_path;        /* its path leads to it still                            */
    uint64_t size_bytes; /* now                                                   */
};
/* VP_E_NO_MEMORY, VP_E_SYSTEM; VP_E_NOT_SUPPORTED in a simulated world. */
CO int io_dev_look(struct io_dev *dev, struct io_dev_sight *out) must_check;
/* Makes a file's file system allocate room for this part now, so that writes there will find it.
 * Does nothing where the file system cannot promise room, and for a device that is no file.
 * VP_E_NO_SPACE, VP_E_NO_MEMORY. */
CO int io_dev_preallocate(struct io_dev *dev, uint64_t offset, uint64_t len) must_check;
/* From now on a write or a flush that finds no room in the file system below waits until there is
 * room. NULL is fine. */
void io_dev_wait_for_room(struct io_dev *dev);
/* ANY. Whether writes wait for room now. */
bool io_dev_is_full(const struct io_dev *dev);
/* No I/O may be in flight but what was given up. NULL is fine. While the kernel has a request that
 * was given up it keeps the device, so nobody else can open it exclusively. */
CO void io_dev_close(struct io_dev *dev);
const struct io_dev_info *io_dev_info(const struct io_dev *dev);

/* ---- a device that does not answer (hang.c) ------------------------------------------------ */

/* A request that is in flight for so long on a device that answered nothing meanwhile means that
 * the device is silent. A rotating disk may need seconds for a flush, in which it does nothing
 * else, and 7 s for a sector that it cannot read. A file system below a file or a loop device
 * stalls for longer, and comes back. */
#define IO_SILENT_NS            UINT64_C(1500000000)
#define IO_ROTATIONAL_SILENT_NS UINT64_C(8000000000)
#define IO_FILE_SILENT_NS       UINT64_C(10000000000)
/* So many times as long where the device does answer other requests. */
#define IO_LOST_TIMES 10U

/* When the device is silent, told(arg) is called, again and again (about once in 100 ms), in a
 * coroutine of the reserve, on any reactor, one at a time. It must not close the device. NULL: no
 * more; a call that is under way may go on until the device is closed. */
void io_dev_watch(struct io_dev *dev, CO void (*told)(void *arg), void *arg);
/* ANY. From now on requests to it end with VP_E_IO_SILENT, those in flight and, within 200 ms,
 * later ones that do not complete before. Their buffers are the caller's again. */
void io_dev_give_up(struct io_dev *dev);
/* It is used again. Only while io_dev_late is 0. */
void io_dev_take_back(struct io_dev *dev);
/* ANY. How many requests that were given up the kernel still has. They may change the device. */
unsigned io_dev_late(const struct io_dev *dev);
/* ANY. The same of all devices of the process. While there are some, the end of a thread may wait
 * for the kernel. */
unsigned io_late_requests(void);
/* ANY. For how long a request has been in flight unanswered, in ns; 0: the device answers. */
uint64_t io_dev_silent_ns(const struct io_dev *dev);

/* ---- one operation at a time -------------------------------------------------------------- */

/* 0, VP_E_IO, VP_E_IO_SHORT (past the end), VP_E_IO_NO_DEVICE, VP_E_NO_SPACE (a file's own file
 * system is full), VP_E_NOT_SUPPORTED (discard, zero), VP_E_IO_SILENT (it was given up; whether the
 * request happens is not known). */
CO int io_dev_read(struct io_dev *dev, uint64_t offset, void *buf, uint32_t len) must_check;
CO int io_dev_write(struct io_dev *dev, uint64_t offset, const void *buf, uint32_t len,
                    unsigned flags) must_check;
/* The same, with the buffer that a driver has put into this slot of the reactor's ring
 * (io/driver.h), from the start of the slot. Not in a simulated world. */
CO int io_dev_read_slot(struct io_dev *dev, uint64_t offset, unsigned slot,
                        uint32_t len) must_check;
CO int io_dev_write_slot(struct io_dev *dev, uint64_t offset, unsigned slot, uint32_t len,
                         unsigned flags) must_check;
CO int io_dev_flush(struct io_dev *dev) must_check;
CO int io_dev_discard(struct io_dev *dev, uint64_t offset, uint64_t len) must_check;
/* Zeros, durable only after a flush; may deallocate. */
CO int io_dev_zero(struct io_dev *dev, uint64_t offset, uint64_t len) must_check;

/* ---- several at once ---------------------------------------------------------------------- */

enum io_kind { IO_READ, IO_WRITE, IO_FLUSH, IO_DISCARD, IO_ZERO };
enum io_flags { IO_FUA = 1 };

/* A request to a reactor's ring; the inside of io/ (ring_impl.h). */
struct io_uring_sqe;
struct ring_req {
    struct list link; /* while the ring has no room for it */
    void (*prep)(struct ring_req *req, struct io_uring_sqe *sqe);
    void (*done)(struct ring_req *req, int res);
};

struct io_batch {
    unsigned pending;
    int rc; /* the first error */
    struct co *waiter;
};

/* The caller's storage. From io_batch_add until io_batch_wait has returned, the storage and its
 * buffer belong to the device. */
struct io_op {
    struct io_dev *dev;
    enum io_kind kind;
    unsigned flags;
    uint64_t offset;
    void *buf;
    uint64_t len;
    int rc;        /* set when complete                                                */
    unsigned slot; /* not 0: the transfer is with this slot of the ring's, and buf is NULL */

    /* the device's own: */
    struct io_batch *batch;
    uint64_t done_bytes;
    uint64_t submitted_ns, done_ns; /* turns of the reactor */
    uint16_t retries;
    bool fixed; /* with a buffer that the ring has registered */
    union {
        struct {
            struct list link;
            uint64_t priv[2];
        };
        struct ring_req req;
    };
};

static inline void io_batch_init(struct io_batch *b)
{
    *b = (struct io_batch){0};
}
/* Starts `op`, filled in by io_op_set. Never yields. */
void io_batch_add(struct io_batch *b, struct io_op *op);
/* Waits until every op is complete. Returns the first error, or 0. Each op's rc tells more. */
CO int io_batch_wait(struct io_batch *b);

/* Fills in an op. */
static inline void io_op_set(struct io_op *op, struct io_dev *dev, enum io_kind kind,
                             uint64_t offset, const void *buf, uint64_t len, unsigned flags)
{
    op->dev = dev;
    op->kind = kind;
    op->offset = offset;
    op->buf = (void *)(uintptr_t)buf;
    op->len = len;
    op->flags = flags;
    op->rc = 0;
    op->slot = 0;
}

/* How long a complete op took, to a turn of the reactor. */
static inline uint64_t io_op_took_ns(const struct io_op *op)
{
    return op->done_ns - op->submitted_ns;
}

/* ---- for implementations ------------------------------------------------------------------ */

struct io_dev_ops {
    /* Starts op; never blocks or yields; ends in io_op_complete on this reactor, never before
     * submit returns. */
    void (*submit)(struct io_dev *dev, struct io_op *op);
    void (*close)(struct io_dev *dev); /* CO; lets go of it; late requests may still end */
    void (*free)(struct io_dev *dev);  /* after close, when nothing is late              */
    int (*look)(struct io_dev *dev, struct io_dev_sight *out); /* CO; NULL: not supported */
    int (*preallocate)(struct io_dev *dev, uint64_t offset,
                       uint64_t len); /* CO; NULL: nothing to do */
};
struct io_dev {
    const struct io_dev_ops *ops;
    struct io_dev_info info;
    _Atomic bool waits_for_room;
    _Atomic unsigned full;           /* writes that wait for room                     */
    _Atomic uint64_t reported_at_ns; /* when the log said last that there is none     */
    _Atomic bool durable_failed;     /* a write with IO_FUA failed; see raid/flush.c  */

    /* hang.c */
    _Atomic uint64_t answered_ns; /* when it last completed something, to IO_ANSWER_NS       */
    _Atomic uint64_t silent_ns;   /* for how long it has not, when last looked at; 0: it does */
    _Atomic bool given_up;
    _Atomic bool telling; /* `told` is called                                         */
    _Atomic unsigned late;
    _Atomic unsigned refs; /* the opener's, one for each late request, one for a call of `told` */
    CO void (*_Atomic told)(void *arg);
    void *_Atomic told_arg;
};
void io_op_complete(struct io_op *op, int rc);
/* For an op that has no batch: it was given up, and the kernel is done with it. */
void io_late_complete(struct io_op *late);
/* After open. */
static inline void io_dev_init(struct io_dev *dev)
{
    atomic_init(&dev->refs, 1);
}

#endif
