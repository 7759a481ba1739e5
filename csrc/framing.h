/* The framing of a response: how the client finds its end. */
#ifndef PW_FRAMING_H
#define PW_FRAMING_H

#include "state.h"

/* Chooses the framing by the status line and the request (RFC 9112 section 6.3). */
void pw_framing_begin(pw_server *server, pw_conn *conn, const char *head, size_t size, bool framed,
                      int32_t flags);

/* room for pw_framing_tail, in bytes */
#define PW_TAIL_MOST 256
/* Writes the framing fields after the application's fields, and
 * the empty line. Returns their size. */
size_t pw_framing_tail(const pw_clock *clock, char *to, const pw_conn *conn, int32_t flags,
                       int64_t length);

/* Puts the frame of a chunk around the data if the framing is
 * chunked. `line` holds the chunk-size. */
int pw_framing_chunk(const pw_conn *conn, struct iovec parts[3], char line[20], const char *data,
                     size_t size);
/* The part of the data that the Content-Length allows. */
size_t pw_framing_allowed(const pw_conn *conn, size_t size);

#endif
