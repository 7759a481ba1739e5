/* The current numbers of a server, for --metrics and for the other servers on its sockets. */
#ifndef PW_GAUGES_H
#define PW_GAUGES_H

#include "state.h"

void pw_gauges_store(pw_server *server);
void pw_bytes_store(pw_server *server, pw_conn *conn);

/*
 * Stores the current numbers of connections, threads and requests. A thread calls this before it waits
 * with the lock released: for events, for the token, or for the next tick. It also calls this when it
 * takes a request while another thread runs the loop, and when the server has stopped. If it takes a
 * request and keeps the token, the watcher counts the ticks, and stores the numbers at the next one.
 */
static inline void pw_gauges(pw_server *server)
{
    if (server->meter != NULL || server->accept.place != NULL)
        pw_gauges_store(server);
}

/* Adds the bytes that the connection has received and sent since the last call. With the lock, and
 * with the turn to send (exchange.c) while the application has the connection. */
static inline void pw_bytes(pw_server *server, pw_conn *conn)
{
    if (server->meter != NULL)
        pw_bytes_store(server, conn);
}

#endif
