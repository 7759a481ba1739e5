/*
 * When a response leaves. Usually at once: the call that hands it over writes it to the socket.
 * Bytes that the socket does not take leave when the client reads. Two kinds of output wait on
 * purpose, so that one system call sends what would need several.
 *
 * A whole response waits for the next one (pw_batch_waits) if the client's next request is already
 * here: the client has sent several requests together. The responses leave
 *
 *     when no further request of the client is complete, or its time slice is over (conn.c),
 *     with a response that does not wait, because it is large or would exceed PW_BATCH_MOST,
 *     or when the application takes long with the next request: the thread that takes the token,
 *     or that runs the loop meanwhile, sends them (pw_batch_release).
 *
 * 16 responses in one call cost 2.9 us each, and 7.7 us each in calls of their own.
 *
 * A part of a response waits for the next parts (pw_batch_takes) if another part of this response
 * has left in the same tick. The server has to send each part while the application makes the next
 * (PEP 3333, "Buffering and Streaming"), so the watcher sends the waiting bytes at its next tick
 * (pw_batch_flush): no part is late by more than that. The watcher also continues with bytes that
 * the socket did not take. A stream of 100 parts of 100 bytes costs 72 us, and 580 us if each part
 * leaves alone.
 *
 * Both rely on a watcher, which sends the waiting bytes. So nothing waits if no thread is in
 * pw_watch, as in simple_server. No part waits while the watcher runs the loop, because then it
 * counts no ticks.
 */
#include "batch.h"
#include "conn_close.h"
#include "output.h"
#include "queue.h"
#include "state.h"

#define PW_BATCH_MOST 16384    /* bytes that wait */
#define PW_BATCH_SLOW_TICKS 16 /* between two tries with a client that reads nothing */

void pw_batch_begin(pw_server *server, pw_conn *conn)
{
    if (!server->watch.has_begun || server->stopped || conn->response.state == PW_RESPONSE_BATCHED)
        return;
    conn->response.state = PW_RESPONSE_BATCHED;
    conn->response.batch_due = server->watch.ticks + 1;
    server->batch.count++;
    if (server->watch.sleeps)
        pthread_cond_signal(&server->watch.wake);
    else if (server->token.holder == server->watch.thread)
        pw_loop_wake(server, true);
}

void pw_batch_end(pw_server *server, pw_conn *conn)
{
    if (conn->response.state != PW_RESPONSE_BATCHED)
        return;
    conn->response.state = PW_RESPONSE_BEGUN;
    server->batch.count--;
}

bool pw_batch_takes(const pw_server *server, const pw_conn *conn, size_t size)
{
    /* The watcher counts no ticks while it runs the loop. */
    return server->watch.is_here && !server->stopped &&
           server->token.holder != server->watch.thread &&
           conn->response.sent_tick == server->watch.ticks && conn->output.borrowed == 0 &&
           conn->output.size + (int64_t)size <= PW_BATCH_MOST;
}

void pw_batch_flush(pw_server *server, bool all)
{
    for (pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next) {
        pw_conn *conn = thread->conn;
        if (conn == NULL || conn->response.state != PW_RESPONSE_BATCHED ||
            (!all && server->watch.ticks < conn->response.batch_due))
            continue;
        bool progress = false;
        if (pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
            pw_response_fail_locked(thread, PW_INCIDENT_ERROR);
        if (conn->output.first == NULL)
            pw_batch_end(server, conn);
        else
            conn->response.batch_due = server->watch.ticks + (progress ? 1 : PW_BATCH_SLOW_TICKS);
        conn->response.sent_tick = server->watch.ticks;
    }
}

bool pw_batch_waits(const pw_server *server, const pw_conn *conn, size_t size)
{
    bool more = conn->in != NULL && conn->in->end > conn->in->start;
    return more && conn->end == PW_CONN_STAYS && server->watch.is_here && size <= PW_COPY_MOST &&
           conn->output.borrowed == 0 && conn->output.size + (int64_t)size <= PW_BATCH_MOST;
}

void pw_batch_release(pw_thread *thread)
{
    bool progress = false;
    pw_conn *conn = thread->conn;
    if (conn == NULL || conn->response.state != PW_RESPONSE_NONE)
        return; /* from its head on, another thread may be using the output */
    if (conn->output.first != NULL && conn->end != PW_CONN_FAILED &&
        pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
        pw_conn_ends(conn, PW_CONN_FAILED);
}
