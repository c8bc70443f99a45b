/*
 * The scenarios of volumes that move between two pools: `move…` while clients wait, `live…` while
 * they write. The words of scenarios.c hold.
 */
#include "tests/sim/scenarios.h"

#include "migrate/migrate.h"

static const struct rig_config two_pools = {CONFIG_BASE, .disks = 2, .second_disks = 1,
                                            .disk_bytes = 8 * MIB, .profile = "single"};
static const struct rig_config two_mirrors = {CONFIG_BASE, .disks = 4, .second_disks = 2,
                                              .disk_bytes = 8 * MIB, .profile = "mirror:2"};

/* ---- while clients wait ------------------------------------------------------------------- */

/* Data, zeros, holes, and a block of which a part was written. */
static const struct op to_move[] = {
    {OP_CREATE, "a", 0, BLOCKS(32), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(8), 0},
    {OP_ZERO, "a", BLOCKS(2), BLOCKS(1), OP_AS_DATA},
    {OP_DISCARD, "a", BLOCKS(4), BLOCKS(4), 0},
    {OP_WRITE, "a", BLOCKS(12) + 3, 2, 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op not_open_to_move[] = {
    {OP_CREATE, "a", 0, BLOCKS(32), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(6), 0},
    {OP_REIMPORT, NULL, 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op move[] = {
    {OP_WRITE, "a", BLOCKS(16), BLOCKS(1), 0},
    {OP_MIGRATE, "a", 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_WRITE, "a", BLOCKS(2), BLOCKS(1), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op move_back[] = {
    {OP_MIGRATE, "a", 0, 0, 0},
    {OP_MIGRATE, "a", 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* One client works from the start on, one waits at the gate at once. */
static const struct op move_clients[] = {
    {OP_MIGRATE, "a", 0, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", 0, 20, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_FREEZING, 4, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* A client dies while its request waits at the gate. */
static const struct op move_dying[] = {
    {OP_MIGRATE, "a", 0, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_PREPARING, 20, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(1), OP_DIES | OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(13), BLOCKS(1), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op two_to_move[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_CREATE, "b", 0, BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(16), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op move_two[] = {
    {OP_MIGRATE, "a", 0, 0, OP_WITH_NEXT},
    {OP_BUSY, "b", 0, 12, OP_WITH_NEXT},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_FLUSH, "b", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op move_delete[] = {
    {OP_MIGRATE, "a", 0, 0, 0},
    {OP_DELETE, "a", 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_CREATE, "a", 0, BLOCKS(16), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(5), OP_FUA},
    {OP_MIGRATE, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* The size changes while the move begins, or the resize comes too late. */
static const struct op move_resize[] = {
    {OP_RESIZE, "a", 0, BLOCKS(16), OP_WITH_NEXT},
    {OP_MIGRATE, "a", 0, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_FREEZING, 2, 0},
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_WITH_NEXT},
    {OP_RESIZE, "a", 0, BLOCKS(32), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* An operation fails in one of the pools. */
static const struct op move_faults[] = {
    {OP_MIGRATE, "a", 0, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", 0, 4, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_DRAINING, 2, 0},
    {OP_REIMPORT, NULL, 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op move_faults_delete[] = {
    {OP_MIGRATE, "a", 0, 0, 0},
    {OP_DELETE, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};

/* Cancelled in each phase, some events after its begin. */
static const struct op *cancelled(enum migrate_mode mode, enum migrate_phase phase, unsigned delay,
                                  enum migrate_phase busy_from)
{
    enum { CANCEL_EVENTS = 3 };
    static struct op ops[] = {
        {OP_MIGRATE, "a", 0, 0, OP_WITH_NEXT},
        {OP_CANCEL, "a", 0, 0, OP_WITH_NEXT},
        {OP_BUSY, "a", 0, 2, 0},
        {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
        {OP_FLUSH, "a", 0, 0, 0},
        {OP_END, NULL, 0, 0, 0},
    };
    ops[0].at = mode;
    ops[1].at = phase;
    ops[1].count = (uint64_t)delay * CANCEL_EVENTS;
    ops[2].at = busy_from;
    return ops;
}

static const enum migrate_phase frozen_phases[] = {
    0, MIGRATE_PREPARING, MIGRATE_FREEZING, MIGRATE_DRAINING, MIGRATE_SWITCHING, MIGRATE_LEAVING};
enum { FROZEN_PHASES = sizeof(frozen_phases) / sizeof(frozen_phases[0]), FROZEN_DELAYS = 3 };

static const struct op *move_cancel(unsigned variant)
{
    return cancelled(MIGRATE_OFFLINE, frozen_phases[variant % FROZEN_PHASES],
                     variant / FROZEN_PHASES, variant % 2 ? MIGRATE_FREEZING : 0);
}

/* A volume of the second pool has all of it. */
static const struct op second_is_full[] = {
    {OP_CREATE, "a", 0, BLOCKS(32), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(6), 0},
    {OP_CREATE, "b", 0, BLOCKS(2048), OP_SECOND},
    {OP_FILL, "b", BLOCKS(0), BLOCKS(4), 0},
    {OP_FLUSH, "b", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op move_no_room[] = {
    {OP_MIGRATE, "a", 0, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", 0, 2, 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};

/* … but for what another volume gives back. */
static const struct op second_is_nearly_full[] = {
    {OP_CREATE, "a", 0, BLOCKS(32), OP_PAUSE},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(6), 0},
    {OP_CREATE, "c", 0, BLOCKS(4), OP_SECOND},
    {OP_WRITE, "c", BLOCKS(0), BLOCKS(1), OP_FUA},
    {OP_CREATE, "b", 0, BLOCKS(4096), OP_SECOND},
    {OP_FILL, "b", BLOCKS(0), BLOCKS(4), 0},
    {OP_FLUSH, "b", 0, 0, 0},
    {OP_DELETE, "c", 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* That is taken before the target needs it. */
static const struct op move_fills[] = {
    {OP_MIGRATE, "a", 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "b", BLOCKS(3000), BLOCKS(1), OP_WITH_NEXT},
    {OP_BUSY, "a", 0, 8, 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};

/* ---- while clients write ------------------------------------------------------------------ */

static const struct op wide_to_move[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(44), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* One client begins at once, one when the copy has begun. What the wide one writes takes longer to
 * copy than the pause that is wanted, so there are rounds. */
static const struct op live[] = {
    {OP_MIGRATE, "a", MIGRATE_LIVE, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", 0, 6, OP_WIDE | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 7, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* What requests take is measured first, and then clients write. */
static const struct op live_governed[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_GOVERNED | OP_WITH_NEXT},
    {OP_BUSY, "a", 0, 3, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 6, OP_WIDE | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_MIRRORING, 4, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* Also while it is mirrored, and while it is drained. */
static const struct op live_mirror[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 9, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_MIRRORING, 4, OP_WIDE | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_DRAINING, 2, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* What was copied is compared while clients write. */
static const struct op live_verify[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_VERIFIED | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 9, OP_WIDE | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 9, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_MIRRORING, 4, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op live_dying[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 7, OP_DIES | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_MIRRORING, 4, OP_DIES | OP_WIDE | OP_WITH_NEXT},
    {OP_BUSY, "a", 0, 4, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* A block is written while an older copy of it waits for a slow disk. */
static const struct op live_alone[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_WITH_NEXT},
    {OP_STALL, "a", MIGRATE_MIRRORING, 1, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 2, OP_WIDE | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_MIRRORING, 1, OP_APART},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* Writes of the target come later than a client waits for them. */
static const struct op live_late[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 1, OP_WITH_NEXT},
    {OP_STALL, "a", MIGRATE_MIRRORING, 4, OP_LAST | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 2, OP_WIDE | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_MIRRORING, 3, OP_APART},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* An operation fails, or a disk dies, in one of the pools. */
static const struct op live_faults[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 3, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_MIRRORING, 3, OP_WIDE},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op live_few[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_MIRRORING, 2, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op live_fills[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_WITH_NEXT},
    {OP_WRITE, "b", BLOCKS(3000), BLOCKS(1), OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 8, 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};

static const enum migrate_phase live_phases[] = {
    MIGRATE_PREPARING, MIGRATE_COPYING,   MIGRATE_MIRRORING, MIGRATE_FREEZING,
    MIGRATE_DRAINING,  MIGRATE_SWITCHING, MIGRATE_LEAVING};
enum { LIVE_PHASES = sizeof(live_phases) / sizeof(live_phases[0]), LIVE_DELAYS = 2 };

static const struct op *live_cancel(unsigned variant)
{
    return cancelled(MIGRATE_MIRROR, live_phases[variant % LIVE_PHASES], variant / LIVE_PHASES,
                     MIGRATE_COPYING);
}

/* ---- the table ---------------------------------------------------------------------------- */

const struct scenario move_scenarios[] = {
    SCENARIO("move", "a volume moves to another pool", two_pools, to_move, move, ),
    SCENARIO("move-back", "there and back", two_pools, not_open_to_move, move_back, ),
    SCENARIO("move-clients", "clients write meanwhile", two_pools, to_move, move_clients, ),
    SCENARIO("move-dying", "a client dies meanwhile", two_pools, to_move, move_dying, ),
    SCENARIO("move-two", "another volume stays", two_pools, two_to_move, move_two, ),
    SCENARIO("move-delete", "it is deleted after that, and another one of its name moves",
             two_pools, not_open_to_move, move_delete, ),
    SCENARIO("move-resize", "it is resized meanwhile", two_pools, to_move, move_resize, ),
    SCENARIO("move-cancel", "a move is cancelled", two_pools, to_move, NULL,
             .variants = FROZEN_PHASES * FROZEN_DELAYS, .make = move_cancel),
    SCENARIO("move-no-room", "the other pool is full", two_pools, second_is_full, move_no_room, ),
    SCENARIO("move-fills", "it has no room any more", two_pools, second_is_nearly_full,
             move_fills, ),
    SCENARIO("move-import", "recovery crashed at each of its events", two_pools, not_open_to_move,
             move, .deep_every = 1),
    SCENARIO("move-errors", "each operation fails once", two_pools, not_open_to_move, move_faults,
             .flags = SCENARIO_ERRORS, .crash_stride = 13),
    SCENARIO("move-breaks", "one of the pools fails", two_pools, not_open_to_move, move_faults,
             .flags = SCENARIO_BREAKS, .crash_stride = 13),
    SCENARIO("move-breaks-delete", "… and then it is deleted", two_pools, not_open_to_move,
             move_faults_delete, .flags = SCENARIO_BREAKS, .crash_stride = 13),
    SCENARIO("move-mirrors", "a disk of either pool dies", two_mirrors, not_open_to_move,
             move_no_room, .flags = SCENARIO_DEATHS | SCENARIO_SURVIVES_LOSS, .crash_stride = 60),
    SCENARIO("live", "clients write while it is copied, in rounds", two_pools, to_move, live,
             .deep_every = 256),
    SCENARIO("live-mirror", "… and what they write is mirrored", two_pools, to_move, live_mirror,
             .deep_every = 256),
    SCENARIO("live-governed", "… and the copy makes way for them", two_pools, to_move,
             live_governed, ),
    SCENARIO("live-verify", "… and what was copied is compared", two_pools, to_move, live_verify,
             .deep_every = 256),
    SCENARIO("live-dying", "clients die meanwhile", two_pools, to_move, live_dying,
             .deep_every = 256),
    SCENARIO("live-late", "the other pool is late", two_pools, wide_to_move, live_late, ),
    SCENARIO("live-alone", "a block is copied and written", two_pools, wide_to_move, live_alone, ),
    SCENARIO("live-cancel", "it is cancelled in each phase", two_pools, to_move, NULL,
             .variants = LIVE_PHASES * LIVE_DELAYS, .make = live_cancel, .deep_every = 128),
    SCENARIO("live-fills", "the other pool has no room any more", two_pools, second_is_nearly_full,
             live_fills, ),
    SCENARIO("live-import", "recovery crashed at each of its events", two_pools, not_open_to_move,
             live_few, .deep_every = 1),
    SCENARIO("live-errors", "each operation fails once", two_pools, not_open_to_move, live_faults,
             .flags = SCENARIO_ERRORS, .crash_stride = 61),
    SCENARIO("live-breaks", "one of the pools fails", two_pools, not_open_to_move, live_faults,
             .flags = SCENARIO_BREAKS, .crash_stride = 61),
    SCENARIO("live-mirrors", "a disk of either pool dies", two_mirrors, not_open_to_move, live_few,
             .flags = SCENARIO_DEATHS | SCENARIO_SURVIVES_LOSS, .deep_every = 256,
             .crash_stride = 150),
};
const unsigned move_scenario_count = sizeof(move_scenarios) / sizeof(move_scenarios[0]);
