/*
 * A volume that is still on its way to here from another daemon, and the clients that have it open
 * already: a hypervisor opens its disks before the guest, and the data, have come.
 *
 *     clients      ──> the volume's front ──> await_ops      FLUSH: done; the rest: refused at once
 *     who moves it ──> a front of its own ──> the volume
 *
 *     the volume has arrived:
 *
 *     clients      ──> the volume's front ──> the volume
 *
 * 1. Clients hold the same front before and after. So they stay connected.
 * 2. What refuses does not wait, so none of it is ever in flight when the reactor does something
 *    else. The exchange of what is behind the front never waits for a client.
 * 3. Nothing that clients have sent before the exchange has reached the volume.
 *
 * Tested by tests/unit/volumes/test_await.c and t_migrate_peer_receive.py.
 */
#include "base/verify.h"
#include "volumes/volumes_impl.h"

#include <stdlib.h>

static CO int await_refuse(void *arg, struct front_request *r)
{
    (void)arg, (void)r;
    return VP_E_VOLUME_AWAITED;
}

/* Nothing of clients is there that could be made durable. */
static CO int await_flush(void *arg, struct front_request *r)
{
    (void)arg, (void)r;
    return 0;
}

static void await_rouse(void *arg)
{
    (void)arg; /* nobody waits */
}

static const struct front_ops await_ops = {.run = {[FRONT_READ] = await_refuse,
                                                   [FRONT_WRITE] = await_refuse,
                                                   [FRONT_FLUSH] = await_flush,
                                                   [FRONT_DISCARD] = await_refuse,
                                                   [FRONT_ZERO] = await_refuse,
                                                   [FRONT_EXTENTS] = await_refuse},
                                           .rouse = await_rouse};

struct await_call {
    struct volume *v;
    struct front *way;
};

static CO void await_swap(struct front *f, const struct front_ops *ops, void *arg)
{
    struct front_late late;
    int rc = front_freeze(f, 0, &late);
    VP_VERIFY(rc, ==, 0); /* 2; and the pool is open */
    front_swap(f, ops, arg);
    front_thaw(f);
}

static CO int await_begin_on_reactor(void *arg)
{
    const struct await_call *c = arg;
    front_init(c->way, c->v, c->v->reactor);
    await_swap(volume_front(c->v), &await_ops, NULL);
    return 0;
}

CO int volume_await_begin(struct volume *v, struct front **way)
{
    struct await_call c = {v, calloc(1, sizeof(struct front))};
    *way = c.way;
    if (!c.way)
        return VP_E_NO_MEMORY;
    vp_ignore(reactor_call(v->reactor, await_begin_on_reactor, &c), "it cannot fail");
    v->awaited = true;
    return 0;
}

static CO int await_arrived_on_reactor(void *arg)
{
    struct volume *v = arg;
    await_swap(volume_front(v), &volume_front_ops, v);
    return 0;
}

CO void volume_await_end(struct volume *v, struct front *way, bool arrived)
{
    VP_VERIFY_TRUE(v->awaited && front_is_idle(way));
    VP_VERIFY_TRUE(!arrived || v->owner.ownership == VOLUME_ARRIVED);
    v->awaited = false;
    if (arrived)
        vp_ignore(reactor_call(v->reactor, await_arrived_on_reactor, v), "it cannot fail");
    free(way);
}

bool volume_is_awaited(struct volumes *vs, const char *name)
{
    const struct volume *v = volume_find(vs, name);
    return v && v->awaited;
}
