/* What became of requests that were accepted and not answered in full, for the error log. */
#ifndef PW_INCIDENT_H
#define PW_INCIDENT_H

#include "state.h"

/* The client's address, as text. */
void pw_peer_name(const pw_conn *conn, pw_peer *peer);

/* False: out of memory. */
bool pw_incidents_init(pw_incidents *incidents);
/* Whether pw_incident_take has something to say. */
bool pw_incidents_wait(const pw_incidents *incidents);
/* What the request of this connection has met; PW_INCIDENT_ERROR: whatever `error` means, and nothing
 * where it only means that the client has gone. */
void pw_incident_conn(pw_server *server, const pw_conn *conn, int what, int error);
/* The same of what meets many, once in a while: *told is when it was last told. */
void pw_incident_often(pw_server *server, const pw_conn *conn, int what, int64_t *told);
/* The same while a thread is at the request. */
void pw_incident_thread(const pw_thread *thread, const pw_conn *conn, int what, int error);
/* One more of which nothing can be told. */
void pw_incident_lost(pw_server *server);
/* Connections were waiting to be accepted when the server ended. */
void pw_incident_backlog(pw_server *server);

/* Keeps the request line of the request that the thread takes, for incidents. */
void pw_thread_keep_line(pw_thread *thread, const pw_conn *conn);
/* The thread leaves a response behind that is not yet sent: the same for the connection. */
void pw_conn_keep_line(const pw_thread *thread, pw_conn *conn);

#endif
