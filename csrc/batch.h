/* Batching: which output waits for more. All functions are called with the lock. */
#ifndef PW_BATCH_H
#define PW_BATCH_H

#include "state.h"

#define PW_BATCH_LOOK_MS 20 /* how often the watcher looks for due output while it runs the loop */

/* From now on the watcher sends the connection's output. */
void pw_batch_begin(pw_server *server, pw_conn *conn);
/* The output belongs to the thread again. */
void pw_batch_end(pw_server *server, pw_conn *conn);
/* Whether a part of this size has to wait for the next parts. */
bool pw_batch_takes(const pw_server *server, const pw_conn *conn, size_t size);
/* The watcher sends the output that is due. all: all output. */
void pw_batch_flush(pw_server *server, bool all);

/* Whether a whole response of this size has to wait for the next one. */
bool pw_batch_waits(const pw_server *server, const pw_conn *conn, size_t size);
/* Sends the earlier responses that wait for the response to the thread's current request. */
void pw_batch_release(pw_thread *thread);

#endif
