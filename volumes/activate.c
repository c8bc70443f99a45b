/*
 * From a record to an open map and back.
 *
 * A volume becomes active when it is opened, when its log records must go into pages (the first
 * checkpoint after an import), when it shrinks, or when its recovered regions are visited. It
 * becomes inactive when nobody has it open and a checkpoint holds every change.
 *
 * 1. v->io changes at home. From NULL to set: under v->opening, and under v->control too, unless a
 *    checkpoint opens the volume because of its records of the log, which it has until it was
 *    active once. From set to NULL: under v->control, and only while open_count and pins are 0:
 *    whoever uses v->io from home holds an open or a pin.
 * 2. Between the last look at the map ("no dirty page") and taking v->io away nothing may have
 *    used it: pin_sequence tells.
 */
#include "base/log.h"
#include "base/verify.h"
#include "volumes/volumes_impl.h"

#include <stdio.h>
#include <stdlib.h>

enum { WORDS_A_TURN = 512 };

/* ---- records of one volume ---------------------------------------------------------------- */

static void gather_one(struct volume *v, struct pool_batch *b, enum pool_record_kind kind,
                       uint64_t key)
{
    struct pool_record r;
    if (pool_record_get(v->vs->pool, kind, v->id, key, &r))
        pool_batch_set(b, kind, v->id, key, r.value, r.len);
}

/* Others have their turns between the words of intents: those of a volume that is not open do not
 * change. */
static CO int gather(struct volume *v, struct pool_batch *b)
{
    pool_batch_init(b);
    gather_one(v, b, POOL_RECORD_TREE, POOL_TREE_MAP);
    gather_one(v, b, POOL_RECORD_TREE, POOL_TREE_SPACE);
    gather_one(v, b, POOL_RECORD_STAT, 0);
    gather_one(v, b, POOL_RECORD_COUNTER, POOL_COUNTER_COMMITS);
    uint64_t words = thin_intent_words(div_up(v->options.size_bytes, volume_chunk_bytes(v)));
    for (uint64_t word = 0; word < words; word++) {
        gather_one(v, b, POOL_RECORD_INTENT, word);
        if (word % WORDS_A_TURN == WORDS_A_TURN - 1)
            co_yield (); /* a large volume has very many, most of them without a record */
    }
    return b->failed ? VP_E_NO_MEMORY : 0;
}

/* ---- opening ------------------------------------------------------------------------------ */

struct open_call {
    struct thin_config config;
    const struct thin_state *state;
    struct thin *thin;
};

static CO int open_on_reactor(void *arg)
{
    struct open_call *c = arg;
    return thin_open(&c->config, c->state, &c->thin);
}

static struct thin_config config_of(struct volume *v, const struct volumes_slot *slot, bool reserve)
{
    return (struct thin_config){
        .pool = v->vs->pool,
        .cache = slot->cache,
        .id = v->id,
        .size_blocks = div_up(v->options.size_bytes, VOLUME_BLOCK),
        .profile = v->options.profile,
        .reserve_bytes = reserve ? v->options.reserve_bytes : 0,
        .discard_devices = v->vs->discard_devices,
        .healed_blocks = &v->figures.healed_blocks,
    };
}

static CO int open_thin(struct volume *v, const struct volumes_slot *slot,
                        const struct pool_batch *replay, bool reserve, struct thin **out)
{
    struct pool_batch table, none;
    pool_batch_init(&none);
    int rc = gather(v, &table);
    struct thin_state state = {&table, replay ? replay : &none};
    struct open_call c = {.config = config_of(v, slot, reserve),
                          .state = table.count > 0 || replay ? &state : NULL};
    if (!rc)
        rc = reactor_call(slot->reactor, open_on_reactor, &c);
    pool_batch_fini(&table);
    pool_batch_fini(&none);
    *out = c.thin;
    return rc;
}

CO int volume_thin_open_durable(struct volume *v, struct reactor **reactor, struct thin **out)
{
    struct volumes_slot *slot = volumes_slot_choose(v->vs, NULL);
    *reactor = slot->reactor;
    return open_thin(v, slot, NULL, false, out);
}

void volume_fault(struct volume *v, int rc)
{
    free(v->fault);
    v->state = VOLUME_FAULTED;
    if (asprintf(&v->fault, "%s: %s", vp_err_name(rc), vp_err_text(rc)) < 0)
        v->fault = NULL;
    vp_error_log("volume %s is faulted: %s", volume_full_name(v), vp_err_text(rc));
}

static struct volume_io *io_new(void)
{
    struct volume_io *io = calloc(1, sizeof(*io));
    struct front *front = calloc(1, sizeof(*front));
    if (!io || !front) {
        free(io);
        free(front);
        return NULL;
    }
    atomic_init(&io->front, front);
    co_queue_init(&io->room);
    lock_table_init(&io->locks);
    return io;
}

void volume_io_free(struct volume_io *io)
{
    if (io)
        free(io->front);
    free(io);
}

static CO int close_on_reactor(void *arg)
{
    struct volume_io *io = arg;
    VP_VERIFY_TRUE(front_is_idle(io->front));
    thin_quiesce(io->thin);
    thin_close(io->thin);
    volume_io_free(io);
    return 0;
}

void volume_replay_drop(struct volume *v)
{
    list_del(&v->replay_link);
    if (v->replay)
        pool_batch_fini(v->replay);
    free(v->replay);
    v->replay = NULL;
}

static void activated(struct volume *v, struct volumes_slot *slot, struct volume_io *io)
{
    front_init(io->front, v, slot->reactor);
    v->io = io;
    v->reactor = slot->reactor;
    slot->active++;
    list_add_tail(&v->vs->active, &v->active_link);
    /* The records of the log are in the map's pages now, and the next checkpoint writes these
     * pages. */
    volume_replay_drop(v);
}

CO int volume_activate_opening(struct volume *v, struct reactor *beside, bool reserve)
{
    if (v->io)
        return 0;
    if (v->state == VOLUME_FAULTED)
        return VP_E_VOLUME_FAULTED;
    struct volumes_slot *slot = volumes_slot_choose(v->vs, beside);
    struct volume_io *io = io_new(); /* an open map is never given up for want of it */
    if (!io || !figure_histograms_new(&volume_figure_set, &v->figures)) {
        volume_io_free(io);
        return VP_E_NO_MEMORY;
    }
    int rc = open_thin(v, slot, v->replay, true, &io->thin);
    if (rc == VP_E_NO_SPACE && !reserve) {
        vp_warn("volume %s: its reserve cannot be honoured, the pool is full", volume_full_name(v));
        rc = open_thin(v, slot, v->replay, false, &io->thin);
    }
    if (rc == VP_E_PAGE_DAMAGED || rc == VP_E_MAP_BAD || rc == VP_E_MAP_TOO_DEEP ||
        rc == VP_E_RECORD_BAD)
        volume_fault(v, rc);
    if (rc)
        volume_io_free(io);
    else
        activated(v, slot, io);
    return rc;
}

static CO int activate_beside(struct volume *v, struct reactor *beside, bool reserve)
{
    co_mutex_lock(&v->opening);
    int rc = volume_activate_opening(v, beside, reserve);
    co_mutex_unlock(&v->opening);
    return rc;
}

CO int volume_activate(struct volume *v, bool reserve)
{
    return activate_beside(v, NULL, reserve);
}

/* ---- commit, settle, close ---------------------------------------------------------------- */

CO int volume_io_commit(struct volume_io *io)
{
    io->uncommitted = false;
    int rc = thin_commit(io->thin);
    if (rc)
        io->uncommitted = true;
    return rc;
}

static CO int commit_on_reactor(void *arg)
{
    struct volume_io *io = arg;
    return io->uncommitted ? volume_io_commit(io) : 0;
}

CO int volume_commit(struct volume *v)
{
    return reactor_call(v->reactor, commit_on_reactor, v->io);
}

struct settle_call {
    struct volume *v;
    bool dirty;
};

/* All I/O has ended and is committed, so every intent can go: the second call clears those that
 * the first one saw as recently used. */
static CO int settle_on_reactor(void *arg)
{
    struct settle_call *c = arg;
    struct volume_io *io = c->v->io;
    int rc = volume_io_commit(io);
    if (rc)
        return rc;
    struct pool_batch b;
    pool_batch_init(&b);
    thin_checkpoint_intents(io->thin, &b);
    thin_checkpoint_intents(io->thin, &b);
    if (b.count > 0 || b.failed)
        rc = pool_commit(c->v->vs->pool, &b);
    pool_batch_fini(&b);
    c->dirty = thin_is_dirty(io->thin);
    return rc;
}

CO int volume_settle(struct volume *v)
{
    struct settle_call c = {.v = v};
    return reactor_call(v->reactor, settle_on_reactor, &c);
}

CO void volume_detach(struct volume *v)
{
    struct volume_io *io = v->io;
    if (!io)
        return;
    struct volumes_slot *slot = volumes_slot_of(v->vs, v->reactor);
    v->io = NULL;
    slot->active--;
    list_del(&v->active_link);
    volume_names_free_retired(v);
    vp_ignore(reactor_call(slot->reactor, close_on_reactor, io), "it cannot fail");
}

CO int volume_deactivate(struct volume *v, bool *done)
{
    *done = false;
    if (!v->io || v->open_count > 0 || v->pins > 0)
        return 0;
    uint64_t pins = v->pin_sequence;
    struct settle_call c = {.v = v, .dirty = true};
    int rc = reactor_call(v->reactor, settle_on_reactor, &c);
    if (rc || c.dirty || v->open_count > 0 || v->pins > 0 || v->pin_sequence != pins)
        return rc;
    volume_detach(v);
    *done = true;
    return 0;
}

void volume_pin(struct volume *v)
{
    v->pins++;
    v->pin_sequence++;
}

void volume_unpin(struct volume *v)
{
    VP_VERIFY(v->pins, >, 0U);
    if (--v->pins == 0)
        co_queue_wake_all(&v->unpinned);
}

/* ---- for clients -------------------------------------------------------------------------- */

/* Takes the control mutex of a volume that is to be opened. */
static CO int open_begin(struct volumes *vs, const char *name, struct volume **out,
                         struct vp_error *err)
{
    if (vs->closing)
        return vp_fail(err, VP_E_SHUTDOWN, "pool %s is closing", pool_name(vs->pool));
    return volume_control_begin(vs, name, out, err);
}

static CO int open_locked(struct volume *v, struct reactor *beside, struct volume **out,
                          struct vp_error *err)
{
    int rc = v->state == VOLUME_FAULTED ? VP_E_VOLUME_FAULTED : activate_beside(v, beside, false);
    if (v->state == VOLUME_FAULTED)
        return vp_fail(err, VP_E_VOLUME_FAULTED, "volume %s is faulted: %s", volume_full_name(v),
                       v->fault ? v->fault : "damaged");
    if (rc)
        return vp_fail(err, rc, "volume %s could not be opened: %s", volume_full_name(v),
                       vp_err_text(rc));
    if (beside && v->reactor != beside)
        return vp_fail(
            err, VP_E_BUSY,
            "volume %s is active on reactor %u, and is wanted on reactor %u. Close it, and "
            "try again after the next checkpoint of pool %s",
            volume_full_name(v), reactor_index(v->reactor), reactor_index(beside),
            pool_name(v->vs->pool));
    v->open_count++;
    *out = v;
    return 0;
}

CO int volume_open(struct volumes *vs, const char *name, bool read_only, struct volume **out,
                   struct vp_error *err)
{
    (void)read_only; /* the export refuses writes; all opens share one volume */
    struct volume *v = NULL;
    int rc = open_begin(vs, name, &v, err);
    if (rc)
        return rc;
    rc = volume_owner_check_open(v, err);
    if (!rc)
        rc = open_locked(v, NULL, out, err);
    co_mutex_unlock(&v->control);
    return rc;
}

CO int volume_open_to_move(struct volumes *vs, const char *name, struct reactor *beside,
                           struct volume **out, struct vp_error *err)
{
    struct volume *v = NULL;
    int rc = open_begin(vs, name, &v, err);
    if (rc)
        return rc;
    rc = open_locked(v, beside, out, err);
    co_mutex_unlock(&v->control);
    return rc;
}

CO void volume_close(struct volume *v)
{
    co_mutex_lock(&v->control);
    VP_VERIFY(v->open_count, >, 0U);
    v->open_count--;
    bool done;
    int rc = v->open_count > 0 ? 0 : volume_deactivate(v, &done);
    if (rc)
        vp_warn("volume %s: its last changes could not be committed: %s", volume_full_name(v),
                vp_err_text(rc));
    co_mutex_unlock(&v->control);
}

struct memory_call {
    struct thin *thin;
    bool survives_kill;
};

static CO int take_memory_on_reactor(void *arg)
{
    struct memory_call *c = arg;
    c->survives_kill = thin_take_memory(c->thin);
    return 0;
}

CO bool volume_take_memory(struct volume *v)
{
    struct memory_call c = {.thin = v->io->thin};
    vp_ignore(reactor_call(v->reactor, take_memory_on_reactor, &c), "it cannot fail");
    return c.survives_kill;
}

struct reactor *volume_reactor(const struct volume *v)
{
    return v->reactor;
}
uint64_t volume_size(const struct volume *v)
{
    return atomic_load_explicit(&v->size_bytes, memory_order_relaxed);
}
uint32_t volume_sector_bytes(const struct volume *v)
{
    return v->sector_bytes;
}
uint32_t volume_chunk_bytes(const struct volume *v)
{
    return pool_geometry(v->vs->pool).chunk_bytes;
}
bool volume_is_read_only(const struct volume *v)
{
    return atomic_load_explicit(&v->flags, memory_order_relaxed) & VOLUME_IS_READ_ONLY;
}
