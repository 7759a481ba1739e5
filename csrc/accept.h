/* New connections. */
#ifndef PW_ACCEPT_H
#define PW_ACCEPT_H

#include "state.h"

/* Accepts what the poller has reported. */
void pw_accept_event(pw_server *server, pw_listener *listener);

/* While it pauses because there is no room: whether an idle connection can go for a new one, now or soon. */
void pw_accept_look(pw_server *server);

/* While this process leaves new connections to the others: for how long at most, in ms; else -1. */
int pw_accept_timeout(pw_server *server);
/* The wait is over: it may be this process's turn after all. */
void pw_accept_waited(pw_server *server);
/* No new connections are for this process any more. */
void pw_accept_leave(pw_server *server);

/* Accepts what waits as far as there is room, and closes the sockets where nothing waits any more, or
 * others accept it. */
void pw_accept_drain(pw_server *server);

#endif
