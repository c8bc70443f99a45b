/*
 * Records: lists of them (struct pool_batch), their decoding, and the table in memory.
 *
 * The table is a hash by (kind, scope, key) with a list of each kind, so that going over all
 * volumes touches volumes only. A batch is applied whole or, when memory is out, not at all: the
 * nodes are allocated before the first change.
 */
#include "pool/keep.h"
#include "pool/meta_impl.h"

#include <limits.h>
#include <stdlib.h>

enum { VISITED_A_TURN = 512 };

/* ---- batches ------------------------------------------------------------------------------ */

void pool_batch_init(struct pool_batch *b)
{
    *b = (struct pool_batch){0};
}

void pool_batch_fini(struct pool_batch *b)
{
    free(b->bytes);
    pool_batch_init(b);
}

void pool_batch_clear(struct pool_batch *b)
{
    b->len = 0;
    b->count = 0;
    b->failed = false;
}

static bool batch_reserve(struct pool_batch *b, size_t more)
{
    if (b->failed)
        return false;
    if (b->len + more <= b->capacity)
        return true;
    if (b->borrowed) {
        b->failed = true;
        return false;
    }
    size_t capacity = b->capacity ? b->capacity : 256;
    while (capacity < b->len + more)
        capacity *= 2;
    uint8_t *bytes = realloc(b->bytes, capacity);
    if (!bytes) {
        b->failed = true;
        return false;
    }
    b->bytes = bytes;
    b->capacity = capacity;
    return true;
}

bool pool_batch_take_memory(struct pool_batch *b, size_t capacity)
{
    VP_VERIFY_TRUE(!b->borrowed);
    if (capacity <= b->capacity)
        return true;
    uint8_t *bytes = realloc(b->bytes, capacity);
    if (!bytes)
        return false;
    memset(bytes + b->len, 0, capacity - b->len);
    b->bytes = bytes;
    b->capacity = capacity;
    return true;
}

static inline void batch_add(struct pool_batch *b, enum record_op op, enum pool_record_kind kind,
                             uint32_t scope, uint64_t key, const void *value, size_t len)
{
    VP_VERIFY(len, <=, (size_t)POOL_RECORD_VALUE_MAX);
    size_t padded = align_up(len, RECORD_ALIGN);
    if (!batch_reserve(b, sizeof(struct record_header) + padded))
        return;
    struct record_header h = {
        .kind = (uint8_t)kind,
        .op = (uint8_t)op,
        .len = le16_make((uint16_t)len),
        .scope = le32_make(scope),
        .key = le64_make(key),
    };
    uint8_t *at = b->bytes + b->len;
    memcpy(at, &h, sizeof(h));
    if (len)
        memcpy(at + sizeof(h), value, len);
    memset(at + sizeof(h) + len, 0, padded - len);
    b->len += sizeof(h) + padded;
    b->count++;
}

size_t pool_record_bytes(size_t len)
{
    return sizeof(struct record_header) + align_up(len, RECORD_ALIGN);
}

void pool_batch_set(struct pool_batch *b, enum pool_record_kind kind, uint32_t scope, uint64_t key,
                    const void *value, size_t len)
{
    batch_add(b, RECORD_SET, kind, scope, key, value, len);
}

void pool_batch_delete(struct pool_batch *b, enum pool_record_kind kind, uint32_t scope,
                       uint64_t key)
{
    batch_add(b, RECORD_DELETE, kind, scope, key, NULL, 0);
}

static bool kind_is_known(unsigned kind)
{
    return (kind >= POOL_RECORD_DISK && kind <= POOL_RECORD_COUNTER) || kind == POOL_RECORD_MAP ||
           kind == POOL_RECORD_SPACE;
}

int record_decode(const uint8_t *bytes, size_t len, size_t *at, struct record_view *out)
{
    struct record_header h;
    if (*at == len)
        return 0;
    if (len - *at < sizeof(h))
        return VP_E_RECORD_SHORT;
    memcpy(&h, bytes + *at, sizeof(h));
    size_t value_len = le16_get(h.len), padded = align_up(value_len, RECORD_ALIGN);
    if (!kind_is_known(h.kind))
        return VP_E_RECORD_KIND;
    if ((h.op != RECORD_SET && h.op != RECORD_DELETE) || value_len > POOL_RECORD_VALUE_MAX ||
        (h.op == RECORD_DELETE && value_len))
        return VP_E_RECORD_BAD;
    if (len - *at - sizeof(h) < padded)
        return VP_E_RECORD_SHORT;
    *out = (struct record_view){
        .r = {.kind = h.kind,
              .scope = le32_get(h.scope),
              .key = le64_get(h.key),
              .value = bytes + *at + sizeof(h),
              .len = (uint32_t)value_len},
        .op = (enum record_op)h.op,
    };
    *at += sizeof(h) + padded;
    return 1;
}

int pool_batch_next(const struct pool_batch *b, size_t *at, struct pool_record *out,
                    bool *is_delete)
{
    struct record_view v;
    int rc = record_decode(b->bytes, b->len, at, &v);
    if (rc > 0) {
        *out = v.r;
        *is_delete = v.op == RECORD_DELETE;
    }
    return rc;
}

/* ---- table -------------------------------------------------------------------------------- */

struct record {
    struct hash_node node;
    struct list link; /* in its kind, or in the list of nodes that wait to be used */
    struct list changed_link;
    uint32_t scope;
    uint32_t len;
    uint64_t key;
    uint32_t changed; /* when it was set or deleted last, if it is in pool_records.changed */
    uint16_t kind;
    bool imaged;  /* some table image may have it                             */
    bool deleted; /* it is in the table to tell the next image that it is gone */
    uint8_t value[] __attribute__((aligned(8)));
};

static uint64_t record_hash(unsigned kind, uint32_t scope, uint64_t key)
{
    return hash_mix(key ^ hash_mix((uint64_t)kind << 32 | scope));
}

static uint64_t record_size(uint32_t len)
{
    return sizeof(struct record_header) + align_up(len, RECORD_ALIGN);
}

int pool_records_init(struct pool_records *t)
{
    if (!hash_init(&t->table, 16))
        return VP_E_NO_MEMORY;
    for (unsigned k = 0; k < POOL_RECORD_TABLE_MAX; k++)
        list_init(&t->kind[k]);
    list_init(&t->changed);
    t->ranges = 1;
    return 0;
}

void pool_records_reserve(struct pool *p)
{
    uint64_t extents = 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        extents += p->disk[i].extents_total;
    hash_reserve(&p->records.table, extents / raid_profile_width(p->default_profile));
}

static struct record *record_find_any(const struct pool_records *t, unsigned kind, uint32_t scope,
                                      uint64_t key)
{
    const struct hash_node *n = hash_find(&t->table, record_hash(kind, scope, key));
    for (; n; n = hash_find_next(n)) {
        struct record *r = container_of(n, struct record, node);
        if (r->kind == kind && r->scope == scope && r->key == key)
            return r;
    }
    return NULL;
}

static struct record *record_find(const struct pool_records *t, unsigned kind, uint32_t scope,
                                  uint64_t key)
{
    struct record *r = record_find_any(t, kind, scope, key);
    return r && !r->deleted ? r : NULL;
}

/* ---- what changed since the last full image -------------------------------------------------- */

static uint64_t *range_bytes(struct pool_records *t, uint32_t changed)
{
    unsigned i = t->ranges - 1;
    while (i && t->from[i] > changed)
        i--;
    return &t->range_bytes[i];
}

static void changed_forget(struct pool_records *t, struct record *r)
{
    if (list_empty(&r->changed_link))
        return;
    if (t->encode_next == &r->changed_link)
        t->encode_next = r->changed_link.prev;
    *range_bytes(t, r->changed) -= record_size(r->len);
    list_del(&r->changed_link);
}

/* It changes now. While the full image is read there is nothing since it. */
static void changed_note(struct pool_records *t, struct record *r)
{
    changed_forget(t, r);
    r->imaged |= t->loading;
    if (!t->ranges)
        return;
    r->changed = t->from[t->ranges - 1];
    t->range_bytes[t->ranges - 1] += record_size(r->len);
    list_add_tail(&t->changed, &r->changed_link);
}

void pool_records_range_begin(struct pool_records *t)
{
    VP_VERIFY(t->ranges, <, (unsigned)POOL_RANGES);
    t->from[t->ranges] = ++t->epoch;
    t->range_bytes[t->ranges++] = 0;
}

void pool_records_range_join(struct pool_records *t, unsigned first)
{
    VP_VERIFY(first + 1, <, t->ranges);
    uint32_t last = t->from[t->ranges - 1];
    uint64_t last_bytes = t->range_bytes[t->ranges - 1];
    while (t->ranges > first + 2)
        t->range_bytes[first] += t->range_bytes[--t->ranges - 1];
    t->from[t->ranges - 1] = last;
    t->range_bytes[t->ranges - 1] = last_bytes;
}

void pool_records_range_undo(struct pool_records *t)
{
    VP_VERIFY(t->ranges, >, 1U);
    t->ranges--;
    t->range_bytes[t->ranges - 1] += t->range_bytes[t->ranges];
}

void pool_records_range_reset(struct pool_records *t)
{
    t->from[0] = t->from[t->ranges - 1];
    t->range_bytes[0] = t->range_bytes[t->ranges - 1];
    t->ranges = 1;
}

uint64_t pool_records_changed_bytes(const struct pool_records *t, unsigned first)
{
    uint64_t sum = 0;
    for (unsigned i = first; i < t->ranges; i++)
        sum += t->range_bytes[i];
    return sum;
}

/* ---- changing the table ---------------------------------------------------------------------- */

static void record_remove(struct pool_records *t, struct record *r)
{
    if (t->encode_next == &r->link)
        t->encode_next = r->link.next;
    if (!r->deleted) {
        VP_VERIFY(t->bytes[r->kind], >=, record_size(r->len));
        t->bytes[r->kind] -= record_size(r->len);
    }
    changed_forget(t, r);
    hash_del(&t->table, &r->node);
    list_del(&r->link);
    free(r);
}

static void record_insert(struct pool_records *t, struct record *r)
{
    struct record *old = record_find_any(t, r->kind, r->scope, r->key);
    list_init(&r->changed_link);
    r->imaged = old && old->imaged;
    r->deleted = false;
    if (old && !old->deleted) /* in its place, so that an encoding under way meets it once */
        list_add_head(&old->link, &r->link);
    else
        list_add_tail(&t->kind[r->kind], &r->link);
    if (old)
        record_remove(t, old);
    t->bytes[r->kind] += record_size(r->len);
    hash_add(&t->table, &r->node, record_hash(r->kind, r->scope, r->key));
    changed_note(t, r);
}

/* What an image may have is remembered until the next full one does not have it. */
static void record_delete(struct pool_records *t, struct record *r)
{
    struct record *gone = r->imaged && t->ranges ? malloc(sizeof(*gone)) : NULL;
    if (!gone && !(r->imaged && t->ranges)) {
        record_remove(t, r);
        return;
    }
    if (gone) { /* without the value */
        *gone = (struct record){.scope = r->scope, .key = r->key, .kind = r->kind};
        list_init(&gone->link);
        list_init(&gone->changed_link);
        record_remove(t, r);
        hash_add(&t->table, &gone->node, record_hash(gone->kind, gone->scope, gone->key));
    } else {
        gone = r;
        changed_forget(t, r);
        t->bytes[r->kind] -= record_size(r->len);
        r->len = 0;
        if (t->encode_next == &r->link)
            t->encode_next = r->link.next;
        list_del(&r->link);
    }
    gone->imaged = gone->deleted = true;
    changed_note(t, gone);
}

void pool_records_clear_kind(struct pool_records *t, enum pool_record_kind kind)
{
    while (!list_empty(&t->kind[kind]))
        record_remove(t, list_first(&t->kind[kind], struct record, link));
}

/* The newest first, here and with groups: so the heap shrinks as they go, not by all of it with the
 * last one. */
bool pool_records_free_some(struct pool_records *t, unsigned count)
{
    for (; t->table.bucket && !list_empty(&t->changed); count--) {
        if (!count)
            return true;
        struct record *r = container_of(list_pop_tail(&t->changed), struct record, changed_link);
        if (r->deleted)
            free(r);
    }
    for (unsigned k = 0; t->table.bucket && k < POOL_RECORD_TABLE_MAX; k++)
        for (; !list_empty(&t->kind[k]); count--) {
            if (!count)
                return true;
            free(container_of(list_pop_tail(&t->kind[k]), struct record, link));
        }
    return false;
}

void pool_records_fini(struct pool_records *t)
{
    if (!t->table.bucket)
        return;
    while (pool_records_free_some(t, UINT_MAX))
        ;
    hash_fini(&t->table);
}

static struct record *record_new(const struct pool_record *v)
{
    struct record *r = malloc(sizeof(*r) + v->len);
    if (!r)
        return NULL;
    r->kind = v->kind;
    r->scope = v->scope;
    r->key = v->key;
    r->len = v->len;
    memcpy(r->value, v->value, v->len);
    return r;
}

static void nodes_free(struct list *nodes)
{
    struct list *e;
    while ((e = list_pop(nodes)))
        free(container_of(e, struct record, link));
}

/* A node for every table record that is set, in order. */
static int nodes_prepare(const uint8_t *bytes, size_t len, struct list *nodes)
{
    size_t at = 0;
    struct record_view v;
    int rc;
    while ((rc = record_decode(bytes, len, &at, &v)) > 0) {
        if (v.r.kind >= POOL_RECORD_TABLE_MAX || v.op != RECORD_SET)
            continue;
        struct record *r = record_new(&v.r);
        if (!r) {
            rc = VP_E_NO_MEMORY;
            break;
        }
        list_add_tail(nodes, &r->link);
    }
    if (rc)
        nodes_free(nodes);
    return rc;
}

int pool_records_apply(struct pool_records *t, const uint8_t *bytes, size_t len)
{
    struct list nodes;
    list_init(&nodes);
    int rc = nodes_prepare(bytes, len, &nodes);
    if (rc)
        return rc;
    size_t at = 0;
    struct record_view v;
    while ((rc = record_decode(bytes, len, &at, &v)) > 0) {
        if (v.r.kind >= POOL_RECORD_TABLE_MAX)
            continue;
        if (v.op == RECORD_SET) {
            record_insert(t, container_of(list_pop(&nodes), struct record, link));
            continue;
        }
        struct record *r = record_find(t, v.r.kind, v.r.scope, v.r.key);
        if (r)
            record_delete(t, r);
    }
    return rc;
}

static struct pool_record record_as_public(const struct record *r)
{
    return (struct pool_record){
        .kind = r->kind, .scope = r->scope, .key = r->key, .value = r->value, .len = r->len};
}

bool pool_record_get(struct pool *p, enum pool_record_kind kind, uint32_t scope, uint64_t key,
                     struct pool_record *out)
{
    const struct record *r = record_find(&p->records, kind, scope, key);
    if (!r)
        return false;
    *out = record_as_public(r);
    return true;
}

static int record_visit(const struct record *r, int (*fn)(const struct pool_record *r, void *arg),
                        void *arg)
{
    struct pool_record v = record_as_public(r);
    int rc = 0;
    CO_NO_YIELD {
        rc = fn(&v, arg);
    }
    return rc;
}

int pool_record_each(struct pool *p, enum pool_record_kind kind,
                     int (*fn)(const struct pool_record *r, void *arg), void *arg)
{
    VP_VERIFY((unsigned)kind, <, (unsigned)POOL_RECORD_TABLE_MAX);
    struct record *r;
    list_for_each (r, &p->records.kind[kind], link) {
        int rc = record_visit(r, fn, arg);
        if (rc)
            return rc;
    }
    return 0;
}

CO int pool_record_each_in_turns(struct pool *p, enum pool_record_kind kind,
                                 int (*fn)(const struct pool_record *r, void *arg), void *arg)
{
    struct record *r;
    unsigned n = 0;
    list_for_each (r, &p->records.kind[kind], link) {
        int rc = record_visit(r, fn, arg);
        if (rc)
            return rc;
        if (++n % VISITED_A_TURN == 0)
            co_yield ();
    }
    return 0;
}

int pool_record_put_in_table_image(struct pool *p, enum pool_record_kind kind, uint32_t scope,
                                   uint64_t key, const void *value, size_t len)
{
    VP_VERIFY((unsigned)kind, <, (unsigned)POOL_RECORD_TABLE_MAX);
    struct record *r = record_find(&p->records, kind, scope, key);
    if (!value) {
        if (r)
            record_delete(&p->records, r);
        return 0;
    }
    if (r && r->len == len) {
        if (memcmp(r->value, value, len) != 0) {
            memcpy(r->value, value, len);
            changed_note(&p->records, r);
        }
        return 0;
    }
    struct pool_record v = {
        .kind = (uint16_t)kind, .scope = scope, .key = key, .value = value, .len = (uint32_t)len};
    r = record_new(&v);
    if (!r)
        return VP_E_NO_MEMORY;
    record_insert(&p->records, r);
    return 0;
}

/* ---- encoding -------------------------------------------------------------------------------- */

void pool_records_encode_begin(struct pool_records *t, uint32_t from)
{
    t->encode_from = from;
    t->encode_kind = 0;
    t->encode_next = from ? t->changed.prev : t->kind[0].next;
}

static void record_encode(struct record *r, struct pool_batch *b)
{
    r->imaged = true;
    if (r->deleted)
        pool_batch_delete(b, r->kind, r->scope, r->key);
    else
        pool_batch_set(b, r->kind, r->scope, r->key, r->value, r->len);
}

static bool encode_some_of_all(struct pool_records *t, struct pool_batch *b, unsigned count)
{
    while (count--) {
        while (t->encode_next == &t->kind[t->encode_kind]) {
            if (++t->encode_kind == POOL_RECORD_TABLE_MAX) {
                t->encode_next = NULL;
                return false;
            }
            t->encode_next = t->kind[t->encode_kind].next;
        }
        struct record *r = container_of(t->encode_next, struct record, link);
        record_encode(r, b);
        t->encode_next = r->link.next;
    }
    return true;
}

/* From the last change back. What changes meanwhile moves to the end of the list, out of the way:
 * it is in the log. */
static bool encode_some_changed(struct pool_records *t, struct pool_batch *b, unsigned count)
{
    while (count--) {
        struct record *r = container_of(t->encode_next, struct record, changed_link);
        if (t->encode_next == &t->changed || r->changed < t->encode_from) {
            t->encode_next = NULL;
            return false;
        }
        record_encode(r, b);
        t->encode_next = r->changed_link.prev;
    }
    return true;
}

bool pool_records_encode_some(struct pool_records *t, struct pool_batch *b, unsigned count)
{
    return t->encode_from ? encode_some_changed(t, b, count) : encode_some_of_all(t, b, count);
}

/* The oldest first: all up to where the last range begins. */
bool pool_records_forget_some(struct pool_records *t, unsigned count)
{
    while (count--) {
        struct record *r = list_first(&t->changed, struct record, changed_link);
        if (list_empty(&t->changed) || r->changed >= t->from[t->ranges - 1])
            return false;
        if (r->deleted)
            record_remove(t, r);
        else
            changed_forget(t, r);
    }
    return true;
}

/* ---- reading images -------------------------------------------------------------------------- */

void pool_records_load_begin(struct pool_records *t)
{
    t->loading = true;
    t->ranges = 0;
}

void pool_records_load_end(struct pool_records *t)
{
    t->loading = false;
}

uint64_t pool_records_bytes(const struct pool_records *t)
{
    uint64_t sum = 0;
    for (unsigned k = 0; k < POOL_RECORD_TABLE_MAX; k++)
        sum += t->bytes[k];
    return sum;
}
