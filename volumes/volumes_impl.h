/*
 * The inside of volumes/, private to the folder: what is kept for a pool and for a volume, and
 * which thread owns which part.
 *
 *     life.c      a pool's volumes come and go        table.c       names, create … resize
 *     record.c    the VOLUME record                   option.c      "key=value"
 *     activate.c  from name to open map and back      place.c       choice of reactor
 *     front.c     the way of every request, the gate
 *     exchange.c  for the one who froze a volume: reads beside the gate, the exchange of two fronts
 *     request.c   any byte range → whole blocks       lock.c        block locks
 *     full.c      out of space                        checkpoint.c  the pool's client
 *     background.c  steps of jobs, commit timer, idle volumes        delete.c  space comes back
 *     resync.c    regions of cut-off overwrites       fill.c  disks that came into service again
 *     scrub.c     all copies are compared             walk.c  chunks in use, beside clients
 *     info.c      what `vpool volume show` says     sweep.c       the same for many volumes
 *     errors.c    counters of errors, over restarts
 *     owner.c     who owns a volume that moves
 *
 * An inactive volume is a `struct volume`: its record and its name. An active one has a
 * `struct volume_io` on its reactor, with the open map. Everything in struct volume that is not
 * marked otherwise belongs to home.
 */
#ifndef VP_VOLUMES_VOLUMES_IMPL_H
#define VP_VOLUMES_VOLUMES_IMPL_H

#include "base/hash.h"
#include "base/list.h"
#include "io/co.h"
#include "io/reactor.h"
#include "pool/job.h"
#include "pool/pool.h"
#include "thin/thin.h"
#include "volumes/front.h"
#include "volumes/owner.h"
#include "volumes/volume.h"
#include "volumes/volume_format.h"

#define VOLUME_BLOCK         4096U
#define VOLUMES_REACTORS_MAX 64
#define VOLUME_WINDOW_BLOCKS 1024U /* a request works on at most this much at a time (4 MiB) */
#define VOLUME_BOUNCE_BLOCKS 256U  /* … and on this much when it has to copy (1 MiB)         */
/* A write is out of metadata when there is not even room for this many new pages. */
#define VOLUME_META_HEADROOM   64U
#define VOLUMES_METADATA_BYTES (UINT64_C(256) << 20)
#define VOLUMES_COMMIT_MS      5000U
#define VOLUMES_FILL_BYTES     (UINT64_C(8) << 20)

/* ---- lock.c ------------------------------------------------------------------------------- */

/* Blocks of a volume in units of LOCK_REGION: a lock is a mask in one region. */
#define LOCK_REGION_BLOCKS 64U
#define LOCK_BUCKETS_LOG2  6U
#define LOCK_BUCKETS       (1U << LOCK_BUCKETS_LOG2)
#define LOCK_WINDOW_MAX    (VOLUME_WINDOW_BLOCKS / LOCK_REGION_BLOCKS + 1)

struct lock_table {
    struct list bucket[LOCK_BUCKETS];
};
struct lock_entry {
    struct list link; /* in its bucket, in order of arrival */
    uint64_t region;
    uint64_t mask;
    struct co *waiter; /* NULL once granted */
    bool exclusive;
};
/* The locks of one window, in the frame of its request. */
struct block_lock {
    unsigned count;
    struct lock_entry entry[LOCK_WINDOW_MAX];
};

void lock_table_init(struct lock_table *t);
bool lock_table_is_empty(const struct lock_table *t);
/* Locks [block, block + count), at most VOLUME_WINDOW_BLOCKS; in order of arrival, so that nobody
 * starves. While it waits everything else goes on. */
CO void block_lock_take(struct lock_table *t, struct block_lock *l, uint64_t block, uint64_t count,
                        bool exclusive);
void block_lock_drop(struct lock_table *t, struct block_lock *l);
/* Calls fn for the blocks of each exclusive lock that is held or waited for. fn does not yield. */
void lock_table_each_exclusive(const struct lock_table *t,
                               void (*fn)(void *arg, uint64_t block, uint64_t count), void *arg);

/* ---- front.c ------------------------------------------------------------------------------ */

enum front_gate {
    FRONT_OPEN,
    FRONT_CLOSING, /* waits for what is in flight                           */
    FRONT_FROZEN,  /* nothing is in flight                                  */
    FRONT_OPENING, /* what was held passes, before whatever arrives         */
    FRONT_ENDED,   /* the pool is being closed: nothing passes any more     */
};
/* Made when a volume becomes active. It may be another volume's later (exchange.c). */
struct front {
    _Atomic(struct volume *) volume; /* whose it is; home reads it too */
    struct reactor *reactor;
    enum front_gate gate;
    const struct front_ops *ops;       /* what is behind, and … */
    void *arg;                         /* … its argument        */
    const struct front_tokens *tokens; /* NULL: no limit */
    unsigned running[FRONT_KINDS];     /* requests in flight */
    unsigned beside;                   /* reads of the one who moves the volume (exchange.c) */
    struct list held;                  /* requests that wait at the gate, in front.c */
    struct co_queue quiet;             /* waits until nothing is in flight */
    struct front_client nobody;        /* sends requests of volumes/volume.h; never goes */
};
void front_init(struct front *f, struct volume *v, struct reactor *reactor);
/* No request is in flight, beside the gate or held. */
bool front_is_idle(const struct front *f);
/* Ends all waits with VP_E_CANCELLED, and waits until no request is left. For good. */
CO void front_end(struct front *f);

/* ---- volumes ------------------------------------------------------------------------------ */

/* A name in the table. Replaced as a whole by a rename; the old one stays readable (others hold
 * volume_full_name) until the volume is inactive. */
struct volume_name {
    struct hash_node node; /* by hash of `volume` part */
    struct volume *owner;
    struct volume_name *retired; /* the next older one */
    bool pending;                /* taken, but its record is not durable yet: not found */
    const char *text;            /* "VOL", inside `full` */
    char full[];                 /* "POOL/VOL" */
};

enum volume_flag_bits {
    VOLUME_IS_READ_ONLY = 1,
    VOLUME_IS_ZERO_DETECT = 2,
    VOLUME_IS_SYNC_ALWAYS = 4,
    VOLUME_IS_ENOSPC = 8,
    VOLUME_WILL_BE_READ_ONLY = 16, /* a TARGET: when it has arrived */
};

/* Of one volume, on its reactor, while it is active. */
struct volume_io {
    _Atomic(struct front *) front; /* its own; another one after an exchange. Home reads it too */
    struct thin *thin;
    bool uncommitted; /* written to since the last commit began */
    /* full.c: requests that wait for room */
    struct co_queue room;
    uint64_t room_sequence; /* changes whenever room may have appeared */
    struct volume_marks marks;
    struct lock_table locks;
};

/* owner.c: what the record says of the volume's owner. */
struct volume_owner {
    enum volume_ownership ownership;
    uint64_t epoch;
    struct volume_move move; /* OWNER: all zeros */
};

/* errors.c: what the pool has of the counters of errors. */
struct volume_errors {
    uint64_t since; /* seconds since 1970: what the counters count from     */
    uint64_t saved; /* sum of the counters in the pool, or on its way there */
    uint64_t save;  /* number of the save that took them                    */
    bool is_recorded;
};

enum volume_delete_step {
    VOLUME_DELETE_MAP,     /* the map is to be closed                                       */
    VOLUME_DELETE_ARENAS,  /* arenas are to be returned                                     */
    VOLUME_DELETE_PAGES,   /* tree pages go with the next checkpoint                        */
    VOLUME_DELETE_RECORDS, /* once that checkpoint is complete (delete_checkpoint)          */
};

struct volume {
    struct volumes *vs;
    struct volume_io *io; /* set and cleared at home while nobody uses the volume */
    struct reactor *reactor;
    uint32_t sector_bytes;         /* never changes */
    _Atomic uint64_t size_bytes;   /* what requests are checked against */
    _Atomic unsigned flags;        /* enum volume_flag_bits             */
    _Atomic bool resync_wanted;    /* an overwrite failed: background.c */
    struct volume_figures figures; /* histograms: from the first activation on */
    struct volume_errors errors;

    struct hash_node by_id;
    struct list link;                     /* vs->all                  */
    struct list active_link;              /* vs->active               */
    struct list replay_link, resync_link; /* vs->replaying, ->resync  */
    struct list delete_link;              /* vs->deleting             */
    _Atomic(struct volume_name *) name;
    uint32_t id;
    struct vp_uuid uuid;
    uint64_t created_seconds;
    struct volume_options options;     /* what the record says */
    struct volume_owner owner;         /* what the record says */
    const struct volume_move *leaving; /* a move's: it is about to leave (volume_leave_begin) */
    bool awaited;                      /* a TARGET that clients may open (await.c) */
    bool attended;  /* a move that is at work here answers for INTENT, TARGET and ARRIVED */
    bool switching; /* INTENT: its move is at the commit point, or past it */
    enum volume_state state;
    char *fault;               /* why; NULL while not faulted */
    struct pool_batch *replay; /* MAP and SPACE records of the log, not yet applied */

    struct co_mutex control; /* activation, deactivation, resize, properties, deletion */
    /* Taken inside `control`, around activation alone. Checkpoints take it without `control`: a
     * holder of `control` may wait for a checkpoint, a holder of this lock may not. */
    struct co_mutex opening;
    unsigned open_count;
    unsigned pins;         /* background work that uses `io` */
    uint64_t pin_sequence; /* counts pins ever taken          */
    struct co_queue unpinned;
    enum { VOLUME_TO_FILL, VOLUME_FILLED, VOLUME_NOT_FILLED } fill; /* fill.c */
    bool fill_waits;                          /* some of it will be tried again */
    bool evacuates;                           /* evacuate.c: it is yet to be walked */
    struct pool_job *resync_job, *delete_job; /* borrowed; set as long as v is in those lists */
    enum volume_delete_step delete_step;
    uint64_t delete_from; /* arenas with lower numbers went back                           */
    uint32_t delete_checkpoint;
    uint32_t idle_checkpoint; /* the checkpoint after which deactivation was tried last */
};

struct volumes_slot { /* one reactor's part */
    struct reactor *reactor;
    struct thin_cache *cache; /* that reactor's */
    unsigned active;          /* volumes placed there (home's count) */
};

struct volumes {
    struct pool *pool;
    struct volumes_config config;
    struct reactor *reactors[VOLUMES_REACTORS_MAX];
    struct volumes_slot slot[VOLUMES_REACTORS_MAX];
    unsigned slots;
    struct hash by_name, by_id;
    struct list all, active, replaying, resync, deleting;
    unsigned count; /* without those being deleted */
    uint64_t next_id;
    uint64_t errors_save; /* numbers the saves of errors.c */
    bool closing;
    bool discard_devices;
    bool damaged_record; /* a VOLUME record did not decode */

    uint64_t walked_bytes;    /* walk.c: what clients had read and written at the last look */
    struct volumes_fill {     /* fill.c */
        struct pool_job *job; /* borrowed; NULL: no disk is being filled */
        struct pool_disk_filling disk;
        uint32_t volume;                 /* the first one that the disk may lack something of … */
        uint64_t block;                  /* … from this block on                                */
        uint64_t unsaved;                /* bytes, since the position was recorded              */
        bool told;                       /* that some volume cannot be filled */
        uint64_t rest_ns, rest_until_ns; /* after a failure */
        uint64_t limit;                  /* of the job that is to begin, of this disk: */
        unsigned limit_disk;
        bool busy; /* somebody works on it, and may wait */
    } fill;

    struct volumes_evacuation {   /* evacuate.c */
        struct pool_job *job;     /* borrowed; NULL: nothing moves, or is to move */
        struct pool_leaving disk; /* of a removal */
        enum { EVACUATION_BEGIN, EVACUATION_COPY, EVACUATION_METADATA } at;
        uint32_t volume; /* that is being walked, from this block on: */
        uint64_t block;
        uint64_t rest_ns, rest_until_ns; /* after a failure */
        uint64_t limit;                  /* of the job that is to begin */
        bool cancel;                     /* a command wants the disk to stay, or no balance */
        bool balance;                    /* a command wants one, whose job has not begun */
        bool told;                       /* that something cannot move now */
        bool busy;                       /* somebody works on it, and may wait */
    } evacuation;

    struct volumes_scrub {    /* scrub.c */
        struct pool_job *job; /* borrowed; NULL: none is under way */
        uint32_t volume;      /* the first one that is not compared yet … */
        uint64_t block;       /* … from this block on */
        bool in_pages;        /* all of its data are; its metadata are not, from here on: */
        struct thin_page_walk pages;
        uint64_t unsaved;            /* bytes, since the position was recorded */
        bool starting;               /* its record is not durable yet */
        bool stop;                   /* a command wants it to end */
        struct raid_disk_set healed; /* written to since the position was recorded */
        struct volumes_scrub_report report;
    } scrub;

    struct list left; /* struct left_note, of left.c */

    struct hash replay; /* import only: struct replay_node by volume id */

    struct co_group workers; /* background coroutines */
    struct co_queue work;    /* wakes the background  */
    struct co_queue timer;   /* ends the commit timer */
    /* full.c */
    struct co_group room_workers;
    struct co *room_watcher;
    struct co_queue room_news;
    unsigned room_waiters; /* requests, over all volumes */
    bool giving_back;      /* volumes are asked for what they do not use */
    struct co_queue given_back;
    uint64_t given_back_ns;    /* when they were asked last        */
    uint64_t given_back_frees; /* `frees` at that time             */
    _Atomic uint64_t frees;    /* discards and zeroes that ended   */
};

/* ---- left.c: volumes that have left for another daemon ------------------------------------ */

struct left_note;
/* Notes in `b` that v, an INTENT, has left. NULL: no memory. Ended by volume_left_end: it counts
 * once `b` is durable. */
struct left_note *volume_left_put(const struct volume *v, struct pool_batch *b);
/* NULL is fine. */
void volume_left_end(struct volumes *vs, struct left_note *note, bool durable);
/* Import. */
int volumes_left_load(struct volumes *vs) must_check;
void volumes_left_free(struct volumes *vs);

/* ---- record.c: VOLUME_RECORD bytes -------------------------------------------------------- */

#define VOLUME_RECORD_BYTES_MAX                                                                    \
    (sizeof(struct volume_record_disk) + sizeof(struct volume_owner_disk) + VOLUME_NAME_MAX +      \
     VOLUME_FULL_NAME_MAX + VOLUME_PEER_MAX)
struct volume_record {
    char name[VOLUME_NAME_MAX + 1];
    struct vp_uuid uuid;
    uint64_t created_seconds;
    bool deleting;
    struct volume_options options; /* has_profile is true */
    struct volume_owner owner;
};
size_t volume_record_encode(const struct volume_record *r, uint8_t out[VOLUME_RECORD_BYTES_MAX]);
/* VP_E_RECORD_BAD. */
int volume_record_decode(const void *bytes, size_t len, struct volume_record *out) must_check;
void volume_record_put(const struct volume *v, const char *name, const struct volume_options *o,
                       bool deleting, struct pool_batch *b);
/* Makes v's record, with `name`, durable. */
CO int volume_record_commit(struct volume *v, const char *name, const struct volume_options *o,
                            bool deleting) must_check;

/* ---- owner.c ------------------------------------------------------------------------------ */

/* What a record without ownership says. */
#define VOLUME_OWNER_FIRST ((struct volume_owner){.ownership = VOLUME_OWNER, .epoch = 1})
/* Commands that change a volume: VP_E_BUSY, with what to do, while it moves. */
int volume_owner_check_stays(const struct volume *v, struct vp_error *err) must_check;
/* Opens by clients: VP_E_VOLUME_MOVING, with what to do, unless it is an owner and not in doubt. */
int volume_owner_check_open(const struct volume *v, struct vp_error *err) must_check;

/* ---- table.c ------------------------------------------------------------------------------ */

/* What a volume keeps for as long as it is, in whatever pool. */
struct volume_identity {
    struct vp_uuid uuid;
    uint64_t created_seconds;
    struct volume_owner owner; /* this one changes */
};
/* volume_create, of a volume that is not new. */
CO int volume_create_as(struct volumes *vs, const char *name, const struct volume_options *options,
                        const struct volume_identity *identity, struct vp_error *err) must_check;
/* Deletes a live volume, in one commit with what `b` has; its control mutex is held. VP_E_BUSY: it
 * is open. */
CO int volume_delete_locked(struct volume *v, struct pool_batch *b,
                            struct vp_error *err) must_check;
struct volume *volume_new(struct volumes *vs, uint32_t id);
/* Unlinks and frees an inactive volume. */
void volume_free(struct volume *v);
struct volume_name *volume_name_add(struct volumes *vs, struct volume *v, const char *text,
                                    bool pending);
void volume_name_drop(struct volumes *vs, struct volume_name *n);
void volume_names_free_retired(struct volume *v);
/* Finds a live volume by name and takes its control mutex. VP_E_NOT_FOUND. */
CO int volume_control_begin(struct volumes *vs, const char *name, struct volume **out,
                            struct vp_error *err) must_check;
/* By name: live ones only; NULL. */
struct volume *volume_find(struct volumes *vs, const char *name);
struct volume *volume_find_id(struct volumes *vs, uint32_t id);
/* The name in use: "VOL". */
const char *volume_text(const struct volume *v);
/* Takes over options for requests to see. */
void volume_options_apply(struct volume *v, const struct volume_options *o);
int volume_options_check(const struct volumes *vs, const struct volume_options *o,
                         struct vp_error *err) must_check;
/* option.c: "key" and "value" of an existing volume. */
int volume_property_parse(const char *key, const char *value, struct volume_options *o,
                          struct vp_error *err) must_check;
/* Import: one volume of a VOLUME record. */
int volume_adopt_record(struct volumes *vs, const struct pool_record *r) must_check;

/* ---- activate.c --------------------------------------------------------------------------- */

/* Makes v active; its control mutex is held. With `reserve` the volume's reserve must be leased;
 * without it the reserve is best effort. Errors: those of thin_open. Damage leaves the volume
 * faulted. */
CO int volume_activate(struct volume *v, bool reserve) must_check;
/* The same; v->opening is held, and control need not be. `beside`: volumes_slot_choose. */
CO int volume_activate_opening(struct volume *v, struct reactor *beside, bool reserve) must_check;
/* Opens the trees of the records alone, whatever the log says (deletion); not as v->io. */
CO int volume_thin_open_durable(struct volume *v, struct reactor **reactor,
                                struct thin **out) must_check;
/* Commits, clears intents and closes the map, if nobody uses v and every change is in a
 * checkpoint; control is held. *done says whether. */
CO int volume_deactivate(struct volume *v, bool *done) must_check;
/* Commits and clears intents; v stays active (before the last checkpoint). */
CO int volume_settle(struct volume *v) must_check;
/* Frees what io_new made; the map is closed. */
void volume_io_free(struct volume_io *io);
/* Closes the map, whatever it holds; control is held, or all is ending. */
CO void volume_detach(struct volume *v);
void volume_replay_drop(struct volume *v);
void volume_fault(struct volume *v, int rc);
void volume_pin(struct volume *v);
void volume_unpin(struct volume *v);
/* Runs thin_commit for an active, pinned volume on its reactor. */
CO int volume_commit(struct volume *v) must_check;
/* On v's reactor. */
CO int volume_io_commit(struct volume_io *io) must_check;

/* ---- place.c ------------------------------------------------------------------------------ */

/* `beside`: the slot of this reactor, which is one of vs's. NULL: the one with the fewest. */
struct volumes_slot *volumes_slot_choose(struct volumes *vs, const struct reactor *beside);
struct volumes_slot *volumes_slot_of(struct volumes *vs, const struct reactor *r);

/* ---- full.c ------------------------------------------------------------------------------- */

/* Progress of one request through a full pool; zeroed at its start. */
struct full_wait {
    bool counted;
    bool never_pauses; /* whatever the policy: the caller holds a control lock */
    uint64_t room_sequence;
};
/* After VP_E_NO_SPACE, with no locks held: 0 = try again, else the request's result, or
 * FRONT_COME_AGAIN. `r` is NULL where `never_pauses`. */
CO int volume_full_wait(struct volume *v, struct full_wait *w,
                        const struct front_request *r) must_check;
/* At the end of a request that is counted. */
CO void volume_full_done(struct volume *v, struct full_wait *w);
/* On v's reactor: chunks were freed; lets v's own waiting writers have them. */
CO int volume_full_freed(struct volume *v) must_check;
/* On v's reactor: requests that wait for room ask front_request_verdict again. */
void volume_full_rouse(void *v);
int volumes_room_start(struct volumes *vs) must_check;
CO void volumes_room_stop(struct volumes *vs);

/* ---- sweep.c ------------------------------------------------------------------------------ */

/* Volumes to do something with, each pinned; zeroed at the start. */
struct sweep {
    struct volume **volume;
    size_t count, capacity, next;
    bool failed; /* out of memory in sweep_add: not all are there */
    bool stop_on_error;
    int (*fn)(struct volume *v);
    int rc;
    unsigned held; /* by the caller; the workers act for it (io/hold.h) */
    struct co_group workers;
};
void sweep_add(struct sweep *s, struct volume *v);
/* Calls fn (NULL: nothing) for each, several at a time, unpins and frees; the first error. */
CO int sweep_run(struct sweep *s, int (*fn)(struct volume *v), bool stop_on_error) must_check;

/* ---- checkpoint.c ------------------------------------------------------------------------- */

struct replay_node {
    struct hash_node node;
    struct pool_batch batch;
    bool failed;
};
struct pool_client volumes_client(struct volumes *vs);
void volumes_replay_free(struct volumes *vs);
/* Import: gives what was collected to the volumes. */
int volumes_replay_assign(struct volumes *vs) must_check;
/* HOME, inside a checkpoint: the TREE records of v. */
int volume_roots_put(struct volume *v, const struct thin_roots *roots) must_check;

/* ---- request.c ---------------------------------------------------------------------------- */

/* What is behind a volume's front: the volume. */
extern const struct front_ops volume_front_ops;
/* volume_beside_read, without the front. */
CO int volume_blocks_read(struct volume *v, uint64_t block, uint64_t count, void *buf,
                          bool *zero) must_check;

/* Zeroes bytes [*offset, end), which are past the size that requests see now (shrinking). *offset
 * moves up to what was not done. On v's reactor. VP_E_NO_SPACE at once in a full pool: it does not
 * wait for room. */
CO int volume_zero_tail(struct volume *v, uint64_t *offset, uint64_t end) must_check;

/* ---- errors.c ----------------------------------------------------------------------------- */

/* Goes on with the counters of errors that the pool has; from zero when it has none. */
void volume_errors_load(struct volume *v);

/* ---- resync.c, delete.c, background.c ------------------------------------------------------- */

/* HOME, no yield. v's recovered regions are to be visited. VP_E_NO_MEMORY. */
int volume_resync_add(struct volume *v) must_check;
/* HOME, no yield. They are not any more; harmless where they never were. */
void volume_resync_end(struct volume *v, enum pool_job_state state);
/* HOME. One region of the first volume whose job may go on; *more when there was one. */
CO int volume_resync_step(struct volumes *vs, bool *more) must_check;

/* HOME, no yield. What its chunks take, of one copy. */
uint64_t volume_allocated_bytes(struct volume *v);

/* walk.c */
/* HOME. Makes a pinned volume active, for work that no client asked for. *is_open is false where it
 * is being deleted. VP_E_VOLUME_FAULTED, those of thin_open. */
CO int volume_open_for_work(struct volume *v, bool *is_open) must_check;
struct volume_walk {
    struct volume *v; /* pinned */
    /* CO. On v's reactor, with block locks of blocks [block, block+count), which are whole chunks;
     * some of them are in use. An error ends the walk. */
    int (*window)(struct thin *t, uint64_t block, uint64_t count, void *arg);
    void *arg;
    uint64_t at;    /* block; moves up to what was not done */
    uint64_t bytes; /* at most, about; then: so many were done */
    bool done;      /* there is no chunk left */
    bool makes_way; /* the walk's own: it rests between windows */
};
/* HOME. Errors: VP_E_VOLUME_FAULTED, those of thin_open, of `window` and of pages. */
CO int volume_walk(struct volume_walk *w) must_check;
/* HOME. Takes the job of a disk that is to be filled, if there is one. VP_E_NO_MEMORY. */
CO int volumes_fill_begin(struct volumes *vs) must_check;
/* HOME. Fills some chunks; *more when there was something to do. */
CO int volumes_fill_step(struct volumes *vs, bool *more) must_check;

/* ---- evacuate.c --------------------------------------------------------------------------- */

/* HOME. One step of the removal of a disk, if one is being removed. */
CO int volumes_evacuate_step(struct volumes *vs, bool *more) must_check;

/* Import: the last scrub, which goes on if it was under way. VP_E_NO_MEMORY. */
int volumes_scrub_load(struct volumes *vs) must_check;
/* HOME. Scrubs some chunks; *more when there was something to do. */
CO int volumes_scrub_step(struct volumes *vs, bool *more) must_check;

/* HOME, no yield. The job of v's deletion, unless v has it. VP_E_NO_MEMORY. */
int volume_delete_take_job(struct volume *v) must_check;
/* HOME, no yield. The bytes that a deletion of v has to give back. */
uint64_t volume_delete_bytes(const struct volume *v);

/* HOME. One step of the deletion of v, which may free it. */
CO int volume_delete_step(struct volume *v) must_check;
bool volume_delete_can_go_on(const struct volume *v);
/* HOME, inside a checkpoint: releases the pages of a volume whose arenas are back. */
CO int volume_delete_pages(struct volume *v) must_check;
int volumes_background_start(struct volumes *vs) must_check;
CO void volumes_background_stop(struct volumes *vs);

#endif
