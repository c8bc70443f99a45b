/* Each call gets a thread of its own, since there are a few calls in an hour. */
#include "io/offload.h"

#include "base/attr.h"
#include "io/net.h"
#include "io/reactor_impl.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>

struct offload {
    int (*fn)(void *arg);
    void *arg;
    int rc;
    int done_fd;
};

static void *offload_thread(void *arg)
{
    struct offload *o = arg;
    o->rc = o->fn(o->arg);
    uint64_t one = 1;
    ssize_t n = write(o->done_fd, &one, sizeof(one));
    (void)n; /* an eventfd at 0 takes it */
    return NULL;
}

CO int offload_run(int (*fn)(void *arg), void *arg)
{
    if (!reactor_current || reactor_current->config.sim)
        return fn(arg);
    struct offload o = {.fn = fn, .arg = arg};
    AUTO_FD int fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0)
        return VP_E_NO_MEMORY;
    o.done_fd = fd;
    pthread_t thread;
    if (pthread_create(&thread, NULL, offload_thread, &o))
        return VP_E_NO_MEMORY;
    unsigned events;
    int rc;
    do /* somebody else's co_cancel does not end the call, so it does not end the wait */
        rc = io_poll(fd, POLLIN, 0, &events);
    while (rc == VP_E_CANCELLED);
    pthread_join(thread, NULL);
    return o.rc;
}

/* ---- a call that its caller may leave ------------------------------------------------------- */

/* The second of the two parties to change the state takes care of what is left. */
enum { LASTING_RUNS, LASTING_ENDED, LASTING_LEFT };

struct lasting {
    int (*fn)(void *arg);
    void *arg;
    void (*drop)(void *arg);
    int rc;
    int done_fd;
    atomic_int state;
};

static void *lasting_thread(void *arg)
{
    struct lasting *l = arg;
    l->rc = l->fn(l->arg);
    if (atomic_exchange(&l->state, LASTING_ENDED) == LASTING_LEFT) {
        l->drop(l->arg);
        close(l->done_fd);
        free(l);
        return NULL;
    }
    uint64_t one = 1;
    ssize_t n = write(l->done_fd, &one, sizeof(one));
    (void)n; /* an eventfd at 0 takes it */
    return NULL;
}

static struct lasting *lasting_start(const struct lasting *model, pthread_t *thread)
{
    struct lasting *l = malloc(sizeof(*l));
    if (!l)
        return NULL;
    *l = *model;
    l->done_fd = eventfd(0, EFD_CLOEXEC);
    if (l->done_fd >= 0) {
        if (pthread_create(thread, NULL, lasting_thread, l) == 0)
            return l;
        close(l->done_fd);
    }
    free(l);
    return NULL;
}

CO int offload_run_until(int (*fn)(void *arg), void *arg, void (*drop)(void *arg),
                         uint64_t deadline_ns, int *fn_rc)
{
    if (!reactor_current || reactor_current->config.sim) {
        *fn_rc = fn(arg);
        return 0;
    }
    pthread_t thread;
    unsigned events;
    struct lasting model = {.fn = fn, .arg = arg, .drop = drop, .state = LASTING_RUNS};
    struct lasting *l = lasting_start(&model, &thread);
    if (!l) {
        drop(arg);
        return VP_E_NO_MEMORY;
    }
    int rc = io_poll(l->done_fd, POLLIN, deadline_ns, &events);
    int runs = LASTING_RUNS;
    if (rc && atomic_compare_exchange_strong(&l->state, &runs, LASTING_LEFT)) {
        pthread_detach(thread);
        return rc;
    }
    pthread_join(thread, NULL); /* it has nothing to do any more but to end */
    *fn_rc = l->rc;
    close(l->done_fd);
    free(l);
    return 0;
}
