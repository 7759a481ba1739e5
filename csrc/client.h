/* The client that has sent a request, and the proxy that has named it. */
#ifndef PW_CLIENT_H
#define PW_CLIENT_H

#include "state.h"

/* Writes the address of the connection's socket as text. */
void pw_peer_name(const pw_conn *conn, pw_peer *peer);

/* Parses the head of the connection's request again. The first parse was successful. */
void pw_parse_again(pw_server *server, const pw_conn *conn);

/* The client of the request that the thread has, as forwarded. NULL: it is not forwarded. */
const pw_peer *pw_thread_client(const pw_thread *thread, const pw_conn *conn);
/* The same for a request whose head is complete, and that no thread has. Valid until the next head is
 * parsed. */
const pw_peer *pw_waiting_client(pw_server *server, const pw_conn *conn);

#endif
