/* The memory from which a reactor's buffers are cut, private to io/. */
#ifndef VP_IO_REGION_IMPL_H
#define VP_IO_REGION_IMPL_H

#include <stdbool.h>
#include <stddef.h>

struct reactor;
struct region;
struct ring;

/* The reactor's own, made when first asked for. */
struct region *reactor_region(struct reactor *r);

/* Reserves address space only. `ring` (may be NULL) gets each slab registered when it is first
 * used. NULL when memory is out. */
struct region *region_new(size_t bytes, struct ring *ring);
/* `cache`: keep it for the next region_new of that size without a ring. NULL is fine. */
void region_free(struct region *region, bool cache);

/* Opens one more slab, memory included; false when all are open. */
bool region_take_slab(struct region *region);

/* Other pages stand behind [buf, buf + len) now, which may be anywhere: the kernel does not use the
 * slab there as a fixed buffer until region_register_again. */
void region_pages_changed(struct region *region, const void *buf, size_t len);
void region_register_again(struct region *region);

/* The fixed buffer that [buf, buf + len) lies in; -1: none. */
int region_fixed_index(const struct region *region, const void *buf, size_t len);

#endif
