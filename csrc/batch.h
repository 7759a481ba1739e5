/* When a response leaves; all with the lock. */
#ifndef PW_BATCH_H
#define PW_BATCH_H

#include "state.h"

#define PW_BATCH_LOOK_MS 20 /* how often to look while the watcher runs the loop */

/* From here on the watcher sends what the connection's output holds. */
void pw_batch_begin(pw_server *server, pw_conn *conn);
/* The output is the thread's own again. */
void pw_batch_end(pw_server *server, pw_conn *conn);
/* Whether a part of so many bytes is to wait for those after it. */
bool pw_batch_takes(const pw_server *server, const pw_conn *conn, size_t size);
/* Sends what is due, or all. By the watcher. */
void pw_batch_flush(pw_server *server, bool all);

/* Whether a whole response of so many bytes is to wait for the next one. */
bool pw_batch_waits(const pw_server *server, const pw_conn *conn, size_t size);
/* Sends the responses that wait for that of the request which the application is at. */
void pw_batch_release(pw_thread *thread);

#endif
