/*
 * Exhaustive exploration. A workload is run once, and the world is snapshotted before every disk
 * event. Each snapshot is a crash point. Each combination of fates of its pending writes is a
 * state. Each distinct state is recovered and checked, and some of them are looked at deeper.
 */
#ifndef VP_TESTS_SIM_EXPLORE_H
#define VP_TESTS_SIM_EXPLORE_H

#include "tests/sim/verify.h"

/* What befalls a disk before a chosen event of the workload. */
enum mishap {
    MISHAP_NONE,
    MISHAP_DEAD,   /* it dies                                    */
    MISHAP_BACK,   /* it dies, and is back when the pool is imported again */
    MISHAP_ERROR,  /* the next operation fails                   */
    MISHAP_BREAKS, /* writes and flushes fail until the pool is imported again */
    /* What befalls hosts (hosts.h); `disk` says which. */
    MISHAP_KILL,  /* its process                                         */
    MISHAP_POWER, /* its power goes, and comes back                      */
    MISHAP_CUT,   /* for some time: 0 both ways, 1 from the first host to the second, 2 back */
    MISHAP_BREAK, /* connections: even, the source notices; odd, nobody does */
};
struct mishap_at {
    enum mishap kind;
    unsigned disk;
    uint64_t event;
};

enum scenario_flags {
    SCENARIO_DEATHS = 1, /* again and again, with a disk that dies before each event         */
    SCENARIO_ERRORS = 2, /* again and again, with an operation that fails                    */
    SCENARIO_SURVIVES_LOSS = 4, /* any disks that the profile survives may be lost           */
    SCENARIO_ROT = 8, /* a copy is damaged: overwrites are not crashed (docs/testing.md)     */
    SCENARIO_IMPORT_FAULTS = 16, /* the deeper look is import_faults_look                    */
    /* Also: the process is killed and the disks are set back to before the body. The body begins
     * with something in the log that is no volume's commit. */
    SCENARIO_SET_BACK = 32,
    SCENARIO_BREAKS = 64, /* again and again, with a disk whose changes fail from an event on;
                             of hosts: only connections break, with many fates of what was sent */
    /* Disks leave and return. One state in `fill_every` is looked at by fill_look. */
    SCENARIO_FILLS = 256,
    SCENARIO_HOSTS = 128, /* of two hosts: the volume "a" moves to the other one (hosts.h) */
};

struct scenario {
    const char *name, *what;
    const struct rig_config *config;
    const struct op *setup; /* not crashed */
    const struct op *body;  /* NULL: `variants` of them come from: */
    unsigned variants;
    const struct op *(*make)(unsigned variant); /* static storage, until the next call */
    unsigned flags;
    unsigned deep_every;   /* about one state in so many is looked at deeper; 0 = 64        */
    unsigned fill_every;   /* 0 = 16                                                         */
    unsigned crash_stride; /* after a mishap: every so many events power goes; 0 = 1        */
};
unsigned scenario_count(void);
const struct scenario *scenario_at(unsigned i); /* of so many */
const struct scenario *scenario_find(const char *name);

/* combine.c: pairs and triples of the operations of a vocabulary. */
enum {
    COMBINE_WORDS = 12,
    COMBINE_PAIRS = COMBINE_WORDS * COMBINE_WORDS * 3,
    COMBINE_TRIPLES = COMBINE_WORDS * COMBINE_WORDS * COMBINE_WORDS,
};
const struct op *combine_pair(unsigned variant);
const struct op *combine_triple(unsigned variant);

/* A set of 64-bit hashes. */
struct hash_set {
    uint64_t *slot;
    uint64_t count, mask;
};
bool hash_set_add(struct hash_set *s, uint64_t v); /* false when it is there */
void hash_set_fini(struct hash_set *s);

/* What was looked at: images with what had been promised, and images alone. */
struct seen {
    struct hash_set states, images;
};

struct explore_counts {
    uint64_t events; /* crash points                                      */
    uint64_t tried;  /* combinations of fates                             */
    uint64_t states; /* distinct states, recovered and checked: image and promises */
    uint64_t images; /* … of distinct images */
    uint64_t again;  /* of these: states that crashed recoveries left     */
    uint64_t runs;   /* of the workload                                   */
    double seconds;  /* of CPU */
};

/* Snapshots before events, in order. */
struct point {
    struct sim_snapshot *snapshot;
    uint64_t event; /* the model's */
};
struct points {
    struct point *at;
    unsigned count, capacity;
};
void points_add(struct points *p, struct sim_world *w, uint64_t event);
void points_fini(struct points *p);
/* What is durable and pending at a point decides which states can follow it. So points with equal
 * signatures have equal states. */
uint64_t point_signature(const struct point *p);

/* Where we are, and how to come back: printed with every failure, also from abort(). */
struct position {
    const struct scenario *scenario; /* NULL: a random run */
    uint64_t seed;
    unsigned variant;
    struct mishap_at mishap;
    uint64_t event;
    const struct sim_choice *choices;
    unsigned choice_count;
    bool killed;
    const char *guard; /* switched off; NULL: none */
    const char *step;  /* what is being looked at */
};
extern struct position position;
bool mishap_parse(const char *text, struct mishap_at *out);
void position_catch_signals(void);
void position_report(const char *why);

/* The CPU time of this process. Other processes on the machine do not count. */
double cpu_seconds(void);

/* Which part of the exploration is wanted. */
struct explore_filter {
    bool only; /* the one state that the other members name */
    unsigned variant;
    struct mishap_at mishap;
    uint64_t event;
    const char *choice;
    unsigned deep_every; /* 0: as the scenario says */
};

/* Explores a scenario; false after the first failure, which it has reported. `states_max` bounds
 * the work (0 = none). */
bool explore(const struct scenario *sc, uint64_t seed, const struct explore_filter *filter,
             uint64_t states_max, struct explore_counts *counts);

enum choice_depth { CHOICES_FULL, CHOICES_THIN };
typedef bool (*choice_fn)(void *arg, const struct sim_choice *choices, unsigned count);
/* Calls fn for combinations of fates (see README.md) until it returns false. */
bool choices_each(const struct sim_snapshot *s, enum choice_depth depth, choice_fn fn, void *arg);
/* The same for a killed process: completed writes are kept, those in flight land or do not. */
bool choices_each_kill(const struct sim_snapshot *s, enum choice_depth depth, choice_fn fn,
                       void *arg);
/* Kept memory, which tells states apart besides the image and what was promised. */
uint64_t choices_kill_key(const struct sim_snapshot *s, const struct model *m, uint64_t event);
void choices_format(const struct sim_choice *c, unsigned n, bool killed, char *out, size_t size);
/* Parses what choices_format made; false when malformed. */
bool choices_parse(const char *text, struct sim_choice *c, unsigned n, bool *killed);

/* A deeper look at one state that was found good. The recovery is crashed at each of its events,
 * another disk is lost, and life goes on and is crashed again. `seen` removes duplicates. */
bool deep_look(const struct crash_state *s, unsigned flags, struct seen *seen,
               struct explore_counts *counts, char *why, size_t size);

/* The recovered pool gets its disks back, and they are filled while clients write. Then each set of
 * disks that the profile survives is lost. The filling is crashed at some of its events, and what
 * that leaves is looked at in the same way once more. */
bool fill_look(const struct crash_state *s, struct explore_counts *counts, char *why, size_t size);

/* The same as deep_look: every operation and every allocation of the import fails, one at a time.
 * */
bool import_faults_look(const struct crash_state *s, struct seen *seen,
                        struct explore_counts *counts, char *why, size_t size);
/* One fault drawn from `rng`: of an operation of `disk` (negative: of any disk), or of an
 * allocation. */
bool import_faults_one(const struct crash_state *s, uint64_t rng, int disk,
                       struct explore_counts *counts, char *why, size_t size);

/* Random runs: a seed is a configuration, faults, clients and crashes. */
bool random_run(uint64_t seed, struct explore_counts *counts);
/* The same of two hosts: a seed is a scenario, a mishap and its event. hosts_explore.c */
bool hosts_random(uint64_t seed, struct explore_counts *counts);

#endif
