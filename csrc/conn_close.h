/* How a connection ends. */
#ifndef PW_CONN_CLOSE_H
#define PW_CONN_CLOSE_H

#include "state.h"

/* The outcome of a step of the states: continue, wait, or a complete request. */
typedef enum { PW_STEP_ON, PW_STEP_WAIT, PW_STEP_REQUEST } pw_step;

void pw_conn_release_buffer(pw_server *server, pw_conn *conn);
/* The number of received bytes that are not used yet. */
size_t pw_conn_unused(const pw_conn *conn);
/* Frees the connection's entry in the cache of heads. */
void pw_conn_forget(pw_server *server, pw_conn *conn);
/* No byte of the response is left in the output: Python need not keep lent bytes. */
void pw_conn_sent(pw_server *server, pw_conn *conn);

/* Closes the connection now. It ends by a reset if that was requested or output is left, so that no
 * client takes a part for the whole. Otherwise it ends in an orderly way. */
void pw_conn_close(pw_server *server, pw_conn *conn);
/* Frees the connection here and closes its descriptor, without a shutdown: another process
 * continues with it. */
void pw_conn_leave(pw_server *server, pw_conn *conn);
/* The server forgets the connection, which stays open in PW_CONN_APP. Its memory is the caller's,
 * until pw_conn_attach. Events that are fetched already do not harm it. */
void pw_conn_detach(pw_server *server, pw_conn *conn);
/* Puts a connection into the list of all connections. */
void pw_conn_attach(pw_server *server, pw_conn *conn);
/* Ends the connection when its client can have all sent bytes: now, or after PW_CONN_LINGER. */
pw_step pw_conn_part(pw_server *server, pw_conn *conn);
/* Breaks off the response while the client is still connected. The client gets the bytes that were
 * sent before, and then a reset. Returns what pw_conn_part returns. */
pw_step pw_conn_break_off(pw_server *server, pw_conn *conn);
/* Ends a connection after an error; errno says which. */
pw_step pw_conn_fail(pw_server *server, pw_conn *conn);

/* Answers with an error. No more bytes are read as a request. */
void pw_conn_refuse(pw_server *server, pw_conn *conn, pw_error error);
/* The same for a connection that waits and that the loop is not driving. */
void pw_conn_refuse_waiting(pw_server *server, pw_conn *conn, pw_error error);

/* Whether the client has its bytes, or will get them although the connection is closed. */
bool pw_conn_is_served(const pw_conn *conn);

/* The number of sent bytes that a reset could destroy. */
int pw_conn_unsent(const pw_conn *conn);

/* Ends the response, which cannot continue. `what` is the incident; for PW_INCIDENT_ERROR errno is
 * the error. With the lock. Returns PW_GONE. */
int32_t pw_response_fail_locked(pw_thread *thread, int what);

#endif
