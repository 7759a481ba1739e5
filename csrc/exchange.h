/* An exchange: one request that a thread has taken, and its response.
 * All functions are called with the lock. */
#ifndef PW_EXCHANGE_H
#define PW_EXCHANGE_H

#include "state.h"

/* Waits for the turn to send for an exchange. NULL: the exchange is over. */
pw_conn *pw_turn_take(pw_thread *thread, int64_t exchange);
void pw_turn_give(pw_thread *thread);
/* Counts the response, which is complete, and writes its line to the access log. Call this before
 * pw_exchange_end. */
void pw_exchange_note(pw_thread *thread, const pw_conn *conn);
/* Ends the exchange, whose response is complete, for the thread. The
 * thread has the turn, or no thread has it. */
void pw_exchange_end(pw_thread *thread);
/* Ends an exchange that the thread has not finished, if there is one. */
void pw_exchange_abandon(pw_thread *thread);

#endif
