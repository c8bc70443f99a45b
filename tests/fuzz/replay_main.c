/*
 * Runs a fuzz target's inputs without libFuzzer: each argument is a file, or a directory of files.
 * A crash names its input, because that is printed before it runs.
 */
#include "base/attr.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX ((size_t)64 << 20)

static unsigned inputs;

static int replay_file(const char *path)
{
    AUTO_FILE FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return 1;
    }
    uint8_t *data = malloc(INPUT_MAX);
    size_t size = data ? fread(data, 1, INPUT_MAX, f) : 0;
    printf("%s (%zu bytes)\n", path, size);
    fflush(stdout);
    /* A copy of the exact size, so that a sanitizer sees reads behind the end. */
    uint8_t *exact = malloc(size ? size : 1);
    if (!data || !exact) {
        fprintf(stderr, "out of memory\n");
        exit(1);
    }
    memcpy(exact, data, size);
    free(data);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    inputs++;
    return 0;
}

static int replay(const char *path)
{
    struct stat st;
    AUTO_DIR DIR *d = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    if (!d)
        return replay_file(path);
    int rc = 0;
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        char name[4096];
        if (e->d_name[0] == '.')
            continue;
        if (snprintf(name, sizeof(name), "%s/%s", path, e->d_name) < (int)sizeof(name))
            rc |= replay(name);
    }
    return rc;
}

int main(int argc, char **argv)
{
    int rc = 0;
    for (int i = 1; i < argc; i++)
        rc |= replay(argv[i]);
    printf("%u inputs replayed\n", inputs);
    return rc;
}
