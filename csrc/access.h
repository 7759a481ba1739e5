/* The access log. */
#ifndef PW_ACCESS_H
#define PW_ACCESS_H

#include "state.h"

/* What a line says of a response; times are microseconds. */
typedef struct {
    int status;
    int64_t bytes, duration, queued;
} pw_access_facts;

/* Runs the program for a request; *to is what the response has to complete. */
void pw_access_request(pw_server *server, pw_text *to, const pw_head *head, const pw_peer *peer);
/* Puts the fields of a response's head into a program that pw_access_request has made. */
void pw_access_head(pw_server *server, pw_text *program, const char *head, size_t size);
/* Adds a line. */
void pw_access_line(pw_server *server, const char *program, size_t size,
                    const pw_access_facts *what);
void pw_access_flush(pw_access *access);

/* Parses the head of its request again, of which it went well before. */
void pw_parse_again(pw_server *server, const pw_conn *conn);

/* The access log's line for the response that the thread has finished. */
void pw_access_response(pw_thread *thread, const pw_conn *conn);
/* The same for a request that the core refuses. */
void pw_access_refusal(pw_server *server, pw_conn *conn, int status);

#endif
