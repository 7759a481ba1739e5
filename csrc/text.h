/* Spans of text, digits, and text that grows. */
#ifndef PW_TEXT_H
#define PW_TEXT_H

#include <string.h>

#include "types.h"

typedef struct {
    const char *at; /* borrowed: points into the buffer that was parsed */
    size_t size;
} pw_span;

static inline bool pw_span_is(pw_span span, const char *text)
{
    return span.size == strlen(text) && memcmp(span.at, text, span.size) == 0;
}

static inline pw_span pw_cut(const char *from, const char *to)
{
    return (pw_span){from, (size_t)(to - from)};
}

static inline bool pw_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The value of a hexadecimal digit. -1: it is no digit. */
static inline int pw_hex_digit(char c)
{
    if (pw_is_digit(c))
        return c - '0';
    c = (char)(c | 32); /* makes a letter lower-case; no other byte becomes one of a to f */
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The lower-case digit of the lowest four bits. */
static inline char pw_to_hex(uint64_t value)
{
    return "0123456789abcdef"[value & 15];
}

/* Copies text and returns the end of the copy. The caller has made sure that there is room. */
static inline char *pw_put(char *to, const char *data, size_t size)
{
    memcpy(to, data, size);
    return to + size;
}

/* Writes the decimal digits of a value that is not negative. Returns their number. */
size_t pw_digits(char *to, int64_t value);

/* Text that grows. */
typedef struct {
    char *at; /* owned */
    size_t size, room;
} pw_text;

/* Makes room for `more` bytes. False: out of memory. */
bool pw_text_room(pw_text *text, size_t more);
/* Without memory these functions leave out what has no room. */
void pw_text_put(pw_text *text, const char *data, size_t size);
void pw_text_number(pw_text *text, int64_t number);
/* Adds a value from outside in latin-1. Escapes all bytes except printable ASCII. */
void pw_text_escape(pw_text *text, const char *data, size_t size, bool json);

#endif
