/*
 * Content of simulated disks (private to io/): immutable, reference-counted 4 KiB pages in a
 * persistent tree. Sharing an image costs one reference; a store copies only the path to its page.
 * That is what makes a snapshot at every event, and hundreds of thousands of crash states a
 * minute, affordable. Pages that are absent read as noise, a function of (seed, disk, page).
 *
 * One thread only: reference counts and free lists are plain.
 */
#ifndef VP_IO_SIM_IMAGE_IMPL_H
#define VP_IO_SIM_IMAGE_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SIM_PAGE_BYTES = 4096,
    SIM_SECTOR_BYTES = 512, /* what the bits of a page's sector mask stand for */
    SIM_PAGE_SECTORS = 8,
    SIM_ALL_SECTORS = 0xff,
};

/* Content must not change while `refs` > 1 or once it is hashed. */
struct sim_page {
    uint32_t refs;
    bool hashed;
    uint64_t hash;
    unsigned char data[SIM_PAGE_BYTES];
};

struct sim_page *sim_page_new(void); /* content undefined; never NULL */
struct sim_page *sim_page_get(struct sim_page *p);
void sim_page_put(struct sim_page *p); /* NULL is fine */
struct sim_page *sim_page_zero(void);  /* all zeros; borrowed, lives for ever */
/* Copies the sectors of `mask` of `from` (NULL = noise) into p, which the caller alone holds. */
void sim_page_merge(struct sim_page *p, uint8_t mask, const struct sim_page *from, uint64_t noise,
                    uint64_t page_no);

struct sim_node;

struct sim_image {
    struct sim_node *root; /* NULL: all noise */
    uint64_t noise;        /* key of this disk's noise */
    unsigned height;       /* levels of nodes, 1 … */
};

void sim_image_init(struct sim_image *img, uint64_t pages, uint64_t noise);
void sim_image_fini(struct sim_image *img);
struct sim_image sim_image_share(const struct sim_image *img);

/* Borrowed until the next store; NULL = noise. */
struct sim_page *sim_image_lookup(const struct sim_image *img, uint64_t page_no);
/* Makes the sectors of `mask` of a page those of `from` (NULL = noise). */
void sim_image_store(struct sim_image *img, uint64_t page_no, uint8_t mask, struct sim_page *from);
void sim_image_read(const struct sim_image *img, uint64_t offset, void *buf, size_t len);
/* Depends on the stored pages alone; incremental: only what changed since is hashed. */
uint64_t sim_image_hash(const struct sim_image *img);

/* splitmix64: the generator behind everything random in a world. */
static inline uint64_t sim_mix(uint64_t *state)
{
    uint64_t v = *state += 0x9e3779b97f4a7c15ULL;
    v = (v ^ v >> 30) * 0xbf58476d1ce4e5b9ULL;
    v = (v ^ v >> 27) * 0x94d049bb133111ebULL;
    return v ^ v >> 31;
}

/* Memory of the simulator itself. A test that lets one allocation fail means the engine's, so a
 * second one is tried. */
void *sim_alloc(size_t size);

#endif
