/*
 * Threads of a server that take turns. Each actor is a thread of the system, but only one of them
 * runs at a time: from the point where the test continues it to the point where it would wait or
 * returns from its call into the core. So a test chooses the order of steps, and sees the server
 * between them. The linker replaces the functions in which the core waits by those of this file
 * (see tools/c.mk).
 *
 * The clock does not move between cast_begin and cast_end, unless a test moves it.
 */
#ifndef PW_CAST_H
#define PW_CAST_H

#include <pthread.h>
#include <semaphore.h>

#include "check.h"
#include "state.h"

typedef enum {
    AT_HOME,   /* returned from its call */
    AT_POLL,   /* in pw_poll_wait */
    AT_SLEEP,  /* waits for a condition, without a limit */
    AT_TICK,   /* waits for a condition for a tick */
    AT_CLIENT, /* waits for a client to read */
} actor_place;

typedef struct actor {
    pw_server *server; /* borrowed */
    pw_thread *thread; /* borrowed; NULL: the watcher */
    const char *name;  /* for messages */
    actor_place at;
    bool signalled;          /* the condition that it waits for */
    int64_t result;          /* of its last call */
    int64_t due;             /* ms: the end of its poll; -1: never */
    const char *head, *body; /* of its next response */
    const void *with;        /* borrowed: for the calls of a test */
    int32_t flags;           /* the flags of that call */
    int64_t (*call)(struct actor *self);
    const pthread_cond_t *condition;
    pthread_t id;
    sem_t go;
    bool ends;
} actor;

enum { ACTORS_MOST = 16 };

void cast_begin(void);
/* Every actor has to be AT_HOME. */
void cast_end(void);
actor *cast_add(pw_server *server, pw_thread *thread, const char *name);
/* The actor has to be AT_HOME. */
void cast_remove(actor *self);

/* Starts a call, which runs until it waits or returns. Returns that place. */
actor_place actor_call(actor *self, int64_t (*call)(actor *self));
/* Calls for actor_call: pw_next, pw_respond with the actor's head and body, pw_watch. */
int64_t call_next(actor *self);
int64_t call_respond(actor *self);
int64_t call_watch(actor *self);
/* Continues an actor that waits: its event has come, or its time is over. */
actor_place actor_go(actor *self);
/* Whether the event that the actor waits for has come. */
bool actor_is_ready(const actor *self);
/* Continues all actors whose event has come, one after the other, until there is none. */
void cast_settle(void);
/* Ends the watcher's tick, if it waits for one, and settles. */
void cast_tick(actor *watcher);

/* For site.c. Returns whether an actor has waited in it. */
bool cast_poll_wait(pw_poll *poll, pw_event events[PW_EVENTS_MOST], int timeout, int *count);

/* Moves the clock by so many ns. */
void clock_forward(int64_t ns);
void clock_forward_ms(int64_t ms);
/* Stops the clock, or starts it again. */
void clock_stop(void);
void clock_go(void);

#endif
