/*
 * Random runs. A seed draws a configuration (disks, profile, atomic unit, cache, latencies, sizes),
 * some rounds of clients that work at the same time, a plan of faults, and the moments when the
 * power goes. Each round ends in a crash. Some of the states that the round could have left are
 * checked, and the next round goes on from one of them.
 *
 * The planner keeps the faults within what every volume survives. Either all faults of a seed hit
 * one disk, and only where the profile is a mirror. Or blocks cannot be read on any disk but one.
 * Or disks lack something for a moment, which no volume may notice. Where nothing befalls disks, as
 * many as the profile survives are not there any more at some imports.
 *
 * Some runs have a second pool, and volumes move between the two, in each mode, while clients work.
 * In half of these runs the disks of a move's target are slow for moments. Where these pools have
 * no second copy, operations of the second pool may fail; what is in the first one then notices
 * nothing.
 *
 * Some runs have next to nothing of a resource: coroutines, I/O buffers, page cache, metadata, kept
 * memory.
 */
#include "tests/sim/explore.h"

#include "base/hash.h"
#include "base/verify.h"
#include "io/buffer.h"
#include "io/co.h"
#include "io/device.h"
#include "migrate/migrate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CLIENTS_MAX = 5,
    MOVES = 2,      /* while clients work once                       */
    MOVING_OPS = 4, /* times as many requests, as long as a volume moves */
    NAMES = 3,
    VOLUME_BLOCKS = 256,
    WIDE_VOLUME_BLOCKS = 32768, /* of three, more pages of the map than the smallest cache holds */
    STATES_LOOKED_AT = 64,      /* after each round */
    IMPORT_FAULT_ONE_IN = 8,    /* of them has a fault in its import */
    SECTORS_MAX = 160,
    BUFFERS_LEFT = 128 << 10, /* enough for the largest request, not for two  */
    BUFFERS_HELD = 8,         /* pieces that the others are in                */
    STALLS_MAX = 6,           /* operations that are slow, one after the other */
    STALLED_ONE_IN = 5,       /* events of a move                             */
    POINTS_DENSE = 500,       /* crash points of a round, before they get rarer */
};
#define STALL_MAX_NS  UINT64_C(12000000)
#define SHORT_MAX_NS  UINT64_C(300000000)
#define SHORT_CALM_NS UINT64_C(2000000000) /* before the next: each lasts less than is waited for */

static const char *const names[NAMES] = {"a", "b", "c"};

struct random_world {
    uint64_t rng;
    struct rig_config config;
    unsigned rounds, phases, clients, ops;
    bool no_checkpoints;
    int bad_disk; /* -1: no faults */
    bool rots;    /* its faults damage data: power goes only when nothing is being overwritten */
    bool returns; /* the bad disk returns, is filled while clients work, and another one is bad */
    bool resting; /* … meanwhile there are no faults */
    unsigned first_bad; /* of the round under way */
    bool overwrites_fail;
    bool hogs;       /* metadata are at their limit from the first clients on */
    bool unreadable; /* each copy has blocks that cannot be read, never the same */
    bool runs_short; /* disks lack something (shortages) for moments               */
    bool few_buffers;
    bool second_fails;  /* operations of the second pool's disks fail, and it has one copy */
    bool target_stalls; /* disks of a move's target are slow for moments */
    uint64_t volume_blocks, calm_until_ns;
    unsigned snapshot_one_in, fault_one_in;
    unsigned keep_pages;          /* of kept memory, for the first round; 0: enough */
    struct points points;         /* of the round under way */
    struct model *model;          /* … */
    struct observation *observed; /* what it began with */
    struct explore_counts *counts;
};

static uint64_t draw(struct random_world *x)
{
    x->rng += 0x9e3779b97f4a7c15ULL;
    return hash_mix(x->rng);
}
static uint64_t below(struct random_world *x, uint64_t bound)
{
    return draw(x) % bound;
}

/* Decides without a draw, so that nothing else of the seed changes its meaning. */
static uint64_t aside(const struct random_world *x, unsigned salt, uint64_t bound)
{
    return hash_mix(x->rng + salt) % bound;
}

static void draw_scarcity(struct random_world *x)
{
    x->hogs = aside(x, 0, 6) == 0;
    x->runs_short = aside(x, 1, 3) == 0;
    x->few_buffers = aside(x, 2, 5) == 0;
    if (x->few_buffers)
        x->config.buffer_bytes = IO_BUFFER_MAX;
    if (aside(x, 3, 5) == 0) /* the clients', the first, the room watcher, and hardly any more */
        x->config.coroutines = x->clients + 2 + (unsigned)aside(x, 4, 3);
    x->volume_blocks = VOLUME_BLOCKS;
    if (!x->no_checkpoints && aside(x, 5, 10) == 0) {
        x->config.metadata_bytes = 1; /* the least there is */
        x->volume_blocks = WIDE_VOLUME_BLOCKS;
        x->ops *= 4;
    }
}

/* Decides aside, too. */
static void draw_second_pool(struct random_world *x)
{
    unsigned disks = 1 + rig_losses(&x->config);
    if (aside(x, 7, 3) || x->volume_blocks > VOLUME_BLOCKS)
        return;
    x->config.second_disks = disks;
    if (x->bad_disk >= 0 && aside(x, 8, 2))
        x->bad_disk += (int)x->config.disks - x->bad_disk; /* the first one of the second pool */
    x->second_fails = disks == 1 && aside(x, 8, 2);
    x->target_stalls = aside(x, 10, 2) == 0;
    x->config.disks += disks;
    if (x->config.coroutines)
        x->config.coroutines += 1 + (unsigned)aside(x, 9, 3); /* its room watcher; moves */
}

static void draw_config(struct random_world *x)
{
    static const char *const profiles[] = {"single", "mirror:2", "mirror:2", "mirror:3"};
    static const unsigned copies[] = {1, 2, 2, 3};
    unsigned p = (unsigned)below(x, 4);
    uint32_t atomic = below(x, 4) ? 4096 : 512;
    uint64_t slow = 1000 + below(x, 1000000);
    x->config = (struct rig_config){
        .disks = copies[p] + (unsigned)below(x, 2),
        .disk_bytes = (8 + below(x, 16)) << 20,
        .atomic_bytes = atomic,
        .sector_bytes = atomic == 4096 && below(x, 2) ? 4096 : 512,
        .write_cache = below(x, 5) != 0,
        .can_discard = below(x, 2),
        .latency_min_ns = below(x, slow),
        .latency_max_ns = slow,
        .profile = profiles[p],
        .chunk_bytes = 16384U << below(x, 3),
        .extent_bytes = 1 << 20,
        .log_segment_bytes = 16384U << below(x, 3),
    };
    /* Some live through many crashes without a checkpoint: the log then has many pieces. */
    x->no_checkpoints = below(x, 6) == 0;
    x->rounds = x->no_checkpoints ? 14 : 1 + (unsigned)below(x, 4);
    x->phases = x->no_checkpoints ? 1 : 1 + (unsigned)below(x, 4);
    x->clients = 1 + (unsigned)below(x, CLIENTS_MAX);
    x->ops = 4 + (unsigned)below(x, 24);
    x->bad_disk = copies[p] > 1 && below(x, 3) ? (int)below(x, x->config.disks) : -1;
    x->rots = x->bad_disk >= 0 && below(x, 2);
    x->unreadable = copies[p] > 1 && x->config.disks == copies[p] && x->bad_disk < 0;
    x->overwrites_fail = x->bad_disk < 0 && below(x, 2);
    x->snapshot_one_in = 1 + (unsigned)below(x, 12);
    x->fault_one_in = 50 + (unsigned)below(x, 2000);
    draw_scarcity(x);
    /* A header and none, one or two steps of an area. */
    x->keep_pages = below(x, 4) ? 0 : 1 + 4 * (unsigned)below(x, 3);
    uint64_t more = hash_mix(x->rng + 1); /* no draw: what else a seed means stays */
    x->config.property = more % 3 ? (unsigned)(more / 3 % RIG_PROPERTY_MAX) : 0;
    if (copies[p] == 3 && aside(x, 14, 3) == 0) {
        x->config.profile = "mirror:4";
        x->config.disks++;
    }
    draw_second_pool(x);
    x->config.removes = !x->config.second_disks && !x->unreadable && aside(x, 17, 3) == 0;
    x->config.disks += x->config.removes;
    x->returns = x->bad_disk >= 0 && !x->rots && !x->config.second_disks && !x->hogs &&
                 !x->config.coroutines && aside(x, 16, 4);
}

/* ---- faults ------------------------------------------------------------------------------- */

#define IO_ANY      (1U << IO_READ | 1U << IO_WRITE | 1U << IO_FLUSH)

#define HANG_MAX_NS UINT64_C(60000000000)

static void plan_fault(struct random_world *x, struct sim_disk *d)
{
    const unsigned any = IO_ANY;
    uint64_t page = below(x, x->config.disk_bytes / STAMP_BLOCK);
    if (x->runs_short && below(x, 2)) {
        enum sim_fault fault = below(x, 2) ? SIM_FAULT_AGAIN : SIM_FAULT_NO_MEMORY;
        uint64_t for_ns = below(x, below(x, 2) ? SHORT_MAX_NS : 12 * SHORT_CALM_NS / 2);
        sim_disk_inject(d, fault, any, below(x, 20), for_ns);
        return;
    }
    switch (below(x, x->rots ? 8 : 4)) {
    case 0:
        sim_disk_inject(d, SIM_FAULT_ERROR, any, below(x, 20), 0);
        break;
    case 1:
        sim_disk_inject(d, SIM_FAULT_DEAD, any, below(x, 20), 0);
        break;
    case 2:
        if (below(x, 2))
            sim_disk_inject(d, SIM_FAULT_STALL, any, below(x, 20), below(x, 2000000000));
        else
            sim_disk_inject(d, SIM_FAULT_HANG, any, below(x, 20),
                            below(x, below(x, 2) ? 3000000000 : HANG_MAX_NS));
        break;
    case 3:
        sim_disk_inject(d, SIM_FAULT_FULL, 1U << IO_WRITE | 1U << IO_FLUSH, below(x, 20),
                        below(x, 200000000));
        break;
    case 4:
        sim_disk_inject(d, SIM_FAULT_LOST, 1U << IO_WRITE, below(x, 20), 0);
        break;
    case 5:
        sim_disk_inject(d, SIM_FAULT_MISDIRECT, 1U << IO_WRITE, below(x, 20), page * STAMP_BLOCK);
        break;
    case 6:
        sim_disk_inject(d, SIM_FAULT_FLIP, 1U << IO_WRITE, below(x, 20), draw(x) >> 8);
        break;
    default:
        sim_disk_flip_bit(d, page * STAMP_BLOCK + below(x, STAMP_BLOCK), (unsigned)below(x, 8));
        break;
    }
}

static struct sim_disk *disk_number(struct sim_world *w, unsigned i)
{
    char name[16];
    (void)snprintf(name, sizeof(name), "d%u", i);
    return sim_disk_find(w, name);
}

/* Each may hit a disk without another copy, too: the operation waits and succeeds. */
static const struct shortage {
    enum sim_fault fault;
    unsigned kinds;
} shortages[] = {
    {SIM_FAULT_AGAIN, 1U << IO_WRITE},
    {SIM_FAULT_FULL, 1U << IO_WRITE},
    {SIM_FAULT_AGAIN, 1U << IO_READ},
    {SIM_FAULT_AGAIN, 1U << IO_FLUSH},
    {SIM_FAULT_FULL, 1U << IO_FLUSH},
    {SIM_FAULT_NO_MEMORY, 1U << IO_WRITE}, /* not a flush: that has failed */
    {SIM_FAULT_NO_MEMORY, 1U << IO_READ},
};
enum { SHORTAGES = sizeof(shortages) / sizeof(shortages[0]) };

static void plan_shortage(struct random_world *x, struct sim_world *w)
{
    if (sim_now_ns(w) < x->calm_until_ns)
        return;
    unsigned disk = (unsigned)below(x, x->config.disks);
    const struct shortage *s = &shortages[below(x, SHORTAGES)];
    x->calm_until_ns = sim_now_ns(w) + SHORT_CALM_NS;
    sim_disk_inject(disk_number(w, disk), s->fault, s->kinds, 0, below(x, SHORT_MAX_NS));
}

/* Longer than some clients wait for the target, shorter than others do. */
static void plan_stalls(struct random_world *x, struct rig *r)
{
    struct sim_disk *d = rig_move_target(r, (unsigned)below(x, x->config.second_disks));
    for (unsigned n = (unsigned)below(x, STALLS_MAX) + 1; d && n-- > 0;)
        sim_disk_inject(d, SIM_FAULT_STALL, below(x, 2) ? IO_ANY : 1U << IO_WRITE, n,
                        below(x, STALL_MAX_NS));
}

static void on_event(struct rig *r, uint64_t event)
{
    struct random_world *x = r->arg;
    bool faulty = x->bad_disk >= 0 && !x->resting && below(x, x->fault_one_in) == 0;
    if (faulty && x->returns)
        rig_disk_is_bad(r, (unsigned)x->bad_disk);
    if (faulty)
        plan_fault(x, disk_number(r->w, (unsigned)x->bad_disk));
    if (x->second_fails && below(x, x->fault_one_in) == 0)
        sim_disk_inject(disk_number(r->w, x->config.disks - 1), SIM_FAULT_ERROR, IO_ANY, 0, 0);
    if (x->runs_short && x->bad_disk < 0 && below(x, x->fault_one_in) == 0)
        plan_shortage(x, r->w);
    if (x->target_stalls && r->move && below(x, STALLED_ONE_IN) == 0)
        plan_stalls(x, r);
    /* The more there are, the fewer are added: a snapshot has all kept memory. */
    uint64_t one_in = x->snapshot_one_in * (1 + x->points.count / POINTS_DENSE);
    if (!x->rots && below(x, one_in) == 0)
        points_add(&x->points, r->w, event + 1);
}

/* ---- clients ------------------------------------------------------------------------------ */

struct client {
    struct random_world *x;
    struct rig *r;
    struct co_group *group;
    bool resizes; /* one of them does, in some runs */
};

static struct op draw_op(struct random_world *x, const struct model_volume *v, uint64_t blocks)
{
    static const enum op_kind kinds[] = {OP_WRITE, OP_WRITE, OP_WRITE,   OP_WRITE,  OP_WRITE,
                                         OP_WRITE, OP_READ,  OP_READ,    OP_FLUSH,  OP_FLUSH,
                                         OP_ZERO,  OP_ZERO,  OP_DISCARD, OP_DISCARD};
    struct op op = {.kind = kinds[below(x, sizeof(kinds) / sizeof(kinds[0]))], .volume = v->name};
    uint64_t sectors = BLOCKS(blocks);
    /* Small places are visited again and again. */
    uint64_t span = below(x, 3) ? sectors : 64;
    op.at = below(x, span < sectors ? span : sectors);
    op.count = 1 + below(x, below(x, 2) ? 16 : SECTORS_MAX);
    if (below(x, 2)) {
        op.at -= op.at % STAMP_BLOCK_SECTORS;
        op.count = BLOCKS(1 + op.count / STAMP_BLOCK_SECTORS);
    }
    if (op.at + op.count > sectors)
        op.count = sectors - op.at;
    op.flags = (below(x, 8) ? 0 : OP_FUA) | (below(x, 4) ? 0 : OP_AS_DATA);
    if (x->overwrites_fail && op.kind == OP_WRITE && !below(x, 16))
        op.flags |= OP_FAILS;
    else if (hash_mix(x->rng) % 8 == 0) /* no draw: what else a seed means stays */
        op.flags |= OP_DIES;
    return op;
}

/* While a volume moves its clients go on, and most requests are theirs. */
static bool client_goes_on(const struct client *c, unsigned done)
{
    unsigned ops = c->x->ops;
    return !c->r->failed && done < (rig_moving(c->r) ? MOVING_OPS * ops : ops);
}

static struct model_volume *client_volume(const struct client *c)
{
    const char *name = names[below(c->x, NAMES)], *moving = rig_moving(c->r);
    return model_volume_find(c->r->model, moving && aside(c->x, 13, 4) ? moving : name);
}

static void client(void *arg)
{
    struct client *c = arg;
    struct random_world *x = c->x;
    for (unsigned i = 0; client_goes_on(c, i); i++) {
        struct model_volume *v = client_volume(c);
        if (!v)
            continue;
        struct op op = draw_op(x, v, v->size[v->size_count - 1].blocks);
        if (c->resizes && below(x, 8) == 0)
            op =
                (struct op){OP_RESIZE, v->name, 0, BLOCKS(16 + below(x, x->volume_blocks - 16)), 0};
        vp_ignore(rig_op(c->r, &op), "rig_op has reported what was not expected");
        op = (struct op){.kind = OP_CANCEL};
        if (c->r->move && below(x, 256) == 0)
            vp_ignore(rig_op(c->r, &op), "rig_op has reported what was not expected");
        if (below(x, 4) == 0)
            vp_ignore(co_sleep_ns(below(x, 300000)), "nobody cancels clients");
    }
    co_group_leave(c->group, 0);
}

/* Of a volume: in any mode, with a target for which clients wait long, or hardly. */
static struct op draw_move(struct random_world *x, const char *name)
{
    static const unsigned waits_ms[] = {0, 1, 1, 4};
    return (struct op){.kind = OP_MIGRATE,
                       .volume = name,
                       .at = MIGRATE_OFFLINE + aside(x, 11, MIGRATE_MIRROR),
                       .count = waits_ms[aside(x, 12, sizeof(waits_ms) / sizeof(waits_ms[0]))],
                       .flags = (aside(x, 13, 2) ? OP_GOVERNED : 0U) |
                                (aside(x, 16, 3) == 0 ? OP_VERIFIED : 0U)};
}

/* Moves volumes while clients work. */
static void mover(void *arg)
{
    struct client *c = arg;
    struct random_world *x = c->x;
    for (unsigned i = 0; i < MOVES && !c->r->failed; i++) {
        vp_ignore(co_sleep_ns(below(x, 8 * x->config.latency_max_ns + 1)), "nobody cancels it");
        const char *name = names[below(x, NAMES)];
        struct op op = draw_move(x, name);
        if (model_volume_find(c->r->model, name))
            vp_ignore(rig_op(c->r, &op), "rig_op has reported what was not expected");
    }
    co_group_leave(c->group, 0);
}

static void run_clients(struct random_world *x, struct rig *r)
{
    struct client c[CLIENTS_MAX], moves = {.x = x, .r = r};
    struct co_group group;
    for (unsigned i = 0; i < NAMES; i++)
        if (model_volume_find(r->model, names[i]))
            (void)rig_volume(r, names[i]);
    bool resizes = below(x, 4) == 0;
    co_group_init(&group);
    for (unsigned i = 0; i < x->clients && !r->failed; i++) {
        c[i] = (struct client){.x = x, .r = r, .group = &group, .resizes = resizes && i == 0};
        co_group_enter(&group);
        while (co_spawn(client, &c[i], "client")) /* the engine has the few that there are */
            vp_ignore(co_sleep_ns(100000), "nobody cancels it");
    }
    moves.group = &group;
    co_group_enter(&group);
    if (!x->config.second_disks || x->few_buffers || co_spawn(mover, &moves, "mover"))
        co_group_leave(&group, 0);
    vp_ignore(co_group_wait(&group), "clients report to the rig");
}

/* CO. All I/O buffers but a few are somebody else's while the clients work. */
static void run_with_few_buffers(struct random_world *x, struct rig *r)
{
    void *held[BUFFERS_HELD] = {NULL};
    size_t len = IO_BUFFER_MAX / 2;
    unsigned n = 0;
    for (; len >= BUFFERS_LEFT; len /= 2)
        held[n++] = io_buffer_get(len);
    run_clients(x, r);
    while (n-- > 0)
        io_buffer_put(held[n], len *= 2);
}

/* Operations that need a volume for themselves, between the clients' work. */
static void control_op(struct random_world *x, struct rig *r)
{
    const char *name = names[below(x, NAMES)];
    const struct model_volume *v = model_volume_find(r->model, name);
    struct op op = {.volume = name};
    uint64_t kind = below(x, x->no_checkpoints ? 2 : 6);
    if (!v) {
        op.kind = OP_CREATE;
        op.at = BLOCKS(x->volume_blocks);
        op.count = BLOCKS(16 + below(x, x->volume_blocks - 16));
        op.flags = (below(x, 4) ? 0 : OP_SYNC) | (below(x, 2) ? 0 : OP_ZERO_DETECT);
        op.flags |= x->config.second_disks && below(x, 2) ? OP_SECOND : 0;
    } else if (x->config.second_disks && below(x, 3) == 0) {
        op = draw_move(x, name);
    } else if (kind == 0) {
        op.kind = OP_DELETE;
    } else if (kind == 1) {
        op.kind = OP_RESIZE;
        op.count = BLOCKS(16 + below(x, x->volume_blocks - 16));
    } else if (kind == 2 && !x->second_fails) { /* a failed pool forgets what was not flushed */
        op = (struct op){.kind = OP_REIMPORT};
    } else if (kind == 3) {
        op = (struct op){.kind = OP_BACKGROUND};
    } else {
        op = (struct op){.kind = OP_CHECKPOINT};
    }
    vp_ignore(rig_op(r, &op), "rig_op has reported what was not expected");
}

static void spoil(struct random_world *x, struct rig *r)
{
    struct op op = {.kind = OP_UNREADABLE};
    if (x->unreadable && !r->failed && below(x, 2))
        vp_ignore(rig_op(r, &op), "it cannot fail");
}

static void hog(struct random_world *x, struct rig *r)
{
    struct op op = {.kind = OP_HOG};
    if (x->hogs && !r->failed)
        vp_ignore(rig_op(r, &op), "rig_op has reported what was not expected");
}

/* Everything durable, the checksums too. */
static void settle(struct random_world *x, struct rig *r)
{
    for (unsigned i = 0; i < NAMES; i++) {
        struct op flush = {.kind = OP_FLUSH, .volume = names[i]};
        if (model_volume_find(r->model, names[i]))
            vp_ignore(rig_op(r, &flush), "rig_op has reported what was not expected");
    }
    points_add(&x->points, r->w, r->model->event);
}

/* The bad disk returns and is filled while clients work. Then any disk may become bad. */
static void disks_return(struct random_world *x, struct rig *r)
{
    struct op come = {.kind = OP_RETURN}, fill = {.kind = OP_FILLED};
    x->resting = true;
    vp_ignore(rig_op(r, &come), "rig_op has reported what was not expected");
    if (!r->failed)
        run_clients(x, r);
    vp_ignore(rig_op(r, &fill), "rig_op has reported what was not expected");
    if (!r->bad)
        x->bad_disk = (int)below(x, x->config.disks);
    x->resting = false;
}

/* Sometimes all copies are compared from now on, in the background. */
static void scrub(struct random_world *x, struct rig *r)
{
    const struct op scrub = {.kind = OP_SCRUB};
    if (!r->failed && below(x, 4) == 0)
        vp_ignore(rig_op(r, &scrub), "rig_op has reported what was not expected");
}

/* Sometimes a disk is to be removed from now on, or stays after all, or data move to emptier ones,
 * in the background. */
static void move_data(struct random_world *x, struct rig *r)
{
    static const unsigned flags[] = {0, 0, OP_STAYS, OP_BALANCE};
    const struct op move = {
        .kind = OP_REMOVE, .at = below(x, x->config.disks), .flags = flags[below(x, 4)]};
    if (!r->failed && x->config.removes && below(x, 2))
        vp_ignore(rig_op(r, &move), "rig_op has reported what was not expected");
}

static void phases(struct random_world *x, struct rig *r)
{
    r->on_event = on_event;
    r->failing_pools = x->second_fails ? 2 : 0;
    r->faults_planned |= x->second_fails;
    for (unsigned i = 0; i < x->phases && !r->failed; i++) {
        if (x->returns && (i || x->first_bad))
            disks_return(x, r);
        if (r->failed)
            break;
        control_op(x, r);
        scrub(x, r);
        if (x->config.removes)
            move_data(x, r);
        spoil(x, r);
        hog(x, r);
        if (!r->failed && x->few_buffers)
            run_with_few_buffers(x, r);
        else if (!r->failed)
            run_clients(x, r);
        if (x->rots && !r->failed)
            settle(x, r);
    }
    points_add(&x->points, r->w, r->model->event);
}

static void first_round(struct rig *r)
{
    if (rig_create_pools(r))
        phases(r->arg, r);
}

/* In a pool that was recovered and looked through. */
static void later_round(struct rig *r)
{
    struct random_world *x = r->arg;
    struct model *next = observation_model(x->observed, x->model);
    next->event = r->model->event;
    x->model = r->model = next;
    r->bad = x->first_bad;
    model_bad_set(next, r->bad);
    if (r->bad)
        x->bad_disk = __builtin_ctz(r->bad);
    phases(x, r);
}

/* ---- crashes ------------------------------------------------------------------------------ */

static void draw_choices(struct random_world *x, const struct sim_snapshot *s, bool killed,
                         struct sim_choice *c)
{
    unsigned n = sim_snapshot_pending(s);
    uint64_t style = below(x, 4);
    for (unsigned i = 0; i < n; i++) {
        if (killed) {
            bool lands = sim_snapshot_is_complete(s, i) || style == 1 || (style > 1 && below(x, 2));
            c[i] = (struct sim_choice){lands ? SIM_KEEP : SIM_DROP, 0};
            continue;
        }
        c[i] = (struct sim_choice){style == 1 ? SIM_KEEP : SIM_DROP, 0};
        if (style >= 2)
            c[i] = (struct sim_choice){
                style == 3 ? (enum sim_fate)below(x, 3) : (enum sim_fate)below(x, 2), draw(x)};
    }
}

static bool fail(const char *why)
{
    position_report(why);
    return false;
}

/*
 * A dead disk may come back without some of what its cache had. After a power cut nobody relies on
 * that cache. After a kill the next daemon relies on it, unless the killed daemon had noticed the
 * death. The engine gives no promise about this one state (docs/decisions/0006-kept-memory.md), so
 * it is left out.
 */
static unsigned draw_back_disks(struct random_world *x, bool killed)
{
    bool back = x->bad_disk >= 0 && below(x, 2);
    return back && !killed ? 1U << x->bad_disk : 0;
}

/* Draws one of the states that the last round could have left; *c is its choices. Where flushes of
 * a disk without a second copy fail, there are no kills: a daemon that is killed before it was told
 * of a failed flush leaves the same state, of which there is no promise. */
static struct crash_state draw_state(struct random_world *x, struct sim_choice **c)
{
    const struct point *p = &x->points.at[below(x, x->points.count)];
    free(*c);
    *c = calloc(sim_snapshot_pending(p->snapshot) + 1, sizeof(**c));
    VP_VERIFY_TRUE(*c != NULL);
    bool killed = !x->rots && below(x, 3) == 0 && !x->second_fails;
    draw_choices(x, p->snapshot, killed, *c);
    x->counts->states++;
    x->counts->images++; /* two equal ones would be an accident */
    x->counts->tried++;
    return (struct crash_state){
        .config = &x->config,
        .model = x->model,
        .snapshot = p->snapshot,
        .event = p->event,
        .choices = *c,
        .killed = killed,
        .seed = draw(x),
        .order = (unsigned)aside(x, 6, RIG_ORDERS),
        .faults_planned = x->bad_disk >= 0 || x->second_fails,
        .unsure = x->second_fails,
        .back_disks = draw_back_disks(x, killed),
    };
}

/* Where nothing else befalls disks, some do not come back. Decides aside. */
static unsigned draw_lost_disks(const struct random_world *x)
{
    unsigned lost = (unsigned)aside(x, 15, 1U << x->config.disks);
    bool calm = x->bad_disk < 0 && !x->rots && !x->unreadable && !x->second_fails;
    return calm && rig_survives(&x->config, lost) ? lost : 0;
}

/* The one whose operations fail in an import: the one that is bad already. */
static int failing_disk(const struct random_world *x, const struct crash_state *s)
{
    unsigned bad = x->returns ? model_bad_at(s->model, s->event) : 0;
    return bad ? __builtin_ctz(bad) : x->bad_disk;
}

static bool look_at_states(struct random_world *x)
{
    struct sim_choice *c = NULL;
    bool ok = true;
    bool wide = x->volume_blocks > VOLUME_BLOCKS;
    unsigned states = STATES_LOOKED_AT / (wide ? 16 : x->no_checkpoints ? 4 : 1);
    for (unsigned i = 0; ok && i < states; i++) {
        char why[1024];
        struct crash_state s = draw_state(x, &c);
        struct verify_output out = {0};
        s.lost_disks = i % IMPORT_FAULT_ONE_IN == 1 ? draw_lost_disks(x) : 0;
        if (i % IMPORT_FAULT_ONE_IN)
            ok = verify_state(&s, &out, why, sizeof(why)) || fail(why);
        else
            ok = import_faults_one(&s, s.seed, failing_disk(x, &s), x->counts, why, sizeof(why)) ||
                 fail(why);
    }
    free(c);
    return ok;
}

/* Goes on from one state of the last round. */
static bool one_more_round(struct random_world *x)
{
    char why[1024];
    struct sim_choice *c = NULL;
    struct crash_state s = draw_state(x, &c);
    struct model *last = x->model;
    struct points points = x->points;
    x->points = (struct points){0};
    x->observed = observation_new(last);
    x->first_bad = x->returns ? model_bad_at(last, s.event) : 0;
    struct verify_output out = {.observed = x->observed, .then = later_round, .arg = x};
    bool ok = verify_state(&s, &out, why, sizeof(why)) || fail(why);
    if (x->model != last)
        model_free(last);
    observation_free(x->observed);
    points_fini(&points);
    free(c);
    return ok;
}

static bool run_first_round(struct random_world *x)
{
    struct rig r = {
        .w = rig_world_new(&x->config, draw(x)), .config = &x->config, .model = x->model, .arg = x};
    if (x->keep_pages)
        sim_world_limit_keeps(r.w, x->keep_pages * NAMES);
    bool ok = rig_run(&r, first_round) || fail(r.why);
    sim_world_free(r.w);
    return ok;
}

bool random_run(uint64_t seed, struct explore_counts *counts)
{
    struct random_world x = {
        .rng = hash_mix(seed + 17), .counts = counts, .model = model_new(seed)};
    double from = cpu_seconds();
    bool ok = true;
    position.scenario = NULL;
    position.seed = seed;
    draw_config(&x);
    for (unsigned i = 0; ok && i < x.rounds; i++) {
        (void)alarm(60);
        counts->runs++;
        position.step = i ? "a later round" : "the first round";
        ok = i ? one_more_round(&x) : run_first_round(&x);
        position.step = i ? "a crash of a later round" : "a crash of the first round";
        ok = ok && look_at_states(&x);
        counts->events += x.points.count;
    }
    (void)alarm(0);
    position.step = NULL;
    points_fini(&x.points);
    model_free(x.model);
    counts->seconds += cpu_seconds() - from;
    return ok;
}
