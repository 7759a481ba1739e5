/* Handing a complete request to Python: see pw_next in api.h. */
#include <string.h>

#include "access.h"
#include "access_format.h"
#include "alloc.h"
#include "buffer.h"
#include "cache.h"
#include "client.h"
#include "clock.h"
#include "conn_close.h"
#include "environ.h"
#include "forwarded.h"
#include "gauges.h"
#include "incident.h"
#include "lines.h"
#include "request.h"
#include "request_id.h"

/* Stores the head in the connection's cache entry, if it is likely to come again. An upgrade is the
 * last request of most connections, and its environ has more keys than its block. */
static void remember_head(pw_server *server, pw_conn *conn, const char *data)
{
    if (conn->facts.chunked || conn->facts.upgrade || server->head.authority.at != NULL ||
        data[0] == '\r')
        return;
    if (conn->entry < 0) {
        if (conn->served == 0)
            return; /* many connections send one request only */
        void *evicted;
        conn->entry = (int16_t)pw_cache_take(&server->cache, conn, server->timers.now, &evicted);
        if (evicted != NULL)
            ((pw_conn *)evicted)->entry = -1; /* thread_describe handles the lost entry */
        if (conn->entry < 0)
            return;
    } else if (++server->cache.entries[conn->entry].misses % 8 != 0) {
        return; /* the heads of this client always differ */
    }
    if (!pw_cache_store(&server->cache, conn->entry, data, &conn->facts)) {
        pw_conn_forget(server, conn);
        return;
    }
    conn->kind = PW_STORE;
    pw_entry *entry = &server->cache.entries[conn->entry];
    const pw_forwarded *forwarded = pw_forwarded_of(server);
    if (forwarded != NULL && (forwarded->set & PW_SET_CLIENT) != 0)
        pw_cache_store_client(&server->cache, conn->entry, &forwarded->client);
    entry->template = pw_template_new(&server->head, forwarded, data);
    /* pw_block_make_line does not know X-Forwarded-Prefix. */
    if (forwarded == NULL || (forwarded->set & PW_SET_PREFIX) == 0)
        entry->lines = pw_lines_new(&server->head, data);
}

/* Fills the block with the differences from the connection's kept head. False: it cannot. */
static bool compare_head(pw_thread *thread, pw_conn *conn, int64_t length)
{
    if (conn->entry < 0)
        return false;
    pw_entry *entry = &thread->server->cache.entries[conn->entry];
    const pw_server *server = thread->server;
    if (entry->template == NULL ||
        !pw_block_make_changes(&thread->block, &server->head, pw_forwarded_of(server), length,
                               entry->template, entry->head))
        return false;
    conn->kind = PW_CHANGED;
    return true;
}

/* Finds the differences from the connection's kept head again. False: it cannot. */
static bool follow_again(pw_server *server, const pw_conn *conn)
{
    const pw_entry *entry = &server->cache.entries[conn->entry];
    size_t line = conn->facts.line_size;
    return entry->lines != NULL &&
           pw_lines_follow(entry->lines, entry->head + entry->facts.line_size,
                           conn->in->data + conn->in->start + line, conn->facts.size - line,
                           &server->changes) != 0;
}

/* Fills the block with the differences found by pw_lines_follow. */
static void describe_changes(pw_thread *thread, const pw_conn *conn)
{
    const pw_head *head = &thread->server->head;
    const pw_entry *entry = &thread->server->cache.entries[conn->entry];
    bool same_method = head->method.size < entry->facts.line_size &&
                       memcmp(entry->head, head->method.at, head->method.size) == 0 &&
                       entry->head[head->method.size] == ' ';
    pw_block_make_line(&thread->block, head, same_method, &thread->server->changes);
}

/* Runs the access log's format for the request. Its head was parsed last. */
static void thread_log_request(pw_thread *thread, pw_conn *conn, const pw_peer *peer)
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

static bool thread_log_again(pw_thread *thread, const pw_entry *entry)
{
    if (entry->log == NULL || thread->log.room < entry->log_size)
        return false;
    memcpy(thread->log.at, entry->log, entry->log_size);
    thread->log.size = entry->log_size;
    return true;
}

/* Keeps the client of a forwarded request for incidents. */
static void thread_keep_client(pw_thread *thread, pw_conn *conn, const pw_forwarded *forwarded)
{
    conn->facts.forwarded = true; /* a comparison by lines did not set it */
    thread->has_client = (forwarded->set & PW_SET_CLIENT) != 0;
    if (thread->has_client)
        thread->client = forwarded->client;
}

static void thread_describe(pw_thread *thread, pw_conn *conn)
{
    pw_server *server = thread->server;
    bool logs = server->access.fd >= 0;
    int64_t length = conn->facts.content_length;
    if (conn->content != NULL)
        length = conn->content->size;
    thread->block.size = 0;
    thread->block.values = 0;
    thread->block.flags = 0;
    if (conn->kind == PW_SAME && conn->entry >= 0 &&
        (!logs || thread_log_again(thread, &server->cache.entries[conn->entry])))
        return;
    if (conn->kind != PW_NEW && conn->entry < 0)
        conn->kind = PW_NEW;
    if (conn->kind == PW_CHANGED && server->parsed != conn && !follow_again(server, conn))
        conn->kind = PW_NEW;
    bool whole = conn->kind == PW_NEW; /* the whole head was parsed, not only the request line */
    if (server->parsed != conn || (!whole && logs)) {
        pw_parse_again(server, conn); /* the first parse was successful */
        whole = true;
    }
    server->parsed = NULL;
    const pw_forwarded *forwarded = pw_forwarded_of(server);
    if (forwarded != NULL)
        thread_keep_client(thread, conn, forwarded);
    pw_peer peer;
    if (whole)
        pw_peer_name(conn, &peer);
    if (conn->kind == PW_CHANGED) {
        describe_changes(thread, conn);
    } else if (conn->kind == PW_NEW) {
        if (!compare_head(thread, conn, length)) {
            remember_head(server, conn, conn->in->data + conn->in->start);
            pw_block_make(&thread->block, &server->head, &peer, conn->proxied, forwarded, length);
        }
        thread->block.flags |= conn->facts.upgrade;
    }
    if (logs)
        thread_log_request(thread, conn,
                           pw_client_of(forwarded, pw_sender_of(conn->proxied, &peer)));
}

static void name_request(pw_thread *thread, const pw_conn *conn)
{
    pw_server *server = thread->server;
    if (conn->trusted) { /* the id of another peer is not used */
        if (server->parsed != conn)
            server->parsed = NULL;
        pw_parse_again(server, conn); /* the fields of a recognised head may not be parsed */
    }
    pw_request_id(server, conn, &server->head, thread->request.id);
}

/* Counts the fields that the application does not get, and reports the first one. */
static void count_dropped(pw_server *server, const pw_conn *conn)
{
    if (server->dropped == 0) {
        if (server->parsed != conn)
            server->parsed = NULL;
        pw_parse_again(server, conn);
        pw_incident_dropped(server, conn, server->head.dropped);
    }
    server->dropped += conn->facts.dropped;
}

/* Notes when the request has come, and when the application is called. */
static void time_request(pw_thread *thread, pw_conn *conn)
{
    pw_server *server = thread->server;
    int64_t complete = conn->state == PW_CONN_READY ? conn->ready_us : server->polled_us;
    thread->taken_us = pw_microseconds();
    thread->queued_us = thread->taken_us - complete;
    thread->arrived_us = conn->content != NULL ? conn->head_us : complete;
    if (server->meter != NULL) {
        pw_histogram_add(&server->meter->queue, thread->queued_us);
        pw_bytes(server, conn);
    }
}

int64_t pw_thread_take(pw_thread *thread, pw_conn *conn)
{
    pw_server *server = thread->server;
    if (conn->facts.dropped > 0)
        count_dropped(server, conn);
    if (server->request_ids)
        name_request(thread, conn);
    thread_describe(thread, conn);
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
    if (server->is_timed)
        time_request(thread, conn);
    conn->state = PW_CONN_APP;
    conn->served++;
    /* Only the holder of the lock writes, so the addition need not be atomic. */
    atomic_store_explicit(&server->requests, pw_server_requests(server) + 1, memory_order_relaxed);
    conn->response = (pw_response){.promised = -1};
    thread->conn = conn;

    pw_request *request = &thread->request;
    request->exchange = pw_server_requests(server);
    request->lends = 0;
    request->listener = conn->listener;
    request->content_file = -1;
    request->content = NULL;
    request->content_length = 0;
    request->block_size = (int64_t)thread->block.size;
    int64_t number = conn->kind | thread->block.flags;
    if (conn->content != NULL) {
        request->content_length = conn->content->size;
        request->content = conn->content->memory;
        request->content_file = conn->content->file;
        conn->content->file = -1; /* Python owns the file now */
        number |= PW_CONTENT;
        if (request->content_file >= 0)
            number |= PW_IN_FILE;
    }
    if (server->news_count > 0)
        number |= PW_NEWS;
    if (conn->kind != PW_NEW)
        number |= (int64_t)conn->entry << PW_ENTRY_SHIFT;
    return number;
}
