/* See hash.h. */
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

uint64_t hash_bytes(const void *p, size_t len)
{
    const unsigned char *b = p;
    uint64_t h = 0xcbf29ce484222325ULL;
    for (size_t i = 0; i < len; i++)
        h = (h ^ b[i]) * 0x100000001b3ULL;
    return hash_mix(h);
}

bool hash_init(struct hash *h, size_t buckets_hint)
{
    size_t n = 8;
    while (n < buckets_hint)
        n *= 2;
    h->bucket = calloc(n, sizeof(*h->bucket));
    h->mask = n - 1;
    h->count = 0;
    return h->bucket != NULL;
}

void hash_fini(struct hash *h)
{
    free(h->bucket);
    memset(h, 0, sizeof(*h));
}

static void put(struct hash_node **bucket, size_t mask, struct hash_node *n)
{
    struct hash_node **at = &bucket[hash_mix(n->key) & mask];
    n->next = *at;
    *at = n;
}

static void grow(struct hash *h, size_t n)
{
    struct hash_node **bucket = calloc(n, sizeof(struct hash_node *));
    if (!bucket)
        return; /* longer chains are slow, not wrong */
    for (size_t i = 0; i <= h->mask; i++)
        for (struct hash_node *e = h->bucket[i], *next; e; e = next) {
            next = e->next;
            put(bucket, n - 1, e);
        }
    free(h->bucket);
    h->bucket = bucket;
    h->mask = n - 1;
}

void hash_reserve(struct hash *h, size_t count)
{
    size_t n = h->mask + 1;
    while (n < count)
        n *= 2;
    if (n > h->mask + 1)
        grow(h, n);
}

void hash_add(struct hash *h, struct hash_node *n, uint64_t key)
{
    if (h->count > h->mask)
        grow(h, (h->mask + 1) * 2);
    n->key = key;
    put(h->bucket, h->mask, n);
    h->count++;
}

void hash_del(struct hash *h, struct hash_node *n)
{
    struct hash_node **at = &h->bucket[hash_mix(n->key) & h->mask];
    while (*at && *at != n)
        at = &(*at)->next;
    if (!*at)
        return;
    *at = n->next;
    n->next = NULL;
    h->count--;
}

void hash_for_each(struct hash *h, void (*fn)(struct hash_node *n, void *arg), void *arg)
{
    for (size_t i = 0; i <= h->mask; i++)
        for (struct hash_node *e = h->bucket[i], *next; e; e = next) {
            next = e->next;
            fn(e, arg);
        }
}
