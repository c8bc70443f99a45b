#include "tests/lib/aborts.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

bool call_aborts(void (*fn)(void *arg), void *arg)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        /* cmocka catches the signal, and what the invariant says is expected. */
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        (void)signal(SIGABRT, SIG_DFL);
        fn(arg);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid ||
        (WIFSIGNALED(status) ? WTERMSIG(status) != SIGABRT : WEXITSTATUS(status) != 0)) {
        fprintf(stderr, "call_aborts: fork or its process failed, status %#x\n", (unsigned)status);
        abort();
    }
    return WIFSIGNALED(status);
}
