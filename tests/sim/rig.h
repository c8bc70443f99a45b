/*
 * The engine in a simulated world, and clients that drive it. Operations are data. The model
 * records each operation when it is called and when it is answered.
 */
#ifndef VP_TESTS_SIM_RIG_H
#define VP_TESTS_SIM_RIG_H

#include "io/co.h"
#include "io/sim.h"
#include "tests/sim/model.h"
#include "volumes/front.h"

enum { RIG_POOLS = 2, RIG_DISKS_MAX = 10, RIG_OPEN_MAX = 16 };

/* What the world and its pools are made of. */
enum { RIG_PROPERTY_MAX = 8192 };
struct rig_config {
    unsigned disks;
    unsigned second_disks; /* the last ones: of a second pool; 0: there is none */
    uint64_t disk_bytes;
    uint32_t atomic_bytes, sector_bytes;
    bool write_cache, can_discard;
    uint64_t latency_min_ns, latency_max_ns;
    const char *profile;
    uint32_t chunk_bytes, extent_bytes, log_segment_bytes;
    unsigned coroutines;   /* 0: 256                      */
    size_t metadata_bytes; /* page caches may have; 0: 4 MiB */
    size_t buffer_bytes;   /* of I/O buffers; 0: 64 MiB    */
    unsigned losses;       /* disks that each pool can lose; 0: as the profile says */
    unsigned spares;       /* the last ones of the first and only pool's: in no pool at first */
    bool removes;          /* a disk may be removed: only those with a label are in a pool */
    unsigned property;     /* bytes of a property: beside it what changes is little, so
                              checkpoints write deltas */
};

enum op_kind {
    OP_END,
    OP_WRITE,      /* sectors of a volume, stamped                                  */
    OP_ZERO,       /* …                                                             */
    OP_DISCARD,    /* … whole blocks                                                */
    OP_READ,       /* … and checks them                                             */
    OP_FLUSH,      /* of a volume                                                   */
    OP_BUSY,       /* up to `count` of these in turn, from a move's phase `at` to its end */
    OP_CREATE,     /* a volume of `count` sectors, in the first pool                */
    OP_DELETE,     /* a volume                                                      */
    OP_RESIZE,     /* a volume, to `count` sectors                                  */
    OP_CHECKPOINT, /* of each pool                                                  */
    OP_BACKGROUND, /* steps of background work until there is none                  */
    OP_FILL,       /* writes blocks from `at` until there is no space               */
    OP_REIMPORT,   /* closes the pools and imports them                             */
    OP_REPEAT,     /* runs the `at` operations before this one `count` times more   */
    OP_ROT,        /* damages one in `count` blocks of disk `at`                     */
    OP_HOG,        /* takes metadata pages until writes that need more are refused          */
    OP_JOBS,       /* pauses all deletions (`at` 1), or resumes them (`at` 0)                   */
    OP_UNREADABLE, /* no disk can read its share of what volumes wrote: one has every block     */
    OP_MIGRATE,    /* a volume to the other pool, in mode `at` (0: offline); clients wait for the
                      target for `count` ms (0: 1000). One at a time                          */
    OP_CANCEL,     /* that, `count` events after its phase `at` has begun                     */
    OP_LEAVE,      /* disk `at` dies, or: its next `count` writes and flushes fail. Not if another
                      one is bad                                                            */
    OP_HANG,   /* disk `at` completes nothing for a while, or: its next `count` writes are as late.
                  Not if another one is bad                                               */
    OP_LATE,   /* waits until all that was given up has ended                           */
    OP_RETURN, /* all disks work again; each that is out of service returns, or a spare one takes
                      its place (OP_REPLACE)                                                */
    OP_FILLED, /* the same, and background work until all disks count                   */
    OP_ADD,    /* every spare disk becomes one more disk of the pool                    */
    OP_REMOVE, /* disk `at` is to be removed: it is emptied in the background; with OP_STAYS, if one
                  is being removed, it stays                                             */
    OP_SCRUB,  /* a scrub begins, unless one is under way                               */
    OP_STALL,  /* … phase `at`: the next `count` writes of its target's disks are slow    */
};
enum op_flags {
    OP_FUA = 1,
    OP_WITH_NEXT = 2, /* runs at the same time as the next one        */
    OP_NO_HOLE = 4,
    OP_AS_DATA = 8, /* zeros are written as data                 */
    OP_FAILS = 128, /* OP_WRITE: every device fails it, in part  */
    OP_DIES = 256,  /* a change whose client dies meanwhile; ends when the client does. OP_BUSY:
                       all of its changes */
    /* of OP_CREATE: */
    OP_SYNC = 16,        /* every write is durable when it is answered         */
    OP_PAUSE = 32,       /* out of space, writes wait (else: an error)         */
    OP_ZERO_DETECT = 64, /* written zeros take no space                         */
    OP_WIDER = 8192,     /* mirror:4, whatever the pool has                     */
    /* of OP_CREATE and OP_HOG: */
    OP_SECOND = 512, /* in the second pool                                     */
    /* of OP_BUSY: */
    OP_WIDE = 1024,  /* most changes are of many blocks                        */
    OP_LAST = 4096,  /* of OP_STALL: only the last of them, and for longer         */
    OP_AGAIN = 8192, /* … of the same two blocks                                  */
    OP_APART = 2048, /* most are of blocks that the wide ones do not touch; 64 blocks */
    /* of OP_MIGRATE: */
    OP_GOVERNED = 8192,  /* it copies no faster than its clients can bear           */
    OP_VERIFIED = 16384, /* what was copied is compared, unless it is offline      */
    /* of OP_RETURN: */
    OP_REPLACE = 8192,
    /* of OP_REMOVE: */
    OP_STAYS = 8192,
    OP_BALANCE = 16384, /* no disk: data move from fuller disks to emptier ones */
};

/* `at` and `count` in sectors of 512 bytes, unless said otherwise. */
struct op {
    enum op_kind kind;
    const char *volume;
    uint64_t at, count;
    unsigned flags;
};
#define BLOCKS(n) ((uint64_t)(n)*STAMP_BLOCK_SECTORS)

/* A volume that is open, as an export has it: clients go to its front, which stays the same when
 * the volume moves. */
struct rig_open {
    char name[MODEL_NAME_MAX];
    unsigned pool;    /* that it is open in now */
    struct volume *v; /* NULL: the slot is free */
    struct front *front;
    unsigned ops;   /* at work on it                */
    bool withdrawn; /* no request is served any more */
};

/* A client with a request under way. */
struct rig_client {
    struct list link; /* in rig.clients */
    struct front_client client;
};

/* Names of volumes. */
struct rig_names {
    unsigned count;
    char name[RIG_OPEN_MAX][MODEL_NAME_MAX];
};

/* How two pools are imported; bits. */
enum rig_order {
    RIG_SECOND_FIRST = 1, /* the second pool comes first                             */
    RIG_FIRST_ALONE = 2,  /* moves are settled while the other one is not there, too */
    RIG_ORDERS = 4,
};

struct host;

/* A move at work. */
struct rig_move {
    struct rig *r;
    const char *name;
    unsigned from, to;
    struct migrate *m;     /* NULL: it begins */
    bool cancelled;        /* somebody asked for it */
    bool prepared;         /* exports neither come nor go */
    struct volume *target; /* that they hold open; NULL: none does */
};

struct rig {
    struct sim_world *w;
    const struct rig_config *config;
    struct model *model;
    struct volumes *vs[RIG_POOLS]; /* NULL: not imported */
    struct rig_open open[RIG_OPEN_MAX];
    bool errors_allowed;    /* a fault beyond what the profile survives was planned */
    bool faults_planned;    /* any: errors may be logged */
    unsigned failing_pools; /* bits: a fault beyond what its profile survives was planned in it */
    bool forgets;           /* such a pool was imported again: what was not flushed may be lost */
    unsigned order;         /* of imports */
    unsigned import_flags;  /* enum pool_import_flags */
    struct rig_move *move;  /* at work; NULL: none */
    struct co_queue events; /* woken before each disk event, and when a move ends */
    bool withdrawn;         /* a move that failed has ended the requests of its clients */
    struct rig_names alone; /* could be opened while the other pool was not there … */
    unsigned alone_pool;    /* … in this one */
    struct list clients;    /* with requests under way */
    struct host *host;      /* one of several; NULL: the only one (hosts.h) */
    bool running;
    /* Called before each disk event once set; may be NULL. */
    void (*on_event)(struct rig *r, uint64_t event);
    void *arg;
    uint64_t fills;        /* blocks that fitted into the last OP_FILL */
    unsigned resizes;      /* began and ended, of one volume at a time */
    bool fails_along;      /* another write may have failed with that one */
    bool write_failed;     /* … or that one, at the devices               */
    uint32_t failing_seq;  /* the write that fails at the devices; 0: none */
    unsigned bad;          /* disks whose copies do not count: as in the model              */
    unsigned bads;         /* how often one became bad                                      */
    struct co_group dying; /* changes of clients that died */
    bool failed;
    char why[1024];
};

/* A world with the disks of the configuration. */
struct sim_world *rig_world_new(const struct rig_config *config, uint64_t seed);

/*
 * Runs body(r) as the first coroutine of a reactor in r->w and waits until nothing happens any
 * more. False when it failed (r->why) or got stuck. Pools that are open at the end are abandoned.
 */
bool rig_run(struct rig *r, void (*body)(struct rig *r));
/* The same in parts, for a host of several: a reactor in r->w, what goes before the body, and what
 * comes after it, also when the body was cut short. */
struct reactor *rig_begin(struct rig *r);
void rig_end(struct rig *r, struct reactor *reactor);

/* The first failure counts. */
void rig_fail(struct rig *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- pools.c: the pools and what is open in them --------------------------------------------- */

unsigned rig_pools(const struct rig_config *config);
/* Disks that each pool can lose, whichever they are. */
unsigned rig_losses(const struct rig_config *config);
/* These disks may be lost at once: bits. */
bool rig_survives(const struct rig_config *config, unsigned lost);
unsigned rig_pool_of_disk(const struct rig_config *config, unsigned disk);
struct sim_disk *rig_disk(const struct rig *r, unsigned i);

/* A fault hits the disk, or may hit it. */
void rig_disk_is_bad(struct rig *r, unsigned disk);
int rig_remove(struct rig *r, const struct op *op);
bool rig_has_label(const struct rig *r, unsigned disk);

/* CO from here on; failures go to r->why. */
bool rig_create_pools(struct rig *r);
/* With the disks that are there. */
bool rig_import(struct rig *r);
int rig_try_import(struct rig *r, struct vp_error *err); /* an error is no failure; moves.c */
int rig_import_one(struct rig *r, unsigned pool, struct vp_error *err);
int rig_close_pools(struct rig *r); /* and all volumes */
void rig_abandon(struct rig *r);
/* The volume, opened; NULL when it does not exist (no failure), or on a failure. */
struct rig_open *rig_volume(struct rig *r, const char *name);
struct rig_open *rig_find_open(struct rig *r, const char *name); /* NULL: it is not open */
void rig_close_volume(struct rig *r, const char *name);
/* Its clients go, and it is closed. */
void rig_withdraw(struct rig *r, const char *name);
void rig_client_begin(struct rig *r, struct rig_client *c, const struct rig_open *o);
void rig_client_end(struct rig_client *c);

/* ---- moves.c: volumes that move between the pools -------------------------------------------- */

int rig_migrate(struct rig *r, const struct op *op, struct model_volume *mv);
int rig_cancel(struct rig *r, const struct op *op);
int rig_busy(struct rig *r, const struct op *op);
int rig_stall(struct rig *r, const struct op *op);
const char *rig_moving(const struct rig *r); /* the volume; NULL: none moves */
/* A disk of the pool that the volume moves to; NULL: none moves. */
struct sim_disk *rig_move_target(const struct rig *r, unsigned nth);
/* The volumes that a pool lists. */
void rig_names(struct rig *r, unsigned pool, struct rig_names *out);
bool rig_has(struct rig *r, unsigned pool, const char *name);

/* ---- returns.c: disks that leave and come into service again ----------------------------------
 * */

int rig_dies(struct rig *r, const struct op *op);
int rig_hangs(struct rig *r, const struct op *op);
CO int rig_await_late(struct rig *r);
int rig_return(struct rig *r, const struct op *op);
int rig_add(struct rig *r);
int rig_filled(struct rig *r);

/* ---- rig.c: operations ----------------------------------------------------------------------- */

void rig_ops(struct rig *r, const struct op *ops); /* until OP_END */
int rig_op(struct rig *r, const struct op *op);
/* Reads whole blocks and says what they hold. */
int rig_read_blocks(struct rig *r, struct rig_open *o, uint32_t uid, uint64_t block, uint64_t count,
                    struct model_sectors *out);

#endif
