/* Bytes of text: where some stand, digits, and bytes that grow. */
#ifndef PW_TEXT_H
#define PW_TEXT_H

#include <string.h>

#include "types.h"

typedef struct {
    const char *at; /* borrowed: points into the buffer that was parsed */
    size_t size;
} pw_span;

static inline pw_span pw_cut(const char *from, const char *to)
{
    return (pw_span){from, (size_t)(to - from)};
}

static inline bool pw_is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* What a hexadecimal digit is worth; -1: it is none. */
static inline int pw_hex_digit(char c)
{
    if (pw_is_digit(c))
        return c - '0';
    c = (char)(c | 32); /* a letter in lower case; nothing else becomes one of these */
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Copies text; returns past it. The caller knows that there is room. */
static inline char *pw_put(char *to, const char *data, size_t size)
{
    memcpy(to, data, size);
    return to + size;
}

/* Writes the decimal digits of value (not negative); returns how many. */
size_t pw_digits(char *to, int64_t value);

/* Bytes that grow. */
typedef struct {
    char *at; /* owned */
    size_t size, room;
} pw_text;

/* Room for `more` bytes, by growing. False: out of memory. */
bool pw_text_room(pw_text *text, size_t more);
/* Without memory these leave out what has no room. */
void pw_text_put(pw_text *text, const char *data, size_t size);
void pw_text_number(pw_text *text, int64_t number);
/* A value from outside: latin-1 bytes, of which only printable ASCII stands as it is. */
void pw_text_escape(pw_text *text, const char *data, size_t size, bool json);

#endif
