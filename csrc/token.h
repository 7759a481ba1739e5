/* Which thread runs the loop. */
#ifndef PW_TOKEN_H
#define PW_TOKEN_H

#include "state.h"

#define PW_LOOK_MS 100 /* how often slow requests are looked for */

/*
 * Waits for the token. False: it is not available now, and *number is what pw_next returns: also a
 * request, if `picks`.
 */
bool pw_token_take(pw_thread *thread, bool picks, int64_t *number);
/* The thread goes to the application with a request, and keeps the token or yields it. */
void pw_token_keep(pw_thread *thread);
/* The thread goes to Python without a request, and keeps the token. */
void pw_token_carry(pw_thread *thread);
/* Without the lock: the thread leaves the core for Python with this number, or has come back. */
void pw_token_leave(pw_thread *thread, int64_t number);
void pw_token_back(pw_thread *thread);
/* Without the lock: a slow client holds the thread from now on, or no more. */
void pw_token_hold(pw_thread *thread, bool held);
/* The thread is to be freed: nobody is to wait for it. */
void pw_token_drop(pw_thread *thread);
/* When the watcher, running the loop, has to look at the threads again: ms, 0: never. */
int64_t pw_watch_due(const pw_server *server);
/* Whether it has something else to do than to run the loop. */
bool pw_watch_is_wanted(const pw_server *server);
/* Ends all waiting: the server has stopped. */
void pw_token_stop(pw_server *server);

/* To a thread, or to the first that comes (NULL). */
void pw_token_give(pw_server *server, pw_thread *thread);
/* The thread that went to sleep last goes on first: the fewer are in use, the better. */
bool pw_token_wake_idle(pw_server *server);
bool pw_token_may_grow(const pw_server *server);
bool pw_token_is_stalled(const pw_server *server);
/* It was free for a tick, although a thread was signalled; or there is no thread that could take it. */
bool pw_token_is_unheld(const pw_server *server);

#endif
