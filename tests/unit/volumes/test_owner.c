/* The record of who owns a volume: bytes, changes, and who may open it. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)

static struct volume_record sample(enum volume_ownership ownership, uint64_t epoch)
{
    struct volume_record r = {
        .name = "vol",
        .uuid = {{1, 2, 3}},
        .created_seconds = 77,
        .options = {.size_bytes = MIB(1), .sector_bytes = 512},
        .owner = {.ownership = ownership, .epoch = epoch},
    };
    assert_true(raid_profile_parse("mirror:2", &r.options.profile));
    r.options.has_profile = true;
    if (ownership != VOLUME_OWNER)
        r.owner.move = (struct volume_move){.id = {{4, 5}},
                                            .pool = {{6, 7}},
                                            .volume = "other-pool/other.volume",
                                            .peer = "tcp:host:4711"};
    return r;
}

/* ---- bytes -------------------------------------------------------------------------------- */

static void a_volume_that_never_moved_has_the_record_of_older_releases(void **state)
{
    (void)state;
    struct volume_record r = sample(VOLUME_OWNER, 1), back;
    uint8_t bytes[VOLUME_RECORD_BYTES_MAX];
    size_t len = volume_record_encode(&r, bytes);
    assert_int_equal(len, sizeof(struct volume_record_disk) + strlen("vol"));
    assert_int_equal(bytes[0], VOLUME_RECORD_VERSION);
    assert_int_equal(volume_record_decode(bytes, len, &back), 0);
    assert_int_equal(back.owner.ownership, VOLUME_OWNER);
    assert_int_equal(back.owner.epoch, 1);
}

static void each_ownership_survives_its_record(void **state)
{
    (void)state;
    static const uint64_t epochs[] = {1, 2, UINT64_MAX / 2};
    for (unsigned o = VOLUME_OWNER; o <= VOLUME_SUPERSEDED; o++)
        for (size_t e = 0; e < sizeof(epochs) / sizeof(epochs[0]); e++) {
            struct volume_record r = sample((enum volume_ownership)o, epochs[e]), back;
            uint8_t bytes[VOLUME_RECORD_BYTES_MAX];
            size_t len = volume_record_encode(&r, bytes);
            assert_int_equal(volume_record_decode(bytes, len, &back), 0);
            assert_string_equal(back.name, "vol");
            assert_int_equal(back.options.size_bytes, MIB(1));
            assert_int_equal(back.owner.ownership, o);
            assert_int_equal(back.owner.epoch, epochs[e]);
            assert_memory_equal(&back.owner.move, &r.owner.move, sizeof(r.owner.move));
        }
}

static void the_longest_names_fit(void **state)
{
    (void)state;
    struct volume_record r = sample(VOLUME_TARGET, 9), back;
    uint8_t bytes[VOLUME_RECORD_BYTES_MAX];
    memset(r.name, 'n', VOLUME_NAME_MAX);
    memset(r.owner.move.volume, 'p', VOLUME_FULL_NAME_MAX);
    r.owner.move.volume[POOL_NAME_MAX] = '/';
    memset(r.owner.move.peer, 'h', VOLUME_PEER_MAX);
    size_t len = volume_record_encode(&r, bytes);
    assert_int_equal(len, sizeof(bytes));
    assert_int_equal(volume_record_decode(bytes, len, &back), 0);
    assert_string_equal(back.owner.move.volume, r.owner.move.volume);
    assert_string_equal(back.owner.move.peer, r.owner.move.peer);
}

static void records_with_another_ownership_are_refused(void **state)
{
    (void)state;
    struct volume_record r = sample(VOLUME_INTENT, 5), back;
    r.owner.move.peer[0] = 0;
    uint8_t bytes[VOLUME_RECORD_BYTES_MAX];
    size_t len = volume_record_encode(&r, bytes), owner = sizeof(struct volume_record_disk);
    static const struct {
        size_t at;
        uint8_t value;
    } wrong[] = {
        {8, 0},   /* ownership */
        {8, 1},   /* … an owner with another side */
        {8, 6},   /* … a newer release's */
        {9, 0},   /* no other side */
        {9, 200}, /* a longer one than the record */
        {10, 1},  /* … the same for the other daemon */
        {0, 0},   /* epoch 0 */
        {7, 255}, /* … one that could overflow */
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint8_t broken[VOLUME_RECORD_BYTES_MAX];
        memcpy(broken, bytes, len);
        broken[owner + wrong[i].at] = wrong[i].value;
        assert_int_equal(volume_record_decode(broken, len, &back), VP_E_RECORD_BAD);
    }
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(volume_record_decode(bytes, cut, &back), VP_E_RECORD_BAD);
    bytes[len - 1] = '\033'; /* a name with an escape */
    assert_int_equal(volume_record_decode(bytes, len, &back), VP_E_RECORD_BAD);
    bytes[len - 1] = 'e';
    bytes[len - strlen("/other.volume") - 1] = 0xff; /* the same for the pool's */
    assert_int_equal(volume_record_decode(bytes, len, &back), VP_E_RECORD_BAD);
    bytes[len - strlen("/other.volume")] = '.'; /* not "POOL/VOL" */
    assert_int_equal(volume_record_decode(bytes, len, &back), VP_E_RECORD_BAD);
}

/* "01 02 …" */
static void assert_bytes(const void *bytes, size_t len, const char *hex)
{
    char text[3];
    const uint8_t *b = bytes;
    assert_int_equal(strlen(hex), 3 * len);
    for (size_t i = 0; i < len; i++) {
        (void)snprintf(text, sizeof(text), "%02x", b[i]);
        if (memcmp(text, hex + 3 * i, 2) != 0)
            fail_msg("byte %zu is %s", i, text);
    }
}

/* The image of a record: what a release has written, each later one must read. */
#define FIXED_1                                                                                    \
    "02 00 03 00 02 01 01 01 01 02 03 00 00 00 00 00 00 00 00 00 00 00 00 00 "                     \
    "00 00 10 00 00 00 00 00 00 00 00 00 00 00 00 00 4d 00 00 00 00 00 00 00 00 02 00 00 00 00 "   \
    "01 00 "
#define MOVE_OF_SAMPLE                                                                             \
    "04 05 00 00 00 00 00 00 00 00 00 00 00 00 00 00 06 07 00 00 00 00 00 00 00 00 00 00 00 00 "   \
    "00 00 "
#define NAMES_OF_SAMPLE                                                                            \
    "76 6f 6c 6f 74 68 65 72 2d 70 6f 6f 6c 2f 6f 74 68 65 72 2e 76 6f 6c 75 6d 65 74 63 70 3a "   \
    "68 6f 73 74 3a 34 37 31 31 "

static void the_record_of_a_volume_that_moves_has_these_bytes(void **state)
{
    (void)state;
    static const struct {
        enum volume_ownership is;
        const char *hex;
    } images[] = {
        {VOLUME_INTENT,
         FIXED_1 "09 00 00 00 00 00 00 00 02 17 0d 00 00 00 00 00 " MOVE_OF_SAMPLE NAMES_OF_SAMPLE},
        {VOLUME_TARGET,
         FIXED_1 "09 00 00 00 00 00 00 00 03 17 0d 00 00 00 00 00 " MOVE_OF_SAMPLE NAMES_OF_SAMPLE},
        {VOLUME_ARRIVED,
         FIXED_1 "09 00 00 00 00 00 00 00 04 17 0d 00 00 00 00 00 " MOVE_OF_SAMPLE NAMES_OF_SAMPLE},
        {VOLUME_SUPERSEDED,
         FIXED_1 "09 00 00 00 00 00 00 00 05 17 0d 00 00 00 00 00 " MOVE_OF_SAMPLE NAMES_OF_SAMPLE},
        {VOLUME_OWNER, FIXED_1 "09 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 "
                               "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 "
                               "00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 76 6f 6c "},
    };
    for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
        struct volume_record r = sample(images[i].is, 9);
        uint8_t bytes[VOLUME_RECORD_BYTES_MAX];
        r.options.full_policy = VOLUME_FULL_PAUSE;
        assert_bytes(bytes, volume_record_encode(&r, bytes), images[i].hex);
    }
}

static void only_a_move_that_can_be_read_again_is_sound(void **state)
{
    (void)state;
    static const struct {
        const char *volume, *peer;
        bool sound;
    } cases[] = {
        {"p/v", "", true},           {"p/v", "tcp:host:7", true}, {"p/v", "unix:/a path", false},
        {"p/v", "unix:/a\n", false}, {"p v/x", "", false},        {"p", "", false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct volume_move m = {0};
        memcpy(m.volume, cases[i].volume, strlen(cases[i].volume));
        memcpy(m.peer, cases[i].peer, strlen(cases[i].peer));
        assert_int_equal(volume_move_is_sound(&m), cases[i].sound);
    }
}

/* ---- changes ------------------------------------------------------------------------------ */

static const struct volume_move move = {.id = {{1}}, .pool = {{2}}, .volume = "x/y"};

static void play(void (*body)(struct sim_volumes *s), void (*after)(struct sim_volumes *s))
{
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 4});
    sim_volumes_run(s, body);
    if (after) {
        sim_volumes_power_cut(s, 5);
        sim_volumes_run(s, after);
    }
    sim_volumes_free(s);
    assert_checked();
}

static CO void check_is(struct sim_volumes *s, const char *name, enum volume_ownership is,
                        uint64_t epoch, bool in_doubt)
{
    struct volume_owner_info o = {0};
    check_ok(volume_owner_get(s->vs, name, &o));
    check_equal(o.ownership, is);
    check_equal(o.epoch, epoch);
    check_equal(o.in_doubt, in_doubt);
}

static CO int open_rc(struct sim_volumes *s, const char *name)
{
    struct volume *v;
    struct vp_error err = {0};
    int rc = volume_open(s->vs, name, false, &v, &err);
    if (rc == 0)
        volume_close(v);
    return rc;
}

static CO void intends(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *a = sim_volumes_volume(s, "a", MIB(1));
    struct volume *b = sim_volumes_volume(s, "b", MIB(1));
    check_equal(volume_intent_end(s->vs, "a", 0, &err), VP_E_INVALID);
    check_equal(volume_leave_begin(a, "b", &move, &err), VP_E_NOT_FOUND);
    check_ok(volume_leave_begin(a, "a", &move, &err));
    check_equal(volume_leave_begin(a, "a", &move, &err), VP_E_VOLUME_MOVING);
    check_is(s, "a", VOLUME_INTENT, 1, false); /* for everybody, but not for the record */
    check_equal(volume_resize(s->vs, "a", MIB(2), false, &err), VP_E_VOLUME_MOVING);
    volume_leave_end(a);
    check_is(s, "a", VOLUME_OWNER, 1, false);
    check_ok(volume_leave_begin(a, "a", &move, &err));
    check_ok(volume_intent_begin(a, &err));
    check_is(s, "a", VOLUME_INTENT, 1, false);
    check_ok(open_rc(s, "a")); /* its move is at work */
    volume_intent_switches(a, true);
    check_equal(open_rc(s, "a"), VP_E_VOLUME_MOVING);
    volume_intent_switches(a, false);
    check_ok(open_rc(s, "a"));
    check_ok(volume_leave_begin(b, "b", &move, &err));
    check_ok(volume_intent_begin(b, &err));
    check_ok(volume_intent_end(s->vs, "b", 0, &err));
    check_is(s, "b", VOLUME_OWNER, 1, false);
    volume_close(a);
    volume_close(b);
}

static CO void is_in_doubt(struct sim_volumes *s)
{
    struct vp_error err = {0};
    check_is(s, "a", VOLUME_INTENT, 1, true);
    check_equal(open_rc(s, "a"), VP_E_VOLUME_MOVING);
    check_ok(open_rc(s, "b"));
    check_ok(volume_intent_end(s->vs, "a", 2, &err));
    check_is(s, "a", VOLUME_OWNER, 3, false);
    check_ok(open_rc(s, "a"));
}

static void an_intent_whose_move_is_gone_is_in_doubt(void **state)
{
    (void)state;
    play(intends, is_in_doubt);
}

static CO struct volume_info source_info(void)
{
    struct volume_info info = {.uuid = {{8}},
                               .created_seconds = 1,
                               .options = {.size_bytes = MIB(1),
                                           .has_profile = true,
                                           .sector_bytes = 4096,
                                           .full_policy = VOLUME_FULL_PAUSE,
                                           .read_only = true,
                                           .reserve_bytes = 65536}};
    check(raid_profile_parse("single", &info.options.profile));
    return info;
}

static CO void arrives(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume_info info = source_info(), seen;
    struct volume *v;
    bool in_doubt;
    check_ok(volume_target_create(s->vs, "t", &info, 7, &move, &err));
    check_equal(volume_target_create(s->vs, "u", &info, 7, &move, &err), VP_E_EXISTS);
    check_is(s, "t", VOLUME_TARGET, 7, false);
    check_equal(open_rc(s, "t"), VP_E_VOLUME_MOVING);
    check_ok(volume_open_to_move(s->vs, "t", NULL, &v, &err));
    check(!volume_is_read_only(v)); /* its move writes to it */
    volume_close(v);
    check_ok(volume_arrive(s->vs, "t", NULL, &in_doubt));
    check_is(s, "t", VOLUME_ARRIVED, 8, false);
    check_ok(volume_open(s->vs, "t", false, &v, &err));
    check(volume_is_read_only(v));
    volume_close(v);
    check_ok(volume_info_get(s->vs, "t", &seen));
    check(vp_uuid_equal(seen.uuid, info.uuid));
    check_equal(seen.options.sector_bytes, 4096);
    check_equal(seen.options.reserve_bytes, 65536);
    check_equal(volume_target_delete(s->vs, "t", &err), VP_E_INVALID);
}

static CO void has_arrived(struct sim_volumes *s)
{
    struct vp_error err = {0};
    check_is(s, "t", VOLUME_ARRIVED, 8, false);
    check_ok(open_rc(s, "t"));
    check_equal(volume_delete(s->vs, "t", &err), VP_E_VOLUME_MOVING);
    check(strstr(err.text, "vpool migrate forget p/t") != NULL);
    check_ok(volume_arrival_confirm(s->vs, "t", &err));
    check_is(s, "t", VOLUME_OWNER, 8, false);
    check_ok(volume_delete(s->vs, "t", &err));
}

static void what_arrived_is_served_and_stays_until_the_old_pool_knows(void **state)
{
    (void)state;
    play(arrives, has_arrived);
}

static CO void leaves(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct pool_batch b;
    struct volume *v = sim_volumes_volume(s, "a", MIB(1));
    check_ok(volume_leave_begin(v, "a", &move, &err));
    check_ok(volume_intent_begin(v, &err));
    pool_batch_init(&b);
    check_equal(volume_intent_leave(s->vs, "a", &b, &err), VP_E_BUSY);
    volume_close(v);
    struct le64 value = le64_make(5);
    pool_batch_set(&b, POOL_RECORD_COUNTER, 9, 99, &value, sizeof(value));
    check_ok(volume_intent_leave(s->vs, "a", &b, &err));
    pool_batch_fini(&b);
}

static CO void has_left(struct sim_volumes *s)
{
    struct volume_owner_info o;
    struct pool_record r;
    check_equal(volume_owner_get(s->vs, "a", &o), VP_E_NOT_FOUND);
    check(pool_record_get(volumes_pool(s->vs), POOL_RECORD_COUNTER, 9, 99, &r));
}

static void a_volume_leaves_in_one_commit_with_other_records(void **state)
{
    (void)state;
    play(leaves, has_left);
}

/* ---- volumes that have left for another daemon -------------------------------------------- */

static const struct volume_move far = {
    .id = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, .pool = {{2}}, .volume = "x/y", .peer = "tcp:h:1"};

static int count_left(const struct volume_left *l, void *arg)
{
    unsigned *count = arg;
    ++*count;
    check(strcmp(l->name, "a") == 0 && l->epoch == 1);
    check(memcmp(&l->move, &far, sizeof(far)) == 0);
    return 0;
}

static unsigned left_count(struct sim_volumes *s)
{
    unsigned count = 0;
    check_ok(volumes_left_each(s->vs, count_left, &count));
    return count;
}

static CO void leave_by(struct sim_volumes *s, const char *name, const struct volume_move *m)
{
    struct vp_error err = {0};
    struct pool_batch b;
    struct volume *v = sim_volumes_volume(s, name, MIB(1));
    check_ok(volume_leave_begin(v, name, m, &err));
    check_ok(volume_intent_begin(v, &err));
    pool_batch_init(&b);
    check_equal(volume_intent_leave(s->vs, name, &b, &err), VP_E_BUSY);
    pool_batch_clear(&b);
    check_equal(left_count(s), 0); /* it is still here */
    volume_close(v);
    check_ok(volume_intent_leave(s->vs, name, &b, &err));
    pool_batch_fini(&b);
}

/* Notes of a newer release, of nobody, and one that is cut off. */
static CO void add_odd_notes(struct sim_volumes *s)
{
    struct pool_batch b;
    struct volume_left_disk d = {
        .version = le16_make(2), .name_len = 1, .other_len = 3, .peer_len = 1};
    uint8_t bytes[sizeof(d) + 5];
    memcpy(bytes, &d, sizeof(d));
    memcpy(bytes + sizeof(d), "ap/vh", 5);
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_COUNTER, 90, VOLUME_COUNTER_LEFT, bytes, sizeof(bytes));
    bytes[0] = VOLUME_LEFT_VERSION;
    pool_batch_set(&b, POOL_RECORD_COUNTER, 91, VOLUME_COUNTER_LEFT, bytes, sizeof(bytes) - 1);
    pool_batch_set(&b, POOL_RECORD_COUNTER, 92, VOLUME_COUNTER_LEFT, bytes, sizeof(d) - 1);
    bytes[sizeof(d) + 2] = 0;
    pool_batch_set(&b, POOL_RECORD_COUNTER, 93, VOLUME_COUNTER_LEFT, bytes, sizeof(bytes));
    check_ok(pool_commit(volumes_pool(s->vs), &b));
    pool_batch_fini(&b);
}

static CO void leaves_for_another_daemon(struct sim_volumes *s)
{
    leave_by(s, "b", &move); /* within the daemon nobody has to be told later */
    check_equal(left_count(s), 0);
    leave_by(s, "a", &far);
    check_equal(left_count(s), 1);
    add_odd_notes(s);
}

static CO void is_noted(struct sim_volumes *s)
{
    struct pool_record r;
    check_equal(left_count(s), 1);
    check_ok(volumes_left_forget(s->vs, move.id)); /* of another move */
    check_equal(left_count(s), 1);
    check_ok(volumes_left_forget(s->vs, far.id));
    check_equal(left_count(s), 0);
    check_ok(volumes_left_forget(s->vs, far.id));
    check(pool_record_get(volumes_pool(s->vs), POOL_RECORD_COUNTER, 90, VOLUME_COUNTER_LEFT, &r));
}

static CO void is_noted_no_more(struct sim_volumes *s)
{
    check_equal(left_count(s), 0);
}

static void a_volume_that_left_for_another_daemon_is_noted_until_that_one_knows(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 4});
    sim_volumes_run(s, leaves_for_another_daemon);
    sim_volumes_power_cut(s, 5);
    sim_volumes_run(s, is_noted);
    sim_volumes_power_cut(s, 6);
    sim_volumes_run(s, is_noted_no_more);
    sim_volumes_free(s);
    assert_checked();
}

static uint8_t note[200];
static size_t note_len;

static int find_note(const struct pool_record *r, void *arg)
{
    (void)arg;
    if (r->key != VOLUME_COUNTER_LEFT)
        return 0;
    note_len = r->len < sizeof(note) ? r->len : 0;
    memcpy(note, r->value, note_len);
    return 1;
}

static CO void take_note(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "a", MIB(1));
    memset(v->uuid.b, 0x77, sizeof(v->uuid.b));
    volume_close(v);
    struct pool_batch b;
    pool_batch_init(&b);
    v->owner.move = far;
    struct left_note *n = volume_left_put(v, &b);
    check(n != NULL);
    check_ok(pool_commit(volumes_pool(s->vs), &b));
    volume_left_end(s->vs, n, false);
    pool_batch_fini(&b);
    v->owner.move = (struct volume_move){0};
    check_equal(left_count(s), 0);
    check(pool_record_each(volumes_pool(s->vs), POOL_RECORD_COUNTER, find_note, NULL));
}

static void the_note_of_a_volume_that_left_has_these_bytes(void **state)
{
    (void)state;
    play(take_note, NULL);
    assert_bytes(note, note_len,
                 "01 00 01 03 07 00 00 00 01 00 00 00 00 00 00 00 "
                 "01 02 03 04 05 06 07 08 09 00 00 00 00 00 00 00 "
                 "02 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 "
                 "77 77 77 77 77 77 77 77 77 77 77 77 77 77 77 77 "
                 "61 78 2f 79 74 63 70 3a 68 3a 31 ");
}

/* ---- two owners ------------------------------------------------------------------------------ */

static CO void becomes_superseded(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = sim_volumes_volume(s, "a", MIB(1));
    check_ok(volume_supersede(s->vs, "a", &move, &err));
    static const char sector[512] = "whoever has it open goes on";
    check_ok(volume_write(v, 0, sizeof(sector), sector, 0)); /* the clients' affair */
    volume_close(v);
    check_equal(open_rc(s, "a"), VP_E_VOLUME_SUPERSEDED);
}

static CO void is_superseded(struct sim_volumes *s)
{
    struct vp_error err = {0};
    check_is(s, "a", VOLUME_SUPERSEDED, 1, false);
    check_equal(open_rc(s, "a"), VP_E_VOLUME_SUPERSEDED);
    check_equal(volume_supersede(s->vs, "a", &move, &err), VP_E_INVALID);
    check_ok(volume_delete(s->vs, "a", &err));
}

static void an_older_copy_is_never_opened_again_and_can_be_deleted(void **state)
{
    (void)state;
    play(becomes_superseded, is_superseded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_that_never_moved_has_the_record_of_older_releases),
        cmocka_unit_test(each_ownership_survives_its_record),
        cmocka_unit_test(the_longest_names_fit),
        cmocka_unit_test(records_with_another_ownership_are_refused),
        cmocka_unit_test(the_record_of_a_volume_that_moves_has_these_bytes),
        cmocka_unit_test(only_a_move_that_can_be_read_again_is_sound),
        cmocka_unit_test(an_intent_whose_move_is_gone_is_in_doubt),
        cmocka_unit_test(what_arrived_is_served_and_stays_until_the_old_pool_knows),
        cmocka_unit_test(a_volume_leaves_in_one_commit_with_other_records),
        cmocka_unit_test(a_volume_that_left_for_another_daemon_is_noted_until_that_one_knows),
        cmocka_unit_test(the_note_of_a_volume_that_left_has_these_bytes),
        cmocka_unit_test(an_older_copy_is_never_opened_again_and_can_be_deleted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
