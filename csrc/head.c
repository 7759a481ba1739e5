/*
 * Parsing of a request head. picohttpparser finds the spans. The rest of this file decides whether
 * they are a valid message (RFC 9112 sections 2 to 6) with exactly one meaning.
 */
#include <string.h>

#include "fields.h"
#include "head.h"
#include "host.h"
#include "parser.h"
#include "request_line.h"
#include "text.h"
#include "vendor/picohttpparser/picohttpparser.h"

/* Content-Length = 1*DIGIT, less than 2**63 */
static bool parse_length(pw_span value, int64_t *length)
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

bool pw_list_next(pw_span *rest, pw_span *element)
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

/* Accepts only `chunked` alone. A well-formed list with other codings is answered with 501. */
static pw_error transfer_coding(pw_span value, bool *chunked, bool *other)
{
    if (pw_equals(value.at, value.size, "chunked")) {
        *chunked = true;
        return PW_E_NONE;
    }
    pw_span rest = value, element;
    bool ended = false; /* chunked was found: it must be the last coding */
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
    bool host, type, length, coding, other_coding, close, keep_alive, forwarded;
    bool upgrade,
        upgrade_option; /* the field Upgrade; the option in Connection that announces it */
} pw_seen;

/* Applies the meaning that one field has for the connection. */
static pw_error field_meaning(const pw_field *field, pw_head *head, pw_seen *seen)
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
        if (seen->length || !parse_length(field->value, &head->facts.content_length))
            return PW_E_LENGTH;
        seen->length = true;
        return PW_E_NONE;
    case PW_KEY_TRANSFER_ENCODING:
        if (seen->coding || head->facts.minor == 0)
            return PW_E_CODING;
        seen->coding = true;
        return transfer_coding(field->value, &head->facts.chunked, &seen->other_coding);
    case PW_KEY_CONNECTION:
        while (pw_list_next(&rest, &element)) {
            seen->close |= pw_equals(element.at, element.size, "close");
            seen->keep_alive |= pw_equals(element.at, element.size, "keep-alive");
            seen->upgrade_option |= pw_equals(element.at, element.size, "upgrade");
        }
        return PW_E_NONE;
    case PW_KEY_EXPECT:
        if (head->facts.minor == 0)
            return PW_E_NONE; /* RFC 9110 section 10.1.1: ignored in HTTP/1.0 */
        if (!pw_equals(field->value.at, field->value.size, "100-continue"))
            return PW_E_EXPECTATION;
        head->facts.expect_continue = true;
        return PW_E_NONE;
    case PW_KEY_UPGRADE:
        seen->upgrade = true;
        return PW_E_NONE;
    case PW_KEY_FORWARDED:
    case PW_KEY_FORWARDED_FOR:
    case PW_KEY_FORWARDED_PROTO:
    case PW_KEY_FORWARDED_HOST:
    case PW_KEY_FORWARDED_PORT:
    case PW_KEY_FORWARDED_PREFIX:
        seen->forwarded = true;
        return PW_E_NONE;
    default:
        return PW_E_NONE;
    }
}

/* RFC 9110 section 7.8: Connection announces Upgrade, and a server ignores both in HTTP/1.0. After
 * content, the client's next bytes are not of the new protocol alone. */
static bool asks_for_upgrade(const pw_facts *facts, const pw_seen *seen)
{
    return seen->upgrade && seen->upgrade_option && facts->minor != 0 && !facts->chunked &&
           facts->content_length <= 0;
}

/* Removes Forwarded and the X-Forwarded fields. */
static void drop_forwarded(pw_head *head)
{
    size_t count = 0;
    for (size_t i = 0; i < head->field_count; i++)
        if (!pw_is_forwarded(head->fields[i].number))
            head->fields[count++] = head->fields[i];
    head->field_count = count;
}

/* The size of the first line with its LF, which has arrived. */
static size_t first_line_size(const char *data, size_t size)
{
    return (size_t)((const char *)memchr(data, '\n', size) + 1 - data);
}

/* Checks everything that picohttpparser does not. data[0, size) is complete. */
static pw_error check_head(const pw_limits *limits, const char *data, size_t size, pw_head *head,
                           const struct phr_header *found, size_t count)
{
    const char *end = data + size;
    pw_error error = pw_request_line(data, first_line_size(data, size), head);
    if (error != PW_E_NONE)
        return error;
    head->facts.content_length = -1;
    head->facts.chunked = false;
    head->facts.expect_continue = false;
    head->facts.forwarded = false;
    head->facts.dropped = 0;
    head->field_count = 0;
    pw_seen seen = {.host = false};
    for (size_t i = 0; i < count; i++)
        if (found[i].name == NULL)
            return PW_E_FOLD; /* checked first, as in lines_check */
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
            head->facts.dropped++; /* at most PW_FIELDS_MOST */
            head->dropped = field->name;
            continue;
        }
        error = field_meaning(field, head, &seen);
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
    head->facts.upgrade = asks_for_upgrade(&head->facts, &seen) ? PW_UPGRADE : 0;
    head->facts.forwarded = seen.forwarded && limits->forwarding == PW_FORWARDING_READ;
    if (seen.forwarded && limits->forwarding == PW_FORWARDING_DROP)
        drop_forwarded(head);
    return PW_E_NONE;
}

/*
 * Finds the error in lines of a head that is not complete, or that picohttpparser has refused. The
 * field lines from `at` on follow `before` others. picohttpparser has accepted `good` of them. It
 * also accepts obsolete folding (RFC 9112 section 5.2), which is an error here: this does not wait
 * for the rest.
 */
static pw_error lines_check(const pw_limits *limits, const char *data, size_t size, size_t at,
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
    pw_error error = pw_request_line(data, first_line_size(data, size), head);
    if (error != PW_E_NONE)
        return error;
    if (folded)
        return PW_E_FOLD;
    return before + good == limits->max_fields ? PW_E_FIELD_COUNT : PW_E_FIELD;
}

/* The error of a head that is larger than the limit. */
static pw_error too_large(const char *data, size_t size)
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

/* Parses more lines of a head. Its lines up to progress->checked are valid. Unless this returns
 * PW_PARSE_DONE, the head is not complete. data[0, size) ends with a line. */
static pw_parse more_lines(const pw_limits *limits, const char *data, size_t size,
                           pw_head_progress *progress, pw_head *head, pw_error *error)
{
    struct phr_header found[PW_FIELDS_MOST];
    size_t at = progress->checked, count = limits->max_fields - progress->fields;
    int parsed = pw_fields_parser()(data + at, size - at, found, &count, 0);
    if (parsed > 0)
        return PW_PARSE_DONE;
    *error = lines_check(limits, data, size, at, progress->fields, count, parsed == -1, head);
    progress->checked = size;
    progress->fields += count;
    return *error == PW_E_NONE ? PW_PARSE_MORE : PW_PARSE_ERROR;
}

/* Parses the head from its start. data[0, size) ends with a line. */
static pw_parse all_lines(const pw_limits *limits, const char *data, size_t size,
                          pw_head_progress *progress, pw_head *head, pw_error *error)
{
    struct phr_header found[PW_FIELDS_MOST];
    const char *method, *target;
    size_t method_size, target_size, count = limits->max_fields;
    int minor;
    int parsed = pw_request_parser()(data, size, &method, &method_size, &target, &target_size,
                                     &minor, found, &count, 0);
    if (parsed > 0) {
        *error = check_head(limits, data, (size_t)parsed, head, found, count);
        head->facts.size = (uint32_t)parsed;
        return *error == PW_E_NONE ? PW_PARSE_DONE : PW_PARSE_ERROR;
    }
    *error =
        lines_check(limits, data, size, first_line_size(data, size), 0, count, parsed == -1, head);
    if (minor >= 0) { /* or too little of the request line to check it */
        progress->checked = size;
        progress->fields = count;
    }
    return *error == PW_E_NONE ? PW_PARSE_MORE : PW_PARSE_ERROR;
}

pw_parse pw_head_parse(const pw_limits *limits, const char *data, size_t size,
                       pw_head_progress *progress, pw_head *head, pw_error *error)
{
    /* RFC 9112 section 2.2: one empty line before the request line is ignored */
    size_t lead = 0;
    if (size > 0 && data[0] == '\r') {
        if (size < 2)
            return PW_PARSE_MORE;
        lead = 2;
    }
    /* No method begins like this. A TLS client waits for an answer before it sends a line end. */
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
        if (progress->checked > 0) /* the others are checked again only when the head is complete */
            outcome = more_lines(limits, from, whole, progress, head, error);
        if (outcome == PW_PARSE_DONE)
            outcome = all_lines(limits, from, whole, progress, head, error);
        if (outcome == PW_PARSE_DONE)
            head->facts.size += (uint32_t)lead;
        if (outcome != PW_PARSE_MORE)
            return outcome;
    }
    if (size - lead >= limits->max_head_size) {
        *error = too_large(from, most);
        return PW_PARSE_ERROR;
    }
    progress->scanned = most;
    return PW_PARSE_MORE;
}

pw_span pw_find_field(const pw_head *head, const char *lower, size_t size)
{
    for (size_t i = 0; i < head->field_count; i++)
        if (head->fields[i].name.size == size) {
            size_t k = 0;
            while (k < size && (char)(head->fields[i].name.at[k] | 32) == (char)(lower[k] | 32))
                k++;
            if (k == size)
                return head->fields[i].value;
        }
    return (pw_span){NULL, 0};
}
