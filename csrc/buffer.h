/* The buffers that bytes are received into, and the pool of those that no connection holds. */
#ifndef PW_BUFFER_H
#define PW_BUFFER_H

#include "types.h"

/*
 * Bytes received and not yet parsed: data[start, end). Made and freed by the pool, owned by one
 * connection while it has such bytes.
 */
typedef struct pw_buffer {
    struct pw_buffer *next; /* borrowed; in the pool only */
    size_t size;            /* of data */
    size_t start;
    size_t end;
    char data[];
} pw_buffer;

#define PW_BUFFER_SIZE 16384
#define PW_BUFFER_LEAST 1024 /* where that is enough for what is kept: see pw_buffer_trim */
#define PW_POOL_MOST 64

/* The buffers that no connection holds, the one used last on top because it is in the cache. */
typedef struct {
    pw_buffer *first; /* owned */
    unsigned count;
    size_t held; /* bytes of the others, which connections hold */
} pw_pool;

/* NULL: out of memory. */
pw_buffer *pw_buffer_get(pw_pool *pool);
void pw_buffer_put(pw_pool *pool, pw_buffer *buffer);
/* Makes room for at least `want` more bytes; *buffer may move. False: out of memory. */
bool pw_buffer_room(pw_pool *pool, pw_buffer **buffer, size_t want);
/* Puts what is in the buffer into a smaller one, where that saves much: false: it does not, or there is
 * no memory. */
bool pw_buffer_trim(pw_pool *pool, pw_buffer **buffer);
void pw_pool_free(pw_pool *pool);

#endif
