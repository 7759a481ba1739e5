/* A request head. */
#ifndef PW_HEAD_H
#define PW_HEAD_H

#include "request_line.h"

typedef struct {
    size_t max_head_size;
    size_t max_fields;
    int64_t max_body_size; /* 0: no limit */
    int underscore_fields;
} pw_limits;

#define PW_FIELDS_MOST 1024 /* of --max-fields */

/* How far earlier calls of pw_head_parse have come with a head, so that none looks at all of it again:
 * offsets are from the request line. All zero at first. */
typedef struct {
    size_t scanned; /* every LF in so many bytes is known */
    size_t judged;  /* so many bytes are whole lines with nothing wrong so far; 0: none is */
    size_t fields;  /* how many of these lines are fields */
} pw_head_progress;

/*
 * The head at data[0, size). The answer depends on the bytes alone, never on how they were split: a
 * line is judged when its LF is there.
 */
pw_parse pw_head_parse(const pw_limits *limits, const char *data, size_t size,
                       pw_head_progress *progress, pw_head *head, pw_error *error);

#endif
