/*
 * The reactor's io_uring.
 *
 * One io_uring_enter in a turn submits everything that is queued and waits. The completion queue
 * has room for two kinds of requests. Socket requests (one for each coroutine, and one that cancels
 * it) may take for ever. Of the others `limit` fit. Requests beyond that limit wait here, first in
 * first out. So completions never overflow, idle sockets never keep disks waiting, and a
 * cancellation always gets through. If the queue overflowed all the same, the kernel would keep the
 * completions and they would still be fetched (tested by switching the limit off).
 *
 * The kernel's features are tried, best first, and used where they work: single issuer with
 * deferred task work (6.1), cooperative task work (5.19), none; registered buffers. For
 * tests, VPOOL_IO_DISABLE (a comma list) switches each of them off by its name.
 */
#include "io/reactor_impl.h"
#include "io/ring_impl.h"

#include "base/log.h"
#include "base/verify.h"
#include "io/buffer.h"
#include "io/sanitize_impl.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ring {
    struct io_uring uring;
    struct reactor_features features;
    struct reactor_figures *figures;
    unsigned in_flight, limit; /* counted requests in the kernel or its queue; how many may be */
    unsigned late;             /* of in_flight: nobody waits for them (ring_request_left)      */
    unsigned in_flight_free;   /* of ring_submit_free                                          */
    struct ring_req **slot;    /* [slots]: counted requests by the number that the kernel has  */
    uint32_t *vacant;          /* [slots]: numbers; those from in_flight on are vacant         */
    unsigned slots;
    struct list waiting, waiting_free;  /* ring_req.link: no room yet                           */
    unsigned driver_slot, driver_slots; /* in the table of buffers, behind the region's        */
    bool driver_slots_taken;
    bool enabled, running;
    bool wait_by_poll; /* not in io_uring_enter, for valgrind */

    struct ring_req wake, cancel_wake; /* the read on the mailbox's eventfd */
    bool wake_armed;
    int event_fd;
    uint64_t wake_value;
};

bool ring_feature_disabled(const char *name)
{
    const char *list = getenv("VPOOL_IO_DISABLE");
    size_t len = strlen(name);
    while (list && *list) {
        size_t word = strcspn(list, ",");
        if (word == len && strncmp(list, name, len) == 0)
            return true;
        list += word + (list[word] == ',');
    }
    return false;
}

/* ---- life ---------------------------------------------------------------------------------- */

#define NO_LIMIT (1U << 17) /* as good as none, for a test */

struct setup {
    unsigned flags;
    bool single_issuer, defer_taskrun;
};

static int setup_ring(struct ring *ring, const struct reactor_config *config)
{
    static const struct setup setups[] = {
        {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, true,
         true},
        {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, true,
         false},
        {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, false, false},
        {0, false, false},
    };
    unsigned reserved = 2 * config->max_coroutines + 2; /* the eventfd's, too */
    bool no_single = ring_feature_disabled("single_issuer");
    /* Deferred work does not end a poll of the ring. */
    bool no_defer = ring_feature_disabled("defer_taskrun") || san_one_thread();
    bool no_coop = ring_feature_disabled("coop_taskrun");
    int rc = -EINVAL;
    for (size_t i = 0; i < sizeof(setups) / sizeof(setups[0]); i++) {
        const struct setup *s = &setups[i];
        if ((s->single_issuer && no_single) || (s->defer_taskrun && no_defer) ||
            ((s->flags & IORING_SETUP_COOP_TASKRUN) && no_coop))
            continue;
        /* Disabled until ring_start: the thread that enables it is its single issuer. */
        struct io_uring_params params = {.flags = s->flags | IORING_SETUP_R_DISABLED |
                                                  IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
                                         .cq_entries = 2 * config->ring_entries + reserved};
        rc = io_uring_queue_init_params(config->ring_entries, &ring->uring, &params);
        if (rc == 0) {
            ring->features.single_issuer = s->single_issuer;
            ring->features.defer_taskrun = s->defer_taskrun;
            bool clamped = params.cq_entries < reserved + params.sq_entries;
            ring->limit = clamped ? params.sq_entries : params.cq_entries - reserved;
            return 0;
        }
        if (rc != -EINVAL)
            break;
    }
    return rc;
}

static int setup_failed(int rc, struct vp_error *err)
{
    if (rc == -ENOSYS || rc == -EPERM)
        return vp_fail_errno(err, VP_E_IO_NO_RING, -rc,
                             "the kernel does not let us use io_uring; set kernel.io_uring_disabled"
                             " to 0 (sysctl) and allow it in the container's seccomp profile");
    if (rc == -ENOMEM)
        return vp_fail_errno(err, VP_E_IO_NO_RING, -rc,
                             "cannot make an io_uring; raise the limit of locked memory"
                             " (ulimit -l, LimitMEMLOCK=)");
    return vp_fail_errno(err, VP_E_IO_NO_RING, -rc, "cannot make an io_uring");
}

static void wake_prep(struct ring_req *req, struct io_uring_sqe *sqe)
{
    struct ring *ring = container_of(req, struct ring, wake);
    io_uring_prep_read(sqe, ring->event_fd, &ring->wake_value, sizeof(ring->wake_value), 0);
}

/* The eventfd is read again and again while the ring runs. */
static void wake_done(struct ring_req *req, int res)
{
    struct ring *ring = container_of(req, struct ring, wake);
    (void)res; /* only a wake-up: the mailbox is looked at in every turn */
    ring->wake_armed = false;
    if (ring->running) {
        ring->wake_armed = true;
        ring_submit_free(ring, req);
    }
}

/* A table of buffers without any: first the slots of the region's slabs, then those of drivers. */
static void setup_buffers(struct ring *ring, const struct reactor_config *config)
{
    unsigned slabs = (unsigned)((config->buffer_bytes + IO_BUFFER_MAX - 1) / IO_BUFFER_MAX);
    unsigned slots = slabs + config->driver_buffers;
    if (ring_feature_disabled("fixed_buffers") ||
        io_uring_register_buffers_sparse(&ring->uring, slots) != 0)
        return;
    ring->features.fixed_buffers = true;
    ring->driver_slot = slabs;
    ring->driver_slots = config->driver_buffers;
}

/* Twice the limit: what was given up stays in its slot. */
static bool setup_slots(struct ring *ring)
{
    ring->slots = 2 * ring->limit;
    ring->slot = calloc(ring->slots, sizeof(struct ring_req *));
    ring->vacant = calloc(ring->slots, sizeof(*ring->vacant));
    if (!ring->slot || !ring->vacant)
        return false;
    for (uint32_t n = 0; n < ring->slots; n++)
        ring->vacant[n] = n;
    return true;
}

int ring_new(const struct reactor_config *config, struct reactor_figures *figures, int event_fd,
             struct ring **out, struct vp_error *err)
{
    struct ring *ring = calloc(1, sizeof(*ring));
    if (!ring)
        return vp_fail(err, VP_E_NO_MEMORY, "no memory for a ring");
    int rc = setup_ring(ring, config);
    if (rc != 0) {
        free(ring);
        return setup_failed(rc, err);
    }
    if (ring_feature_disabled("inflight_limit"))
        ring->limit = NO_LIMIT;
    if (!setup_slots(ring)) {
        io_uring_queue_exit(&ring->uring);
        free(ring->slot);
        free(ring->vacant);
        free(ring);
        return vp_fail(err, VP_E_NO_MEMORY, "no memory for a ring");
    }
    ring->wait_by_poll = san_one_thread();
    ring->figures = figures;
    ring->event_fd = event_fd;
    ring->wake = (struct ring_req){.prep = wake_prep, .done = wake_done};
    list_init(&ring->wake.link);
    list_init(&ring->waiting);
    list_init(&ring->waiting_free);
    setup_buffers(ring, config);
    *out = ring;
    return 0;
}

void ring_free(struct ring *ring)
{
    if (!ring)
        return;
    VP_VERIFY_TRUE(!ring->running);
    io_uring_queue_exit(&ring->uring);
    for (unsigned n = 0; n < ring->slots; n++) /* those that were given up: nobody will tell us */
        if (ring->slot[n])
            ring->slot[n]->done(ring->slot[n], -ECANCELED);
    free(ring->slot);
    free(ring->vacant);
    free(ring);
}

void ring_start(struct ring *ring)
{
    if (!ring->enabled) /* liburing 2.3 forgets to export io_uring_enable_rings */
        VP_VERIFY(syscall(__NR_io_uring_register, ring->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS,
                          NULL, 0),
                  ==, 0);
    ring->enabled = true;
    ring->running = true;
    ring->wake_armed = true;
    ring_submit_free(ring, &ring->wake);
}

static void cancel_wake_prep(struct ring_req *req, struct io_uring_sqe *sqe)
{
    ring_prep_cancel(sqe, &container_of(req, struct ring, cancel_wake)->wake);
}

static void cancel_wake_done(struct ring_req *req, int res)
{
    (void)req;
    (void)res; /* the end of the read itself is what counts */
}

void ring_stop(struct ring *ring)
{
    ring->running = false;
    if (ring->wake_armed) {
        ring->cancel_wake = (struct ring_req){.prep = cancel_wake_prep, .done = cancel_wake_done};
        list_init(&ring->cancel_wake.link);
        ring_submit_free(ring, &ring->cancel_wake);
    }
    while (ring->in_flight - ring->late + ring->in_flight_free > 0 ||
           !list_empty(&ring->waiting_free))
        ring_turn(ring, UINT64_MAX);
}

struct reactor_features ring_features(const struct ring *ring)
{
    return ring->features;
}

bool ring_register_buffer(struct ring *ring, unsigned index, void *base, size_t bytes)
{
    if (!ring->features.fixed_buffers)
        return false;
    struct iovec iov = {base, bytes};
    __u64 tag = 0;
    int rc = io_uring_register_buffers_update_tag(&ring->uring, index, &iov, &tag, 1);
    if (rc == 1)
        return true;
    /* Most likely the limit of locked memory: the rest will not fit either. */
    vp_info("I/O buffers are not registered from %u MiB on (%s); raise LimitMEMLOCK= to save CPU",
            index * (IO_BUFFER_MAX >> 20), strerror(rc < 0 ? -rc : ENOMEM));
    ring->features.fixed_buffers = false;
    return false;
}

unsigned ring_driver_slots_get(struct ring *ring, unsigned count)
{
    if (ring->driver_slots_taken || count > ring->driver_slots)
        return 0;
    ring->driver_slots_taken = true;
    return ring->driver_slot;
}

void ring_driver_slots_put(struct ring *ring)
{
    ring->driver_slots_taken = false;
}

/* ---- submitting ---------------------------------------------------------------------------- */

/* Of a counted request the kernel has a number, so that another request can take its place while
 * it is in flight. Of others it has the address. */
#define COUNTED 1U

static inline uint64_t take_slot(struct ring *ring, struct ring_req *req)
{
    uint32_t n = ring->vacant[ring->in_flight++];
    ring->slot[n] = req;
    return (uint64_t)n << 1 | COUNTED;
}

static inline struct ring_req *leave_slot(struct ring *ring, uint64_t data)
{
    uint32_t n = (uint32_t)(data >> 1);
    struct ring_req *req = ring->slot[n];
    ring->slot[n] = NULL;
    ring->vacant[--ring->in_flight] = n;
    return req;
}

/* True when the request is in the submission queue. */
static inline __attribute__((always_inline)) bool try_queue(struct ring *ring, struct ring_req *req,
                                                            bool counted)
{
    if (counted && ring->in_flight >= ring->limit)
        return false;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->uring);
    if (!sqe) {
        figure_add(&ring->figures->enters, 1);
        vp_ignore(io_uring_submit(&ring->uring), "it is tried again in the next turn");
        sqe = io_uring_get_sqe(&ring->uring);
        if (!sqe)
            return false;
    }
    req->prep(req, sqe);
    io_uring_sqe_set_data64(sqe, counted ? take_slot(ring, req) : (uintptr_t)req);
    if (!counted)
        ring->in_flight_free++;
    return true;
}

static inline void submit(struct ring *ring, struct list *waiting, struct ring_req *req,
                          bool counted)
{
    if (!list_empty(waiting) || !try_queue(ring, req, counted))
        list_add_tail(waiting, &req->link);
    else
        list_init(&req->link);
}

void ring_submit(struct ring *ring, struct ring_req *req)
{
    submit(ring, &ring->waiting, req, true);
}

void ring_submit_free(struct ring *ring, struct ring_req *req)
{
    submit(ring, &ring->waiting_free, req, false);
}

static inline void feed(struct ring *ring, struct list *waiting, bool counted)
{
    while (!list_empty(waiting)) {
        struct ring_req *req = list_first(waiting, struct ring_req, link);
        list_del(&req->link);
        if (!try_queue(ring, req, counted)) {
            list_add_head(waiting, &req->link);
            return;
        }
    }
}

static void feed_waiting(struct ring *ring)
{
    feed(ring, &ring->waiting_free, false);
    feed(ring, &ring->waiting, true);
}

bool ring_withdraw(struct ring *ring, struct ring_req *req)
{
    (void)ring;
    if (list_empty(&req->link))
        return false;
    list_del(&req->link);
    return true;
}

void ring_each_counted(struct ring *ring, void (*fn)(struct ring_req **req, void *arg), void *arg)
{
    unsigned left = ring->in_flight;
    for (unsigned n = 0; n < ring->slots && left; n++) {
        if (!ring->slot[n])
            continue;
        left--;
        fn(&ring->slot[n], arg);
    }
}

void ring_request_left(struct ring *ring, int count)
{
    ring->late += (unsigned)count;
    ring->limit += (unsigned)count;
}

bool ring_may_leave(const struct ring *ring)
{
    return ring->late < ring->slots / 2;
}

unsigned ring_waited_for(const struct ring *ring)
{
    return ring->in_flight - ring->late;
}

void ring_forget(struct ring *ring, int count)
{
    ring->in_flight_free -= (unsigned)count;
}

void ring_prep_cancel(struct io_uring_sqe *sqe, struct ring_req *req)
{
    io_uring_prep_cancel64(sqe, (uintptr_t)req, 0);
}

/* ---- completing ---------------------------------------------------------------------------- */

static unsigned reap(struct ring *ring)
{
    unsigned done = 0;
    struct io_uring_cqe *cqe;
    while (io_uring_cq_ready(&ring->uring) > 0 && io_uring_peek_cqe(&ring->uring, &cqe) == 0) {
        uint64_t data = cqe->user_data;
        int res = cqe->res;
        io_uring_cqe_seen(&ring->uring, cqe);
        if (data == LIBURING_UDATA_TIMEOUT)
            continue; /* a kernel without IORING_FEAT_EXT_ARG */
        struct ring_req *req =
            data & COUNTED ? leave_slot(ring, data) : (struct ring_req *)(uintptr_t)data;
        if (!(data & COUNTED))
            ring->in_flight_free--;
        done++;
        req->done(req, res);
    }
    figure_add(&ring->figures->completions, done);
    return done;
}

/* Completions that the kernel holds back until it is entered. */
static bool needs_enter(struct ring *ring)
{
    unsigned flags = __atomic_load_n(ring->uring.sq.kflags, __ATOMIC_ACQUIRE);
    return flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static int enter_by_poll(struct ring *ring, uint64_t timeout_ns)
{
    struct pollfd completions = {.fd = ring->uring.ring_fd, .events = POLLIN};
    struct timespec ts = {.tv_sec = (time_t)(timeout_ns / 1000000000U),
                          .tv_nsec = (long)(timeout_ns % 1000000000U)};
    int rc = io_uring_submit_and_get_events(&ring->uring);
    if (rc < 0)
        return rc;
    (void)ppoll(&completions, 1, timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
    return io_uring_get_events(&ring->uring);
}

static int enter(struct ring *ring, uint64_t timeout_ns)
{
    struct io_uring *u = &ring->uring;
    bool queued = io_uring_sq_ready(u) > 0;
    if (timeout_ns == 0 || io_uring_cq_ready(u) > 0) {
        if (!queued && !needs_enter(ring))
            return 0;
        figure_add(&ring->figures->enters, 1);
        return queued ? io_uring_submit_and_get_events(u) : io_uring_get_events(u);
    }
    figure_add(&ring->figures->enters, 1);
    if (ring->wait_by_poll)
        return enter_by_poll(ring, timeout_ns);
    if (timeout_ns == UINT64_MAX)
        return io_uring_submit_and_wait(u, 1);
    struct __kernel_timespec ts = {.tv_sec = (long long)(timeout_ns / 1000000000U),
                                   .tv_nsec = (long long)(timeout_ns % 1000000000U)};
    struct io_uring_cqe *cqe;
    return io_uring_submit_and_wait_timeout(u, &cqe, 1, &ts, NULL);
}

unsigned ring_turn(struct ring *ring, uint64_t timeout_ns)
{
    feed_waiting(ring);
    int rc = enter(ring, timeout_ns);
    /* EAGAIN, EBUSY: the kernel is short of something until we took completions. */
    if (rc < 0 && rc != -ETIME && rc != -EINTR && rc != -EAGAIN && rc != -EBUSY) {
        vp_error_log("io_uring failed (%s): completions are lost, cannot go on", strerror(-rc));
        abort();
    }
    reactor_update_turn();
    unsigned done = reap(ring);
    feed_waiting(ring);
    return done;
}
