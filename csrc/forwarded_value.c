/* The values in Forwarded (RFC 7239) and the X-Forwarded fields: their grammar. */
#include <string.h>

#include "address.h"
#include "fields.h"
#include "forwarded_value.h"
#include "host.h"

/* ------------------------------------------------------------------ values */

bool pw_read_port(pw_span text, char to[PW_PORT_SIZE])
{
    int number;
    const char *end = text.at + text.size;
    if (pw_read_number(text.at, end, 65535, &number) != end || number == 0)
        return false;
    memcpy(to, text.at, text.size); /* five digits at most */
    to[text.size] = '\0';
    return true;
}

pw_scheme pw_scheme_of(pw_span text)
{
    if (pw_equals(text.at, text.size, "https") || pw_equals(text.at, text.size, "wss"))
        return PW_SCHEME_HTTPS;
    if (pw_equals(text.at, text.size, "http") || pw_equals(text.at, text.size, "ws"))
        return PW_SCHEME_HTTP;
    return PW_SCHEME_MALFORMED;
}

size_t pw_host_name_size(pw_span host)
{
    const char *from = host.at;
    if (host.size > 0 && host.at[0] == '[')
        from = memchr(host.at, ']', host.size);
    const char *colon = memchr(from, ':', (size_t)(host.at + host.size - from));
    return colon != NULL ? (size_t)(colon - host.at) : host.size;
}

pw_span pw_host_port(pw_span host)
{
    size_t name = pw_host_name_size(host);
    return host.size > name ? pw_cut(host.at + name + 1, host.at + host.size)
                            : pw_cut(host.at + name, host.at + name);
}

bool pw_read_host(pw_span text, pw_said *said)
{
    char port[PW_PORT_SIZE];
    if (!pw_is_host(text, false) || pw_host_name_size(text) > PW_HOST_MOST ||
        (pw_host_port(text).size > 0 && !pw_read_port(pw_host_port(text), port)))
        return false;
    memcpy(said->host, text.at, text.size);
    said->host_size = text.size;
    return true;
}

bool pw_read_prefix(pw_span text, pw_span *to)
{
    static const char others[] = "-._~!$&'()*+;=:@/"; /* "," separates values */
    if (text.at[text.size - 1] == '/')
        text.size--;
    if (text.size == 0) { /* "/" alone: no prefix */
        *to = text;
        return true;
    }
    if (text.size > PW_PREFIX_MOST || text.at[0] != '/')
        return false;
    const char *end = text.at + text.size, *segment = text.at + 1;
    for (const char *at = segment;; at++) {
        if (at < end && *at != '/') {
            char lower = (char)(*at | 32);
            bool is_letter = lower >= 'a' && lower <= 'z';
            if (*at == '\0' || (!is_letter && !pw_is_digit(*at) && strchr(others, *at) == NULL))
                return false;
            continue;
        }
        size_t size = (size_t)(at - segment);
        if (size == 0 || (size <= 2 && memcmp(segment, "..", size) == 0))
            return false;
        if (at == end)
            break;
        segment = at + 1;
    }
    *to = text;
    return true;
}

/* ------------------------------------------------------------------ addresses */

/* obfnode = "_" 1*( ALPHA / DIGIT / "." / "_" / "-" ), and obfport */
static bool is_obfuscated(pw_span text)
{
    if (text.size < 2 || text.at[0] != '_')
        return false;
    for (size_t i = 1; i < text.size; i++) {
        char c = text.at[i], lower = (char)(c | 32);
        bool is_letter = lower >= 'a' && lower <= 'z';
        if (!is_letter && !pw_is_digit(c) && c != '.' && c != '_' && c != '-')
            return false;
    }
    return true;
}

static bool read_address(const pw_trust *trust, pw_span text, bool is_v6, pw_node *node)
{
    uint8_t bytes[16];
    if (!pw_address_read(text, is_v6, bytes))
        return false;
    pw_address_write(node->peer.address, bytes, is_v6);
    pw_address address = {.kind = PW_NETWORK_V4};
    if (is_v6)
        address = pw_address_v6(bytes);
    else
        memcpy(address.bytes, bytes, 4);
    node->is_trusted = pw_trusts(trust, &address);
    return true;
}

/*
 * node = nodename [ ":" node-port ]
 * nodename = IPv4address / "[" IPv6address "]" / "unknown" / obfnode
 *
 * In X-Forwarded-For an IPv6 address may have no brackets, but then there is no port.
 */
static bool read_node(const pw_trust *trust, pw_span text, bool may_be_bare, pw_node *node)
{
    const char *end = text.at + text.size;
    pw_span name = text, port = {end, 0}; /* the port with its colon */
    bool is_v6 = text.size > 0 && text.at[0] == '[';
    if (is_v6) {
        const char *close = memchr(text.at, ']', text.size);
        if (close == NULL)
            return false;
        name = pw_cut(text.at + 1, close);
        port = pw_cut(close + 1, end);
    } else {
        const char *colon = memchr(text.at, ':', text.size);
        is_v6 = may_be_bare && colon != NULL &&
                memchr(colon + 1, ':', (size_t)(end - colon - 1)) != NULL;
        if (colon != NULL && !is_v6) {
            name = pw_cut(text.at, colon);
            port = pw_cut(colon, end);
        }
    }
    if (port.size > 0) {
        pw_span digits = pw_cut(port.at + 1, end);
        if (port.at[0] != ':' || (!is_obfuscated(digits) && !pw_read_port(digits, node->peer.port)))
            return false;
    }
    if (!is_v6 && (is_obfuscated(name) || pw_equals(name.at, name.size, "unknown"))) {
        node->peer.port[0] = '\0';
        return true;
    }
    return read_address(trust, name, is_v6, node);
}

pw_node pw_node_of(const pw_trust *trust, pw_span text, bool may_be_bare)
{
    pw_node node = {.is_here = true};
    node.is_malformed = !read_node(trust, text, may_be_bare, &node);
    node.is_trusted &= !node.is_malformed;
    return node;
}
