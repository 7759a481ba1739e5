/* Parsing of a request head. */
#ifndef PW_HEAD_H
#define PW_HEAD_H

#include "request_line.h"

/* The use of Forwarded and the X-Forwarded fields. */
typedef enum {
    PW_FORWARDING_NONE, /* they are fields like others */
    PW_FORWARDING_READ, /* facts.forwarded is set for a head that has any */
    PW_FORWARDING_DROP, /* they are left out */
} pw_forwarding;

typedef struct {
    size_t max_head_size;
    size_t max_fields;
    int64_t max_body_size; /* 0: no limit */
    int underscore_fields;
    pw_forwarding forwarding;
} pw_limits;

#define PW_FIELDS_MOST 1024 /* the most that --max-fields allows */

/* How much of a head earlier calls of pw_head_parse have seen, so that no call reads all of it
 * again. Offsets count from the request line. All zero at first. */
typedef struct {
    size_t scanned; /* bytes in which every LF is known */
    size_t checked; /* bytes of whole, valid lines; 0: none yet */
    size_t fields;  /* number of field lines among them */
} pw_head_progress;

/*
 * Parses the head at data[0, size). The result depends on the bytes alone, never on how they were
 * split: a line is checked when its LF has arrived.
 */
pw_parse pw_head_parse(const pw_limits *limits, const char *data, size_t size,
                       pw_head_progress *progress, pw_head *head, pw_error *error);
/* The next element of a #list (RFC 9110 section 5.6.1) without blanks around it, which may be empty.
 * False: the end. */
bool pw_list_next(pw_span *rest, pw_span *element);
/* The value of the first field with this name; a size of 0: there is none. */
pw_span pw_find_field(const pw_head *head, const char *lower, size_t size);

#endif
