/* What a client is sent. */
#ifndef PW_OUTPUT_H
#define PW_OUTPUT_H

#include "store.h"

/*
 * A piece of output that the socket has not taken yet: bytes copied, bytes borrowed, or a file.
 *
 * Borrowed bytes are Python's, and belong to one exchange. They are good during the call that has
 * handed them over; a piece that is still there when the call returns is copied (pw_output_own),
 * unless Python has lent the bytes for that exchange (pw_request.lends). Then they are good until
 * PW_NEWS_SENT has named the exchange, which the core does when no borrowed piece is left.
 */
typedef struct pw_piece {
    struct pw_piece *next; /* owned */
    const char *at;        /* into own, or borrowed */
    size_t left;
    int file; /* owned, or pw_output.spool; -1: bytes */
    off_t offset;
    bool borrowed;
    bool spooled; /* in pw_output.spool */
    size_t room;  /* of own */
    char own[];
} pw_piece;

/*
 * What a client has not taken yet, in order. The spool is a file without a name, for what a stream makes
 * faster than its client reads: it is made when it is needed, emptied when all of it is sent, and
 * closed with the response.
 */
typedef struct {
    pw_piece *first, *last;
    int64_t size;     /* bytes in all pieces */
    int32_t borrowed; /* how many pieces are borrowed */
    int spool;        /* owned: the file; good only with `store` */
    pw_store
        *store; /* borrowed from the server: where spool_size is counted; NULL: there is no file */
    int64_t spool_size;   /* bytes in the file, sent ones too */
    int64_t unsent_spool; /* those that are not sent */
} pw_output;

/* False: out of memory. */
bool pw_output_copy(pw_output *output, const char *data, size_t size);
bool pw_output_borrow(pw_output *output, const char *data, size_t size);
bool pw_output_file(pw_output *output, int fd, off_t offset, size_t size);
void pw_output_free(pw_output *output);
/* Copies what is borrowed. False: out of memory. */
bool pw_output_own(pw_output *output);
/* Adds parts by way of the spool. False: it has no room for them, or the disk has not. */
#define PW_SPOOL_PARTS 3
bool pw_output_spool(pw_output *output, pw_store *store, const struct iovec *parts, int count);
/* Nothing is in the spool: it is closed. */
void pw_output_close_spool(pw_output *output);
/* OK: what is left, if anything, can be tried again at once. *progress: something went out. */
pw_io pw_output_flush(pw_output *output, int fd, bool *progress);
/* Sends what goes out at once, if nothing else waits. RETRY: *parts and *count are the rest. */
pw_io pw_output_try(pw_output *output, int fd, struct iovec **parts, int *count);
/* Keeps parts: up to PW_COPY_MOST bytes of one are copied, more are borrowed. False: out of memory. */
bool pw_output_keep(pw_output *output, const struct iovec *parts, int count);
/* Writes parts[0, count); what does not go out now is kept. */
pw_io pw_output_write(pw_output *output, int fd, struct iovec *parts, int count);

#endif
