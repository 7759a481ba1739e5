/*
 * One connection: pw_conn_drive takes it from state to state until it has a complete request, or
 * waits for its peer, or is closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define PW_LINGER_MOST ((int64_t)64 << 20) /* bytes thrown away before a client is cut off */
#define PW_LINGER_MOST_MS 30000
#define PW_READS_MOST 16 /* in one go, so that a fast sender does not hold the loop */

/* The outcome of a step; each state has one. */
typedef enum { PW_STEP_ON, PW_STEP_WAIT, PW_STEP_REQUEST } pw_step;

/* ------------------------------------------------------------------ small things */

static bool pw_is(pw_span span, const char *text)
{
    return span.size == strlen(text) && memcmp(span.at, text, span.size) == 0;
}

static size_t pw_conn_unused(const pw_conn *conn)
{
    return conn->in != NULL ? conn->in->end - conn->in->start - conn->used : 0;
}

static void pw_conn_release_buffer(pw_server *server, pw_conn *conn)
{
    if (conn->in != NULL)
        pw_buffer_put(&server->pool, conn->in);
    conn->in = NULL;
    conn->used = 0;
    conn->scanned = 0;
}

void pw_conn_forget(pw_server *server, pw_conn *conn)
{
    if (conn->entry < 0)
        return;
    pw_cache_release(&server->cache, conn->entry);
    pw_tell(server, conn->entry, PW_NEWS_ENTRY);
    conn->entry = -1;
}

/* Python may let go of what it keeps for the connection. */
static void pw_conn_sent(pw_server *server, pw_conn *conn)
{
    if (conn->holder != NULL)
        conn->holder->hold_sent = true; /* Python is not back yet: pw_next will tell */
    else if (conn->held)
        pw_tell(server, conn->id, PW_NEWS_SENT);
    conn->holder = NULL;
    conn->held = false;
    pw_free(conn->line);
    conn->line = NULL;
}

void pw_conn_close(pw_server *server, pw_conn *conn)
{
    if (conn->state == PW_CONN_CLOSED)
        return;
    /* close alone would leave it with the poller while a forked child has the descriptor, too. */
    if (conn->registered)
        pw_poll_remove(&server->poll, conn->fd);
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (conn->reset || conn->output.first != NULL)
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(conn->fd);
    conn->state = PW_CONN_CLOSED;
    pw_timer_stop(&conn->timer);
    pw_output_free(&conn->output);
    pw_conn_sent(server, conn);
    pw_content_free(conn->content);
    conn->content = NULL;
    pw_conn_release_buffer(server, conn);
    pw_conn_forget(server, conn);
    if (server->parsed == conn)
        server->parsed = NULL;
    if (conn->next != NULL)
        conn->next->previous = conn->previous;
    if (conn->previous != NULL)
        conn->previous->next = conn->next;
    else
        server->all = conn->next;
    pw_accept_count(server, -1);
    if (!conn->queued) { /* else pw_next finds it in the run queue, and buries it then */
        conn->run_next = server->dead;
        server->dead = conn;
    }
    if (server->paused)
        pw_accept_resume(server);
}

/* The end of a connection that cannot go on; errno says why. */
static pw_step pw_conn_fail(pw_server *server, pw_conn *conn)
{
    pw_notice_conn(server, conn, PW_NOTICE_ERROR, errno);
    pw_conn_close(server, conn);
    return PW_STEP_WAIT;
}

/* Nothing can be done now: the poller has to know the connection, and a timer runs. */
static pw_step pw_conn_wait(pw_server *server, pw_conn *conn, pw_timer_kind kind, bool restart)
{
    if (!conn->registered) {
        if (pw_poll_add(&server->poll, conn->fd, conn) != 0)
            return pw_conn_fail(server, conn);
        conn->registered = true;
    }
    if (restart || conn->timer.kind != kind)
        pw_timer_start(&server->timers, &conn->timer, kind);
    return PW_STEP_WAIT;
}

/* ------------------------------------------------------------------ the end of a connection */

static pw_step pw_conn_linger(pw_server *server, pw_conn *conn)
{
    pw_conn_release_buffer(server, conn);
    shutdown(conn->fd, SHUT_WR);
    conn->state = PW_CONN_LINGER;
    conn->linger_left = PW_LINGER_MOST;
    conn->linger_until = server->timers.now + PW_LINGER_MOST_MS;
    return PW_STEP_ON;
}

/* RFC 9112 section 9.6: closing with bytes unread would reset the connection, and the client might
 * never see the answer. */
static pw_step pw_step_linger(pw_server *server, pw_conn *conn)
{
    int reads = 0;
    for (; (conn->what & PW_READABLE) != 0 && reads < PW_READS_MOST; reads++) {
        size_t got;
        pw_io outcome = pw_recv_into(conn, server->scratch, PW_SCRATCH_SIZE, &got);
        if (outcome == PW_IO_RETRY && !server->draining)
            break;
        conn->linger_left -= (int64_t)got;
        if (outcome != PW_IO_OK || conn->linger_left < 0 ||
            server->timers.now > conn->linger_until) {
            pw_conn_close(server, conn);
            return PW_STEP_WAIT;
        }
    }
    if (conn->what & PW_READABLE)
        pw_run(server, conn, false);
    if (server->draining)
        return pw_conn_wait(server, conn, PW_TIMER_DRAIN, false);
    return pw_conn_wait(server, conn, PW_TIMER_LINGER, reads > 0);
}

void pw_conn_refuse(pw_server *server, pw_conn *conn, pw_error error)
{
    char answer[PW_REFUSAL_MOST];
    bool is_told = error == PW_E_STORAGE || error == PW_E_MEMORY;
    if (is_told)
        pw_notice_conn(server, conn, error == PW_E_STORAGE ? PW_NOTICE_STORAGE : PW_NOTICE_MEMORY,
                       errno);
    pw_log_refusal(server, conn, pw_error_status(error));
    size_t size = pw_answer_refusal(&server->clock, answer, error, conn->facts.is_head);
    conn->close = true;
    conn->what |= PW_READABLE; /* so that the end is a lingering one */
    conn->state = PW_CONN_SENDING;
    pw_content_free(conn->content);
    conn->content = NULL;
    if (pw_output_copy(&conn->output, answer, size))
        return;
    if (!is_told)
        pw_notice_conn(server, conn, PW_NOTICE_MEMORY, ENOMEM);
    pw_conn_close(server, conn);
}

static pw_step pw_conn_refused(pw_server *server, pw_conn *conn, pw_error error)
{
    pw_conn_refuse(server, conn, error);
    return conn->state == PW_CONN_CLOSED ? PW_STEP_WAIT : PW_STEP_ON;
}

/* ------------------------------------------------------------------ the states */

/* More bytes for the head; what to do where none come now is the caller's. */
static pw_step pw_conn_more(pw_server *server, pw_conn *conn, pw_timer_kind kind)
{
    if ((conn->what & PW_READABLE) == 0)
        return pw_conn_wait(server, conn, kind, false);
    switch (pw_recv(server, conn)) {
    case PW_IO_OK:
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

static pw_step pw_step_idle(pw_server *server, pw_conn *conn)
{
    if ((conn->what & PW_READABLE) == 0)
        pw_conn_release_buffer(server, conn);
    return pw_conn_more(server, conn, server->draining ? PW_TIMER_DRAIN : PW_TIMER_KEEP_ALIVE);
}

/* Whether the head is, in whole or but for its request line, the one kept for the connection. */
static bool pw_conn_recognise(pw_server *server, pw_conn *conn)
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
    size_t fields_size = entry->facts.size - entry->facts.line_size;
    if (size - line_size < fields_size ||
        memcmp(line_end + 1, entry->head + entry->facts.line_size, fields_size) != 0)
        return false;
    pw_head *head = &server->head;
    if (line_size + fields_size > server->limits.max_head_size)
        return false;
    server->parsed = NULL; /* the head of another connection is lost */
    head->facts = entry->facts;
    if (pw_request_line(data, line_size, head) != PW_E_NONE)
        return false; /* pw_head_parse will say why */
    if (head->facts.minor != entry->facts.minor || head->authority.at != NULL)
        return false; /* the fields would mean something else */
    head->facts.size = (uint32_t)(line_size + fields_size);
    conn->kind = PW_CHANGED;
    conn->facts = head->facts;
    server->parsed = conn;
    entry->misses = 0;
    return true;
}

/* A question for the core itself: it is answered though all threads be busy. */
static bool pw_conn_is_health(const pw_server *server, const pw_conn *conn)
{
    const pw_head *head = &server->head;
    return server->health[0] != '\0' && conn->kind != PW_SAME &&
           pw_is(head->path, server->health) &&
           (pw_is(head->method, "GET") || pw_is(head->method, "HEAD")) && !conn->facts.chunked &&
           conn->facts.content_length <= 0;
}

static pw_step pw_conn_answer_health(pw_server *server, pw_conn *conn)
{
    char answer[PW_REFUSAL_MOST];
    conn->close = !conn->facts.keep_alive || server->draining;
    conn->chunked = false; /* as the response before may have been */
    size_t size = pw_answer_health(&server->clock, answer, conn, server->draining);
    conn->in->start += conn->used;
    conn->used = 0;
    conn->scanned = 0;
    server->parsed = NULL;
    conn->state = PW_CONN_SENDING;
    if (pw_output_copy(&conn->output, answer, size))
        return PW_STEP_ON;
    return pw_conn_fail(server, conn);
}

/* The head is complete: what of its content is here, too? */
static pw_step pw_conn_begin_content(pw_server *server, pw_conn *conn)
{
    conn->used = conn->facts.size;
    if (pw_conn_is_health(server, conn))
        return pw_conn_answer_health(server, conn);
    if (!conn->facts.chunked && conn->facts.content_length <= 0)
        return PW_STEP_REQUEST;
    conn->state = PW_CONN_CONTENT;
    conn->content = pw_content_new(conn->facts.chunked ? -1 : conn->facts.content_length);
    if (conn->content == NULL)
        return pw_conn_refused(server, conn, PW_E_MEMORY);
    size_t used, unused = pw_conn_unused(conn);
    pw_error error = PW_E_NONE;
    if (unused > 0) {
        pw_parse outcome =
            pw_content_take(conn->content, &server->store,
                            conn->in->data + conn->in->start + conn->used, unused, &used, &error);
        conn->used += used;
        if (outcome == PW_PARSE_ERROR)
            return pw_conn_refused(server, conn, error);
        if (outcome == PW_PARSE_DONE)
            return PW_STEP_REQUEST;
        return PW_STEP_ON;
    }
    if (conn->facts.expect_continue) { /* and the client waits: none of its content is here */
        static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
        bool progress = false;
        if (!pw_output_copy(&conn->output, interim, sizeof interim - 1) ||
            pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
            return pw_conn_fail(server, conn);
    }
    return PW_STEP_ON;
}

static pw_step pw_step_head(pw_server *server, pw_conn *conn)
{
    pw_error error = PW_E_NONE;
    const char *data = conn->in->data + conn->in->start;
    conn->facts.is_head = false;
    if (conn->scanned == 0 && pw_conn_recognise(server, conn))
        return pw_conn_begin_content(server, conn);
    server->parsed = NULL;
    server->head = (pw_head){.fields = server->fields};
    switch (pw_head_parse(&server->limits, data, conn->in->end - conn->in->start, &conn->scanned,
                          &server->head, &error)) {
    case PW_PARSE_DONE:
        conn->kind = PW_NEW;
        conn->facts = server->head.facts;
        server->parsed = conn;
        return pw_conn_begin_content(server, conn);
    case PW_PARSE_MORE:
        if (conn->output.first != NULL) { /* answers that waited for this request */
            conn->state = PW_CONN_SENDING;
            return PW_STEP_ON;
        }
        return pw_conn_more(server, conn, PW_TIMER_HEAD);
    case PW_PARSE_ERROR:
        conn->facts.is_head = server->head.facts.is_head;
        break;
    }
    return pw_conn_refused(server, conn, error);
}

/* What came after the end of chunked content is the next request. */
static bool pw_conn_keep_rest(pw_server *server, pw_conn *conn, const char *data, size_t size)
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

static pw_step pw_step_content(pw_server *server, pw_conn *conn)
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
        pw_io io = pw_recv_into(conn, server->scratch, room, &got);
        if (io == PW_IO_RETRY)
            break;
        if (io != PW_IO_OK) { /* it will never be complete: RFC 9112 section 8 */
            pw_conn_close(server, conn);
            return PW_STEP_WAIT;
        }
        progress = true;
        pw_error error = PW_E_NONE;
        pw_parse outcome =
            pw_content_take(content, &server->store, server->scratch, got, &used, &error);
        if (outcome == PW_PARSE_ERROR)
            return pw_conn_refused(server, conn, error);
        if (outcome == PW_PARSE_DONE) {
            if (!pw_conn_keep_rest(server, conn, server->scratch + used, got - used))
                return pw_conn_refused(server, conn, PW_E_MEMORY);
            return PW_STEP_REQUEST;
        }
        if (got == room) { /* a fast sender does not hold the loop */
            pw_conn_wait(server, conn, PW_TIMER_BODY, true);
            if (conn->state != PW_CONN_CLOSED)
                pw_run(server, conn, false);
            return PW_STEP_WAIT;
        }
    }
    return pw_conn_wait(server, conn, PW_TIMER_BODY, progress);
}

/* After a response: the next request, or the end. */
static pw_step pw_conn_next(pw_server *server, pw_conn *conn)
{
    pw_conn_sent(server, conn);
    if (conn->close) {
        if (!conn->reset && (pw_conn_unused(conn) > 0 || (conn->what & PW_READABLE) != 0))
            return pw_conn_linger(server, conn);
        pw_conn_close(server, conn);
        return PW_STEP_WAIT;
    }
    if (conn->in != NULL && conn->in->end > conn->in->start) {
        conn->state = PW_CONN_HEAD;
    } else {
        conn->state = PW_CONN_IDLE;
    }
    return PW_STEP_ON;
}

static pw_step pw_step_sending(pw_server *server, pw_conn *conn)
{
    bool progress = false;
    switch (pw_output_flush(&conn->output, conn->fd, &progress)) {
    case PW_IO_OK:
        if (conn->output.first == NULL)
            return pw_conn_next(server, conn);
        pw_run(server, conn, false);
        return pw_conn_wait(server, conn, PW_TIMER_WRITE, true);
    case PW_IO_RETRY:
        progress |= conn->timer.kind != PW_TIMER_WRITE;
        if (progress)
            conn->unsent = pw_unsent(conn->fd);
        return pw_conn_wait(server, conn, PW_TIMER_WRITE, progress);
    case PW_IO_END: /* of receiving only */
    case PW_IO_ERROR:
        break;
    }
    return pw_conn_fail(server, conn);
}

pw_drive pw_conn_drive(pw_server *server, pw_conn *conn)
{
    if (conn->state == PW_CONN_APP || conn->state == PW_CONN_CLOSED)
        return PW_DRIVE_WAIT;
    if (conn->what & PW_GONE_AWAY) {
        pw_conn_close(server, conn);
        return PW_DRIVE_WAIT;
    }
    pw_step step = PW_STEP_ON;
    while (step == PW_STEP_ON) {
        switch (conn->state) {
        case PW_CONN_IDLE:
            step = pw_step_idle(server, conn);
            break;
        case PW_CONN_HEAD:
            step = pw_step_head(server, conn);
            break;
        case PW_CONN_CONTENT:
            step = pw_step_content(server, conn);
            break;
        case PW_CONN_SENDING:
            step = pw_step_sending(server, conn);
            break;
        case PW_CONN_LINGER:
            step = pw_step_linger(server, conn);
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
    conn->what |= what & ~PW_WRITABLE; /* writing is tried first and needs no flag */
    if (conn->state == PW_CONN_APP || conn->state == PW_CONN_READY)
        return; /* its thread sees to it when it is done */
    bool reads = (what & (PW_READABLE | PW_GONE_AWAY)) != 0;
    if (reads || conn->output.first != NULL)
        pw_run(server, conn, false);
}

void pw_conn_finished(pw_server *server, pw_conn *conn)
{
    pw_timers_tick(&server->timers); /* the application's time is not the client's */
    pw_content_free(conn->content);
    conn->content = NULL;
    bool gone = conn->failed || (conn->what & PW_GONE_AWAY) != 0;
    if (gone || server->stopped) {
        if (!gone && conn->output.first != NULL)
            pw_notice_conn(server, conn, PW_NOTICE_STOP, 0);
        pw_conn_close(server, conn);
        return;
    }
    if (conn->output.first == NULL && conn->in == NULL && !conn->close &&
        (conn->what & PW_READABLE) == 0 && !server->draining) {
        conn->state = PW_CONN_IDLE; /* the usual case, without a turn through the run queue */
        pw_conn_wait(server, conn, PW_TIMER_KEEP_ALIVE, true);
        return;
    }
    pw_timer_stop(&conn->timer);
    conn->state = conn->waits ? PW_CONN_HEAD : PW_CONN_SENDING;
    pw_run(server, conn, true);
}

/* Room to write is told of in large steps; a client that reads slowly takes long for one. */
static bool pw_conn_reads(pw_conn *conn)
{
    int before = conn->unsent;
    conn->unsent = pw_unsent(conn->fd);
    return conn->unsent < before;
}

/* Whether nothing has come that nobody has read; events fetched later may say otherwise. */
static bool pw_conn_is_quiet(const pw_conn *conn)
{
    char unused;
    return recv(conn->fd, &unused, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

/*
 * A client that had an answer a moment ago may be asking again just now, and a close would cross with
 * its request. So who was in use this recently is closed when it has been quiet for that long. (RFC
 * 9112 section 9.5: a client may always meet a closed connection; those that do should be few.)
 */
void pw_conn_drain(pw_server *server, pw_conn *conn)
{
    if (conn->state != PW_CONN_IDLE && conn->state != PW_CONN_LINGER)
        return;
    const pw_timer *timer = &conn->timer;
    bool idle = conn->state == PW_CONN_IDLE && timer->kind == PW_TIMER_KEEP_ALIVE;
    if (idle) {
        int64_t since = timer->due - server->timers.length[PW_TIMER_KEEP_ALIVE];
        if (server->timers.now - since >= server->timers.length[PW_TIMER_DRAIN] &&
            pw_conn_is_quiet(conn)) {
            pw_conn_close(server, conn);
            return;
        }
    }
    pw_run(server, conn, false); /* with another timer now */
}

void pw_conn_timeout(pw_server *server, pw_conn *conn)
{
    switch (conn->state) {
    case PW_CONN_READY:
    case PW_CONN_APP:
        pw_timer_stop(&conn->timer); /* left running because most requests are over in no time */
        return;
    case PW_CONN_HEAD:
        server->parsed = NULL;
        server->head = (pw_head){.fields = server->fields}; /* not to log that of another */
        pw_conn_refuse(server, conn, PW_E_HEAD_TIMEOUT);
        break;
    case PW_CONN_CONTENT:
        pw_conn_refuse(server, conn, PW_E_BODY_TIMEOUT);
        break;
    case PW_CONN_IDLE:
        if (pw_conn_is_quiet(conn)) {
            pw_conn_close(server, conn);
            return;
        }
        conn->what |= PW_READABLE; /* a request has come in the last moment */
        break;
    case PW_CONN_SENDING:
        if (pw_conn_reads(conn)) {
            pw_timer_start(&server->timers, &conn->timer, PW_TIMER_WRITE);
            return;
        }
        pw_notice_conn(server, conn, PW_NOTICE_WRITE_TIMEOUT, 0);
        pw_conn_close(server, conn);
        return;
    case PW_CONN_LINGER:
    case PW_CONN_CLOSED:
        pw_conn_close(server, conn);
        return;
    }
    pw_timer_stop(&conn->timer);
    pw_run(server, conn, false);
}
