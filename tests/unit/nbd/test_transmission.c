/*
 * Commands in the three dialects: answers, data, errors, limits.
 * threads: yes
 * valgrind: no (its one lock stays with the reactor's thread while that waits in its ring)
 */
#include "tests/unit/nbd/fixture.h"

static unsigned char data[9 << 20], got[9 << 20];
static const enum mode modes[] = {SIMPLE, STRUCTURED, EXTENDED};
#define each_mode(m) for (const enum mode *m = modes; m < modes + 3; m++)

static void fill(unsigned char *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)((i * 2654435761U + seed * 40503U) >> 11);
}

static void write_data(int fd, enum mode mode, unsigned flags, uint64_t offset, const void *p,
                       size_t len)
{
    if (mode == EXTENDED)
        flags |= NBDX_CMD_FLAG_PAYLOAD_LEN;
    command_send(fd, mode, NBDX_CMD_WRITE, flags, offset + 1, offset, len);
    client_send(fd, p, len);
    answer_expect(fd, mode, NBDX_CMD_WRITE, offset + 1, 0);
}

/* Collects a read's reply; *holes counts its hole chunks. */
static void read_data(int fd, enum mode mode, unsigned flags, uint64_t offset, size_t len,
                      unsigned *holes)
{
    size_t seen = 0;
    memset(got, 0xee, len);
    command_send(fd, mode, NBDX_CMD_READ, flags, 77, offset, len);
    if (mode == SIMPLE) {
        simple_expect(fd, 77, 0);
        client_recv(fd, got, len);
        return;
    }
    for (bool done = false; !done;) {
        struct be16 type;
        char head[8]; /* the type is in the same place in both dialects */
        ssize_t n;
        while ((n = recv(fd, head, sizeof(head), MSG_PEEK | MSG_WAITALL)) < 0 && errno == EINTR)
            ;
        assert_int_equal(n, sizeof(head));
        memcpy(&type, head + 6, sizeof(type));
        bool hole = be16_get(type) == NBDX_REPLY_TYPE_OFFSET_HOLE;
        struct chunk k = chunk_expect(fd, mode, be16_get(type), hole ? 12 : 8);
        uint64_t at = head_u64(&k, 0), size = hole ? head_u32(&k, 8) : k.length - 8;
        assert_true(k.cookie == 77 && at >= offset && at + size <= offset + len);
        if (hole)
            memset(got + (at - offset), 0, size);
        else
            client_recv(fd, got + (at - offset), size);
        if (holes)
            *holes += hole;
        seen += size;
        done = k.flags & NBDX_REPLY_FLAG_DONE;
    }
    assert_int_equal(seen, len);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static const struct {
        uint64_t offset;
        size_t len;
    } at[] = {{0, 1},
              {4095, 2},
              {511, 5000},
              {8192, 4096},
              {70001, 200003},
              {65536, 1 << 20},
              {12345, (1 << 20) + 1},
              {1, (5 << 20) + 7},
              {0, FIXTURE_SIZE}};
    each_mode(m)
    {
        int fd = client_ready(*m);
        for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
            fill(data, at[i].len, i + *m);
            write_data(fd, *m, 0, at[i].offset, data, at[i].len);
            read_data(fd, *m, 0, at[i].offset, at[i].len, NULL);
            assert_memory_equal(got, data, at[i].len);
        }
        client_leave(fd, *m);
    }
}

static void lengths_of_zero_succeed_without_effect(void **state)
{
    (void)state;
    static const unsigned commands[] = {NBDX_CMD_READ, NBDX_CMD_WRITE, NBDX_CMD_TRIM,
                                        NBDX_CMD_WRITE_ZEROES};
    each_mode(m)
    {
        int fd = client_ready(*m);
        for (unsigned i = 0; i < 4; i++) {
            command_send(fd, *m, commands[i], 0, i, 0, 0);
            answer_expect(fd, *m, commands[i], i, 0);
        }
        client_leave(fd, *m);
    }
    assert_int_equal(fx.volume.writes + fx.volume.discards + fx.volume.zeros, 0);
}

static void fua_is_accepted_on_every_command_and_reaches_the_volume(void **state)
{
    (void)state;
    static const unsigned commands[] = {NBDX_CMD_READ,         NBDX_CMD_FLUSH,
                                        NBDX_CMD_TRIM,         NBDX_CMD_CACHE,
                                        NBDX_CMD_WRITE_ZEROES, NBDX_CMD_BLOCK_STATUS};
    each_mode(m)
    {
        unsigned before = fx.volume.fua;
        int fd = client_ready(*m);
        fill(data, 512, 1);
        write_data(fd, *m, NBDX_CMD_FLAG_FUA, 0, data, 512);
        for (unsigned i = 1; i < 5; i++) {
            command_send(fd, *m, commands[i], NBDX_CMD_FLAG_FUA, i, 0, 4096);
            answer_expect(fd, *m, commands[i], i, 0);
        }
        read_data(fd, *m, NBDX_CMD_FLAG_FUA, 0, 512, NULL);
        if (*m != SIMPLE) {
            command_send(fd, *m, NBDX_CMD_BLOCK_STATUS, NBDX_CMD_FLAG_FUA, 9, 0, 4096);
            struct chunk k = chunk_expect(fd, *m,
                                          *m == EXTENDED ? NBDX_REPLY_TYPE_BLOCK_STATUS_EXT
                                                         : NBDX_REPLY_TYPE_BLOCK_STATUS,
                                          4);
            client_recv(fd, got, k.length - 4);
        }
        client_leave(fd, *m);
        assert_int_equal(fx.volume.fua - before, 3); /* write, trim, zeroes */
    }
}

/* ---- errors -------------------------------------------------------------------------------- */

struct refusal {
    unsigned command, flags;
    uint64_t offset, len;
    uint32_t error;
};

static void refused(int fd, enum mode mode, const struct refusal *r, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned flags = r[i].flags;
        if (mode == EXTENDED && r[i].command == NBDX_CMD_WRITE)
            flags |= NBDX_CMD_FLAG_PAYLOAD_LEN;
        command_send(fd, mode, r[i].command, flags, 1000 + i, r[i].offset, r[i].len);
        if (r[i].command == NBDX_CMD_WRITE)
            client_send(fd, data, r[i].len);
        answer_expect(fd, mode, r[i].command, 1000 + i, r[i].error);
    }
}

static void requests_beyond_the_end_get_the_right_error(void **state)
{
    (void)state;
    const uint64_t end = FIXTURE_SIZE;
    const struct refusal r[] = {
        {NBDX_CMD_READ, 0, end, 1, NBDX_EINVAL},
        {NBDX_CMD_READ, 0, end - 1, 2, NBDX_EINVAL},
        {NBDX_CMD_READ, 0, UINT64_MAX, 2, NBDX_EINVAL},
        {NBDX_CMD_WRITE, 0, end, 1, NBDX_ENOSPC},
        {NBDX_CMD_WRITE, 0, end - 1, 512, NBDX_ENOSPC},
        {NBDX_CMD_WRITE, 0, UINT64_MAX - 3, 512, NBDX_ENOSPC},
        {NBDX_CMD_TRIM, 0, end, 4096, NBDX_EINVAL},
        {NBDX_CMD_WRITE_ZEROES, 0, end - 1, 4096, NBDX_ENOSPC},
        {NBDX_CMD_CACHE, 0, end, 1, NBDX_EINVAL},
    };
    each_mode(m)
    {
        int fd = client_ready(*m);
        refused(fd, *m, r, sizeof(r) / sizeof(r[0]));
        if (*m != SIMPLE)
            refused(fd, *m, &(struct refusal){NBDX_CMD_BLOCK_STATUS, 0, end, 1, NBDX_EINVAL}, 1);
        client_leave(fd, *m);
    }
}

static void unknown_commands_and_flags_are_invalid(void **state)
{
    (void)state;
    const struct refusal r[] = {
        {8, 0, 0, 0, NBDX_EINVAL},
        {0xffff, 0, 0, 512, NBDX_EINVAL},
        {NBDX_CMD_READ, NBDX_CMD_FLAG_NO_HOLE, 0, 1, NBDX_EINVAL},
        {NBDX_CMD_READ, 0x8000, 0, 1, NBDX_EINVAL},
        {NBDX_CMD_WRITE, NBDX_CMD_FLAG_DF, 0, 512, NBDX_EINVAL},
        {NBDX_CMD_FLUSH, NBDX_CMD_FLAG_REQ_ONE, 0, 0, NBDX_EINVAL},
        {NBDX_CMD_TRIM, NBDX_CMD_FLAG_FAST_ZERO, 0, 1, NBDX_EINVAL},
    };
    each_mode(m)
    {
        int fd = client_ready(*m);
        refused(fd, *m, r, sizeof(r) / sizeof(r[0]));
        client_leave(fd, *m);
    }
    int fd = client_ready(SIMPLE);
    const struct refusal simple[] = {
        {NBDX_CMD_READ, NBDX_CMD_FLAG_DF, 0, 1, NBDX_EINVAL},
        {NBDX_CMD_WRITE, NBDX_CMD_FLAG_PAYLOAD_LEN, 0, 512, NBDX_EINVAL},
        {NBDX_CMD_BLOCK_STATUS, 0, 0, 4096, NBDX_EINVAL},
    };
    refused(fd, SIMPLE, simple, 3);
    client_leave(fd, SIMPLE);
}

static void a_read_only_export_refuses_changes(void **state)
{
    (void)state;
    const struct refusal r[] = {
        {NBDX_CMD_WRITE, 0, 0, 512, NBDX_EPERM},
        {NBDX_CMD_TRIM, 0, 0, 512, NBDX_EPERM},
        {NBDX_CMD_WRITE_ZEROES, 0, 0, 512, NBDX_EPERM},
        {NBDX_CMD_FLUSH, 0, 0, 0, 0},
    };
    fx.exports[0].read_only = true;
    each_mode(m)
    {
        int fd = client_ready(*m);
        refused(fd, *m, r, 4);
        read_data(fd, *m, 0, 0, 512, NULL);
        client_leave(fd, *m);
    }
    assert_int_equal(fx.volume.writes + fx.volume.discards, 0);
}

static void errors_of_the_volume_reach_the_client_and_never_as_enomem(void **state)
{
    (void)state;
    static const struct {
        int rc;
        uint32_t error;
    } map[] = {{VP_E_NO_SPACE, NBDX_ENOSPC},    {VP_E_READ_ONLY, NBDX_EPERM},
               {VP_E_CHECKSUM, NBDX_EIO},       {VP_E_NO_MEMORY, NBDX_EIO},
               {VP_E_SHUTDOWN, NBDX_ESHUTDOWN}, {VP_E_NOT_SUPPORTED, NBDX_ENOTSUP},
               {VP_E_POOL_FENCED, NBDX_EIO},    {VP_E_AGAIN, NBDX_EIO}};
    each_mode(m)
    {
        int fd = client_ready(*m);
        for (unsigned i = 0; i < sizeof(map) / sizeof(map[0]); i++) {
            const struct refusal r[] = {{NBDX_CMD_READ, 0, 0, 512, map[i].error},
                                        {NBDX_CMD_READ, 0, 0, 1 << 17, map[i].error},
                                        {NBDX_CMD_WRITE, 0, 0, 512, map[i].error},
                                        {NBDX_CMD_WRITE, 0, 0, 3 << 20, map[i].error},
                                        {NBDX_CMD_FLUSH, 0, 0, 0, map[i].error}};
            fx.volume.fail = map[i].rc;
            refused(fd, *m, r, 5);
        }
        fx.volume.fail = 0;
        client_leave(fd, *m);
    }
}

static void a_large_simple_read_that_fails_half_way_is_hung_up_on(void **state)
{
    (void)state;
    int fd = client_ready(SIMPLE);
    fx.volume.hold = true;
    command_send(fd, SIMPLE, NBDX_CMD_READ, 0, 4, 0, 6 << 20);
    wait_for(fx.volume.held == 1);
    fx.volume.hold = false; /* the first piece waits on; later ones fail */
    fx.volume.fail = 0;
    assert_int_equal(reactor_call_blocking(fx.reactor, fake_release_here, &fx.volume), 0);
    simple_expect(fd, 4, 0);
    client_recv(fd, got, 1 << 20);
    fx.volume.fail = VP_E_IO;
    ssize_t n;
    while ((n = client_recv_some(fd, got, sizeof(got))) > 0)
        ;
    close(fd);
    wait_for(fx.serving == 0);
}

static void fast_zero_is_refused_where_space_must_be_allocated(void **state)
{
    (void)state;
    const struct refusal r[] = {
        {NBDX_CMD_WRITE_ZEROES, NBDX_CMD_FLAG_FAST_ZERO | NBDX_CMD_FLAG_NO_HOLE, 0, 4096,
         NBDX_ENOTSUP},
        {NBDX_CMD_WRITE_ZEROES, NBDX_CMD_FLAG_FAST_ZERO, 0, 4096, 0},
        {NBDX_CMD_WRITE_ZEROES, NBDX_CMD_FLAG_NO_HOLE, 0, 4096, 0},
    };
    int fd = client_ready(EXTENDED);
    refused(fd, EXTENDED, r, 3);
    client_leave(fd, EXTENDED);
    assert_int_equal(fx.volume.zeros, 2);
    assert_int_equal(fx.volume.no_hole, 1);
}

static void a_write_longer_than_the_limit_is_skipped_or_hung_up_on(void **state)
{
    (void)state;
    int fd = client_ready(SIMPLE);
    command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, 1, 0, 9 << 20); /* beyond the end: skipped */
    client_send(fd, data, 9 << 20);
    simple_expect(fd, 1, NBDX_ENOSPC);
    command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, 1, 0, (64 << 20) + 1);
    client_expect_end(fd);
}

static void payload_where_none_belongs_is_swallowed(void **state)
{
    (void)state;
    int fd = client_ready(EXTENDED);
    command_send(fd, EXTENDED, NBDX_CMD_TRIM, NBDX_CMD_FLAG_PAYLOAD_LEN, 1, 0, 5000);
    client_send(fd, data, 5000);
    answer_expect(fd, EXTENDED, NBDX_CMD_TRIM, 1, NBDX_EINVAL);
    command_send(fd, EXTENDED, NBDX_CMD_BLOCK_STATUS, NBDX_CMD_FLAG_PAYLOAD_LEN, 2, 0, 12);
    client_send(fd, data, 12);
    answer_expect(fd, EXTENDED, NBDX_CMD_BLOCK_STATUS, 2, NBDX_EINVAL);
    client_leave(fd, EXTENDED);
}

static void a_wrong_request_magic_is_hung_up_on(void **state)
{
    (void)state;
    int fd = client_ready(SIMPLE);
    command_send(fd, EXTENDED, NBDX_CMD_FLUSH, 0, 1, 0, 0);
    client_expect_end(fd);
    wait_for(fx.serving == 0);
    assert_int_equal(fx.rc, VP_E_NBD_PROTOCOL);
}

/* ---- holes --------------------------------------------------------------------------------- */

static void large_structured_reads_name_holes(void **state)
{
    (void)state;
    int fd = client_ready(STRUCTURED);
    fill(data, 8192, 3);
    write_data(fd, STRUCTURED, 0, 128 << 10, data, 8192);
    unsigned holes = 0;
    read_data(fd, STRUCTURED, 0, 0, 2 << 20, &holes);
    assert_int_equal(holes, 3); /* before, behind, and the second MiB */
    assert_memory_equal(got + (128 << 10), data, 8192);
    assert_true(bytes_are_zero(got, 128 << 10));
    holes = 0;
    read_data(fd, STRUCTURED, NBDX_CMD_FLAG_DF, 0, 1 << 20, &holes);
    assert_int_equal(holes, 0);
    refused(fd, STRUCTURED,
            &(struct refusal){NBDX_CMD_READ, NBDX_CMD_FLAG_DF, 0, 2 << 20, NBDX_EOVERFLOW}, 1);
    client_leave(fd, STRUCTURED);
}

static void many_holes_are_bounded_and_still_read_right(void **state)
{
    (void)state;
    int fd = client_ready(EXTENDED);
    for (unsigned i = 0; i < 100; i++) {
        fill(data, 4096, i);
        write_data(fd, EXTENDED, 0, i * 8192, data, 4096);
    }
    read_data(fd, EXTENDED, 0, 0, 1 << 20, NULL);
    for (unsigned i = 0; i < 100; i++) {
        fill(data, 4096, i);
        assert_memory_equal(got + i * 8192, data, 4096);
        assert_true(bytes_are_zero(got + i * 8192 + 4096, 4096));
    }
    client_leave(fd, EXTENDED);
}

static void block_status_tells_holes_in_both_dialects(void **state)
{
    (void)state;
    memset(fx.volume.valid + 2, 1, 3);
    for (const enum mode *m = modes + 1; m < modes + 3; m++) {
        bool ext = *m == EXTENDED;
        unsigned head = ext ? 8 : 4, each = ext ? 16 : 8;
        int fd = client_ready(*m);
        command_send(fd, *m, NBDX_CMD_BLOCK_STATUS, 0, 3, 0, 10 * 4096);
        struct chunk k = chunk_expect(
            fd, *m, ext ? NBDX_REPLY_TYPE_BLOCK_STATUS_EXT : NBDX_REPLY_TYPE_BLOCK_STATUS, head);
        assert_int_equal(head_u32(&k, 0), NBDX_META_ID_ALLOCATION);
        assert_int_equal(k.length, head + 3 * each);
        static const uint32_t want[3][2] = {{8192, 3}, {3 * 4096, 0}, {5 * 4096, 3}};
        for (unsigned i = 0; i < 3; i++) {
            client_recv(fd, got, each);
            assert_int_equal(ext ? be64_get(((struct nbdx_descriptor_ext *)got)->length)
                                 : be32_get(((struct nbdx_descriptor *)got)->length),
                             want[i][0]);
            assert_int_equal(ext ? be64_get(((struct nbdx_descriptor_ext *)got)->state)
                                 : be32_get(((struct nbdx_descriptor *)got)->state),
                             want[i][1]);
        }
        command_send(fd, *m, NBDX_CMD_BLOCK_STATUS, NBDX_CMD_FLAG_REQ_ONE, 3, 4096, 10 * 4096);
        k = chunk_expect(fd, *m, k.type, head);
        assert_int_equal(k.length, head + each);
        client_recv(fd, got, each);
        refused(fd, *m, &(struct refusal){NBDX_CMD_BLOCK_STATUS, 0, 0, 0, NBDX_EINVAL}, 1);
        client_leave(fd, *m);
    }
}

/* ---- order and limits ------------------------------------------------------------------------ */

static void answers_overtake_a_request_that_waits(void **state)
{
    (void)state;
    int fd = client_ready(SIMPLE);
    fx.volume.hold = true;
    command_send(fd, SIMPLE, NBDX_CMD_READ, 0, 1, 0, 512);
    wait_for(fx.volume.held == 1);
    command_send(fd, SIMPLE, NBDX_CMD_CACHE, 0, 2, 0, 512);
    simple_expect(fd, 2, 0);
    assert_int_equal(reactor_call_blocking(fx.reactor, fake_release_here, &fx.volume), 0);
    simple_expect(fd, 1, 0);
    client_recv(fd, got, 512);
    client_leave(fd, SIMPLE);
}

static void a_thousand_requests_at_once_are_all_answered(void **state)
{
    (void)state;
    fx.limits.requests = 8;
    int fd = client_ready(SIMPLE);
    /* Sent at once. Many small messages fill the socket's buffer while nobody reads the answers. */
    unsigned char commands[1000 * sizeof(struct nbdx_request_compact)];
    size_t bytes = 0;
    for (unsigned i = 0; i < 1000; i++)
        bytes += command_bytes(commands + bytes, SIMPLE, NBDX_CMD_READ, 0, i, i * 8, 16);
    client_send(fd, commands, bytes);
    bool seen[1000] = {0};
    for (unsigned i = 0; i < 1000; i++) {
        struct nbdx_simple_reply r;
        client_recv(fd, &r, sizeof(r));
        assert_true(be32_get(r.magic) == NBDX_SIMPLE_REPLY_MAGIC && be64_get(r.cookie) < 1000);
        assert_false(seen[be64_get(r.cookie)]);
        seen[be64_get(r.cookie)] = true;
        client_recv(fd, got, 16);
    }
    client_leave(fd, SIMPLE);
}

static void large_simple_reads_do_not_mix(void **state)
{
    (void)state;
    fill(fx.volume.data, FIXTURE_SIZE, 9);
    int fd = client_ready(SIMPLE);
    for (unsigned i = 0; i < 6; i++)
        command_send(fd, SIMPLE, NBDX_CMD_READ, 0, i, i * 1000, (3 << 20) + i);
    for (unsigned i = 0; i < 6; i++) {
        struct nbdx_simple_reply r;
        client_recv(fd, &r, sizeof(r));
        assert_int_equal(be32_get(r.magic), NBDX_SIMPLE_REPLY_MAGIC);
        uint64_t n = be64_get(r.cookie);
        client_recv(fd, got, (3 << 20) + n);
        assert_memory_equal(got, fx.volume.data + n * 1000, (3 << 20) + n);
    }
    client_leave(fd, SIMPLE);
}

static void what_was_asked_before_disc_is_still_answered(void **state)
{
    (void)state;
    int fd = client_ready(SIMPLE);
    fx.volume.hold = true;
    command_send(fd, SIMPLE, NBDX_CMD_FLUSH, 0, 1, 0, 0);
    command_send(fd, SIMPLE, NBDX_CMD_DISC, 0, 2, 0, 0);
    wait_for(fx.volume.held == 1);
    assert_int_equal(reactor_call_blocking(fx.reactor, fake_release_here, &fx.volume), 0);
    simple_expect(fd, 1, 0);
    client_expect_end(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        nbd_test(what_is_written_is_read_back),
        nbd_test(lengths_of_zero_succeed_without_effect),
        nbd_test(fua_is_accepted_on_every_command_and_reaches_the_volume),
        nbd_test(requests_beyond_the_end_get_the_right_error),
        nbd_test(unknown_commands_and_flags_are_invalid),
        nbd_test(a_read_only_export_refuses_changes),
        nbd_test(errors_of_the_volume_reach_the_client_and_never_as_enomem),
        nbd_test(a_large_simple_read_that_fails_half_way_is_hung_up_on),
        nbd_test(fast_zero_is_refused_where_space_must_be_allocated),
        nbd_test(a_write_longer_than_the_limit_is_skipped_or_hung_up_on),
        nbd_test(payload_where_none_belongs_is_swallowed),
        nbd_test(a_wrong_request_magic_is_hung_up_on),
        nbd_test(large_structured_reads_name_holes),
        nbd_test(many_holes_are_bounded_and_still_read_right),
        nbd_test(block_status_tells_holes_in_both_dialects),
        nbd_test(answers_overtake_a_request_that_waits),
        nbd_test(a_thousand_requests_at_once_are_all_answered),
        nbd_test(large_simple_reads_do_not_mix),
        nbd_test(what_was_asked_before_disc_is_still_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
