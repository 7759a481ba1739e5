/*
 * A stand-in for a database: it answers each query after a fixed time, and does nothing meanwhile.
 * So an application waits as for a database on another machine, and the answers cost little.
 *
 * Called as: stand_in PATH MICROSECONDS
 *
 * Listens on the unix socket PATH. A query is a line; its answer is "item " and the same line. A
 * connection has one query at a time: one that sends more, or a line that is too long, is closed.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS_MOST = 1024, LINE_MOST = 64, EVENTS = 128 };
static const int64_t SECOND = 1000000000;
static const char PREFIX[] = "item ";
enum { PREFIX_SIZE = sizeof PREFIX - 1 };

typedef struct {
    int fd;       /* -1: closed */
    bool waiting; /* it is in the queue */
    int64_t due;  /* when its answer is, in nanoseconds */
    size_t size;  /* of the query so far */
    char answer[PREFIX_SIZE + LINE_MOST];
} connection;

/*
 * Every query waits for the same time, so the first to come is the first that is due: the queue is a
 * ring. A connection is in it at most once, so it cannot overflow.
 */
static connection connections[CONNECTIONS_MOST];
static connection *queue[CONNECTIONS_MOST];
static size_t first, queued;
static int epoll, listener;
static int64_t wait_time;

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "stand_in: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int fd, connection *self)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = self}};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        fail("epoll_ctl");
}

/* NULL where all are in use. One that was closed is in use until the queue has passed it. */
static connection *unused(void)
{
    for (size_t i = 0; i < CONNECTIONS_MOST; i++)
        if (connections[i].fd < 0 && !connections[i].waiting)
            return &connections[i];
    return NULL;
}

static void close_connection(connection *self)
{
    close(self->fd);
    self->fd = -1;
}

static void accept_connection(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0)
        return; /* the client has gone already */
    connection *self = unused();
    if (self == NULL) {
        close(fd);
        return;
    }
    self->fd = fd;
    self->size = 0;
    memcpy(self->answer, PREFIX, PREFIX_SIZE);
    watch(fd, self);
}

static void receive(connection *self)
{
    char *at = self->answer + PREFIX_SIZE + self->size;
    if (self->fd < 0)
        return; /* closed since epoll reported it */
    ssize_t size = self->waiting ? 0 : recv(self->fd, at, LINE_MOST - self->size, 0);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        close_connection(self);
        return;
    }
    self->size += (size_t)size;
    char *end = memchr(at, '\n', (size_t)size);
    if (end == NULL ? self->size == LINE_MOST : end != at + size - 1) {
        close_connection(self);
    } else if (end != NULL) {
        self->due = now() + wait_time;
        self->waiting = true;
        queue[(first + queued++) % CONNECTIONS_MOST] = self;
    }
}

static void answer_first(void)
{
    connection *self = queue[first];
    first = (first + 1) % CONNECTIONS_MOST;
    queued--;
    self->waiting = false;
    if (self->fd < 0)
        return;
    size_t size = PREFIX_SIZE + self->size;
    self->size = 0;
    /* A socket that does not take so few bytes has a client that reads nothing. */
    if (send(self->fd, self->answer, size, MSG_NOSIGNAL) != (ssize_t)size)
        close_connection(self);
}

static void wait_for_queries(void)
{
    struct epoll_event events[EVENTS];
    int64_t left = queued > 0 ? queue[first]->due - now() : 0;
    struct timespec timeout = {left > 0 ? left / SECOND : 0, left > 0 ? left % SECOND : 0};
    int count = epoll_pwait2(epoll, events, EVENTS, queued > 0 ? &timeout : NULL, NULL);
    if (count < 0 && errno != EINTR)
        fail("epoll_pwait2");
    for (int i = 0; i < count; i++)
        if (events[i].data.ptr == NULL)
            accept_connection();
        else
            receive(events[i].data.ptr);
}

int main(int count, char **words)
{
    if (count != 3) {
        fprintf(stderr, "usage: stand_in PATH MICROSECONDS\n");
        return 2;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    wait_time = atol(words[2]) * 1000;
    if (strlen(words[1]) >= sizeof address.sun_path || wait_time <= 0) {
        fprintf(stderr, "stand_in: an argument is out of its range\n");
        return 2;
    }
    strcpy(address.sun_path, words[1]);
    prctl(PR_SET_TIMERSLACK, 1000); /* or each wait ends 50 microseconds late */
    for (size_t i = 0; i < CONNECTIONS_MOST; i++)
        connections[i].fd = -1;
    if ((epoll = epoll_create1(EPOLL_CLOEXEC)) < 0)
        fail("epoll_create1");
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, CONNECTIONS_MOST) != 0)
        fail(words[1]);
    watch(listener, NULL);
    for (;;) {
        wait_for_queries();
        for (int64_t time = now(); queued > 0 && queue[first]->due <= time;)
            answer_first();
    }
}
