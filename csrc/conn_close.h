/* How a connection ends. */
#ifndef PW_CONN_CLOSE_H
#define PW_CONN_CLOSE_H

#include "state.h"

/* The outcome of a step; each state has one. */
typedef enum { PW_STEP_ON, PW_STEP_WAIT, PW_STEP_REQUEST } pw_step;

void pw_conn_release_buffer(pw_server *server, pw_conn *conn);
/* How many bytes are received and not taken yet. */
size_t pw_conn_unused(const pw_conn *conn);
/* Gives up its entry in the cache of heads. */
void pw_conn_forget(pw_server *server, pw_conn *conn);
/* Nothing of the response is left in the output: Python need not keep what it has lent for it. */
void pw_conn_sent(pw_server *server, pw_conn *conn);

/* Ends it now: by a reset where that is asked for, or where output is left, so that no client takes a
 * part for the whole; otherwise in an orderly way. */
void pw_conn_close(pw_server *server, pw_conn *conn);
/* Another process has it now, and goes on with it. */
void pw_conn_leave(pw_server *server, pw_conn *conn);
/* Ends it as soon as its client can have all that was sent: now, or in PW_CONN_LINGER. */
pw_step pw_conn_part(pw_server *server, pw_conn *conn);
/* Its response ends here, though its client is still there: that gets what was sent before, and then a
 * reset. What pw_conn_part returns. */
pw_step pw_conn_break_off(pw_server *server, pw_conn *conn);
/* The end of a connection that cannot go on; errno says why. */
pw_step pw_conn_fail(pw_server *server, pw_conn *conn);

/* Answers with an error, and nothing more is read as a request. */
void pw_conn_refuse(pw_server *server, pw_conn *conn, pw_error error);
/* The same for one that waits, and is not the connection that the loop is at. */
void pw_conn_refuse_waiting(pw_server *server, pw_conn *conn, pw_error error);

/* Whether its client has what it was sent, or will have it though the connection is closed. */
bool pw_conn_is_served(const pw_conn *conn);

/* How much is on its way that would be lost with a reset. */
int pw_conn_unsent(const pw_conn *conn);

/* The response cannot go on: `what` has happened, for PW_INCIDENT_ERROR errno says it. With the lock.
 * Returns PW_GONE. */
int32_t pw_response_fail_locked(pw_thread *thread, int what);

#endif
