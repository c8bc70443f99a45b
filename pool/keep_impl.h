/* Private to pool/: what the next import finds of a killed daemon (keep_recover.c). */
#ifndef VP_POOL_KEEP_IMPL_H
#define VP_POOL_KEEP_IMPL_H

#include "io/keep.h"
#include "pool/keep.h"
#include "pool/keep_format.h"
#include "pool/meta_impl.h"

/* What the names of a pool's kept memory begin with: "vpool-POOL-". Behind it come the volume and
 * the stream, "7-0123456789abcdef", so that incarnations (K4) never take each other's name. */
#define POOL_KEEP_PREFIX_BYTES (sizeof("vpool--") + VP_UUID_TEXT)
void pool_keep_prefix(struct vp_uuid pool, char out[static POOL_KEEP_PREFIX_BYTES]);
uint32_t keep_group_crc(const struct keep_group_header *h);

/* The records of the groups in `used` bytes of an area, without those that commit `commit` covers,
 * up to the first group that is damaged: VP_E_KEEP_DAMAGED. Untrusted. VP_E_NO_MEMORY. */
int keep_groups_decode(const uint8_t *bytes, size_t used, uint32_t volume, uint64_t commit,
                       struct pool_batch *out) must_check;

/* ---- keep_recover.c: `found` is a list of what was found ------------------------------------- */

/* CO. Finds the kept memory of the incarnation whose log ends with this piece, as it was found,
 * after the records were read. All other memory stays where it is, except memory that cannot be
 * anybody's (K5). VP_E_NO_MEMORY; errors of reading. */
CO int pool_keeps_find(struct pool *p, const struct pool_log_piece *last,
                       struct list *found) must_check;
/* Marks the memory as belonging to `stream`, too. */
int pool_keeps_accept(const struct pool *p, const struct list *found, uint64_t stream,
                      struct vp_error *err) must_check;
/* CO. Removes what the incarnation with this stream kept: it is not to be believed. */
CO void pool_keeps_forget(struct pool *p, uint64_t stream);
/* CO. Puts the records into the log and hands them to the client; durable on return. Errors: those
 * of a commit. */
CO int pool_keeps_replay(struct pool *p, struct list *found, struct vp_error *err) must_check;
void pool_keeps_free(struct list *found);

#endif
