/* See on_reactor.h. */
#include "tests/lib/on_reactor.h"

#include "base/verify.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif

static _Atomic unsigned failures;

bool check_note(bool ok, const char *file, int line, const char *what)
{
    if (!ok) {
        atomic_fetch_add(&failures, 1);
        (void)fprintf(stderr, "%s:%d: not true: %s\n", file, line, what);
    }
    return ok;
}

bool check_note_equal(long long a, long long b, const char *file, int line, const char *what)
{
    if (a != b) {
        atomic_fetch_add(&failures, 1);
        (void)fprintf(stderr, "%s:%d: not equal: %s (%lld %s, %lld %s)\n", file, line, what, a,
                      vp_err_name((int)a), b, vp_err_name((int)b));
    }
    return a == b;
}

unsigned check_failures(void)
{
    return atomic_exchange(&failures, 0);
}

struct body {
    void (*fn)(void *arg);
    void *arg;
};

static void run_body(void *arg)
{
    struct body *body = arg;
    body->fn(body->arg);
    reactor_stop(reactor_self());
}

static struct reactor *make(const struct reactor_config *config)
{
    struct reactor_config defaults = {0};
    struct vp_error err = {0};
    struct reactor *r = NULL;
    if (reactor_new(config ? config : &defaults, &r, &err) != 0) {
        (void)fprintf(stderr, "no reactor: %s\n", err.text);
        abort();
    }
    return r;
}

void on_reactor(const struct reactor_config *config, void (*body)(void *arg), void *arg)
{
    struct reactor *r = make(config);
    struct body b = {body, arg};
    reactor_run(r, run_body, &b);
    reactor_free(r);
}

bool reactor_threads_work(void)
{
#if __has_include(<valgrind/valgrind.h>)
    return !RUNNING_ON_VALGRIND;
#else
    return true;
#endif
}

struct reactor_thread {
    struct reactor *reactor;
    pthread_t thread;
};

static void *thread_main(void *arg)
{
    reactor_run(((struct reactor_thread *)arg)->reactor, NULL, NULL);
    return NULL;
}

struct reactor_thread *reactor_thread_start(const struct reactor_config *config)
{
    struct reactor_thread *t = calloc(1, sizeof(*t));
    VP_VERIFY(t, !=, NULL);
    t->reactor = make(config);
    VP_VERIFY(pthread_create(&t->thread, NULL, thread_main, t), ==, 0);
    return t;
}

struct reactor *reactor_thread_reactor(struct reactor_thread *t)
{
    return t->reactor;
}

void reactor_thread_join(struct reactor_thread *t)
{
    reactor_stop(t->reactor);
    VP_VERIFY(pthread_join(t->thread, NULL), ==, 0);
    reactor_free(t->reactor);
    free(t);
}
