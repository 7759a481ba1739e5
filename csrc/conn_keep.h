#ifndef PW_CONN_KEEP_H
#define PW_CONN_KEEP_H

#include "state.h"

/*
 * Reduces the memory of a connection that waits to what its received bytes need. If all connections
 * together keep more than head_memory, other connections free theirs, or this one does. In that
 * case its state has changed.
 */
void pw_conn_keep(pw_server *server, pw_conn *conn);
/* The same for a short wait, or for a buffer that is in use: only if little memory is left. */
void pw_conn_keep_shortly(pw_server *server, pw_conn *conn);

#endif
