/*
 * One state that a power cut left: import it, read everything back, ask the oracle.
 */
#ifndef VP_TESTS_SIM_VERIFY_H
#define VP_TESTS_SIM_VERIFY_H

#include "tests/sim/rig.h"

/* What a recovery showed. The caller of observation_new owns it. */
struct observation {
    struct {
        bool exists;
        unsigned pool;
        uint64_t blocks;
        struct model_sectors *seq; /* of each block                                   */
        uint64_t *read_event;      /* the recovery's event before which it was read   */
    } volume[MODEL_VOLUMES_MAX];
    unsigned volume_count;
};
struct observation *observation_new(const struct model *m);
void observation_free(struct observation *o);
/* A model of the world as it was observed, for a run that goes on from there. */
struct model *observation_model(const struct observation *o, const struct model *m);

struct crash_state {
    const struct rig_config *config;
    struct model *model;
    const struct sim_snapshot *snapshot;
    const struct sim_choice *choices;
    const struct sim_snapshot *keeps; /* from where kept memory is; NULL: as `killed` says */
    bool killed;                      /* not the power went, but the process               */
    bool killed_first; /* … before power went in the recovery                      */
    bool unsure;    /* the only copy met a fault: what was not flushed may be lost in a kill, too */
    uint64_t event; /* the model's: it happened before this one */
    uint64_t seed;
    unsigned lost_disks; /* bits: these are dead at import, whatever they were; if several, an
                            operator says so (--degraded) */
    unsigned back_disks; /* bits: these are back at import, if they were dead */
    bool faults_planned; /* errors may be logged */
    unsigned order;      /* of imports: enum rig_order */

    /* A recovery that was itself interrupted. What it had read by then must not change. */
    const struct observation *prior;
    uint64_t prior_event; /* the model's event of that recovery */
};

/* Where recovery is recorded for a deeper look; NULL members are not wanted. */
struct verify_output {
    struct observation *observed;
    /* Called instead of rig_import; false: it has failed, and said so to the rig. CO. */
    bool (*import)(struct rig *r);
    /* Called before each event of the recovery. */
    void (*on_event)(struct rig *r, uint64_t event);
    void *arg;
    /* Called in the recovered pool, after all was read: to go on. CO. */
    void (*then)(struct rig *r);
    /* Filled in: what the disks hold at the end. */
    struct sim_snapshot *end;
    bool want_end;
};

/* False: a promise was broken; `why` says which. */
bool verify_state(const struct crash_state *s, struct verify_output *out, char *why, size_t size);

#endif
