/*
 * Volumes: what clients see. Names and sizes, the request entry (any byte range), block locks,
 * out-of-space policy, placement on reactors; one `struct volumes` per pool.
 *
 * Threads: HOME functions run on the pool's home reactor; a volume's I/O runs on its own reactor
 * (volume_reactor). Errors on the control path carry a sentence.
 */
#ifndef VP_VOLUMES_VOLUME_H
#define VP_VOLUMES_VOLUME_H

#include "base/error.h"
#include "base/figure.h"
#include "io/co.h"
#include "pool/pool.h"
#include "raid/profile.h"
#include "thin/thin.h"

#include <stdbool.h>
#include <stdint.h>

#define VOLUME_NAME_MAX    127
#define VOLUME_REQUEST_MAX (64U << 20)
#define VOLUME_SIZE_MAX    (UINT64_C(1) << 50)

struct volumes;
struct volume;

/* ---- the pool with its volumes -------------------------------------------------------------- */

struct volumes_config {
    struct reactor *const *reactors; /* volumes are spread over these; [0] is the pool's home */
    unsigned reactor_count;
    size_t metadata_bytes; /* bound of page caches, all reactors together; 0 = 256 MiB       */
    unsigned commit_interval_ms; /* what is not flushed by its client is committed this often;
                                    0 = 5000; UINT_MAX = never (tests) */
    bool background;       /* run the background coroutines (commit timer, resync, deletion); the
                        simulator calls volumes_background_step instead */
    unsigned import_flags; /* enum pool_import_flags */
    uint64_t fill_bytes;   /* of a volume, in one step of filling a disk; 0 = 8 MiB */
};

/* HOME. pool_create and pool_import, with the volumes on top. `config` is copied. */
CO int volumes_create(const struct pool_create_options *o, const char *const *paths, unsigned count,
                      const struct volumes_config *config, struct volumes **out,
                      struct vp_error *err) must_check;
CO int volumes_import(const char *const *paths, unsigned count, const struct volumes_config *config,
                      struct volumes **out, struct vp_error *err) must_check;
/* HOME. Ends background work, waits for requests in flight, writes a checkpoint and closes. The
 * caller has stopped the attachments before. Frees vs whatever the result. */
CO int volumes_close(struct volumes *vs, bool mark_exported) must_check;
CO int volumes_destroy(struct volumes *vs, struct vp_error *err) must_check;
/* Simulated power cut: frees memory, no I/O. */
CO void volumes_abandon(struct volumes *vs);
struct pool *volumes_pool(const struct volumes *vs);
/* HOME. A disk came into service (pool_disk_return): its job begins now, with a limit (0: none), or
 * as soon as the step under way and other disks are done. VP_E_NO_MEMORY: it is tried again soon.
 * */
CO int volumes_disk_came(struct volumes *vs, unsigned disk, uint64_t limit) must_check;
/* HOME, no yield. The job that fills the disk; NULL: there is none, or not yet. */
const struct pool_job *volumes_fill_job(const struct volumes *vs, unsigned disk);
/* HOME, no yield. A disk is to be removed (pool_disk_leave_begin): its job begins, with a limit (0:
 * none). VP_E_NO_MEMORY: it is tried again soon. */
int volumes_disk_leaves(struct volumes *vs, uint64_t limit) must_check;
/* HOME, no yield. The disk stays: its job is cancelled soon. VP_E_NOT_FOUND (it is not being
 * removed), with a sentence. */
int volumes_disk_stays(struct volumes *vs, unsigned disk, struct vp_error *err) must_check;
/* HOME, no yield. Data move from fuller disks to emptier ones, as a job with a limit (0: none).
 * VP_E_BUSY (so they do already, or a disk is being removed), VP_E_NO_MEMORY; with a sentence. */
int volumes_balance_start(struct volumes *vs, uint64_t limit, struct vp_error *err) must_check;
/* The same: the job is cancelled soon. VP_E_NOT_FOUND, with a sentence. */
int volumes_balance_stop(struct volumes *vs, struct vp_error *err) must_check;
const struct pool_job *volumes_balance_job(const struct volumes *vs); /* NULL: there is none */
/* HOME, no yield. The job that removes the disk; NULL: there is none, or not yet. */
const struct pool_job *volumes_evacuation_job(const struct volumes *vs, unsigned disk);

enum volumes_scrub_state {
    VOLUMES_SCRUB_NONE = 0,    /* there was none                                            */
    VOLUMES_SCRUB_RUNNING = 1, /* or paused: its job says                                 */
    VOLUMES_SCRUB_DONE = 2,
    VOLUMES_SCRUB_FAILED = 3, /* some volumes could not be scrubbed                        */
    VOLUMES_SCRUB_STOPPED = 4,
};
/* A run of blocks of one copy that were bad. */
struct volumes_scrub_finding {
    uint32_t volume; /* id; the volume may be gone */
    unsigned disk;
    uint64_t offset, bytes; /* in the volume; of metadata: the page's address, and its size */
    uint64_t seconds;       /* since 1970 */
    enum raid_found found;
    bool unreadable; /* else its checksum did not match */
    bool metadata;   /* a page of the volume's trees */
};
#define VOLUMES_SCRUB_FINDINGS 64 /* that are kept: the first ones of a scrub */
/* The last scrub of a pool. */
struct volumes_scrub_report {
    enum volumes_scrub_state state;
    uint64_t started, ended; /* seconds since 1970; ended is 0 while it is under way */
    uint64_t compared_bytes; /* of data, all copies … */
    uint64_t metadata_bytes; /* … and of metadata     */
    uint64_t missing_bytes;  /* of which no copy could be looked at */
    uint64_t healed_blocks; /* bad copies that were rewritten …                                 */
    uint64_t bad_blocks;  /* … that could not be, though another copy is good …               */
    uint64_t lost_blocks; /* … of which there is no good one                                  */
    uint32_t skipped_volumes; /* that could not be scrubbed */
    unsigned findings;
    uint64_t findings_left_out;
    struct volumes_scrub_finding finding[VOLUMES_SCRUB_FINDINGS];
};
/* HOME. Begins a scrub of all volumes, with a limit of so many bytes of volumes a second (0: none).
 * Errors, each with a sentence: VP_E_BUSY (one is under way), VP_E_NO_MEMORY, those of pool_commit.
 */
CO int volumes_scrub_start(struct volumes *vs, uint64_t limit, struct vp_error *err) must_check;
/* HOME, no yield. Ends the scrub that is under way, soon. VP_E_NOT_FOUND: there is none. */
int volumes_scrub_stop(struct volumes *vs, struct vp_error *err) must_check;
/* HOME, no yield. Borrowed until the next yield. */
const struct volumes_scrub_report *volumes_scrub_report(const struct volumes *vs);
/* HOME, no yield. Its job; NULL: none is under way. */
const struct pool_job *volumes_scrub_job(const struct volumes *vs);

/* HOME. One step of each background job; *more is false when all are idle. */
CO int volumes_background_step(struct volumes *vs, bool *more) must_check;

/* ---- volumes by name (HOME) ------------------------------------------------------------------ */

enum volume_full_policy { VOLUME_FULL_PAUSE, VOLUME_FULL_ENOSPC };
enum volume_state { VOLUME_ONLINE, VOLUME_FAULTED, VOLUME_DELETING };

struct volume_options {
    uint64_t size_bytes; /* a multiple of sector_bytes, ≤ VOLUME_SIZE_MAX                   */
    bool has_profile;
    struct raid_profile profile; /* else the pool's default */
    uint32_t sector_bytes; /* logical sector: 512 or 4096; 0 = 512                            */
    enum volume_full_policy full_policy;
    bool zero_detect; /* all-zero blocks are unmapped instead of written                 */
    bool sync_always; /* every write is durable when it completes                        */
    bool read_only;
    uint64_t reserve_bytes;
};

struct volume_figures {
#define FIGURE FIGURE_FIELD
#include "volumes/figures.def"
};
extern const struct figure_set volume_figure_set;

struct volume_info {
    uint32_t id;
    struct vp_uuid uuid;
    char name[VOLUME_NAME_MAX + 1];
    struct volume_options options;
    enum volume_state state;
    char fault[160]; /* why, when faulted                                               */
    uint64_t created_seconds;
    uint64_t allocated_bytes; /* chunks × chunk size (usable, not raw)                           */
    uint64_t valid_bytes;     /* blocks that hold data                                           */
    uint64_t leased_bytes;    /* arenas                                                          */
    unsigned reactor;
    unsigned open_count;
    const struct volume_figures *figures; /* borrowed until the next yield                   */
    const struct thin_figures *map;       /* the same; NULL while the map is not open        */
    uint64_t errors_since; /* seconds since 1970: what errors count from, over restarts       */
};

/* [A-Za-z0-9][A-Za-z0-9_.:-]{0,126} */
bool volume_name_is_valid(const char *name);

CO int volume_create(struct volumes *vs, const char *name, const struct volume_options *o,
                     struct vp_error *err) must_check;
/* Deletes a volume. The name is free at once, and the space comes back in the background. VP_E_BUSY
 * while the volume is open. */
CO int volume_delete(struct volumes *vs, const char *name, struct vp_error *err) must_check;
CO int volume_rename(struct volumes *vs, const char *name, const char *to,
                     struct vp_error *err) must_check;
/* Changes the size, also while the volume is open: clients see the new size. Shrinking needs
 * `force` (VP_E_SHRINK_REFUSED). */
CO int volume_resize(struct volumes *vs, const char *name, uint64_t size_bytes, bool force,
                     struct vp_error *err) must_check;
/* "key=value" of volume_options by their command-line names: full-policy, zero-detect, sync,
 * read-only, reserve. */
CO int volume_property_set(struct volumes *vs, const char *name, const char *key, const char *value,
                           struct vp_error *err) must_check;
/* Parses one "key=value" into options (for creation). */
int volume_option_parse(const char *key_value, struct volume_options *o,
                        struct vp_error *err) must_check;
/* HOME, no yield. VP_E_NOT_FOUND. */
int volume_info_get(struct volumes *vs, const char *name, struct volume_info *out) must_check;
/* Calls fn for each volume, by name order, until non-zero; fn must not yield. */
int volume_each(struct volumes *vs, int (*fn)(const struct volume_info *info, void *arg),
                void *arg);
/* What is not as it should be about a volume. */
struct volume_trouble {
    uint32_t id;
    const char *name; /* borrowed until the next yield */
    bool faulted;
    unsigned waiting_for_space;
    uint64_t checksum_errors;
};
/* HOME, no yield. Calls fn for each volume that is faulted, has requests that wait for space, or
 * had blocks that could not be read; cheap where nothing is wrong. */
void volume_each_in_trouble(struct volumes *vs,
                            void (*fn)(const struct volume_trouble *t, void *arg), void *arg);
/* HOME. Keeps in the pool how many errors volumes had, where that has changed since the last call.
 * After an error the next call tries again. */
CO int volumes_errors_save(struct volumes *vs) must_check;
/* HOME, no yield. The counters of errors start again from zero; volumes_errors_save keeps that. */
void volumes_errors_clear(struct volumes *vs);
/* HOME, no yield. Its name; NULL when there is none, or not any more. */
const char *volume_name_of_id(struct volumes *vs, uint32_t id);
unsigned volumes_count(const struct volumes *vs);

/* ---- open volumes -----------------------------------------------------------------------------
 */

/* HOME. Opens a volume for I/O (loads the map's root on the volume's reactor). Opens are counted.
 * Errors: VP_E_NOT_FOUND, VP_E_VOLUME_FAULTED (with the reason), VP_E_NO_MEMORY. */
CO int volume_open(struct volumes *vs, const char *name, bool read_only, struct volume **out,
                   struct vp_error *err) must_check;
/* HOME. The caller's requests have ended. */
CO void volume_close(struct volume *v);

struct reactor *volume_reactor(const struct volume *v);
/* "POOL/VOL" */
const char *volume_full_name(const struct volume *v);
uint64_t volume_size(const struct volume *v); /* bytes, now */
uint32_t volume_sector_bytes(const struct volume *v);
uint32_t volume_chunk_bytes(const struct volume *v);
bool volume_is_read_only(const struct volume *v);
/* Any thread, while it is open. */
const struct volume_figures *volume_figures(const struct volume *v);
/* HOME. Takes the memory for metadata that requests may need, so that no request waits for it.
 * Returns whether answered writes survive a kill of the daemon. In a system without shared memory
 * only flushed writes do. */
CO bool volume_take_memory(struct volume *v);

/* ---- requests (on the volume's reactor; CO) -----------------------------------------------------
 *
 * Of somebody who does not go away. Exports send the same requests of clients (volumes/front.h).
 */

enum volume_flags {
    VOLUME_FUA = 1, /* durable when it returns (P2)                                             */
    VOLUME_NO_HOLE = 2, /* zero: keep or make space allocated */
};

/*
 * A request covers any byte range inside the volume, at most VOLUME_REQUEST_MAX bytes (discard and
 * zero: any length). An aligned buffer (4096) of an aligned range goes to the device as it is;
 * others are copied. Errors: VP_E_RANGE (beyond the end), VP_E_READ_ONLY, VP_E_NO_SPACE (policy
 * enospc; with policy pause the request waits), VP_E_CHECKSUM, VP_E_RAID_NO_COPY, VP_E_POOL_FENCED,
 * VP_E_VOLUME_FAULTED, VP_E_CANCELLED (the client went, or the pool is being closed).
 */
CO int volume_read(struct volume *v, uint64_t offset, uint64_t len, void *buf) must_check;
CO int volume_write(struct volume *v, uint64_t offset, uint64_t len, const void *buf,
                    unsigned flags) must_check;
CO int volume_flush(struct volume *v) must_check;
/* Discard: whole blocks inside the range read as zeros afterwards. The rest of the range is
 * untouched. */
CO int volume_discard(struct volume *v, uint64_t offset, uint64_t len, unsigned flags) must_check;
/* Zero: every byte of the range reads as zero afterwards. */
CO int volume_zero(struct volume *v, uint64_t offset, uint64_t len, unsigned flags) must_check;

/*
 * Is told of each change of blocks (of 4096 bytes) [block, block + count), under the exclusive lock
 * of these blocks. So whoever reads them under a lock after `mark` sees the change, and no other
 * change of them is at work until `end` has returned.
 */
struct volume_marks {
    /* They may change. Does not yield. */
    void (*mark)(void *arg, uint64_t block, uint64_t count);
    /* NULL: is not told more. Whole blocks become `data`, or (NULL) zeros. Returns what `end` gets;
     * NULL: `end` is not called. `data` stays until this returns. Does not yield. */
    void *(*begin)(void *arg, uint64_t block, uint64_t count, const void *data);
    /* The change has ended with `rc`. What this waits for, the client waits for. */
    CO void (*end)(void *arg, void *change, int rc);
    void *arg;
};
/* Of the data of a request that begins after the marks were set, `begin` is told at most so much at
 * once. */
#define VOLUME_TOLD_BLOCKS 256U
/*
 * NULL: none, as at first. On the volume's reactor, while the volume is not being shrunk. `mark` is
 * called for the changes that are at work already. NULL waits for nothing: `end` may still be
 * called for what `begin` was told of.
 */
void volume_marks_set(struct volume *v, const struct volume_marks *m);

struct volume_extent {
    uint64_t offset, len;
    bool hole; /* nothing allocated  */
    bool zero; /* reads as zeros     */
};
/* Block status from `offset`: up to `max` merged extents, *n ≥ 1, ending at most at offset+len. */
CO int volume_extents(struct volume *v, uint64_t offset, uint64_t len, struct volume_extent *out,
                      unsigned max, unsigned *n) must_check;

#endif
