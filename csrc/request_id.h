/* The id of a request. It is the same in the logs of a proxy, of this server and of the application. */
#ifndef PW_REQUEST_ID_H
#define PW_REQUEST_ID_H

#include "state.h"

/* Writes the valid X-Request-ID of a trusted peer, or a new id, and a NUL. */
void pw_request_id(pw_server *server, const pw_conn *conn, const pw_head *head,
                   char to[PW_REQUEST_ID_SIZE]);

#endif
