/*
 * The block of values from which Python makes the environ in one go (PEP 3333, RFC 3875): latin-1
 * values joined by NUL, then a byte for each that numbers its key.
 */
#include <string.h>

#include "core.h"

/* Values that are no field's: those of the enum up to PW_KEY_PORT, and CONTENT_LENGTH. */
#define PW_OWN_VALUES 8

size_t pw_block_most(const pw_limits *limits)
{
    /* The target may stand three times: whole, as path, as query. A field costs its name and value,
     * "HTTP_", a number, a separator and the NUL. */
    return 3 * limits->max_head_size + 9 * limits->max_fields + 256;
}

/* The block while it grows. */
typedef struct {
    char *to;
    uint32_t count;
    uint8_t numbers[1024 + PW_OWN_VALUES];
} pw_making;

static void pw_put(pw_making *making, const char *data, size_t size)
{
    memcpy(making->to, data, size);
    making->to += size;
}

static void pw_value(pw_making *making, uint8_t number, const char *data, size_t size)
{
    making->numbers[making->count++] = number;
    pw_put(making, data, size);
    *making->to++ = '\0';
}

static int pw_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes once; a "%" that no two digits follow stays as it is. */
static void pw_put_decoded(pw_making *making, pw_span text)
{
    const char *at = text.at, *end = text.at + text.size;
    for (;;) {
        const char *mark = memchr(at, '%', (size_t)(end - at));
        pw_put(making, at, (size_t)((mark != NULL ? mark : end) - at));
        if (mark == NULL)
            return;
        int high = end - mark > 2 ? pw_hex_digit(mark[1]) : -1;
        int low = high >= 0 ? pw_hex_digit(mark[2]) : -1;
        if (low >= 0) {
            *making->to++ = (char)(high * 16 + low);
            at = mark + 3;
        } else {
            *making->to++ = '%';
            at = mark + 1;
        }
    }
}

static void pw_put_line(pw_making *making, const pw_head *head)
{
    pw_value(making, PW_KEY_METHOD, head->method.at, head->method.size);
    pw_value(making, PW_KEY_QUERY, head->query.at, head->query.size);
    pw_value(making, PW_KEY_PROTOCOL, head->facts.minor == 0 ? "HTTP/1.0" : "HTTP/1.1", 8);
    pw_value(making, PW_KEY_URI, head->target.at, head->target.size);
}

/* PATH_INFO is the last value, for it may hold NUL, and the numbers follow it. */
static void pw_put_end(pw_making *making, const pw_head *head, pw_block *block)
{
    making->numbers[making->count++] = PW_KEY_PATH;
    pw_put_decoded(making, head->path);
    pw_put(making, (const char *)making->numbers, making->count);
    block->size = (size_t)(making->to - block->at);
    block->values = making->count;
}

void pw_block_make_line(pw_block *block, const pw_head *head)
{
    pw_making making;
    making.to = block->at;
    making.count = 0;
    block->other_names = false;
    pw_put_line(&making, head);
    pw_put_end(&making, head, block);
}

size_t pw_digits(char *to, int64_t value)
{
    char reversed[20];
    size_t count = 0;
    do {
        reversed[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    for (size_t i = 0; i < count; i++)
        to[i] = reversed[count - 1 - i];
    return count;
}

/* Field names are compared as the keys they become: without case, "-" and "_" the same. */
static char pw_key_char(char c)
{
    if (c >= 'a' && c <= 'z')
        return (char)(c - 32);
    return c == '-' ? '_' : c;
}

static bool pw_same_key(const pw_field *a, const pw_field *b)
{
    if (a->number != b->number || a->number != PW_OTHER_NAME)
        return a->number == b->number;
    if (a->name.size != b->name.size)
        return false;
    for (size_t i = 0; i < a->name.size; i++)
        if (pw_key_char(a->name.at[i]) != pw_key_char(b->name.at[i]))
            return false;
    return true;
}

/* One field, and all later ones with the same name (RFC 9110 section 5.3; RFC 9113 8.2.3). */
static void pw_put_field(pw_making *making, const pw_head *head, size_t i, bool repeated)
{
    const pw_field *field = &head->fields[i];
    making->numbers[making->count++] = field->number;
    if (field->number == PW_OTHER_NAME) {
        pw_put(making, "HTTP_", 5);
        for (size_t k = 0; k < field->name.size; k++)
            *making->to++ = pw_key_char(field->name.at[k]);
        *making->to++ = 1;
    }
    pw_put(making, field->value.at, field->value.size);
    for (size_t k = i + 1; repeated && k < head->field_count; k++) {
        if (!pw_same_key(field, &head->fields[k]))
            continue;
        if (field->number == PW_KEY_COOKIE)
            pw_put(making, "; ", 2);
        else
            pw_put(making, ",", 1);
        pw_put(making, head->fields[k].value.at, head->fields[k].value.size);
    }
    *making->to++ = '\0';
}

void pw_block_make(pw_block *block, const pw_head *head, const pw_peer *peer,
                   int64_t content_length)
{
    pw_making making;
    making.to = block->at;
    making.count = 0;
    block->other_names = false;
    pw_put_line(&making, head);
    pw_value(&making, PW_KEY_ADDRESS, peer->address, strlen(peer->address));
    pw_value(&making, PW_KEY_PORT, peer->port, strlen(peer->port));
    if (content_length >= 0) {
        char digits[20];
        pw_value(&making, PW_KEY_CONTENT_LENGTH, digits, pw_digits(digits, content_length));
    }

    /* Which names came before, and whether any came twice. */
    uint64_t before[4] = {0, 0, 0, 0};
    size_t others = 0;
    bool repeated = false;
    for (size_t i = 0; i < head->field_count; i++) {
        uint8_t number = head->fields[i].number;
        others += number == PW_OTHER_NAME;
        repeated |= number != PW_OTHER_NAME && ((before[number >> 6] >> (number & 63)) & 1) != 0;
        before[number >> 6] |= (uint64_t)1 << (number & 63);
    }
    repeated |= others > 1;

    for (size_t i = 0; i < head->field_count; i++) {
        const pw_field *field = &head->fields[i];
        if (field->number == PW_KEY_CONTENT_LENGTH || field->number == PW_KEY_TRANSFER_ENCODING)
            continue; /* the content is complete and decoded: RFC 9112 section 7.1.3 */
        if (field->number == PW_KEY_HOST && head->authority.at != NULL)
            continue;
        bool first = true;
        for (size_t k = 0; repeated && first && k < i; k++)
            first = !pw_same_key(&head->fields[k], field);
        if (first)
            pw_put_field(&making, head, i, repeated);
    }
    if (head->authority.at != NULL) /* RFC 9112 section 3.2.2 */
        pw_value(&making, PW_KEY_HOST, head->authority.at, head->authority.size);
    block->other_names = others != 0;
    pw_put_end(&making, head, block);
}
