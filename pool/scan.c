/*
 * Finding disks of pools. pool_scan only looks (read-only, shared). pool_candidates_open takes the
 * disks of one pool for itself, with their labels and roots. The exclusive lock on each device
 * keeps a second daemon away.
 *
 * A disk may not answer, and its buffers are the kernel's until it does. So each is looked at, or
 * opened, in a coroutine of its own. Nobody waits for that longer than LOOK_WAIT_NS. A coroutine
 * that was left ends whenever its disk answers, and gives the disk back.
 */
#include "base/attr.h"
#include "base/log.h"
#include "io/offload.h"
#include "pool/disk_impl.h"
#include "pool/root_format.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- scanning ------------------------------------------------------------------------------ */

enum { SLOTS_BYTES = POOL_ROOT_SLOTS * ROOT_BYTES };
#define LOOK_WAIT_NS (UINT64_C(20) * 1000000000) /* a disk may have to spin up */
typedef char scan_path[sizeof(((struct pool_found *)0)->paths[0])];

struct scan {
    struct pool_found *found;
    unsigned count, capacity;
    struct scan_disk {
        struct vp_uuid uuid;
        scan_path path;
    } * seen; /* what was found already: a disk may have several names, or copies */
    unsigned seen_count, seen_capacity;
};

/* Room for one more element; false when memory is out. */
static bool grow(void **array, unsigned *capacity, unsigned count, size_t element)
{
    if (count < *capacity)
        return true;
    unsigned wanted = *capacity ? *capacity * 2 : 8;
    void *more = realloc(*array, wanted * element);
    if (!more)
        return false;
    *array = more;
    *capacity = wanted;
    return true;
}

static struct pool_found *scan_pool(struct scan *s, const struct pool_label *l)
{
    for (unsigned i = 0; i < s->count; i++) {
        struct pool_found *f = &s->found[i];
        if (!vp_uuid_equal(f->uuid, l->pool_uuid))
            continue;
        if (l->disk_count > f->disks_total) /* the label of a disk that was added says most */
            f->disks_total = l->disk_count;
        return f;
    }
    if (!grow((void **)&s->found, &s->capacity, s->count, sizeof(*s->found)))
        return NULL;
    struct pool_found *f = &s->found[s->count++];
    memset(f, 0, sizeof(*f));
    f->uuid = l->pool_uuid;
    f->disks_total = l->disk_count;
    memcpy(f->name, l->pool_name, sizeof(f->name));
    return f;
}

static bool is_same_file(const char *a, const char *b)
{
    struct stat sa, sb;
    if (stat(a, &sa) != 0 || stat(b, &sb) != 0)
        return strcmp(a, b) == 0;
    if (S_ISBLK(sa.st_mode) && S_ISBLK(sb.st_mode))
        return sa.st_rdev == sb.st_rdev;
    return sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

struct two_paths {
    const char *a, *b;
};

static int compare_blocking(void *arg)
{
    const struct two_paths *paths = arg;
    return is_same_file(paths->a, paths->b);
}

/* Without a thread to look: not known to be another name. */
static CO bool is_other_name(const char *a, const char *b)
{
    struct two_paths paths = {a, b};
    return offload_run(compare_blocking, &paths) > 0;
}

bool pool_found_is_disk(const struct pool_found *f, unsigned path, struct vp_uuid disk)
{
    return vp_uuid_equal(f->label[path].uuid, disk) || vp_uuid_equal(f->label[path].was, disk);
}

/* A disk that was replaced, or is from before it returned, counts once with what took its place. */
static bool has_index(const struct pool_found *f, unsigned index)
{
    for (unsigned i = 0; i < f->path_count; i++)
        if (f->label[i].index == index)
            return true;
    return false;
}

/* Another name of a disk that was seen is passed over. A copy of it is one more path of the pool,
 * of the same disk: nobody here can say which of the two counts, and the import refuses both. */
static CO int scan_add(struct scan *s, const char *path, const struct pool_label *l)
{
    bool is_copy = false;
    for (unsigned i = 0; i < s->seen_count; i++) {
        if (!vp_uuid_equal(s->seen[i].uuid, l->disk_uuid))
            continue;
        if (is_other_name(s->seen[i].path, path))
            return 0;
        if (!is_copy)
            vp_warn("scan: %s and %s are copies of one disk of the pool \"%s\"", s->seen[i].path,
                    path, l->pool_name);
        is_copy = true;
    }
    struct pool_found *f = scan_pool(s, l);
    if (!f || !grow((void **)&s->seen, &s->seen_capacity, s->seen_count, sizeof(*s->seen)))
        return VP_E_NO_MEMORY;
    if (f->path_count == POOL_DISKS_MAX)
        return VP_E_TOO_BIG;
    struct scan_disk *seen = &s->seen[s->seen_count++];
    seen->uuid = l->disk_uuid;
    (void)snprintf(seen->path, sizeof(seen->path), "%s", path);
    (void)snprintf(f->paths[f->path_count], sizeof(f->paths[0]), "%s", path);
    f->disks_found += !is_copy && !has_index(f, l->disk_index);
    f->label[f->path_count].uuid = l->disk_uuid;
    f->label[f->path_count].was = l->was_uuid;
    f->label[f->path_count++].index = l->disk_index;
    return 0;
}

/* A look at one path, in a coroutine of its own: the disk may not answer. The scan waits for it no
 * longer than LOOK_WAIT_NS; a look that it left ends whenever the disk answers after all. */
struct look {
    struct list link; /* in `left`, or nowhere */
    scan_path path;
    struct pool_label label;
    int rc;
    bool ended;
    struct co_queue end;
};
/* At home. As long as a disk is silent, nobody waits for it again. */
static struct list left = {&left, &left};
static struct list left_candidates = {&left_candidates, &left_candidates};

static CO int look_at(const char *path, struct pool_label *label)
{
    struct io_dev *dev;
    struct vp_error err = {0};
    int rc = io_dev_open(path, IO_OPEN_READ_ONLY | IO_OPEN_SHARED, &dev, &err);
    if (rc) {
        vp_debug("scan: %s", err.text);
        return rc;
    }
    rc = pool_label_read(dev, label);
    io_dev_close(dev);
    if (rc && rc != VP_E_LABEL_NONE)
        vp_warn("scan: %s: %s", path, vp_err_text(rc));
    return rc;
}

static CO void look_run(void *arg)
{
    struct look *l = arg;
    l->rc = look_at(l->path, &l->label);
    l->ended = true;
    co_queue_wake_all(&l->end);
    if (list_empty(&l->link))
        return;
    vp_info("scan: %s answers again", l->path);
    list_del(&l->link);
    free(l);
}

static bool is_silent(const char *path)
{
    const struct look *l;
    const struct pool_candidate *c;
    list_for_each (l, &left, link)
        if (strcmp(l->path, path) == 0)
            return true;
    list_for_each (c, &left_candidates, link)
        if (strcmp(c->path, path) == 0)
            return true;
    return false;
}

/* Until what sets *ended has ended, or the deadline. */
static CO int end_wait(const bool *ended, struct co_queue *end, uint64_t deadline_ns)
{
    int rc = 0;
    while (!*ended && !rc)
        rc = co_queue_wait_until(end, deadline_ns, "a disk to answer");
    return *ended ? 0 : rc;
}

/* Only lack of memory, and more disks than a pool can have, are errors: what cannot be read is no
 * disk of ours. */
static CO int scan_disk(struct scan *s, const char *path)
{
    if (is_silent(path))
        return 0;
    struct look *l = calloc(1, sizeof(*l));
    if (!l)
        return VP_E_NO_MEMORY;
    (void)snprintf(l->path, sizeof(l->path), "%s", path);
    list_init(&l->link);
    co_queue_init(&l->end);
    int rc = co_spawn(look_run, l, "scan");
    if (rc) {
        free(l);
        return rc;
    }
    rc = end_wait(&l->ended, &l->end, reactor_now_ns() + LOOK_WAIT_NS);
    if (rc) {
        list_add_tail(&left, &l->link);
        vp_warn("scan: %s does not answer and is left out until it does", path);
        return rc == VP_E_TIMED_OUT ? 0 : rc;
    }
    if (!l->rc)
        rc = scan_add(s, path, &l->label);
    free(l);
    return rc;
}

/* What is to be looked at, before any of it is opened: a disk, or what a directory has. */
struct listing {
    const char *place;
    const struct pool_scan_filter *filter;
    scan_path *path; /* owned */
    unsigned count, capacity;
};

static int listing_add(struct listing *l, const char *directory, const char *name)
{
    scan_path path;
    int n = snprintf(path, sizeof(path), "%s%s%s", directory, *directory ? "/" : "", name);
    if (n <= 0 || (size_t)n >= sizeof(path) || (*directory && !pool_path_is_real(path)) ||
        (l->filter && l->filter->leave_out(l->filter->arg, path)))
        return 0;
    if (!grow((void **)&l->path, &l->capacity, l->count, sizeof(*l->path)))
        return VP_E_NO_MEMORY;
    memcpy(l->path[l->count++], path, sizeof(path));
    return 0;
}

static int list_blocking(void *arg)
{
    struct listing *l = arg;
    AUTO_DIR DIR *dir = opendir(l->place);
    const struct dirent *e;
    int rc = dir ? 0 : listing_add(l, "", l->place);
    while (!rc && dir && (e = readdir(dir)))
        rc = listing_add(l, l->place, e->d_name);
    return rc;
}

static CO int scan_place(struct scan *s, const char *path, const struct pool_scan_filter *filter)
{
    struct listing l = {.place = path, .filter = filter};
    int rc = offload_run(list_blocking, &l);
    for (unsigned i = 0; i < l.count && !rc; i++)
        rc = scan_disk(s, l.path[i]);
    free(l.path);
    return rc;
}

CO int pool_scan(const char *const *paths, unsigned count, const struct pool_scan_filter *filter,
                 struct pool_found **out, unsigned *out_count, struct vp_error *err)
{
    struct scan s = {0};
    int rc = 0;
    for (unsigned i = 0; i < count && !rc; i++)
        rc = scan_place(&s, paths[i], filter);
    free(s.seen);
    if (rc) {
        free(s.found);
        return vp_fail(err, rc, "the scan for pools failed: %s", vp_err_text(rc));
    }
    *out = s.found;
    *out_count = s.count;
    return 0;
}

/* ---- taking the disks of one pool ---------------------------------------------------------- */

/* Somebody has the device. The sentence names the owner, as far as the disk's label tells it. */
static CO int fail_busy(const char *path, struct vp_error *err)
{
    struct io_dev *dev;
    struct pool_label l;
    int rc = io_dev_open(path, IO_OPEN_READ_ONLY | IO_OPEN_SHARED, &dev, NULL);
    if (rc == 0) {
        rc = pool_label_read(dev, &l);
        io_dev_close(dev);
    }
    if (rc)
        return vp_fail(err, VP_E_IO_BUSY_DEVICE, "%s is in use and is no disk of a pool", path);
    return vp_fail(
        err, VP_E_POOL_ACTIVE,
        "%s is in use: another daemon serves the pool \"%s\", or `vpool-check` reads it; "
        "end that one first",
        path, l.pool_name);
}

/* CO. Slot by slot, after all of a side could not be read at once; two tries each. */
static CO void slots_read_single(struct pool_candidate *c, unsigned side, uint64_t at)
{
    for (unsigned slot = 0; slot < POOL_ROOT_SLOTS; slot++) {
        uint32_t in = slot * ROOT_BYTES;
        int rc = VP_E_IO;
        for (unsigned tries = 2; tries && rc; tries--)
            rc = io_dev_read(c->dev, at + in, c->slots[side] + in, ROOT_BYTES);
        if (!rc)
            continue;
        c->gone |= rc == VP_E_IO_NO_DEVICE;
        c->unread[side] |= (uint8_t)(1U << slot);
        memset(c->slots[side] + in, 0, ROOT_BYTES);
    }
}

/* CO. All root slots; what cannot be read is zero, and a bit in `unread`. */
static CO int slots_read(struct pool_candidate *c)
{
    struct io_batch batch;
    struct io_op op[2];
    io_batch_init(&batch);
    for (unsigned side = 0; side < 2; side++) {
        c->slots[side] = aligned_alloc(ROOT_BYTES, SLOTS_BYTES);
        if (!c->slots[side])
            return VP_E_NO_MEMORY;
    }
    for (unsigned side = 0; side < 2; side++) {
        uint64_t at = POOL_ROOT_AT + (side ? c->tail_bytes : 0);
        io_op_set(&op[side], c->dev, IO_READ, at, c->slots[side], SLOTS_BYTES, 0);
        io_batch_add(&batch, &op[side]);
    }
    vp_ignore(io_batch_wait(&batch), "each op has its own result");
    for (unsigned side = 0; side < 2; side++)
        if (op[side].rc)
            slots_read_single(c, side, op[side].offset);
    return 0;
}

static CO int candidate_open(struct pool_candidate *c)
{
    int rc = io_dev_open(c->path, 0, &c->dev, &c->err);
    if (rc == VP_E_IO_BUSY_DEVICE) { /* the other disks tell whether the pool can do without it */
        rc = fail_busy(c->path, &c->err);
        c->busy = rc == VP_E_POOL_ACTIVE;
        if (c->busy)
            rc = io_dev_open(c->path, IO_OPEN_READ_ONLY | IO_OPEN_SHARED, &c->dev, NULL);
    }
    if (rc && !c->err.rc)
        return vp_fail(&c->err, rc, "%s: %s", c->path, vp_err_text(rc));
    if (rc)
        return rc;
    rc = pool_label_read(c->dev, &c->label);
    if (!rc) {
        c->tail_bytes = pool_tail_bytes(c->label.size_bytes);
        rc = slots_read(c);
    }
    return rc ? vp_fail(&c->err, rc, "%s: %s", c->path, vp_err_text(rc)) : 0;
}

static CO void candidate_free(struct pool_candidate *c)
{
    if (!c)
        return;
    io_dev_close(c->dev);
    free(c->slots[0]);
    free(c->slots[1]);
    free(c);
}

static CO void candidate_run(void *arg)
{
    struct pool_candidate *c = arg;
    c->rc = candidate_open(c);
    c->ended = true;
    co_queue_wake_all(&c->end);
    if (list_empty(&c->link))
        return;
    vp_info("%s answers again; nobody waits for it any more", c->path);
    list_del(&c->link);
    candidate_free(c);
}

static int fail_silent(const char *path, struct vp_error *err)
{
    return vp_fail(err, VP_E_TIMED_OUT, "%s does not answer; see what is wrong with that disk",
                   path);
}

/* CO. Where coroutines are few, those that were begun before end first. */
static CO int candidate_spawn(struct pool_candidate *c, struct pool_candidate *const *before,
                              unsigned count)
{
    uint64_t deadline_ns = reactor_now_ns() + LOOK_WAIT_NS;
    int rc;
    while ((rc = co_spawn(candidate_run, c, "open a disk")) == VP_E_IO_TOO_MANY_COROUTINES && count)
        if (end_wait(&before[count - 1]->ended, &before[count - 1]->end, deadline_ns) == 0)
            count--;
        else
            return rc;
    return rc;
}

/* CO. Begins to open it, after the `count` before. NULL, with *rc: that failed. */
static CO struct pool_candidate *candidate_begin(const char *path,
                                                 struct pool_candidate *const *before,
                                                 unsigned count, struct vp_error *err, int *rc)
{
    struct pool_candidate *c = calloc(1, sizeof(*c));
    if (!c) {
        *rc = vp_fail(err, VP_E_NO_MEMORY, "out of memory");
        return NULL;
    }
    (void)snprintf(c->path, sizeof(c->path), "%s", path);
    list_init(&c->link);
    co_queue_init(&c->end);
    if (strlen(path) >= sizeof(c->path))
        c->rc = vp_fail(&c->err, VP_E_INVALID, "%s: the path is too long", path);
    else if (is_silent(path))
        c->rc = fail_silent(path, &c->err);
    else
        c->rc = candidate_spawn(c, before, count);
    c->ended = c->rc != 0;
    if (c->rc && !c->err.rc)
        vp_ignore(vp_fail(&c->err, c->rc, "%s: %s", path, vp_err_text(c->rc)), "c->rc says it");
    return c;
}

/* CO. Until it is open, or has failed, or too long. A silent disk is left to its coroutine. */
static CO int candidate_await(struct pool_candidate **at, uint64_t deadline_ns,
                              struct vp_error *err)
{
    struct pool_candidate *c = *at;
    if (end_wait(&c->ended, &c->end, deadline_ns)) {
        *at = NULL;
        list_add_tail(&left_candidates, &c->link);
        return fail_silent(c->path, err);
    }
    if (!c->rc)
        return 0;
    int rc = vp_fail(err, c->rc, "%s", c->err.text);
    *at = NULL;
    candidate_free(c);
    return rc;
}

/* c[n] was just opened: does it go with c[0 … n-1]? */
static int check_candidate(struct pool_candidate *const *c, unsigned n, struct vp_error *err)
{
    const struct pool_label *l = &c[n]->label;
    if (!vp_uuid_equal(l->pool_uuid, c[0]->label.pool_uuid))
        return vp_fail(err, VP_E_INVALID, "%s belongs to the pool \"%s\", %s to \"%s\"", c[n]->path,
                       l->pool_name, c[0]->path, c[0]->label.pool_name);
    for (unsigned i = 0; i < n; i++)
        if (vp_uuid_equal(l->disk_uuid, c[i]->label.disk_uuid))
            return vp_fail(err, VP_E_POOL_SPLIT,
                           "%s and %s are copies of one disk: give the one that counts", c[i]->path,
                           c[n]->path);
    return 0;
}

/* Which paths are one more name of a disk that an earlier path names. */
struct repeats {
    const char *const *paths;
    unsigned count;
    bool repeated[POOL_DISKS_MAX];
};

static int find_repeats_blocking(void *arg)
{
    struct repeats *r = arg;
    for (unsigned i = 0; i < r->count; i++)
        for (unsigned k = 0; k < i && !r->repeated[i]; k++)
            r->repeated[i] = is_same_file(r->paths[k], r->paths[i]);
    return 0;
}

/* CO. Waits for all. Those that are open and belong together move to the front; *n is how many. */
static CO int candidates_await(struct pool_candidate **c, unsigned begun, unsigned *n,
                               struct vp_error *err)
{
    uint64_t deadline_ns = reactor_now_ns() + LOOK_WAIT_NS;
    int first_rc = 0, left_out_rc = 0;
    unsigned open = 0, busy = 0;
    for (unsigned i = 0; i < begun; i++) {
        struct vp_error own = {0};
        int rc = candidate_await(&c[i], deadline_ns, &own);
        if (begun > 1 && (rc == VP_E_LABEL_BAD || rc == VP_E_TIMED_OUT)) {
            /* A dead, rotten or silent disk: whether the pool can do without it shows later. */
            vp_warn("%s; it is left out", own.text);
            left_out_rc = left_out_rc ? left_out_rc : vp_fail(err, rc, "%s", own.text);
            continue;
        }
        if (!rc) {
            struct pool_candidate *here = c[i];
            c[i] = NULL;
            c[open] = here;
            busy += here->busy;
            rc = check_candidate(c, open++, &own);
        }
        if (rc && !first_rc)
            first_rc = vp_fail(err, rc, "%s", own.text);
    }
    *n = open;
    if (busy && busy == open && !first_rc)
        return vp_fail(err, VP_E_POOL_ACTIVE, "%s", c[0]->err.text);
    return first_rc ? first_rc : open ? 0 : left_out_rc;
}

CO int pool_candidates_open(const char *const *paths, unsigned count, struct pool_candidate ***out,
                            unsigned *out_count, struct vp_error *err)
{
    struct vp_error own = {0};
    if (count == 0 || count > POOL_DISKS_MAX)
        return vp_fail(err, VP_E_INVALID, "%u disks are given: a pool has 1 to %u", count,
                       POOL_DISKS_MAX);
    struct repeats r = {.paths = paths, .count = count};
    int rc = offload_run(find_repeats_blocking, &r);
    struct pool_candidate **c = rc ? NULL : calloc(count, sizeof(struct pool_candidate *));
    if (!c)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    *out = c;
    *out_count = count; /* those that are not there are NULL */
    unsigned begun = 0, open;
    for (unsigned i = 0; i < count && !rc; i++)
        if (!r.repeated[i] && (c[begun] = candidate_begin(paths[i], c, begun, &own, &rc)))
            begun++;
    int await_rc = candidates_await(c, begun, &open, rc ? NULL : &own);
    rc = rc ? rc : await_rc;
    if (!rc) {
        *out_count = open;
        return 0;
    }
    pool_candidates_free(c, count);
    *out = NULL;
    *out_count = 0;
    return vp_fail(err, rc, "%s", own.text);
}

CO void pool_candidates_free(struct pool_candidate **c, unsigned count)
{
    for (unsigned i = 0; c && i < count; i++)
        candidate_free(c[i]);
    free(c);
}
