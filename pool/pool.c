/* A pool's life: creation, closing, properties, and what it is. Import is in import.c. */
#include "pool/disk_impl.h"
#include "pool/keep.h"
#include "pool/meta_impl.h"

#include <stdio.h>
#include <stdlib.h>

enum { FREED_A_TURN = 2048 }; /* records or groups */

/* ---- memory ------------------------------------------------------------------------------- */

static void pool_init_queues(struct pool *p)
{
    pool_disks_init(p);
    pool_log_init(p);
    co_mutex_init(&p->root.lock);
    co_mutex_init(&p->promising);
    co_queue_init(&p->checkpoint.done);
    co_queue_init(&p->checkpoint.may_begin);
    pool_batch_init(&p->checkpoint.records);
}

CO struct pool *pool_new(void)
{
    struct pool *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->home = reactor_self();
    pool_init_queues(p);
    pool_meta_init(p);
    pool_jobs_init(&p->jobs);
    p->root.page = aligned_alloc(ROOT_BYTES, ROOT_BYTES);
    if (!p->root.page || pool_records_init(&p->records)) {
        pool_abandon(p);
        return NULL;
    }
    return p;
}

CO void pool_meta_fini(struct pool *p)
{
    pool_import_state_free(p->import);
    pool_log_fini(p);
    pool_stream_close(&p->checkpoint.stream);
    pool_batch_fini(&p->checkpoint.records);
    pool_images_fini(p);
    pool_members_free(p->checkpoint.wider);
    free(p->checkpoint.copy);
    pool_pages_fini(p);
    pool_records_fini(&p->records);
    pool_jobs_fini(&p->jobs);
    free(p->root.page);
}

CO void pool_abandon(struct pool *p)
{
    if (!p)
        return;
    pool_meta_fini(p);
    pool_disks_fini(p);
    free(p);
}

/* A pool of 100 TiB has some hundred thousand groups and records of them. Its tables are mapped
 * memory of 4 to 12 MiB each, and the kernel takes milliseconds to unmap one. */
CO void pool_abandon_in_turns(struct pool *p)
{
    while (pool_records_free_some(&p->records, FREED_A_TURN))
        co_yield ();
    while (pool_groups_free_some(p, FREED_A_TURN))
        co_yield ();
    pool_records_fini(&p->records);
    co_yield ();
    while (pool_space_map_free_some(p))
        co_yield ();
    co_yield ();
    pool_meta_fini(p);
    co_yield ();
    pool_disks_fini(p);
    free(p);
}

/* ---- creation ----------------------------------------------------------------------------- */

static bool property_hash(const char *name, size_t len, uint64_t *key)
{
    *key = hash_bytes(name, len);
    return len > 0;
}

/* "name=value" into the batch. */
static int property_add(struct pool_batch *b, const char *text, struct vp_error *err)
{
    const char *equals = strchr(text, '=');
    uint64_t key;
    size_t len = strlen(text);
    if (!equals || !property_hash(text, (size_t)(equals - text), &key) ||
        len >= POOL_RECORD_VALUE_MAX)
        return vp_fail(err, VP_E_INVALID, "'%.80s' is not of the form name=value", text);
    pool_batch_set(b, POOL_RECORD_PROPERTY, 0, key, text, len + 1); /* with its NUL */
    return 0;
}

static int create_properties(struct pool *p, const struct pool_create_options *o,
                             struct vp_error *err)
{
    struct pool_batch b;
    int rc = 0;
    pool_batch_init(&b);
    for (unsigned i = 0; i < o->property_count && !rc; i++)
        rc = property_add(&b, o->properties[i], err);
    if (!rc)
        rc = b.failed ? VP_E_NO_MEMORY : pool_records_apply(&p->records, b.bytes, b.len);
    pool_batch_fini(&b);
    return rc;
}

/* CO. The first metadata group has its room in the file systems below, or there is no pool. */
static CO int create_preallocate(struct pool *p, struct vp_error *err)
{
    const struct pool_disk *full;
    int rc = pool_meta_preallocate(p, &full);
    if (rc == VP_E_NO_SPACE)
        return vp_fail(
            err, rc,
            "%s: the file system that holds it has no room for the pool's metadata: make "
            "room there, or put the disk elsewhere",
            full->path);
    return rc;
}

/* CO. The first metadata group, table image, log and root. */
static CO int create_metadata(struct pool *p, struct vp_error *err)
{
    pool_meta_room_update(p);
    int rc = pool_meta_group_add(p);
    pool_meta_room_update(p);
    if (!rc)
        rc = create_preallocate(p, err);
    if (!rc)
        rc = pool_log_open(p);
    if (rc)
        return rc;
    co_yield (); /* memory for one segment was written, and an image needs that for another */
    struct pool_log_piece piece = pool_log_piece_here(p);
    rc = pool_table_image_commit(p, &piece);
    /* Once through all slots and one more: an empty slot is damage from now on (root.c, R1). */
    while (!rc && p->root.now.number <= POOL_ROOT_SLOTS)
        rc = pool_root_write(p, &p->root.now);
    return rc;
}

static CO int create_run(struct pool *p, const struct pool_create_options *o,
                         const char *const *paths, unsigned count, struct vp_error *err)
{
    size_t len = strlen(o->name);
    if (!len || len > POOL_NAME_MAX)
        return vp_fail(err, VP_E_NAME_INVALID, "a pool's name has 1 to %d bytes", POOL_NAME_MAX);
    int rc = pool_profile_check(o->profile, err);
    if (rc)
        return rc;
    memcpy(p->name, o->name, len + 1);
    p->geometry = o->geometry;
    p->default_profile = o->profile;
    uint8_t random[16];
    reactor_random(random, sizeof(random));
    p->uuid = vp_uuid_from_random(random);
    rc = create_properties(p, o, err);
    if (!rc)
        rc = pool_disks_create(p, o, paths, count, err);
    if (!rc)
        pool_records_reserve(p);
    if (!rc)
        rc = pool_disks_wipe(p, err);
    if (!rc)
        rc = create_metadata(p, err);
    /* The labels come last: disks without them are not a pool yet. */
    if (!rc) {
        rc = pool_labels_write(p, err);
        if (rc)
            vp_ignore(pool_disks_wipe(p, NULL), "what cannot be wiped has failed already");
    }
    for (unsigned i = 0; i < p->disk_count && !rc; i++)
        io_dev_wait_for_room(p->disk[i].io.dev);
    return rc;
}

CO int pool_create(const struct pool_create_options *o, const char *const *paths, unsigned count,
                   struct pool **out, struct vp_error *err)
{
    struct pool *p = *out = pool_new();
    if (!p)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    int rc = create_run(p, o, paths, count, err);
    if (!rc)
        return 0;
    if (err && err->rc != rc)
        vp_ignore(vp_fail(err, rc, "pool %s: %s", o->name, vp_err_text(rc)), "rc says it");
    pool_disks_remove_created(p);
    *out = NULL;
    pool_abandon(p);
    return rc;
}

/* ---- the end ------------------------------------------------------------------------------ */

/* CO. Nobody waits for room or works in the background any more. */
static CO void pool_quiesce(struct pool *p)
{
    /* The command that ends a pool holds control.lock, and no checkpoint takes it. */
    AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint();
    pool_checkpoints_stop(p);
    while (!co_queue_is_empty(&p->room)) {
        co_queue_wake_all(&p->room);
        co_yield ();
    }
}

CO int pool_close(struct pool *p, bool mark_exported)
{
    /* An import that failed ends here as well, with control.lock held: no checkpoint takes it. */
    AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint();
    pool_quiesce(p);
    /* The client has given up its changes, so a checkpoint now would be without them: where the one
     * before failed they are in the log alone, and the next import needs that. */
    int rc = p->checkpoint.rc;
    if (!rc) {
        p->checkpoint.exporting = mark_exported;
        rc = pool_checkpoint(p);
    }
    pool_abandon_in_turns(p);
    return rc;
}

CO int pool_destroy(struct pool *p, struct vp_error *err)
{
    pool_quiesce(p);
    int rc = pool_disks_wipe(p, err);
    pool_keep_forget_all(p);
    pool_abandon_in_turns(p);
    return rc;
}

void pool_set_client(struct pool *p, const struct pool_client *client)
{
    p->client = *client;
}

/* ---- looking ------------------------------------------------------------------------------ */

const char *pool_name(const struct pool *p)
{
    return p->name;
}

struct vp_uuid pool_uuid(const struct pool *p)
{
    return p->uuid;
}

struct pool_geometry pool_geometry(const struct pool *p)
{
    return p->geometry;
}

struct raid_profile pool_default_profile(const struct pool *p)
{
    return p->default_profile;
}

struct reactor *pool_home(const struct pool *p)
{
    return p->home;
}

/* ---- properties --------------------------------------------------------------------------- */

const char *pool_property_get(struct pool *p, const char *name)
{
    struct pool_record r;
    uint64_t key;
    size_t len = strlen(name);
    if (!property_hash(name, len, &key) || !pool_record_get(p, POOL_RECORD_PROPERTY, 0, key, &r))
        return NULL;
    const char *text = r.value;
    if (r.len <= len + 1 || text[r.len - 1] || text[len] != '=' || memcmp(text, name, len) != 0)
        return NULL;
    return text + len + 1;
}

CO int pool_property_set(struct pool *p, const char *name, const char *value)
{
    struct pool_batch b;
    uint64_t key;
    size_t name_len = strlen(name), len = name_len + 1 + strlen(value) + 1;
    if (!property_hash(name, name_len, &key) || strchr(name, '=') || len > POOL_RECORD_VALUE_MAX)
        return VP_E_INVALID;
    char *text = malloc(len);
    if (!text)
        return VP_E_NO_MEMORY;
    snprintf(text, len, "%s=%s", name, value);
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_PROPERTY, 0, key, text, len);
    free(text);
    int rc = pool_commit(p, &b);
    pool_batch_fini(&b);
    return rc;
}
