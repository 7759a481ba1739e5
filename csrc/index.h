/* Index of the fields of a head by name. */
#ifndef PW_INDEX_H
#define PW_INDEX_H

#include "head.h"

#define PW_NO_FIELD UINT16_MAX

/* The fields of a head that become values, sorted by number. So most requests have the same order
 * of keys, no matter in which order the client sent the fields. */
typedef struct {
    uint64_t numbers[4];             /* one bit for each number */
    uint16_t first[256];             /* by number: the first field with it */
    uint16_t others[PW_FIELDS_MOST]; /* the first field of each name without a number */
    size_t other_count;
    uint16_t next[PW_FIELDS_MOST]; /* by field: the next one with the same name, or PW_NO_FIELD */
} pw_index;

void pw_index_make(pw_index *index, const pw_head *head);
/* Removes and returns the lowest number. -1: there is none. */
int pw_index_pop(uint64_t numbers[4]);
/* The character of the key that a field name becomes, for comparison: upper and lower case are
 * equal, and so are "-" and "_". */
char pw_key_char(char c);
/* SipHash-1-3 (Aumasson and Bernstein) of the key that a name becomes. */
uint64_t pw_hash_name(const uint64_t key[2], pw_span name);

static inline uint64_t pw_index_bit(uint8_t number)
{
    return (uint64_t)1 << (number & 63);
}

#endif
