/* The disk half of the pool, shared by its files: labels, disks, extents, groups, arenas. */
#ifndef VP_POOL_DISK_IMPL_H
#define VP_POOL_DISK_IMPL_H

#include "pool/pool_impl.h"

#define POOL_EXTENT_MIN (1U << 20)
#define POOL_EXTENT_MAX (1U << 30)
/* Fewer extents would be used up by metadata and its reserve. */
#define POOL_DISK_EXTENTS_MIN 6U

/* ---- geometry (geometry.c) ----------------------------------------------------------------- */

bool pool_geometry_is_valid(const struct pool_geometry *g);
/* Fills in the zero fields by the smallest disk's size; VP_E_INVALID with a sentence. */
int pool_geometry_choose(struct pool_geometry *g, uint64_t smallest_bytes,
                         struct vp_error *err) must_check;
/* The smallest disk that can join a pool with such extents. */
uint64_t pool_disk_min_bytes(uint32_t extent_bytes);
/* Extents on a disk of that size. */
uint32_t pool_disk_extents(uint64_t size_bytes, uint32_t extent_bytes);

/* ---- labels (label.c) ---------------------------------------------------------------------- */

void pool_label_encode(const struct pool_label *l, void *block);
/* VP_E_LABEL_NONE, VP_E_LABEL_BAD, VP_E_LABEL_VERSION, VP_E_FEATURE_UNKNOWN. */
int pool_label_decode(const void *block, struct pool_label *out) must_check;
/* Where the label area at the end starts, for a disk of at least pool_disk_min_bytes. */
uint64_t pool_tail_bytes(uint64_t size_bytes);
/* Where copy 0 … POOL_LABEL_COPIES-1 stands. */
uint64_t pool_label_at(uint64_t tail_bytes, unsigned copy);
/* All copies; durable by the next flush. */
CO int pool_label_write(struct pool_disk *d) must_check;
/* The label that the disk has, or should have. */
struct pool_label pool_label_of(const struct pool_disk *d);
/* The same for a label of any disk, on its device. */
CO int pool_label_put(struct io_dev *dev, const struct pool_label *l) must_check;
/* Zeros both label areas, root slots too; durable on return. */
CO int pool_disk_wipe(struct io_dev *dev, uint64_t tail_bytes) must_check;
/* The best of the copies. Errors: as pool_label_decode. */
CO int pool_label_read(struct io_dev *dev, struct pool_label *out) must_check;

/* ---- what else may be on a disk (probe.c) --------------------------------------------------- */

/* VP_E_DISK_HOLDS_DATA with a sentence when the open device holds anything recognisable. */
CO int pool_disk_probe(struct io_dev *dev, const char *path, struct vp_error *err) must_check;

/* ---- disks (disk.c) ------------------------------------------------------------------------ */

/* Whether it is a block device or regular file of the real world, as opposed to a simulated one. It
 * may wait for a file system: on a thread of its own only (io/offload.h). */
bool pool_path_is_real(const char *path);
/* Prepares what I/O needs of a disk whose uuid, size and extents_total are set. */
int pool_disk_init(struct pool *p, unsigned index, struct io_dev *dev, const char *path) must_check;

/* No yield. Whether some data or metadata are on no other disk that counts and answers. */
bool pool_disk_is_needed(const struct pool *p, const struct pool_disk *d);

/* ---- a disk that does not answer (hang.c) --------------------------------------------------- */

/* From now on its device is looked after. */
void pool_disk_watch(struct pool_disk *d);
/* The same for a device that no disk has yet: it is given up when it is silent. */
void pool_device_watch(struct io_dev *dev);
/* Whether it does not answer now; a sentence about it then. */
bool pool_disk_silence(const struct pool_disk *d, char *out, size_t size);

/* What a device needs to have to take the place of the disk. */
uint64_t pool_disk_least_bytes(const struct pool_disk *d);

/* A device in whose place another one is. I/O may be in flight on it, so it stays open until the
 * pool closes. */
struct pool_retired {
    struct list link; /* pool.retired */
    struct io_dev *dev;
};

/* ---- groups and arenas (group.c, group_record.c, arena.c) ----------------------------------- */

/* The open groups of one profile: data groups in service with an arena to lease. */
struct pool_open_groups {
    struct list link; /* pool_space_map.kinds */
    struct raid_profile profile;
    unsigned count;
    struct list disk[POOL_DISKS_MAX]; /* pool_group.open_link, by the disk of the first member */
};

/* What a family leases, so that nobody has to look at all groups for it. */
struct pool_owner {
    struct hash_node node; /* pool_space_map.owners, by family */
    uint64_t arenas;
    uint64_t first_slot, last_slot; /* of all groups where it ever leased one */
};

/*
 * A look-up table of groups, read from any reactor without a lock, for as many groups as the disks
 * have room for. Entries change at home only. When a disk is added, a larger table takes its place;
 * late readers may look at the one before, so it stays until the pool closes.
 */
struct pool_group_table {
    _Atomic uint32_t size;                         /* changes after `entry` */
    _Atomic(_Atomic(struct pool_group *) *) entry; /* [0] is never used */
};
static inline struct pool_group *pool_group_at(const struct pool_group_table *t, uint64_t n)
{
    if (n >= atomic_load_explicit(&t->size, memory_order_acquire))
        return NULL;
    _Atomic(struct pool_group *) *entry = atomic_load_explicit(&t->entry, memory_order_relaxed);
    return atomic_load_explicit(&entry[n], memory_order_acquire);
}
/* HOME, no yield. The entry is there; the group is complete, or NULL. */
void pool_group_set(struct pool_group_table *t, uint64_t n, struct pool_group *g);

struct pool_space_map {
    unsigned chunk_shift; /* chunk_bytes = 1 << this                                       */
    unsigned slot_shift;  /* arena numbers of a slot = 1 << this                           */
    struct pool_group_table slot, id;
    uint32_t slots_from, ids_from;     /* no entry before these is free                        */
    struct list outgrown;              /* struct pool_outgrown: tables that were replaced      */
    struct list kinds;                 /* pool_open_groups, one for each profile in use   */
    struct hash owners;                /* pool_owner                                      */
    struct pool_group_figures figures; /* of all groups                                   */
    struct list empty; /* pool_group.empty_link: data groups that pool_groups_reclaim takes */
    struct list due;   /* pool_group.due_link: changed by this arena return or lease of many */
    struct list dead;  /* pool_group.link: given back, kept a while for late readers       */
    unsigned dead_count;
    struct list outdated;            /* struct pool_members: others took their place (members.c) */
    _Atomic(enum pool_level) level;  /* last reported                                       */
    uint64_t room_events, failed_at; /* see pool_wait_for_room                             */
};

int pool_space_map_new(struct pool *p) must_check;
bool pool_space_map_free_some(struct pool *p); /* true when something is left */

/* Memory for tables with room for the groups of more extents: taken before, so that the change
 * itself cannot fail. VP_E_TOO_BIG, VP_E_NO_MEMORY. */
struct pool_space_growth {
    _Atomic(struct pool_group *) *slot, *id;
    uint32_t slots, ids;
    struct pool_outgrown *outgrown;
};
int pool_space_growth_prepare(struct pool *p, uint32_t more_extents,
                              struct pool_space_growth *out) must_check;
/* HOME, no yield. Takes the memory. */
void pool_space_grow(struct pool *p, struct pool_space_growth *g);
void pool_space_growth_free(struct pool_space_growth *g); /* of one that was not taken */

/* ---- members of groups (members.c) ----------------------------------------------------------- */

/* A copy of the group's members, to be changed; NULL: no memory. */
struct raid_group *pool_members_new(const struct pool_group *g);
void pool_members_free(struct raid_group *members); /* of one that was not set; NULL is fine */
/* Member m is, or will be, this extent. */
void pool_members_put(struct raid_group *members, unsigned m, struct pool_disk *d, uint32_t extent);
/* HOME, no yield. I/O that begins from now on uses them. Those before are outdated: they stay
 * until a barrier has ended (pool_barrier). */
void pool_members_set(struct pool *p, struct pool_group *g, struct raid_group *members);
/* Nobody uses these outdated ones any more. */
void pool_members_free_all(struct list *outdated);

/* Takes a free extent of the disk, or gives it back. UINT32_MAX: it has none. */
uint32_t pool_extent_take(struct pool_disk *d, enum pool_group_role role);
void pool_extent_give(struct pool_disk *d, uint32_t extent, enum pool_group_role role);
/* Whether the disk may get new extents: it is current and does not leave. */
bool pool_disk_takes_extents(const struct pool_disk *d);
bool pool_group_has_member(const struct pool_group *g, const struct pool_disk *d);
/* For a data group: of the disks where it has no member, the one with most room that leaves
 * metadata their reserve; NULL. (group.c) */
struct pool_disk *pool_member_choose(struct pool *p, const struct pool_group *g);

/* ---- members that move (move.c) -------------------------------------------------------------- */

void pool_moves_fini(struct pool *p);
/* No yield. The disk left service: no target there becomes a member, also if the disk returns. */
void pool_moves_disk_left(struct pool *p, const struct pool_disk *d);
/* No yield. The group's member on `from` gets a target on `to`, where it has none. VP_E_NO_SPACE
 * (no extent is free there), VP_E_NO_MEMORY. */
int pool_move_begin(struct pool *p, struct pool_group *g, struct pool_disk *from,
                    struct pool_disk *to) must_check;
/* Metadata keep their reserve when data take an extent of the disk. (group.c) */
bool pool_disk_leaves_reserve(struct pool *p, struct pool_disk *d);

/* Chunks of an arena, arenas of a group and slots of a group, by profile and geometry. */
struct pool_group_shape {
    uint32_t arena_chunks, arenas, slots;
};
struct pool_group_shape pool_group_shape(const struct pool_geometry *g, struct raid_profile p);

/* A GROUP record as it is on disk, checked for form but not against disks and other groups. */
struct pool_group_info {
    enum pool_group_role role;
    struct raid_profile profile;
    unsigned members;
    uint32_t disk[RAID_WIDTH_MAX], extent[RAID_WIDTH_MAX];
    uint32_t arenas, slots;
    uint64_t first_slot;
    const struct le32 *owner; /* [arenas], borrowed from the value; NULL: all free */
};
int pool_group_decode(const void *value, size_t len, struct pool_group_info *out) must_check;
/* Adds the group's record: as it is now, with the members that it knows. */
void pool_group_record(struct pool_batch *b, const struct pool_group *g);
/* The same with members that it will have. */
void pool_group_record_of(struct pool_batch *b, const struct pool_group *g,
                          const struct raid_group *members);
/* No yield. The group knows these members, for its next record. */
void pool_group_members_know(struct pool_group *g, const struct raid_group *members);

/* Takes extents, id and slots for a new group; the record is the caller's to write. */
int pool_group_new(struct pool *p, enum pool_group_role role, struct raid_profile profile,
                   unsigned spread, struct pool_group **out) must_check;
/* A group as described, which was checked or chosen; takes its extents, id and slots. */
int pool_group_restore(struct pool *p, uint32_t id, const struct pool_group_info *info) must_check;
/* Whether one more data group of the profile could be formed now. */
bool pool_group_is_possible(struct pool *p, struct raid_profile profile);
/* The spread-th of the disks in service, in turn; NULL when there is none. */
struct pool_disk *pool_disk_by_spread(struct pool *p, unsigned spread);
bool pool_group_is_empty(const struct pool_group *g);
/* Gives all empty data groups back; true when there were any. No yield. */
bool pool_groups_reclaim(struct pool *p);
/* Figures changed, but no room came: looks at the level only (pool_space_changed does both). */
void pool_space_update_level(struct pool *p);
/* ---- group_index.c -------------------------------------------------------------------------- */

/* After arenas were leased, held or freed: keeps the lists of open and of empty groups right, and
 * the sums of all groups. */
void pool_group_update_lists(struct pool *p, struct pool_group *g);
/* After the group got other members: the same. */
void pool_group_members_changed(struct pool *p, struct pool_group *g);
/* A disk left service: the same for every open group. */
void pool_groups_disk_left(struct pool *p);
/* A disk came into service, or is current now: the same for all groups. */
CO void pool_groups_disk_entered(struct pool *p);
/* The group goes: out of all lists and sums. */
void pool_group_forget(struct pool *p, struct pool_group *g);
/* The open groups of a profile; NULL when it never had a group, or (_need) when memory is out. */
struct pool_open_groups *pool_open_groups_find(const struct pool *p, struct raid_profile profile);
struct pool_open_groups *pool_open_groups_need(struct pool *p, struct raid_profile profile);
/* NULL when nothing was ever leased to it, or (_need) when memory is out. */
struct pool_owner *pool_owner_find(const struct pool *p, uint32_t owner);
struct pool_owner *pool_owner_need(struct pool *p, uint32_t owner);
/* It has so many arenas more, in g. */
void pool_owner_add(struct pool_owner *o, const struct pool_group *g, uint64_t arenas);
/* If it has no arena left. */
void pool_owner_forget(struct pool *p, uint32_t owner);
void pool_group_index_free(struct pool_space_map *s);
/* Leases the arena to the owner, whom pool_owner_need knows, or takes it back (0). */
void pool_group_set_owner(struct pool *p, struct pool_group *g, uint32_t arena, uint32_t owner);

#endif
