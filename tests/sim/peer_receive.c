/* The end of a move between hosts that receives, and what each host does from time to time: see
 * peer.h. */
#include "tests/sim/hosts.h"
#include "tests/sim/peer.h"

#include "base/verify.h"
#include "io/guard.h"
#include "io/reactor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SILENT_NS UINT64_C(60000000000) /* the receiver declines after so long */

/* ---- the receiver --------------------------------------------------------------------------- */

struct incoming {
    struct list link;
    struct receive_claim claim;
    struct receive *r; /* NULL: it was decided, and is at work no more */
    uint64_t secret;
    struct co_mutex lock; /* one message at a time */
    unsigned generation, at_work;
    bool session;
    struct co_queue quiet;
    uint64_t heard_ns;
};

void peers_forget(struct peers *p)
{
    struct list *e;
    while ((e = list_pop(&p->incoming)))
        free(container_of(e, struct incoming, link));
    peers_init(p);
}

static struct incoming *incoming_find(struct host *h, const struct receive_claim *c)
{
    struct incoming *in;
    list_for_each (in, &h->peers.incoming, link)
        if (vp_uuid_equal(in->claim.move, c->move))
            return in;
    return NULL;
}

bool peer_is_receiving(const struct host *h)
{
    const struct incoming *in;
    list_for_each (in, &h->peers.incoming, link)
        if (in->r && receive_state(in->r) == RECEIVE_OPEN)
            return true;
    return false;
}

/* No request of the session is left, and none lands later. */
static CO void session_end(struct incoming *in)
{
    in->session = false;
    while (in->at_work)
        co_queue_wait(&in->quiet, "requests of a session");
}

static CO int make_receive(struct host *h, const struct message *m, uint64_t *secret)
{
    struct vp_error err = {0};
    struct incoming *in = incoming_find(h, &m->claim);
    *secret = in ? in->secret : 0;
    if (in) /* the message came twice */
        return in->r ? 0 : VP_E_CANCELLED;
    in = calloc(1, sizeof(*in));
    VP_VERIFY_TRUE(in != NULL);
    in->claim = m->claim;
    in->heard_ns = reactor_now_ns();
    in->secret = sim_random(h->rig.w);
    co_mutex_init(&in->lock);
    co_queue_init(&in->quiet);
    list_add_tail(&h->peers.incoming, &in->link);
    struct migrate_offer offer = m->offer;
    offer.info = &m->info;
    co_mutex_lock(&in->lock);
    int rc = receive_begin(h->rig.vs[0], m->name, &offer, &in->r, &err);
    co_mutex_unlock(&in->lock);
    if (rc)
        in->r = NULL;
    *secret = in->secret;
    return rc;
}

/* What became of a move at work. */
static CO int arrive_at_work(struct incoming *in, bool decides, enum migrate_verdict *verdict)
{
    struct vp_error err = {0};
    session_end(in);
    if (decides && receive_state(in->r) == RECEIVE_OPEN)
        vp_ignore(receive_decline(in->r, &err), "the verdict says it");
    return receive_arrive(in->r, verdict, &err);
}

static CO int arrive_receive(struct host *h, const struct message *m, enum migrate_verdict *verdict)
{
    struct vp_error err = {0};
    struct incoming *in = incoming_find(h, &m->claim);
    int rc;
    *verdict = MIGRATE_NOT_KNOWN;
    if (!in)
        return receive_decide(h->rig.vs[0], &m->claim, verdict, &err);
    co_mutex_lock(&in->lock);
    bool decides = m->kind == MESSAGE_DECIDE || m->secret != in->secret;
    rc = in->r ? arrive_at_work(in, decides, verdict)
               : receive_decide(h->rig.vs[0], &m->claim, verdict, &err);
    co_mutex_unlock(&in->lock);
    return rc;
}

static CO int decline_receive(struct incoming *in)
{
    struct vp_error err = {0};
    co_mutex_lock(&in->lock);
    session_end(in);
    int rc = in->r ? receive_decline(in->r, &err) : 0;
    co_mutex_unlock(&in->lock);
    return rc;
}

static CO int session_receive(struct incoming *in, unsigned *generation)
{
    co_mutex_lock(&in->lock);
    bool open = in->r && receive_state(in->r) == RECEIVE_OPEN;
    if (open) {
        session_end(in);
        in->session = true;
        *generation = ++in->generation;
    }
    co_mutex_unlock(&in->lock);
    return open ? 0 : VP_E_NOT_FOUND;
}

static CO int data_read(struct volume *v, const struct message *m, struct message *reply)
{
    reply->len = m->len;
    reply->data = aligned_alloc(4096, (m->len + 4095) / 4096 * 4096);
    VP_VERIFY_TRUE(reply->data != NULL);
    return volume_read(v, m->offset, m->len, reply->data);
}

static CO int data_receive(struct incoming *in, const struct message *m, struct message *reply)
{
    bool old = m->generation != in->generation && io_guard_on(GUARD_MOVE_GENERATION);
    struct volume *v = in->r ? receive_volume(in->r) : NULL;
    if (!in->session || old || !v)
        return VP_E_PEER_LOST;
    in->at_work++;
    int rc = m->kind == MESSAGE_WRITE  ? volume_write(v, m->offset, m->len, m->data, 0)
             : m->kind == MESSAGE_ZERO ? volume_zero(v, m->offset, m->len, 0)
             : m->kind == MESSAGE_READ ? data_read(v, m, reply)
                                       : volume_flush(v);
    if (--in->at_work == 0)
        co_queue_wake_all(&in->quiet);
    return rc;
}

/* A message that is worked on: a copy. */
struct work {
    struct host *host;
    struct message m;
};

static CO void work_on(struct host *h, const struct message *m, struct message *reply)
{
    struct vp_error err = {0};
    struct incoming *in = incoming_find(h, &m->claim);
    bool its_own = in && in->secret == m->secret;
    if (in)
        in->heard_ns = reactor_now_ns();
    switch (m->kind) {
    case MESSAGE_MAKE:
        reply->rc = make_receive(h, m, &reply->secret);
        reply->pool = pool_uuid(volumes_pool(h->rig.vs[0]));
        break;
    case MESSAGE_ARRIVE:
    case MESSAGE_DECIDE:
        reply->rc = arrive_receive(h, m, &reply->verdict);
        break;
    case MESSAGE_CONFIRM:
        reply->rc = receive_confirm(h->rig.vs[0], &m->claim, &err);
        break;
    case MESSAGE_SESSION:
        reply->rc = its_own ? session_receive(in, &reply->generation) : VP_E_NOT_FOUND;
        break;
    case MESSAGE_DECLINE:
        reply->rc = in ? decline_receive(in) : 0;
        break;
    case MESSAGE_KEEP:
        break;
    default:
        reply->rc = its_own ? data_receive(in, m, reply) : VP_E_PEER_LOST;
    }
}

static void work_run(void *arg)
{
    struct work *w = arg;
    struct message reply = {.kind = MESSAGE_REPLY,
                            .from = w->m.to,
                            .to = w->m.from,
                            .request = w->m.request,
                            .connection = w->m.connection};
    work_on(w->host, &w->m, &reply);
    if (w->m.kind != MESSAGE_KEEP)
        link_send(&w->host->all->link, &reply);
    free(reply.data);
    free(w->m.data);
    free(w);
}

void peer_receive(struct host *h, const struct message *m)
{
    if (m->kind == MESSAGE_REPLY) {
        peer_reply(h, m);
        return;
    }
    if (!h->serves)
        return; /* nobody listens yet, or any more */
    struct work *w = malloc(sizeof(*w));
    VP_VERIFY_TRUE(w != NULL);
    *w = (struct work){h, *m};
    if (m->data) {
        w->m.data = aligned_alloc(4096, (m->len + 4095) / 4096 * 4096);
        VP_VERIFY_TRUE(w->m.data != NULL);
        memcpy(w->m.data, m->data, m->len);
    }
    int rc = co_spawn(work_run, w, "message of another host");
    VP_VERIFY(rc, ==, 0);
}

/* ---- again and again ------------------------------------------------------------------------ */

/* A volume in doubt whose other side is another host's. */
struct doubt {
    bool found;
    char name[VOLUME_NAME_MAX + 1];
    struct receive_claim claim;
};

static int note_doubt(const char *name, const struct volume_owner_info *o, void *arg)
{
    struct doubt *d = arg;
    if (!o->in_doubt || !o->move.peer[0])
        return 0;
    d->found = true;
    (void)snprintf(d->name, sizeof(d->name), "%s", name);
    d->claim = (struct receive_claim){o->move.id, o->uuid, o->epoch};
    return 0;
}

static CO void ask_about(struct host *h, const struct doubt *d)
{
    struct vp_error err = {0};
    struct message m = {.kind = MESSAGE_DECIDE, .claim = d->claim}, reply = {0};
    vp_ignore(peer_ask(h, &m, PEER_REPLY_NS, &reply), "the verdict says it");
    if (reply.rc == VP_E_PEER_LOST || reply.verdict == MIGRATE_NOT_KNOWN)
        return;
    bool arrived = reply.verdict == MIGRATE_HAS_ARRIVED;
    struct hosts *all = h->all;
    if (arrived && all->arrive_flush)
        model_flush_answer(all->model, model_volume_find(all->model, HOSTS_VOLUME),
                           all->arrive_flush - 1, false);
    int rc = migrate_decide(h->rig.vs[0], d->name, arrived, NULL, &err);
    if (rc)
        rig_fail(&h->rig, "%s is not decided: %s", d->name, err.text);
}

static int note_left(const struct volume_left *l, void *arg)
{
    struct volume_left *out = arg;
    *out = *l;
    return 1;
}

/* A volume has left, and the other host has not confirmed it. */
static CO void tell_left(struct host *h, const struct volume_left *l)
{
    struct message m = {.kind = MESSAGE_CONFIRM, .claim = {l->move.id, l->uuid, l->epoch}},
                   reply = {0};
    if (peer_ask(h, &m, PEER_REPLY_NS, &reply))
        return; /* it is told again */
    int rc = volumes_left_forget(h->rig.vs[0], l->move.id);
    if (rc)
        rig_fail(&h->rig, "a note is not forgotten: %s", vp_err_name(rc));
}

void peer_monitor(struct host *h)
{
    struct incoming *in;
    struct doubt d = {0};
    struct volume_left l;
    list_for_each (in, &h->peers.incoming, link) /* they are freed when all has ended */
        if (in->r && receive_state(in->r) == RECEIVE_OPEN &&
            reactor_now_ns() - in->heard_ns > SILENT_NS)
            vp_ignore(decline_receive(in), "it is tried again");
    vp_ignore(volume_each_moved(h->rig.vs[0], note_doubt, &d), "note_doubt never fails");
    if (d.found)
        ask_about(h, &d);
    if (volumes_left_each(h->rig.vs[0], note_left, &l))
        tell_left(h, &l);
}

void peers_close(struct host *h)
{
    struct incoming *in;
    list_for_each (in, &h->peers.incoming, link) {
        co_mutex_lock(&in->lock);
        session_end(in);
        receive_free(in->r);
        in->r = NULL;
        co_mutex_unlock(&in->lock);
    }
}
