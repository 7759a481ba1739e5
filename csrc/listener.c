/*
 * The listening sockets. The poller has them while there is room for more connections and it is
 * this process's turn to accept. While the server drains it closes them one by one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "listener.h"
#include "poller.h"
#include "queue.h"
#include "system.h"

int32_t pw_server_listen(pw_server *server, int32_t descriptor)
{
    if (server->accept.listener_count == PW_LISTENERS_MOST)
        return EMFILE;
    pw_listener *listener = &server->accept.listeners[server->accept.listener_count];
    listener->fd = fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
    if (listener->fd < 0)
        return errno;
    int error = pw_poll_add(&server->poll, listener->fd, listener, PW_POLL_LISTENER);
    listener->is_polled = error == 0;
    if (error == 0)
        server->accept.listener_count++;
    else
        close(listener->fd);
    return error;
}

int32_t pw_server_share(pw_server *server, int32_t from, int32_t to)
{
    server->transfer = fcntl(to, F_DUPFD_CLOEXEC, 0);
    if (server->transfer < 0)
        return errno;
    pw_no_pipe_signal(server->transfer);
    int32_t error = pw_server_listen(server, from);
    if (error == 0)
        server->accept.listeners[server->accept.listener_count - 1].is_channel = true;
    return error;
}

void pw_accept_count(pw_server *server, int change)
{
    server->conn_count += change;
    if (server->accept.place != NULL)
        atomic_store_explicit(&server->accept.place->connections, server->conn_count,
                              memory_order_relaxed);
    if (change < 0 && server->draining)
        pw_loop_wake(server, true);
}

void pw_listener_unpoll(pw_server *server, pw_listener *listener)
{
    if (listener->is_polled)
        pw_poll_remove(&server->poll, listener->fd);
    listener->is_polled = false;
}

void pw_accept_unlisten(pw_server *server)
{
    for (int i = 0; i < server->accept.listener_count; i++)
        pw_listener_unpoll(server, &server->accept.listeners[i]);
}

void pw_accept_listen(pw_server *server)
{
    for (int i = 0; i < server->accept.listener_count; i++) {
        pw_listener *listener = &server->accept.listeners[i];
        if (listener->is_over || listener->is_polled)
            continue;
        if (pw_poll_add(&server->poll, listener->fd, listener, PW_POLL_LISTENER) != 0) {
            pw_accept_pause(server);
            server->accept.resume_at = server->timers.now + PW_PAUSE_MS;
            return;
        }
        listener->is_polled = true;
    }
}

void pw_accept_pause(pw_server *server)
{
    if (server->accept.paused)
        return;
    server->accept.paused = true;
    server->accept.aside = false;
    pw_accept_unlisten(server);
}

void pw_accept_resume(pw_server *server)
{
    if (!server->accept.paused ||
        (server->draining && server->conn_count >= server->accept.max_connections))
        return;
    server->accept.paused = false;
    server->accept.resume_at = 0;
    if (!server->draining) /* else pw_accept_drain is due */
        pw_accept_listen(server);
}

bool pw_listener_has_waiting(const pw_listener *listener)
{
    struct pollfd asked = {.fd = listener->fd, .events = POLLIN};
    return poll(&asked, 1, 0) > 0 && (asked.revents & POLLIN) != 0;
}

/* otherwise pw_accept_drain is due */

bool pw_accept_is_open(const pw_server *server)
{
    for (int i = 0; i < server->accept.listener_count; i++)
        if (server->accept.listeners[i].fd >= 0)
            return true;
    return false;
}

bool pw_accept_drain_is_due(const pw_server *server)
{
    return server->draining && !server->accept.paused && pw_accept_is_open(server);
}

void pw_listener_close(pw_server *server, pw_listener *listener)
{
    pw_listener_unpoll(server, listener);
    close(listener->fd);
    listener->fd = -1;
}

bool pw_accept_close(pw_server *server)
{
    bool any = false;
    for (int i = 0; i < server->accept.listener_count; i++) {
        pw_listener *listener = &server->accept.listeners[i];
        if (listener->fd < 0)
            continue;
        any |= pw_listener_has_waiting(listener);
        pw_listener_close(server, listener);
    }
    return any;
}
