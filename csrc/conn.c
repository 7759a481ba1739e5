/*
 * The states of a connection. pw_conn_drive takes it from state to state until it has a complete
 * request, waits for its client, or is closed.
 */
#include <string.h>

#include "buffer.h"
#include "conn.h"
#include "conn_close.h"
#include "conn_keep.h"
#include "conn_proxy.h"
#include "conn_transfer.h"
#include "conn_wait.h"
#include "content.h"
#include "forwarded.h"
#include "head.h"
#include "health.h"
#include "incident.h"
#include "lines.h"
#include "output.h"
#include "queue.h"
#include "recv.h"
#include "request_line.h"
#include "state.h"
#include "system.h"
#include "timer.h"

static pw_step conn_refused(pw_server *server, pw_conn *conn, pw_error error)
{
    pw_conn_refuse(server, conn, error);
    return conn->state == PW_CONN_CLOSED ? PW_STEP_WAIT : PW_STEP_ON;
}

/* ------------------------------------------------------------------ the states */

/* Receives more bytes of the head. If there are none, waits with this kind of timer. */
static pw_step conn_more(pw_server *server, pw_conn *conn, pw_timer_kind kind)
{
    if ((conn->what & PW_READABLE) == 0)
        return pw_conn_wait(server, conn, kind, false);
    switch (pw_recv(server, conn)) {
    case PW_IO_OK:
        server->idle_count -= conn->state == PW_CONN_IDLE;
        conn->state = PW_CONN_HEAD;
        return PW_STEP_ON;
    case PW_IO_RETRY:
        return PW_STEP_ON; /* not readable any more: the next round waits */
    case PW_IO_ERROR:
        return pw_conn_fail(server, conn);
    case PW_IO_END:
        break;
    }
    pw_conn_close(server, conn);
    return PW_STEP_WAIT;
}

static pw_step step_idle(pw_server *server, pw_conn *conn)
{
    if ((conn->what & PW_READABLE) == 0)
        pw_conn_release_buffer(server, conn);
    if (server->draining && pw_transfer_send(server, conn)) {
        pw_conn_leave(server, conn);
        return PW_STEP_WAIT;
    }
    return conn_more(server, conn, server->draining ? PW_TIMER_DRAIN : PW_TIMER_KEEP_ALIVE);
}

/* Whether the head equals the one that is kept for the connection, except perhaps for the request
 * line and the values of some fields. */
static bool conn_recognise(pw_server *server, pw_conn *conn)
{
    if (conn->entry < 0)
        return false;
    pw_entry *entry = &server->cache.entries[conn->entry];
    const char *data = conn->in->data + conn->in->start;
    size_t size = conn->in->end - conn->in->start;
    if (entry->head == NULL)
        return false;
    entry->used = server->timers.now;
    if (size >= entry->facts.size && memcmp(data, entry->head, entry->facts.size) == 0) {
        conn->kind = PW_SAME;
        conn->facts = entry->facts;
        entry->misses = 0;
        return true;
    }
    const char *line_end = memchr(data, '\n', size);
    if (line_end == NULL || data[0] == '\r')
        return false;
    size_t line_size = (size_t)(line_end + 1 - data);
    size_t fields_size = 0;
    if (entry->lines != NULL)
        fields_size = pw_lines_follow(entry->lines, entry->head + entry->facts.line_size,
                                      line_end + 1, size - line_size, &server->changes);
    if (fields_size == 0)
        return false;
    pw_head *head = &server->head;
    if (line_size + fields_size > server->limits.max_head_size)
        return false;
    server->parsed = NULL; /* the head of another connection is overwritten */
    head->facts = entry->facts;
    head->facts.forwarded = false; /* server->forwarded is of another head until pw_parse_again */
    if (pw_request_line(data, line_size, head) != PW_E_NONE)
        return false; /* pw_head_parse will find the error */
    if (head->facts.minor != entry->facts.minor || head->authority.at != NULL)
        return false; /* the fields would have another meaning */
    head->facts.size = (uint32_t)(line_size + fields_size);
    conn->kind = PW_CHANGED;
    conn->facts = head->facts;
    server->parsed = conn;
    entry->misses = 0;
    return true;
}

/* The head is complete. Takes the part of the content that is here. */
static pw_step conn_begin_content(pw_server *server, pw_conn *conn)
{
    conn->used = conn->facts.size;
    conn->slice_requests++;
    if (pw_conn_is_health(server, conn))
        return pw_conn_answer_health(server, conn);
    if (!conn->facts.chunked && conn->facts.content_length <= 0)
        return PW_STEP_REQUEST;
    conn->state = PW_CONN_CONTENT;
    conn->head_us = server->polled_us;
    conn->content = pw_content_new(conn->facts.chunked ? -1 : conn->facts.content_length);
    if (conn->content == NULL)
        return conn_refused(server, conn, PW_E_MEMORY);
    size_t used, unused = pw_conn_unused(conn);
    pw_error error = PW_E_NONE;
    if (unused > 0) {
        pw_parse outcome =
            pw_content_take(conn->content, &server->store,
                            conn->in->data + conn->in->start + conn->used, unused, &used, &error);
        conn->used += used;
        if (outcome == PW_PARSE_ERROR)
            return conn_refused(server, conn, error);
        if (outcome == PW_PARSE_DONE)
            return PW_STEP_REQUEST;
        conn->used = conn->facts.size; /* the content is copied, so its bytes are dropped here */
        conn->in->end = conn->in->start + conn->used;
        return PW_STEP_ON;
    }
    if (conn->facts.expect_continue) { /* no content is here: the client waits for this */
        static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
        bool progress = false;
        if (!pw_output_copy(&conn->output, interim, sizeof interim - 1) ||
            pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
            return pw_conn_fail(server, conn);
    }
    return PW_STEP_ON;
}

/* Lets the other connections continue first. Responses that wait for its next request leave now. */
static pw_step conn_yield(pw_server *server, pw_conn *conn)
{
    if (conn->output.first != NULL) {
        conn->state = PW_CONN_SENDING;
        return PW_STEP_ON;
    }
    pw_conn_keep_shortly(server, conn);
    pw_slice_end(server, conn);
    return PW_STEP_WAIT;
}

static pw_step step_head(pw_server *server, pw_conn *conn)
{
    pw_error error = PW_E_NONE;
    const char *data = conn->in->data + conn->in->start;
    if (pw_slice_is_over(server, conn))
        return conn_yield(server, conn);
    conn->facts.is_head = false;
    if (conn->progress.scanned == 0 && conn_recognise(server, conn))
        return conn_begin_content(server, conn);
    server->parsed = NULL;
    server->head = (pw_head){.fields = server->fields};
    switch (pw_head_parse(pw_limits_of(server, conn), data, conn->in->end - conn->in->start,
                          &conn->progress, &server->head, &error)) {
    case PW_PARSE_DONE:
        conn->kind = PW_NEW;
        conn->facts = server->head.facts;
        if (conn->facts.forwarded &&
            !pw_forwarded_read(&server->trust, &server->head, &server->forwarded)) {
            server->head.facts.forwarded = false; /* the access log names the peer */
            error = PW_E_FORWARDED;
            break;
        }
        server->parsed = conn;
        return conn_begin_content(server, conn);
    case PW_PARSE_MORE:
        if (conn->output.first != NULL) { /* responses that waited for this request */
            conn->state = PW_CONN_SENDING;
            return PW_STEP_ON;
        }
        return conn_more(server, conn, PW_TIMER_HEAD);
    case PW_PARSE_ERROR:
        conn->facts.is_head = server->head.facts.is_head;
        break;
    }
    return conn_refused(server, conn, error);
}

/* Keeps the bytes after the end of chunked content: they belong to the next request. */
static bool conn_keep_rest(pw_server *server, pw_conn *conn, const char *data, size_t size)
{
    if (size == 0)
        return true;
    if (!pw_buffer_room(&server->pool, &conn->in, size))
        return false;
    server->parsed = NULL; /* its spans may have moved */
    memcpy(conn->in->data + conn->in->end, data, size);
    conn->in->end += size;
    return true;
}

static pw_step step_content(pw_server *server, pw_conn *conn)
{
    bool progress = false;
    if (conn->output.first != NULL &&
        pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
        return pw_conn_fail(server, conn);
    progress = false;
    while (conn->what & PW_READABLE) {
        pw_content *content = conn->content;
        size_t room = PW_SCRATCH_SIZE, got, used;
        if (content->length >= 0 && content->length - content->size < (int64_t)room)
            room = (size_t)(content->length - content->size);
        char *space = pw_content_space(content, &server->store, room);
        pw_io io = pw_recv_into(conn, space != NULL ? space : server->scratch, room, &got);
        if (io == PW_IO_RETRY)
            break;
        if (io != PW_IO_OK) { /* RFC 9112 section 8: the request is incomplete */
            pw_conn_close(server, conn);
            return PW_STEP_WAIT;
        }
        progress = true;
        pw_error error = PW_E_NONE;
        pw_parse outcome;
        if (space != NULL) {
            used = got;
            content->size += (int64_t)got;
            outcome = content->size == content->length ? PW_PARSE_DONE : PW_PARSE_MORE;
        } else {
            outcome = pw_content_take(content, &server->store, server->scratch, got, &used, &error);
        }
        if (outcome == PW_PARSE_ERROR)
            return conn_refused(server, conn, error);
        if (outcome == PW_PARSE_DONE) {
            if (!conn_keep_rest(server, conn, server->scratch + used, got - used))
                return conn_refused(server, conn, PW_E_MEMORY);
            return PW_STEP_REQUEST;
        }
        if (pw_slice_is_over(server, conn)) {
            pw_slice_end(server, conn);
            break;
        }
    }
    return pw_conn_wait(server, conn, PW_TIMER_BODY, progress);
}

/* Continues after a response: with the next request, or with the end. */
static pw_step conn_next(pw_server *server, pw_conn *conn)
{
    pw_conn_sent(server, conn);
    conn->slice_bytes += conn->response.bytes;
    if (conn->end != PW_CONN_STAYS)
        return pw_conn_part(server, conn);
    if (conn->in != NULL && conn->in->end > conn->in->start) {
        conn->state = PW_CONN_HEAD;
    } else {
        conn->state = PW_CONN_IDLE;
        server->idle_count++;
    }
    return PW_STEP_ON;
}

static pw_step step_sending(pw_server *server, pw_conn *conn)
{
    bool progress = false;
    switch (pw_output_flush(&conn->output, conn->fd, &progress)) {
    case PW_IO_OK:
        if (conn->output.first == NULL)
            return conn_next(server, conn);
        pw_slice_end(server, conn);
        return pw_conn_wait(server, conn, PW_TIMER_WRITE, true);
    case PW_IO_RETRY:
        progress |= conn->timer.kind != PW_TIMER_WRITE;
        if (progress)
            conn->unsent = pw_unsent(conn->fd);
        return pw_conn_wait(server, conn, PW_TIMER_WRITE, progress);
    case PW_IO_END: /* only a receiving call returns it */
    case PW_IO_ERROR:
        break;
    }
    return pw_conn_fail(server, conn);
}

pw_drive pw_conn_drive(pw_server *server, pw_conn *conn)
{
    if (conn->state == PW_CONN_APP || conn->state == PW_CONN_CLOSED)
        return PW_DRIVE_WAIT;
    if (conn->slice != server->polls) {
        conn->slice = server->polls;
        conn->slice_since = server->timers.now;
        conn->slice_requests = 0;
        conn->slice_bytes = 0;
    }
    if (conn->what & PW_GONE_AWAY) {
        if (conn->state != PW_CONN_LINGER || pw_conn_resets(conn)) {
            pw_conn_close(server, conn);
            return PW_DRIVE_WAIT;
        }
        conn->what |= PW_READABLE; /* the client may have closed its side and sent bytes before */
    }
    pw_step step = PW_STEP_ON;
    while (step == PW_STEP_ON) {
        switch (conn->state) {
        case PW_CONN_IDLE:
            step = step_idle(server, conn);
            break;
        case PW_CONN_HEAD:
            step = step_head(server, conn);
            break;
        case PW_CONN_CONTENT:
            step = step_content(server, conn);
            break;
        case PW_CONN_SENDING:
            step = step_sending(server, conn);
            break;
        case PW_CONN_LINGER:
            step = pw_conn_linger(server, conn);
            break;
        case PW_CONN_PROXY:
            step = pw_conn_read_proxy(server, conn);
            break;
        case PW_CONN_READY:
        case PW_CONN_APP:
        case PW_CONN_CLOSED:
            return PW_DRIVE_WAIT;
        }
    }
    return step == PW_STEP_REQUEST ? PW_DRIVE_REQUEST : PW_DRIVE_WAIT;
}

void pw_conn_event(pw_server *server, pw_conn *conn, int what)
{
    conn->what |= what & ~PW_WRITABLE; /* the loop tries to write first and needs no flag */
    if (conn->state == PW_CONN_APP || conn->state == PW_CONN_READY)
        return; /* the thread looks at it when it has finished */
    bool reads = (what & (PW_READABLE | PW_GONE_AWAY)) != 0;
    if (reads || conn->output.first != NULL)
        pw_run(server, conn, false);
}

void pw_conn_finished(pw_server *server, pw_conn *conn)
{
    pw_timers_tick(&server->timers); /* the time of the application must not count for the client */
    pw_content_free(conn->content, &server->store);
    conn->content = NULL;
    if (conn->entry >= 0)
        server->cache.entries[conn->entry].busy = false;
    bool gone = (conn->what & PW_GONE_AWAY) != 0 ||
                (conn->end == PW_CONN_FAILED && pw_peer_is_gone(conn->fd));
    if (gone || server->stopped) {
        if (!gone && conn->output.first != NULL)
            pw_incident_conn(server, conn, PW_INCIDENT_STOP, 0);
        pw_conn_close(server, conn);
        return;
    }
    if (conn->end == PW_CONN_FAILED) {
        if (pw_conn_break_off(server, conn) == PW_STEP_ON)
            pw_run(server, conn, false);
        return;
    }
    if (conn->output.first == NULL && conn->in == NULL && conn->end == PW_CONN_STAYS &&
        (conn->what & PW_READABLE) == 0 && !server->draining) {
        conn->state = PW_CONN_IDLE; /* the usual case, without the run queue */
        server->idle_count++;
        pw_conn_wait(server, conn, PW_TIMER_KEEP_ALIVE, true);
        return;
    }
    pw_timer_stop(&conn->timer);
    conn->state = conn->response.state == PW_RESPONSE_WAITS ? PW_CONN_HEAD : PW_CONN_SENDING;
    pw_run(server, conn, true);
}
