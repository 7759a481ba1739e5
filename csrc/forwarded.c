/*
 * A client as a trusted peer describes it: by Forwarded (RFC 7239) and by X-Forwarded-For, -Proto,
 * -Host, -Port and -Prefix.
 *
 * This is written in C, not in Python, for three reasons. The core writes the client's address into the
 * access log. It refuses a malformed field as it refuses other malformed requests. And it knows
 * which heads repeat the previous one, so it reads the fields again only when one has changed.
 *
 * Each proxy on the way adds an address to X-Forwarded-For, or an element to Forwarded. The client's
 * address is the last one that belongs to no trusted proxy, or the first one if all of them do. The
 * client, or a proxy before it, may have written the elements before that one. The core does not use
 * them, so their addresses may be malformed.
 *
 * The other X-Forwarded fields must have one value. An element of a list may be empty, and a value
 * may be repeated. If both forms name a client, a scheme or a host, they must agree.
 */
#include <string.h>

#include "fields.h"
#include "forwarded.h"
#include "head.h"

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
            said->client = pw_node_of(trust, text, false);
        else if (i == 1)
            said->scheme = pw_scheme_of(text);
        else if (i == 2)
            said->host_is_malformed = !pw_read_host(text, said);
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
        pw_node node = pw_node_of(reader->trust, text, true);
        if (!x->client.is_here || !node.is_trusted)
            x->client = node;
        return true;
    }
    if (number == PW_KEY_FORWARDED_PROTO) {
        pw_scheme before = x->scheme;
        x->scheme = pw_scheme_of(text);
        return before == PW_SCHEME_NONE || x->scheme == before;
    }
    if (number == PW_KEY_FORWARDED_HOST) {
        if (x->host_size > 0)
            return same_span((pw_span){x->host, x->host_size}, text);
        return pw_read_host(text, x);
    }
    if (number == PW_KEY_FORWARDED_PORT) {
        char port[PW_PORT_SIZE];
        if (!pw_read_port(text, port) ||
            (reader->port[0] != '\0' && strcmp(reader->port, port) != 0))
            return false;
        memcpy(reader->port, port, sizeof port);
        return true;
    }
    pw_span prefix;
    if (!pw_read_prefix(text, &prefix) ||
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
    pw_span own = host.size > 0 ? pw_host_port(host) : (pw_span){"", 0};
    if (is_said && own.size > 0 && port.size > 0 && !same_span(own, port))
        return false;
    pw_span usual = said->scheme == PW_SCHEME_HTTPS ? (pw_span){"443", 3} : (pw_span){"80", 2};
    pw_span used = port.size > 0 ? port : own.size > 0 ? own : usual;
    memcpy(to->port, used.at, used.size); /* five digits at most: see pw_read_port, pw_host_port */
    to->port[used.size] = '\0';
    to->set |= PW_SET_PORT;
    bool completes = host.size > 0 && own.size == 0 && port.size > 0 && !same_span(port, usual);
    if (!is_said && !completes)
        return true;
    size_t name = pw_host_name_size(host);
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
