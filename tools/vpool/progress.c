/* How far something is, in one line that is written over, while a terminal looks on. */
#include "tools/vpool/cli.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PROGRESS_COLUMNS 76
#define BAR_COLUMNS      20

bool progress_is_seen(const struct cli *cli)
{
    return !cli->json && isatty(STDERR_FILENO);
}

/* " 45% of 1.2G"; "-" before it is counted. */
static const char *share_text(const struct progress *p, char *to, size_t size)
{
    if (!p->total)
        (void)snprintf(to, size, "   -");
    else
        (void)snprintf(to, size, "%3u%% of %s",
                       p->done < p->total ? (unsigned)((double)p->done * 100 / (double)p->total)
                                          : 100U,
                       size_text(p->total));
    return to;
}

static const char *bar_text(const struct progress *p, char to[static BAR_COLUMNS + 1])
{
    double share = p->total ? (double)p->done / (double)p->total : 0;
    size_t full = share < 1 ? (size_t)(share * BAR_COLUMNS) : BAR_COLUMNS;
    memset(to, '.', BAR_COLUMNS);
    memset(to, '#', full);
    to[BAR_COLUMNS] = '\0';
    return to;
}

void progress_show(const struct progress *p)
{
    char bar[BAR_COLUMNS + 1], share[40], rate[40] = "", left[40] = "", line[400];
    if (p->rate)
        (void)snprintf(rate, sizeof(rate), ", %s/s", size_text(p->rate));
    if (p->left_known)
        (void)snprintf(left, sizeof(left), ", %llu s left", (unsigned long long)p->seconds_left);
    (void)snprintf(line, sizeof(line), "%-10s [%s] %s%s%s%s", p->phase, bar_text(p, bar),
                   share_text(p, share, sizeof(share)), rate, left, p->more ? p->more : "");
    fprintf(stderr, "\r  %-*.*s", PROGRESS_COLUMNS, PROGRESS_COLUMNS, line);
    (void)fflush(stderr);
}

void progress_clear(void)
{
    fprintf(stderr, "\r%*s\r", PROGRESS_COLUMNS + 2, "");
    (void)fflush(stderr);
}
