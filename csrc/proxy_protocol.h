/* The PROXY protocol: the header with which a proxy names its client, before the bytes of HTTP. */
#ifndef PW_PROXY_PROTOCOL_H
#define PW_PROXY_PROTOCOL_H

#include "forwarded_value.h"

#define PW_PROXY_V1_MOST 107 /* bytes of a header of version 1, with its CRLF */
#define PW_PROXY_V2_HEAD 16  /* bytes of a header of version 2 before its addresses */
/* Bytes of a whole header of version 2. The longest addresses leave 3864 of them for TLVs. */
#define PW_PROXY_MOST 4096

/* Why a connection does not begin with a valid header. */
typedef enum {
    PW_PROXY_VALID,
    PW_PROXY_MISSING, /* the first bytes are of no header */
    PW_PROXY_MALFORMED,
    PW_PROXY_LONG, /* more bytes than PW_PROXY_MOST */
} pw_proxy_error;

/* The connection between the client and the proxy. */
typedef struct {
    pw_address source; /* PW_NETWORK_UNIX: the client has connected to a unix socket */
    pw_peer client;    /* the same as text, with the port */
    pw_peer server;    /* where the client has connected to; empty for a unix socket */
} pw_proxied;

typedef struct {
    size_t size;        /* bytes of the header */
    bool has_addresses; /* false: the proxy itself is the client, or does not know its client */
    pw_proxied addresses;
} pw_proxy_header;

/*
 * Reads the header at data[0, size), in version 1 or 2. The result depends on the bytes alone, never
 * on how they were split. PW_PARSE_MORE: the bytes are the beginning of a header.
 */
pw_parse pw_proxy_read(const char *data, size_t size, pw_proxy_header *to, pw_proxy_error *error);

/* The sender of a connection's requests. proxied NULL: no proxy has named it, so it is the peer. */
static inline const pw_peer *pw_sender_of(const pw_proxied *proxied, const pw_peer *peer)
{
    return proxied != NULL ? &proxied->client : peer;
}

#endif
