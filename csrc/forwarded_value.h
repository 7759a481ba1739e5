/* The values in Forwarded and the X-Forwarded fields. */
#ifndef PW_FORWARDED_VALUE_H
#define PW_FORWARDED_VALUE_H

#include "address.h"
#include "text.h"
#include "trust.h"

#define PW_HOST_MOST 255   /* bytes of a name of a host */
#define PW_PREFIX_MOST 512 /* bytes of X-Forwarded-Prefix */
#define PW_PORT_SIZE 6     /* of the text of a port, with its NUL */

/* The address of a client as text. Both members are empty for a unix socket. */
typedef struct {
    char address[PW_ADDRESS_SIZE];
    char port[PW_PORT_SIZE];
} pw_peer;

typedef enum {
    PW_SCHEME_NONE,
    PW_SCHEME_HTTP,
    PW_SCHEME_HTTPS,
    PW_SCHEME_MALFORMED,
} pw_scheme;

/* The sender of a request, as the proxy that got the request describes it. */
typedef struct {
    bool is_here;
    bool is_malformed;
    bool is_trusted; /* it is a trusted proxy itself */
    pw_peer peer;    /* empty if the sender is unknown */
} pw_node;

/* The client, scheme and host of one element of Forwarded, or of all X-Forwarded fields. */
typedef struct {
    bool is_here;
    pw_node client;
    pw_scheme scheme;
    bool host_is_malformed;
    char host[PW_HOST_MOST + PW_PORT_SIZE];
    size_t host_size;
} pw_said;

/* port = 1 to 65535, without leading zeros. False: the text is no port. */
bool pw_read_port(pw_span text, char to[PW_PORT_SIZE]);
/* A proxy says "ws" or "wss" for a request that wants to become a WebSocket. */
pw_scheme pw_scheme_of(pw_span text);
/* The size of a valid host without its port. */
size_t pw_host_name_size(pw_span host);
/* The port of a valid host, at most five digits. Empty: there is none. */
pw_span pw_host_port(pw_span host);
/* Copies a host with its port to `said`. False: it is malformed or too long. */
bool pw_read_host(pw_span text, pw_said *said);
/*
 * A path such as "/app" without "%", of which no segment is empty, "." or "..". A "/" at its end is
 * removed. pchar = unreserved / sub-delims / ":" / "@" (RFC 3986 section 3.3)
 */
bool pw_read_prefix(pw_span text, pw_span *to);
/* The node in an element of Forwarded or X-Forwarded-For. may_be_bare: an IPv6 address may have no
 * brackets. */
pw_node pw_node_of(const pw_trust *trust, pw_span text, bool may_be_bare);

#endif
