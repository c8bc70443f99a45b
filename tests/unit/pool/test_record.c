/* Records: lists, decoding of anything, the table (record.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "pool/meta_impl.h"

static struct pool *table_new(void)
{
    struct pool *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    assert_int_equal(pool_records_init(&p->records), 0);
    return p;
}

static void table_free(struct pool *p)
{
    pool_records_fini(&p->records);
    free(p);
}

static void apply(struct pool *p, struct pool_batch *b)
{
    assert_false(b->failed);
    assert_int_equal(pool_records_apply(&p->records, b->bytes, b->len), 0);
    pool_batch_fini(b);
}

static void a_batch_gives_back_what_was_put_into_it(void **state)
{
    (void)state;
    struct pool_batch b;
    struct pool_record r;
    size_t at = 0;
    bool is_delete;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_VOLUME, 7, 1, "thirteen bytes", 13);
    pool_batch_delete(&b, POOL_RECORD_MAP, 8, UINT64_MAX);
    assert_int_equal(b.count, 2);
    assert_int_equal(pool_batch_next(&b, &at, &r, &is_delete), 1);
    assert_false(is_delete);
    assert_int_equal(r.kind, POOL_RECORD_VOLUME);
    assert_int_equal(r.scope, 7);
    assert_int_equal(r.len, 13);
    assert_memory_equal(r.value, "thirteen bytes", 13);
    assert_int_equal(pool_batch_next(&b, &at, &r, &is_delete), 1);
    assert_true(is_delete);
    assert_true(r.key == UINT64_MAX);
    assert_int_equal(pool_batch_next(&b, &at, &r, &is_delete), 0);
    pool_batch_fini(&b);
}

static void the_last_set_or_delete_of_a_key_counts(void **state)
{
    (void)state;
    struct pool *p = table_new();
    struct pool_batch b;
    struct pool_record r;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_VOLUME, 1, 1, "old", 3);
    pool_batch_set(&b, POOL_RECORD_VOLUME, 1, 1, "newer", 5);
    pool_batch_set(&b, POOL_RECORD_VOLUME, 1, 2, "gone", 4);
    pool_batch_delete(&b, POOL_RECORD_VOLUME, 1, 2);
    pool_batch_delete(&b, POOL_RECORD_VOLUME, 1, 3);
    apply(p, &b);
    assert_true(pool_record_get(p, POOL_RECORD_VOLUME, 1, 1, &r));
    assert_int_equal(r.len, 5);
    assert_false(pool_record_get(p, POOL_RECORD_VOLUME, 1, 2, &r));
    assert_false(pool_record_get(p, POOL_RECORD_STAT, 1, 1, &r));
    assert_int_equal(pool_records_bytes(&p->records), 16 + 8);
    table_free(p);
}

static int count_and_stop(const struct pool_record *r, void *arg)
{
    unsigned *n = arg;
    assert_int_equal(r->kind, POOL_RECORD_VOLUME);
    return ++*n == 100 ? 42 : 0;
}

static void going_over_a_kind_sees_that_kind_only_and_can_stop(void **state)
{
    (void)state;
    struct pool *p = table_new();
    struct pool_batch b;
    unsigned n = 0;
    pool_batch_init(&b);
    for (uint64_t i = 0; i < 1000; i++)
        pool_batch_set(&b, i % 10 ? POOL_RECORD_STAT : POOL_RECORD_VOLUME, 1, i, &i, sizeof(i));
    apply(p, &b);
    assert_int_equal(pool_record_each(p, POOL_RECORD_VOLUME, count_and_stop, &n), 42);
    assert_int_equal(n, 100);
    assert_int_equal(pool_record_each(p, POOL_RECORD_GROUP, count_and_stop, &n), 0);
    table_free(p);
}

static void an_encoded_table_applies_to_an_equal_one(void **state)
{
    (void)state;
    struct pool *p = table_new(), *q = table_new();
    struct pool_batch b;
    struct pool_record r;
    pool_batch_init(&b);
    for (uint64_t i = 0; i < 500; i++)
        pool_batch_set(&b, POOL_RECORD_STAT, (uint32_t)i, i * i, &i, i % 9);
    apply(p, &b);
    pool_records_encode_begin(&p->records, 0);
    while (pool_records_encode_some(&p->records, &b, 7))
        ;
    apply(q, &b);
    assert_int_equal(q->records.table.count, 500);
    for (uint64_t i = 0; i < 500; i++) {
        assert_true(pool_record_get(q, POOL_RECORD_STAT, (uint32_t)i, i * i, &r));
        assert_int_equal(r.len, i % 9);
        assert_memory_equal(r.value, &i, i % 9);
    }
    table_free(p);
    table_free(q);
}

enum { KEYS = 40 };

/* One change of a key, to the table and to the log; the same for the same step. */
static void change(struct pool *p, struct pool_batch *log, uint64_t step)
{
    struct pool_batch b;
    uint64_t random = hash_mix(step);
    pool_batch_init(&b);
    for (struct pool_batch *to = &b; to; to = to == &b ? log : NULL) {
        if (random % 3 == 0)
            pool_batch_delete(to, POOL_RECORD_STAT, 0, random / 3 % KEYS);
        else
            pool_batch_set(to, POOL_RECORD_STAT, 0, random / 3 % KEYS, &step, sizeof(step));
    }
    apply(p, &b);
}

/* Checkpoint, C1: each record as it was at one moment or another, and the log over it. */
static void a_copy_in_steps_and_the_log_since_it_began_give_the_table(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 200; round++) {
        struct pool *p = table_new(), *q = table_new();
        struct pool_batch log, copy;
        struct pool_record r, s;
        pool_batch_init(&log);
        pool_batch_init(&copy);
        uint64_t step = round * 1000;
        for (unsigned i = 0; i < KEYS; i++)
            change(p, &log, step++);
        pool_batch_clear(&log); /* the cut */
        pool_records_encode_begin(&p->records, 0);
        while (pool_records_encode_some(&p->records, &copy, 1 + (unsigned)round % 3)) {
            for (unsigned i = 0; i < 1 + round % 5; i++)
                change(p, &log, step++);
            assert_true(step - round * 1000 < 1000); /* it ends, whatever changes */
        }
        apply(q, &copy);
        apply(q, &log);
        assert_int_equal(pool_records_bytes(&q->records), pool_records_bytes(&p->records));
        for (uint64_t key = 0; key < KEYS; key++) {
            bool there = pool_record_get(p, POOL_RECORD_STAT, 0, key, &r);
            assert_int_equal(pool_record_get(q, POOL_RECORD_STAT, 0, key, &s), there);
            if (there)
                assert_memory_equal(r.value, s.value, sizeof(step));
        }
        table_free(p);
        table_free(q);
    }
}

/* Images as a root names them, and the log since the last one began (image.c). */
struct chain {
    struct pool_batch image[1 + POOL_DELTAS], log;
    unsigned images;
};

static void chain_cut(struct chain *c, unsigned images)
{
    while (c->images > images)
        pool_batch_fini(&c->image[--c->images]);
}

/* Writes image `at`, or fails to, while the table goes on changing. */
static void chain_add(struct pool *p, struct chain *c, unsigned at, uint64_t *step, bool fails)
{
    struct pool_records *t = &p->records;
    struct pool_batch image, log;
    pool_batch_init(&image);
    pool_batch_init(&log);
    uint32_t from = at ? t->from[at - 1] : 0;
    pool_records_range_begin(t);
    pool_records_encode_begin(t, from);
    for (bool more = true; more;
         more = pool_records_encode_some(t, &image, 1 + (unsigned)(*step % 3)))
        for (unsigned i = 0; i < *step % 3; i++)
            change(p, &log, (*step)++);
    if (fails) {
        pool_records_range_undo(t);
        pool_batch_fini(&image);
        /* the log goes on from the old cut */
        assert_true(pool_batch_take_memory(&c->log, c->log.len + log.len + 1));
        if (log.len)
            memcpy(c->log.bytes + c->log.len, log.bytes, log.len);
        c->log.len += log.len;
        pool_batch_fini(&log);
        return;
    }
    chain_cut(c, at);
    c->image[c->images++] = image;
    pool_batch_fini(&c->log);
    c->log = log;
    if (at) {
        pool_records_range_join(t, at - 1);
        return;
    }
    while (pool_records_forget_some(t, 3))
        change(p, &c->log, (*step)++);
    pool_records_range_reset(t);
}

/* As an import reads it; its table is the next one to go on with. */
static struct pool *chain_read(const struct chain *c)
{
    struct pool *q = table_new();
    struct pool_records *t = &q->records;
    pool_records_load_begin(t);
    for (unsigned i = 0; i < c->images; i++) {
        if (i)
            pool_records_range_begin(t);
        assert_int_equal(pool_records_apply(t, c->image[i].bytes, c->image[i].len), 0);
    }
    pool_records_range_begin(t);
    pool_records_load_end(t);
    assert_int_equal(t->ranges, c->images);
    assert_int_equal(pool_records_apply(t, c->log.bytes, c->log.len), 0);
    return q;
}

static void check_equal_tables(struct pool *p, struct pool *q)
{
    struct pool_record r, s;
    assert_int_equal(pool_records_bytes(&q->records), pool_records_bytes(&p->records));
    for (uint64_t key = 0; key < KEYS; key++) {
        bool there = pool_record_get(p, POOL_RECORD_STAT, 0, key, &r);
        assert_int_equal(pool_record_get(q, POOL_RECORD_STAT, 0, key, &s), there);
        if (there)
            assert_memory_equal(r.value, s.value, r.len);
    }
}

static void a_full_image_its_deltas_and_the_log_give_the_table(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 100; round++) {
        struct pool *p = table_new();
        struct chain c = {.images = 0};
        uint64_t step = round * 100000;
        pool_batch_init(&c.log);
        chain_add(p, &c, 0, &step, false);
        for (unsigned i = 0; i < 60; i++) {
            uint64_t random = hash_mix(step);
            unsigned most = c.images <= POOL_DELTAS ? c.images : POOL_DELTAS;
            for (unsigned n = 0; n < random % 20; n++)
                change(p, &c.log, step++);
            chain_add(p, &c, random % 16 == 0 ? 0 : most - (unsigned)(random / 16 % most), &step,
                      random / 256 % 5 == 0);
            struct pool *q = chain_read(&c);
            check_equal_tables(p, q);
            bool imported = random / 4096 % 4 == 0;
            table_free(imported ? p : q);
            p = imported ? q : p;
        }
        table_free(p);
        chain_cut(&c, 0);
        pool_batch_fini(&c.log);
    }
}

static void what_no_image_has_leaves_nothing_behind(void **state)
{
    (void)state;
    struct pool *p = table_new();
    struct pool_batch b;
    pool_batch_init(&b);
    for (uint64_t i = 0; i < 10; i++)
        pool_batch_set(&b, POOL_RECORD_INTENT, 1, i, &i, sizeof(i));
    for (uint64_t i = 0; i < 10; i++)
        pool_batch_delete(&b, POOL_RECORD_INTENT, 1, i);
    apply(p, &b);
    assert_int_equal(p->records.table.count, 0);
    assert_int_equal(pool_records_changed_bytes(&p->records, 0), 0);
    table_free(p);
}

static void records_for_the_table_image_are_set_and_removed_without_the_log(void **state)
{
    (void)state;
    struct pool *p = table_new();
    struct pool_record r;
    assert_int_equal(pool_record_put_in_table_image(p, POOL_RECORD_TREE, 1, 0, "abc", 3), 0);
    assert_int_equal(pool_record_put_in_table_image(p, POOL_RECORD_TREE, 1, 0, "xyz", 3), 0);
    assert_true(pool_record_get(p, POOL_RECORD_TREE, 1, 0, &r));
    assert_memory_equal(r.value, "xyz", 3);
    assert_int_equal(pool_record_put_in_table_image(p, POOL_RECORD_TREE, 1, 0, NULL, 0), 0);
    assert_false(pool_record_get(p, POOL_RECORD_TREE, 1, 0, &r));
    table_free(p);
}

static void a_record_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct pool_batch b;
    struct record_view v;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_VOLUME, 1, 1, "0123456789", 10);
    for (size_t len = 1; len < b.len; len++) {
        size_t at = 0;
        uint8_t *copy = malloc(len); /* exactly so long: sanitizers see a step too far */
        assert_non_null(copy);
        memcpy(copy, b.bytes, len);
        assert_int_equal(record_decode(copy, len, &at, &v), VP_E_RECORD_SHORT);
        free(copy);
    }
    pool_batch_fini(&b);
}

static void random_bytes_never_decode_out_of_bounds(void **state)
{
    (void)state;
    uint64_t random = 12345;
    for (unsigned round = 0; round < 20000; round++) {
        size_t len = random % 200, at = 0;
        uint8_t *bytes = malloc(len + 1);
        struct record_view v;
        int rc;
        assert_non_null(bytes);
        for (size_t i = 0; i < len; i++) {
            random = random * 6364136223846793005ULL + 1442695040888963407ULL;
            bytes[i] = (uint8_t)(random >> 60); /* small: kinds, ops and lengths that make sense */
        }
        while ((rc = record_decode(bytes, len, &at, &v)) > 0)
            assert_true((const uint8_t *)v.r.value + v.r.len <= bytes + len);
        struct pool *p = table_new();
        assert_int_equal(pool_records_apply(&p->records, bytes, len), rc);
        if (rc)
            assert_int_equal(p->records.table.count, 0);
        table_free(p);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_gives_back_what_was_put_into_it),
        cmocka_unit_test(the_last_set_or_delete_of_a_key_counts),
        cmocka_unit_test(going_over_a_kind_sees_that_kind_only_and_can_stop),
        cmocka_unit_test(an_encoded_table_applies_to_an_equal_one),
        cmocka_unit_test(a_copy_in_steps_and_the_log_since_it_began_give_the_table),
        cmocka_unit_test(a_full_image_its_deltas_and_the_log_give_the_table),
        cmocka_unit_test(what_no_image_has_leaves_nothing_behind),
        cmocka_unit_test(records_for_the_table_image_are_set_and_removed_without_the_log),
        cmocka_unit_test(a_record_cut_anywhere_is_refused),
        cmocka_unit_test(random_bytes_never_decode_out_of_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
