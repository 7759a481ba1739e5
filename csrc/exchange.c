/*
 * An exchange: one request that a thread has taken, and its response. It begins in pw_thread_take,
 * with a number that is never used again. For the thread it is over after pw_respond or
 * pw_send_end. Bytes that the client has not read by then belong to the connection, which continues
 * to send them.
 *
 * The turn to send. Several threads of the application may hand over parts, and one of them may do
 * so after the exchange is over, when the serving thread has another request. So every part names
 * its exchange. The thread that has the turn sends it. Threads take and give the turn under the
 * server's lock. While a thread has the turn, it alone uses the connection's output.
 *
 * The loan. Before Python hands bytes to the core it says that it keeps them (pw_request.lends),
 * and under which number. When the exchange is over for the thread, the connection has the loan
 * until no borrowed piece is left in its output. Only then the connection's next request begins. So
 * a connection has one loan at most, and PW_NEWS_SENT names the number of that loan, once.
 *
 * The application may take the connection (detach.c). Then the exchange is over, and the response
 * that the thread still hands over is ignored. The thread keeps the connection until the
 * application has returned: pw_exchange_ignore ends it.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "access.h"
#include "batch.h"
#include "clock.h"
#include "conn.h"
#include "conn_close.h"
#include "exchange.h"
#include "incident.h"
#include "queue.h"
#include "state.h"
#include "system.h"
#include "timer.h"

pw_conn *pw_turn_take(pw_thread *thread, int64_t exchange)
{
    while (thread->conn != NULL && thread->request.exchange == exchange && thread->sending)
        pthread_cond_wait(&thread->turn, &thread->server->lock);
    if (thread->conn == NULL || thread->request.exchange != exchange)
        return NULL;
    thread->sending = true;
    return thread->conn;
}

void pw_turn_give(pw_thread *thread)
{
    thread->sending = false;
    /* Wakes all threads. Some may wait for an exchange that is over,
     * and would not pass a signal on. */
    pthread_cond_broadcast(&thread->turn);
}

int pw_turn_wait(pw_server *server, pw_conn *conn, int64_t most)
{
    const int step = 100;     /* ms, the longest delay after a stop */
    int64_t since = pw_now(); /* a signal may end a step early */
    int unsent = pw_unsent(conn->fd);
    while (conn->output.size > most) {
        struct pollfd poll_fd = {.fd = conn->fd, .events = POLLOUT, .revents = 0};
        int ready = poll(&poll_fd, 1, step);
        if (ready < 0 && errno != EINTR)
            return PW_INCIDENT_ERROR;
        bool progress = false;
        if (ready > 0 && pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
            return PW_INCIDENT_ERROR;
        int before = unsent;
        unsent = pw_unsent(conn->fd);
        int64_t now = pw_now();
        if (progress || unsent < before)
            since = now;
        if (now - since >= server->timers.length[PW_TIMER_WRITE])
            return PW_INCIDENT_WRITE_TIMEOUT;
        if (pw_server_is_late(server))
            return PW_INCIDENT_STOP;
    }
    return 0;
}

static void count_response(pw_thread *thread, const pw_conn *conn, int64_t now_us)
{
    pw_meter *meter = thread->server->meter;
    int class = conn->response.status / 100 - 1;
    if (class < 0 || class >= PW_CLASSES)
        class = PW_CLASSES - 1; /* there is no response: an error of the server */
    pw_count(&meter->requests[pw_method_of(thread->line, thread->line_size)][class], 1);
    pw_histogram_add(&meter->duration, now_us - thread->arrived_us);
}

void pw_exchange_note(pw_thread *thread, const pw_conn *conn)
{
    if (!thread->server->is_timed)
        return;
    int64_t now_us = pw_microseconds();
    if (thread->server->meter != NULL)
        count_response(thread, conn, now_us);
    pw_access_response(thread, conn, now_us);
}

pw_conn *pw_exchange_leave(pw_thread *thread)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->conn;
    if (thread->request.content_file >= 0)
        close(thread->request.content_file);
    thread->request.content_file = -1;
    if (thread->request.lends) {
        thread->request.lends = 0;
        if (conn->output.borrowed > 0)
            conn->loan = thread->request.exchange;
        else
            pw_news_add(server, thread->request.exchange, PW_NEWS_SENT);
    }
    pw_batch_end(server, conn);
    thread->conn = NULL;
    if (thread->sending)
        pw_turn_give(thread);
    return conn;
}

void pw_exchange_end(pw_thread *thread)
{
    pw_server *server = thread->server;
    pw_conn_finished(server, pw_exchange_leave(thread));
    pw_loop_wake(server, false);
}

/* ------------------------------------------------------------------ a connection that was taken */

/* Ends it as the last response ends a connection: the client gets all bytes. */
static void detached_end(pw_thread *thread)
{
    pw_server *server = thread->server;
    pw_conn *conn = thread->detached.conn;
    if (conn == NULL)
        return;
    thread->detached.conn = NULL;
    server->threads.detached--;
    pw_exchange_note(thread, conn);
    pw_conn_attach(server, conn);
    pw_timers_tick(&server->timers);
    /* The application may have set it to block, and may still have it. */
    pw_set_blocking(conn->fd, false);
    pw_conn_ends(conn, PW_CONN_CLOSES);
    conn->what |= PW_READABLE; /* makes pw_conn_part choose PW_CONN_LINGER */
    if (server->stopped)
        pw_conn_close(server, conn);
    else if (pw_conn_part(server, conn) == PW_STEP_ON)
        pw_run(server, conn, false);
    pw_loop_wake(server, false);
}

void pw_exchange_ignore(pw_thread *thread)
{
    if (!pw_thread_is_detached(thread))
        return;
    if (thread->request.lends)
        pw_news_add(thread->server, thread->request.exchange, PW_NEWS_SENT);
    thread->request.lends = 0;
    detached_end(thread);
}

int32_t pw_exchange_drop(pw_thread *thread, int64_t exchange)
{
    if (!pw_exchange_is_detached(thread, exchange))
        return PW_OVER;
    return thread->detached.dropped++ < PW_DROPPED_MOST ? 0 : PW_UNWANTED;
}

int32_t pw_is_detached(pw_thread *thread, int64_t exchange)
{
    pthread_mutex_lock(&thread->server->lock);
    bool detached = pw_exchange_is_detached(thread, exchange);
    pthread_mutex_unlock(&thread->server->lock);
    return detached;
}

void pw_detached_end(pw_thread *thread, int64_t exchange)
{
    pthread_mutex_lock(&thread->server->lock);
    if (pw_exchange_is_detached(thread, exchange))
        detached_end(thread);
    pthread_mutex_unlock(&thread->server->lock);
}

/* ------------------------------------------------------------------ an exchange without an end */

void pw_exchange_abandon(pw_thread *thread)
{
    if (thread->conn == NULL) {
        pw_exchange_ignore(thread);
        return;
    }
    pw_conn *conn = pw_turn_take(thread, thread->request.exchange);
    if (conn == NULL)
        return;
    if (conn->end != PW_CONN_FAILED)
        pw_incident_thread(thread, conn, PW_INCIDENT_ABANDONED, 0);
    /* The response is cut off. The output of earlier responses is still sent. */
    pw_conn_ends(conn, conn->response.framing == PW_FRAMING_END ? PW_CONN_RESETS : PW_CONN_CLOSES);
    thread->request.sent = conn->response.bytes;
    if (thread->server->meter != NULL)
        count_response(thread, conn, pw_microseconds());
    pw_exchange_end(thread);
}

int64_t pw_thread_exchange(pw_thread *thread)
{
    pthread_mutex_lock(&thread->server->lock);
    int64_t exchange = thread->request.exchange;
    pthread_mutex_unlock(&thread->server->lock);
    return exchange;
}

/* ------------------------------------------------------------------ state of the exchange */

int64_t pw_content_missing(pw_thread *thread)
{
    pthread_mutex_lock(&thread->server->lock);
    const pw_conn *conn = thread->conn;
    int64_t missing = 0;
    if (conn != NULL && conn->response.state != PW_RESPONSE_NONE && conn->response.promised >= 0)
        missing = conn->response.promised - conn->response.bytes;
    pthread_mutex_unlock(&thread->server->lock);
    return missing;
}

int32_t pw_request_state(pw_thread *thread)
{
    int32_t state = PW_REQUEST_NONE;
    pthread_mutex_lock(&thread->server->lock);
    if (thread->conn != NULL)
        state =
            thread->conn->response.state != PW_RESPONSE_NONE ? PW_REQUEST_BEGUN : PW_REQUEST_WAITS;
    pthread_mutex_unlock(&thread->server->lock);
    return state;
}

int32_t pw_client_gone(pw_thread *thread)
{
    pthread_mutex_lock(&thread->server->lock);
    const pw_conn *conn = thread->conn;
    if (conn == NULL && pw_thread_is_detached(thread))
        conn = thread->detached.conn;
    bool gone = conn == NULL || conn->end == PW_CONN_FAILED || pw_peer_has_left(conn->fd);
    pthread_mutex_unlock(&thread->server->lock);
    return gone;
}

int32_t pw_check_client(pw_thread *thread, int64_t exchange)
{
    pthread_mutex_lock(&thread->server->lock);
    pw_conn *conn = thread->request.exchange == exchange ? thread->conn : NULL;
    int32_t outcome = 0;
    if (conn == NULL) {
        outcome = pw_exchange_drop(thread, exchange);
    } else if (conn->end == PW_CONN_FAILED || pw_peer_is_gone(conn->fd)) {
        outcome = PW_GONE;
    } else if (conn->facts.is_head || conn->response.framing == PW_FRAMING_NONE) {
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
