/* Transfer of connections between processes. */
#ifndef PW_CONN_TRANSFER_H
#define PW_CONN_TRANSFER_H

#include "state.h"

/* Whether this server is to hand connections over, and the other process accepts them. */
bool pw_transfer_is_open(const pw_server *server);
/* Hands a connection over, all of whose requests are answered. It stays open here. False: the other
 * process cannot take it now. */
bool pw_transfer_send(const pw_server *server, const pw_conn *conn);
/* Like accept. -1 with errno 0: no more connections come. *number is checked to be below count. */
int pw_transfer_receive(int channel, struct sockaddr_storage *peer, uint8_t *number, int count);

#endif
