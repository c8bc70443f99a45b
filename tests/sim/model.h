/*
 * The oracle. It records what clients asked for and what they were told, and derives what every
 * block may show at any moment, live or after a power cut.
 *
 * There are two clocks. A *tick* orders the clients' calls and their returns. An *event* is the
 * number of disk events that had happened. A snapshot taken before event k knows the calls made at
 * events below k and the answers given at events up to k.
 *
 * A write is *settled* when nothing older may show any more. Live, a write is settled once it was
 * acknowledged. After a power cut at k, a write is settled once a flush that was called after the
 * write's acknowledgement was itself acknowledged by k. With FUA, the write is settled once it was
 * acknowledged by k.
 *
 * A sector may show every write called by then, except the writes that were acknowledged before a
 * settled write was called. When no write is settled, the sector may also show what the volume held
 * at first. Where the atomic unit of a disk is the block, the eight sectors of a block must also be
 * of one moment in the sequence of its writes.
 */
#ifndef VP_TESTS_SIM_MODEL_H
#define VP_TESTS_SIM_MODEL_H

#include "tests/sim/stamp.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_NEVER UINT64_MAX

enum { MODEL_VOLUMES_MAX = 64, MODEL_NAME_MAX = 32 };

struct model_time {
    uint64_t tick, event;
};

/* A call and its answer. A call without an answer, or with an error, may or may not have happened.
 * A call that is both answered and failed: nobody waits for it any more (MODEL_GONE). */
struct model_call {
    struct model_time called, answered;
    bool failed;
};

struct model_version {
    struct model_call call;
    uint32_t seq;   /* 0 = zeros */
    uint8_t mask;   /* sectors of the block */
    bool durable;   /* when it is answered: FUA and control operations */
    bool void_;     /* refused: it did not happen */
    uint32_t older; /* index + 1 of the block's version before */
};

struct model_flush {
    struct model_call call;
};

struct model_size {
    struct model_call call;
    uint64_t blocks;
};

struct model_place {
    struct model_call call;
    unsigned pool;
};

/* Disks whose copies do not count, from an event on; bits. */
struct model_bad {
    uint64_t event;
    unsigned disks;
};

struct model_sectors {
    uint32_t seq[STAMP_BLOCK_SECTORS];
};

struct model_volume {
    uint32_t uid; /* in stamps; never used twice */
    char name[MODEL_NAME_MAX];
    struct model_call created, deleted;
    bool sync; /* every write is durable when it is answered */
    uint64_t blocks_max;
    struct model_size *size;
    unsigned size_count;
    struct model_place *place; /* the pools that it has moved to */
    unsigned place_count;
    uint32_t *newest;              /* of each block: index + 1 of its newest version */
    struct model_sectors *initial; /* NULL: zeros */
    struct model_flush *flush;
    unsigned flush_count;
};

struct model {
    uint64_t seed;
    uint64_t tick;
    uint64_t event;    /* kept by the recorder */
    uint32_t seq, uid; /* the last ones given out */
    uint64_t promises; /* grows with each answer that forbids something: see model_promises_at */
    uint64_t *promise_event;
    unsigned promise_capacity;
    uint64_t answers; /* grows with each answer */
    uint64_t *answer_event;
    unsigned answer_capacity;
    struct model_version *version;
    unsigned version_count, version_capacity;
    struct model_volume volume[MODEL_VOLUMES_MAX];
    unsigned volume_count;
    struct model_call pause, resume; /* of all deletions, once each, in this order */
    struct model_bad *bad;           /* in the order of events */
    unsigned bad_count, bad_capacity;
};

struct model *model_new(uint64_t seed);
void model_free(struct model *m);

/* ---- recording ---------------------------------------------------------------------------- */

struct model_volume *model_volume_add(struct model *m, const char *name, uint64_t blocks,
                                      uint64_t blocks_max);
/* The living (or possibly living) volume of that name. */
struct model_volume *model_volume_find(struct model *m, const char *name);

void model_call(struct model *m, struct model_call *c);
/* `promises`: the answer promises that something may not happen any more. */
void model_answer(struct model *m, struct model_call *c, bool failed, bool promises);

/* A write or zero of a range of sectors: versions first … first + count - 1, all with one call. */
struct model_write {
    uint32_t seq;
    unsigned first, count;
};
struct model_write model_write_call(struct model *m, struct model_volume *v, uint64_t sector,
                                    uint64_t sectors, bool zeros, bool durable);
enum model_result {
    MODEL_DONE,
    MODEL_FAILED,  /* it may happen, also later, in part    */
    MODEL_REFUSED, /* it did not happen                     */
    MODEL_GONE,    /* it may have happened, in part, but nothing of it happens after what is called
                      from now on */
};
void model_write_answer(struct model *m, const struct model_write *w, enum model_result result);

unsigned model_flush_call(struct model *m, struct model_volume *v);
void model_flush_answer(struct model *m, struct model_volume *v, unsigned flush, bool failed);

unsigned model_size_call(struct model *m, struct model_volume *v, uint64_t blocks);

/* A move to another pool, and its answer. `moved` false: it stays where it was. */
unsigned model_move_call(struct model *m, struct model_volume *v, unsigned pool);
void model_move_answer(struct model *m, struct model_volume *v, unsigned move, bool moved);
/* The pool that it is known to be in, last. */
unsigned model_place(const struct model_volume *v);

/* From now on the copies of these disks do not count: the disks have failed, or are being filled.
 * */
void model_bad_set(struct model *m, unsigned disks);

/* ---- asking ------------------------------------------------------------------------------- */

/* The point from which one looks: after a power cut before event `event`, or live by a read that
 * was called at `tick`. */
struct model_view {
    bool crash;
    bool kill;         /* of the process: whatever was answered has happened        */
    bool kept;         /* a kill was among what happened: see is_visible in model.c  */
    bool whole_blocks; /* the atomic unit is the block */
    uint64_t event, tick;
    uint64_t cover_tick; /* filled in by model_view_crash, for one volume */
};
struct model_view model_view_live(struct model_time called, bool whole_blocks);
struct model_view model_view_crash(const struct model_volume *v, uint64_t event, bool whole_blocks);
/* After a kill of the process. With `power_cut`, the power went later, during the recovery. */
struct model_view model_view_kill(const struct model_volume *v, uint64_t event, bool whole_blocks,
                                  bool power_cut);

/* Whether a block may show these sectors; else says in `why` what it may show. */
bool model_permits(const struct model *m, const struct model_volume *v, uint64_t block,
                   const struct model_view *view, const struct model_sectors *got, char *why,
                   size_t why_size);
/* The disks whose copies need not count before the event. */
unsigned model_bad_at(const struct model *m, uint64_t event);
bool model_may_exist(const struct model_volume *v, uint64_t event);
bool model_must_exist(const struct model_volume *v, uint64_t event);
bool model_permits_size(const struct model_volume *v, uint64_t event, uint64_t blocks);
bool model_permits_place(const struct model_volume *v, uint64_t event, unsigned pool);
/* Whether deletions are paused after a cut at `event`; open: either is right. */
enum model_pause { MODEL_PAUSE_OPEN, MODEL_PAUSED, MODEL_RESUMED };
enum model_pause model_pause_at(const struct model *m, uint64_t event);
/* The number of promises made by `event`. Of two equal images with equal promises only one need be
 * looked at. */
uint64_t model_promises_at(const struct model *m, uint64_t event);
/* The same for kills: the number of answers. */
uint64_t model_answers_at(const struct model *m, uint64_t event);

#endif
