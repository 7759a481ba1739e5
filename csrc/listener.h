/* The listening sockets. */
#ifndef PW_LISTENER_H
#define PW_LISTENER_H

#include "state.h"

#define PW_PAUSE_MS 100 /* after descriptors or memory ran out; no event reports the end of that */

/* Counts connections: `change` more, or less. While the server drains, the loop checks after each
 * closed connection whether it was the last one. Any thread may have closed it. */
void pw_accept_count(pw_server *server, int change);
void pw_accept_pause(pw_server *server);

/* Accepts again if there is room. */
void pw_accept_resume(pw_server *server);

/* Adds the listening sockets to the poller, if it does not have them. */
void pw_accept_listen(pw_server *server);
void pw_accept_unlisten(pw_server *server);
/* Removes a socket from the poller. Closing it is not enough: other processes have it open. */
void pw_listener_unpoll(pw_server *server, pw_listener *listener);
void pw_listener_close(pw_server *server, pw_listener *listener);
/* Whether connections wait on the socket. Unlike accept, this needs no free descriptor. */
bool pw_listener_has_waiting(const pw_listener *listener);

/*
 * Whether a listening socket is open while the server drains. Then connections wait there for which
 * there is no room, and accepting is paused; or pw_accept_drain is due.
 */
bool pw_accept_is_open(const pw_server *server);
bool pw_accept_drain_is_due(const pw_server *server);

/* Closes the sockets. Returns whether connections waited there. They are lost unless another
 * process has the sockets too. */
bool pw_accept_close(pw_server *server);

#endif
