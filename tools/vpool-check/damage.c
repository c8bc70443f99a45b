/*
 * The damage generator, for tests of the engine and of this tool. A kind and a seed choose a place
 * among those that a check has just walked over. There a bit is flipped, or everything is zeroed,
 * on one copy or on all.
 *
 * Something changes that a check must notice. A place that reads as zeros is not zeroed. Of two
 * extents that are swapped, one holds a page or data that the other has not. Blocks of regions that
 * were being overwritten are not chosen, because nobody can judge them. One exception is left: the
 * log's last batch. On the disks a damaged last batch looks like one that was never finished (a
 * note says where the log ends).
 */
#include "tools/vpool-check/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const things[] = {"label", "root", "image", "log", "page", "data"};

void check_damage_kinds(void)
{
    for (unsigned i = 0; i < sizeof(things) / sizeof(things[0]); i++)
        printf("%s-flip %s-flip-all %s-zero %s-zero-all\n", things[i], things[i], things[i],
               things[i]);
    puts("extent-swap");
}

struct kind {
    const char *thing;
    bool zero, all;
};

static bool parse_kind(const char *text, struct kind *out)
{
    for (unsigned i = 0; i < sizeof(things) / sizeof(things[0]); i++) {
        size_t len = strlen(things[i]);
        if (strncmp(text, things[i], len) != 0)
            continue;
        const char *rest = text + len;
        out->thing = things[i];
        out->zero = strncmp(rest, "-zero", 5) == 0;
        if (!out->zero && strncmp(rest, "-flip", 5) != 0)
            return false;
        out->all = strcmp(rest + 5, "-all") == 0;
        return out->all || !rest[5];
    }
    return false;
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    return hash_mix(*state += 0x9e3779b97f4a7c15ULL);
}

static bool write_at(const struct check_disk *d, uint64_t at, const void *buf, size_t len)
{
    if (pwrite(d->fd, buf, len, (off_t)at) == (ssize_t)len)
        return true;
    fprintf(stderr, "vpool-check: %s: cannot be written at byte %llu\n", d->path,
            (unsigned long long)at);
    return false;
}

static bool flip(const struct check_disk *d, uint64_t at, unsigned bit)
{
    uint8_t byte;
    if (!check_read(d, at, &byte, 1))
        return false;
    byte ^= (uint8_t)(1U << bit);
    printf("%s: flipped bit %u of byte %llu\n", d->path, bit, (unsigned long long)at);
    return write_at(d, at, &byte, 1);
}

static bool zero(const struct check_disk *d, uint64_t at, uint64_t len)
{
    uint8_t *nothing = calloc(1, len);
    if (!nothing)
        check_out_of_memory();
    printf("%s: zeroed %llu bytes at %llu\n", d->path, (unsigned long long)len,
           (unsigned long long)at);
    bool ok = write_at(d, at, nothing, len);
    free(nothing);
    return ok;
}

static bool damage_target(const struct check *c, const struct check_target *t,
                          const struct kind *kind, uint64_t where)
{
    const struct check_disk *d = &c->disk[t->disk];
    if (kind->zero)
        return zero(d, t->at, align_up(t->len, POOL_BLOCK));
    return flip(d, t->at + where / 8 % t->len, where % 8);
}

static bool reads_as_zeros(const struct check *c, const struct check_target *t)
{
    uint8_t *buf = check_grow(NULL, t->len, 1);
    bool zeros = check_read(&c->disk[t->disk], t->at, buf, t->len) && bytes_are_zero(buf, t->len);
    free(buf);
    return zeros;
}

/* The first from a random one on that can be damaged so. */
static const struct check_target *choose_target(const struct check *c, const struct kind *kind,
                                                uint64_t *random)
{
    size_t first = c->targets ? next_random(random) % c->targets : 0;
    for (size_t i = 0; i < c->targets; i++) {
        const struct check_target *t = &c->target[(first + i) % c->targets];
        if (strcmp(t->kind, kind->thing) == 0 && !(kind->zero && reads_as_zeros(c, t)))
            return t;
    }
    return NULL;
}

/* ---- swapped extents ----------------------------------------------------------------------- */

static bool swap(const struct check_disk *d, uint64_t a, uint64_t b, uint64_t len)
{
    enum { STEP = 1 << 20 };
    uint8_t *x = check_grow(NULL, STEP, 1), *y = check_grow(NULL, STEP, 1);
    bool ok = true;
    for (uint64_t at = 0; at < len && ok; at += STEP)
        ok = check_read(d, a + at, x, STEP) && check_read(d, b + at, y, STEP) &&
             write_at(d, a + at, y, STEP) && write_at(d, b + at, x, STEP);
    free(x);
    free(y);
    printf("%s: swapped %llu bytes at %llu and %llu\n", d->path, (unsigned long long)len,
           (unsigned long long)a, (unsigned long long)b);
    return ok;
}

/* Whether a page, or a block of data, in the extent at `a` is another than at its place in `b`. */
static bool extents_differ(const struct check *c, const struct check_disk *d, uint64_t a,
                           uint64_t b)
{
    uint8_t x[POOL_BLOCK], y[POOL_BLOCK];
    for (size_t i = 0; i < c->targets; i++) {
        const struct check_target *t = &c->target[i];
        bool judged = strcmp(t->kind, "page") == 0 || strcmp(t->kind, "data") == 0;
        if (judged && &c->disk[t->disk] == d && t->at >= a &&
            t->at - a < c->root.geometry.extent_bytes && check_read(d, t->at, x, sizeof(x)) &&
            check_read(d, b + (t->at - a), y, sizeof(y)) && memcmp(x, y, sizeof(x)) != 0)
            return true;
    }
    return false;
}

struct pair {
    const struct check_disk *disk;
    uint64_t a, b;
};

/* Members of two groups on one disk whose swap would be noticed. */
static bool find_pair(const struct check *c, const struct check_group *a,
                      const struct check_group *b, struct pair *out)
{
    for (unsigned m = 0; m < a->info.members; m++)
        for (unsigned n = 0; n < b->info.members; n++) {
            out->disk = check_copy(c, a, m, 0, &out->a);
            if (out->disk && check_copy(c, b, n, 0, &out->b) == out->disk &&
                (extents_differ(c, out->disk, out->a, out->b) ||
                 extents_differ(c, out->disk, out->b, out->a)))
                return true;
        }
    return false;
}

static enum damage_result swap_extents(const struct check *c, uint64_t *random)
{
    struct pair pair;
    unsigned first = c->groups ? (unsigned)(next_random(random) % c->groups) : 0;
    for (unsigned i = 0; i < c->groups; i++)
        for (unsigned k = 0; k < c->groups; k++) {
            const struct check_group *a = &c->group[(first + i) % c->groups], *b = &c->group[k];
            if (a == b || !find_pair(c, a, b, &pair))
                continue;
            bool done = swap(pair.disk, pair.a, pair.b, c->root.geometry.extent_bytes);
            return done ? DAMAGE_DONE : DAMAGE_FAILED;
        }
    return DAMAGE_NO_TARGET;
}

bool check_damage_is_known(const char *text)
{
    struct kind kind;
    return strcmp(text, "extent-swap") == 0 || parse_kind(text, &kind);
}

enum damage_result check_damage(struct check *c, const char *text, uint64_t seed)
{
    uint64_t random = seed;
    struct kind kind = {0};
    if (strcmp(text, "extent-swap") == 0)
        return swap_extents(c, &random);
    if (!parse_kind(text, &kind))
        return DAMAGE_NO_TARGET;
    const struct check_target *t = choose_target(c, &kind, &random);
    if (!t)
        return DAMAGE_NO_TARGET;
    uint64_t where = next_random(&random);
    bool ok = true;
    for (size_t i = 0; i < c->targets; i++)
        if (&c->target[i] == t ||
            (kind.all && c->target[i].unit == t->unit && strcmp(c->target[i].kind, t->kind) == 0))
            ok &= damage_target(c, &c->target[i], &kind, where);
    for (unsigned i = 0; i < c->disks; i++)
        ok &= fsync(c->disk[i].fd) == 0;
    return ok ? DAMAGE_DONE : DAMAGE_FAILED;
}
