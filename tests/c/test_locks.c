/* tests/c/locks.c: the count of the locks that a thread holds. */
#include "locks.h"

#include <errno.h>
#include <pthread.h>

#include "check.h"

static void each_lock_is_counted_until_it_is_released(void)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&lock);
    CHECK_INT(locks_held(), 1);
    pthread_mutex_unlock(&lock);
    CHECK_INT(locks_held(), 0);
}

static void an_attempt_counts_only_if_it_takes_the_lock(void)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    CHECK_INT(pthread_mutex_trylock(&lock), 0);
    CHECK_INT(locks_held(), 1);
    CHECK_INT(pthread_mutex_trylock(&lock), EBUSY);
    CHECK_INT(locks_held(), 1);
    pthread_mutex_unlock(&lock);
    CHECK_INT(locks_held(), 0);
}

int main(void)
{
    RUN(each_lock_is_counted_until_it_is_released);
    RUN(an_attempt_counts_only_if_it_takes_the_lock);
    return check_end();
}
