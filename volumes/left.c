/*
 * Notes of volumes that have left for another daemon (owner.h).
 *
 * That daemon keeps the volume ARRIVED, and does not delete it, until it hears that the volume is
 * deleted here: otherwise a source in doubt could find no volume there, and go on. The message that
 * says so may be lost with this daemon. So the deletion and the note are one commit, and the note
 * goes when the message has been answered. Whoever has the pool open asks for the notes, and sends
 * the message again.
 *
 * 1. A note is there if and only if the volume is deleted here (GUARD_MOVE_NOTES_LEFT).
 * 2. The message may come twice, and after the volume has left the other daemon: it changes nothing
 *    then (receive_confirm).
 *
 * The notes are in memory too, since they are looked at once a second. A record that does not
 * decode is a newer release's, or damaged: it stays, and nobody is told of it. HOME.
 *
 * Tested by tests/unit/volumes/test_owner.c, by the simulator's hosts, and by
 * tests/integration/t_migrate_peer_receive.py.
 */
#include "io/guard.h"
#include "volumes/volumes_impl.h"

#include <stdlib.h>
#include <string.h>

#define LEFT_BYTES_MAX                                                                             \
    (sizeof(struct volume_left_disk) + VOLUME_NAME_MAX + VOLUME_FULL_NAME_MAX + VOLUME_PEER_MAX)

struct left_note {
    struct list link; /* in volumes.left */
    struct volume_left left;
    uint32_t volume_id;
};

static size_t left_put_text(uint8_t *out, size_t at, const char *text, size_t len)
{
    memcpy(out + at, text, len);
    return at + len;
}

static size_t left_encode(const struct volume_left *l, uint8_t out[static LEFT_BYTES_MAX])
{
    const struct volume_move *m = &l->move;
    size_t name_len = strlen(l->name), other_len = strlen(m->volume), peer_len = strlen(m->peer);
    struct volume_left_disk d = {.version = le16_make(VOLUME_LEFT_VERSION),
                                 .name_len = (uint8_t)name_len,
                                 .other_len = (uint8_t)other_len,
                                 .peer_len = (uint8_t)peer_len,
                                 .epoch = le64_make(l->epoch)};
    size_t at = sizeof(d);
    memcpy(d.move, m->id.b, sizeof(d.move));
    memcpy(d.pool, m->pool.b, sizeof(d.pool));
    memcpy(d.volume, l->uuid.b, sizeof(d.volume));
    memcpy(out, &d, sizeof(d));
    at = left_put_text(out, at, l->name, name_len);
    at = left_put_text(out, at, m->volume, other_len);
    return left_put_text(out, at, m->peer, peer_len);
}

struct left_note *volume_left_put(const struct volume *v, struct pool_batch *b)
{
    struct left_note *n = calloc(1, sizeof(*n));
    uint8_t bytes[LEFT_BYTES_MAX];
    if (!n)
        return NULL;
    n->volume_id = v->id;
    n->left.move = v->owner.move;
    n->left.uuid = v->uuid;
    n->left.epoch = v->owner.epoch;
    memcpy(n->left.name, volume_text(v), strlen(volume_text(v)) + 1);
    size_t len = left_encode(&n->left, bytes);
    if (io_guard_on(GUARD_MOVE_NOTES_LEFT))
        pool_batch_set(b, POOL_RECORD_COUNTER, v->id, VOLUME_COUNTER_LEFT, bytes, len);
    return n;
}

void volume_left_end(struct volumes *vs, struct left_note *note, bool durable)
{
    if (note && durable)
        list_add_tail(&vs->left, &note->link);
    else
        free(note);
}

/* ---- import --------------------------------------------------------------------------------- */

/* The bytes come from disk. False: they are no note of this version. */
static bool left_decode(const uint8_t *bytes, size_t len, struct volume_left *out)
{
    struct volume_left_disk d;
    if (len < sizeof(d))
        return false;
    memcpy(&d, bytes, sizeof(d));
    const uint8_t *name = bytes + sizeof(d);
    if (le16_get(d.version) != VOLUME_LEFT_VERSION || d.name_len > VOLUME_NAME_MAX ||
        d.other_len > VOLUME_FULL_NAME_MAX || !d.peer_len ||
        len != sizeof(d) + d.name_len + d.other_len + d.peer_len)
        return false;
    *out = (struct volume_left){.epoch = le64_get(d.epoch)};
    memcpy(out->move.id.b, d.move, sizeof(d.move));
    memcpy(out->move.pool.b, d.pool, sizeof(d.pool));
    memcpy(out->uuid.b, d.volume, sizeof(d.volume));
    memcpy(out->name, name, d.name_len);
    memcpy(out->move.volume, name + d.name_len, d.other_len);
    memcpy(out->move.peer, name + d.name_len + d.other_len, d.peer_len);
    return volume_name_is_valid(out->name) && strlen(out->name) == d.name_len &&
           strlen(out->move.volume) == d.other_len && strlen(out->move.peer) == d.peer_len &&
           volume_move_is_sound(&out->move);
}

static int left_load_one(const struct pool_record *r, void *arg)
{
    struct volumes *vs = arg;
    struct volume_left l;
    if (r->key != VOLUME_COUNTER_LEFT || !left_decode(r->value, r->len, &l))
        return 0;
    struct left_note *n = calloc(1, sizeof(*n));
    if (!n)
        return VP_E_NO_MEMORY;
    n->volume_id = r->scope;
    n->left = l;
    list_add_tail(&vs->left, &n->link);
    return 0;
}

int volumes_left_load(struct volumes *vs)
{
    return pool_record_each(vs->pool, POOL_RECORD_COUNTER, left_load_one, vs);
}

void volumes_left_free(struct volumes *vs)
{
    struct list *e;
    while ((e = list_pop(&vs->left)))
        free(container_of(e, struct left_note, link));
}

/* ---- for those who tell it ------------------------------------------------------------------ */

int volumes_left_each(struct volumes *vs, int (*fn)(const struct volume_left *l, void *arg),
                      void *arg)
{
    const struct left_note *n;
    list_for_each (n, &vs->left, link) {
        int rc = 0;
        CO_NO_YIELD {
            rc = fn(&n->left, arg);
        }
        if (rc)
            return rc;
    }
    return 0;
}

static struct left_note *left_find(struct volumes *vs, struct vp_uuid move)
{
    struct left_note *n;
    list_for_each (n, &vs->left, link)
        if (vp_uuid_equal(n->left.move.id, move))
            return n;
    return NULL;
}

CO int volumes_left_forget(struct volumes *vs, struct vp_uuid move)
{
    struct pool_batch b;
    struct left_note *n = left_find(vs, move);
    if (!n)
        return 0;
    pool_batch_init(&b);
    pool_batch_delete(&b, POOL_RECORD_COUNTER, n->volume_id, VOLUME_COUNTER_LEFT);
    int rc = pool_commit(vs->pool, &b);
    pool_batch_fini(&b);
    n = left_find(vs, move); /* somebody else may have been as fast */
    if (rc || !n)
        return rc;
    list_del(&n->link);
    free(n);
    return 0;
}
