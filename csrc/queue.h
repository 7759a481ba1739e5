/*
 * The connections that go on, each in one queue at most, and the news for Python. Functions here
 * also wake the thread that has to go on with them.
 */
#ifndef PW_QUEUE_H
#define PW_QUEUE_H

#include "state.h"

/* Goes on with a connection soon: first or last of those that wait for it. */
void pw_run(pw_server *server, pw_conn *conn, bool first);
void pw_queue_push(pw_queue *queue, pw_conn *conn, bool first);
/* NULL: it is empty. */
pw_conn *pw_queue_pop(pw_queue *queue);

/*
 * One client cannot have all of the loop's time: when its connection has had so much since the poller
 * was last asked, its time slice is over: the poller is asked again first, and the others go on. While
 * the application takes little time a slice is many requests, whose responses leave together.
 */
#define PW_SLICE_REQUESTS 32
#define PW_SLICE_BYTES 262144 /* received, and sent as content */
#define PW_SLICE_MS 4

static inline bool pw_slice_is_over(const pw_server *server, const pw_conn *conn)
{
    return conn->slice_requests >= PW_SLICE_REQUESTS || conn->slice_bytes >= PW_SLICE_BYTES ||
           server->timers.now - conn->slice_since >= server->slice_ms;
}

/* Goes on with a connection that could go on now, but whose slice is over: after the others. */
void pw_slice_end(pw_server *server, pw_conn *conn);

/* Whether what is not over has to end now, because the server was stopped. */
bool pw_server_is_late(pw_server *server);
/* For pw_news. */
void pw_news_add(pw_server *server, int64_t value, int kind);

/* Another thread has, perhaps, given the loop something to do. */
void pw_loop_wake(pw_server *server, bool always);

#endif
