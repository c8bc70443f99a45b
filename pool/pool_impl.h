/*
 * The inside of a pool, private to pool/. Two halves:
 *
 *     disk side      disk.c label.c scan.c watch.c group.c group_index.c arena.c space.c: disks,
 *                    labels, extents, groups, arenas, leases, ejection, figures
 *     metadata side  record.c batch.c log.c meta.c root.c image.c checkpoint.c import.c pool.c:
 *                    records, log, page store, roots, checkpoints, import, life
 *
 * All of it is touched at home only, except what is marked ANY or _Atomic.
 *
 * The state of disks is durable in the disk table of the *root*, not in records. An ejection is a
 * new root with the same table image and log and one more disk marked out (pool_root_update). So it
 * needs no log, which may be what failed, and "newest root wins" also says which disks count.
 */
#ifndef VP_POOL_POOL_IMPL_H
#define VP_POOL_POOL_IMPL_H

#include "base/bitmap.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/verify.h"
#include "io/device.h"
#include "io/reactor.h"
#include "pool/job.h"
#include "pool/pool.h"
#include "raid/raid.h"

#include <stdatomic.h>

enum {
    /* A label area stands at the start and at the end of every disk. Inside each: labels in the
     * first 64 KiB (label_format.h), root slots from POOL_ROOT_AT (root_format.h), the rest is
     * zero and kept for later. */
    POOL_LABEL_AREA = 1 << 20,
    POOL_ROOT_AT = 64 << 10,
    POOL_ROOT_SLOTS = 8,
    /* Copies of metadata: as many as the widest volumes have, from these up to
     * POOL_META_COPIES_MAX, or as there are disks where these are fewer. */
    POOL_META_COPIES_MIN = 3,
    POOL_LOG_PIECES = 8,
    POOL_DELTAS = 7,
    POOL_RANGES = POOL_DELTAS + 2, /* of each delta; of what follows; while a delta is written */
    POOL_META_PAGES_BITS = 20,     /* page address = group id << 20 | page in the group */
};

/* ==== disks (disk side; the state is written by roots) ====================================== */

enum pool_disk_state {
    POOL_DISK_NONE = 0,   /* it was removed: its number, uuid and extents are not used again */
    POOL_DISK_ONLINE = 1, /* in service                                                */
    POOL_DISK_OUT = 2,    /* ejected, or was missing at an import: never read          */
    POOL_DISK_BEHIND = 3, /* in service again, written, not read until it was filled   */
};

struct pool_disk {
    struct raid_disk io; /* io.owner = this; io.dev NULL when absent; io.index = index */
    struct pool *pool;
    struct vp_uuid uuid;
    enum pool_disk_state state; /* durable (root's disk table)                              */
    uint32_t out_after;         /* durable; OUT with current data: see pool_out_after, or 0 */
    bool read_only;             /* durable; OUT, and a flush failed: its data can be read   */
    bool stale;                 /* was OUT when the pool was opened; its device is here     */
    bool takes_no_roots;        /* out, serves its data, and failed a root: gets no more    */
    bool created;               /* a file that pool_create made                             */
    struct vp_uuid was_uuid;    /* what its label says that it was before it returned (return.c) */
    bool by_request;            /* OUT; an operator took it out, in this life of the pool */
    bool has_most;              /* BEHIND; what it has need not be written again (return.c) */
    bool may_have_lost;         /* what can be read there may never become durable, until it has
                                   all again */
    uint64_t silent_at_ns;      /* when it was told last that it does not answer (hang.c)       */
    uint64_t silence_told_ns;   /* when the log said last that requests wait for it             */
    bool returns;               /* pool_disk_return is at work on it                            */
    unsigned looks;             /* so many look at its device now (watch.c)                     */
    bool leaves;                /* durable; it is being emptied, and gets nothing new (move.c)  */
    uint64_t label_epoch;
    char path[256];
    char reason[128];
    char finding[160];      /* what is wrong with its labels, file or path (watch.c), or "" */
    uint64_t size_bytes;    /* as used: a multiple of 4096                              */
    uint64_t tail_bytes;    /* where the label area at the end starts                   */
    uint32_t extents_total; /* extent i starts at POOL_LABEL_AREA + i × extent_bytes    */
    uint32_t extents_used, extents_meta; /* of all groups, of metadata groups               */
    uint64_t *extent_map; /* bit = extent belongs to a group, or is not yet reusable  */
};

#define POOL_OUT_AFTER_MAX 0xffffffU /* out_after has three bytes on disk */

/* A label as decoded (label_format.h). Labels never change while a pool lives: which disks count is
 * in roots. */
struct pool_label {
    struct vp_uuid pool_uuid, disk_uuid;
    struct vp_uuid was_uuid; /* of the same disk, before it returned; or zero */
    char pool_name[POOL_NAME_MAX + 1];
    uint32_t disk_index, disk_count; /* count: when it was written, for "2 of 3 found"     */
    struct pool_geometry geometry;
    uint64_t size_bytes;
    uint64_t features_compat, features_ro, features_incompat;
    uint64_t epoch;
};

/* A labelled disk that was opened for import, and its root slots. */
struct pool_candidate {
    struct io_dev *dev; /* owned; NULL once pool_disk_adopt took it                        */
    struct pool_label label;
    char path[256];
    uint64_t tail_bytes;
    uint8_t *slots[2]; /* POOL_ROOT_SLOTS × 4 KiB, head's and tail's; unread ones are zero  */
    uint8_t unread[2]; /* a bit for each                                                   */
    bool gone;         /* the disk went away after it was opened                           */
    bool busy;         /* somebody else has it, as `err` says: `dev` is only for looking   */

    /* while it is opened, in a coroutine of its own (scan.c) */
    struct list link; /* among the silent disks, or nowhere */
    struct vp_error err;
    int rc;
    bool ended;
    struct co_queue end;
};

/* ==== groups (disk side) ==================================================================== */

enum pool_group_role { POOL_GROUP_DATA = 1, POOL_GROUP_META = 2 };

/* Of a group, and summed up over all. */
struct pool_group_figures {
    uint64_t leased_bytes;               /* arenas of volumes                               */
    uint64_t open_bytes, writable_bytes; /* arenas that can be leased: raw; by data of the
                                              pool's own profile                             */
};
struct pool_open_groups;
struct pool_meta_group;

/*
 * Never moves and, for metadata, never goes while the pool is open. `raid` is what I/O uses; any
 * reactor may look. `disk` and `extent` are what the next GROUP record says. group ids start at 1.
 */
struct pool_group {
    struct raid_group *_Atomic raid; /* &first, or a pool_members.raid (members.c) */
    enum pool_group_role role;
    struct pool_disk *disk[RAID_WIDTH_MAX];
    uint32_t extent[RAID_WIDTH_MAX];
    /* the disk side's own: slots, arenas, owners … */
    struct list link;       /* in pool.groups or pool.meta_groups */
    struct list open_link;  /* in one of pool_open_groups.disk, or nowhere */
    struct list empty_link; /* in pool_space_map.empty, or nowhere */
    struct list due_link;   /* in pool_space_map.due, or nowhere */
    uint64_t first_slot;
    uint32_t slots, arena_chunks;
    uint32_t arenas, arenas_leased, arenas_held;
    uint32_t *arena_owner;        /* volume id, 0 = free; both stand behind the struct           */
    uint64_t *held_map;           /* bit: returned, not durable yet                              */
    struct pool_open_groups *kin; /* groups of its profile; NULL for metadata            */
    struct pool_group_figures counted; /* what the pool's sums have of it               */
    struct pool_meta_group *meta;      /* metadata: once it is attached (meta.c)              */
    struct pool_move *move;            /* of one of its members; NULL (move.c)                */
    struct raid_group first;           /* the members that it was formed with                 */
};

/* Other members of a group (members.c). */
struct pool_members {
    struct list link; /* pool_space_map.outdated, once others took their place */
    struct raid_group raid;
};

/* A member of a data group on its way to another disk (move.c). */
struct pool_move {
    struct list link; /* pool_moves.all */
    struct pool_group *group;
    unsigned member;
    struct pool_disk *from_disk, *to;
    uint32_t from, extent;    /* the member was there, on from_disk; the target is here, on `to`  */
    struct raid_group *after; /* the group's members when it has ended; NULL: it has              */
    bool ended;               /* it was recorded, or given up: an extent is to be freed           */
    bool is_member;           /* it was recorded                                                  */
    bool freed;               /* too early: a test (GUARD_MOVE_BEFORE_FREE)                       */
};

struct pool_moves {
    struct list all;
    unsigned count;
};

/* ==== records (metadata side) =============================================================== */

struct pool_records {
    struct hash table;                       /* by hash of (kind, scope, key)             */
    struct list kind[POOL_RECORD_TABLE_MAX]; /* all records of a kind                     */
    uint64_t bytes[POOL_RECORD_TABLE_MAX];   /* encoded size of each kind, for room       */
    /* What the last full table image has not: records that were set or deleted since, in the order
     * of their last change. Range i holds the changes from from[i] on, up to the next range, and
     * delta i has them (image.c). The last range is what no image has. */
    struct list changed;
    uint32_t epoch, from[POOL_RANGES];
    uint64_t range_bytes[POOL_RANGES]; /* encoded size                                    */
    unsigned ranges;                   /* 0: the full image is being read                 */
    bool loading;                      /* an image is being read                          */
    uint32_t encode_from;     /* 0: all records                                           */
    struct list *encode_next; /* where pool_records_encode_some goes on; NULL: nowhere    */
    unsigned encode_kind;     /* all: in the list of this kind                            */
};

/* ==== log (metadata side) =================================================================== */

/* Where a page is on every copy: found without any record, so that import can start. */
struct pool_place {
    unsigned copies;
    uint16_t disk[POOL_META_COPIES_MAX];
    uint64_t at_bytes[POOL_META_COPIES_MAX];
};

/* A run of metadata pages that holds a part of a log or a table image. */
struct pool_segment {
    struct pool_place place;
    uint32_t pages;
};

struct pool_log_piece {
    struct pool_segment start;
    uint64_t stream;
    uint64_t first_seq;
    uint64_t last_seq; /* POOL_LOG_OPEN: where it ends is found by walking it */
};
#define POOL_LOG_OPEN UINT64_MAX

/* The place where batches of one stream are appended: the log's, or a table image's being
 * written. */
struct pool_stream {
    uint64_t id;
    uint64_t next_seq;
    struct pool_segment segment;
    uint32_t used_pages;  /* of the segment                                          */
    uint64_t total_pages; /* written since the stream, or the log's cut, began       */
    uint8_t *buf;         /* a segment and one page for the JUMP, aligned; owned     */
    bool durable;         /* every batch by FUA; else by the flush before the root   */
};

struct pool_log {
    struct pool_stream stream;
    _Atomic uint64_t durable_seq; /* of the last run's last batch: durable, and all before */
    struct list queue; /* struct log_entry: commits that wait for a writer                */
    struct list owned; /* those of them that pool_log_append_nowait allocated             */
    uint64_t queued_bytes;
    bool writing;         /* one writer at a time                                         */
    bool group_due;       /* queued: the record of a new metadata group (log.c, L3)       */
    struct co_queue idle; /* waits to take the writer's place */
    uint64_t limit_pages; /* a checkpoint is requested beyond                             */
    uint64_t cut_pages;   /* before the last cut, while its checkpoint is under way       */
};

/* ==== page store (metadata side) ============================================================ */

/* Which pages of a metadata group are in use. All but `used` are subsets of it. */
struct pool_meta_group {
    struct pool_group *group;
    unsigned index; /* in pool_meta.group                                             */
    uint32_t pages, free;
    uint32_t next; /* where the next search starts                                 */
    uint64_t *used;
    uint64_t *segment;  /* log and table images: not in METAMAP records                    */
    uint64_t *released; /* not needed by the next root                                  */
    uint64_t *freeing;  /* not needed by the root under way: free when it is durable    */
    uint64_t *young;    /* tree pages and table images that no durable root names yet      */
    bool touched;       /* a tree's page was taken or released since the last METAMAP record */
    uint32_t changed;   /* the epoch (pool_records) of the last record that said so        */
    bool allocated;     /* in the file systems below (preallocate.c)                       */
    bool closed;        /* a member leaves it now (leave.c): no segment is taken there     */
};

struct pool_meta {
    struct pool_meta_group **group; /* in the order of formation                    */
    unsigned groups, capacity;
    unsigned first; /* no group before this one has a free page                       */
    uint64_t pages_total, pages_free;
    uint64_t formable_pages; /* of groups that free extents would give                */
    bool full_below;         /* told that a file system below has no room for a group      */
    uint64_t replayed_pages; /* in `dirty` for what import replayed, until a checkpoint  */
    _Atomic int64_t room;    /* pages that may become dirty, dirty ones included      */
    _Atomic int64_t working; /* beyond: for changes of what is there                  */
    _Atomic int64_t dirty;   /* tree and log pages that are due by the next checkpoint */
};

/* ==== root and checkpoint (metadata side) =================================================== */

struct pool_table_image_ref {
    struct pool_segment start;
    uint64_t stream;
    uint64_t batches; /* numbered 1 … batches */
};

/* A full image of the table or a delta (checkpoint.c): where all of it lies. */
struct pool_image {
    struct pool_segment *segment; /* owned */
    unsigned segments, capacity;
};

/* What the last durable root says, but for the disk table, which is p->disk[]. */
struct pool_root {
    uint64_t number;
    uint32_t checkpoint; /* number of the checkpoint that made its table image              */
    bool exported;
    struct pool_table_image_ref table_image;
    struct pool_table_image_ref delta[POOL_DELTAS]; /* to be applied to it, in this order   */
    unsigned deltas;
    struct pool_log_piece piece[POOL_LOG_PIECES];
    unsigned pieces;
};

struct pool_root_state {
    struct pool_root now;     /* the last durable one                                    */
    struct co_mutex lock;     /* one root is written at a time                           */
    uint64_t durable_changes; /* p->disk_changes that it holds                           */
    uint8_t *page;            /* ROOT_BYTES, aligned                                     */
};

struct pool_checkpoint_state {
    bool running;
    bool exporting;             /* its root says that the pool was exported */
    uint64_t started, finished; /* counts                                                 */
    int rc;                     /* of the last finished one                               */
    struct co_queue done;       /* woken at the end of each                               */
    uint64_t ended_ns, took_ns; /* the last one                                           */
    _Atomic bool requested;     /* since the last one began                               */
    _Atomic bool task;          /* the background task exists                             */
    struct co *sleeper;         /* that task, while it sleeps after a failure             */
    /* of root.now: the full one, then its deltas */
    struct pool_image image[1 + POOL_DELTAS];
    unsigned images;
    /* the image being written; here so that a power cut can free them */
    struct pool_image writing;
    struct pool_batch records;
    struct pool_stream stream;
    /* a metadata group that gets a member, and a buffer (widen.c); here for the same reason */
    struct raid_group *wider;
    uint8_t *copy;
    struct pool_disk *fill;    /* the next one gives it all metadata (fill.c); NULL */
    struct pool_disk *leave;   /* the next one moves members of metadata groups from it (leave.c) */
    int leave_rc;              /* … and did so, or why not                          */
    bool filled;               /* … has done so                                       */
    bool renew;                /* the next one writes a full image                    */
    unsigned held_off;         /* by so many (scrub.c): none begins … */
    struct co_queue may_begin; /* … until this is woken            */
};

/* ==== the pool ============================================================================== */

struct pool {
    char name[POOL_NAME_MAX + 1];
    struct vp_uuid uuid;
    struct pool_geometry geometry;
    uint64_t features_compat, features_ro, features_incompat;
    struct raid_profile default_profile; /* also in every root */
    unsigned promised; /* members of the widest group that volumes may form, if that is more than of
                          the default profile; also in every root */
    struct co_mutex promising; /* one promise is made at a time */
    bool wide; /* metadata may have more than LOG_PLACES copies, also without a promise */
    struct reactor *home;
    struct pool_client client;
    _Atomic bool fenced;
    _Atomic bool disk_left; /* some disk was ejected since the import, or serves data only */
    _Atomic bool closing;

    /* disk side */
    struct pool_disk disk[POOL_DISKS_MAX];
    struct raid_disk *raid_disk[POOL_DISKS_MAX];
    _Atomic unsigned disk_count;  /* grows when a disk is added, which is complete then; ANY */
    uint64_t disk_changes;        /* counts changes of the disk table                         */
    bool adding;                  /* a command adds a disk */
    struct list retired;          /* struct pool_retired: devices in whose place is another     */
    struct list groups;           /* struct pool_group: all that hold data                     */
    struct list meta_groups;      /* … and metadata, which are few                            */
    struct pool_space_map *space; /* disk side's own: group and arena look-up from any reactor */
    struct co_queue room;         /* pool_wait_for_room                                        */

    /* metadata side */
    struct pool_records records;
    struct pool_log log;
    struct pool_meta meta;
    struct pool_root_state root;
    struct pool_checkpoint_state checkpoint;
    struct pool_import_state *import; /* while importing */

    struct pool_jobs jobs;   /* job.c */
    struct pool_moves moves; /* move.c */

    /* Reads and writes of tree pages under way, by the phase in which they began: any reactor
     * (meta.c, pool_pages_barrier). */
    _Atomic uint32_t page_users[2], page_phase;
};

/* ==== what the disk side offers ============================================================= */

/* Before anything else of the disk side, on a zeroed struct pool. */
void pool_disks_init(struct pool *p);

/*
 * For pool_create: opens (creates, with create_size_bytes) the disks, refuses those that hold
 * something, fills in p->disk[0 … count-1] with fresh uuids, chooses the zero fields of
 * p->geometry by size. Writes nothing that an old content would miss (no label yet).
 */
CO int pool_disks_create(struct pool *p, const struct pool_create_options *o,
                         const char *const *paths, unsigned count, struct vp_error *err) must_check;
/* After a failed pool_create: the files that it created go. */
CO void pool_disks_remove_created(struct pool *p);
/* Zeros both label areas (root slots too); then, after the first root is durable, the labels. Both
 * durable on return. */
CO int pool_disks_wipe(struct pool *p, struct vp_error *err) must_check;
CO int pool_labels_write(struct pool *p, struct vp_error *err) must_check;

/*
 * For pool_import: opens the disks that have a label. A file without a label, and a disk of another
 * pool than the first path's, are an error with a sentence. A disk whose label cannot be read any
 * more, and a disk that is silent for 20 s, are left out with a warning, as long as another disk is
 * there. *out is malloc'ed. It always holds what is open so far, so that it can be freed after a
 * power cut; it is NULL after an error.
 */
CO int pool_candidates_open(const char *const *paths, unsigned count, struct pool_candidate ***out,
                            unsigned *out_count, struct vp_error *err) must_check;
CO void pool_candidates_free(struct pool_candidate **c,
                             unsigned count); /* closes what was not adopted */

/* Makes p->disk[index] (uuid, state, size and extents set from the root's table before) usable:
 * raid_disk, path, extent map (empty), in_service when ONLINE. Takes c->dev. */
int pool_disk_adopt(struct pool *p, unsigned index, struct pool_candidate *c) must_check;
/* The same for an entry of the table whose disk is not here. */
int pool_disk_adopt_missing(struct pool *p, unsigned index, const char *reason) must_check;

/* Import, once all records are replayed: builds groups, extent maps and arenas from the GROUP
 * records. VP_E_RECORD_BAD with a sentence. */
CO int pool_groups_load(struct pool *p, struct vp_error *err) must_check;

/*
 * Forms a group from the disks with most room: takes extents, adds the GROUP record to *b (which
 * the caller commits, or gives to pool_log_append_nowait). No yield, no I/O. Data groups leave
 * pool_meta_reserve_groups(p) metadata groups formable. VP_E_NO_SPACE, VP_E_NO_MEMORY.
 */
int pool_group_form(struct pool *p, enum pool_group_role role, struct raid_profile profile,
                    unsigned spread, struct pool_batch *b, struct pool_group **out) must_check;
/* Undoes pool_group_form whose record was not queued, or gives back an empty group whose record the
 * caller deletes. */
void pool_group_drop(struct pool *p, struct pool_group *g);
void pool_group_free(struct pool_group *g);
/* Import: forms the metadata group in which `at` lies again, and adds its record to b; its extents
 * must be free. VP_E_SEGMENT_BAD, VP_E_NO_MEMORY. */
int pool_group_adopt(struct pool *p, const struct pool_place *at, struct pool_batch *b) must_check;
/* ANY, no yield. NULL when there is none. */
struct pool_group *pool_group_find(struct pool *p, uint32_t id);
/* Data groups of `width` members that the free extents of disks in service would give, or all of
 * theirs. */
unsigned pool_groups_formable(const struct pool *p, unsigned width);
unsigned pool_groups_of_all(const struct pool *p, unsigned width);
/* The same for metadata groups, of fewer copies where that is what there is. */
unsigned pool_meta_groups_formable(const struct pool *p);
unsigned pool_meta_groups_of_all(const struct pool *p);

/* Home, no yield. The first half of an ejection, in memory: state OUT, not in service, reason, a
 * line in the log, ++p->disk_changes. VP_E_POOL_FENCED when no disk would be left in service (then
 * it changes nothing). Idempotent. */
int pool_disk_mark_out(struct pool *p, struct pool_disk *d, int rc, const char *why) must_check;

/* ANY. Whether a disk on which the durable root counts failed a flush. Then nothing that was not
 * flushed may be believed any more, also not by the next import. */
bool pool_disks_lost_writes(const struct pool *p);

/* Of a root's number, what fits beside a disk's state in the root: never 0. */
static inline uint32_t pool_out_after(uint64_t root_number)
{
    return 1 + (uint32_t)(root_number % POOL_OUT_AFTER_MAX);
}

/*
 * Home. Takes a disk out: pool_disk_mark_out, then pool_root_update. The root is written also when
 * the disk was marked already, because each caller returns only once the ejection is durable.
 * VP_E_POOL_FENCED: no metadata would be left. raid_disk.eject of every disk comes here (by
 * reactor_call from elsewhere).
 */
CO int pool_disk_eject(struct pool *p, struct pool_disk *d, int rc, const char *why) must_check;
/* Closes devices, frees disks, groups, arenas. No I/O. */
CO void pool_disks_fini(struct pool *p);
/* Before it: frees up to `count` groups. False when none is left. From the first call on nobody
 * looks at groups. */
bool pool_groups_free_some(struct pool *p, unsigned count);
/* After metadata groups were formed or extents freed: recompute what waits for room. No yield. */
void pool_space_changed(struct pool *p);

/* ==== what the metadata side offers ========================================================= */

/* The disks and the default profile are known: room in the table of records for a GROUP record of
 * all that they can hold. */
void pool_records_reserve(struct pool *p);

/* Applies the records and queues them, so they come in the log before anything that is committed
 * afterwards. No yield, no I/O. Takes the batch's bytes (the batch is empty afterwards).
 * VP_E_NO_MEMORY: nothing was applied. */
int pool_log_append_nowait(struct pool *p, struct pool_batch *b) must_check;
/* pool_commit for callers that are at home already. */
CO int pool_commit_home(struct pool *p, struct pool_batch *b) must_check;

/* Writes a root with the present disk table, same table image and log; disks that fail it are taken
 * out as well. Durable on return. VP_E_POOL_FENCED: no disk could be written. */
CO int pool_root_update(struct pool *p) must_check;

/* The number of metadata groups that data must leave formable: a share of the pool, or as many as
 * promised metadata need (pool_meta_has_room). */
unsigned pool_meta_reserve_groups(const struct pool *p);
/* Import: a data group has so many members. */
void pool_promise_found(struct pool *p, unsigned width);
/* Whether the next root needs ROOT_FEATURE_WIDE; and looks whether some metadata group does, of
 * those that are known. */
bool pool_is_wide(const struct pool *p);
void pool_wide_update(struct pool *p);
/* Copies that metadata must have, so that they survive what the pool's widest groups survive; and
 * those that a metadata group gets now, with the disks that are in service. */
unsigned pool_meta_copies_wanted(const struct pool *p);
unsigned pool_meta_copies(const struct pool *p);
/* Copies without which a promise does not hold, as far as there are disks: fewer than
 * pool_meta_copies where no group has so many. */
unsigned pool_meta_copies_promised(const struct pool *p);
/* Some metadata group has fewer. */
bool pool_meta_is_narrow(const struct pool *p);
/* Pages of metadata, for figures; room: that may become dirty, those that are included. */
void pool_meta_usage(const struct pool *p, uint64_t *total, uint64_t *used, uint64_t *room);
/* Recomputes what pool_meta_has_room answers and the log's limit: when extents are taken or given
 * back, or a disk goes. No yield. */
void pool_meta_room_update(struct pool *p);

/* Nothing is acknowledged from now on; reads go on. Says why in the log, once. Where unflushed
 * writes may be lost, what was kept is forgotten (keep.h, K3). */
void pool_fence(struct pool *p, const char *why);
static inline bool pool_is_fenced(const struct pool *p)
{
    return atomic_load_explicit(&p->fenced, memory_order_acquire);
}

/* Frees records, log, page store. No I/O. */
CO void pool_meta_fini(struct pool *p);

#endif
