/*
 * Block devices of this machine: a `struct ublkx_target` is one /dev/ublkbN, served on the reactor
 * of its backend, which is a volume (volume_backend.h) or whatever else can read and write.
 * ublk/README.md has the structure, docs/ublk.md what users get.
 *
 * Threads: these functions are CO and are called on the home reactor, one at a time for each
 * target.
 */
#ifndef VP_UBLK_TARGET_H
#define VP_UBLK_TARGET_H

#include "base/error.h"
#include "base/figure.h"
#include "io/co.h"

#include <stdbool.h>
#include <stdint.h>

#define UBLKX_QUEUES_MAX 16U
#define UBLKX_TAGS_MAX   1024U /* queues × depth: each is a coroutine */
#define UBLKX_NUMBER_MAX (1U << 20)

/* What this kernel's driver can do (UBLKX_F_…). Errors with a sentence: VP_E_UBLK_NONE (with what
 * to do), VP_E_PERMISSION, VP_E_UBLK_TOO_OLD, VP_E_UBLK_STUCK. */
CO int ublkx_features(uint64_t *out, struct vp_error *err) must_check;

/* ---- what is served -------------------------------------------------------------------------- */

enum ublkx_write_flags {
    UBLKX_DURABLE = 1, /* it survives whatever happens once it returned; of write and zero */
    UBLKX_NO_HOLE = 2, /* zero: keep or make space allocated                               */
};

/* All of these run on the backend's reactor, many at a time. Ranges are multiples of
 * `sector_bytes`; those of discard and zero have any length. VP_E_CANCELLED: `leave` or `go` ended
 * the request. */
struct ublkx_backend_ops {
    /* The begin of a request, before it takes a buffer: waits until the backend takes one more that
     * moves `bytes` (0: none). */
    CO int (*admit)(void *arg, uint64_t bytes);
    /* Before a further buffer of the same request: waits while the backend lets none through. */
    CO int (*pass)(void *arg);
    CO int (*read)(void *arg, uint64_t offset, uint32_t len, void *buf);
    CO int (*write)(void *arg, uint64_t offset, uint32_t len, const void *buf, unsigned flags);
    CO int (*flush)(void *arg); /* all that was answered before is durable */
    CO int (*discard)(void *arg, uint64_t offset, uint64_t len);
    CO int (*zero)(void *arg, uint64_t offset, uint64_t len, unsigned flags);
    void (*leave)(void *arg);    /* no request waits for space any more */
    void (*go)(void *arg);       /* … nor changes anything more, but for what it is doing now */
    uint64_t (*size)(void *arg); /* in bytes, now; also from home     */
    /* Zero copy, or NULL: the kernel's own pages, in a slot of the reactor's ring
     * (io_dev_read_slot), until these return. */
    CO int (*read_slot)(void *arg, uint64_t offset, uint32_t len, unsigned slot);
    CO int (*write_slot)(void *arg, uint64_t offset, uint32_t len, unsigned slot, unsigned flags);
};

struct ublkx_backend {
    const struct ublkx_backend_ops *ops;
    void *arg;               /* the caller's until the target is stopped or left               */
    struct reactor *reactor; /* serves the device                                              */
    uint32_t sector_bytes;   /* logical: 512 or 4096                                           */
    uint32_t optimal_bytes;  /* of a request; a power of two                                   */
    bool read_only;
    bool no_discard;     /* nor write-zeroes: the kernel sends zeros instead */
    bool volatile_cache; /* A completed write survives only after a flush, or with
                            UBLKX_DURABLE, and the device says so. Otherwise every write is asked
                            for with UBLKX_DURABLE. */
};

/* ---- targets --------------------------------------------------------------------------------- */

struct ublkx_options {
    struct ublkx_backend backend;
    int number;        /* of the device; -1: the kernel chooses                                 */
    unsigned queues;   /* 0 = 1  */
    unsigned depth;    /* of each queue; 0 = 64, at most 1024                                   */
    bool read_only;    /* in addition to the backend's own property                             */
    bool no_user_copy; /* the kernel copies, into memory that every tag keeps                   */
    /* Data pass by read_slot and write_slot alone: of a new device only, which cannot be taken
     * over. The reactor has driver_buffers for queues × depth requests. */
    bool zero_copy;
    uint64_t tag; /* tells this attachment's device from others'; not 0                    */
    bool
        take_over; /* it is known that a device with this number and tag is the caller's          */
    /* May be NULL. Called with `there` when the device has its number and nobody has seen it yet
     * (it is not started; an error ends the start), or when it is about to be taken over. Called
     * without `there` when nobody sees the device any more and its number is not yet free. Home
     * reactor. `known_arg` lives as long as the target; `err` may be NULL. */
    CO int (*known)(void *known_arg, int number, bool there, struct vp_error *err);
    void *known_arg;
};

struct ublkx_target;

/*
 * The device exists and serves when this returns. An existing device `number` is taken over
 * (recovery) if it is ours and lost its server. It is ours by `take_over`, our tag, and all else
 * that our devices have. A device that is taken over keeps its queues and depth, and requests that
 * wait are served. Errors: VP_E_UBLK_NONE, VP_E_PERMISSION, VP_E_UBLK_TOO_OLD, VP_E_EXISTS (the
 * number is somebody else's, or its server lives), what `known` gave, VP_E_INVALID,
 * VP_E_UBLK_REFUSED, VP_E_UBLK_STUCK, VP_E_NO_MEMORY, VP_E_IO_TOO_MANY_COROUTINES.
 */
CO int ublkx_target_start(const struct ublkx_options *o, struct ublkx_target **out,
                          struct vp_error *err) must_check;

/*
 * Removes the device. Requests in flight are answered, requests that wait for space end with an
 * error, and users that have the device open get errors from now on. Frees the target and sets *t
 * to NULL. When the kernel does not stop the device (VP_E_UBLK_STUCK, VP_E_UBLK_REFUSED,
 * VP_E_PERMISSION), the target stays: the device is served on, and can be stopped again, or left.
 * Any other error means that the device is stopped and could not be deleted.
 */
CO int ublkx_target_stop(struct ublkx_target **t, struct vp_error *err) must_check;

/* For the end of the process. Serving ends, and the device stays. Its users wait for the next
 * process, which takes the device over. Frees the target, as far as the kernel allows. */
CO void ublkx_target_leave(struct ublkx_target *t);

/* The backend's size has changed. VP_E_NOT_SUPPORTED (before Linux 6.16): the device keeps its
 * size. */
CO int ublkx_target_resize(struct ublkx_target *t, struct vp_error *err) must_check;

int ublkx_target_number(const struct ublkx_target *t);
const char *ublkx_target_path(const struct ublkx_target *t); /* "/dev/ublkbN" */
/* 0: nobody has the device exclusively (a mount, LVM, swap). VP_E_BUSY: somebody has. Another
 * error: it cannot be told. */
CO int ublkx_target_check_unclaimed(const struct ublkx_target *t) must_check;

struct ublkx_figures {
#define FIGURE FIGURE_FIELD
#include "ublk/figures.def"
};
extern const struct figure_set ublkx_figure_set;

struct ublkx_stats {
    unsigned queues, depth;
    bool user_copy, recovered;
    bool volatile_cache;                 /* of the device, and of what it serves */
    const struct ublkx_figures *figures; /* as long as the target */
};
struct ublkx_stats ublkx_target_stats(const struct ublkx_target *t);

#endif
