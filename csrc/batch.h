/* When a response leaves; all with the lock. */
#ifndef PW_BATCH_H
#define PW_BATCH_H

#include "state.h"

#define PW_GATHER_LOOK_MS 20 /* how often to look while the watcher runs the loop */

/* From here on the watcher sends what the connection's output holds. */
void pw_gather_begin(pw_server *server, pw_conn *conn);
/* The output is the thread's own again. */
void pw_gather_end(pw_server *server, pw_conn *conn);
/* Whether so many bytes are better sent together with what follows them. */
bool pw_gather_wants(const pw_server *server, const pw_conn *conn, size_t size);
/* Sends what is due, or all. By the watcher. */
void pw_gather_flush(pw_server *server, bool all);

/* Answers to pipelined requests that wait for the one that the application is at. */
void pw_token_flush(pw_thread *thread);
/* Whether a response of this size is to wait for those of the requests received with it. */
bool pw_response_waits(const pw_server *server, const pw_conn *conn, size_t size);

#endif
