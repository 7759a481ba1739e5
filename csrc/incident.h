/* Incidents for the error log: requests that were accepted and not answered in full. */
#ifndef PW_INCIDENT_H
#define PW_INCIDENT_H

#include "state.h"

/* False: out of memory. */
bool pw_incidents_init(pw_incidents *incidents);
/* Whether there is an incident for pw_incident_take. */
bool pw_incidents_wait(const pw_incidents *incidents);
/* Adds an incident of this connection's request. PW_INCIDENT_ERROR: `error` decides which incident
 * it is, and there is none if the client has disconnected. */
void pw_incident_conn(pw_server *server, const pw_conn *conn, int what, int error);
/* The same for an incident that may come in large numbers: at most one every PW_OFTEN_MS.
 * *last_at: ms, the last one. */
void pw_incident_often(pw_server *server, const pw_conn *conn, int what, int64_t *last_at);
/* The same while a thread has the request. */
void pw_incident_thread(const pw_thread *thread, const pw_conn *conn, int what, int error);
/* Counts an incident without details. */
void pw_incident_lost(pw_server *server);
/* Adds the incident that connections waited to be accepted when the server ended. */
void pw_incident_backlog(pw_server *server);
/* The field with this name is not passed on. */
void pw_incident_dropped(pw_server *server, const pw_conn *conn, pw_span name);
/* Counts a connection that is closed because of its PROXY header, and adds an incident at most once
 * every PW_OFTEN_MS. `what` is one of PW_INCIDENT_PROXY_... */
void pw_incident_proxy(pw_server *server, const pw_conn *conn, int what);
/* So many lines of the access log were dropped. */
void pw_incident_log(pw_server *server, int64_t lines, int error);

/* Keeps the request line of the request that the thread takes, for incidents. */
void pw_thread_keep_line(pw_thread *thread, const pw_conn *conn);
/* Keeps it in the connection, whose response is not yet sent when the thread leaves it. */
void pw_conn_keep_line(const pw_thread *thread, pw_conn *conn);

#endif
