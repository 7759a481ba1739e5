/* Digits, and text that grows. */
#include <string.h>

#include "alloc.h"
#include "text.h"

#define PW_VALUE_MOST 2048 /* bytes of one value from outside; the rest is left out */

size_t pw_digits(char *to, int64_t value)
{
    if (value < 10) { /* most parts of an IP address are one digit */
        *to = (char)('0' + value);
        return 1;
    }
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

bool pw_text_room(pw_text *text, size_t more)
{
    if (text->room - text->size >= more)
        return true;
    size_t room = text->room == 0 ? 512 : text->room;
    while (room - text->size < more)
        room *= 2;
    char *at = pw_realloc(text->at, room);
    if (at == NULL)
        return false;
    text->at = at;
    text->room = room;
    return true;
}

void pw_text_put(pw_text *text, const char *data, size_t size)
{
    if (!pw_text_room(text, size))
        return;
    memcpy(text->at + text->size, data, size);
    text->size += size;
}

void pw_text_number(pw_text *text, int64_t number)
{
    char digits[20];
    pw_text_put(text, digits, pw_digits(digits, number > 0 ? number : 0));
}

void pw_text_escape(pw_text *text, const char *data, size_t size, bool json)
{
    if (size > PW_VALUE_MOST)
        size = PW_VALUE_MOST;
    if (!pw_text_room(text, size * 6))
        return;
    char *to = text->at + text->size;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c >= ' ' && c < 127 && c != '"' && c != '\\') {
            *to++ = (char)c;
            continue;
        }
        *to++ = '\\';
        if (json && (c == '"' || c == '\\')) {
            *to++ = (char)c;
            continue;
        }
        *to++ = json ? 'u' : 'x';
        if (json) {
            *to++ = '0';
            *to++ = '0';
        }
        *to++ = pw_to_hex(c >> 4);
        *to++ = pw_to_hex(c);
    }
    text->size = (size_t)(to - text->at);
}
