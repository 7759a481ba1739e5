/* An exchange: one request that a thread has taken, and its response.
 * All functions are called with the lock. */
#ifndef PW_EXCHANGE_H
#define PW_EXCHANGE_H

#include "state.h"

/* Waits for the turn to send for an exchange. NULL: the exchange is over. */
pw_conn *pw_turn_take(pw_thread *thread, int64_t exchange);
void pw_turn_give(pw_thread *thread);
/* Blocks the thread until the client has taken the output except for `most` bytes. Without the lock.
 * No other thread touches the output: this thread has the turn, and nothing is batched. Returns 0 or
 * the incident. */
int pw_turn_wait(pw_server *server, pw_conn *conn, int64_t most);
/* Counts the response, which is complete, and writes its line to the access log. Call this before
 * pw_exchange_end. */
void pw_exchange_note(pw_thread *thread, const pw_conn *conn);
/* Ends the exchange, whose response is complete, for the thread. The
 * thread has the turn, or no thread has it. */
void pw_exchange_end(pw_thread *thread);
/* The same, but leaves the connection to the caller, and returns it. */
pw_conn *pw_exchange_leave(pw_thread *thread);
/* The outcome for a part of an exchange that is over. If the application has taken the connection,
 * the part is dropped. The application may continue for some parts: a debugger makes its page first, and
 * logs the error then. */
#define PW_DROPPED_MOST 64
int32_t pw_exchange_drop(pw_thread *thread, int64_t exchange);
/* Drops the response of an exchange whose connection was taken, and ends that connection. Does
 * nothing for other exchanges. */
void pw_exchange_ignore(pw_thread *thread);
/* Ends an exchange that the thread has not finished, if there is one. */
void pw_exchange_abandon(pw_thread *thread);

#endif
