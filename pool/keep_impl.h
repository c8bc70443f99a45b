/* Private to pool/: what the next import finds of a killed daemon (keep_recover.c). */
#ifndef VP_POOL_KEEP_IMPL_H
#define VP_POOL_KEEP_IMPL_H

#include "io/keep.h"
#include "pool/keep.h"
#include "pool/keep_format.h"
#include "pool/meta_impl.h"

/* "vpool-POOL-VOLUME" */
void pool_keep_name(struct vp_uuid pool, const char *volume, char *out, size_t size);
uint32_t keep_group_crc(const struct keep_group_header *h);

/* ---- keep_recover.c: `found` is a list of what was found ----------------------------------------- */

/* Of the incarnation whose log has this stream; removes what is not. VP_E_NO_MEMORY. */
int pool_keeps_find(struct pool *p, uint64_t stream, struct list *found) must_check;
/* They are to be taken for those of `stream`, too. */
int pool_keeps_accept(const struct list *found, uint64_t stream) must_check;
/* CO. Into the log and to the client; durable on return. Errors: those of a commit. */
CO int pool_keeps_replay(struct pool *p, struct list *found) must_check;
void pool_keeps_free(struct list *found);

#endif
