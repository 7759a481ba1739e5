/*
 * Index of the fields of a head by name. A client may choose names with long common parts, and as
 * many names as the limit allows. The time is linear in the size of the head.
 */
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fields.h"
#include "index.h"

#define PW_FEW_NAMES 8 /* compares that many names one by one; finds more by a hash */
#define PW_SLOTS (2 * PW_FIELDS_MOST)

/* The field names without a number that were found so far. */
typedef struct {
    uint16_t last[PW_FIELDS_MOST]; /* by position in index->others: the last field of that name */
    uint64_t hashes[PW_FIELDS_MOST];
    size_t mask;              /* number of used slots less one; the number is a power of two */
    uint16_t slots[PW_SLOTS]; /* open addressing: positions in index->others, or PW_NO_FIELD */
} pw_others;

char pw_key_char(char c)
{
    if (c >= 'a' && c <= 'z')
        return (char)(c - 32);
    return c == '-' ? '_' : c;
}

static bool same_key(pw_span a, pw_span b)
{
    if (a.size != b.size)
        return false;
    for (size_t i = 0; i < a.size; i++)
        if (a.at[i] != b.at[i] && pw_key_char(a.at[i]) != pw_key_char(b.at[i]))
            return false;
    return true;
}

/* ------------------------------------------------------------------ a hash with a random key */

static uint64_t hash_key[2]; /* hash_key_make writes it once; then it is only read */
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;

static void hash_key_make(void)
{
    int source = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ssize_t got = source >= 0 ? read(source, hash_key, sizeof hash_key) : -1;
    if (source >= 0)
        close(source);
    if (got == (ssize_t)sizeof hash_key)
        return;
    struct timespec now; /* without the random device, as in a chroot: hard to guess */
    clock_gettime(CLOCK_MONOTONIC, &now);
    hash_key[0] = (uint64_t)(uintptr_t)&now ^ (uint64_t)now.tv_nsec << 32;
    hash_key[1] = (uint64_t)(uintptr_t)&hash_key ^ (uint64_t)now.tv_sec << 32 ^ (uint64_t)getpid();
}

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void hash_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32) + v[3];
    v[2] += v[1];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

static void hash_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    hash_round(v);
    v[0] ^= word;
}

uint64_t pw_hash_name(const uint64_t key[2], pw_span name)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
                     key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573};
    uint64_t word = 0;
    for (size_t i = 0; i < name.size; i++) {
        word |= (uint64_t)(unsigned char)pw_key_char(name.at[i]) << (i % 8 * 8);
        if (i % 8 == 7) {
            hash_word(v, word);
            word = 0;
        }
    }
    hash_word(v, word | (uint64_t)name.size << 56);
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        hash_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* ------------------------------------------------------------------ names without a number */

static void others_begin(pw_others *others, size_t count)
{
    others->mask = 0;
    if (count <= PW_FEW_NAMES)
        return;
    pthread_once(&hash_once, hash_key_make);
    size_t size = 2 * PW_FEW_NAMES;
    while (size < 2 * count)
        size *= 2;
    others->mask = size - 1;
    memset(others->slots, 0xff, size * sizeof others->slots[0]);
}

/* The position of a name in index->others. A new name gets the position after the last one. */
static size_t others_find(pw_others *others, const pw_index *index, const pw_field *fields,
                          pw_span name)
{
    size_t place = 0;
    if (others->mask == 0) {
        while (place < index->other_count && !same_key(fields[index->others[place]].name, name))
            place++;
        return place;
    }
    uint64_t hash = pw_hash_name(hash_key, name);
    for (size_t slot = (size_t)hash & others->mask;; slot = (slot + 1) & others->mask) {
        place = others->slots[slot];
        if (place == PW_NO_FIELD) {
            others->slots[slot] = (uint16_t)index->other_count;
            others->hashes[index->other_count] = hash;
            return index->other_count;
        }
        if (others->hashes[place] == hash && same_key(fields[index->others[place]].name, name))
            return place;
    }
}

static void index_others(pw_index *index, const pw_head *head, size_t count)
{
    pw_others others;
    others_begin(&others, count);
    for (size_t i = 0; i < head->field_count; i++) {
        if (head->fields[i].number != PW_OTHER_NAME)
            continue;
        size_t place = others_find(&others, index, head->fields, head->fields[i].name);
        if (place == index->other_count)
            index->others[index->other_count++] = (uint16_t)i;
        else
            index->next[others.last[place]] = (uint16_t)i;
        others.last[place] = (uint16_t)i;
    }
}

/* ------------------------------------------------------------------ the index */

void pw_index_make(pw_index *index, const pw_head *head)
{
    size_t others = 0;
    memset(index->numbers, 0, sizeof index->numbers);
    index->other_count = 0;
    /* From last to first, so that each field finds the next field with its name. */
    for (size_t i = head->field_count; i-- > 0;) {
        uint8_t number = head->fields[i].number;
        index->next[i] = PW_NO_FIELD;
        if (number == PW_OTHER_NAME) {
            others++;
            continue;
        }
        if (index->numbers[number >> 6] & pw_index_bit(number))
            index->next[i] = index->first[number];
        index->numbers[number >> 6] |= pw_index_bit(number);
        index->first[number] = (uint16_t)i;
    }
    /* RFC 9112 section 7.1.3: the content is complete and decoded. */
    index->numbers[0] &=
        ~(pw_index_bit(PW_KEY_CONTENT_LENGTH) | pw_index_bit(PW_KEY_TRANSFER_ENCODING));
    if (others > 0)
        index_others(index, head, others);
}

int pw_index_pop(uint64_t numbers[4])
{
    for (int i = 0; i < 4; i++) {
        if (numbers[i] == 0)
            continue;
        int bit = __builtin_ctzll(numbers[i]);
        numbers[i] &= numbers[i] - 1;
        return i * 64 + bit;
    }
    return -1;
}
