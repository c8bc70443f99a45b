/*
 * Running a test's body as a coroutine. cmocka's assertions leave a test by longjmp, which must not
 * happen on a coroutine's stack. Inside, use check(), which notes a failure and goes on.
 */
#ifndef VP_TESTS_ON_REACTOR_H
#define VP_TESTS_ON_REACTOR_H

#include "io/reactor.h"

#include <stdbool.h>

/* Notes a failure with its place. Any thread. */
#define check(cond) check_note(cond, __FILE__, __LINE__, #cond)
#define check_equal(a, b)                                                                          \
    check_note_equal((long long)(a), (long long)(b), __FILE__, __LINE__, #a " == " #b)
#define check_ok(rc) check_note_equal((long long)(rc), 0, __FILE__, __LINE__, #rc)
bool check_note(bool ok, const char *file, int line, const char *what);
bool check_note_equal(long long a, long long b, const char *file, int line, const char *what);
/* Failures since the last call. */
unsigned check_failures(void);
#define assert_checked() assert_int_equal(check_failures(), 0)

/* Runs body(arg) as the first coroutine of a new reactor on this thread, until it and all that it
 * spawned are done. `config` may be NULL. The test then does assert_checked(). */
void on_reactor(const struct reactor_config *config, void (*body)(void *arg), void *arg);

/* False under valgrind, which lets one thread run at a time and (3.19) does not know that
 * io_uring_enter may block. Two reactors would stand still there. The test then skips. */
bool reactor_threads_work(void);

/* A reactor on a thread of its own. */
struct reactor_thread;
struct reactor_thread *reactor_thread_start(const struct reactor_config *config);
struct reactor *reactor_thread_reactor(struct reactor_thread *t);
/* Stops it and waits for its end. */
void reactor_thread_join(struct reactor_thread *t);

#endif
