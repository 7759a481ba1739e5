/*
 * What a trusted peer says about its client: Forwarded (RFC 7239) and X-Forwarded-For, -Proto, -Host,
 * -Port and -Prefix.
 *
 * It is C, and no code of Python, for three reasons. The core writes the client's address into the
 * access log. It refuses a malformed field as it refuses other malformed requests. And it knows
 * which heads repeat the previous one, so it reads the fields again only when one has changed.
 *
 * Each proxy on the way adds an address to X-Forwarded-For, or an element to Forwarded. The client's
 * is the last one that is no trusted proxy itself; if all of them are, the first. Elements before
 * that one were made by the client or beyond it. They are not used, so their addresses may be
 * malformed.
 *
 * The other X-Forwarded fields must have one value. An element of a list may be empty, and a value
 * may be repeated. If both forms name a client, a scheme or a host, they must agree.
 */
#include <arpa/inet.h>
#include <string.h>

#include "fields.h"
#include "forwarded.h"
#include "head.h"
#include "host.h"

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

/* What an element of Forwarded says, or all X-Forwarded fields together. */
typedef struct {
    bool is_here;
    pw_node client;
    pw_scheme scheme;
    bool host_is_malformed;
    char host[PW_HOST_MOST + PW_PORT_SIZE];
    size_t host_size;
} pw_said;

typedef struct {
    const pw_trust *trust; /* borrowed by pw_forwarded_read */
    pw_said x;             /* by the X-Forwarded fields */
    pw_said element;       /* by the element of Forwarded that describes the client */
    char port[PW_PORT_SIZE];
    pw_span prefix; /* `at` NULL: there is none */
} pw_reader;

static bool same_span(pw_span a, pw_span b)
{
    return a.size == b.size && memcmp(a.at, b.at, a.size) == 0;
}

/* ------------------------------------------------------------------ values */

/* port = 1 to 65535, without leading zeros */
static bool read_port(pw_span text, char to[PW_PORT_SIZE])
{
    int number = 0;
    if (text.size == 0 || text.size >= PW_PORT_SIZE || text.at[0] == '0')
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (!pw_is_digit(text.at[i]))
            return false;
        number = number * 10 + (text.at[i] - '0');
    }
    memcpy(to, text.at, text.size);
    to[text.size] = '\0';
    return number <= 65535;
}

/* A proxy says "ws" or "wss" for a request that wants to become a WebSocket. */
static pw_scheme scheme_of(pw_span text)
{
    if (pw_equals(text.at, text.size, "https") || pw_equals(text.at, text.size, "wss"))
        return PW_SCHEME_HTTPS;
    if (pw_equals(text.at, text.size, "http") || pw_equals(text.at, text.size, "ws"))
        return PW_SCHEME_HTTP;
    return PW_SCHEME_MALFORMED;
}

/* The size of a valid host without its port. */
static size_t name_size(pw_span host)
{
    const char *from = host.at;
    if (host.size > 0 && host.at[0] == '[')
        from = memchr(host.at, ']', host.size);
    const char *colon = memchr(from, ':', (size_t)(host.at + host.size - from));
    return colon != NULL ? (size_t)(colon - host.at) : host.size;
}

/* The port of a valid host. Empty: there is none. */
static pw_span port_of(pw_span host)
{
    size_t name = name_size(host);
    return host.size > name ? pw_cut(host.at + name + 1, host.at + host.size)
                            : pw_cut(host.at + name, host.at + name);
}

static bool read_host(pw_span text, pw_said *said)
{
    char port[PW_PORT_SIZE];
    if (!pw_is_host(text, false) || name_size(text) > PW_HOST_MOST ||
        (port_of(text).size > 0 && !read_port(port_of(text), port)))
        return false;
    memcpy(said->host, text.at, text.size);
    said->host_size = text.size;
    return true;
}

/*
 * A path such as "/app" without "%", of which no segment is empty, "." or "..". A "/" at its end is
 * removed. pchar = unreserved / sub-delims / ":" / "@" (RFC 3986 section 3.3)
 */
static bool read_prefix(pw_span text, pw_span *to)
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
    char copy[sizeof node->peer.address];
    uint8_t bytes[16];
    int family = is_v6 ? AF_INET6 : AF_INET;
    if (text.size >= sizeof copy)
        return false;
    memcpy(copy, text.at, text.size);
    copy[text.size] = '\0';
    if (inet_pton(family, copy, bytes) != 1)
        return false;
    inet_ntop(family, bytes, node->peer.address, sizeof node->peer.address);
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
        if (port.at[0] != ':' || (!is_obfuscated(digits) && !read_port(digits, node->peer.port)))
            return false;
    }
    if (!is_v6 && (is_obfuscated(name) || pw_equals(name.at, name.size, "unknown"))) {
        node->peer.port[0] = '\0';
        return true;
    }
    return read_address(trust, name, is_v6, node);
}

static pw_node node_of(const pw_trust *trust, pw_span text, bool may_be_bare)
{
    pw_node node = {.is_here = true};
    node.is_malformed = !read_node(trust, text, may_be_bare, &node);
    node.is_trusted &= !node.is_malformed;
    return node;
}

/* ------------------------------------------------------------------ Forwarded */

/* A value without quotes and escapes. */
typedef struct {
    char text[PW_HOST_MOST + PW_PORT_SIZE];
    size_t size; /* larger than the text: the value is too long */
} pw_value;

static void value_add(pw_value *value, char c)
{
    if (value->size < sizeof value->text)
        value->text[value->size] = c;
    value->size++;
}

/* value = token / quoted-string. Returns its end, or NULL. */
static const char *read_value(const char *at, const char *end, pw_value *value)
{
    value->size = 0;
    if (at == end || *at != '"') {
        while (at < end && pw_is_tchar((unsigned char)*at))
            value_add(value, *at++);
        return value->size > 0 ? at : NULL;
    }
    for (at++; at < end && *at != '"'; at++) {
        if (*at == '\\' && ++at == end)
            return NULL;
        value_add(value, *at);
    }
    return at < end ? at + 1 : NULL;
}

/* forwarded-pair = token "=" value. No parameter of RFC 7239 may come twice. Returns the end of the
 * pair, or NULL. */
static const char *read_pair(const pw_trust *trust, const char *at, const char *end, pw_said *said,
                             unsigned *seen)
{
    static const char *const names[] = {"for", "proto", "host", "by"};
    const char *name = at;
    while (at < end && pw_is_tchar((unsigned char)*at))
        at++;
    size_t size = (size_t)(at - name);
    if (size == 0 || at == end || *at != '=')
        return NULL;
    pw_value value;
    at = read_value(at + 1, end, &value);
    if (at == NULL)
        return NULL;
    pw_span text = {value.text, value.size <= sizeof value.text ? value.size : 0};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!pw_equals(name, size, names[i]))
            continue;
        if ((*seen >> i & 1) != 0)
            return NULL;
        *seen |= 1u << i;
        if (i == 0)
            said->client = node_of(trust, text, false);
        else if (i == 1)
            said->scheme = scheme_of(text);
        else if (i == 2)
            said->host_is_malformed = !read_host(text, said);
    }
    said->is_here = true;
    return at;
}

/*
 * Forwarded = 1#( [ forwarded-pair ] *( ";" [ forwarded-pair ] ) ). Blanks may stand around ";", as
 * some proxies write them. False: malformed.
 */
static bool read_forwarded(const pw_trust *trust, pw_span line, pw_said *chosen)
{
    const char *at = line.at, *end = line.at + line.size;
    pw_said element = {.is_here = false};
    unsigned seen = 0;
    for (;; at++) {
        while (at < end && (*at == ' ' || *at == '\t'))
            at++;
        if (at < end && *at != ',' && *at != ';') {
            at = read_pair(trust, at, end, &element, &seen);
            if (at == NULL)
                return false;
            while (at < end && (*at == ' ' || *at == '\t'))
                at++;
        }
        if (at < end && *at == ';')
            continue;
        if (at < end && *at != ',')
            return false;
        if (element.is_here && (!chosen->is_here || !element.client.is_trusted))
            *chosen = element;
        if (at == end)
            return true;
        element = (pw_said){.is_here = false};
        seen = 0;
    }
}

/* ------------------------------------------------------------------ the fields of a head */

/* Reads an element of an X-Forwarded field. False: malformed, or other than the previous one. */
static bool read_element(pw_reader *reader, uint8_t number, pw_span text)
{
    pw_said *x = &reader->x;
    if (number == PW_KEY_FORWARDED_FOR) {
        pw_node node = node_of(reader->trust, text, true);
        if (!x->client.is_here || !node.is_trusted)
            x->client = node;
        return true;
    }
    if (number == PW_KEY_FORWARDED_PROTO) {
        pw_scheme before = x->scheme;
        x->scheme = scheme_of(text);
        return before == PW_SCHEME_NONE || x->scheme == before;
    }
    if (number == PW_KEY_FORWARDED_HOST) {
        if (x->host_size > 0)
            return same_span((pw_span){x->host, x->host_size}, text);
        return read_host(text, x);
    }
    if (number == PW_KEY_FORWARDED_PORT) {
        char port[PW_PORT_SIZE];
        if (!read_port(text, port) || (reader->port[0] != '\0' && strcmp(reader->port, port) != 0))
            return false;
        memcpy(reader->port, port, sizeof port);
        return true;
    }
    pw_span prefix;
    if (!read_prefix(text, &prefix) ||
        (reader->prefix.at != NULL && !same_span(reader->prefix, prefix)))
        return false;
    reader->prefix = prefix;
    return true;
}

static bool read_fields(pw_reader *reader, const pw_head *head)
{
    for (size_t i = 0; i < head->field_count; i++) {
        uint8_t number = head->fields[i].number;
        pw_span rest = head->fields[i].value, element;
        if (number == PW_KEY_FORWARDED && !read_forwarded(reader->trust, rest, &reader->element))
            return false;
        if (number == PW_KEY_FORWARDED || !pw_is_forwarded(number))
            continue;
        while (pw_list_next(&rest, &element))
            if (element.size > 0 && !read_element(reader, number, element))
                return false;
    }
    return true;
}

/* Adds what the other form says. False: it is malformed, or the two disagree. */
static bool join(pw_said *x, const pw_said *element)
{
    const pw_node *client = &element->client;
    if (x->client.is_malformed || client->is_malformed || x->scheme == PW_SCHEME_MALFORMED ||
        element->scheme == PW_SCHEME_MALFORMED || element->host_is_malformed)
        return false;
    if (client->is_here && x->client.is_here) {
        if (strcmp(client->peer.address, x->client.peer.address) != 0)
            return false;
        const char *a = client->peer.port, *b = x->client.peer.port;
        if (a[0] != '\0' && b[0] != '\0' && strcmp(a, b) != 0)
            return false;
    }
    if (client->is_here && (!x->client.is_here || x->client.peer.port[0] == '\0'))
        x->client = *client;
    if (element->scheme != PW_SCHEME_NONE) {
        if (x->scheme != PW_SCHEME_NONE && x->scheme != element->scheme)
            return false;
        x->scheme = element->scheme;
    }
    if (element->host_size > 0) {
        if (x->host_size > 0 && !same_span((pw_span){x->host, x->host_size},
                                           (pw_span){element->host, element->host_size}))
            return false;
        memcpy(x->host, element->host, element->host_size);
        x->host_size = element->host_size;
    }
    return true;
}

/*
 * HTTP_HOST, SERVER_NAME and SERVER_PORT. A forwarded port completes a host that has none, unless it
 * is the usual one of the scheme: clients leave that out of Host and Origin too. False: the port of
 * the forwarded host is another one than the forwarded port, or the host is too long.
 */
static bool settle_host(const pw_reader *reader, const pw_head *head, pw_forwarded *to)
{
    const pw_said *said = &reader->x;
    bool is_said = said->host_size > 0;
    pw_span host = is_said ? (pw_span){said->host, said->host_size} : head->authority;
    pw_span port = {reader->port, strlen(reader->port)};
    if (host.at == NULL)
        host = pw_find_field(head, "host", 4);
    if (!is_said && port.size == 0 && said->scheme == PW_SCHEME_NONE)
        return true;
    pw_span own = host.size > 0 ? port_of(host) : (pw_span){"", 0};
    if (is_said && own.size > 0 && port.size > 0 && !same_span(own, port))
        return false;
    pw_span usual = said->scheme == PW_SCHEME_HTTPS ? (pw_span){"443", 3} : (pw_span){"80", 2};
    pw_span used = port.size > 0 ? port : own.size > 0 ? own : usual;
    memcpy(to->port, used.at, used.size);
    to->port[used.size] = '\0';
    to->set |= PW_SET_PORT;
    bool completes = host.size > 0 && own.size == 0 && port.size > 0 && !same_span(port, usual);
    if (!is_said && !completes)
        return true;
    size_t name = name_size(host);
    if (name > PW_HOST_MOST)
        return false;
    pw_span added = completes ? port : own;
    char *end = pw_put(to->host, host.at, name);
    if (added.size > 0) {
        *end++ = ':';
        end = pw_put(end, added.at, added.size);
    }
    to->host_size = (size_t)(end - to->host);
    to->name_size = name;
    to->set |= is_said ? PW_SET_HOST | PW_SET_NAME : PW_SET_HOST;
    return true;
}

bool pw_forwarded_read(const pw_trust *trust, const pw_head *head, pw_forwarded *to)
{
    pw_reader reader = {.trust = trust};
    to->set = PW_SET_ANY;
    if (!read_fields(&reader, head) || !join(&reader.x, &reader.element) ||
        !settle_host(&reader, head, to))
        return false;
    if (reader.x.client.is_here) {
        to->client = reader.x.client.peer;
        to->set |= PW_SET_CLIENT;
    }
    if (reader.x.scheme != PW_SCHEME_NONE)
        to->set |= PW_SET_SCHEME;
    if (reader.x.scheme == PW_SCHEME_HTTPS)
        to->set |= PW_SET_HTTPS;
    to->prefix = reader.prefix;
    if (reader.prefix.at != NULL)
        to->set |= PW_SET_PREFIX;
    return true;
}
