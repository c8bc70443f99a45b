/* Combinations of fates of pending writes: enumeration and their written form. */
#include "tests/sim/explore.h"

#include "base/hash.h"
#include "base/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALL_COMBINATIONS_MAX = 10, TEAR_PATTERNS = 5 };

struct chooser {
    struct sim_choice *c;
    unsigned n;
    choice_fn fn;
    void *arg;
};

static void set_all(struct chooser *x, enum sim_fate fate)
{
    for (unsigned i = 0; i < x->n; i++)
        x->c[i] = (struct sim_choice){fate, 0};
}

static bool emit(struct chooser *x)
{
    return x->fn(x->arg, x->c, x->n);
}

static bool every_combination(struct chooser *x)
{
    for (uint64_t bits = 0; bits < UINT64_C(1) << x->n; bits++) {
        for (unsigned i = 0; i < x->n; i++)
            x->c[i] = (struct sim_choice){bits >> i & 1 ? SIM_KEEP : SIM_DROP, 0};
        if (!emit(x))
            return false;
    }
    return true;
}

/* All, none, each single one dropped or kept, each prefix in the order of submission. */
static bool simple_combinations(struct chooser *x)
{
    static const enum sim_fate other[] = {[SIM_DROP] = SIM_KEEP, [SIM_KEEP] = SIM_DROP};
    for (enum sim_fate fate = SIM_DROP; fate <= SIM_KEEP; fate++) {
        set_all(x, fate);
        if (!emit(x))
            return false;
        for (unsigned i = 0; i < x->n; i++) {
            set_all(x, fate);
            x->c[i].fate = other[fate];
            if (!emit(x))
                return false;
        }
    }
    set_all(x, SIM_DROP);
    for (unsigned i = 0; i + 1 < x->n; i++) {
        x->c[i].fate = SIM_KEEP;
        if (!emit(x))
            return false;
    }
    return true;
}

/* Only the first unit, all but the first, only the last, all but the last, every other. */
static uint64_t tear_pattern(unsigned pattern, unsigned units)
{
    uint64_t all = units >= 64 ? UINT64_MAX : (UINT64_C(1) << units) - 1;
    uint64_t last = UINT64_C(1) << (units - 1) % 64;
    switch (pattern) {
    case 0:
        return 1;
    case 1:
        return all & ~UINT64_C(1);
    case 2:
        return last;
    case 3:
        return all & ~last;
    default:
        return all & UINT64_C(0x5555555555555555);
    }
}

static bool single_tears(struct chooser *x, const struct sim_snapshot *s)
{
    for (unsigned i = 0; i < x->n; i++) {
        unsigned units = sim_snapshot_units(s, i);
        for (unsigned p = 0; units > 1 && p < TEAR_PATTERNS; p++)
            for (enum sim_fate rest = SIM_DROP; rest <= SIM_KEEP; rest++) {
                set_all(x, rest);
                x->c[i] = (struct sim_choice){SIM_TEAR, tear_pattern(p, units)};
                if (!emit(x))
                    return false;
            }
    }
    return true;
}

bool choices_each(const struct sim_snapshot *s, enum choice_depth depth, choice_fn fn, void *arg)
{
    unsigned n = sim_snapshot_pending(s);
    struct chooser x = {.c = calloc(n + 1, sizeof(*x.c)), .n = n, .fn = fn, .arg = arg};
    VP_VERIFY_TRUE(x.c != NULL);
    bool ok;
    if (depth == CHOICES_FULL)
        ok = (n <= ALL_COMBINATIONS_MAX ? every_combination(&x) : simple_combinations(&x)) &&
             single_tears(&x, s);
    else
        ok = n <= 3 ? every_combination(&x) : simple_combinations(&x);
    free(x.c);
    return ok;
}

/* Those in flight: all of them, none; or every combination while they are few. */
bool choices_each_kill(const struct sim_snapshot *s, enum choice_depth depth, choice_fn fn,
                       void *arg)
{
    const unsigned few = depth == CHOICES_FULL ? 5 : 2;
    unsigned n = sim_snapshot_pending(s), flying = 0;
    struct sim_choice *c = calloc(n + 1, sizeof(*c));
    unsigned *at = calloc(n + 1, sizeof(*at));
    VP_VERIFY_TRUE(c != NULL && at != NULL);
    for (unsigned i = 0; i < n; i++) {
        c[i].fate = SIM_KEEP;
        if (!sim_snapshot_is_complete(s, i))
            at[flying++] = i;
    }
    uint64_t combinations = flying <= few ? UINT64_C(1) << flying : 2;
    bool ok = true;
    for (uint64_t bits = 0; ok && bits < combinations; bits++) {
        for (unsigned i = 0; i < flying; i++)
            c[at[i]].fate = (flying <= few ? bits >> i : bits) & 1 ? SIM_KEEP : SIM_DROP;
        ok = fn(arg, c, n);
    }
    free(at);
    free(c);
    return ok;
}

uint64_t choices_kill_key(const struct sim_snapshot *s, const struct model *m, uint64_t event)
{
    return hash_mix(sim_snapshot_keeps_hash(s) + model_answers_at(m, event) + 1);
}

void choices_format(const struct sim_choice *c, unsigned n, bool killed, char *out, size_t size)
{
    size_t at = killed ? 1 : 0;
    (void)snprintf(out, size, "%s", killed ? "K" : "");
    for (unsigned i = 0; i < n && at + 20 < size; i++) {
        if (c[i].fate == SIM_TEAR)
            at += (size_t)snprintf(out + at, size - at, "t%" PRIx64 ".", c[i].units);
        else
            at += (size_t)snprintf(out + at, size - at, "%c", c[i].fate == SIM_KEEP ? 'k' : 'd');
    }
    if (!n)
        (void)snprintf(out + at, size - at, "-");
}

bool choices_parse(const char *text, struct sim_choice *c, unsigned n, bool *killed)
{
    *killed = *text == 'K';
    text += *killed;
    if (n == 0)
        return strcmp(text, "-") == 0;
    for (unsigned i = 0; i < n; i++) {
        c[i] = (struct sim_choice){SIM_DROP, 0};
        if (*text == 'k') {
            c[i].fate = SIM_KEEP;
        } else if (*text == 't') {
            char *end;
            c[i] = (struct sim_choice){SIM_TEAR, strtoull(text + 1, &end, 16)};
            if (*end != '.')
                return false;
            text = end;
        } else if (*text != 'd') {
            return false;
        }
        text++;
    }
    return *text == '\0';
}
