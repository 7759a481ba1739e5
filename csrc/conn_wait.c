/*
 * Waiting of connections: for the client, with a timer, or in `ready` for a thread. Also the end of
 * a wait, by a timeout or because the server drains.
 */
#include <errno.h>
#include <sys/socket.h>

#include "conn_close.h"
#include "conn_keep.h"
#include "conn_pool.h"
#include "conn_transfer.h"
#include "conn_wait.h"
#include "gauges.h"
#include "incident.h"
#include "poller.h"
#include "queue.h"
#include "recv.h"
#include "state.h"
#include "system.h"
#include "timer.h"

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
    if (server->meter != NULL) {
        pw_bytes_store(server, conn);
        pw_gauges_store(server);
    }
    if (conn->in != NULL)
        pw_conn_keep(server, conn);
    return PW_STEP_WAIT;
}

/* ------------------------------------------------------------------ a complete request */

pw_conn *pw_ready_pop(pw_server *server)
{
    pw_conn *conn;
    while ((conn = pw_ready_next(server)) != NULL) {
        if (pw_conn_defer_free(server, conn))
            continue;
        if ((conn->what & PW_GONE_AWAY) == 0)
            return conn;
        pw_conn_close(server, conn);
    }
    return NULL;
}

void pw_ready_expire(pw_server *server, const pw_conn *last, int why)
{
    pw_conn *conn;
    do { /* those before it have waited as long */
        conn = pw_ready_next(server);
        if (conn == NULL || pw_conn_defer_free(server, conn))
            continue;
        pw_incident_often(server, conn, why, &server->queue_reported_at);
        pw_conn_refuse_waiting(server, conn, PW_E_QUEUE);
    } while (conn != NULL && conn != last);
}

/* ------------------------------------------------------------------ a slow client, and the end */

/* Whether the client reads. The poller reports room to write in large steps, and a slow client
 * takes long for one step. */
static bool conn_reads(pw_conn *conn)
{
    int before = conn->unsent;
    conn->unsent = pw_unsent(conn->fd);
    return conn->unsent < before;
}

pw_step pw_conn_linger(pw_server *server, pw_conn *conn)
{
    if (pw_conn_resets(conn)) /* bytes of the client do not matter any more */
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

/* No byte has come for a while. Returns whether to wait longer. */
static bool conn_lingers_on(const pw_server *server, pw_conn *conn)
{
    bool reads = conn_reads(conn);
    if (!pw_conn_resets(conn))
        return reads && !server->draining && server->timers.now < conn->linger_until;
    if (reads)
        conn->linger_until = server->timers.now + server->timers.length[PW_TIMER_WRITE];
    return conn->unsent > 0 && server->timers.now < conn->linger_until &&
           !pw_peer_is_gone(conn->fd);
}

/* ------------------------------------------------------------------ an idle connection */

/* Whether there are no unread bytes. Events that are fetched later may report new ones. */
static bool conn_is_quiet(const pw_conn *conn)
{
    char unused;
    return recv(conn->fd, &unused, 1, MSG_PEEK | MSG_DONTWAIT) <= 0;
}

bool pw_conn_is_idle(pw_server *server, pw_conn *conn)
{
    if (conn->state != PW_CONN_IDLE || conn->queued || (conn->what & PW_READABLE) != 0)
        return false;
    if (conn_is_quiet(conn))
        return true;
    conn->what |= PW_READABLE;
    pw_run(server, conn, false);
    return false;
}

/*
 * A client that got a response a moment ago may be sending its next request now, and a close would
 * cross with it. So a connection that was in use within PW_TIMER_DRAIN is closed after that time
 * without a byte. (RFC 9112 section 9.5: a client may always find the connection closed; this
 * should be rare.)
 */
void pw_conn_drain(pw_server *server, pw_conn *conn)
{
    if (conn->state != PW_CONN_IDLE && conn->state != PW_CONN_LINGER &&
        conn->state != PW_CONN_PROXY)
        return;
    const pw_timer *timer = &conn->timer;
    bool idle = conn->state == PW_CONN_IDLE && timer->kind == PW_TIMER_KEEP_ALIVE;
    if (idle && !pw_transfer_is_open(server)) {
        int64_t since = timer->due - server->timers.length[PW_TIMER_KEEP_ALIVE];
        if (server->timers.now - since >= server->timers.length[PW_TIMER_DRAIN] &&
            conn_is_quiet(conn)) {
            pw_conn_close(server, conn);
            return;
        }
    }
    pw_run(server, conn, false); /* which starts another timer */
}

/* ------------------------------------------------------------------ timeouts */

void pw_conn_timeout(pw_server *server, pw_conn *conn)
{
    switch (conn->state) {
    case PW_CONN_READY:
    case PW_CONN_APP:
        if (conn->state == PW_CONN_READY && conn->timer.kind == PW_TIMER_QUEUE)
            pw_ready_expire(server, conn, PW_INCIDENT_QUEUE);
        else
            pw_timer_stop(&conn->timer); /* it was not stopped, because most requests are short */
        return;
    case PW_CONN_HEAD:
        pw_conn_refuse_waiting(server, conn, PW_E_HEAD_TIMEOUT);
        return;
    case PW_CONN_CONTENT:
        pw_conn_refuse_waiting(server, conn, PW_E_BODY_TIMEOUT);
        return;
    case PW_CONN_IDLE:
        if (conn_is_quiet(conn)) {
            if (pw_conn_part(server, conn) == PW_STEP_ON)
                pw_run(server, conn, false);
            return;
        }
        conn->what |= PW_READABLE; /* a request has just arrived */
        break;
    case PW_CONN_SENDING:
        if (conn_reads(conn)) {
            pw_timer_start(&server->timers, &conn->timer, PW_TIMER_WRITE);
            return;
        }
        pw_incident_conn(server, conn, PW_INCIDENT_WRITE_TIMEOUT, 0);
        pw_conn_close(server, conn);
        return;
    case PW_CONN_PROXY:
        if (conn->timer.kind != PW_TIMER_DRAIN || conn_is_quiet(conn)) {
            if (conn->timer.kind != PW_TIMER_DRAIN)
                pw_incident_proxy(server, conn, PW_INCIDENT_PROXY_TIMEOUT);
            pw_conn_close(server, conn);
            return;
        }
        conn->what |= PW_READABLE; /* a header has just arrived */
        break;
    case PW_CONN_LINGER:
        if (conn_lingers_on(server, conn))
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
