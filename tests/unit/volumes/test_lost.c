/* A disk that fails a flush: who has a mirror goes on, who has not is told. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LEN = 1 << 20 };
static uint8_t data[LEN] __attribute__((aligned(4096)));

CO static struct volume *mirrored(struct sim_volumes *s)
{
    struct volume_options o = {.size_bytes = LEN, .has_profile = true};
    struct vp_error err;
    (void)raid_profile_parse("mirror", &o.profile);
    check_ok(volume_create(s->vs, "safe", &o, &err));
    return sim_volumes_open(s, "safe");
}

CO static void fail_a_flush(struct sim_volumes *s)
{
    struct volume *alone = sim_volumes_volume(s, "alone", LEN), *safe = mirrored(s);
    if (!alone || !safe)
        return;
    check_ok(volume_write(alone, 0, LEN, data, 0));
    check_ok(volume_write(safe, 0, LEN, data, 0));
    check_ok(volume_flush(safe));
    check_ok(volume_flush(alone));

    check_ok(volume_write(alone, 0, LEN, data, 0));
    check_ok(volume_write(safe, 0, LEN, data, 0));
    sim_disk_inject(sim_disk_find(s->world, "d1"), SIM_FAULT_ERROR, 1 << IO_FLUSH, 0, 0);
    check_ok(volume_flush(safe)); /* meets the failure; its data are on d0 too */
    check_equal(volume_flush(alone), VP_E_RAID_NO_COPY);
    check_equal(volume_flush(alone), VP_E_RAID_NO_COPY); /* said for as long as it is true */
    check_ok(volume_flush(safe));
    check_equal(volume_write(safe, 0, 4096, data, VOLUME_FUA), 0);
    check_ok(pool_checkpoint(volumes_pool(s->vs))); /* the pool itself is well */
    volume_close(alone);
    volume_close(safe);
}

static void a_lost_write_without_a_mirror_is_not_acknowledged(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 4});
    sim_volumes_run(s, fail_a_flush);
    sim_volumes_free(s);
    assert_checked();
}

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

int main(void)
{
    vp_log_set_sink(drop_line, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lost_write_without_a_mirror_is_not_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
