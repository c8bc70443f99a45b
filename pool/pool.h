/*
 * The pool: disks, extents, groups, arenas, and the metadata on which everything above rests.
 *
 * Threads: a pool has a home reactor. Functions marked HOME run there. Functions marked ANY run on
 * any reactor (they go home by reactor_call where needed). pool->records, the content of the group
 * table, and disk states change only at home.
 *
 * Words: docs/glossary.md. Algorithms, orderings, recovery: docs/design.md. Bytes: docs/format.md.
 */
#ifndef VP_POOL_POOL_H
#define VP_POOL_POOL_H

#include "base/bytes.h"
#include "base/error.h"
#include "io/co.h"
#include "io/reactor.h"
#include "raid/raid.h"

#include <stdbool.h>
#include <stdint.h>

#define POOL_BLOCK           4096U
#define POOL_NAME_MAX        63
#define POOL_DISKS_MAX       96
#define POOL_META_COPIES_MAX 5   /* copies of metadata, at most */
#define POOL_ARENA_CHUNKS    64U /* at most; the width of an arena's bitmap */

struct pool;

/* A chunk's address in the pool: arena number × 64 + index in the arena. 0 is never a chunk. */
struct pchunk {
    uint64_t n;
};
static inline uint64_t pchunk_arena(struct pchunk c)
{
    return c.n / POOL_ARENA_CHUNKS;
}
static inline unsigned pchunk_index(struct pchunk c)
{
    return (unsigned)(c.n % POOL_ARENA_CHUNKS);
}
static inline struct pchunk pchunk_make(uint64_t arena, unsigned index)
{
    return (struct pchunk){arena * POOL_ARENA_CHUNKS + index};
}

struct pool_geometry {
    uint32_t chunk_bytes;       /* 16 KiB … 1 MiB, a power of two                          */
    uint32_t extent_bytes;      /* 1 MiB … 1 GiB, a power of two                           */
    uint32_t log_segment_bytes; /* 16 KiB … 1 MiB, a power of two, ≤ extent_bytes          */
};

/* ---- records ------------------------------------------------------------------------------ */

/*
 * All metadata that are not tree pages are records: (kind, scope, key) → value. Records below
 * POOL_RECORD_TABLE_MAX are in the pool's in-memory table and in every table image. MAP and SPACE
 * records exist only in the log and change trees. A record sets an absolute value, so replaying it
 * twice is harmless.
 */
enum pool_record_kind {
    POOL_RECORD_DISK = 1,       /* key: disk index                                  pool/    */
    POOL_RECORD_GROUP = 2,      /* key: group id                                    pool/    */
    POOL_RECORD_METAMAP = 3,    /* key: group id; table images only                    pool/    */
    POOL_RECORD_PROPERTY = 4,   /* key: hash of the name; value: "name=value"       pool/    */
    POOL_RECORD_VOLUME = 5,     /* scope: volume id                                 volumes/ */
    POOL_RECORD_TREE = 6,       /* scope: volume id, key: enum pool_tree; table images thin/    */
    POOL_RECORD_STAT = 7,       /* scope: volume id: allocation counters            thin/    */
    POOL_RECORD_INTENT = 8,     /* scope: volume id, key: word number of a bitmap   thin/    */
    POOL_RECORD_ATTACHMENT = 9, /* key: attachment id                               control/ */
    POOL_RECORD_COUNTER = 10,   /* key: which; value: le64 (next volume id …)       any      */
    POOL_RECORD_TABLE_MAX = 16,
    POOL_RECORD_MAP = 16,   /* scope: volume id, key: vchunk, value: map entry      thin/    */
    POOL_RECORD_SPACE = 17, /* scope: volume id, key: arena, value: le64 bitmap     thin/    */
};
enum pool_tree { POOL_TREE_MAP = 0, POOL_TREE_SPACE = 1 };
/* The COUNTER record of a volume's commits so far (keep.h), with the volume's id as its scope. */
#define POOL_COUNTER_COMMITS  2U

#define POOL_RECORD_VALUE_MAX 32768U

/*
 * A list of records that become durable together or not at all. Caller's storage; memory grows
 * (control path and commits only). After an allocation failure the commit fails cleanly.
 */
struct pool_batch {
    uint8_t *bytes; /* encoded records */
    size_t len, capacity;
    unsigned count;
    bool failed;
    bool borrowed; /* the memory is somebody else's, and does not grow */
};
void pool_batch_init(struct pool_batch *b);
void pool_batch_fini(struct pool_batch *b);
void pool_batch_clear(struct pool_batch *b);
/* Makes room for `capacity` bytes of records, memory included. The room stays until
 * pool_batch_fini. False when there is no memory; the batch is as it was then. */
bool pool_batch_take_memory(struct pool_batch *b, size_t capacity) must_check;
void pool_batch_set(struct pool_batch *b, enum pool_record_kind kind, uint32_t scope, uint64_t key,
                    const void *value, size_t len);
void pool_batch_delete(struct pool_batch *b, enum pool_record_kind kind, uint32_t scope,
                       uint64_t key);

/*
 * ANY. Applies table records in memory and makes the batch durable in the log, together with other
 * commits of the same moment (group commit). When it returns 0, the batch and every batch committed
 * before are durable (GUARD_LOG_FLUSH). Batches become durable in the order in which their commits
 * reached home. Errors: VP_E_POOL_FENCED (no copy of the log can be written any more: nothing more
 * is acknowledged), VP_E_NO_MEMORY.
 */
CO int pool_commit(struct pool *p, struct pool_batch *b) must_check;

struct pool_record {
    uint16_t kind;
    uint32_t scope;
    uint64_t key;
    const void *value; /* borrowed until the next CO call or commit */
    uint32_t len;
};
/* Walks the records of a batch, from *at = 0 on: 1 with the next one (its value borrowed from the
 * batch), 0 at the end, VP_E_RECORD_BAD. */
int pool_batch_next(const struct pool_batch *b, size_t *at, struct pool_record *out,
                    bool *is_delete) must_check;
/* HOME. False when there is no such record. */
bool pool_record_get(struct pool *p, enum pool_record_kind kind, uint32_t scope, uint64_t key,
                     struct pool_record *out);
/* HOME. Calls fn for every record of the kind (in no order) until it returns non-zero, which is
 * returned. fn must not yield or change records. */
int pool_record_each(struct pool *p, enum pool_record_kind kind,
                     int (*fn)(const struct pool_record *r, void *arg), void *arg);
/* HOME, inside pool_client.checkpoint only. Changes the table without the log, for records of the
 * table image that is about to be written (TREE records). `value` NULL removes the record. */
int pool_record_put_in_table_image(struct pool *p, enum pool_record_kind kind, uint32_t scope,
                                   uint64_t key, const void *value, size_t len) must_check;

/* ---- arenas (space for chunks) ------------------------------------------------------------ */

struct pool_arena {
    uint64_t number;
    struct raid_group *group; /* as of now: looked up anew for each use, since members move */
    uint64_t at_bytes;        /* of its first chunk in the group's data space                     */
    unsigned chunks; /* ≤ POOL_ARENA_CHUNKS                                              */
};

/*
 * ANY. Leases a free arena of the profile to family `owner`. When no arena is free, forms a group
 * from the disks with most room. `spread` rotates over disks: pass 0, 1, 2 … for successive leases,
 * so that successive chunks are on successive disks. The lease is durable when it returns
 * (GUARD_LEASE_BEFORE_USE). Errors: VP_E_NO_SPACE (what is left is reserved for metadata, or no set
 * of disks has room), VP_E_POOL_FENCED.
 */
CO int pool_arena_lease(struct pool *p, uint32_t owner, struct raid_profile profile,
                        unsigned spread, struct pool_arena *out) must_check;
/* The same for many arenas at once, in one run of the log: up to `wanted` and POOL_LEASE_MANY. *got
 * says how many were leased, and pool_arena_list says which. VP_E_NO_SPACE only when there is
 * none. */
enum { POOL_LEASE_MANY = 1024 };
CO int pool_arena_lease_many(struct pool *p, uint32_t owner, struct raid_profile profile,
                             unsigned spread, unsigned wanted, unsigned *got) must_check;
/* The same for up to `wanted` arenas that are not needed yet, in one commit, as long as the pool's
 * level is ok. *got says how many were leased; it may be 0. */
CO int pool_arena_lease_ahead(struct pool *p, uint32_t owner, struct raid_profile profile,
                              unsigned spread, struct pool_arena *out, unsigned wanted,
                              unsigned *got) must_check;
/* ANY. Gives arenas back. They are leased again only once the return is durable
 * (GUARD_FREE_BEFORE_REUSE). The caller committed its own unmapping before. A group without leased
 * arenas gives its extents back. */
CO int pool_arena_return(struct pool *p, uint32_t owner, const uint64_t *numbers,
                         unsigned count) must_check;
/* ANY. Gives back all arenas of a family (volume deletion). */
CO int pool_arena_return_all(struct pool *p, uint32_t owner) must_check;
/* ANY, no yield, data path: where a chunk lies. False when no such arena exists (a damaged map). */
bool pool_chunk_locate(struct pool *p, struct pchunk c, struct raid_group **group,
                       uint64_t *at_bytes);
/* ANY, no yield: the arena's description; false when it does not exist. */
bool pool_arena_find(struct pool *p, uint64_t number, struct pool_arena *out);
/* ANY, no yield: the bytes of data in every arena of a profile. Less than POOL_ARENA_CHUNKS chunks
 * when the data disks do not divide them, or when the extents are small. */
uint64_t pool_arena_bytes(const struct pool *p, struct raid_profile profile);
/* HOME, no yield: how many arenas a family leases. */
uint64_t pool_arena_count(const struct pool *p, uint32_t owner);
/* HOME: its arenas from the number *from on, ascending, into numbers[0 … max-1]; returns how many,
 * and *from moves behind them. Others lease and return meanwhile; the family does not. */
CO size_t pool_arena_list(struct pool *p, uint32_t owner, uint64_t *from, uint64_t *numbers,
                          size_t max);

/*
 * ANY. Asked after the flush of a family's data, before a client is told that the flush succeeded.
 * VP_E_RAID_NO_COPY when the family leases arenas in a group that cannot be read any more and that
 * lost writes which no flush had covered. A mirror has these writes elsewhere. Without this
 * question a later flush, which finds the disk out of service, would succeed.
 */
CO int pool_flush_check(struct pool *p, uint32_t owner) must_check;

/* ANY. Waits for room, in a queue at home that is woken whenever arenas become free. Returns after
 * a wake-up; the caller tries again. VP_E_CANCELLED when the pool closes. */
CO int pool_wait_for_room(struct pool *p) must_check;

/* ---- metadata pages (page store, copy-on-write) ------------------------------------------- */

#define POOL_PAGE 4096U

/* A pointer to a page: its address, its checksum, and the checkpoint that wrote it. addr 0 means no
 * page. This is the form in memory; thin/ stores it as struct thin_page_ref_disk. */
struct pool_page_ref {
    uint64_t addr;
    uint32_t crc;
    uint32_t generation;
};

/* ANY. Reads and verifies a page (GUARD_PAGE_CHECKSUM), and heals copies that do not match the
 * pointer. `buf` is POOL_PAGE bytes, aligned. Errors: VP_E_PAGE_DAMAGED; VP_E_PAGE_UNREADABLE,
 * which says nothing about the page: two tries failed, and a later one may succeed. */
CO int pool_page_read(struct pool *p, struct pool_page_ref ref, void *buf) must_check;
/* ANY. Writes `count` pages (each to all copies) in parallel; durable only at the checkpoint's
 * flush. */
CO int pool_page_write(struct pool *p, const uint64_t *addr, void *const *pages,
                       unsigned count) must_check;
/* ANY. Allocates pages for a checkpoint. Never fails for lack of room as long as
 * pool_meta_has_room was respected. */
CO int pool_page_alloc(struct pool *p, unsigned count, uint64_t *addr) must_check;
/* ANY. Releases pages that the next root no longer needs. They are used again once that root is
 * durable (GUARD_ROOT_BEFORE_RELEASE). */
CO void pool_page_release(struct pool *p, const uint64_t *addr, unsigned count);
/*
 * ANY, no yield. Whether `new_pages` more metadata pages may become dirty, so that the next
 * checkpoint and the log still find room. When false, a write that needs new metadata is out of
 * space, and a checkpoint is requested.
 */
bool pool_meta_has_room(struct pool *p, uint64_t new_pages);
/*
 * ANY, no yield. The same for changes that use no more pages after a checkpoint than before. When
 * false, such a change waits for a checkpoint and holds nothing meanwhile. When the room is
 * exhausted no checkpoint would help, and the change is out of space.
 */
bool pool_meta_may_change(struct pool *p, uint64_t pages);
bool pool_meta_is_exhausted(struct pool *p, uint64_t pages);
/* ANY, no yield. `pages` more (fewer, when negative) pages of trees and records are to be written
 * by the next checkpoint. pool_meta_has_room counts them. */
void pool_meta_dirty_add(struct pool *p, int64_t pages);

/* ---- checkpoints --------------------------------------------------------------------------- */

/* What the layer above (volumes/) does for the pool. All at HOME; CO unless noted. */
struct pool_client {
    void *arg;
    /* Import: a MAP or SPACE record of the log, in order. No yield. `value` is borrowed. */
    int (*replay)(void *arg, enum pool_record_kind kind, bool is_delete, uint32_t scope,
                  uint64_t key, const void *value, uint32_t len);
    /*
     * Writes every dirty tree page (pool_page_alloc/write/release), then commits all families (data
     * flush + pool_commit). Then it puts TREE records by pool_record_put_in_table_image, and
     * removes INTENT records of quiet regions in the same way. New writes go on meanwhile.
     */
    int (*checkpoint)(void *arg);
    /* A checkpoint failed. Ends every wait for pages to become clean. May be NULL. */
    void (*checkpoint_failed)(void *arg, int rc);
};
void pool_set_client(struct pool *p, const struct pool_client *client);

/* ANY. Writes a checkpoint now. If one is under way, joins it and then makes one that starts after
 * this call. Errors: VP_E_POOL_FENCED, or a damaged page that could not be loaded. */
CO int pool_checkpoint(struct pool *p) must_check;
/*
 * HOME. Scrubbing pages (scrub.c): from the end of the first call to the second no checkpoint is
 * under way, and references that are read in memory meanwhile are right. The first one waits for a
 * checkpoint (io/hold.h); the caller waits for devices only until the second.
 */
CO void pool_checkpoints_hold_off(struct pool *p);
void pool_checkpoints_go_on(struct pool *p);
/* In between: compares all copies of the pages with their checksums, and heals. `buf` has room for
 * them, aligned. The `piece` of a finding is the index of the reference. VP_E_PAGE_DAMAGED: a
 * reference points nowhere. */
#define POOL_PAGES_SCRUB_MAX 16
CO int pool_pages_scrub(struct pool *p, const struct pool_page_ref *ref, unsigned count, void *buf,
                        struct raid_scrub *s) must_check;
/* HOME. A checkpoint that writes all records anew: what the log and the image were before need not
 * be read any more. Errors: those of pool_checkpoint. */
CO int pool_metadata_renew(struct pool *p) must_check;
/*
 * ANY, no yield. Asks for a checkpoint that begins after this call. It is tried until it succeeds,
 * and the client is told of each failure. Errors mean that there will be none: VP_E_POOL_FENCED;
 * VP_E_SHUTDOWN; VP_E_AGAIN (home's mailbox is full).
 */
int pool_checkpoint_ask(struct pool *p) must_check;
/* The same, for a caller that does not rely on it. */
void pool_checkpoint_request(struct pool *p);
/* HOME. Stops checkpoints in the background; one under way has ended on return. Call it before the
 * client gives up what its `checkpoint` uses. pool_close and pool_destroy call it, too. It waits
 * for a checkpoint (io/hold.h). */
CO void pool_checkpoints_stop(struct pool *p);
/* HOME: number of the last completed checkpoint; becomes `generation` of pages. */
uint32_t pool_checkpoint_number(const struct pool *p);
/* HOME: how long the last one took, from beginning to end. */
uint64_t pool_checkpoint_took_ns(const struct pool *p);

/* ---- life ---------------------------------------------------------------------------------- */

struct pool_create_options {
    const char *name;
    struct raid_profile profile;   /* default for volumes                                  */
    struct pool_geometry geometry; /* zero fields: chosen by size                          */
    uint64_t create_size_bytes;    /* > 0: missing files are created, sparse, of this size */
    bool force;                    /* overwrite what blkid recognises                      */
    const char *const *properties; /* "key=value" strings                                  */
    unsigned property_count;
};

/* HOME is the calling reactor for all of these. Errors carry a sentence. The pool is created and
 * left open. While pool_create and pool_import run, *out is what pool_abandon has to free if they
 * never return (a simulated power cut). After an error *out is NULL. Errors: VP_E_DISK_HOLDS_DATA,
 * VP_E_DISK_TOO_SMALL, VP_E_DISK_TOO_FEW, VP_E_EXISTS… */
CO int pool_create(const struct pool_create_options *o, const char *const *paths, unsigned count,
                   struct pool **out, struct vp_error *err) must_check;

struct pool_found { /* a pool seen while scanning */
    struct vp_uuid uuid;
    char name[POOL_NAME_MAX + 1];
    unsigned disks_total, disks_found;
    /* More than disks_found when some are copies of one disk; an import of them is refused. */
    char paths[POOL_DISKS_MAX][256];
    struct {
        struct vp_uuid uuid, was;
        unsigned index;
    } label[POOL_DISKS_MAX]; /* of the disk at each path (return.c, B1, B2) */
    unsigned path_count;
};
/* Whether the disk at this path is the one that the pool knows by this uuid. */
bool pool_found_is_disk(const struct pool_found *f, unsigned path, struct vp_uuid disk);
/* Paths that a scan does not even open. Asked on a thread that may wait; NULL for none. */
struct pool_scan_filter {
    bool (*leave_out)(void *arg, const char *path);
    void *arg;
};
/* Looks at the given disks and at all files and block devices of the given directories for labels;
 * *out is malloc'ed, one entry a pool. Unreadable ones are skipped (logged at debug). */
CO int pool_scan(const char *const *paths, unsigned count, const struct pool_scan_filter *filter,
                 struct pool_found **out, unsigned *out_count, struct vp_error *err) must_check;

enum pool_import_flags {
    POOL_IMPORT_DEGRADED = 1, /* also where fewer than half of the disks in service are there: an
                                 operator says that the others are lost (import.c, I4) */
};
/*
 * Opens a pool from its disks: newest root, table image, log replay, new incarnation.
 * `client->replay` is called during the import, so the client is given here. The cost depends on
 * labels, table image and log, never on the size of the pool. Errors: VP_E_POOL_MISSING_DISK,
 * VP_E_ROOT_NONE, VP_E_POOL_ACTIVE, VP_E_FEATURE_UNKNOWN, …
 */
CO int pool_import(const char *const *paths, unsigned count, unsigned flags,
                   const struct pool_client *client, struct pool **out,
                   struct vp_error *err) must_check;

/* Writes a checkpoint and closes the pool. The client has ended its I/O and made a checkpoint. If
 * that one failed there is no other: its error is returned, and the next import is one after a
 * crash. Frees p whatever the result. */
CO int pool_close(struct pool *p, bool mark_exported) must_check;
/* Closes and wipes the labels. */
CO int pool_destroy(struct pool *p, struct vp_error *err) must_check;
/* Simulated power cut or SIGKILL-like end: frees memory, does no I/O. */
CO void pool_abandon(struct pool *p);
/* The same, where others are to have their turns meanwhile. None of them looks at the pool. */
CO void pool_abandon_in_turns(struct pool *p);

/* ---- looking ------------------------------------------------------------------------------- */

const char *pool_name(const struct pool *p);
struct vp_uuid pool_uuid(const struct pool *p);
struct pool_geometry pool_geometry(const struct pool *p);
struct raid_profile pool_default_profile(const struct pool *p);
struct reactor *pool_home(const struct pool *p);
/* All disks, by index, for raid_flush. */
struct raid_disk *const *pool_disks(const struct pool *p, unsigned *count);

enum pool_level { POOL_OK, POOL_WARN, POOL_TIGHT, POOL_FULL };
struct pool_space {
    uint64_t total_bytes;    /* extents of all disks in service × extent size              */
    uint64_t data_bytes;     /* in extents of data groups (raw)                            */
    uint64_t metadata_bytes; /* in extents of metadata groups (raw)                        */
    uint64_t free_bytes;     /* in free extents (raw): total = data + metadata + free      */
    uint64_t reserved_bytes; /* part of free kept for metadata                             */
    uint64_t leased_bytes;   /* leased arenas (usable bytes)                               */
    uint64_t
        writable_bytes; /* what volumes of the default profile can still lease: usable bytes, in
                                groups that can be formed and in open ones                */
    uint64_t unusable_bytes; /* raw bytes that the pool's own profile can never use: its copies
                                are on different disks, and the others are too small       */
    uint64_t meta_pages_total, meta_pages_used;
    uint64_t meta_pages_room; /* for new ones, in groups that are not formed yet too       */
    enum pool_level level;
};
/* HOME. */
void pool_space_get(struct pool *p, struct pool_space *out);
/* HOME. What volumes of this profile can still lease: usable bytes. Of a profile that is not the
 * pool's own only what is in groups that can be formed is counted. */
uint64_t pool_space_for(struct pool *p, struct raid_profile profile);
/* ANY, no yield. Whether pools and volumes with this profile can be created in this release.
 * VP_E_NOT_SUPPORTED with a sentence. */
int pool_profile_check(struct raid_profile profile, struct vp_error *err) must_check;
/* HOME. Before a volume with this profile is created: metadata survive the loss of as many disks on
 * return, also of those to come. It may wait for a checkpoint. VP_E_DISK_TOO_FEW, VP_E_NO_SPACE, or
 * an error of the checkpoint, with a sentence. */
CO int pool_promise(struct pool *p, struct raid_profile profile, struct vp_error *err) must_check;
/* HOME. Members of the widest group that volumes may form; copies of those metadata that have
 * fewest. */
unsigned pool_promised_width(const struct pool *p);
unsigned pool_meta_copies_least(const struct pool *p);
/* HOME. There are disks enough for a group of this profile, were they empty. */
bool pool_profile_fits(struct pool *p, struct raid_profile profile);
/* ANY, no yield: the level as it was last looked at. */
enum pool_level pool_level(const struct pool *p);

struct pool_disk_info {
    unsigned index;
    struct vp_uuid uuid;
    char path[256];
    const char *state; /* "online", "removing", "rebuilding", "ejected", "missing", "stale";
                          "removed": only its number is left                          */
    bool removed;
    bool leaves; /* it is being removed, whatever state it is in */
    char reason[192];
    char finding[160]; /* what is wrong with its labels, its file or its path, or ""              */
    bool full;   /* writes wait: the file system that holds it has no room                     */
    bool silent; /* in service, and it does not answer: what needs it waits                   */
    uint64_t size_bytes;
    uint32_t extents_total, extents_used;
    const struct raid_disk *io; /* counters                                                  */
    bool by_request;            /* out of service, by an operator, in this life of the pool */
};
/* HOME. */
unsigned pool_disk_count(const struct pool *p);
void pool_disk_info_get(const struct pool *p, unsigned i, struct pool_disk_info *out);
/* HOME. Looks whether the disk is still what it was: labels, newest root, file, path. Labels and
 * roots that something else has overwritten are written again. `finding` says what was found. */
CO void pool_disk_look(struct pool *p, unsigned i);

/* ---- disks come and go (return.c, fill.c, add.c) ------------------------------------------- */

/* What comes into service: a disk of the pool that is out, or another device in its place. */
struct pool_return_options {
    unsigned disk;    /* index in the pool                                                       */
    const char *path; /* where the disk is now, or the other device; NULL: where the disk was    */
    bool replace;     /* another device                                                          */
    bool force;   /* … and what is recognised on it may be overwritten                       */
    bool dry_run; /* only looks whether it would be refused                                   */
};
/*
 * HOME. When it returns 0, the disk is in service for writes, durably, and is filled in the
 * background ("rebuilding"). Errors, each with a sentence: VP_E_NOT_FOUND (no such disk, no such
 * path, no path known); VP_E_BUSY (it is in service, or another command works on it);
 * VP_E_RAID_NO_COPY (some of its data would be lost); VP_E_INVALID (that is another disk);
 * VP_E_DISK_TOO_SMALL; VP_E_DISK_HOLDS_DATA; those of io_dev_open, of writes, and VP_E_POOL_FENCED.
 */
CO int pool_disk_return(struct pool *p, const struct pool_return_options *o,
                        struct vp_error *err) must_check;
/* HOME. Takes a disk out of service, durably. Errors, each with a sentence: VP_E_NOT_FOUND;
 * VP_E_BUSY (it is out); VP_E_RAID_NO_COPY (some of its data are nowhere else); VP_E_POOL_FENCED.
 * */
CO int pool_disk_offline(struct pool *p, unsigned disk, struct vp_error *err) must_check;
/* HOME. Only looks whether it would be refused. */
CO int pool_disk_offline_check(struct pool *p, unsigned disk, struct vp_error *err) must_check;

/*
 * HOME. The pool gets one more disk, at `path`. When it returns 0, the disk is in service, durably,
 * under number *index, and counts as soon as it was filled in the background with what it lacks
 * ("rebuilding"): that is little. Errors, each with a sentence: VP_E_BUSY (another command adds
 * one); VP_E_TOO_BIG (there are as many as there can be); VP_E_DISK_TOO_SMALL;
 * VP_E_DISK_HOLDS_DATA, unless `force`; VP_E_RAID_DISK_OUT (it is a disk of the pool now, but has
 * failed); those of io_dev_open, of writes, VP_E_NO_MEMORY and VP_E_POOL_FENCED.
 */
CO int pool_disk_add(struct pool *p, const char *path, bool force, unsigned *index,
                     struct vp_error *err) must_check;

/* HOME. Only looks whether it would be refused. */
CO int pool_disk_add_check(struct pool *p, const char *path, bool force,
                           struct vp_error *err) must_check;

/* HOME. Whether a device could take the place of some disk of the pool: opens it, looks, closes it.
 * `wipe`: what is recognised on it is destroyed. Errors, each with a sentence: VP_E_DISK_TOO_SMALL;
 * VP_E_DISK_HOLDS_DATA, unless `wipe`; those of io_dev_open, and of writes with `wipe`. */
CO int pool_device_check(struct pool *p, const char *path, bool wipe, uint64_t *size_bytes,
                         struct vp_error *err) must_check;

/*
 * A disk is emptied and removed (leave.c, move.c). Everything: HOME.
 *
 *     pool_disk_leave_begin                    it gets nothing new from now on, also after a crash
 *     pool_moves_begin … copy … _commit, _free, until nothing is left to begin
 *     pool_disk_leave_metadata, pool_disk_leave_end, pool_disk_leave_close
 *
 * Whoever copies makes barriers over all users of the pool's groups where move.c says so.
 */
struct pool_leaving {
    unsigned disk;
    struct vp_uuid uuid;
    char path[256];
};
/* What has to move, and whether it finds a place now. */
struct pool_leave_plan {
    uint64_t data_bytes;  /* of volumes, in leased arenas, on the disk                       */
    uint64_t stuck_bytes; /* of extents for which no other disk has room, or all that have it hold
                             another copy of the same data already                          */
};
/* Nothing changes. VP_E_NOT_FOUND; VP_E_BUSY (it leaves already, or another command works on it);
 * VP_E_RAID_NO_COPY (some of its data can be read nowhere now); VP_E_NO_SPACE, with the bytes; each
 * with a sentence. */
CO int pool_disk_leave_check(struct pool *p, unsigned disk, struct pool_leave_plan *plan,
                             struct vp_error *err) must_check;
/* The same, then the disk leaves; durable when it returns. VP_E_POOL_FENCED. */
CO int pool_disk_leave_begin(struct pool *p, unsigned disk, struct vp_error *err) must_check;
/* It stays, with what it has. Moves must have ended. VP_E_POOL_FENCED. */
CO int pool_disk_leave_cancel(struct pool *p, unsigned disk) must_check;
/* No yield. The first such disk from index `from` on; false: there is none. */
bool pool_disk_to_empty(const struct pool *p, unsigned from, struct pool_leaving *out);

/* CO. Of volumes, in leased arenas with a copy on the disk. */
CO uint64_t pool_disk_data_bytes(struct pool *p, unsigned disk);

/* Up to `max` groups get targets elsewhere for their members on the disk. VP_E_NO_MEMORY. */
struct pool_moves_begun {
    unsigned begun;
    unsigned stuck; /* groups for which there is no place now */
};
CO int pool_moves_begin(struct pool *p, unsigned disk, unsigned max,
                        struct pool_moves_begun *out) must_check;
/* The same for moves from disks that are fuller than others to emptier ones (balance.c); nothing is
 * stuck then. */
CO int pool_moves_balance(struct pool *p, unsigned max, struct pool_moves_begun *out) must_check;
/* How many bytes of volumes would move. */
CO uint64_t pool_unbalanced_bytes(struct pool *p);
/* No yield. Each family that has data in a group whose member moves, perhaps more than once. */
void pool_moves_owners(struct pool *p, void (*fn)(void *arg, uint32_t owner), void *arg);
/* No yield. Not all data of the family could be copied: its groups do not move now. */
void pool_moves_owner_failed(struct pool *p, uint32_t owner);
/* No yield. Of families, in groups whose members move. */
uint64_t pool_moves_bytes(const struct pool *p);
/* All has been copied: what is whole moves, the rest stays. *recorded groups moved. Errors: those
 * of pool_commit. */
CO int pool_moves_commit(struct pool *p, unsigned *recorded) must_check;
/* No yield. All stay where they were. */
void pool_moves_give_up(struct pool *p);
/* A barrier: whoever located something in a group before has ended. `users` waits for those above
 * the pool. One at a time. */
CO void pool_barrier(struct pool *p, void (*users)(void *arg), void *arg);
/* No yield. After a barrier: ended moves are forgotten, what they left is free. */
void pool_moves_free(struct pool *p);
bool pool_moves_are_there(const struct pool *p);
/* No data are left on the disk: the metadata go. Makes checkpoints. VP_E_AGAIN: there are data, or
 * metadata that cannot move now; VP_E_NO_SPACE; those of pool_checkpoint. */
CO int pool_disk_leave_metadata(struct pool *p, unsigned disk) must_check;
/* Nothing is left on it: it is no disk of the pool any more, durably, and its labels are gone.
 * VP_E_AGAIN; VP_E_POOL_FENCED. */
CO int pool_disk_leave_end(struct pool *p, unsigned disk) must_check;
/* After a barrier. */
CO void pool_disk_leave_close(struct pool *p, unsigned disk);

/* A disk that is in service and lacks data. */
struct pool_disk_filling {
    unsigned disk;
    struct vp_uuid uuid; /* another return has another one                                       */
    bool returned;       /* it has most of the data already, durably once it was flushed         */
    bool empty;          /* no group has anything there */
    struct raid_disk *io;
    char path[256];
};
/* HOME, no yield. The first such disk from index `from` on; false: there is none. */
bool pool_disk_to_fill(struct pool *p, unsigned from, struct pool_disk_filling *out);
/* HOME. The disk has all data of volumes, durably. Gives it all metadata; then it is current.
 * VP_E_AGAIN: the metadata could not be copied now; VP_E_RAID_DISK_OUT: it has left service; those
 * of pool_checkpoint. Waits for a checkpoint (io/hold.h). */
CO int pool_disk_filled(struct pool *p, unsigned disk) must_check;

/* HOME. Disks that are not in service, or lack data, whatever the reason. */
unsigned pool_disks_out(const struct pool *p);
/* HOME. Calls fn, once or more, for each owner of data that lack a copy because a disk is out.
 * `lost`: some of its data cannot be read at all. fn does not yield. This function does, and groups
 * come and go meanwhile. */
CO void pool_owners_at_risk(struct pool *p, void (*fn)(void *arg, uint32_t owner, bool lost),
                            void *arg);
/* What a loss of disks would cost now. */
struct pool_risk {
    unsigned survives; /* so many disks, whichever, may be lost and no data are             */
    unsigned
        metadata_survives; /* … and the metadata are not: `survives` is no more than that       */
    uint64_t data_bytes;   /* of volumes, in leased arenas …                                    */
    uint64_t degraded_bytes; /* … of which some copy is out of service or incomplete, but not all */
    uint64_t lost_bytes; /* … of which no copy is in service                                  */
};
/* HOME. Looks at all groups, in turns; disks may come and go meanwhile. */
CO struct pool_risk pool_risk_now(struct pool *p);
/* The same, if disk `with` counted, and disk `without` did not. POOL_NO_DISK: none. */
#define POOL_NO_DISK UINT32_MAX
CO struct pool_risk pool_risk_if(struct pool *p, unsigned with, unsigned without);
const char *pool_state(const struct pool *p); /* "online", "degraded", "fenced" */
bool pool_acknowledges(const struct pool *p); /* it is not fenced; ANY, no yield */

/* HOME. Pool properties: "name=value" records; NULL when not set. */
const char *pool_property_get(struct pool *p, const char *name);
CO int pool_property_set(struct pool *p, const char *name, const char *value) must_check;

#endif
