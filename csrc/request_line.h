/* The request line, and the parsed head that it begins. */
#ifndef PW_REQUEST_LINE_H
#define PW_REQUEST_LINE_H

#include "text.h"

typedef struct {
    pw_span name;
    pw_span value;
    uint8_t number; /* of the key, or PW_OTHER_NAME */
} pw_field;

/* The facts about a head that the connection needs after the bytes are gone. */
typedef struct {
    uint32_t size;
    uint32_t line_size;     /* of the request line with its CRLF */
    int64_t content_length; /* -1: no Content-Length */
    uint8_t minor;          /* 0: HTTP/1.0, 1: all later versions */
    bool is_head;
    bool keep_alive;
    bool chunked;
    bool expect_continue;
    uint8_t upgrade;  /* PW_UPGRADE: the client asks for another protocol; else 0 */
    bool forwarded;   /* a trusted peer says something about its client: see forwarded.h */
    uint16_t dropped; /* fields that were left out, because their name has an underscore */
} pw_facts;

typedef struct {
    pw_facts facts;
    pw_span method;
    pw_span target; /* as received */
    pw_span path;   /* percent-encoded */
    pw_span query;
    pw_span authority; /* of the absolute form; otherwise `at` is NULL */
    pw_span dropped;   /* the name of one of facts.dropped fields, where there are any */
    size_t field_count;
    pw_field *fields; /* borrowed: the caller's array of max_fields */
} pw_head;

#define PW_TARGET_MOST 16384
#define PW_METHOD_MOST 32

/* Parses the request line in data[0, size), which includes its CRLF. Fills the members of the head
 * that come from this line. */
pw_error pw_request_line(const char *data, size_t size, pw_head *head);

#endif
