/* See guards.h. Each attempt runs in a child: without a guard the engine may well die. */
#include "tests/sim/guards.h"

#include "tests/sim/explore.h"

#include "io/guard.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STATES_MAX = 30000, SEEDS = 3, RANDOM_SEEDS = 20, LINE_MAX_BYTES = 1400 };

/* Where to look first; then everything else. */
static const struct {
    enum io_guard guard;
    const char *scenario;
} likely[] = {
    {GUARD_DATA_BEFORE_LOG, "first-write"},
    {GUARD_COMMIT_DISKS, "spread"},
    {GUARD_LOG_FLUSH, "first-write"},
    {GUARD_FREE_BEFORE_REUSE, "discard-reuse"},
    {GUARD_INTENT_BEFORE_OVERWRITE, "overwrite"},
    {GUARD_PAGES_BEFORE_ROOT, "checkpoint"},
    {GUARD_ROOT_BEFORE_RELEASE, "log-wrap"},
    {GUARD_EJECT_BEFORE_ACK, "mirror-lost"},
    {GUARD_DATA_CHECKSUM, "rot-second"},
    {GUARD_PAGE_CHECKSUM, "rot-second"},
    {GUARD_LOG_CHECKSUM, "large-commit"},
    {GUARD_RANGE_LOCK, "race"},
    {GUARD_ADOPT_EQUALISE, "overwrite-mirror"},
    {GUARD_STALE_DISK, "mirror-lost"},
    {GUARD_BEHIND_NOT_READ, "return-missing"},
    {GUARD_FILL_BEFORE_ONLINE, "return"},
    {GUARD_LATE_IO, "hang-late"},
    {GUARD_KEEP_BEFORE_ACK, "first-write"},
    {GUARD_LEASE_BEFORE_USE, "first-write"},
    {GUARD_IMPORT_FLUSH, "import"},
    {GUARD_CLIENT_GONE, "client-gone"},
    {GUARD_LOG_END_WAS_READ, "import-faults-single"},
    {GUARD_LOG_TAIL_WRITTEN, "import-faults-single"},
    {GUARD_SHRINK_AFTER_WRITERS, "shrink-race"},
    {GUARD_DURABLE_FAILED, "import-faults-single"},
    {GUARD_KEEP_NEEDS_LOG, "set-back"},
    {GUARD_KEEP_ORDER, "half-kept"},
    {GUARD_MOVE_INTENT_FIRST, "move"},
    {GUARD_MOVE_ARRIVES_LAST, "move"},
    {GUARD_MOVE_DECLINES_FIRST, "move"},
    {GUARD_MOVE_KEEPS_ARRIVED, "move-breaks-delete"},
    {GUARD_MOVE_MARKS_CHANGES, "live"},
    {GUARD_MOVE_CLEARS_FIRST, "live"},
    {GUARD_MOVE_MIRROR_ALONE, "live-alone"},
    {GUARD_MOVE_AWAITS_LATE, "live-late"},
    {GUARD_MOVE_LOST_IS_DIRTY, "hosts-live"},
    {GUARD_MOVE_AWAITS_VERDICT, "hosts-offline"},
    {GUARD_MOVE_NOTES_LEFT, "hosts-offline"},
    {GUARD_MOVE_GENERATION, "hosts-breaks"},
    {GUARD_MOVE_CHECK_VOID, "live-verify"},
    {GUARD_MOVE_DOUBT, "move"},
    {GUARD_TARGET_LOST, "remove-missed"},
    {GUARD_MOVE_BEFORE_FREE, "rebalance"},
};

/* In the child: output goes to the pipe, the exit code says whether something was noticed. */
static void attempt(enum io_guard guard, const struct scenario *sc, int out)
{
    (void)dup2(out, STDOUT_FILENO);
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (null >= 0)
        (void)dup2(null, STDERR_FILENO);
    if (guard != GUARD_COUNT) {
        io_guard_disabled[guard] = true;
        position.guard = io_guard_name(guard);
    }
    struct explore_counts counts = {0};
    bool ok = true;
    for (uint64_t seed = 1; ok && seed <= (sc ? SEEDS : RANDOM_SEEDS); seed++) {
        counts.states = 0;
        ok = sc ? explore(sc, seed, NULL, STATES_MAX, &counts) : random_run(seed, &counts);
    }
    (void)fflush(stdout);
    _exit(ok ? 0 : 1);
}

/* The first line of what the child wrote, which is its failure. */
static void read_line(int fd, char *line, size_t size)
{
    size_t at = 0;
    char sink[4096];
    ssize_t n;
    while (at + 1 < size && (n = read(fd, line + at, size - 1 - at)) > 0)
        at += (size_t)n;
    while (read(fd, sink, sizeof(sink)) > 0)
        ;
    line[at] = '\0';
    line[strcspn(line, "\n")] = '\0';
}

/* Whether the scenario (NULL: random runs) notices that the guard is off (GUARD_COUNT: no
 * guard). */
static bool notices(enum io_guard guard, const struct scenario *sc, char *line, size_t size)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC))
        return false;
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        attempt(guard, sc, fd[1]);
    (void)close(fd[1]);
    read_line(fd[0], line, size);
    (void)close(fd[0]);
    int status = 0;
    (void)waitpid(child, &status, 0);
    return child > 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static const char *likely_scenario(enum io_guard guard)
{
    for (unsigned i = 0; i < sizeof(likely) / sizeof(likely[0]); i++)
        if (likely[i].guard == guard)
            return likely[i].scenario;
    return "";
}

static bool prove(enum io_guard guard, bool baseline)
{
    char line[LINE_MAX_BYTES] = "";
    const struct scenario *first = scenario_find(likely_scenario(guard)), *by = first;
    bool caught = first && notices(guard, first, line, sizeof(line));
    for (unsigned i = 0; !caught && i < scenario_count(); i++)
        if (scenario_at(i) != first)
            caught = notices(guard, by = scenario_at(i), line, sizeof(line));
    if (!caught) {
        by = NULL;
        caught = notices(guard, NULL, line, sizeof(line));
    }
    char unused[LINE_MAX_BYTES];
    if (caught && baseline && notices(GUARD_COUNT, by, unused, sizeof(unused))) {
        caught = false;
        printf("guard %-24s NOT PROVED: %s fails with it, too\n", io_guard_name(guard),
               by ? by->name : "random");
    } else if (caught) {
        printf("guard %-24s caught by %s: %.300s\n", io_guard_name(guard), by ? by->name : "random",
               line);
    } else {
        printf("guard %-24s NOT CAUGHT\n", io_guard_name(guard));
    }
    (void)fflush(stdout);
    return caught;
}

bool guards_prove(unsigned jobs, bool baseline)
{
    bool all = true;
    pid_t child[GUARD_COUNT];
    unsigned started = 0, waited = 0;
    /* At most `jobs` at a time, in the order of the table. */
    while (waited < GUARD_COUNT) {
        if (started < GUARD_COUNT && started - waited < jobs) {
            (void)fflush(stdout);
            child[started] = fork();
            if (child[started] == 0)
                _exit(prove((enum io_guard)started, baseline) ? 0 : 1);
            started++;
            continue;
        }
        int status = 1;
        (void)waitpid(child[waited++], &status, 0);
        all &= status == 0;
    }
    return all;
}
