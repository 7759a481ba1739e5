/* The request line (RFC 9112 section 3). A line that two programs
 * could read in two ways is refused. */
#include <string.h>

#include "fields.h"
#include "host.h"
#include "request_line.h"
#include "text.h"

/* HTTP-version = "HTTP/" DIGIT "." DIGIT (RFC 9112 section 2.3) */
static pw_error parse_version(const char *at, size_t size, uint8_t *minor)
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
static pw_error parse_absolute_form(pw_head *head)
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

/*
 * The bytes that a target must not contain, one bit for each byte: controls, SP, "#" (a fragment)
 * and bytes beyond ASCII. A path must not contain " < > \ ^ ` { } either: RFC 3986 allows them
 * nowhere, and programs read them in several ways. "[", "]" and "|" are no pchar, but clients send
 * them unencoded. In a query clients send all of these.
 */
static const uint32_t not_in_target[8] = {0xffffffff, 0x00000009, 0x00000000, 0x80000000,
                                          0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff};
static const uint32_t not_in_path[8] = {0xffffffff, 0x5000000d, 0x50000000, 0xa8000001,
                                        0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff};

/* Whether no byte of the text is in the set. */
static bool is_free_of(const uint32_t set[8], const char *at, const char *end)
{
    for (; at < end; at++) {
        unsigned char c = (unsigned char)*at;
        if ((set[c >> 5] >> (c & 31)) & 1)
            return false;
    }
    return true;
}

static pw_error parse_target(pw_head *head)
{
    const char *at = head->target.at;
    size_t size = head->target.size;
    if (size > PW_TARGET_MOST)
        return PW_E_TARGET_SIZE;
    if (size == 0)
        return PW_E_REQUEST_LINE;
    const char *end = at + size;
    const char *mark = memchr(at, '?', size);
    if (!is_free_of(not_in_path, at, mark != NULL ? mark : end) ||
        (mark != NULL && !is_free_of(not_in_target, mark, end)))
        return PW_E_TARGET;
    if (at[0] == '/') {
        head->path = head->target;
    } else if (size == 1 && at[0] == '*') {
        if (head->method.size != 7 || memcmp(head->method.at, "OPTIONS", 7) != 0)
            return PW_E_TARGET;
        head->path = head->target;
    } else {
        pw_error error = parse_absolute_form(head);
        if (error != PW_E_NONE)
            return error;
    }
    head->query = mark != NULL ? pw_cut(mark + 1, end) : pw_cut(end, end);
    if (mark != NULL)
        head->path.size = (size_t)(mark - head->path.at);
    if (head->path.size == 0)
        head->path = (pw_span){"/", 1}; /* RFC 9112 section 3.2.1, for http://host and ?query */
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
    pw_error error = parse_version(second + 1, (size_t)(end - second - 1), &head->facts.minor);
    if (error != PW_E_NONE)
        return error;
    if (head->method.size == 7 && memcmp(head->method.at, "CONNECT", 7) == 0)
        return PW_E_CONNECT;
    return parse_target(head);
}
