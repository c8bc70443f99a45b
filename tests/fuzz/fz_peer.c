/*
 * Lines of another daemon (rpc_lines.h). The methods are not called, but what peer.make offers is
 * decoded: it is refused, or is sound.
 */
#include "control/peer_protocol.h"
#include "tests/fuzz/rpc_lines.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void verify_sound(const struct migrate_offer *o, const char *volume)
{
    const struct volume_options *options = &o->info->options;
    const char *slash = strchr(o->source.volume, '/');
    if (vp_uuid_is_zero(o->source.id) || vp_uuid_is_zero(o->source.pool) ||
        vp_uuid_is_zero(o->info->uuid) || o->epoch == 0 || o->epoch >= INT64_MAX)
        abort();
    if (!slash || slash - o->source.volume > POOL_NAME_MAX || !volume_name_is_valid(slash + 1) ||
        strcmp(volume, slash + 1) != 0 || !peer_host_is_valid(o->source.peer))
        abort();
    if (options->size_bytes > VOLUME_SIZE_MAX || !raid_profile_is_supported(options->profile))
        abort();
}

static int run(struct control *c, const struct method *m, const void *args, json_t **result,
               struct vp_error *err)
{
    struct migrate_offer o;
    struct volume_info info;
    const char *volume;
    (void)c;
    int rc = strcmp(m->name, "peer.make") == 0
                 ? peer_offer_decode(args, "far", &o, &info, &volume, err)
                 : 0;
    if (rc)
        return rc;
    if (strcmp(m->name, "peer.make") == 0)
        verify_sound(&o, volume);
    *result = json_pack("{s:s}", "method", m->name);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct rpc rpc = {.tables = methods_of_peers, .run = run};
    rpc_lines_handle(&rpc, data, size);
    return 0;
}
