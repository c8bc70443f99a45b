/*
 * The blocks of a thin volume: the map from chunk numbers to the pool's chunks, allocation on
 * write, valid bits, checksums, write intents, commits and checkpoints.
 *
 * One `struct thin` is a volume family of one. Its map tree, its space tree (which chunks of its
 * leased arenas are in use) and its intents belong to one reactor, and every function here runs
 * there. Offsets and counts are in blocks of 4096 bytes. The caller (volumes/) holds block locks:
 * two writes, or a read and a write, never work on the same block at the same time. Reads share.
 *
 * Algorithms and orderings: docs/design.md, "Thin volumes". Bytes: thin/thin_format.h.
 */
#ifndef VP_THIN_THIN_H
#define VP_THIN_THIN_H

#include "base/error.h"
#include "base/figure.h"
#include "io/co.h"
#include "pool/pool.h"
#include "raid/profile.h"

#include <stdbool.h>
#include <stdint.h>

struct thin;

/* A chunk's number inside a volume. */
struct vchunk {
    uint64_t n;
};

/* Metadata memory shared by all volumes of one reactor: a page cache with a limit. */
struct thin_cache;
int thin_cache_new(size_t limit_bytes, struct thin_cache **out) must_check;
/* On the cache's reactor. Every wait there for pages to become clean ends with rc. */
void thin_cache_checkpoint_failed(struct thin_cache *c, int rc);
void thin_cache_free(struct thin_cache *c);
/* Of its reactor alone: they are no figures (base/figure.h). */
struct thin_cache_stats {
    uint64_t pages, pages_dirty, limit_pages, hits, misses, evictions;
};
struct thin_cache_stats thin_cache_stats(const struct thin_cache *c);

struct thin_config {
    struct pool *pool;
    struct thin_cache *cache; /* of this reactor; outlives the volume                          */
    uint32_t id;              /* volume id = family id, never used twice in a pool              */
    uint64_t size_blocks;
    struct raid_profile profile;
    uint64_t reserve_bytes; /* arenas leased ahead so that this much can always be written    */
    bool discard_devices;   /* tell devices about freed chunks                                */
    _Atomic uint64_t *healed_blocks; /* blocks that reads heal are added; NULL: nobody counts */
};

/*
 * Records of the pool that concern one volume, gathered by volumes/ at import or activation: TREE,
 * STAT, INTENT, COUNTER from the table and, in log order, the replayed MAP and SPACE records. The
 * bytes are the pool's record encoding (pool_batch). All borrowed during thin_open.
 */
struct thin_state {
    const struct pool_batch *table;
    const struct pool_batch *replay;
};

/*
 * Opens a volume; `state` is NULL for a new one. Loads only the roots; applying `replay` loads the
 * leaves that it names. Errors: VP_E_PAGE_DAMAGED, VP_E_MAP_BAD (the caller then faults this
 * volume, others go on), VP_E_PAGE_UNREADABLE, VP_E_NO_MEMORY, VP_E_NO_SPACE (reserve).
 */
CO int thin_open(const struct thin_config *config, const struct thin_state *state,
                 struct thin **out) must_check;
/* Waits for work in the background, when all I/O has ended. Before thin_close. */
CO void thin_quiesce(struct thin *t);
/* Closes without a commit: the caller committed before, or means to abandon. */
void thin_close(struct thin *t);

/* Reads blocks. A block without a valid bit reads as zeros. Errors: VP_E_CHECKSUM,
 * VP_E_RAID_NO_COPY, VP_E_PAGE_DAMAGED, VP_E_PAGE_UNREADABLE. */
CO int thin_read(struct thin *t, uint64_t block, uint64_t count, void *buf) must_check;

/*
 * Writes whole blocks. When it returns 0 later reads see the data. The data survive a power cut
 * after the next thin_commit, and a kill of the daemon at once (where thin_take_memory says so).
 * Errors: VP_E_NO_SPACE (the blocks keep their old content), those of raid_write.
 */
CO int thin_write(struct thin *t, uint64_t block, uint64_t count, const void *buf) must_check;

/* The blocks read as zeros afterwards. A chunk without valid blocks is freed. With `keep_allocated`
 * no chunk is freed, and missing chunks are allocated (NBD's NO_HOLE). Errors: VP_E_NO_SPACE (only
 * with keep_allocated), VP_E_PAGE_DAMAGED, VP_E_PAGE_UNREADABLE, VP_E_POOL_FENCED. */
CO int thin_zero(struct thin *t, uint64_t block, uint64_t count, bool keep_allocated) must_check;

/*
 * P1: everything that completed before the call survives. Group commit: flushes the disks that the
 * volume wrote to (GUARD_DATA_BEFORE_LOG), then writes the log. Errors: VP_E_POOL_FENCED.
 */
CO int thin_commit(struct thin *t) must_check;

/* Takes the memory that requests may need, so that no request has to wait for it: kept memory, what
 * a commit collects, and map pages (as many as the map has or the cache's limit allows). Returns
 * whether acknowledged changes survive a kill of the daemon. They do not where the system has no
 * shared memory. */
CO bool thin_take_memory(struct thin *t);

/* Makes room for others: commits when chunks were freed, and gives back the arenas that hold
 * nothing, also those that an earlier life of the volume leased (a part of the space tree may be
 * read for that). Errors: those of reading and of thin_commit. */
CO int thin_give_back(struct thin *t) must_check;

/* Runs of blocks with one state. */
struct thin_extent {
    uint64_t block, count;
    bool allocated; /* a chunk is there */
    bool zero;      /* reads as zeros   */
};
/* Describes [block, block+count) from its start: up to `max` extents, merged; *n is ≥ 1. */
CO int thin_extents(struct thin *t, uint64_t block, uint64_t count, struct thin_extent *out,
                    unsigned max, unsigned *n) must_check;

/* The first block in [block, end) that lies in an allocated chunk; `end` when there is none. Looks
 * no further than that block. */
CO int thin_next_mapped(struct thin *t, uint64_t block, uint64_t end, uint64_t *next) must_check;

/* Grows the volume, or shrinks it (the caller discarded the rest before). */
CO int thin_resize(struct thin *t, uint64_t size_blocks) must_check;

/*
 * A checkpoint, in the order of pool_client.checkpoint: thin_checkpoint_pages writes dirty pages,
 * thin_commit covers what they hold, and then thin_checkpoint_roots gives what the TREE records
 * name. See docs/design.md, "Checkpoint".
 */
CO int thin_checkpoint_pages(struct thin *t) must_check;
struct thin_roots {
    struct pool_page_ref root[2]; /* by enum pool_tree */
    uint8_t height[2];
};
struct thin_roots thin_checkpoint_roots(const struct thin *t);
/* The value of a TREE record. */
#define THIN_TREE_RECORD_BYTES 24
void thin_tree_record(struct pool_page_ref root, uint8_t height,
                      uint8_t out[THIN_TREE_RECORD_BYTES]);
bool thin_is_dirty(const struct thin *t);
/* How many INTENT records (keys 0 …) a volume of so many chunks can have. */
uint64_t thin_intent_words(uint64_t chunks);
/* Clears, in memory and before the checkpoint's commit, the intents of regions not written since
 * the last call. Adds the records that are removed or changed to b, for the table of the table
 * image. */
void thin_checkpoint_intents(struct thin *t, struct pool_batch *b);

/* Releases every page of the volume's trees (deletion; arenas were returned as a whole). */
CO int thin_destroy_pages(struct thin *t) must_check;

/* After a crash: verifies (adopts, equalises, heals) the regions whose intents were recovered, one
 * region a call; *more is false when none is left. Background. */
CO int thin_resync_step(struct thin *t, bool *more) must_check;

struct thin_fill_result {
    /* In runs of blocks … */
    uint64_t filled_bytes; /* … which the disk has                                          */
    uint64_t lost_bytes;   /* … with one that matches its checksum nowhere                  */
    uint64_t unread_bytes; /* … with one that no device gives                               */
    uint64_t waits_bytes; /* … with one that may come, or that a crash left in an unknown state */
};
/*
 * Gives a disk that is behind what the other copies have of blocks [block, block+count), which are
 * whole chunks, and adds to *out. `compare`: the disk has most of it already. The caller holds
 * block locks of all these blocks, and nobody else fills. Errors: VP_E_RAID_DISK_OUT (the disk left
 * service), those of writes, of pages, VP_E_NO_MEMORY.
 */
CO int thin_fill(struct thin *t, uint64_t block, uint64_t count, const struct raid_disk *disk,
                 bool compare, struct thin_fill_result *out) must_check;

/* The same for members of groups that move: gives their targets (raid/raid.h) what the members
 * have. A block that cannot be had now keeps its group from moving. Errors: those of
 * pages, VP_E_NO_MEMORY. */
CO int thin_fill_targets(struct thin *t, uint64_t block, uint64_t count,
                         struct thin_fill_result *out) must_check;
/* Waits until all that read, wrote, discarded or flushed when it was called has ended; not for what
 * began later. One at a time. */
CO void thin_barrier(struct thin *t);

/* What a scrub is given and gives; zeroed but for the first two. */
struct thin_scrub {
    /* A bad copy of the volume's block number `block` (f->piece and f->block say nothing here). No
     * yield. */
    void (*found)(uint64_t block, const struct raid_finding *f, void *arg);
    void *arg;
    uint64_t compared_bytes; /* of all copies: added up */
    uint64_t missing_bytes;  /* of which no copy could be looked at */
};
/* Compares all copies of blocks [block, block+count), which are whole chunks, with their checksums,
 * and heals. The caller holds block locks of all these blocks; one of thin_fill and thin_scrub at a
 * time. Errors: those of pages, VP_E_MAP_BAD, VP_E_NO_MEMORY. */
CO int thin_scrub(struct thin *t, uint64_t block, uint64_t count,
                  struct thin_scrub *out) must_check;

/* A walk over the pages of a volume's trees; zeroed at the start. */
#define THIN_WALK_LEVELS 8U
#define THIN_WALK_TREES  2U /* the walk is at its end when `tree` is so many */
struct thin_page;
struct thin_page_walk {
    unsigned tree; /* the map, then the space tree */
    uint64_t key;
    uint64_t told[THIN_WALK_LEVELS]; /* of each level, the page whose reference was given last */
    struct thin_page *leaf; /* pinned; NULL after thin_page_walk_next: the walk is at its end */
};
/* Loads the next leaf; thin_page_walk_take follows. Errors: those of pages; the walk cannot go on.
 */
CO int thin_page_walk_next(struct thin *t, struct thin_page_walk *w) must_check;
/* No yield. The references of the leaf and of pages above it that were not given yet, at most
 * THIN_WALK_LEVELS. They are right as long as no checkpoint begins; while one is under way they
 * need not be. */
unsigned thin_page_walk_take(struct thin_page_walk *w, struct pool_page_ref *ref);

/* Gives back the memory that thin_fill and thin_scrub took. */
void thin_pass_ended(struct thin *t);

/* What thin_resync_step does in one call, at most. */
uint64_t thin_region_bytes(const struct thin *t);

struct thin_figures {
#define FIGURE FIGURE_FIELD
#include "thin/figures.def"
};
extern const struct figure_set thin_figure_set;
/* As long as the map is open; any thread. */
const struct thin_figures *thin_figures(const struct thin *t);

/* Walks the whole map: fn for each mapped chunk; checks. Used by tests and vpool-check. */
struct thin_chunk_info {
    struct vchunk at;
    struct pchunk chunk;
    uint64_t generation;
    unsigned valid_blocks;
};
CO int thin_walk(struct thin *t, int (*fn)(const struct thin_chunk_info *c, void *arg),
                 void *arg) must_check;
/* Compares the space tree with the map: counts of chunks used twice, leaked, or not marked. */
struct thin_audit {
    uint64_t mapped, doubled, unmarked, leaked;
};
CO int thin_check(struct thin *t, struct thin_audit *out) must_check;

#endif
