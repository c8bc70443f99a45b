/*
 * The inside of a simulated world, private to io/:
 *
 *     sim_world.c     clock, randomness, the queue of what is in flight, events, the reactor's side
 *     sim_disk.c      a disk as a device: submit and complete, faults, death and return
 *     sim_cache.c     what is written but not durable yet: flush, write-through, eviction
 *     sim_snapshot.c  copies of all disks and the states that a power cut could leave
 *     sim_keep.c      memory that outlives a process (io/keep.h), and copies of it
 *     sim_image.c     the content of disks (sim_image_impl.h)
 *
 * A disk has two images. `view` is what reads see: every completed write. `durable` is what a power
 * cut cannot take. Between the two stand the world's pending writes, in the order of submission:
 *
 *     submit ──▶ pending, in flight ──▶ pending, complete ──flush──▶ durable
 *                     │                    (in the view)                ▲
 *                     └── with FUA, or on a disk without a cache ───────┘
 */
#ifndef VP_IO_SIM_WORLD_IMPL_H
#define VP_IO_SIM_WORLD_IMPL_H

#include "base/list.h"
#include "io/device.h"
#include "io/keep.h"
#include "io/sim.h"
#include "io/sim_image_impl.h"

enum {
    /* A cache is finite: beyond this the oldest completed write goes to the medium by itself. */
    SIM_PENDING_MAX = 512,
    SIM_NAME_MAX = 32,
    IO_KINDS = IO_ZERO + 1,
};

/* The sectors of one page that a pending write changes; page NULL = noise (a discard). */
struct sim_piece {
    uint64_t page_no;
    uint8_t mask;
    struct sim_page *page;
};

/* A write, zero or discard that is not known to be durable. Shared with snapshots: its pieces
 * change only while refs is 1. */
struct sim_write {
    uint32_t refs;
    uint32_t unit_sectors; /* its disk's atomic unit                             */
    unsigned disk;         /* index in the world                                 */
    uint64_t done_seq;     /* when it completed; 0 = in flight                   */
    uint64_t first_sector, sectors;
    unsigned pieces;
    struct sim_piece piece[];
};

/* Writes in the order of their submission. */
struct sim_pending {
    struct sim_write **write;
    unsigned count, capacity;
};

struct sim_planned_fault {
    enum sim_fault fault;
    unsigned kind_mask;
    uint64_t countdown, arg;
};

struct sim_disk {
    struct sim_world *world;
    struct sim_disk_config config; /* config.name points to `name` */
    char name[SIM_NAME_MAX];
    unsigned index;
    bool dead;
    uint64_t hung_until_ns;  /* nothing completes                      */
    uint64_t full_until_ns;  /* writes find no room                      */
    uint64_t short_until_ns; /* ops fail with short_rc                   */
    int short_rc;
    bool short_flushes;     /* flushes too                              */
    uint64_t ops[IO_KINDS]; /* submitted                                */
    uint64_t preallocated_bytes;
    bool exclusive; /* open, and not shared */
    struct sim_image view, durable;
    struct sim_planned_fault *fault;
    unsigned fault_count, fault_capacity;
    uint64_t *bad_page; /* numbers of pages that cannot be read */
    unsigned bad_pages, bad_page_capacity;
};

/* An op between its submission and its completion. */
struct sim_flight {
    uint64_t at_ns, seq; /* order of completion; seq breaks ties */
    struct sim_disk *disk;
    struct io_op *op;
    struct sim_write *write; /* its entry in the pending list; NULL when it changes nothing */
    uint64_t covers_seq;     /* a flush: what had completed when it was submitted           */
    bool fails, flips;
    bool late;    /* given up: op is on the heap, and nobody waits for it */
    int short_rc; /* 0, or with what it fails for want of something */
    uint64_t flip_bit;
};

struct sim_world {
    uint64_t random, noise;
    uint64_t now_ns;
    bool cut;
    uint64_t events;
    sim_write_fails_fn write_fails;
    void *write_fails_arg;
    sim_event_fn on_event;
    void *on_event_arg;
    uint64_t submit_seq, done_seq;
    struct sim_flight *flight; /* a heap by (at_ns, seq) */
    unsigned flight_count, flight_capacity, late_count;
    struct sim_pending pending;
    struct sim_disk **disk;
    unsigned disk_count;
    struct list devices; /* open ones: a power cut leaves them to sim_world_free */
    struct list keeps;   /* struct sim_kept                                      */
    struct list unnamed; /* … that were removed and may be mapped still          */
    unsigned keep_pages; /* that may still be reserved                           */
    uint64_t keep_ops;   /* by name, so far                                      */
    uint64_t keep_fails; /* when keep_ops is that                                */
};

/* An open device of a disk. */
struct sim_dev {
    struct io_dev dev;
    struct sim_disk *disk;
    struct list link;
    bool exclusive;
};

#define SIM_KEEP_PAGE  4096U
#define SIM_KEEP_PAGES 8192U /* at most */

/* What one io_keep holds. */
struct sim_kept {
    struct list link;
    char name[IO_KEEP_NAME_MAX + 1];
    size_t capacity;
    struct sim_world *world;
    bool owned;
    uint64_t changed_ns;
    uint64_t reserved[SIM_KEEP_PAGES / 64]; /* bit: the page may be touched */
    unsigned char *bytes;                   /* a world's: all; a copy's: the reserved pages */
};

/* ---- sim_keep.c --------------------------------------------------------------------------- */

void sim_keeps_free(struct sim_world *w);
/* Copies all of w's to `out`, a list. */
void sim_keeps_copy(const struct sim_world *w, struct list *out);
void sim_keeps_copy_free(struct list *copies);
uint64_t sim_keeps_hash(const struct list *copies);
void sim_keeps_restore(struct sim_world *w, const struct list *copies);

/* ---- sim_world.c -------------------------------------------------------------------------- */

void *sim_grow(void *array, unsigned *capacity, unsigned needed, size_t item_bytes);
/* Announces an event; false when the power is cut (now or before). */
bool sim_world_event(struct sim_world *w);
void sim_flight_add(struct sim_world *w, const struct sim_flight *f);
struct sim_disk *sim_disk_new(struct sim_world *w, const struct sim_disk_config *config);

/* ---- sim_disk.c --------------------------------------------------------------------------- */

extern const struct io_dev_ops sim_dev_ops;
void sim_disk_complete(struct sim_flight *f);

/* ---- sim_cache.c -------------------------------------------------------------------------- */

/* A write of `op`'s range, at `offset` instead of op's. One reference. */
struct sim_write *sim_write_new(struct sim_disk *d, const struct io_op *op, uint64_t offset);
struct sim_write *sim_write_clone(const struct sim_write *w);
void sim_write_put(struct sim_write *w);
/* Atomic units that the write touches. */
unsigned sim_write_units(const struct sim_write *w);
/* Lays the units whose bit (modulo 64) is set over `img`. */
void sim_write_apply(const struct sim_write *w, uint64_t units, struct sim_image *img);

void sim_pending_add(struct sim_pending *p, struct sim_write *w); /* takes the reference */
void sim_pending_fini(struct sim_pending *p);
/* Drops the entries of `disk` for which `gone` says so, keeping the order. */
void sim_pending_filter(struct sim_world *w, const struct sim_disk *d,
                        bool (*gone)(struct sim_disk *d, struct sim_write *x, void *arg),
                        void *arg);

/* A write completes: it shows in the view, and is durable already or pending. */
void sim_cache_write_done(struct sim_disk *d, struct sim_write *x, uint64_t units, bool through);
/* A flush completes: what had completed at covers_seq becomes durable. */
void sim_cache_flush(struct sim_disk *d, uint64_t covers_seq);
/* A flush fails: some of what it covered will never reach the medium, though reads still see it. */
void sim_cache_flush_failed(struct sim_disk *d, uint64_t covers_seq);
/* Nothing of this page waits in the cache any more: the caller stores it, durable. */
void sim_cache_settle(struct sim_disk *d, uint64_t page_no);
/* The disk comes back: the seed says which of its cached writes survived. */
void sim_cache_return(struct sim_disk *d);

#endif
