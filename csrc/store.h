/* Files without a name, for content that does not stay in memory. */
#ifndef PW_STORE_H
#define PW_STORE_H

#include <stdatomic.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "types.h"

/* Where content goes, of requests and of responses. */
typedef struct {
    int64_t memory_most;      /* of one request */
    int64_t memory_total;     /* of all */
    int64_t held;             /* of memory_total; guarded by the server's lock */
    int64_t size_most;        /* of one request; 0: no limit */
    int64_t spool_most;       /* of one response, in a file */
    int64_t spool_total;      /* of all */
    _Atomic(int64_t) spooled; /* of spool_total: the size of all files */
    const char *directory;    /* borrowed from the server */
} pw_store;

/* A file without a name, or -1 with errno set. */
int pw_temporary_file(const char *directory);
/* Writes all of the parts, which are used up, from this offset on. False with errno set. */
bool pw_write_parts(int fd, struct iovec *parts, int count, off_t offset);

#endif
