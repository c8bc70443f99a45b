/* Lists, hash tables and bitmaps against plain arrays. */
#include "base/bitmap.h"
#include "base/hash.h"
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct item {
    struct list link;
    struct hash_node node;
    int n;
};

static void a_list_keeps_the_order_of_adding(void **state)
{
    (void)state;
    struct list l, other;
    list_init(&l);
    list_init(&other);
    struct item a[6];
    for (int i = 0; i < 6; i++) {
        a[i].n = i;
        list_add_tail(i < 3 ? &l : &other, &a[i].link);
    }
    list_splice_tail(&l, &other);
    assert_true(list_empty(&other));
    int expect = 0;
    struct item *it, *tmp;
    list_for_each (it, &l, link)
        assert_int_equal(it->n, expect++);
    assert_int_equal(expect, 6);
    list_for_each_safe (it, tmp, &l, link)
        if (it->n % 2)
            list_del(&it->link);
    list_del(&a[1].link); /* a second removal is harmless */
    assert_int_equal(list_first(&l, struct item, link)->n, 0);
    assert_ptr_equal(list_pop(&l), &a[0].link);
    assert_ptr_equal(list_pop(&l), &a[2].link);
    assert_ptr_equal(list_pop(&l), &a[4].link);
    assert_null(list_pop(&l));
}

static void count_nodes(struct hash_node *n, void *arg)
{
    (void)n;
    ++*(int *)arg;
}

static void a_hash_table_finds_all_while_it_grows(void **state)
{
    (void)state;
    enum { N = 5000 };
    struct hash h;
    assert_true(hash_init(&h, 0));
    struct item *a = calloc(N, sizeof(*a));
    assert_non_null(a);
    for (uint64_t i = 0; i < N; i++)
        hash_add(&h, &a[i].node, i * 4096);
    for (uint64_t i = 0; i < N; i++)
        assert_ptr_equal(hash_find(&h, i * 4096), &a[i].node);
    assert_null(hash_find(&h, 1));
    for (uint64_t i = 0; i < N; i += 2)
        hash_del(&h, &a[i].node);
    for (uint64_t i = 0; i < N; i++)
        assert_int_equal(hash_find(&h, i * 4096) != NULL, i % 2);
    int n = 0;
    hash_for_each(&h, count_nodes, &n);
    assert_int_equal(n, N / 2);
    hash_fini(&h);
    free(a);
}

static void equal_keys_are_found_one_after_the_other(void **state)
{
    (void)state;
    struct hash h;
    assert_true(hash_init(&h, 8));
    struct item a[3];
    for (int i = 0; i < 3; i++)
        hash_add(&h, &a[i].node, 7);
    int n = 0;
    for (struct hash_node *e = hash_find(&h, 7); e; e = hash_find_next(e))
        n++;
    assert_int_equal(n, 3);
    hash_fini(&h);
}

static void a_bitmap_finds_what_was_set(void **state)
{
    (void)state;
    uint64_t map[4] = {0};
    assert_int_equal(bitmap_find(map, 200, 0, true), 200);
    assert_int_equal(bitmap_find(map, 200, 70, false), 70);
    bitmap_set_range(map, 60, 80);
    assert_int_equal(bitmap_find(map, 200, 0, true), 60);
    assert_int_equal(bitmap_find(map, 200, 60, false), 140);
    assert_int_equal(bitmap_count(map, 200), 80);
    assert_int_equal(bitmap_count(map, 100), 40);
    bitmap_clear_range(map, 64, 64);
    assert_true(bitmap_test(map, 63));
    assert_false(bitmap_test(map, 64));
    assert_int_equal(bitmap_find(map, 200, 64, true), 128);
    bitmap_set(map, 199);
    assert_int_equal(bitmap_find(map, 199, 140, true), 199);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_keeps_the_order_of_adding),
        cmocka_unit_test(a_hash_table_finds_all_while_it_grows),
        cmocka_unit_test(equal_keys_are_found_one_after_the_other),
        cmocka_unit_test(a_bitmap_finds_what_was_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
