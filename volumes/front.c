/*
 * The front of a volume: the way of every request from a client to the volume, and the gate that
 * stands across it.
 *
 *     OPEN ──freeze──> CLOSING ──nothing in flight──> FROZEN ──thaw──> OPENING ──> OPEN
 *                         └──────── the deadline passed ───────────────────^
 *
 * 1. A request counts in `running` from when it passes the gate until it is answered or comes back.
 *    FROZEN: `running` is 0.
 * 2. A request that finds the gate not OPEN is in `held`, in order of arrival. A request that comes
 *    back stands before those that never passed: it arrived before them.
 * 3. OPENING: only the first of `held` passes, and wakes the next one as it does. What arrives
 *    meanwhile goes to the end. So nobody is overtaken, and the gate is OPEN when `held` is empty.
 * 4. A held request is a coroutine that sleeps in its own call. It holds no lock and no buffer of
 *    the volume, and it is run by that call alone: so it is seen exactly once.
 * 5. ENDED is the pool's end: whatever is held, and whatever comes, ends with VP_E_CANCELLED.
 * 6. What is behind the front is looked at when a request passes. So requests that were held while
 *    that changed (front_swap, exchange.c) go to what is there now.
 *
 * One reactor. Tested by tests/unit/volumes/test_front.c.
 */
#include "base/verify.h"
#include "volumes/volumes_impl.h"

#include <stdio.h>

/* ---- states ------------------------------------------------------------------------------- */

#define TO(gate) (1U << (gate))

static const unsigned gate_moves[] = {
    [FRONT_OPEN] = TO(FRONT_CLOSING) | TO(FRONT_ENDED),
    [FRONT_CLOSING] = TO(FRONT_FROZEN) | TO(FRONT_OPENING) | TO(FRONT_ENDED),
    [FRONT_FROZEN] = TO(FRONT_OPENING) | TO(FRONT_ENDED),
    [FRONT_OPENING] = TO(FRONT_OPEN) | TO(FRONT_CLOSING) | TO(FRONT_ENDED),
    [FRONT_ENDED] = 0,
};

static unsigned running(const struct front *f)
{
    unsigned n = 0;
    for (unsigned kind = 0; kind < FRONT_KINDS; kind++)
        n += f->running[kind];
    return n;
}

static void gate_move(struct front *f, enum front_gate to)
{
    VP_VERIFY_TRUE(gate_moves[f->gate] & TO(to));
    VP_VERIFY_TRUE(to != FRONT_FROZEN || running(f) == 0);
    VP_VERIFY_TRUE(to != FRONT_OPEN || list_empty(&f->held));
    f->gate = to;
}

void front_init(struct front *f, struct volume *v, struct reactor *reactor)
{
    *f = (struct front){.volume = v, .reactor = reactor, .ops = &volume_front_ops, .arg = v};
    list_init(&f->held);
    co_queue_init(&f->quiet);
    front_client_init(&f->nobody, f);
}

bool front_is_idle(const struct front *f)
{
    return running(f) == 0 && f->beside == 0 && list_empty(&f->held);
}

/* Not NULL. It does not go away before the caller yields (exchange.c). */
static struct volume *front_volume(const struct front *f)
{
    return atomic_load_explicit(&f->volume, memory_order_relaxed);
}

/* ---- the gate ----------------------------------------------------------------------------- */

/* A request at the gate, in the frame of its call. */
struct held {
    struct list link;
    const struct front_client *client;
    struct co *waiter; /* asleep; NULL: awake, or woken */
    bool has_passed;   /* before: it came back          */
};

static void held_add(struct front *f, struct held *h)
{
    struct list *at = &f->held;
    while (h->has_passed && at->next != &f->held &&
           container_of(at->next, struct held, link)->has_passed)
        at = at->next;
    if (h->has_passed)
        list_add_head(at, &h->link);
    else
        list_add_tail(&f->held, &h->link);
}

static void held_wake(struct held *h)
{
    if (h->waiter)
        co_wake(h->waiter);
    h->waiter = NULL;
}

bool front_client_is_off(const struct front_client *c)
{
    return c->front->gate == FRONT_ENDED || c->state == FRONT_CLIENT_GONE;
}

/* OPENING: the next one passes, or the gate is open. */
static void gate_next(struct front *f)
{
    if (list_empty(&f->held))
        gate_move(f, FRONT_OPEN);
    else
        held_wake(list_first(&f->held, struct held, link));
}

static void gate_open(struct front *f)
{
    gate_move(f, FRONT_OPENING);
    gate_next(f);
}

/* The gate is not OPEN: waits for its turn. Then the caller is in flight, or gone, without another
 * yield. */
static __attribute__((noinline)) CO int gate_wait(const struct front_client *c, bool has_passed)
{
    struct front *f = c->front;
    struct held h = {.client = c, .has_passed = has_passed};
    held_add(f, &h);
    while (!front_client_is_off(c) && !(f->gate == FRONT_OPENING && f->held.next == &h.link)) {
        h.waiter = co_self();
        co_suspend("gate of a volume");
    }
    list_del(&h.link);
    if (f->gate == FRONT_OPENING)
        gate_next(f);
    if (f->gate == FRONT_ENDED)
        co_queue_wake_all(&f->quiet);
    return front_client_is_off(c) ? VP_E_CANCELLED : 0;
}

/* "2 writes, 1 flush" */
static void late_describe(const struct front *f, struct front_late *late)
{
    static const char *const name[FRONT_KINDS][2] = {
        {"read", "reads"},       {"write", "writes"}, {"flush", "flushes"},
        {"discard", "discards"}, {"zero", "zeroes"},  {"block status", "block statuses"}};
    *late = (struct front_late){.count = running(f)};
    for (unsigned kind = 0; kind < FRONT_KINDS; kind++) {
        unsigned n = f->running[kind];
        size_t at = strlen(late->text);
        if (n)
            (void)snprintf(late->text + at, sizeof(late->text) - at, "%s%u %s", at ? ", " : "", n,
                           name[kind][n > 1]);
    }
}

CO int front_freeze(struct front *f, uint64_t deadline_ns, struct front_late *late)
{
    if (f->gate == FRONT_ENDED)
        return VP_E_CANCELLED;
    if (f->gate != FRONT_OPEN && f->gate != FRONT_OPENING)
        return VP_E_BUSY;
    gate_move(f, FRONT_CLOSING);
    f->ops->rouse(f->arg);
    int rc = 0;
    while (f->gate == FRONT_CLOSING && running(f) && !rc)
        rc = co_queue_wait_until(&f->quiet, deadline_ns, "requests in flight of a volume");
    if (f->gate == FRONT_ENDED)
        return VP_E_CANCELLED;
    if (!running(f)) {
        gate_move(f, FRONT_FROZEN);
        return 0;
    }
    late_describe(f, late);
    gate_open(f);
    return rc;
}

void front_thaw(struct front *f)
{
    if (f->gate == FRONT_ENDED)
        return;
    VP_VERIFY_TRUE(f->gate == FRONT_FROZEN);
    gate_open(f);
}

void front_swap(struct front *f, const struct front_ops *ops, void *arg)
{
    VP_VERIFY_TRUE(f->gate == FRONT_FROZEN);
    f->ops = ops;
    f->arg = arg;
}

/* Whoever waits for as long as others decide looks whether it still may. */
static void front_rouse(struct front *f)
{
    f->ops->rouse(f->arg);
    if (f->tokens)
        f->tokens->rouse(f->tokens->arg);
}

CO void front_end(struct front *f)
{
    struct held *h;
    gate_move(f, FRONT_ENDED);
    front_rouse(f);
    list_for_each (h, &f->held, link)
        held_wake(h);
    co_queue_wake_all(&f->quiet);
    while (!front_is_idle(f))
        co_queue_wait(&f->quiet, "requests of a volume that is closed");
}

/* ---- requests ----------------------------------------------------------------------------- */

int front_request_verdict(const struct front_request *r)
{
    const struct front *f = r->client->front;
    if (f->gate == FRONT_ENDED || r->client->state != FRONT_CLIENT_HERE)
        return VP_E_CANCELLED;
    return f->gate == FRONT_CLOSING ? FRONT_COME_AGAIN : 0;
}

/* A request that has run leaves. */
static void request_leave(struct front *f, enum front_kind kind)
{
    f->running[kind]--;
    if (f->gate != FRONT_OPEN && !running(f))
        co_queue_wake_all(&f->quiet);
}

/* Where the gate was closed, or the request has come back to it. */
static __attribute__((noinline)) CO int request_run_held(struct front_request *r, bool has_passed)
{
    struct front *f = r->client->front;
    enum front_kind kind = r->kind;
    int rc;
    do {
        rc = f->gate == FRONT_OPEN ? 0 : gate_wait(r->client, has_passed);
        if (rc)
            return rc;
        f->running[kind]++;
        rc = f->ops->run[kind](f->arg, r);
        request_leave(f, kind);
        has_passed = true;
    } while (rc == FRONT_COME_AGAIN);
    return rc;
}

/* The way of every request. */
static inline __attribute__((always_inline)) CO int request_run(struct front_request *r,
                                                                enum front_kind kind)
{
    struct front *f = r->client->front;
    if (__builtin_expect(f->gate != FRONT_OPEN, 0))
        return request_run_held(r, false);
    f->running[kind]++;
    int rc = f->ops->run[kind](f->arg, r);
    request_leave(f, kind);
    return __builtin_expect(rc == FRONT_COME_AGAIN, 0) ? request_run_held(r, true) : rc;
}

/* The same for those whose latency is counted: what a client sees, with the time at the gate. Of a
 * request that ends in the turn of the reactor in which it began all that is known is that it took
 * less than the turn. */
static inline __attribute__((always_inline)) CO int request_run_timed(struct front_request *r,
                                                                      enum front_kind kind)
{
    uint64_t begin_ns = reactor_turn_ns();
    int rc = request_run(r, kind);
    const struct volume_figures *f = &front_volume(r->client->front)->figures;
    histogram_add(kind == FRONT_READ    ? f->read_latency
                  : kind == FRONT_WRITE ? f->write_latency
                                        : f->flush_latency,
                  reactor_turn_ns() - begin_ns);
    return rc;
}

static __attribute__((noinline)) CO int tokens_take(struct front_client *c, uint64_t bytes)
{
    const struct front_tokens *t = c->front->tokens;
    int rc = t->take(t->arg, c, bytes);
    return rc ? rc : front_pass(c);
}

CO int front_admit(struct front_client *c, uint64_t bytes)
{
    return c->front->tokens ? tokens_take(c, bytes) : front_pass(c);
}

void front_tokens_set(struct front *f, const struct front_tokens *t)
{
    f->tokens = t;
}

CO int front_pass(struct front_client *c)
{
    return c->front->gate == FRONT_OPEN ? 0 : gate_wait(c, false);
}

CO int front_read(struct front_client *c, uint64_t offset, uint64_t len, void *buf)
{
    struct front_request r = {
        .client = c, .kind = FRONT_READ, .offset = offset, .len = len, .data = buf};
    return request_run_timed(&r, FRONT_READ);
}

CO int front_write(struct front_client *c, uint64_t offset, uint64_t len, const void *buf,
                   unsigned flags)
{
    struct front_request r = {.client = c,
                              .kind = FRONT_WRITE,
                              .offset = offset,
                              .len = len,
                              .data = (void *)(uintptr_t)buf,
                              .flags = flags};
    return request_run_timed(&r, FRONT_WRITE);
}

CO int front_flush(struct front_client *c)
{
    struct front_request r = {.client = c, .kind = FRONT_FLUSH};
    return request_run_timed(&r, FRONT_FLUSH);
}

CO int front_discard(struct front_client *c, uint64_t offset, uint64_t len, unsigned flags)
{
    struct front_request r = {
        .client = c, .kind = FRONT_DISCARD, .offset = offset, .len = len, .flags = flags};
    return request_run(&r, FRONT_DISCARD);
}

CO int front_zero(struct front_client *c, uint64_t offset, uint64_t len, unsigned flags)
{
    struct front_request r = {
        .client = c, .kind = FRONT_ZERO, .offset = offset, .len = len, .flags = flags};
    return request_run(&r, FRONT_ZERO);
}

CO int front_extents(struct front_client *c, uint64_t offset, uint64_t len,
                     struct volume_extent *out, unsigned max, unsigned *n)
{
    struct front_extents_request e = {
        .request = {.client = c, .kind = FRONT_EXTENTS, .offset = offset, .len = len, .data = out},
        .max = max,
        .n = n};
    return request_run(&e.request, FRONT_EXTENTS);
}

/* ---- requests of nobody who could go away ------------------------------------------------- */

CO int volume_read(struct volume *v, uint64_t offset, uint64_t len, void *buf)
{
    return front_read(&volume_front(v)->nobody, offset, len, buf);
}

CO int volume_write(struct volume *v, uint64_t offset, uint64_t len, const void *buf,
                    unsigned flags)
{
    return front_write(&volume_front(v)->nobody, offset, len, buf, flags);
}

CO int volume_flush(struct volume *v)
{
    return front_flush(&volume_front(v)->nobody);
}

CO int volume_discard(struct volume *v, uint64_t offset, uint64_t len, unsigned flags)
{
    return front_discard(&volume_front(v)->nobody, offset, len, flags);
}

CO int volume_zero(struct volume *v, uint64_t offset, uint64_t len, unsigned flags)
{
    return front_zero(&volume_front(v)->nobody, offset, len, flags);
}

CO int volume_extents(struct volume *v, uint64_t offset, uint64_t len, struct volume_extent *out,
                      unsigned max, unsigned *n)
{
    return front_extents(&volume_front(v)->nobody, offset, len, out, max, n);
}

/* ---- clients ------------------------------------------------------------------------------ */

void front_client_init(struct front_client *c, struct front *f)
{
    *c = (struct front_client){.front = f, .state = FRONT_CLIENT_HERE};
}

static void client_move(struct front_client *c, enum front_client_state to)
{
    struct front *f = c->front;
    struct held *h;
    if (c->state >= to)
        return;
    c->state = to;
    front_rouse(f); /* its own see that they are meant */
    list_for_each (h, &f->held, link)
        if (h->client == c)
            held_wake(h);
}

void front_client_leave(struct front_client *c)
{
    client_move(c, FRONT_CLIENT_LEAVING);
}

void front_client_go(struct front_client *c)
{
    client_move(c, FRONT_CLIENT_GONE);
}

/* ---- what exports ask --------------------------------------------------------------------- */

struct front *volume_front(struct volume *v)
{
    return atomic_load_explicit(&v->io->front, memory_order_relaxed);
}

struct reactor *front_reactor(const struct front *f)
{
    return f->reactor;
}

uint64_t front_size(const struct front *f)
{
    return volume_size(front_volume(f));
}

uint32_t front_sector_bytes(const struct front *f)
{
    return volume_sector_bytes(front_volume(f));
}

/* Clients of a volume that has not arrived are told what they will find. */
bool front_is_read_only(const struct front *f)
{
    unsigned flags = atomic_load_explicit(&front_volume(f)->flags, memory_order_relaxed);
    return flags & (VOLUME_IS_READ_ONLY | VOLUME_WILL_BE_READ_ONLY);
}
