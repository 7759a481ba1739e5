/*
 * What a connection keeps in memory while it waits: what it has received and nobody has taken yet. It
 * comes from anybody, so there is a limit to it for all connections together, and past that some of
 * them have to go.
 */
#include "conn_keep.h"
#include "buffer.h"
#include "conn_close.h"
#include "incident.h"
#include "state.h"
#include "timer.h"

#define PW_LOOK_AT 32 /* connections, for the one that is to go next */
#define PW_GO_MOST 64 /* connections that go for one that comes */

static size_t conn_holds(const pw_conn *conn)
{
    return conn->in != NULL ? conn->in->size : 0;
}

/* It has to go on with less: a request that is not complete is refused, one that has not begun will not
 * be answered any more. */
static void conn_give_up(pw_server *server, pw_conn *conn)
{
    pw_incident_often(server, conn, PW_INCIDENT_HEADS, &server->told_heads);
    if (conn->state == PW_CONN_SENDING) {
        pw_conn_ends(conn, PW_CONN_CLOSES); /* RFC 9112 section 9.3.2: its client has to be ready */
        conn->what |= PW_READABLE;          /* so that the end is a lingering one */
    } else {
        pw_conn_refuse_waiting(server, conn, PW_E_HEAD_MEMORY);
    }
    pw_conn_release_buffer(server, conn);
}

/* Of those that have waited longest in this state the one that holds most, if more than `than` does. */
static pw_conn *conn_largest(pw_server *server, pw_timer_kind kind, pw_conn_state state,
                             pw_conn *than)
{
    pw_timer *timer = pw_timers_next(&server->timers, kind, NULL);
    for (int looks = 0; timer != NULL && looks < PW_LOOK_AT; looks++) {
        pw_conn *conn = pw_conn_of(timer);
        timer = pw_timers_next(&server->timers, kind, timer);
        if (conn->state != state)
            pw_timer_stop(&conn->timer); /* a request by now: see pw_conn_timeout */
        else if (conn_holds(conn) > (than != NULL ? conn_holds(than) : 0))
            than = conn;
    }
    return than;
}

/* The one that is to go next, or NULL. */
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
