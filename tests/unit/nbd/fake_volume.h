/*
 * A volume in memory with the interface of volumes/volume.h, so that nbd/ is tested alone. Include
 * it in one file of a program: its definitions take the place of the engine's.
 *
 * Knobs: `hold` keeps requests waiting in the volume, `fail` is what they return, `waiting` counts
 * those held; `cancelled` counts clients that left or went. `busy` keeps them at work before that:
 * there they cannot be cancelled.
 */
#ifndef VP_TESTS_NBD_FAKE_VOLUME_H
#define VP_TESTS_NBD_FAKE_VOLUME_H

#include "base/bitmap.h"
#include "io/co.h"
#include "io/reactor.h"
#include "volumes/volume.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_BLOCK 4096U

struct volume {
    struct reactor *reactor;
    uint64_t size;
    unsigned char *data;
    unsigned char *valid; /* per block */
    bool read_only;
    bool synchronous; /* requests complete without yielding */

    _Atomic bool busy, hold;
    _Atomic int fail;
    _Atomic unsigned held, cancelled, reads, writes, flushes, fua, discards, zeros, no_hole;
    struct co_queue queue;
};

static inline void fake_volume_init(struct volume *v, struct reactor *r, uint64_t size)
{
    *v = (struct volume){.reactor = r, .size = size};
    v->data = calloc(1, size + FAKE_BLOCK);
    v->valid = calloc(1, size / FAKE_BLOCK + 1);
    co_queue_init(&v->queue);
}

static inline void fake_volume_fini(struct volume *v)
{
    free(v->data);
    free(v->valid);
}

/* What every request goes through. */
static int fake_pass_of(struct volume *v, const struct volume_client *c)
{
    if (!v->synchronous)
        co_yield ();
    while (v->busy)
        co_yield ();
    while (v->hold) {
        if (c && c->state != VOLUME_CLIENT_HERE)
            return VP_E_CANCELLED;
        v->held++;
        co_queue_wait(&v->queue, "held by the test");
        v->held--;
    }
    return v->fail;
}

static int fake_pass(struct volume *v)
{
    return fake_pass_of(v, NULL);
}

static inline int fake_release_here(void *arg)
{
    struct volume *v = arg;
    v->hold = false;
    co_queue_wake_all(&v->queue);
    return 0;
}

static bool fake_outside(const struct volume *v, uint64_t offset, uint64_t len)
{
    return offset > v->size || len > v->size - offset;
}

struct reactor *volume_reactor(const struct volume *v)
{
    return v->reactor;
}
uint64_t volume_size(const struct volume *v)
{
    return v->size;
}
uint32_t volume_sector_bytes(const struct volume *v)
{
    (void)v;
    return 512;
}
bool volume_is_read_only(const struct volume *v)
{
    return v->read_only;
}
void volume_client_init(struct volume_client *c, struct volume *v)
{
    *c = (struct volume_client){.volume = v};
}
static void fake_client_move(struct volume_client *c, enum volume_client_state to)
{
    c->volume->cancelled++;
    c->state = to;
    co_queue_wake_all(&c->volume->queue);
}
void volume_client_leave(struct volume_client *c)
{
    fake_client_move(c, VOLUME_CLIENT_LEAVING);
}
void volume_client_go(struct volume_client *c)
{
    fake_client_move(c, VOLUME_CLIENT_GONE);
}

int volume_read(struct volume *v, uint64_t offset, uint64_t len, void *buf)
{
    v->reads++;
    int rc = fake_pass(v);
    if (rc)
        return rc;
    if (fake_outside(v, offset, len))
        return VP_E_RANGE;
    memcpy(buf, v->data + offset, len);
    return 0;
}
int volume_client_write(struct volume_client *c, uint64_t offset, uint64_t len, const void *buf,
                        unsigned flags)
{
    struct volume *v = c->volume;
    v->writes++;
    v->fua += flags & VOLUME_FUA ? 1 : 0;
    int rc = fake_pass_of(v, c);
    if (rc)
        return rc;
    if (v->read_only)
        return VP_E_READ_ONLY;
    if (fake_outside(v, offset, len))
        return VP_E_RANGE;
    memcpy(v->data + offset, buf, len);
    memset(v->valid + offset / FAKE_BLOCK, 1,
           (offset + len - 1) / FAKE_BLOCK - offset / FAKE_BLOCK + 1);
    return 0;
}
int volume_flush(struct volume *v)
{
    v->flushes++;
    return fake_pass(v);
}
int volume_client_discard(struct volume_client *c, uint64_t offset, uint64_t len, unsigned flags)
{
    struct volume *v = c->volume;
    v->discards++;
    v->fua += flags & VOLUME_FUA ? 1 : 0;
    int rc = fake_pass_of(v, c);
    if (rc)
        return rc;
    if (fake_outside(v, offset, len))
        return VP_E_RANGE;
    uint64_t first = (offset + FAKE_BLOCK - 1) / FAKE_BLOCK, end = (offset + len) / FAKE_BLOCK;
    for (uint64_t b = first; b < end; b++) {
        v->valid[b] = 0;
        memset(v->data + b * FAKE_BLOCK, 0, FAKE_BLOCK);
    }
    return 0;
}
int volume_client_zero(struct volume_client *c, uint64_t offset, uint64_t len, unsigned flags)
{
    struct volume *v = c->volume;
    v->zeros++;
    v->no_hole += flags & VOLUME_NO_HOLE ? 1 : 0;
    uint64_t at = offset, n = len;
    int rc = volume_client_discard(c, offset, len, flags & ~(unsigned)VOLUME_NO_HOLE);
    v->discards--;
    if (!rc)
        memset(v->data + at, 0, n);
    return rc;
}
int volume_extents(struct volume *v, uint64_t offset, uint64_t len, struct volume_extent *out,
                   unsigned max, unsigned *n)
{
    int rc = fake_pass(v);
    if (rc)
        return rc;
    *n = 0;
    for (uint64_t at = offset; at < offset + len;) {
        bool hole = !v->valid[at / FAKE_BLOCK];
        uint64_t end = (at / FAKE_BLOCK + 1) * FAKE_BLOCK;
        if (end > offset + len)
            end = offset + len;
        if (*n && out[*n - 1].hole == hole) {
            out[*n - 1].len += end - at;
        } else {
            if (*n == max)
                break;
            out[(*n)++] = (struct volume_extent){at, end - at, hole, hole};
        }
        at = end;
    }
    return 0;
}

#endif
