/* A deeper look at a state that recovers well: see explore.h. */
#include "tests/sim/explore.h"

#include "base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GO_ON_STRIDE = 7, OPS_MAX = 33 };

struct deep {
    const struct crash_state *s;
    struct seen *seen;
    struct explore_counts *counts;
    struct observation *observed;
    struct points points;
    uint64_t event;        /* of the second crash */
    uint64_t salt;         /* of states whose recovery must show what another one has shown */
    struct model *next;    /* of the life after */
    struct crash_state at; /* the point that is being enumerated */
    char *why;
    size_t why_size;
    bool ok;
};

static void on_event(struct rig *r, uint64_t event)
{
    struct deep *d = r->arg;
    points_add(&d->points, r->w, event + 1);
}

static bool on_choice(void *arg, const struct sim_choice *choices, unsigned count)
{
    struct deep *d = arg;
    uint64_t image = sim_snapshot_hash(d->at.snapshot, choices);
    uint64_t key = image + (d->at.prior ? d->salt : 0);
    key = hash_mix(key) + model_promises_at(d->at.model, d->at.event) + d->at.lost_disks;
    if (d->at.killed)
        key += choices_kill_key(d->at.snapshot, d->at.model, d->at.event);
    d->counts->tried++;
    if (!hash_set_add(&d->seen->states, key))
        return true;
    d->counts->images += hash_set_add(&d->seen->images, image);
    d->at.order = hash_mix(image) % RIG_ORDERS;
    d->at.choices = choices;
    d->counts->states++;
    d->counts->again++;
    struct verify_output out = {0};
    d->ok = verify_state(&d->at, &out, d->why, d->why_size);
    if (!d->ok) {
        char text[4096];
        choices_format(choices, count, d->at.killed, text, sizeof(text));
        size_t at = strlen(d->why);
        (void)snprintf(d->why + at, d->why_size - at, " [then event %" PRIu64 ", %s]", d->event,
                       text);
    }
    return d->ok;
}

static void look_at_point(struct deep *d, const struct point *p, bool killed)
{
    d->at.snapshot = p->snapshot;
    d->at.killed = killed;
    d->event = p->event;
    if (killed)
        (void)choices_each_kill(p->snapshot, CHOICES_THIN, on_choice, d);
    else
        (void)choices_each(p->snapshot, CHOICES_THIN, on_choice, d);
}

static void look_at_points(struct deep *d, unsigned stride)
{
    uint64_t last = 0;
    for (unsigned i = 0; d->ok && i < d->points.count; i++) {
        const struct point *p = &d->points.at[i];
        if (i % stride && i + 1 != d->points.count)
            continue;
        uint64_t now = point_signature(p);
        d->at.event = p->event;
        if (now != last)
            look_at_point(d, p, false);
        if (d->ok)
            look_at_point(d, p, true);
        last = now;
    }
    points_fini(&d->points);
}

static uint64_t first_read_event(const struct observation *o)
{
    uint64_t first = UINT64_MAX;
    for (unsigned i = 0; i < o->volume_count; i++)
        if (o->volume[i].exists && o->volume[i].blocks && o->volume[i].read_event[0] < first)
            first = o->volume[i].read_event[0];
    return first;
}

/* Crashes the recovery before each of its own events: by a power cut, or by a kill if the recovery
 * follows a kill. What the recovery had shown by then stays. */
static void crash_recovery(struct deep *d, struct sim_snapshot **end)
{
    struct verify_output out = {
        .observed = d->observed, .on_event = on_event, .arg = d, .want_end = true};
    position.step = "recovery again";
    d->ok = verify_state(d->s, &out, d->why, d->why_size);
    *end = out.end;
    if (!d->ok)
        return;
    d->at = *d->s;
    d->at.seed++;
    d->at.back_disks = 0;
    d->at.killed_first = d->s->killed;
    position.step = "recovery crashed";
    uint64_t first_read = first_read_event(d->observed), last = 0;
    /* The last crash points come first: their states are equal to earlier ones, but more must not
     * change. */
    for (unsigned i = d->points.count; d->ok && i-- > 0;) {
        const struct point *p = &d->points.at[i];
        uint64_t now = point_signature(p);
        if (now == last)
            continue;
        last = now;
        d->at.snapshot = p->snapshot;
        d->at.prior = p->event < first_read ? NULL : d->observed;
        d->at.prior_event = p->event;
        look_at_point(d, p, false);
        if (d->ok && d->s->killed)
            look_at_point(d, p, true);
    }
    points_fini(&d->points);
}

/* Of any number of disks that the profile survives, beside those that are bad already. */
static bool next_loss(const struct crash_state *s, unsigned *lost)
{
    unsigned bad = model_bad_at(s->model, s->event);
    while (++*lost < 1U << s->config->disks)
        if (rig_survives(s->config, *lost | bad))
            return true;
    return false;
}

/* The recovery finds fewer disks. */
static void recover_without_disks(struct deep *d)
{
    struct crash_state s = *d->s;
    struct verify_output out = {0};
    position.step = "recovery without disks";
    s.back_disks = 0;
    s.lost_disks = 0;
    while (d->ok && next_loss(&s, &s.lost_disks)) {
        d->counts->tried++;
        d->counts->states++;
        d->ok = verify_state(&s, &out, d->why, d->why_size);
        if (!d->ok) {
            size_t at = strlen(d->why);
            (void)snprintf(d->why + at, d->why_size - at, " [without disks %x]", s.lost_disks);
        }
    }
}

/* After a recovery that showed everything, loses disks. Nothing may change. */
static void lose_disks(struct deep *d, const struct sim_snapshot *end)
{
    d->at = *d->s;
    d->at.seed++;
    d->at.back_disks = 0;
    d->at.snapshot = end;
    d->at.killed = false;
    d->at.killed_first = d->s->killed;
    d->at.prior = d->observed;
    d->at.prior_event = UINT64_MAX;
    position.step = "recovered, then disks lost";
    d->at.lost_disks = 0;
    while (d->ok && next_loss(&d->at, &d->at.lost_disks)) {
        unsigned n = sim_snapshot_pending(end);
        struct sim_choice *none = calloc(n + 1, sizeof(*none));
        if (none)
            (void)on_choice(d, none, n);
        free(none);
    }
}

/* A little of everything on each volume that is there. */
static void go_on(struct rig *r)
{
    struct deep *d = r->arg;
    struct op ops[OPS_MAX + 1] = {{0}};
    unsigned n = 0;
    d->next = observation_model(d->observed, d->s->model);
    d->next->event = r->model->event;
    r->model = d->next;
    r->on_event = on_event;
    for (unsigned i = 0; i < d->next->volume_count && n + 8 <= OPS_MAX; i++) {
        const char *name = d->next->volume[i].name;
        if (d->next->volume[i].size[0].blocks < 16)
            continue;
        ops[n++] = (struct op){OP_WRITE, name, BLOCKS(1), BLOCKS(3), 0};
        ops[n++] = (struct op){OP_FLUSH, name, 0, 0, 0};
        ops[n++] = (struct op){OP_WRITE, name, BLOCKS(2) + 3, 2, 0};
        ops[n++] = (struct op){OP_DISCARD, name, BLOCKS(4), BLOCKS(8), 0};
        ops[n++] = (struct op){OP_WRITE, name, BLOCKS(0), BLOCKS(1), OP_FUA};
        ops[n++] = (struct op){OP_READ, name, BLOCKS(0), BLOCKS(16), 0};
    }
    ops[n++] = (struct op){.kind = OP_BACKGROUND};
    if (r->config->second_disks && d->next->volume_count)
        ops[n++] = (struct op){OP_MIGRATE, d->next->volume[0].name, 0, 0, 0};
    ops[n++] = (struct op){.kind = OP_CHECKPOINT};
    rig_ops(r, ops);
}

static void live_on(struct deep *d)
{
    struct verify_output out = {.arg = d, .then = go_on, .observed = d->observed};
    position.step = "life after recovery";
    d->ok = verify_state(d->s, &out, d->why, d->why_size);
    if (d->ok) {
        d->at = *d->s;
        d->at.seed += 2;
        d->at.back_disks = 0;
        d->at.model = d->next;
        d->next->event = 0;
        position.step = "crash in the life after recovery";
        look_at_points(d, GO_ON_STRIDE);
    }
    points_fini(&d->points);
    model_free(d->next);
}

bool deep_look(const struct crash_state *s, unsigned flags, struct seen *seen,
               struct explore_counts *counts, char *why, size_t size)
{
    struct deep d = {.s = s,
                     .seen = seen,
                     .counts = counts,
                     .observed = observation_new(s->model),
                     .salt = hash_mix(sim_snapshot_hash(s->snapshot, s->choices) + 1),
                     .why = why,
                     .why_size = size,
                     .ok = true};
    struct sim_snapshot *end = NULL;
    crash_recovery(&d, &end);
    if (d.ok && flags & SCENARIO_SURVIVES_LOSS && !position.mishap.kind) {
        lose_disks(&d, end);
        recover_without_disks(&d);
    }
    sim_snapshot_free(end);
    if (d.ok && !(flags & SCENARIO_ROT))
        live_on(&d);
    observation_free(d.observed);
    if (d.ok)
        position.step = NULL;
    return d.ok;
}
