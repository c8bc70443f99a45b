/*
 * An intrusive chained hash table keyed by 64 bits. The table doubles when it is full. The owner
 * embeds a hash_node and keeps what it needs beyond the key.
 */
#ifndef VP_BASE_HASH_H
#define VP_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash_node {
    struct hash_node *next;
    uint64_t key;
};

struct hash {
    struct hash_node **bucket;
    size_t mask; /* buckets - 1 */
    size_t count;
};

/* A good 64-bit mixer (splitmix64's finisher). */
static inline uint64_t hash_mix(uint64_t v)
{
    v ^= v >> 30;
    v *= 0xbf58476d1ce4e5b9ULL;
    v ^= v >> 27;
    v *= 0x94d049bb133111ebULL;
    return v ^ v >> 31;
}

uint64_t hash_bytes(const void *p, size_t len);

/* False when memory is out. `buckets_hint` is rounded up to a power of two. */
bool hash_init(struct hash *h, size_t buckets_hint);
/* Makes room for `count` nodes at once, best effort: growing later moves all nodes in one go. */
void hash_reserve(struct hash *h, size_t count);
/* Frees the table, not the nodes. */
void hash_fini(struct hash *h);
/* Adds n under `key` without looking for an equal one. Never fails: growth is best effort. */
void hash_add(struct hash *h, struct hash_node *n, uint64_t key);
void hash_del(struct hash *h, struct hash_node *n);

static inline struct hash_node *hash_find(const struct hash *h, uint64_t key)
{
    struct hash_node *n = h->bucket[hash_mix(key) & h->mask];
    while (n && n->key != key)
        n = n->next;
    return n;
}
/* The next node with the same key, for owners that store equal keys. */
static inline struct hash_node *hash_find_next(const struct hash_node *n)
{
    uint64_t key = n->key;
    for (n = n->next; n && n->key != key; n = n->next)
        ;
    return (struct hash_node *)(uintptr_t)n;
}

/* Iterates in no order; `fn` may delete its node, nothing else. */
void hash_for_each(struct hash *h, void (*fn)(struct hash_node *n, void *arg), void *arg);

#endif
