/* Sending a response from Python: see pw_respond and pw_send_first in api.h. */
#include <errno.h>

#include "access.h"
#include "access_format.h"
#include "batch.h"
#include "clock.h"
#include "conn_close.h"
#include "exchange.h"
#include "framing.h"
#include "gauges.h"
#include "incident.h"
#include "loop.h"
#include "output.h"
#include "queue.h"
#include "state.h"
#include "system.h"
#include "token.h"

/* The application has taken the connection. With the lock, which it releases. */
static int64_t respond_ignored(pw_thread *thread, int32_t flags)
{
    pw_server *server = thread->server;
    bool lends = thread->request.lends != 0;
    int64_t number = PW_IDLE;
    pw_exchange_ignore(thread);
    if (!lends && (flags & PW_RETURN) == 0)
        number = pw_loop_serve(thread);
    pthread_mutex_unlock(&server->lock);
    pw_token_leave(thread, number);
    return number;
}

int64_t pw_respond(pw_thread *thread, const char *head, int64_t head_size, const char *body,
                   int64_t body_size, int32_t flags)
{
    pw_server *server = thread->server;
    pw_token_back(thread);
    pthread_mutex_lock(&server->lock);
    pw_conn *conn = pw_turn_take(thread, thread->request.exchange);
    if (conn == NULL || conn->response.state != PW_RESPONSE_NONE) {
        if (conn == NULL && pw_thread_is_detached(thread))
            return respond_ignored(thread, flags);
        if (conn != NULL)
            pw_turn_give(thread);
        pthread_mutex_unlock(&server->lock);
        return conn != NULL ? PW_STARTED : PW_STOP;
    }
    pw_framing_begin(server, conn, head, (size_t)head_size, true, flags);
    pw_access_head(server, &thread->log, head, (size_t)head_size);
    bool no_content = conn->response.framing == PW_FRAMING_NONE;
    int64_t length = body_size;
    if (no_content && (body_size == 0 || !conn->facts.is_head))
        length = -1;
    char tail[PW_TAIL_MOST];
    struct iovec parts[3] = {
        {(void *)(uintptr_t)head, (size_t)head_size},
        {tail, pw_framing_tail(&server->clock, tail, conn, flags, length)},
        {(void *)(uintptr_t)body, no_content ? 0 : (size_t)body_size},
    };
    size_t size = parts[0].iov_len + parts[1].iov_len + parts[2].iov_len;
    bool lends = thread->request.lends != 0;
    bool waits = pw_batch_waits(server, conn, size);
    if (waits)
        conn->response.state = PW_RESPONSE_WAITS;
    int error = 0;
    bool loop_is_ours = server->token.holder == thread;
    if (!loop_is_ours) /* the thread that runs the loop need not wait for this write */
        pthread_mutex_unlock(&server->lock);
    /* A head that is large enough to be borrowed is copied, because Python keeps only the body. */
    int copied = waits ? 3 : head_size > PW_COPY_MOST ? 2 : 0;
    int count = parts[2].iov_len > 0 ? 3 : 2;
    for (int i = 0; i < copied && error == 0; i++)
        if (!pw_output_copy(&conn->output, parts[i].iov_base, parts[i].iov_len))
            error = errno;
    if (!waits && error == 0 &&
        pw_output_write(&conn->output, conn->fd, parts + copied, count - copied) == PW_IO_ERROR)
        error = errno;
    if (!lends && error == 0 && !pw_output_own(&conn->output))
        error = errno;
    if (!loop_is_ours)
        pthread_mutex_lock(&server->lock);
    if (error != 0 && conn->end != PW_CONN_FAILED)
        pw_incident_thread(thread, conn, PW_INCIDENT_ERROR, error);
    if (error != 0)
        pw_conn_ends(conn, PW_CONN_FAILED);
    conn->response.bytes = thread->request.sent = (int64_t)parts[2].iov_len;
    pw_exchange_note(thread, conn);
    if (conn->output.first != NULL && !waits)
        pw_conn_keep_line(thread, conn);
    pw_exchange_end(thread);
    int64_t number = PW_IDLE;
    if (!lends && (flags & PW_RETURN) == 0)
        number = pw_loop_serve(thread);
    pthread_mutex_unlock(&server->lock);
    pw_token_leave(thread, number);
    return number;
}

static int response_wait(pw_thread *thread, pw_conn *conn)
{
    if (conn->output.size <= thread->server->response_buffer)
        return 0;
    pw_token_hold(thread, true);
    int what = pw_turn_wait(thread->server, conn, thread->server->response_buffer);
    int error = errno;
    pw_token_hold(thread, false);
    errno = error;
    return what;
}

/* Puts the head into the output. With the lock and the turn. Returns 0 or PW_GONE. */
static int32_t response_head(pw_thread *thread, pw_conn *conn, const char *head, size_t size,
                             int64_t length, int32_t flags)
{
    pw_server *server = thread->server;
    char tail[PW_TAIL_MOST];
    if (length >= 0)
        flags |= PW_HAS_LENGTH;
    pw_framing_begin(server, conn, head, size, length >= 0, flags);
    conn->response.promised = conn->response.framing == PW_FRAMING_NONE ? -1 : length;
    pw_access_head(server, &thread->log, head, size);
    size_t tail_size = pw_framing_tail(&server->clock, tail, conn, flags, -1);
    if (pw_output_copy(&conn->output, head, size) && pw_output_copy(&conn->output, tail, tail_size))
        return 0;
    return pw_response_fail_locked(thread, PW_INCIDENT_ERROR);
}

static size_t parts_size(const struct iovec *parts, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    return size;
}

/*
 * Sends or keeps a part of a stream, without the lock. Bytes that the socket does not take are kept
 * in memory, then in a file. If the file has no room, the thread waits. flushes: first tries to
 * send what was kept. Returns 0 or the incident.
 */
static int response_stream(pw_thread *thread, pw_conn *conn, struct iovec *parts, int count,
                           bool flushes)
{
    pw_server *server = thread->server;
    pw_output *output = &conn->output;
    bool progress = false;
    if (flushes && output->first != NULL &&
        pw_output_flush(output, conn->fd, &progress) == PW_IO_ERROR)
        return PW_INCIDENT_ERROR;
    pw_io outcome = pw_output_try(output, conn->fd, &parts, &count);
    if (outcome != PW_IO_RETRY)
        return outcome == PW_IO_OK ? 0 : PW_INCIDENT_ERROR;
    int64_t size = (int64_t)parts_size(parts, count);
    bool fits = output->unsent_spool == 0 && output->size + size <= server->response_buffer;
    if (!fits && pw_output_spool(output, &server->store, parts, count))
        return 0;
    if (!pw_output_keep(output, parts, count))
        return PW_INCIDENT_ERROR;
    int what = fits ? 0 : response_wait(thread, conn);
    return what == 0 && !pw_output_own(output) ? PW_INCIDENT_ERROR : what;
}

/* The same for a part of a response that is complete in memory. */
static int response_finished(pw_thread *thread, pw_conn *conn, struct iovec *parts, int count)
{
    if (pw_output_write(&conn->output, conn->fd, parts, count) == PW_IO_ERROR ||
        (thread->request.lends == 0 && !pw_output_own(&conn->output)))
        return PW_INCIDENT_ERROR;
    return 0;
}

/* With the turn, and with the lock, which it releases while it writes. */
static int32_t response_part(pw_thread *thread, pw_conn *conn, const char *data, size_t given,
                             int32_t flags)
{
    pw_server *server = thread->server;
    if (conn->end != PW_CONN_FAILED && pw_server_is_late(server))
        pw_response_fail_locked(thread, PW_INCIDENT_STOP);
    if (conn->end == PW_CONN_FAILED)
        return PW_GONE;
    if (conn->response.framing == PW_FRAMING_NONE)
        return PW_UNWANTED;
    size_t size = pw_framing_allowed(conn, given);
    conn->response.bytes += (int64_t)size;
    bool complete = conn->response.promised >= 0 && conn->response.bytes == conn->response.promised;
    int32_t outcome = size < given ? PW_OVERFLOW : complete ? PW_COMPLETE : 0;
    if (size == 0)
        return outcome;
    char line[20];
    struct iovec parts[3];
    int count = pw_framing_chunk(conn, parts, line, data, size);
    if (pw_batch_takes(server, conn, size)) {
        for (int i = 0; i < count; i++)
            if (!pw_output_copy(&conn->output, parts[i].iov_base, parts[i].iov_len))
                return pw_response_fail_locked(thread, PW_INCIDENT_ERROR);
        pw_batch_begin(server, conn);
        return outcome;
    }
    pw_batch_end(server, conn);
    bool flushes = !server->watch.has_begun || conn->response.sent_tick != server->watch.ticks;
    conn->response.sent_tick = server->watch.ticks;
    pthread_mutex_unlock(&server->lock);
    int what = (flags & PW_FINISHED) != 0 ? response_finished(thread, conn, parts, count)
                                          : response_stream(thread, conn, parts, count, flushes);
    int error = errno;
    pthread_mutex_lock(&server->lock);
    errno = error;
    pw_bytes(server, conn);
    if (what != 0)
        return pw_response_fail_locked(thread, what);
    if (conn->output.first != NULL)
        pw_batch_begin(server, conn);
    return outcome;
}

int32_t pw_send_first(pw_thread *thread, int64_t exchange, const char *head, int64_t head_size,
                      int64_t length, int32_t head_flags, const char *data, int64_t size,
                      int32_t flags)
{
    pthread_mutex_lock(&thread->server->lock);
    pw_conn *conn = pw_turn_take(thread, exchange);
    int32_t outcome = conn != NULL ? 0 : pw_exchange_drop(thread, exchange);
    if (conn != NULL) {
        outcome = 0;
        if (conn->response.state == PW_RESPONSE_NONE)
            outcome = response_head(thread, conn, head, (size_t)head_size, length, head_flags);
        if (outcome == 0)
            outcome = response_part(thread, conn, data, (size_t)size, flags);
        pw_turn_give(thread);
    }
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}

int32_t pw_send_data(pw_thread *thread, int64_t exchange, const char *data, int64_t size,
                     int32_t flags)
{
    pthread_mutex_lock(&thread->server->lock);
    pw_conn *conn = pw_turn_take(thread, exchange);
    int32_t outcome = PW_OVER;
    if (conn == NULL) {
        outcome = pw_exchange_drop(thread, exchange);
    } else {
        if (conn->response.state != PW_RESPONSE_NONE)
            outcome = response_part(thread, conn, data, (size_t)size, flags);
        pw_turn_give(thread);
    }
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}

int32_t pw_send_file(pw_thread *thread, int32_t descriptor, int64_t offset, int64_t given)
{
    pthread_mutex_lock(&thread->server->lock);
    pw_conn *conn = pw_turn_take(thread, thread->request.exchange);
    int32_t outcome = conn != NULL ? 0 : pw_exchange_drop(thread, thread->request.exchange);
    if (conn != NULL) {
        size_t size = pw_framing_allowed(conn, (size_t)given);
        outcome = 0;
        pw_batch_end(thread->server, conn);
        if (conn->end == PW_CONN_FAILED)
            outcome = PW_GONE;
        else if (conn->response.framing == PW_FRAMING_NONE)
            outcome = PW_UNWANTED;
        else if (conn->response.promised < 0 ||
                 (size > 0 && !pw_output_file(&conn->output, descriptor, (off_t)offset, size)))
            outcome = PW_REFUSED;
        else
            conn->response.bytes += (int64_t)size;
        pw_turn_give(thread);
    }
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}

void pw_send_end(pw_thread *thread, int32_t cut)
{
    pw_server *server = thread->server;
    pw_token_back(thread);
    pthread_mutex_lock(&server->lock);
    pw_conn *conn = pw_turn_take(thread, thread->request.exchange);
    if (conn == NULL) {
        pw_exchange_ignore(thread);
        pthread_mutex_unlock(&server->lock);
        return;
    }
    pw_batch_end(server, conn);
    if (cut) {
        /* The last chunk or some bytes are missing, so the client notices that the message is cut
         * off. If only the end of the connection ends the content, only a reset shows it. */
        bool by_end = conn->response.framing == PW_FRAMING_END;
        pw_conn_ends(conn, by_end ? PW_CONN_RESETS : PW_CONN_CLOSES);
    } else if (conn->response.framing == PW_FRAMING_CHUNKED && conn->end != PW_CONN_FAILED &&
               !pw_output_copy(&conn->output, "0\r\n\r\n", 5)) {
        pw_response_fail_locked(thread, PW_INCIDENT_ERROR);
    }
    if (conn->end != PW_CONN_FAILED && conn->output.first != NULL) {
        bool progress = false;
        pthread_mutex_unlock(&server->lock);
        pw_io outcome = pw_output_flush(&conn->output, conn->fd, &progress);
        int error = errno;
        pthread_mutex_lock(&server->lock);
        errno = error;
        if (outcome == PW_IO_ERROR)
            pw_response_fail_locked(thread, PW_INCIDENT_ERROR);
    }
    thread->request.sent = conn->response.bytes;
    pw_exchange_note(thread, conn);
    if (conn->output.first != NULL)
        pw_conn_keep_line(thread, conn);
    pw_exchange_end(thread);
    pthread_mutex_unlock(&server->lock);
}

int32_t pw_send_interim(pw_thread *thread, const char *head, int64_t head_size)
{
    int32_t outcome = 0;
    bool progress = false;
    pthread_mutex_lock(
        &thread->server->lock); /* before the head, another thread may be flushing the output */
    pw_conn *conn = pw_turn_take(thread, thread->request.exchange);
    if (conn == NULL || conn->end == PW_CONN_FAILED)
        outcome = PW_GONE;
    else if (conn->response.state == PW_RESPONSE_NONE && conn->facts.minor != 0 &&
             (!pw_output_copy(&conn->output, head, (size_t)head_size) ||
              pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR))
        outcome = pw_response_fail_locked(thread, PW_INCIDENT_ERROR);
    if (conn != NULL)
        pw_turn_give(thread);
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}
