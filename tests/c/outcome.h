/*
 * The result of a parser for bytes that come in pieces, as text, so that a test can compare two
 * results. Each piece is in memory of exactly its size, so a sanitizer finds a read beyond it.
 */
#ifndef PW_OUTCOME_H
#define PW_OUTCOME_H

#include "check.h"
#include "head.h"

/* The ends of the pieces, in order. The last one is the end of the data. */
typedef struct {
    size_t at[256];
    size_t count;
} test_cuts;

test_cuts cuts_none(size_t size);
test_cuts cuts_one(size_t at, size_t size);
/* As many cuts as fit, at equal distances. If size is small, one after each byte. */
test_cuts cuts_all(size_t size);
/* Cuts from a hash of the data, so that the same input always has the same cuts. */
uint64_t cuts_hash(const char *data, size_t size);
test_cuts cuts_drawn(uint64_t *random, size_t size);

/* Also checks that the spans are inside the head, and that its lines and the values that a trusted
 * peer forwards are clean. */
void outcome_of_head(test_text *to, const pw_limits *limits, const char *data,
                     const test_cuts *cuts);
/* Also checks that the content is inside the pieces, and has the size that the decoder reports. */
void outcome_of_chunked(test_text *to, const char *data, const test_cuts *cuts);

#endif
