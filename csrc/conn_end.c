/* A connection waits, or ends: with an answer that its client can read, in silence, or by a reset. */
#include <errno.h>
#include <unistd.h>

#include "server.h"

#define PW_LINGER_MOST ((int64_t)64 << 20) /* bytes thrown away before a client is cut off */
#define PW_LINGER_MOST_MS 30000
/* With more than this on its way a connection is not closed before the client has it: bytes that it
 * sends meanwhile would have its system throw that away. Less is there before anything comes back. */
#define PW_UNSENT_MOST 16384

void pw_conn_release_buffer(pw_server *server, pw_conn *conn)
{
    if (conn->in != NULL)
        pw_buffer_put(&server->pool, conn->in);
    conn->in = NULL;
    conn->used = 0;
    conn->progress = (pw_head_progress){0};
}

size_t pw_conn_unused(const pw_conn *conn)
{
    return conn->in != NULL ? conn->in->end - conn->in->start - conn->used : 0;
}

void pw_conn_forget(pw_server *server, pw_conn *conn)
{
    if (conn->entry < 0)
        return;
    pw_cache_release(&server->cache, conn->entry);
    pw_tell(server, conn->entry, PW_NEWS_ENTRY);
    conn->entry = -1;
}

void pw_conn_sent(pw_server *server, pw_conn *conn)
{
    if (conn->loan != 0)
        pw_tell(server, conn->loan, PW_NEWS_SENT);
    conn->loan = 0;
    pw_output_close_spool(&conn->output);
    pw_free(conn->line);
    conn->line = NULL;
}

static void pw_conn_end(pw_server *server, pw_conn *conn, pw_ending ending)
{
    if (conn->state == PW_CONN_CLOSED)
        return;
    /* close alone would leave it with the poller while a forked child has the descriptor, too. */
    if (conn->registered)
        pw_poll_remove(&server->poll, conn->fd);
    pw_end_connection(conn->fd, conn->peer.any.sa_family, ending);
    conn->state = PW_CONN_CLOSED;
    pw_timer_stop(&conn->timer);
    pw_output_free(&conn->output);
    pw_conn_sent(server, conn);
    pw_content_free(conn->content, &server->store);
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
    if (!conn->queued) { /* else pw_next finds it in the run queue, and defers the free */
        conn->run_next = server->dead;
        server->dead = conn;
    }
    if (server->paused)
        pw_accept_resume(server);
}

void pw_conn_close(pw_server *server, pw_conn *conn)
{
    bool cut = conn->reset || conn->output.first != NULL;
    pw_conn_end(server, conn, cut ? PW_ENDING_RESET : PW_ENDING_ORDERLY);
}

void pw_conn_leave(pw_server *server, pw_conn *conn)
{
    pw_conn_end(server, conn, PW_ENDING_LEFT);
}

pw_step pw_conn_break_off(pw_server *server, pw_conn *conn)
{
    pw_output_free(&conn->output);
    pw_conn_sent(server, conn);
    conn->reset = true;
    return pw_conn_part(server, conn);
}

pw_step pw_conn_fail(pw_server *server, pw_conn *conn)
{
    bool is_ours = errno == ENODATA; /* and the connection as good as before */
    pw_notice_conn(server, conn, PW_NOTICE_ERROR, errno);
    if (is_ours)
        return pw_conn_break_off(server, conn);
    pw_conn_close(server, conn);
    return PW_STEP_WAIT;
}

pw_step pw_conn_wait(pw_server *server, pw_conn *conn, pw_timer_kind kind, bool restart)
{
    int wants = (conn->what & PW_READABLE) != 0 ? 0 : PW_READABLE;
    if (conn->output.first != NULL)
        wants |= PW_WRITABLE;
    int error = 0;
    if (!conn->registered)
        error = pw_poll_add(&server->poll, conn->fd, conn, PW_POLL_EDGES);
    conn->registered |= error == 0;
    if (error == 0)
        error = pw_poll_want(&server->poll, conn->fd, conn, wants);
    if (error != 0) {
        errno = error;
        return pw_conn_fail(server, conn);
    }
    if (restart || conn->timer.kind != kind)
        pw_timer_start(&server->timers, &conn->timer, kind);
    if (conn->in != NULL)
        pw_conn_keep(server, conn);
    return PW_STEP_WAIT;
}

/* ------------------------------------------------------------------ the end of a connection */

/* How much is on its way that would be lost with a reset. */
static int pw_conn_unsent(const pw_conn *conn)
{
    return conn->peer.any.sa_family != AF_UNIX ? pw_unsent(conn->fd) : 0;
}

/* Room to write is told of in large steps; a client that reads slowly takes long for one. */
static bool pw_conn_reads(pw_conn *conn)
{
    int before = conn->unsent;
    conn->unsent = pw_unsent(conn->fd);
    return conn->unsent < before;
}

/*
 * RFC 9112 section 9.6: to close with bytes unread resets the connection, and so does what the client
 * sends later, and the client might never see what it was sent. So with bytes unread, or much on its
 * way, our side is shut, and the client's rest thrown away until it has closed its own.
 * Where the end is to be a reset, that waits until the client has what was sent before: other
 * responses, too, and the part that there is of this one.
 */
pw_step pw_conn_part(pw_server *server, pw_conn *conn)
{
    int unsent = 0;
    if (conn->reset ? !pw_peer_is_gone(conn->fd) : conn->bytes > PW_UNSENT_MOST || conn->served > 1)
        unsent = pw_conn_unsent(conn); /* or it cannot be much, or nobody is there to take it */
    bool unread = pw_conn_unused(conn) > 0 || (conn->what & PW_READABLE) != 0;
    if (conn->reset ? unsent == 0 : !unread && unsent <= PW_UNSENT_MOST) {
        pw_conn_close(server, conn);
        return PW_STEP_WAIT;
    }
    pw_conn_release_buffer(server, conn);
    conn->state = PW_CONN_LINGER;
    conn->unsent = pw_unsent(conn->fd);
    conn->linger_left = PW_LINGER_MOST;
    conn->linger_until = server->timers.now + PW_LINGER_MOST_MS;
    if (conn->reset)
        conn->linger_until = server->timers.now + server->timers.length[PW_TIMER_WRITE];
    else
        shutdown(conn->fd, SHUT_WR);
    return PW_STEP_ON;
}

pw_step pw_step_linger(pw_server *server, pw_conn *conn)
{
    if (conn->reset) /* what it sends does not matter any more */
        return pw_conn_wait(server, conn, PW_TIMER_RESET, false);
    bool progress = false;
    for (; (conn->what & PW_READABLE) != 0 && !pw_slice_is_over(server, conn); progress = true) {
        size_t got;
        pw_io outcome = pw_recv_into(conn, server->scratch, PW_SCRATCH_SIZE, &got);
        if (outcome == PW_IO_RETRY)
            break;
        conn->linger_left -= (int64_t)got;
        if (outcome != PW_IO_OK || conn->linger_left < 0 ||
            server->timers.now > conn->linger_until) {
            pw_conn_close(server, conn);
            return PW_STEP_WAIT;
        }
    }
    if (conn->what & PW_READABLE)
        pw_slice_end(server, conn);
    return pw_conn_wait(server, conn, server->draining ? PW_TIMER_DRAIN : PW_TIMER_LINGER,
                        progress);
}

/* Nothing has come for a while: whether there is still something to wait for. */
static bool pw_conn_lingers_on(const pw_server *server, pw_conn *conn)
{
    bool reads = pw_conn_reads(conn);
    if (!conn->reset)
        return reads && !server->draining && server->timers.now < conn->linger_until;
    if (reads)
        conn->linger_until = server->timers.now + server->timers.length[PW_TIMER_WRITE];
    return conn->unsent > 0 && server->timers.now < conn->linger_until &&
           !pw_peer_is_gone(conn->fd);
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
    pw_content_free(conn->content, &server->store);
    conn->content = NULL;
    if (pw_output_copy(&conn->output, answer, size))
        return;
    if (!is_told)
        pw_notice_conn(server, conn, PW_NOTICE_MEMORY, ENOMEM);
    pw_conn_close(server, conn);
}

void pw_conn_refuse_waiting(pw_server *server, pw_conn *conn, pw_error error)
{
    if (conn->state != PW_CONN_CONTENT && conn->state != PW_CONN_READY) {
        server->parsed = NULL;
        server->head = (pw_head){.fields = server->fields}; /* not to log that of another */
    }
    pw_conn_refuse(server, conn, error);
    pw_timer_stop(&conn->timer);
    pw_run(server, conn, false);
}

/* Whether nothing has come that nobody has read; events fetched later may say otherwise. */
static bool pw_conn_is_quiet(const pw_conn *conn)
{
    char unused;
    return recv(conn->fd, &unused, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

bool pw_conn_is_idle(pw_server *server, pw_conn *conn)
{
    if (conn->state != PW_CONN_IDLE || conn->queued || (conn->what & PW_READABLE) != 0)
        return false;
    if (pw_conn_is_quiet(conn))
        return true;
    conn->what |= PW_READABLE;
    pw_run(server, conn, false);
    return false;
}

bool pw_conn_is_served(const pw_conn *conn)
{
    return pw_conn_unsent(conn) <= PW_UNSENT_MOST;
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
    if (idle && !pw_handover_is_open(server)) {
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
        if (conn->state == PW_CONN_READY && conn->timer.kind == PW_TIMER_QUEUE)
            pw_ready_expire(server, conn);
        else
            pw_timer_stop(
                &conn->timer); /* left running because most requests are over in no time */
        return;
    case PW_CONN_HEAD:
        pw_conn_refuse_waiting(server, conn, PW_E_HEAD_TIMEOUT);
        return;
    case PW_CONN_CONTENT:
        pw_conn_refuse_waiting(server, conn, PW_E_BODY_TIMEOUT);
        return;
    case PW_CONN_IDLE:
        if (pw_conn_is_quiet(conn)) {
            if (pw_conn_part(server, conn) == PW_STEP_ON)
                pw_run(server, conn, false);
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
        if (pw_conn_lingers_on(server, conn))
            pw_timer_start(&server->timers, &conn->timer, conn->timer.kind);
        else
            pw_conn_close(server, conn);
        return;
    case PW_CONN_CLOSED:
        return;
    }
    pw_timer_stop(&conn->timer);
    pw_run(server, conn, false);
}
