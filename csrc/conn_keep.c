/*
 * The memory that connections keep while they wait: received bytes that no request has used yet.
 * They come from any client, so there is a limit for all connections together. Above it some of
 * them are refused.
 */
#include "conn_keep.h"
#include "buffer.h"
#include "conn_close.h"
#include "incident.h"
#include "state.h"
#include "timer.h"

#define PW_LOOK_AT 32 /* connections, to find the one to refuse */
#define PW_GO_MOST 64 /* connections refused at most for a new one */

static size_t conn_holds(const pw_conn *conn)
{
    return conn->in != NULL ? conn->in->size : 0;
}

/* Frees the connection's received bytes. Refuses an incomplete request, and does not answer one
 * that has not begun. */
static void conn_give_up(pw_server *server, pw_conn *conn)
{
    pw_incident_often(server, conn, PW_INCIDENT_HEADS, &server->heads_reported_at);
    if (conn->state == PW_CONN_SENDING) {
        pw_conn_ends(conn, PW_CONN_CLOSES);
        conn->what |= PW_READABLE; /* makes pw_conn_part choose PW_CONN_LINGER */
    } else if (conn->state == PW_CONN_PROXY) {
        pw_conn_close(server, conn); /* HTTP has not begun */
        return;
    } else {
        pw_conn_refuse_waiting(server, conn, PW_E_HEAD_MEMORY);
    }
    pw_conn_release_buffer(server, conn);
}

/* Of the connections that have waited longest in this state, returns the one that holds most, if it
 * holds more than `than`. */
static pw_conn *conn_largest(pw_server *server, pw_timer_kind kind, pw_conn_state state,
                             pw_conn *than)
{
    pw_timer *timer = pw_timers_next(&server->timers, kind, NULL);
    for (int looks = 0; timer != NULL && looks < PW_LOOK_AT; looks++) {
        pw_conn *conn = pw_conn_of(timer);
        timer = pw_timers_next(&server->timers, kind, timer);
        bool waits = conn->state == state ||
                     (state == PW_CONN_HEAD && conn->state == PW_CONN_PROXY); /* the same timer */
        if (!waits)
            pw_timer_stop(&conn->timer); /* it has a complete request: see pw_conn_timeout */
        else if (conn_holds(conn) > (than != NULL ? conn_holds(than) : 0))
            than = conn;
    }
    return than;
}

/* The connection to refuse next, or NULL. */
static pw_conn *conn_to_go(pw_server *server)
{
    pw_conn *conn = conn_largest(server, PW_TIMER_HEAD, PW_CONN_HEAD, NULL);
    conn = conn_largest(server, PW_TIMER_BODY, PW_CONN_CONTENT, conn);
    return conn_largest(server, PW_TIMER_WRITE, PW_CONN_SENDING, conn);
}

void pw_conn_keep(pw_server *server, pw_conn *conn)
{
    if (pw_buffer_trim(&server->pool, &conn->in) && server->parsed == conn)
        server->parsed = NULL; /* its spans have moved */
    for (int i = 0; i < PW_GO_MOST && server->pool.held > server->head_memory; i++) {
        pw_conn *other = conn_to_go(server);
        if (other == NULL)
            break;
        conn_give_up(server, other);
    }
    if (conn->in != NULL && server->pool.held > server->head_memory)
        conn_give_up(server, conn);
}

void pw_conn_keep_shortly(pw_server *server, pw_conn *conn)
{
    if (conn->in != NULL && server->pool.held > server->head_memory / 2)
        pw_conn_keep(server, conn);
}
