/*
 * Handing a connection to the application: see pw_detach in api.h.
 *
 * Who owns what. The application has a descriptor of its own, which it made and closes. The
 * connection's first descriptor stays in pw_conn.fd. With it the core shuts the connection when the
 * server stops, and ends it when the application has returned. So no number of a descriptor is used
 * after its owner may have closed it. The thread owns the pw_conn (pw_thread.detached), which is in
 * no list, no queue and no poller, until detached_end in exchange.c puts it back among the others
 * for its last state, PW_CONN_LINGER.
 */
#include <string.h>
#include <sys/socket.h>

#include "access.h"
#include "conn_close.h"
#include "exchange.h"
#include "incident.h"
#include "queue.h"
#include "state.h"
#include "system.h"

int64_t pw_unread(pw_thread *thread, int64_t exchange, char *to, int64_t most)
{
    pthread_mutex_lock(&thread->server->lock);
    int64_t size = PW_OVER;
    const pw_conn *conn = pw_turn_take(thread, exchange);
    if (conn != NULL) {
        size = (int64_t)pw_conn_unused(conn);
        int64_t copied = size < most ? size : most;
        if (copied > 0)
            memcpy(to, conn->in->data + conn->in->start + conn->used, (size_t)copied);
        pw_turn_give(thread);
    }
    pthread_mutex_unlock(&thread->server->lock);
    return size;
}

int32_t pw_family(pw_thread *thread, int64_t exchange)
{
    pthread_mutex_lock(&thread->server->lock);
    const pw_conn *conn = thread->request.exchange == exchange ? thread->conn : NULL;
    int32_t family = conn != NULL ? conn->peer.any.sa_family : PW_OVER;
    pthread_mutex_unlock(&thread->server->lock);
    return family;
}

/* Sends the earlier responses of the connection. With the lock, which it releases meanwhile, and with
 * the turn. Returns 0 or the incident. */
static int send_earlier(pw_server *server, pw_conn *conn)
{
    if (conn->output.first == NULL)
        return 0;
    conn->response.state = PW_RESPONSE_BEGUN; /* no other thread touches the output: batch.c */
    pthread_mutex_unlock(&server->lock);
    int what = pw_turn_wait(server, conn, 0);
    pthread_mutex_lock(&server->lock);
    conn->response.state = PW_RESPONSE_NONE;
    return what;
}

/* Returns 0, or why the connection cannot be taken. */
static int32_t check(pw_thread *thread, pw_conn *conn)
{
    if (conn->response.state != PW_RESPONSE_NONE)
        return PW_REFUSED;
    if (conn->end == PW_CONN_FAILED || thread->server->stopped || pw_peer_is_gone(conn->fd))
        return PW_GONE;
    int what = send_earlier(thread->server, conn);
    return what == 0 ? 0 : pw_response_fail_locked(thread, what);
}

/* The thread's exchange is over, and the core forgets its connection. */
static void detach(pw_thread *thread, bool keeps)
{
    pw_server *server = thread->server;
    pw_access_head(server, &thread->log, "", 0);
    thread->detached.exchange = thread->request.exchange;
    thread->detached.dropped = 0;
    thread->request.sent = 0;
    pw_conn *conn = pw_exchange_leave(thread);
    conn->response.status = 101;
    conn->response.bytes = 0;
    if (keeps) {
        pw_exchange_note(thread, conn);
        pw_conn_leave(server, conn);
    } else {
        pw_conn_detach(server, conn);
        thread->detached.conn = conn;
        server->threads.detached++;
        if (server->draining)
            shutdown(conn->fd, SHUT_RD);
    }
    pw_loop_wake(server, false);
}

int32_t pw_detach(pw_thread *thread, int64_t exchange, int32_t descriptor, int32_t keeps)
{
    pw_server *server = thread->server;
    pthread_mutex_lock(&server->lock);
    int32_t outcome = PW_OVER;
    pw_conn *conn = pw_turn_take(thread, exchange);
    if (conn != NULL) {
        outcome = check(thread, conn);
        if (outcome == 0 &&
            (!pw_set_blocking(conn->fd, true) || !pw_duplicate_to(conn->fd, descriptor)))
            outcome = pw_response_fail_locked(thread, PW_INCIDENT_ERROR);
        if (outcome == 0)
            detach(thread, keeps != 0);
        else
            pw_turn_give(thread);
    }
    pthread_mutex_unlock(&server->lock);
    return outcome;
}
