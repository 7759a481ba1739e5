/* The current numbers of a server, for --metrics and for the other servers on its sockets. */
#include "gauges.h"
#include "meter.h"

void pw_gauges_store(pw_server *server)
{
    pw_meter *meter = server->meter;
    if (server->accept.place != NULL)
        atomic_store_explicit(&server->accept.place->requests,
                              server->threads.taken + server->ready_count, memory_order_relaxed);
    if (meter == NULL)
        return;
    pw_count_set(&meter->connections, server->conn_count);
    pw_count_set(&meter->idle, server->idle_count);
    pw_count_set(&meter->threads, pw_threads_most(server));
    pw_count_set(&meter->busy, server->threads.taken);
    pw_count_set(&meter->waiting, server->ready_count);
}

void pw_bytes_store(pw_server *server, pw_conn *conn)
{
    pw_count(&server->meter->received, conn->received);
    pw_count(&server->meter->sent, conn->output.sent);
    conn->received = conn->output.sent = 0;
}
