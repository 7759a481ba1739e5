/* The access log. */
#ifndef PW_ACCESS_H
#define PW_ACCESS_H

#include "access_format.h"

/* Adds a line. */
void pw_access_line(pw_server *server, const char *program, size_t size,
                    const pw_access_facts *what);
/* Writes the lines that wait, as far as the file takes them now. */
void pw_access_flush(pw_server *server);
/* Writes to another file from now on. */
void pw_access_move(pw_server *server, int fd);
/* Writes the lines that wait, and closes the log: see pw_server_log_end. */
int64_t pw_access_end(pw_server *server, int most, int quiet);

/* Writes the line for the response that the thread has finished now. */
void pw_access_response(pw_thread *thread, const pw_conn *conn, int64_t now_us);
/* Writes the line for a request that the core refuses. */
void pw_access_refusal(pw_server *server, pw_conn *conn, int status);

#endif
