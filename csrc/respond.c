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
    conn->close = !conn->facts.keep_alive || (flags & PW_CLOSE) != 0 || server->draining ||
                  atomic_load(&server->stopping) != 0;
    conn->unframed = false;
    if (!framed && !conn->no_content) {
        conn->chunked = conn->facts.minor != 0;
        conn->unframed = !conn->chunked;
    }
    conn->close |= conn->unframed || status / 100 == 1;
}

/* A response that is to wait for those of the requests received with it. Only where another thread
 * can send it in case one of them takes long: see pw_token_flush. */
static bool pw_response_waits(const pw_server *server, const pw_conn *conn, size_t size)
{
    return conn->in != NULL && !conn->close && server->watcher_is_here && size <= PW_COPY_MOST &&
           conn->output.borrowed == 0 && conn->output.size + (int64_t)size <= PW_WAITING_MOST;
}

/* Python will keep what is borrowed; until it is back it cannot be told to let it go. */
static void pw_response_hold(pw_thread *thread, pw_conn *conn)
{
    conn->held = true;
    conn->holder = thread;
    thread->hold = conn;
    thread->hold_id = conn->id;
    thread->hold_sent = false;
}

int64_t pw_respond(pw_thread *thread, const char *head, int64_t head_size, const char *body,
                   int64_t body_size, int32_t flags)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->conn;
    pthread_mutex_lock(&server->lock);
    thread->conn = NULL;
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
    conn->waits = pw_response_waits(server, conn, size);
    conn->later = !conn->waits && pw_later_wants(thread, conn, size);
    bool kept = conn->waits || conn->later;
    int error = 0;
    bool loop_is_ours = server->holder == thread;
    if (!loop_is_ours) /* whoever has it need not wait for this write */
        pthread_mutex_unlock(&server->lock);
    /* A head so large that it would be borrowed is copied too: Python keeps the body alone. */
    int copied = kept ? 3 : head_size > PW_COPY_MOST ? 2 : 0;
    int count = parts[2].iov_len > 0 ? 3 : 2;
    for (int i = 0; i < copied && error == 0; i++)
        if (!pw_output_copy(&conn->output, parts[i].iov_base, parts[i].iov_len))
            error = errno;
    if (!kept && error == 0 &&
        pw_output_write(&conn->output, conn->fd, parts + copied, count - copied) == PW_IO_ERROR)
        error = errno;
    if (!loop_is_ours)
        pthread_mutex_lock(&server->lock);
    if (error != 0 && !conn->failed)
        pw_notice_thread(thread, conn, PW_NOTICE_ERROR, error);
    conn->failed |= error != 0;
    conn->bytes = thread->request.sent = (int64_t)parts[2].iov_len;
    pw_thread_log(thread, conn);
    bool holds = conn->output.borrowed > 0 && !conn->failed;
    if (holds)
        pw_response_hold(thread, conn);
    if (conn->output.first != NULL && !conn->waits)
        pw_conn_keep_line(thread, conn);
    pw_conn_finished(server, conn);
    pw_loop_wake(server, false);
    int64_t number = holds ? PW_HOLD : PW_IDLE;
    if (!holds && (flags & PW_RETURN) == 0 && pw_token_take(thread, &number))
        number = pw_loop(thread);
    pthread_mutex_unlock(&server->lock);
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

static int32_t pw_response_fail(pw_thread *thread, int what)
{
    int error = errno;
    pthread_mutex_lock(&thread->server->lock);
    errno = error;
    int32_t outcome = pw_response_fail_locked(thread, what);
    pthread_mutex_unlock(&thread->server->lock);
    return outcome;
}

int32_t pw_send_head(pw_thread *thread, const char *head, int64_t head_size, int64_t length,
                     int32_t flags)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->conn;
    char tail[PW_TAIL_MOST];
    if (length >= 0)
        flags |= PW_HAS_LENGTH;
    pthread_mutex_lock(&server->lock);
    pw_response_begin(server, conn, head, (size_t)head_size, length >= 0, flags);
    conn->promised = length;
    pw_access_head(server, &thread->log, head, (size_t)head_size);
    size_t tail_size = pw_answer_tail(&server->clock, tail, conn, flags, -1);
    pthread_mutex_unlock(&server->lock);
    int32_t outcome = !conn->no_content;
    if (!pw_output_copy(&conn->output, head, (size_t)head_size) ||
        !pw_output_copy(&conn->output, tail, tail_size))
        outcome = pw_response_fail(thread, PW_NOTICE_ERROR);
    return outcome;
}

/* Holds the thread, as the application's own doing, until the client has taken enough. No other
 * thread touches the output, for the head has been handed over and nothing is gathered. Returns 0,
 * or what has happened. */
static int pw_response_wait(pw_server *server, pw_conn *conn)
{
    const int step = 100; /* ms: how soon a stop is seen */
    if (conn->output.size <= server->response_buffer)
        return 0;
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

int32_t pw_send_data(pw_thread *thread, const char *data, int64_t size, int32_t flags)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->conn;
    char line[20];
    struct iovec parts[3];
    int what = 0;
    int count = pw_response_frame(conn, parts, line, data, size > 0 ? (size_t)size : 0);
    pthread_mutex_lock(&server->lock);
    if (!conn->failed && pw_server_is_late(server))
        pw_response_fail_locked(thread, PW_NOTICE_STOP);
    bool nothing = conn->failed || conn->no_content || size <= 0;
    bool last = conn->promised >= 0 && conn->bytes + size == conn->promised;
    bool later = !nothing && (pw_gather_wants(server, conn, (size_t)size) ||
                              (last && pw_later_wants(thread, conn, (size_t)size)));
    if (later) {
        for (int i = 0; i < count && what == 0; i++)
            if (!pw_output_copy(&conn->output, parts[i].iov_base, parts[i].iov_len))
                what = PW_NOTICE_ERROR;
        pw_gather_begin(server, conn);
    } else if (!nothing) {
        pw_gather_end(server, conn);
        conn->sent_tick = server->ticks;
    }
    int32_t outcome = conn->failed ? PW_GONE : conn->output.borrowed;
    pthread_mutex_unlock(&server->lock);
    if (nothing)
        return outcome;
    conn->bytes += size;
    if (later)
        return what == 0 ? outcome : pw_response_fail(thread, what);
    if (pw_output_write(&conn->output, conn->fd, parts, count) == PW_IO_ERROR)
        what = PW_NOTICE_ERROR;
    else if ((flags & PW_FINISHED) == 0)
        what = pw_response_wait(server, conn);
    if (what != 0)
        return pw_response_fail(thread, what);
    outcome = conn->output.borrowed;
    if (conn->output.first != NULL) {
        pthread_mutex_lock(&server->lock);
        pw_gather_begin(server, conn);
        pthread_mutex_unlock(&server->lock);
    }
    return outcome;
}

int32_t pw_send_first(pw_thread *thread, const char *head, int64_t head_size, int64_t length,
                      int32_t head_flags, const char *data, int64_t size, int32_t flags)
{
    int32_t outcome = pw_send_head(thread, head, head_size, length, head_flags);
    if (outcome <= 0)
        return outcome == 0 ? PW_UNWANTED : outcome;
    return pw_send_data(thread, data, size, flags);
}

/* Takes the output back from the watcher, who may have found that the client is gone. */
static bool pw_response_has_failed(pw_thread *thread)
{
    pthread_mutex_lock(&thread->server->lock);
    pw_gather_end(thread->server, thread->conn);
    bool failed = thread->conn->failed;
    pthread_mutex_unlock(&thread->server->lock);
    return failed;
}

int32_t pw_send_file(pw_thread *thread, int32_t descriptor, int64_t offset, int64_t size)
{
    pw_conn *conn = thread->conn;
    if (pw_response_has_failed(thread))
        return PW_GONE;
    if (conn->no_content || size <= 0)
        return conn->output.borrowed;
    if (!pw_output_file(&conn->output, descriptor, (off_t)offset, (size_t)size))
        return PW_REFUSED;
    conn->bytes += size;
    return conn->output.borrowed;
}

/* The output is complete: it leaves now, or with others. */
static void pw_response_send_rest(pw_thread *thread, pw_conn *conn, bool may_wait)
{
    if (conn->failed || conn->output.first == NULL)
        return;
    pthread_mutex_lock(&thread->server->lock);
    conn->later = may_wait && pw_later_wants(thread, conn, 0);
    pthread_mutex_unlock(&thread->server->lock);
    bool progress = false;
    if (!conn->later && pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
        pw_response_fail(thread, PW_NOTICE_ERROR);
}

int32_t pw_send_end(pw_thread *thread, int32_t cut)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->conn;
    pw_response_has_failed(thread);
    if (cut) {
        /* No last chunk, or too few bytes: the client sees a message cut off. Where the end of the
         * connection is all that ends the content, only a reset can tell it. */
        conn->reset = conn->unframed || conn->failed;
        conn->close = true;
    } else if (conn->chunked && !conn->failed) {
        if (!pw_output_copy(&conn->output, "0\r\n\r\n", 5))
            pw_response_fail(thread, PW_NOTICE_ERROR);
    }
    pw_response_send_rest(thread, conn, cut == 0);
    int32_t borrowed = conn->failed ? 0 : conn->output.borrowed;
    pthread_mutex_lock(&server->lock);
    thread->conn = NULL;
    thread->request.sent = conn->bytes;
    pw_thread_log(thread, conn);
    if (borrowed > 0)
        pw_response_hold(thread, conn);
    if (conn->output.first != NULL)
        pw_conn_keep_line(thread, conn);
    conn->later &= server->holder == thread; /* or it may be asleep: it is woken for others alone */
    pw_conn_finished(server, conn);
    pw_loop_wake(server, false);
    pthread_mutex_unlock(&server->lock);
    return borrowed;
}

int64_t pw_finish(pw_thread *thread, int32_t cut)
{
    return pw_send_end(thread, cut) > 0 ? PW_HOLD : pw_next(thread);
}

int32_t pw_send_interim(pw_thread *thread, const char *head, int64_t head_size)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->conn;
    int32_t outcome = 0;
    bool progress = false;
    pthread_mutex_lock(&server->lock); /* before the head another thread may flush the output */
    if (conn == NULL || conn->failed)
        outcome = PW_GONE;
    else if (conn->started || conn->facts.minor == 0)
        outcome = 0;
    else if (!pw_output_copy(&conn->output, head, (size_t)head_size) || /* nobody keeps it for us */
             pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
        outcome = pw_response_fail_locked(thread, PW_NOTICE_ERROR);
    else
        outcome = conn->output.borrowed;
    pthread_mutex_unlock(&server->lock);
    return outcome;
}

int32_t pw_client_gone(pw_thread *thread)
{
    pw_conn *conn = thread->conn;
    if (conn == NULL)
        return 1;
    return pw_peer_has_left(conn->fd);
}
