/*
 * The scenarios of a volume that moves between two hosts: see hosts.h. The words of scenarios.c
 * hold.
 */
#include "tests/sim/scenarios.h"

#include "migrate/migrate.h"

static const struct rig_config one_pool_each = {CONFIG_BASE, .disks = 1, .disk_bytes = 8 * MIB,
                                                .profile = "single", .metadata_bytes = MIB};

static const struct op to_leave[] = {
    {OP_CREATE, "a", 0, BLOCKS(16), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(6), 0},
    {OP_ZERO, "a", BLOCKS(2), BLOCKS(1), OP_AS_DATA},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op leave_offline[] = {
    {OP_WRITE, "a", BLOCKS(10), BLOCKS(1), 0},
    {OP_MIGRATE, "a", MIGRATE_OFFLINE, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", 0, 4, 0},
    {OP_END, NULL, 0, 0, 0},
};

static const struct op leave_live[] = {
    {OP_MIGRATE, "a", MIGRATE_LIVE, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 7, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op leave_mirrored[] = {
    {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 5, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_MIRRORING, 4, 0},
    {OP_END, NULL, 0, 0, 0},
};

/* What was copied is compared. */
static const struct op leave_verified[] = {
    {OP_MIGRATE, "a", MIGRATE_LIVE, 0, OP_VERIFIED | OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 6, OP_AGAIN},
    {OP_END, NULL, 0, 0, 0},
};

/* Blocks are written again while older data of them are on their way. */
static const struct op leave_again[] = {
    {OP_MIGRATE, "a", MIGRATE_LIVE, 0, OP_WITH_NEXT},
    {OP_BUSY, "a", MIGRATE_COPYING, 8, OP_AGAIN},
    {OP_END, NULL, 0, 0, 0},
};

/* Cancelled in each phase, some events after its begin. */
static const enum migrate_phase phases[] = {MIGRATE_PREPARING, MIGRATE_COPYING, MIGRATE_MIRRORING,
                                            MIGRATE_DRAINING};
enum { PHASES = sizeof(phases) / sizeof(phases[0]), DELAYS = 5 };

static const struct op *leave_cancelled(unsigned variant)
{
    static struct op ops[] = {
        {OP_MIGRATE, "a", MIGRATE_MIRROR, 0, OP_WITH_NEXT},
        {OP_CANCEL, "a", 0, 0, OP_WITH_NEXT},
        {OP_BUSY, "a", MIGRATE_COPYING, 3, 0},
        {OP_READ, "a", BLOCKS(0), BLOCKS(16), 0},
        {OP_END, NULL, 0, 0, 0},
    };
    ops[1].at = phases[variant % PHASES];
    ops[1].count = variant / PHASES * 2;
    return ops;
}

#define HOSTS_SCENARIO(name_, what_, body_, ...)                                                   \
    SCENARIO(name_, what_, one_pool_each, to_leave, body_, .flags = SCENARIO_HOSTS, __VA_ARGS__)

const struct scenario host_scenarios[] = {
    SCENARIO("hosts-breaks", "connections break between two hosts", one_pool_each, to_leave,
             leave_again, .flags = SCENARIO_HOSTS | SCENARIO_BREAKS),
    HOSTS_SCENARIO("hosts-offline", "a volume moves to another host", leave_offline,
                   .crash_stride = 1),
    HOSTS_SCENARIO("hosts-live", "… while clients write", leave_live, .crash_stride = 1),
    HOSTS_SCENARIO("hosts-mirror", "… and what they write is mirrored", leave_mirrored,
                   .crash_stride = 1),
    HOSTS_SCENARIO("hosts-verify", "… and what was copied is compared", leave_verified,
                   .crash_stride = 1),
    HOSTS_SCENARIO("hosts-cancel", "a move to another host is cancelled", NULL,
                   .variants = PHASES * DELAYS, .make = leave_cancelled, .crash_stride = 3),
};
const unsigned host_scenario_count = sizeof(host_scenarios) / sizeof(host_scenarios[0]);
