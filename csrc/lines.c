/*
 * Comparison of a head with the previous head of the same connection. If only the request line and
 * the values of some fields differ, the core parses and checks only these lines: the others are the
 * same, byte for byte. In doubt the answer is no, and the core parses the whole head.
 *
 * A line may differ only in its value. So the names, their number and their order are those of a
 * valid head, and the checks that depend on them hold again: no field that must be unique comes
 * twice, the number of fields is allowed, and the same fields form one value.
 */
#include <string.h>

#include "alloc.h"
#include "fields.h"
#include "lines.h"

/* Whether the core itself does not use the value of this field. */
static bool line_may_change(uint8_t number, bool forwarded)
{
    if (forwarded && pw_is_forwarded(number))
        return false;
    switch (number) {
    case PW_OTHER_NAME:
    case PW_KEY_TRANSFER_ENCODING:
    case PW_KEY_CONTENT_LENGTH:
    case PW_KEY_HOST:
    case PW_KEY_CONNECTION:
    case PW_KEY_EXPECT:
        return false;
    default:
        return true;
    }
}

static pw_line *line_add(pw_lines *lines, size_t size)
{
    pw_line *line = &lines->lines[lines->count++];
    *line = (pw_line){.size = (uint32_t)size};
    return line;
}

pw_lines *pw_lines_new(const pw_head *head, const char *data)
{
    uint16_t times[256] = {0};
    for (size_t i = 0; i < head->field_count; i++)
        times[head->fields[i].number]++;
    /* Between two fields of the head there may be dropped fields. Their
     * lines together are one pw_line. */
    pw_lines *lines = pw_alloc(sizeof *lines + (2 * head->field_count + 1) * sizeof(pw_line));
    if (lines == NULL)
        return NULL;
    const char *at = data + head->facts.line_size, *end = data + head->facts.size - 2;
    for (size_t i = 0; i < head->field_count; i++) {
        const pw_field *field = &head->fields[i];
        const char *value_end = field->value.at + field->value.size;
        const char *next = (const char *)memchr(value_end, '\n', (size_t)(end - value_end)) + 1;
        if (field->name.at > at)
            line_add(lines, (size_t)(field->name.at - at));
        pw_line *line = line_add(lines, (size_t)(next - field->name.at));
        line->number = field->number;
        if (line_may_change(field->number, head->facts.forwarded) && times[field->number] == 1)
            line->name_size = (uint32_t)field->name.size + 1;
        at = next;
    }
    if (end > at)
        line_add(lines, (size_t)(end - at));
    return lines;
}

#define PW_EACH_BYTE(c) ((uint64_t)0x0101010101010101 * (c))

/* field-value = *( HTAB / SP / VCHAR / obs-text ), as picohttpparser takes it */
static bool is_value(const char *at, const char *end)
{
    for (; end - at >= 8; at += 8) { /* skips eight bytes if none of them is special */
        uint64_t bytes;
        memcpy(&bytes, at, sizeof bytes);
        uint64_t is_del = bytes ^ PW_EACH_BYTE(0x7f);
        uint64_t special =
            ((bytes - PW_EACH_BYTE(0x20)) & ~bytes) | ((is_del - PW_EACH_BYTE(1)) & ~is_del);
        if (special & PW_EACH_BYTE(0x80))
            break;
    }
    for (; at < end; at++) {
        unsigned char c = (unsigned char)*at;
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

/* The value at `at`, without the blanks around it. Returns the position after its CRLF, or NULL. */
static const char *line_value(const char *at, const char *end, pw_span *value)
{
    const char *stop = memchr(at, '\r', (size_t)(end - at));
    if (stop == NULL || end - stop < 2 || stop[1] != '\n' || !is_value(at, stop))
        return NULL;
    const char *to = stop;
    while (at < to && (*at == ' ' || *at == '\t'))
        at++;
    while (to > at && (to[-1] == ' ' || to[-1] == '\t'))
        to--;
    *value = (pw_span){at, (size_t)(to - at)};
    return stop + 2;
}

size_t pw_lines_follow(const pw_lines *lines, const char *before, const char *data, size_t size,
                       pw_changes *changes)
{
    const char *at = data, *end = data + size;
    changes->count = 0;
    for (size_t i = 0; i < lines->count; before += lines->lines[i++].size) {
        const pw_line *line = &lines->lines[i];
        size_t left = (size_t)(end - at);
        if (left >= line->size && memcmp(at, before, line->size) == 0) {
            at += line->size;
            continue;
        }
        if (line->name_size == 0 || left < line->name_size || changes->count == PW_CHANGES_MOST ||
            memcmp(at, before, line->name_size) != 0)
            return 0;
        pw_change *change = &changes->items[changes->count++];
        change->number = line->number;
        at = line_value(at + line->name_size, end, &change->value);
        if (at == NULL)
            return 0;
    }
    if (end - at < 2 || at[0] != '\r' || at[1] != '\n')
        return 0;
    return (size_t)(at + 2 - data);
}
