/*
 * The kernel above a block device does not learn that the daemon was killed. So every write that
 * the kernel was told is complete must be there when the next daemon serves. Where the answered
 * writes of a volume survive a kill (pool/keep.h), the device has a volatile cache, as most disks
 * have. Elsewhere every write is durable when it is answered.
 *
 * The kernel may also need the device to find memory. So the memory of a volume's requests is taken
 * in advance.
 */
#include "ublk/volume_backend.h"

static CO int backend_admit(void *arg, uint64_t bytes)
{
    return front_admit(arg, bytes);
}

static CO int backend_pass(void *arg)
{
    return front_pass(arg);
}

static CO int backend_read(void *arg, uint64_t offset, uint32_t len, void *buf)
{
    return front_read(arg, offset, len, buf);
}

static CO int backend_write(void *arg, uint64_t offset, uint32_t len, const void *buf,
                            unsigned flags)
{
    return front_write(arg, offset, len, buf, flags & UBLKX_DURABLE ? VOLUME_FUA : 0);
}

static CO int backend_flush(void *arg)
{
    return front_flush(arg);
}

static CO int backend_discard(void *arg, uint64_t offset, uint64_t len)
{
    return front_discard(arg, offset, len, 0);
}

static CO int backend_zero(void *arg, uint64_t offset, uint64_t len, unsigned flags)
{
    return front_zero(arg, offset, len,
                      (flags & UBLKX_DURABLE ? VOLUME_FUA : 0) |
                          (flags & UBLKX_NO_HOLE ? VOLUME_NO_HOLE : 0));
}

static void backend_leave(void *arg)
{
    front_client_leave(arg);
}

static void backend_go(void *arg)
{
    front_client_go(arg);
}

static uint64_t backend_size(void *arg)
{
    return front_size(((struct front_client *)arg)->front);
}

static const struct ublkx_backend_ops volume_ops = {.admit = backend_admit,
                                                    .pass = backend_pass,
                                                    .read = backend_read,
                                                    .write = backend_write,
                                                    .flush = backend_flush,
                                                    .discard = backend_discard,
                                                    .zero = backend_zero,
                                                    .leave = backend_leave,
                                                    .go = backend_go,
                                                    .size = backend_size};

CO struct ublkx_backend ublkx_volume_backend(struct volume *v, struct front_client *client)
{
    front_client_init(client, volume_front(v));
    return (struct ublkx_backend){.ops = &volume_ops,
                                  .arg = client,
                                  .reactor = volume_reactor(v),
                                  .sector_bytes = volume_sector_bytes(v),
                                  .optimal_bytes = volume_chunk_bytes(v),
                                  .read_only = volume_is_read_only(v),
                                  .volatile_cache = volume_take_memory(v)};
}
