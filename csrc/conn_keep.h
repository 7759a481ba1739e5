#ifndef PW_CONN_KEEP_H
#define PW_CONN_KEEP_H

#include "state.h"

/*
 * The connection waits with what it has received, and keeps no more memory than that takes. Where all
 * keep more than head_memory, others give theirs up, or it does: it is then in another state.
 */
void pw_conn_keep(pw_server *server, pw_conn *conn);
/* The same where it need not wait long, or is wanted as it is: only while there is little left. */
void pw_conn_keep_shortly(pw_server *server, pw_conn *conn);

#endif
