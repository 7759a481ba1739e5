/* Accepting of new connections. */
#ifndef PW_ACCEPT_H
#define PW_ACCEPT_H

#include "state.h"

/* Accepts the connections that the poller has reported. */
void pw_accept_event(pw_server *server, pw_listener *listener);

/* While accepting pauses because there is no room: finds out when an
 * idle connection can be closed for a new one. */
void pw_accept_look(pw_server *server);

/* Called before each wait for events: decides whether this server leaves new connections to the
 * others. Returns when it must decide again, in ms. -1: not before the next event. */
int pw_accept_timeout(pw_server *server);
/* Called after each wait: takes connections that the others have left waiting for too long. */
void pw_accept_waited(pw_server *server);
/* This server accepts no more connections. */
void pw_accept_leave(pw_server *server);

/* Accepts waiting connections while there is room. Closes a socket if no connection waits there, or
 * if other processes accept them. */
void pw_accept_drain(pw_server *server);

#endif
