/*
 * The id of a request: the X-Request-ID of a trusted peer, or a new UUID (RFC 9562, version 4). It is
 * made from a seed, without a system call. It is no secret: a client may guess the next one.
 */
#include <string.h>

#include "request_id.h"

/* The next number of a sequence (SplitMix64), which has each number once. */
static uint64_t next_number(uint64_t *state)
{
    uint64_t number = *state += 0x9e3779b97f4a7c15;
    number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9;
    number = (number ^ number >> 27) * 0x94d049bb133111eb;
    return number ^ number >> 31;
}

static void new_id(uint64_t seed[2], char *to)
{
    uint64_t parts[2] = {next_number(&seed[0]), next_number(&seed[1])};
    parts[0] = (parts[0] & ~(uint64_t)0xf000) | 0x4000;
    parts[1] = (parts[1] & ~((uint64_t)3 << 62)) | (uint64_t)2 << 62;
    for (int i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20)
            *to++ = '-';
        *to++ = pw_to_hex(parts[i / 16] >> (60 - i % 16 * 4));
    }
    *to = '\0';
}

/* Whether the value can be in a log line, also between quotes. */
static bool is_id(pw_span value)
{
    if (value.size == 0 || value.size >= PW_REQUEST_ID_SIZE)
        return false;
    for (size_t i = 0; i < value.size; i++) {
        char c = value.at[i];
        if (c <= ' ' || c >= 127 || c == '"' || c == '\\')
            return false;
    }
    return true;
}

void pw_request_id(pw_server *server, const pw_conn *conn, const pw_head *head,
                   char to[PW_REQUEST_ID_SIZE])
{
    if (conn->trusted) {
        pw_span value = pw_find_field(head, "x-request-id", 12);
        if (is_id(value)) {
            memcpy(to, value.at, value.size);
            to[value.size] = '\0';
            return;
        }
    }
    new_id(server->request_seed, to);
}
