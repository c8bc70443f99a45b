/* See fake_client.h. */
#include "tests/lib/fake_client.h"

#include "base/crc.h"
#include "io/buffer.h"

#include <stdlib.h>
#include <string.h>

static int replay(void *arg, enum pool_record_kind kind, bool is_delete, uint32_t scope,
                  uint64_t key, const void *value, uint32_t len)
{
    struct fake_client *c = arg;
    if (kind != POOL_RECORD_MAP || is_delete || scope != FAKE_SCOPE || key >= FAKE_KEYS || len < 8)
        return VP_E_MAP_BAD;
    memcpy(&c->value[key], value, sizeof(c->value[key]));
    c->replayed[key] = true;
    c->replays++;
    c->dirty = true;
    return 0;
}

/* CO. */
static int write_page(struct fake_client *c)
{
    struct pool_page_ref old = c->page;
    void *buf = io_buffer_get(POOL_PAGE);
    memset(buf, 0, POOL_PAGE);
    memcpy(buf, c->value, sizeof(c->value));
    c->page.crc = vp_crc32c(buf, POOL_PAGE);
    c->page.generation = pool_checkpoint_number(c->pool) + 1;
    int rc = pool_page_alloc(c->pool, 1, &c->page.addr);
    if (!rc)
        rc = pool_page_write(c->pool, &c->page.addr, &buf, 1);
    io_buffer_put(buf, POOL_PAGE);
    if (rc)
        c->page = old;
    else if (old.addr)
        pool_page_release(c->pool, &old.addr, 1);
    return rc;
}

static int checkpoint(void *arg)
{
    struct fake_client *c = arg;
    if (c->fail_checkpoint)
        return c->fail_checkpoint;
    int rc = c->dirty ? write_page(c) : 0;
    if (rc)
        return rc;
    c->dirty = false;
    c->checkpoints++;
    return pool_record_put_in_table_image(c->pool, POOL_RECORD_TREE, FAKE_SCOPE, 0, &c->page,
                                          sizeof(c->page));
}

struct pool_client fake_client_of(struct fake_client *c)
{
    return (struct pool_client){.arg = c, .replay = replay, .checkpoint = checkpoint};
}

int fake_commit(struct fake_client *c, unsigned key, uint64_t number, size_t ballast)
{
    struct pool_batch b;
    struct le64 v = le64_make(number);
    pool_batch_init(&b);
    c->value[key] = number;
    c->dirty = true;
    pool_batch_set(&b, POOL_RECORD_MAP, FAKE_SCOPE, key, &number, sizeof(number));
    while (ballast) {
        static const uint8_t zeros[8192];
        size_t n = ballast < sizeof(zeros) ? ballast : sizeof(zeros);
        pool_batch_set(&b, POOL_RECORD_VOLUME, FAKE_SCOPE, ballast, zeros, n);
        pool_batch_delete(&b, POOL_RECORD_VOLUME, FAKE_SCOPE, ballast);
        ballast -= n;
    }
    pool_batch_set(&b, POOL_RECORD_COUNTER, 0, key, &v, sizeof(v));
    int rc = pool_commit(c->pool, &b);
    pool_batch_fini(&b);
    return rc;
}

int fake_load(struct fake_client *c, struct pool *p)
{
    struct pool_record r;
    c->pool = p;
    if (!pool_record_get(p, POOL_RECORD_TREE, FAKE_SCOPE, 0, &r) || r.len != sizeof(c->page))
        return 0;
    memcpy(&c->page, r.value, sizeof(c->page));
    uint64_t *buf = io_buffer_get(POOL_PAGE);
    int rc = c->page.addr ? pool_page_read(p, c->page, buf) : 0;
    for (unsigned k = 0; k < FAKE_KEYS && !rc && c->page.addr; k++)
        if (!c->replayed[k])
            c->value[k] = buf[k];
    io_buffer_put(buf, POOL_PAGE);
    return rc;
}
