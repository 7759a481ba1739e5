/*
 * The token: which thread runs the loop. The holder of the token polls, reads and parses. A serving
 * thread that has taken a request goes to the application with it. It keeps the token, so that an
 * application that does not block pays for no hand-over, or it yields the token: yield_rule.h
 * explains when that pays. If the holder stays in Python for longer than a tick, another thread
 * takes the token. If all threads are in the application, the watcher runs the loop: it reads,
 * sends and handles the timeouts. A request that is complete waits in `ready` for the first thread
 * that comes back.
 *
 * pw_watch counts the ticks, and only while there is something to watch. All functions are called
 * with the server's lock, except those that measure a thread (pw_token_leave, pw_token_back).
 *
 * Invariants, whenever no thread has the lock (token_check). The holder is out if it is in
 * Python.
 *
 *  1. The holder is one of the threads, or the watcher, or there is none.
 *  2. An idle thread is in the stack once, and has no request. It becomes the holder only after it
 *     was removed from the stack and signalled.
 *  3. threads.taken is the number of threads with a request. The watcher is never out and never has
 *     a request.
 *  4. If there is no holder, a thread that was signalled will take the token, or the watcher is
 *     awake: it gives the token to a thread at its next tick (pw_token_is_unheld).
 *  5. If the holder is out, the watcher is awake: it gives the token to a thread if the holder has
 *     not come back after two ticks (pw_token_is_stalled). Without a watcher no thread waits then.
 *  6. Requests enter `ready` in the order in which they became complete, and leave it in that
 *     order: a thread takes a request from there before it looks at anything else.
 *  7. After the server has stopped, every waiting thread is signalled, and none waits again.
 *
 * tests/model explores all interleavings of these steps.
 */
#include <assert.h>

#include "batch.h"
#include "clock.h"
#include "conn_wait.h"
#include "cut.h"
#include "gauges.h"
#include "incident.h"
#include "queue.h"
#include "request.h"
#include "system.h"
#include "timer.h"
#include "token.h"
#include "yield_rule.h"

#define PW_STALL_TICKS 2 /* ticks that the holder is out: between one and two whole ones */
#define PW_COMPANY_MS 20 /* a thread with a longer request does not disturb measurements */

#ifdef PW_SANITIZERS
static void token_check(const pw_server *server)
{
    int32_t taken = 0, idle = 0, stack = 0;
    bool known = server->token.holder == NULL || server->token.holder == server->watch.thread;
    for (const pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next) {
        taken += thread->taken;
        idle += thread->is_idle;
        known |= thread == server->token.holder;
        assert(!(thread->is_idle && thread->taken));
        assert(!(thread->is_idle && thread == server->token.holder));
    }
    for (const pw_thread *thread = server->token.idle; thread != NULL; thread = thread->next_idle)
        stack += thread->is_idle ? 1 : 1000;
    assert(known && taken == server->threads.taken && idle == stack);
    /* The watcher is NULL once the server is freed. */
    assert(server->watch.thread == NULL ||
           (!server->watch.thread->taken && !server->watch.thread->is_idle));
    assert(!(server->token.is_out &&
             (server->token.holder == NULL || server->token.holder == server->watch.thread)));
    for (const pw_conn *conn = server->ready.first; conn != NULL; conn = conn->run_next)
        assert(conn->state == PW_CONN_READY || conn->state == PW_CONN_CLOSED);
}
#else
static void token_check(const pw_server *server)
{
    (void)server;
}
#endif

/* Whether a thread that goes to the application leaves the token to a waiting thread. Without a
 * watcher (simple_server) it always does, because no thread would take the token later. */
static bool token_is_yielded(const pw_server *server)
{
    return !server->watch.has_begun ||
           (server->threads.most > 1 && pw_yield_pays(&server->token.rule));
}

bool pw_token_is_stalled(const pw_server *server)
{
    return server->token.is_out && server->watch.ticks - server->token.tick >= PW_STALL_TICKS;
}

bool pw_token_is_unheld(const pw_server *server)
{
    return server->token.holder == NULL && (server->watch.ticks != server->token.tick ||
                                            server->threads.taken >= server->threads.count);
}

void pw_token_give(pw_server *server, pw_thread *thread)
{
    pw_thread *old = server->token.holder;
    server->token.holder = thread;
    server->token.is_out = false;
    server->token.tick = server->watch.ticks;
    if (old != NULL && old != thread)
        pw_batch_release(old);
}

bool pw_token_may_grow(const pw_server *server)
{
    return server->watch.has_begun && server->threads.count < pw_threads_most(server) &&
           server->watch.ticks >= server->watch.start_tick;
}

static pw_thread *idle_pop(pw_server *server)
{
    pw_thread *thread = server->token.idle;
    if (thread != NULL) {
        server->token.idle = thread->next_idle;
        thread->is_idle = false;
    }
    return thread;
}

static void idle_remove(pw_server *server, pw_thread *thread)
{
    for (pw_thread **at = &server->token.idle; *at != NULL; at = &(*at)->next_idle)
        if (*at == thread) {
            *at = thread->next_idle;
            thread->is_idle = false;
            return;
        }
}

bool pw_token_wake_idle(pw_server *server)
{
    pw_thread *thread = idle_pop(server);
    if (thread == NULL)
        return false;
    pw_token_give(server, thread);
    pthread_cond_signal(&thread->wake);
    return true;
}

static void watch_wake(pw_server *server)
{
    if (server->watch.sleeps)
        pthread_cond_signal(&server->watch.wake);
}

/* ------------------------------------------------------------------ samples for the yield rule */

/* The number of other threads in the application, without those that have been there for long. */
static int32_t token_company(const pw_server *server, const pw_thread *self)
{
    int32_t count = server->threads.arrived < server->threads.count;
    for (const pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next)
        count += thread != self && thread->taken && !atomic_load(&thread->back) &&
                 server->timers.now - thread->taken_at < PW_COMPANY_MS;
    return server->token.has_gil ? count : 0;
}

void pw_token_leave(pw_thread *thread, int64_t number)
{
    if (number < 0 || thread->measure == PW_YIELD_NOTHING)
        return;
    if (thread->measure == PW_YIELD_USAGE)
        thread->out = pw_thread_usage();
    else
        thread->out.wall = pw_nanoseconds();
}

void pw_token_back(pw_thread *thread)
{
    if (!thread->taken || atomic_load_explicit(&thread->back, memory_order_relaxed))
        return;
    atomic_store(&thread->back, true);
    if (thread->measure == PW_YIELD_NOTHING)
        return;
    thread->in.wall = pw_nanoseconds();
    if (thread->measure == PW_YIELD_USAGE &&
        thread->in.wall - thread->out.wall >= PW_YIELD_SHORT_NS)
        thread->in = pw_thread_usage();
}

/* Gives the yield rule the sample of the request that this thread has finished. */
static void token_learn(pw_server *server, const pw_thread *thread)
{
    if (thread->measure == PW_YIELD_NOTHING)
        return;
    pw_yield_sample sample = {
        .now = thread->in.wall,
        .wall = thread->in.wall - thread->out.wall,
        .cpu = -1,
    };
    if (thread->measure == PW_YIELD_USAGE && sample.wall >= PW_YIELD_SHORT_NS) {
        sample.cpu = thread->in.cpu - thread->out.cpu;
        sample.others = thread->in.process - thread->out.process - sample.cpu;
        if (sample.others < 0)
            sample.others = 0;
        sample.waited = thread->in.switches != thread->out.switches;
        int32_t now = token_company(server, thread);
        sample.company = thread->company > now ? thread->company : now;
        if (sample.company == 0 && server->token.has_gil && server->threads.takes != thread->take)
            sample.company = 1; /* another request began and ended meanwhile */
    }
    pw_yield_learn(&server->token.rule, &sample);
}

/* ------------------------------------------------------------------ threads */

/* The thread goes to the application with a request. */
static void token_note_taken(pw_thread *thread)
{
    pw_server *server = thread->server;
    atomic_store_explicit(&thread->back, false, memory_order_relaxed);
    thread->taken_at = server->timers.now;
    thread->warned = 0;
    server->threads.takes++;
    if (server->threads.most > 1) {
        thread->measure = pw_yield_begin(&server->token.rule);
        thread->take = server->threads.takes;
        thread->company = thread->measure == PW_YIELD_USAGE ? token_company(server, thread) : 0;
    }
    thread->taken = true;
    server->threads.taken++;
}

static void token_arrive(pw_thread *thread)
{
    pw_server *server = thread->server;
    if (!thread->has_arrived) {
        thread->has_arrived = true;
        thread->system = pw_thread_id();
        server->threads.arrived++;
    }
    if (thread->taken) {
        thread->taken = false;
        server->threads.taken--;
        token_learn(server, thread);
    }
}

/* Whether the thread has to end, because fewer threads wait for slow
 * clients now. Others get its token. */
static bool token_retire(pw_thread *thread)
{
    pw_server *server = thread->server;
    if (server->threads.count <= pw_threads_most(server))
        return false;
    idle_remove(server, thread); /* a nudge may have woken it, and it must not get the token */
    server->threads.count--;
    server->threads.arrived--;
    thread->has_arrived = false;
    if ((server->token.holder == thread || server->token.holder == NULL) &&
        !pw_token_wake_idle(server))
        pw_token_give(server, NULL);
    watch_wake(server);
    assert(server->token.holder != thread);
    return true;
}

bool pw_token_take(pw_thread *thread, bool picks, int64_t *number)
{
    pw_server *server = thread->server;
    token_arrive(thread);
    *number = PW_STOP;
    while (!server->stopped && !(picks && token_retire(thread))) {
        if (server->token.holder == thread) {
            server->token.is_out = false;
            return true;
        }
        if (server->token.holder == NULL || pw_token_is_stalled(server) ||
            (server->token.is_out && token_is_yielded(server))) {
            idle_remove(server, thread);
            pw_token_give(server, thread);
            token_check(server);
            return true;
        }
        if (thread->nudged) {
            thread->nudged = false;
            *number = PW_IDLE;
            break;
        }
        pw_conn *conn = picks ? pw_ready_pop(server) : NULL;
        if (conn != NULL) { /* the watcher holds the token, or a thread with another request */
            pw_timers_tick(&server->timers);
            *number = pw_thread_take(thread, conn);
            token_note_taken(thread);
            break;
        }
        if (picks && server->news_count > 0) { /* no other thread may take the news for long */
            *number = PW_IDLE;
            break;
        }
        if (!thread->is_idle) {
            thread->is_idle = true;
            thread->next_idle = server->token.idle;
            server->token.idle = thread;
        }
        token_check(server);
        pw_gauges(server);
        pthread_cond_wait(&thread->wake, &server->lock);
    }
    idle_remove(server, thread);
    token_check(server);
    pw_gauges(server);
    return false;
}

void pw_thread_nudge(pw_thread *thread)
{
    pw_server *server = thread->server;
    pthread_mutex_lock(&server->lock);
    thread->nudged = true;
    if (server->token.holder == thread)
        pw_loop_wake(server, true);
    else if (thread->is_idle)
        pthread_cond_signal(&thread->wake);
    pthread_mutex_unlock(&server->lock);
}

void pw_token_keep(pw_thread *thread)
{
    pw_server *server = thread->server;
    token_note_taken(thread);
    server->token.is_out = true;
    server->token.tick = server->watch.ticks;
    watch_wake(server);
    if (!token_is_yielded(server))
        return;
    pw_thread *next = idle_pop(server);
    if (next != NULL) { /* `next` is likely to take it, but the first thread that comes gets it */
        pw_token_give(server, NULL);
        pthread_cond_signal(&next->wake);
    } else if (pw_token_may_grow(server)) {
        server->watch.wants_thread = true;
        pthread_cond_signal(&server->watch.wake);
    }
}

void pw_token_hold(pw_thread *thread, bool held)
{
    pw_server *server = thread->server;
    pthread_mutex_lock(&server->lock);
    server->threads.held += held ? 1 : -1;
    thread->held = held;
    if (held)
        pw_loop_wake(server, true);
    pthread_mutex_unlock(&server->lock);
}

void pw_token_carry(pw_thread *thread)
{
    pw_server *server = thread->server;
    if (server->token.holder != thread)
        return;
    server->token.is_out = true;
    server->token.tick = server->watch.ticks;
    watch_wake(server);
}

void pw_token_drop(pw_thread *thread)
{
    pw_server *server = thread->server;
    idle_remove(server, thread);
    if (thread->has_arrived)
        server->threads.arrived--;
    if (thread->taken)
        server->threads.taken--;
    if (server->token.holder == thread && !pw_token_wake_idle(server))
        pw_token_give(server, NULL);
    watch_wake(server);
}

int32_t pw_token_count_stuck(const pw_server *server, int32_t *conns)
{
    int32_t count = 0;
    *conns = 0;
    for (const pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next) {
        bool is_stuck = thread->warned >= PW_WARNINGS || pw_cut_is_over(server, thread);
        if (!thread->taken || !is_stuck || atomic_load(&thread->back) ||
            pw_thread_is_detached(thread))
            continue;
        count++;
        *conns += thread->conn != NULL;
    }
    return count;
}

void pw_token_stop(pw_server *server)
{
    server->stopped = true;
    for (pw_thread *thread = server->token.idle; thread != NULL; thread = thread->next_idle)
        pthread_cond_signal(&thread->wake);
    pthread_cond_signal(&server->watch.wake);
}

/* ------------------------------------------------------------------ when the watcher acts */

int64_t pw_watch_due(const pw_server *server)
{
    if (server->token.holder != server->watch.thread)
        return 0;
    if (atomic_load(&server->cut.grace) != 0)
        return server->cut.looked_at + PW_LOOK_MS;
    return server->watch.timeout_request > 0 ? server->watch.looked_at + PW_LOOK_MS : 0;
}

bool pw_watch_is_wanted(const pw_server *server)
{
    bool all_are_out = server->threads.taken >= server->threads.count;
    return server->token.idle != NULL || pw_incidents_wait(&server->incidents) ||
           (all_are_out && pw_token_may_grow(server)) ||
           (pw_watch_due(server) != 0 && server->timers.now >= pw_watch_due(server));
}
