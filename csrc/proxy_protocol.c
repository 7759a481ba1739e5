/*
 * The PROXY protocol, versions 1 and 2, as HAProxy's doc/proxy-protocol.txt defines it.
 *
 * The TLVs after the addresses of version 2 are skipped, and so is everything in a header that says
 * that the proxy itself is the client (LOCAL), or does not know its client (UNKNOWN, AF_UNSPEC).
 */
#include <string.h>

#include "address.h"
#include "proxy_protocol.h"

static const char v1_start[] = {'P', 'R', 'O', 'X', 'Y', ' '};
static const char v2_start[] = {'\r', '\n', '\r', '\n', 0, '\r', '\n', 'Q', 'U', 'I', 'T', '\n'};

static pw_parse refuse(pw_proxy_error why, pw_proxy_error *error)
{
    *error = why;
    return PW_PARSE_ERROR;
}

/* ------------------------------------------------------------------ addresses */

static pw_address address_of(const uint8_t *bytes, bool is_v6)
{
    if (is_v6)
        return pw_address_v6(bytes);
    pw_address address = {.kind = PW_NETWORK_V4};
    memcpy(address.bytes, bytes, 4);
    return address;
}

static void write_peer(pw_peer *to, const uint8_t *bytes, bool is_v6, int port)
{
    pw_address_write(to->address, bytes, is_v6);
    to->port[pw_digits(to->port, port)] = '\0';
}

static void write_addresses(pw_proxy_header *to, const uint8_t *source, int source_port,
                            const uint8_t *destination, int destination_port, bool is_v6)
{
    to->has_addresses = true;
    to->addresses.source = address_of(source, is_v6);
    write_peer(&to->addresses.client, source, is_v6, source_port);
    write_peer(&to->addresses.server, destination, is_v6, destination_port);
}

/* ------------------------------------------------------------------ version 1 */

/* Cuts the text before the next blank. False: there is no blank. */
static bool cut_word(pw_span *rest, pw_span *word)
{
    const char *end = rest->at + rest->size, *blank = memchr(rest->at, ' ', rest->size);
    if (blank == NULL)
        return false;
    *word = pw_cut(rest->at, blank);
    *rest = pw_cut(blank + 1, end);
    return true;
}

static bool read_port(pw_span text, int *port)
{
    return pw_read_number(text.at, text.at + text.size, 65535, port) == text.at + text.size;
}

/* "TCP4" or "TCP6", source, destination, source port, destination port; one blank between them */
static bool read_tcp(pw_span line, pw_proxy_header *to)
{
    pw_span family, source, destination, port;
    uint8_t bytes[2][16];
    int ports[2];
    if (!cut_word(&line, &family) || !cut_word(&line, &source) || !cut_word(&line, &destination) ||
        !cut_word(&line, &port) || family.size != 4 || memcmp(family.at, "TCP", 3) != 0)
        return false;
    /* HAProxy writes an IPv4 address in IPv6 form as ::ffff:192.0.2.1. */
    bool is_v6 = family.at[3] == '6';
    if ((!is_v6 && family.at[3] != '4') || !pw_address_read(source, is_v6, bytes[0]) ||
        !pw_address_read(destination, is_v6, bytes[1]) || !read_port(port, &ports[0]) ||
        !read_port(line, &ports[1]))
        return false;
    write_addresses(to, bytes[0], ports[0], bytes[1], ports[1], is_v6);
    return true;
}

/* "UNKNOWN", and then anything after a blank */
static bool is_unknown(pw_span line)
{
    static const char word[] = "UNKNOWN";
    size_t size = sizeof word - 1;
    return line.size >= size && memcmp(line.at, word, size) == 0 &&
           (line.size == size || line.at[size] == ' ');
}

/* Reads a line that begins with v1_start. */
static pw_parse read_v1(const char *data, size_t size, pw_proxy_header *to, pw_proxy_error *error)
{
    size_t most = size < PW_PROXY_V1_MOST ? size : PW_PROXY_V1_MOST;
    const char *cr = memchr(data, '\r', most), *lf = memchr(data, '\n', most);
    if (lf == NULL && most < PW_PROXY_V1_MOST && (cr == NULL || cr + 1 == data + size))
        return PW_PARSE_MORE;
    if (lf == NULL || cr == NULL || cr + 1 != lf)
        return refuse(PW_PROXY_MALFORMED, error);
    pw_span line = pw_cut(data + sizeof v1_start, cr);
    if (!is_unknown(line) && !read_tcp(line, to))
        return refuse(PW_PROXY_MALFORMED, error);
    to->size = (size_t)(lf + 1 - data);
    return PW_PARSE_DONE;
}

/* ------------------------------------------------------------------ version 2 */

enum { PW_PROXY_LOCAL = 0x20, PW_PROXY_PROXY = 0x21 };             /* version and command */
enum { PW_PROXY_INET = 1, PW_PROXY_INET6 = 2, PW_PROXY_UNIX = 3 }; /* families */

static unsigned read_16(const uint8_t *at)
{
    return (unsigned)at[0] << 8 | at[1];
}

/* The bytes of two addresses and two ports of this family and transport. -1: no valid pair. */
static int addresses_size(uint8_t family_and_transport)
{
    int family = family_and_transport >> 4, transport = family_and_transport & 15;
    if (family_and_transport == 0)
        return 0;                         /* AF_UNSPEC */
    if (transport != 1 && transport != 2) /* STREAM, or DGRAM: a client of HTTP/3 */
        return -1;
    switch (family) {
    case PW_PROXY_INET:
        return 2 * (4 + 2);
    case PW_PROXY_INET6:
        return 2 * (16 + 2);
    case PW_PROXY_UNIX:
        return 2 * 108;
    default:
        return -1;
    }
}

/* Reads bytes that begin with v2_start, or with a part of it. */
static pw_parse read_v2(const char *data, size_t size, pw_proxy_header *to, pw_proxy_error *error)
{
    if (size < PW_PROXY_V2_HEAD)
        return PW_PARSE_MORE;
    const uint8_t *head = (const uint8_t *)data + sizeof v2_start;
    const uint8_t *at = head + 4;
    size_t length = read_16(head + 2);
    bool is_local = head[0] == PW_PROXY_LOCAL;
    if (!is_local && head[0] != PW_PROXY_PROXY)
        return refuse(PW_PROXY_MALFORMED, error);
    int wanted = is_local ? 0 : addresses_size(head[1]);
    if (wanted < 0 || length < (size_t)wanted)
        return refuse(PW_PROXY_MALFORMED, error);
    if (length > PW_PROXY_MOST - PW_PROXY_V2_HEAD)
        return refuse(PW_PROXY_LONG, error);
    if (size - PW_PROXY_V2_HEAD < length)
        return PW_PARSE_MORE;
    to->size = PW_PROXY_V2_HEAD + length;
    if (wanted == 0)
        return PW_PARSE_DONE;
    int family = head[1] >> 4;
    if (family == PW_PROXY_UNIX) {
        to->has_addresses = true;
        to->addresses.source.kind = PW_NETWORK_UNIX;
        return PW_PARSE_DONE;
    }
    bool is_v6 = family == PW_PROXY_INET6;
    size_t each = is_v6 ? 16 : 4;
    write_addresses(to, at, (int)read_16(at + 2 * each), at + each, (int)read_16(at + 2 * each + 2),
                    is_v6);
    return PW_PARSE_DONE;
}

/* ------------------------------------------------------------------ both */

/* Whether the bytes are the beginning of `start`, or begin with it. */
static bool begins(const char *data, size_t size, const char *start, size_t start_size)
{
    return memcmp(data, start, size < start_size ? size : start_size) == 0;
}

pw_parse pw_proxy_read(const char *data, size_t size, pw_proxy_header *to, pw_proxy_error *error)
{
    *error = PW_PROXY_VALID;
    *to = (pw_proxy_header){.size = 0};
    if (begins(data, size, v1_start, sizeof v1_start))
        return size < sizeof v1_start ? PW_PARSE_MORE : read_v1(data, size, to, error);
    if (begins(data, size, v2_start, sizeof v2_start))
        return read_v2(data, size, to, error);
    return refuse(PW_PROXY_MISSING, error);
}
