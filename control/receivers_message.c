/* What the source's daemon asks of a move that comes here (receivers.h). */
#include "control/receivers_impl.h"

#include "base/bytes.h"
#include "io/guard.h"
#include "io/net.h"

#include <string.h>

/* ---- who asks ------------------------------------------------------------------------------ */

/* All secrets have the same length, which is no secret. `r` NULL: the move is not at work, and no
 * secret is looked at. */
static int receiver_check_key(const struct receiver *r, const struct receiver_key *k,
                              struct vp_error *err)
{
    const size_t len = RECEIVER_SECRET_TEXT - 1;
    char id[VP_UUID_TEXT];
    if (!r)
        return vp_fail(err, VP_E_NOT_FOUND,
                       "no move %s is at work here: its target is deleted, or has arrived",
                       vp_uuid_format(k->id, id));
    if (strlen(k->secret) == len && bytes_equal_secret(r->secret, k->secret, len))
        return 0;
    return vp_fail(err, VP_E_PERMISSION, "this is not the secret of move %s",
                   vp_uuid_format(k->id, id));
}

/* ---- those that wait ----------------------------------------------------------------------- */

/* A source whose message is not answered in time sends it again, over a new connection. Behind a
 * disk that hangs each of them would keep its connection's place, and in the end all places. */
#define MESSAGES_MAX 2U /* of one move */

struct message { /* in the frame of whoever carries it out */
    struct list link;
    struct vp_uuid id;
};

static int message_begin(struct control *c, struct message *m, struct vp_uuid id,
                         struct vp_error *err)
{
    const struct message *other;
    unsigned n = 0;
    char text[VP_UUID_TEXT];
    list_for_each (other, &c->receivers.messages, link)
        n += vp_uuid_equal(other->id, id);
    if (n >= MESSAGES_MAX)
        return vp_fail(err, VP_E_AGAIN,
                       "earlier messages about move %s are still at work: ask again later, and "
                       "look at the disks here if that lasts",
                       vp_uuid_format(id, text));
    m->id = id;
    list_add_tail(&c->receivers.messages, &m->link);
    return 0;
}

static void message_end(struct message *m)
{
    list_del(&m->link);
}

/* Locks the move of this key. */
static CO int receiver_enter(struct control *c, const struct receiver_key *k, struct receiver **out,
                             struct vp_error *err)
{
    struct receiver *r = receiver_find(c, k->id);
    int rc = receiver_check_key(r, k, err);
    if (rc)
        return rc;
    if (!receiver_lock(r))
        return receiver_check_key(NULL, k, err);
    r->heard_ns = reactor_now_ns();
    *out = r;
    return 0;
}

/* ---- data ---------------------------------------------------------------------------------- */

/* In the lock. */
static CO int session_begin(struct receiver *r, struct vp_error *err)
{
    const struct control_config *config = r->control->config;
    char id[VP_UUID_TEXT];
    const struct nbdx_export export = {.name = vp_uuid_format(r->id, id),
                                       .front = receive_front(r->receive)};
    const struct nbdx_server_options o = {
        .address = {.kind = NBDX_GIVEN, .fd = -1},
        .exports = &export,
        .export_count = 1,
        .limits = {.connections = RECEIVER_DATA_MAX,
                   .handshake_ms = (unsigned)config->nbd_handshake_timeout_ms,
                   .requests = (unsigned)config->nbd_requests_per_connection,
                   .buffer_bytes = config->nbd_buffer_per_connection},
    };
    return nbdx_server_start(&o, &r->session, err);
}

static CO int session_renew(struct control *c, const struct receiver_key *k, uint64_t *generation,
                            struct vp_error *err)
{
    struct receiver *r = NULL;
    int rc = receiver_enter(c, k, &r, err);
    if (rc)
        return rc;
    receiver_session_end(r);
    rc = session_begin(r, err);
    if (rc == 0)
        *generation = ++r->generation;
    receiver_unlock(r);
    return rc;
}

CO int receiver_session(struct control *c, const struct receiver_key *k, uint64_t *generation,
                        struct vp_error *err)
{
    struct message m;
    int rc = message_begin(c, &m, k->id, err);
    if (rc)
        return rc;
    rc = session_renew(c, k, generation, err);
    message_end(&m);
    return rc;
}

/* What comes of an older session is refused. */
static bool is_current(const struct receiver *r, uint64_t generation)
{
    return r->session && (r->generation == generation || !io_guard_on(GUARD_MOVE_GENERATION));
}

int receiver_data_check(struct control *c, const struct receiver_key *k, uint64_t generation,
                        struct vp_error *err)
{
    struct receiver *r = receiver_find(c, k->id);
    int rc = receiver_check_key(r, k, err);
    if (rc)
        return rc;
    r->heard_ns = reactor_now_ns();
    if (is_current(r, generation))
        return 0;
    return vp_fail(err, VP_E_INVALID, "session %llu of the move has ended: begin a new one",
                   (unsigned long long)generation);
}

CO void receiver_data_give(struct control *c, struct vp_uuid id, uint64_t generation, int fd)
{
    struct receiver *r = receiver_find(c, id);
    if (!r || !receiver_lock(r)) {
        io_close(fd);
        return;
    }
    if (is_current(r, generation))
        vp_ignore(nbdx_server_give(r->session, fd), "the source sees that it is closed");
    else
        io_close(fd);
    receiver_unlock(r);
}

int receiver_keep(struct control *c, const struct receiver_key *k, struct vp_error *err)
{
    struct receiver *r = receiver_find(c, k->id);
    int rc = receiver_check_key(r, k, err);
    if (rc == 0)
        r->heard_ns = reactor_now_ns();
    return rc;
}

/* ---- verdicts ------------------------------------------------------------------------------ */

static int claim_check(const struct receiver *r, const struct receiver_claim *k,
                       struct vp_error *err)
{
    if (vp_uuid_equal(r->pool->uuid, k->pool) && vp_uuid_equal(r->volume_uuid, k->claim.volume) &&
        r->epoch == k->claim.epoch)
        return 0;
    return vp_fail(err, VP_E_INVALID, "the move that brings %s is about another volume or pool",
                   r->volume);
}

/* In the lock. A move that is still busy stays at work, and is asked again. */
static CO int receiver_verdict(struct receiver *r, bool arrive, enum migrate_verdict *verdict,
                               struct vp_error *err)
{
    receiver_session_end(r);
    if (!arrive) {
        int rc = receiver_decline(r, "its source asked for the end", err);
        *verdict = rc ? MIGRATE_NOT_KNOWN : MIGRATE_HAS_NOT;
        if (rc == 0)
            vp_ignore(vp_fail(err, VP_E_CANCELLED, "it was declined"), "the verdict says it");
        return rc;
    }
    receiver_exports_hold(r);
    int rc = receive_arrive(r->receive, verdict, err);
    r->exports_held = rc != VP_E_BUSY;
    if (rc == VP_E_BUSY)
        return rc;
    if (*verdict == MIGRATE_HAS_ARRIVED)
        receiver_exports_arrived(r);
    else
        receiver_note(r, err->text);
    receiver_end(r);
    return rc;
}

/* A reference on the pool of this uuid, if it is open. */
static int claim_pool(struct control *c, struct vp_uuid uuid, struct control_pool **out,
                      struct vp_error *err)
{
    char text[VP_UUID_TEXT];
    struct vp_error why = {0};
    int rc = control_pool_get_open(c, vp_uuid_format(uuid, text), out, &why);
    return rc ? vp_fail(err, VP_E_AGAIN, "what became of the volume is not known: %s", why.text)
              : 0;
}

static CO int claim_decide(struct control *c, const struct receiver_claim *k, bool arrive,
                           enum migrate_verdict *verdict, struct vp_error *err)
{
    struct receiver *r = receiver_find(c, k->claim.move);
    struct control_pool *p;
    if (r && receiver_lock(r)) {
        int rc = claim_check(r, k, err);
        if (rc == 0)
            rc = receiver_verdict(r, arrive, verdict, err);
        receiver_unlock(r);
        return rc;
    }
    int rc = claim_pool(c, k->pool, &p, err);
    if (rc)
        return rc;
    rc = receive_decide(p->vs, &k->claim, verdict, err);
    control_pool_put(p);
    return rc;
}

CO int receivers_verdict(struct control *c, const struct receiver_claim *k, bool arrive,
                         enum migrate_verdict *verdict, struct vp_error *err)
{
    struct message m;
    *verdict = MIGRATE_NOT_KNOWN;
    int rc = message_begin(c, &m, k->claim.move, err);
    if (rc)
        return rc;
    rc = claim_decide(c, k, arrive, verdict, err);
    message_end(&m);
    return rc;
}

CO int receivers_confirm(struct control *c, const struct receiver_claim *k, struct vp_error *err)
{
    struct message m;
    struct control_pool *p;
    int rc = message_begin(c, &m, k->claim.move, err);
    if (rc)
        return rc;
    rc = claim_pool(c, k->pool, &p, err);
    if (!rc) {
        rc = receive_confirm(p->vs, &k->claim, err);
        control_pool_put(p);
    }
    message_end(&m);
    return rc;
}
