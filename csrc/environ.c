/*
 * The block of values from which Python makes the environ in one step (PEP 3333, RFC 3875): a byte
 * for each value with the number of its key, NUL, and the values in latin-1, separated by NUL.
 */
#include <string.h>

#include "alloc.h"
#include "environ.h"
#include "fields.h"
#include "forwarded.h"
#include "index.h"
#include "text.h"

/* Values that come from no field: the keys of the enum up to PW_KEY_PORT, and CONTENT_LENGTH. */
#define PW_OWN_VALUES 8

size_t pw_block_most(const pw_limits *limits)
{
    /* The target may be in the block three times: whole, as path, as query. A field needs its name
     * and value, "HTTP_", a number, a separator and the NUL. */
    return 3 * limits->max_head_size + 9 * limits->max_fields + 256 + PW_FORWARDED_MOST;
}

static char *put_value(char *to, const char *data, size_t size)
{
    to = pw_put(to, data, size);
    *to++ = '\0';
    return to;
}

static char *put_span(char *to, pw_span span)
{
    return put_value(to, span.at, span.size);
}

/* Decodes once. A "%" without two digits after it is not changed. */
static char *put_decoded(char *to, pw_span text)
{
    const char *at = text.at, *end = text.at + text.size;
    for (;;) {
        const char *mark = memchr(at, '%', (size_t)(end - at));
        to = pw_put(to, at, (size_t)((mark != NULL ? mark : end) - at));
        if (mark == NULL)
            return to;
        int high = end - mark > 2 ? pw_hex_digit(mark[1]) : -1;
        int low = high >= 0 ? pw_hex_digit(mark[2]) : -1;
        if (low >= 0) {
            *to++ = (char)(high * 16 + low);
            at = mark + 3;
        } else {
            *to++ = '%';
            at = mark + 1;
        }
    }
}

static char *put_protocol(char *to, const pw_head *head)
{
    return put_value(to, head->facts.minor == 0 ? "HTTP/1.0" : "HTTP/1.1", 8);
}

/* Writes the last number, and the NUL after the numbers. Returns where the values begin. */
static char *end_numbers(pw_block *block, char *to)
{
    *to++ = PW_KEY_PATH; /* PATH_INFO is the last value because it may contain NUL */
    block->values = (uint32_t)(to - block->at);
    *to++ = '\0';
    return to;
}

/* Writes PATH_INFO without this prefix, which is in SCRIPT_NAME, if it begins with it. */
static void end_values(pw_block *block, char *to, const pw_head *head, pw_span prefix)
{
    char *end = put_decoded(to, head->path);
    size_t size = (size_t)(end - to);
    if (prefix.size > 0 && size >= prefix.size && memcmp(to, prefix.at, prefix.size) == 0 &&
        (size == prefix.size || to[prefix.size] == '/')) {
        memmove(to, to + prefix.size, size - prefix.size);
        end -= prefix.size;
    }
    block->size = (size_t)(end - block->at);
}

static pw_span prefix_of(const pw_block *block, const pw_forwarded *forwarded)
{
    bool is_set = forwarded != NULL && (forwarded->set & PW_SET_PREFIX) != 0;
    return is_set ? forwarded->prefix : block->root;
}

void pw_block_make_line(pw_block *block, const pw_head *head, bool same_method,
                        const pw_changes *changes)
{
    block->flags = 0;
    char *to = block->at;
    if (!same_method)
        *to++ = PW_KEY_METHOD;
    *to++ = PW_KEY_QUERY;
    *to++ = PW_KEY_URI;
    for (size_t i = 0; i < changes->count; i++)
        *to++ = (char)changes->items[i].number;
    to = end_numbers(block, to);
    if (!same_method)
        to = put_span(to, head->method);
    to = put_span(to, head->query);
    to = put_span(to, head->target);
    for (size_t i = 0; i < changes->count; i++)
        to = put_span(to, changes->items[i].value);
    end_values(block, to, head, block->root);
}

static char *put_length(char *to, int64_t length)
{
    to += pw_digits(to, length);
    *to++ = '\0';
    return to;
}

/* ------------------------------------------------------------------ forwarded values */

typedef struct {
    uint8_t number;
    pw_span value;
} pw_pair;

#define PW_FORWARDED_VALUES 8 /* at most, in a block */

static pw_span text_span(const char *text)
{
    return (pw_span){text, strlen(text)};
}

/*
 * Lists the values from a PROXY header and the forwarded ones, which replace the former. With a peer,
 * they are for a block of a whole head, which has REMOTE_ADDR, REMOTE_PORT and HTTP_HOST in any case.
 * Without it they are for a block of changes, and the template has the values of the connection:
 * picowsgi.peer, and those from the PROXY header. Returns their number.
 */
static size_t list_forwarded(pw_pair to[PW_FORWARDED_VALUES], const pw_forwarded *forwarded,
                             const pw_peer *peer, const pw_proxied *proxied)
{
    size_t count = 0;
    uint8_t set = forwarded != NULL ? forwarded->set : 0;
    if (peer != NULL && (set != 0 || proxied != NULL)) {
        to[count++] = (pw_pair){PW_KEY_PEER, text_span(peer->address)};
        to[count++] = (pw_pair){PW_KEY_PEER_PORT, text_span(peer->port)};
    }
    if (peer == NULL && (set & PW_SET_CLIENT)) {
        to[count++] = (pw_pair){PW_KEY_ADDRESS, text_span(forwarded->client.address)};
        to[count++] = (pw_pair){PW_KEY_PORT, text_span(forwarded->client.port)};
    }
    if (peer == NULL && (set & PW_SET_HOST))
        to[count++] = (pw_pair){PW_KEY_HOST, {forwarded->host, forwarded->host_size}};
    if (set & PW_SET_SCHEME)
        to[count++] = (pw_pair){PW_KEY_SCHEME, text_span(set & PW_SET_HTTPS ? "https" : "http")};
    if (set & PW_SET_HTTPS)
        to[count++] = (pw_pair){PW_KEY_HTTPS, text_span("on")};
    if (set & PW_SET_NAME)
        to[count++] = (pw_pair){PW_KEY_SERVER_NAME, {forwarded->host, forwarded->name_size}};
    if (set & PW_SET_PORT)
        to[count++] = (pw_pair){PW_KEY_SERVER_PORT, text_span(forwarded->port)};
    if (set & PW_SET_PREFIX)
        to[count++] = (pw_pair){PW_KEY_SCRIPT_NAME, forwarded->prefix};
    if (proxied != NULL && proxied->server.address[0] != '\0') {
        if ((set & PW_SET_NAME) == 0)
            to[count++] = (pw_pair){PW_KEY_SERVER_NAME, text_span(proxied->server.address)};
        if ((set & PW_SET_PORT) == 0)
            to[count++] = (pw_pair){PW_KEY_SERVER_PORT, text_span(proxied->server.port)};
    }
    return count;
}

/* ------------------------------------------------------------------ fields by number */

/* Writes one field and all later ones with the same name (RFC 9110
 * section 5.3, RFC 9113 section 8.2.3). */
static char *put_field(char *to, const pw_head *head, const pw_index *index, uint16_t at)
{
    const pw_field *field = &head->fields[at];
    to = pw_put(to, field->value.at, field->value.size);
    while ((at = index->next[at]) != PW_NO_FIELD) {
        if (field->number == PW_KEY_COOKIE)
            to = pw_put(to, "; ", 2);
        else
            *to++ = ',';
        to = pw_put(to, head->fields[at].value.at, head->fields[at].value.size);
    }
    *to++ = '\0';
    return to;
}

static char *put_named_field(char *to, const pw_head *head, const pw_index *index, uint16_t at)
{
    const pw_field *field = &head->fields[at];
    to = pw_put(to, "HTTP_", 5);
    for (size_t k = 0; k < field->name.size; k++)
        *to++ = pw_key_char(field->name.at[k]);
    *to++ = 1;
    return put_field(to, head, index, at);
}

void pw_block_make(pw_block *block, const pw_head *head, const pw_peer *peer,
                   const pw_proxied *proxied, const pw_forwarded *forwarded, int64_t content_length)
{
    static const char own[] = {PW_KEY_URI, PW_KEY_ADDRESS, PW_KEY_PORT};
    bool is_get = head->method.size == 3 && memcmp(head->method.at, "GET", 3) == 0;
    const pw_peer *client = pw_client_of(forwarded, pw_sender_of(proxied, peer));
    pw_span host = head->authority; /* RFC 9112 section 3.2.2: the authority replaces Host */
    if (forwarded != NULL && (forwarded->set & PW_SET_HOST))
        host = (pw_span){forwarded->host, forwarded->host_size};
    pw_pair more[PW_FORWARDED_VALUES];
    size_t more_count = list_forwarded(more, forwarded, peer, proxied);
    pw_index index;
    pw_index_make(&index, head);
    if (host.at != NULL)
        index.numbers[PW_KEY_HOST >> 6] |= pw_index_bit(PW_KEY_HOST);

    char *to = block->at;
    if (!is_get)
        *to++ = PW_KEY_METHOD;
    if (head->query.size > 0)
        *to++ = PW_KEY_QUERY;
    if (head->facts.minor == 0)
        *to++ = PW_KEY_PROTOCOL;
    to = pw_put(to, own, sizeof own);
    if (content_length >= 0)
        *to++ = PW_KEY_CONTENT_LENGTH;
    const char *fields = to;
    for (int number; (number = pw_index_pop(index.numbers)) >= 0;)
        *to++ = (char)number;
    const char *fields_end = to;
    for (size_t i = 0; i < more_count; i++)
        *to++ = (char)more[i].number;
    memset(to, PW_OTHER_NAME, index.other_count);
    to = end_numbers(block, to + index.other_count);

    if (!is_get)
        to = put_span(to, head->method);
    if (head->query.size > 0)
        to = put_span(to, head->query);
    if (head->facts.minor == 0)
        to = put_protocol(to, head);
    to = put_span(to, head->target);
    to = put_span(to, text_span(client->address));
    to = put_span(to, text_span(client->port));
    if (content_length >= 0)
        to = put_length(to, content_length);
    for (; fields < fields_end; fields++)
        if (*fields == PW_KEY_HOST && host.at != NULL)
            to = put_span(to, host);
        else
            to = put_field(to, head, &index, index.first[(uint8_t)*fields]);
    for (size_t i = 0; i < more_count; i++)
        to = put_span(to, more[i].value);
    for (size_t i = 0; i < index.other_count; i++)
        to = put_named_field(to, head, &index, index.others[i]);
    block->flags = index.other_count != 0 ? PW_OTHER_NAMES : 0;
    end_values(block, to, head, prefix_of(block, forwarded));
}

/* ------------------------------------------------------------------ changed values */

pw_template *pw_template_new(const pw_head *head, const pw_forwarded *forwarded, const char *data)
{
    pw_index index;
    pw_index_make(&index, head);
    size_t count = 0;
    uint64_t left[4];
    memcpy(left, index.numbers, sizeof left);
    while (pw_index_pop(left) >= 0)
        count++;
    if (index.other_count > 0 || head->authority.at != NULL || count > UINT8_MAX)
        return NULL;
    pw_template *template = pw_alloc(sizeof *template + count * sizeof template->values[0]);
    if (template == NULL)
        return NULL;
    template->method = (uint32_t)(head->method.at - data);
    template->method_size = (uint32_t)head->method.size;
    template->minor = head->facts.minor;
    template->set = forwarded != NULL ? forwarded->set : 0;
    template->has_length = head->facts.chunked || head->facts.content_length >= 0;
    for (int number; (number = pw_index_pop(index.numbers)) >= 0;) {
        uint16_t at = index.first[number];
        pw_span value = head->fields[at].value;
        bool repeated = index.next[at] != PW_NO_FIELD;
        template->values[template->count].at = (uint32_t)(value.at - data);
        template->values[template->count].size = repeated ? UINT32_MAX : (uint32_t)value.size;
        template->place[number] = ++template->count;
    }
    return template;
}

static bool template_has(const pw_template *template, const char *data, int number, pw_span value)
{
    uint8_t place = template->place[number];
    return template->values[place - 1].size == value.size &&
           memcmp(data + template->values[place - 1].at, value.at, value.size) == 0;
}

bool pw_block_make_changes(pw_block *block, const pw_head *head, const pw_forwarded *forwarded,
                           int64_t content_length, const pw_template *template, const char *data)
{
    if (head->authority.at != NULL || head->facts.minor != template->minor ||
        (template->has_length && content_length < 0) ||
        template->set != (forwarded != NULL ? forwarded->set : 0))
        return false;
    pw_index index;
    pw_index_make(&index, head);
    if (index.other_count > 0)
        return false;
    bool same_method = template->method_size == head->method.size &&
                       memcmp(data + template->method, head->method.at, head->method.size) == 0;
    char *to = block->at;
    if (!same_method)
        *to++ = PW_KEY_METHOD;
    *to++ = PW_KEY_QUERY;
    *to++ = PW_KEY_URI;
    if (content_length >= 0)
        *to++ = PW_KEY_CONTENT_LENGTH;
    uint8_t found = 0;
    uint64_t changed[4] = {0, 0, 0, 0};
    for (int number; (number = pw_index_pop(index.numbers)) >= 0;) {
        uint16_t at = index.first[number];
        bool known = template->place[number] != 0;
        found += known;
        if (number == PW_KEY_HOST && (template->set & PW_SET_HOST))
            continue; /* the forwarded host replaces it */
        if (known && index.next[at] == PW_NO_FIELD &&
            template_has(template, data, number, head->fields[at].value))
            continue;
        changed[number >> 6] |= pw_index_bit((uint8_t)number);
        *to++ = (char)number;
    }
    if (found != template->count)
        return false;
    pw_pair more[PW_FORWARDED_VALUES];
    size_t more_count = list_forwarded(more, forwarded, NULL, NULL);
    for (size_t i = 0; i < more_count; i++)
        *to++ = (char)more[i].number;
    to = end_numbers(block, to);
    if (!same_method)
        to = put_span(to, head->method);
    to = put_span(to, head->query);
    to = put_span(to, head->target);
    if (content_length >= 0)
        to = put_length(to, content_length);
    for (int number; (number = pw_index_pop(changed)) >= 0;)
        to = put_field(to, head, &index, index.first[number]);
    for (size_t i = 0; i < more_count; i++)
        to = put_span(to, more[i].value);
    block->flags = 0;
    end_values(block, to, head, prefix_of(block, forwarded));
    return true;
}
