/* Taking memory, private to io/. */
#ifndef VP_IO_MEMORY_IMPL_H
#define VP_IO_MEMORY_IMPL_H

#include "base/error.h"

#include <stddef.h>

/* Makes the kernel find memory for these pages now, writable. Waits for it. A negative errno:
 * -EINVAL before Linux 5.14, -ENOMEM, -EFAULT. Whole pages. */
int io_fault_in(void *address, size_t len) must_check;

/* From now on malloc, in this process, merges small pieces with their neighbours when they are
 * freed. */
void memory_merge_at_once(void);

#endif
