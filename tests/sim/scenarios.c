/*
 * The scenarios, but for those of volumes that move (scenarios_move.c). Each is small enough to be
 * explored exhaustively. Together they touch every ordering of docs/design.md.
 *
 * In the comments a block is 4 KiB, a chunk has 4 blocks (16 KiB), and a log segment has 4 pages.
 */
#include "tests/sim/scenarios.h"

#include <string.h>

static const struct rig_config one_disk = {CONFIG_BASE, .disks = 1, .disk_bytes = 8 * MIB,
                                           .profile = "single"};
static const struct rig_config one_old_disk = {.sector_bytes = 512,
                                               .atomic_bytes = 512,
                                               .write_cache = true,
                                               .latency_min_ns = 20000,
                                               .latency_max_ns = 200000,
                                               .chunk_bytes = 16384,
                                               .extent_bytes = 1 << 20,
                                               .log_segment_bytes = 16384,
                                               .disks = 1,
                                               .disk_bytes = 8 * MIB,
                                               .profile = "single"};
static const struct rig_config two_disks = {CONFIG_BASE, .disks = 2, .disk_bytes = 8 * MIB,
                                            .profile = "single"};
static const struct rig_config mirror = {CONFIG_BASE, .disks = 2, .disk_bytes = 8 * MIB,
                                         .profile = "mirror:2"};
static const struct rig_config mirror_with_property = {
    CONFIG_BASE, .disks = 2, .disk_bytes = 8 * MIB, .profile = "mirror:2", .property = 4000};
static const struct rig_config wide_mirror = {CONFIG_BASE, .disks = 3, .disk_bytes = 8 * MIB,
                                              .profile = "mirror:3"};
static const struct rig_config widest_mirror = {CONFIG_BASE, .disks = 4, .disk_bytes = 8 * MIB,
                                                .profile = "mirror:4"};
static const struct rig_config four_disks = {CONFIG_BASE, .disks = 4, .disk_bytes = 8 * MIB,
                                             .profile = "mirror:2"};
static const struct rig_config four_disks_promised = {
    CONFIG_BASE, .disks = 4, .disk_bytes = 8 * MIB, .profile = "mirror:2", .losses = 3};
static const struct rig_config tiny_disk = {CONFIG_BASE, .disks = 1, .disk_bytes = 8 * MIB,
                                            .profile = "single"};

/* ---- setups ------------------------------------------------------------------------------- */

static const struct op empty_volume[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op written_volume[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(12), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op two_volumes[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_CREATE, "b", 0, BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(16), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};

/* ---- bodies ------------------------------------------------------------------------------- */

static const struct op first_write[] = {
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(3), BLOCKS(3), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(2), BLOCKS(1), OP_FUA},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(2), OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(30), BLOCKS(1), OP_WITH_NEXT},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op overwrite[] = {
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(2), 0},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(1), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_FUA},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(1), 0},
    {OP_FLUSH, "a", 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(8), BLOCKS(4), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* Volumes that share disks: each commit flushes what its own volume wrote to. */
static const struct op spread[] = {
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), 0},
    {OP_WRITE, "b", BLOCKS(0), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(8), 0},
    {OP_FLUSH, "b", 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(4), BLOCKS(1), OP_WITH_NEXT},
    {OP_FLUSH, "a", 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(1), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(4), BLOCKS(1), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op sub_block[] = {
    {OP_WRITE, "a", BLOCKS(1) + 1, 2, 0},
    {OP_WRITE, "a", BLOCKS(2) + 7, 2, 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(40) + 5, 1, 0},
    {OP_ZERO, "a", BLOCKS(1) + 2, 3, 0},
    {OP_WRITE, "a", BLOCKS(40) + 6, 4, OP_FUA},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op discard_reuse[] = {
    {OP_DISCARD, "a", BLOCKS(0), BLOCKS(8), 0},
    {OP_WRITE, "a", BLOCKS(40), BLOCKS(4), 0},
    {OP_WRITE, "b", BLOCKS(0), BLOCKS(4), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(8), BLOCKS(8), 0},
    {OP_FLUSH, "b", 0, 0, 0},
    {OP_DISCARD, "a", BLOCKS(9), BLOCKS(2), 0},
    {OP_WRITE, "a", BLOCKS(10), BLOCKS(2), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(2), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_DISCARD, "a", BLOCKS(0), BLOCKS(16), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(20), BLOCKS(8), 0},
    {OP_FLUSH, "b", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op create_delete[] = {
    {OP_CREATE, "c", 0, BLOCKS(32), 0},
    {OP_WRITE, "c", BLOCKS(0), BLOCKS(4), OP_FUA},
    {OP_DELETE, "a", 0, 0, 0},
    {OP_WRITE, "c", BLOCKS(4), BLOCKS(4), 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_CREATE, "a", 0, BLOCKS(16), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(5), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_DELETE, "c", 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(5), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op delete_paused[] = {
    {OP_DELETE, "a", 0, 0, 0},
    {OP_JOBS, NULL, 1, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_CREATE, "a", 0, BLOCKS(16), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(5), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_REIMPORT, NULL, 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_JOBS, NULL, 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(5), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op resize[] = {
    {OP_RESIZE, "a", 0, BLOCKS(6), 0},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(1), 0},
    {OP_RESIZE, "a", 0, BLOCKS(64), 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(6), BLOCKS(3), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op wide_volume[] = {
    {OP_CREATE, "a", 0, BLOCKS(1200), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* The write needs a lease, so it waits. Meanwhile its place looks like a hole to the shrink, which
 * goes over holes of more than a window without locks. */
static const struct op shrink_race[] = {
    {OP_WRITE, "a", BLOCKS(30), BLOCKS(4), OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(3), OP_WITH_NEXT},
    {OP_RESIZE, "a", 0, BLOCKS(6), 0},
    {OP_RESIZE, "a", 0, BLOCKS(1200), OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(1200), 0},
    {OP_WRITE, "a", BLOCKS(40), BLOCKS(2), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* Clients die in the middle of requests of several windows. The client that comes after them writes
 * to the same blocks. */
static const struct op client_gone[] = {
    {OP_WRITE, "a", BLOCKS(0) + 1, BLOCKS(270), OP_DIES},
    {OP_WRITE, "a", BLOCKS(260), BLOCKS(4), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_READ, "a", BLOCKS(256), BLOCKS(16), 0},
    {OP_ZERO, "a", BLOCKS(1) + 3, BLOCKS(1100), OP_DIES},
    {OP_WRITE, "a", BLOCKS(8), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(1064), BLOCKS(2), OP_FUA},
    {OP_READ, "a", BLOCKS(0), BLOCKS(16), 0},
    {OP_READ, "a", BLOCKS(1060), BLOCKS(16), 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op checkpoint[] = {
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(16), BLOCKS(2), 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(17), BLOCKS(2), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(24), BLOCKS(2), 0},
    {OP_DISCARD, "a", BLOCKS(0), BLOCKS(4), 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(32), BLOCKS(1), OP_FUA},
    {OP_REIMPORT, NULL, 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(33), BLOCKS(1), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op log_wrap[] = {
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(1), OP_FUA},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(40), BLOCKS(1), OP_FUA},
    {OP_REPEAT, NULL, 3, 8, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_REPEAT, NULL, 5, 1, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op mishaps[] = {
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(2), 0},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(1), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(1), 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* Writes one block in each chunk until there is no room, then frees chunks 0 and 1. Their space can
 * be written again, and the last block of the volume never fits. */
static const struct op nearly_full[] = {
    {OP_CREATE, "a", 0, BLOCKS(1024), 0},
    {OP_FILL, "a", BLOCKS(0), BLOCKS(16), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op fill[] = {
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(2), 0},
    {OP_WRITE, "a", BLOCKS(1023), BLOCKS(1), 0},
    {OP_DISCARD, "a", BLOCKS(0), BLOCKS(32), 0},
    {OP_WRITE, "a", BLOCKS(1023), BLOCKS(1), OP_FUA},
    {OP_WRITE, "a", BLOCKS(17), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(2), BLOCKS(1), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_DISCARD, "a", BLOCKS(32), BLOCKS(16), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(3), BLOCKS(1), OP_FUA},
    {OP_FILL, "a", BLOCKS(34), BLOCKS(16), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* A write that waits for space goes on when another volume gives some back. */
static const struct op full_and_waiting[] = {
    {OP_CREATE, "p", 0, BLOCKS(256), OP_PAUSE},
    {OP_CREATE, "a", 0, BLOCKS(1024), 0},
    {OP_FILL, "a", BLOCKS(0), BLOCKS(16), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op waiting[] = {
    {OP_WRITE, "p", BLOCKS(3), BLOCKS(2), OP_WITH_NEXT},
    {OP_WRITE, "p", BLOCKS(20), BLOCKS(1), OP_WITH_NEXT | OP_FUA},
    {OP_DISCARD, "a", BLOCKS(0), BLOCKS(1024), OP_FUA},
    {OP_FLUSH, "p", 0, 0, 0},
    {OP_READ, "p", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* Metadata are at their limit. Changes of what is there go on, and new chunks are refused. */
static const struct op hogged_volume[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_CREATE, "b", 0, BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(16), 0},
    {OP_WRITE, "b", BLOCKS(0), BLOCKS(4), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_FLUSH, "b", 0, 0, 0},
    {OP_HOG, NULL, 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op hogged[] = {
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(2), OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(5), BLOCKS(6), OP_WITH_NEXT},
    {OP_WRITE, "b", BLOCKS(1), BLOCKS(1), OP_FUA},
    {OP_WRITE, "a", BLOCKS(40), BLOCKS(1), 0},
    {OP_DISCARD, "a", BLOCKS(4), BLOCKS(4), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_FUA},
    {OP_DELETE, "b", 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(9), BLOCKS(1), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
/* A volume whose writes are durable at once, and one that finds written zeros. */
static const struct op options_setup[] = {
    {OP_CREATE, "s", 0, BLOCKS(32), OP_SYNC},
    {OP_CREATE, "z", 0, BLOCKS(32), OP_ZERO_DETECT},
    {OP_WRITE, "z", BLOCKS(0), BLOCKS(8), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op options[] = {
    {OP_WRITE, "s", BLOCKS(0), BLOCKS(2), 0},
    {OP_ZERO, "z", BLOCKS(1), BLOCKS(2), OP_AS_DATA},
    {OP_WRITE, "s", BLOCKS(1), 3, 0},
    {OP_DISCARD, "s", BLOCKS(0), BLOCKS(1), 0},
    {OP_ZERO, "z", BLOCKS(4), BLOCKS(4), OP_NO_HOLE},
    {OP_ZERO, "z", BLOCKS(16), BLOCKS(4), OP_NO_HOLE | OP_FUA},
    {OP_FLUSH, "z", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op race[] = {
    {OP_WRITE, "a", BLOCKS(0) + 0, 3, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(0) + 4, 3, OP_WITH_NEXT},
    {OP_READ, "a", BLOCKS(0), BLOCKS(2), OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_WITH_NEXT},
    {OP_READ, "a", BLOCKS(0), BLOCKS(2), OP_WITH_NEXT},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(4), 0},
    {OP_WRITE, "a", BLOCKS(33) + 1, 2, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(33) + 5, 2, OP_WITH_NEXT},
    {OP_DISCARD, "a", BLOCKS(8), BLOCKS(4), OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(9), BLOCKS(2), OP_WITH_NEXT},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* Nothing is overwritten after the damage: see docs/testing.md. */
#define ROT(disk_)                                                                                 \
    {                                                                                              \
        {OP_ROT, NULL, disk_, 3, 0}, {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},                     \
            {OP_WRITE, "a", BLOCKS(14), BLOCKS(5), OP_FUA}, {OP_REIMPORT, NULL, 0, 0, 0},          \
            {OP_ROT, NULL, disk_, 1, 0}, {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},                 \
            {OP_WRITE, "a", BLOCKS(30), BLOCKS(1), OP_FUA}, {OP_REIMPORT, NULL, 0, 0, 0},          \
            {OP_ROT, NULL, disk_, 1, 0}, {OP_REIMPORT, NULL, 0, 0, 0},                             \
            {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0}, {OP_CHECKPOINT, NULL, 0, 0, 0},              \
            {OP_ROT, NULL, disk_, 2, 0}, {OP_WRITE, "a", BLOCKS(40), BLOCKS(2), OP_FUA},           \
        {                                                                                          \
            OP_END, NULL, 0, 0, 0                                                                  \
        }                                                                                          \
    }
static const struct op rot_first[] = ROT(0);
static const struct op rot_second[] = ROT(1);

/* Each block has one readable copy left, in turn on one disk and the other. A read of several
 * blocks has no whole copy. */
static const struct op unreadable[] = {
    {OP_UNREADABLE, NULL, 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_UNREADABLE, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(2) + 3, BLOCKS(3), 0},
    {OP_DISCARD, "a", BLOCKS(6), BLOCKS(2), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_UNREADABLE, NULL, 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(4), OP_WITH_NEXT},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};

/* Overwrites that reach the disks in part and fail: each block is old or new, and stays. */
static const struct op failed_overwrite[] = {
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(4), OP_FAILS},
    {OP_READ, "a", BLOCKS(0), BLOCKS(12), 0},
    {OP_WRITE, "a", BLOCKS(2) + 3, BLOCKS(3), OP_FAILS | OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(6), BLOCKS(2), OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(11), BLOCKS(4), OP_FAILS},
    {OP_BACKGROUND, NULL, 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(4), BLOCKS(4), OP_WITH_NEXT},
    {OP_READ, "a", BLOCKS(0), BLOCKS(16), 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_FAILS},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_REIMPORT, NULL, 0, 0, 0},
    {OP_READ, "a", BLOCKS(0), BLOCKS(16), 0},
    {OP_END, NULL, 0, 0, 0},
};

/* A commit takes the first half of a long write, of which nothing is kept yet. What was kept
 * before, of the same chunks and counts, is older than the commit. */
static const struct op half_kept[] = {
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(100), BLOCKS(400), OP_WITH_NEXT},
    {OP_FLUSH, "a", 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(21), BLOCKS(1), OP_FUA | OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(600), BLOCKS(40), OP_FUA},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};

/* What an import has to find: a table image, pieces of the log, trees, volumes that come and go. */
static const struct op to_import[] = {
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(20), BLOCKS(2), OP_FUA},
    {OP_CREATE, "b", 0, BLOCKS(32), 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(0), BLOCKS(5), 0},
    {OP_DISCARD, "a", BLOCKS(4), BLOCKS(4), 0},
    {OP_FLUSH, "b", 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(1), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_WRITE, "b", BLOCKS(1), BLOCKS(1), 0},
    {OP_WRITE, "a", BLOCKS(30), BLOCKS(1), 0},
    {OP_END, NULL, 0, 0, 0},
};

static const struct op large_volume[] = {
    {OP_CREATE, "a", 0, BLOCKS(512), 0},
    {OP_END, NULL, 0, 0, 0},
};
/* Commits of several pages, which can tear. */
static const struct op large_commit[] = {
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(400), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_DISCARD, "a", BLOCKS(0), BLOCKS(360), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};

/* Deltas are added, merged, and go with a full image; records are deleted meanwhile. */
static const struct op deltas[] = {
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(12), BLOCKS(1), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_CREATE, "c", 0, BLOCKS(16), 0},
    {OP_WRITE, "c", BLOCKS(0), BLOCKS(2), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_DELETE, "c", 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_REIMPORT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(13), BLOCKS(1), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, OP_WITH_NEXT},
    {OP_WRITE, "a", BLOCKS(30), BLOCKS(1), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op with_deltas[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(12), 0},
    {OP_FLUSH, "a", 0, 0, 0},
    {OP_CREATE, "b", 0, BLOCKS(16), 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_DELETE, "b", 0, 0, 0},
    {OP_BACKGROUND, NULL, 0, 0, 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(12), BLOCKS(1), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_END, NULL, 0, 0, 0},
};

/* A volume that is wider than the pool's metadata: these get copies first. */
static const struct op promise[] = {
    {OP_WRITE, "a", BLOCKS(14), BLOCKS(1), 0},
    {OP_CREATE, "w", 0, BLOCKS(32), OP_WIDER},
    {OP_WRITE, "w", BLOCKS(0), BLOCKS(3), OP_FUA},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "w", BLOCKS(1), BLOCKS(1), OP_FUA},
    {OP_REIMPORT, NULL, 0, 0, 0},
    {OP_READ, "w", BLOCKS(0), BLOCKS(32), 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op promise_alone[] = {
    {OP_WRITE, "a", BLOCKS(14), BLOCKS(1), 0},
    {OP_CREATE, "w", 0, BLOCKS(32), OP_WIDER},
    {OP_WRITE, "a", BLOCKS(1), BLOCKS(1), OP_FUA},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(2), BLOCKS(1), OP_FUA},
    {OP_READ, "a", BLOCKS(0), BLOCKS(64), 0},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op checkpointed_volume[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), 0},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(12), 0},
    {OP_CHECKPOINT, NULL, 0, 0, 0},
    {OP_WRITE, "a", BLOCKS(12), BLOCKS(1), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};
static const struct op promised_volume[] = {
    {OP_CREATE, "a", 0, BLOCKS(64), OP_WIDER},
    {OP_WRITE, "a", BLOCKS(0), BLOCKS(12), OP_FUA},
    {OP_END, NULL, 0, 0, 0},
};

static const struct scenario scenarios[] = {
    SCENARIO("first-write", "writes to blocks that were never written", one_disk, empty_volume,
             first_write, ),
    SCENARIO("overwrite", "writes over written blocks", one_disk, written_volume, overwrite, ),
    SCENARIO("overwrite-512", "the same on a disk whose atomic unit is 512 bytes", one_old_disk,
             written_volume, overwrite, ),
    SCENARIO("overwrite-mirror", "the same on a mirror: copies may differ", mirror, written_volume,
             overwrite, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("spread", "volumes on two disks: a commit flushes what its own volume wrote to",
             two_disks, two_volumes, spread, ),
    SCENARIO("sub-block", "writes and zeroes of a few sectors", one_disk, written_volume,
             sub_block, ),
    SCENARIO("discard-reuse", "freed chunks are taken by another volume", one_disk, two_volumes,
             discard_reuse, ),
    SCENARIO("create-delete", "volumes come and go", one_disk, written_volume, create_delete, ),
    SCENARIO("delete-paused", "a deletion is paused, and resumed after a restart", one_disk,
             written_volume, delete_paused, ),
    SCENARIO("resize", "a volume shrinks and grows again", one_disk, written_volume, resize, ),
    SCENARIO("shrink-race", "a volume shrinks under writes and grows again", one_disk, wide_volume,
             shrink_race, ),
    SCENARIO("client-gone", "clients die in the middle of requests, others come", one_disk,
             wide_volume, client_gone, .crash_stride = 3),
    SCENARIO("checkpoint", "checkpoints, also during writes, and a clean restart", one_disk,
             written_volume, checkpoint, ),
    SCENARIO("checkpoint-mirror", "the same on three disks", wide_mirror, written_volume,
             checkpoint, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("lost-wide", "any two of three disks are lost, at every crash point", wide_mirror,
             written_volume, overwrite, .flags = SCENARIO_SURVIVES_LOSS, .deep_every = 8),
    SCENARIO("lost-widest", "any three of four disks, around checkpoints", widest_mirror,
             written_volume, checkpoint, .flags = SCENARIO_SURVIVES_LOSS, .deep_every = 32),
    SCENARIO("promise", "a volume is wider than metadata, which get copies first", four_disks,
             checkpointed_volume, promise, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("promise-lost", "the same; a disk dies, or an operation fails", four_disks,
             checkpointed_volume, promise_alone, .flags = SCENARIO_DEATHS | SCENARIO_ERRORS,
             .crash_stride = 23, .deep_every = 512),
    SCENARIO("promise-kept", "any three of four disks are lost afterwards", four_disks_promised,
             promised_volume, overwrite, .flags = SCENARIO_SURVIVES_LOSS, .deep_every = 16),
    SCENARIO("log-wrap", "many small commits: segments chain and are released", one_disk,
             written_volume, log_wrap, ),
    SCENARIO("mirror-lost", "a disk of a mirror dies before each event, then power goes", mirror,
             written_volume, mishaps,
             .flags = SCENARIO_DEATHS | SCENARIO_ERRORS | SCENARIO_SURVIVES_LOSS,
             .crash_stride = 5),
    SCENARIO("errors", "each operation of the only disk fails once", one_disk, written_volume,
             mishaps, .flags = SCENARIO_ERRORS, .crash_stride = 3),
    SCENARIO("fill", "to the last block, discard, and on", tiny_disk, nearly_full, fill, ),
    SCENARIO("metadata", "metadata at their limit: overwrite, discard, delete", tiny_disk,
             hogged_volume, hogged, ),
    SCENARIO("waiting", "a write waits for space that another volume gives back", tiny_disk,
             full_and_waiting, waiting, ),
    SCENARIO("options", "sync, zero detection, zeroes without holes", one_disk, options_setup,
             options, ),
    SCENARIO("pairs", "each pair of operations: in turn, at once, with a flush between", one_disk,
             written_volume, NULL, .variants = COMBINE_PAIRS, .make = combine_pair),
    SCENARIO("pairs-512", "the same with an atomic unit of 512 bytes", one_old_disk, written_volume,
             NULL, .variants = COMBINE_PAIRS, .make = combine_pair),
    SCENARIO("pairs-mirror", "the same on a mirror", mirror, written_volume, NULL,
             .variants = COMBINE_PAIRS, .make = combine_pair, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("triples", "each triple of operations in turn", one_disk, written_volume, NULL,
             .variants = COMBINE_TRIPLES, .make = combine_triple, .deep_every = 256),
    SCENARIO("race", "overlapping requests at the same time", one_disk, written_volume, race, ),
    SCENARIO("set-back", "first writes; then the disks are set back", one_disk, empty_volume,
             first_write, .flags = SCENARIO_SET_BACK),
    SCENARIO("half-kept", "a commit amid a write of which nothing is kept yet", one_disk,
             wide_volume, half_kept, ),
    SCENARIO("import", "recovery crashed at each of its events", mirror, written_volume, overwrite,
             .deep_every = 1, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("import-faults", "each operation and allocation of an import fails", mirror,
             written_volume, to_import, .deep_every = 50, .flags = SCENARIO_IMPORT_FAULTS),
    SCENARIO("deltas", "checkpoints that write what changed", mirror_with_property, written_volume,
             deltas, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("import-faults-deltas", "the same where the table is in deltas", mirror_with_property,
             with_deltas, to_import, .deep_every = 50, .flags = SCENARIO_IMPORT_FAULTS),
    SCENARIO("import-faults-degraded", "the same, after a disk has died", mirror, written_volume,
             to_import, .deep_every = 500, .crash_stride = 11,
             .flags = SCENARIO_IMPORT_FAULTS | SCENARIO_DEATHS),
    SCENARIO("import-faults-wide", "the same with three disks", wide_mirror, written_volume,
             to_import, .deep_every = 500, .flags = SCENARIO_IMPORT_FAULTS),
    SCENARIO("import-faults-spread", "the same with two disks without a mirror", two_disks,
             written_volume, to_import, .deep_every = 50, .flags = SCENARIO_IMPORT_FAULTS),
    SCENARIO("import-faults-single", "the same with one disk", one_disk, written_volume, to_import,
             .deep_every = 5, .flags = SCENARIO_IMPORT_FAULTS),
    SCENARIO("large-commit", "commits of several pages may tear", one_disk, large_volume,
             large_commit, ),
    SCENARIO("failed-overwrite", "overwrites that fail in the middle", one_disk, written_volume,
             failed_overwrite, ),
    SCENARIO("failed-overwrite-mirror", "… on both copies", mirror, written_volume,
             failed_overwrite, .flags = SCENARIO_SURVIVES_LOSS),
    SCENARIO("unreadable", "both copies have blocks that cannot be read, never the same", mirror,
             written_volume, unreadable, ),
    SCENARIO("rot-first", "the first disk of a mirror rots", mirror, written_volume, rot_first,
             .flags = SCENARIO_ROT),
    SCENARIO("rot-second", "the other one rots", mirror, written_volume, rot_second,
             .flags = SCENARIO_ROT),
};

unsigned scenario_count(void)
{
    unsigned n = sizeof(scenarios) / sizeof(scenarios[0]);
    return n + return_scenario_count + move_scenario_count + host_scenario_count;
}

const struct scenario *scenario_at(unsigned i)
{
    unsigned n = sizeof(scenarios) / sizeof(scenarios[0]);
    if (i < n)
        return &scenarios[i];
    i -= n;
    if (i < return_scenario_count)
        return &return_scenarios[i];
    i -= return_scenario_count;
    return i < move_scenario_count ? &move_scenarios[i] : &host_scenarios[i - move_scenario_count];
}

const struct scenario *scenario_find(const char *name)
{
    for (unsigned i = 0; i < scenario_count(); i++)
        if (strcmp(scenario_at(i)->name, name) == 0)
            return scenario_at(i);
    return NULL;
}
