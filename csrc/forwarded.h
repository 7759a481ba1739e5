/* A client as a trusted peer describes it: Forwarded (RFC 7239) and the X-Forwarded fields. */
#ifndef PW_FORWARDED_H
#define PW_FORWARDED_H

#include "forwarded_value.h"
#include "head.h"

/* The values that are set. PW_SET_ANY is set with all of them. */
enum {
    PW_SET_ANY = 1,
    PW_SET_CLIENT = 2, /* REMOTE_ADDR and REMOTE_PORT; both are empty if the client is unknown */
    PW_SET_SCHEME = 4, /* wsgi.url_scheme */
    PW_SET_HTTPS = 8,  /* and it is https */
    PW_SET_HOST = 16,  /* HTTP_HOST */
    PW_SET_NAME = 32,  /* SERVER_NAME */
    PW_SET_PORT = 64,  /* SERVER_PORT */
    PW_SET_PREFIX = 128,
};

typedef struct {
    uint8_t set; /* PW_SET_ANY ... */
    pw_peer client;
    char host[PW_HOST_MOST + PW_PORT_SIZE]; /* with its port, without NUL */
    size_t host_size;
    size_t name_size; /* of the host without its port */
    char port[PW_PORT_SIZE];
    pw_span prefix; /* borrowed from the head; empty, or begins with "/" and does not end with it */
} pw_forwarded;

/* The most bytes that these values need in a block. */
#define PW_FORWARDED_MOST (sizeof(pw_forwarded) + PW_HOST_MOST + PW_PREFIX_MOST + 128)

/*
 * Reads the fields of a head with facts.forwarded, from a trusted peer. False: a field is malformed,
 * or two of them disagree.
 */
bool pw_forwarded_read(const pw_trust *trust, const pw_head *head, pw_forwarded *to);

/* The client: as forwarded, or else the peer. forwarded NULL: nothing is forwarded. */
static inline const pw_peer *pw_client_of(const pw_forwarded *forwarded, const pw_peer *peer)
{
    return forwarded != NULL && (forwarded->set & PW_SET_CLIENT) != 0 ? &forwarded->client : peer;
}

#endif
