/* New connections, in batches; a pause while there is no room for more. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "server.h"

#define PW_PAUSE_MS 100 /* for want of descriptors or memory, which nobody tells us the end of */

static void pw_conn_new(pw_server *server, int fd, const struct sockaddr_storage *peer,
                        uint8_t listener)
{
    pw_conn *conn = pw_alloc(sizeof *conn);
    if (conn == NULL) {
        close(fd);
        return;
    }
    conn->fd = fd;
    conn->id = server->next_id++;
    conn->listener = listener;
    conn->entry = -1;
    conn->timer.kind = PW_TIMER_NONE;
    conn->state = PW_CONN_IDLE;
    conn->what = PW_READABLE; /* most clients have sent something by now */
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
    conn->next = server->all;
    if (server->all != NULL)
        server->all->previous = conn;
    server->all = conn;
    server->conn_count++;
    pw_run(server, conn, false);
}

void pw_accept_pause(pw_server *server)
{
    if (server->paused)
        return;
    server->paused = true;
    for (int i = 0; i < server->listener_count; i++)
        pw_poll_remove(&server->poll, server->listeners[i].fd);
}

void pw_accept_resume(pw_server *server)
{
    if (!server->paused || server->draining || server->conn_count >= server->max_connections)
        return;
    server->paused = false;
    server->resume_at = 0;
    for (int i = 0; i < server->listener_count; i++)
        if (pw_poll_add_listener(&server->poll, server->listeners[i].fd, &server->listeners[i]) !=
            0) {
            pw_accept_pause(server);
            server->resume_at = server->timers.now + PW_PAUSE_MS;
            return;
        }
}

void pw_accept_take_turns(pw_server *server, pw_listener *listener)
{
    if (server->paused)
        return;
    /* The system wakes whoever has waited for the socket the longest, again and again; as the one
     * that came last this process lets the others have theirs. */
    pw_poll_remove(&server->poll, listener->fd);
    if (pw_poll_add_listener(&server->poll, listener->fd, listener) != 0) {
        pw_accept_pause(server);
        server->resume_at = server->timers.now + PW_PAUSE_MS;
    }
}

void pw_accept(pw_server *server, pw_listener *listener, int most)
{
    for (int i = 0; i < most; i++) {
        if (server->conn_count >= server->max_connections) {
            pw_accept_pause(server);
            return;
        }
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        peer.ss_family = AF_UNSPEC;
        int fd =
            accept4(listener->fd, (struct sockaddr *)&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            pw_conn_new(server, fd, &peer, (uint8_t)(listener - server->listeners));
            continue;
        }
        switch (errno) {
        case EMFILE:
        case ENFILE:
        case ENOBUFS:
        case ENOMEM:
            pw_accept_pause(server);
            server->resume_at = server->timers.now + PW_PAUSE_MS;
            return;
        case ECONNABORTED:
        case EINTR:
        case EPROTO:
        case EPERM:
            continue; /* that connection is lost, the next may be good */
        default:
            return; /* EAGAIN: no more; the rest concern the listening socket and do not pass */
        }
    }
}
