/*
 * csrc/index.c: the hash of a name is SipHash, so only with the key can a client choose names that
 * collide. The test has an implementation of its own, which gives the authors' test vector.
 */
#include <stdint.h>
#include <string.h>

#include "check.h"
#include "index.h"

static uint64_t left(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64 - bits));
}

/* The four additions of a round, as in the figure of the paper: two halves, one after the other. */
static void half_round(uint64_t *a, uint64_t *b, uint64_t *c, uint64_t *d, unsigned s, unsigned t)
{
    *a += *b;
    *c += *d;
    *b = left(*b, s) ^ *a;
    *d = left(*d, t) ^ *c;
    *a = left(*a, 32);
}

static void rounds(uint64_t v[4], int count)
{
    while (count-- > 0) {
        half_round(&v[0], &v[1], &v[2], &v[3], 13, 16);
        half_round(&v[2], &v[1], &v[0], &v[3], 17, 21);
    }
}

static uint64_t siphash(int c, int d, const unsigned char key[16], const char *data, size_t size)
{
    static const unsigned char words[] = "somepseudorandomlygeneratedbytes";
    uint64_t k[2] = {0, 0}, v[4] = {0, 0, 0, 0};
    for (unsigned i = 0; i < 16; i++)
        k[i / 8] |= (uint64_t)key[i] << 8 * (i % 8);
    for (unsigned i = 0; i < 32; i++) /* big-endian */
        v[i / 8] = v[i / 8] << 8 | words[i];
    for (unsigned i = 0; i < 4; i++)
        v[i] ^= k[i % 2];
    for (size_t at = 0; at <= size; at += 8) {
        uint64_t word = 0;
        for (size_t i = 0; i < 8; i++)
            if (at + i < size)
                word |= (uint64_t)(unsigned char)data[at + i] << 8 * i;
        if (size - at < 8)
            word |= (uint64_t)size << 56;
        v[3] ^= word;
        rounds(v, c);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    rounds(v, d);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static void the_siphash_of_the_test_gives_the_vector_of_its_authors(void)
{
    unsigned char key[16];
    char data[15];
    for (unsigned char i = 0; i < 16; i++)
        key[i] = i;
    for (char i = 0; i < 15; i++)
        data[(int)i] = i;
    CHECK(siphash(2, 4, key, data, sizeof data) == 0xa129ca6149be45e5u);
}

static void names_are_hashed_by_siphash_1_3_as_the_keys_that_they_become(void)
{
    static const char name[] = "X-Some-Name_With-all-KINDS-of-letters-0123456789-z";
    char key_name[sizeof name];
    for (size_t i = 0; i < sizeof name; i++) {
        char c = name[i] == '-' ? '_' : name[i];
        key_name[i] = c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
    }
    unsigned char bytes[16];
    uint64_t random = 1;
    for (int turn = 0; turn < 20; turn++) {
        uint64_t key[2] = {0, 0};
        for (unsigned i = 0; i < 16; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            bytes[i] = (unsigned char)(random >> 56);
            key[i / 8] |= (uint64_t)bytes[i] << 8 * (i % 8);
        }
        for (size_t size = 1; size < sizeof name; size++)
            CHECK(pw_hash_name(key, (pw_span){name, size}) == siphash(1, 3, bytes, key_name, size));
    }
}

int main(void)
{
    RUN(the_siphash_of_the_test_gives_the_vector_of_its_authors);
    RUN(names_are_hashed_by_siphash_1_3_as_the_keys_that_they_become);
    return check_end();
}
