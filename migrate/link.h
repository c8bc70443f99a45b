/*
 * One NBD connection to the NBD server of another daemon, by libnbd: the way of a volume's data in
 * a move between two daemons.
 *
 * A link belongs to the reactor that opened it, and all functions are called there. Nothing waits
 * outside of the reactor's ring. Any number of coroutines may have calls under way at once; they
 * complete in any order.
 *
 * The connection ends once, for whatever reason: the other side closes it, breaks the protocol,
 * says that it shuts down, or link_cut. Then all calls that wait and all later ones return
 * VP_E_PEER_LOST. Nobody knows what became of requests that had been sent: they may have landed,
 * may land later, or never. A link does not connect again. A server that keeps silent ends nothing:
 * the caller decides for how long it waits, and calls link_cut. (A TCP connection of io_connect_tcp
 * ends by itself, when the host is silent.)
 */
#ifndef VP_MIGRATE_LINK_H
#define VP_MIGRATE_LINK_H

#include "base/error.h"
#include "io/co.h"

#include <stdbool.h>
#include <stdint.h>

struct link;

/*
 * Negotiates with the NBD server that speaks next on `fd`, a connected stream socket. The link owns
 * `fd` from now on, also after an error. There is no TLS yet; here is the place for it. The name
 * may hold a secret, so no sentence shows it. The server has to know FLUSH and WRITE_ZEROES, and to
 * take requests of 4096 bytes.
 *
 * Errors, each with a sentence: VP_E_PEER_LOST (the server closed the connection, or what it says
 * is not the protocol), VP_E_NOT_FOUND (it does not know the name), VP_E_NOT_SUPPORTED,
 * VP_E_TIMED_OUT (`deadline_ns` on the reactor's clock, 0 = none), VP_E_CANCELLED (co_cancel),
 * VP_E_INVALID (the name is too long), VP_E_NO_MEMORY, VP_E_IO_TOO_MANY_COROUTINES, VP_E_SYSTEM.
 */
CO int link_open(int fd, const char *export_name, uint64_t deadline_ns, struct link **out,
                 struct vp_error *err) must_check;

/* Of the export, in bytes; as told when the link was opened. */
uint64_t link_size(const struct link *l);
/* Whether link_flush makes durable what other links of the same export were answered before, too
 * (NBD, CAN_MULTI_CONN). */
bool link_flushes_all(const struct link *l);

/*
 * Requests. `buf` is used until the call returns, and never afterwards, also when the link was cut.
 * A request that is larger than the server takes at once is sent in parts, one after the other, and
 * ends at the first error. co_cancel does not end these calls: link_cut does.
 *
 * A write is in the server's volume when the call returns, and durable after the next link_flush.
 * link_zero may leave holes.
 *
 * Errors: VP_E_PEER_LOST; VP_E_RANGE (beyond the end); VP_E_NO_MEMORY (here, or there); and what
 * the server answered: VP_E_IO, VP_E_NO_SPACE, VP_E_PERMISSION, VP_E_INVALID (also: not a multiple
 * of the server's smallest block), VP_E_TOO_BIG, VP_E_NOT_SUPPORTED.
 */
CO int link_write(struct link *l, uint64_t offset, uint64_t len, const void *buf) must_check;
/* An answer that leaves out a part of the data is VP_E_IO. */
CO int link_read(struct link *l, uint64_t offset, uint64_t len, void *buf) must_check;
CO int link_zero(struct link *l, uint64_t offset, uint64_t len) must_check;
CO int link_flush(struct link *l) must_check;

/* Ends the connection. The calls under way return VP_E_PEER_LOST when they run next. Nothing is
 * sent from now on, but what the kernel has taken already. Does nothing to a link that is lost. */
void link_cut(struct link *l);
bool link_is_lost(const struct link *l);
/* Why, for people; "" while it is not lost. */
const char *link_why_lost(const struct link *l);

/* Takes leave of the server, and frees the link. No call waits any more; calls that link_cut has
 * ended may be on their way out. Waits for no answer. NULL is fine. */
CO void link_close(struct link *l);

/* Sent and received until now: all bytes on the wire where libnbd counts them (1.16, Debian 13);
 * else the payload of requests that have succeeded. */
uint64_t link_bytes(const struct link *l);

#endif
