/*
 * What became of requests that were accepted and not answered in full, for the error log. A client
 * that disconnects, or sends something else than a request, is no notice.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "alloc.h"
#include "incident.h"
#include "queue.h"
#include "text.h"

#define PW_NOTICES_ROOM 16   /* from the start: one of them tells that there is no memory */
#define PW_NOTICES_MOST 8192 /* that wait for pw_notice_take; of more only the number is told */
#define PW_OFTEN_MS 10000    /* between two notices of what meets many */

bool pw_notices_init(pw_notices *notices)
{
    notices->room = PW_NOTICES_ROOM;
    notices->at = pw_realloc(NULL, notices->room * sizeof *notices->at);
    return notices->at != NULL;
}

/* ------------------------------------------------------------------ the request line */

/* Adds to a text that is ended by NUL; what has no room is left out. */
static void line_add(char line[PW_NOTICE_LINE], const char *data, size_t size)
{
    size_t before = strlen(line);
    if (size > PW_NOTICE_LINE - 1 - before)
        size = PW_NOTICE_LINE - 1 - before;
    memcpy(line + before, data, size);
    line[before + size] = '\0';
}

/* Method and target, as far as they are here. */
static void line_of_head(char line[PW_NOTICE_LINE], const char *data, size_t size)
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
    if (data[0] == '\r') /* an empty line that was passed over */
        data += 2;
    size_t size = conn->facts.line_size;
    thread->line_size = size < sizeof thread->line ? size : sizeof thread->line;
    memcpy(thread->line, data, thread->line_size);
}

void pw_conn_keep_line(const pw_thread *thread, pw_conn *conn)
{
    char line[PW_NOTICE_LINE] = "";
    line_of_head(line, thread->line, thread->line_size);
    pw_free(conn->line);
    size_t size = strlen(line) + 1, id_size = strlen(thread->request.id) + 1;
    conn->line = pw_alloc(size + id_size);
    if (conn->line != NULL) {
        memcpy(conn->line, line, size);
        memcpy(conn->line + size, thread->request.id, id_size);
    }
}

/* ------------------------------------------------------------------ notices */

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

/* A place in the list, or NULL. */
static pw_notice *notice_new(pw_notices *notices)
{
    if (notices->count == notices->room) {
        size_t room = notices->room * 2;
        pw_notice *at = NULL;
        if (room <= PW_NOTICES_MOST)
            at = pw_realloc(notices->at, room * sizeof *at);
        if (at == NULL) {
            notices->lost++;
            return NULL;
        }
        notices->at = at;
        notices->room = room;
    }
    pw_notice *notice = &notices->at[notices->count++];
    memset(notice, 0, sizeof *notice);
    return notice;
}

/* Whether what has been received begins with the current request. */
static bool conn_is_receiving(const pw_conn *conn)
{
    return conn->state == PW_CONN_HEAD || conn->state == PW_CONN_CONTENT ||
           conn->state == PW_CONN_READY;
}

/* Tells what the request that `thread` is at, or where that is NULL the connection's own, has met. */
static void notice_add(pw_server *server, const pw_thread *thread, const pw_conn *conn, int what,
                       int error)
{
    pw_notice *notice = notice_new(&server->notices);
    if (notice != NULL) {
        notice->what = what;
        notice->error = error;
        notice->unsent = conn->output.size;
        pw_peer peer;
        pw_peer_name(conn, &peer);
        memcpy(notice->address, peer.address, sizeof notice->address);
        memcpy(notice->port, peer.port, sizeof notice->port);
        const char *id = thread != NULL       ? thread->request.id
                         : conn->line != NULL ? conn->line + strlen(conn->line) + 1
                                              : "";
        memcpy(notice->id, id, strlen(id) + 1);
        if (thread != NULL)
            line_of_head(notice->line, thread->line, thread->line_size);
        else if (conn->line != NULL)
            line_add(notice->line, conn->line, strlen(conn->line));
        else if (conn->in != NULL && conn_is_receiving(conn))
            line_of_head(notice->line, conn->in->data + conn->in->start,
                         conn->in->end - conn->in->start);
    }
    pthread_cond_signal(&server->watch.wake);
    if (server->token.holder == server->watch.thread)
        pw_loop_wake(server, true);
}

void pw_notice_often(pw_server *server, const pw_conn *conn, int what, int64_t *told)
{
    if (*told != 0 && server->timers.now - *told < PW_OFTEN_MS)
        return;
    *told = server->timers.now;
    pw_notice_conn(server, conn, what, 0);
}

void pw_notice_lost(pw_server *server)
{
    server->notices.lost++;
    pthread_cond_signal(&server->watch.wake);
}

void pw_notice_backlog(pw_server *server)
{
    pw_notice *notice = notice_new(&server->notices);
    if (notice != NULL)
        notice->what = PW_NOTICE_BACKLOG;
    pthread_cond_signal(&server->watch.wake);
}

void pw_notice_dropped(pw_server *server, const pw_conn *conn, pw_span name)
{
    pw_notice *notice = notice_new(&server->notices);
    if (notice != NULL) {
        pw_peer peer;
        pw_peer_name(conn, &peer);
        notice->what = PW_NOTICE_UNDERSCORE;
        memcpy(notice->address, peer.address, sizeof notice->address);
        memcpy(notice->port, peer.port, sizeof notice->port);
        line_add(notice->line, name.at, name.size);
    }
    pthread_cond_signal(&server->watch.wake);
}

void pw_notice_log(pw_server *server, int64_t lines, int error)
{
    pw_notice *notice = notice_new(&server->notices);
    if (notice != NULL) {
        notice->what = PW_NOTICE_LOG;
        notice->error = error;
        notice->unsent = lines;
    }
    pthread_cond_signal(&server->watch.wake);
}

/* What an error of reading or writing is; 0: the client has gone. */
static int notice_of(int error)
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
        return PW_NOTICE_MEMORY;
    case ENODATA:
        return PW_NOTICE_SHORT;
    default:
        return PW_NOTICE_ERROR;
    }
}

void pw_notice_conn(pw_server *server, const pw_conn *conn, int what, int error)
{
    if (what == PW_NOTICE_ERROR)
        what = notice_of(error);
    if (what != 0)
        notice_add(server, NULL, conn, what, error);
}

void pw_notice_thread(const pw_thread *thread, const pw_conn *conn, int what, int error)
{
    if (what == PW_NOTICE_ERROR)
        what = notice_of(error);
    if (what != 0)
        notice_add(thread->server, thread, conn, what, error);
}

int32_t pw_notice_take(pw_server *server, pw_notice *to)
{
    pthread_mutex_lock(&server->lock);
    pw_notices *notices = &server->notices;
    bool any = true;
    if (notices->first < notices->count) {
        *to = notices->at[notices->first++];
        if (notices->first == notices->count)
            notices->first = notices->count = 0;
    } else if (notices->lost > 0) {
        *to = (pw_notice){.what = PW_NOTICE_LOST, .unsent = notices->lost};
        notices->lost = 0;
    } else {
        any = false;
    }
    pthread_mutex_unlock(&server->lock);
    return any;
}

bool pw_notices_wait(const pw_notices *notices)
{
    return notices->count > 0 || notices->lost > 0;
}
