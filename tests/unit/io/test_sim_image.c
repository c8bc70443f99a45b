/* Pages and images of simulated disks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "io/sim_image_impl.h"

enum { PAGES = 5000 };

static struct sim_page *filled(unsigned char with)
{
    struct sim_page *p = sim_page_new();
    memset(p->data, with, sizeof(p->data));
    return p;
}

static void store(struct sim_image *img, uint64_t page_no, uint8_t mask, unsigned char with)
{
    struct sim_page *p = filled(with);
    sim_image_store(img, page_no, mask, p);
    sim_page_put(p);
}

static unsigned char byte_at(const struct sim_image *img, uint64_t offset)
{
    unsigned char b;
    sim_image_read(img, offset, &b, 1);
    return b;
}

static void a_store_does_not_show_in_what_was_shared_before(void **state)
{
    (void)state;
    struct sim_image a;
    sim_image_init(&a, PAGES, 1);
    store(&a, 4711, SIM_ALL_SECTORS, 1);
    struct sim_image b = sim_image_share(&a);
    store(&b, 4711, SIM_ALL_SECTORS, 2);
    store(&b, 4712, SIM_ALL_SECTORS, 3);
    assert_int_equal(byte_at(&a, 4711 * 4096), 1);
    assert_int_equal(byte_at(&b, 4711 * 4096), 2);
    assert_null(sim_image_lookup(&a, 4712));
    sim_image_fini(&a);
    assert_int_equal(byte_at(&b, 4712 * 4096 + 4095), 3);
    sim_image_fini(&b);
}

static void a_partial_store_keeps_the_other_sectors(void **state)
{
    (void)state;
    struct sim_image a;
    unsigned char before[4096], after[4096];
    sim_image_init(&a, PAGES, 7);
    sim_image_read(&a, 0, before, sizeof(before));
    store(&a, 0, 1 << 3, 0xee);
    sim_image_read(&a, 0, after, sizeof(after));
    memset(before + 3 * 512, 0xee, 512);
    assert_memory_equal(before, after, sizeof(before));
    sim_image_fini(&a);
}

static void noise_depends_on_key_and_place_and_nothing_else(void **state)
{
    (void)state;
    struct sim_image a, b;
    unsigned char x[8192], y[8192];
    sim_image_init(&a, PAGES, 7);
    sim_image_init(&b, PAGES, 8);
    sim_image_read(&a, 4096, x, sizeof(x));
    sim_image_read(&a, 4096, y, sizeof(y));
    assert_memory_equal(x, y, sizeof(x));
    assert_memory_not_equal(x, x + 4096, 4096);
    assert_memory_not_equal(x, x + 512, 512);
    sim_image_read(&b, 4096, y, sizeof(y));
    assert_memory_not_equal(x, y, sizeof(x));
    sim_image_read(&a, 4096 + 777, y, 100);
    assert_memory_equal(x + 777, y, 100);
}

static void equal_content_has_an_equal_hash_however_it_came_to_be(void **state)
{
    (void)state;
    struct sim_image a, b;
    sim_image_init(&a, PAGES, 1);
    sim_image_init(&b, PAGES, 1);
    store(&a, 10, SIM_ALL_SECTORS, 1);
    store(&a, 999, SIM_ALL_SECTORS, 2);
    uint64_t first = sim_image_hash(&a);
    store(&b, 999, SIM_ALL_SECTORS, 9);
    store(&b, 999, 0x0f, 2);
    assert_int_not_equal(sim_image_hash(&b), first);
    store(&b, 999, 0xf0, 2);
    store(&b, 10, SIM_ALL_SECTORS, 1);
    assert_int_equal(sim_image_hash(&b), first);
    sim_image_store(&b, 10, SIM_ALL_SECTORS, NULL);
    assert_int_not_equal(sim_image_hash(&b), first);
    sim_image_fini(&a);
    sim_image_fini(&b);
}

static void equal_pages_in_other_places_have_another_hash(void **state)
{
    (void)state;
    struct sim_image a, b;
    sim_image_init(&a, PAGES, 1);
    sim_image_init(&b, PAGES, 1);
    store(&a, 1, SIM_ALL_SECTORS, 1);
    store(&a, 2, SIM_ALL_SECTORS, 2);
    store(&b, 1, SIM_ALL_SECTORS, 2);
    store(&b, 2, SIM_ALL_SECTORS, 1);
    assert_int_not_equal(sim_image_hash(&a), sim_image_hash(&b));
    sim_image_fini(&a);
    sim_image_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_store_does_not_show_in_what_was_shared_before),
        cmocka_unit_test(a_partial_store_keeps_the_other_sectors),
        cmocka_unit_test(noise_depends_on_key_and_place_and_nothing_else),
        cmocka_unit_test(equal_content_has_an_equal_hash_however_it_came_to_be),
        cmocka_unit_test(equal_pages_in_other_places_have_another_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
