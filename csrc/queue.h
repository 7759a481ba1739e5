/*
 * The queues of connections that the loop drives next, the messages for Python (news), and the
 * functions that wake the thread that runs the loop. A connection is in one queue at most.
 */
#ifndef PW_QUEUE_H
#define PW_QUEUE_H

#include "state.h"

/* Puts a connection into the run queue, as the first or the last one. */
void pw_run(pw_server *server, pw_conn *conn, bool first);
void pw_queue_push(pw_queue *queue, pw_conn *conn, bool first);
/* NULL: the queue is empty. */
pw_conn *pw_queue_pop(pw_queue *queue);

/* The same for `ready`, whose connections are counted. */
static inline void pw_ready_push(pw_server *server, pw_conn *conn)
{
    pw_queue_push(&server->ready, conn, false);
    server->ready_count++;
}

static inline pw_conn *pw_ready_next(pw_server *server)
{
    pw_conn *conn = pw_queue_pop(&server->ready);
    if (conn != NULL)
        server->ready_count--;
    return conn;
}

/*
 * One client must not take all of the loop's time. A connection's time slice ends when it has used
 * this much since the last poll. The loop then polls and drives the other connections first. While
 * the application is fast, a slice is many requests, whose responses leave together.
 */
#define PW_SLICE_REQUESTS 32
#define PW_SLICE_BYTES 262144 /* received bytes and sent content */
#define PW_SLICE_MS 4

static inline bool pw_slice_is_over(const pw_server *server, const pw_conn *conn)
{
    return conn->slice_requests >= PW_SLICE_REQUESTS || conn->slice_bytes >= PW_SLICE_BYTES ||
           server->timers.now - conn->slice_since >= server->slice_ms;
}

/* Ends the slice of a connection that could continue: the loop drives the others first. */
void pw_slice_end(pw_server *server, pw_conn *conn);

/* Whether the server was stopped, and its time to finish is over. */
bool pw_server_is_late(pw_server *server);
/* Adds a message for pw_news. */
void pw_news_add(pw_server *server, int64_t value, int kind);

/* Wakes the thread that waits for events if there is work for the loop: a queued connection, a
 * message, or a timer or a line of the access log that is due earlier. always: in any case. Other
 * deadlines of the wait (poll_timeout in loop.c) change only in the thread that waits, or with
 * `always`. */
void pw_loop_wake(pw_server *server, bool always);

#endif
