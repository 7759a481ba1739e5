/*
 * When a response leaves. Usually at once: the call that hands it over writes it to the socket. What the
 * client does not take then leaves as soon as the client reads. Two kinds of output wait on purpose, so
 * that one system call sends what would need several.
 *
 * A whole response waits for the next one (pw_batch_waits), if the client's next request is here already:
 * the client has sent several together. The responses leave
 *
 *     when no further request of the client is complete, or its time slice is over (conn.c),
 *     with a response that does not wait itself, for it is large or would make more than PW_BATCH_MOST,
 *     or when the application takes long with the next request: the thread that takes the token,
 *     or runs the loop meanwhile, sends them (pw_batch_release).
 *
 * 16 responses at a time cost 2.9 us each so, and 7.7 us where each leaves alone.
 *
 * A part of a response waits for the parts after it (pw_batch_takes), if another one of this response has
 * left in the same tick. Each part has to be on its way while the application makes the next (PEP 3333,
 * "Buffering and Streaming"), so the watcher sends what waits at its next tick (pw_batch_flush): no part is
 * late by more than that. The watcher also goes on with what the client did not take at once. A stream of
 * 100 parts of 100 bytes costs 72 us so, and 580 us where each part leaves alone.
 *
 * Both rely on a watcher, which sends the bytes that wait. So nothing waits where no watcher is in pw_watch, as in
 * simple_server, nor a part while the watcher runs the loop, for then it counts no ticks.
 */
#include "batch.h"
#include "conn_close.h"
#include "output.h"
#include "queue.h"
#include "state.h"

#define PW_BATCH_MOST 16384    /* bytes that wait */
#define PW_BATCH_SLOW_TICKS 16 /* until the next try, with a client that takes nothing */

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
        return; /* from its head on the output is the thread's own: not even to be looked at */
    if (conn->output.first != NULL && conn->end != PW_CONN_FAILED &&
        pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
        pw_conn_ends(conn, PW_CONN_FAILED);
}
