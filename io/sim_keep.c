/* Memory that outlives a process, in a simulated world: see io/keep.h. */
#include "io/sim_impl.h"
#include "io/sim_world_impl.h"

#include "base/bitmap.h"
#include "base/hash.h"
#include "base/verify.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static struct sim_kept *kept_find(struct sim_world *w, const char *name)
{
    struct sim_kept *k;
    list_for_each (k, &w->keeps, link)
        if (strcmp(k->name, name) == 0)
            return k;
    return NULL;
}

/* Of an operation by name. */
static bool keep_op_fails(struct sim_world *w)
{
    return w->keep_ops++ == w->keep_fails;
}

static struct sim_kept *kept_add(struct sim_world *w, const char *name, size_t capacity)
{
    struct sim_kept *k = sim_alloc(sizeof(*k));
    memset(k, 0, sizeof(*k));
    VP_VERIFY(capacity, <=, (size_t)SIM_KEEP_PAGES * SIM_KEEP_PAGE);
    (void)snprintf(k->name, sizeof(k->name), "%s", name);
    k->capacity = capacity;
    k->world = w;
    k->changed_ns = w->now_ns;
    /* Not by calloc: most of it is never touched. */
    k->bytes = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    VP_VERIFY_TRUE(k->bytes != MAP_FAILED);
    list_add_tail(&w->keeps, &k->link);
    return k;
}

static void kept_free(struct sim_kept *k)
{
    list_del(&k->link);
    munmap(k->bytes, k->capacity);
    free(k);
}

int sim_keep_new(struct sim_world *w, const char *name, size_t capacity, struct io_keep *out)
{
    sim_keep_remove(w, name);
    struct sim_kept *k = kept_add(w, name, capacity);
    k->owned = true;
    *out = (struct io_keep){.base = k->bytes, .capacity = capacity, .fd = -1, .sim = k};
    return 0;
}

int sim_keep_reserve(struct io_keep *k, size_t offset, size_t len)
{
    struct sim_kept *kept = k->sim;
    unsigned *left = &kept->world->keep_pages, pages = (unsigned)(len / SIM_KEEP_PAGE);
    if (pages > *left)
        return VP_E_NO_MEMORY;
    *left -= *left == UINT_MAX ? 0 : pages;
    kept->changed_ns = kept->world->now_ns;
    for (size_t at = offset; at < offset + len; at += SIM_KEEP_PAGE)
        bitmap_set(kept->reserved, at / SIM_KEEP_PAGE);
    return 0;
}

void sim_keep_close(struct io_keep *k)
{
    struct sim_kept *kept = k->sim;
    kept->owned = false;
}

bool sim_keep_is_owned(struct sim_world *w, const char *name)
{
    const struct sim_kept *k = kept_find(w, name);
    return k && k->owned;
}

int sim_keep_read(struct sim_world *w, const char *name, size_t offset, void *bytes, size_t len)
{
    const struct sim_kept *k = kept_find(w, name);
    if (keep_op_fails(w))
        return VP_E_IO;
    if (!k)
        return VP_E_NOT_FOUND;
    if (offset > k->capacity || len > k->capacity - offset)
        return VP_E_IO_SHORT;
    memcpy(bytes, k->bytes + offset, len);
    return 0;
}

int sim_keep_poke(struct sim_world *w, const char *name, size_t offset, const void *bytes,
                  size_t len)
{
    struct sim_kept *k = kept_find(w, name);
    if (keep_op_fails(w))
        return VP_E_IO;
    if (!k)
        return VP_E_NOT_FOUND;
    VP_VERIFY(offset + len, <=, k->capacity);
    memcpy(k->bytes + offset, bytes, len);
    k->changed_ns = w->now_ns;
    bitmap_set(k->reserved, offset / SIM_KEEP_PAGE);
    return 0;
}

static size_t reserved_pages(const struct sim_kept *k)
{
    size_t n = 0;
    for (unsigned i = 0; i < SIM_KEEP_PAGES / 64; i++)
        n += (size_t)__builtin_popcountll(k->reserved[i]);
    return n;
}

int sim_keep_look(struct sim_world *w, const char *name, uint64_t *bytes, uint64_t *age_seconds)
{
    const struct sim_kept *k = kept_find(w, name);
    if (!k)
        return VP_E_NOT_FOUND;
    *bytes = reserved_pages(k) * SIM_KEEP_PAGE;
    *age_seconds = (w->now_ns - k->changed_ns) / 1000000000;
    return 0;
}

void sim_keep_remove(struct sim_world *w, const char *name)
{
    struct sim_kept *k = kept_find(w, name);
    if (!k)
        return;
    list_del(&k->link);
    list_add_tail(&w->unnamed, &k->link);
}

int sim_keep_each(struct sim_world *w, const char *prefix, int (*fn)(const char *name, void *arg),
                  void *arg)
{
    struct sim_kept *k, *next;
    int rc = keep_op_fails(w) ? VP_E_IO : 0;
    list_for_each_safe (k, next, &w->keeps, link)
        if (!rc && strncmp(k->name, prefix, strlen(prefix)) == 0)
            rc = fn(k->name, arg);
    return rc;
}

uint64_t sim_world_keep_ops(const struct sim_world *w)
{
    return w->keep_ops;
}

void sim_world_fail_keep_op(struct sim_world *w, uint64_t n)
{
    w->keep_fails = w->keep_ops + n;
}

void sim_world_limit_keeps(struct sim_world *w, unsigned pages)
{
    w->keep_pages = pages;
}

void sim_keeps_free(struct sim_world *w)
{
    list_splice_tail(&w->unnamed, &w->keeps);
    while (!list_empty(&w->unnamed))
        kept_free(list_first(&w->unnamed, struct sim_kept, link));
}

/* ---- copies ---------------------------------------------------------------------------------- */

static size_t next_page(const struct sim_kept *k, size_t from)
{
    return bitmap_find(k->reserved, SIM_KEEP_PAGES, from, true);
}

void sim_keeps_copy(const struct sim_world *w, struct list *out)
{
    const struct sim_kept *k;
    list_init(out);
    list_for_each (k, &w->keeps, link) {
        struct sim_kept *copy = malloc(sizeof(*copy));
        VP_VERIFY_TRUE(copy != NULL);
        *copy = *k;
        copy->bytes = malloc((reserved_pages(k) + 1) * SIM_KEEP_PAGE);
        VP_VERIFY_TRUE(copy->bytes != NULL);
        unsigned char *to = copy->bytes;
        for (size_t i = next_page(k, 0); i < SIM_KEEP_PAGES; i = next_page(k, i + 1)) {
            memcpy(to, k->bytes + i * SIM_KEEP_PAGE, SIM_KEEP_PAGE);
            to += SIM_KEEP_PAGE;
        }
        list_add_tail(out, &copy->link);
    }
}

void sim_keeps_copy_free(struct list *copies)
{
    struct list *l;
    while ((l = list_pop(copies))) {
        struct sim_kept *k = container_of(l, struct sim_kept, link);
        free(k->bytes);
        free(k);
    }
}

uint64_t sim_keeps_hash(const struct list *copies)
{
    const struct sim_kept *k;
    uint64_t hash = 0;
    list_for_each (k, copies, link)
        hash = hash_mix(hash + hash_bytes(k->name, strlen(k->name)) +
                        hash_bytes(k->bytes, reserved_pages(k) * SIM_KEEP_PAGE));
    return hash;
}

void sim_keeps_restore(struct sim_world *w, const struct list *copies)
{
    const struct sim_kept *from;
    list_for_each (from, copies, link) {
        struct sim_kept *k = kept_add(w, from->name, from->capacity);
        const unsigned char *bytes = from->bytes;
        memcpy(k->reserved, from->reserved, sizeof(k->reserved));
        for (size_t i = next_page(k, 0); i < SIM_KEEP_PAGES; i = next_page(k, i + 1)) {
            memcpy(k->bytes + i * SIM_KEEP_PAGE, bytes, SIM_KEEP_PAGE);
            bytes += SIM_KEEP_PAGE;
        }
    }
}
