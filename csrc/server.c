/* The server and its loop. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define PW_ACCEPT_BATCH 64

/* ------------------------------------------------------------------ the server */

static bool pw_wake_open(pw_server *server)
{
    if (pipe(server->wake) != 0)
        return false;
    for (int i = 0; i < 2; i++) {
        fcntl(server->wake[i], F_SETFD, FD_CLOEXEC);
        fcntl(server->wake[i], F_SETFL, O_NONBLOCK);
    }
    return pw_poll_add_level(&server->poll, server->wake[0], server->wake) == 0;
}

static bool pw_server_allocate(pw_server *server, const pw_settings *settings)
{
    size_t news = 2 * (size_t)settings->max_connections + 2;
    const char *directory = settings->temporary_directory;
    size_t directory_size = strlen(directory) + 1;
    server->fields = pw_alloc((size_t)settings->max_fields * sizeof *server->fields);
    server->scratch = pw_realloc(NULL, PW_SCRATCH_SIZE);
    server->news = pw_alloc(news * sizeof *server->news);
    server->directory = pw_alloc(directory_size);
    if (server->fields == NULL || server->scratch == NULL || server->news == NULL ||
        server->directory == NULL)
        return false;
    memcpy(server->directory, directory, directory_size);
    server->store.directory = server->directory;
    server->head.fields = server->fields;
    return true;
}

static void pw_server_copy_settings(pw_server *server, const pw_settings *settings)
{
    server->limits = (pw_limits){
        .max_head_size = (size_t)settings->max_head_size,
        .max_fields = (size_t)settings->max_fields,
        .max_body_size = settings->max_body_size,
        .underscore_fields = settings->underscore_fields,
    };
    server->store.memory_most = settings->body_memory;
    server->store.size_most = settings->max_body_size;
    server->response_buffer = settings->response_buffer;
    server->max_connections = settings->max_connections;
    server->accept_batch = settings->accept_batch > 0 ? settings->accept_batch : PW_ACCEPT_BATCH;
    server->timeout_graceful = settings->timeout_graceful;
    server->timers.length[PW_TIMER_HEAD] = settings->timeout_head;
    server->timers.length[PW_TIMER_BODY] = settings->timeout_body;
    server->timers.length[PW_TIMER_WRITE] = settings->timeout_write;
    server->timers.length[PW_TIMER_KEEP_ALIVE] = settings->timeout_keep_alive;
    server->timers.length[PW_TIMER_LINGER] = 2000;
    server->timers.length[PW_TIMER_DRAIN] = settings->timeout_drain;
}

pw_server *pw_server_new(const pw_settings *settings)
{
    if (settings->max_head_size < 1 || settings->max_head_size > (1 << 22) ||
        settings->max_fields < 1 || settings->max_fields > 1024 || settings->max_connections < 1) {
        errno = EINVAL;
        return NULL;
    }
    pw_server *server = pw_alloc(sizeof *server);
    if (server == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    server->poll.fd = server->wake[0] = server->wake[1] = -1;
    pw_server_copy_settings(server, settings);
    pw_timers_init(&server->timers);
    pw_clock_tick(&server->clock);
    int error = ENOMEM;
    if (!pw_server_allocate(server, settings))
        goto fail;
    error = pw_poll_open(&server->poll);
    if (error != 0)
        goto fail;
    if (!pw_wake_open(server)) {
        error = errno;
        goto fail;
    }
    return server;
fail:
    pw_server_free(server);
    errno = error;
    return NULL;
}

int32_t pw_server_listen(pw_server *server, int32_t descriptor)
{
    if (server->listener_count == PW_LISTENERS_MOST)
        return EMFILE;
    pw_listener *listener = &server->listeners[server->listener_count];
    listener->fd = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (listener->fd < 0)
        return errno;
    int error = pw_poll_add_listener(&server->poll, listener->fd, listener);
    if (error == 0)
        server->listener_count++;
    else
        close(listener->fd);
    return error;
}

void pw_server_stop(pw_server *server)
{
    int saved = errno;
    atomic_fetch_add(&server->stopping, 1);
    /* A full pipe wakes as well as one byte does. */
    if (write(server->wake[1], "", 1) < 0)
        errno = saved;
}

int64_t pw_server_requests(pw_server *server)
{
    return atomic_load_explicit(&server->requests, memory_order_relaxed);
}

static void pw_reap(pw_server *server)
{
    while (server->dead != NULL) {
        pw_conn *conn = server->dead;
        server->dead = conn->run_next;
        pw_free(conn);
    }
}

static pw_conn *pw_run_pop(pw_server *server)
{
    pw_conn *conn = server->run_first;
    if (conn == NULL)
        return NULL;
    server->run_first = conn->run_next;
    if (server->run_first == NULL)
        server->run_last = NULL;
    conn->run_next = NULL;
    conn->queued = false;
    return conn;
}

/* Out of the run queue: a closed one is only now nobody's. */
static bool pw_conn_bury(pw_server *server, pw_conn *conn)
{
    if (conn->state != PW_CONN_CLOSED)
        return false;
    conn->run_next = server->dead;
    server->dead = conn;
    return true;
}

static void pw_server_close_listeners(pw_server *server)
{
    for (int i = 0; i < server->listener_count; i++) {
        if (server->listeners[i].fd < 0)
            continue;
        /* Closing would not do: other processes have the same socket open. */
        if (!server->paused)
            pw_poll_remove(&server->poll, server->listeners[i].fd);
        close(server->listeners[i].fd);
        server->listeners[i].fd = -1;
    }
}

void pw_server_free(pw_server *server)
{
    if (server == NULL)
        return;
    server->draining = true;
    while (server->all != NULL)
        pw_conn_close(server, server->all);
    for (pw_conn *conn = pw_run_pop(server); conn != NULL; conn = pw_run_pop(server))
        pw_conn_bury(server, conn);
    pw_reap(server);
    pw_server_close_listeners(server);
    pw_poll_close(&server->poll);
    for (int i = 0; i < 2; i++)
        if (server->wake[i] >= 0)
            close(server->wake[i]);
    pw_cache_free(&server->cache);
    pw_pool_free(&server->pool);
    pw_free(server->fields);
    pw_free(server->scratch);
    pw_free(server->news);
    pw_free(server->directory);
    pw_free(server);
}

void pw_run(pw_server *server, pw_conn *conn, bool first)
{
    if (conn->queued || conn->state == PW_CONN_APP || conn->state == PW_CONN_CLOSED)
        return;
    conn->queued = true;
    if (server->run_first == NULL) {
        conn->run_next = NULL;
        server->run_first = server->run_last = conn;
    } else if (first) {
        conn->run_next = server->run_first;
        server->run_first = conn;
    } else {
        conn->run_next = NULL;
        server->run_last->run_next = conn;
        server->run_last = conn;
    }
}

void pw_tell(pw_server *server, int64_t value, int kind)
{
    server->news[server->news_count++] = value * 2 + kind;
}

/* ------------------------------------------------------------------ the loop */

static void pw_server_begin_drain(pw_server *server)
{
    char unused[64];
    while (read(server->wake[0], unused, sizeof unused) > 0)
        continue;
    if (server->draining)
        return;
    server->draining = true;
    server->drain_until = server->timers.now + server->timeout_graceful;
    /* Whoever waits to be accepted is lost when nobody else has the socket; and where others do, they
     * may not know of a connection that this process was woken for. */
    for (int i = 0; i < server->listener_count && !server->paused; i++)
        pw_accept(server, &server->listeners[i], server->max_connections);
    pw_server_close_listeners(server);
    server->resume_at = 0;
    for (pw_conn *conn = server->all, *next; conn != NULL; conn = next) {
        next = conn->next;
        pw_conn_drain(server, conn);
    }
}

static void pw_server_event(pw_server *server, const pw_event *event)
{
    if (event->tag == server->wake) {
        pw_server_begin_drain(server);
        return;
    }
    for (int i = 0; i < server->listener_count; i++)
        if (event->tag == &server->listeners[i]) {
            if (!server->draining) {
                pw_accept(server, &server->listeners[i], server->accept_batch);
                if (server->accept_batch == 1)
                    pw_accept_take_turns(server, &server->listeners[i]);
            }
            return;
        }
    pw_conn_event(server, event->tag, event->what);
}

static int pw_server_patience(const pw_server *server)
{
    int64_t wait = pw_timers_wait(&server->timers);
    const int64_t others[] = {server->draining ? server->drain_until : 0, server->resume_at};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (others[i] == 0)
            continue;
        int64_t left = others[i] > server->timers.now ? others[i] - server->timers.now : 0;
        if (wait < 0 || left < wait)
            wait = left;
    }
    return wait > 60000 ? 60000 : (int)wait;
}

/* Waits for events when there is nothing else to do. */
static void pw_server_wait(pw_server *server)
{
    pw_reap(server);
    server->event_next = 0;
    server->event_count = pw_poll_wait(&server->poll, server->events, pw_server_patience(server));
    pw_timers_tick(&server->timers);
    pw_clock_tick(&server->clock);
    for (pw_timer *timer; (timer = pw_timers_due(&server->timers)) != NULL;)
        pw_conn_timeout(server, (pw_conn *)(void *)((char *)timer - offsetof(pw_conn, timer)));
    if (server->resume_at != 0 && server->resume_at <= server->timers.now)
        pw_accept_resume(server);
}

static bool pw_server_is_over(pw_server *server)
{
    if (!server->draining)
        return false;
    return server->conn_count == 0 || server->timers.now >= server->drain_until ||
           atomic_load(&server->stopping) > 1;
}

int64_t pw_next(pw_thread *thread)
{
    pw_server *server = thread->server;
    for (;;) {
        pw_conn *conn = pw_run_pop(server);
        if (conn != NULL) {
            if (!pw_conn_bury(server, conn) && pw_conn_drive(server, conn) == PW_DRIVE_REQUEST)
                return pw_thread_take(thread, conn);
        } else if (server->event_next < server->event_count) {
            pw_server_event(server, &server->events[server->event_next++]);
        } else if (pw_server_is_over(server)) {
            return PW_STOP;
        } else {
            pw_server_wait(server);
        }
    }
}

int64_t pw_news(pw_thread *thread)
{
    pw_server *server = thread->server;
    return server->news_count > 0 ? server->news[--server->news_count] : -1;
}

/* ------------------------------------------------------------------ what was built */

#define PW_TEXT(x) #x
#define PW_TEXT_OF(x) PW_TEXT(x)
#if defined(__clang__)
#define PW_COMPILER "clang " PW_TEXT_OF(__clang_major__) "." PW_TEXT_OF(__clang_minor__)
#elif defined(__GNUC__)
#define PW_COMPILER "gcc " PW_TEXT_OF(__GNUC__) "." PW_TEXT_OF(__GNUC_MINOR__)
#else
#define PW_COMPILER "an unknown compiler"
#endif

const char *pw_build(void)
{
    return PW_COMPILER "; epoll; picohttpparser";
}
