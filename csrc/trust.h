/* The peers that are trusted to say who their client is. */
#ifndef PW_TRUST_H
#define PW_TRUST_H

#include <sys/socket.h>

#include "types.h"

/* The networks of pw_settings.trusted. */
typedef struct {
    const pw_network *at; /* borrowed */
    size_t count;
} pw_trust;

/* The address of a peer, or one that a peer has sent. */
typedef struct {
    int kind;          /* PW_NETWORK_UNIX, PW_NETWORK_V4 or PW_NETWORK_V6 */
    uint8_t bytes[16]; /* PW_NETWORK_V4: the first four */
} pw_address;

/* An IPv4 address in IPv6 form (::ffff:192.0.2.1) becomes an IPv4 address. */
pw_address pw_address_v6(const uint8_t bytes[16]);
pw_address pw_address_of(const struct sockaddr *peer);
bool pw_trusts(const pw_trust *trust, const pw_address *address);

#endif
