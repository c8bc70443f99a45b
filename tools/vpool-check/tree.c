/*
 * The pages of one tree, from the root that the table image names, with the log's records applied.
 * Pages and records come in the order of keys and are merged on the way.
 */
#include "tools/vpool-check/check.h"

#include "base/crc.h"
#include "thin/thin_format.h"

#include <stdio.h>
#include <string.h>

#define HEIGHT_MAX 8U

struct walk {
    struct check *c;
    enum pool_tree kind;
    check_entry_fn *fn;
    json_t *pages;
    char what[64];
    uint32_t entry_bytes, leaf_entries;
    const struct check_record *over;
    size_t overs, next; /* records of the log, and the first that was not laid over yet */
};

static void emit_record(struct walk *w, const struct check_record *r)
{
    if (r->is_delete || !w->fn)
        return;
    if (r->len != w->entry_bytes)
        check_problem(w->c, "record", "%s: the record for key %llu has the wrong size", w->what,
                      (unsigned long long)r->key);
    else
        w->fn(w->c, r->key, r->value);
}

static void emit_records_before(struct walk *w, uint64_t key)
{
    for (; w->next < w->overs && w->over[w->next].key < key; w->next++)
        emit_record(w, &w->over[w->next]);
}

static void emit_leaf(struct walk *w, const uint8_t *page, uint64_t index)
{
    const uint8_t *entry = page + sizeof(struct thin_page_header);
    for (uint32_t i = 0; i < w->leaf_entries; i++, entry += w->entry_bytes) {
        uint64_t key = index * w->leaf_entries + i;
        emit_records_before(w, key);
        if (w->next < w->overs && w->over[w->next].key == key)
            emit_record(w, &w->over[w->next++]);
        else if (w->fn && !bytes_are_zero(entry, w->entry_bytes))
            w->fn(w->c, key, entry);
    }
}

/* Reads the page from a copy that matches, and reports the copies that do not. */
static bool read_page(struct walk *w, const struct thin_page_ref_disk *ref, uint8_t *page)
{
    struct check *c = w->c;
    uint64_t addr = le64_get(ref->addr);
    const struct check_group *g = check_group_find(c, addr >> POOL_META_PAGES_BITS);
    uint64_t at = (addr & ((UINT64_C(1) << POOL_META_PAGES_BITS) - 1)) * POOL_PAGE, disk_at;
    uint64_t unit = c->units++;
    bool found = false;
    uint8_t copy[POOL_PAGE];
    for (unsigned m = 0; m < g->info.members; m++) {
        const struct check_disk *d = check_copy(c, g, m, at, &disk_at);
        if (!d)
            continue;
        check_target_add(c, "page", d, disk_at, POOL_PAGE, unit);
        if (!check_read(d, disk_at, copy, sizeof(copy)) ||
            vp_crc32c(copy, sizeof(copy)) != le32_get(ref->crc)) {
            check_problem(c, "page", "%s: %s: page %llx does not match its checksum", w->what,
                          d->path, (unsigned long long)addr);
            continue;
        }
        memcpy(page, copy, sizeof(copy));
        found = true;
    }
    if (!found)
        check_problem(c, "page", "%s: page %llx is lost: no copy is good", w->what,
                      (unsigned long long)addr);
    return found;
}

static bool header_is_right(const struct walk *w, const uint8_t *page, unsigned level,
                            uint64_t index)
{
    struct thin_page_header h;
    memcpy(&h, page, sizeof(h));
    return le32_get(h.magic) == THIN_PAGE_MAGIC && le16_get(h.version) == THIN_PAGE_VERSION &&
           h.tree == w->kind && h.level == level && le32_get(h.volume) == w->c->volume->id &&
           le32_get(h.entry_bytes) == w->entry_bytes && le64_get(h.index) == index;
}

static void dump_page(struct walk *w, const struct thin_page_ref_disk *ref, unsigned level,
                      uint64_t index)
{
    if (w->pages)
        json_array_append_new(w->pages, json_pack("{s:s, s:I, s:i, s:I, s:I, s:I}", "tree",
                                                  w->kind == POOL_TREE_MAP ? "map" : "space",
                                                  "addr", (json_int_t)le64_get(ref->addr), "level",
                                                  (int)level, "index", (json_int_t)index, "crc",
                                                  (json_int_t)le32_get(ref->crc), "generation",
                                                  (json_int_t)le32_get(ref->generation)));
}

static void walk_page(struct walk *w, const struct thin_page_ref_disk *ref, unsigned level,
                      uint64_t index)
{
    uint8_t page[POOL_PAGE];
    bool ok = check_page_mark(w->c, le64_get(ref->addr), w->what) && read_page(w, ref, page);
    if (ok && !header_is_right(w, page, level, index)) {
        check_problem(w->c, "page", "%s: page %llx is not the one that its pointer means", w->what,
                      (unsigned long long)le64_get(ref->addr));
        ok = false;
    }
    if (!ok) {
        w->c->volume->damaged = true;
        return;
    }
    dump_page(w, ref, level, index);
    if (level == 0) {
        emit_leaf(w, page, index);
        return;
    }
    for (unsigned i = 0; i < THIN_FANOUT; i++) {
        struct thin_page_ref_disk child;
        memcpy(&child, page + sizeof(struct thin_page_header) + i * sizeof(child), sizeof(child));
        if (le64_get(child.addr))
            walk_page(w, &child, level - 1, index * THIN_FANOUT + i);
    }
}

static void walk_init(struct walk *w, struct check *c, enum pool_tree kind, check_entry_fn *fn,
                      json_t *pages)
{
    uint32_t blocks = c->root.geometry.chunk_bytes / POOL_BLOCK;
    uint32_t map_bytes = (uint32_t)sizeof(struct thin_map_entry_disk) +
                         (uint32_t)max_u64(8, blocks / 8) + blocks * 4;
    *w = (struct walk){.c = c, .kind = kind, .fn = fn, .pages = pages};
    w->entry_bytes = kind == POOL_TREE_MAP ? map_bytes : sizeof(struct thin_space_entry_disk);
    w->leaf_entries = THIN_PAGE_ROOM / w->entry_bytes;
    (void)snprintf(w->what, sizeof(w->what), "volume %u, %s tree", c->volume->id,
                   kind == POOL_TREE_MAP ? "map" : "space");
    w->overs =
        check_records_range(&c->trees, kind == POOL_TREE_MAP ? POOL_RECORD_MAP : POOL_RECORD_SPACE,
                            c->volume->id, &w->over);
}

void check_tree(struct check *c, enum pool_tree kind, check_entry_fn *fn, json_t *pages)
{
    struct walk w;
    walk_init(&w, c, kind, fn, pages);
    const struct check_record *r =
        check_records_find(&c->table_image, POOL_RECORD_TREE, c->volume->id, kind);
    struct thin_tree_record_disk t = {0};
    if (r && r->len == sizeof(t))
        memcpy(&t, r->value, sizeof(t));
    if (r && (r->len != sizeof(t) || t.height > HEIGHT_MAX ||
              (t.height == 0) != (le64_get(t.root.addr) == 0))) {
        check_problem(c, "record", "%s: the TREE record does not decode", w.what);
        c->volume->damaged = true;
        return;
    }
    if (t.height)
        walk_page(&w, &t.root, t.height - 1U, 0);
    emit_records_before(&w, UINT64_MAX);
}
