/*
 * The queues of connections that the loop drives next, the messages for Python (news), and the
 * functions that wake the thread that runs the loop.
 */
#include <errno.h>
#include <unistd.h>

#include "alloc.h"
#include "clock.h"
#include "queue.h"
#include "timer.h"

pw_conn *pw_queue_pop(pw_queue *queue)
{
    pw_conn *conn = queue->first;
    if (conn == NULL)
        return NULL;
    queue->first = conn->run_next;
    if (queue->first == NULL)
        queue->last = NULL;
    conn->run_next = NULL;
    conn->queued = false;
    return conn;
}

void pw_queue_push(pw_queue *queue, pw_conn *conn, bool first)
{
    conn->queued = true;
    conn->run_next = first ? queue->first : NULL;
    if (queue->first == NULL) {
        queue->first = queue->last = conn;
    } else if (first) {
        queue->first = conn;
    } else {
        queue->last->run_next = conn;
        queue->last = conn;
    }
}

void pw_run(pw_server *server, pw_conn *conn, bool first)
{
    if (!conn->queued && conn->state != PW_CONN_APP && conn->state != PW_CONN_CLOSED)
        pw_queue_push(&server->run, conn, first);
}

void pw_slice_end(pw_server *server, pw_conn *conn)
{
    if (!conn->queued && conn->state != PW_CONN_APP && conn->state != PW_CONN_CLOSED)
        pw_queue_push(&server->spent, conn, false);
}

/* ------------------------------------------------------------------ news */

void pw_news_add(pw_server *server, int64_t value, int kind)
{
    if (server->news_count == server->news_room) {
        size_t room = server->news_room == 0 ? 64 : server->news_room * 2;
        int64_t *news = pw_realloc(server->news, room * sizeof *news);
        if (news == NULL)
            return; /* out of memory: Python keeps the object until the server ends */
        server->news = news;
        server->news_room = room;
    }
    server->news[server->news_count++] = value << PW_NEWS_SHIFT | kind;
}

int64_t pw_news(pw_thread *thread)
{
    pw_server *server = thread->server;
    pthread_mutex_lock(&server->lock);
    if (server->news_said < 0 && server->news_count > 0)
        server->news_said = server->news[--server->news_count];
    int64_t news = server->news_said;
    pthread_mutex_unlock(&server->lock);
    return news;
}

void pw_news_done(pw_thread *thread)
{
    pthread_mutex_lock(&thread->server->lock);
    thread->server->news_said = -1;
    pthread_mutex_unlock(&thread->server->lock);
}

/* ------------------------------------------------------------------ the thread that waits */

void pw_server_wake(pw_server *server)
{
    int saved = errno;
    /* A full pipe wakes the thread, too. */
    if (write(server->wake[1], "", 1) < 0)
        errno = saved; /* a forked child has no pipe */
}

static bool poll_ends_after(const pw_server *server, int64_t due)
{
    return server->polling_until < 0 || due < server->polling_until;
}

void pw_loop_wake(pw_server *server, bool always)
{
    if (!server->polling)
        return;
    int64_t wait = pw_timers_wait(&server->timers);
    bool sooner = (wait >= 0 && poll_ends_after(server, server->timers.now + wait)) ||
                  (server->access.due != 0 && poll_ends_after(server, server->access.due));
    if (!always && server->run.first == NULL && server->news_count == 0 && !sooner)
        return;
    pw_server_wake(server);
}

int64_t pw_server_requests(pw_server *server)
{
    return atomic_load_explicit(&server->requests, memory_order_relaxed);
}

bool pw_server_is_late(pw_server *server)
{
    int stops = atomic_load(&server->stopping);
    if (stops == 0)
        return false;
    int64_t now = pw_now();
    int64_t none = 0;
    atomic_compare_exchange_strong(&server->drain_until, &none, now + server->timeout_graceful);
    return stops == PW_END || now >= atomic_load(&server->drain_until);
}
