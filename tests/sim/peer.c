/* The source's end of a move between hosts, and the calls of both ends: see peer.h. */
#include "tests/sim/peer.h"
#include "tests/sim/hosts.h"

#include "base/verify.h"
#include "io/reactor.h"

#include <stdio.h>
#include <string.h>

#define DATA_NS UINT64_C(4000000000) /* … in a connection; then it is given up */
#define KEEP_NS UINT64_C(5000000000) /* the source says so often that it is here */

/* ---- calls -------------------------------------------------------------------------------- */

struct call {
    struct list link;
    uint64_t request;
    unsigned connection;
    bool done;
    struct message *reply;
    struct co_queue answered;
};

void peers_init(struct peers *p)
{
    list_init(&p->calls);
    list_init(&p->incoming);
}

static void call_end(struct call *c)
{
    c->done = true;
    co_queue_wake_all(&c->answered);
}

CO int peer_ask(struct host *h, struct message *m, uint64_t wait_ns, struct message *reply)
{
    static uint64_t requests;
    struct call c = {.request = ++requests, .connection = m->connection, .reply = reply};
    co_queue_init(&c.answered);
    m->request = c.request;
    m->from = h->index;
    m->to = !h->index;
    list_add_tail(&h->peers.calls, &c.link);
    reply->rc = VP_E_PEER_LOST;
    link_send(&h->all->link, m);
    uint64_t deadline_ns = reactor_now_ns() + wait_ns;
    while (!c.done && reactor_now_ns() < deadline_ns)
        vp_ignore(co_queue_wait_until(&c.answered, deadline_ns, "a reply of another host"),
                  "the time is looked at");
    list_del(&c.link);
    return reply->rc;
}

void peer_reply(struct host *h, const struct message *m)
{
    struct call *c;
    list_for_each (c, &h->peers.calls, link)
        if (c->request == m->request && !c->done) {
            unsigned char *into = c->reply->data;
            *c->reply = *m;
            c->reply->data = into;
            if (into && m->data)
                memcpy(into, m->data, m->len);
            call_end(c);
            return;
        }
}

void peer_broken(struct host *h)
{
    struct call *c;
    list_for_each (c, &h->peers.calls, link)
        if (c->connection && !c->done)
            call_end(c);
}

/* ---- the source: messages ------------------------------------------------------------------- */

static CO int peer_call(struct peer *p, enum message_kind kind, struct message *reply)
{
    struct message m = {.kind = kind, .claim = p->claim, .secret = p->secret};
    return peer_ask(p->host, &m, PEER_REPLY_NS, reply);
}

static int say(int rc, const char *what, struct vp_error *err)
{
    return rc ? vp_fail(err, rc, "%s: %s", what, vp_err_text(rc)) : 0;
}

static void peer_keep(void *arg)
{
    struct peer *p = arg;
    while (p->open) {
        struct message m = {.kind = MESSAGE_KEEP,
                            .from = p->host->index,
                            .to = !p->host->index,
                            .claim = p->claim,
                            .secret = p->secret};
        link_send(&p->host->all->link, &m);
        vp_ignore(co_queue_wait_until(&p->stop, reactor_now_ns() + KEEP_NS, "the next keep"),
                  "it looks again");
    }
    co_group_leave(&p->keeper, 0);
}

static CO int peer_session(struct peer *p)
{
    struct message reply = {0};
    int rc = peer_call(p, MESSAGE_SESSION, &reply);
    if (rc)
        return rc;
    p->generation = reply.generation;
    p->connection = link_connect(&p->host->all->link);
    p->lost = false;
    return 0;
}

static CO int peer_decline(void *arg, struct vp_error *err)
{
    struct message reply = {0};
    return say(peer_call(arg, MESSAGE_DECLINE, &reply), "not declined", err);
}

static CO int peer_make(void *arg, const struct migrate_offer *offer, struct reactor *beside,
                        struct vp_uuid *pool, struct vp_error *err)
{
    struct peer *p = arg;
    struct message m = {.kind = MESSAGE_MAKE, .offer = *offer, .info = *offer->info}, reply = {0};
    (void)beside;
    p->claim.move = offer->source.id;
    m.claim = p->claim;
    (void)snprintf(m.name, sizeof(m.name), "%s", offer->info->name);
    (void)snprintf(m.offer.source.peer, sizeof(m.offer.source.peer), "host-%u", p->host->index);
    int rc = peer_ask(p->host, &m, PEER_REPLY_NS, &reply);
    *pool = reply.pool;
    p->secret = reply.secret;
    if (!rc && (rc = peer_session(p)))
        vp_ignore(peer_decline(p, err), "it is declined when it has heard nothing for long");
    if (rc)
        return say(rc, "the target was not made", err);
    p->open = true;
    co_group_enter(&p->keeper);
    rc = co_spawn(peer_keep, p, "keep of a move");
    VP_VERIFY(rc, ==, 0);
    return 0;
}

static CO int peer_renew(void *arg, struct vp_error *err)
{
    return say(peer_session(arg), "no new session", err);
}

static void peer_cut(void *arg)
{
    struct peer *p = arg;
    p->lost = true;
    peer_broken(p->host);
}

static CO int peer_arrive(void *arg, enum migrate_verdict *verdict, struct vp_error *err)
{
    struct peer *p = arg;
    struct hosts *all = p->host->all;
    struct message reply = {0};
    struct model_volume *mv = model_volume_find(all->model, HOSTS_VOLUME);
    /* The volume is frozen, and the other side has flushed. */
    if (!all->arrive_flush)
        all->arrive_flush = model_flush_call(all->model, mv) + 1;
    int rc = peer_call(p, MESSAGE_ARRIVE, &reply);
    *verdict = rc && !reply.verdict ? MIGRATE_NOT_KNOWN : reply.verdict;
    if (*verdict == MIGRATE_HAS_ARRIVED)
        model_flush_answer(all->model, mv, all->arrive_flush - 1, false);
    if (*verdict == MIGRATE_HAS_NOT && !rc)
        rc = VP_E_CANCELLED;
    return say(rc, "no arrival", err);
}

static CO int peer_confirm(void *arg, struct vp_error *err)
{
    struct message reply = {0};
    return say(peer_call(arg, MESSAGE_CONFIRM, &reply), "not confirmed", err);
}

static CO void peer_close(void *arg)
{
    struct peer *p = arg;
    p->open = false;
    co_queue_wake_all(&p->stop);
    vp_ignore(co_group_wait(&p->keeper), "it reports nothing");
}

/* ---- the source: data ----------------------------------------------------------------------- */

static CO int data_call(struct peer *p, struct message *m, void *into)
{
    struct message reply = {.data = into};
    if (p->lost || link_is_broken(&p->host->all->link, p->connection))
        return VP_E_PEER_LOST;
    m->claim = p->claim;
    m->secret = p->secret;
    m->generation = p->generation;
    m->connection = p->connection;
    int rc = peer_ask(p->host, m, DATA_NS, &reply);
    if (rc == VP_E_PEER_LOST && m->connection == p->connection)
        p->lost = true; /* the connection is given up */
    return rc;
}

static CO int peer_write(void *arg, uint64_t offset, uint64_t len, const void *buf)
{
    struct message m = {.kind = MESSAGE_WRITE,
                        .offset = offset,
                        .len = len,
                        .data = (unsigned char *)(uintptr_t)buf};
    return data_call(arg, &m, NULL);
}

static CO int peer_zero(void *arg, uint64_t offset, uint64_t len)
{
    struct message m = {.kind = MESSAGE_ZERO, .offset = offset, .len = len};
    return data_call(arg, &m, NULL);
}

static CO int peer_flush(void *arg)
{
    struct message m = {.kind = MESSAGE_FLUSH};
    return data_call(arg, &m, NULL);
}

static CO int peer_read(void *arg, uint64_t offset, uint64_t len, void *buf)
{
    struct message m = {.kind = MESSAGE_READ, .offset = offset, .len = len};
    return data_call(arg, &m, buf);
}

void peer_init(struct peer *p, struct host *h, struct volumes *vs, const char *volume)
{
    static const struct migrate_peer_ops ops = {.make = peer_make,
                                                .renew = peer_renew,
                                                .cut = peer_cut,
                                                .arrive = peer_arrive,
                                                .decline = peer_decline,
                                                .confirm = peer_confirm,
                                                .close = peer_close,
                                                .write = peer_write,
                                                .zero = peer_zero,
                                                .flush = peer_flush,
                                                .read = peer_read};
    struct volume_owner_info o = {0};
    vp_ignore(volume_owner_get(vs, volume, &o), "the move is refused, then");
    *p = (struct peer){.host = h, .lost = true, .peer = {&ops, p}};
    p->claim = (struct receive_claim){.volume = o.uuid, .epoch = o.epoch};
    co_queue_init(&p->stop);
    co_group_init(&p->keeper);
}
