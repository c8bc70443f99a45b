/* Devices that do not answer, private to io/ (hang.c). */
#ifndef VP_IO_HANG_IMPL_H
#define VP_IO_HANG_IMPL_H

#include "io/reactor_impl.h"

#define IO_ANSWER_NS UINT64_C(50000000) /* how exactly it is known when a device answered */

/* The reactor's timer runs this while operations are in flight. */
void hang_scan(struct timer *t);
void hang_scan_start(struct reactor *r);
/* Nothing is in flight any more. */
void hang_scan_stop(struct reactor *r);
static inline void hang_scan_begin(struct reactor *r)
{
    if (__builtin_expect(!r->hang_scans, 0))
        hang_scan_start(r);
}

static inline void hang_answered(struct io_dev *dev)
{
    uint64_t seen = atomic_load_explicit(&dev->answered_ns, memory_order_relaxed);
    if (__builtin_expect(reactor_clock_ns - seen <= IO_ANSWER_NS, 1))
        return;
    atomic_store_explicit(&dev->answered_ns, reactor_clock_ns, memory_order_relaxed);
    atomic_store_explicit(&dev->silent_ns, 0, memory_order_relaxed);
}

/* CO. Nobody is told any more, and no call is under way. */
CO void hang_watch_end(struct io_dev *dev);
/* Gives one reference back; the last one frees it. */
void io_dev_put(struct io_dev *dev);

/* device.c: the op ends with VP_E_IO_SILENT for the one who waits for it. */
void hang_op_end(struct io_op *op);

/* For a simulated device: the late op that takes the place of the op. NULL: no memory. */
struct io_op *hang_late_simulated(const struct io_op *op);

#endif
