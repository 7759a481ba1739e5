/* How a client knows where a response ends. */
#ifndef PW_FRAMING_H
#define PW_FRAMING_H

#include "state.h"

/* What the status line and the request decide about the framing (RFC 9112 section 6.3). */
void pw_framing_begin(pw_server *server, pw_conn *conn, const char *head, size_t size, bool framed,
                      int32_t flags);

/* Room that pw_framing_tail needs. */
#define PW_TAIL_MOST 256
/* The framing fields after the application's, and the empty line; returns the bytes written. */
size_t pw_framing_tail(const pw_clock *clock, char *to, const pw_conn *conn, int32_t flags,
                       int64_t length);

/* Puts the frame of a chunk around the data, where there is one; line is for the chunk-size. */
int pw_framing_chunk(const pw_conn *conn, struct iovec parts[3], char line[20], const char *data,
                     size_t size);
/* How much of the data the Content-Length allows. */
size_t pw_framing_allowed(const pw_conn *conn, size_t size);

#endif
