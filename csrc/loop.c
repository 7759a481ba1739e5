/* The event loop: it drives the connections that can continue until one has a complete request. If
 * none can continue, it waits for events. */
#include <unistd.h>

#include "accept.h"
#include "access.h"
#include "batch.h"
#include "clock.h"
#include "conn.h"
#include "conn_close.h"
#include "conn_keep.h"
#include "conn_pool.h"
#include "conn_wait.h"
#include "gauges.h"
#include "incident.h"
#include "listener.h"
#include "loop.h"
#include "output.h"
#include "poller.h"
#include "queue.h"
#include "request.h"
#include "state.h"
#include "timer.h"
#include "token.h"

void pw_loop_clear(pw_server *server)
{
    for (pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next) {
        thread->conn = NULL; /* the thread never came back with it */
        if (thread->detached.conn != NULL)
            pw_conn_attach(server, thread->detached.conn);
        thread->detached.conn = NULL;
    }
    while (server->all != NULL)
        pw_conn_close(server, server->all);
    pw_queue *const queues[] = {&server->run, &server->again, &server->spent, &server->ready};
    for (size_t i = 0; i < sizeof queues / sizeof queues[0]; i++)
        for (pw_conn *conn; (conn = pw_queue_pop(queues[i])) != NULL;)
            pw_conn_defer_free(server, conn);
    server->ready_count = 0;
    pw_reap(server);
    pw_conn_free_spare(server);
}

/* ------------------------------------------------------------------ draining and the end */

/* Shuts the connections that the application has taken. With SHUT_RD it reads the end of the
 * client's bytes, and can still send. */
static void detached_shut(pw_server *server, int how)
{
    for (pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next)
        if (thread->detached.conn != NULL)
            shutdown(thread->detached.conn->fd, how);
}

/* Does what pw_server_stop has requested. */
static void server_drain(pw_server *server)
{
    if (atomic_load(&server->stopping) == 0)
        return;
    bool begins = !server->draining;
    server->draining = true;
    if (pw_server_is_late(server)) /* this sets drain_until */
        return;
    if (begins) {
        pw_accept_leave(server);
        detached_shut(server, SHUT_RD);
    }
    pw_accept_drain(server);
    for (pw_conn *conn = begins ? server->all : NULL, *next; conn != NULL; conn = next) {
        next = conn->next;
        pw_conn_drain(server, conn);
    }
}

/* Closes all connections. One that a thread still has ends when the
 * thread comes back: pw_conn_finished. */
static void server_end(pw_server *server)
{
    bool others_accept = atomic_load(&server->stopping) == PW_LEAVE;
    if (pw_accept_close(server) && !others_accept)
        pw_incident_backlog(server);
    pw_accept_leave(server);
    detached_shut(server, SHUT_RDWR);
    for (pw_conn *conn = server->all, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->state == PW_CONN_APP)
            continue;
        if (conn->state != PW_CONN_IDLE && conn->state != PW_CONN_LINGER &&
            conn->state != PW_CONN_PROXY)
            pw_incident_conn(server, conn, PW_INCIDENT_STOP, 0);
        pw_conn_close(server, conn);
    }
    pw_access_flush(server);
}

/* ------------------------------------------------------------------ the loop */

static void server_event(pw_server *server, const pw_event *event)
{
    if (event->tag == server->wake) {
        char unused[64];
        while (read(server->wake[0], unused, sizeof unused) > 0)
            continue;
        server_drain(server);
        return;
    }
    for (int i = 0; i < server->accept.listener_count; i++)
        if (event->tag == &server->accept.listeners[i]) {
            if (!server->draining)
                pw_accept_event(server, &server->accept.listeners[i]);
            return;
        }
    pw_conn_event(server, event->tag, event->what);
}

static int poll_timeout(pw_server *server)
{
    int64_t wait = pw_timers_wait(&server->timers);
    const int64_t others[] = {atomic_load(&server->drain_until), server->accept.resume_at,
                              server->access.due, pw_watch_due(server)};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (others[i] == 0)
            continue;
        int64_t left = others[i] > server->timers.now ? others[i] - server->timers.now : 0;
        if (wait < 0 || left < wait)
            wait = left;
    }
    if (server->batch.count > 0 && server->token.holder == server->watch.thread &&
        (wait < 0 || wait > PW_BATCH_LOOK_MS))
        wait = PW_BATCH_LOOK_MS;
    int aside = pw_accept_timeout(server);
    if (aside >= 0 && (wait < 0 || aside < wait))
        wait = aside;
    return wait > 60000 ? 60000 : (int)wait;
}

/* Handles timeouts, then waits for events for at most `most` ms; -1: no limit. */
static void server_wait(pw_server *server, int most)
{
    bool any = false;
    for (pw_timer *timer; (timer = pw_timers_due(&server->timers)) != NULL; any = true)
        pw_conn_timeout(server, pw_conn_of(timer));
    if (any)
        return;
    if (server->access.due != 0 && server->access.due <= server->timers.now)
        pw_access_flush(server);
    pw_reap(server);
    if (server->accept.paused)
        pw_accept_look(server);
    server->event_next = 0;
    pw_gauges(server);
    int timeout_ms = server->spent.first != NULL ? 0 : poll_timeout(server);
    if (most >= 0 && (timeout_ms < 0 || timeout_ms > most))
        timeout_ms = most;
    server->polling = true;
    server->polling_until = timeout_ms < 0 ? -1 : server->timers.now + timeout_ms;
    pthread_mutex_unlock(&server->lock);
    int count = pw_poll_wait(&server->poll, server->events, timeout_ms);
    pthread_mutex_lock(&server->lock);
    server->polling = false;
    server->event_count = count;
    server->polls++;
    server->again = server->spent; /* `again` is empty: otherwise the loop would not poll */
    server->spent = (pw_queue){.first = NULL, .last = NULL};
    pw_timers_tick(&server->timers);
    server->timers.polled = server->timers.now;
    if (server->is_timed)
        server->polled_us = pw_microseconds();
    pw_clock_tick(&server->clock);
    if (server->accept.resume_at != 0 && server->accept.resume_at <= server->timers.now)
        pw_accept_resume(server);
    pw_accept_waited(server);
    if (server->batch.count > 0 && server->token.holder == server->watch.thread)
        pw_batch_flush(server, true);
}

/* Whether pw_token_count_stuck may find a thread. */
static bool may_be_stuck(const pw_server *server)
{
    return server->watch.timeout_request > 0 || atomic_load(&server->cut.grace) != 0;
}

/* Whether what is left, while the server drains, are requests that do not end. */
static bool server_waits_for_stuck(const pw_server *server)
{
    if (!may_be_stuck(server) || server->conn_count > server->threads.taken)
        return false;
    int32_t conns;
    int32_t stuck = pw_token_count_stuck(server, &conns);
    return stuck > 0 && stuck == server->threads.taken && conns == server->conn_count;
}

static bool server_is_over(pw_server *server)
{
    if (!server->draining)
        return false;
    bool none_left = (server->conn_count == 0 && server->threads.detached == 0) ||
                     server_waits_for_stuck(server);
    return (none_left && !pw_accept_is_open(server)) || pw_server_is_late(server);
}

/* Whether requests wait, while the server drains, for threads of which none comes back. */
static bool ready_waits_for_stuck(const pw_server *server)
{
    int32_t conns;
    return server->draining && server->ready.first != NULL && may_be_stuck(server) &&
           !pw_token_may_grow(server) &&
           pw_token_count_stuck(server, &conns) >= server->threads.count;
}

/* Drives a connection that can continue. Returns a request's number; PW_IDLE: there is none. */
static int64_t loop_drive(pw_thread *thread, pw_conn *conn)
{
    pw_server *server = thread->server;
    bool ready = conn->state == PW_CONN_READY;
    if (pw_conn_defer_free(server, conn))
        return PW_IDLE;
    if (ready && (conn->what & PW_GONE_AWAY) != 0) {
        pw_conn_close(server, conn);
        return PW_IDLE;
    }
    if (!ready && pw_conn_drive(server, conn) != PW_DRIVE_REQUEST)
        return PW_IDLE;
    if (thread == server->watch.thread) {
        bool progress = false; /* earlier responses must not wait for a free thread */
        if (conn->output.first != NULL)
            pw_output_flush(&conn->output, conn->fd, &progress);
        conn->state = PW_CONN_READY;
        pw_conn_keep_shortly(server, conn);
        if (conn->state != PW_CONN_READY)
            return PW_IDLE;
        if (server->is_timed) {
            conn->ready_us = pw_microseconds();
            pw_bytes(server, conn);
        }
        if (server->queue_ends)
            pw_timer_start(&server->timers, &conn->timer, PW_TIMER_QUEUE);
        pw_ready_push(server, conn);
        return PW_IDLE;
    }
    int64_t number = pw_thread_take(thread, conn);
    pw_token_keep(thread);
    return number;
}

int64_t pw_loop(pw_thread *thread)
{
    pw_server *server = thread->server;
    bool serves = thread != server->watch.thread;
    bool waited = false;
    for (;;) {
        pw_conn *conn = serves ? pw_ready_next(server) : NULL;
        if (conn == NULL)
            conn = pw_queue_pop(&server->run);
        if (conn == NULL && server->event_next == server->event_count)
            conn = pw_queue_pop(&server->again);
        if (conn != NULL) {
            int64_t number = loop_drive(thread, conn);
            if (number != PW_IDLE)
                return number;
        } else if (server->event_next < server->event_count) {
            server_event(server, &server->events[server->event_next++]);
        } else if (pw_accept_drain_is_due(server)) {
            pw_accept_drain(server);
        } else if (!serves && ready_waits_for_stuck(server)) {
            pw_ready_expire(server, NULL, PW_INCIDENT_STUCK);
        } else if (server_is_over(server)) {
            server_end(server);
            pw_token_stop(server);
            pw_gauges(server);
            return PW_STOP;
        } else if (serves ? server->news_count > 0 || thread->nudged : pw_watch_is_wanted(server)) {
            thread->nudged = false;
            return PW_IDLE; /* Python has news to take, so that it frees objects soon */
        } else if (waited && thread->timeout_ms >= 0) {
            if (server->spent.first != NULL)
                pw_server_wake(server); /* the poller does not report these */
            return PW_IDLE;
        } else {
            server_wait(server, thread->timeout_ms);
            waited = true;
        }
    }
}

int64_t pw_loop_serve(pw_thread *thread)
{
    int64_t number;
    if (!pw_token_take(thread, true, &number))
        return number;
    number = pw_loop(thread);
    if (number == PW_IDLE)
        pw_token_carry(thread);
    return number;
}
