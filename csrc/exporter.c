/*
 * The thread that serves the page of the metrics. It needs neither the GIL nor a lock of a server, so
 * it responds while all threads of the application are stuck, and while no worker lives.
 *
 * It reads one request of each connection, responds and closes. It serves PW_CLIENTS connections at a
 * time, each for PW_CLIENT_MS at most; the others wait in the backlog. When all places are taken, the
 * oldest connection is closed for a new one after PW_GRACE_MS. So no client can take much memory or time
 * of it, and none keeps others away for long.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <fcntl.h>

#include "alloc.h"
#include "clock.h"
#include "error_response.h"
#include "exporter.h"
#include "head.h"
#include "metrics_page.h"
#include "process.h"
#include "system.h"

#define PW_CLIENTS 8
#define PW_CLIENT_MS 5000
#define PW_GRACE_MS 250
#define PW_ASK_MOST 8192  /* bytes of a request */
#define PW_ASK_FIELDS 100 /* fields of a request */
#define PW_FULL_MS 100    /* a pause of accepting when there is no descriptor or memory */
#define PW_HEAD_MOST 512

typedef enum {
    PW_CLIENT_ASKS,  /* its request is not complete */
    PW_CLIENT_READS, /* the response is on its way */
    PW_CLIENT_LEAVES /* the response is sent; its bytes are dropped until it closes its side */
} pw_client_state;

typedef struct {
    int fd; /* owned; -1: the place is free */
    int family;
    pw_client_state state;
    int64_t until; /* ms: the connection ends then */
    pw_head_progress progress;
    size_t size; /* received bytes */
    size_t sent; /* bytes of `response` */
    pw_text response;
    char ask[PW_ASK_MOST];
} pw_client;

struct pw_exporter {
    pw_metrics *metrics; /* kept */
    char *info;          /* owned */
    int64_t started;     /* ms since 1970 */
    atomic_bool stops;
    atomic_bool paused;
    pthread_t thread;
    /* Held by the thread, except while it waits for events. Guards what follows. */
    pthread_mutex_t lock;
    int listener;         /* owned, a duplicate */
    int wake[2];          /* owned: a pipe; a byte ends a wait */
    int64_t accept_after; /* ms: no connection is accepted before */
    bool held_for_fork;
    bool forked; /* this is a forked child, which has neither the thread nor its descriptors */
    pw_clock clock;
    pw_field fields[PW_ASK_FIELDS];
    pw_client clients[PW_CLIENTS];
};

/* ------------------------------------------------------------------ responses */

static void client_close(pw_client *client)
{
    pw_end_connection(client->fd, client->family, PW_ENDING_ORDERLY);
    client->fd = -1;
    pw_free(client->response.at);
    client->response = (pw_text){NULL, 0, 0};
}

/* False: out of memory. */
static bool respond(pw_exporter *exporter, pw_client *client, const char *status,
                    const char *fields, const char *body, size_t size, bool is_head)
{
    pw_text *to = &client->response;
    if (!pw_text_room(to, PW_HEAD_MOST + size))
        return false;
    pw_text_put(to, "HTTP/1.1 ", 9);
    pw_text_put(to, status, strlen(status));
    pw_text_put(to, "\r\nServer: picowsgi\r\n", 20);
    pw_text_put(to, exporter->clock.date, exporter->clock.size);
    pw_text_put(to, fields, strlen(fields));
    pw_text_put(to, "Cache-Control: no-store\r\nConnection: close\r\nContent-Length: ", 60);
    pw_text_number(to, (int64_t)size);
    pw_text_put(to, "\r\n\r\n", 4);
    if (!is_head)
        pw_text_put(to, body, size);
    return true;
}

static bool respond_page(pw_exporter *exporter, pw_client *client, bool is_head)
{
    pw_text page = {NULL, 0, 0};
    bool done = pw_text_room(&page, PW_PAGE_MOST);
    if (done) {
        pw_metrics_page(exporter->metrics, exporter->info, exporter->started, &page);
        done = respond(exporter, client, "200 OK",
                       "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", page.at,
                       page.size, is_head);
    }
    pw_free(page.at);
    return done;
}

static bool respond_error(const pw_exporter *exporter, pw_client *client, pw_error error)
{
    char response[PW_REFUSAL_MOST];
    size_t size = pw_error_response(&exporter->clock, response, error, false);
    if (!pw_text_room(&client->response, size))
        return false;
    pw_text_put(&client->response, response, size);
    return true;
}

static bool respond_to(pw_exporter *exporter, pw_client *client, const pw_head *head)
{
    static const char text[] = "Content-Type: text/plain; charset=utf-8\r\n";
    static const char allow[] = "Content-Type: text/plain; charset=utf-8\r\nAllow: GET, HEAD\r\n";
    bool is_head = head->facts.is_head;
    if (!is_head && !pw_span_is(head->method, "GET"))
        return respond(exporter, client, "405 Method Not Allowed", allow, "use GET\n", 8, false);
    if (pw_span_is(head->path, "/metrics") || pw_span_is(head->path, "/"))
        return respond_page(exporter, client, is_head);
    return respond(exporter, client, "404 Not Found", text, "the page is /metrics\n", 21, is_head);
}

/* ------------------------------------------------------------------ a connection */

/* Parses what has come. If the request is complete or wrong, makes the response. False: the
 * connection has to end. */
static bool client_parse(pw_exporter *exporter, pw_client *client)
{
    static const pw_limits limits = {.max_head_size = PW_ASK_MOST - 1,
                                     .max_fields = PW_ASK_FIELDS,
                                     .underscore_fields = PW_UNDERSCORE_DROP};
    pw_head head = {.fields = exporter->fields};
    pw_error error = PW_E_NONE;
    bool done = true;
    pw_clock_tick(&exporter->clock);
    switch (pw_head_parse(&limits, client->ask, client->size, &client->progress, &head, &error)) {
    case PW_PARSE_MORE:
        return true;
    case PW_PARSE_DONE:
        done = respond_to(exporter, client, &head) || respond_error(exporter, client, PW_E_MEMORY);
        break;
    case PW_PARSE_ERROR:
        done = respond_error(exporter, client, error);
        break;
    }
    client->state = PW_CLIENT_READS;
    return done;
}

/* Reads all that has come, or drops it after the response. False: the connection has to end. */
static bool client_receive(pw_exporter *exporter, pw_client *client)
{
    char dropped[1024];
    bool asks = client->state == PW_CLIENT_ASKS;
    char *to = asks ? client->ask + client->size : dropped;
    size_t room = asks ? PW_ASK_MOST - client->size : sizeof dropped;
    ssize_t got = recv(client->fd, to, room, 0);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    if (got == 0)
        return false;
    if (!asks)
        return true;
    client->size += (size_t)got;
    return client_parse(exporter, client);
}

/* False: the connection has to end. */
static bool client_send(pw_client *client)
{
    const pw_text *response = &client->response;
    ssize_t done =
        pw_send_bytes(client->fd, response->at + client->sent, response->size - client->sent);
    if (done < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    client->sent += (size_t)done;
    if (client->sent == response->size) {
        shutdown(client->fd, SHUT_WR); /* a close with unread bytes would reset the connection */
        client->state = PW_CLIENT_LEAVES;
    }
    return true;
}

static void client_continue(pw_exporter *exporter, pw_client *client, int64_t now)
{
    bool lives = now < client->until;
    if (lives && client->state != PW_CLIENT_READS)
        lives = client_receive(exporter, client);
    if (lives && client->state == PW_CLIENT_READS)
        lives = client_send(client);
    if (!lives)
        client_close(client);
}

/* ------------------------------------------------------------------ the thread */

/* The place for the next connection: a free one, or that of the oldest connection. *from: when it may be
 * taken, in ms; 0: now. */
static pw_client *next_place(pw_exporter *exporter, int64_t *from)
{
    pw_client *oldest = &exporter->clients[0];
    *from = 0;
    for (int i = 0; i < PW_CLIENTS; i++) {
        pw_client *client = &exporter->clients[i];
        if (client->fd < 0)
            return client;
        if (client->until < oldest->until)
            oldest = client;
    }
    *from = oldest->until - PW_CLIENT_MS + PW_GRACE_MS;
    return oldest;
}

static void accept_client(pw_exporter *exporter, int64_t now)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof peer;
    int64_t from;
    pw_client *client = next_place(exporter, &from);
    if (now < from)
        return;
    int fd = pw_accept_from(exporter->listener, &peer, &size);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            exporter->accept_after = now + PW_FULL_MS;
        return; /* another process was faster, or the client has disconnected */
    }
    if (client->fd >= 0)
        client_close(client);
    client->fd = fd;
    client->family = peer.ss_family;
    client->state = PW_CLIENT_ASKS;
    client->until = now + PW_CLIENT_MS;
    client->progress = (pw_head_progress){0};
    client->size = client->sent = 0;
    client_continue(exporter, client, now);
}

/* When the next connection may be accepted, in ms; 0: now; INT64_MAX: while it is paused, never. */
static int64_t accepts_from(pw_exporter *exporter)
{
    int64_t from;
    next_place(exporter, &from);
    if (atomic_load(&exporter->paused))
        return INT64_MAX;
    return from > exporter->accept_after ? from : exporter->accept_after;
}

/* Ends after the events that came within one wait. Without the lock while it waits. */
static void exporter_step(pw_exporter *exporter)
{
    struct pollfd waits[PW_CLIENTS + 2];
    int64_t now = pw_now();
    int64_t from = accepts_from(exporter);
    bool listens = now >= from;
    int64_t until = listens ? INT64_MAX : from;
    /* The system leaves out negative descriptors. */
    waits[PW_CLIENTS] = (struct pollfd){.fd = exporter->wake[0], .events = POLLIN};
    waits[PW_CLIENTS + 1] =
        (struct pollfd){.fd = listens ? exporter->listener : -1, .events = POLLIN};
    for (int i = 0; i < PW_CLIENTS; i++) {
        const pw_client *client = &exporter->clients[i];
        short events = client->state == PW_CLIENT_READS ? POLLOUT : POLLIN;
        waits[i] = (struct pollfd){.fd = client->fd, .events = events};
        if (client->fd >= 0 && client->until < until)
            until = client->until;
    }
    int timeout = until == INT64_MAX ? -1 : until > now ? (int)(until - now) + 1 : 0;
    pthread_mutex_unlock(&exporter->lock);
    poll(waits, PW_CLIENTS + 2, timeout);
    pthread_mutex_lock(&exporter->lock);
    char unused[16];
    while (read(exporter->wake[0], unused, sizeof unused) > 0)
        continue;
    now = pw_now();
    for (int i = 0; i < PW_CLIENTS; i++) {
        pw_client *client = &exporter->clients[i];
        if (client->fd >= 0 && (waits[i].revents != 0 || now >= client->until))
            client_continue(exporter, client, now);
    }
    if ((waits[PW_CLIENTS + 1].revents & POLLIN) != 0 && now >= accepts_from(exporter))
        accept_client(exporter, now);
}

static void *exporter_run(void *its_exporter)
{
    pw_exporter *exporter = its_exporter;
    pthread_mutex_lock(&exporter->lock);
    while (!atomic_load(&exporter->stops))
        exporter_step(exporter);
    pthread_mutex_unlock(&exporter->lock);
    return NULL;
}

static void exporter_wake(const pw_exporter *exporter)
{
    if (write(exporter->wake[1], "", 1) < 0)
        return; /* a full pipe ends the wait, too */
}

/* ------------------------------------------------------------------ begin and end */

/* The thread handles no signals: they are for the threads of the application. Returns 0 or an errno. */
static int start_thread(pw_exporter *exporter)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&exporter->thread, NULL, exporter_run, exporter);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

static int64_t started_at(void)
{
    pw_process facts = {.age = 0};
    int64_t now = pw_clock_ns(CLOCK_REALTIME) / 1000000;
    return pw_process_look((int32_t)getpid(), &facts) ? now - facts.age : now;
}

static void exporter_close(pw_exporter *exporter)
{
    const int files[] = {exporter->listener, exporter->wake[0], exporter->wake[1]};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (files[i] >= 0)
            close(files[i]);
    exporter->listener = exporter->wake[0] = exporter->wake[1] = -1;
}

static void exporter_destroy(pw_exporter *exporter)
{
    exporter_close(exporter);
    pthread_mutex_destroy(&exporter->lock);
    pw_metrics_free(exporter->metrics);
    pw_free(exporter->info);
    pw_free(exporter);
}

pw_exporter *pw_exporter_new(pw_metrics *metrics, int32_t listener, const char *info,
                             int32_t paused)
{
    size_t size = strlen(info) + 1;
    pw_exporter *exporter = size <= PW_INFO_MOST ? pw_alloc(sizeof *exporter) : NULL;
    if (exporter == NULL) {
        errno = size <= PW_INFO_MOST ? ENOMEM : EINVAL;
        return NULL;
    }
    exporter->metrics = pw_metrics_keep(metrics);
    exporter->started = started_at();
    atomic_store(&exporter->paused, paused != 0);
    exporter->listener = exporter->wake[0] = exporter->wake[1] = -1;
    for (int i = 0; i < PW_CLIENTS; i++)
        exporter->clients[i].fd = -1;
    pthread_mutex_init(&exporter->lock, NULL);
    int error = 0;
    exporter->info = pw_alloc(size);
    if (exporter->info == NULL)
        error = ENOMEM;
    else
        memcpy(exporter->info, info, size);
    if (error == 0)
        error = pw_pipe(exporter->wake);
    if (error == 0 && (exporter->listener = fcntl(listener, F_DUPFD_CLOEXEC, 0)) < 0)
        error = errno;
    if (error == 0)
        error = start_thread(exporter);
    if (error == 0)
        return exporter;
    exporter_destroy(exporter);
    errno = error;
    return NULL;
}

void pw_exporter_pause(pw_exporter *exporter, int32_t paused)
{
    if (atomic_exchange(&exporter->paused, paused != 0) != (paused != 0))
        exporter_wake(exporter);
}

void pw_exporter_hold(pw_exporter *exporter)
{
    if (exporter->held_for_fork || exporter->forked)
        return;
    pthread_mutex_lock(&exporter->lock);
    exporter->held_for_fork = true;
}

void pw_exporter_unhold(pw_exporter *exporter)
{
    if (!exporter->held_for_fork)
        return;
    exporter->held_for_fork = false;
    pthread_mutex_unlock(&exporter->lock);
}

void pw_exporter_forked(pw_exporter *exporter)
{
    if (exporter->forked)
        return;
    exporter->forked = true;
    exporter_close(exporter);
    for (int i = 0; i < PW_CLIENTS; i++)
        if (exporter->clients[i].fd >= 0)
            close(exporter->clients[i].fd); /* the parent continues with it */
    pw_exporter_unhold(exporter);
}

void pw_exporter_free(pw_exporter *exporter)
{
    if (exporter == NULL || exporter->forked)
        return;
    atomic_store(&exporter->stops, true);
    exporter_wake(exporter);
    pthread_join(exporter->thread, NULL);
    for (int i = 0; i < PW_CLIENTS; i++)
        if (exporter->clients[i].fd >= 0)
            client_close(&exporter->clients[i]);
    exporter_destroy(exporter);
}
