/*
 * A volume in memory with the interface of volumes/front.h, so that nbd/ is tested alone. Include
 * it in one file of a program: its definitions take the place of the engine's.
 *
 * Knobs: `hold` keeps requests waiting in the volume, `fail` is what they return, `waiting` counts
 * those held; `cancelled` counts clients that left or went. `busy` keeps them at work before that:
 * there they cannot be cancelled. `closed` closes the gate: `at_gate` counts those who wait there.
 */
#ifndef VP_TESTS_NBD_FAKE_VOLUME_H
#define VP_TESTS_NBD_FAKE_VOLUME_H

#include "base/bitmap.h"
#include "io/co.h"
#include "io/reactor.h"
#include "volumes/front.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_BLOCK 4096U

struct front {
    struct reactor *reactor;
    uint64_t size;
    unsigned char *data;
    unsigned char *valid; /* per block */
    bool read_only;
    bool synchronous; /* requests complete without yielding */

    _Atomic bool busy, hold, closed;
    _Atomic int fail;
    _Atomic unsigned at_gate, held, cancelled, reads, writes, flushes, fua, discards, zeros,
        no_hole;
    _Atomic uint64_t admitted; /* bytes */
    struct co_queue queue;
};

static inline void fake_volume_init(struct front *v, struct reactor *r, uint64_t size)
{
    *v = (struct front){.reactor = r, .size = size};
    v->data = calloc(1, size + FAKE_BLOCK);
    v->valid = calloc(1, size / FAKE_BLOCK + 1);
    co_queue_init(&v->queue);
}

static inline void fake_volume_fini(struct front *v)
{
    free(v->data);
    free(v->valid);
}

/* What every request goes through. */
static int fake_pass_of(struct front *v, const struct front_client *c)
{
    if (!v->synchronous)
        co_yield ();
    while (v->busy)
        co_yield ();
    while (v->hold) {
        if (c && c->state != FRONT_CLIENT_HERE)
            return VP_E_CANCELLED;
        v->held++;
        co_queue_wait(&v->queue, "held by the test");
        v->held--;
    }
    return v->fail;
}

int front_pass(struct front_client *c)
{
    struct front *v = c->front;
    v->at_gate++;
    while (v->closed && c->state != FRONT_CLIENT_GONE)
        co_queue_wait(&v->queue, "at the closed gate");
    v->at_gate--;
    return c->state == FRONT_CLIENT_GONE ? VP_E_CANCELLED : 0;
}

int front_admit(struct front_client *c, uint64_t bytes)
{
    c->front->admitted += bytes;
    return front_pass(c);
}

static int fake_pass(struct front *v)
{
    return fake_pass_of(v, NULL);
}

static inline int fake_release_here(void *arg)
{
    struct front *v = arg;
    v->hold = v->closed = false;
    co_queue_wake_all(&v->queue);
    return 0;
}

static bool fake_outside(const struct front *v, uint64_t offset, uint64_t len)
{
    return offset > v->size || len > v->size - offset;
}

struct reactor *front_reactor(const struct front *v)
{
    return v->reactor;
}
uint64_t front_size(const struct front *v)
{
    return v->size;
}
uint32_t front_sector_bytes(const struct front *v)
{
    (void)v;
    return 512;
}
bool front_is_read_only(const struct front *v)
{
    return v->read_only;
}
void front_client_init(struct front_client *c, struct front *v)
{
    *c = (struct front_client){.front = v};
}
static void fake_client_move(struct front_client *c, enum front_client_state to)
{
    c->front->cancelled++;
    c->state = to;
    co_queue_wake_all(&c->front->queue);
}
void front_client_leave(struct front_client *c)
{
    fake_client_move(c, FRONT_CLIENT_LEAVING);
}
void front_client_go(struct front_client *c)
{
    fake_client_move(c, FRONT_CLIENT_GONE);
}

int front_read(struct front_client *c, uint64_t offset, uint64_t len, void *buf)
{
    struct front *v = c->front;
    v->reads++;
    int rc = fake_pass(v);
    if (rc)
        return rc;
    if (fake_outside(v, offset, len))
        return VP_E_RANGE;
    memcpy(buf, v->data + offset, len);
    return 0;
}
int front_write(struct front_client *c, uint64_t offset, uint64_t len, const void *buf,
                unsigned flags)
{
    struct front *v = c->front;
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
int front_flush(struct front_client *c)
{
    struct front *v = c->front;
    v->flushes++;
    return fake_pass(v);
}
int front_discard(struct front_client *c, uint64_t offset, uint64_t len, unsigned flags)
{
    struct front *v = c->front;
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
int front_zero(struct front_client *c, uint64_t offset, uint64_t len, unsigned flags)
{
    struct front *v = c->front;
    v->zeros++;
    v->no_hole += flags & VOLUME_NO_HOLE ? 1 : 0;
    uint64_t at = offset, n = len;
    int rc = front_discard(c, offset, len, flags & ~(unsigned)VOLUME_NO_HOLE);
    v->discards--;
    if (!rc)
        memset(v->data + at, 0, n);
    return rc;
}
int front_extents(struct front_client *c, uint64_t offset, uint64_t len, struct volume_extent *out,
                  unsigned max, unsigned *n)
{
    struct front *v = c->front;
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
