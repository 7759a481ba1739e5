/* A connection waits. */
#ifndef PW_CONN_WAIT_H
#define PW_CONN_WAIT_H

#include "conn_close.h"

/* Nothing can be done now: the poller has to know the connection, and a timer runs. */
pw_step pw_conn_wait(pw_server *server, pw_conn *conn, pw_timer_kind kind, bool restart);

pw_step pw_conn_linger(pw_server *server, pw_conn *conn);

/* Whether nothing of its client's next request is here; one that has just come is gone on with. */
bool pw_conn_is_idle(pw_server *server, pw_conn *conn);

/* The server drains: a connection that waits for its client's next request may have to go. */
void pw_conn_drain(pw_server *server, pw_conn *conn);
/* Its timer has run out. */
void pw_conn_timeout(pw_server *server, pw_conn *conn);

/* The first of the requests that are complete, or NULL. */
pw_conn *pw_ready_pop(pw_server *server);
/* This connection's request has waited for too long, and so have those before it, or all (NULL): 503.
 * `why` is an incident. */
void pw_ready_expire(pw_server *server, const pw_conn *last, int why);

#endif
