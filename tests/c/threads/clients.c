/* Clients, which check every byte. After pw_server_stop any connection may end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "stress.h"

enum { ROUNDS_MOST = 20000 };

typedef struct {
    int fd, number;
    int64_t last_key; /* the keys of a connection's responses increase */
    int64_t uploads;
    size_t at, end;
    char data[16384];
    char piece[PIECE_MOST];
} client;

/* Functions that return bool: false means that the connection has ended. */
static bool client_fill(client *self)
{
    ssize_t got = recv(self->fd, self->data, sizeof self->data, 0);
    self->at = 0;
    self->end = got > 0 ? (size_t)got : 0;
    return got > 0;
}

static bool client_line(client *self, char line[256])
{
    for (size_t size = 0; size < 255;) {
        if (self->at == self->end && !client_fill(self))
            return false;
        line[size] = self->data[self->at++];
        if (line[size++] == '\n') {
            line[size] = '\0';
            return true;
        }
    }
    fail(__FILE__, __LINE__, "a line is too long");
}

/* Returns some of the next `size` bytes at *data. */
static size_t client_some(client *self, const char **data, size_t size)
{
    if (self->at == self->end && !client_fill(self))
        return 0;
    size_t step = self->end - self->at < size ? self->end - self->at : size;
    *data = self->data + self->at;
    self->at += step;
    return step;
}

static bool client_content(client *self, int64_t key, size_t from, size_t size)
{
    const char *data;
    for (size_t at = 0, step; at < size; at += step) {
        step = client_some(self, &data, size - at);
        if (step == 0)
            return false;
        MUST(content_is(data, key, from + at, step));
    }
    return true;
}

static bool client_piece(client *self, int64_t key, size_t size, int next[WRITERS])
{
    const char *data;
    MUST(size >= PIECE_HEAD && size <= PIECE_MOST);
    for (size_t at = 0, step; at < size; at += step) {
        step = client_some(self, &data, size - at);
        if (step == 0)
            return false;
        memcpy(self->piece + at, data, step);
    }
    int writer = self->piece[0], number;
    memcpy(&number, self->piece + 1, sizeof number);
    MUST(writer >= 0 && writer < WRITERS && number == next[writer]);
    MUST(size == piece_size(key, writer, number));
    MUST(
        content_is(self->piece + PIECE_HEAD, piece_key(key, writer, number), 0, size - PIECE_HEAD));
    next[writer]++;
    return true;
}

/* The values in the head of a response. */
typedef struct {
    int status;
    long length;   /* -1: chunked */
    long size;     /* X-Size; -1: the response has pieces */
    long pieces;   /* of each writer; -1: any number */
    long long key; /* X-Key; 0: none */
    int client;
} answer;

static bool client_chunks(client *self, const answer *expected, int64_t key)
{
    char line[256];
    int next[WRITERS] = {0};
    for (long at = 0, size;; at += size) {
        if (!client_line(self, line))
            return false;
        size = strtol(line, NULL, 16);
        bool whole = expected->size >= 0 ? client_content(self, key, (size_t)at, (size_t)size)
                     : size > 0          ? client_piece(self, key, (size_t)size, next)
                                         : true;
        if (!whole || !client_line(self, line))
            return false;
        MUST(strcmp(line, "\r\n") == 0);
        if (size > 0)
            continue;
        MUST(expected->size < 0 || at == expected->size);
        for (int i = 0; i < WRITERS && expected->size < 0 && expected->pieces >= 0; i++)
            MUST(next[i] == expected->pieces);
        atomic_fetch_add(&of_pieces, expected->size < 0);
        return true;
    }
}

static bool client_head(client *self, answer *head)
{
    char line[256];
    if (!client_line(self, line))
        return false;
    MUST(strncmp(line, "HTTP/1.1 ", 9) == 0);
    *head = (answer){.status = atoi(line + 9), .length = -1, .size = -1};
    for (;;) {
        if (!client_line(self, line))
            return false;
        if (strcmp(line, "\r\n") == 0)
            return true;
        if (sscanf(line, "Content-Length: %ld", &head->length) == 1 ||
            sscanf(line, "X-Size: %ld", &head->size) == 1 ||
            sscanf(line, "X-Pieces: %ld", &head->pieces) == 1 ||
            sscanf(line, "X-Key: %lld", &head->key) == 1)
            continue;
        sscanf(line, "X-Client: %d", &head->client);
    }
}

/* Reads and checks one response. upload: the key of the sent content, or 0. */
static bool client_answer(client *self, int64_t upload)
{
    answer head;
    do {
        if (!client_head(self, &head))
            return false;
    } while (head.status == 103);
    if (head.status == 503) {
        MUST(atomic_load(&stopping));
        return false;
    }
    MUST(head.status == 200 && head.client == self->number);
    MUST(head.key > self->last_key);
    self->last_key = head.key;
    int64_t key = upload != 0 ? upload : head.key;
    if (head.length < 0 ? !client_chunks(self, &head, key)
                        : !client_content(self, key, 0, (size_t)head.length))
        return false;
    MUST(head.length < 0 || head.length == head.size);
    atomic_fetch_add(&answered, 1);
    return true;
}

/* ------------------------------------------------------------------ actions of clients */

static bool client_send(client *self, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(self->fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        data += sent;
        size -= (size_t)sent;
    }
    return true;
}

/* Writes one request for each letter. */
static size_t make_requests(const client *self, char *to, size_t room, const char *letters)
{
    size_t size = 0;
    for (; *letters != '\0'; letters++)
        size += (size_t)snprintf(to + size, room - size,
                                 "GET /%c%d HTTP/1.1\r\nHost: a\r\nUser-Agent: stress\r\n\r\n",
                                 *letters, self->number);
    MUST(size < room);
    return size;
}

static bool ask(client *self, const char *letters)
{
    char text[1024];
    return client_send(self, text, make_requests(self, text, sizeof text, letters));
}

/* Sends the same head several times, so that the core recognises it. */
static bool keep_alive(client *self)
{
    for (int i = 0; i < 12; i++)
        if (!ask(self, i == 6 ? "o" : "n") || !client_answer(self, 0))
            return false;
    return true;
}

static bool pipelined(client *self, const char *letters)
{
    if (!ask(self, letters))
        return false;
    for (; *letters != '\0'; letters++)
        if (!client_answer(self, 0))
            return false;
    return true;
}

static bool split(client *self)
{
    char text[1024];
    size_t size = make_requests(self, text, sizeof text, "ns");
    for (size_t at = 0, step = 11; at < size; at += step) {
        if (!client_send(self, text + at, size - at < step ? size - at : step))
            return false;
        sleep_us(300);
    }
    return client_answer(self, 0) && client_answer(self, 0);
}

static bool post(client *self, int size)
{
    char head[128], content[POST_IN_FILE];
    int head_size =
        snprintf(head, sizeof head, "POST /p%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n",
                 self->number, size);
    int64_t key = UPLOAD_KEY + self->number * 1000000 + ++self->uploads;
    content_fill(content, key, 0, (size_t)size);
    return client_send(self, head, (size_t)head_size) && client_send(self, content, 1000) &&
           client_send(self, content + 1000, (size_t)size - 1000) && client_answer(self, key);
}

static bool health(client *self)
{
    static const char text[] = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    answer head;
    const char *data = NULL;
    return client_send(self, text, sizeof text - 1) && client_head(self, &head) &&
           head.status == 200 && client_some(self, &data, 3) == 3 && memcmp(data, "ok\n", 3) == 0;
}

/* Disconnects before a response, or within one. */
static bool leave(client *self, int turn)
{
    if (!ask(self, turn % 2 == 0 ? "ntl" : "nnl"))
        return false;
    if (turn % 3 == 0)
        return client_answer(self, 0);
    if (turn % 3 == 1)
        sleep_us(2000);
    return true;
}

/* Gets a part of the response at most. */
static bool be_abandoned(client *self)
{
    if (!ask(self, "na") || !client_answer(self, 0)) /* the first may wait for the second */
        return false;
    MUST(!client_answer(self, 0));
    return true;
}

/* Asks for another protocol, and gets a response and the end. */
static bool switch_protocol(client *self)
{
    char text[256];
    int size = snprintf(text, sizeof text,
                        "GET /w%d HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: w\r\n\r\n",
                        self->number);
    MUST(size > 0 && (size_t)size < sizeof text);
    if (!ask(self, "nn") || !client_send(self, text, (size_t)size))
        return false;
    return client_answer(self, 0) && client_answer(self, 0) && (client_answer(self, 0), true);
}

static bool client_connect(client *self)
{
    static const struct timeval limit = {.tv_sec = 10};
    self->at = self->end = 0;
    self->last_key = 0;
    self->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(self->fd >= 0);
    setsockopt(self->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return connect(self->fd, (const struct sockaddr *)&address, address_size) == 0;
}

/* Sets *last if the connection cannot be used any more. */
static bool client_act(client *self, int turn, bool *last)
{
    switch (turn % 10) {
    case 0:
        return keep_alive(self);
    case 1:
        return pipelined(self, "nnnnnnn");
    case 2:
        return split(self);
    case 3:
        return post(self, turn % 4 == 1 ? POST_IN_FILE : POST_IN_MEMORY);
    case 4:
        return health(self) && post(self, POST_IN_FILE);
    case 5:
        return pipelined(self, "tntn");
    case 6:
        return pipelined(self, "lnlnl");
    case 7:
        *last = true;
        return be_abandoned(self);
    case 8:
        *last = true;
        return switch_protocol(self);
    default:
        *last = true;
        return leave(self, turn);
    }
}

void *be_client(void *number)
{
    client *self = malloc(sizeof *self);
    MUST(self != NULL);
    self->number = (int)(intptr_t)number;
    self->uploads = 0;
    int turn = self->number;
    for (int round = 0; round < ROUNDS_MOST && !atomic_load(&stopping); round++) {
        bool well = client_connect(self), last = false;
        for (int i = 0; i < 4 && well && !last; i++, turn++)
            well = client_act(self, turn, &last);
        MUST(well || atomic_load(&stopping));
        close(self->fd);
    }
    free(self);
    return NULL;
}
