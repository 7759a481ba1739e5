/*
 * Accepting of new connections, in batches. It pauses while there is no room, or while it is
 * another server's turn. At the maximum of connections, the one that has been idle longest is
 * closed for a new one.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "accept.h"
#include "alloc.h"
#include "conn_balance.h"
#include "conn_close.h"
#include "conn_pool.h"
#include "conn_transfer.h"
#include "conn_wait.h"
#include "incident.h"
#include "listener.h"
#include "queue.h"
#include "state.h"
#include "system.h"
#include "timer.h"
#include "trust.h"

#define PW_BATCH 64
#define PW_LOOK_AT 32 /* idle connections, for one that can go */
#define PW_IDLE_MS 100
#define PW_ASIDE_MS 8 /* how long this server leaves new connections to the others at first */
#define PW_ASIDE_MOST_MS 128
#define PW_ASIDE_LOOKS 8 /* how often it compares again during that time */

/* NULL: out of memory, and the connection is closed. */
static pw_conn *conn_new(pw_server *server, int fd, const struct sockaddr_storage *peer,
                         uint8_t listener, bool awaits_proxy)
{
    pw_conn *conn = pw_conn_take(server);
    if (conn == NULL) {
        pw_incident_lost(server);
        pw_end_connection(fd, peer->ss_family, PW_ENDING_ORDERLY);
        return NULL;
    }
    conn->fd = fd;
    conn->id = server->next_id++;
    conn->listener = listener;
    conn->entry = -1;
    conn->timer.kind = PW_TIMER_NONE;
    conn->state = awaits_proxy ? PW_CONN_PROXY : PW_CONN_IDLE;
    server->idle_count += conn->state == PW_CONN_IDLE;
    conn->what = PW_READABLE; /* most clients have sent bytes already */
    switch (peer->ss_family) {
    case AF_INET:
        memcpy(&conn->peer.v4, peer, sizeof conn->peer.v4);
        break;
    case AF_INET6:
        memcpy(&conn->peer.v6, peer, sizeof conn->peer.v6);
        break;
    default:
        conn->peer.any.sa_family = AF_UNIX;
    }
    pw_address address = pw_address_of(&conn->peer.any);
    conn->trusted = pw_trusts(&server->trust, &address);
    pw_conn_attach(server, conn);
    pw_run(server, conn, false);
    return conn;
}

/* A connection that another process has accepted, and from which it may have read a PROXY header. */
static void conn_resume(pw_server *server, int fd, const struct sockaddr_storage *peer,
                        const pw_transferred *from)
{
    pw_conn *conn = conn_new(server, fd, peer, from->listener, from->awaits_proxy);
    if (conn == NULL || !from->is_proxied)
        return;
    conn->proxied = pw_alloc(sizeof *conn->proxied);
    if (conn->proxied == NULL) {
        pw_incident_lost(server);
        pw_conn_close(server, conn);
        return;
    }
    *conn->proxied = from->proxied;
    conn->trusted = pw_trusts(&server->trust, &conn->proxied->source);
}

/* The connection that has been idle longest, or NULL. One whose client is still reading is returned
 * only if all of them are. */
static pw_conn *accept_longest_idle(pw_server *server)
{
    pw_conn *reading = NULL;
    pw_timer *timer = pw_timers_next(&server->timers, PW_TIMER_KEEP_ALIVE, NULL);
    for (int looks = 0; timer != NULL && looks < PW_LOOK_AT; looks++) {
        pw_conn *conn = pw_conn_of(timer);
        timer = pw_timers_next(&server->timers, PW_TIMER_KEEP_ALIVE, timer);
        if (conn->state == PW_CONN_READY || conn->state == PW_CONN_APP) {
            pw_timer_stop(&conn->timer); /* as in pw_conn_timeout */
        } else if (pw_conn_is_idle(server, conn)) {
            if (pw_conn_is_served(conn))
                return conn;
            reading = reading == NULL ? conn : reading;
        }
    }
    return reading;
}

/* The time from which the connection may be closed for a new one, in ms. */
static int64_t accept_may_go(const pw_server *server, const pw_conn *conn)
{
    return conn->timer.due - server->timers.length[PW_TIMER_KEEP_ALIVE] + PW_IDLE_MS;
}

/* The outcome of making room for one more connection at the maximum. */
typedef enum {
    PW_ROOM_MADE,
    PW_ROOM_UNWANTED, /* no connection waits to be accepted, so none was closed */
    PW_ROOM_NONE,     /* resume_at is when there may be room */
} pw_room;

static pw_room accept_make_room(pw_server *server, const pw_listener *listener)
{
    if (!pw_listener_has_waiting(listener))
        return PW_ROOM_UNWANTED;
    pw_conn *conn = server->draining ? NULL : accept_longest_idle(server);
    if (conn == NULL)
        return PW_ROOM_NONE;
    server->accept.resume_at = accept_may_go(server, conn);
    if (server->accept.resume_at > server->timers.now)
        return PW_ROOM_NONE;
    server->accept.resume_at = 0;
    pw_conn_close(server, conn);
    return PW_ROOM_MADE;
}

void pw_accept_look(pw_server *server)
{
    if (server->accept.resume_at != 0 || server->draining)
        return;
    pw_conn *conn = accept_longest_idle(server);
    if (conn != NULL)
        server->accept.resume_at = accept_may_go(server, conn);
}

static bool accept_is_ahead(const pw_server *server)
{
    return server->accept.place != NULL &&
           pw_balance_is_ahead(server->accept.balance, server->accept.place);
}

/* Stops accepting for a while: new connections wake the other servers. */
static void accept_step_aside(pw_server *server)
{
    if (server->accept.paused || server->accept.aside || server->draining)
        return;
    server->accept.aside = true;
    server->accept.aside_ms = PW_ASIDE_MS;
    server->accept.aside_until = server->timers.now + PW_ASIDE_MS;
    pw_accept_unlisten(server);
}

static void accept_step_back(pw_server *server)
{
    server->accept.aside = false;
    server->accept.turn = 1;
    if (!server->accept.paused && !server->draining)
        pw_accept_listen(server);
}

static bool accept_is_busier(const pw_server *server)
{
    return server->accept.place != NULL &&
           pw_balance_is_busier(server->accept.balance, server->accept.place);
}

int pw_accept_timeout(pw_server *server)
{
    if (accept_is_busier(server))
        accept_step_aside(server);
    else if (server->accept.aside && !accept_is_ahead(server))
        accept_step_back(server);
    return server->accept.aside ? server->accept.aside_ms / PW_ASIDE_LOOKS : -1;
}

void pw_accept_leave(pw_server *server)
{
    if (server->accept.place != NULL)
        pw_balance_leave(server->accept.place);
    server->accept.place = NULL;
    server->accept.aside = false;
}

/* Returns whether there was a connection. Otherwise errno says why there is none. */
static bool accept_one(pw_server *server, const pw_listener *listener)
{
    struct sockaddr_storage peer;
    peer.ss_family = AF_UNSPEC;
    uint8_t number = (uint8_t)(listener - server->accept.listeners);
    if (listener->is_channel) {
        pw_transferred more;
        int fd = pw_transfer_receive(listener->fd, &peer, &more, number);
        if (fd >= 0)
            conn_resume(server, fd, &peer, &more);
        return fd >= 0;
    }
    socklen_t size = sizeof peer;
    int fd = pw_accept_from(listener->fd, &peer, &size);
    if (fd < 0)
        return false;
    if (server->meter != NULL)
        pw_count(&server->meter->accepted, 1);
    conn_new(server, fd, &peer, number, server->proxy_protocol);
    return true;
}

/* Accepts `most` new connections at most, and puts them into the run queue. Returns whether no more
 * connections wait now. */
static bool accept_some(pw_server *server, pw_listener *listener, int most)
{
    for (int i = 0; i < most; i++) {
        if (server->conn_count >= server->accept.max_connections) {
            pw_room room = accept_make_room(server, listener);
            if (room == PW_ROOM_NONE)
                pw_accept_pause(server);
            if (room != PW_ROOM_MADE)
                return room == PW_ROOM_UNWANTED;
        }
        if (accept_one(server, listener))
            continue;
        switch (errno) {
        case 0:
            listener->is_over = true;
            pw_listener_unpoll(server, listener);
            return true;
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            pw_accept_pause(server);
            server->accept.resume_at = server->timers.now + PW_PAUSE_MS;
            return false;
        case ECONNABORTED:
        case EINTR:
        case EPROTO:
        case EPERM:
            continue; /* the client has gone, the next connection may be good */
        default:
            return true; /* EAGAIN: no more; the other errors of the socket are permanent */
        }
    }
    return false;
}

void pw_accept_event(pw_server *server, pw_listener *listener)
{
    accept_some(server, listener, server->accept.place == NULL ? PW_BATCH : server->accept.turn);
    if (accept_is_ahead(server))
        accept_step_aside(server);
}

/* The connections still wait, so the others are stuck: takes twice as many of them each time. */
static bool accept_for_others(pw_server *server)
{
    bool any = false;
    for (int i = 0; i < server->accept.listener_count && server->accept.aside; i++) {
        pw_listener *listener = &server->accept.listeners[i];
        if (listener->is_over || !pw_listener_has_waiting(listener))
            continue;
        if (!any)
            server->accept.turn =
                server->accept.turn < PW_BATCH ? server->accept.turn * 2 : PW_BATCH;
        any = true;
        accept_some(server, listener, server->accept.turn);
    }
    return any;
}

void pw_accept_waited(pw_server *server)
{
    if (!server->accept.aside || server->draining ||
        server->timers.now < server->accept.aside_until)
        return;
    if (accept_for_others(server)) {
        server->accept.aside_ms = PW_ASIDE_MS;
    } else if (!accept_is_busier(server)) {
        accept_step_back(server); /* a server without requests need not look again */
        return;
    } else if (server->accept.aside_ms < PW_ASIDE_MOST_MS) {
        server->accept.aside_ms *= 2;
    }
    server->accept.aside_until = server->timers.now + server->accept.aside_ms;
}

/* ------------------------------------------------------------------ while the server drains */

void pw_accept_drain(pw_server *server)
{
    for (int i = 0; i < server->accept.listener_count; i++) {
        pw_listener *listener = &server->accept.listeners[i];
        if (listener->fd < 0)
            continue;
        /* Connections that wait in an open channel are for the next process, which also gets those
         * that this one hands over there. */
        bool done = listener->is_channel && pw_transfer_is_open(server);
        /* The system may have woken only this process for a connection. So this process accepts
         * what waits first, even if others accept too. At the maximum of connections it was not
         * woken, but without a free descriptor it may have been. */
        if (!done && !server->accept.paused)
            done = accept_some(server, listener, INT_MAX);
        if (!done && server->accept.paused) {
            bool others_accept =
                atomic_load(&server->stopping) == PW_LEAVE && server->accept.resume_at == 0;
            done = others_accept || !pw_listener_has_waiting(listener);
        }
        if (done)
            pw_listener_close(server, listener);
    }
}
