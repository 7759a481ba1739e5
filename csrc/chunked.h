/* The chunked coding. */
#ifndef PW_CHUNKED_H
#define PW_CHUNKED_H

#include "text.h"

typedef enum {
    PW_CHUNKED_SIZE,
    PW_CHUNKED_SIZE_DIGITS,
    PW_CHUNKED_EXTENSION,
    PW_CHUNKED_QUOTED,
    PW_CHUNKED_QUOTED_PAIR,
    PW_CHUNKED_SIZE_LF,
    PW_CHUNKED_DATA,
    PW_CHUNKED_DATA_CR,
    PW_CHUNKED_DATA_LF,
    PW_CHUNKED_TRAILER,
    PW_CHUNKED_TRAILER_NAME,
    PW_CHUNKED_TRAILER_VALUE,
    PW_CHUNKED_TRAILER_LF,
    PW_CHUNKED_LAST_LF,
    PW_CHUNKED_DONE,
} pw_chunked_state;

/* State of the decoder (RFC 9112 section 7.1). All zero is the start. */
typedef struct {
    pw_chunked_state state;
    int64_t left;      /* bytes left in the current chunk */
    int64_t total;     /* bytes of data passed on */
    int64_t overhead;  /* bytes of all extensions and leading zeros */
    uint32_t line;     /* bytes of this extension, or of the trailer section */
    uint8_t extension; /* position in an extension: see chunked.c */
} pw_chunked;

/*
 * Decodes data[0, size) up to the end of the next run of content. *used is the number of bytes
 * read. *content is the run, with size 0 if there is none. PW_PARSE_MORE: call again with the bytes
 * after these.
 */
pw_parse pw_chunked_parse(pw_chunked *chunked, const char *data, size_t size, size_t *used,
                          pw_span *content);

#endif
