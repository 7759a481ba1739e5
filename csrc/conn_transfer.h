/* Connections that pass between processes. */
#ifndef PW_CONN_TRANSFER_H
#define PW_CONN_TRANSFER_H

#include "state.h"

/* Whether connections can be handed over, and are to be. */
bool pw_transfer_is_open(const pw_server *server);
/* Hands a connection over, of which nothing is read that has not been answered; it stays open here.
 * False: nobody can take it now. */
bool pw_transfer_send(const pw_server *server, const pw_conn *conn);
/* Like accept; -1 with errno 0: nothing comes any more. Checks that *number is below count. */
int pw_transfer_receive(int channel, struct sockaddr_storage *peer, uint8_t *number, int count);

#endif
