/*
 * What a parser says of bytes that come in pieces, as text, so that two outcomes can be compared.
 * Each piece lies in memory of exactly its size, so that reading past it is found.
 */
#ifndef PW_OUTCOME_H
#define PW_OUTCOME_H

#include "check.h"
#include "head.h"

/* Where the pieces end, in order; the last is the end of the data. */
typedef struct {
    size_t at[256];
    size_t count;
} test_cuts;

test_cuts cuts_none(size_t size);
test_cuts cuts_one(size_t at, size_t size);
/* As many as there is room for, in equal distances: after each byte when size is small. */
test_cuts cuts_all(size_t size);
/* Drawn from a hash of the data, so that each input has its own and always the same. */
uint64_t cuts_hash(const char *data, size_t size);
test_cuts cuts_drawn(uint64_t *random, size_t size);

/* Also checks that the spans lie inside the head, and that it is made of clean lines. */
void outcome_of_head(test_text *to, const pw_limits *limits, const char *data,
                     const test_cuts *cuts);
/* Also checks that the content lies inside the pieces, and is as long as the decoder says. */
void outcome_of_chunked(test_text *to, const char *data, const test_cuts *cuts);

#endif
