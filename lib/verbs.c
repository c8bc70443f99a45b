/* The typed wrappers. */
#include "lib/client_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *strings(const char *const *list, unsigned count)
{
    json_t *array = json_array();
    for (unsigned i = 0; i < count; i++)
        if (json_array_append_new(array, json_string(list[i])))
            break;
    return array;
}

static int call(struct vpool_client *c, const char *method, json_t *params, json_t **result,
                struct vpool_error *err)
{
    if (!params)
        return vpool_fail(err, VP_E_RPC_PARAMS, "%s: a text is not UTF-8, or memory is out",
                          method);
    return vpool_call_json(c, method, params, result, err);
}

int vpool_pool_create(struct vpool_client *c, const char *pool, const char *raid,
                      uint64_t size_bytes, const char *const *disks, unsigned disk_count,
                      bool force, struct vpool_error *err)
{
    return call(c, "pool.create",
                json_pack("{s:s, s:s, s:I, s:o, s:b}", "pool", pool, "raid", raid ? raid : "single",
                          "size", (json_int_t)size_bytes, "disks", strings(disks, disk_count),
                          "force", force),
                NULL, err);
}

int vpool_pool_destroy(struct vpool_client *c, const char *pool, struct vpool_error *err)
{
    return call(c, "pool.destroy", json_pack("{s:s}", "pool", pool), NULL, err);
}

int vpool_pool_export(struct vpool_client *c, const char *pool, bool force, struct vpool_error *err)
{
    return call(c, "pool.export", json_pack("{s:s, s:b}", "pool", pool, "force", force), NULL, err);
}

int vpool_pool_import(struct vpool_client *c, const char *pool, const char *const *paths,
                      unsigned path_count, struct vpool_error *err)
{
    return call(c, "pool.import",
                json_pack("{s:s, s:o}", "pool", pool, "paths", strings(paths, path_count)), NULL,
                err);
}

int vpool_pool_online(struct vpool_client *c, const char *pool, const char *disk, const char *path,
                      struct vpool_error *err)
{
    return call(c, "pool.online",
                json_pack("{s:s, s:s, s:s*}", "pool", pool, "disk", disk, "path", path), NULL, err);
}

int vpool_pool_replace(struct vpool_client *c, const char *pool, const char *disk, const char *path,
                       bool force, struct vpool_error *err)
{
    return call(
        c, "pool.replace",
        json_pack("{s:s, s:s, s:s, s:b}", "pool", pool, "disk", disk, "path", path, "force", force),
        NULL, err);
}

int vpool_pool_add(struct vpool_client *c, const char *pool, const char *path, bool force,
                   struct vpool_error *err)
{
    return call(c, "pool.add",
                json_pack("{s:s, s:s, s:b}", "pool", pool, "path", path, "force", force), NULL,
                err);
}

int vpool_pool_scrub(struct vpool_client *c, const char *pool, const char *action, uint64_t limit,
                     struct vpool_error *err)
{
    return call(
        c, "pool.scrub",
        json_pack("{s:s, s:s, s:I}", "pool", pool, "action", action, "limit", (json_int_t)limit),
        NULL, err);
}

int vpool_pool_offline(struct vpool_client *c, const char *pool, const char *disk,
                       struct vpool_error *err)
{
    return call(c, "pool.offline", json_pack("{s:s, s:s}", "pool", pool, "disk", disk), NULL, err);
}

int vpool_volume_create(struct vpool_client *c, const char *volume, uint64_t size_bytes,
                        const char *raid, struct vpool_error *err)
{
    return call(c, "volume.create",
                json_pack("{s:s, s:I, s:s*}", "volume", volume, "size", (json_int_t)size_bytes,
                          "raid", raid),
                NULL, err);
}

static uint64_t number_at(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

static void text_at(const json_t *object, const char *key, char *out, size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));
    (void)snprintf(out, size, "%s", text ? text : "");
}

int vpool_volume_get(struct vpool_client *c, const char *volume, struct vpool_volume_info *out,
                     struct vpool_error *err)
{
    json_t *v = NULL;
    if (call(c, "volume.show", json_pack("{s:s}", "volume", volume), &v, err))
        return -1;
    *out = (struct vpool_volume_info){
        .size_bytes = number_at(v, "size_bytes"),
        .allocated_bytes = number_at(v, "allocated_bytes"),
        .valid_bytes = number_at(v, "valid_bytes"),
        .sector_bytes = (unsigned)number_at(json_object_get(v, "options"), "sector"),
        .attachments = (unsigned)number_at(v, "attachments"),
        .waiting_requests = (unsigned)number_at(v, "waiting_requests"),
    };
    text_at(v, "name", out->name, sizeof(out->name));
    text_at(v, "state", out->state, sizeof(out->state));
    json_decref(v);
    return 0;
}

int vpool_volume_resize(struct vpool_client *c, const char *volume, uint64_t size_bytes, bool force,
                        struct vpool_error *err)
{
    return call(c, "volume.resize",
                json_pack("{s:s, s:I, s:b}", "volume", volume, "size", (json_int_t)size_bytes,
                          "force", force),
                NULL, err);
}

int vpool_volume_rename(struct vpool_client *c, const char *volume, const char *to,
                        struct vpool_error *err)
{
    return call(c, "volume.rename", json_pack("{s:s, s:s}", "volume", volume, "to", to), NULL, err);
}

int vpool_volume_delete(struct vpool_client *c, const char *volume, struct vpool_error *err)
{
    return call(c, "volume.delete", json_pack("{s:s}", "volume", volume), NULL, err);
}

int vpool_attach_nbd(struct vpool_client *c, const char *volume, const char *address,
                     bool read_only, char **uri, struct vpool_error *err)
{
    json_t *a = NULL;
    if (call(c, "attach",
             json_pack("{s:s, s:s, s:b}", "volume", volume, "nbd", address, "readonly", read_only),
             &a, err))
        return -1;
    const char *text = json_string_value(json_object_get(a, "uri"));
    char *copy = uri ? strdup(text ? text : "") : NULL;
    json_decref(a);
    if (uri && !copy)
        return vpool_fail(err, VP_E_NO_MEMORY, "out of memory");
    if (uri)
        *uri = copy;
    return 0;
}

int vpool_detach(struct vpool_client *c, const char *volume, const char *address, bool all,
                 bool force, struct vpool_error *err)
{
    return call(c, "detach",
                json_pack("{s:s, s:s*, s:b, s:b}", "volume", volume, "nbd", address, "all", all,
                          "force", force),
                NULL, err);
}
