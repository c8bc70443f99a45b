/*
 * Who reads, writes, discards or flushes has looked up on which disks the data are. When members of
 * groups move (pool/move.c), this waits for those who may have looked before: they began in one of
 * two phases, and the barrier begins the other one. Those who begin later do not hold it up.
 *
 * A user may wait for a lease, for metadata or for a checkpoint, none of which waits for a barrier.
 */
#include "thin/thin_impl.h"

CO void thin_barrier(struct thin *t)
{
    unsigned before = t->phase;
    VP_VERIFY(t->users[before ^ 1], ==, 0U);
    t->phase = before ^ 1;
    while (t->users[before])
        co_queue_wait(&t->users_left, "users of members that move");
}
