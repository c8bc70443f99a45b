/* See hosts.h. */
#include "tests/sim/hosts.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/verify.h"
#include "io/reactor.h"
#include "migrate/migrate.h"
#include "volumes/volumes_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEPS_MAX = 3000000 };
#define SECOND_NS UINT64_C(1000000000)
#define QUIET_NS  (5 * SECOND_NS)   /* settled for so long: nothing is on its way any more */
#define EXIT_NS   (400 * SECOND_NS) /* after the mishap every state has ended by then */

unsigned host_index(const struct host *h)
{
    return h->index;
}

/* ---- moments ------------------------------------------------------------------------------ */

static uint64_t drawn(const struct hosts *h, const char *what)
{
    uint64_t v =
        h->seed + position.mishap.event * 31 + position.mishap.kind * 7 + position.mishap.disk;
    while (*what)
        v = v * 131 + (unsigned char)*what++;
    return hash_mix(v);
}

static uint64_t delay_of(const struct hosts *h)
{
    static const uint64_t ns[] = {SECOND_NS / 1000, SECOND_NS, 20 * SECOND_NS, 90 * SECOND_NS};
    return ns[drawn(h, "delay") % (sizeof(ns) / sizeof(ns[0]))];
}

static void heal(void *arg)
{
    struct hosts *h = arg;
    for (unsigned from = 0; from < HOSTS; from++)
        link_cut(&h->link, from, !from, false);
}

static void notice_break(void *arg)
{
    peer_broken(arg);
}

static void tell_break(void *arg)
{
    struct hosts *h = arg;
    if (sim_hosts_is_up(h->sim, 0))
        sim_hosts_on(h->sim, 0, notice_break, &h->host[0]);
}

/* As the volume's own, in memory. */
static bool has_volume(const struct host *h)
{
    struct volume_owner_info o;
    return !volume_owner_get(h->rig.vs[0], HOSTS_VOLUME, &o) && o.ownership != VOLUME_TARGET;
}

static void meet(struct hosts *h)
{
    const struct mishap_at *at = &position.mishap;
    struct host *x = &h->host[at->disk % HOSTS];
    h->met = true;
    h->met_event = h->model->event;
    if (at->kind == MISHAP_KILL || at->kind == MISHAP_POWER) {
        x->left = sim_snapshot_take(x->rig.w);
        x->ends = x->crashed = true;
        x->forgets = has_volume(x);
        sim_world_cut(x->rig.w);
        link_break(&h->link);
        if (at->disk != 0)
            sim_hosts_later(h->sim, 0, tell_break, h);
    } else if (at->kind == MISHAP_CUT) {
        for (unsigned from = 0; from < HOSTS; from++)
            if (at->disk != 2 - from)
                link_cut(&h->link, from, !from, true);
        sim_hosts_later(h->sim, delay_of(h), heal, h);
    } else {
        for (unsigned i = 0; i < at->disk / 2; i++) /* other fates */
            (void)sim_hosts_below(h->sim, 1);
        link_break(&h->link);
        if (at->disk % 2 == 0)
            sim_hosts_later(h->sim, 0, tell_break, h);
    }
}

/* Before an event of the model. */
static void moment(struct hosts *h)
{
    if (!h->recording)
        return;
    if (h->moment)
        h->moment(h);
    if (position.mishap.kind && !h->met && h->model->event == position.mishap.event)
        meet(h);
}

void host_event(struct host *h)
{
    moment(h->all);
}

static bool message_moment(void *arg, unsigned from)
{
    struct hosts *h = arg;
    if (h->host[from].ends)
        return false;
    moment(h);
    h->model->event++;
    co_queue_wake_all(&h->host[from].rig.events);
    return !h->host[from].ends;
}

static void message_receive(void *arg, const struct message *m)
{
    struct hosts *h = arg;
    peer_receive(&h->host[m->to], m);
}

/* ---- the auditor -------------------------------------------------------------------------- */

void host_served(struct host *h)
{
    struct hosts *all = h->all;
    struct volume_owner_info o;
    if (volume_owner_get(h->rig.vs[0], HOSTS_VOLUME, &o)) {
        rig_fail(&h->rig, "a request was served of a volume that is not here");
        return;
    }
    bool older = o.epoch < all->served_epoch;
    if (older || (o.epoch == all->served_epoch && all->served_host != h->index))
        rig_fail(&h->rig, "served with epoch %" PRIu64 " after host %u had served epoch %" PRIu64,
                 o.epoch, all->served_host, all->served_epoch);
    all->served_epoch = o.epoch;
    all->served_host = h->index;
}

/* Whether a request of a client would be served now. */
static bool would_serve(struct host *h)
{
    struct volume_owner_info o;
    const struct rig_move *x = h->rig.move;
    if (!h->reactor || h->ends || !h->rig.vs[0] || volume_owner_get(h->rig.vs[0], HOSTS_VOLUME, &o))
        return false;
    if (o.ownership == VOLUME_OWNER || o.ownership == VOLUME_ARRIVED)
        return !o.in_doubt;
    if (o.ownership != VOLUME_INTENT || o.in_doubt || !x || !x->m)
        return false;
    enum migrate_phase phase = migrate_status(x->m)->phase;
    const struct rig_open *open = rig_find_open(&h->rig, HOSTS_VOLUME);
    if (phase == MIGRATE_SWITCHING)
        return open && open->front->gate != FRONT_FROZEN;
    return phase < MIGRATE_SWITCHING || phase == MIGRATE_UNDOING;
}

static void audit(struct hosts *h)
{
    if (would_serve(&h->host[0]) && would_serve(&h->host[1]))
        rig_fail(&h->host[0].rig, "both hosts serve the volume");
}

/* ---- a host begins, and ends -------------------------------------------------------------- */

/* An error that nothing explains fails the run, also when it is only logged. */
static void on_log(enum vp_log_level level, const char *line, void *arg)
{
    struct hosts *h = arg;
    if (level == VP_LOG_ERROR)
        rig_fail(&h->host[0].rig, "logged: %s", line);
}

static void no_log(enum vp_log_level level, const char *line, void *arg)
{
    (void)level, (void)line, (void)arg;
}

static void host_begin(struct host *h, struct sim_world *w)
{
    struct hosts *all = h->all;
    h->rig = (struct rig){.w = w, .config = all->sc->config, .model = all->model, .host = h};
    peers_init(&h->peers);
    h->serves = h->ends = false;
    h->reactor = rig_begin(&h->rig);
    vp_log_set_sink(on_log, all);
    sim_hosts_start(all->sim, h->index, w, h->reactor, host_main, h);
}

static void failure_stays(struct host *h)
{
    if (h->rig.failed && !h->all->why[0])
        (void)snprintf(h->all->why, sizeof(h->all->why), "%s", h->rig.why);
}

static void host_end(struct host *h)
{
    struct hosts *all = h->all;
    failure_stays(h);
    if (!h->reactor)
        return;
    sim_hosts_stop(all->sim, h->index);
    h->rig.move = NULL;
    rig_end(&h->rig, h->reactor);
    h->reactor = NULL;
    h->serves = false;
    peers_forget(&h->peers);
    if (!all->is_copy)
        sim_world_free(h->rig.w);
    h->rig.w = NULL;
    vp_log_set_sink(on_log, all);
}

/* ---- a host that ends, and begins again --------------------------------------------------- */

static struct sim_world *world_after(struct host *h)
{
    unsigned n = sim_snapshot_pending(h->left);
    struct sim_choice *c = calloc(n + 1, sizeof(*c));
    VP_VERIFY_TRUE(c != NULL);
    uint64_t how = drawn(h->all, "choices"), one = how;
    for (unsigned i = 0; i < n; i++) {
        one = hash_mix(one + i);
        c[i].fate = how % 4 == 0   ? SIM_DROP
                    : how % 4 == 1 ? SIM_KEEP
                                   : (enum sim_fate)(one % (how % 4 == 2 ? 2 : 3));
        c[i].units = one >> 8;
    }
    bool kill = position.mishap.kind == MISHAP_KILL;
    uint64_t seed = hash_mix(h->all->seed + 77);
    for (unsigned i = 0; kill && i < n; i++)
        if (c[i].fate == SIM_TEAR)
            c[i].fate = SIM_DROP;
    struct sim_world *w =
        kill ? sim_world_after_kill(h->left, c, seed) : sim_world_from_snapshot(h->left, c, seed);
    free(c);
    sim_snapshot_free(h->left);
    h->left = NULL;
    return w;
}

static void begin_again(void *arg)
{
    struct host *h = arg;
    host_begin(h, world_after(h));
}

static void bury(struct host *h)
{
    struct hosts *all = h->all;
    if (h->index == 0) { /* with its clients */
        all->recording = false;
        all->body_ended = true;
    }
    host_end(h);
    sim_hosts_later(all->sim, delay_of(all), begin_again, h);
}

/* ---- the end ------------------------------------------------------------------------------ */

static int any_left(const struct volume_left *l, void *arg)
{
    (void)l, (void)arg;
    return 1;
}

/* The one that owns the volume; NULL: that is not settled, or not known on both sides. */
static struct host *owner_of(struct hosts *h)
{
    struct host *owner = NULL;
    if (!h->body_ended || peer_is_receiving(&h->host[0]) || peer_is_receiving(&h->host[1]))
        return NULL;
    for (unsigned i = 0; i < HOSTS; i++) {
        struct host *x = &h->host[i];
        struct volume_owner_info o;
        if (!x->serves || x->rig.move || volumes_left_each(x->rig.vs[0], any_left, NULL))
            return NULL;
        if (volume_owner_get(x->rig.vs[0], HOSTS_VOLUME, &o))
            continue;
        if (o.ownership != VOLUME_OWNER || owner) /* ARRIVED: it is to be confirmed yet */
            return NULL;
        owner = x;
    }
    return owner;
}

static bool has_failed(const struct hosts *h)
{
    return h->why[0] || h->host[0].rig.failed || h->host[1].rig.failed;
}

/* Until all is settled and was quiet for some time, and the hosts have closed their pools. */
static void run_all(struct hosts *h, struct host **owner)
{
    uint64_t quiet_ns = 0, from_ns = 0;
    for (unsigned steps = 0; !has_failed(h) && !(h->host[0].done && h->host[1].done); steps++) {
        bool goes_on = sim_hosts_step(h->sim);
        for (unsigned i = 0; i < HOSTS; i++)
            if (h->host[i].ends && h->host[i].reactor)
                bury(&h->host[i]);
        uint64_t now_ns = sim_hosts_now_ns(h->sim);
        from_ns = from_ns || !h->body_ended ? from_ns : now_ns;
        if (!h->closing) {
            audit(h);
            *owner = owner_of(h);
            quiet_ns = !*owner ? 0 : quiet_ns ? quiet_ns : now_ns;
            h->closing = quiet_ns && now_ns - quiet_ns > QUIET_NS;
        }
        if (!goes_on || steps > STEPS_MAX || (from_ns && now_ns - from_ns > EXIT_NS))
            rig_fail(&h->host[0].rig, "it does not come to an end: %s",
                     *owner ? "somebody waits for ever" : "nobody owns the volume");
    }
}

/* What the closed pool of a host holds. The owner's volume may show what the mishap left of it. */
static void verify_host(struct hosts *h, struct host *x, bool owns)
{
    struct model *none = model_new(h->seed);
    bool forgets = owns && x->forgets;
    char why[900];
    struct sim_snapshot *s = sim_snapshot_take(x->rig.w);
    unsigned n = sim_snapshot_pending(s);
    struct sim_choice *keep = calloc(n + 1, sizeof(*keep));
    VP_VERIFY_TRUE(keep != NULL);
    for (unsigned i = 0; i < n; i++)
        keep[i].fate = SIM_KEEP;
    const struct crash_state state = {
        .config = h->sc->config,
        .model = owns ? h->model : none,
        .snapshot = s,
        .choices = keep,
        .killed = !forgets || position.mishap.kind == MISHAP_KILL,
        .event = forgets ? h->met_event : h->model->event,
        .seed = h->seed + 3,
    };
    if (!verify_state(&state, NULL, why, sizeof(why)))
        (void)snprintf(h->why, sizeof(h->why), "host %u at the end: %s", x->index, why);
    vp_log_set_sink(on_log, h);
    free(keep);
    sim_snapshot_free(s);
    model_free(none);
}

static void hosts_begin(struct hosts *h)
{
    h->sim = sim_hosts_new(h->seed);
    h->model = model_new(h->seed);
    h->model->event = 1;
    link_init(&h->link, h->sim);
    h->link.receive = message_receive;
    h->link.moment = message_moment;
    h->link.arg = h;
    for (unsigned i = 0; i < HOSTS; i++) {
        h->host[i] = (struct host){.all = h, .index = i};
        host_begin(&h->host[i], rig_world_new(h->sc->config, h->seed + 11 * i));
    }
}

bool hosts_run(struct hosts *h, const struct scenario *sc, uint64_t seed,
               void (*moment_fn)(struct hosts *h), void *arg)
{
    struct host *owner = NULL;
    *h = (struct hosts){.sc = sc, .seed = seed, .moment = moment_fn, .arg = arg};
    hosts_begin(h);
    run_all(h, &owner);
    for (unsigned i = 0; i < HOSTS && !has_failed(h); i++)
        verify_host(h, &h->host[i], owner == &h->host[i]);
    for (unsigned i = 0; i < HOSTS; i++)
        failure_stays(&h->host[i]);
    return !h->why[0];
}

void hosts_free(struct hosts *h)
{
    for (unsigned i = 0; i < HOSTS; i++) {
        host_end(&h->host[i]);
        sim_snapshot_free(h->host[i].left);
    }
    vp_log_set_sink(no_log, NULL);
    link_fini(&h->link);
    sim_hosts_free(h->sim);
    model_free(h->model);
}
