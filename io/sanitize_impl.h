/* What the sanitizers and valgrind must be told about stacks and buffers; nothing elsewhere. */
#ifndef VP_IO_SANITIZE_IMPL_H
#define VP_IO_SANITIZE_IMPL_H

#include <stdbool.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SAN_ADDRESS 1
#endif
#if __has_feature(thread_sanitizer)
#define SAN_THREAD 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define SAN_ADDRESS 1
#endif
#ifdef __SANITIZE_THREAD__
#define SAN_THREAD 1
#endif

#ifdef SAN_ADDRESS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define san_switch_start(save, bottom, size) __sanitizer_start_switch_fiber(save, bottom, size)
#define san_switch_finish(save)              __sanitizer_finish_switch_fiber(save, NULL, NULL)
#define san_poison(addr, size)               __asan_poison_memory_region(addr, size)
#define san_unpoison(addr, size)             __asan_unpoison_memory_region(addr, size)
#else
#define san_switch_start(save, bottom, size) ((void)0)
#define san_switch_finish(save)              ((void)0)
#define san_poison(addr, size)               ((void)0)
#define san_unpoison(addr, size)             ((void)0)
#endif

#ifdef SAN_THREAD
#include <sanitizer/tsan_interface.h>
#define san_fiber_new()         __tsan_create_fiber(0)
#define san_fiber_free(fiber)   __tsan_destroy_fiber(fiber)
#define san_fiber_current()     __tsan_get_current_fiber()
#define san_fiber_switch(fiber) __tsan_switch_to_fiber(fiber, 0)
#else
#define san_fiber_new()         NULL
#define san_fiber_free(fiber)   ((void)(fiber))
#define san_fiber_current()     NULL
#define san_fiber_switch(fiber) ((void)(fiber))
#endif

/* san_kernel_wrote: valgrind does not see what arrives through a ring. san_one_thread: it runs one
 * thread at a time, and none at all while one waits in io_uring_enter. */
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#include <valgrind/valgrind.h>
#define san_kernel_wrote(addr, size)  ((void)VALGRIND_MAKE_MEM_DEFINED(addr, size))
#define san_stack_register(low, high) VALGRIND_STACK_REGISTER(low, high)
#define san_stack_deregister(id)      VALGRIND_STACK_DEREGISTER(id)
#define san_one_thread()              (RUNNING_ON_VALGRIND > 0)
#else
#define san_kernel_wrote(addr, size)  ((void)0)
#define san_stack_register(low, high) 0U
#define san_stack_deregister(id)      ((void)(id))
#define san_one_thread()              false
#endif

#endif
