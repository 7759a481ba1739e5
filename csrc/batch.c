/*
 * Data that a response in parts has not sent yet. Small data that an application hands over in quick
 * succession leave together; and what the client could not take at once goes on when it can. Each
 * part has to be on its way while the application makes the next (PEP 3333, "Buffering and
 * Streaming"): pw_watch sees to that. A stream of 100 parts of 100 bytes costs 72 us so, and 580 us where
 * each part leaves alone. No part is late by more than a tick.
 */
#include "batch.h"
#include "conn_close.h"
#include "output.h"
#include "queue.h"

#define PW_GATHER_MOST 16384    /* bytes that are gathered */
#define PW_GATHER_SLOW_TICKS 16 /* until the next try, with a client that takes nothing */
#define PW_WAITING_MOST 16384   /* bytes of answers that may wait for the next pipelined request */

void pw_gather_begin(pw_server *server, pw_conn *conn)
{
    if (!server->is_watched || server->stopped || conn->gathers)
        return;
    conn->gathers = true;
    conn->gather_due = server->ticks + 1;
    server->gathering++;
    if (server->watcher_sleeps)
        pthread_cond_signal(&server->watch);
    else if (server->holder == server->watcher)
        pw_loop_wake(server, true);
}

void pw_gather_end(pw_server *server, pw_conn *conn)
{
    if (conn->gathers)
        server->gathering--;
    conn->gathers = false;
}

bool pw_gather_wants(const pw_server *server, const pw_conn *conn, size_t size)
{
    /* The watcher counts no ticks while it runs the loop. */
    return server->watcher_is_here && !server->stopped && server->holder != server->watcher &&
           conn->sent_tick == server->ticks && conn->output.borrowed == 0 &&
           conn->output.size + (int64_t)size <= PW_GATHER_MOST;
}

void pw_gather_flush(pw_server *server, bool all)
{
    for (pw_thread *thread = server->threads; thread != NULL; thread = thread->next) {
        pw_conn *conn = thread->conn;
        if (conn == NULL || !conn->gathers || (!all && server->ticks < conn->gather_due))
            continue;
        bool progress = false;
        if (pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
            pw_response_fail_locked(thread, PW_NOTICE_ERROR);
        if (conn->output.first == NULL)
            pw_gather_end(server, conn);
        else
            conn->gather_due = server->ticks + (progress ? 1 : PW_GATHER_SLOW_TICKS);
        conn->sent_tick = server->ticks;
    }
}

/* A response that is to wait for those of the requests received with it: 16 at a time cost 2.9 us each so,
 * and 7.7 us where each leaves alone. Only where another thread can send it in case one of them takes
 * long: see pw_token_flush. */
bool pw_response_waits(const pw_server *server, const pw_conn *conn, size_t size)
{
    return conn->in != NULL && !conn->close && server->watcher_is_here && size <= PW_COPY_MOST &&
           conn->output.borrowed == 0 && conn->output.size + (int64_t)size <= PW_WAITING_MOST;
}

void pw_token_flush(pw_thread *thread)
{
    bool progress = false;
    pw_conn *conn = thread->conn;
    if (conn == NULL || conn->started)
        return; /* from its head on the output is the thread's own: not even to be looked at */
    if (conn->output.first != NULL && !conn->failed &&
        pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
        conn->failed = true;
}
