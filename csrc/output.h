/* The bytes that the client is to receive. */
#ifndef PW_OUTPUT_H
#define PW_OUTPUT_H

#include "store.h"

/*
 * A piece of output that the socket has not taken yet: copied bytes, borrowed bytes, or a file.
 *
 * Borrowed bytes belong to Python and to one exchange. They are valid during the call that passes
 * them. pw_output_own copies a piece that is still here when the call returns, unless Python has
 * lent the bytes for that exchange (pw_request.lends). Lent bytes are valid until PW_NEWS_SENT
 * names the exchange, which the core does when no borrowed piece is left.
 */
typedef struct pw_piece {
    struct pw_piece *next; /* owned */
    const char *at;        /* points into own, or borrowed */
    size_t left;
    int file; /* owned, or pw_output.spool; -1: the piece has bytes */
    off_t offset;
    bool borrowed;
    bool spooled; /* the file is pw_output.spool */
    size_t room;  /* size of own */
    char own[];
} pw_piece;

/*
 * The pieces that the client has not taken yet, in order. The spool is a file without a name. It
 * holds the bytes of a stream that is made faster than its client reads. It is made at first use,
 * emptied when all of it is sent, and closed with the response.
 */
typedef struct {
    pw_piece *first, *last;
    int64_t size;     /* bytes of all pieces */
    int64_t sent;     /* bytes that the socket has taken since the last pw_bytes (gauges.h) */
    int32_t borrowed; /* number of borrowed pieces */
    int spool;        /* owned: the file; valid only if store is not NULL */
    pw_store *store; /* borrowed from the server, which counts spool_size; NULL: there is no file */
    int64_t spool_size;   /* bytes in the file, including the sent ones */
    int64_t unsent_spool; /* bytes in the file that are not sent */
} pw_output;

/* Adds a copy. False: out of memory. */
bool pw_output_copy(pw_output *output, const char *data, size_t size);
bool pw_output_borrow(pw_output *output, const char *data, size_t size);
bool pw_output_file(pw_output *output, int fd, off_t offset, size_t size);
void pw_output_free(pw_output *output);
/* Copies the borrowed bytes. False: out of memory. */
bool pw_output_own(pw_output *output);
/* Adds parts by writing them to the spool. False: the spool or the disk has no room. */
#define PW_SPOOL_PARTS 3
bool pw_output_spool(pw_output *output, pw_store *store, const struct iovec *parts, int count);
/* Closes the spool, in which no unsent bytes are left. */
void pw_output_close_spool(pw_output *output);
/* Sends the pieces. OK: what is left, if anything, can be sent at
 * once. *progress: some bytes were sent. */
pw_io pw_output_flush(pw_output *output, int fd, bool *progress);
/* Sends the parts if no other piece waits. RETRY: *parts and *count are the unsent rest. */
pw_io pw_output_try(pw_output *output, int fd, struct iovec **parts, int *count);
/* Adds parts: copies up to PW_COPY_MOST bytes of one, borrows larger ones. False: out of memory. */
bool pw_output_keep(pw_output *output, const struct iovec *parts, int count);
/* Sends parts[0, count), and keeps what the socket does not take. */
pw_io pw_output_write(pw_output *output, int fd, struct iovec *parts, int count);

#endif
