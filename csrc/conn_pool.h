/* The memory of connections. */
#ifndef PW_CONN_POOL_H
#define PW_CONN_POOL_H

#include "state.h"

/* How many connections' memory is kept for the next ones. */
#ifdef PW_SANITIZERS
#define PW_SPARE_MOST 0 /* so that a use after the end is found */
#else
#define PW_SPARE_MOST 64
#endif

/* Zeroed memory for a new connection; NULL without memory. */
pw_conn *pw_conn_take(pw_server *server);
/* Whether the connection, which is out of its queue, is closed. Then pw_reap frees it. */
bool pw_conn_defer_free(pw_server *server, pw_conn *conn);
/* Frees those, when no event that was fetched can be of one of them. */
void pw_reap(pw_server *server);
void pw_conn_free_spare(pw_server *server);

#endif
