/* The token: which thread runs the loop. */
#ifndef PW_TOKEN_H
#define PW_TOKEN_H

#include "state.h"

#define PW_LOOK_MS 100 /* how often the watcher looks for slow requests */
#define PW_WARNINGS 2  /* how often a slow thread is named: PW_WATCH_SLOW, then PW_WATCH_STUCK */

/*
 * Waits for the token. False: the thread does not get it now, and *number is the result for
 * pw_next. picks: that may also be a request, which the thread has taken from
 * server->ready.
 */
bool pw_token_take(pw_thread *thread, bool picks, int64_t *number);
/* The thread goes to the application with a request, and keeps the token or yields it. */
void pw_token_keep(pw_thread *thread);
/* The thread goes to Python without a request, and keeps the token. */
void pw_token_carry(pw_thread *thread);
/* Without the lock: the thread leaves the core for Python with this number, or it has come back.
 * Both take the measurements for the yield rule. */
void pw_token_leave(pw_thread *thread, int64_t number);
void pw_token_back(pw_thread *thread);
/* Without the lock: the thread waits for a slow client from now on, or no longer. */
void pw_token_hold(pw_thread *thread, bool held);
/* The thread will be freed: no other thread waits for it. */
void pw_token_drop(pw_thread *thread);
/* When the watcher, which runs the loop, has to look for slow requests, in ms; 0: never. */
int64_t pw_watch_due(const pw_server *server);
/* Whether the watcher has other work than to run the loop. */
bool pw_watch_is_wanted(const pw_server *server);
/* The number of threads that pw_watch has reported as stuck, or whose response was cut off, and that
 * have not come back. *conns: the number of their connections. */
int32_t pw_token_count_stuck(const pw_server *server, int32_t *conns);
/* Wakes all threads: the server has stopped. */
void pw_token_stop(pw_server *server);

/* Gives the token to a thread. NULL: to the first thread that comes. */
void pw_token_give(pw_server *server, pw_thread *thread);
/* Gives the token to the idle thread that was busy last, so that few
 * threads are in use. False: there is none. */
bool pw_token_wake_idle(pw_server *server);
bool pw_token_may_grow(const pw_server *server);
bool pw_token_is_stalled(const pw_server *server);
/* Whether no thread holds the token, and none will take it: it was free for a tick although a
 * thread was signalled, or all threads are in the application. */
bool pw_token_is_unheld(const pw_server *server);

#endif
