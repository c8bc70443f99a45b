/*
 * I/O buffers: 4096-byte aligned pieces of a reactor's buffer region, which is registered with its
 * ring where the kernel can do that. The device code sees by the address that a buffer is
 * registered; other aligned memory works too, only slower.
 */
#ifndef VP_IO_BUFFER_H
#define VP_IO_BUFFER_H

#include "io/co.h"

#include <stddef.h>

/*
 * A buffer of at least `len` bytes from this reactor's region, contents undefined; waits while the
 * region is in use up (back-pressure). Never NULL: `len` is at most IO_BUFFER_MAX, and the region
 * holds at least one such. Free on the same reactor, with the same len.
 */
CO void *io_buffer_get(size_t len);
/* The same without waiting: NULL when there is none. */
void *io_buffer_try(size_t len);
void io_buffer_put(void *buf, size_t len);

/* Bytes of this reactor's region: who holds buffers across something that others decide (a client's
 * pace) takes only a share of them. */
size_t io_buffer_total(void);

#define IO_BUFFER_MAX (4U << 20)

/* 4096 zero bytes × 256 (1 MiB), read-only, for writing zeros. */
extern const unsigned char io_zeros[1 << 20];

#endif
