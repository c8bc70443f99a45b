/*
 * Exports of a volume that comes from another daemon, before it has arrived: clients are connected,
 * and wait (volumes/await.c).
 *
 * 1. The pool remembers none of them before the volume arrives. Their records are in the commit of
 *    the arrival. So a crash, or a stop of the daemon, leaves either a volume with its exports or
 *    neither.
 * 2. While the volume arrives, or is given up, they neither come nor go. Whoever attaches or
 *    detaches at the time is waited for. That is short: no disk is read or written for it.
 * 3. When the volume does not arrive they end, and their clients are hung up on. The daemon's lock
 *    is not taken for that: whoever has it may wait for a move's pool.
 */
#include "control/receivers_impl.h"

#include <string.h>

static const char *receiver_name(const struct receiver *r)
{
    return strchr(r->volume, '/') + 1;
}

/* The one after `a`; NULL: the first one. */
static struct attachment *receiver_export(const struct receiver *r, const struct attachment *a)
{
    struct attachment *next = attachment_next(r->pool, a);
    while (next && strcmp(next->volume, receiver_name(r)) != 0)
        next = attachment_next(r->pool, next);
    return next;
}

CO void receiver_exports_hold(struct receiver *r)
{
    r->exports_held = true;
    attachment_changes_await(r->control, r->pool, receiver_name(r));
}

int receivers_refuse_change(const struct control *c, const struct control_pool *p,
                            const char *volume, struct vp_error *err)
{
    const struct receiver *r;
    list_for_each (r, &c->receivers.at_work, link)
        if (r->exports_held && r->pool == p && strcmp(receiver_name(r), volume) == 0)
            return vp_fail(err, VP_E_VOLUME_MOVING,
                           "%s arrives from %s of %s in this moment, or is given up: try again",
                           r->volume, r->from, r->host);
    return 0;
}

static int exports_arrive(void *arg, struct pool_batch *b)
{
    struct receiver *r = arg;
    for (struct attachment *a = NULL; (a = receiver_export(r, a));)
        attachment_record_add(a, a->id, a->volume_id, &a->aliases, b);
    return 0;
}

static CO void exports_end(void *arg)
{
    struct receiver *r = arg;
    receiver_exports_hold(r);
    for (struct attachment *a; (a = receiver_export(r, NULL));)
        attachment_drop(r->control, a);
}

struct receive_exports receiver_exports(struct receiver *r)
{
    return (struct receive_exports){.arrive = exports_arrive, .end = exports_end, .arg = r};
}

void receiver_exports_arrived(struct receiver *r)
{
    for (struct attachment *a = NULL; (a = receiver_export(r, a));)
        a->awaits = false;
}
