/* The names that a request can give to the environ, each with a number. */
#ifndef PW_FIELDS_H
#define PW_FIELDS_H

#include "types.h"

/* Numbers of the keys that the core itself looks at; the rest are in fields.c only. */
enum {
    PW_KEY_TRANSFER_ENCODING, /* never in a block, so that no number there is NUL */
    PW_KEY_METHOD,
    PW_KEY_QUERY,
    PW_KEY_PROTOCOL,
    PW_KEY_URI,
    PW_KEY_PATH,
    PW_KEY_ADDRESS,
    PW_KEY_PORT,
    PW_KEY_CONTENT_LENGTH,
    PW_KEY_CONTENT_TYPE,
    PW_KEY_HOST,
    PW_KEY_CONNECTION,
    PW_KEY_EXPECT,
    PW_KEY_COOKIE,
    PW_KEY_FIRST_OTHER,
};

/* The number of a field name (a token, any case), or PW_OTHER_NAME. */
uint8_t pw_field_number(const char *name, size_t size);
/* RFC 9110 section 5.6.2: tchar. */
bool pw_is_token(const char *text, size_t size);
bool pw_is_tchar(unsigned char c);
/* Compares ASCII text without case; lower is in lower case. */
bool pw_equals(const char *text, size_t size, const char *lower);

#endif
