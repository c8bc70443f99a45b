/*
 * Memory that outlives this process but not the machine: POSIX shared memory under a name. The
 * successor of a killed daemon finds there what the daemon left. After a power cut or a reboot the
 * memory is gone, as it must be (pool/keep.h). In a simulated world the memory is part of that
 * world.
 *
 * Any thread may call. Only io_keep_reserve waits, for memory.
 */
#ifndef VP_IO_KEEP_H
#define VP_IO_KEEP_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IO_KEEP_NAME_MAX 95U

/* A mapping of `capacity` bytes from `base`. Only bytes that were reserved may be touched. */
struct io_keep {
    unsigned char *base; /* NULL: closed */
    size_t capacity;
    int fd;    /* locked: it has a living owner */
    void *sim; /* in a simulated world, whose it is */
};

/*
 * Makes an object of `capacity` bytes, a multiple of 4096. All of it is zero, and nothing is
 * reserved. An existing object of this name is replaced. `name` has no slash. Errors:
 * VP_E_KEEP_NONE (no shared memory in this system, or no right to it), VP_E_NO_MEMORY (no memory or
 * no descriptor now).
 */
int io_keep_new(const char *name, size_t capacity, struct io_keep *out) must_check;
/* Takes memory for `len` bytes at `offset` (multiples of 4096) now, so that touching them neither
 * fails nor waits. VP_E_NO_MEMORY. */
int io_keep_reserve(struct io_keep *k, size_t offset, size_t len) must_check;
/* Whether half of the system's shared memory would be left to others if `len` bytes were
 * reserved. */
bool io_keep_has_room(const struct io_keep *k, size_t len);
/* Unmaps the object and gives up its ownership. The contents stay under the name. */
void io_keep_close(struct io_keep *k);

/* ---- by name: what somebody else left -------------------------------------------------------- */

/* Reads `len` bytes at `offset`. VP_E_NOT_FOUND; VP_E_PERMISSION (the object is not this user's);
 * VP_E_IO_SHORT (it is smaller); VP_E_NO_MEMORY (no memory or no descriptor now); VP_E_IO. */
int io_keep_read(const char *name, size_t offset, void *bytes, size_t len) must_check;
/* Changes `len` bytes at `offset`. Eight aligned bytes change at once. VP_E_NOT_FOUND, VP_E_IO. */
int io_keep_poke(const char *name, size_t offset, const void *bytes, size_t len) must_check;
void io_keep_remove(const char *name);
/* Whether a process (this one too) owns the object: it called io_keep_new, and neither closed the
 * object nor ended. An object that is not there, or not this user's, has no owner. VP_E_NO_MEMORY:
 * nobody knows (no memory or no descriptor now). */
int io_keep_is_owned(const char *name, bool *owned) must_check;
/* The memory that the object takes, and the time since its last change. VP_E_NOT_FOUND: there is no
 * such object, or it is not this user's. */
int io_keep_look(const char *name, uint64_t *bytes, uint64_t *age_seconds) must_check;
/* Calls fn for each name that begins with `prefix`, until fn returns non-zero; returns that value.
 * fn may remove the object, and does not yield. Without shared memory there are no names. Errors:
 * VP_E_NO_MEMORY (no memory or no descriptor now), VP_E_IO. */
int io_keep_each(const char *prefix, int (*fn)(const char *name, void *arg), void *arg) must_check;

/* Different after each start of the machine; zeros where the system has no such thing. Errors:
 * VP_E_NO_MEMORY (no memory or no descriptor now), VP_E_IO. */
#define IO_BOOT_ID_BYTES 16
int io_boot_id(unsigned char out[IO_BOOT_ID_BYTES]) must_check;

#endif
