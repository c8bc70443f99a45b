/*
 * Imports that meet a fault. An import of a state is run once to count its operations (by disk and
 * kind), its allocations and its operations on kept memory, up to the moment when all volumes are
 * open. Then the import is run again for each operation of a disk with each way in which it can
 * fail, for each allocation, and for each operation on kept memory.
 *
 * An import may fail if it says why. Then the same process imports again without faults. After that
 * the power goes, or the process is killed, and the next process imports. Nothing acknowledged may
 * be lost in any of these imports, nor where the import succeeded with its fault. What was read
 * after such an import stays.
 */
#include "tests/sim/explore.h"

#include "base/hash.h"
#include "base/verify.h"
#include "io/device.h"
#include "tests/lib/failing_malloc.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS UINT64_C(1000000)

/* The ways in which an operation can fail; `arg` as sim_disk_inject takes it. */
static const struct way {
    const char *name;
    enum sim_fault fault;
    unsigned kinds;
    uint64_t arg;
    bool fails_flush; /* what was in the disk's cache, and kept memory, are not believed any more */
} ways[] = {
#define READ    (1U << IO_READ)
#define WRITE   (1U << IO_WRITE)
#define FLUSH   (1U << IO_FLUSH)
#define DISCARD (1U << IO_DISCARD)
#define ZERO    (1U << IO_ZERO)
#define CHANGES (WRITE | DISCARD | ZERO)
    {"fails", SIM_FAULT_ERROR, READ | DISCARD | ZERO, 0, false},
    {"fails", SIM_FAULT_ERROR, WRITE | FLUSH, 0, true}, /* most writes of an import are durable */
    {"is told EAGAIN, once", SIM_FAULT_AGAIN, READ | CHANGES | FLUSH, 1, false},
    {"is told EAGAIN for 2 s", SIM_FAULT_AGAIN, READ | CHANGES | FLUSH, 2000 * MS, true},
    {"is told ENOMEM, once", SIM_FAULT_NO_MEMORY, READ | CHANGES, 1, false},
    {"is told ENOMEM for 12 s", SIM_FAULT_NO_MEMORY, READ | DISCARD | ZERO, 12000 * MS, false},
    {"is told ENOMEM for 12 s", SIM_FAULT_NO_MEMORY, WRITE, 12000 * MS, true},
    {"is told ENOMEM", SIM_FAULT_NO_MEMORY, FLUSH, 1, true},
    {"finds no room for 1 s", SIM_FAULT_FULL, WRITE, 1000 * MS, false},
    {"finds its disk dead", SIM_FAULT_DEAD, READ | CHANGES | FLUSH, 0, true},
    {"finds page 0 bad", SIM_FAULT_BAD_PAGE, READ, 0, false},
    {"finds page 1 bad", SIM_FAULT_BAD_PAGE, READ, 1, false},
    {"finds page 2 bad", SIM_FAULT_BAD_PAGE, READ, 2, false},
    {"finds page 3 bad", SIM_FAULT_BAD_PAGE, READ, 3, false},
    {"finds page 5 bad", SIM_FAULT_BAD_PAGE, READ, 5, false},
};
enum { WAYS = sizeof(ways) / sizeof(ways[0]), KINDS = IO_ZERO + 1 };
/* About as many as an import makes. */
enum { RANDOM_READS = 60, RANDOM_OTHERS = 10, RANDOM_ALLOCATIONS = 150, RANDOM_KEEP_OPS = 12 };

/* What happens in an import, and what became of it. */
struct attempt {
    const struct crash_state *s;
    const struct way *way; /* NULL: none, or an allocation */
    unsigned disk;
    enum io_kind kind;
    uint64_t nth;
    long allocation; /* that fails; negative: none */
    long keep_op;    /* that fails, on kept memory; negative: none */

    uint64_t ops[RIG_DISKS_MAX][KINDS]; /* counted */
    long allocations, keep_ops;
    unsigned disks_out;          /* of service, after all was read */
    struct sim_snapshot *failed; /* where the import failed; NULL: it did not */
};

/* ---- one import ---------------------------------------------------------------------------- */

static void fault_begins(const struct attempt *a, struct rig *r)
{
    if (a->way)
        sim_disk_inject(rig_disk(r, a->disk), a->way->fault, 1U << a->kind, a->nth, a->way->arg);
    fail_in = a->allocation >= 0 ? a->allocation : LONG_MAX;
    if (a->keep_op >= 0)
        sim_world_fail_keep_op(r->w, (uint64_t)a->keep_op);
}

static void fault_ends(struct attempt *a, struct rig *r)
{
    if (a->allocation < 0)
        a->allocations = LONG_MAX - fail_in;
    fail_in = -1;
    a->keep_ops = (long)sim_world_keep_ops(r->w);
    sim_world_fail_keep_op(r->w, UINT64_MAX);
    for (unsigned i = 0; i < r->config->disks; i++) {
        for (unsigned kind = 0; kind < KINDS; kind++)
            a->ops[i][kind] = sim_disk_ops(rig_disk(r, i), kind);
        if (a->way && i == a->disk)
            sim_disk_heal(rig_disk(r, i));
    }
}

/* CO. A volume that cannot be opened now may be opened when the fault has ended. So the reader
 * tries again. */
static void open_volumes(const struct attempt *a, struct rig *r)
{
    bool allowed = r->errors_allowed;
    r->errors_allowed = true;
    for (unsigned i = 0; i < a->s->model->volume_count; i++)
        if (model_may_exist(&a->s->model->volume[i], a->s->event))
            (void)rig_volume(r, a->s->model->volume[i].name);
    r->errors_allowed = allowed;
}

/* A commit met the fault. */
static bool is_fenced(const struct rig *r)
{
    for (unsigned p = 0; p < rig_pools(r->config); p++)
        if (r->vs[p] && !pool_acknowledges(volumes_pool(r->vs[p])))
            return true;
    return false;
}

/* verify_output.import */
static bool import_with_fault(struct rig *r)
{
    struct attempt *a = r->arg;
    struct vp_error err = {0};
    fault_begins(a, r);
    r->errors_allowed = true;
    int rc = rig_try_import(r, &err);
    r->errors_allowed = false;
    if (!rc)
        open_volumes(a, r);
    fault_ends(a, r);
    if (!rc && !is_fenced(r))
        return true;
    if (!rc)
        vp_ignore(rig_close_pools(r), "it is fenced, and imported again");
    if (rc && !err.text[0])
        rig_fail(r, "the import fails with %s and does not say why", vp_err_name(rc));
    a->failed = sim_snapshot_take(r->w);
    return rig_import(r);
}

/* verify_output.then */
static void note_disks(struct rig *r)
{
    struct attempt *a = r->arg;
    for (unsigned p = 0; p < rig_pools(r->config); p++)
        a->disks_out += pool_disks_out(volumes_pool(r->vs[p]));
}

/* ---- and what follows ---------------------------------------------------------------------- */

struct look {
    const struct crash_state *s;
    struct seen *seen;
    struct explore_counts *counts;
    bool loses_disks;
    char *why;
    size_t why_size;
};

static uint64_t observation_hash(const struct observation *o)
{
    uint64_t h = 0;
    for (unsigned i = 0; o && i < o->volume_count; i++)
        if (o->volume[i].exists)
            h = hash_mix(
                h + i +
                hash_bytes(o->volume[i].seq, o->volume[i].blocks * sizeof(struct model_sectors)));
    return h;
}

/* One of the states that the import's end could leave. */
static bool look_at_end(struct look *x, struct crash_state *at, enum sim_fate fate)
{
    unsigned n = sim_snapshot_pending(at->snapshot);
    struct sim_choice *c = calloc(n + 1, sizeof(*c));
    VP_VERIFY_TRUE(c != NULL);
    for (unsigned i = 0; i < n; i++)
        c[i].fate = fate;
    at->choices = c;
    uint64_t image = sim_snapshot_hash(at->snapshot, c);
    uint64_t key = hash_mix(image + at->killed + 2 * (uint64_t)at->lost_disks);
    key = hash_mix(key + observation_hash(at->prior)) + model_promises_at(at->model, at->event);
    if (at->killed)
        key += choices_kill_key(at->snapshot, at->model, at->event);
    bool ok = true;
    x->counts->tried++;
    if (hash_set_add(&x->seen->states, key)) {
        struct verify_output out = {0};
        x->counts->images += hash_set_add(&x->seen->images, image);
        x->counts->states++;
        x->counts->again++;
        ok = verify_state(at, &out, x->why, x->why_size);
    }
    free(c);
    return ok;
}

/* The power goes, or the process is killed if it had been killed before. */
static bool look_at_ends(struct look *x, const struct crash_state *s,
                         const struct sim_snapshot *end, const struct observation *prior)
{
    struct crash_state at = *s;
    at.seed++;
    at.snapshot = end;
    at.killed = false;
    at.killed_first = s->killed || s->killed_first;
    at.back_disks = 0;
    at.prior = prior ? prior : s->prior;
    at.prior_event = prior ? UINT64_MAX : s->prior_event;
    if (!look_at_end(x, &at, SIM_DROP) || !look_at_end(x, &at, SIM_KEEP))
        return false;
    at.killed = s->killed;
    at.killed_first = s->killed_first;
    return !s->killed || look_at_end(x, &at, SIM_KEEP);
}

static bool is_single(const struct crash_state *s)
{
    return strcmp(s->config->profile, "single") == 0;
}

/* After an import that showed everything, loses a disk: any disk, or the one with the fault if a
 * disk is out already. */
static bool look_without_disks(struct look *x, const struct attempt *a,
                               const struct sim_snapshot *end, const struct observation *prior)
{
    struct crash_state at = *a->s;
    at.seed++;
    at.snapshot = end;
    at.killed = false;
    at.killed_first = a->s->killed || a->s->killed_first;
    at.back_disks = 0;
    at.prior = prior;
    at.prior_event = UINT64_MAX;
    bool ok = true;
    for (unsigned i = 0; ok && i < a->s->config->disks; i++)
        if (!a->disks_out || (a->way && a->disk == i)) {
            at.lost_disks = 1U << i;
            ok = look_at_end(x, &at, SIM_DROP);
        }
    return ok;
}

static void attempt_name(const struct attempt *a, char *out, size_t size)
{
    static const char *const kinds[] = {"read", "write", "flush", "discard", "zero"};
    if (a->way)
        (void)snprintf(out, size, "import where %s %" PRIu64 " of d%u %s", kinds[a->kind], a->nth,
                       a->disk, a->way->name);
    else if (a->keep_op >= 0)
        (void)snprintf(out, size, "import where operation %ld on kept memory fails", a->keep_op);
    else if (a->allocation >= 0)
        (void)snprintf(out, size, "import where allocation %ld fails", a->allocation);
    else
        (void)snprintf(out, size, "import");
}

static bool a_disk_died_before(void)
{
    return position.mishap.kind == MISHAP_DEAD || position.mishap.kind == MISHAP_BACK;
}

/* After a kill, what nobody had flushed is in the caches of the disks, and perhaps nowhere else. */
static bool is_beyond_promises(const struct attempt *a)
{
    return a->way && a->way->fails_flush && (is_single(a->s) || a_disk_died_before());
}

static bool attempt_make(struct look *x, struct attempt *a)
{
    static char name[128];
    const char *step = position.step;
    struct crash_state s = *x->s;
    a->s = &s;
    s.faults_planned = true;
    s.unsure |= is_beyond_promises(a);
    struct verify_output out = {.observed = observation_new(s.model),
                                .import = import_with_fault,
                                .then = note_disks,
                                .arg = a,
                                .want_end = true};
    attempt_name(a, name, sizeof(name));
    position.step = name;
    (void)alarm(20);
    x->counts->states++;
    bool ok = verify_state(&s, &out, x->why, x->why_size);
    if (ok && a->failed)
        ok = look_at_ends(x, &s, a->failed, NULL);
    if (ok)
        ok = look_at_ends(x, &s, out.end, out.observed);
    if (ok && x->loses_disks)
        ok = look_without_disks(x, a, out.end, out.observed);
    sim_snapshot_free(a->failed);
    sim_snapshot_free(out.end);
    observation_free(out.observed);
    a->failed = NULL;
    if (ok)
        position.step = step;
    return ok;
}

/* ---- all of them --------------------------------------------------------------------------- */

/* No promise covers a disk that dies after a kill and comes back (decision 0006). The same holds
 * for a disk that dies after the other one: the first disk alone does not know that it is stale. */
static bool way_applies(const struct crash_state *s, const struct way *way, enum io_kind kind)
{
    bool deaths = !s->killed && !a_disk_died_before();
    return way->kinds >> kind & 1 && (deaths || way->fault != SIM_FAULT_DEAD);
}

static bool fail_ops(struct look *x, const struct attempt *counted, unsigned disk,
                     enum io_kind kind)
{
    for (uint64_t n = 0; n < counted->ops[disk][kind]; n++)
        for (unsigned i = 0; i < WAYS; i++) {
            struct attempt a = {.way = &ways[i],
                                .disk = disk,
                                .kind = kind,
                                .nth = n,
                                .allocation = -1,
                                .keep_op = -1};
            if (way_applies(x->s, &ways[i], kind) && !attempt_make(x, &a))
                return false;
        }
    return true;
}

bool import_faults_look(const struct crash_state *s, struct seen *seen,
                        struct explore_counts *counts, char *why, size_t size)
{
    bool loses_disks = !is_single(s) && !a_disk_died_before();
    struct look x = {s, seen, counts, loses_disks, why, size};
    struct attempt counted = {.allocation = -1, .keep_op = -1};
    bool ok = attempt_make(&x, &counted);
    for (unsigned d = 0; ok && d < s->config->disks; d++)
        for (unsigned kind = 0; ok && kind < KINDS; kind++)
            ok = fail_ops(&x, &counted, d, (enum io_kind)kind);
    for (long n = 0; ok && n < counted.allocations; n++) {
        struct attempt a = {.allocation = n, .keep_op = -1};
        ok = attempt_make(&x, &a);
    }
    for (long n = 0; ok && n < counted.keep_ops; n++) {
        struct attempt a = {.allocation = -1, .keep_op = n};
        ok = attempt_make(&x, &a);
    }
    return ok;
}

bool import_faults_one(const struct crash_state *s, uint64_t rng, int disk,
                       struct explore_counts *counts, char *why, size_t size)
{
    struct seen seen = {0};
    struct look x = {s, &seen, counts, false, why, size};
    struct attempt a = {.allocation = -1, .keep_op = -1};
    const struct way *way = &ways[hash_mix(rng + 1) % WAYS];
    enum io_kind kind = (enum io_kind)(hash_mix(rng + 2) % KINDS);
    if (way_applies(s, way, kind)) {
        a.way = way;
        a.kind = kind;
        a.disk = disk >= 0 ? (unsigned)disk : (unsigned)(hash_mix(rng + 3) % s->config->disks);
        a.nth = hash_mix(rng + 4) % (kind == IO_READ ? RANDOM_READS : RANDOM_OTHERS);
    } else if (hash_mix(rng + 5) % 8 == 0) {
        a.keep_op = (long)(hash_mix(rng + 4) % RANDOM_KEEP_OPS);
    } else {
        a.allocation = (long)(hash_mix(rng + 4) % RANDOM_ALLOCATIONS);
    }
    bool ok = attempt_make(&x, &a);
    hash_set_fini(&seen.states);
    hash_set_fini(&seen.images);
    return ok;
}
