/*
 * Blocking calls about drivers, each on a thread of its own. Adding or starting a device may take
 * for ever on some kernels. Opening a block device may read from it, and the calling reactor has to
 * serve that read. The thread and the coroutine that waits for it share a job, and the last of them
 * frees it. So a thread that the kernel keeps can do no harm.
 */
#include "io/driver.h"
#include "io/net.h"
#include "io/reactor.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct job {
    int (*fn)(struct job *job);
    struct io_control control;
    char path[64];
    int res;
    int done_fd;
    atomic_bool finished; /* res and control.data may be read */
    atomic_uint users;
};

static void job_put(struct job *job)
{
    if (atomic_fetch_sub(&job->users, 1) != 1)
        return;
    close(job->done_fd);
    free(job);
}

static struct job *job_new(int (*fn)(struct job *job))
{
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return NULL;
    job->fn = fn;
    job->done_fd = eventfd(0, EFD_CLOEXEC);
    atomic_init(&job->users, 1);
    if (job->done_fd >= 0)
        return job;
    free(job);
    return NULL;
}

static void *job_thread(void *arg)
{
    struct job *job = arg;
    job->res = job->fn(job);
    atomic_store(&job->finished, true);
    uint64_t one = 1;
    ssize_t n = write(job->done_fd, &one, sizeof(one));
    (void)n; /* an eventfd at 0 takes it */
    job_put(job);
    return NULL;
}

/* -ETIMEDOUT, -ENOMEM or what the job returned; the caller still holds the job. */
static CO int job_run(struct job *job, unsigned timeout_ms)
{
    pthread_t thread;
    unsigned events;
    atomic_fetch_add(&job->users, 1);
    if (pthread_create(&thread, NULL, job_thread, job) != 0) {
        job_put(job);
        return -ENOMEM;
    }
    pthread_detach(thread);
    uint64_t deadline = reactor_now_ns() + UINT64_C(1000000) * timeout_ms;
    int rc;
    do /* somebody else's co_cancel does not end the command, so it does not end the wait */
        rc = io_poll(job->done_fd, POLLIN, deadline, &events);
    while (rc == VP_E_CANCELLED);
    if (atomic_load(&job->finished))
        return job->res;
    return rc == VP_E_TIMED_OUT ? -ETIMEDOUT : -ENOMEM;
}

/* ---- control commands ---------------------------------------------------------------------- */

static int submit_and_wait(struct io_uring *ring, int fd, struct io_control *c)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    io_uring_prep_rw(IORING_OP_URING_CMD, sqe, fd, NULL, 0, 0);
    sqe->cmd_op = c->op;
    memcpy((unsigned char *)sqe + offsetof(struct io_uring_sqe, addr3), c->payload,
           sizeof(c->payload));
    struct io_uring_cqe *cqe;
    struct pollfd completion = {.fd = ring->ring_fd, .events = POLLIN};
    int rc;
    do
        rc = io_uring_submit(ring);
    while (rc == -EINTR);
    while (rc >= 0 && poll(&completion, 1, -1) < 0) /* for valgrind: sanitize_impl.h */
        ;
    do
        rc = rc < 0 ? rc : io_uring_wait_cqe(ring, &cqe);
    while (rc == -EINTR);
    return rc < 0 ? rc : cqe->res;
}

static int control_job(struct job *job)
{
    struct io_control *c = &job->control;
    uint64_t address = (uintptr_t)c->data;
    if (c->data_at)
        memcpy(c->payload + c->data_at, &address, sizeof(address));
    int fd = io_driver_open(c->path);
    if (fd < 0)
        return fd;
    struct io_uring ring;
    int rc = io_uring_queue_init(4, &ring, IORING_SETUP_SQE128);
    if (rc == 0) {
        rc = submit_and_wait(&ring, fd, c);
        io_uring_queue_exit(&ring);
    }
    close(fd);
    return rc;
}

CO int io_control_run(struct io_control *c, unsigned timeout_ms)
{
    struct job *job = job_new(control_job);
    if (!job)
        return -ENOMEM;
    job->control = *c;
    int res = job_run(job, timeout_ms);
    if (atomic_load(&job->finished))
        memcpy(c->data, job->control.data, sizeof(c->data));
    job_put(job);
    return res;
}

/* ---- who has it --------------------------------------------------------------------------- */

static int claimed_job(struct job *job)
{
    int fd = open(job->path, O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

CO int io_block_is_claimed(const char *path, unsigned timeout_ms)
{
    struct job *job = job_new(claimed_job);
    if (!job)
        return VP_E_NO_MEMORY;
    strncpy(job->path, path, sizeof(job->path) - 1);
    int res = job_run(job, timeout_ms);
    job_put(job);
    return res == -EBUSY       ? VP_E_BUSY
           : res == -ETIMEDOUT ? VP_E_TIMED_OUT
           : res < 0           ? vp_err_from_errno(-res)
                               : 0;
}
