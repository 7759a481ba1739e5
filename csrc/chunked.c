/*
 * Decoder of the chunked coding, strict (RFC 9112 section 7.1). Each byte is one step of the state,
 * so the result does not depend on how the bytes were split. Trailers are checked and dropped.
 *
 *     chunked-body   = *chunk last-chunk trailer-section CRLF
 *     chunk          = 1*HEXDIG [ chunk-ext ] CRLF chunk-data CRLF
 *     chunk-ext      = *( ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] BWS )
 *     trailer-section = *( field-name ":" OWS field-value OWS CRLF )
 */
#include "chunked.h"
#include "fields.h"
#include "text.h"

#define PW_LINE_MOST 8192      /* bytes of one extension, or of the trailer section */
#define PW_OVERHEAD_FREE 16384 /* overhead may exceed the size of the content by this */

/* The next byte's position in an extension. */
enum {
    PW_EXT_NAME_FIRST,
    PW_EXT_NAME,
    PW_EXT_NAME_END,
    PW_EXT_VALUE_FIRST,
    PW_EXT_VALUE,
    PW_EXT_VALUE_END
};

/* HTAB / SP / VCHAR / obs-text */
static bool is_text(unsigned char c)
{
    return c == '\t' || (c >= ' ' && c != 127);
}

static bool count_overhead(pw_chunked *k)
{
    return ++k->line <= PW_LINE_MOST && ++k->overhead <= PW_OVERHEAD_FREE + k->total;
}

static bool size_byte(pw_chunked *k, unsigned char c)
{
    int digit = pw_hex_digit((char)c);
    if (digit >= 0) {
        if (k->left == 0 && k->state == PW_CHUNKED_SIZE_DIGITS && !count_overhead(k))
            return false; /* too many leading zeros */
        if (k->left > (INT64_MAX - digit) / 16)
            return false;
        k->left = k->left * 16 + digit;
        k->state = PW_CHUNKED_SIZE_DIGITS;
        return true;
    }
    if (k->state != PW_CHUNKED_SIZE_DIGITS)
        return false;
    k->extension = PW_EXT_NAME_FIRST;
    if (c == ';')
        k->state = PW_CHUNKED_EXTENSION;
    else if (c == '\r')
        k->state = PW_CHUNKED_SIZE_LF;
    else
        return false;
    return true;
}

static bool extension_byte(pw_chunked *k, unsigned char c)
{
    if (!count_overhead(k))
        return false;
    bool blank = c == ' ' || c == '\t';
    bool value = k->extension >= PW_EXT_VALUE_FIRST;
    bool first = k->extension == PW_EXT_NAME_FIRST || k->extension == PW_EXT_VALUE_FIRST;
    bool inside = k->extension == PW_EXT_NAME || k->extension == PW_EXT_VALUE;
    if (pw_is_tchar(c)) {
        if (!first && !inside)
            return false;
        k->extension = value ? PW_EXT_VALUE : PW_EXT_NAME;
    } else if (blank) {
        if (inside)
            k->extension = value ? PW_EXT_VALUE_END : PW_EXT_NAME_END;
    } else if (first) {
        if (c != '"' || !value)
            return false;
        k->state = PW_CHUNKED_QUOTED;
    } else if (c == '=' && !value) {
        k->extension = PW_EXT_VALUE_FIRST;
    } else if (c == ';') {
        k->extension = PW_EXT_NAME_FIRST;
    } else if (c == '\r') {
        k->state = PW_CHUNKED_SIZE_LF;
    } else {
        return false;
    }
    return true;
}

static bool quoted_byte(pw_chunked *k, unsigned char c)
{
    if (!count_overhead(k) || !is_text(c))
        return false;
    if (k->state == PW_CHUNKED_QUOTED_PAIR) {
        k->state = PW_CHUNKED_QUOTED;
    } else if (c == '\\') {
        k->state = PW_CHUNKED_QUOTED_PAIR;
    } else if (c == '"') {
        k->state = PW_CHUNKED_EXTENSION;
        k->extension = PW_EXT_VALUE_END;
    }
    return true;
}

static bool trailer_byte(pw_chunked *k, unsigned char c)
{
    if (++k->line > PW_LINE_MOST)
        return false;
    if (k->state == PW_CHUNKED_TRAILER_VALUE) {
        if (c == '\r')
            k->state = PW_CHUNKED_TRAILER_LF;
        return c == '\r' || is_text(c);
    }
    if (k->state == PW_CHUNKED_TRAILER && c == '\r') {
        k->state = PW_CHUNKED_LAST_LF;
        return true;
    }
    if (k->state == PW_CHUNKED_TRAILER_NAME && c == ':') {
        k->state = PW_CHUNKED_TRAILER_VALUE;
        return true;
    }
    k->state = PW_CHUNKED_TRAILER_NAME;
    return pw_is_tchar(c);
}

/* Handles one byte that is not content. */
static bool chunked_byte(pw_chunked *k, unsigned char c)
{
    switch (k->state) {
    case PW_CHUNKED_SIZE:
    case PW_CHUNKED_SIZE_DIGITS:
        return size_byte(k, c);
    case PW_CHUNKED_EXTENSION:
        return extension_byte(k, c);
    case PW_CHUNKED_QUOTED:
    case PW_CHUNKED_QUOTED_PAIR:
        return quoted_byte(k, c);
    case PW_CHUNKED_SIZE_LF:
        k->state = k->left > 0 ? PW_CHUNKED_DATA : PW_CHUNKED_TRAILER;
        k->line = 0;
        return c == '\n';
    case PW_CHUNKED_DATA_CR:
        k->state = PW_CHUNKED_DATA_LF;
        return c == '\r';
    case PW_CHUNKED_DATA_LF:
        k->state = PW_CHUNKED_SIZE;
        return c == '\n';
    case PW_CHUNKED_TRAILER:
    case PW_CHUNKED_TRAILER_NAME:
    case PW_CHUNKED_TRAILER_VALUE:
        return trailer_byte(k, c);
    case PW_CHUNKED_TRAILER_LF:
        k->state = PW_CHUNKED_TRAILER;
        k->line++;
        return c == '\n';
    case PW_CHUNKED_LAST_LF:
        k->state = PW_CHUNKED_DONE;
        return c == '\n';
    case PW_CHUNKED_DATA:
    case PW_CHUNKED_DONE:
        break;
    }
    return false;
}

pw_parse pw_chunked_parse(pw_chunked *chunked, const char *data, size_t size, size_t *used,
                          pw_span *content)
{
    size_t at = 0;
    content->at = data;
    content->size = 0;
    while (at < size && chunked->state != PW_CHUNKED_DATA && chunked->state != PW_CHUNKED_DONE) {
        if (!chunked_byte(chunked, (unsigned char)data[at])) {
            *used = at;
            return PW_PARSE_ERROR;
        }
        at++;
    }
    if (chunked->state == PW_CHUNKED_DATA && at < size) {
        size_t here = size - at;
        if ((int64_t)here > chunked->left)
            here = (size_t)chunked->left;
        *content = (pw_span){data + at, here};
        at += here;
        chunked->left -= (int64_t)here;
        chunked->total += (int64_t)here; /* an overflow would take years of receiving */
        if (chunked->left == 0)
            chunked->state = PW_CHUNKED_DATA_CR;
    }
    *used = at;
    return chunked->state == PW_CHUNKED_DONE ? PW_PARSE_DONE : PW_PARSE_MORE;
}
