/* What ring.c and ring_files.c share. */
#ifndef VP_IO_RING_STRUCT_IMPL_H
#define VP_IO_RING_STRUCT_IMPL_H

#include "io/buffer.h"
#include "io/ring_impl.h"

#include <liburing.h>

#define RING_FILES 256U

struct ring {
    struct io_uring uring;
    struct reactor_features features;
    struct reactor_figures *figures;
    unsigned in_flight, limit; /* counted requests in the kernel or its queue; how many may be */
    unsigned late;             /* of in_flight: nobody waits for them (ring_request_left)      */
    unsigned in_flight_free;   /* of ring_submit_free                                          */
    struct ring_req **slot;    /* [slots]: counted requests by the number that the kernel has  */
    uint32_t *vacant;          /* [slots]: numbers; those from in_flight on are vacant         */
    unsigned slots;
    struct list waiting, waiting_free;  /* ring_req.link: no room yet                           */
    unsigned driver_slot, driver_slots; /* in the table of buffers, behind the region's        */
    bool driver_slots_taken;
    bool enabled, running;
    bool wait_by_poll; /* not in io_uring_enter, for valgrind */

    struct ring_req wake, cancel_wake; /* the read on the mailbox's eventfd */
    bool wake_armed;
    int event_fd;
    uint64_t wake_value;

    /* ring_files.c */
    struct list files_link;             /* in the list of all running rings                     */
    struct ring_file *file[RING_FILES]; /* what is registered in each slot                      */
    _Atomic bool files_stale;           /* some of them is to be let go; set by any thread      */
};

void ring_files_join(struct ring *ring);
void ring_files_leave(struct ring *ring);
void ring_files_let_go(struct ring *ring);

#endif
