/*
 * Which thread runs the loop. Whoever holds the token polls, reads and parses; it takes a request and
 * runs the application keeping the token, so that an application which does not block pays for no
 * hand-over. When the holder stays in the application for longer than a tick, another thread goes on.
 * When all threads are in the application, the watcher runs the loop: it reads, sends and keeps the
 * times, and what becomes a complete request waits for the first thread that comes back.
 *
 * Time is counted in ticks by pw_watch alone, and only while there is something to watch: the way
 * of a request reads a number, not a clock. All of this is under the server's lock.
 */
#include "server.h"

#define PW_TICK_NS 2000000
#define PW_STALL_TICKS 2  /* in the application for this many: between one tick and two */
#define PW_BRISK 64       /* requests in a tick: 30 us for each, with what the system does */
#define PW_LOOK_MS 100    /* how often slow requests are looked for */
#define PW_QUIET_TICKS 50 /* without a request for this many: the watcher sleeps */

/* An application that turns out to block on most requests is not given a tick for each. */
#define PW_SCORE_MOST 64
#define PW_SCORE_EAGER 32
#define PW_SCORE_BLOCKED 4

bool pw_token_is_eager(const pw_server *server)
{
    return server->block_score >= PW_SCORE_EAGER;
}

static bool pw_token_is_stalled(const pw_server *server)
{
    return server->holder_in_app && server->ticks - server->holder->taken_tick >= PW_STALL_TICKS;
}

/* Answers to pipelined requests that wait for the one that the application is at. */
static void pw_token_flush(pw_thread *thread)
{
    bool progress = false;
    pw_conn *conn = thread->conn;
    if (conn == NULL || conn->started)
        return; /* from its head on the output is the thread's own: not even to be looked at */
    if (conn->output.first != NULL && !conn->failed &&
        pw_output_flush(&conn->output, conn->fd, &progress) == PW_IO_ERROR)
        conn->failed = true;
}

static void pw_token_give(pw_server *server, pw_thread *thread)
{
    pw_thread *old = server->holder;
    server->holder = thread;
    server->holder_in_app = false;
    if (old != NULL && old != thread) {
        pw_token_flush(old);
        pw_later_release(server);
    }
}

static pw_thread *pw_idle_pop(pw_server *server)
{
    pw_thread *thread = server->idle;
    if (thread != NULL) {
        server->idle = thread->next_idle;
        thread->is_idle = false;
    }
    return thread;
}

static void pw_idle_remove(pw_server *server, pw_thread *thread)
{
    for (pw_thread **at = &server->idle; *at != NULL; at = &(*at)->next_idle)
        if (*at == thread) {
            *at = thread->next_idle;
            thread->is_idle = false;
            return;
        }
}

/* The thread that went to sleep last goes on first: the fewer are in use, the better. */
static bool pw_token_wake_idle(pw_server *server)
{
    pw_thread *thread = pw_idle_pop(server);
    if (thread == NULL)
        return false;
    pw_token_give(server, thread);
    pthread_cond_signal(&thread->wake);
    return true;
}

/* What the request that this thread has finished tells of the application. */
static void pw_token_learn(pw_server *server, const pw_thread *thread)
{
    if (server->ticks - thread->taken_tick >= PW_STALL_TICKS || server->holder == server->watcher)
        server->block_score += PW_SCORE_BLOCKED;
    else if (server->block_score > 0)
        server->block_score--;
    if (server->block_score > PW_SCORE_MOST)
        server->block_score = PW_SCORE_MOST;
}

bool pw_token_take(pw_thread *thread, int64_t *number)
{
    pw_server *server = thread->server;
    if (thread->taken) {
        thread->taken = false;
        server->taken_count--;
        pw_token_learn(server, thread);
    }
    *number = PW_STOP;
    while (!server->stopped) {
        if (server->holder == thread) {
            server->holder_in_app = false;
            return true;
        }
        if (server->holder == NULL || pw_token_is_stalled(server) ||
            (server->holder_in_app && pw_token_is_eager(server))) {
            pw_idle_remove(server, thread);
            pw_token_give(server, thread);
            return true;
        }
        if (thread->nudged) {
            thread->nudged = false;
            *number = PW_IDLE;
            break;
        }
        if (server->holder == server->watcher)
            pw_loop_wake(server, true); /* it makes room for who can serve */
        if (!thread->is_idle) {
            thread->is_idle = true;
            thread->next_idle = server->idle;
            server->idle = thread;
        }
        pthread_cond_wait(&thread->wake, &server->lock);
    }
    pw_idle_remove(server, thread);
    return false;
}

void pw_thread_nudge(pw_thread *thread)
{
    pw_server *server = thread->server;
    pthread_mutex_lock(&server->lock);
    thread->nudged = true;
    if (server->holder == thread)
        pw_loop_wake(server, true);
    else if (thread->is_idle)
        pthread_cond_signal(&thread->wake);
    pthread_mutex_unlock(&server->lock);
}

void pw_token_keep(pw_thread *thread)
{
    pw_server *server = thread->server;
    thread->taken = true;
    thread->taken_tick = server->ticks;
    thread->taken_at = server->timers.now;
    thread->warned = 0;
    server->taken_count++;
    server->holder_in_app = true;
    if (pw_token_is_eager(server) && !pw_token_wake_idle(server) &&
        server->thread_count < server->threads_most) {
        server->wants_thread = true;
        pthread_cond_signal(&server->watch);
    } else if (server->watcher_sleeps) {
        pthread_cond_signal(&server->watch);
    }
}

void pw_token_leave(pw_thread *thread)
{
    pw_server *server = thread->server;
    pw_idle_remove(server, thread);
    if (thread->taken)
        server->taken_count--;
    if (server->holder == thread) {
        server->holder = NULL;
        server->holder_in_app = false;
        pw_token_wake_idle(server);
    }
    pthread_cond_signal(&server->watch);
}

void pw_token_stop(pw_server *server)
{
    server->stopped = true;
    for (pw_thread *thread = server->idle; thread != NULL; thread = thread->next_idle)
        pthread_cond_signal(&thread->wake);
    pthread_cond_signal(&server->watch);
}

/* Runs the loop until a thread wants it, or all is over. */
static void pw_watch_loop(pw_server *server)
{
    pw_gather_flush(server, true);
    pw_token_give(server, server->watcher);
    if (pw_loop(server->watcher) != PW_STOP && !pw_token_wake_idle(server))
        server->holder = NULL;
}

static int32_t pw_count_unsent(const pw_server *server)
{
    int32_t count = 0;
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next)
        count += conn->state == PW_CONN_SENDING;
    return count;
}

int32_t pw_settle(pw_thread *thread, int32_t patience)
{
    pw_server *server = thread->server;
    int32_t unsent = 0;
    int64_t number;
    pthread_mutex_lock(&server->lock);
    pw_exchange_abandon(thread);
    if (pw_token_take(thread, &number)) {
        /* As the watcher it takes no request. What can be done at once may be all there is to do. */
        pw_token_give(server, server->watcher);
        server->watcher->patience = 0;
        pw_loop(server->watcher);
        server->watcher->patience = patience;
        if (patience > 0 && !server->stopped && pw_count_unsent(server) > 0)
            pw_loop(server->watcher);
        server->watcher->patience = -1;
        server->holder = NULL;
        unsent = server->stopped ? 0 : pw_count_unsent(server);
        if (server->ready.first != NULL)
            pw_server_wake(server); /* of these the poller tells nobody any more */
    }
    pthread_mutex_unlock(&server->lock);
    return unsent;
}

int64_t pw_watch_due(const pw_server *server)
{
    if (server->timeout_request == 0 || server->holder != server->watcher)
        return 0;
    return server->looked_at + PW_LOOK_MS;
}

bool pw_watch_is_wanted(const pw_server *server)
{
    return server->idle != NULL || pw_notices_wait(&server->notices) ||
           (server->timeout_request > 0 && server->timers.now >= server->looked_at + PW_LOOK_MS);
}

/* A thread whose request takes too long; NULL: none. Each is named twice at most. */
static pw_thread *pw_watch_slow(pw_server *server)
{
    int64_t now = pw_now();
    if (server->timeout_request == 0 || now < server->looked_at + PW_LOOK_MS)
        return NULL;
    for (pw_thread *thread = server->threads; thread != NULL; thread = thread->next)
        if (thread->taken && thread->warned < 2 &&
            now - thread->taken_at >= server->timeout_request * (thread->warned + 1)) {
            thread->warned++;
            return thread;
        }
    server->looked_at = now;
    return NULL;
}

/* What a stalled holder, or an eager one, calls for. */
static bool pw_watch_bears(pw_server *server)
{
    bool unheld = server->holder == NULL && server->taken_count >= server->thread_count;
    bool wanted =
        unheld || pw_token_is_stalled(server) || (server->wants_thread && server->holder_in_app);
    server->wants_thread = false;
    if (!wanted || pw_token_wake_idle(server))
        return false;
    if (server->thread_count < server->threads_most) {
        server->thread_count++;
        return true;
    }
    pw_watch_loop(server);
    return false;
}

int32_t pw_watch(pw_server *server)
{
    int quiet = 0;
    int64_t seen = -1;
    int32_t outcome = PW_WATCH_STOP;
    pthread_mutex_lock(&server->lock);
    server->is_watched = server->watcher_is_here = true;
    while (!server->stopped || pw_notices_wait(&server->notices)) {
        if (pw_notices_wait(&server->notices)) {
            outcome = PW_WATCH_NOTICE;
            break;
        }
        if (pw_watch_bears(server)) {
            outcome = PW_WATCH_BIRTH;
            break;
        }
        pw_thread *slow = pw_watch_slow(server);
        if (slow != NULL) {
            outcome = slow->number * 8 + (slow->warned == 1 ? PW_WATCH_SLOW : PW_WATCH_STUCK);
            break;
        }
        bool busy = server->holder_in_app || pw_server_requests(server) != seen ||
                    (server->timeout_request > 0 && server->taken_count > 0) ||
                    server->gathering > 0;
        quiet = busy ? 0 : quiet + 1;
        server->brisk = pw_server_requests(server) - seen > PW_BRISK;
        seen = pw_server_requests(server);
        if (server->stopped)
            continue; /* it was while the loop was run here: nothing would end the waiting */
        if (quiet < PW_QUIET_TICKS) {
            if (!pw_condition_wait(&server->watch, &server->lock, PW_TICK_NS))
                server->ticks++;
            if (server->gathering > 0)
                pw_gather_flush(server, server->stopped);
            pw_later_flush(server, false);
            continue;
        }
        server->watcher_sleeps = true;
        pthread_cond_wait(&server->watch, &server->lock);
        server->watcher_sleeps = false;
        quiet = 0;
    }
    server->watcher_is_here = false; /* in Python it may have to wait for the application */
    if (server->holder != NULL)
        pw_token_flush(server->holder);
    pw_later_flush(server, true);
    pw_gather_flush(server, true);
    pthread_mutex_unlock(&server->lock);
    return outcome;
}
