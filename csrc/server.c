/* The loop, and what Python calls: see api.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define PW_WAITING_MOST 65536 /* bytes of answers that may wait for the next pipelined request */
#define PW_BURST 32           /* pipelined requests before other connections have their turn */

/* ------------------------------------------------------------------ the server */

static bool pw_wake_open(pw_server *server)
{
    if (pipe(server->wake) != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        fcntl(server->wake[i], F_SETFD, FD_CLOEXEC);
        fcntl(server->wake[i], F_SETFL, O_NONBLOCK);
    }
    return pw_poll_add_level(&server->poll, server->wake[0], server->wake) == 0;
}

static bool pw_server_allocate(pw_server *server, const pw_settings *settings)
{
    size_t news = 2 * (size_t)settings->max_connections + 2;
    const char *directory = settings->temporary_directory;
    size_t directory_size = strlen(directory) + 1;
    server->fields = pw_alloc((size_t)settings->max_fields * sizeof *server->fields);
    server->scratch = pw_realloc(NULL, PW_SCRATCH_SIZE);
    server->news = pw_alloc(news * sizeof *server->news);
    server->directory = pw_alloc(directory_size);
    if (server->fields == NULL || server->scratch == NULL || server->news == NULL ||
        server->directory == NULL)
        return false;
    memcpy(server->directory, directory, directory_size);
    server->store.directory = server->directory;
    server->head.fields = server->fields;
    return true;
}

static void pw_server_copy_settings(pw_server *server, const pw_settings *settings)
{
    server->limits = (pw_limits){
        .max_head_size = (size_t)settings->max_head_size,
        .max_fields = (size_t)settings->max_fields,
        .max_body_size = settings->max_body_size,
        .underscore_fields = settings->underscore_fields,
    };
    server->store.memory_most = settings->body_memory;
    server->store.size_most = settings->max_body_size;
    server->response_buffer = settings->response_buffer;
    server->max_connections = settings->max_connections;
    server->timeout_graceful = settings->timeout_graceful;
    server->timers.length[PW_TIMER_HEAD] = settings->timeout_head;
    server->timers.length[PW_TIMER_BODY] = settings->timeout_body;
    server->timers.length[PW_TIMER_WRITE] = settings->timeout_write;
    server->timers.length[PW_TIMER_KEEP_ALIVE] = settings->timeout_keep_alive;
    server->timers.length[PW_TIMER_LINGER] = 2000;
}

pw_server *pw_server_new(const pw_settings *settings)
{
    if (settings->max_head_size < 1 || settings->max_head_size > (1 << 22) ||
        settings->max_fields < 1 || settings->max_fields > 1024 || settings->max_connections < 1) {
        errno = EINVAL;
        return NULL;
    }
    pw_server *server = pw_alloc(sizeof *server);
    if (server == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    server->poll.fd = server->wake[0] = server->wake[1] = -1;
    pw_server_copy_settings(server, settings);
    pw_timers_init(&server->timers);
    pw_clock_tick(&server->clock);
    int error = ENOMEM;
    if (!pw_server_allocate(server, settings))
        goto fail;
    error = pw_poll_open(&server->poll);
    if (error != 0)
        goto fail;
    if (!pw_wake_open(server)) {
        error = errno;
        goto fail;
    }
    return server;
fail:
    pw_server_free(server);
    errno = error;
    return NULL;
}

int32_t pw_server_listen(pw_server *server, int32_t descriptor)
{
    if (server->listener_count == PW_LISTENERS_MOST)
        return EMFILE;
    pw_listener *listener = &server->listeners[server->listener_count];
    listener->fd = descriptor;
    int error = pw_poll_add_level(&server->poll, descriptor, listener);
    if (error == 0)
        server->listener_count++;
    return error;
}

void pw_server_stop(pw_server *server)
{
    int saved = errno;
    atomic_fetch_add(&server->stopping, 1);
    /* A full pipe wakes as well as one byte does. */
    if (write(server->wake[1], "", 1) < 0)
        errno = saved;
}

static void pw_reap(pw_server *server)
{
    while (server->dead != NULL) {
        pw_conn *conn = server->dead;
        server->dead = conn->run_next;
        pw_free(conn);
    }
}

static pw_conn *pw_run_pop(pw_server *server)
{
    pw_conn *conn = server->run_first;
    if (conn == NULL)
        return NULL;
    server->run_first = conn->run_next;
    if (server->run_first == NULL)
        server->run_last = NULL;
    conn->run_next = NULL;
    conn->queued = false;
    return conn;
}

/* Out of the run queue: a closed one is only now nobody's. */
static bool pw_conn_bury(pw_server *server, pw_conn *conn)
{
    if (conn->state != PW_CONN_CLOSED)
        return false;
    conn->run_next = server->dead;
    server->dead = conn;
    return true;
}

void pw_server_free(pw_server *server)
{
    if (server == NULL)
        return;
    server->draining = true;
    while (server->all != NULL)
        pw_conn_close(server, server->all);
    for (pw_conn *conn = pw_run_pop(server); conn != NULL; conn = pw_run_pop(server))
        pw_conn_bury(server, conn);
    pw_reap(server);
    pw_poll_close(&server->poll);
    for (int i = 0; i < 2; i++)
        if (server->wake[i] >= 0)
            close(server->wake[i]);
    pw_cache_free(&server->cache);
    pw_pool_free(&server->pool);
    pw_free(server->fields);
    pw_free(server->scratch);
    pw_free(server->news);
    pw_free(server->directory);
    pw_free(server);
}

void pw_run(pw_server *server, pw_conn *conn, bool first)
{
    if (conn->queued || conn->state == PW_CONN_APP || conn->state == PW_CONN_CLOSED)
        return;
    conn->queued = true;
    if (server->run_first == NULL) {
        conn->run_next = NULL;
        server->run_first = server->run_last = conn;
    } else if (first) {
        conn->run_next = server->run_first;
        server->run_first = conn;
    } else {
        conn->run_next = NULL;
        server->run_last->run_next = conn;
        server->run_last = conn;
    }
}

void pw_tell(pw_server *server, int64_t value, int kind)
{
    server->news[server->news_count++] = value * 2 + kind;
}

/* ------------------------------------------------------------------ threads */

pw_thread *pw_thread_new(pw_server *server)
{
    pw_thread *thread = pw_alloc(sizeof *thread);
    if (thread != NULL) {
        thread->server = server;
        thread->block.at = pw_realloc(NULL, pw_block_most(&server->limits));
        if (thread->block.at != NULL)
            return thread;
    }
    pw_free(thread);
    errno = ENOMEM;
    return NULL;
}

void pw_thread_free(pw_thread *thread)
{
    if (thread == NULL)
        return;
    pw_free(thread->block.at);
    pw_free(thread);
}

const char *pw_thread_block(pw_thread *thread)
{
    return thread->block.at;
}

int64_t pw_thread_block_size(pw_thread *thread)
{
    return (int64_t)pw_block_most(&thread->server->limits);
}

pw_request *pw_thread_request(pw_thread *thread)
{
    return &thread->request;
}

/* ------------------------------------------------------------------ a request, told to Python */

static void pw_peer_name(const pw_conn *conn, pw_peer *peer)
{
    peer->address[0] = '\0';
    peer->port[0] = '\0';
    uint16_t port = 0;
    if (conn->peer.any.sa_family == AF_INET) {
        uint32_t address = ntohl(conn->peer.v4.sin_addr.s_addr);
        char *to = peer->address;
        for (int shift = 24; shift >= 0; shift -= 8) {
            to += pw_digits(to, (address >> shift) & 255);
            *to++ = shift > 0 ? '.' : '\0';
        }
        port = ntohs(conn->peer.v4.sin_port);
    } else if (conn->peer.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &conn->peer.v6.sin6_addr, peer->address, sizeof peer->address);
        port = ntohs(conn->peer.v6.sin6_port);
    } else {
        return;
    }
    peer->port[pw_digits(peer->port, port)] = '\0';
}

/* Decides whether this head is worth remembering for its connection. */
static void pw_remember(pw_server *server, pw_conn *conn, const char *data)
{
    if (conn->facts.chunked || server->head.authority.at != NULL || data[0] == '\r')
        return;
    if (conn->entry < 0) {
        if (conn->served == 0)
            return; /* many connections bring one request only */
        void *evicted;
        conn->entry = (int16_t)pw_cache_take(&server->cache, conn, server->timers.now, &evicted);
        if (evicted != NULL)
            ((pw_conn *)evicted)->entry = -1;
        if (conn->entry < 0)
            return;
    } else if (++server->cache.entries[conn->entry].misses % 8 != 0) {
        return; /* a client whose heads are always new */
    }
    if (pw_cache_store(&server->cache, conn->entry, data, &conn->facts))
        conn->kind = PW_STORE;
    else
        pw_conn_forget(server, conn);
}

static void pw_thread_describe(pw_thread *thread, pw_conn *conn)
{
    pw_server *server = thread->server;
    const char *data = conn->in->data + conn->in->start;
    int64_t length = conn->facts.content_length;
    if (conn->content != NULL)
        length = conn->content->size;
    thread->block.size = 0;
    thread->block.values = 0;
    thread->block.other_names = false;
    if (conn->kind == PW_SAME)
        return;
    if (server->parsed != conn) {
        /* Other heads were parsed while the content came: once more, it went well before. */
        size_t scanned = 0;
        pw_error error;
        pw_head_parse(&server->limits, data, conn->facts.size, &scanned, &server->head, &error);
        conn->kind = PW_NEW;
    }
    server->parsed = NULL;
    if (conn->kind == PW_SAME_FIELDS) {
        pw_block_make_line(&thread->block, &server->head);
        return;
    }
    pw_remember(server, conn, data);
    pw_peer peer;
    pw_peer_name(conn, &peer);
    pw_block_make(&thread->block, &server->head, &peer, length);
}

/* Hands a complete request over: from here on the connection is the thread's. */
static int64_t pw_thread_take(pw_thread *thread, pw_conn *conn)
{
    pw_server *server = thread->server;
    pw_thread_describe(thread, conn);
    conn->in->start += conn->used;
    conn->used = 0;
    conn->scanned = 0;
    if (conn->in->start == conn->in->end) {
        pw_buffer_put(&server->pool, conn->in);
        conn->in = NULL;
    }
    conn->state = PW_CONN_APP;
    conn->served++;
    conn->started = false;
    conn->chunked = false;
    conn->no_content = false;
    conn->waits = false;
    thread->conn = conn;

    pw_request *request = &thread->request;
    request->connection = conn->id;
    request->listener = conn->listener;
    request->content_file = -1;
    request->content = NULL;
    request->content_length = 0;
    int64_t number = conn->kind;
    if (conn->content != NULL) {
        request->content_length = conn->content->size;
        request->content = conn->content->memory;
        request->content_file = conn->content->file;
        conn->content->file = -1; /* Python's now */
        number |= PW_CONTENT;
    }
    if (thread->block.other_names)
        number |= PW_OTHER_NAMES;
    if (server->news_count > 0)
        number |= PW_NEWS;
    if (conn->kind != PW_NEW)
        number |= (int64_t)conn->entry << PW_ENTRY_SHIFT;
    number |= (int64_t)thread->block.values << PW_VALUES_SHIFT;
    number |= (int64_t)thread->block.size << PW_SIZE_SHIFT;
    return number;
}

/* ------------------------------------------------------------------ the loop */

static void pw_server_begin_drain(pw_server *server)
{
    char unused[64];
    while (read(server->wake[0], unused, sizeof unused) > 0)
        continue;
    if (server->draining)
        return;
    server->draining = true;
    server->drain_until = server->timers.now + server->timeout_graceful;
    if (!server->paused)
        for (int i = 0; i < server->listener_count; i++)
            pw_poll_remove(&server->poll, server->listeners[i].fd);
    for (pw_conn *conn = server->all, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == PW_CONN_IDLE || conn->state == PW_CONN_LINGER)
            pw_conn_close(server, conn);
    }
}

static void pw_server_event(pw_server *server, const pw_event *event)
{
    if (event->tag == server->wake) {
        pw_server_begin_drain(server);
        return;
    }
    for (int i = 0; i < server->listener_count; i++)
        if (event->tag == &server->listeners[i]) {
            if (!server->draining)
                pw_accept(server, &server->listeners[i]);
            return;
        }
    pw_conn_event(server, event->tag, event->what);
}

static int pw_server_patience(const pw_server *server)
{
    int64_t wait = pw_timers_wait(&server->timers);
    const int64_t others[] = {server->draining ? server->drain_until : 0, server->resume_at};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (others[i] == 0)
            continue;
        int64_t left = others[i] > server->timers.now ? others[i] - server->timers.now : 0;
        if (wait < 0 || left < wait)
            wait = left;
    }
    return wait > 60000 ? 60000 : (int)wait;
}

/* Waits for events when there is nothing else to do. */
static void pw_server_wait(pw_server *server)
{
    pw_reap(server);
    server->event_next = 0;
    server->event_count =
        pw_poll_wait(&server->poll, server->events, pw_server_patience(server));
    pw_timers_tick(&server->timers);
    pw_clock_tick(&server->clock);
    for (pw_timer *timer; (timer = pw_timers_due(&server->timers)) != NULL;)
        pw_conn_timeout(server, (pw_conn *)(void *)((char *)timer - offsetof(pw_conn, timer)));
    if (server->resume_at != 0 && server->resume_at <= server->timers.now)
        pw_accept_resume(server);
}

static bool pw_server_is_over(pw_server *server)
{
    if (!server->draining)
        return false;
    return server->conn_count == 0 || server->timers.now >= server->drain_until ||
           atomic_load(&server->stopping) > 1;
}

int64_t pw_next(pw_thread *thread)
{
    pw_server *server = thread->server;
    for (;;) {
        pw_conn *conn = pw_run_pop(server);
        if (conn != NULL) {
            if (!pw_conn_bury(server, conn) &&
                pw_conn_drive(server, conn) == PW_DRIVE_REQUEST)
                return pw_thread_take(thread, conn);
        } else if (server->event_next < server->event_count) {
            pw_server_event(server, &server->events[server->event_next++]);
        } else if (pw_server_is_over(server)) {
            return PW_STOP;
        } else {
            pw_server_wait(server);
        }
    }
}

int64_t pw_news(pw_thread *thread)
{
    pw_server *server = thread->server;
    return server->news_count > 0 ? server->news[--server->news_count] : -1;
}

/* ------------------------------------------------------------------ a response, from Python */

/* What the status line and the request decide about the framing (RFC 9112 section 6.3). */
static void pw_response_begin(pw_server *server, pw_conn *conn, const char *head, size_t size,
                              bool framed, int32_t flags)
{
    static const size_t at = sizeof "HTTP/1.1 " - 1;
    int status = 0;
    if (size > at + 3)
        status = (head[at] - '0') * 100 + (head[at + 1] - '0') * 10 + (head[at + 2] - '0');
    bool bare = status / 100 == 1 || status == 204 || status == 304;
    conn->started = true;
    conn->no_content = conn->facts.is_head || bare;
    conn->close = !conn->facts.keep_alive || (flags & PW_CLOSE) != 0 || server->draining;
    conn->unframed = false;
    if (!framed && !conn->no_content) {
        conn->chunked = conn->facts.minor != 0;
        conn->unframed = !conn->chunked;
    }
    conn->close |= conn->unframed || status / 100 == 1;
}

/* A response that is to wait for those of the requests received with it. */
static bool pw_response_waits(const pw_conn *conn, size_t size)
{
    return conn->in != NULL && !conn->close && conn->served % PW_BURST != 0 &&
           size <= PW_COPY_MOST && conn->output.borrowed == 0 &&
           conn->output.size + (int64_t)size <= PW_WAITING_MOST;
}

int64_t pw_respond(pw_thread *thread, const char *head, int64_t head_size, const char *body,
                   int64_t body_size, int32_t flags)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->conn;
    thread->conn = NULL;
    pw_response_begin(server, conn, head, (size_t)head_size, true, flags);
    int64_t length = body_size;
    if (conn->no_content && (body_size == 0 || !conn->facts.is_head))
        length = -1;
    char tail[PW_TAIL_MOST];
    struct iovec parts[3] = {
        {(void *)(uintptr_t)head, (size_t)head_size},
        {tail, pw_answer_tail(&server->clock, tail, conn, flags, length)},
        {(void *)(uintptr_t)body, conn->no_content ? 0 : (size_t)body_size},
    };
    size_t size = parts[0].iov_len + parts[1].iov_len + parts[2].iov_len;
    conn->waits = pw_response_waits(conn, size);
    if (conn->waits) {
        for (int i = 0; i < 3; i++)
            if (!pw_output_copy(&conn->output, parts[i].iov_base, parts[i].iov_len))
                conn->failed = true;
    } else if (pw_output_write(&conn->output, conn->fd, parts, parts[2].iov_len > 0 ? 3 : 2) ==
               PW_IO_ERROR) {
        conn->failed = true;
    }
    if (conn->output.borrowed > 0 && !conn->failed) {
        conn->held = true;
        pw_conn_finished(server, conn);
        return PW_HOLD;
    }
    pw_conn_finished(server, conn);
    return pw_next(thread);
}

static int32_t pw_response_state(pw_conn *conn, pw_io outcome)
{
    if (outcome == PW_IO_ERROR) {
        conn->failed = true;
        pw_output_free(&conn->output);
    }
    return conn->failed ? PW_GONE : conn->output.borrowed;
}

int32_t pw_send_head(pw_thread *thread, const char *head, int64_t head_size, int64_t length,
                     int32_t flags)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->conn;
    char tail[PW_TAIL_MOST];
    if (length >= 0)
        flags |= PW_HAS_LENGTH;
    pw_response_begin(server, conn, head, (size_t)head_size, length >= 0, flags);
    size_t tail_size = pw_answer_tail(&server->clock, tail, conn, flags, -1);
    if (!pw_output_copy(&conn->output, head, (size_t)head_size) ||
        !pw_output_copy(&conn->output, tail, tail_size))
        return pw_response_state(conn, PW_IO_ERROR);
    return pw_response_state(conn, PW_IO_OK);
}

/* Holds the thread, as the application's own doing, until the client has taken enough. */
static pw_io pw_response_wait(pw_server *server, pw_conn *conn)
{
    const int step = 100; /* ms: how soon a stop is seen */
    int64_t waited = 0;
    while (conn->output.size > server->response_buffer) {
        struct pollfd poll_fd = {.fd = conn->fd, .events = POLLOUT, .revents = 0};
        int ready = poll(&poll_fd, 1, step);
        if (ready < 0 && errno != EINTR)
            return PW_IO_ERROR;
        bool progress = false;
        if (ready > 0 && pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
            return PW_IO_ERROR;
        waited = progress ? 0 : waited + step;
        if (waited >= server->timers.length[PW_TIMER_WRITE] ||
            atomic_load(&server->stopping) > 1)
            return PW_IO_ERROR;
    }
    return PW_IO_OK;
}

int32_t pw_send_data(pw_thread *thread, const char *data, int64_t size, int32_t flags)
{
    pw_conn *conn = thread->conn;
    if (conn->failed)
        return PW_GONE;
    if (conn->no_content || size <= 0)
        return conn->output.borrowed;
    char line[20];
    struct iovec parts[3];
    int count = 0;
    if (conn->chunked) { /* chunk-size CRLF */
        static const char digits[] = "0123456789abcdef";
        size_t at = sizeof line;
        line[--at] = '\n';
        line[--at] = '\r';
        for (uint64_t left = (uint64_t)size; left > 0; left >>= 4)
            line[--at] = digits[left & 15];
        parts[count++] = (struct iovec){line + at, sizeof line - at};
    }
    parts[count++] = (struct iovec){(void *)(uintptr_t)data, (size_t)size};
    if (conn->chunked)
        parts[count++] = (struct iovec){(void *)(uintptr_t)"\r\n", 2};
    pw_io outcome = pw_output_write(&conn->output, conn->fd, parts, count);
    if (outcome != PW_IO_ERROR && (flags & PW_FINISHED) == 0)
        outcome = pw_response_wait(thread->server, conn);
    return pw_response_state(conn, outcome);
}

int32_t pw_send_file(pw_thread *thread, int32_t descriptor, int64_t offset, int64_t size)
{
    pw_conn *conn = thread->conn;
    if (conn->failed)
        return PW_GONE;
    if (conn->no_content || size <= 0)
        return conn->output.borrowed;
    bool kept = pw_output_file(&conn->output, descriptor, (off_t)offset, (size_t)size);
    return pw_response_state(conn, kept ? PW_IO_OK : PW_IO_ERROR);
}

int32_t pw_send_end(pw_thread *thread, int32_t cut)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->conn;
    thread->conn = NULL;
    if (cut) {
        /* No last chunk, or too few bytes: the client sees a message cut off. Where the end of the
         * connection is all that ends the content, only a reset can tell it. */
        static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
        if (conn->unframed)
            setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        conn->close = true;
    } else if (conn->chunked && !conn->failed) {
        if (!pw_output_copy(&conn->output, "0\r\n\r\n", 5))
            conn->failed = true;
    }
    bool progress = false;
    if (!conn->failed && conn->output.first != NULL &&
        pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
        conn->failed = true;
    int32_t borrowed = conn->failed ? 0 : conn->output.borrowed;
    conn->held = borrowed > 0;
    pw_conn_finished(server, conn);
    return borrowed;
}

int32_t pw_send_interim(pw_thread *thread, const char *head, int64_t head_size)
{
    pw_conn *conn = thread->conn;
    if (conn->failed)
        return PW_GONE;
    if (conn->started || conn->facts.minor == 0)
        return 0;
    struct iovec part = {(void *)(uintptr_t)head, (size_t)head_size};
    return pw_response_state(conn, pw_output_write(&conn->output, conn->fd, &part, 1));
}

int32_t pw_client_gone(pw_thread *thread)
{
    pw_conn *conn = thread->conn;
    if (conn == NULL || conn->failed)
        return 1;
    struct pollfd poll_fd = {.fd = conn->fd, .events = POLLRDHUP, .revents = 0};
    return poll(&poll_fd, 1, 0) > 0;
}

/* ------------------------------------------------------------------ what was built */

#define PW_TEXT(x) #x
#define PW_TEXT_OF(x) PW_TEXT(x)
#if defined(__clang__)
#define PW_COMPILER                                                                                \
    "clang " PW_TEXT_OF(__clang_major__) "." PW_TEXT_OF(__clang_minor__)
#elif defined(__GNUC__)
#define PW_COMPILER "gcc " PW_TEXT_OF(__GNUC__) "." PW_TEXT_OF(__GNUC_MINOR__)
#else
#define PW_COMPILER "an unknown compiler"
#endif

const char *pw_build(void)
{
    return PW_COMPILER "; epoll; picohttpparser";
}
