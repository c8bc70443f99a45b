/*
 * Registered descriptors. A request that names a registered file saves the kernel two atomic
 * operations on a counter that all reactors share.
 *
 * A device takes a slot number, which is the same in all rings. Each ring registers the descriptor
 * when its reactor first uses the device. A registered file stays open (and exclusively ours) until
 * every ring has let go of it, and only the ring's own thread can let go. So ring_file_fini marks
 * the slot, wakes those rings, and waits for them. A reactor that waits in its loop takes a turn
 * then.
 */
#include "base/verify.h"
#include "io/ring_struct_impl.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list rings = {&rings, &rings}; /* ring.files_link: those that run */
static struct ring_file *owner[RING_FILES];  /* of each slot                    */
static _Atomic bool closing[RING_FILES];     /* its owner waits in ring_file_fini */

static _Thread_local struct ring *own_ring;

void ring_files_join(struct ring *ring)
{
    own_ring = ring;
    pthread_mutex_lock(&lock);
    list_add_tail(&rings, &ring->files_link);
    pthread_mutex_unlock(&lock);
}

static void let_go(struct ring *ring, unsigned slot)
{
    struct ring_file *file = ring->file[slot];
    int none = -1;
    ring->file[slot] = NULL;
    VP_VERIFY(io_uring_register_files_update(&ring->uring, slot, &none, 1), ==, 1);
    atomic_fetch_sub(&file->ring_count, 1);
}

void ring_files_let_go(struct ring *ring)
{
    atomic_store(&ring->files_stale, false);
    for (unsigned slot = 0; slot < RING_FILES; slot++)
        if (ring->file[slot] && atomic_load(&closing[slot]))
            let_go(ring, slot);
}

void ring_files_leave(struct ring *ring)
{
    for (unsigned slot = 0; slot < RING_FILES; slot++)
        if (ring->file[slot])
            let_go(ring, slot);
    pthread_mutex_lock(&lock);
    list_del(&ring->files_link);
    pthread_mutex_unlock(&lock);
    own_ring = NULL;
}

void ring_file_init(struct ring_file *file, int fd)
{
    file->fd = fd;
    file->slot = -1;
    atomic_init(&file->ring_count, 0);
    pthread_mutex_lock(&lock);
    for (unsigned slot = 0; slot < RING_FILES && file->slot < 0; slot++)
        if (!owner[slot]) {
            owner[slot] = file;
            file->slot = (int)slot;
        }
    pthread_mutex_unlock(&lock);
}

/* Sets the flag of each ring and wakes it: an eventfd may be written to although its reader is
 * awake already. */
static void mark_rings(void)
{
    uint64_t one = 1;
    struct ring *ring;
    pthread_mutex_lock(&lock);
    list_for_each (ring, &rings, files_link) {
        atomic_store(&ring->files_stale, true);
        while (write(ring->event_fd, &one, sizeof(one)) < 0)
            VP_VERIFY(errno, ==, EINTR);
    }
    pthread_mutex_unlock(&lock);
}

void ring_file_fini(struct ring_file *file)
{
    if (file->slot < 0)
        return;
    if (own_ring && own_ring->file[file->slot] == file)
        let_go(own_ring, (unsigned)file->slot);
    if (atomic_load(&file->ring_count) > 0) {
        atomic_store(&closing[file->slot], true);
        mark_rings();
        while (atomic_load(&file->ring_count) > 0) {
            if (own_ring) /* two reactors that close at the same time wait for each other */
                ring_files_let_go(own_ring);
            sched_yield();
        }
        atomic_store(&closing[file->slot], false);
    }
    pthread_mutex_lock(&lock);
    owner[file->slot] = NULL;
    pthread_mutex_unlock(&lock);
    file->slot = -1;
}

void ring_file_use(struct ring *ring, struct ring_file *file, struct io_uring_sqe *sqe)
{
    if (!ring->features.fixed_files || file->slot < 0)
        return;
    if (ring->file[file->slot] != file) {
        if (io_uring_register_files_update(&ring->uring, (unsigned)file->slot, &file->fd, 1) != 1)
            return;
        ring->file[file->slot] = file;
        atomic_fetch_add(&file->ring_count, 1);
    }
    sqe->fd = file->slot;
    sqe->flags |= IOSQE_FIXED_FILE;
}
