/* The ring of events. */
#include "control/event.h"

#include "base/error.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct event_ring ring;

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

static int setup(void **state)
{
    (void)state;
    vp_log_set_sink(drop_line, NULL);
    return event_ring_init(&ring);
}

static int teardown(void **state)
{
    (void)state;
    event_ring_fini(&ring);
    vp_log_set_sink(NULL, NULL);
    return 0;
}

static void add(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        event_add(&ring, 1000 + i, VP_LOG_WARN, "test.kind", "tank/v", "number %u", i);
}

struct page {
    size_t count;
    long long first, last, lost;
};

static struct page list(uint64_t since, unsigned max)
{
    json_t *r = event_list(&ring, since, max);
    assert_non_null(r);
    const json_t *events = json_object_get(r, "events");
    struct page p = {
        .count = json_array_size(events),
        .first = json_integer_value(json_object_get(json_array_get(events, 0), "seq")),
        .last = json_integer_value(json_object_get(r, "last")),
        .lost = json_integer_value(json_object_get(r, "lost")),
    };
    json_decref(r);
    return p;
}

static void an_empty_ring_lists_nothing(void **state)
{
    (void)state;
    struct page p = list(0, 10);
    assert_int_equal(p.count, 0);
    assert_int_equal(p.last, 0);
    assert_false(event_is_there(&ring, 0));
}

static void events_are_numbered_from_one_and_paged(void **state)
{
    (void)state;
    add(5);
    struct page p = list(0, 3);
    assert_int_equal(p.first, 1);
    assert_int_equal(p.count, 3);
    assert_int_equal(p.last, 3);
    p = list(3, 10);
    assert_int_equal(p.first, 4);
    assert_int_equal(p.count, 2);
    assert_int_equal(p.last, 5);
    assert_true(event_is_there(&ring, 4));
    assert_false(event_is_there(&ring, 5));
}

static void what_the_ring_dropped_is_counted(void **state)
{
    (void)state;
    add(EVENT_RING + 10);
    struct page p = list(0, EVENT_RING);
    assert_int_equal(p.count, EVENT_RING);
    assert_int_equal(p.first, 11);
    assert_int_equal(p.lost, 10);
    p = list(EVENT_RING, EVENT_RING);
    assert_int_equal(p.lost, 0);
    assert_int_equal(p.count, 10);
}

static void a_number_of_an_earlier_daemon_starts_over(void **state)
{
    (void)state;
    add(2);
    struct page p = list(5000, 10);
    assert_int_equal(p.first, 1);
    assert_int_equal(p.count, 2);
    assert_int_equal(p.lost, 0);
    assert_true(event_is_there(&ring, 5000));
}

static void an_event_carries_all_of_it(void **state)
{
    (void)state;
    add(1);
    json_t *r = event_list(&ring, 0, 1);
    const json_t *e = json_array_get(json_object_get(r, "events"), 0);
    assert_string_equal(json_string_value(json_object_get(e, "level")), "warn");
    assert_string_equal(json_string_value(json_object_get(e, "kind")), "test.kind");
    assert_string_equal(json_string_value(json_object_get(e, "subject")), "tank/v");
    assert_string_equal(json_string_value(json_object_get(e, "text")), "number 0");
    assert_int_equal(json_integer_value(json_object_get(e, "time")), 1000);
    json_decref(r);
}

static void an_event_about_a_strange_file_name_does_not_end_the_list(void **state)
{
    (void)state;
    event_add(&ring, 1, VP_LOG_WARN, "test.kind", "tank", "disk /d/\377.img");
    add(1);
    json_t *list = event_list(&ring, 0, 10);
    assert_int_equal(json_array_size(json_object_get(list, "events")), 2);
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_empty_ring_lists_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(events_are_numbered_from_one_and_paged, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_ring_dropped_is_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(a_number_of_an_earlier_daemon_starts_over, setup, teardown),
        cmocka_unit_test_setup_teardown(an_event_about_a_strange_file_name_does_not_end_the_list,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(an_event_carries_all_of_it, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
