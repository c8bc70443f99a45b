/*
 * The other side of a move is in another daemon (migrate/peer.h): messages by remote.h, data by
 * migrate/link.h.
 *
 * 1. Data go through several connections, on the reactor of the source: those for what is copied,
 *    and one of its own for mirrored writes, for which clients wait. They belong to a session,
 *    which the other daemon numbers. A new session begins there when the one before has ended.
 * 2. When one connection is lost the session is. A request that was lost may still land there, as
 *    long as the server of the session is there. So blocks are safe to write again only when the
 *    session has ended, with all its connections.
 * 3. While the move is at work the other daemon hears of it every few seconds. It gives up a source
 *    that is silent for a minute.
 *
 * Home reactor, except for the calls with data. Tested by tests/integration/t_migrate_peer.py.
 */
#ifndef VP_CONTROL_MOVE_OUT_H
#define VP_CONTROL_MOVE_OUT_H

#include "control/remote.h"
#include "migrate/peer.h"
#include "migrate/receive.h"

struct move_out;

/* To `to`, "POOL" or "POOL/VOL" in the daemon at `address`. Once *stopping is set nothing is tried
 * again. VP_E_INVALID, VP_E_NO_MEMORY. */
int move_out_new(const char *address, const char *to, const bool *stopping, struct move_out **out,
                 struct vp_error *err) must_check;
/* For struct migrate_options. */
struct migrate_peer move_out_peer(struct move_out *o);
/* After its `close`, or when no move was started with it. NULL is fine. */
void move_out_free(struct move_out *o);

/* What became of a move in doubt: asks the daemon at `address`. Errors: nobody knows; a sentence
 * says why. */
CO int move_out_decide(const char *address, struct vp_uuid pool, const struct receive_claim *claim,
                       enum migrate_verdict *verdict, struct vp_error *err) must_check;
/* It has said that the volume has arrived, and the source is deleted: tells it so, a few times if
 * it has to and *stopping is not set. */
CO int move_out_confirm(const char *address, struct vp_uuid pool, const struct receive_claim *claim,
                        const bool *stopping, struct vp_error *err) must_check;

#endif
