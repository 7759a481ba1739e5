/*
 * The block of values from which Python makes the environ in one step (PEP 3333, RFC 3875): a byte
 * for each value with the number of its key, NUL, and the values in latin-1, separated by NUL.
 */
#include <string.h>

#include "alloc.h"
#include "environ.h"
#include "fields.h"
#include "index.h"
#include "text.h"

/* Values that come from no field: the keys of the enum up to PW_KEY_PORT, and CONTENT_LENGTH. */
#define PW_OWN_VALUES 8

size_t pw_block_most(const pw_limits *limits)
{
    /* The target may be in the block three times: whole, as path, as query. A field needs its name
     * and value, "HTTP_", a number, a separator and the NUL. */
    return 3 * limits->max_head_size + 9 * limits->max_fields + 256;
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

static void end_values(pw_block *block, char *to, const pw_head *head)
{
    block->size = (size_t)(put_decoded(to, head->path) - block->at);
}

void pw_block_make_line(pw_block *block, const pw_head *head, bool same_method,
                        const pw_changes *changes)
{
    block->other_names = false;
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
    end_values(block, to, head);
}

static char *put_length(char *to, int64_t length)
{
    to += pw_digits(to, length);
    *to++ = '\0';
    return to;
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
                   int64_t content_length)
{
    static const char own[] = {PW_KEY_URI, PW_KEY_ADDRESS, PW_KEY_PORT};
    bool is_get = head->method.size == 3 && memcmp(head->method.at, "GET", 3) == 0;
    pw_index index;
    pw_index_make(&index, head);
    if (head->authority.at != NULL) /* RFC 9112 section 3.2.2: the authority replaces Host */
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
    memset(to, PW_OTHER_NAME, index.other_count);
    to = end_numbers(block, to + index.other_count);

    if (!is_get)
        to = put_span(to, head->method);
    if (head->query.size > 0)
        to = put_span(to, head->query);
    if (head->facts.minor == 0)
        to = put_protocol(to, head);
    to = put_span(to, head->target);
    to = put_value(to, peer->address, strlen(peer->address));
    to = put_value(to, peer->port, strlen(peer->port));
    if (content_length >= 0)
        to = put_length(to, content_length);
    for (; fields < fields_end; fields++)
        if (*fields == PW_KEY_HOST && head->authority.at != NULL)
            to = put_span(to, head->authority);
        else
            to = put_field(to, head, &index, index.first[(uint8_t)*fields]);
    for (size_t i = 0; i < index.other_count; i++)
        to = put_named_field(to, head, &index, index.others[i]);
    block->other_names = index.other_count != 0;
    end_values(block, to, head);
}

/* ------------------------------------------------------------------ changed values */

pw_template *pw_template_new(const pw_head *head, const char *data)
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

bool pw_block_make_changes(pw_block *block, const pw_head *head, int64_t content_length,
                           const pw_template *template, const char *data)
{
    if (head->authority.at != NULL || head->facts.minor != template->minor ||
        (template->has_length && content_length < 0))
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
        if (known && index.next[at] == PW_NO_FIELD &&
            template_has(template, data, number, head->fields[at].value))
            continue;
        changed[number >> 6] |= pw_index_bit((uint8_t)number);
        *to++ = (char)number;
    }
    if (found != template->count)
        return false;
    to = end_numbers(block, to);
    if (!same_method)
        to = put_span(to, head->method);
    to = put_span(to, head->query);
    to = put_span(to, head->target);
    if (content_length >= 0)
        to = put_length(to, content_length);
    for (int number; (number = pw_index_pop(changed)) >= 0;)
        to = put_field(to, head, &index, index.first[number]);
    block->other_names = false;
    end_values(block, to, head);
    return true;
}
