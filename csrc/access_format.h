/* The format of the access log. */
#ifndef PW_ACCESS_FORMAT_H
#define PW_ACCESS_FORMAT_H

#include "state.h"

/* The response's part of a line. Times are in microseconds. */
typedef struct {
    int status;
    int64_t bytes, duration, queued;
    const char *id; /* borrowed; NULL: none */
} pw_access_facts;

/* Runs the format for a request. *to is the program that the response completes. */
void pw_access_request(pw_server *server, pw_text *to, const pw_head *head, const pw_peer *peer);
/* Puts the fields of a response's head into a program that pw_access_request has made. */
void pw_access_head(pw_server *server, pw_text *program, const char *head, size_t size);
/* Completes a line and adds it to access->lines. */
void pw_access_put(pw_access *access, const char *program, size_t size,
                   const pw_access_facts *what);

#endif
