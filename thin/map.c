/* Map entries: their layout for each chunk size, valid bits, giving and taking chunks. */
#include "thin/thin_impl.h"

struct thin_map_layout thin_map_layout_make(uint32_t chunk_bytes)
{
    uint32_t blocks = chunk_bytes / POOL_BLOCK;
    uint32_t valid = (uint32_t)max_u64(8, blocks / 8);
    return (struct thin_map_layout){
        .chunk_blocks = blocks,
        .valid_bytes = valid,
        .entry_bytes = (uint32_t)sizeof(struct thin_map_entry_disk) + valid +
                       blocks * (uint32_t)sizeof(struct le32),
    };
}

unsigned thin_map_count_valid(struct thin_map_entry e, unsigned first, unsigned count)
{
    unsigned n = 0;
    for (unsigned i = first; i < first + count; i++)
        n += thin_map_is_valid(e, i);
    return n;
}

unsigned thin_map_set_valid(struct thin_map_entry e, unsigned first, unsigned count, bool valid)
{
    unsigned changed = 0;
    for (unsigned i = first; i < first + count; i++) {
        if (thin_map_is_valid(e, i) == valid)
            continue;
        e.valid[i / 8] = (uint8_t)(e.valid[i / 8] ^ 1U << (i % 8));
        changed++;
    }
    return changed;
}

unsigned thin_map_run(struct thin_map_entry e, unsigned first, unsigned end)
{
    bool valid = thin_map_is_valid(e, first);
    unsigned i = first + 1;
    while (i < end && thin_map_is_valid(e, i) == valid)
        i++;
    return i - first;
}

bool thin_chunk_alloc(struct thin *t, struct thin_page *leaf, struct vchunk vchunk)
{
    struct pchunk c;
    if (!thin_space_take(t, &c))
        return false;
    struct thin_map_entry e = thin_map_at(t, leaf, vchunk);
    e.fixed->pchunk = le64_make(c.n);
    e.fixed->generation_flags = le32_make(t->generation & THIN_GENERATION_MASK);
    t->allocated_chunks++;
    thin_stat_changed(t);
    thin_leaf_changed(leaf, vchunk.n, false);
    return true;
}

int thin_chunk_free(struct thin *t, struct thin_page *leaf, struct vchunk vchunk,
                    struct thin_page *space_leaf)
{
    struct thin_map_entry e = thin_map_at(t, leaf, vchunk);
    int rc = thin_space_free(t, space_leaf, thin_map_pchunk(e));
    if (rc)
        return rc;
    t->valid_blocks -= thin_map_count_valid(e, 0, t->chunk_blocks);
    t->allocated_chunks--;
    thin_stat_changed(t);
    memset(e.fixed, 0, t->layout.entry_bytes);
    thin_leaf_changed(leaf, vchunk.n, false);
    return 0;
}
