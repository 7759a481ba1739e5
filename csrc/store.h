/* Temporary files without a name, for content that does not fit into memory. */
#ifndef PW_STORE_H
#define PW_STORE_H

#include <stdatomic.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "types.h"

/* Limits and use of memory and files, for the content of requests and responses. */
typedef struct {
    int64_t memory_most;      /* for one request */
    int64_t memory_total;     /* for all requests */
    int64_t held;             /* used of memory_total; the server's lock guards it */
    int64_t size_most;        /* of one request; 0: no limit */
    int64_t spool_most;       /* for one response, in a file */
    int64_t spool_total;      /* for all responses */
    _Atomic(int64_t) spooled; /* used of spool_total: the size of all files */
    const char *directory;    /* borrowed from the server */
} pw_store;

/* Makes a file without a name. Returns its descriptor, or -1 with errno set. */
int pw_temporary_file(const char *directory);
/* Writes all parts from this offset on, and changes `parts`. False with errno set. */
bool pw_write_parts(int fd, struct iovec *parts, int count, off_t offset);

#endif
