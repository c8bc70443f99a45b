/*
 * Methods for other daemons, on a listener of their own (docs/peer.md). The first call of a
 * connection is peer.hello; it notes the name of the caller's daemon.
 */
#include "control/peer_protocol.h"
#include "control/receivers.h"

#include "control/control_impl.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INT(v) ((json_int_t)(v))

static_assert(RECEIVER_HOST_MAX < CONTROL_SERVER_NOTE, "the name is noted at the connection");

/* ---- peer.hello ------------------------------------------------------------------------------ */

struct hello_args {
    uint64_t version;
    const char *host;
};
static const struct param hello_params[] = {
    PARAM(struct hello_args, version, PARAM_NUMBER, true, 1, INT32_MAX),
    PARAM(struct hello_args, host, PARAM_STRING, true, 0, RECEIVER_HOST_MAX),
    {0}};

static int hello(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct hello_args *a = args;
    char host[PEER_HOST_BYTES];
    if (a->version != PEER_VERSION)
        return vp_fail(err, VP_E_NOT_SUPPORTED,
                       "this daemon (%s) speaks version %d of the protocol between daemons, and "
                       "not %llu: use the same release on both sides",
                       VPOOL_VERSION, PEER_VERSION, (unsigned long long)a->version);
    if (!peer_host_is_valid(a->host))
        return vp_fail(err, VP_E_RPC_PARAMS,
                       "parameter 'host' must be a name: letters, digits and . _ -");
    *result = json_pack("{s:i, s:s, s:[s, s, s]}", "version", PEER_VERSION, "host",
                        peer_host_own(host), "capabilities", "live", "mirror", "offline");
    memcpy(control_server_note(&c->peer_server), a->host, strlen(a->host) + 1);
    return 0;
}

CO int control_peer_run(struct control *c, const struct method *m, const void *args,
                        json_t **result, struct vp_error *err)
{
    if (m->fn != hello && !control_server_note(&c->peer_server)[0])
        return vp_fail(err, VP_E_RPC_PROTOCOL, "peer.hello comes first");
    return m->fn(c, args, result, err);
}

/* ---- peer.make ------------------------------------------------------------------------------- */

static int uuid_get(const char *text, const char *name, struct vp_uuid *out, struct vp_error *err)
{
    if (vp_uuid_parse(text, out) && !vp_uuid_is_zero(*out))
        return 0;
    return vp_fail(err, VP_E_RPC_PARAMS, "parameter '%s' must be a uuid", name);
}

struct make_args {
    const char *to, *id, *pool, *volume, *uuid, *profile, *full_policy;
    uint64_t epoch, created_seconds, size_bytes, sector_bytes, reserve_bytes, allocated_bytes;
    bool zero_detect, sync, read_only;
};
static_assert(sizeof(struct make_args) <= PARAM_ARGS_MAX, "they fit");

static const struct param identity_params[] = {
    PARAM(struct make_args, uuid, PARAM_STRING, true, 0, 36),
    PARAM(struct make_args, created_seconds, PARAM_NUMBER, true, 0, INT64_MAX),
    {0}};
static const struct param option_params[] = {
    PARAM(struct make_args, size_bytes, PARAM_NUMBER, true, 1, VOLUME_SIZE_MAX),
    PARAM(struct make_args, sector_bytes, PARAM_NUMBER, true, 512, 4096),
    PARAM(struct make_args, profile, PARAM_STRING, true, 0, RAID_PROFILE_TEXT),
    PARAM(struct make_args, full_policy, PARAM_STRING, true, 0, 0),
    PARAM(struct make_args, zero_detect, PARAM_BOOL, true, 0, 0),
    PARAM(struct make_args, sync, PARAM_BOOL, true, 0, 0),
    PARAM(struct make_args, read_only, PARAM_BOOL, true, 0, 0),
    PARAM(struct make_args, reserve_bytes, PARAM_NUMBER, true, 0, VOLUME_SIZE_MAX),
    {0}};
static const struct param make_params[] = {
    PARAM(struct make_args, to, PARAM_STRING, true, 0, 0),
    PARAM(struct make_args, id, PARAM_STRING, true, 0, 36),
    PARAM(struct make_args, pool, PARAM_STRING, true, 0, 36),
    PARAM(struct make_args, volume, PARAM_STRING, true, 0, VOLUME_FULL_NAME_MAX),
    PARAM(struct make_args, epoch, PARAM_NUMBER, true, 1, INT64_MAX - 1),
    PARAM_FIELDS("identity", true, identity_params),
    PARAM_FIELDS("options", true, option_params),
    PARAM(struct make_args, allocated_bytes, PARAM_NUMBER, true, 0, VOLUME_SIZE_MAX),
    {0}};

/* "POOL/VOL"; *volume: its second part. */
static int full_name_get(const char *text, const char **volume, struct vp_error *err)
{
    char pool[VOLUME_FULL_NAME_BYTES];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : 0;
    memcpy(pool, text, len);
    pool[len] = 0;
    *volume = slash ? slash + 1 : "";
    if (len <= POOL_NAME_MAX && volume_name_is_valid(pool) && volume_name_is_valid(*volume))
        return 0;
    return vp_fail(err, VP_E_RPC_PARAMS, "parameter 'volume' must be POOL/VOLUME");
}

static int options_get(const struct make_args *a, struct volume_options *o, struct vp_error *err)
{
    bool pause = strcmp(a->full_policy, "pause") == 0;
    *o = (struct volume_options){.size_bytes = a->size_bytes,
                                 .has_profile = true,
                                 .sector_bytes = (uint32_t)a->sector_bytes,
                                 .full_policy = pause ? VOLUME_FULL_PAUSE : VOLUME_FULL_ENOSPC,
                                 .zero_detect = a->zero_detect,
                                 .sync_always = a->sync,
                                 .read_only = a->read_only,
                                 .reserve_bytes = a->reserve_bytes};
    if (!pause && strcmp(a->full_policy, "enospc") != 0)
        return vp_fail(err, VP_E_RPC_PARAMS, "parameter 'full_policy' must be pause or enospc");
    if (!raid_profile_parse(a->profile, &o->profile))
        return vp_fail(err, VP_E_RPC_PARAMS, "parameter 'profile' must be a redundancy profile");
    if (!raid_profile_is_supported(o->profile))
        return vp_fail(err, VP_E_NOT_SUPPORTED, "profile %s is not supported here", a->profile);
    return 0;
}

int peer_offer_decode(const void *args, const char *host, struct migrate_offer *o,
                      struct volume_info *info, const char **volume, struct vp_error *err)
{
    const struct make_args *a = args;
    *o = (struct migrate_offer){.epoch = a->epoch, .info = info};
    *info = (struct volume_info){.created_seconds = a->created_seconds,
                                 .valid_bytes = a->allocated_bytes};
    int rc = uuid_get(a->id, "id", &o->source.id, err);
    if (rc == 0)
        rc = uuid_get(a->pool, "pool", &o->source.pool, err);
    if (rc == 0)
        rc = uuid_get(a->uuid, "uuid", &info->uuid, err);
    if (rc == 0)
        rc = full_name_get(a->volume, volume, err);
    if (rc == 0)
        rc = options_get(a, &info->options, err);
    if (rc)
        return rc;
    memcpy(o->source.volume, a->volume, strlen(a->volume) + 1);
    memcpy(o->source.peer, host, strlen(host) + 1);
    return 0;
}

static CO int make_in(struct control *c, struct control_pool *p, const char *name,
                      const struct migrate_offer *o, json_t **result, struct vp_error *err)
{
    struct receiver_made made;
    char pool[VP_UUID_TEXT], life[VP_UUID_TEXT];
    int rc = receiver_make(c, p, name, o, &made, err);
    if (rc == 0)
        *result = json_pack("{s:s, s:s, s:s, s:s}", "pool", vp_uuid_format(p->uuid, pool), "volume",
                            made.volume, "secret", made.secret, "life",
                            vp_uuid_format(c->receivers.life, life));
    return rc;
}

static CO int make(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct make_args *a = args;
    struct migrate_offer o;
    struct volume_info info;
    struct control_pool *p;
    const char *name;
    int rc = peer_offer_decode(a, control_server_note(&c->peer_server), &o, &info, &name, err);
    if (rc == 0)
        rc = strchr(a->to, '/') ? control_volume_get(c, a->to, &p, &name, err)
                                : control_pool_get_open(c, a->to, &p, err);
    if (rc)
        return rc;
    rc = make_in(c, p, name, &o, result, err);
    control_pool_put(p);
    return rc;
}

/* ---- peer.session, peer.keep, peer.data ------------------------------------------------------ */

struct key_args {
    const char *id, *secret;
    uint64_t generation; /* data only */
};
static const struct param key_params[] = {PARAM(struct key_args, id, PARAM_STRING, true, 0, 36),
                                          PARAM(struct key_args, secret, PARAM_STRING, true, 0, 64),
                                          {0}};
static const struct param data_params[] = {
    PARAM(struct key_args, id, PARAM_STRING, true, 0, 36),
    PARAM(struct key_args, secret, PARAM_STRING, true, 0, 64),
    PARAM(struct key_args, generation, PARAM_NUMBER, true, 1, INT64_MAX),
    {0}};

static int key_get(const struct key_args *a, struct receiver_key *k, struct vp_error *err)
{
    k->secret = a->secret;
    return uuid_get(a->id, "id", &k->id, err);
}

static CO int session(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    struct receiver_key k;
    uint64_t generation;
    int rc = key_get(args, &k, err);
    if (rc == 0)
        rc = receiver_session(c, &k, &generation, err);
    if (rc == 0)
        *result = json_pack("{s:I}", "generation", INT(generation));
    return rc;
}

static int keep(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    struct receiver_key k;
    int rc = key_get(args, &k, err);
    if (rc == 0)
        rc = receiver_keep(c, &k, err);
    if (rc == 0)
        *result = json_object();
    return rc;
}

struct data_heir {
    struct control *control;
    struct vp_uuid id;
    uint64_t generation;
};

static CO void data_take(void *arg, int fd)
{
    struct data_heir *h = arg;
    if (fd >= 0)
        receiver_data_give(h->control, h->id, h->generation, fd);
    free(h);
}

static int data(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    const struct key_args *a = args;
    struct receiver_key k;
    int rc = key_get(a, &k, err);
    if (rc == 0)
        rc = receiver_data_check(c, &k, a->generation, err);
    if (rc)
        return rc;
    struct data_heir *h = calloc(1, sizeof(*h));
    *result = h ? json_object() : NULL;
    if (!*result) {
        free(h);
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    }
    *h = (struct data_heir){c, k.id, a->generation};
    control_server_hand_over(&c->peer_server, data_take, h);
    return 0;
}

/* ---- peer.arrive, peer.decide, peer.decline, peer.confirm ------------------------------------ */

struct claim_args {
    const char *id, *pool, *volume;
    uint64_t epoch;
};
static const struct param claim_fields[] = {
    PARAM(struct claim_args, id, PARAM_STRING, true, 0, 36),
    PARAM(struct claim_args, pool, PARAM_STRING, true, 0, 36),
    PARAM(struct claim_args, volume, PARAM_STRING, true, 0, 36),
    PARAM(struct claim_args, epoch, PARAM_NUMBER, true, 1, INT64_MAX - 1),
    {0}};
static const struct param claim_params[] = {PARAM_FIELDS("claim", true, claim_fields), {0}};

static int claim_get(const struct claim_args *a, struct receiver_claim *k, struct vp_error *err)
{
    k->claim.epoch = a->epoch;
    int rc = uuid_get(a->id, "id", &k->claim.move, err);
    if (rc == 0)
        rc = uuid_get(a->pool, "pool", &k->pool, err);
    if (rc == 0)
        rc = uuid_get(a->volume, "volume", &k->claim.volume, err);
    return rc;
}

static CO int verdict(struct control *c, const struct claim_args *a, bool arrive, json_t **result,
                      struct vp_error *err)
{
    struct receiver_claim k;
    enum migrate_verdict is;
    int rc = claim_get(a, &k, err);
    if (rc == 0)
        rc = receivers_verdict(c, &k, arrive, &is, err);
    if (rc)
        return rc;
    bool arrived = is == MIGRATE_HAS_ARRIVED;
    *result = json_pack("{s:s, s:s}", "verdict", arrived ? "arrived" : "not-arrived", "why",
                        arrived ? "" : err->text);
    return 0;
}

static CO int arrive(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    return verdict(c, args, true, result, err);
}

static CO int decide(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    return verdict(c, args, false, result, err);
}

static CO int decline(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    struct receiver_claim k;
    enum migrate_verdict is;
    int rc = claim_get(args, &k, err);
    if (rc == 0)
        rc = receivers_verdict(c, &k, false, &is, err);
    if (rc)
        return rc;
    if (is == MIGRATE_HAS_ARRIVED)
        return vp_fail(err, VP_E_BUSY, "the volume has arrived: it cannot be declined any more");
    *result = json_object();
    return 0;
}

static CO int confirm(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    struct receiver_claim k;
    int rc = claim_get(args, &k, err);
    if (rc == 0)
        rc = receivers_confirm(c, &k, err);
    if (rc == 0)
        *result = json_object();
    return rc;
}

static const struct method methods_peer[] = {
    {"peer.hello", hello_params, 0, hello},     {"peer.make", make_params, 0, make},
    {"peer.session", key_params, 0, session},   {"peer.data", data_params, 0, data},
    {"peer.keep", key_params, 0, keep},         {"peer.arrive", claim_params, 0, arrive},
    {"peer.decide", claim_params, 0, decide},   {"peer.decline", claim_params, 0, decline},
    {"peer.confirm", claim_params, 0, confirm}, {0}};
const struct method *const methods_of_peers[] = {methods_peer, NULL};
