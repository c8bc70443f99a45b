/* A move to another daemon, as the mover sees it (move_out.h). */
#include "control/move_out.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/verify.h"
#include "control/peer_protocol.h"
#include "io/net.h"
#include "io/reactor.h"
#include "migrate/link.h"

#include <stdlib.h>
#include <string.h>

#define MS_NS       UINT64_C(1000000)
#define CALL_MS     5000U  /* for an answer */
#define COMMIT_MS   10000U /* … for which the other daemon waits for its disks */
#define KEEP_NS     (UINT64_C(5000) * MS_NS)
#define AGAIN_NS    (UINT64_C(1000) * MS_NS)
#define CONFIRM_MAX 2U /* attempts: the first one may find a connection that was closed */
#define SECRET_MAX  64

/* Connections of a session. Each has a coroutine here, and at the other daemon what a connection of
 * an NBD client has there. */
#define WAY_BULK 2U /* … for what is copied */
#define WAYS     (WAY_BULK + 1)
#define WAYS_MS  10000U /* until all are there */

struct way {
    struct link *link; /* on the source's reactor; NULL: there is none */
    unsigned requests; /* under way */
};

struct move_out {
    struct remote remote;
    const bool *stopping; /* the daemon's */
    char *to;
    struct receive_claim claim;
    struct vp_uuid pool; /* the target's */
    char secret[SECRET_MAX + 1];
    uint64_t size_bytes;
    struct reactor *on;   /* the source's; NULL: nothing was made */
    struct way way[WAYS]; /* the last one: of mirrored writes */
    bool ending, cut_wanted;
    struct co_queue keep, cut;
    struct co_group helpers; /* coroutines that have this structure in their hands */
};

int move_out_new(const char *address, const char *to, const bool *stopping, struct move_out **out,
                 struct vp_error *err)
{
    struct move_out *o = calloc(1, sizeof(*o));
    if (!o)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    int rc = remote_init(&o->remote, address, err);
    o->to = rc ? NULL : strdup(to);
    if (!o->to) {
        free(o);
        return rc ? rc : vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    }
    o->stopping = stopping;
    co_queue_init(&o->keep);
    co_queue_init(&o->cut);
    co_group_init(&o->helpers);
    *out = o;
    return 0;
}

void move_out_free(struct move_out *o)
{
    if (!o)
        return;
    VP_VERIFY_TRUE(!o->way[0].link && !o->helpers.running);
    remote_fini(&o->remote);
    free(o->to);
    free(o);
}

/* "tcp:host:port: it does not answer" */
static int say_who(const struct remote *r, int rc, struct vp_error *err)
{
    const struct vp_error why = *err;
    return rc ? vp_fail(err, rc, "%s: %.250s", r->text, why.text) : 0;
}

/* ---- sessions ------------------------------------------------------------------------------ */

static json_t *key_json(const struct move_out *o)
{
    char id[VP_UUID_TEXT];
    return json_pack("{s:s, s:s}", "id", vp_uuid_format(o->claim.move, id), "secret", o->secret);
}

/* What waits for them ends soon. */
static void ways_cut(struct move_out *o)
{
    for (unsigned i = 0; i < WAYS; i++)
        if (o->way[i].link)
            link_cut(o->way[i].link);
}

static CO int ways_end(void *arg)
{
    struct move_out *o = arg;
    ways_cut(o);
    for (unsigned i = 0; i < WAYS; i++) {
        struct link *l = o->way[i].link;
        o->way[i].link = NULL;
        link_close(l);
        VP_VERIFY(o->way[i].requests, ==, 0U);
    }
    return 0;
}

struct session_call {
    struct move_out *move;
    struct remote_handover handover;
    struct vp_error *err;
};

static int way_check(const struct link *l, uint64_t size_bytes, struct vp_error *err)
{
    if (link_size(l) != size_bytes)
        return vp_fail(err, VP_E_INVALID, "its volume has %llu bytes instead of %llu",
                       (unsigned long long)link_size(l), (unsigned long long)size_bytes);
    if (!link_flushes_all(l))
        return vp_fail(err, VP_E_NOT_SUPPORTED, "it does not flush all connections at once");
    return 0;
}

static CO int way_open(struct session_call *c, uint64_t deadline_ns, struct link **out)
{
    int fd;
    uint64_t now_ns = reactor_now_ns(), left_ns = deadline_ns - min_u64(now_ns, deadline_ns);
    unsigned left_ms = (unsigned)(left_ns / MS_NS);
    int rc = remote_handover_run(&c->handover, left_ms < CALL_MS ? left_ms : CALL_MS, &fd, c->err);
    if (!rc)
        rc = link_open(fd, "", reactor_now_ns() + CALL_MS * MS_NS, out, c->err);
    if (rc)
        return rc;
    rc = way_check(*out, c->move->size_bytes, c->err);
    if (rc)
        link_close(*out);
    return rc;
}

/* All of them, or none. */
static CO int session_on_reactor(void *arg)
{
    struct session_call *c = arg;
    struct link *l[WAYS];
    uint64_t deadline_ns = reactor_now_ns() + WAYS_MS * MS_NS;
    unsigned n = 0;
    int rc = 0;
    while (n < WAYS && !rc) {
        rc = way_open(c, deadline_ns, &l[n]);
        n += !rc;
    }
    for (unsigned i = 0; i < n; i++)
        if (rc)
            link_close(l[i]);
        else
            c->move->way[i].link = l[i];
    return rc;
}

static CO int session_open(struct move_out *o, uint64_t generation, struct vp_error *err)
{
    struct session_call c = {.move = o, .err = err};
    json_t *params = key_json(o);
    if (params && json_object_set_new(params, "generation", json_integer((json_int_t)generation))) {
        json_decref(params);
        params = NULL;
    }
    int rc = remote_handover_init(&c.handover, &o->remote, "peer.data", params);
    if (rc)
        return vp_fail(err, rc, "out of memory");
    rc = reactor_call_for_client(o->on, session_on_reactor, &c);
    remote_handover_fini(&c.handover);
    return rc;
}

/* The connections before these have ended, or there were none. */
static CO int session_begin(struct move_out *o, struct vp_error *err)
{
    json_t *result;
    int rc = remote_call(&o->remote, "peer.session", key_json(o), COMMIT_MS, &result, err);
    if (rc)
        return rc;
    json_int_t generation = json_integer_value(json_object_get(result, "generation"));
    json_decref(result);
    return session_open(o, (uint64_t)generation, err);
}

/* ---- silence ------------------------------------------------------------------------------- */

static int cut_on_reactor(void *arg)
{
    ways_cut(arg);
    return 0;
}

/* An error: the other daemon could not be asked twice, one after the other. A connection that was
 * closed there meanwhile is one of them. */
static CO int keep_ask(struct move_out *o)
{
    int rc = VP_E_PEER_LOST;
    for (unsigned i = 0; rc == VP_E_PEER_LOST && !o->ending && i < 2; i++) {
        struct vp_error err;
        json_t *result;
        rc = remote_call(&o->remote, "peer.keep", key_json(o), CALL_MS, &result, &err);
        json_decref(result);
        if (rc)
            vp_debug("%s: %s", o->remote.text, err.text);
    }
    return rc;
}

/*
 * A network that loses everything says nothing, and TCP finds out after a quarter of an hour. So a
 * daemon that does not answer here loses its connections for data, and who moves data tries to make
 * new ones for as long as after any other break. Other errors reach who moves data as well.
 */
static CO void keep_run(void *arg)
{
    struct move_out *o = arg;
    while (!o->ending) {
        int rc =
            co_queue_wait_until(&o->keep, reactor_now_ns() + KEEP_NS, "a move to another host");
        if (rc != VP_E_TIMED_OUT || o->ending)
            continue;
        rc = keep_ask(o);
        if (rc == VP_E_PEER_LOST && !o->ending)
            vp_ignore(reactor_call(o->on, cut_on_reactor, o), "it does not fail");
    }
    co_group_leave(&o->helpers, 0);
}

/* It waits for its work from the begin on, since a cut is wanted when everything else hangs. */
static CO void cut_run(void *arg)
{
    struct move_out *o = arg;
    while (!o->ending || o->cut_wanted) {
        if (o->cut_wanted) {
            o->cut_wanted = false;
            vp_ignore(reactor_call(o->on, cut_on_reactor, o), "it does not fail");
        } else {
            co_queue_wait(&o->cut, "a cut of a move to another host");
        }
    }
    co_group_leave(&o->helpers, 0);
}

static int helper_begin(struct move_out *o, void (*fn)(void *arg), const char *name,
                        struct vp_error *err)
{
    co_group_enter(&o->helpers);
    int rc = co_spawn(fn, o, name);
    if (!rc)
        return 0;
    co_group_leave(&o->helpers, 0);
    return vp_fail(err, rc, "too much is going on: try again");
}

/* When this fails `close` ends those that have begun. */
static int helpers_begin(struct move_out *o, struct vp_error *err)
{
    int rc = helper_begin(o, keep_run, "silence of a move to another host", err);
    return rc ? rc : helper_begin(o, cut_run, "end of connections to another host", err);
}

/* ---- messages ------------------------------------------------------------------------------ */

static CO int out_decline(void *arg, struct vp_error *err)
{
    struct move_out *o = arg;
    json_t *result;
    int rc = remote_call(&o->remote, "peer.decline", peer_claim_json(&o->claim, o->pool), COMMIT_MS,
                         &result, err);
    json_decref(result);
    return say_who(&o->remote, rc, err);
}

/* What peer.make has answered. */
static int made_decode(struct move_out *o, const json_t *made, struct vp_error *err)
{
    const char *pool = json_string_value(json_object_get(made, "pool"));
    const char *secret = json_string_value(json_object_get(made, "secret"));
    if (!pool || !vp_uuid_parse(pool, &o->pool) || !secret || strlen(secret) > SECRET_MAX)
        return vp_fail(err, VP_E_PEER_LOST, "it does not answer as a daemon of vpool does");
    memcpy(o->secret, secret, strlen(secret) + 1);
    return 0;
}

static CO int out_open(struct move_out *o, struct vp_error *err)
{
    struct vp_error ignored;
    int rc = session_begin(o, err);
    if (!rc)
        rc = helpers_begin(o, err);
    if (!rc)
        return 0;
    vp_ignore(reactor_call(o->on, ways_end, o), "it does not fail");
    vp_ignore(out_decline(o, &ignored), "it gives up a source that is silent");
    return rc;
}

static CO int out_make(void *arg, const struct migrate_offer *offer, struct reactor *beside,
                       struct vp_uuid *pool, struct vp_error *err)
{
    struct move_out *o = arg;
    json_t *made;
    int rc =
        remote_call(&o->remote, "peer.make", peer_offer_json(offer, o->to), COMMIT_MS, &made, err);
    if (!rc)
        rc = made_decode(o, made, err);
    json_decref(made);
    if (rc)
        return say_who(&o->remote, rc, err);
    o->claim = (struct receive_claim){
        .move = offer->source.id, .volume = offer->info->uuid, .epoch = offer->epoch};
    o->size_bytes = offer->info->options.size_bytes;
    o->on = beside;
    *pool = o->pool;
    return say_who(&o->remote, out_open(o, err), err);
}

static CO int out_renew(void *arg, struct vp_error *err)
{
    struct move_out *o = arg;
    vp_ignore(reactor_call(o->on, ways_end, o), "it does not fail");
    return session_begin(o, err);
}

static int verdict_decode(const json_t *result, enum migrate_verdict *verdict, struct vp_error *err)
{
    const char *text = json_string_value(json_object_get(result, "verdict"));
    const char *why = json_string_value(json_object_get(result, "why"));
    if (text && strcmp(text, "arrived") == 0) {
        *verdict = MIGRATE_HAS_ARRIVED;
        return 0;
    }
    if (!text || strcmp(text, "not-arrived") != 0)
        return vp_fail(err, VP_E_PEER_LOST, "it does not answer as a daemon of vpool does");
    *verdict = MIGRATE_HAS_NOT;
    int rc = vp_fail(err, VP_E_NOT_FOUND, "%.400s", why && why[0] ? why : "it was declined there");
    bytes_make_printable(err->text);
    return rc;
}

static CO int verdict_ask(struct remote *r, const char *method, const struct receive_claim *claim,
                          struct vp_uuid pool, enum migrate_verdict *verdict, struct vp_error *err)
{
    json_t *result;
    *verdict = MIGRATE_NOT_KNOWN;
    int rc = remote_call(r, method, peer_claim_json(claim, pool), COMMIT_MS, &result, err);
    if (!rc)
        rc = verdict_decode(result, verdict, err);
    json_decref(result);
    return say_who(r, rc, err);
}

/* No request is under way. The other daemon ends the session before it works on this, so that
 * clients, who wait, need not wait for the end of our connections too: out_close has it. */
static CO int out_arrive(void *arg, enum migrate_verdict *verdict, struct vp_error *err)
{
    struct move_out *o = arg;
    return verdict_ask(&o->remote, "peer.arrive", &o->claim, o->pool, verdict, err);
}

/* What is not confirmed now is confirmed later (migrations_ask.c). */
static CO int confirm(struct remote *r, const struct receive_claim *claim, struct vp_uuid pool,
                      const bool *stopping, struct vp_error *err)
{
    int rc = VP_E_PEER_LOST;
    for (unsigned i = 0; rc && i < CONFIRM_MAX && !(i && *stopping); i++) {
        json_t *result;
        rc = remote_call(r, "peer.confirm", peer_claim_json(claim, pool), COMMIT_MS, &result, err);
        json_decref(result);
        if (rc && !*stopping)
            vp_ignore(co_sleep_ns(AGAIN_NS), "nobody cancels it");
    }
    return say_who(r, rc, err);
}

static CO int out_confirm(void *arg, struct vp_error *err)
{
    struct move_out *o = arg;
    return confirm(&o->remote, &o->claim, o->pool, o->stopping, err);
}

static CO void out_close(void *arg)
{
    struct move_out *o = arg;
    o->ending = true;
    co_queue_wake_all(&o->keep);
    co_queue_wake_all(&o->cut);
    vp_ignore(co_group_wait(&o->helpers), "they report nothing");
    if (o->on)
        vp_ignore(reactor_call(o->on, ways_end, o), "it does not fail");
    remote_fini(&o->remote);
}

/* ---- data ---------------------------------------------------------------------------------- */

static void out_cut(void *arg)
{
    struct move_out *o = arg;
    o->cut_wanted = true;
    co_queue_wake_all(&o->cut);
}

/* Of those for what is copied, the one with the fewest requests. */
static struct way *way_bulk(struct move_out *o)
{
    struct way *best = &o->way[0];
    for (unsigned i = 1; i < WAY_BULK; i++)
        if (o->way[i].requests < best->requests)
            best = &o->way[i];
    return best;
}

static struct way *way_mirrored(struct move_out *o)
{
    return &o->way[WAY_BULK];
}

/* Zeros: `buf` is NULL. */
static CO int way_write(struct move_out *o, struct way *w, uint64_t offset, uint64_t len,
                        const void *buf)
{
    if (!w->link)
        return VP_E_PEER_LOST;
    w->requests++;
    int rc = buf ? link_write(w->link, offset, len, buf) : link_zero(w->link, offset, len);
    w->requests--;
    if (rc == VP_E_PEER_LOST)
        ways_cut(o);
    return rc;
}

static CO int out_write(void *arg, uint64_t offset, uint64_t len, const void *buf)
{
    return way_write(arg, way_bulk(arg), offset, len, buf);
}

static CO int out_zero(void *arg, uint64_t offset, uint64_t len)
{
    return way_write(arg, way_bulk(arg), offset, len, NULL);
}

static CO int out_write_mirrored(void *arg, uint64_t offset, uint64_t len, const void *buf)
{
    return way_write(arg, way_mirrored(arg), offset, len, buf);
}

static CO int out_zero_mirrored(void *arg, uint64_t offset, uint64_t len)
{
    return way_write(arg, way_mirrored(arg), offset, len, NULL);
}

static CO int out_read(void *arg, uint64_t offset, uint64_t len, void *buf)
{
    struct move_out *o = arg;
    struct way *w = way_bulk(o);
    if (!w->link)
        return VP_E_PEER_LOST;
    w->requests++;
    int rc = link_read(w->link, offset, len, buf);
    w->requests--;
    if (rc == VP_E_PEER_LOST)
        ways_cut(o);
    return rc;
}

/* Whichever connection it takes, it makes durable what all were answered (way_check). */
static CO int out_flush(void *arg)
{
    struct move_out *o = arg;
    struct way *w = way_bulk(o);
    if (!w->link)
        return VP_E_PEER_LOST;
    w->requests++;
    int rc = link_flush(w->link);
    w->requests--;
    if (rc == VP_E_PEER_LOST)
        ways_cut(o);
    return rc;
}

struct migrate_peer move_out_peer(struct move_out *o)
{
    static const struct migrate_peer_ops ops = {
        .make = out_make,
        .renew = out_renew,
        .cut = out_cut,
        .arrive = out_arrive,
        .decline = out_decline,
        .confirm = out_confirm,
        .close = out_close,
        .write = out_write,
        .zero = out_zero,
        .write_mirrored = out_write_mirrored,
        .zero_mirrored = out_zero_mirrored,
        .read = out_read,
        .flush = out_flush,
    };
    return (struct migrate_peer){&ops, o};
}

CO int move_out_decide(const char *address, struct vp_uuid pool, const struct receive_claim *claim,
                       enum migrate_verdict *verdict, struct vp_error *err)
{
    struct remote r;
    *verdict = MIGRATE_NOT_KNOWN;
    int rc = remote_init(&r, address, err);
    if (rc)
        return rc;
    rc = verdict_ask(&r, "peer.decide", claim, pool, verdict, err);
    remote_fini(&r);
    return *verdict == MIGRATE_NOT_KNOWN ? rc : 0;
}

CO int move_out_confirm(const char *address, struct vp_uuid pool, const struct receive_claim *claim,
                        const bool *stopping, struct vp_error *err)
{
    struct remote r;
    int rc = remote_init(&r, address, err);
    if (rc)
        return rc;
    rc = confirm(&r, claim, pool, stopping, err);
    remote_fini(&r);
    return rc;
}
