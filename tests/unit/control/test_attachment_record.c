/* Attachments as bytes, and the names that an export had. */
#include "control/attachment_record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned char bytes[ATTACHMENT_RECORD_MAX];

static struct attachment_record sample(void)
{
    struct attachment_record r = {.kind = ATTACHMENT_NBD,
                                  .volume_id = 77,
                                  .address = "unix:/run/x",
                                  .address_len = 11,
                                  .socket = attachment_socket_default()};
    return r;
}

static void name_add(struct attachment_record *r, const char *name)
{
    (void)snprintf(r->aliases.name[r->aliases.count++], sizeof(r->aliases.name[0]), "%s", name);
}

static void check_same(const struct attachment_record *a, const struct attachment_record *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->read_only, b->read_only);
    assert_int_equal(a->volume_id, b->volume_id);
    assert_int_equal(a->address_len, b->address_len);
    assert_memory_equal(a->address, b->address, a->address_len);
    assert_true(attachment_socket_equal(a->socket, b->socket));
    assert_int_equal(a->aliases.count, b->aliases.count);
    for (unsigned i = 0; i < a->aliases.count; i++)
        assert_string_equal(a->aliases.name[i], b->aliases.name[i]);
}

static void round_trip(const struct attachment_record *r, size_t len)
{
    struct attachment_record out;
    assert_int_equal(attachment_record_encode(r, bytes), len);
    assert_true(attachment_record_decode(bytes, len, &out));
    check_same(r, &out);
}

static void a_record_reads_back_as_it_was_written(void **state)
{
    (void)state;
    struct attachment_record r = sample();
    round_trip(&r, 16 + 11); /* as before there were names */
    r.read_only = true;
    r.socket.mode = 0600;
    round_trip(&r, 16 + 11 + 12);
    name_add(&r, "tank/vm1");
    name_add(&r, "b/c");
    round_trip(&r, 16 + 11 + 12 + 1 + 9 + 4);
    r.socket = attachment_socket_default();
    round_trip(&r, 16 + 11 + 1 + 9 + 4);
}

static void the_longest_record_has_room(void **state)
{
    (void)state;
    char address[ATTACHMENT_ADDRESS_MAX], name[VOLUME_FULL_NAME_MAX + 1];
    struct attachment_record r = sample();
    memset(address, 'a', sizeof(address));
    memset(name, 'n', sizeof(name));
    name[POOL_NAME_MAX] = '/';
    name[VOLUME_FULL_NAME_MAX] = 0;
    r.address = address;
    r.address_len = sizeof(address);
    r.socket.uid = 0;
    for (unsigned i = 0; i < ATTACHMENT_ALIASES_MAX; i++) {
        name[0] = (char)('a' + i);
        name_add(&r, name);
    }
    round_trip(&r, ATTACHMENT_RECORD_MAX);
}

static void an_earlier_release_finds_the_address_and_the_socket_where_they_were(void **state)
{
    (void)state;
    struct attachment_record r = sample();
    r.socket.mode = 0640;
    name_add(&r, "a/b");
    attachment_record_encode(&r, bytes);
    assert_int_equal(bytes[8] | bytes[9] << 8, 11);
    assert_memory_equal(bytes + 16, "unix:/run/x", 11);
    assert_int_equal(bytes[16 + 11 + 8] | bytes[16 + 11 + 9] << 8, 0640);
}

/* ---- what a disk may hold ------------------------------------------------------------------- */

static void a_record_that_ends_early_has_what_is_whole(void **state)
{
    (void)state;
    struct attachment_record r = sample(), out;
    r.socket.mode = 0640;
    name_add(&r, "a/b");
    name_add(&r, "c/d");
    size_t len = attachment_record_encode(&r, bytes);
    for (size_t n = 0; n < len; n++) {
        unsigned char *cut = malloc(n ? n : 1); /* so that a read beyond the end is seen */
        assert_non_null(cut);
        memcpy(cut, bytes, n);
        assert_int_equal(attachment_record_decode(cut, n, &out), n >= 16 + 11);
        if (n >= 16 + 11) {
            assert_int_equal(attachment_socket_is_default(out.socket), n < 16 + 11 + 12);
            assert_int_equal(out.aliases.count, n >= len - 4);
        }
        free(cut);
    }
}

static void names_that_are_none_are_left_out(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
    } names[] = {{"a/b", 3}, {"", 0},      {"ab", 2},    {"/b", 2},     {"a/", 2},
                 {"a/b", 3}, {"a/b/c", 5}, {"a\0/b", 4}, {"a/ b\n", 5}, {"c/d", 3}};
    struct attachment_record r = sample(), out;
    size_t at = attachment_record_encode(&r, bytes);
    bytes[3] |= ATTACHMENT_ALIASES;
    bytes[at++] = sizeof(names) / sizeof(names[0]);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        bytes[at++] = (unsigned char)names[i].len;
        memcpy(bytes + at, names[i].text, names[i].len);
        at += names[i].len;
    }
    assert_true(attachment_record_decode(bytes, at, &out));
    assert_int_equal(out.aliases.count, 2);
    assert_string_equal(out.aliases.name[0], "a/b");
    assert_string_equal(out.aliases.name[1], "c/d");
}

static void more_names_than_there_is_room_for_are_left_out(void **state)
{
    (void)state;
    struct attachment_record r = sample(), out;
    size_t at = attachment_record_encode(&r, bytes);
    bytes[3] |= ATTACHMENT_ALIASES;
    bytes[at++] = 255;
    for (unsigned i = 0; i < 200; i++) {
        memcpy(bytes + at, "\3a/?", 4);
        bytes[at + 3] = (unsigned char)('a' + i % 26);
        at += 4;
    }
    assert_true(attachment_record_decode(bytes, at, &out));
    assert_int_equal(out.aliases.count, ATTACHMENT_ALIASES_MAX);
}

static void random_bytes_decode_within_bounds(void **state)
{
    (void)state;
    struct attachment_record r = sample(), out;
    srand(7);
    for (unsigned i = 0; i < 20000; i++) {
        size_t len = attachment_record_encode(&r, bytes) + (size_t)(rand() % 600);
        for (size_t at = 27; at < len; at++)
            bytes[at] = rand() % 3 ? (unsigned char)"a/\3"[rand() % 3] : (unsigned char)rand();
        bytes[3] = (unsigned char)rand();
        bytes[8] = (unsigned char)rand();
        if (!attachment_record_decode(bytes, len, &out))
            continue;
        assert_true(out.address_len <= ATTACHMENT_ADDRESS_MAX);
        assert_true(out.aliases.count <= ATTACHMENT_ALIASES_MAX);
        for (unsigned k = 0; k < out.aliases.count; k++)
            assert_non_null(strchr(out.aliases.name[k], '/'));
    }
}

/* ---- names ---------------------------------------------------------------------------------- */

static void a_volume_that_comes_back_has_each_name_once(void **state)
{
    (void)state;
    struct attachment_aliases a = {0};
    char dropped[VOLUME_FULL_NAME_MAX + 1];
    attachment_aliases_follow(&a, "p/v", "q/v", dropped);
    attachment_aliases_follow(&a, "q/v", "p/v", dropped);
    assert_int_equal(a.count, 1);
    assert_string_equal(a.name[0], "q/v");
    attachment_aliases_follow(&a, "p/v", "r/v", dropped);
    assert_int_equal(a.count, 2);
    assert_string_equal(a.name[1], "p/v");
    assert_string_equal(dropped, "");
}

static void of_too_many_names_the_oldest_but_the_first_goes(void **state)
{
    (void)state;
    struct attachment_aliases a = {0};
    char dropped[VOLUME_FULL_NAME_MAX + 1], before[8], now[8];
    for (unsigned i = 0; i < ATTACHMENT_ALIASES_MAX + 2; i++) {
        (void)snprintf(before, sizeof(before), "p/%u", i);
        (void)snprintf(now, sizeof(now), "p/%u", i + 1);
        attachment_aliases_follow(&a, before, now, dropped);
        assert_int_equal(dropped[0] != 0, i >= ATTACHMENT_ALIASES_MAX);
    }
    assert_string_equal(dropped, "p/2");
    assert_int_equal(a.count, ATTACHMENT_ALIASES_MAX);
    assert_string_equal(a.name[0], "p/0");
    assert_string_equal(a.name[1], "p/3");
    assert_string_equal(a.name[6], "p/8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_reads_back_as_it_was_written),
        cmocka_unit_test(the_longest_record_has_room),
        cmocka_unit_test(an_earlier_release_finds_the_address_and_the_socket_where_they_were),
        cmocka_unit_test(a_record_that_ends_early_has_what_is_whole),
        cmocka_unit_test(names_that_are_none_are_left_out),
        cmocka_unit_test(more_names_than_there_is_room_for_are_left_out),
        cmocka_unit_test(random_bytes_decode_within_bounds),
        cmocka_unit_test(a_volume_that_comes_back_has_each_name_once),
        cmocka_unit_test(of_too_many_names_the_oldest_but_the_first_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
