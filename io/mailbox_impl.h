/*
 * A reactor's mailbox, private to io/: three lock-free lanes into the reactor's thread.
 *
 * Requests ("spawn fn(arg)") come through two bounded rings. Each is D. Vyukov's multi-producer
 * queue, where a sequence number in each slot says whose turn it is. There are two rings because a
 * client's request may wait for a coroutine. It must not keep back internal requests, for which the
 * client may be waiting. Replies to our own calls come through an intrusive stack, whose elements
 * are the callers' own storage. Replies need no room, so two reactors whose rings are both full of
 * requests can still answer each other.
 *
 * A reactor that goes to sleep sets `sleeping` and looks into all lanes once more. A sender that
 * put something in and finds `sleeping` set clears it and writes to the eventfd.
 */
#ifndef VP_IO_MAILBOX_IMPL_H
#define VP_IO_MAILBOX_IMPL_H

#include "base/error.h"
#include "io/reactor.h"

#include <stdbool.h>
#include <stdint.h>

struct reactor;

struct mail {
    void (*fn)(void *arg);
    void *arg;
    const char *name;
};

struct mail_slot {
    _Atomic uint64_t turn;
    struct mail mail;
};

/* A MAIL_CLIENT request may last as long as a client likes, or wait for a checkpoint. It leaves the
 * reserve of coroutines to MAIL_INTERNAL requests, which end by themselves (io/README.md). */
enum mail_lane { MAIL_INTERNAL, MAIL_CLIENT, MAIL_LANES };

struct mail_ring {
    struct mail_slot *slot;
    uint64_t mask;
    uint64_t head;         /* the reader's  */
    _Atomic uint64_t tail; /* the writers'  */
};

struct mailbox {
    struct mail_ring ring[MAIL_LANES];
    unsigned starved; /* the reader's: lanes whose first request waits for a coroutine to end */
    _Atomic(struct mail_reply *) replies;
    _Atomic unsigned senders; /* threads inside mailbox_send: nobody frees it under them */
    _Atomic bool closed;
    _Atomic bool sleeping;
    int event_fd; /* -1 in a simulated world */
};

int mailbox_init(struct mailbox *m, unsigned slots, bool with_event, struct vp_error *err);
void mailbox_fini(struct mailbox *m);

/* Any thread. VP_E_AGAIN: full; VP_E_SHUTDOWN: closed. */
int mailbox_send(struct mailbox *m, enum mail_lane lane, const struct mail *mail) must_check;
/* Any thread; never fails. */
void mailbox_reply(struct mailbox *m, struct mail_reply *reply);

/* ---- the reader's ------------------------------------------------------------------------- */

bool mailbox_is_empty(struct mailbox *m);
/* Wakes the coroutines whose replies came, and spawns requests while there are coroutines for
 * them. */
void mailbox_receive(struct mailbox *m);
/* Before waiting: false when something came and there is no time to sleep. */
bool mailbox_sleep(struct mailbox *m);
void mailbox_awake(struct mailbox *m);
/* From now on mailbox_send refuses. What was accepted before is still to be received. */
void mailbox_close(struct mailbox *m);
/* Makes the reader look; any thread. */
void mailbox_kick(struct mailbox *m);

#endif
