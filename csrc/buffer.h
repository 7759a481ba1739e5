/* Receive buffers, and the pool of buffers that no connection holds. */
#ifndef PW_BUFFER_H
#define PW_BUFFER_H

#include "types.h"

/*
 * Received bytes that are not parsed yet: data[start, end). The pool makes and frees a buffer. A
 * connection owns it while it has such bytes.
 */
typedef struct pw_buffer {
    struct pw_buffer *next; /* borrowed; only in the pool */
    size_t size;            /* of data */
    size_t start;
    size_t end;
    char data[];
} pw_buffer;

#define PW_BUFFER_SIZE 16384
#define PW_BUFFER_LEAST 1024 /* bytes; used if the kept bytes fit: see pw_buffer_trim */
#define PW_POOL_MOST 64

/* The free buffers. The buffer that was used last is the first,
 * because it is in the CPU's cache. */
typedef struct {
    pw_buffer *first; /* owned */
    unsigned count;
    size_t held; /* bytes of all buffers that connections hold */
} pw_pool;

/* A buffer of PW_BUFFER_SIZE. NULL: out of memory. */
pw_buffer *pw_buffer_get(pw_pool *pool);
void pw_buffer_put(pw_pool *pool, pw_buffer *buffer);
/* Makes room for at least `want` more bytes, in *buffer or a new one. False: out of memory. */
bool pw_buffer_room(pw_pool *pool, pw_buffer **buffer, size_t want);
/* Moves the bytes into a smaller buffer if that saves much memory. False: the buffer stays, because
 * it does not, or because memory has run out. */
bool pw_buffer_trim(pw_pool *pool, pw_buffer **buffer);
void pw_pool_free(pw_pool *pool);

#endif
