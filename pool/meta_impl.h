/*
 * What the files of the metadata side share: record decoding, streams, page allocation, roots.
 * Everything here is at home; nothing yields unless marked CO.
 */
#ifndef VP_POOL_META_IMPL_H
#define VP_POOL_META_IMPL_H

#include "pool/log_format.h"
#include "pool/pool_impl.h"
#include "pool/record_format.h"
#include "pool/root_format.h"

/* ---- record.c ----------------------------------------------------------------------------- */

struct record_view {
    struct pool_record r; /* value points into the bytes */
    enum record_op op;
};
/* Decodes the record at *at: 1 and *at moves on, 0 at the end, VP_E_RECORD_BAD. Untrusted. */
int record_decode(const uint8_t *bytes, size_t len, size_t *at, struct record_view *out) must_check;

int pool_records_init(struct pool_records *t) must_check;
void pool_records_fini(struct pool_records *t);
/* Before pool_records_fini: frees up to `count` records. False when none is left. From the first
 * call on nobody looks at the table. */
bool pool_records_free_some(struct pool_records *t, unsigned count);
/* Applies table records in order (MAP and SPACE are passed over); all or, without memory, none.
 * VP_E_NO_MEMORY, VP_E_RECORD_BAD. */
int pool_records_apply(struct pool_records *t, const uint8_t *bytes, size_t len) must_check;
/* pool_record_each for an import, when nobody changes the table: others have their turns. */
CO int pool_record_each_in_turns(struct pool *p, enum pool_record_kind kind,
                                 int (*fn)(const struct pool_record *r, void *arg),
                                 void *arg) must_check;
/* Removes all records of a kind. */
void pool_records_clear_kind(struct pool_records *t, enum pool_record_kind kind);
/* Appends all records as sets (`from` 0), or what changed from then on as sets and deletes, `count`
 * at a time; false when that was the rest. A failure to allocate is remembered by b. The
 * table may change between two calls: a record that does not is encoded once; one that does may be
 * encoded, with one of its values, or not. */
void pool_records_encode_begin(struct pool_records *t, uint32_t from);
bool pool_records_encode_some(struct pool_records *t, struct pool_batch *b, unsigned count);
uint64_t pool_records_bytes(const struct pool_records *t);
/* Encoded size of what changed in range `first` and later ones. */
uint64_t pool_records_changed_bytes(const struct pool_records *t, unsigned first);
/* What changes from now on is in a range of its own. */
void pool_records_range_begin(struct pool_records *t);
/* The image that was to have the range before is not: the two become one again. */
void pool_records_range_undo(struct pool_records *t);
/* A delta has the ranges from `first` on, but for the last one: they become one. */
void pool_records_range_join(struct pool_records *t, unsigned first);
/* A full image has all before the last range: forgets up to `count` changes; false when that was
 * the rest. Then only the last range is left. */
bool pool_records_forget_some(struct pool_records *t, unsigned count);
void pool_records_range_reset(struct pool_records *t);
/* Import: what is applied between them comes from images: from the full one, and, each after
 * pool_records_range_begin, from deltas. */
void pool_records_load_begin(struct pool_records *t);
void pool_records_load_end(struct pool_records *t);

/* ---- log.c -------------------------------------------------------------------------------- */

void pool_log_init(struct pool *p);
void pool_log_fini(struct pool *p);
/* Begins the log anew in a fresh segment under a fresh stream; what is queued stays queued. */
int pool_log_open(struct pool *p) must_check;
/* The piece that the next root names: from the present segment's start. After pool_log_open or
 * pool_log_cut. */
struct pool_log_piece pool_log_piece_here(const struct pool *p);
/* CO. The next batch goes to a new segment, which *piece describes; what was committed until now
 * is in segments before it. */
CO int pool_log_cut(struct pool *p, struct pool_log_piece *piece) must_check;
/* The checkpoint failed: what was before the cut counts as log again. */
void pool_log_cut_undo(struct pool *p);
/* CO. Everything that was applied until now is durable. */
CO int pool_log_drain(struct pool *p) must_check;

int pool_stream_open(struct pool *p, struct pool_stream *s, bool durable) must_check;
void pool_stream_close(struct pool_stream *s);
/* CO. Appends bytes as one run, or, with `more`, as a part of one that the next call goes on with.
 * One caller at a time. VP_E_POOL_FENCED, VP_E_POOL_FULL_META. */
CO int pool_stream_write(struct pool *p, struct pool_stream *s, const uint8_t *bytes, size_t len,
                         bool more) must_check;
/* Bytes of records that fill the present segment, or, when it is full, the next one. */
size_t pool_stream_room(const struct pool *p, const struct pool_stream *s);
uint32_t pool_segment_pages(const struct pool *p);
/* Segments of full length that a run of so many bytes takes. */
uint64_t pool_run_segments(const struct pool *p, size_t bytes);

/* ---- batch.c: one batch in memory ---------------------------------------------------------- */

struct log_batch {
    uint32_t bytes; /* header and body */
    uint16_t flags;
    const uint8_t *body;
    uint32_t body_bytes;
};
/* Completes the header in front of a body of body_bytes that stands at buf + 64; zeros the rest of
 * the last page. Returns the pages of the batch. */
uint32_t log_batch_seal(uint8_t *buf, struct vp_uuid pool, uint64_t stream, uint64_t seq,
                        uint16_t flags, uint32_t body_bytes);
/* Whether a whole batch (stream, seq) starts at buf (GUARD_LOG_CHECKSUM). Untrusted. */
bool log_batch_check(const uint8_t *buf, uint32_t room_bytes, struct vp_uuid pool, uint64_t stream,
                     uint64_t seq, struct log_batch *out);
/* Whether some batch of the stream later than `seq` starts at buf. */
bool log_batch_is_later(const uint8_t *buf, uint32_t room_bytes, struct vp_uuid pool,
                        uint64_t stream, uint64_t seq);
/* Pages of the batch (stream, seq) whose header is at buf; 0: that header is not here.
 * Untrusted. */
uint32_t log_batch_claim(const uint8_t *buf, uint32_t room_bytes, struct vp_uuid pool,
                         uint64_t stream, uint64_t seq);
/* Whether a batch of one page stands at buf that was whole once. Such a batch is never torn where a
 * page is written atomically, so this is damage. */
bool log_batch_is_damaged(const uint8_t *buf, struct vp_uuid pool, uint64_t stream, uint64_t seq);
void log_segment_encode(const struct pool_segment *s, const struct pool_geometry *g,
                        struct log_segment *out);
/* False when it cannot be a segment: bounds, alignment, copies. Whether the disks exist is the
 * caller's to see. Untrusted. */
bool log_segment_decode(const struct log_segment *in, const struct pool_geometry *g,
                        struct pool_segment *out);

/* ---- log_read.c: walking a chain ----------------------------------------------------------- */

struct log_reader {
    struct pool *p;
    uint64_t stream, seq; /* of the batch that comes next                              */
    struct pool_segment segment;
    uint32_t page;      /* of the segment, where it should start                     */
    bool all_copies;    /* make all copies equal (an open piece), not only those met */
    uint8_t *buf;       /* POOL_META_COPIES_MAX segments, and a page for `jump`          */
    uint32_t buf_pages; /* of each                                                   */
    unsigned good;      /* the copy that has the last batch                          */
    /* What may not be durable of what was found: the last batch, if it is in this segment (else 0
     * pages), and the JUMP to this segment, if there was one (copies else 0). */
    uint32_t last_page, last_pages, jump_page;
    struct pool_segment jump_from;
    bool loaded[POOL_META_COPIES_MAX];
    /* Pages of a copy that could not be read; they are zeros in buf. */
    uint64_t unread[POOL_META_COPIES_MAX][LOG_SEGMENT_PAGES_MAX / 64];
    /* Errors of disks, by index, that did not take a repair. The reader goes on without repairing
     * them; they leave the pool when it is known what else they hold (import.c, I8). */
    int repair_rc[POOL_DISKS_MAX];
    /* called for every segment that is entered */
    int (*enter)(void *arg, const struct pool_segment *s);
    void *enter_arg;
};
int log_reader_init(struct log_reader *r, struct pool *p) must_check;
void log_reader_fini(struct log_reader *r);
CO int log_reader_start(struct log_reader *r, const struct pool_segment *at, uint64_t stream,
                        uint64_t seq, bool all_copies) must_check;
/* CO. 1: the next batch that carries records, borrowed until the next call; copies that lacked it
 * were rewritten. 0: some copy was read and lacks it, and none has it. VP_E_LOG_DAMAGED: none has
 * it, but a later one is there. VP_E_LOG_UNREADABLE: no copy could be read far enough to say. */
CO int log_reader_next(struct log_reader *r, struct log_batch *out) must_check;
/* CO. After the last batch: it is durable, or its disks are noted in repair_rc. */
CO void log_reader_settle(struct log_reader *r);

/* ---- meta.c ------------------------------------------------------------------------------- */

void pool_meta_init(struct pool *p);
void pool_pages_fini(struct pool *p);
/* Forms one more metadata group; its record is queued. VP_E_NO_SPACE, VP_E_NO_MEMORY. */
int pool_meta_group_add(struct pool *p) must_check;
/* Takes over a group that exists (import). */
int pool_meta_group_attach(struct pool *p, struct pool_group *g) must_check;
/* A segment of up to want_pages; VP_E_POOL_FULL_META. */
int pool_segment_alloc(struct pool *p, uint32_t want_pages, struct pool_segment *out) must_check;
/* Segments of full length that there is room for. */
uint64_t pool_segments_free(const struct pool *p);
/* Import: gives back a segment that was marked, once no durable root names it. */
void pool_segment_free(struct pool *p, const struct pool_segment *s);
/* It belongs to a table image that no root names yet. */
void pool_segment_mark_young(struct pool *p, const struct pool_segment *s);
/* Import: pages that will become dirty because of records that were replayed. */
void pool_meta_replayed(struct pool *p, uint64_t pages);
/* Import: marks a segment that was found by walking. VP_E_SEGMENT_BAD: no metadata group has it;
 * VP_E_SEGMENT_SHARED. */
int pool_segment_mark(struct pool *p, const struct pool_segment *s) must_check;
/* Import: the METAMAP records of the table image into bitmaps; VP_E_RECORD_BAD. */
int pool_meta_load(struct pool *p) must_check;

/* The three steps of giving pages back around a root (meta.c, head). */
void pool_meta_cut(struct pool *p); /* at the log's cut        */
/* A group's METAMAP record: for a full image (`from` 0) if it names any page, for a delta if it
 * changed from then on. After pool_records_range_begin. */
void pool_meta_encode(struct pool *p, struct pool_meta_group *g, uint32_t from,
                      struct pool_batch *b);
/* Bytes of the METAMAP records of groups that changed from then on. */
uint64_t pool_meta_changed_bytes(const struct pool *p, uint32_t from);
/* The next root needs the segment, too. After the cut. */
void pool_meta_keep_segment(struct pool *p, const struct pool_segment *s);
/* Of a full image as it would be now. */
uint64_t pool_table_image_bytes(const struct pool *p);
/* Whether there is room for a delta of so many bytes besides what was promised, and plenty. */
bool pool_meta_has_room_for_delta(const struct pool *p, uint64_t bytes);
void pool_meta_commit(struct pool *p);   /* the root is durable     */
void pool_meta_rollback(struct pool *p); /* the checkpoint failed   */

/* Enough free pages for a checkpoint, else forms groups while that is possible. */
void pool_meta_prepare(struct pool *p);

/* Pages that may become dirty yet; negative: of those that are dirty, so many have no room. */
int64_t pool_meta_room_left(const struct pool *p);
/* The segment is on fewer disks than its group, which got members since. */
bool pool_segment_is_narrow(const struct pool *p, const struct pool_segment *s);

/* ---- widen.c ------------------------------------------------------------------------------- */

/* CO. In a checkpoint, before anything is written: groups that lack members get them, where there
 * is room. VP_E_POOL_FENCED. */
CO int pool_meta_widen(struct pool *p) must_check;
/* CO. The same place. Copies the pages of trees in g to a member of `to`, which are the members of
 * its group, or will be. W1. Not durable. Errors: those of the write; VP_E_NO_MEMORY. */
CO int pool_meta_pages_copy(struct pool *p, const struct pool_meta_group *g, struct raid_group *to,
                            unsigned member) must_check;
/* CO. The same, but a page that cannot be read is an error. */
CO int pool_meta_pages_move(struct pool *p, const struct pool_meta_group *g, struct raid_group *to,
                            unsigned member) must_check;
/* How many pages from `page` on are of trees, one after the other; at most `most`. */
uint64_t pool_meta_tree_pages(const struct pool_meta_group *g, uint64_t page, uint64_t most);
/* Of a metadata group of so many copies. */
struct raid_profile pool_meta_profile(unsigned copies);
/* An extent for a member of the metadata group, on a disk where it has none. UINT32_MAX: there is
 * no such disk, or promised metadata may need its room. */
uint32_t pool_meta_extent_take(struct pool *p, const struct pool_group *g, struct pool_disk **disk);
/* CO. The same place. Makes everything durable and records the members, which the group has then
 * (W2); they are not the caller's any more. `d`: of the member that came, which has to be in
 * service still; NULL: none came. */
CO int pool_meta_members_commit(struct pool *p, struct pool_meta_group *g,
                                struct raid_group *members, const struct pool_disk *d) must_check;

/* CO. HOME. Whoever located pages before has ended (meta.c). One at a time. */
CO void pool_pages_barrier(struct pool *p);

/* ---- leave.c ------------------------------------------------------------------------------- */

/* CO. In a checkpoint, before anything is written: members of metadata groups move away from the
 * disk; p->checkpoint.leave_rc says whether all did. VP_E_POOL_FENCED. */
CO int pool_meta_leave(struct pool *p, struct pool_disk *d) must_check;

/* CO. `dev` gets the newest root; then `enter` changes the disk table, so that it is a disk's; then
 * a root says so. VP_E_POOL_FENCED; errors of the write, before anything is changed. */
CO int pool_root_enter(struct pool *p, struct io_dev *dev, uint64_t tail_bytes,
                       int (*enter)(void *arg), void *arg) must_check;
/* CO. Whether all roots of the pool on a device are older than the newest one, and call no disk out
 * that is in service. VP_E_POOL_SPLIT: not so; VP_E_ROOT_UNREADABLE; VP_E_NO_MEMORY. */
CO int pool_roots_are_ours(struct pool *p, struct io_dev *dev, uint64_t tail_bytes) must_check;

/* The number of a page in its group, of its address. */
static inline uint64_t pool_page_in_group(uint64_t addr)
{
    return addr & ((UINT64_C(1) << POOL_META_PAGES_BITS) - 1);
}
/* No yield. Where a page is; false: nowhere. */
bool pool_page_locate(struct pool *p, uint64_t addr, struct raid_io *io) must_check;

/* ---- fill.c -------------------------------------------------------------------------------- */

/* CO. In a checkpoint, before anything is written: the disk, which is behind, gets all pages of
 * trees; p->checkpoint.filled says whether it did. VP_E_POOL_FENCED. */
CO int pool_meta_fill(struct pool *p, struct pool_disk *d) must_check;

/* ---- preallocate.c ------------------------------------------------------------------------- */

/* CO. Room in the file systems below for the metadata groups that have none yet. VP_E_NO_SPACE:
 * below *full there is none; VP_E_NO_MEMORY. */
CO int pool_meta_preallocate(struct pool *p, const struct pool_disk **full) must_check;
/* CO. The same at a checkpoint: says in the log what is full, once. */
CO void pool_meta_preallocate_ahead(struct pool *p);

/* ---- root.c ------------------------------------------------------------------------------- */

/* A decoded root, disk table included. */
struct root_image {
    struct pool_root root;
    struct vp_uuid pool_uuid;
    char name[POOL_NAME_MAX + 1];
    struct pool_geometry geometry;
    struct raid_profile profile;
    unsigned promised;
    bool wide;
    uint64_t features_compat, features_ro, features_incompat;
    unsigned disks;
    struct {
        struct vp_uuid uuid;
        enum pool_disk_state state;
        bool read_only, leaves;
        uint32_t extents, out_after;
        uint64_t size_bytes;
    } disk[POOL_DISKS_MAX];
};
/* Whether the slot holds a whole root of the pool; *number when it does. Untrusted. */
bool root_block_check(const uint8_t *block, struct vp_uuid pool, uint64_t *number);
/* The sizes in the disk table; returns how many. Untrusted, after root_block_check. */
unsigned root_block_sizes(const uint8_t *block, uint64_t sizes[static ROOT_DISKS]);
/* VP_E_ROOT_BAD, VP_E_FEATURE_UNKNOWN. After root_block_check. */
int root_block_decode(const uint8_t *block, struct root_image *out) must_check;
void root_block_encode(const struct pool *p, const struct pool_root *root, uint8_t *block);

/* CO. Makes `next` (its number is set here) the durable root. On return 0 p->root.now is it. On
 * VP_E_POOL_FENCED the pool is fenced. */
CO int pool_root_write(struct pool *p, const struct pool_root *next) must_check;

/* CO. Import: the newest root, as it was found, to all disks in service. A disk that fails is
 * marked out, for the next root to say so. VP_E_POOL_FENCED: the pool cannot do without it. */
CO int pool_root_repeat(struct pool *p, const uint8_t *block) must_check;

/* ---- image.c ------------------------------------------------------------------------------ */

#define POOL_IMAGE_NONE UINT32_MAX

/* What the checkpoint writes: 0 a full image, 1 + i delta i in the place of that one and all later
 * ones, POOL_IMAGE_NONE nothing. What the next root names besides is not freed with it. After the
 * cut, before pool_image_write and without a yield in between. */
unsigned pool_image_plan(struct pool *p);
/* Writes it, and says in `next` which images there are. pool_image_end follows, whatever comes. */
CO int pool_image_write(struct pool *p, unsigned at, struct pool_root *next) must_check;
/* The root that names it is durable, or not. */
CO void pool_image_end(struct pool *p, unsigned at, bool durable);
/* Import: the segments of the next image that the root names, from the full one on. */
int pool_image_found(struct pool *p, const struct pool_segment *segment, unsigned count) must_check;
void pool_images_fini(struct pool *p);

/* ---- checkpoint.c ------------------------------------------------------------------------- */

/* CO. Writes the table image, flushes, writes a root that names it and `piece`, and releases the
 * old pages. */
CO int pool_table_image_commit(struct pool *p, const struct pool_log_piece *piece) must_check;

/* Import: no checkpoint in the background between them. */
void pool_checkpoints_hold(struct pool *p);
void pool_checkpoints_release(struct pool *p);

/* ---- import.c, pool.c --------------------------------------------------------------------- */

CO void pool_import_state_free(struct pool_import_state *im);
CO struct pool *pool_new(void);

#endif
