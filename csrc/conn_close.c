/* The end of a connection: after an error response, in an orderly way, or by a reset. */
#include <errno.h>
#include <unistd.h>

#include "access.h"
#include "alloc.h"
#include "buffer.h"
#include "cache.h"
#include "conn_close.h"
#include "conn_pool.h"
#include "content.h"
#include "error_response.h"
#include "gauges.h"
#include "incident.h"
#include "listener.h"
#include "output.h"
#include "poller.h"
#include "queue.h"
#include "state.h"
#include "system.h"
#include "timer.h"

#define PW_LINGER_MOST ((int64_t)64 << 20)
#define PW_LINGER_MOST_MS 30000
/* A connection with more unacknowledged bytes is not closed yet. If the client sends bytes
 * meanwhile, a close would reset the connection, and the client's system would discard the
 * response. Fewer bytes reach the client before any byte of it can arrive here. */
#define PW_UNSENT_MOST 16384

void pw_conn_release_buffer(pw_server *server, pw_conn *conn)
{
    if (conn->in != NULL)
        pw_buffer_put(&server->pool, conn->in);
    conn->in = NULL;
    conn->used = 0;
    conn->progress = (pw_head_progress){0};
    if (server->parsed == conn)
        server->parsed = NULL; /* its spans were in the buffer */
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
    pw_news_add(server, conn->entry, PW_NEWS_ENTRY);
    conn->entry = -1;
}

void pw_conn_sent(pw_server *server, pw_conn *conn)
{
    if (conn->loan != 0)
        pw_news_add(server, conn->loan, PW_NEWS_SENT);
    conn->loan = 0;
    pw_output_close_spool(&conn->output);
    pw_free(conn->kept);
    conn->kept = NULL;
}

/* The poller does not report the connection any more. close(2) alone would leave it with the poller
 * while a forked child has the descriptor, too. */
static void conn_unpoll(pw_server *server, pw_conn *conn)
{
    if (conn->registered)
        pw_poll_remove(&server->poll, conn->fd);
    conn->registered = false;
}

/* Frees all that the connection holds, and takes it out of the server's list. */
static void conn_release(pw_server *server, pw_conn *conn)
{
    pw_bytes(server, conn);
    pw_timer_stop(&conn->timer);
    pw_output_free(&conn->output);
    pw_conn_sent(server, conn);
    pw_content_free(conn->content, &server->store);
    conn->content = NULL;
    pw_conn_release_buffer(server, conn);
    pw_conn_forget(server, conn);
    pw_free(conn->proxied);
    conn->proxied = NULL;
    if (conn->next != NULL)
        conn->next->previous = conn->previous;
    if (conn->previous != NULL)
        conn->previous->next = conn->next;
    else
        server->all = conn->next;
    pw_accept_count(server, -1);
}

static void conn_end(pw_server *server, pw_conn *conn, pw_ending ending)
{
    if (conn->state == PW_CONN_CLOSED)
        return;
    conn_unpoll(server, conn);
    pw_end_connection(conn->fd, conn->peer.any.sa_family, ending);
    server->idle_count -= conn->state == PW_CONN_IDLE;
    conn->state = PW_CONN_CLOSED;
    conn_release(server, conn);
    if (!conn->queued) /* else the loop finds it in the queue, and does this then */
        pw_conn_defer_free(server, conn);
    if (server->accept.paused)
        pw_accept_resume(server);
}

void pw_conn_close(pw_server *server, pw_conn *conn)
{
    bool cut = pw_conn_resets(conn) || conn->output.first != NULL;
    conn_end(server, conn, cut ? PW_ENDING_RESET : PW_ENDING_ORDERLY);
}

void pw_conn_leave(pw_server *server, pw_conn *conn)
{
    conn_end(server, conn, PW_ENDING_LEFT);
}

void pw_conn_detach(pw_server *server, pw_conn *conn)
{
    conn_unpoll(server, conn);
    conn_release(server, conn);
    conn->next = conn->previous = NULL;
    if (server->accept.paused)
        pw_accept_resume(server);
}

void pw_conn_attach(pw_server *server, pw_conn *conn)
{
    conn->next = server->all;
    if (server->all != NULL)
        server->all->previous = conn;
    server->all = conn;
    pw_accept_count(server, 1);
}

pw_step pw_conn_break_off(pw_server *server, pw_conn *conn)
{
    pw_output_free(&conn->output);
    pw_conn_sent(server, conn);
    pw_conn_ends(conn, PW_CONN_RESETS);
    return pw_conn_part(server, conn);
}

pw_step pw_conn_fail(pw_server *server, pw_conn *conn)
{
    bool is_ours = errno == ENODATA;
    pw_incident_conn(server, conn, PW_INCIDENT_ERROR, errno);
    if (is_ours)
        return pw_conn_break_off(server, conn);
    pw_conn_close(server, conn);
    return PW_STEP_WAIT;
}

/* ------------------------------------------------------------------ the end of a connection */

int pw_conn_unsent(const pw_conn *conn)
{
    return conn->peer.any.sa_family != AF_UNIX ? pw_unsent(conn->fd) : 0;
}

/*
 * RFC 9112 section 9.6: closing with unread bytes resets the connection, and so do bytes that the
 * client sends later. The client may then never see the response. So if there are unread bytes, or
 * many unacknowledged ones, the server shuts its side, and drops the client's bytes until the
 * client closes its side.
 *
 * A reset waits until the client has the bytes that were sent before it: earlier responses, and the
 * sent part of this one.
 */
pw_step pw_conn_part(pw_server *server, pw_conn *conn)
{
    int unsent = 0;
    if (pw_conn_resets(conn) ? !pw_peer_is_gone(conn->fd)
                             : conn->response.bytes > PW_UNSENT_MOST || conn->served > 1)
        unsent = pw_conn_unsent(conn); /* else few bytes, or the peer has disconnected */
    bool unread = pw_conn_unused(conn) > 0 || (conn->what & PW_READABLE) != 0;
    if (pw_conn_resets(conn) ? unsent == 0 : !unread && unsent <= PW_UNSENT_MOST) {
        pw_conn_close(server, conn);
        return PW_STEP_WAIT;
    }
    pw_conn_release_buffer(server, conn);
    server->idle_count -= conn->state == PW_CONN_IDLE;
    conn->state = PW_CONN_LINGER;
    conn->unsent = pw_unsent(conn->fd);
    conn->linger_left = PW_LINGER_MOST;
    conn->linger_until = server->timers.now + PW_LINGER_MOST_MS;
    if (pw_conn_resets(conn))
        conn->linger_until = server->timers.now + server->timers.length[PW_TIMER_WRITE];
    else
        shutdown(conn->fd, SHUT_WR);
    return PW_STEP_ON;
}

void pw_conn_refuse(pw_server *server, pw_conn *conn, pw_error error)
{
    char answer[PW_REFUSAL_MOST];
    bool is_reported = error == PW_E_STORAGE || error == PW_E_MEMORY;
    if (is_reported)
        pw_incident_conn(server, conn,
                         error == PW_E_STORAGE ? PW_INCIDENT_STORAGE : PW_INCIDENT_MEMORY, errno);
    if (server->meter != NULL)
        pw_count(&server->meter->refused[error], 1);
    pw_access_refusal(server, conn, pw_error_status(error));
    size_t size = pw_error_response(&server->clock, answer, error, conn->facts.is_head);
    pw_conn_ends(conn, PW_CONN_CLOSES);
    conn->what |= PW_READABLE; /* makes pw_conn_part choose PW_CONN_LINGER */
    conn->state = PW_CONN_SENDING;
    pw_content_free(conn->content, &server->store);
    conn->content = NULL;
    if (pw_output_copy(&conn->output, answer, size))
        return;
    if (!is_reported)
        pw_incident_conn(server, conn, PW_INCIDENT_MEMORY, ENOMEM);
    pw_conn_close(server, conn);
}

void pw_conn_refuse_waiting(pw_server *server, pw_conn *conn, pw_error error)
{
    if (conn->state != PW_CONN_CONTENT && conn->state != PW_CONN_READY) {
        server->parsed = NULL;
        server->head = (pw_head){.fields = server->fields};
    }
    pw_conn_refuse(server, conn, error);
    pw_timer_stop(&conn->timer);
    pw_run(server, conn, false);
}

bool pw_conn_is_served(const pw_conn *conn)
{
    return pw_conn_unsent(conn) <= PW_UNSENT_MOST;
}

int32_t pw_response_fail_locked(pw_thread *thread, int what)
{
    pw_conn *conn = thread->conn;
    if (conn->end != PW_CONN_FAILED)
        pw_incident_thread(thread, conn, what, errno);
    pw_conn_ends(conn, PW_CONN_FAILED);
    pw_output_free(&conn->output);
    return PW_GONE;
}
