/* The states of a connection. */
#ifndef PW_CONN_H
#define PW_CONN_H

#include "state.h"

typedef enum { PW_DRIVE_WAIT, PW_DRIVE_REQUEST } pw_drive;

/* Drives a connection until it waits, is closed, or has a complete request. */
pw_drive pw_conn_drive(pw_server *server, pw_conn *conn);
/* The poller has reported these edges. */
void pw_conn_event(pw_server *server, pw_conn *conn, int what);
/* The application has finished with the connection's request. Its output may not be sent yet. */
void pw_conn_finished(pw_server *server, pw_conn *conn);

#endif
