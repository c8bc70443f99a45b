/* The inside of a thin volume, private to thin/. One reactor, no locks; see thin.h. */
#ifndef VP_THIN_THIN_IMPL_H
#define VP_THIN_THIN_IMPL_H

#include "base/hash.h"
#include "base/list.h"
#include "base/verify.h"
#include "pool/keep.h"
#include "thin/thin.h"
#include "thin/thin_format.h"

enum {
    THIN_LEVELS_MAX = 8,
    THIN_WRITE_BATCH = 64,   /* pages that a checkpoint writes at once                          */
    THIN_WINDOW_PIECES = 16, /* pieces of a request in flight at once …                         */
    THIN_WINDOW_BLOCKS = 256, /* … and blocks                                                    */
    THIN_OPEN_ARENAS = 8,     /* at most, to allocate from in turn                               */
    THIN_SPARES_MAX = 4096,   /* arenas with free chunks that are kept in memory                 */
    THIN_BLOCKS_MAX = 256,    /* of a chunk                                                      */
    THIN_MARK_WORDS = 8,      /* for the entries of a leaf */
    THIN_ADOPT_BLOCKS = 16,   /* compared at once after a crash */
    THIN_PASS_PIECES = 16,    /* of a pass in one window …        */
    THIN_PASS_BLOCKS = 256,   /* … and blocks                     */
};

/* Keys beyond this are damage: 2^44 chunks of 16 KiB are 256 PiB. */
#define THIN_KEY_MAX (UINT64_C(1) << 44)

/* What has still to happen with a changed entry of a leaf. */
enum thin_mark {
    THIN_UNCOMMITTED, /* it is not in the log       */
    THIN_UNKEPT,      /* it is not kept (keep.c)    */
    THIN_MARK_KINDS,
};
struct thin_marks {
    struct list link; /* tree->marked, while a bit is set */
    uint64_t bits[THIN_MARK_WORDS];
};

/* ==== pages (cache.c) ======================================================================= */

/*
 * A page in memory, in the bytes of the disk. The cache owns it. Its tree reaches it through its
 * parent's child[] (or tree->root). Invariants:
 *
 * 1. A loaded page's parent is loaded (children counts them).
 * 2. A page that is not dirty equals what its parent's reference names (no reference: all zero).
 * 3. Only pages are evicted that are clean, unpinned, childless, committed, kept, and not being
 *    loaded or written.
 * 4. A page is due exactly when it, or a page below it, is dirty, being written, or about to be
 *    changed. due_children counts the due pages right below it.
 */
struct thin_page {
    struct list clock_link; /* cache->clean, while not dirty; cache->unused              */
    struct list dirty_link; /* tree->dirty[level], while dirty                           */
    struct thin_tree *tree;
    struct thin_page *parent;
    struct thin_page **child; /* interior: [THIN_FANOUT], NULL = not loaded           */
    uint64_t index;
    unsigned slot; /* in the parent                                       */
    unsigned children, pins;
    uint8_t level;
    bool dirty, referenced, loading, writing;
    bool due;              /* the next checkpoint will write it: see thin_page_due_update */
    uint16_t due_children; /* children that are due                                       */
    uint16_t writers;      /* leaf: parts of writes under way, which will change it       */
    struct thin_marks mark[THIN_MARK_KINDS]; /* leaf: by enum thin_mark                  */
    uint8_t *data;                           /* POOL_PAGE bytes, aligned                 */
};

struct thin_slab;
struct thin_cache {
    size_t limit_pages, pages, dirty;
    size_t interior;     /* of `pages`: each has the pointers to its children beside it     */
    size_t slab_pages;   /* there is memory for so many            */
    size_t wanted_pages; /* by volumes that asked for theirs ahead …  */
    size_t wanted_used;  /* … and in use by them                      */
    uint64_t hits, misses, evictions;
    struct list clean;      /* clock: the hand is at the head */
    struct list unused;     /* page structs with memory to reuse */
    struct co_queue loaded; /* somebody's load ended  */
    struct co_queue room;   /* pages became clean, or a checkpoint failed: */
    uint64_t failures;      /* so many did, …         */
    int failure_rc;         /* … the last one of this */
    uint32_t checkpoint;    /* the one under way; since it began … */
    uint64_t cleaned;       /* … so many became clean */
    uint64_t page_ns;       /* of a checkpoint, for each page of ours in it */
    uint64_t pace_ns;       /* when the next change may start (cache.c)     */
    struct thin_slab *slabs;
    struct co_mutex writer; /* of: */
    uint8_t *write_buf;     /* THIN_WRITE_BATCH pages */
};

/* A page for the tree, zeroed, header not filled in; evicts when the limit is reached. No yield.
 * VP_E_NO_MEMORY. */
int thin_page_new(struct thin_cache *c, struct thin_tree *tree, uint8_t level, uint64_t index,
                  struct thin_page **out) must_check;
/* Takes memory for all pages that this volume's trees can have at its size. All such volumes
 * together get three quarters of the limit, and other volumes leave that to them. Memory that is
 * not there now is asked for again when it is used. */
CO void thin_cache_take(struct thin *t);
/* Nothing more could be evicted: pages are dirty or pinned. */
bool thin_cache_is_exceeded(const struct thin_cache *c);
/* Takes the page out of its tree and frees it, whatever its state. */
void thin_page_drop(struct thin_page *p);
void thin_page_mark_dirty(struct thin_page *p);
void thin_page_mark_clean(struct thin_page *p);
/*
 * Tells the pool when p has become due or is not any more: it is dirty, is being written, will be
 * changed by a write under way, or is above such a page. So the pool counts what a checkpoint will
 * have to write, ancestors included, before a change is made. No yield.
 */
void thin_page_due_update(struct thin_page *p);
/* A write under way will change the leaf. */
static inline void thin_page_enter(struct thin_page *p)
{
    p->writers++;
    if (__builtin_expect(!p->due, 0))
        thin_page_due_update(p);
}
static inline void thin_page_leave(struct thin_page *p)
{
    VP_CHECK(p->writers, >, 0);
    p->writers--;
    if (__builtin_expect(!p->dirty, 0))
        thin_page_due_update(p);
}
static inline void thin_page_pin(struct thin_page *p)
{
    p->pins++;
    p->referenced = true;
}
static inline void thin_page_unpin(struct thin_page *p)
{
    VP_CHECK(p->pins, >, 0U);
    p->pins--;
}
static inline bool thin_page_has_mark(const struct thin_page *p, enum thin_mark m)
{
    return p->mark[m].link.next != &p->mark[m].link;
}
/* Checkpoint `number` begins; the one before it took last_ns. */
void thin_cache_checkpoint_begin(struct thin_cache *c, uint32_t number, uint64_t last_ns);

/* ==== trees (tree.c, tree_write.c) ========================================================== */

/* A radix tree from 44-bit keys to entries of a fixed size; no entry = all zero. */
struct thin_tree {
    struct thin *owner;
    enum pool_tree kind;
    uint32_t entry_bytes, leaf_entries;
    unsigned mark_words;
    uint32_t record_bytes;          /* of an entry in a list of records */
    unsigned height;                /* levels, 0 = empty                                   */
    struct thin_page *root;         /* NULL = not loaded                                   */
    struct pool_page_ref root_ref;  /* where the top page is                               */
    struct pool_page_ref saved_ref; /* what the next TREE record says …                    */
    uint8_t saved_height;
    uint64_t span[THIN_LEVELS_MAX + 1]; /* keys under a page of level i                        */
    struct list dirty[THIN_LEVELS_MAX];
    struct list writing;                 /* dirty pages of the level that a checkpoint is at    */
    struct list marked[THIN_MARK_KINDS]; /* leaves, by enum thin_mark               */
};

void thin_tree_init(struct thin_tree *tree, struct thin *owner, enum pool_tree kind,
                    uint32_t entry_bytes);
/* From a TREE record: VP_E_MAP_TOO_DEEP, VP_E_MAP_BAD. */
int thin_tree_load(struct thin_tree *tree, const void *record, size_t len) must_check;
/* Drops all pages from memory. */
void thin_tree_fini(struct thin_tree *tree);

/* The leaf of `key` when it is in memory, else NULL; not pinned. No yield. */
struct thin_page *thin_tree_peek(struct thin_tree *tree, uint64_t key);
/*
 * Gives the leaf of `key`, pinned; NULL when there is none and not `create`. Everything may change
 * meanwhile, but the leaf, once pinned, stays. VP_E_PAGE_DAMAGED, VP_E_PAGE_UNREADABLE,
 * VP_E_NO_MEMORY, VP_E_MAP_BAD.
 */
CO int thin_tree_get(struct thin_tree *tree, uint64_t key, bool create,
                     struct thin_page **out) must_check;
/* The page of `level` on the way to `key`, pinned; NULL: none. As thin_tree_get. */
CO int thin_tree_get_page(struct thin_tree *tree, uint64_t key, unsigned level,
                          struct thin_page **out) must_check;
/* The first leaf that exists and holds keys ≥ *key, pinned; *key moves up to its first key when
 * that is higher. *out NULL: none below `end`. */
CO int thin_tree_seek(struct thin_tree *tree, uint64_t *key, uint64_t end,
                      struct thin_page **out) must_check;

static inline uint64_t thin_leaf_first(const struct thin_page *leaf)
{
    return leaf->index * leaf->tree->leaf_entries;
}
static inline uint8_t *thin_leaf_slot(const struct thin_page *leaf, uint64_t slot)
{
    return leaf->data + sizeof(struct thin_page_header) + slot * leaf->tree->entry_bytes;
}
static inline uint8_t *thin_leaf_entry(const struct thin_page *leaf, uint64_t key)
{
    return thin_leaf_slot(leaf, key - thin_leaf_first(leaf));
}
/* The entry of `key` was changed: the leaf becomes dirty. `committed`: by replay of the log. */
void thin_leaf_changed(struct thin_page *leaf, uint64_t key, bool committed);
/* Fills the records of all entries with the mark, in both trees, into b; they stay marked. No
 * yield. */
void thin_marked_collect(struct thin *t, enum thin_mark m, struct pool_batch *b);
void thin_marked_clear(struct thin *t, enum thin_mark m);
bool thin_tree_is_dirty(const struct thin_tree *tree);

/* Writes the pages that are dirty now, leaves first, to new places. */
CO int thin_tree_write(struct thin_tree *tree, uint32_t generation) must_check;
/* Releases every page that the tree occupies in the pool and empties it. */
CO int thin_tree_destroy(struct thin_tree *tree) must_check;

struct pool_page_ref thin_ref_get(const struct thin_page_ref_disk *d);
struct thin_page_ref_disk thin_ref_make(struct pool_page_ref ref);
struct thin_page_ref_disk *thin_page_slot(const struct thin_page *interior, unsigned slot);

/* ==== map entries (map.c) =================================================================== */

struct thin_map_layout {
    uint32_t chunk_blocks, crc_offset, entry_bytes; /* crc_offset: in an entry */
};
struct thin_map_layout thin_map_layout_make(uint32_t chunk_bytes);

/* A view of one entry; goes with its leaf's pin. The valid bits follow the fixed part. */
struct thin_map_entry {
    struct thin_map_entry_disk *fixed;
    struct le32 *crc;
};

/* ==== space (space.c, arena_scan.c) ========================================================= */

enum thin_arena_state { THIN_ARENA_OPEN, THIN_ARENA_SPARE, THIN_ARENA_IDLE };

/*
 * A leased arena that has something to remember: chunks are taken from it, or could be, or it holds
 * chunks that were freed and are not durable yet. Other arenas are in the space tree only. A chunk
 * is free when no mask has its bit.
 */
struct thin_arena {
    struct hash_node node;    /* space->arenas, by number                     */
    struct list link;         /* space->spare                                 */
    struct list freed_link;   /* space->freed, while `freed` or `committing`  */
    struct list discard_link; /* space->discarding                          */
    struct pool_arena at;
    struct thin_page *leaf; /* of the space tree; pinned while open         */
    enum thin_arena_state state;
    uint64_t used;       /* = the space tree's entry                     */
    uint64_t freed;      /* in no commit yet                             */
    uint64_t committing; /* freed, in the commit under way               */
    uint64_t discarding; /* freed durably, the devices are being told    */
};

struct thin_space {
    struct hash arenas;
    struct thin_arena *open[THIN_OPEN_ARENAS];
    unsigned width; /* slots of open[] in use                                     */
    unsigned next;  /* slot of the next allocation                                */
    unsigned spread;
    bool tight;         /* no arena for every slot: any slot will do                  */
    bool leasing_ahead; /* a coroutine does                                           */
    struct co_queue leased_ahead;
    struct list spare;
    size_t spares;
    struct list freed;      /* of thin_arena.freed_link */
    struct list discarding; /* of thin_arena.discard_link */
    uint64_t quarantined;   /* chunks in the three masks of all arenas                    */
    uint64_t leased_min;
    struct co_mutex lock; /* leasing, scanning, returning                               */
    /* A scan that is under way (arena_scan.c), else NULL: a window of the numbers of leased arenas,
     * those from scan_at to scan_count not looked at yet; the next window begins at scan_from. */
    uint64_t *scan;
    size_t scan_at, scan_count;
    uint64_t scan_from;
    bool scan_needed; /* arenas with room may exist that are not in memory          */
};

int thin_space_init(struct thin *t) must_check;
void thin_space_fini(struct thin *t);
/* Counts what is leased (existing volumes) and leases the reserve. */
CO int thin_space_open(struct thin *t, bool fresh) must_check;
/* Takes a chunk and marks it used. False: call thin_space_refill first. No yield. */
bool thin_space_take(struct thin *t, struct pchunk *out);
/* Finds or leases an arena. VP_E_NO_SPACE after everything was tried, a commit included. */
CO int thin_space_refill(struct thin *t) must_check;
/* Marks a chunk free, in quarantine until the next commit. `leaf` is its arena's leaf of the space
 * tree. VP_E_NO_MEMORY, VP_E_MAP_BAD: nothing changed. No yield. */
int thin_space_free(struct thin *t, struct thin_page *leaf, struct pchunk c) must_check;
/* A commit collects its records. What is freed so far becomes free when that commit is durable. */
void thin_space_commit_begin(struct thin *t);
void thin_space_commit_end(struct thin *t, bool durable);
/* After a commit: tells devices, makes chunks allocatable, gives empty arenas back. */
CO void thin_space_tidy(struct thin *t);

/* Internal to space: */
uint64_t thin_arena_free_mask(const struct thin_arena *a);
struct thin_arena *thin_arena_find(struct thin *t, uint64_t number);
int thin_arena_add(struct thin *t, const struct pool_arena *at, uint64_t used,
                   struct thin_arena **out) must_check;
/* Keeps the arena as a spare or forgets it, whichever fits what it holds. */
void thin_arena_settle(struct thin *t, struct thin_arena *a);
/* Looks at leased arenas that are not in memory until one with room is found, or `budget` leaves
 * were loaded; *found NULL otherwise. */
CO int thin_space_scan(struct thin *t, unsigned budget, struct thin_arena **found) must_check;
void thin_space_scan_forget(struct thin *t, uint64_t number);

/* ==== intents (intent.c) ==================================================================== */

/*
 * Bitmaps by region. Invariant: data change in place only while the region's bit is in `durable`
 * and the writer is counted in `writers`.
 */
struct thin_intents {
    uint64_t *wanted;    /* durable, or in a commit under way                          */
    uint64_t *durable;   /* the record is in the log                                   */
    uint64_t *touched;   /* written since the last thin_checkpoint_intents             */
    uint64_t *recovered; /* set before a crash, or a change in place failed: blocks may
                            differ from their CRCs                                      */
    uint64_t *sent;      /* what the commit under way makes durable                     */
    uint64_t *logged;    /* by word: a record may exist                                */
    uint64_t words;
    unsigned epoch;          /* 0 or 1 */
    uint64_t epochs;         /* counts them */
    uint64_t writers[2];     /* in-place changes under way, by the epoch they began in     */
    struct co_queue drained; /* an older epoch's have ended, while `draining`         */
    unsigned draining;
    uint64_t failures; /* counts changes in place that failed                        */
    bool drain_needed; /* some that began before the last one are not in thin->active */
    bool committing;
    struct pool_batch batch; /* of the commit under way */
    struct co_queue queue;
};

int thin_intents_init(struct thin *t) must_check;
void thin_intents_fini(struct thin *t);
int thin_intents_resize(struct thin *t, uint64_t chunks) must_check;
int thin_intents_load(struct thin *t, uint64_t word, const void *value, size_t len) must_check;
static inline bool thin_intent_is_durable(const struct thin_intents *in, struct vchunk vchunk)
{
    uint64_t r = vchunk.n / THIN_REGION_CHUNKS;
    return in->durable[r / 64] >> (r % 64) & 1;
}
/* Makes the region's intent durable. It may be cleared again before the caller runs: re-check. */
CO int thin_intent_ensure(struct thin *t, struct vchunk vchunk) must_check;
/* Right after the check (tests verify it): a change in place begins; returns the epoch for _leave.
 */
unsigned thin_intent_enter(struct thin *t, struct vchunk vchunk);
void thin_intent_leave(struct thin *t, unsigned epoch);
/* A change in place failed, before its _leave: blocks of the region may be old or new, as after a
 * crash. */
void thin_intent_failed(struct thin *t, struct vchunk vchunk);
/* Waits until the changes in place that are under way now have ended; others begin meanwhile. */
CO void thin_intents_drain(struct thin *t);

/* ==== the volume ============================================================================ */

/* A writer whose chunk must neither be freed nor resynced under it; on the writer's stack. */
struct thin_active {
    struct hash_node node; /* thin->active, by vchunk; equal keys are fine */
};

struct thin {
    struct thin_config config;
    struct pool *pool;
    struct thin_cache *cache;
    uint32_t id;
    uint32_t chunk_bytes, chunk_blocks;
    unsigned chunk_shift; /* blocks of a chunk, log2 */
    uint64_t size_blocks;
    uint32_t generation; /* stamped on a chunk at its first write */
    struct thin_map_layout layout;

    struct thin_tree map, space_tree;
    struct thin_space space;
    struct thin_intents intents;
    struct hash active;

    struct thin_figures figures;
    bool stat_changed, stat_unkept;
    uint64_t uncommitted_bytes; /* of records that the next commit will have …             */
    uint64_t uncommitted_pages; /* … as pages of the log, which the pool counts as due, and … */
    uint64_t batch_pages;       /* … those of the batch that is not durable yet            */

    /* Commits: begun and ended count them; one runs at a time (commit.c). */
    uint64_t commits_begun, commits_ended;
    bool committing, tidying;
    int commit_rc;
    struct pool_batch batch;        /* of the running commit; kept when it failed */
    struct raid_disk_set unflushed; /* written to since the last commit flushed them */
    struct co_queue commit_queue;

    uint64_t commit_number; /* of the last commit that began, over all lives of the volume */
    struct pool_keep *keep;
    size_t pages;          /* in the cache                                        */
    size_t wanted_pages;   /* its part of the cache's, when its memory was taken */
    uint64_t unkept_bytes; /* of records that the next append will have, at most */
    /* Too much was changed for an append. The next commit stands in for it, and nothing can be
     * appended until that commit is durable. */
    bool keep_by_commit, keep_blocked;

    /* Who may be using members of groups, by the phase in which it began (thin_barrier). */
    unsigned users[2], phase;
    struct co_queue users_left;

    /* Adoption after a crash (adopt.c): one at a time; writers keep out of resync_chunk. */
    struct co_mutex adopt_lock;
    uint8_t *adopt_buf; /* under adopt_lock; NULL before the first use       */
    bool adopt_unsaved; /* copies or CRCs were changed since a commit        */
    uint8_t *pass_buf;  /* THIN_PASS_BLOCKS blocks, while there are passes; else NULL */
    struct co_queue resync_queue;
    struct vchunk resync_chunk; /* UINT64_MAX = none */
    uint64_t resync_next;       /* region */
};

/*
 * Around all that finds out where data are on disks and then uses it. thin_barrier waits for those
 * that began before it.
 */
static inline unsigned thin_use_begin(struct thin *t)
{
    t->users[t->phase]++;
    return t->phase;
}
static inline void thin_use_end(struct thin *t, unsigned phase)
{
    VP_CHECK(t->users[phase], >, 0U);
    if (__builtin_expect(--t->users[phase] == 0 && phase != t->phase, 0))
        co_queue_wake_all(&t->users_left);
}

/* Whether a crash may have left blocks of the region unlike their CRCs. */
static inline bool thin_intent_is_recovered(const struct thin *t, struct vchunk vchunk)
{
    uint64_t r = vchunk.n / THIN_REGION_CHUNKS;
    return __builtin_expect(figure_get(&t->figures.regions_to_resync) != 0, 0) &&
           (t->intents.recovered[r / 64] >> (r % 64) & 1);
}

static inline uint64_t thin_chunks(const struct thin *t)
{
    return div_up(t->size_blocks, t->chunk_blocks);
}
/* The chunk of a block of the volume. */
static inline struct vchunk thin_vchunk_of(const struct thin *t, uint64_t block)
{
    return (struct vchunk){block >> t->chunk_shift};
}
/* Whether the resync works on the chunk: writers keep out. */
static inline bool thin_is_resynced(const struct thin *t, struct vchunk vchunk)
{
    return t->resync_chunk.n == vchunk.n;
}
static inline bool thin_chunk_is_active(const struct thin *t, struct vchunk vchunk)
{
    return hash_find(&t->active, vchunk.n) != NULL;
}
static inline void thin_stat_changed(struct thin *t)
{
    t->stat_changed = t->stat_unkept = true;
}
/* The record of the counters. */
void thin_stat_collect(struct thin *t, struct pool_batch *b);
/* Keeps a change right before it is acknowledged, so that a daemon that is killed from now on has
 * not forgotten it (keep.c). May commit. */
CO int thin_keep(struct thin *t) must_check;
/* A commit collected everything; it is durable. No yield. */
void thin_keep_commit_begin(struct thin *t);
void thin_keep_commit_end(struct thin *t, bool durable);
/* Whether the resync works on the chunk; if so, waits until it has ended. */
CO void thin_resync_wait(struct thin *t, struct vchunk vchunk);
/* Whether new metadata pages may come into being. */
bool thin_has_meta_room(struct thin *t);
/* Whether a leaf of the map, and one of the space tree, that are not due yet may change now. */
bool thin_may_change(struct thin *t);
/* Waits for a checkpoint, for a change that may not be made now and holds nothing. VP_E_NO_SPACE:
 * no checkpoint would help. */
CO int thin_change_wait(struct thin *t) must_check;
#define THIN_COMMIT_BYTES_MAX (UINT64_C(8) << 20) /* of records: then changes commit first */
/* The next commit's records are longer by so much, which is less than a page. The second function
 * tells the pool of one more page of them. */
void thin_uncommitted_page(struct thin *t);
static inline void thin_uncommitted_add(struct thin *t, uint32_t bytes)
{
    t->uncommitted_bytes += bytes;
    if (__builtin_expect(t->uncommitted_bytes > t->uncommitted_pages * POOL_PAGE, 0))
        thin_uncommitted_page(t);
}
/* Back-pressure at the start of an operation that dirties pages, while it holds no pin. Commits
 * when there is much to commit. Slows down, or waits for a checkpoint, when much is dirty. Errors:
 * those of a commit and of a checkpoint. */
CO int thin_throttle_slow(struct thin *t) must_check;
static inline CO must_check int thin_throttle(struct thin *t)
{
    bool slow = t->uncommitted_bytes >= THIN_COMMIT_BYTES_MAX ||
                t->cache->dirty >= t->cache->limit_pages / 2;
    return __builtin_expect(slow, 0) ? thin_throttle_slow(t) : 0;
}
/* Frees the chunk of an entry without valid blocks: clears the entry, quarantines the chunk.
 * `leaf` holds the entry, `space_leaf` its arena. No yield. */
int thin_chunk_free(struct thin *t, struct thin_page *leaf, struct vchunk vchunk,
                    struct thin_page *space_leaf) must_check;
/* Frees the chunk when it has no valid block and nobody writes to it. */
CO int thin_chunk_release_unused(struct thin *t, struct vchunk vchunk) must_check;
/* Gives an unmapped entry a chunk; false: thin_space_refill. No yield. */
bool thin_chunk_alloc(struct thin *t, struct thin_page *leaf, struct vchunk vchunk);

/* After a crash: makes the copies of the valid blocks in [first, first+count) equal, adopting what
 * does not match its CRC; durable on return. The caller keeps writers of these blocks out. */
CO int thin_adopt(struct thin *t, struct vchunk vchunk, unsigned first, unsigned count) must_check;
/* The same, under adopt_lock. */
CO int thin_adopt_locked(struct thin *t, struct vchunk vchunk, unsigned first,
                         unsigned count) must_check;

/* ---- pass.c --------------------------------------------------------------------------------- */

/* One at a time of a volume. The first three are the caller's. */
struct thin_pass {
    struct thin *t;
    /* No yield. Whether blocks in this group are of interest. */
    bool (*wants)(const struct thin_pass *p, const struct raid_group *g);
    /* CO. Does something with the window's pieces. An error ends the pass. */
    int (*run)(struct thin_pass *p);
    unsigned pieces, blocks;
    bool recovered;                      /* a region that a crash left behind is among them */
    struct raid_io io[THIN_PASS_PIECES]; /* with checksums and buffers */
    uint64_t block[THIN_PASS_PIECES];    /* the first one of each piece, in the volume */
    uint32_t crc[THIN_PASS_BLOCKS];
};
static_assert(THIN_PASS_PIECES <= RAID_FILL_MAX && THIN_PASS_PIECES <= RAID_SCRUB_MAX, "a window");
static_assert(THIN_PASS_BLOCKS <= RAID_SCRUB_BLOCKS, "a window");
/* Goes over blocks [block, block+count), which are whole chunks. The caller holds block locks of
 * them. Errors: those of pages, VP_E_MAP_BAD, VP_E_NO_MEMORY, those of p->run. */
CO int thin_pass(struct thin_pass *p, uint64_t block, uint64_t count) must_check;

/* ---- entries, small and hot ---------------------------------------------------------------- */

static inline struct thin_map_entry thin_map_at(const struct thin *t, const struct thin_page *leaf,
                                                struct vchunk vchunk)
{
    uint8_t *e = thin_leaf_entry(leaf, vchunk.n);
    return (struct thin_map_entry){
        .fixed = (struct thin_map_entry_disk *)(void *)e,
        .crc = (struct le32 *)(void *)(e + t->layout.crc_offset),
    };
}
static inline uint8_t *thin_map_valid(struct thin_map_entry e)
{
    return (uint8_t *)(e.fixed + 1);
}
static inline struct pchunk thin_map_pchunk(struct thin_map_entry e)
{
    return (struct pchunk){le64_get(e.fixed->pchunk)};
}
static inline bool thin_map_is_mapped(struct thin_map_entry e)
{
    return thin_map_pchunk(e).n != 0;
}
static inline bool thin_map_is_valid(struct thin_map_entry e, unsigned block)
{
    return thin_map_valid(e)[block / 8] >> (block % 8) & 1;
}
/* Valid blocks in [first, first+count). */
static inline unsigned thin_map_count_valid(struct thin_map_entry e, unsigned first, unsigned count)
{
    unsigned n = 0;
    for (unsigned i = first; i < first + count; i++)
        n += thin_map_is_valid(e, i);
    return n;
}
/* Sets or clears; returns how many changed. */
static inline unsigned thin_map_set_valid(struct thin_map_entry e, unsigned first, unsigned count,
                                          bool valid)
{
    unsigned changed = 0;
    for (unsigned i = first; i < first + count; i++) {
        if (thin_map_is_valid(e, i) == valid)
            continue;
        thin_map_valid(e)[i / 8] ^= (uint8_t)(1U << (i % 8));
        changed++;
    }
    return changed;
}
/* The length of the run of blocks with the same validity that starts at `first`. */
static inline unsigned thin_map_run(struct thin_map_entry e, unsigned first, unsigned end)
{
    bool valid = thin_map_is_valid(e, first);
    unsigned i = first + 1;
    while (i < end && thin_map_is_valid(e, i) == valid)
        i++;
    return i - first;
}

#endif
