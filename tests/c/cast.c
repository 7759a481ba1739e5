#include "cast.h"
#include "clock.h"
#include "locks.h"
#include "poller.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TICK_MS = 2, ROUNDS_MOST = 10000 };

int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __real_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __real_pthread_cond_broadcast(pthread_cond_t *condition);
int __wrap_pthread_cond_broadcast(pthread_cond_t *condition);
bool __real_pw_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, long ns);
bool __wrap_pw_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, long ns);
int __real_clock_gettime(clockid_t clock, struct timespec *to);
int __wrap_clock_gettime(clockid_t clock, struct timespec *to);
int __real_poll(struct pollfd *asked, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *asked, nfds_t count, int timeout);
int __real_pw_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout);

static actor *actors[ACTORS_MOST];
static bool active;
static sem_t home;
static _Thread_local actor *running; /* the actor of this thread; NULL: the test's thread */

/* ------------------------------------------------------------------ the clock */

static bool clock_stands;
static int64_t clock_ns;

void clock_stop(void)
{
    struct timespec now;
    __real_clock_gettime(CLOCK_MONOTONIC, &now);
    clock_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    clock_ns -= clock_ns % 1000000; /* whole milliseconds */
    clock_stands = true;
}

void clock_go(void)
{
    clock_stands = false;
}

void clock_forward(int64_t ns)
{
    clock_ns += ns;
}

void clock_forward_ms(int64_t ms)
{
    clock_forward(ms * 1000000);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *to)
{
    bool monotonic = clock == CLOCK_MONOTONIC;
#ifdef CLOCK_MONOTONIC_COARSE
    monotonic |= clock == CLOCK_MONOTONIC_COARSE;
#endif
    if (!clock_stands || !monotonic)
        return __real_clock_gettime(clock, to);
    to->tv_sec = clock_ns / 1000000000;
    to->tv_nsec = clock_ns % 1000000000;
    return 0;
}

/* ------------------------------------------------------------------ the places where an actor waits */

/* Gives the turn to the test, until the test continues the actor. */
static void actor_stop(actor *self, actor_place place)
{
    self->at = place;
    sem_post(&home);
    while (sem_wait(&self->go) != 0)
        continue;
}

static void actor_wait(actor *self, actor_place place, pthread_cond_t *condition,
                       pthread_mutex_t *lock)
{
    self->condition = condition;
    self->signalled = false;
    pthread_mutex_unlock(lock);
    actor_stop(self, place);
    pthread_mutex_lock(lock);
    self->condition = NULL;
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock)
{
    if (running == NULL)
        return __real_pthread_cond_wait(condition, lock);
    actor_wait(running, AT_SLEEP, condition, lock);
    return 0;
}

bool __wrap_pw_condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, long ns)
{
    if (running == NULL)
        return __real_pw_condition_wait(condition, lock, ns);
    REQUIRE(ns == TICK_MS * 1000000);
    actor_wait(running, AT_TICK, condition, lock);
    return running->signalled;
}

/* Wakes the thread that has waited longest; any other would be correct, too. */
static void wake(const pthread_cond_t *condition, bool all)
{
    for (int i = 0; i < ACTORS_MOST; i++) {
        actor *one = actors[i];
        if (one == NULL || one->condition != condition || one->signalled)
            continue;
        one->signalled = true;
        if (!all)
            return;
    }
}

int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
    if (!active)
        return __real_pthread_cond_signal(condition);
    wake(condition, false);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *condition)
{
    if (!active)
        return __real_pthread_cond_broadcast(condition);
    wake(condition, true);
    return 0;
}

bool cast_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout, int *count)
{
    if (running == NULL)
        return false;
    *count = __real_pw_poll_wait(poll, events, 0);
    if (*count == 0 && timeout != 0) {
        running->due = timeout < 0 ? -1 : pw_now() + timeout;
        actor_stop(running, AT_POLL);
        *count = __real_pw_poll_wait(poll, events, 0);
    }
    return true;
}

int __wrap_poll(struct pollfd *asked, nfds_t count, int timeout)
{
    if (running == NULL || timeout == 0)
        return __real_poll(asked, count, timeout);
    int found = __real_poll(asked, count, 0);
    if (found != 0)
        return found;
    actor_stop(running, AT_CLIENT);
    return __real_poll(asked, count, 0);
}

/* ------------------------------------------------------------------ actors */

static void *act(void *itself)
{
    actor *self = itself;
    running = self;
    for (;;) {
        actor_stop(self, AT_HOME);
        if (self->ends)
            return NULL;
        self->result = self->call(self);
        REQUIRE(locks_held() == 0);
    }
}

actor_place actor_go(actor *self)
{
    sem_post(&self->go);
    while (sem_wait(&home) != 0)
        continue;
    return self->at;
}

actor_place actor_call(actor *self, int64_t (*call)(actor *self))
{
    REQUIRE(self->at == AT_HOME);
    self->call = call;
    return actor_go(self);
}

int64_t call_next(actor *self)
{
    return pw_next(self->thread);
}

int64_t call_respond(actor *self)
{
    return pw_respond(self->thread, self->head, (int64_t)strlen(self->head), self->body,
                      (int64_t)strlen(self->body), self->flags);
}

int64_t call_watch(actor *self)
{
    return pw_watch(self->server);
}

bool actor_is_ready(const actor *self)
{
    struct pollfd descriptor = {.fd = self->server->poll.fd, .events = POLLIN};
    switch (self->at) {
    case AT_HOME:
    case AT_CLIENT:
        return false;
    case AT_POLL:
        return (self->due >= 0 && self->due <= pw_now()) || __real_poll(&descriptor, 1, 0) > 0;
    case AT_SLEEP:
    case AT_TICK:
        return self->signalled;
    }
    return false;
}

void cast_settle(void)
{
    bool any = true;
    for (int rounds = 0; any; rounds++) {
        REQUIRE(rounds < ROUNDS_MOST); /* or an actor never waits */
        any = false;
        for (int i = 0; i < ACTORS_MOST; i++)
            if (actors[i] != NULL && actor_is_ready(actors[i])) {
                actor_go(actors[i]);
                any = true;
            }
    }
}

void cast_tick(actor *watcher)
{
    clock_forward_ms(TICK_MS);
    if (watcher->at == AT_TICK)
        actor_go(watcher);
    cast_settle();
}

actor *cast_add(pw_server *server, pw_thread *thread, const char *name)
{
    int at = 0;
    while (at < ACTORS_MOST && actors[at] != NULL)
        at++;
    REQUIRE(at < ACTORS_MOST);
    actor *self = calloc(1, sizeof *self);
    REQUIRE(self != NULL);
    *self = (actor){.server = server, .thread = thread, .name = name};
    sem_init(&self->go, 0, 0);
    actors[at] = self;
    REQUIRE(pthread_create(&self->id, NULL, act, self) == 0);
    while (sem_wait(&home) != 0)
        continue;
    return self;
}

void cast_remove(actor *self)
{
    REQUIRE(self->at == AT_HOME);
    self->ends = true;
    sem_post(&self->go);
    pthread_join(self->id, NULL);
    sem_destroy(&self->go);
    for (int i = 0; i < ACTORS_MOST; i++)
        if (actors[i] == self)
            actors[i] = NULL;
    free(self);
}

void cast_begin(void)
{
    sem_init(&home, 0, 0);
    active = true;
    clock_stop();
}

void cast_end(void)
{
    for (int i = 0; i < ACTORS_MOST; i++)
        if (actors[i] != NULL)
            cast_remove(actors[i]);
    sem_destroy(&home);
    active = false;
    clock_go();
}
