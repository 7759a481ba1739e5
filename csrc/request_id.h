/* The id of a request, by which the logs of a proxy, of this server and of the application are joined. */
#ifndef PW_REQUEST_ID_H
#define PW_REQUEST_ID_H

#include "state.h"

/* Whether what the peer says of others is believed: it is on this machine. */
bool pw_peer_is_trusted(const pw_conn *conn);
/* The X-Request-ID of a trusted peer, if that is one, or a new id; ended by NUL. */
void pw_request_id(pw_server *server, const pw_conn *conn, const pw_head *head,
                   char to[PW_REQUEST_ID_SIZE]);

#endif
