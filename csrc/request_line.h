/* The request line, and the head that it begins. */
#ifndef PW_REQUEST_LINE_H
#define PW_REQUEST_LINE_H

#include "text.h"

typedef struct {
    pw_span name;
    pw_span value;
    uint8_t number; /* of the key, or PW_OTHER_NAME */
} pw_field;

/* What the connection has to know of a head after its bytes are gone. */
typedef struct {
    uint32_t size;          /* of the whole head, with a leading empty line and the last one */
    uint32_t line_size;     /* of the request line with its CRLF */
    int64_t content_length; /* -1: none given */
    uint8_t minor;          /* 0: HTTP/1.0, 1: all later ones */
    bool is_head;
    bool keep_alive;
    bool chunked;
    bool expect_continue;
} pw_facts;

typedef struct {
    pw_facts facts;
    pw_span method;
    pw_span target; /* as received */
    pw_span path;   /* still percent-encoded */
    pw_span query;
    pw_span authority; /* of the absolute form, else at is NULL */
    size_t field_count;
    pw_field *fields; /* borrowed: the caller's array of max_fields */
} pw_head;

#define PW_TARGET_MOST 16384
#define PW_METHOD_MOST 32

/* The request line in data[0, size), its CRLF included. Fills method, target, path, ... */
pw_error pw_request_line(const char *data, size_t size, pw_head *head);

#endif
