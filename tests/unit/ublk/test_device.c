/* Which ublk device of the kernel's may be taken over. The rest of ublk/ needs a kernel:
 * tests/vm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "ublk/target_impl.h"

enum { TAG = 0x1234 };

static struct ublkx_dev_info ours(void)
{
    return (struct ublkx_dev_info){.nr_hw_queues = 4,
                                   .queue_depth = 256,
                                   .max_io_buf_bytes = UBLKX_IO_BYTES_MAX,
                                   .dev_id = 7,
                                   .flags = UBLKX_F_USER_RECOVERY | UBLKX_F_RECOVERY_REISSUE |
                                            UBLKX_F_IOCTL_ENCODE | UBLKX_F_USER_COPY,
                                   .server_flags = TAG,
                                   .owner_uid = geteuid()};
}

static void assert_refused(struct ublkx_dev_info i, const char *why)
{
    struct vp_error err = {0};
    assert_int_equal(ublkx_device_check_ours(&i, TAG, &err), VP_E_EXISTS);
    if (!strstr(err.text, why))
        fail_msg("'%s' is not in '%s'", why, err.text);
}

static void a_device_of_ours_may_be_taken_over(void **state)
{
    (void)state;
    struct ublkx_dev_info i = ours();
    assert_int_equal(ublkx_device_check_ours(&i, TAG, NULL), 0);
    i.flags &= ~UBLKX_F_USER_COPY;
    i.owner_uid = 0;
    assert_int_equal(ublkx_device_check_ours(&i, TAG, NULL), 0);
}

static void the_tag_alone_is_not_enough(void **state)
{
    (void)state;
    struct ublkx_dev_info i = ours();
    i.server_flags++;
    assert_refused(i, "tag");
    i = ours();
    i.flags &= ~UBLKX_F_USER_RECOVERY;
    assert_refused(i, "flags");
    i = ours();
    i.flags &= ~UBLKX_F_RECOVERY_REISSUE;
    assert_refused(i, "flags");
    i = ours();
    i.flags |= UBLKX_F_AUTO_BUF_REG;
    assert_refused(i, "flags");
    i = ours();
    i.flags |= UBLKX_F_UNPRIVILEGED_DEV;
    assert_refused(i, "another user");
    i = ours();
    i.owner_uid = geteuid() + 1;
    assert_refused(i, "another user");
}

static void limits_are_those_of_our_own_devices(void **state)
{
    (void)state;
    static const struct {
        uint16_t queues, depth;
        uint32_t bytes;
    } bad[] = {{0, 64, 4096},
               {17, 1, 4096},
               {1, 0, 4096},
               {1, 1025, 4096},
               {16, 65, 4096},
               {1, 64, 0},
               {1, 64, UBLKX_IO_BYTES_MAX + 4096}};
    for (unsigned n = 0; n < sizeof(bad) / sizeof(bad[0]); n++) {
        struct ublkx_dev_info i = ours();
        i.nr_hw_queues = bad[n].queues;
        i.queue_depth = bad[n].depth;
        i.max_io_buf_bytes = bad[n].bytes;
        assert_refused(i, "queues, depth or request size");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_of_ours_may_be_taken_over),
        cmocka_unit_test(the_tag_alone_is_not_enough),
        cmocka_unit_test(limits_are_those_of_our_own_devices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
