/* What the tables of scenarios are made of, private to scenarios.c and scenarios_move.c. */
#ifndef VP_TESTS_SIM_SCENARIOS_H
#define VP_TESTS_SIM_SCENARIOS_H

#include "tests/sim/explore.h"

#define MIB (UINT64_C(1) << 20)

/* Disks of a pool in which everything is small, so that limits are near. */
#define CONFIG_BASE                                                                                \
    .sector_bytes = 512, .atomic_bytes = 4096, .write_cache = true, .can_discard = true,           \
    .latency_min_ns = 20000, .latency_max_ns = 200000, .chunk_bytes = 16384,                       \
    .extent_bytes = 1 << 20, .log_segment_bytes = 16384

#define SCENARIO(name_, what_, config_, setup_, body_, ...)                                        \
    {                                                                                              \
        .name = name_, .what = what_, .config = &(config_), .setup = setup_, .body = body_,        \
        __VA_ARGS__                                                                                \
    }

/* scenarios_return.c: disks that leave and return. */
extern const struct scenario return_scenarios[];
extern const unsigned return_scenario_count;
/* scenarios_move.c: volumes that move between two pools. */
extern const struct scenario move_scenarios[];
extern const unsigned move_scenario_count;
/* scenarios_hosts.c: … between two hosts. */
extern const struct scenario host_scenarios[];
extern const unsigned host_scenario_count;

#endif
