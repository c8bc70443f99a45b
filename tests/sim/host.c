/* One of the hosts: its clients, its moves, and its life from import to close. See hosts.h. */
#include "tests/sim/hosts.h"

#include "base/verify.h"
#include "io/reactor.h"
#include "migrate/migrate.h"

#include <string.h>

enum { CLIENT_WRITES = 3, CLIENT_BLOCKS = 16, FREEZE_MS = 10000 };
#define SECOND_NS UINT64_C(1000000000)

/* ---- the move ----------------------------------------------------------------------------- */

/* Its clients get the rest of their answers, flush once more, and go. */
static CO void move_left(void *arg, struct volume *source)
{
    struct rig_move *x = arg;
    struct rig *r = x->r;
    struct front_client c;
    unsigned char sector[STAMP_SECTOR];
    front_client_init(&c, volume_front(source));
    int rc = front_flush(&c);
    if (rc)
        rig_fail(r, "a flush of a volume that has left: %s", vp_err_name(rc));
    rc = front_read(&c, 0, sizeof(sector), sector);
    if (rc != VP_E_VOLUME_LEFT)
        rig_fail(r, "a volume that has left is read: %s", rc ? vp_err_name(rc) : "it is there");
    rig_withdraw(r, x->name);
}

static CO void move_withdraw(void *arg, struct volume *source)
{
    struct rig_move *x = arg;
    (void)source;
    rig_withdraw(x->r, x->name);
}

static CO int migrate_end(struct host *h, struct rig_move *x)
{
    const struct migrate_status *s = migrate_status(x->m);
    int rc = s->phase == MIGRATE_CANCELLED && x->cancelled ? 0 : s->rc;
    if (s->phase == MIGRATE_FAILED && strstr(s->error, "never at this rate"))
        rc = 0;
    if (rc && !h->all->met)
        rig_fail(&h->rig, "a move is %s: %s", migrate_phase_name(s->phase), s->error);
    if (s->phase == MIGRATE_DONE && s->verify && !s->checked_bytes && !h->all->met)
        rig_fail(&h->rig, "a verified move has compared nothing");
    migrate_free(x->m);
    return rc;
}

CO int host_migrate(struct host *h, const struct op *op)
{
    struct rig *r = &h->rig;
    struct rig_move x = {.r = r, .name = op->volume, .to = 1};
    const struct migrate_exports exports = {
        .left = move_left, .withdraw = move_withdraw, .arg = &x};
    struct peer p;
    struct vp_error err = {0};
    peer_init(&p, h, r->vs[0], op->volume);
    const struct migrate_options o = {.from = r->vs[0],
                                      .volume = x.name,
                                      .name = x.name,
                                      .peer = &p.peer,
                                      .peer_name = "sim:1",
                                      .to_name = "sim2/" HOSTS_VOLUME,
                                      .mode = op->at ? (enum migrate_mode)op->at : MIGRATE_OFFLINE,
                                      .freeze_ms = FREEZE_MS,
                                      .pause_ms = 1,
                                      .mirror_ms = op->count,
                                      .verify = op->flags & OP_VERIFIED,
                                      .exports = &exports};
    r->move = &x;
    int rc = migrate_start(&o, &x.m, &err);
    if (!rc) {
        migrate_wait(x.m);
        rc = migrate_end(h, &x);
    } else if (!err.text[0]) {
        rig_fail(r, "a move does not begin and does not say why");
    }
    r->move = NULL;
    co_queue_wake_all(&r->events);
    return rc;
}

bool host_expects(const struct host *h, const struct op *op, int rc)
{
    if (op->kind == OP_MIGRATE)
        return h->all->met;
    return rc == VP_E_VOLUME_LEFT || rc == VP_E_CANCELLED || rc == VP_E_NOT_FOUND;
}

/* ---- the life of a host --------------------------------------------------------------------- */

static CO void doze(uint64_t ns)
{
    vp_ignore(co_sleep_ns(ns), "nobody cancels it");
}

static void monitor_run(void *arg)
{
    struct host *h = arg;
    while (!h->all->closing && !h->rig.failed) {
        peer_monitor(h);
        doze(SECOND_NS);
    }
    co_group_leave(&h->monitor, 0);
}

/* A client that comes again and again. After a crash of its host only the end of the run says what
 * the volume may show. */
static CO void client_turn(struct host *h, unsigned turn)
{
    const struct op reads = {OP_READ, HOSTS_VOLUME, BLOCKS(0), BLOCKS(CLIENT_BLOCKS), 0};
    const struct op writes = {OP_WRITE, HOSTS_VOLUME, BLOCKS(turn % 3 * 4), BLOCKS(2), 0};
    const struct op flushes = {OP_FLUSH, HOSTS_VOLUME, 0, 0, 0};
    struct rig_open *o = rig_volume(&h->rig, HOSTS_VOLUME);
    struct model_sectors one;
    if (!o)
        return;
    if (h->forgets) {
        vp_ignore(rig_read_blocks(&h->rig, o, h->all->model->volume[0].uid, 0, 1, &one),
                  "the end of the run looks at it");
    } else {
        vp_ignore(rig_op(&h->rig, &reads), "it has reported");
        if (turn < CLIENT_WRITES)
            vp_ignore(rig_op(&h->rig, &writes), "it has reported");
        if (turn == 1)
            vp_ignore(rig_op(&h->rig, &flushes), "it has reported");
    }
    rig_close_volume(&h->rig, HOSTS_VOLUME);
}

static CO void client_turns(struct host *h)
{
    for (unsigned turn = 0; !h->all->closing && !h->rig.failed; turn++) {
        if (turn < 2 * CLIENT_WRITES || turn % 16 == 0)
            client_turn(h, turn);
        doze(SECOND_NS / 4 + sim_below(h->rig.w, SECOND_NS / 4));
    }
}

static CO bool host_open(struct host *h)
{
    struct rig *r = &h->rig;
    struct vp_error err = {0};
    if (!h->crashed) {
        bool ok = rig_create_pools(r);
        if (ok && h->index == 0)
            rig_ops(r, h->all->sc->setup);
        return ok && !r->failed;
    }
    int rc = rig_import_one(r, 0, &err);
    if (!rc)
        rc = migrate_settle(r->vs[0], r->vs, 1, NULL);
    if (rc)
        rig_fail(r, "host %u: not imported: %s: %s", h->index, vp_err_name(rc), err.text);
    return !rc;
}

static CO void host_body(struct host *h)
{
    struct hosts *all = h->all;
    while (!all->host[!h->index].serves && !h->rig.failed)
        doze(SECOND_NS / 100);
    all->recording = true;
    rig_ops(&h->rig, all->sc->body ? all->sc->body : all->sc->make(position.variant));
    all->recording = false;
    all->body_ended = true;
    rig_close_volume(&h->rig, HOSTS_VOLUME);
}

void host_main(void *arg)
{
    struct host *h = arg;
    struct rig *r = &h->rig;
    if (!host_open(h))
        return;
    h->serves = true;
    r->withdrawn = true; /* the volume is not always to be opened */
    if (h->index == 0 && !h->crashed)
        host_body(h);
    co_group_init(&h->monitor);
    co_group_enter(&h->monitor);
    int rc = co_spawn(monitor_run, h, "monitor");
    VP_VERIFY(rc, ==, 0);
    client_turns(h);
    h->serves = false;
    vp_ignore(co_group_wait(&h->monitor), "it reports to the rig");
    peers_close(h);
    rc = rig_close_pools(r);
    if (rc)
        rig_fail(r, "host %u: its pool is not closed: %s", h->index, vp_err_name(rc));
    h->done = true;
}
