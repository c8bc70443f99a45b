/*
 * Volumes that move between the two pools of a world: the operations, what the exports do at the
 * switch, and what must hold when the pools were imported.
 *
 * After an import of both pools each volume has one owner, and the other pool has nothing of it. In
 * a pool that is imported alone, what could be opened is what both pools together let be opened,
 * and what may have moved is in doubt and cannot be opened.
 */
#include "tests/sim/rig.h"

#include "base/bytes.h"
#include "base/verify.h"
#include "io/device.h"
#include "migrate/migrate.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { FREEZE_MS = 10000, PAUSE_MS = 1, COMPARE_BLOCKS = 16 };
#define STALL_NS      UINT64_C(4000000)
#define LONG_STALL_NS UINT64_C(80000000)

/* ---- what the exports do ------------------------------------------------------------------ */

/* If clients have the volume open, the target is held open from now on, too. */
static CO int move_prepare(void *arg, struct volume *source, struct volume *target,
                           struct vp_error *err)
{
    struct rig_move *x = arg;
    if (volume_size(source) != volume_size(target) ||
        volume_reactor(source) != volume_reactor(target))
        rig_fail(x->r, "the target of %s differs from it", x->name);
    int rc = 0;
    if (rig_find_open(x->r, x->name))
        rc = volume_open_to_move(x->r->vs[x->to], x->name, NULL, &x->target, err);
    x->prepared = !rc;
    return rc;
}

static int move_arrive(void *arg, struct volume *target, struct pool_batch *b)
{
    struct rig_move *x = arg;
    (void)b;
    if (!x->prepared || (x->target && x->target != target))
        rig_fail(x->r, "%s arrives and was not prepared", x->name);
    return 0;
}

/* The one call after move_prepare that ends what it began. */
static void prepared_ends(struct rig_move *x)
{
    if (!x->prepared)
        rig_fail(x->r, "the exports of %s were not prepared", x->name);
    x->prepared = false;
}

static CO void move_kept(void *arg)
{
    struct rig_move *x = arg;
    prepared_ends(x);
    if (x->target)
        volume_close(x->target);
}

/* Reads beside the gate. False: it failed, and that is reported or was to be expected. */
static CO bool side_read(struct rig_move *x, struct volume *v, uint64_t block, uint64_t count,
                         unsigned char *buf)
{
    struct rig *r = x->r;
    bool zero = false;
    int rc = volume_beside_read(v, block, count, buf, &zero);
    if (rc && !r->errors_allowed && !r->failing_pools)
        rig_fail(r, "%s block %" PRIu64 " cannot be read at the switch: %s", volume_full_name(v),
                 block, vp_err_name(rc));
    if (zero)
        memset(buf, 0, count * STAMP_BLOCK);
    return !rc;
}

/* Both are frozen: each byte is the same, but for what a planned fault has made unreadable. */
static CO void sides_compare(struct rig_move *x, struct volume *source, struct volume *target)
{
    static unsigned char here[COMPARE_BLOCKS * STAMP_BLOCK] __attribute__((aligned(4096)));
    static unsigned char there[COMPARE_BLOCKS * STAMP_BLOCK] __attribute__((aligned(4096)));
    uint64_t blocks = div_up(volume_size(source), STAMP_BLOCK);
    for (uint64_t at = 0, n; at < blocks && !x->r->failed; at += n) {
        n = min_u64(COMPARE_BLOCKS, blocks - at);
        if (!side_read(x, source, at, n, here) || !side_read(x, target, at, n, there))
            continue;
        for (uint64_t i = 0; i < n; i++)
            if (memcmp(here + i * STAMP_BLOCK, there + i * STAMP_BLOCK, STAMP_BLOCK) != 0)
                rig_fail(x->r, "at the switch block %" PRIu64 " of %s is not that of %s", at + i,
                         volume_full_name(target), volume_full_name(source));
    }
}

/* Clients keep their front. */
static CO void move_switched(void *arg, struct volume *source, struct volume *target)
{
    struct rig_move *x = arg;
    struct rig_open *o = rig_find_open(x->r, x->name);
    prepared_ends(x);
    sides_compare(x, source, target);
    if (!o)
        return;
    if (o->v != source || x->target != target || volume_front(target) != o->front)
        rig_fail(x->r, "the clients of %s are not those of the target", x->name);
    o->v = target;
    o->pool = x->to;
    volume_close(source);
}

static CO void move_withdraw(void *arg, struct volume *source)
{
    struct rig_move *x = arg;
    (void)source;
    prepared_ends(x);
    x->r->withdrawn = true;
    rig_withdraw(x->r, x->name);
    if (x->target)
        volume_close(x->target);
}

static int move_leave(void *arg, struct volumes *vs, uint32_t volume_id, struct pool_batch *b)
{
    (void)arg, (void)vs, (void)volume_id, (void)b;
    return 0;
}

/* ---- operations --------------------------------------------------------------------------- */

/* Ended: what the model is told, and what the operation returns. */
static int move_end(struct rig_move *x, struct model_volume *mv, unsigned move)
{
    const struct migrate_status *s = migrate_status(x->m);
    int rc = s->rc;
    enum migrate_phase phase = s->phase;
    if (phase != MIGRATE_IN_DOUBT)
        model_move_answer(x->r->model, mv, move, phase == MIGRATE_DONE);
    bool too_slow = rc == VP_E_TIMED_OUT && strstr(s->error, "never at this rate");
    if (phase == MIGRATE_CANCELLED && x->cancelled)
        rc = 0;
    else if (phase == MIGRATE_FAILED && too_slow)
        rc = 0;
    else if ((phase == MIGRATE_DONE) != (rc == 0))
        rig_fail(x->r, "a move of %s is %s with %s", x->name, migrate_phase_name(phase),
                 rc ? vp_err_name(rc) : "no error");
    migrate_free(x->m);
    return rc;
}

CO int rig_migrate(struct rig *r, const struct op *op, struct model_volume *mv)
{
    struct rig_move x = {.r = r, .name = op->volume, .from = model_place(mv)};
    x.to = !x.from;
    const struct migrate_exports exports = {.prepare = move_prepare,
                                            .arrive = move_arrive,
                                            .kept = move_kept,
                                            .switched = move_switched,
                                            .withdraw = move_withdraw,
                                            .leave = move_leave,
                                            .arg = &x};
    struct migrate_options o = {.from = r->vs[x.from],
                                .to = r->vs[x.to],
                                .volume = x.name,
                                .name = x.name,
                                .mode = op->at ? (enum migrate_mode)op->at : MIGRATE_OFFLINE,
                                .freeze_ms = FREEZE_MS,
                                .pause_ms = PAUSE_MS,
                                .mirror_ms = op->count,
                                .impact_percent = op->flags & OP_GOVERNED ? 0 : MIGRATE_IMPACT_ANY,
                                .verify = op->flags & OP_VERIFIED,
                                .exports = &exports};
    struct vp_error err = {0};
    unsigned move = model_move_call(r->model, mv, x.to);
    VP_VERIFY_TRUE(r->move == NULL);
    r->move = &x;
    int rc = migrate_start(&o, &x.m, &err);
    if (rc) {
        model_move_answer(r->model, mv, move, false);
        if (!err.text[0])
            rig_fail(r, "a move of %s does not begin and does not say why", x.name);
    } else {
        migrate_wait(x.m);
        rc = move_end(&x, mv, move);
    }
    if (x.prepared)
        rig_fail(r, "a move of %s has ended without its exports", x.name);
    r->move = NULL;
    co_queue_wake_all(&r->events);
    return rc;
}

/* False: it has ended. */
static CO bool wait_for_phase(struct rig *r, uint64_t phase)
{
    while (r->move && (!r->move->m || migrate_status(r->move->m)->phase < phase))
        co_queue_wait(&r->events, "a phase of a move");
    return r->move && !migrate_has_ended(r->move->m);
}

static const struct op few_turns[] = {
    {OP_WRITE, NULL, BLOCKS(1), BLOCKS(2), 0},  {OP_FLUSH, NULL, 0, 0, 0},
    {OP_WRITE, NULL, BLOCKS(5) + 3, 2, OP_FUA}, {OP_DISCARD, NULL, BLOCKS(0), BLOCKS(4), 0},
    {OP_READ, NULL, BLOCKS(0), BLOCKS(16), 0},  {OP_ZERO, NULL, BLOCKS(6), BLOCKS(1), OP_AS_DATA},
    {OP_WRITE, NULL, BLOCKS(13), BLOCKS(1), 0},
};
/* Zeros between data: a copy writes them in several runs. */
static const struct op wide_turns[] = {
    {OP_WRITE, NULL, BLOCKS(0), BLOCKS(30), 0},
    {OP_ZERO, NULL, BLOCKS(9) + 3, BLOCKS(3), OP_AS_DATA},
    {OP_WRITE, NULL, BLOCKS(10), BLOCKS(2), 0},
    {OP_ZERO, NULL, BLOCKS(20), BLOCKS(2), OP_NO_HOLE},
    {OP_FLUSH, NULL, 0, 0, 0},
};
/* A part of the last one's, and what it does not touch. */
static const struct op apart_turns[] = {
    {OP_WRITE, NULL, BLOCKS(13), BLOCKS(1), 0},
    {OP_ZERO, NULL, BLOCKS(40) + 3, BLOCKS(3), OP_AS_DATA},
    {OP_WRITE, NULL, BLOCKS(41), BLOCKS(2), 0},
    {OP_WRITE, NULL, BLOCKS(40), BLOCKS(4), 0},
};
/* The same blocks again and again. */
static const struct op again_turns[] = {
    {OP_WRITE, NULL, BLOCKS(5), BLOCKS(1), 0},
    {OP_WRITE, NULL, BLOCKS(4), BLOCKS(2), 0},
};
static const struct busy_turns {
    const struct op *op;
    unsigned count;
} busy_turns[] = {
    {few_turns, sizeof(few_turns) / sizeof(few_turns[0])},
    {wide_turns, sizeof(wide_turns) / sizeof(wide_turns[0])},
    {apart_turns, sizeof(apart_turns) / sizeof(apart_turns[0])},
    {again_turns, sizeof(again_turns) / sizeof(again_turns[0])},
};

CO int rig_busy(struct rig *r, const struct op *op)
{
    unsigned who = op->flags & OP_WIDE    ? 1
                   : op->flags & OP_APART ? 2
                   : op->flags & OP_AGAIN ? 3
                                          : 0;
    const struct busy_turns *t = &busy_turns[who];
    bool more = op->at == 0 || wait_for_phase(r, op->at);
    int rc = 0;
    for (uint64_t i = 0; i < op->count && more && !rc; i++, more = r->move != NULL) {
        struct op one = t->op[i % t->count];
        one.volume = op->volume;
        if (one.kind != OP_FLUSH && one.kind != OP_READ)
            one.flags |= op->flags & OP_DIES;
        rc = rig_op(r, &one);
    }
    return rc;
}

/* Waits for the phase `at` of the move, then for `count` events. */
CO int rig_cancel(struct rig *r, const struct op *op)
{
    bool more = wait_for_phase(r, op->at);
    uint64_t until = r->model->event + op->count;
    while (more && r->model->event < until) {
        co_queue_wait(&r->events, "a moment to cancel a move");
        more = wait_for_phase(r, op->at);
    }
    if (!more)
        return 0;
    struct vp_error err = {0};
    struct rig_move *x = r->move;
    bool too_late = migrate_status(x->m)->phase >= MIGRATE_SWITCHING;
    int rc = migrate_cancel(x->m, &err);
    x->cancelled |= !rc;
    return rc == VP_E_BUSY && too_late ? 0 : rc;
}

const char *rig_moving(const struct rig *r)
{
    return r->move ? r->move->name : NULL;
}

struct sim_disk *rig_move_target(const struct rig *r, unsigned nth)
{
    for (unsigned i = 0; r->move && i < r->config->disks; i++)
        if (rig_pool_of_disk(r->config, i) == r->move->to && nth-- == 0)
            return rig_disk(r, i);
    return NULL;
}

/* Each longer than the one before: so the last one is still late when what waited for the others
 * goes on. */
CO int rig_stall(struct rig *r, const struct op *op)
{
    struct sim_disk *d;
    if (!wait_for_phase(r, op->at))
        return 0;
    for (unsigned i = 0; (d = rig_move_target(r, i)); i++)
        for (uint64_t n = op->flags & OP_LAST ? op->count - 1 : 0; n < op->count; n++)
            sim_disk_inject(d, SIM_FAULT_STALL, 1U << IO_WRITE, n,
                            op->flags & OP_LAST ? LONG_STALL_NS : (n + 1) * STALL_NS);
    return 0;
}

/* ---- after an import ---------------------------------------------------------------------- */

static int note_name(const struct volume_info *info, void *arg)
{
    struct rig_names *n = arg;
    VP_VERIFY(n->count, <, (unsigned)RIG_OPEN_MAX);
    VP_VERIFY(strlen(info->name), <, (size_t)MODEL_NAME_MAX);
    memcpy(n->name[n->count++], info->name, strlen(info->name) + 1);
    return 0;
}

void rig_names(struct rig *r, unsigned pool, struct rig_names *out)
{
    out->count = 0;
    int rc = volume_each(r->vs[pool], note_name, out);
    if (rc) /* an allocation was to fail */
        rc = volume_each(r->vs[pool], note_name, out);
    VP_VERIFY(rc, ==, 0);
}

bool rig_has(struct rig *r, unsigned pool, const char *name)
{
    struct volume_owner_info o;
    return r->vs[pool] && volume_owner_get(r->vs[pool], name, &o) == 0;
}

static CO int settle(struct rig *r, unsigned p)
{
    struct volumes *open[RIG_POOLS];
    unsigned count = 0;
    for (unsigned i = 0; i < RIG_POOLS; i++)
        if (r->vs[i])
            open[count++] = r->vs[i];
    return migrate_settle(r->vs[p], open, count, NULL);
}

static CO bool can_be_opened(struct rig *r, unsigned p, const char *name)
{
    struct vp_error err = {0};
    struct volume *v;
    int rc = volume_open(r->vs[p], name, false, &v, &err);
    if (!rc)
        volume_close(v);
    return !rc;
}

/* Pool `p` is the only one that is imported. */
static CO void look_alone(struct rig *r, unsigned p)
{
    struct rig_names names;
    rig_names(r, p, &names);
    r->alone.count = 0;
    for (unsigned i = 0; i < names.count; i++) {
        struct volume_owner_info o;
        const char *name = names.name[i];
        if (volume_owner_get(r->vs[p], name, &o))
            continue;
        bool owns = o.ownership == VOLUME_OWNER || o.ownership == VOLUME_ARRIVED;
        bool opens = can_be_opened(r, p, name);
        if (o.ownership == VOLUME_INTENT && !o.in_doubt)
            rig_fail(r, "%s may have moved to a pool that is not there, and is not in doubt", name);
        else if (owns != opens && !(owns && r->errors_allowed))
            rig_fail(r, "%s %s in its pool alone", name,
                     owns ? "cannot be opened" : "has perhaps moved, and can be opened");
        if (opens)
            (void)snprintf(r->alone.name[r->alone.count++], MODEL_NAME_MAX, "%s", name);
    }
}

/* Both pools are there, and moves are settled. */
static CO void audit_owners(struct rig *r, unsigned p)
{
    struct rig_names names;
    rig_names(r, p, &names);
    for (unsigned i = 0; i < names.count; i++) {
        struct volume_owner_info o;
        int rc = volume_owner_get(r->vs[p], names.name[i], &o);
        VP_VERIFY(rc, ==, 0);
        if (o.ownership == VOLUME_INTENT || o.ownership == VOLUME_TARGET)
            rig_fail(r, "%s in pool %u is not settled: %d", names.name[i], p, (int)o.ownership);
        else if (volume_name_of_uuid(r->vs[!p], o.uuid))
            rig_fail(r, "%s is in both pools", names.name[i]);
    }
}

static CO int settle_both(struct rig *r, unsigned first, struct vp_error *err)
{
    int rc = settle(r, first);
    rc = rc ? rc : settle(r, !first);
    if (rc)
        return vp_fail(err, rc, "moves are not settled: %s", vp_err_text(rc));
    for (unsigned p = 0; p < RIG_POOLS; p++)
        audit_owners(r, p);
    for (unsigned i = 0; i < r->alone.count; i++)
        if (!rig_has(r, r->alone_pool, r->alone.name[i]))
            rig_fail(r, "%s was opened in its pool alone, and belongs to the other one",
                     r->alone.name[i]);
    return 0;
}

/* What came in an attempt that failed stays. */
CO int rig_try_import(struct rig *r, struct vp_error *err)
{
    unsigned pools = rig_pools(r->config), first = pools > 1 && r->order & RIG_SECOND_FIRST;
    int rc = r->vs[first] ? 0 : rig_import_one(r, first, err);
    if (rc || pools == 1)
        return rc;
    r->alone.count = 0;
    if (r->order & RIG_FIRST_ALONE && !r->vs[!first]) {
        r->alone_pool = first;
        vp_ignore(settle(r, first), "it is tried again with both");
        look_alone(r, first);
    }
    if (!r->vs[!first])
        rc = rig_import_one(r, !first, err);
    if (rc)
        return rc;
    rc = settle_both(r, first, err);
    if (rc) /* a commit failed: its pool is fenced */
        vp_ignore(rig_close_pools(r), "…");
    return rc;
}
