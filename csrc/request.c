/* A complete request on its way to Python: see pw_next in api.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "server.h"

pw_thread *pw_thread_new(pw_server *server, int32_t number)
{
    pw_thread *thread = pw_alloc(sizeof *thread);
    if (thread != NULL) {
        thread->server = server;
        thread->patience = -1;
        pthread_cond_init(&thread->wake, NULL);
        pthread_cond_init(&thread->turn, NULL);
        thread->block.at = pw_realloc(NULL, pw_block_most(&server->limits));
        thread->number = number;
        if (thread->block.at != NULL) {
            pthread_mutex_lock(&server->lock);
            thread->next = server->threads;
            if (thread->next != NULL)
                thread->next->previous = thread;
            server->threads = thread;
            server->references++;
            pthread_mutex_unlock(&server->lock);
            return thread;
        }
        pthread_cond_destroy(&thread->turn);
        pthread_cond_destroy(&thread->wake);
    }
    pw_free(thread);
    errno = ENOMEM;
    return NULL;
}

void pw_thread_free(pw_thread *thread)
{
    if (thread == NULL)
        return;
    pw_server *server = thread->server;
    if (server->forked)
        return; /* the parent frees the memory */
    pthread_mutex_lock(&server->lock);
    pw_exchange_abandon(thread);
    pw_token_drop(thread);
    if (thread->next != NULL)
        thread->next->previous = thread->previous;
    if (thread->previous != NULL)
        thread->previous->next = thread->next;
    else
        server->threads = thread->next;
    pthread_mutex_unlock(&server->lock);
    pw_free(thread->log.at);
    pthread_cond_destroy(&thread->turn);
    pthread_cond_destroy(&thread->wake);
    pw_free(thread->block.at);
    pw_free(thread);
    pw_server_release(server);
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

void pw_peer_name(const pw_conn *conn, pw_peer *peer)
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
            ((pw_conn *)evicted)->entry = -1; /* seen in pw_thread_describe */
        if (conn->entry < 0)
            return;
    } else if (++server->cache.entries[conn->entry].misses % 8 != 0) {
        return; /* a client whose heads are always new */
    }
    if (!pw_cache_store(&server->cache, conn->entry, data, &conn->facts)) {
        pw_conn_forget(server, conn);
        return;
    }
    conn->kind = PW_STORE;
    pw_entry *entry = &server->cache.entries[conn->entry];
    entry->kept = pw_kept_new(&server->head, data);
    entry->lines = pw_lines_new(&server->head, data);
}

/* Whether the block now tells what is not as in the head kept for the connection. */
static bool pw_compare(pw_thread *thread, pw_conn *conn, int64_t length)
{
    if (conn->entry < 0)
        return false;
    pw_entry *entry = &thread->server->cache.entries[conn->entry];
    if (entry->kept == NULL || !pw_block_make_changes(&thread->block, &thread->server->head, length,
                                                      entry->kept, entry->head))
        return false;
    conn->kind = PW_CHANGED;
    return true;
}

static void pw_parse_again(pw_server *server, const pw_conn *conn)
{
    pw_head_progress progress = {0};
    pw_error error;
    pw_head_parse(&server->limits, conn->in->data + conn->in->start, conn->facts.size, &progress,
                  &server->head, &error);
}

/* Finds again what has changed since the head kept for the connection; false: nothing can be said. */
static bool pw_follow_again(pw_server *server, const pw_conn *conn)
{
    const pw_entry *entry = &server->cache.entries[conn->entry];
    size_t line = conn->facts.line_size;
    return entry->lines != NULL &&
           pw_lines_follow(entry->lines, entry->head + entry->facts.line_size,
                           conn->in->data + conn->in->start + line, conn->facts.size - line,
                           &server->changes) != 0;
}

/* The values that are not as in the head kept for the connection, which it follows. */
static void pw_describe_changes(pw_thread *thread, const pw_conn *conn)
{
    const pw_head *head = &thread->server->head;
    const pw_entry *entry = &thread->server->cache.entries[conn->entry];
    bool same_method = head->method.size < entry->facts.line_size &&
                       memcmp(entry->head, head->method.at, head->method.size) == 0 &&
                       entry->head[head->method.size] == ' ';
    pw_block_make_line(&thread->block, head, same_method, &thread->server->changes);
}

/* What the access log says of the request; the head that was parsed last is its own. */
static void pw_thread_log_request(pw_thread *thread, pw_conn *conn, const pw_peer *peer)
{
    pw_server *server = thread->server;
    pw_access_request(server, &thread->log, &server->head, peer);
    if (conn->kind != PW_STORE)
        return;
    pw_entry *entry = &server->cache.entries[conn->entry];
    entry->log = pw_alloc(thread->log.size);
    entry->log_size = thread->log.size;
    if (entry->log != NULL)
        memcpy(entry->log, thread->log.at, thread->log.size);
}

static bool pw_thread_log_again(pw_thread *thread, const pw_entry *entry)
{
    if (entry->log == NULL || thread->log.room < entry->log_size)
        return false;
    memcpy(thread->log.at, entry->log, entry->log_size);
    thread->log.size = entry->log_size;
    return true;
}

static void pw_thread_describe(pw_thread *thread, pw_conn *conn)
{
    pw_server *server = thread->server;
    bool logs = server->access.fd >= 0;
    int64_t length = conn->facts.content_length;
    if (conn->content != NULL)
        length = conn->content->size;
    thread->block.size = 0;
    thread->block.values = 0;
    thread->block.other_names = false;
    if (conn->kind == PW_SAME && conn->entry >= 0 &&
        (!logs || pw_thread_log_again(thread, &server->cache.entries[conn->entry])))
        return;
    if (conn->kind != PW_NEW && conn->entry < 0)
        conn->kind = PW_NEW; /* the entry was taken away while the content came, or a thread */
    if (conn->kind == PW_CHANGED && server->parsed != conn && !pw_follow_again(server, conn))
        conn->kind = PW_NEW;
    bool whole = conn->kind == PW_NEW; /* and not of the request line alone */
    if (server->parsed != conn || (!whole && logs)) {
        pw_parse_again(server, conn); /* of this head it went well before */
        whole = true;
    }
    server->parsed = NULL;
    pw_peer peer;
    if (whole)
        pw_peer_name(conn, &peer);
    if (conn->kind == PW_CHANGED) {
        pw_describe_changes(thread, conn);
    } else if (conn->kind == PW_NEW && !pw_compare(thread, conn, length)) {
        pw_remember(server, conn, conn->in->data + conn->in->start);
        pw_block_make(&thread->block, &server->head, &peer, length);
    }
    if (logs)
        pw_thread_log_request(thread, conn, &peer);
}

static void pw_log(pw_server *server, const pw_text *program, const pw_exchange *what)
{
    pw_access_line(server, program->at, program->size, what);
}

void pw_thread_log(pw_thread *thread, const pw_conn *conn)
{
    if (thread->server->access.fd < 0)
        return;
    pw_log(thread->server, &thread->log,
           &(pw_exchange){
               .status = conn->status,
               .bytes = conn->bytes,
               .duration = pw_microseconds() - thread->taken_us,
               .queued = thread->queued_us,
           });
}

/* What came of a request line that could not be read. */
static pw_span pw_first_line(const pw_conn *conn)
{
    if (conn->in == NULL)
        return (pw_span){NULL, 0};
    const char *from = conn->in->data + conn->in->start;
    size_t most = conn->in->end - conn->in->start;
    size_t size = 0;
    while (size < most && from[size] != '\r' && from[size] != '\n')
        size++;
    return (pw_span){from, size};
}

void pw_log_refusal(pw_server *server, pw_conn *conn, int status)
{
    if (server->access.fd < 0)
        return;
    if (conn->state == PW_CONN_CONTENT || conn->state == PW_CONN_READY)
        pw_parse_again(server, conn);
    else if (server->head.method.size == 0)
        server->head.target = pw_first_line(conn);
    server->parsed = NULL;
    pw_peer peer;
    pw_peer_name(conn, &peer);
    pw_text program = {NULL, 0, 0};
    pw_access_request(server, &program, &server->head, &peer);
    pw_log(server, &program, &(pw_exchange){.status = status, .bytes = 0});
    pw_free(program.at);
}

/* Hands a complete request over: from here on the connection is the thread's. */
int64_t pw_thread_take(pw_thread *thread, pw_conn *conn)
{
    pw_server *server = thread->server;
    pw_thread_describe(thread, conn);
    if (conn->entry >= 0)
        server->cache.entries[conn->entry].busy = true;
    pw_thread_keep_line(thread, conn);
    conn->in->start += conn->used;
    conn->used = 0;
    conn->progress = (pw_head_progress){0};
    if (conn->in->start == conn->in->end) {
        pw_buffer_put(&server->pool, conn->in);
        conn->in = NULL;
    }
    if (server->access.fd >= 0) {
        thread->taken_us = pw_microseconds();
        thread->queued_us =
            thread->taken_us - (conn->state == PW_CONN_READY ? conn->ready_us : server->polled_us);
    }
    conn->state = PW_CONN_APP;
    conn->bytes = 0;
    conn->served++;
    /* One writer: no need for a locked addition. */
    atomic_store_explicit(&server->requests, pw_server_requests(server) + 1, memory_order_relaxed);
    conn->started = false;
    conn->chunked = false;
    conn->no_content = false;
    conn->waits = false;
    thread->conn = conn;

    pw_request *request = &thread->request;
    request->exchange = pw_server_requests(server);
    request->lends = 0;
    request->listener = conn->listener;
    request->content_file = -1;
    request->content = NULL;
    request->content_length = 0;
    request->block_size = (int64_t)thread->block.size;
    int64_t number = conn->kind;
    if (conn->content != NULL) {
        request->content_length = conn->content->size;
        request->content = conn->content->memory;
        request->content_file = conn->content->file;
        conn->content->file = -1; /* Python's now */
        number |= PW_CONTENT;
        if (request->content_file >= 0)
            number |= PW_IN_FILE;
    }
    if (thread->block.other_names)
        number |= PW_OTHER_NAMES;
    if (server->news_count > 0)
        number |= PW_NEWS;
    if (conn->kind != PW_NEW)
        number |= (int64_t)conn->entry << PW_ENTRY_SHIFT;
    return number;
}
