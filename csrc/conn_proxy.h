/* The PROXY header before the first request of a connection. */
#ifndef PW_CONN_PROXY_H
#define PW_CONN_PROXY_H

#include "conn_close.h"

/* A step in PW_CONN_PROXY: reads the header, and continues with the bytes after it. */
pw_step pw_conn_read_proxy(pw_server *server, pw_conn *conn);

#endif
