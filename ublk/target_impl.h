/* Private to ublk/: device.c talks to /dev/ublk-control, serve.c answers requests, target.c has the
 * life of a target. */
#ifndef VP_UBLK_TARGET_IMPL_H
#define VP_UBLK_TARGET_IMPL_H

#include "io/driver.h"
#include "io/reactor.h"
#include "io/share.h"
#include "ublk/target.h"
#include "ublk/ublk_abi.h"

#include <stdatomic.h>

#define UBLKX_IO_BYTES_MAX (512U << 10) /* of one request */

/* A tag is a coroutine that fetches a request, serves it, and commits its result with the next
 * fetch. */
struct ublkx_tag {
    struct io_command command;
    struct ublkx_queue *queue;
    uint16_t tag;
    void *buf;     /* the kernel copies: this tag's own                      */
    unsigned slot; /* zero copy: of the ring's table, where its request is */
};

struct ublkx_queue {
    struct ublkx_target *target;
    uint16_t id;
    const struct ublkx_io_desc *desc; /* mapped; [depth] */
    unsigned char *memory;            /* the kernel copies: [depth] × UBLKX_IO_BYTES_MAX */
    struct ublkx_tag *tags;           /* [depth] */
};

/* What the tags hold that read, or those that write. */
struct ublkx_buffers {
    struct io_share_holder share;
    struct co_queue queue;
};

/*
 * The life of a target. Its reactor moves it, and only so (ublkx_target_move):
 *
 *     NEW -> SERVING -> STOPPING -> CLOSED
 *     NEW -> STOPPING                          the start failed before anything was fetched
 *     STOPPING -> STOPPING                     the kernel did not stop the device the last time
 *     NEW, SERVING, STOPPING -> LEFT
 */
enum ublkx_state {
    UBLKX_NEW,      /* nothing is fetched yet                                                  */
    UBLKX_SERVING,  /* every tag fetches, serves and commits                                   */
    UBLKX_STOPPING, /* the kernel was asked to stop; what it sends does not wait for room      */
    UBLKX_CLOSED,   /* no tag is left, and nothing is open                                      */
    UBLKX_LEFT,     /* nothing is fetched or committed any more; what the kernel has stays      */
};

/* How data get from the kernel's requests to the backend, and back. */
enum ublkx_copies {
    UBLKX_KERNEL_COPIES, /* into memory that each tag keeps                              */
    UBLKX_WE_COPY,       /* "user copy": into a buffer while the tag is busy             */
    UBLKX_NO_COPY,       /* "zero copy": the request's own pages, in the tag's slot      */
};

struct ublkx_target {
    struct ublkx_backend backend;
    /* All below is its reactor's, once serving. */
    struct ublkx_dev_info info;
    uint64_t features;
    enum ublkx_state state;
    enum ublkx_copies copies;
    bool read_only, recovered;
    CO int (*known)(void *known_arg, int number, bool there, struct vp_error *err);
    void *known_arg;
    char path[32];
    int fd; /* /dev/ublkcN; -1: closed */
    struct ublkx_queue queues[UBLKX_QUEUES_MAX];
    unsigned queue_count;
    unsigned first_slot; /* NO_COPY: of the tags of all queues; 0: not ours */
    unsigned running;    /* coroutines of tags */
    struct co_queue changed;
    struct ublkx_buffers reads, writes; /* WE_COPY */
    int fetch_errno; /* why a tag could not be fetched, for the message of a failed start */
    struct ublkx_figures figures;
    struct histogram *latency[UBLKX_OPS]; /* of these, by operation */
    struct list left_link;                /* in the list of targets that were left */
};

/* ---- device.c: all return 0 or an error with a sentence -------------------------------------- */

CO int ublkx_device_info(int number, struct ublkx_dev_info *out, struct vp_error *err) must_check;
/* 0: the device has this tag, and all else that we give our own devices, so it may be taken over.
 * VP_E_EXISTS: it is somebody else's. */
int ublkx_device_check_ours(const struct ublkx_dev_info *info, uint64_t tag,
                            struct vp_error *err) must_check;
CO int ublkx_device_add(struct ublkx_dev_info *info, struct vp_error *err) must_check;
CO int ublkx_device_params(const struct ublkx_target *t, struct vp_error *err) must_check;
/* Whether the device was described with a volatile cache. */
CO int ublkx_device_has_cache(const struct ublkx_target *t, bool *out,
                              struct vp_error *err) must_check;
CO int ublkx_device_start(const struct ublkx_target *t, struct vp_error *err) must_check;
CO int ublkx_device_stop(unsigned number, struct vp_error *err) must_check;
CO int ublkx_device_delete(unsigned number, struct vp_error *err) must_check;
CO int ublkx_device_resize(const struct ublkx_target *t, struct vp_error *err) must_check;
/* Waits until the old server is gone, and begins. */
CO int ublkx_device_recovery_begin(unsigned number, struct vp_error *err) must_check;
CO int ublkx_device_recovery_end(const struct ublkx_target *t, struct vp_error *err) must_check;

/* ---- serve.c: on the backend's reactor ------------------------------------------------------- */

/* Opens and maps the char device and fetches every tag. */
CO int ublkx_serve_begin(struct ublkx_target *t, struct vp_error *err) must_check;
/* The target is STOPPING, and the device was stopped, or it is LEFT. Waits until every tag has
 * ended, and closes. */
CO void ublkx_serve_end(struct ublkx_target *t);

/* ---- target.c -------------------------------------------------------------------------------- */

/* On the target's reactor. */
void ublkx_target_move(struct ublkx_target *t, enum ublkx_state to);

#endif
