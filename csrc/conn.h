/* The states of a connection. */
#ifndef PW_CONN_H
#define PW_CONN_H

#include "state.h"

typedef enum { PW_DRIVE_WAIT, PW_DRIVE_REQUEST } pw_drive;

/* Goes on with a connection until it waits, is closed, or has a complete request. */
pw_drive pw_conn_drive(pw_server *server, pw_conn *conn);
/* What the poller has said. */
void pw_conn_event(pw_server *server, pw_conn *conn, int what);
/* The application has finished with its request, its output may be on its way. */
void pw_conn_finished(pw_server *server, pw_conn *conn);

#endif
