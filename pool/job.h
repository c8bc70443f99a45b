/*
 * Jobs: one frame for long work in the background. The frame numbers a job, remembers it over
 * restarts, and says how far it is, how fast, and how long it will still take. The layer that owns
 * the work does it in bounded steps and tells the frame after each one.
 *
 *     job = pool_job_take(…)          the job of an earlier life, or a new one
 *     pool_job_count(job, left)       once the owner knows how much there is to do
 *     pool_job_may_go_on(job)         before each step
 *     pool_job_advance(job, n, rc)    after each step
 *     pool_job_ending(job)            the rest is short
 *     pool_job_end(pool, job, state)  done, failed or cancelled
 *
 * A job has a record in the pool from its start to its end (job_format.h). The position of a kind
 * that has other records to tell it (a deletion: the leases that are left; a resync: the intents)
 * is theirs; the job's record then adds only how much there was at the start.
 *
 * All functions: HOME. None yields, but those that are marked CO.
 */
#ifndef VP_POOL_JOB_H
#define VP_POOL_JOB_H

#include "base/list.h"
#include "pool/pool.h"

/* In records: numbers are never used for something else. */
enum pool_job_kind {
    POOL_JOB_DELETE = 1,
    POOL_JOB_RESYNC = 2,
    POOL_JOB_MIGRATE = 3,
    POOL_JOB_REBUILD = 4,
    POOL_JOB_SCRUB = 5,
    POOL_JOB_REMOVE = 6,
    POOL_JOB_BALANCE = 7
};

/*
 *     RUNNING ──→ ENDING ──→ DONE | FAILED | CANCELLED
 *      ↓   ↑        ↑
 *      PAUSED ──────┘ the step that was under way was the last one, or its work is gone
 */
enum pool_job_state {
    POOL_JOB_RUNNING = 1,
    POOL_JOB_PAUSED,    /* begins no step                                                 */
    POOL_JOB_ENDING,    /* what is left is short                                          */
    POOL_JOB_DONE,      /* … and from here on it has ended                                */
    POOL_JOB_FAILED,    /* some of its units could not be done: `failed`, `rc`            */
    POOL_JOB_CANCELLED, /* what it worked on is gone, or a command gave it up             */
};

struct pool_job;
/* Asks the owner of the work to give it up; the owner ends the job. Errors with a sentence. */
typedef int pool_job_cancel_fn(void *arg, struct vp_error *err);

#define POOL_JOB_NAME_MAX    127
#define POOL_JOBS_REMEMBERED 64 /* that have ended, the newest ones, until the pool closes */

/* Owned by the pool. The owner of the work borrows it until pool_job_end. */
struct pool_job {
    struct list link; /* in pool_jobs.running or .ended */
    uint32_t id;      /* from 1; never used twice in a pool */
    enum pool_job_kind kind;
    enum pool_job_state state;
    uint32_t volume;                  /* id; of a rebuild: the disk's index */
    char name[POOL_JOB_NAME_MAX + 1]; /* of the volume, when the job began */
    uint64_t started, ended;          /* seconds since 1970 */
    uint64_t total, done, failed;     /* units; total 0: not counted yet; done includes failed */
    uint64_t limit;                   /* units a second, on average; 0: none */
    uint64_t due_ns;                  /* with a limit: when the next step may begin */
    const char *hurry; /* static: why it is neither paused nor limited; NULL: it may */
    bool counted;      /* in this life of the pool */
    bool taken;        /* somebody works on it, in this life of the pool */
    int rc;            /* the last error */
    struct {
        uint64_t ns, done;
    } mark[2];                /* the older and the newer: what the rate is computed from */
    enum pool_job_state told; /* the layer above's: what an event has told of; 0: nothing */
    struct {
        pool_job_cancel_fn *fn; /* NULL: it cannot be cancelled, or not yet */
        void *arg;
    } cancel;
};

struct pool_jobs { /* part of struct pool */
    struct list running, ended;
    unsigned ended_count;
    uint32_t next_id;
};

/* ---- for whoever looks ----------------------------------------------------------------------- */

/* VP_E_NOT_FOUND, with a sentence. */
int pool_job_not_found(const struct pool *p, uint32_t id, struct vp_error *err);
/* "delete", "resync", "migrate", "rebuild", "scrub", "remove",
 * "rebalance" */
const char *pool_job_kind_name(enum pool_job_kind kind);
/* "running", "paused", "ending", "done", "failed", "cancelled" */
const char *pool_job_state_name(enum pool_job_state state);
/* What is counted: "bytes". */
const char *pool_job_unit(enum pool_job_kind kind);
static inline bool pool_job_has_ended(const struct pool_job *j)
{
    return j->state >= POOL_JOB_DONE;
}
/* NULL when there is none, or it ended long ago. */
struct pool_job *pool_job_find(struct pool *p, uint32_t id);
/* The newest one of this kind and volume; NULL. */
struct pool_job *pool_job_find_of(struct pool *p, enum pool_job_kind kind, uint32_t volume);
/* Calls fn for each job, those that have ended last, until it returns non-zero, which is returned.
 * fn neither yields nor starts or ends jobs. */
int pool_job_each(struct pool *p, int (*fn)(struct pool_job *j, void *arg), void *arg);
/* Units a second, over the last 10 to 20 seconds of work. */
uint64_t pool_job_rate(const struct pool_job *j);
/* Seconds until the end, as it goes now; -1: nobody knows. */
int64_t pool_job_seconds_left(const struct pool_job *j);

/* ---- for commands ---------------------------------------------------------------------------- */

/*
 * A paused job begins no step until it is resumed; the step under way ends. A limit says how many
 * units a second a job does on average (0: none). All three are durable when they return, and hold
 * over restarts. Errors: VP_E_NOT_FOUND (no such job, or it has ended), VP_E_BUSY (it is ending),
 * VP_E_NOT_SUPPORTED (not with a job of this kind), those of pool_commit; then all is as it was.
 */
CO int pool_job_pause(struct pool *p, uint32_t id, struct vp_error *err) must_check;
CO int pool_job_resume(struct pool *p, uint32_t id, struct vp_error *err) must_check;
CO int pool_job_limit(struct pool *p, uint32_t id, uint64_t limit, struct vp_error *err) must_check;
/* Asks the owner of the work to give it up; the job ends soon afterwards. Errors: VP_E_NOT_FOUND,
 * VP_E_BUSY, as above; VP_E_NOT_SUPPORTED, with the reason; those of the owner. */
int pool_job_cancel(struct pool *p, uint32_t id, struct vp_error *err) must_check;

/* ---- for the owner of the work --------------------------------------------------------------- */

/* A new job, whose record the caller commits with what starts the work (pool_job_put); NULL: no
 * memory. When that commit fails: pool_job_drop. */
struct pool_job *pool_job_new(struct pool *p, enum pool_job_kind kind, uint32_t volume,
                              const char *name);
void pool_job_put(const struct pool *p, const struct pool_job *j, struct pool_batch *b);
void pool_job_drop(struct pool_job *j);
/* A job of a kind that can be cancelled: whom pool_job_cancel asks, until the job ends. */
void pool_job_cancel_by(struct pool_job *j, pool_job_cancel_fn *fn, void *arg);
/* The job that an earlier life of the pool began, else a new one. The record of a new one becomes
 * durable with the next commit of anything. NULL: no memory. */
struct pool_job *pool_job_take(struct pool *p, enum pool_job_kind kind, uint32_t volume,
                               const char *name);
/* Import, when everybody has taken what is theirs: what is left has nothing to work on any more. */
void pool_jobs_forget_left(struct pool *p);

/* So many units are left to do, as the owner has just counted: `total` and `done` follow. */
void pool_job_count(struct pool_job *j, uint64_t left);
/* Whether the next step may begin: the job is neither paused nor ahead of its limit. */
bool pool_job_may_go_on(const struct pool_job *j);
/* How many units the next step should do at most: with a limit, what that allows in a second. */
uint64_t pool_job_step_units(const struct pool_job *j);
/* When the next job that waits for its limit may go on; UINT64_MAX: none waits. */
uint64_t pool_jobs_due_ns(const struct pool *p);
/* A step has ended: `units` more are done, or with `rc` tried and failed. */
void pool_job_advance(struct pool_job *j, uint64_t units, int rc);
/* Only a short rest is left. Idempotent. */
void pool_job_ending(struct pool_job *j);
/* Takes the record away with something else of the caller, before pool_job_end. */
void pool_job_remove(const struct pool_job *j, struct pool_batch *b);
/* The job has ended as `state` says. The owner forgets it. Its record, if it is there still, goes
 * with the next commit; should that be lost, pool_jobs_forget_left finds it. */
void pool_job_end(struct pool *p, struct pool_job *j, enum pool_job_state state);

/* ---- for the pool ---------------------------------------------------------------------------- */

void pool_jobs_init(struct pool_jobs *jobs);
void pool_jobs_fini(struct pool_jobs *jobs);
/* Import: those of the records. VP_E_NO_MEMORY. */
int pool_jobs_load(struct pool *p) must_check;

#endif
