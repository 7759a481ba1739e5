/* A response on its way from Python: see pw_respond and pw_send_head in api.h. */
#include <errno.h>
#include <poll.h>

#include "server.h"

#define PW_WAITING_MOST 16384 /* bytes of answers that may wait for the next pipelined request */

/* What the status line and the request decide about the framing (RFC 9112 section 6.3). */
static void pw_response_begin(pw_server *server, pw_conn *conn, const char *head, size_t size,
                              bool framed, int32_t flags)
{
    static const size_t at = sizeof "HTTP/1.1 " - 1;
    int status = 0;
    if (size > at + 3)
        status = (head[at] - '0') * 100 + (head[at + 1] - '0') * 10 + (head[at + 2] - '0');
    conn->status = status;
    bool bare = status / 100 == 1 || status == 204 || status == 304;
    conn->started = true;
    conn->sent_tick = -1;
    conn->no_content = conn->facts.is_head || bare;
    conn->close = !conn->facts.keep_alive || (flags & PW_CLOSE) != 0 ||
                  atomic_load_explicit(&server->closing, memory_order_relaxed);
    conn->unframed = false;
    if (!framed && !conn->no_content) {
        conn->chunked = conn->facts.minor != 0;
        conn->unframed = !conn->chunked;
    }
    conn->close |= conn->unframed || status / 100 == 1;
}

/* A response that is to wait for those of the requests received with it: 16 at a time cost 2.9 us each so,
 * and 7.7 us where each leaves alone. Only where another thread can send it in case one of them takes
 * long: see pw_token_flush. */
static bool pw_response_waits(const pw_server *server, const pw_conn *conn, size_t size)
{
    return conn->in != NULL && !conn->close && server->watcher_is_here && size <= PW_COPY_MOST &&
           conn->output.borrowed == 0 && conn->output.size + (int64_t)size <= PW_WAITING_MOST;
}

int64_t pw_respond(pw_thread *thread, const char *head, int64_t head_size, const char *body,
                   int64_t body_size, int32_t flags)
{
    pw_server *server = thread->server;
    pw_token_back(thread);
    pthread_mutex_lock(&server->lock);
    pw_conn *conn = pw_turn_take(thread, thread->request.exchange);
    if (conn == NULL || conn->started) {
        if (conn != NULL)
            pw_turn_give(thread);
        pthread_mutex_unlock(&server->lock);
        return conn != NULL ? PW_STARTED : PW_STOP;
    }
    pw_response_begin(server, conn, head, (size_t)head_size, true, flags);
    pw_access_head(server, &thread->log, head, (size_t)head_size);
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
    bool lends = thread->request.lends != 0;
    conn->waits = pw_response_waits(server, conn, size);
    int error = 0;
    bool loop_is_ours = server->holder == thread;
    if (!loop_is_ours) /* whoever has it need not wait for this write */
        pthread_mutex_unlock(&server->lock);
    /* A head so large that it would be borrowed is copied too: Python keeps the body alone. */
    int copied = conn->waits ? 3 : head_size > PW_COPY_MOST ? 2 : 0;
    int count = parts[2].iov_len > 0 ? 3 : 2;
    for (int i = 0; i < copied && error == 0; i++)
        if (!pw_output_copy(&conn->output, parts[i].iov_base, parts[i].iov_len))
            error = errno;
    if (!conn->waits && error == 0 &&
        pw_output_write(&conn->output, conn->fd, parts + copied, count - copied) == PW_IO_ERROR)
        error = errno;
    if (!lends && error == 0 && !pw_output_own(&conn->output))
        error = errno;
    if (!loop_is_ours)
        pthread_mutex_lock(&server->lock);
    if (error != 0 && !conn->failed)
        pw_notice_thread(thread, conn, PW_NOTICE_ERROR, error);
    conn->failed |= error != 0;
    conn->bytes = thread->request.sent = (int64_t)parts[2].iov_len;
    pw_thread_log(thread, conn);
    if (conn->output.first != NULL && !conn->waits)
        pw_conn_keep_line(thread, conn);
    pw_exchange_end(thread);
    int64_t number = PW_IDLE;
    if (!lends && (flags & PW_RETURN) == 0)
        number = pw_loop_serve(thread);
    pthread_mutex_unlock(&server->lock);
    pw_token_leave(thread, number);
    return number;
}

int32_t pw_response_fail_locked(pw_thread *thread, int what)
{
    pw_conn *conn = thread->conn;
    if (!conn->failed)
        pw_notice_thread(thread, conn, what, errno);
    conn->failed = true;
    conn->reset = true;
    pw_output_free(&conn->output);
    return PW_GONE;
}

/* Holds the thread, as the application's own doing, until the client has taken enough. No other
 * thread touches the output: this one has the turn, and nothing is gathered. Returns 0, or what has
 * happened. */
static int pw_response_wait_on(pw_server *server, pw_conn *conn)
{
    const int step = 100;     /* ms: how soon a stop is seen */
    int64_t since = pw_now(); /* signals may end a step early */
    int unsent = pw_unsent(conn->fd);
    while (conn->output.size > server->response_buffer) {
        struct pollfd poll_fd = {.fd = conn->fd, .events = POLLOUT, .revents = 0};
        int ready = poll(&poll_fd, 1, step);
        if (ready < 0 && errno != EINTR)
            return PW_NOTICE_ERROR;
        bool progress = false;
        if (ready > 0 && pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
            return PW_NOTICE_ERROR;
        int before = unsent;
        unsent = pw_unsent(conn->fd);
        int64_t now = pw_now();
        if (progress || unsent < before)
            since = now;
        if (now - since >= server->timers.length[PW_TIMER_WRITE])
            return PW_NOTICE_WRITE_TIMEOUT;
        if (pw_server_is_late(server))
            return PW_NOTICE_STOP;
    }
    return 0;
}

static int pw_response_wait(pw_thread *thread, pw_conn *conn)
{
    if (conn->output.size <= thread->server->response_buffer)
        return 0;
    pw_token_hold(thread, true);
    int what = pw_response_wait_on(thread->server, conn);
    int error = errno;
    pw_token_hold(thread, false);
    errno = error;
    return what;
}

/* Puts the frame of a chunk around the data, where there is one; line is for the chunk-size. */
static int pw_response_frame(const pw_conn *conn, struct iovec parts[3], char line[20],
                             const char *data, size_t size)
{
    int count = 0;
    if (conn->chunked) {
        static const char digits[] = "0123456789abcdef";
        size_t at = 20;
        line[--at] = '\n';
        line[--at] = '\r';
        for (uint64_t left = size; left > 0; left >>= 4)
            line[--at] = digits[left & 15];
        parts[count++] = (struct iovec){line + at, 20 - at};
    }
    parts[count++] = (struct iovec){(void *)(uintptr_t)data, size};
    if (conn->chunked)
        parts[count++] = (struct iovec){(void *)(uintptr_t)"\r\n", 2};
    return count;
}

/* The head goes into the output. With the lock and the turn; 0, or PW_GONE. */
static int32_t pw_response_head(pw_thread *thread, pw_conn *conn, const char *head, size_t size,
                                int64_t length, int32_t flags)
{
    pw_server *server = thread->server;
    char tail[PW_TAIL_MOST];
    if (length >= 0)
        flags |= PW_HAS_LENGTH;
    pw_response_begin(server, conn, head, size, length >= 0, flags);
    conn->promised = conn->no_content ? -1 : length;
    pw_access_head(server, &thread->log, head, size);
    size_t tail_size = pw_answer_tail(&server->clock, tail, conn, flags, -1);
    if (pw_output_copy(&conn->output, head, size) && pw_output_copy(&conn->output, tail, tail_size))
        return 0;
    return pw_response_fail_locked(thread, PW_NOTICE_ERROR);
}

static size_t pw_parts_size(const struct iovec *parts, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    return size;
}

/*
 * Sends or keeps a part of a stream; without the lock. What the client does not take at once is kept in
 * memory, then in a file, and only when there is no room in that holds the thread. flushes: what was kept
 * is tried first. Returns 0, or what has happened.
 */
static int pw_response_stream(pw_thread *thread, pw_conn *conn, struct iovec *parts, int count,
                              bool flushes)
{
    pw_server *server = thread->server;
    pw_output *output = &conn->output;
    bool progress = false;
    if (flushes && output->first != NULL &&
        pw_output_flush(output, conn->fd, &progress) == PW_IO_ERROR)
        return PW_NOTICE_ERROR;
    pw_io outcome = pw_output_try(output, conn->fd, &parts, &count);
    if (outcome != PW_IO_RETRY)
        return outcome == PW_IO_OK ? 0 : PW_NOTICE_ERROR;
    int64_t size = (int64_t)pw_parts_size(parts, count);
    bool fits = output->unsent_spool == 0 && output->size + size <= server->response_buffer;
    if (!fits && pw_output_spool(output, &server->store, parts, count))
        return 0;
    if (!pw_output_keep(output, parts, count))
        return PW_NOTICE_ERROR;
    int what = fits ? 0 : pw_response_wait(thread, conn);
    return what == 0 && !pw_output_own(output) ? PW_NOTICE_ERROR : what;
}

/* The same for one that is in memory. */
static int pw_response_finished(pw_thread *thread, pw_conn *conn, struct iovec *parts, int count)
{
    if (pw_output_write(&conn->output, conn->fd, parts, count) == PW_IO_ERROR ||
        (thread->request.lends == 0 && !pw_output_own(&conn->output)))
        return PW_NOTICE_ERROR;
    return 0;
}

/* How much of the data the Content-Length allows. */
static size_t pw_response_allowed(const pw_conn *conn, size_t size)
{
    if (conn->promised < 0)
        return size;
    size_t left = (size_t)(conn->promised - conn->bytes);
    return size < left ? size : left;
}

/* With the lock, which it lets go while it writes, and the turn. */
static int32_t pw_response_part(pw_thread *thread, pw_conn *conn, const char *data, size_t given,
                                int32_t flags)
{
    pw_server *server = thread->server;
    if (!conn->failed && pw_server_is_late(server))
        pw_response_fail_locked(thread, PW_NOTICE_STOP);
    if (conn->failed)
        return PW_GONE;
    if (conn->no_content)
        return PW_UNWANTED;
    size_t size = pw_response_allowed(conn, given);
    conn->bytes += (int64_t)size;
    bool complete = conn->promised >= 0 && conn->bytes == conn->promised;
    int32_t outcome = size < given ? PW_OVERFLOW : complete ? PW_COMPLETE : 0;
    if (size == 0)
        return outcome;
    char line[20];
    struct iovec parts[3];
    int count = pw_response_frame(conn, parts, line, data, size);
    if (pw_gather_wants(server, conn, size)) {
        for (int i = 0; i < count; i++)
            if (!pw_output_copy(&conn->output, parts[i].iov_base, parts[i].iov_len))
                return pw_response_fail_locked(thread, PW_NOTICE_ERROR);
        pw_gather_begin(server, conn);
        return outcome;
    }
    pw_gather_end(server, conn);
    bool flushes = !server->is_watched || conn->sent_tick != server->ticks;
    conn->sent_tick = server->ticks;
    pthread_mutex_unlock(&server->lock);
    int what = (flags & PW_FINISHED) != 0 ? pw_response_finished(thread, conn, parts, count)
                                          : pw_response_stream(thread, conn, parts, count, flushes);
    int error = errno;
    pthread_mutex_lock(&server->lock);
    errno = error;
    if (what != 0)
        return pw_response_fail_locked(thread, what);
    if (conn->output.first != NULL)
        pw_gather_begin(server, conn);
    return outcome;
}

int32_t pw_send_first(pw_thread *thread, int64_t exchange, const char *head, int64_t head_size,
                      int64_t length, int32_t head_flags, const char *data, int64_t size,
                      int32_t flags)
{
    pthread_mutex_lock(&thread->server->lock);
    int32_t outcome = PW_OVER;
    pw_conn *conn = pw_turn_take(thread, exchange);
    if (conn != NULL) {
        outcome = 0;
        if (!conn->started)
            outcome = pw_response_head(thread, conn, head, (size_t)head_size, length, head_flags);
        if (outcome == 0)
            outcome = pw_response_part(thread, conn, data, (size_t)size, flags);
        pw_turn_give(thread);
    }
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}

int32_t pw_send_data(pw_thread *thread, int64_t exchange, const char *data, int64_t size,
                     int32_t flags)
{
    pthread_mutex_lock(&thread->server->lock);
    int32_t outcome = PW_OVER;
    pw_conn *conn = pw_turn_take(thread, exchange);
    if (conn != NULL) {
        if (conn->started)
            outcome = pw_response_part(thread, conn, data, (size_t)size, flags);
        pw_turn_give(thread);
    }
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}

int32_t pw_send_file(pw_thread *thread, int32_t descriptor, int64_t offset, int64_t given)
{
    pthread_mutex_lock(&thread->server->lock);
    int32_t outcome = PW_OVER;
    pw_conn *conn = pw_turn_take(thread, thread->request.exchange);
    if (conn != NULL) {
        size_t size = pw_response_allowed(conn, (size_t)given);
        outcome = 0;
        pw_gather_end(thread->server, conn);
        if (conn->failed)
            outcome = PW_GONE;
        else if (conn->no_content)
            outcome = PW_UNWANTED;
        else if (conn->promised < 0 ||
                 (size > 0 && !pw_output_file(&conn->output, descriptor, (off_t)offset, size)))
            outcome = PW_REFUSED;
        else
            conn->bytes += (int64_t)size;
        pw_turn_give(thread);
    }
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}

int64_t pw_content_missing(pw_thread *thread)
{
    pthread_mutex_lock(&thread->server->lock);
    const pw_conn *conn = thread->conn;
    int64_t missing = 0;
    if (conn != NULL && conn->started && conn->promised >= 0)
        missing = conn->promised - conn->bytes;
    pthread_mutex_unlock(&thread->server->lock);
    return missing;
}

void pw_send_end(pw_thread *thread, int32_t cut)
{
    pw_server *server = thread->server;
    pw_token_back(thread);
    pthread_mutex_lock(&server->lock);
    pw_conn *conn = pw_turn_take(thread, thread->request.exchange);
    if (conn == NULL) {
        pthread_mutex_unlock(&server->lock);
        return;
    }
    pw_gather_end(server, conn);
    if (cut) {
        /* No last chunk, or too few bytes: the client sees a message cut off. Where the end of the
         * connection is all that ends the content, only a reset can tell it. */
        conn->reset = conn->unframed || conn->failed;
        conn->close = true;
    } else if (conn->chunked && !conn->failed && !pw_output_copy(&conn->output, "0\r\n\r\n", 5)) {
        pw_response_fail_locked(thread, PW_NOTICE_ERROR);
    }
    if (!conn->failed && conn->output.first != NULL) {
        bool progress = false;
        pthread_mutex_unlock(&server->lock);
        pw_io outcome = pw_output_flush(&conn->output, conn->fd, &progress);
        int error = errno;
        pthread_mutex_lock(&server->lock);
        errno = error;
        if (outcome == PW_IO_ERROR)
            pw_response_fail_locked(thread, PW_NOTICE_ERROR);
    }
    thread->request.sent = conn->bytes;
    pw_thread_log(thread, conn);
    if (conn->output.first != NULL)
        pw_conn_keep_line(thread, conn);
    pw_exchange_end(thread);
    pthread_mutex_unlock(&server->lock);
}

int64_t pw_finish(pw_thread *thread, int32_t cut)
{
    bool lends = thread->request.lends != 0;
    pw_send_end(thread, cut);
    return lends ? PW_IDLE : pw_next(thread);
}

int32_t pw_send_interim(pw_thread *thread, const char *head, int64_t head_size)
{
    int32_t outcome = 0;
    bool progress = false;
    pthread_mutex_lock(
        &thread->server->lock); /* before the head another thread may flush the output */
    pw_conn *conn = pw_turn_take(thread, thread->request.exchange);
    if (conn == NULL || conn->failed)
        outcome = PW_GONE;
    else if (!conn->started && conn->facts.minor != 0 &&
             (!pw_output_copy(&conn->output, head, (size_t)head_size) ||
              pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR))
        outcome = pw_response_fail_locked(thread, PW_NOTICE_ERROR);
    if (conn != NULL)
        pw_turn_give(thread);
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}

int32_t pw_request_state(pw_thread *thread)
{
    int32_t state = PW_REQUEST_NONE;
    pthread_mutex_lock(&thread->server->lock);
    if (thread->conn != NULL)
        state = thread->conn->started ? PW_REQUEST_BEGUN : PW_REQUEST_WAITS;
    pthread_mutex_unlock(&thread->server->lock);
    return state;
}

int32_t pw_client_gone(pw_thread *thread)
{
    pthread_mutex_lock(&thread->server->lock);
    const pw_conn *conn = thread->conn;
    bool gone = conn == NULL || conn->failed || pw_peer_has_left(conn->fd);
    pthread_mutex_unlock(&thread->server->lock);
    return gone;
}

int32_t pw_check_client(pw_thread *thread, int64_t exchange)
{
    pthread_mutex_lock(&thread->server->lock);
    pw_conn *conn = thread->request.exchange == exchange ? thread->conn : NULL;
    int32_t outcome = 0;
    if (conn == NULL) {
        outcome = PW_OVER;
    } else if (conn->failed || pw_peer_is_gone(conn->fd)) {
        outcome = PW_GONE;
    } else if (conn->facts.is_head || (conn->started && conn->no_content)) {
        outcome = PW_UNWANTED;
    } else if (pw_peer_has_left(conn->fd)) {
        int64_t now = pw_now();
        if (conn->left_at == 0)
            conn->left_at = now;
        if (now - conn->left_at >= PW_HALF_CLOSED_MS)
            outcome = PW_GONE;
    }
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}
