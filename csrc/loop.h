/* The loop. */
#ifndef PW_LOOP_H
#define PW_LOOP_H

#include "state.h"

/* The loop itself, by the holder; with the lock, which it releases while it waits. The watcher gets
 * PW_IDLE when a thread that can serve waits for the token. */
int64_t pw_loop(pw_thread *thread);
/* What pw_next returns: waits for the token, and runs the loop. */
int64_t pw_loop_serve(pw_thread *thread);

/* Ends and frees all connections; no thread is in the loop any more. */
void pw_loop_clear(pw_server *server);

#endif
