/* See link.h. */
#include "tests/sim/link.h"

#include "base/verify.h"

#include <stdlib.h>
#include <string.h>

enum { TWICE_IN = 8, FATES = 4, BEHIND_MAX = 16 };
#define DELAY_MIN_NS UINT64_C(20000)
#define DELAY_NS     UINT64_C(200000)
#define LATE_NS      UINT64_C(3000000000) /* the latest that something is received or looked at */

/* Most are not much later than the others. */
static uint64_t late_ns(struct link *l)
{
    static const uint64_t most[] = {DELAY_NS, 10 * DELAY_NS, 50 * DELAY_NS, LATE_NS};
    return sim_hosts_below(l->hosts,
                           most[sim_hosts_below(l->hosts, sizeof(most) / sizeof(most[0]))]);
}

/* A message on its way. */
struct flying {
    struct link *l;
    struct message m;
    bool late;       /* its connection has broken */
    unsigned behind; /* other messages to its host that are looked at first; 0: none */
    struct list all; /* in link.flying */
};

void link_init(struct link *l, struct sim_hosts *hosts)
{
    *l = (struct link){.hosts = hosts};
    list_init(&l->flying);
    list_init(&l->unread);
    for (unsigned from = 0; from < LINK_HOSTS; from++)
        for (unsigned to = 0; to < LINK_HOSTS; to++)
            list_init(&l->way[from][to].waiting);
}

static void flying_free(struct flying *f)
{
    list_del(&f->all);
    free(f->m.data);
    free(f);
}

static void waiting_free(struct link_way *w)
{
    struct list *e;
    while ((e = list_pop(&w->waiting)))
        flying_free(container_of(e, struct flying, m.link));
}

void link_fini(struct link *l)
{
    while (!list_empty(&l->flying))
        flying_free(list_first(&l->flying, struct flying, all));
}

static struct flying *flying_new(struct link *l, const struct message *m)
{
    struct flying *f = malloc(sizeof(*f));
    VP_VERIFY_TRUE(f != NULL);
    *f = (struct flying){.l = l, .m = *m};
    f->m.way = &l->way[m->from][m->to];
    list_add_tail(&l->flying, &f->all);
    if (m->data) {
        f->m.data = aligned_alloc(4096, (m->len + 4095) / 4096 * 4096);
        VP_VERIFY_TRUE(f->m.data != NULL);
        memcpy(f->m.data, m->data, m->len);
    }
    return f;
}

static void receive(void *arg)
{
    struct flying *f = arg;
    f->l->receive(f->l->arg, &f->m);
}

static void arrive(void *arg);

static void fly(struct link *l, struct flying *f, uint64_t more_ns)
{
    uint64_t ns = DELAY_MIN_NS + sim_hosts_below(l->hosts, DELAY_NS) + more_ns;
    sim_hosts_later(l->hosts, ns, arrive, f);
}

/* The other side had received it, and looks at it when some others have come: just before one. */
static void leave_unread(struct link *l, struct flying *f)
{
    f->behind = 1 + (unsigned)sim_hosts_below(l->hosts, BEHIND_MAX);
    list_add_tail(&l->unread, &f->m.link);
}

/* Its connection has broken meanwhile: lost, late, or just received. True: it is not received
 * now. */
static bool fate_of_broken(struct link *l, struct flying *f)
{
    if (f->late)
        return false;
    uint64_t fate = sim_hosts_below(l->hosts, FATES);
    f->late = true;
    if (fate == 0)
        flying_free(f);
    else if (fate == 1)
        fly(l, f, late_ns(l));
    else if (fate == 2)
        leave_unread(l, f);
    return fate < FATES - 1;
}

static void deliver(struct link *l, struct flying *f)
{
    if (sim_hosts_is_up(l->hosts, f->m.to))
        sim_hosts_on(l->hosts, f->m.to, receive, f);
    flying_free(f);
}

/* A message comes to a host, which looks at some older ones first. */
static void read_older(struct link *l, unsigned to)
{
    struct list all;
    struct list *e;
    list_init(&all);
    while ((e = list_pop(&l->unread)))
        list_add_tail(&all, e);
    while ((e = list_pop(&all))) {
        struct flying *f = container_of(e, struct flying, m.link);
        if (f->m.to != to || --f->behind)
            list_add_tail(&l->unread, e);
        else
            deliver(l, f);
    }
}

static void arrive(void *arg)
{
    struct flying *f = arg;
    struct link *l = f->l;
    bool broken = f->m.connection && link_is_broken(l, f->m.connection);
    if (broken && fate_of_broken(l, f))
        return;
    if (f->m.way->cut && f->m.connection && !broken) {
        list_add_tail(&f->m.way->waiting, &f->m.link);
        return;
    }
    /* What is late was received before its way was cut. */
    if (!f->late && f->m.way->cut) {
        flying_free(f);
        return;
    }
    read_older(l, f->m.to);
    deliver(l, f);
}

void link_send(struct link *l, const struct message *m)
{
    if (!l->moment(l->arg, m->from))
        return;
    if (m->connection && link_is_broken(l, m->connection))
        return;
    bool may_double =
        !m->connection && m->kind != MESSAGE_REPLY && (m->kind != MESSAGE_SESSION || l->disturbed);
    if (may_double && sim_hosts_below(l->hosts, TWICE_IN) == 0)
        fly(l, flying_new(l, m), late_ns(l));
    fly(l, flying_new(l, m), 0);
}

unsigned link_connect(struct link *l)
{
    l->broken = l->connections;
    return ++l->connections;
}

bool link_is_broken(const struct link *l, unsigned connection)
{
    return connection <= l->broken;
}

/* What waits for the way was not received by the other side, and never will be. */
void link_break(struct link *l)
{
    l->broken = l->connections;
    l->disturbed = true;
    for (unsigned from = 0; from < LINK_HOSTS; from++)
        for (unsigned to = 0; to < LINK_HOSTS; to++)
            waiting_free(&l->way[from][to]);
}

void link_cut(struct link *l, unsigned from, unsigned to, bool cut)
{
    struct link_way *w = &l->way[from][to];
    struct list *e;
    w->cut = cut;
    l->disturbed = true;
    while (!cut && (e = list_pop(&w->waiting)))
        fly(l, container_of(e, struct flying, m.link), 0);
}
