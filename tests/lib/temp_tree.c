#include "tests/lib/temp_tree.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATH_BYTES = 300 };

int temp_tree_make(char top[static 64])
{
    (void)snprintf(top, 64, "/tmp/vpool-unit.XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

/* Puts root/path together, and makes the folders above it. */
static void place(const char *root, const char *path, char full[static PATH_BYTES])
{
    (void)snprintf(full, PATH_BYTES, "%s/%s", root, path);
    for (char *p = full + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        (void)mkdir(full, 0755);
        *p = '/';
    }
}

void temp_tree_put(const char *root, const char *path, const char *text)
{
    char full[PATH_BYTES];
    place(root, path, full);
    if (!text) {
        (void)mkdir(full, 0755);
        return;
    }
    FILE *f = fopen(full, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

void temp_tree_link(const char *root, const char *path, const char *target)
{
    char full[PATH_BYTES];
    place(root, path, full);
    assert_int_equal(symlink(target, full), 0);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int temp_tree_remove(const char *top)
{
    return nftw(top, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
