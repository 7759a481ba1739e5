/*
 * Incidents for the error log: requests that were accepted and not answered in full. It is no
 * incident if a client disconnects, or sends bytes that are no request.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "incident.h"
#include "queue.h"
#include "text.h"

#define PW_INCIDENTS_ROOM 16   /* from the start: one of them reports that there is no memory */
#define PW_INCIDENTS_MOST 8192 /* that wait for pw_incident_take; the others are only counted */
#define PW_OFTEN_MS 10000      /* between two incidents that may come in large numbers */

bool pw_incidents_init(pw_incidents *incidents)
{
    incidents->room = PW_INCIDENTS_ROOM;
    incidents->at = pw_realloc(NULL, incidents->room * sizeof *incidents->at);
    return incidents->at != NULL;
}

/* ------------------------------------------------------------------ the request line */

/* Appends to a text that ends with NUL. Leaves out what has no room. */
static void line_add(char line[PW_INCIDENT_LINE], const char *data, size_t size)
{
    size_t before = strlen(line);
    if (size > PW_INCIDENT_LINE - 1 - before)
        size = PW_INCIDENT_LINE - 1 - before;
    memcpy(line + before, data, size);
    line[before + size] = '\0';
}

/* Writes method and target, as far as they are received. */
static void line_of_head(char line[PW_INCIDENT_LINE], const char *data, size_t size)
{
    const char *end = data + size;
    while (data < end && (*data == '\r' || *data == '\n'))
        data++;
    int blanks = 0;
    const char *at = data;
    while (at < end && *at != '\r' && *at != '\n' && (*at != ' ' || ++blanks < 2))
        at++;
    line_add(line, data, (size_t)(at - data));
}

void pw_thread_keep_line(pw_thread *thread, const pw_conn *conn)
{
    const char *data = conn->in->data + conn->in->start;
    if (data[0] == '\r') /* skips an empty line */
        data += 2;
    size_t size = conn->facts.line_size;
    thread->line_size = size < sizeof thread->line ? size : sizeof thread->line;
    memcpy(thread->line, data, thread->line_size);
}

void pw_conn_keep_line(const pw_thread *thread, pw_conn *conn)
{
    char line[PW_INCIDENT_LINE] = "";
    line_of_head(line, thread->line, thread->line_size);
    pw_free(conn->line);
    size_t size = strlen(line) + 1, id_size = strlen(thread->request.id) + 1;
    conn->line = pw_alloc(size + id_size);
    if (conn->line != NULL) {
        memcpy(conn->line, line, size);
        memcpy(conn->line + size, thread->request.id, id_size);
    }
}

/* ------------------------------------------------------------------ incidents */

void pw_peer_name(const pw_conn *conn, pw_peer *peer)
{
    peer->address[0] = '\0';
    peer->port[0] = '\0';
    uint16_t port = 0;
    if (conn->peer.any.sa_family == AF_INET) {
        uint32_t address = ntohl(conn->peer.v4.sin_addr.s_addr);
        char *to = peer->address;
        for (int shift = 24; shift >= 0; shift -= 8) {
            to += pw_digits(to, (address >> shift) & 255);
            *to++ = shift > 0 ? '.' : '\0';
        }
        port = ntohs(conn->peer.v4.sin_port);
    } else if (conn->peer.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &conn->peer.v6.sin6_addr, peer->address, sizeof peer->address);
        port = ntohs(conn->peer.v6.sin6_port);
    } else {
        return;
    }
    peer->port[pw_digits(peer->port, port)] = '\0';
}

/* A new place in the list, or NULL. */
static pw_incident *incident_new(pw_incidents *incidents)
{
    if (incidents->count == incidents->room) {
        size_t room = incidents->room * 2;
        pw_incident *at = NULL;
        if (room <= PW_INCIDENTS_MOST)
            at = pw_realloc(incidents->at, room * sizeof *at);
        if (at == NULL) {
            incidents->lost++;
            return NULL;
        }
        incidents->at = at;
        incidents->room = room;
    }
    pw_incident *incident = &incidents->at[incidents->count++];
    memset(incident, 0, sizeof *incident);
    return incident;
}

static void incident_peer(pw_incident *incident, const pw_conn *conn)
{
    pw_peer peer;
    pw_peer_name(conn, &peer);
    memcpy(incident->address, peer.address, sizeof incident->address);
    memcpy(incident->port, peer.port, sizeof incident->port);
}

/* Makes the watcher take the incidents, also if it runs the loop and waits for events. */
static void incident_wake(pw_server *server)
{
    pthread_cond_signal(&server->watch.wake);
    if (server->token.holder == server->watch.thread)
        pw_loop_wake(server, true);
}

/* Whether the received bytes begin with the current request. */
static bool conn_is_receiving(const pw_conn *conn)
{
    return conn->state == PW_CONN_HEAD || conn->state == PW_CONN_CONTENT ||
           conn->state == PW_CONN_READY;
}

/* Adds an incident of the thread's request. thread NULL: of the connection's request. */
static void incident_add(pw_server *server, const pw_thread *thread, const pw_conn *conn, int what,
                         int error)
{
    pw_incident *incident = incident_new(&server->incidents);
    if (incident != NULL) {
        incident->what = what;
        incident->error = error;
        incident->unsent = conn->output.size;
        incident_peer(incident, conn);
        const char *id = thread != NULL       ? thread->request.id
                         : conn->line != NULL ? conn->line + strlen(conn->line) + 1
                                              : "";
        memcpy(incident->id, id, strlen(id) + 1);
        if (thread != NULL)
            line_of_head(incident->line, thread->line, thread->line_size);
        else if (conn->line != NULL)
            line_add(incident->line, conn->line, strlen(conn->line));
        else if (conn->in != NULL && conn_is_receiving(conn))
            line_of_head(incident->line, conn->in->data + conn->in->start,
                         conn->in->end - conn->in->start);
    }
    incident_wake(server);
}

void pw_incident_often(pw_server *server, const pw_conn *conn, int what, int64_t *last_at)
{
    if (*last_at != 0 && server->timers.now - *last_at < PW_OFTEN_MS)
        return;
    *last_at = server->timers.now;
    pw_incident_conn(server, conn, what, 0);
}

void pw_incident_lost(pw_server *server)
{
    server->incidents.lost++;
    incident_wake(server);
}

void pw_incident_backlog(pw_server *server)
{
    pw_incident *incident = incident_new(&server->incidents);
    if (incident != NULL)
        incident->what = PW_INCIDENT_BACKLOG;
    incident_wake(server);
}

void pw_incident_dropped(pw_server *server, const pw_conn *conn, pw_span name)
{
    pw_incident *incident = incident_new(&server->incidents);
    if (incident != NULL) {
        incident->what = PW_INCIDENT_UNDERSCORE;
        incident_peer(incident, conn);
        line_add(incident->line, name.at, name.size);
    }
    incident_wake(server);
}

void pw_incident_log(pw_server *server, int64_t lines, int error)
{
    pw_incident *incident = incident_new(&server->incidents);
    if (incident != NULL) {
        incident->what = PW_INCIDENT_LOG;
        incident->error = error;
        incident->unsent = lines;
    }
    incident_wake(server);
}

/* The incident for an error of a read or write. 0: none, because the client has disconnected. */
static int incident_of(int error)
{
    switch (error) {
    case EPIPE:
    case ECONNRESET:
    case ECONNABORTED:
    case ENOTCONN:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
        return 0;
    case ENOMEM:
    case ENOBUFS:
        return PW_INCIDENT_MEMORY;
    case ENODATA:
        return PW_INCIDENT_SHORT;
    default:
        return PW_INCIDENT_ERROR;
    }
}

void pw_incident_conn(pw_server *server, const pw_conn *conn, int what, int error)
{
    if (what == PW_INCIDENT_ERROR)
        what = incident_of(error);
    if (what != 0)
        incident_add(server, NULL, conn, what, error);
}

void pw_incident_thread(const pw_thread *thread, const pw_conn *conn, int what, int error)
{
    if (what == PW_INCIDENT_ERROR)
        what = incident_of(error);
    if (what != 0)
        incident_add(thread->server, thread, conn, what, error);
}

int32_t pw_incident_take(pw_server *server, pw_incident *to)
{
    pthread_mutex_lock(&server->lock);
    pw_incidents *incidents = &server->incidents;
    bool any = true;
    if (incidents->first < incidents->count) {
        *to = incidents->at[incidents->first++];
        if (incidents->first == incidents->count)
            incidents->first = incidents->count = 0;
    } else if (incidents->lost > 0) {
        *to = (pw_incident){.what = PW_INCIDENT_LOST, .unsent = incidents->lost};
        incidents->lost = 0;
    } else {
        any = false;
    }
    pthread_mutex_unlock(&server->lock);
    return any;
}

bool pw_incidents_wait(const pw_incidents *incidents)
{
    return incidents->count > 0 || incidents->lost > 0;
}
