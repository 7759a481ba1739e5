/* One request that a thread has taken, and the response to it; with the lock. */
#ifndef PW_EXCHANGE_H
#define PW_EXCHANGE_H

#include "state.h"

/* The turn to send for an exchange; waits while another thread has it. NULL: the exchange is over. */
pw_conn *pw_turn_take(pw_thread *thread, int64_t exchange);
void pw_turn_give(pw_thread *thread);
/* The exchange is over for the thread, which has the turn or nobody: its response is complete. */
void pw_exchange_end(pw_thread *thread);
/* Ends one that the thread has not finished, if there is one. */
void pw_exchange_abandon(pw_thread *thread);

#endif
