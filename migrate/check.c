/*
 * --verify: what was written to the target is read back, and compared with the source to the byte,
 * while clients write.
 *
 * 1. A block that is written to the target is *unchecked* from then on: by the scan and by rounds
 *    before the write (piece_copy), by a mirror when both writes have ended, and before the block
 *    is clean (mirror_change_end).
 * 2. A check takes blocks from the unchecked ones first, and reads both sides then. The source is
 *    read under the block's lock, the target is not.
 * 3. So when the two differ, and the block is neither dirty nor unchecked again, nobody has written
 *    to it since: the target has lost or changed data. That ends the move, and the source stays.
 *    When it is dirty a round copies it and it is unchecked again.
 *
 * Checks run between rounds, never beside one, because a round writes what a check reads. A mirror
 * may write meanwhile (1, 3). What changes after the last check is compared while clients wait, as
 * far as that fits into the pause that is wanted (live.c); the rest is reported as not compared.
 * Holes of the source to which nobody has written are not read.
 */
#include "base/verify.h"
#include "io/guard.h"
#include "migrate/migrate_impl.h"

#include <string.h>

void copy_unchecked_mark(struct copy *c, uint64_t block, uint64_t count)
{
    if (c->checks)
        dirty_mark(&c->unchecked, block, count);
}

int copy_check_begin(void *copy)
{
    struct copy *c = copy;
    VP_VERIFY_TRUE(c->checks && copy_scan_is_done(c));
    VP_VERIFY_TRUE(list_empty(&c->flying));
    dirty_pass_begin(&c->unchecked);
    c->checking = true;
    c->round_block = 0;
    return 0;
}

void copy_check_end(struct copy *c)
{
    c->checking = false;
    c->round_block = div_up(c->size_bytes, COPY_BLOCK);
}

/* Somebody has written to it since it was taken, or writes to it now. */
static bool check_is_void(const struct copy *c, uint64_t block)
{
    return dirty_has(&c->dirty, block) || dirty_has(&c->unchecked, block);
}

static void check_compare(struct copy *c, uint64_t block, uint64_t len_bytes, const uint8_t *here,
                          const uint8_t *there)
{
    for (uint64_t at = 0; at < len_bytes; at += COPY_BLOCK, block++) {
        uint64_t n = min_u64(COPY_BLOCK, len_bytes - at);
        if (memcmp(here + at, there + at, n) == 0)
            c->checked_bytes += n;
        else if (!check_is_void(c, block) || !io_guard_on(GUARD_MOVE_CHECK_VOID))
            copy_fail(c, VP_E_COPY_DIFFERS, block, COPY_READS_BACK);
    }
}

CO void copy_check(struct copy *c, uint64_t block, uint64_t count, uint8_t *buf)
{
    uint64_t at = block * COPY_BLOCK, len = min_u64(count * COPY_BLOCK, c->size_bytes - at);
    uint8_t *there = buf + c->piece_bytes;
    bool zero = false;
    int rc = volume_beside_read(c->from, block, count, buf, &zero);
    if (rc) {
        copy_fail(c, rc, block, COPY_READS);
        return;
    }
    if (zero)
        memset(buf, 0, len);
    rc = c->to.ops->read(c->to.arg, at, len, there);
    if (!rc) {
        check_compare(c, block, len, buf, there);
        return;
    }
    copy_unchecked_mark(c, block, count);
    copy_fail(c, rc, block, COPY_READS_BACK);
}
