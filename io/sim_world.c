/* Clock, randomness and the queue of a simulated world: see sim_world_impl.h. */
#include "io/hang_impl.h"
#include "io/reactor_impl.h"
#include "io/sim_impl.h"
#include "io/sim_world_impl.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/verify.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { START_NS = 1000000000 };

void *sim_grow(void *array, unsigned *capacity, unsigned needed, size_t item_bytes)
{
    if (needed <= *capacity)
        return array;
    unsigned n = *capacity ? *capacity * 2 : 16;
    while (n < needed)
        n *= 2;
    void *p = realloc(array, n * item_bytes);
    if (!p)
        p = realloc(array, n * item_bytes);
    VP_VERIFY_TRUE(p != NULL);
    *capacity = n;
    return p;
}

struct sim_world *sim_world_new(uint64_t seed)
{
    struct sim_world *w = calloc(1, sizeof(*w));
    VP_VERIFY_TRUE(w != NULL);
    w->random = hash_mix(seed + 1);
    w->noise = hash_mix(seed ^ 0x6e6f697365ULL);
    w->now_ns = START_NS;
    list_init(&w->devices);
    list_init(&w->keeps);
    list_init(&w->unnamed);
    w->keep_pages = UINT_MAX;
    w->keep_fails = UINT64_MAX;
    return w;
}

static void disk_free(struct sim_disk *d)
{
    sim_image_fini(&d->view);
    sim_image_fini(&d->durable);
    free(d->fault);
    free(d->bad_page);
    free(d);
}

void sim_world_free(struct sim_world *w)
{
    if (!w)
        return;
    while (!list_empty(&w->devices))
        free(container_of(list_pop(&w->devices), struct sim_dev, link));
    for (unsigned i = 0; i < w->flight_count; i++) {
        if (w->flight[i].write)
            sim_write_put(w->flight[i].write);
        if (w->flight[i].late)
            free(w->flight[i].op);
    }
    sim_pending_fini(&w->pending);
    for (unsigned i = 0; i < w->disk_count; i++)
        disk_free(w->disk[i]);
    sim_keeps_free(w);
    free(w->flight);
    free(w->disk);
    free(w);
}

uint64_t sim_random(struct sim_world *w)
{
    return sim_mix(&w->random);
}

uint64_t sim_below(struct sim_world *w, uint64_t bound)
{
    return (uint64_t)((unsigned __int128)sim_random(w) * bound >> 64);
}

uint64_t sim_now_ns(const struct sim_world *w)
{
    return w->now_ns;
}

/* ---- disks -------------------------------------------------------------------------------- */

struct sim_disk *sim_disk_new(struct sim_world *w, const struct sim_disk_config *config)
{
    VP_VERIFY(config->atomic_bytes, >=, config->sector_bytes);
    VP_VERIFY_TRUE(is_aligned(config->size_bytes, SIM_PAGE_BYTES));
    VP_VERIFY(config->latency_min_ns, <=, config->latency_max_ns);
    struct sim_disk *d = calloc(1, sizeof(*d));
    VP_VERIFY_TRUE(d != NULL);
    w->disk = realloc(w->disk, (w->disk_count + 1) * sizeof(struct sim_disk *));
    VP_VERIFY_TRUE(w->disk != NULL);
    d->world = w;
    d->config = *config;
    (void)snprintf(d->name, sizeof(d->name), "%s", config->name);
    d->config.name = d->name;
    d->index = w->disk_count;
    w->disk[w->disk_count++] = d;
    return d;
}

struct sim_disk *sim_disk_add(struct sim_world *w, const struct sim_disk_config *config)
{
    struct sim_disk *d = sim_disk_new(w, config);
    sim_image_init(&d->view, config->size_bytes / SIM_PAGE_BYTES,
                   hash_mix(w->noise + 1 + d->index));
    d->durable = sim_image_share(&d->view);
    return d;
}

struct sim_disk *sim_disk_find(struct sim_world *w, const char *name)
{
    for (unsigned i = 0; i < w->disk_count; i++)
        if (strcmp(w->disk[i]->name, name) == 0)
            return w->disk[i];
    return NULL;
}

/* ---- events ------------------------------------------------------------------------------- */

void sim_world_on_event(struct sim_world *w, sim_event_fn fn, void *arg)
{
    w->on_event = fn;
    w->on_event_arg = arg;
}

bool sim_world_event(struct sim_world *w)
{
    if (w->cut)
        return false;
    uint64_t event = w->events++;
    if (w->on_event && !w->on_event(w, event, w->on_event_arg))
        w->cut = true;
    return !w->cut;
}

void sim_world_cut(struct sim_world *w)
{
    w->cut = true;
}

bool sim_world_is_cut(const struct sim_world *w)
{
    return w->cut;
}

/* ---- what is in flight -------------------------------------------------------------------- */

static bool earlier(const struct sim_flight *a, const struct sim_flight *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

void sim_flight_add(struct sim_world *w, const struct sim_flight *f)
{
    w->flight = sim_grow(w->flight, &w->flight_capacity, w->flight_count + 1, sizeof(*f));
    unsigned at = w->flight_count++;
    while (at && earlier(f, &w->flight[(at - 1) / 2])) {
        w->flight[at] = w->flight[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->flight[at] = *f;
}

static struct sim_flight flight_take(struct sim_world *w)
{
    struct sim_flight first = w->flight[0], last = w->flight[--w->flight_count];
    unsigned at = 0;
    for (;;) {
        unsigned child = 2 * at + 1;
        if (child >= w->flight_count)
            break;
        if (child + 1 < w->flight_count && earlier(&w->flight[child + 1], &w->flight[child]))
            child++;
        if (!earlier(&w->flight[child], &last))
            break;
        w->flight[at] = w->flight[child];
        at = child;
    }
    w->flight[at] = last;
    return first;
}

/* ---- the reactor's side ------------------------------------------------------------------- */

uint64_t sim_reactor_now_ns(struct sim_world *w)
{
    return w->now_ns;
}

void sim_reactor_random(struct sim_world *w, void *out, size_t len)
{
    unsigned char *to = out;
    while (len) {
        uint64_t v = sim_random(w);
        size_t part = min_u64(len, sizeof(v));
        memcpy(to, &v, part);
        to += part;
        len -= part;
    }
}

uint64_t sim_world_next_ns(const struct sim_world *w)
{
    return w->cut || !w->flight_count ? UINT64_MAX : w->flight[0].at_ns;
}

void sim_world_advance(struct sim_world *w, uint64_t now_ns)
{
    w->now_ns = max_u64(w->now_ns, now_ns);
}

bool sim_reactor_step(struct sim_world *w, uint64_t wait_until_ns)
{
    if (w->cut)
        return false;
    if (!w->flight_count || w->flight[0].at_ns > wait_until_ns) {
        if (wait_until_ns == UINT64_MAX)
            return false;
        w->now_ns = max_u64(w->now_ns, wait_until_ns);
        return true;
    }
    if (!sim_world_event(w))
        return false;
    struct sim_flight f = flight_take(w);
    w->now_ns = max_u64(w->now_ns, f.at_ns);
    reactor_update_turn();
    w->late_count -= f.late;
    if (w->flight_count == w->late_count) /* the clock need not go on because of that */
        hang_scan_stop(reactor_current);
    sim_disk_complete(&f);
    return true;
}

bool sim_reactor_leave_ops(struct sim_world *w, bool (*leave)(struct io_op *op, void *arg),
                           void *arg)
{
    bool any = false;
    for (unsigned i = 0; i < w->flight_count; i++) {
        struct sim_flight *f = &w->flight[i];
        struct io_op *op = f->op;
        any |= !f->late;
        struct io_op *late = !f->late && leave(op, arg) ? hang_late_simulated(op) : NULL;
        if (!late)
            continue;
        f->op = late;
        f->late = true;
        w->late_count++;
        hang_op_end(op);
    }
    return any;
}

int sim_reactor_dev_open(struct sim_world *w, const char *path, unsigned flags, struct io_dev **out,
                         struct vp_error *err)
{
    struct sim_disk *d = sim_disk_find(w, path);
    if (!d || d->dead)
        return vp_fail(err, VP_E_NOT_FOUND, "%s: no such simulated disk", path);
    bool exclusive = !(flags & IO_OPEN_SHARED);
    if (exclusive && d->exclusive)
        return vp_fail(err, VP_E_IO_BUSY_DEVICE, "%s is in use", path);
    struct sim_dev *s = calloc(1, sizeof(*s));
    if (!s)
        return vp_fail(err, VP_E_NO_MEMORY, "%s: out of memory", path);
    io_dev_init(&s->dev);
    s->dev.ops = &sim_dev_ops;
    s->dev.info = (struct io_dev_info){
        .size_bytes = d->config.size_bytes,
        .sector_bytes = d->config.sector_bytes,
        .atomic_bytes = d->config.atomic_bytes,
        .write_cache = d->config.write_cache,
        .can_discard = d->config.can_discard,
        .can_zero = d->config.can_discard,
    };
    (void)snprintf(s->dev.info.path, sizeof(s->dev.info.path), "%s", d->name);
    s->disk = d;
    s->exclusive = exclusive;
    d->exclusive |= exclusive;
    list_add_tail(&w->devices, &s->link);
    *out = &s->dev;
    return 0;
}
