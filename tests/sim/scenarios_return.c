/*
 * Disks that leave and come into service again. In the comments a block is 4 KiB, and a chunk has 4
 * blocks (16 KiB).
 */
#include "tests/sim/scenarios.h"

static const struct rig_config mirror = {CONFIG_BASE, .disks = 2, .disk_bytes = 8 * MIB,
                                         .profile = "mirror:2"};
static const struct rig_config mirror_of_three = {CONFIG_BASE, .disks = 3, .disk_bytes = 8 * MIB,
                                                  .profile = "mirror:2"};
static const struct rig_config mirror_and_spare = {CONFIG_BASE, .disks = 3, .spares = 1,
                                                   .disk_bytes = 8 * MIB, .profile = "mirror:2"};

static const struct rig_config mirror_of_three_less = {
    CONFIG_BASE, .disks = 3, .disk_bytes = 8 * MIB, .profile = "mirror:2", .removes = true};
static const struct rig_config single_of_two = {CONFIG_BASE, .disks = 2, .disk_bytes = 8 * MIB,
                                                .profile = "single", .removes = true};

static const struct op written_volume[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(12), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* A disk is out, and has missed writes: over blocks, new ones, a discard, a checkpoint. Nothing is
 * written to "b" afterwards. */
static const struct op disk_out[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_CREATE, "b", 0, BLOCKS(16), 0},
    {OP_WRITE, "b", BLOCKS(0), BLOCKS(3), OP_FUA},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(12), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_LEAVE, NULL, 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(1), BLOCKS(8), OP_FUA},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(3), OP_FUA},
    {OP_DISCARD, "a", BLOCKS(8), BLOCKS(4), 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(2), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};
/* The other one; then it is missing at an import. */
static const struct op disk_missing[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(12), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_LEAVE, NULL, 1, 0, 0},
    {OP_REIMPORT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(3), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(2), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};

/* It is filled while clients write; then the other one dies. */
#define FILLED(other_, flags_)                                                                     \
    {OP_RETURN, NULL, 0, 0, flags_}, {OP_WRITE, "a", BLOCKS(2), BLOCKS(2), 0},                     \
        {OP_WRITE, "a", BLOCKS(6), BLOCKS(1), OP_FUA}, {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT},  \
        {OP_WRITE, "a", BLOCKS(0), BLOCKS(1), OP_WITH_NEXT},                                       \
        {OP_WRITE, "a", BLOCKS(21), BLOCKS(2), OP_FUA}, {OP_FILLED, NULL, 0, 0, 0},                \
        {OP_LEAVE, NULL, other_, 0, 0}, {OP_WRITE, "a", BLOCKS(5), BLOCKS(1), OP_FUA},             \
        {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},                                                  \
    {                                                                                              \
        OP_END, NULL, 0, 0, 0                                                                      \
    }
static const struct op returns[] = {FILLED(1, 0)};
static const struct op other_returns[] = {FILLED(0, 0)};
static const struct op replaced[] = {FILLED(1, OP_REPLACE)};

/* All of it: writes to it fail, it goes, it is missing at an import, it returns. */
static const struct op leaves_and_returns[] = {
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), 0},
    {OP_LEAVE, NULL, 0, 3, 0},
    {OP_WRITE, "a", BLOCKS(2), BLOCKS(3), OP_FUA},
    {OP_WRITE, "a", BLOCKS(30), BLOCKS(1), OP_FUA},
    FILLED(1, 0),
};

/* A disk hangs under writes, and goes; it answers again, and returns. */
static const struct op hung[] = {
    {OP_HANG, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_WITH_NEXT},
    {OP_READ, "a", BLOCKS(0), BLOCKS(12), OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(3), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(21), BLOCKS(1), OP_FUA},
    FILLED(1, 0),
};
/* One write to it lands long after others have written there again. Then the other disk dies. */
static const struct op late[] = {
    {OP_HANG, NULL, 0, 1, 0},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(3), 0},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(3), OP_FUA},
    {OP_FILLED, NULL, 0, 0, 0},
    {OP_LATE, NULL, 0, 0, 0},
    {OP_LEAVE, NULL, 1, 0, 0},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(1), OP_FUA},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* One more disk, beside writes that form groups. Then one of the first disks dies. */
static const struct op added[] = {
    {OP_ADD, NULL, 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(8), BLOCKS(9), OP_FUA},
    {OP_CREATE, "b", 0, BLOCKS(64), 0},
    {OP_WRITE, "b", BLOCKS(0), BLOCKS(8), OP_FUA},
    {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(2), BLOCKS(2), OP_FUA},
    {OP_FILLED, NULL, 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(16), BLOCKS(20), OP_FUA},
    {OP_LEAVE, NULL, 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(5), BLOCKS(1), OP_FUA},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_READ, "b", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* A disk was added. Data move to it, beside writes that form groups where they leave. */
static const struct op balanced[] = {
    {OP_CREATE, "b", 0, BLOCKS(512), 0},
    {OP_WRITE, "b", BLOCKS(0), BLOCKS(3), OP_FUA},
    {OP_WRITE, "b", BLOCKS(300), BLOCKS(3), OP_FUA},
    {OP_ADD, NULL, 0, 0, 0},
    {OP_FILLED, NULL, 0, 0, 0},
    {OP_CREATE, "c", 0, BLOCKS(64), 0},
    {OP_CREATE, "d", 0, BLOCKS(64), 0},
    {OP_REMOVE, NULL, 0, 0, OP_BALANCE},
    {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(3), OP_WITH_NEXT},
    {OP_WRITE, "c", BLOCKS(0), BLOCKS(8), OP_WITH_NEXT},
    {OP_WRITE, "d", BLOCKS(0), BLOCKS(8), OP_FUA},
    {OP_WRITE, "b", BLOCKS(301), BLOCKS(9), OP_FUA},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_LEAVE, NULL, 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_READ, "b", BLOCKS(0), BLOCKS(512), 0},
    {OP_READ, "c", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* A third of one disk is bad; all is compared and healed beside a write and a discard. Nothing is
 * overwritten after the damage (docs/testing.md). Then all is compared again beside overwrites. */
static const struct op scrubbed[] = {
    {OP_ROT, NULL, 1, 3, 0},
    {OP_SCRUB, NULL, 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(14), BLOCKS(5), OP_FUA},
    {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT},
    {OP_DISCARD, "a", BLOCKS(8), BLOCKS(4), 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_SCRUB, NULL, 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(3), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};

/* Disk 1, which has data of "a" with disk 2, is emptied beside writes to what moves, and removed.
 * */
#define EMPTIED                                                                                    \
    {OP_REMOVE, NULL, 1, 0, 0}, {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_WITH_NEXT},               \
        {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT}, {OP_WRITE, "a", BLOCKS(2), BLOCKS(3), OP_FUA},  \
        {OP_WRITE, "a", BLOCKS(7), BLOCKS(9), OP_FUA}, {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT},  \
        {OP_WRITE, "a", BLOCKS(30), BLOCKS(2), OP_FUA},                                            \
    {                                                                                              \
        OP_BACKGROUND, NULL, 0, 0, 0                                                               \
    }
static const struct op removed[] = {
    EMPTIED,
    {OP_LEAVE, NULL, 2, 0, 0},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(1), OP_FUA},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* A write to where it moves fails; it is tried again. Then the only other disk dies that has it. */
static const struct op missed[] = {
    {OP_REMOVE, NULL, 1, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT},
    {OP_LEAVE, NULL, 0, 1, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(2), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_FILLED, NULL, 0, 0, 0},
    {OP_LEAVE, NULL, 2, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* It stays, half emptied, and new data go to what it left. Then it is emptied again. */
static const struct op stays[] = {
    {OP_REMOVE, NULL, 1, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(2), OP_WITH_NEXT},
    {OP_REMOVE, NULL, 0, 0, OP_STAYS},
    {OP_CREATE, "b", 0, BLOCKS(64), OP_WITH_NEXT},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(0), BLOCKS(40), OP_FUA},
    EMPTIED,
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_READ, "b", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* It dies before; what it had gets another copy elsewhere. */
static const struct op dead_removed[] = {
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), 0},      {OP_LEAVE, NULL, 1, 0, 0},
    {OP_WRITE, "a", BLOCKS(2), BLOCKS(3), OP_FUA}, EMPTIED,
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},      {OP_END, NULL, 0, 0, 0},
};

const struct scenario return_scenarios[] = {
    SCENARIO("return", "a disk returns and is filled; then the other one dies", mirror, disk_out,
             returns, .flags = SCENARIO_FILLS | SCENARIO_SURVIVES_LOSS),
    SCENARIO("return-missing", "the same with a disk that was missing at an import", mirror,
             disk_missing, other_returns, .flags = SCENARIO_FILLS | SCENARIO_SURVIVES_LOSS),
    SCENARIO("return-leaves", "writes to a disk fail; it returns", mirror, written_volume,
             leaves_and_returns, .flags = SCENARIO_FILLS | SCENARIO_SURVIVES_LOSS),
    SCENARIO("return-wide", "the same with three disks", mirror_of_three, written_volume,
             leaves_and_returns, .flags = SCENARIO_FILLS | SCENARIO_SURVIVES_LOSS),
    SCENARIO("hang", "a disk hangs, leaves, answers again and returns", mirror, written_volume,
             hung, .flags = SCENARIO_FILLS | SCENARIO_SURVIVES_LOSS),
    SCENARIO("hang-late", "a write lands long after it was given up", mirror, written_volume, late,
             .flags = SCENARIO_FILLS | SCENARIO_SURVIVES_LOSS),
    SCENARIO("replace", "another disk takes the place of one that died", mirror_and_spare, disk_out,
             replaced, .flags = SCENARIO_FILLS | SCENARIO_SURVIVES_LOSS),
    SCENARIO("add", "a pool gets one more disk; then one of the first dies", mirror_and_spare,
             written_volume, added, .flags = SCENARIO_FILLS | SCENARIO_SURVIVES_LOSS),
    SCENARIO("remove", "a disk is emptied and removed; then another one dies", mirror_of_three_less,
             written_volume, removed, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("rebalance", "data move to a disk that was added", mirror_and_spare, written_volume,
             balanced, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("remove-missed", "a write to the place where a disk's data go fails",
             mirror_of_three_less, written_volume, missed, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("remove-single", "the same with data that have one copy", single_of_two,
             written_volume, stays),
    SCENARIO("remove-stays", "a disk that was to be removed stays", mirror_of_three_less,
             written_volume, stays, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("remove-dead", "a disk that died is removed", mirror_of_three_less, written_volume,
             dead_removed, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("remove-mishaps", "mishaps befall each disk meanwhile", mirror_of_three_less,
             written_volume, removed, .crash_stride = 211, .deep_every = 4096,
             .flags = SCENARIO_DEATHS | SCENARIO_ERRORS),
    SCENARIO("scrub", "all copies are compared and healed beside writes", mirror, written_volume,
             scrubbed, .flags = SCENARIO_ROT),
    SCENARIO("return-mishaps", "mishaps befall each disk meanwhile", mirror, disk_out, returns,
             .crash_stride = 211, .fill_every = 64, .deep_every = 4096,
             .flags = SCENARIO_FILLS | SCENARIO_DEATHS | SCENARIO_ERRORS),
};
const unsigned return_scenario_count = sizeof(return_scenarios) / sizeof(return_scenarios[0]);
