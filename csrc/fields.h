/* The environ keys that have a number. */
#ifndef PW_FIELDS_H
#define PW_FIELDS_H

#include "types.h"

/* The numbers of the keys that the core itself reads. fields.c has the others. */
enum {
    PW_KEY_TRANSFER_ENCODING, /* never in a block, so no number there is NUL */
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
    PW_KEY_UPGRADE,
    PW_KEY_COOKIE,
    /* forwarded.c reads these fields, ... */
    PW_KEY_FORWARDED,
    PW_KEY_FORWARDED_FOR,
    PW_KEY_FORWARDED_PROTO,
    PW_KEY_FORWARDED_HOST,
    PW_KEY_FORWARDED_PORT,
    PW_KEY_FORWARDED_PREFIX,
    /* ... from which these values come */
    PW_KEY_PEER,
    PW_KEY_PEER_PORT,
    PW_KEY_SCHEME,
    PW_KEY_HTTPS,
    PW_KEY_SERVER_NAME,
    PW_KEY_SERVER_PORT,
    PW_KEY_SCRIPT_NAME,
    PW_KEY_FIRST_OTHER,
};

/* Whether the number is that of Forwarded or of an X-Forwarded field that forwarded.c reads. */
static inline bool pw_is_forwarded(uint8_t number)
{
    return number >= PW_KEY_FORWARDED && number <= PW_KEY_FORWARDED_PREFIX;
}

/* The number of a field name, which is a token in any case. PW_OTHER_NAME: it has none. */
uint8_t pw_field_number(const char *name, size_t size);
/* Whether the text is a token: 1*tchar (RFC 9110 section 5.6.2). */
bool pw_is_token(const char *text, size_t size);
bool pw_is_tchar(unsigned char c);
/* Compares ASCII text without regard to case. `lower` is lower-case. */
bool pw_equals(const char *text, size_t size, const char *lower);

#endif
