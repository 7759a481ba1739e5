/*
 * The PROXY header before the first request of a connection. Only trusted peers may send it, and
 * they must send it: otherwise a client that bypasses the proxy could name any address. The
 * connection of another peer is closed without a response, and so is one with an invalid header.
 */
#include <errno.h>

#include "alloc.h"
#include "conn_proxy.h"
#include "conn_transfer.h"
#include "conn_wait.h"
#include "incident.h"
#include "recv.h"
#include "timer.h"
#include "trust.h"

static pw_step proxy_close(pw_server *server, pw_conn *conn, int why)
{
    pw_incident_proxy(server, conn, why);
    if (server->meter != NULL)
        pw_count(&server->meter->refused_proxies, 1);
    pw_conn_close(server, conn);
    return PW_STEP_WAIT;
}

static int incident_of(pw_proxy_error error)
{
    switch (error) {
    case PW_PROXY_MISSING:
        return PW_INCIDENT_PROXY_MISSING;
    case PW_PROXY_LONG:
        return PW_INCIDENT_PROXY_LONG;
    case PW_PROXY_MALFORMED:
    case PW_PROXY_VALID:
        break;
    }
    return PW_INCIDENT_PROXY_MALFORMED;
}

/* Continues with the first request, as a connection without the header begins. */
static pw_step proxy_done(pw_server *server, pw_conn *conn, const pw_proxy_header *header)
{
    if (header->has_addresses) {
        conn->proxied = pw_alloc(sizeof *conn->proxied);
        if (conn->proxied == NULL) {
            pw_incident_conn(server, conn, PW_INCIDENT_MEMORY, ENOMEM);
            pw_conn_close(server, conn);
            return PW_STEP_WAIT;
        }
        *conn->proxied = header->addresses;
        conn->trusted = pw_trusts(&server->trust, &conn->proxied->source);
    }
    pw_timer_stop(&conn->timer); /* the first request has its own time */
    conn->in->start += header->size;
    if (conn->in->start < conn->in->end) {
        conn->state = PW_CONN_HEAD;
    } else {
        pw_conn_release_buffer(server, conn);
        conn->state = PW_CONN_IDLE;
        server->idle_count++;
    }
    return PW_STEP_ON;
}

/* Waits for bytes of the header. Before the first one the server may stop, as before a request. */
static pw_step proxy_wait(pw_server *server, pw_conn *conn)
{
    if (conn->in != NULL && conn->in->start == conn->in->end)
        pw_conn_release_buffer(server, conn);
    if (!server->draining || conn->in != NULL)
        return pw_conn_wait(server, conn, PW_TIMER_HEAD, false);
    if (!pw_transfer_send(server, conn))
        return pw_conn_wait(server, conn, PW_TIMER_DRAIN, false);
    pw_conn_leave(server, conn);
    return PW_STEP_WAIT;
}

pw_step pw_conn_read_proxy(pw_server *server, pw_conn *conn)
{
    if (!conn->trusted)
        return proxy_close(server, conn, PW_INCIDENT_PROXY_PEER);
    if (conn->in != NULL) {
        pw_proxy_header header;
        pw_proxy_error error;
        const pw_buffer *in = conn->in;
        switch (pw_proxy_read(in->data + in->start, in->end - in->start, &header, &error)) {
        case PW_PARSE_DONE:
            return proxy_done(server, conn, &header);
        case PW_PARSE_ERROR:
            return proxy_close(server, conn, incident_of(error));
        case PW_PARSE_MORE:
            break;
        }
    }
    if ((conn->what & PW_READABLE) == 0)
        return proxy_wait(server, conn);
    switch (pw_recv(server, conn)) {
    case PW_IO_OK:
    case PW_IO_RETRY:
        return PW_STEP_ON;
    case PW_IO_ERROR:
        return pw_conn_fail(server, conn);
    case PW_IO_END: /* a health check that only connects, or a client that gives up */
        break;
    }
    pw_conn_close(server, conn);
    return PW_STEP_WAIT;
}
