/*
 * Incidents for the error log: requests that were accepted and not answered in full. It is no
 * incident if a client disconnects, or sends bytes that are no request.
 */
#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "client.h"
#include "incident.h"
#include "queue.h"

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
    pw_free(conn->kept);
    size_t size = strlen(line) + 1;
    conn->kept = pw_alloc(sizeof *conn->kept + size);
    if (conn->kept == NULL)
        return;
    memcpy(conn->kept->line, line, size);
    memcpy(conn->kept->id, thread->request.id, sizeof conn->kept->id);
    const pw_peer *client = pw_thread_client(thread, conn);
    conn->kept->has_client = client != NULL;
    if (client != NULL)
        conn->kept->client = *client;
}

/* ------------------------------------------------------------------ incidents */

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

/* forwarded NULL: the sender of the request is its client. */
static void incident_client(pw_incident *incident, const pw_conn *conn, const pw_peer *forwarded)
{
    pw_peer peer;
    pw_peer_name(conn, &peer);
    const pw_peer *client = forwarded != NULL ? forwarded : pw_sender_of(conn->proxied, &peer);
    memcpy(incident->address, client->address, sizeof incident->address);
    memcpy(incident->port, client->port, sizeof incident->port);
    incident->has_proxy = client != &peer;
    if (!incident->has_proxy)
        return;
    memcpy(incident->proxy, peer.address, sizeof incident->proxy);
    memcpy(incident->proxy_port, peer.port, sizeof incident->proxy_port);
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

static void incident_of_thread(pw_incident *incident, const pw_thread *thread, const pw_conn *conn)
{
    incident_client(incident, conn, pw_thread_client(thread, conn));
    memcpy(incident->id, thread->request.id, sizeof incident->id);
    line_of_head(incident->line, thread->line, thread->line_size);
}

static void incident_of_kept(pw_incident *incident, const pw_conn *conn)
{
    const pw_kept *kept = conn->kept;
    incident_client(incident, conn, kept->has_client ? &kept->client : NULL);
    memcpy(incident->id, kept->id, sizeof incident->id);
    line_add(incident->line, kept->line, strlen(kept->line));
}

static void incident_of_received(pw_incident *incident, pw_server *server, const pw_conn *conn)
{
    bool is_here = conn->in != NULL && conn_is_receiving(conn);
    bool whole = is_here && conn->state != PW_CONN_HEAD;
    incident_client(incident, conn, whole ? pw_waiting_client(server, conn) : NULL);
    if (is_here)
        line_of_head(incident->line, conn->in->data + conn->in->start,
                     conn->in->end - conn->in->start);
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
        if (thread != NULL)
            incident_of_thread(incident, thread, conn);
        else if (conn->kept != NULL)
            incident_of_kept(incident, conn);
        else
            incident_of_received(incident, server, conn);
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
        incident_client(incident, conn, pw_client_of(pw_forwarded_of(server), NULL));
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

/* The first line of what should be a PROXY header, or its beginning. */
static void line_of_proxy(char line[PW_INCIDENT_LINE], const pw_buffer *in)
{
    size_t most = in->end - in->start, size = 0;
    const char *from = in->data + in->start;
    if (most > PW_PROXY_V1_MOST)
        most = PW_PROXY_V1_MOST;
    while (size < most && from[size] != '\r' && from[size] != '\n' && from[size] != '\0')
        size++;
    line_add(line, from, size);
}

void pw_incident_proxy(pw_server *server, const pw_conn *conn, int what)
{
    pw_proxy_refusals *refusals = &server->proxy_refusals;
    size_t kind = (size_t)(what - PW_INCIDENT_PROXY_PEER);
    int64_t *reported_at = &refusals->kinds[kind].reported_at;
    refusals->count++;
    refusals->kinds[kind].unreported++;
    if (*reported_at != 0 && server->timers.now - *reported_at < PW_OFTEN_MS)
        return;
    *reported_at = server->timers.now;
    pw_incident *incident = incident_new(&server->incidents);
    if (incident != NULL) {
        incident->what = what;
        incident->unsent = refusals->kinds[kind].unreported;
        incident_client(incident, conn, NULL);
        if (conn->in != NULL)
            line_of_proxy(incident->line, conn->in);
    }
    refusals->kinds[kind].unreported = 0;
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
