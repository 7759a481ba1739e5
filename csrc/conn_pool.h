/* The memory of connections. */
#ifndef PW_CONN_POOL_H
#define PW_CONN_POOL_H

#include "state.h"

/* How many freed connections the pool keeps. */
#ifdef PW_SANITIZERS
#define PW_SPARE_MOST 0 /* lets the sanitizer find a use after free */
#else
#define PW_SPARE_MOST 64
#endif

/* Zeroed memory for a new connection; NULL without memory. */
pw_conn *pw_conn_take(pw_server *server);
/* Called when a connection leaves a queue. If it is closed,
 * returns true, and pw_reap will free it. */
bool pw_conn_defer_free(pw_server *server, pw_conn *conn);
/* Frees the closed connections. Called when no fetched event can refer to one of them. */
void pw_reap(pw_server *server);
void pw_conn_free_spare(pw_server *server);

#endif
