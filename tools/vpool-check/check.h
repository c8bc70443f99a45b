/*
 * vpool-check looks at the disks of a pool without the engine running, explains what is there and
 * says what is wrong. It changes nothing, except in the damage generator (damage.c).
 *
 * Nothing on the disks is believed before it was checked. After something was found bad everything
 * goes on as far as it can. The decoders are the engine's own. Walking, counting and comparing are
 * done once more here, so that a mistake of the engine is noticed.
 *
 *     disk.c    devices, labels          records.c  the table, records as JSON
 *     root.c    roots, disk table        group.c    groups, extents, metadata pages
 *     chain.c   table image and log      tree.c     pages of one volume's trees
 *     volume.c  maps against space       damage.c   damage for tests
 */
#ifndef VP_TOOLS_VPOOL_CHECK_H
#define VP_TOOLS_VPOOL_CHECK_H

#include "base/hash.h"
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <jansson.h>

/* One disk as given on the command line. */
struct check_disk {
    char path[256];
    int fd;
    uint64_t size_bytes, tail_bytes;
    struct pool_label label;
    bool labelled;
    int index;        /* in the pool's disk table; -1: none */
    bool counts;      /* in service according to the newest root */
    bool serves_data; /* out, but groups of one member are served from it */
    bool is_behind;   /* in service, and being rebuilt */
    uint8_t *slots;   /* root slots of the area at the start, then at the end */
};

struct check_record {
    uint16_t kind;
    bool is_delete;
    uint32_t scope, len, order;
    uint64_t key;
    uint8_t *value; /* owned */
};
struct check_records {
    struct check_record *r;
    size_t count, capacity;
};

struct check_group {
    uint32_t id;
    struct pool_group_info info; /* owner points into the record's value */
    uint64_t pages;              /* of a metadata group                        */
    uint64_t *page_used;         /* bits of pages that somebody has            */
    uint64_t *page_tree;         /* those of them that are pages of trees      */
};

/* What is known of an arena, by its number. */
struct check_arena {
    struct hash_node node;
    uint64_t mapped, marked; /* chunks that a map, the space tree say are in use */
};

/* The volume that is being looked at. */
struct check_volume {
    uint32_t id;
    uint64_t chunks_max; /* as its size has room for */
    uint64_t mapped, valid_blocks, data_checked, data_uncertain;
    bool damaged;   /* some page is lost: counts mean nothing */
    json_t *chunks; /* with --dump */
};

/* Something that can be damaged on purpose. */
struct check_target {
    const char *kind;
    unsigned disk; /* in check.disk */
    uint64_t at, len;
    uint64_t unit; /* copies of one thing have the same */
};

struct check {
    bool json, dump, data, collect;
    json_t *out, *problems, *notes;

    struct check_disk disk[POOL_DISKS_MAX];
    unsigned disks;
    struct check_disk *of[POOL_DISKS_MAX]; /* by table index; NULL: not given */

    struct vp_uuid pool;
    struct root_image root;
    const uint8_t *root_block;

    struct check_records table_image, table; /* sorted; as of the table image, and after the log */
    struct check_records trees;              /* MAP and SPACE of the log, sorted */
    struct pool_segment *segment;            /* that table image and log occupy */
    unsigned segments;

    struct check_group *group; /* sorted by id */
    unsigned groups;
    uint32_t *slot_group; /* slot → index in group + 1, 0 = free */
    uint64_t slots;
    struct hash arenas; /* of the volume that is being looked at */
    struct check_volume *volume;

    struct check_target *target;
    size_t targets;
    uint64_t units;
};

/* ---- report.c ------------------------------------------------------------------------------ */

/* A problem: exit code 1. `part` says where: "label", "root", "log" … */
void check_problem(struct check *c, const char *part, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Worth knowing, not wrong (what a power cut leaves). */
void check_note(struct check *c, const char *part, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* A line of the human report. */
void check_say(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds to an object, taking `value`. */
void check_put(json_t *object, const char *key, json_t *value);
json_t *check_uuid(struct vp_uuid u);
_Noreturn void check_out_of_memory(void);
/* realloc that does not fail. */
void *check_grow(void *p, size_t count, size_t bytes);

/* ---- disk.c -------------------------------------------------------------------------------- */

/* False when nothing can be read at all (said already). */
bool check_disks_open(struct check *c, char **paths, unsigned count, bool writable);
void check_disks_close(struct check *c);
bool check_read(const struct check_disk *d, uint64_t at, void *buf, size_t len);
/* Remembers a target when collecting. */
void check_target_add(struct check *c, const char *kind, const struct check_disk *d, uint64_t at,
                      uint64_t len, uint64_t unit);

/* ---- root.c -------------------------------------------------------------------------------- */

/* Reads the roots, chooses the newest one, and matches the disks with its table. False: there is no
 * root. */
bool check_roots(struct check *c);

/* ---- records.c ----------------------------------------------------------------------------- */

void check_records_add(struct check_records *t, const struct record_view *v);
/* Sorts by kind, scope and key. Of equal records the last one counts. With `drop`, deletes are
 * removed. */
void check_records_fold(struct check_records *t, bool drop);
void check_records_copy(struct check_records *to, const struct check_records *from);
void check_records_free(struct check_records *t);
const struct check_record *check_records_find(const struct check_records *t, unsigned kind,
                                              uint32_t scope, uint64_t key);
/* The first record of the kind and scope, and the number of them in sequence. */
size_t check_records_range(const struct check_records *t, unsigned kind, uint32_t scope,
                           const struct check_record **first);
const char *check_record_kind(unsigned kind);
/* Everything a record says. */
json_t *check_record_json(const struct check_record *r);

/* ---- chain.c ------------------------------------------------------------------------------- */

/* Walks table image and log into c->table_image, c->table, c->trees. */
void check_chains(struct check *c);

/* ---- group.c ------------------------------------------------------------------------------- */

void check_groups(struct check *c);
struct check_group *check_group_find(struct check *c, uint64_t id);
/* The disk and offset of one copy of something in a group; NULL: that disk is not usable. */
const struct check_disk *check_copy(const struct check *c, const struct check_group *g,
                                    unsigned copy, uint64_t at, uint64_t *disk_at);
/* The group and place of a chunk; NULL when there is no such chunk. */
const struct check_group *check_chunk_find(const struct check *c, uint64_t pchunk, uint64_t *at,
                                           uint32_t *owner);
/* Who leases an arena; false when it does not exist. */
bool check_arena_owner(const struct check *c, uint64_t number, uint32_t *owner);
/* Marks a page of a tree. False, and a problem, when the page does not exist or is marked
 * already. */
bool check_page_mark(struct check *c, uint64_t addr, const char *what);
/* Marks the segments of table image and log. */
void check_segments_mark(struct check *c);
/* Compares marks with the METAMAP records: leaks, pages that count as free. */
void check_metadata_space(struct check *c);

/* ---- tree.c -------------------------------------------------------------------------------- */

/* One entry of a tree, replayed records included, in the order of keys. */
typedef void check_entry_fn(struct check *c, uint64_t key, const uint8_t *entry);
/* Walks a tree of c->volume as the table image names it (an unnamed tree is empty), with the log's
 * records applied. Without `fn` only the pages are looked at. */
void check_tree(struct check *c, enum pool_tree kind, check_entry_fn *fn, json_t *pages);

/* ---- volume.c ------------------------------------------------------------------------------ */

void check_volumes(struct check *c);

/* ---- damage.c ------------------------------------------------------------------------------ */

bool check_damage_is_known(const char *kind);
enum damage_result {
    DAMAGE_DONE,
    DAMAGE_NO_TARGET, /* there is nothing of that kind whose damage would be noticed */
    DAMAGE_FAILED,    /* perhaps in part; said                                 */
};
/* Damages something; says what. */
enum damage_result check_damage(struct check *c, const char *kind, uint64_t seed);
void check_damage_kinds(void);

#endif
