/* The event loop. */
#ifndef PW_LOOP_H
#define PW_LOOP_H

#include "state.h"

/* Runs the loop until there is a result for pw_next. Called by the holder of the token with the
 * lock, which is released during polls. For the watcher the result is PW_IDLE when it has other
 * work. */
int64_t pw_loop(pw_thread *thread);
/* Waits for the token and runs the loop. Returns the result for pw_next. */
int64_t pw_loop_serve(pw_thread *thread);

/* Closes and frees all connections. No thread is in the loop any more. */
void pw_loop_clear(pw_server *server);

#endif
