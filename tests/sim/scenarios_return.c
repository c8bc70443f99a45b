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
    SCENARIO("scrub", "all copies are compared and healed beside writes", mirror, written_volume,
             scrubbed, .flags = SCENARIO_ROT),
    SCENARIO("return-mishaps", "mishaps befall each disk meanwhile", mirror, disk_out, returns,
             .crash_stride = 211, .fill_every = 64, .deep_every = 4096,
             .flags = SCENARIO_FILLS | SCENARIO_DEATHS | SCENARIO_ERRORS),
};
const unsigned return_scenario_count = sizeof(return_scenarios) / sizeof(return_scenarios[0]);
