/*
 * Checks every lock of the core: only its holder releases it, no holder takes it again, and no call
 * returns with a lock. The linker replaces the system's functions by these (see tools/c.mk), also
 * for libFuzzer, which tries to take a lock of its own.
 */
#include <pthread.h>
#include <unistd.h>

#include "check.h"
#include "locks.h"

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_mutex_trylock(pthread_mutex_t *mutex);
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);

static pid_t process;
static _Thread_local int held; /* locks of this thread */

int locks_held(void)
{
    return held;
}

__attribute__((constructor)) static void remember_process(void)
{
    process = getpid();
}

/* glibc stores the holder in the lock, also after a thread has waited for a condition. In a forked
 * process the holder is a thread of the parent. */
static bool is_held(const pthread_mutex_t *mutex, bool unknown)
{
#ifdef __GLIBC__
    return process == getpid() ? mutex->__data.__owner == gettid() : unknown;
#else
    (void)mutex;
    return unknown;
#endif
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    REQUIRE(!is_held(mutex, false));
    held++;
    return __real_pthread_mutex_lock(mutex);
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex)
{
    int error = __real_pthread_mutex_trylock(mutex);
    if (error == 0)
        held++;
    return error;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    REQUIRE(is_held(mutex, true));
    held--;
    return __real_pthread_mutex_unlock(mutex);
}

__attribute__((destructor)) static void check_none_is_left(void)
{
    REQUIRE(process != getpid() || held == 0);
}
