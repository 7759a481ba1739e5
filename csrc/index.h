/* Which fields of a head have the same name. */
#ifndef PW_INDEX_H
#define PW_INDEX_H

#include "head.h"

#define PW_NO_FIELD UINT16_MAX

/* The fields of a head that become values, in the order of their numbers, whatever order they came
 * in: so most requests have the same order of keys. */
typedef struct {
    uint64_t numbers[4];             /* a bit for each */
    uint16_t first[256];             /* by number: the first field with it */
    uint16_t others[PW_FIELDS_MOST]; /* the first field of each name that has no number */
    size_t other_count;
    uint16_t next[PW_FIELDS_MOST]; /* by field: the next one with the same name, or PW_NO_FIELD */
} pw_index;

void pw_index_make(pw_index *index, const pw_head *head);
/* Takes the lowest number out; -1: there is none. */
int pw_index_pop(uint64_t numbers[4]);
/* Field names are compared as the keys they become: without case, "-" and "_" the same. */
char pw_key_char(char c);
/* SipHash-1-3 (Aumasson and Bernstein) of the key that a name becomes. */
uint64_t pw_hash_name(const uint64_t key[2], pw_span name);

static inline uint64_t pw_index_bit(uint8_t number)
{
    return (uint64_t)1 << (number & 63);
}

#endif
