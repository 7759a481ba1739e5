/* The outcomes and errors that several files share. */
#ifndef PW_TYPES_H
#define PW_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api.h"

/* The outcome of every parser. */
typedef enum {
    PW_PARSE_DONE,
    PW_PARSE_MORE,
    PW_PARSE_ERROR,
} pw_parse;

/* The reasons for refusing a request: name, status, text for the client. The only list of them. */
#define PW_ERRORS(X)                                                                               \
    X(REQUEST_LINE, 400, "malformed request line")                                                 \
    X(METHOD, 400, "malformed or overlong method")                                                 \
    X(TARGET, 400, "malformed request target")                                                     \
    X(VERSION, 400, "malformed HTTP version")                                                      \
    X(LINE_END, 400, "a line of the head does not end in CRLF")                                    \
    X(FIELD, 400, "malformed field line")                                                          \
    X(FOLD, 400, "obsolete line folding")                                                          \
    X(UNDERSCORE, 400, "a field name with an underscore")                                          \
    X(HOST, 400, "missing, empty, repeated or malformed Host")                                     \
    X(TYPE, 400, "repeated Content-Type")                                                          \
    X(LENGTH, 400, "repeated or malformed Content-Length")                                         \
    X(CODING, 400, "repeated, malformed or misplaced Transfer-Encoding")                           \
    X(LENGTH_AND_CODING, 400, "Content-Length together with Transfer-Encoding")                    \
    X(FORWARDED, 400, "contradictory or malformed Forwarded or X-Forwarded fields")                \
    X(CHUNK, 400, "malformed chunked content")                                                     \
    X(HEAD_TIMEOUT, 408, "the request head took too long")                                         \
    X(BODY_TIMEOUT, 408, "the request content took too long")                                      \
    X(BODY_SIZE, 413, "the request content is too large")                                          \
    X(TARGET_SIZE, 414, "the request target is too long")                                          \
    X(EXPECTATION, 417, "unknown expectation")                                                     \
    X(HEAD_SIZE, 431, "the request head is too large")                                             \
    X(FIELD_COUNT, 431, "too many fields")                                                         \
    X(CONNECT, 501, "CONNECT is not supported")                                                    \
    X(OTHER_CODING, 501, "unknown transfer coding")                                                \
    X(MEMORY, 503, "out of memory")                                                                \
    X(HEAD_MEMORY, 503, "too many requests are being received")                                    \
    X(QUEUE, 503, "no thread is free for the request")                                             \
    X(OTHER_VERSION, 505, "HTTP version not supported")                                            \
    X(STORAGE, 507, "no room for the request content")

typedef enum {
    PW_E_NONE,
#define PW_ERROR_NAME(name, status, text) PW_E_##name,
    PW_ERRORS(PW_ERROR_NAME)
#undef PW_ERROR_NAME
} pw_error;

#define PW_ERROR_ONE(name, status, text) +1
enum { PW_ERROR_COUNT = PW_ERRORS(PW_ERROR_ONE) }; /* PW_E_NONE is not one of them */
#undef PW_ERROR_ONE

/* The outcome of every call that does I/O. */
typedef enum {
    PW_IO_OK,
    PW_IO_RETRY, /* the socket would block; the poller will report the edge */
    PW_IO_END,   /* the peer has closed its sending side */
    PW_IO_ERROR,
} pw_io;

#endif
