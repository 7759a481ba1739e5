/*
 * The watcher: a thread that serves no request. It counts the ticks, gives the token to another
 * thread when its holder stays in Python, runs the loop while all threads are in the application,
 * and reports slow requests.
 */

#include "alloc.h"
#include "batch.h"
#include "clock.h"
#include "cut.h"
#include "exchange.h"
#include "gauges.h"
#include "incident.h"
#include "loop.h"
#include "queue.h"
#include "system.h"
#include "token.h"
#include "yield_rule.h"

#define PW_TICK_NS 2000000
#define PW_QUIET_TICKS 50              /* ticks without a request until the watcher sleeps */
#define PW_TRIM_NS INT64_C(5000000000) /* between two calls of pw_heap_trim */
#define PW_START_PAUSE 500             /* ticks after a thread could not be started */
#define PW_RUNS_NS 200000              /* CPU time in one tick of a thread that has not waited */

/* Runs the loop until a thread wants the token, or the server has stopped. */
static void watch_loop(pw_server *server)
{
    pw_batch_flush(server, true);
    pw_token_give(server, server->watch.thread);
    if (pw_loop(server->watch.thread) != PW_STOP && !pw_token_wake_idle(server))
        pw_token_give(server, NULL);
}

static void watch_streams(pw_server *server)
{
    int64_t now = pw_now();
    if (atomic_load(&server->cut.grace) == 0 || now < server->cut.looked_at + PW_LOOK_MS)
        return;
    server->cut.looked_at = now;
    pw_cut_look(server);
}

/* A thread whose request takes too long. NULL: none. Each request is reported twice at most. */
static pw_thread *watch_slow(pw_server *server)
{
    int64_t now = pw_now();
    if (server->watch.timeout_request == 0 || now < server->watch.looked_at + PW_LOOK_MS)
        return NULL;
    for (pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next)
        if (thread->taken && !pw_thread_is_detached(thread) && thread->warned < PW_WARNINGS &&
            now - thread->taken_at >= server->watch.timeout_request * (thread->warned + 1)) {
            thread->warned++;
            if (thread->warned == PW_WARNINGS && server->draining)
                pw_loop_wake(server, true); /* the server may have nothing left to drain */
            return thread;
        }
    server->watch.looked_at = now;
    return NULL;
}

/*
 * Called when the holder has been in Python for a tick or more. If it and all other threads in the
 * application were off the CPU for the last tick, they do not wait for the GIL: one of them would
 * have it.
 */
static void watch_look(pw_server *server)
{
    if (pw_yield_pays(&server->token.rule) || server->threads.most == 1)
        return;
    bool all_wait = pw_token_is_stalled(server) && server->threads.arrived == server->threads.count;
    bool any = false;
    for (pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next) {
        if (!thread->taken || !thread->has_arrived || thread->held)
            continue;
        int64_t before = thread->stall_cpu, now = pw_thread_cpu(thread->system);
        thread->stall_cpu = now;
        any = true;
        all_wait &=
            now >= 0 && before >= 0 && now - before < PW_RUNS_NS && !atomic_load(&thread->back);
    }
    if (any && all_wait)
        pw_yield_learn_stall(&server->token.rule, pw_nanoseconds());
}

/* Handles a stalled or free token, and one that the holder yields. True: start one more thread. */
static bool watch_acts(pw_server *server)
{
    bool wanted = pw_token_is_unheld(server) || pw_token_is_stalled(server) ||
                  (server->watch.wants_thread && server->token.is_out);
    server->watch.wants_thread = false;
    if (!wanted || pw_token_wake_idle(server))
        return false;
    if (pw_token_may_grow(server)) {
        server->threads.count++;
        return true;
    }
    watch_loop(server);
    return false;
}

void pw_watch_failed(pw_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->threads.count--;
    server->watch.start_tick = server->watch.ticks + PW_START_PAUSE;
    pthread_mutex_unlock(&server->lock);
}

/* Whether the watcher must not sleep now. */
static bool watch_is_busy(const pw_server *server)
{
    return server->token.holder == NULL || server->token.is_out || server->batch.count > 0 ||
           (server->watch.timeout_request > 0 &&
            server->threads.taken > server->threads.detached) ||
           (atomic_load(&server->cut.grace) != 0 && server->threads.taken > 0);
}

/* Returns the memory of a peak to the system, when no request has come for a while. True: the lock was
 * released meanwhile, so the caller must look for work again. */
static bool watch_trims(pw_server *server)
{
    int64_t now = pw_now();
    if (now < server->watch.trimmed_at + PW_TRIM_NS / 1000000)
        return false;
    server->watch.trimmed_at = now;
    server->watch.is_here = false;
    pthread_mutex_unlock(&server->lock);
    bool large = pw_heap_trim();
    pthread_mutex_lock(&server->lock);
    server->watch.is_here = true;
    server->watch.heap_is_large = large;
    return true;
}

int32_t pw_watch(pw_server *server)
{
    int quiet = 0;
    int64_t seen = -1;
    int32_t outcome = PW_WATCH_STOP;
    pthread_mutex_lock(&server->lock);
    server->watch.has_begun = server->watch.is_here = true;
    while (!server->stopped || pw_incidents_wait(&server->incidents)) {
        if (pw_incidents_wait(&server->incidents)) {
            outcome = PW_WATCH_INCIDENT;
            break;
        }
        if (watch_acts(server)) {
            outcome = PW_WATCH_START;
            break;
        }
        watch_streams(server);
        pw_thread *slow = watch_slow(server);
        if (slow != NULL) {
            outcome = slow->number << PW_WATCH_SHIFT;
            outcome |= slow->warned == 1 ? PW_WATCH_SLOW : PW_WATCH_STUCK;
            break;
        }
        pw_gauges(server);
        bool busy = watch_is_busy(server) || server->threads.takes != seen;
        quiet = busy ? 0 : quiet + 1;
        seen = server->threads.takes;
        if (server->stopped)
            continue; /* the loop has run here and stopped it: no thread would wake this one */
        if (quiet < PW_QUIET_TICKS) {
            if (!pw_condition_wait(&server->watch.wake, &server->lock, PW_TICK_NS)) {
                server->watch.ticks++;
                if (server->token.is_out)
                    watch_look(server);
            }
            if (server->batch.count > 0)
                pw_batch_flush(server, server->stopped);
            continue;
        }
        if (watch_trims(server))
            continue;
        server->watch.sleeps = true;
        bool woken = true;
        if (server->watch.heap_is_large)
            woken = pw_condition_wait(&server->watch.wake, &server->lock, PW_TRIM_NS);
        else
            pthread_cond_wait(&server->watch.wake, &server->lock);
        server->watch.sleeps = false;
        quiet = woken ? 0 : quiet;
    }
    if (outcome == PW_WATCH_STOP) {
        int32_t conns, stuck = pw_token_count_stuck(server, &conns);
        outcome |= stuck == server->threads.taken ? stuck << PW_WATCH_SHIFT : 0;
    }
    server->watch.is_here = false;
    if (server->token.holder != NULL)
        pw_batch_release(server->token.holder);
    pw_batch_flush(server, true);
    pthread_mutex_unlock(&server->lock);
    return outcome;
}

/* ------------------------------------------------------------------ a server without a watcher */

static int32_t count_unsent(const pw_server *server)
{
    int32_t count = 0;
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next)
        count += conn->state == PW_CONN_SENDING;
    return count;
}

int32_t pw_settle(pw_thread *thread, int32_t timeout_ms)
{
    pw_server *server = thread->server;
    int32_t unsent = 0;
    int64_t number;
    pw_token_back(thread);
    pthread_mutex_lock(&server->lock);
    pw_exchange_abandon(thread);
    if (pw_token_take(thread, false, &number)) {
        /* The watcher takes no request. Its first run does what is possible without waiting. */
        pw_token_give(server, server->watch.thread);
        server->watch.thread->timeout_ms = 0;
        pw_loop(server->watch.thread);
        server->watch.thread->timeout_ms = timeout_ms;
        if (timeout_ms > 0 && !server->stopped && count_unsent(server) > 0)
            pw_loop(server->watch.thread);
        server->watch.thread->timeout_ms = -1;
        if (!pw_token_wake_idle(server))
            pw_token_give(server, NULL);
        unsent = server->stopped ? 0 : count_unsent(server);
        if (server->ready.first != NULL)
            pw_server_wake(server); /* the poller does not report these again */
    }
    pthread_mutex_unlock(&server->lock);
    return unsent;
}
