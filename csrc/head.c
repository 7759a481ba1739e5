/*
 * A request head: picohttpparser finds the spans, the rest of this file decides whether they are a
 * valid message (RFC 9112 sections 2 to 6) with exactly one meaning.
 */
#include <arpa/inet.h>
#include <string.h>

#include "core.h"
#include "parser.h"
#include "vendor/picohttpparser/picohttpparser.h"

bool pw_parser_has_simd(void)
{
#if PW_HAVE_SSE42
    return __builtin_cpu_supports("sse4.2");
#else
    return false;
#endif
}

static pw_parse_request_function *pw_request_parser(void)
{
#if PW_HAVE_SSE42
    if (pw_parser_has_simd())
        return pw_sse42_parse_request;
#endif
    return pw_plain_parse_request;
}

static pw_parse_headers_function *pw_fields_parser(void)
{
#if PW_HAVE_SSE42
    if (pw_parser_has_simd())
        return pw_sse42_parse_headers;
#endif
    return pw_plain_parse_headers;
}

static pw_span pw_cut(const char *from, const char *to)
{
    return (pw_span){from, (size_t)(to - from)};
}

static bool pw_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool pw_is_hex(char c)
{
    return pw_is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* ------------------------------------------------------------------ Host */

/* RFC 3986 section 3.2.2: unreserved / sub-delims, which are ALPHA / DIGIT and "-._~!$&'()*+,;=", as
 * one bit a byte */
static const uint32_t name_chars[8] = {0, 0x2bff7fd2, 0x87fffffe, 0x47fffffe, 0, 0, 0, 0};

static bool pw_is_name_char(char c)
{
    unsigned char byte = (unsigned char)c;
    return (name_chars[byte >> 5] >> (byte & 31)) & 1;
}

/* IPvFuture = "v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" ) */
static bool pw_is_future(const char *at, const char *end)
{
    if (at == end || (*at != 'v' && *at != 'V'))
        return false;
    const char *digits = ++at;
    while (at < end && pw_is_hex(*at))
        at++;
    if (at == digits || at == end || *at++ != '.' || at == end)
        return false;
    while (at < end && (pw_is_name_char(*at) || *at == ':'))
        at++;
    return at == end;
}

/* IP-literal = "[" ( IPv6address / IPvFuture ) "]". Returns past it, or NULL. */
static const char *pw_ip_literal(const char *at, const char *end)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    const char *close = memchr(at, ']', (size_t)(end - at));
    if (close == NULL)
        return NULL;
    at++;
    size_t size = (size_t)(close - at);
    if (!pw_is_future(at, close)) {
        if (size >= sizeof text)
            return NULL;
        memcpy(text, at, size);
        text[size] = '\0';
        if (strlen(text) != size || inet_pton(AF_INET6, text, &address) != 1)
            return NULL;
    }
    return close + 1;
}

/* Host = uri-host [ ":" port ] (RFC 9110 section 7.2). */
static bool pw_is_host(pw_span host, bool may_be_empty)
{
    const char *at = host.at, *end = host.at + host.size;
    if (at == end)
        return may_be_empty;
    if (*at == '[') {
        at = pw_ip_literal(at, end);
        if (at == NULL)
            return false;
    } else {
        const char *first = at;
        while (at < end && *at != ':') {
            if (*at == '%') {
                if (end - at < 3 || !pw_is_hex(at[1]) || !pw_is_hex(at[2]))
                    return false;
                at += 3;
            } else if (pw_is_name_char(*at)) {
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

/* ------------------------------------------------------------------ request line */

/* HTTP-version = "HTTP/" DIGIT "." DIGIT (RFC 9112 section 2.3) */
static pw_error pw_version(const char *at, size_t size, uint8_t *minor)
{
    if (size != 8 || memcmp(at, "HTTP/", 5) != 0 || !pw_is_digit(at[5]) || at[6] != '.' ||
        !pw_is_digit(at[7]))
        return PW_E_VERSION;
    if (at[5] != '1')
        return PW_E_OTHER_VERSION;
    *minor = at[7] == '0' ? 0 : 1;
    return PW_E_NONE;
}

/* absolute-form = scheme "://" authority path-abempty [ "?" query ], scheme http or https */
static pw_error pw_absolute_form(pw_head *head)
{
    const char *at = head->target.at, *end = at + head->target.size;
    size_t scheme = 0;
    if (head->target.size > 7 && pw_equals(at, 7, "http://"))
        scheme = 7;
    else if (head->target.size > 8 && pw_equals(at, 8, "https://"))
        scheme = 8;
    else
        return PW_E_TARGET;
    const char *from = at + scheme;
    const char *to = from;
    while (to < end && *to != '/' && *to != '?')
        to++;
    head->authority = pw_cut(from, to);
    if (!pw_is_host(head->authority, false))
        return PW_E_TARGET;
    head->path = pw_cut(to, end);
    return PW_E_NONE;
}

/* A bit for each byte. Everywhere in a target: controls, SP, "#" (a fragment) and bytes beyond ASCII.
 * In a path also " < > \ ^ ` { }, which RFC 3986 allows nowhere and programs read in several ways.
 * "[", "]" and "|" are no pchar either, but clients send them as they are, and in a query all of
 * these. */
static const uint32_t not_in_target[8] = {0xffffffff, 0x00000009, 0x00000000, 0x80000000,
                                          0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff};
static const uint32_t not_in_path[8] = {0xffffffff, 0x5000000d, 0x50000000, 0xa8000001,
                                        0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff};

/* Whether none of the bytes is in the set. */
static bool pw_is_free_of(const uint32_t set[8], const char *at, const char *end)
{
    for (; at < end; at++) {
        unsigned char c = (unsigned char)*at;
        if ((set[c >> 5] >> (c & 31)) & 1)
            return false;
    }
    return true;
}

static pw_error pw_target(pw_head *head)
{
    const char *at = head->target.at;
    size_t size = head->target.size;
    if (size > PW_TARGET_MOST)
        return PW_E_TARGET_SIZE;
    if (size == 0)
        return PW_E_REQUEST_LINE;
    const char *end = at + size;
    const char *mark = memchr(at, '?', size);
    if (!pw_is_free_of(not_in_path, at, mark != NULL ? mark : end) ||
        (mark != NULL && !pw_is_free_of(not_in_target, mark, end)))
        return PW_E_TARGET;
    if (at[0] == '/') {
        head->path = head->target;
    } else if (size == 1 && at[0] == '*') {
        if (head->method.size != 7 || memcmp(head->method.at, "OPTIONS", 7) != 0)
            return PW_E_TARGET;
        head->path = head->target;
    } else {
        pw_error error = pw_absolute_form(head);
        if (error != PW_E_NONE)
            return error;
    }
    head->query = mark != NULL ? pw_cut(mark + 1, end) : pw_cut(end, end);
    if (mark != NULL)
        head->path.size = (size_t)(mark - head->path.at);
    if (head->path.size == 0)
        head->path = (pw_span){"/", 1}; /* RFC 9112 section 3.2.1, of http://host and ?query */
    return PW_E_NONE;
}

/* request-line = method SP request-target SP HTTP-version */
pw_error pw_request_line(const char *data, size_t size, pw_head *head)
{
    if (size < 2 || data[size - 2] != '\r' || data[size - 1] != '\n')
        return PW_E_LINE_END;
    head->facts.line_size = (uint32_t)size;
    const char *end = data + size - 2;
    const char *first = memchr(data, ' ', size - 2);
    if (first == NULL)
        return PW_E_REQUEST_LINE;
    head->method = pw_cut(data, first);
    if (head->method.size > PW_METHOD_MOST || !pw_is_token(head->method.at, head->method.size))
        return PW_E_METHOD;
    head->facts.is_head = head->method.size == 4 && memcmp(head->method.at, "HEAD", 4) == 0;
    const char *second = memchr(first + 1, ' ', (size_t)(end - first - 1));
    if (second == NULL)
        return PW_E_REQUEST_LINE;
    head->target = pw_cut(first + 1, second);
    head->authority = (pw_span){NULL, 0};
    pw_error error = pw_version(second + 1, (size_t)(end - second - 1), &head->facts.minor);
    if (error != PW_E_NONE)
        return error;
    if (head->method.size == 7 && memcmp(head->method.at, "CONNECT", 7) == 0)
        return PW_E_CONNECT;
    return pw_target(head);
}

/* ------------------------------------------------------------------ fields */

/* Content-Length = 1*DIGIT, within 63 bits */
static bool pw_content_length(pw_span value, int64_t *length)
{
    int64_t sum = 0;
    if (value.size == 0)
        return false;
    for (size_t i = 0; i < value.size; i++) {
        if (!pw_is_digit(value.at[i]))
            return false;
        int digit = value.at[i] - '0';
        if (sum > (INT64_MAX - digit) / 10)
            return false;
        sum = sum * 10 + digit;
    }
    *length = sum;
    return true;
}

/* The next element of a #list (RFC 9110 section 5.6.1), its blanks cut off; false at the end. */
static bool pw_list_next(pw_span *rest, pw_span *element)
{
    if (rest->at == NULL)
        return false;
    const char *end = rest->at + rest->size;
    const char *comma = memchr(rest->at, ',', rest->size);
    const char *from = rest->at, *to = comma != NULL ? comma : end;
    while (from < to && (*from == ' ' || *from == '\t'))
        from++;
    while (to > from && (to[-1] == ' ' || to[-1] == '\t'))
        to--;
    *element = pw_cut(from, to);
    *rest = comma != NULL ? pw_cut(comma + 1, end) : (pw_span){NULL, 0};
    return true;
}

/* Only `chunked` alone is understood; a well-formed list with other codings is 501. */
static pw_error pw_transfer_coding(pw_span value, bool *chunked, bool *other)
{
    if (pw_equals(value.at, value.size, "chunked")) {
        *chunked = true;
        return PW_E_NONE;
    }
    pw_span rest = value, element;
    bool ended = false; /* chunked has been seen: it must be the last */
    while (pw_list_next(&rest, &element)) {
        const char *semicolon = memchr(element.at, ';', element.size);
        size_t size = semicolon != NULL ? (size_t)(semicolon - element.at) : element.size;
        if (!pw_is_token(element.at, size) || ended)
            return PW_E_CODING;
        ended = pw_equals(element.at, element.size, "chunked");
    }
    *other = true;
    return PW_E_NONE;
}

typedef struct {
    bool host, type, length, coding, other_coding, close, keep_alive;
} pw_seen;

/* What one field means to the connection. */
static pw_error pw_field_meaning(const pw_field *field, pw_head *head, pw_seen *seen)
{
    pw_span rest = field->value, element;
    switch (field->number) {
    case PW_KEY_HOST:
        if (seen->host || !pw_is_host(field->value, head->facts.minor == 0))
            return PW_E_HOST;
        seen->host = true;
        return PW_E_NONE;
    case PW_KEY_CONTENT_TYPE:
        if (seen->type)
            return PW_E_TYPE;
        seen->type = true;
        return PW_E_NONE;
    case PW_KEY_CONTENT_LENGTH:
        if (seen->length || !pw_content_length(field->value, &head->facts.content_length))
            return PW_E_LENGTH;
        seen->length = true;
        return PW_E_NONE;
    case PW_KEY_TRANSFER_ENCODING:
        if (seen->coding || head->facts.minor == 0)
            return PW_E_CODING;
        seen->coding = true;
        return pw_transfer_coding(field->value, &head->facts.chunked, &seen->other_coding);
    case PW_KEY_CONNECTION:
        while (pw_list_next(&rest, &element)) {
            seen->close |= pw_equals(element.at, element.size, "close");
            seen->keep_alive |= pw_equals(element.at, element.size, "keep-alive");
        }
        return PW_E_NONE;
    case PW_KEY_EXPECT:
        if (head->facts.minor == 0)
            return PW_E_NONE; /* RFC 9110 section 10.1.1: ignored in HTTP/1.0 */
        if (!pw_equals(field->value.at, field->value.size, "100-continue"))
            return PW_E_EXPECTATION;
        head->facts.expect_continue = true;
        return PW_E_NONE;
    default:
        return PW_E_NONE;
    }
}

/* The first line, with its LF, which is there. */
static size_t pw_line_size(const char *data, size_t size)
{
    return (size_t)((const char *)memchr(data, '\n', size) + 1 - data);
}

/* Everything about the head that picohttpparser let pass; data[0, size) is complete. */
static pw_error pw_strict(const pw_limits *limits, const char *data, size_t size, pw_head *head,
                          const struct phr_header *found, size_t count)
{
    const char *end = data + size;
    pw_error error = pw_request_line(data, pw_line_size(data, size), head);
    if (error != PW_E_NONE)
        return error;
    head->facts.content_length = -1;
    head->facts.chunked = false;
    head->facts.expect_continue = false;
    head->field_count = 0;
    pw_seen seen = {.host = false};
    for (size_t i = 0; i < count; i++)
        if (found[i].name == NULL)
            return PW_E_FOLD; /* before all else, as in pw_lines_judge */
    for (size_t i = 0; i < count; i++) {
        const char *after = found[i].value + found[i].value_len;
        while (after < end && (*after == ' ' || *after == '\t'))
            after++;
        if (after == end || *after != '\r')
            return PW_E_LINE_END;
        pw_field *field = &head->fields[head->field_count];
        field->name = (pw_span){found[i].name, found[i].name_len};
        field->value = (pw_span){found[i].value, found[i].value_len};
        field->number = pw_field_number(found[i].name, found[i].name_len);
        if (field->number == PW_OTHER_NAME && limits->underscore_fields != PW_UNDERSCORE_ALLOW &&
            memchr(found[i].name, '_', found[i].name_len) != NULL) {
            if (limits->underscore_fields == PW_UNDERSCORE_REFUSE)
                return PW_E_UNDERSCORE;
            continue;
        }
        error = pw_field_meaning(field, head, &seen);
        if (error != PW_E_NONE)
            return error;
        head->field_count++;
    }
    if (end[-2] != '\r')
        return PW_E_LINE_END;
    if (head->facts.minor != 0 && !seen.host)
        return PW_E_HOST;
    if (seen.length && seen.coding)
        return PW_E_LENGTH_AND_CODING;
    if (seen.other_coding)
        return PW_E_OTHER_CODING;
    if (limits->max_body_size != 0 && head->facts.content_length > limits->max_body_size)
        return PW_E_BODY_SIZE;
    head->facts.keep_alive = !seen.close && (head->facts.minor != 0 || seen.keep_alive);
    return PW_E_NONE;
}

/*
 * What is wrong with lines of a head that is not complete, or that picohttpparser has refused. The
 * field lines from `at` on follow `before` others; `good` of them it has taken. Obsolete folding
 * (RFC 9112 section 5.2) it takes as well, and what comes after that is not waited for.
 */
static pw_error pw_lines_judge(const pw_limits *limits, const char *data, size_t size, size_t at,
                               size_t before, size_t good, bool refused, pw_head *head)
{
    const char *line = data + at, *end = data + size;
    bool folded = false;
    for (size_t i = 0; i <= good && line < end && before + i < limits->max_fields; i++) {
        folded |= before + i > 0 && (*line == ' ' || *line == '\t');
        line = (const char *)memchr(line, '\n', (size_t)(end - line)) + 1;
    }
    if (!refused && !folded)
        return PW_E_NONE;
    pw_error error = pw_request_line(data, pw_line_size(data, size), head);
    if (error != PW_E_NONE)
        return error;
    if (folded)
        return PW_E_FOLD;
    return before + good == limits->max_fields ? PW_E_FIELD_COUNT : PW_E_FIELD;
}

/* A head that has not ended within the limit. */
static pw_error pw_too_large(const char *data, size_t size)
{
    const char *line_end = memchr(data, '\n', size);
    if (line_end == NULL)
        line_end = data + size;
    const char *blank = memchr(data, ' ', (size_t)(line_end - data));
    const char *target = blank != NULL ? blank + 1 : line_end;
    const char *after = memchr(target, ' ', (size_t)(line_end - target));
    size_t target_size = (size_t)((after != NULL ? after : line_end) - target);
    return target_size > PW_TARGET_MOST ? PW_E_TARGET_SIZE : PW_E_HEAD_SIZE;
}

/* Lines of a head have come whose others, up to progress->judged, are good, and this is not all of it
 * yet, unless PW_PARSE_DONE. data[0, size) ends with a line. */
static pw_parse pw_more_lines(const pw_limits *limits, const char *data, size_t size,
                              pw_head_progress *progress, pw_head *head, pw_error *error)
{
    struct phr_header found[PW_FIELDS_MOST];
    size_t at = progress->judged, count = limits->max_fields - progress->fields;
    int parsed = pw_fields_parser()(data + at, size - at, found, &count, 0);
    if (parsed > 0)
        return PW_PARSE_DONE;
    *error = pw_lines_judge(limits, data, size, at, progress->fields, count, parsed == -1, head);
    progress->judged = size;
    progress->fields += count;
    return *error == PW_E_NONE ? PW_PARSE_MORE : PW_PARSE_ERROR;
}

/* The head from its start; data[0, size) ends with a line. */
static pw_parse pw_all_lines(const pw_limits *limits, const char *data, size_t size,
                             pw_head_progress *progress, pw_head *head, pw_error *error)
{
    struct phr_header found[PW_FIELDS_MOST];
    const char *method, *target;
    size_t method_size, target_size, count = limits->max_fields;
    int minor;
    int parsed = pw_request_parser()(data, size, &method, &method_size, &target, &target_size,
                                     &minor, found, &count, 0);
    if (parsed > 0) {
        *error = pw_strict(limits, data, (size_t)parsed, head, found, count);
        head->facts.size = (uint32_t)parsed;
        return *error == PW_E_NONE ? PW_PARSE_DONE : PW_PARSE_ERROR;
    }
    *error =
        pw_lines_judge(limits, data, size, pw_line_size(data, size), 0, count, parsed == -1, head);
    if (minor >= 0) { /* or it was too little of a request line to be judged */
        progress->judged = size;
        progress->fields = count;
    }
    return *error == PW_E_NONE ? PW_PARSE_MORE : PW_PARSE_ERROR;
}

pw_parse pw_head_parse(const pw_limits *limits, const char *data, size_t size,
                       pw_head_progress *progress, pw_head *head, pw_error *error)
{
    /* RFC 9112 section 2.2: one empty line before the request line is passed over */
    size_t lead = 0;
    if (size > 0 && data[0] == '\r') {
        if (size < 2)
            return PW_PARSE_MORE;
        lead = 2;
    }
    /* No method begins so (a TLS client waits for an answer before it sends a line end). */
    if ((lead != 0 && data[1] != '\n') || (size > lead && !pw_is_token(data + lead, 1))) {
        *error = PW_E_REQUEST_LINE;
        return PW_PARSE_ERROR;
    }

    const char *from = data + lead;
    size_t most = size - lead < limits->max_head_size ? size - lead : limits->max_head_size;
    size_t whole = most; /* up to the last LF that no earlier call has seen */
    while (whole > progress->scanned && from[whole - 1] != '\n')
        whole--;
    if (whole > progress->scanned) {
        pw_parse outcome = PW_PARSE_DONE;
        if (progress->judged > 0) /* none is looked at again before all are here */
            outcome = pw_more_lines(limits, from, whole, progress, head, error);
        if (outcome == PW_PARSE_DONE)
            outcome = pw_all_lines(limits, from, whole, progress, head, error);
        if (outcome == PW_PARSE_DONE)
            head->facts.size += (uint32_t)lead;
        if (outcome != PW_PARSE_MORE)
            return outcome;
    }
    if (size - lead >= limits->max_head_size) {
        *error = pw_too_large(from, most);
        return PW_PARSE_ERROR;
    }
    progress->scanned = most;
    return PW_PARSE_MORE;
}
