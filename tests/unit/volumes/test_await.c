/* Clients of a volume that has not arrived: what they are told, and that they stay. */
#include "tests/lib/failing_malloc.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "volumes/front.h"
#include "volumes/volumes_impl.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)
enum { BLOCK = 4096 };

static uint8_t data[BLOCK] __attribute__((aligned(4096)));
static uint8_t seen[BLOCK] __attribute__((aligned(4096)));
static bool read_only; /* the volume is, for its clients */

static const struct volume_move move = {
    .id = {{1, 2}}, .pool = {{3, 4}}, .volume = "far/v", .peer = "host"};

static void play(void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 1});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

/* The target, open for its move, with clients that may wait. */
static CO struct volume *target(struct sim_volumes *s, struct front **way)
{
    struct volume_info info = {.uuid = {{9, 8, 7}},
                               .created_seconds = 77,
                               .options = {.size_bytes = MIB(1) + 512,
                                           .has_profile = true,
                                           .sector_bytes = 512,
                                           .read_only = read_only}};
    struct vp_error err = {0};
    struct volume *v = NULL;
    check(raid_profile_parse("single", &info.options.profile));
    check_ok(volume_target_create(s->vs, "t", &info, 7, &move, &err));
    check(!volume_is_awaited(s->vs, "t"));
    check_ok(volume_open_to_move(s->vs, "t", NULL, &v, &err));
    check_ok(volume_await_begin(v, way));
    check(volume_is_awaited(s->vs, "t"));
    return v;
}

static CO struct volume *client_opens(struct sim_volumes *s, struct front_client *client)
{
    struct vp_error err = {0};
    struct volume *v = NULL;
    if (check_ok(volume_open(s->vs, "t", true, &v, &err)))
        front_client_init(client, volume_front(v));
    return v;
}

static CO void moves_in(struct front *way)
{
    struct front_client mover;
    front_client_init(&mover, way);
    memset(data, 0x5a, sizeof(data));
    check_ok(front_write(&mover, BLOCK, BLOCK, data, 0));
    check_ok(front_flush(&mover));
    check_ok(front_read(&mover, BLOCK, BLOCK, seen));
    check(memcmp(seen, data, BLOCK) == 0);
}

static CO void check_refused(struct front_client *client)
{
    struct volume_extent extent;
    unsigned n;
    memset(seen, 1, sizeof(seen));
    check_equal(front_read(client, 0, BLOCK, seen), VP_E_VOLUME_AWAITED);
    check_equal(front_write(client, BLOCK, BLOCK, seen, VOLUME_FUA), VP_E_VOLUME_AWAITED);
    check_equal(front_discard(client, 0, BLOCK, 0), VP_E_VOLUME_AWAITED);
    check_equal(front_zero(client, 0, BLOCK, 0), VP_E_VOLUME_AWAITED);
    check_equal(front_extents(client, 0, BLOCK, &extent, 1, &n), VP_E_VOLUME_AWAITED);
    check_ok(front_flush(client));
    check_equal(vp_err_class(VP_E_VOLUME_AWAITED), EPERM);
}

static CO void arrive(struct sim_volumes *s, struct volume *v, struct front *way)
{
    bool in_doubt;
    check_ok(volume_arrive(s->vs, "t", NULL, &in_doubt));
    volume_await_end(v, way, true);
    check(!volume_is_awaited(s->vs, "t"));
}

/* ---- tests ---------------------------------------------------------------------------------- */

static CO void body_arrives(struct sim_volumes *s)
{
    struct front *way;
    struct front_client early, late;
    struct volume *v = target(s, &way), *w = client_opens(s, &early);
    if (!v || !w)
        return;
    check_equal(front_size(volume_front(w)), MIB(1) + 512);
    check_equal(front_sector_bytes(volume_front(w)), 512);
    check(front_is_read_only(volume_front(w)) == read_only);
    check_refused(&early);
    moves_in(way);
    check_refused(&early);
    arrive(s, v, way);
    check_ok(front_read(&early, BLOCK, BLOCK, seen)); /* the same client */
    check(memcmp(seen, data, BLOCK) == 0);
    check_equal(front_write(&early, 0, BLOCK, data, 0), read_only ? VP_E_READ_ONLY : 0);
    volume_close(v);
    struct volume *x = client_opens(s, &late);
    if (!x)
        return;
    check_ok(front_read(&late, BLOCK, BLOCK, seen));
    check(memcmp(seen, data, BLOCK) == 0);
    check(front_is_read_only(volume_front(x)) == read_only);
    volume_close(x);
    volume_close(w);
}
static void a_client_that_waited_is_served_when_the_volume_has_arrived(void **state)
{
    (void)state;
    read_only = false;
    play(body_arrives);
}
static void a_client_of_a_read_only_volume_is_told_so_before_it_arrives(void **state)
{
    (void)state;
    read_only = true;
    play(body_arrives);
}

static CO void body_never(struct sim_volumes *s)
{
    struct front *way;
    struct front_client client;
    struct vp_error err = {0};
    struct volume *v = target(s, &way), *w = client_opens(s, &client);
    if (!v || !w)
        return;
    moves_in(way);
    check_refused(&client);
    volume_close(w);
    volume_await_end(v, way, false);
    check_equal(volume_open(s->vs, "t", true, &w, &err), VP_E_VOLUME_MOVING);
    volume_close(v);
    check_ok(volume_target_delete(s->vs, "t", &err));
    check(!volume_is_awaited(s->vs, "t"));
}
static void a_volume_that_never_arrives_leaves_nothing(void **state)
{
    (void)state;
    read_only = false;
    play(body_never);
}

static CO void body_no_memory(struct sim_volumes *s)
{
    struct volume_info info = {
        .uuid = {{9, 8, 7}},
        .options = {.size_bytes = MIB(1), .has_profile = true, .sector_bytes = 512}};
    struct vp_error err = {0};
    struct volume *v = NULL;
    struct front *way;
    check(raid_profile_parse("single", &info.options.profile));
    check_ok(volume_target_create(s->vs, "t", &info, 7, &move, &err));
    if (!check_ok(volume_open_to_move(s->vs, "t", NULL, &v, &err)))
        return;
    fail_in = 0;
    int rc = volume_await_begin(v, &way);
    fail_in = -1;
    check_equal(rc, VP_E_NO_MEMORY);
    check(!volume_is_awaited(s->vs, "t"));
    struct front_client mover; /* the target is as it was */
    front_client_init(&mover, volume_front(v));
    check_ok(front_write(&mover, 0, BLOCK, data, 0));
    volume_close(v);
}
static void without_memory_nothing_has_changed(void **state)
{
    (void)state;
    play(body_no_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_client_that_waited_is_served_when_the_volume_has_arrived),
        cmocka_unit_test(a_client_of_a_read_only_volume_is_told_so_before_it_arrives),
        cmocka_unit_test(a_volume_that_never_arrives_leaves_nothing),
        cmocka_unit_test(without_memory_nothing_has_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
