/* Transfer of connections between processes. */
#ifndef PW_CONN_TRANSFER_H
#define PW_CONN_TRANSFER_H

#include "state.h"

/* Whether this server is to hand connections over, and the other process accepts them. */
bool pw_transfer_is_open(const pw_server *server);
/* Hands a connection over, all of whose requests are answered. It stays open here. False: the other
 * process cannot take it now. */
bool pw_transfer_send(const pw_server *server, const pw_conn *conn);
/* What comes with a connection. */
typedef struct {
    uint8_t listener;
    bool awaits_proxy; /* its PROXY header has not begun */
    bool is_proxied;   /* `proxied` has the addresses in that header */
    pw_proxied proxied;
} pw_transferred;

/* Like accept. -1 with errno 0: no more connections come. to->listener is checked to be below
 * count. */
int pw_transfer_receive(int channel, struct sockaddr_storage *peer, pw_transferred *to, int count);

#endif
