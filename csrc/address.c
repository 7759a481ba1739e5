/*
 * IP addresses as text. The functions of the C library are used for IPv6 only: inet_pton of some
 * systems accepts other forms of IPv4, and inet_ntop of glibc needs 1,900 instructions for it.
 */
#include <arpa/inet.h>

#include "address.h"

_Static_assert(PW_ADDRESS_SIZE == INET6_ADDRSTRLEN, "room for an IPv6 address");

const char *pw_read_number(const char *at, const char *end, int most, int *number)
{
    const char *from = at;
    int value = 0;
    for (; at < end && pw_is_digit(*at); at++) {
        value = value * 10 + (*at - '0');
        if (value > most || (at > from && *from == '0'))
            return NULL;
    }
    *number = value;
    return at > from ? at : NULL;
}

static bool read_v4(pw_span text, uint8_t to[4])
{
    const char *at = text.at, *end = text.at + text.size;
    for (int i = 0; i < 4; i++) {
        int number;
        if (i > 0 && (at == end || *at++ != '.'))
            return false;
        at = pw_read_number(at, end, 255, &number);
        if (at == NULL)
            return false;
        to[i] = (uint8_t)number;
    }
    return at == end;
}

static bool read_v6(pw_span text, uint8_t to[16])
{
    char copy[PW_ADDRESS_SIZE];
    if (text.size >= sizeof copy)
        return false;
    for (size_t i = 0; i < text.size; i++)
        if (pw_hex_digit(text.at[i]) < 0 && text.at[i] != ':' && text.at[i] != '.')
            return false; /* a NUL, or a zone */
    memcpy(copy, text.at, text.size);
    copy[text.size] = '\0';
    return inet_pton(AF_INET6, copy, to) == 1;
}

bool pw_address_read(pw_span text, bool is_v6, uint8_t to[16])
{
    return is_v6 ? read_v6(text, to) : read_v4(text, to);
}

void pw_address_write(char to[PW_ADDRESS_SIZE], const uint8_t *bytes, bool is_v6)
{
    if (is_v6) {
        inet_ntop(AF_INET6, bytes, to, PW_ADDRESS_SIZE);
        return;
    }
    for (int i = 0; i < 4; i++) {
        to += pw_digits(to, bytes[i]);
        *to++ = i < 3 ? '.' : '\0';
    }
}
