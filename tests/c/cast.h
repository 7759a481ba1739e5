/*
 * Threads of a server that take turns. Each actor is a thread of the system, but only one of them runs
 * at a time: from where the test lets it go on to where it would wait, or comes back from its call
 * into the core. So a test decides about every order of steps, and sees the server between them. The
 * linker puts the functions in which the core waits in the place of those of the system (see the
 * Makefile).
 *
 * The clock stands still between cast_begin and cast_end, unless a test moves it.
 */
#ifndef PW_CAST_H
#define PW_CAST_H

#include <pthread.h>
#include <semaphore.h>

#include "check.h"
#include "state.h"

typedef enum {
    AT_HOME,   /* back from its call */
    AT_POLL,   /* in pw_poll_wait */
    AT_SLEEP,  /* waits for a condition, without a limit */
    AT_TICK,   /* waits for a condition for a tick */
    AT_CLIENT, /* waits for a client, as the application's own doing */
} actor_place;

typedef struct actor {
    pw_server *server; /* borrowed */
    pw_thread *thread; /* borrowed; NULL: the watcher */
    const char *name;  /* for messages */
    actor_place at;
    bool signalled;          /* while it waits for a condition */
    int64_t result;          /* of its last call */
    int64_t due;             /* ms: when its poll has waited long enough; -1: never */
    const char *head, *body; /* what its next response is made of */
    const void *with;        /* borrowed: for the calls of a test */
    int32_t flags;           /* of that */
    int64_t (*call)(struct actor *self);
    const pthread_cond_t *condition;
    pthread_t id;
    sem_t go;
    bool ends;
} actor;

enum { ACTORS_MOST = 16 };

void cast_begin(void);
/* Every actor has to be at home. */
void cast_end(void);
actor *cast_add(pw_server *server, pw_thread *thread, const char *name);
/* It has to be at home. */
void cast_remove(actor *self);

/* Begins a call, and lets it go on to where it waits or comes back; returns where that is. */
actor_place actor_call(actor *self, int64_t (*call)(actor *self));
/* Calls for it: pw_next, pw_respond with its head and body, pw_watch. */
int64_t call_next(actor *self);
int64_t call_respond(actor *self);
int64_t call_watch(actor *self);
/* Lets one that waits go on: what it has waited for has come, or its time is over. */
actor_place actor_go(actor *self);
/* Whether it waits for something that has come. */
bool actor_is_ready(const actor *self);
/* Lets all go on for whom something has come, one after the other, until there is none. */
void cast_settle(void);
/* The time of the watcher's tick is over, if it waits for that; what comes of it is done. */
void cast_tick(actor *watcher);

/* For site.c: whether an actor has waited here. */
bool cast_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout, int *count);

/* Moves the clock; in ns. */
void clock_forward(int64_t ns);
void clock_forward_ms(int64_t ms);
/* From here on the clock stands still, or goes again. */
void clock_stop(void);
void clock_go(void);

#endif
