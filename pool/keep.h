/*
 * What a killed daemon must not forget: the records of changes that were acknowledged but are not
 * in the log yet. They are in memory that outlives the process (io/keep.h).
 *
 * A client whose daemon is killed does not learn that anything was lost. The kernel above a block
 * device, or an NBD client that connects again, believes that acknowledged writes are there, and
 * flushes only later writes. The data are on the disks, since nobody cut their power. The records
 * that name the data were in our memory. So a volume puts the records of a change here before it
 * acknowledges the change. The next import puts them into the log before anything else, as a commit
 * would have done (keep_recover.c). After a power cut the memory is gone, together with what was
 * not flushed.
 *
 *  K1  Each append holds everything that changed since the append before, as absolute values. So
 *      the log up to a commit, and then all appends since that commit began, give the state of the
 *      last append.
 *  K2  What was appended before a commit began is older than what that commit says. Commits are
 *      numbered in the log (POOL_COUNTER_COMMITS), and each append knows the last commit that had
 *      begun. Once a commit is found in the log, appends from before it are not replayed.
 *  K3  An append is dropped only when a commit that began after it is durable, or when nothing
 *      unflushed is to be believed any more (pool_fence, import_run).
 *  K4  Appends belong to one incarnation of the pool, known by its log's stream. A pool that was
 *      imported elsewhere since, or before a reboot, does not take them. Nor does an import whose
 *      log lacks a commit that was durable, or ends before the batch that was the last one at the
 *      last append (GUARD_KEEP_NEEDS_LOG): disks that were set back lack leases or intents on which
 *      the append relies. Nor does an import while the owner of the memory lives (the disks are a
 *      copy).
 *  K5  What is not taken may belong to other disks, of which the imported disks are an older copy.
 *      It stays for them, under a name of its own, until it is collected (control/doctor.c). Only
 *      memory that cannot belong to any disks is removed: memory from before a reboot, or without a
 *      whole header.
 *
 * One reactor, the volume's. Nothing waits.
 */
#ifndef VP_POOL_KEEP_H
#define VP_POOL_KEEP_H

#include "pool/pool.h"

struct pool_keep;

/* Opens kept memory for a volume whose largest record has `record_bytes` and whose last commit was
 * number `commit` (0: none). Memory is taken with the appends, unless it was taken before.
 * VP_E_NO_MEMORY. */
int pool_keep_open(struct pool *p, uint32_t volume, size_t record_bytes, uint64_t commit,
                   struct pool_keep **out) must_check;
/* Takes all the memory that appends may need, so that no append has to wait for it. Where the
 * system has little left, takes only some. False when there is none now, or none in this system. */
bool pool_keep_take_memory(struct pool_keep *k);
/* What is appended between two commits at most. */
size_t pool_keep_bytes_max(const struct pool_keep *k);
/* Closes kept memory. It is removed if it is empty; else it stays for the next import. NULL is
 * fine. */
void pool_keep_close(struct pool_keep *k);

enum pool_keep_result {
    POOL_KEPT,
    POOL_KEEP_FULL,    /* commit instead; that makes room, if any   */
    POOL_KEEP_TOO_BIG, /* never; a commit has to take its place      */
    POOL_KEEP_NONE,    /* not in this system                        */
};
/*
 * An append is encoded in place: add its records, at most `bytes` of them, to *b, then end it.
 * Nothing yields in between. The append counts, as a whole, once it has ended.
 */
enum pool_keep_result pool_keep_append_begin(struct pool_keep *k, size_t bytes,
                                             struct pool_batch *b) must_check;
void pool_keep_append_end(struct pool_keep *k, const struct pool_batch *b);
/* What a record of a value of `len` bytes takes. */
size_t pool_record_bytes(size_t len);

/* The commit of this number, higher than all before, collects everything that was appended … */
void pool_keep_commit_begin(struct pool_keep *k, uint64_t number);
/* … and is durable, or failed. One at a time. */
void pool_keep_commit_end(struct pool_keep *k, bool durable);

/* The volume is being deleted, and nothing of it is to come back. Call it after the volume's
 * pool_keep was closed. */
void pool_keep_forget(const struct pool *p, uint32_t volume);
/* ANY. Nothing that this incarnation kept is to come back. Either a flush failed and the pool could
 * not go on without its disk, so nothing unflushed is to be believed; or the pool is destroyed. */
void pool_keep_forget_all(const struct pool *p);

/* ---- what nobody has ------------------------------------------------------------------------- */

/* Kept memory of one pool that has no living daemon, found by name alone. A pool that never comes
 * again leaves it until a reboot. */
struct pool_keep_left {
    struct vp_uuid pool;
    unsigned volumes;
    uint64_t bytes, age_seconds; /* since the youngest was changed     */
    bool owned;                  /* more of the pool's has a living one */
};
/* Of all pools: an array of *count, the caller's to free; NULL where there are none. Errors:
 * VP_E_NO_MEMORY, those of looking. */
int pool_keeps_left(struct pool_keep_left **out, unsigned *count) must_check;
/* Removes what has no owner. What its clients had not flushed is lost, as by a power cut. */
void pool_keeps_left_forget(struct vp_uuid pool);

#endif
