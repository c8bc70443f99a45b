/* What `vpool volume list` and `show` say. The space that a volume uses is what its open map has.
 * While the map is not open, the STAT record says it. volume_info_get counts arenas as well. */
#include "thin/thin_format.h"
#include "volumes/volumes_impl.h"

#include <stdlib.h>

static const struct figure volume_figure_rows[] = {
#define FIGURE(...) FIGURE_ROW(struct volume_figures, __VA_ARGS__)
#include "volumes/figures.def"
};
const struct figure_set volume_figure_set = {
    "volume", volume_figure_rows, sizeof(volume_figure_rows) / sizeof(volume_figure_rows[0])};

const struct volume_figures *volume_figures(const struct volume *v)
{
    return &v->figures;
}

static void info_space(struct volume *v, struct volume_info *out)
{
    if (out->map) {
        out->allocated_bytes = figure_get(&out->map->allocated_chunks) * volume_chunk_bytes(v);
        out->valid_bytes = figure_get(&out->map->valid_blocks) * VOLUME_BLOCK;
        return;
    }
    struct pool_record r;
    struct thin_stat_record_disk s;
    if (!pool_record_get(v->vs->pool, POOL_RECORD_STAT, v->id, 0, &r) || r.len != sizeof(s))
        return;
    memcpy(&s, r.value, sizeof(s));
    out->allocated_bytes = le64_get(s.allocated_chunks) * volume_chunk_bytes(v);
    out->valid_bytes = le64_get(s.valid_blocks) * VOLUME_BLOCK;
}

uint64_t volume_allocated_bytes(struct volume *v)
{
    struct volume_info info = {.map = v->io ? thin_figures(v->io->thin) : NULL};
    info_space(v, &info);
    return info.allocated_bytes;
}

static void info_fill(struct volume *v, struct volume_info *out)
{
    *out = (struct volume_info){
        .id = v->id,
        .uuid = v->uuid,
        .options = v->options,
        .state = v->state,
        .created_seconds = v->created_seconds,
        .reactor = v->io ? reactor_index(v->reactor) : 0,
        .open_count = v->open_count,
        .figures = &v->figures,
        .map = v->io ? thin_figures(v->io->thin) : NULL,
        .errors_since = v->errors.since,
    };
    const char *name = volume_text(v);
    memcpy(out->name, name, strnlen(name, VOLUME_NAME_MAX));
    if (v->fault)
        memcpy(out->fault, v->fault, strnlen(v->fault, sizeof(out->fault) - 1));
    info_space(v, out);
}

/* ---- one ---------------------------------------------------------------------------------- */

int volume_info_get(struct volumes *vs, const char *name, struct volume_info *out)
{
    struct volume *v = volume_find(vs, name);
    if (!v)
        return VP_E_NOT_FOUND;
    info_fill(v, out);
    out->leased_bytes =
        pool_arena_count(vs->pool, v->id) * pool_arena_bytes(vs->pool, v->options.profile);
    return 0;
}

/* ---- all ---------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(volume_text(*(struct volume *const *)a), volume_text(*(struct volume *const *)b));
}

static bool is_listed(const struct volume *v)
{
    return v->state != VOLUME_DELETING && !v->name->pending;
}

int volume_each(struct volumes *vs, int (*fn)(const struct volume_info *info, void *arg), void *arg)
{
    struct volume **sorted = calloc(vs->count + 1, sizeof(struct volume *));
    if (!sorted)
        return VP_E_NO_MEMORY;
    size_t n = 0;
    struct volume *v;
    list_for_each (v, &vs->all, link) {
        if (is_listed(v) && n < vs->count)
            sorted[n++] = v;
    }
    qsort(sorted, n, sizeof(struct volume *), by_name);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        struct volume_info info;
        info_fill(sorted[i], &info);
        CO_NO_YIELD {
            rc = fn(&info, arg);
        }
    }
    free(sorted);
    return rc;
}

/* ---- those in trouble ------------------------------------------------------------------------ */

void volume_each_in_trouble(struct volumes *vs,
                            void (*fn)(const struct volume_trouble *t, void *arg), void *arg)
{
    struct volume *v;
    list_for_each (v, &vs->all, link) {
        struct volume_trouble t = {
            .id = v->id,
            .faulted = v->state == VOLUME_FAULTED,
            .waiting_for_space = (unsigned)figure_get(&v->figures.waiting_for_space),
            .checksum_errors = figure_get(&v->figures.checksum_errors),
        };
        if (!is_listed(v) || (!t.faulted && !t.waiting_for_space && !t.checksum_errors))
            continue;
        t.name = volume_text(v);
        CO_NO_YIELD {
            fn(&t, arg);
        }
    }
}

const char *volume_name_of_id(struct volumes *vs, uint32_t id)
{
    struct volume *v = volume_find_id(vs, id);
    return v && is_listed(v) ? volume_text(v) : NULL;
}
