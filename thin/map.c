/* Map entries: their layout for each chunk size, giving and taking chunks. */
#include "thin/thin_impl.h"

struct thin_map_layout thin_map_layout_make(uint32_t chunk_bytes)
{
    uint32_t blocks = chunk_bytes / POOL_BLOCK;
    uint32_t valid_bytes = (uint32_t)max_u64(8, blocks / 8);
    uint32_t crc_offset = (uint32_t)sizeof(struct thin_map_entry_disk) + valid_bytes;
    return (struct thin_map_layout){
        .chunk_blocks = blocks,
        .crc_offset = crc_offset,
        .entry_bytes = crc_offset + blocks * (uint32_t)sizeof(struct le32),
    };
}

bool thin_chunk_alloc(struct thin *t, struct thin_page *leaf, struct vchunk vchunk)
{
    struct pchunk c;
    if (!thin_space_take(t, &c))
        return false;
    struct thin_map_entry e = thin_map_at(t, leaf, vchunk);
    e.fixed->pchunk = le64_make(c.n);
    e.fixed->generation_flags = le32_make(t->generation & THIN_GENERATION_MASK);
    figure_add(&t->figures.allocated_chunks, 1);
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
    figure_sub(&t->figures.valid_blocks, thin_map_count_valid(e, 0, t->chunk_blocks));
    figure_sub(&t->figures.allocated_chunks, 1);
    thin_stat_changed(t);
    memset(e.fixed, 0, t->layout.entry_bytes);
    thin_leaf_changed(leaf, vchunk.n, false);
    return 0;
}
