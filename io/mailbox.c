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

static bool ring_init(struct mail_ring *r, unsigned slots)
{
    VP_VERIFY(slots & (slots - 1), ==, 0U);
    r->slot = calloc(slots, sizeof(*r->slot));
    if (!r->slot)
        return false;
    r->mask = slots - 1;
    for (unsigned i = 0; i < slots; i++)
        atomic_init(&r->slot[i].turn, i);
    return true;
}

int mailbox_init(struct mailbox *m, unsigned slots, bool with_event, struct vp_error *err)
{
    m->event_fd = -1;
    for (unsigned i = 0; i < MAIL_LANES; i++)
        if (!ring_init(&m->ring[i], slots))
            return vp_fail(err, VP_E_NO_MEMORY, "no memory for a reactor's mailbox");
    if (with_event) {
        m->event_fd = eventfd(0, EFD_CLOEXEC);
        if (m->event_fd < 0)
            return vp_fail_errno(err, VP_E_SYSTEM, errno, "cannot create an eventfd");
    }
    return 0;
}

void mailbox_fini(struct mailbox *m)
{
    for (unsigned i = 0; i < MAIL_LANES; i++) {
        free(m->ring[i].slot);
        m->ring[i].slot = NULL;
    }
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
static int ring_put(struct mail_ring *r, const struct mail *mail)
{
    uint64_t at = atomic_load_explicit(&r->tail, memory_order_relaxed);
    for (;;) {
        struct mail_slot *slot = &r->slot[at & r->mask];
        uint64_t turn = atomic_load_explicit(&slot->turn, memory_order_acquire);
        if (turn == at) {
            if (!atomic_compare_exchange_weak(&r->tail, &at, at + 1))
                continue;
            slot->mail = *mail;
            atomic_store(&slot->turn, at + 1);
            return 0;
        }
        if ((int64_t)(turn - at) < 0)
            return VP_E_AGAIN;
        at = atomic_load_explicit(&r->tail, memory_order_relaxed);
    }
}

int mailbox_send(struct mailbox *m, enum mail_lane lane, const struct mail *mail)
{
    atomic_fetch_add(&m->senders, 1);
    int rc = VP_E_SHUTDOWN;
    if (!atomic_load(&m->closed)) {
        rc = ring_put(&m->ring[lane], mail);
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

static bool ring_has_request(struct mail_ring *r)
{
    return atomic_load(&r->slot[r->head & r->mask].turn) == r->head + 1;
}

bool mailbox_is_empty(struct mailbox *m)
{
    for (unsigned i = 0; i < MAIL_LANES; i++)
        if (ring_has_request(&m->ring[i]))
            return false;
    return !atomic_load(&m->replies);
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

static void ring_receive(struct mailbox *m, enum mail_lane lane)
{
    struct mail_ring *r = &m->ring[lane];
    /* At most what the ring holds: the other reactor must not keep us from our own work. */
    for (uint64_t n = 0; n <= r->mask; n++) {
        struct mail_slot *slot = &r->slot[r->head & r->mask];
        if (atomic_load_explicit(&slot->turn, memory_order_acquire) != r->head + 1)
            return;
        const struct mail *mail = &slot->mail;
        int rc = lane == MAIL_INTERNAL ? co_spawn_reserved(mail->fn, mail->arg, mail->name)
                                       : co_spawn(mail->fn, mail->arg, mail->name);
        if (rc) { /* it stays here until a coroutine is free */
            m->starved |= 1U << lane;
            return;
        }
        atomic_store_explicit(&slot->turn, r->head + r->mask + 1, memory_order_release);
        r->head++;
    }
}

void mailbox_receive(struct mailbox *m)
{
    receive_replies(m);
    for (unsigned i = 0; i < MAIL_LANES; i++)
        ring_receive(m, (enum mail_lane)i);
}

bool mailbox_sleep(struct mailbox *m)
{
    atomic_store(&m->sleeping, true);
    bool quiet = !atomic_load(&m->replies);
    for (unsigned i = 0; i < MAIL_LANES; i++)
        quiet = quiet && (m->starved >> i & 1 || !ring_has_request(&m->ring[i]));
    if (!quiet)
        mailbox_awake(m);
    return quiet;
}

void mailbox_awake(struct mailbox *m)
{
    atomic_store(&m->sleeping, false);
}

void mailbox_close(struct mailbox *m)
{
    atomic_store(&m->closed, true);
    /* A thread that is inside has at most an eventfd write to do. */
    while (atomic_load(&m->senders) != 0)
        sched_yield();
}
