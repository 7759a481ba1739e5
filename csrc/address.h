/* IP addresses as text. */
#ifndef PW_ADDRESS_H
#define PW_ADDRESS_H

#include "text.h"

#define PW_ADDRESS_SIZE 46 /* with the NUL: INET6_ADDRSTRLEN */

/* Reads digits without leading zeros, with a value of at most `most`. Returns their end, or NULL. */
const char *pw_read_number(const char *at, const char *end, int most, int *number);

/*
 * Reads an address without a zone into 4 or 16 bytes in network order. False: it is malformed.
 *
 * IPv4address = dec-octet "." dec-octet "." dec-octet "." dec-octet (RFC 3986, section 3.2.2)
 */
bool pw_address_read(pw_span text, bool is_v6, uint8_t to[16]);

/* Writes the shortest form (RFC 5952), and a NUL. */
void pw_address_write(char to[PW_ADDRESS_SIZE], const uint8_t *bytes, bool is_v6);

#endif
