/* See sim_image_impl.h. Nodes have 16 slots: a path copy touches few cache lines, and a recovery
 * that writes a dozen pages copies some thirty nodes. */
#include "io/sim_image_impl.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/verify.h"

#include <stdlib.h>
#include <string.h>

enum { NODE_BITS = 4, NODE_SLOTS = 1 << NODE_BITS };

/* `slot` holds nodes of the level below, or pages at level 1; both begin with `refs`. `sum` is the
 * sum of the hashes of what is below, each mixed with its page number, so that it depends on the
 * content alone. */
struct sim_node {
    uint32_t refs;
    bool summed;
    uint64_t sum;
    void *slot[NODE_SLOTS];
};

/* ---- memory: everything that was ever used is kept for the next ------------------------------ */

union free_link {
    union free_link *next;
};
static union free_link *free_pages, *free_nodes;

void *sim_alloc(size_t size)
{
    void *p = malloc(size);
    if (!p)
        p = malloc(size);
    VP_VERIFY_TRUE(p != NULL);
    return p;
}

static void *take(union free_link **list, size_t size)
{
    union free_link *e = *list;
    if (e) {
        *list = e->next;
        return e;
    }
    return sim_alloc(size);
}

static void give(union free_link **list, void *p)
{
    union free_link *e = p;
    e->next = *list;
    *list = e;
}

/* ---- pages -------------------------------------------------------------------------------- */

struct sim_page *sim_page_new(void)
{
    struct sim_page *p = take(&free_pages, sizeof(*p));
    p->refs = 1;
    p->hashed = false;
    return p;
}

struct sim_page *sim_page_get(struct sim_page *p)
{
    if (p)
        p->refs++;
    return p;
}

void sim_page_put(struct sim_page *p)
{
    if (p && --p->refs == 0)
        give(&free_pages, p);
}

struct sim_page *sim_page_zero(void)
{
    static struct sim_page zero = {.refs = 1};
    return &zero;
}

/* Four independent lanes, so that the multiplications overlap. */
static uint64_t page_hash(struct sim_page *p)
{
    if (p->hashed)
        return p->hash;
    uint64_t lane[4] = {1, 2, 3, 4}, w[4];
    for (size_t at = 0; at < SIM_PAGE_BYTES; at += sizeof(w)) {
        memcpy(w, p->data + at, sizeof(w));
        for (unsigned i = 0; i < 4; i++) {
            lane[i] = (lane[i] ^ w[i]) * 0x9fb21c651e98df25ULL;
            lane[i] ^= lane[i] >> 29;
        }
    }
    for (unsigned i = 1; i < 4; i++)
        lane[0] = hash_mix(lane[0] * 31 + lane[i]);
    p->hash = lane[0];
    p->hashed = true;
    return p->hash;
}

/* Independent words, so that the compiler can make several at once. */
static void noise_sector(uint64_t noise, uint64_t sector, unsigned char *to)
{
    uint64_t first = hash_mix(noise ^ sector * 0xd6e8feb86659fd93ULL);
    for (uint64_t i = 0; i < SIM_SECTOR_BYTES / 8; i++) {
        uint64_t word = first + i * 0x9e3779b97f4a7c15ULL;
        word ^= word >> 29;
        memcpy(to + 8 * i, &word, sizeof(word));
    }
}

void sim_page_merge(struct sim_page *p, uint8_t mask, const struct sim_page *from, uint64_t noise,
                    uint64_t page_no)
{
    if (from && mask == SIM_ALL_SECTORS) {
        memcpy(p->data, from->data, SIM_PAGE_BYTES);
        return;
    }
    for (unsigned i = 0; i < SIM_PAGE_SECTORS; i++) {
        if (!(mask >> i & 1))
            continue;
        size_t at = (size_t)i * SIM_SECTOR_BYTES;
        if (from)
            memcpy(p->data + at, from->data + at, SIM_SECTOR_BYTES);
        else
            noise_sector(noise, page_no * SIM_PAGE_SECTORS + i, p->data + at);
    }
}

/* ---- the tree ----------------------------------------------------------------------------- */

static void slot_ref(void *slot)
{
    if (slot)
        ++*(uint32_t *)slot;
}

static void node_put(struct sim_node *n, unsigned level)
{
    if (!n || --n->refs)
        return;
    for (unsigned i = 0; i < NODE_SLOTS; i++) {
        if (level > 1)
            node_put(n->slot[i], level - 1);
        else
            sim_page_put(n->slot[i]);
    }
    give(&free_nodes, n);
}

/* Makes *at a node that this image alone holds and may change. */
static struct sim_node *node_own(struct sim_node **at)
{
    struct sim_node *old = *at, *n = old;
    if (!old || old->refs > 1) {
        n = take(&free_nodes, sizeof(*n));
        if (old) {
            memcpy(n->slot, old->slot, sizeof(n->slot));
            for (unsigned i = 0; i < NODE_SLOTS; i++)
                slot_ref(n->slot[i]);
            old->refs--;
        } else {
            memset(n->slot, 0, sizeof(n->slot));
        }
        n->refs = 1;
        *at = n;
    }
    n->summed = false;
    return n;
}

static unsigned slot_of(uint64_t page_no, unsigned level)
{
    return (unsigned)(page_no >> NODE_BITS * (level - 1)) & (NODE_SLOTS - 1);
}

void sim_image_init(struct sim_image *img, uint64_t pages, uint64_t noise)
{
    img->root = NULL;
    img->noise = noise;
    img->height = 1;
    while (pages > UINT64_C(1) << NODE_BITS * img->height)
        img->height++;
}

void sim_image_fini(struct sim_image *img)
{
    node_put(img->root, img->height);
    img->root = NULL;
}

struct sim_image sim_image_share(const struct sim_image *img)
{
    slot_ref(img->root);
    return *img;
}

struct sim_page *sim_image_lookup(const struct sim_image *img, uint64_t page_no)
{
    struct sim_node *n = img->root;
    for (unsigned level = img->height; n && level > 1; level--)
        n = n->slot[slot_of(page_no, level)];
    return n ? n->slot[slot_of(page_no, 1)] : NULL;
}

/* The page that results from laying the sectors of `mask` over what is there: a new reference. */
static struct sim_page *compose(const struct sim_image *img, uint64_t page_no, uint8_t mask,
                                struct sim_page *from, struct sim_page *old)
{
    if (mask == SIM_ALL_SECTORS)
        return sim_page_get(from);
    struct sim_page *p = sim_page_new();
    sim_page_merge(p, SIM_ALL_SECTORS, old, img->noise, page_no);
    sim_page_merge(p, mask, from, img->noise, page_no);
    return p;
}

void sim_image_store(struct sim_image *img, uint64_t page_no, uint8_t mask, struct sim_page *from)
{
    struct sim_page *old = sim_image_lookup(img, page_no);
    if (!mask || (!old && !from))
        return; /* noise over noise */
    struct sim_page *neu = compose(img, page_no, mask, from, old);
    struct sim_node *n = node_own(&img->root);
    for (unsigned level = img->height; level > 1; level--)
        n = node_own((struct sim_node **)&n->slot[slot_of(page_no, level)]);
    void **slot = &n->slot[slot_of(page_no, 1)];
    sim_page_put(*slot);
    *slot = neu;
}

static void read_page(const struct sim_image *img, uint64_t page_no, size_t from, unsigned char *to,
                      size_t len)
{
    const struct sim_page *p = sim_image_lookup(img, page_no);
    if (p) {
        memcpy(to, p->data + from, len);
        return;
    }
    unsigned char sector[SIM_SECTOR_BYTES];
    for (size_t done = 0; done < len;) {
        size_t in = (from + done) % SIM_SECTOR_BYTES;
        size_t part = min_u64(len - done, SIM_SECTOR_BYTES - in);
        noise_sector(img->noise, page_no * SIM_PAGE_SECTORS + (from + done) / SIM_SECTOR_BYTES,
                     sector);
        memcpy(to + done, sector + in, part);
        done += part;
    }
}

void sim_image_read(const struct sim_image *img, uint64_t offset, void *buf, size_t len)
{
    unsigned char *to = buf;
    while (len) {
        size_t from = offset % SIM_PAGE_BYTES;
        size_t part = min_u64(len, SIM_PAGE_BYTES - from);
        read_page(img, offset / SIM_PAGE_BYTES, from, to, part);
        offset += part;
        to += part;
        len -= part;
    }
}

static uint64_t node_sum(struct sim_node *n, unsigned level, uint64_t first_page)
{
    if (!n)
        return 0;
    if (n->summed)
        return n->sum;
    uint64_t sum = 0;
    for (unsigned i = 0; i < NODE_SLOTS; i++) {
        uint64_t at = first_page + ((uint64_t)i << NODE_BITS * (level - 1));
        if (level > 1)
            sum += node_sum(n->slot[i], level - 1, at);
        else if (n->slot[i])
            sum += hash_mix(page_hash(n->slot[i]) + at * 0x9e3779b97f4a7c15ULL);
    }
    n->sum = sum;
    n->summed = true;
    return sum;
}

uint64_t sim_image_hash(const struct sim_image *img)
{
    return node_sum(img->root, img->height, 0);
}
