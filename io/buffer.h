/*
 * I/O buffers: 4096-byte aligned pieces of a reactor's buffer region. The region is registered with
 * the reactor's ring where the kernel can do that. The device code sees from the address of a
 * buffer that the buffer is registered. Other aligned memory works too, only slower.
 */
#ifndef VP_IO_BUFFER_H
#define VP_IO_BUFFER_H

#include "io/co.h"

#include <stddef.h>

/*
 * Returns a buffer of at least `len` bytes from this reactor's region. Its contents are undefined.
 * Waits while the whole region is in use (back-pressure). Never returns NULL: `len` is at most
 * IO_BUFFER_MAX, and the region holds at least one buffer of that size. Free the buffer on the same
 * reactor, with the same len.
 */
CO void *io_buffer_get(size_t len);
/* The same without waiting: NULL when there is none. */
void *io_buffer_try(size_t len);
void io_buffer_put(void *buf, size_t len);

/* The bytes of this reactor's region. A holder that keeps buffers while it waits for something that
 * others decide (a client's pace) takes only a share of them. */
size_t io_buffer_total(void);

#define IO_BUFFER_MAX (4U << 20)

/* 4096 zero bytes × 256 (1 MiB), read-only, for writing zeros. */
extern const unsigned char io_zeros[1 << 20];

#endif
