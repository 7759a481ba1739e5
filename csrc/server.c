/* Making, stopping and freeing a server. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "accept.h"
#include "access.h"
#include "alloc.h"
#include "buffer.h"
#include "cache.h"
#include "clock.h"
#include "conn_balance.h"
#include "incident.h"
#include "listener.h"
#include "loop.h"
#include "poller.h"
#include "queue.h"
#include "system.h"
#include "thread.h"
#include "timer.h"

/* Returns 0 or an errno. */
static int poll_begin(pw_server *server, const char *poller)
{
    int error = pw_poll_open(&server->poll, poller);
    if (error == 0)
        error = pw_pipe(server->wake);
    if (error == 0)
        error = pw_poll_add(&server->poll, server->wake[0], server->wake, PW_POLL_LEVEL);
    return error;
}

/* A copy of size bytes with a NUL after them. NULL: out of memory. */
static char *copy_text(const char *data, size_t size)
{
    char *copy = pw_alloc(size + 1);
    if (copy != NULL)
        memcpy(copy, data, size);
    return copy;
}

static bool access_open(pw_access *access, const pw_settings *settings)
{
    access->fd = settings->access_file;
    access->json = settings->access_json != 0;
    access->prompt = settings->access_prompt != 0;
    access->program_size = (size_t)settings->access_program_size;
    access->program = copy_text(settings->access_program, access->program_size);
    access->wants_head =
        memchr(settings->access_program, PW_ATOM_RESPONSE_FIELD, access->program_size) != NULL;
    return access->program != NULL;
}

static bool trust_open(pw_server *server, const pw_settings *settings)
{
    size_t count = (size_t)settings->trusted_count;
    server->networks = pw_alloc((count + 1) * sizeof *server->networks); /* not of size 0 */
    if (server->networks == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        server->networks[i] = settings->trusted[i];
    server->trust = (pw_trust){server->networks, count};
    return true;
}

static bool server_allocate(pw_server *server, const pw_settings *settings)
{
    const char *directory = settings->temporary_directory;
    server->fields = pw_alloc((size_t)settings->max_fields * sizeof *server->fields);
    server->scratch = pw_realloc(NULL, PW_SCRATCH_SIZE);
    server->directory = copy_text(directory, strlen(directory));
    server->health = copy_text(settings->health_path, strlen(settings->health_path));
    server->live = copy_text(settings->live_path, strlen(settings->live_path));
    server->root = copy_text(settings->root_path, strlen(settings->root_path));
    server->has_probes = settings->health_path[0] != '\0' || settings->live_path[0] != '\0';
    if (server->fields == NULL || server->scratch == NULL || server->directory == NULL ||
        server->health == NULL || server->live == NULL || server->root == NULL ||
        !trust_open(server, settings) || !access_open(&server->access, settings) ||
        !pw_incidents_init(&server->incidents))
        return false;
    server->store.directory = server->directory;
    server->head.fields = server->fields;
    return true;
}

static void server_copy_settings(pw_server *server, const pw_settings *settings)
{
    server->limits = (pw_limits){
        .max_head_size = (size_t)settings->max_head_size,
        .max_fields = (size_t)settings->max_fields,
        .max_body_size = settings->max_body_size,
        .underscore_fields = settings->underscore_fields,
        .forwarding = PW_FORWARDING_READ,
    };
    server->other_limits = server->limits;
    server->other_limits.forwarding =
        settings->drop_forwarded != 0 ? PW_FORWARDING_DROP : PW_FORWARDING_NONE;
    server->store.memory_most = settings->body_memory;
    server->store.memory_total = settings->body_memory_total;
    server->store.size_most = settings->max_body_size;
    server->store.spool_most = settings->response_spool;
    server->store.spool_total = settings->response_spool_total;
    server->response_buffer = settings->response_buffer;
    /* The limit allows at least one head of the largest size, whose
     * buffer doubles while it grows. */
    size_t least = 2 * server->limits.max_head_size + PW_BUFFER_SIZE;
    bool enough = settings->head_memory_total > (int64_t)least;
    server->head_memory = enough ? (size_t)settings->head_memory_total : least;
    server->accept.max_connections = settings->max_connections;
    server->threads.most = settings->threads;
    server->token.has_gil = settings->gil != 0;
    server->watch.timeout_request = settings->timeout_request;
    server->proxy_protocol = settings->proxy_protocol != 0;
    server->request_ids = settings->request_ids != 0;
    server->request_seed[0] = (uint64_t)settings->request_seed_1;
    server->request_seed[1] = (uint64_t)settings->request_seed_2;
    server->queue_ends = settings->timeout_queue > 0;
    server->threads.count = 1;
    server->accept.balance = settings->balance;
    server->accept.place =
        server->accept.balance != NULL ? pw_balance_join(server->accept.balance) : NULL;
    server->accept.turn = 1;
    if (settings->metrics != NULL) {
        server->metrics = pw_metrics_keep(settings->metrics);
        server->meter = pw_meter_join(server->metrics);
    }
    server->is_timed = settings->access_file >= 0 || server->meter != NULL;
    server->slice_ms = PW_SLICE_MS;
    server->timeout_graceful = settings->timeout_graceful;
    server->timers.length[PW_TIMER_HEAD] = settings->timeout_head;
    server->timers.length[PW_TIMER_BODY] = settings->timeout_body;
    server->timers.length[PW_TIMER_WRITE] = settings->timeout_write;
    server->timers.length[PW_TIMER_KEEP_ALIVE] = settings->timeout_keep_alive;
    server->timers.length[PW_TIMER_LINGER] = 2000;
    server->timers.length[PW_TIMER_RESET] = 50;
    server->timers.length[PW_TIMER_DRAIN] = settings->timeout_drain;
    server->timers.length[PW_TIMER_QUEUE] = settings->timeout_queue;
}

pw_server *pw_server_new(const pw_settings *settings)
{
    if (settings->max_head_size < 1 || settings->max_head_size > (1 << 22) ||
        settings->max_fields < 1 || settings->max_fields > PW_FIELDS_MOST ||
        settings->max_connections < 1) {
        errno = EINVAL;
        return NULL;
    }
    pw_server *server = pw_alloc(sizeof *server);
    if (server == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    server->wake[0] = server->wake[1] = server->transfer = -1;
    pthread_mutex_init(&server->lock, NULL);
    server->references = 1;
    server->news_said = -1;
    pw_condition_init(&server->watch.wake);
    server_copy_settings(server, settings);
    pw_timers_init(&server->timers);
    pw_clock_tick(&server->clock);
    int error = ENOMEM;
    server->watch.thread = pw_thread_new(server, -1);
    if (server->watch.thread == NULL || !server_allocate(server, settings))
        goto fail;
    error = poll_begin(server, settings->poller);
    if (error == 0)
        return server;
fail:
    pw_server_free(server);
    errno = error;
    return NULL;
}

void pw_server_announce_stop(pw_server *server)
{
    atomic_store(&server->unready, true);
    atomic_store(&server->closing, true);
}

void pw_server_stop(pw_server *server, int32_t how)
{
    if (how == PW_LEAVE) /* the others on these sockets are as ready as before */
        atomic_store(&server->closing, true);
    else
        pw_server_announce_stop(server);
    int asked = atomic_load(&server->stopping);
    while (asked < how && !atomic_compare_exchange_weak(&server->stopping, &asked, how))
        continue;
    pw_server_wake(server);
}

int32_t pw_server_descriptor(pw_server *server)
{
    return server->poll.poller != NULL ? server->poll.fd : -1;
}

/* ------------------------------------------------------------------ fork(2) */

void pw_server_hold(pw_server *server)
{
    if (server->held_for_fork)
        return;
    pthread_mutex_lock(&server->lock);
    server->held_for_fork = true;
}

void pw_server_unhold(pw_server *server)
{
    if (!server->held_for_fork)
        return;
    server->held_for_fork = false;
    pthread_mutex_unlock(&server->lock);
}

/* Closes all descriptors of the child. Frees nothing, because another thread of the parent may have
 * been changing that memory. */
void pw_server_forked(pw_server *server)
{
    if (!server->held_for_fork)
        return;
    server->held_for_fork = false;
    server->forked = server->stopped = true;
    for (pw_thread *thread = server->threads.first; thread != NULL; thread = thread->next) {
        thread->conn = NULL;
        if (thread->detached.conn != NULL)
            close(thread->detached.conn->fd);
        thread->detached.conn = NULL;
    }
    for (const pw_conn *conn = server->all; conn != NULL; conn = conn->next)
        close(conn->fd);
    for (int i = 0; i < server->accept.listener_count; i++)
        if (server->accept.listeners[i].fd >= 0)
            close(server->accept.listeners[i].fd);
    for (int i = 0; i < 2; i++)
        close(server->wake[i]);
    server->wake[0] = server->wake[1] = -1;
    if (server->transfer >= 0)
        close(server->transfer);
    pw_poll_forked(&server->poll);
    server->meter = NULL; /* the parent counts in it */
    server->access.fd = -1;
    server->access.lines.size = 0; /* the parent writes them */
    server->incidents.first = server->incidents.count = 0;
    server->incidents.lost = 0;
    server->news_count = 0;
    server->news_said = -1;
    pthread_mutex_unlock(&server->lock);
}

/* ------------------------------------------------------------------ the end */

void pw_server_free(pw_server *server)
{
    if (server == NULL || server->forked)
        return;
    server->draining = server->stopped = true;
    pw_loop_clear(server);
    server->news_count = 0;
    pw_accept_close(server);
    pw_accept_leave(server);
    pw_poll_close(&server->poll);
    pw_access_flush(server);
    if (server->meter != NULL)
        pw_meter_leave(server->meter);
    if (server->metrics != NULL)
        pw_metrics_free(server->metrics);
    server->meter = NULL;
    server->metrics = NULL;
    pw_free(server->access.lines.at);
    pw_free(server->access.program);
    pw_free(server->health);
    pw_free(server->live);
    pw_free(server->root);
    pw_free(server->networks);
    for (int i = 0; i < 2; i++)
        if (server->wake[i] >= 0)
            close(server->wake[i]);
    if (server->transfer >= 0)
        close(server->transfer);
    pw_cache_free(&server->cache);
    pw_pool_free(&server->pool);
    pw_free(server->fields);
    pw_free(server->scratch);
    pw_free(server->news);
    pw_free(server->incidents.at);
    pw_free(server->directory);
    pw_thread_free(server->watch.thread);
    server->watch.thread = NULL;
    pw_server_release(server);
}

void pw_server_log_to(pw_server *server, int32_t descriptor)
{
    pthread_mutex_lock(&server->lock);
    pw_access_move(server, descriptor);
    pthread_mutex_unlock(&server->lock);
}

int64_t pw_server_dropped(pw_server *server)
{
    pthread_mutex_lock(&server->lock);
    int64_t dropped = server->dropped;
    pthread_mutex_unlock(&server->lock);
    return dropped;
}

int64_t pw_server_proxy_refused(pw_server *server)
{
    pthread_mutex_lock(&server->lock);
    int64_t count = server->proxy_refusals.count;
    pthread_mutex_unlock(&server->lock);
    return count;
}

int64_t pw_server_log_end(pw_server *server, int32_t most, int32_t quiet)
{
    pthread_mutex_lock(&server->lock);
    int64_t lost = pw_access_end(server, most, quiet);
    pthread_mutex_unlock(&server->lock);
    return lost;
}
