/* Snapshots of a world's disks and the states that a power cut could leave: see io/sim.h. */
#include "io/sim_world_impl.h"

#include "base/hash.h"
#include "base/verify.h"

#include <stdlib.h>
#include <string.h>

struct snapshot_disk {
    struct sim_disk_config config;
    char name[SIM_NAME_MAX];
    bool dead;
    struct sim_image durable;
};

struct sim_snapshot {
    uint64_t now_ns, noise, done_seq;
    struct sim_pending pending;
    struct list keeps;
    unsigned disk_count;
    struct snapshot_disk disk[];
};

struct sim_snapshot *sim_snapshot_take(struct sim_world *w)
{
    struct sim_snapshot *s = calloc(1, sizeof(*s) + w->disk_count * sizeof(s->disk[0]));
    VP_VERIFY_TRUE(s != NULL);
    s->now_ns = w->now_ns;
    s->noise = w->noise;
    s->done_seq = w->done_seq;
    s->disk_count = w->disk_count;
    for (unsigned i = 0; i < w->disk_count; i++) {
        const struct sim_disk *d = w->disk[i];
        struct snapshot_disk *to = &s->disk[i];
        to->config = d->config;
        memcpy(to->name, d->name, sizeof(to->name));
        to->config.name = to->name;
        to->dead = d->dead;
        to->durable = sim_image_share(&d->durable);
    }
    for (unsigned i = 0; i < w->pending.count; i++) {
        w->pending.write[i]->refs++;
        sim_pending_add(&s->pending, w->pending.write[i]);
    }
    sim_keeps_copy(w, &s->keeps);
    return s;
}

void sim_snapshot_free(struct sim_snapshot *s)
{
    if (!s)
        return;
    sim_pending_fini(&s->pending);
    sim_keeps_copy_free(&s->keeps);
    for (unsigned i = 0; i < s->disk_count; i++)
        sim_image_fini(&s->disk[i].durable);
    free(s);
}

unsigned sim_snapshot_pending(const struct sim_snapshot *s)
{
    return s->pending.count;
}

unsigned sim_snapshot_units(const struct sim_snapshot *s, unsigned i)
{
    VP_VERIFY(i, <, s->pending.count);
    return sim_write_units(s->pending.write[i]);
}

bool sim_snapshot_is_complete(const struct sim_snapshot *s, unsigned i)
{
    VP_VERIFY(i, <, s->pending.count);
    /* The write is shared with its world, where it may have completed since. */
    uint64_t done_seq = s->pending.write[i]->done_seq;
    return done_seq != 0 && done_seq <= s->done_seq;
}

uint64_t sim_snapshot_keeps_hash(const struct sim_snapshot *s)
{
    return sim_keeps_hash(&s->keeps);
}

void sim_world_set_keeps(struct sim_world *w, const struct sim_snapshot *s)
{
    sim_keeps_free(w);
    sim_keeps_restore(w, &s->keeps);
}

/* Lays what the choices keep of disk `index` over `img`. */
static void apply_choices(const struct sim_snapshot *s, const struct sim_choice *choices,
                          unsigned index, struct sim_image *img)
{
    for (unsigned i = 0; i < s->pending.count; i++) {
        const struct sim_write *x = s->pending.write[i];
        if (x->disk != index || choices[i].fate == SIM_DROP)
            continue;
        sim_write_apply(x, choices[i].fate == SIM_KEEP ? UINT64_MAX : choices[i].units, img);
    }
}

uint64_t sim_snapshot_hash(const struct sim_snapshot *s, const struct sim_choice *choices)
{
    uint64_t hash = 0;
    for (unsigned i = 0; i < s->disk_count; i++) {
        struct sim_image img = sim_image_share(&s->disk[i].durable);
        /* Hashed before it is changed: the shared nodes keep their sums for the next choices. */
        (void)sim_image_hash(&img);
        apply_choices(s, choices, i, &img);
        hash = hash_mix(hash + sim_image_hash(&img) + s->disk[i].dead);
        sim_image_fini(&img);
    }
    return hash;
}

static struct sim_world *world_after(const struct sim_snapshot *s, uint64_t seed)
{
    struct sim_world *w = sim_world_new(seed);
    w->now_ns = s->now_ns;
    w->noise = s->noise; /* what was never written stays what it was */
    for (unsigned i = 0; i < s->disk_count; i++) {
        const struct snapshot_disk *from = &s->disk[i];
        struct sim_disk *d = sim_disk_new(w, &from->config);
        d->dead = from->dead;
        d->durable = sim_image_share(&from->durable);
    }
    return w;
}

/* The writes of the killed process are still in the disks' caches. */
static void keep_pending(struct sim_world *w, const struct sim_write *x)
{
    struct sim_disk *d = w->disk[x->disk];
    if (!d->config.write_cache) {
        sim_write_apply(x, UINT64_MAX, &d->durable);
        sim_write_apply(x, UINT64_MAX, &d->view);
        return;
    }
    struct sim_write *copy = sim_write_clone(x);
    copy->done_seq = ++w->done_seq;
    sim_write_apply(copy, UINT64_MAX, &d->view);
    sim_pending_add(&w->pending, copy);
}

struct sim_world *sim_world_after_kill(const struct sim_snapshot *s,
                                       const struct sim_choice *choices, uint64_t seed)
{
    struct sim_world *w = world_after(s, seed);
    for (unsigned i = 0; i < s->disk_count; i++)
        w->disk[i]->view = sim_image_share(&w->disk[i]->durable);
    for (unsigned i = 0; i < s->pending.count; i++)
        if (sim_snapshot_is_complete(s, i) || choices[i].fate == SIM_KEEP)
            keep_pending(w, s->pending.write[i]);
    sim_keeps_restore(w, &s->keeps);
    return w;
}

struct sim_world *sim_world_from_snapshot(const struct sim_snapshot *s,
                                          const struct sim_choice *choices, uint64_t seed)
{
    struct sim_world *w = world_after(s, seed);
    for (unsigned i = 0; i < s->disk_count; i++) {
        struct sim_disk *d = w->disk[i];
        apply_choices(s, choices, i, &d->durable);
        d->view = sim_image_share(&d->durable);
    }
    return w;
}
