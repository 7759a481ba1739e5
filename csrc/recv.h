/* Receiving. */
#ifndef PW_RECV_H
#define PW_RECV_H

#include "state.h"

/* Receives into conn->in, which is made if there is none. Clears PW_READABLE when all is read. */
pw_io pw_recv(pw_server *server, pw_conn *conn);
/* Receives into memory of the caller. */
pw_io pw_recv_into(pw_conn *conn, char *to, size_t room, size_t *got);

#endif
