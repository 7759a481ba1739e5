/*
 * Cutting off responses that stream.
 *
 * The connection of a request in the application belongs to its thread, which may be blocked in the
 * application for any time, or in a write without the lock. So this file changes little of the
 * connection: under the server's lock it sets `end`, which other functions change and read only
 * with the lock too, and shuts the socket. It frees nothing and closes no descriptor. A thread that
 * writes gets an error from the system. A thread that calls the core later finds that the
 * connection has failed, and ends the exchange as if the client had disconnected.
 */
#include "cut.h"
#include "batch.h"
#include "clock.h"
#include "queue.h"
#include "state.h"
#include "system.h"

void pw_server_cut_streams(pw_server *server, int32_t grace_ms)
{
    int none = 0, before = atomic_load(&server->cut.grace);
    int grace = grace_ms > 0 ? grace_ms : 1;
    if (!atomic_compare_exchange_strong(&server->cut.grace, &none, grace))
        while (grace < before && !atomic_compare_exchange_weak(&server->cut.grace, &before, grace))
            continue;
    pthread_mutex_lock(&server->lock);
    server->cut.looked_at = 0;
    pthread_cond_signal(&server->watch.wake);
    pthread_mutex_unlock(&server->lock);
    pw_server_wake(server); /* the watcher may run the loop */
}

static bool is_cut(const pw_thread *thread)
{
    return thread->conn != NULL && thread->cut_exchange == thread->request.exchange;
}

/* Whether the application has begun the response of its request and has not handed over all of it. */
static bool streams(const pw_thread *thread)
{
    const pw_conn *conn = thread->conn;
    if (conn == NULL || conn->response.state == PW_RESPONSE_NONE ||
        conn->response.framing == PW_FRAMING_NONE || conn->end == PW_CONN_FAILED)
        return false;
    return conn->response.promised < 0 || conn->response.bytes < conn->response.promised;
}

static void cut(pw_server *server, pw_thread *thread)
{
    pw_conn *conn = thread->conn;
    bool by_end = conn->response.framing == PW_FRAMING_END;
    thread->cut_exchange = thread->request.exchange;
    server->cut.at = pw_now();
    if (!thread->sending)
        pw_batch_end(server, conn);
    pw_conn_ends(conn, PW_CONN_FAILED);
    pw_shut_connection(conn->fd, conn->peer.any.sa_family,
                       by_end ? PW_ENDING_RESET : PW_ENDING_ORDERLY);
}

void pw_cut_look(pw_server *server)
{
    bool any = false;
    for (pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next) {
        bool begun = streams(thread);
        if (begun && thread->begun_exchange == thread->request.exchange)
            cut(server, thread);
        thread->begun_exchange = begun ? thread->request.exchange : 0;
        any |= is_cut(thread);
    }
    if (any)
        pw_loop_wake(server, true); /* the drain may be over */
}

bool pw_cut_is_over(const pw_server *server, const pw_thread *thread)
{
    return is_cut(thread) && pw_now() - server->cut.at >= atomic_load(&server->cut.grace);
}

int32_t pw_server_open(pw_server *server)
{
    int32_t count = 0;
    pthread_mutex_lock(&server->lock);
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next)
        count += conn->state != PW_CONN_IDLE && conn->state != PW_CONN_LINGER &&
                 conn->state != PW_CONN_CLOSED;
    for (const pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next)
        count -= is_cut(thread);
    pthread_mutex_unlock(&server->lock);
    return count;
}
