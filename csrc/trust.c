/* The peers that are trusted to say who their client is: see pw_settings.trusted. */
#include <netinet/in.h>
#include <string.h>

#include "trust.h"

pw_address pw_address_v6(const uint8_t bytes[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    bool is_v4 = memcmp(bytes, mapped, sizeof mapped) == 0;
    pw_address address = {.kind = is_v4 ? PW_NETWORK_V4 : PW_NETWORK_V6};
    if (is_v4)
        memcpy(address.bytes, bytes + sizeof mapped, 4);
    else
        memcpy(address.bytes, bytes, 16);
    return address;
}

pw_address pw_address_of(const struct sockaddr *peer)
{
    pw_address address = {.kind = PW_NETWORK_UNIX};
    if (peer->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, peer, sizeof v4);
        address.kind = PW_NETWORK_V4;
        memcpy(address.bytes, &v4.sin_addr, 4);
    } else if (peer->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, peer, sizeof v6);
        address = pw_address_v6(v6.sin6_addr.s6_addr);
    }
    return address;
}

/* Whether the first bits are the same. */
static bool same_bits(const char *network, const uint8_t *address, int bits)
{
    size_t whole = (size_t)bits / 8;
    int rest = bits % 8;
    return memcmp(network, address, whole) == 0 &&
           (rest == 0 || ((uint8_t)network[whole] ^ address[whole]) >> (8 - rest) == 0);
}

bool pw_trusts(const pw_trust *trust, const pw_address *address)
{
    for (size_t i = 0; i < trust->count; i++) {
        const pw_network *network = &trust->at[i];
        if (network->kind == PW_NETWORK_ALL ||
            (network->kind == address->kind &&
             same_bits(network->address, address->bytes, network->bits)))
            return true;
    }
    return false;
}
