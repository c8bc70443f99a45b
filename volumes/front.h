/*
 * The front of a volume: what exports hold instead of the volume. It knows the volume's reactor,
 * its gate, the requests in flight, its clients, and what is behind it.
 *
 * A request of a client goes this way:
 *
 *     front_admit    waits for tokens, and while the gate is closed; it holds no buffer yet
 *     (the export takes a buffer, and receives its payload)
 *     front_write …  waits while the gate is closed; then the request is in flight
 *     what is behind the front does the work and answers
 *
 * Threads: everything here runs on the front's reactor, except what is marked otherwise. A front
 * lives as long as its volume is open, and its reactor never changes. The volume may change: when a
 * volume moves to another pool, its front goes on as the front of the volume there
 * (volume_fronts_exchange), and then lives as long as that one is open.
 */
#ifndef VP_VOLUMES_FRONT_H
#define VP_VOLUMES_FRONT_H

#include "base/list.h"
#include "volumes/volume.h"

struct front;

/* The front of an open volume, now. Also at home. */
struct front *volume_front(struct volume *v);
struct reactor *front_reactor(const struct front *f); /* any reactor           */
uint64_t front_size(const struct front *f);           /* bytes, now; also home */
uint32_t front_sector_bytes(const struct front *f);   /* also home             */
bool front_is_read_only(const struct front *f);       /* now; also home        */

/* ---- clients --------------------------------------------------------------------------------- */

/*
 * A client sends requests and may go away: an NBD connection, a block device. Its structure is part
 * of the structure of what serves it, and that outlives the client's requests. A state never goes
 * back.
 */
enum front_client_state {
    FRONT_CLIENT_HERE,
    FRONT_CLIENT_LEAVING, /* its requests do not wait for space any more */
    FRONT_CLIENT_GONE,    /* its requests change nothing more            */
};
struct front_client {
    struct front *front;
    enum front_client_state state;
};
void front_client_init(struct front_client *c, struct front *f);
/* The client's requests that wait for space, now or later, end with VP_E_CANCELLED. Its other
 * requests go on, and those that wait at the gate go on waiting. */
void front_client_leave(struct front_client *c);
/* Of the client's requests, only the windows that hold their block locks now still land. The rest
 * ends with VP_E_CANCELLED, also at a closed gate. So everything that is sent for the same user
 * afterwards is newer. */
void front_client_go(struct front_client *c);

/* ---- requests -------------------------------------------------------------------------------- */

/*
 * Begins every request of an export, before the request takes a buffer. It waits for tokens of
 * `bytes` of data where the volume has a limit (0: the request moves no data). Then it waits while
 * the gate is closed, so that a frozen volume keeps no buffers from others.
 * VP_E_CANCELLED: the client has gone, or the pool is being closed.
 */
CO int front_admit(struct front_client *c, uint64_t bytes) must_check;
/* Call it before a further buffer of the same request: waits while the gate is closed.
 * VP_E_CANCELLED as above. */
CO int front_pass(struct front_client *c) must_check;

/*
 * The requests of volumes/volume.h, sent by a client, with the same errors. While the gate is
 * closed they wait. Requests that waited run in the order in which they arrived, each once.
 */
CO int front_read(struct front_client *c, uint64_t offset, uint64_t len, void *buf) must_check;
CO int front_write(struct front_client *c, uint64_t offset, uint64_t len, const void *buf,
                   unsigned flags) must_check;
CO int front_flush(struct front_client *c) must_check;
CO int front_discard(struct front_client *c, uint64_t offset, uint64_t len,
                     unsigned flags) must_check;
CO int front_zero(struct front_client *c, uint64_t offset, uint64_t len, unsigned flags) must_check;
CO int front_extents(struct front_client *c, uint64_t offset, uint64_t len,
                     struct volume_extent *out, unsigned max, unsigned *n) must_check;

/* ---- the gate -------------------------------------------------------------------------------- */

/* Requests that had not ended when a deadline passed. */
struct front_late {
    unsigned count;
    char text[96]; /* "2 writes, 1 flush" */
};

/*
 * Closes the gate and waits until no request is in flight. A request that waits for space, or a
 * discard or zero between two of its parts, comes back to the gate with what is left of it. Only
 * requests of clients are held: checkpoints, commits of the pool and its background work go on.
 *
 * 0: the volume is frozen until front_thaw.
 * VP_E_TIMED_OUT: `deadline_ns` of the reactor's clock has passed (0: there is none). The gate is
 * open again, and *late says which requests were in flight.
 * VP_E_BUSY: somebody else freezes the volume.
 * VP_E_CANCELLED: the caller was cancelled (the gate is open), or the pool is being closed.
 *
 * Whoever freezes a volume has it open or pinned until it is thawed.
 */
CO int front_freeze(struct front *f, uint64_t deadline_ns, struct front_late *late) must_check;
/* Opens the gate of a frozen volume. */
void front_thaw(struct front *f);

/* ---- tokens ---------------------------------------------------------------------------------- */

/* A limit on the requests that clients send. */
struct front_tokens {
    /* Returns when a request that moves `bytes` may begin. It asks front_client_is_off whenever it
     * wakes, and then returns VP_E_CANCELLED. */
    CO int (*take)(void *arg, const struct front_client *c, uint64_t bytes);
    /* A client has gone, or the pool is being closed: who waits in `take` looks again. */
    void (*rouse)(void *arg);
    void *arg;
};
/* NULL: no limit, as at first. `t` is the caller's, and stays until no request waits in its
 * `take`. The limit is the front's, and stays with it when that becomes another volume's. */
void front_tokens_set(struct front *f, const struct front_tokens *t);
/* The client has gone, or the pool is being closed: none of its requests waits any more. */
bool front_client_is_off(const struct front_client *c);

/* ---- what is behind -------------------------------------------------------------------------- */

enum front_kind {
    FRONT_READ,
    FRONT_WRITE,
    FRONT_FLUSH,
    FRONT_DISCARD,
    FRONT_ZERO,
    FRONT_EXTENTS,
    FRONT_KINDS
};

/* A request on its way. It is in the frame of its call. */
struct front_request {
    struct front_client *client;
    uint64_t offset, len; /* what is left to do             */
    void *data;           /* read, extents: to; write: from */
    unsigned flags;       /* enum volume_flags              */
    enum front_kind kind;
};
struct front_extents_request {
    struct front_request request; /* its data: struct volume_extent[max] */
    unsigned max;
    unsigned *n;
};

/* Instead of an error (which is negative): the request has come back to the gate; its offset, len
 * and data are what is left of it. */
#define FRONT_COME_AGAIN 1

struct front_ops {
    CO int (*run[FRONT_KINDS])(void *arg, struct front_request *r);
    /* Wakes requests that wait for as long as others decide (for space), so that they ask
     * front_request_verdict again. A request does not yield between that question and its wait. */
    void (*rouse)(void *arg);
};

/* Puts something else behind the front of a frozen volume. Held requests go there, and a request
 * that came back goes there with what is left of it. The volume keeps its name, size and
 * properties. */
void front_swap(struct front *f, const struct front_ops *ops, void *arg);

/* What a request does that waits for space, or is between two parts: 0 = it goes on,
 * FRONT_COME_AGAIN = it returns this, VP_E_CANCELLED = it ends with this. */
int front_request_verdict(const struct front_request *r);

#endif
