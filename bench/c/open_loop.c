/*
 * An open-loop load: requests are due at a fixed rate, whether or not answers have come, and the
 * latency of each counts from when it was due. So a server that stalls is charged for all the
 * requests that its stall has kept waiting, which a load that waits for answers forgets
 * ("coordinated omission").
 *
 * Called as: open_loop PORT RATE SECONDS CONNECTIONS CONTENT-SIZE FILE
 *
 * FILE holds one request. Every answer must be a 200 with a Content-Length of CONTENT-SIZE. Writes
 * one JSON line. Requests that are due while all connections are busy wait; those that have no
 * answer two seconds after the end are counted as lost.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MOST = 4096, REQUEST_MOST = 65536, RESPONSE_MOST = 65536, EVENTS = 256 };
static const int64_t SECOND = 1000000000, GRACE = 2 * SECOND;

typedef struct {
    int fd;       /* -1: not open */
    bool busy;    /* a request has no whole answer yet */
    int64_t due;  /* when that was due, in nanoseconds */
    size_t size;  /* of what has been received of its answer */
    char *answer; /* owned; RESPONSE_MOST bytes and a NUL */
} connection;

static struct sockaddr_in address;
static int epoll;
static connection connections[CONNECTIONS_MOST];
static int connection_count;
static int busy_count, turn;
static char request[REQUEST_MOST];
static size_t request_size;
static long content_size;
static int64_t answered, wrong, reconnected;

/*
 * Latencies in nanoseconds, in buckets whose width is 1/128 of the value or less: one of 64 powers
 * of two, and 128 steps in it.
 */
enum { STEPS = 128, STEP_BITS = 7 };
static int64_t buckets[64 * STEPS], latency_most;

static size_t bucket_of(uint64_t value)
{
    if (value < STEPS)
        return (size_t)value;
    int shift = 63 - __builtin_clzll(value) - STEP_BITS;
    return (size_t)(shift + 1) * STEPS + (size_t)((value >> shift) - STEPS);
}

/* The highest value of a bucket. */
static int64_t value_of(size_t bucket)
{
    if (bucket < STEPS)
        return (int64_t)bucket;
    size_t shift = bucket / STEPS - 1;
    return (int64_t)(((bucket % STEPS + STEPS + 1) << shift) - 1);
}

static double percentile(double percent)
{
    double wanted = (double)answered * percent / 100;
    int64_t seen = 0;
    for (size_t i = 0; i < sizeof buckets / sizeof *buckets; i++) {
        seen += buckets[i];
        if (seen > 0 && (double)seen >= wanted) {
            int64_t value = value_of(i);
            return (double)(value < latency_most ? value : latency_most) / 1000;
        }
    }
    return 0;
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "open_loop: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void open_connection(connection *self)
{
    int on = 1;
    self->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (self->fd < 0 || connect(self->fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail("connect");
    setsockopt(self->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = self}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, self->fd, &event) != 0)
        fail("epoll_ctl");
}

static void set_busy(connection *self, bool busy)
{
    busy_count += (int)busy - (int)self->busy;
    self->busy = busy;
}

/* The one whose turn it is, so that all are used. At least one is not busy. */
static connection *next_idle(void)
{
    do
        turn = (turn + 1) % connection_count;
    while (connections[turn].busy);
    return &connections[turn];
}

/* The server has closed it, as HTTP/1.0 does after each answer. */
static void reopen(connection *self)
{
    set_busy(self, false);
    close(self->fd);
    reconnected++;
    open_connection(self);
}

/* The request is small: what the socket does not take at once is a failure. */
static bool send_request(connection *self, int64_t due)
{
    self->due = due;
    self->size = 0;
    set_busy(self, true);
    return send(self->fd, request, request_size, MSG_NOSIGNAL) == (ssize_t)request_size;
}

typedef enum { ANSWER_PARTIAL, ANSWER_WHOLE, ANSWER_WRONG } answer_state;

static answer_state check(connection *self)
{
    self->answer[self->size] = '\0';
    char *end = strstr(self->answer, "\r\n\r\n");
    if (end == NULL)
        return self->size < RESPONSE_MOST ? ANSWER_PARTIAL : ANSWER_WRONG;
    if (self->size < 12 || memcmp(self->answer, "HTTP/1.", 7) != 0 ||
        memcmp(self->answer + 8, " 200", 4) != 0)
        return ANSWER_WRONG;
    size_t head = (size_t)(end + 4 - self->answer);
    for (char *line = self->answer; line < end; line = strstr(line, "\r\n") + 2)
        if (strncasecmp(line, "content-length:", 15) == 0 && atol(line + 15) == content_size) {
            size_t whole = head + (size_t)content_size;
            if (self->size < whole)
                return ANSWER_PARTIAL;
            return self->size == whole ? ANSWER_WHOLE : ANSWER_WRONG;
        }
    return ANSWER_WRONG;
}

static void receive(connection *self)
{
    ssize_t size =
        recv(self->fd, self->answer + self->size, RESPONSE_MOST - self->size, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0) {
        wrong += self->busy;
        reopen(self);
        return;
    }
    if (!self->busy) { /* no request is open */
        wrong++;
        return;
    }
    self->size += (size_t)size;
    switch (check(self)) {
    case ANSWER_PARTIAL:
        return;
    case ANSWER_WRONG:
        wrong++;
        reopen(self);
        return;
    case ANSWER_WHOLE:
        break;
    }
    int64_t latency = now() - self->due;
    buckets[bucket_of((uint64_t)latency)]++;
    latency_most = latency > latency_most ? latency : latency_most;
    answered++;
    set_busy(self, false);
}

static void wait_for_answers(int64_t until)
{
    struct epoll_event events[EVENTS];
    int64_t left = until - now();
    struct timespec timeout = {left > 0 ? left / SECOND : 0, left > 0 ? left % SECOND : 0};
    int count = epoll_pwait2(epoll, events, EVENTS, &timeout, NULL);
    if (count < 0 && errno != EINTR)
        fail("epoll_pwait2");
    for (int i = 0; i < count; i++)
        receive(events[i].data.ptr);
}

int main(int count, char **words)
{
    if (count != 7) {
        fprintf(stderr, "usage: open_loop PORT RATE SECONDS CONNECTIONS CONTENT-SIZE FILE\n");
        return 2;
    }
    double rate = atof(words[2]), seconds = atof(words[3]);
    connection_count = atoi(words[4]);
    content_size = atol(words[5]);
    FILE *file = fopen(words[6], "rb");
    if (file == NULL)
        fail(words[6]);
    request_size = fread(request, 1, sizeof request, file);
    fclose(file);
    if (rate <= 0 || seconds <= 0 || connection_count < 1 || connection_count > CONNECTIONS_MOST ||
        request_size == 0 || request_size == sizeof request) {
        fprintf(stderr, "open_loop: an argument is out of its range\n");
        return 2;
    }
    prctl(PR_SET_TIMERSLACK, 1000); /* or each wait ends 50 microseconds late */
    address = (struct sockaddr_in){.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)atoi(words[1])),
                                   .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    if ((epoll = epoll_create1(EPOLL_CLOEXEC)) < 0)
        fail("epoll_create1");
    for (int i = 0; i < connection_count; i++) {
        connections[i].answer = malloc(RESPONSE_MOST + 1);
        if (connections[i].answer == NULL)
            fail("malloc");
        open_connection(&connections[i]);
    }

    int64_t total = (int64_t)(rate * seconds), sent = 0, unsent = 0;
    int64_t begin = now(), end = begin + (int64_t)(seconds * (double)SECOND) + GRACE;
    while (answered + wrong < total && now() < end) {
        int64_t due = begin + (int64_t)((double)sent * (double)SECOND / rate);
        if (sent < total && busy_count < connection_count && due <= now()) {
            connection *next = next_idle();
            sent++;
            if (!send_request(next, due)) {
                unsent++; /* its connection was just closed: the next one takes it, as late as it is */
                sent--;
                reopen(next);
            }
            if (sent % 32 != 0)
                continue;
        }
        wait_for_answers(sent < total && busy_count < connection_count ? due : end);
    }
    double elapsed = (double)(now() - begin) / (double)SECOND;
    printf("RESULT {\"requests\": %lld, \"wrong\": %lld, \"lost\": %lld, \"unsent\": %lld, "
           "\"reconnected\": %lld, \"seconds\": %.6f, \"latency\": {\"50\": %.3f, \"90\": %.3f, "
           "\"99\": %.3f, \"99.9\": %.3f, \"100\": %.3f}}\n",
           (long long)answered, (long long)wrong, (long long)(total - answered - wrong),
           (long long)unsent, (long long)reconnected, elapsed, percentile(50), percentile(90),
           percentile(99), percentile(99.9), (double)latency_most / 1000);
    return 0;
}
