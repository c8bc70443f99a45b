/*
 * A unit test that makes a thread says so, once. tests/lib/run-units then wants the words
 * "threads: yes" in the first lines of its source, and those tests run under ThreadSanitizer. The
 * linker puts this function in front of pthread_create (the Makefile, --wrap).
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *arg),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *arg),
                          void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *arg),
                          void *arg)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&said)) {
        puts("[ THREADS  ]");
        fflush(stdout);
    }
    return __real_pthread_create(thread, attr, body, arg);
}
