/* Calls and posts between reactors: what travels through a mailbox is always "spawn this". */
#include "base/verify.h"
#include "io/reactor_impl.h"

#include <sched.h>
#include <semaphore.h>
#include <time.h>

#define RETRY_NS 20000U /* the other side's ring is full: that is some 1000 requests of work */

/* On the caller's stack until the reply. */
struct call {
    int (*fn)(void *arg);
    void *arg;
    int rc;
    unsigned held;        /* by the caller, until the reply (hold.h) */
    struct reactor *from; /* NULL: a plain thread waits on `done` */
    struct mail_reply reply;
    sem_t *done;
};

/* The callee's half. The call is the caller's again with the reply: nothing of it is used after. */
static void call_run(void *arg)
{
    struct call *call = arg;
    co_self()->held = call->held;
    call->rc = call->fn(call->arg);
    if (call->from)
        mailbox_reply(&call->from->mailbox, &call->reply);
    else
        VP_VERIFY(sem_post(call->done), ==, 0);
}

static CO int call_in_lane(struct reactor *to, enum mail_lane lane, unsigned held,
                           int (*fn)(void *arg), void *arg)
{
    struct co *self = co_self();
    VP_VERIFY(self, !=, NULL);
    struct call call = {
        .fn = fn, .arg = arg, .held = held, .from = reactor_current, .reply = {.co = self}};
    struct mail mail = {call_run, &call, "reactor_call"};
    int rc;
    while ((rc = mailbox_send(&to->mailbox, lane, &mail)) == VP_E_AGAIN)
        vp_ignore(co_sleep_ns(RETRY_NS), "it is tried again, also when the sleep was cut short");
    if (rc != 0)
        return rc;
    co_suspend("reactor_call");
    return call.rc;
}

CO int reactor_call(struct reactor *to, int (*fn)(void *arg), void *arg)
{
    unsigned before = hold_marks(), held = before | HOLD_MARK(RESOURCE_RESERVE);
    if (to != reactor_current)
        return call_in_lane(to, MAIL_INTERNAL, held, fn, arg);
    hold_take(held);
    int rc = fn(arg);
    hold_drop(held & ~before);
    return rc;
}

CO int reactor_call_for_client(struct reactor *to, int (*fn)(void *arg), void *arg)
{
    hold_verify(RESOURCE_CLIENT_CALL);
    if (to == reactor_current)
        return fn(arg);
    return call_in_lane(to, MAIL_CLIENT, hold_marks(), fn, arg);
}

/* From a thread that may block. */
static int send_blocking(struct reactor *to, const struct mail *mail)
{
    int rc;
    while ((rc = mailbox_send(&to->mailbox, MAIL_INTERNAL, mail)) == VP_E_AGAIN) {
        struct timespec pause = {0, RETRY_NS};
        (void)nanosleep(&pause, NULL);
    }
    return rc;
}

int reactor_call_blocking(struct reactor *to, int (*fn)(void *arg), void *arg)
{
    VP_VERIFY(reactor_current, ==, NULL);
    sem_t done;
    VP_VERIFY(sem_init(&done, 0, 0), ==, 0);
    struct call call = {.fn = fn, .arg = arg, .done = &done};
    struct mail mail = {call_run, &call, "reactor_call_blocking"};
    int rc = send_blocking(to, &mail);
    if (rc == 0) {
        while (sem_wait(&done) != 0)
            ; /* a signal */
        rc = call.rc;
    }
    (void)sem_destroy(&done);
    return rc;
}

int reactor_post(struct reactor *to, void (*fn)(void *arg), void *arg, const char *name)
{
    struct mail mail = {fn, arg, name};
    if (reactor_current)
        return mailbox_send(&to->mailbox, MAIL_INTERNAL, &mail);
    return send_blocking(to, &mail);
}

/* ---- events -------------------------------------------------------------------------------- */

enum { EVENT_OPEN, EVENT_AWAITED, EVENT_SET };

void reactor_event_init(struct reactor_event *e)
{
    atomic_init(&e->state, EVENT_OPEN);
    e->reactor = reactor_current;
    e->reply = (struct mail_reply){.co = co_self()};
}

CO void reactor_event_wait(struct reactor_event *e)
{
    unsigned state = EVENT_OPEN;
    if (atomic_compare_exchange_strong(&e->state, &state, EVENT_AWAITED))
        co_suspend("an event of another reactor");
    else
        VP_VERIFY(state, ==, (unsigned)EVENT_SET);
}

void reactor_event_set(struct reactor_event *e)
{
    struct reactor *reactor = e->reactor;
    unsigned before = atomic_exchange(&e->state, EVENT_SET);
    VP_VERIFY(before, !=, (unsigned)EVENT_SET);
    if (before == EVENT_AWAITED)
        mailbox_reply(&reactor->mailbox, &e->reply);
}
