/* A look at disks that come into service again, in a state that recovers well: see explore.h. */
#include "tests/sim/explore.h"

#include "base/hash.h"
#include "base/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPS_MAX = 40, CRASHES = 3, CRASHES_DEEPER = 1 };

struct fill {
    const struct crash_state *s;
    struct explore_counts *counts;
    struct observation *observed;
    struct model *next; /* of the life after the recovery */
    struct points points;
    char *why;
    size_t why_size;
};

static bool look(const struct crash_state *s, unsigned crashes, struct explore_counts *counts,
                 char *why, size_t size);

static void on_event(struct rig *r, uint64_t event)
{
    struct fill *f = r->arg;
    points_add(&f->points, r->w, event + 1);
}

/* Clients write before the disks come, while they are filled, and afterwards. */
static unsigned ops_of_volume(const char *name, unsigned part, struct op *op)
{
    const struct op before[] = {{OP_WRITE, name, BLOCKS(1), BLOCKS(2), 0},
                                {OP_FLUSH, name, 0, 0, 0}};
    const struct op during[] = {{OP_WRITE, name, BLOCKS(2), BLOCKS(2), OP_WITH_NEXT},
                                {OP_WRITE, name, BLOCKS(9) + 3, 2, OP_WITH_NEXT},
                                {OP_DISCARD, name, BLOCKS(4), BLOCKS(4), OP_WITH_NEXT}};
    const struct op after[] = {{OP_FLUSH, name, 0, 0, OP_WITH_NEXT},
                               {OP_WRITE, name, BLOCKS(11), BLOCKS(1), OP_FUA}};
    const struct op *from[] = {before, during, after};
    const unsigned count[] = {2, 3, 2};
    memcpy(op, from[part], count[part] * sizeof(*op));
    return count[part];
}

static unsigned ops_of_part(const struct model *m, unsigned part, struct op *op)
{
    unsigned n = 0;
    for (unsigned i = 0; i < m->volume_count && i < 3; i++)
        if (m->volume[i].size[0].blocks >= 16)
            n += ops_of_volume(m->volume[i].name, part, op + n);
    return n;
}

static void fill_then(struct rig *r)
{
    struct fill *f = r->arg;
    struct op op[OPS_MAX] = {{0}};
    unsigned n = 0;
    f->next = observation_model(f->observed, f->s->model);
    f->next->event = r->model->event;
    r->model = f->next;
    r->bad = model_bad_at(f->s->model, f->s->event);
    model_bad_set(f->next, r->bad);
    r->on_event = on_event;
    n += ops_of_part(f->next, 0, op + n);
    op[n++] = (struct op){.kind = OP_RETURN, .flags = sim_below(r->w, 2) ? OP_REPLACE : 0};
    n += ops_of_part(f->next, 1, op + n);
    op[n++] = (struct op){.kind = OP_BACKGROUND};
    n += ops_of_part(f->next, 2, op + n);
    op[n++] = (struct op){.kind = OP_FILLED};
    VP_VERIFY(n, <, (unsigned)OPS_MAX);
    rig_ops(r, op);
    points_add(&f->points, r->w, r->model->event);
}

/* One of the states that the power or a kill could leave at a point. */
static bool look_at_point(struct fill *f, struct crash_state *at, const struct point *p,
                          enum sim_fate fate, unsigned crashes)
{
    unsigned n = sim_snapshot_pending(p->snapshot);
    struct sim_choice *c = calloc(n + 1, sizeof(*c));
    VP_VERIFY_TRUE(c != NULL);
    for (unsigned i = 0; i < n; i++) {
        bool stays = at->killed && sim_snapshot_is_complete(p->snapshot, i);
        bool one = hash_mix(p->event + i) % 2;
        c[i].fate = stays ? SIM_KEEP : fate == SIM_TEAR ? (one ? SIM_KEEP : SIM_DROP) : fate;
    }
    at->snapshot = p->snapshot;
    at->event = p->event;
    at->choices = c;
    f->counts->tried++;
    f->counts->states++;
    f->counts->again++;
    struct verify_output out = {0};
    bool ok = verify_state(at, &out, f->why, f->why_size);
    if (ok && crashes)
        ok = look(at, crashes, f->counts, f->why, f->why_size);
    free(c);
    if (!ok) {
        size_t len = strlen(f->why);
        (void)snprintf(f->why + len, f->why_size - len,
                       " [filling, event %llu, fate %u%s, lost %x]", (unsigned long long)p->event,
                       fate, at->killed ? ", killed" : "", at->lost_disks);
    }
    return ok;
}

/* All disks count: any that the profile survives may be lost. */
static bool lose_disks(struct fill *f, struct crash_state *at)
{
    const struct point *end = &f->points.at[f->points.count - 1];
    bool ok = true;
    position.step = "filled, then disks lost";
    for (unsigned lost = 1; ok && lost < 1U << at->config->disks; lost++) {
        at->lost_disks = lost;
        if (rig_survives(at->config, lost))
            ok = look_at_point(f, at, end, lost % 2 ? SIM_DROP : SIM_KEEP, 0);
    }
    at->lost_disks = 0;
    return ok;
}

static bool crash_filling(struct fill *f, struct crash_state *at, unsigned crashes)
{
    bool ok = true;
    for (unsigned i = 0; ok && i < crashes; i++) {
        uint64_t rng = hash_mix(f->s->seed + f->points.at[0].event + i + crashes);
        const struct point *p = &f->points.at[rng % f->points.count];
        position.step = "crash while disks are filled";
        at->killed = rng / 16 % 3 == 0;
        at->seed++;
        ok = look_at_point(f, at, p, (enum sim_fate)(rng / 64 % 3),
                           crashes == CRASHES ? CRASHES_DEEPER : 0);
    }
    return ok;
}

static bool look(const struct crash_state *s, unsigned crashes, struct explore_counts *counts,
                 char *why, size_t size)
{
    struct fill f = {.s = s, .counts = counts, .why = why, .why_size = size};
    f.observed = observation_new(s->model);
    struct verify_output out = {.observed = f.observed, .then = fill_then, .arg = &f};
    position.step = "recovered, then filled";
    counts->states++;
    bool ok = verify_state(s, &out, why, size);
    if (ok) {
        struct crash_state at = *s;
        at.model = f.next;
        at.seed++;
        at.back_disks = 0;
        at.killed = false;
        ok = lose_disks(&f, &at) && crash_filling(&f, &at, crashes);
    }
    points_fini(&f.points);
    model_free(f.next);
    observation_free(f.observed);
    if (ok)
        position.step = NULL;
    return ok;
}

bool fill_look(const struct crash_state *s, struct explore_counts *counts, char *why, size_t size)
{
    return look(s, CRASHES, counts, why, size);
}
