/*
 * All that threads do to the servers of a process, which share a listening socket and a log, at once,
 * for ThreadSanitizer to watch: a program of its own, without the seams of site.h and the counters
 * of check.h, which are for one thread. Each client checks that its answers are whole; a failure
 * after pw_server_stop is what a client has to expect.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api.h"

enum { LOOPS = 2, THREADS = 4, CONNECTIONS = 3 }; /* the last two of each loop */
enum { CLIENTS = LOOPS * CONNECTIONS + 1 };       /* one more than may connect */
enum { RUN_MS = 2500, ROUNDS_MOST = 20000 };
enum { SMALL = 2, LARGE = 400000, PART = 60000, PARTS = 3 };
enum { POST_IN_MEMORY = 3000, BODY_MEMORY = 8192, POST_IN_FILE = 20000 };

#define MUST(condition) ((condition) ? (void)0 : fail(__LINE__, #condition))
#define LITERAL(text) (text), (int64_t)(sizeof(text) - 1)

typedef struct loop loop;
typedef struct {
    loop *of;
    int32_t number;
    _Atomic(pw_thread *) thread; /* owned: freed by main, so that the watching one can nudge it */
    pthread_t id;
} place;
struct loop {
    pw_server *server;
    pthread_t watcher;
    place threads[THREADS];
    int thread_count; /* of main, then of the watching thread */
};

static loop loops[LOOPS];
static struct sockaddr_un address;
static socklen_t address_size;
static char large[LARGE];
static atomic_bool stopping;
static atomic_int served, held, news_seen, births, slow, notices, answered;

static _Noreturn void fail(int line, const char *what)
{
    fprintf(stderr, "stress.c:%d: %s (errno: %s)\n", line, what, strerror(errno));
    abort();
}

static void sleep_us(int us)
{
    struct timespec time = {0, us * 1000L};
    nanosleep(&time, NULL);
}

/* ------------------------------------------------------------------ serving threads */

static void take_news(pw_thread *thread)
{
    while (pw_news(thread) >= 0)
        atomic_fetch_add(&news_seen, 1);
}

/* X-Size: what the client has to get. */
static int64_t make_head(char head[128], int64_t size)
{
    return snprintf(head, 128, "HTTP/1.1 200 OK\r\nX-Size: %lld\r\n", (long long)size);
}

static int64_t respond(pw_thread *thread, const char *body, int64_t size, int32_t flags)
{
    char head[128];
    int64_t head_size = make_head(head, size);
    int64_t number = pw_respond(thread, head, head_size, body, size, flags);
    if (number == PW_HOLD)
        atomic_fetch_add(&held, 1);
    return number;
}

static int64_t respond_in_parts(pw_thread *thread, bool framed, int32_t flags)
{
    char head[256];
    int64_t size = make_head(head, PARTS * PART);
    if (framed)
        size += snprintf(head + size, 64, "Content-Length: %d\r\n", PARTS * PART);
    pw_send_interim(thread, LITERAL("HTTP/1.1 103 Early Hints\r\n\r\n"));
    pw_client_gone(thread);
    sleep_us(1000);
    pw_send_head(thread, head, size, framed ? PARTS * PART : -1, PW_ADD_DATE);
    for (int i = 0; i < PARTS; i++)
        pw_send_data(thread, large, PART, flags);
    if (pw_send_end(thread, 0) > 0)
        atomic_fetch_add(&held, 1);
    return pw_next(thread);
}

static int64_t respond_from_file(pw_thread *thread, int descriptor, int64_t content_size)
{
    char head[256];
    int64_t size = make_head(head, content_size);
    pw_send_head(thread, head, size, -1, PW_ADD_SERVER);
    while (content_size > 0) { /* chunked, so not with pw_send_file */
        char part[512];        /* many small ones, and a while without any */
        if (content_size % 4096 < 512)
            sleep_us(1000);
        ssize_t got = pread(descriptor, part, sizeof part, POST_IN_FILE - content_size);
        MUST(got > 0);
        pw_send_data(thread, part, got, 0);
        content_size -= got;
    }
    close(descriptor);
    pw_send_end(thread, 0);
    return pw_next(thread);
}

static int64_t send_file(pw_thread *thread, int descriptor, int64_t content_size)
{
    char head[256];
    int64_t size = make_head(head, content_size);
    size += snprintf(head + size, 64, "Content-Length: %lld\r\n", (long long)content_size);
    pw_send_head(thread, head, size, content_size, 0);
    pw_send_file(thread, descriptor, 0, content_size);
    close(descriptor);
    pw_send_end(thread, 0);
    return pw_next(thread);
}

/* Content goes back as it came; other requests take turns. */
static int64_t serve_request(pw_thread *thread, int64_t number, int turn)
{
    const pw_request *request = pw_thread_request(thread);
    if ((number & PW_CONTENT) != 0 && request->content_file >= 0)
        return (turn % 2 == 0 ? send_file : respond_from_file)(thread, request->content_file,
                                                               request->content_length);
    if ((number & PW_CONTENT) != 0) {
        if (turn % 3 == 0)
            sleep_us(3000);
        return respond(thread, request->content, request->content_length, 0);
    }
    switch (turn % 10) {
    case 3:
        sleep_us(5000); /* long enough for another thread to take the token */
        return respond(thread, large, SMALL, PW_ADD_DATE);
    case 4:
        return respond(thread, large, LARGE, 0);
    case 5:
        sleep_us(5000);
        return respond(thread, large, LARGE, 0);
    case 6:
        return respond_in_parts(thread, false, 0);
    case 7:
        return respond_in_parts(thread, true, PW_FINISHED);
    case 8:
        return respond(thread, large, SMALL, PW_RETURN);
    default:
        return respond(thread, large, SMALL, PW_ADD_DATE | PW_ADD_SERVER);
    }
}

static void *serve(void *its_place)
{
    place *own = its_place;
    pw_thread *thread = pw_thread_new(own->of->server, own->number);
    MUST(thread != NULL);
    atomic_store(&own->thread, thread);
    int64_t number = pw_next(thread);
    for (int turn = 0; number != PW_STOP;) {
        if (number == PW_IDLE || number == PW_HOLD || (number & PW_NEWS) != 0)
            take_news(thread);
        if (number < 0) {
            number = pw_next(thread);
            continue;
        }
        atomic_fetch_add(&served, 1);
        number = serve_request(thread, number, turn++);
    }
    return NULL;
}

static void bear(loop *self)
{
    MUST(self->thread_count < THREADS);
    place *born = &self->threads[self->thread_count];
    born->of = self;
    born->number = self->thread_count++;
    MUST(pthread_create(&born->id, NULL, serve, born) == 0);
}

static void *watch(void *its_loop)
{
    loop *self = its_loop;
    for (int32_t told; (told = pw_watch(self->server)) != PW_WATCH_STOP;) {
        if (told == PW_WATCH_NOTICE) {
            for (pw_notice notice; pw_notice_take(self->server, &notice);)
                atomic_fetch_add(&notices, 1);
        } else if (told == PW_WATCH_BIRTH) {
            atomic_fetch_add(&births, 1);
            bear(self);
        } else {
            atomic_fetch_add(&slow, 1);
            for (int i = 0; i < self->thread_count; i++)
                if (atomic_load(&self->threads[i].thread) != NULL)
                    pw_thread_nudge(self->threads[i].thread);
        }
    }
    return NULL;
}

/* ------------------------------------------------------------------ clients */

typedef struct {
    int fd;
    size_t at, end;
    char data[16384];
} client;

/* False, as for all that follow: the connection has ended. */
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
    fail(__LINE__, "a line is too long");
}

static bool client_skip(client *self, size_t size)
{
    while (size > 0) {
        if (self->at == self->end && !client_fill(self))
            return false;
        size_t step = self->end - self->at < size ? self->end - self->at : size;
        self->at += step;
        size -= step;
    }
    return true;
}

static bool client_chunks(client *self, long *length)
{
    char line[256];
    *length = 0;
    for (;;) {
        if (!client_line(self, line))
            return false;
        long size = strtol(line, NULL, 16);
        if (!client_skip(self, (size_t)size) || !client_line(self, line))
            return false;
        MUST(strcmp(line, "\r\n") == 0);
        if (size == 0)
            return true;
        *length += size;
    }
}

/* One answer, whole; expected: its content's size, or 0: what X-Size says. */
static bool client_answer(client *self, long expected)
{
    char line[256];
    long length = -1;
    bool chunked = false;
    if (!client_line(self, line))
        return false;
    MUST(strncmp(line, "HTTP/1.1 ", 9) == 0);
    int status = atoi(line + 9);
    MUST(status == 200 || status == 103 || (status == 503 && atomic_load(&stopping)));
    for (;;) {
        if (!client_line(self, line))
            return false;
        if (strcmp(line, "\r\n") == 0)
            break;
        if (strncmp(line, "Content-Length: ", 16) == 0)
            length = atol(line + 16);
        else if (strncmp(line, "X-Size: ", 8) == 0 && expected == 0)
            expected = atol(line + 8);
        else if (strncmp(line, "Transfer-Encoding: chunked", 26) == 0)
            chunked = true;
    }
    if (status == 103)
        return client_answer(self, expected);
    MUST(chunked == (length < 0));
    if (chunked ? !client_chunks(self, &length) : !client_skip(self, (size_t)length))
        return false;
    MUST(length == expected || status == 503);
    atomic_fetch_add(&answered, 1);
    return true;
}

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

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\nUser-Agent: stress\r\n\r\n"
#define SEND(self, text) client_send((self), (text), sizeof(text) - 1)

/* The same head again and again, which the core recognises. */
static bool keep_alive(client *self)
{
    for (int i = 0; i < 12; i++)
        if (!(i == 6 ? SEND(self, GET("/other?query")) : SEND(self, GET("/"))) ||
            !client_answer(self, 0))
            return false;
    return true;
}

static bool pipelined(client *self)
{
    if (!SEND(self, GET("/1") GET("/2") GET("/3") GET("/4") GET("/5") GET("/6") GET("/7")))
        return false;
    for (int i = 0; i < 7; i++)
        if (!client_answer(self, 0))
            return false;
    return true;
}

static bool split(client *self)
{
    static const char text[] = GET("/split") GET("/in-pieces");
    for (size_t at = 0, step = 11; at < sizeof text - 1; at += step) {
        size_t left = sizeof text - 1 - at;
        if (!client_send(self, text + at, left < step ? left : step))
            return false;
        sleep_us(300);
    }
    return client_answer(self, 0) && client_answer(self, 0);
}

static bool post(client *self, int size)
{
    char head[128];
    int head_size = snprintf(head, sizeof head,
                             "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size);
    return client_send(self, head, (size_t)head_size) && client_send(self, large, 1000) &&
           client_send(self, large, (size_t)size - 1000) && client_answer(self, size);
}

static bool health(client *self)
{
    return SEND(self, GET("/health")) && client_answer(self, sizeof "ok\n" - 1);
}

/* Goes without its answers, or in the middle of one. */
static bool leave(client *self, int turn)
{
    if (!SEND(self, GET("/a") GET("/b") GET("/c")))
        return false;
    if (turn % 3 == 0)
        return client_answer(self, 0);
    if (turn % 3 == 1)
        sleep_us(2000);
    return true;
}

static bool client_connect(client *self)
{
    static const struct timeval patience = {.tv_sec = 10};
    self->at = self->end = 0;
    self->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(self->fd >= 0);
    setsockopt(self->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return connect(self->fd, (const struct sockaddr *)&address, address_size) == 0;
}

static void *be_client(void *number)
{
    client *self = malloc(sizeof *self);
    MUST(self != NULL);
    int turn = (int)(intptr_t)number;
    for (int round = 0; round < ROUNDS_MOST && !atomic_load(&stopping); round++, turn++) {
        bool well = client_connect(self);
        for (int i = 0; i < 4 && well; i++, turn++) {
            switch (turn % 6) {
            case 0:
                well = keep_alive(self);
                break;
            case 1:
                well = pipelined(self);
                break;
            case 2:
                well = split(self);
                break;
            case 3:
                well = post(self, turn % 4 == 1 ? POST_IN_FILE : POST_IN_MEMORY);
                break;
            case 4:
                well = health(self) && post(self, POST_IN_FILE);
                break;
            default:
                well = leave(self, turn);
                i = 4;
                break;
            }
        }
        MUST(well || atomic_load(&stopping));
        close(self->fd);
    }
    free(self);
    return NULL;
}

/* ------------------------------------------------------------------ all of them */

static int listen_somewhere(void)
{
    socklen_t size = sizeof address;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    MUST(listener >= 0);
    address = (struct sockaddr_un){.sun_family = AF_UNIX}; /* the system picks a name */
    MUST(bind(listener, (const struct sockaddr *)&address, sizeof address.sun_family) == 0);
    MUST(listen(listener, 128) == 0);
    MUST(getsockname(listener, (struct sockaddr *)&address, &size) == 0);
    address_size = size;
    return listener;
}

static pw_server *open_server(int log, int listener, pw_balance *balance)
{
    static const char program[] = "\2\0\0\1\0\1 \4\0\0\11\0\12user-agent\13\0\0\20\0\0\22\0\0"
                                  "\23\0\6x-size\1\0\1\n";
    const int32_t minute = 60000;
    pw_server *server = pw_server_new(&(pw_settings){
        .max_head_size = 65536,
        .head_memory_total = 32 << 20,
        .max_body_size = 1 << 20,
        .body_memory = BODY_MEMORY,
        .body_memory_total = 4 * BODY_MEMORY,
        .response_buffer = 65536,
        .max_fields = 100,
        .max_connections = CONNECTIONS,
        .threads = THREADS,
        .timeout_head = minute,
        .timeout_body = minute,
        .timeout_write = minute,
        .timeout_keep_alive = minute,
        .timeout_drain = 50,
        .timeout_graceful = 5000,
        .timeout_request = 4,
        .access_file = log,
        .balance = balance,
        .access_program = program,
        .access_program_size = sizeof program - 1,
        .health_path = "/health",
        .temporary_directory = "/tmp",
        .poller = getenv("PICOWSGI_POLLER"),
    });
    MUST(server != NULL);
    MUST(pw_server_listen(server, listener) == 0);
    return server;
}

static int64_t count_requests(void)
{
    int64_t count = 0;
    for (int i = 0; i < LOOPS; i++)
        count += pw_server_requests(loops[i].server);
    return count;
}

int main(void)
{
    pthread_t clients[CLIENTS];
    pw_balance *balance = pw_balance_new();
    MUST(balance != NULL);
    signal(SIGPIPE, SIG_IGN);
    memset(large, 'x', sizeof large);
    int logs[2] = {open("/dev/null", O_WRONLY | O_CLOEXEC),
                   open("/dev/null", O_WRONLY | O_CLOEXEC)};
    MUST(logs[0] >= 0 && logs[1] >= 0);
    int listener = listen_somewhere();
    for (loop *each = loops; each < loops + LOOPS; each++) {
        each->server = open_server(logs[0], listener, balance);
        bear(each);
        MUST(pthread_create(&each->watcher, NULL, watch, each) == 0);
    }
    for (intptr_t i = 0; i < CLIENTS; i++)
        MUST(pthread_create(&clients[i], NULL, be_client, (void *)i) == 0);

    int64_t requests = 0;
    for (int i = 0; i < RUN_MS / 100; i++) {
        sleep_us(100000);
        for (int each = 0; each < LOOPS; each++)
            pw_server_log_to(loops[each].server, logs[i % 2]);
        MUST(count_requests() >= requests);
        requests = count_requests();
    }
    atomic_store(&stopping, true);
    for (int i = 0; i < LOOPS; i++)
        pw_server_stop(loops[i].server);
    close(listener); /* or who waits to be accepted waits on */
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(clients[i], NULL);
    for (loop *each = loops; each < loops + LOOPS; each++) {
        pthread_join(each->watcher, NULL);
        for (int i = 0; i < each->thread_count; i++) {
            pthread_join(each->threads[i].id, NULL);
            pw_thread_free(each->threads[i].thread);
        }
        MUST(pw_server_requests(each->server) > 0);
    }
    MUST(count_requests() == atomic_load(&served));
    for (int i = 0; i < LOOPS; i++)
        pw_server_free(loops[i].server);
    pw_balance_free(balance);
    close(logs[0]);
    close(logs[1]);
    printf(
        "  %d requests, %d answers, %d held, %d news, %d threads born, %d named slow, %d notices\n",
        served, answered, held, news_seen, births, slow, notices);
    /* Or it has not tried what it is for. */
    MUST(answered > 0 && held > 0 && news_seen > 0 && births > 0 && slow > 0);
    return 0;
}
