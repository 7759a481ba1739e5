/* Waiting of connections. */
#ifndef PW_CONN_WAIT_H
#define PW_CONN_WAIT_H

#include "conn_close.h"

/* Lets the connection wait for its client: the poller watches it, and a timer runs. restart: the
 * timer starts again. */
pw_step pw_conn_wait(pw_server *server, pw_conn *conn, pw_timer_kind kind, bool restart);

pw_step pw_conn_linger(pw_server *server, pw_conn *conn);

/* Whether no byte of the client's next request is here. If one has just arrived, the loop will
 * drive the connection. */
bool pw_conn_is_idle(pw_server *server, pw_conn *conn);

/* The server drains. Closes a connection that waits for the client's next request, or drives it. */
void pw_conn_drain(pw_server *server, pw_conn *conn);
/* The connection's timer has expired. */
void pw_conn_timeout(pw_server *server, pw_conn *conn);

/* The connection with the first complete request, or NULL. */
pw_conn *pw_ready_pop(pw_server *server);
/* Answers 503 to the connections in `ready` up to `last`, or to all for NULL: they have waited for
 * too long. `why` is the incident. */
void pw_ready_expire(pw_server *server, const pw_conn *last, int why);

#endif
