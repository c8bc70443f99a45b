/* Each call gets a thread of its own, since there are a few calls in an hour. */
#include "io/offload.h"

#include "base/attr.h"
#include "io/net.h"
#include "io/reactor_impl.h"

#include <poll.h>
#include <pthread.h>
#include <stdint.h>
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
