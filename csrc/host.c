/* The host and port in the Host field and in an absolute target (RFC 3986 section 3.2). */
#include <string.h>

#include "address.h"
#include "host.h"
#include "text.h"

/* RFC 3986 section 3.2.2: unreserved / sub-delims, which are ALPHA / DIGIT and "-._~!$&'()*+,;=".
 * One bit for each byte. */
static const uint32_t name_chars[8] = {0, 0x2bff7fd2, 0x87fffffe, 0x47fffffe, 0, 0, 0, 0};

static bool is_name_char(char c)
{
    unsigned char byte = (unsigned char)c;
    return (name_chars[byte >> 5] >> (byte & 31)) & 1;
}

/* IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ) */
static bool is_future(const char *at, const char *end)
{
    if (at == end || (*at != 'v' && *at != 'V'))
        return false;
    const char *digits = ++at;
    while (at < end && pw_hex_digit(*at) >= 0)
        at++;
    if (at == digits || at == end || *at++ != '.' || at == end)
        return false;
    while (at < end && (is_name_char(*at) || *at == ':'))
        at++;
    return at == end;
}

/* IP-literal = "[" ( IPv6address / IPvFuture ) "]". Returns its end, or NULL. */
static const char *ip_literal(const char *at, const char *end)
{
    uint8_t address[16];
    const char *close = memchr(at, ']', (size_t)(end - at));
    if (close == NULL)
        return NULL;
    at++;
    bool is_good = is_future(at, close) || pw_address_read(pw_cut(at, close), true, address);
    return is_good ? close + 1 : NULL;
}

bool pw_is_host(pw_span host, bool may_be_empty)
{
    const char *at = host.at, *end = host.at + host.size;
    if (at == end)
        return may_be_empty;
    if (*at == '[') {
        at = ip_literal(at, end);
        if (at == NULL)
            return false;
    } else {
        const char *first = at;
        while (at < end && *at != ':') {
            if (*at == '%') {
                if (end - at < 3 || pw_hex_digit(at[1]) < 0 || pw_hex_digit(at[2]) < 0)
                    return false;
                at += 3;
            } else if (is_name_char(*at)) {
                at++;
            } else {
                return false;
            }
        }
        if (at == first)
            return false;
    }
    if (at == end)
        return true;
    if (*at++ != ':' || end - at > 5)
        return false;
    while (at < end)
        if (!pw_is_digit(*at++))
            return false;
    return true;
}
