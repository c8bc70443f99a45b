/* See mailbox_impl.h. */
#include "io/mailbox_impl.h"

#include "base/verify.h"
#include "io/co.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

int mailbox_init(struct mailbox *m, unsigned slots, bool with_event, struct vp_error *err)
{
    VP_VERIFY(slots & (slots - 1), ==, 0U);
    m->event_fd = -1;
    m->slot = calloc(slots, sizeof(*m->slot));
    if (!m->slot)
        return vp_fail(err, VP_E_NO_MEMORY, "no memory for a reactor's mailbox");
    m->mask = slots - 1;
    for (unsigned i = 0; i < slots; i++)
        atomic_init(&m->slot[i].turn, i);
    if (with_event) {
        m->event_fd = eventfd(0, EFD_CLOEXEC);
        if (m->event_fd < 0)
            return vp_fail_errno(err, VP_E_SYSTEM, errno, "can not create an eventfd");
    }
    return 0;
}

void mailbox_fini(struct mailbox *m)
{
    free(m->slot);
    m->slot = NULL;
    if (m->event_fd >= 0)
        close(m->event_fd);
    m->event_fd = -1;
}

void mailbox_kick(struct mailbox *m)
{
    if (!atomic_load(&m->sleeping) || !atomic_exchange(&m->sleeping, false))
        return;
    uint64_t one = 1;
    while (write(m->event_fd, &one, sizeof(one)) < 0)
        VP_VERIFY(errno, ==, EINTR);
}

/* A slot whose turn equals the tail is free for it; one behind means that the ring is full. */
static int put(struct mailbox *m, const struct mail *mail)
{
    uint64_t at = atomic_load_explicit(&m->tail, memory_order_relaxed);
    for (;;) {
        struct mail_slot *slot = &m->slot[at & m->mask];
        uint64_t turn = atomic_load_explicit(&slot->turn, memory_order_acquire);
        if (turn == at) {
            if (!atomic_compare_exchange_weak(&m->tail, &at, at + 1))
                continue;
            slot->mail = *mail;
            atomic_store(&slot->turn, at + 1);
            return 0;
        }
        if ((int64_t)(turn - at) < 0)
            return VP_E_AGAIN;
        at = atomic_load_explicit(&m->tail, memory_order_relaxed);
    }
}

int mailbox_send(struct mailbox *m, const struct mail *mail)
{
    atomic_fetch_add(&m->senders, 1);
    int rc = VP_E_SHUTDOWN;
    if (!atomic_load(&m->closed)) {
        rc = put(m, mail);
        mailbox_kick(m);
    }
    atomic_fetch_sub(&m->senders, 1);
    return rc;
}

void mailbox_reply(struct mailbox *m, struct mail_reply *reply)
{
    atomic_fetch_add(&m->senders, 1);
    struct mail_reply *top = atomic_load_explicit(&m->replies, memory_order_relaxed);
    do
        reply->next = top;
    while (!atomic_compare_exchange_weak(&m->replies, &top, reply));
    mailbox_kick(m);
    atomic_fetch_sub(&m->senders, 1);
}

static bool has_request(struct mailbox *m)
{
    return atomic_load(&m->slot[m->head & m->mask].turn) == m->head + 1;
}

bool mailbox_is_empty(struct mailbox *m)
{
    return !has_request(m) && !atomic_load(&m->replies);
}

static void receive_replies(struct mailbox *m)
{
    if (!atomic_load_explicit(&m->replies, memory_order_relaxed))
        return;
    struct mail_reply *top = atomic_exchange(&m->replies, NULL), *first = NULL;
    while (top) { /* the last to come is on top: turn it round */
        struct mail_reply *next = top->next;
        top->next = first;
        first = top;
        top = next;
    }
    while (first) {
        struct mail_reply *next = first->next;
        co_wake(first->co);
        first = next;
    }
}

void mailbox_receive(struct mailbox *m)
{
    receive_replies(m);
    /* At most what the ring holds: the other reactor must not keep us from our own work. */
    for (uint64_t n = 0; n <= m->mask; n++) {
        struct mail_slot *slot = &m->slot[m->head & m->mask];
        if (atomic_load_explicit(&slot->turn, memory_order_acquire) != m->head + 1)
            return;
        m->starved = co_spawn(slot->mail.fn, slot->mail.arg, slot->mail.name) != 0;
        if (m->starved)
            return; /* it stays here until a coroutine is free */
        atomic_store_explicit(&slot->turn, m->head + m->mask + 1, memory_order_release);
        m->head++;
    }
}

bool mailbox_sleep(struct mailbox *m)
{
    atomic_store(&m->sleeping, true);
    /* Starved, it sleeps until one of its coroutines has something to do. */
    if (!atomic_load(&m->replies) && (m->starved || !has_request(m)))
        return true;
    mailbox_awake(m);
    return false;
}

void mailbox_awake(struct mailbox *m)
{
    atomic_store(&m->sleeping, false);
}

void mailbox_close(struct mailbox *m)
{
    atomic_store(&m->closed, true);
    /* Who is inside has at most an eventfd write to do. */
    while (atomic_load(&m->senders) != 0)
        sched_yield();
}
