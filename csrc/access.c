/*
 * The access log. Lines are collected and written together.
 *
 * A write must not block: the file is a regular file, or a socket that does not block. If it takes
 * only a part, the rest is kept and written later, so no line is written twice or in part. If
 * PW_LOG_MOST bytes wait, whole lines are dropped and counted.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "access.h"
#include "access_format.h"
#include "alloc.h"
#include "client.h"
#include "clock.h"
#include "forwarded.h"
#include "head.h"
#include "incident.h"
#include "request_id.h"
#include "system.h"

#define PW_LOG_SIZE 65536
#define PW_LOG_PART 98304     /* bytes in one write; usually fewer wait */
#define PW_LOG_MOST (1 << 20) /* bytes that wait; more lines are dropped */
#define PW_LOG_WAIT_MS 100 /* the loop waits this long for a reader, in each PW_LOG_WAIT_EVERY_MS */
#define PW_LOG_WAIT_EVERY_MS 1000
#define PW_LOG_REPORT_MS 10000 /* between two incidents of lines that were dropped */
#define PW_LOG_DELAY_MS 100    /* how long a line may wait for others */

/* ------------------------------------------------------------------ lines */

static void access_lose(pw_server *server, int64_t lines)
{
    server->access.lost += lines;
    if (server->meter != NULL)
        pw_count(&server->meter->lost_lines, lines);
}

/*
 * PW_LOG_MOST bytes wait. Waits a moment for a reader that is slower than the server. After a wait
 * in which the reader read nothing, does not wait again until it has read. False: the line must be
 * dropped.
 */
static bool access_wait(pw_server *server)
{
    pw_access *access = &server->access;
    int64_t now = pw_now();
    if (access->stalled || access->error != EAGAIN)
        return false;
    if (now - access->wait_from >= PW_LOG_WAIT_EVERY_MS) {
        access->wait_from = now;
        access->waited = 0;
    }
    int64_t left = PW_LOG_WAIT_MS - access->waited;
    if (left <= 0)
        return false;
    struct pollfd one = {.fd = access->fd, .events = POLLOUT};
    access->stalled = poll(&one, 1, (int)left) == 0;
    access->waited += pw_now() - now;
    if (!access->stalled)
        pw_access_flush(server);
    return access->lines.size < PW_LOG_MOST;
}

void pw_access_line(pw_server *server, const char *program, size_t size,
                    const pw_access_facts *what)
{
    pw_access *access = &server->access;
    if (program == NULL)
        return; /* out of memory */
    if (access->lines.size >= PW_LOG_MOST && !access_wait(server)) {
        access_lose(server, 1);
        return;
    }
    if (access->lines.size == 0)
        access->due = server->timers.now + PW_LOG_DELAY_MS;
    pw_access_put(access, program, size, what);
    /* While the file takes nothing, trying with each line would cost a system call a request. */
    if (!access->blocked && (access->prompt || access->lines.size >= PW_LOG_SIZE))
        pw_access_flush(server);
}

/* ------------------------------------------------------------------ writing */

/*
 * The number of bytes for one write. They are whole lines, so that each message in a socket has
 * whole lines. A line that is longer than PW_LOG_PART is written alone.
 */
static size_t access_part(const char *data, size_t size)
{
    if (size <= PW_LOG_PART)
        return size;
    size_t part = PW_LOG_PART;
    while (part > 0 && data[part - 1] != '\n')
        part--;
    if (part > 0)
        return part;
    const char *end = memchr(data, '\n', size);
    return end != NULL ? (size_t)(end - data) + 1 : size;
}

static int64_t count_lines(const char *data, size_t size)
{
    int64_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += data[i] == '\n';
    return count;
}

/* Writes as much as the file takes now. Returns the number of bytes. *error: the errno that ended
 * the write, or 0. */
static size_t access_write(pw_server *server, int *error)
{
    const pw_access *access = &server->access;
    const char *data = access->lines.at;
    size_t size = access->lines.size, done = 0;
    *error = 0;
    sigset_t before = pw_write_signals_hold();
    while (done < size && *error == 0) {
        size_t part = access_part(data + done, size - done);
        ssize_t written = write(access->fd, data + done, part);
        if (written > 0) {
            done += (size_t)written;
        } else if (written < 0 && errno == EMSGSIZE) {
            access_lose(server, count_lines(data + done, part));
            done += part;
        } else {
            *error = written < 0 ? errno : EAGAIN;
        }
    }
    pw_write_signals_release(&before, *error == 0);
    return done;
}

/* Reports the number of dropped lines to the error log, once the file takes lines again. */
static void access_report(pw_server *server, bool all)
{
    pw_access *access = &server->access;
    if (access->lost == 0 || (!all && access->reported_at != 0 &&
                              server->timers.now - access->reported_at < PW_LOG_REPORT_MS))
        return;
    access->reported_at = server->timers.now;
    pw_incident_log(server, access->lost, access->error);
    access->lost = 0;
}

void pw_access_flush(pw_server *server)
{
    pw_access *access = &server->access;
    pw_text *lines = &access->lines;
    access->due = 0;
    if (access->fd < 0)
        lines->size = 0;
    if (lines->size == 0)
        return;
    int error;
    size_t done = access_write(server, &error);
    access->blocked = error != 0;
    if (done > 0) {
        access->cut = lines->at[done - 1] != '\n';
        access->stalled = false;
    }
    if (access->blocked) {
        access->error = error;
        access->due = server->timers.now + PW_LOG_DELAY_MS;
        memmove(lines->at, lines->at + done, lines->size - done);
        lines->size -= done;
    } else {
        lines->size = 0;
        if (lines->room >
            (size_t)4 * PW_LOG_SIZE) { /* so much is needed only after a blocked write */
            pw_free(lines->at);
            *lines = (pw_text){NULL, 0, 0};
        }
    }
    if (done > 0)
        access_report(server, !access->blocked);
}

void pw_access_move(pw_server *server, int fd)
{
    pw_access *access = &server->access;
    pw_text *lines = &access->lines;
    pw_access_flush(server);
    if (access->cut && lines->size > 0) { /* the rest of a line does not belong into another file */
        const char *end = memchr(lines->at, '\n', lines->size);
        size_t rest = end != NULL ? (size_t)(end - lines->at) + 1 : lines->size;
        memmove(lines->at, lines->at + rest, lines->size - rest);
        lines->size -= rest;
        access_lose(server, 1);
    }
    access->cut = access->blocked = false;
    access->fd = fd;
    server->is_timed |= fd >= 0;
}

int64_t pw_access_end(pw_server *server, int most, int quiet)
{
    pw_access *access = &server->access;
    int64_t until = pw_now() + most;
    pw_access_flush(server);
    while (access->blocked && access->error == EAGAIN && pw_now() < until) {
        struct pollfd one = {.fd = access->fd, .events = POLLOUT};
        if (poll(&one, 1, quiet) == 0)
            break;
        pw_access_flush(server);
    }
    access_lose(server, count_lines(access->lines.at, access->lines.size));
    int64_t lost = access->lost;
    access->lost = 0;
    access->lines.size = 0;
    access->due = 0;
    access->fd = -1;
    return lost;
}

/* ------------------------------------------------------------------ a request and its response */

void pw_access_response(pw_thread *thread, const pw_conn *conn, int64_t now_us)
{
    if (thread->server->access.fd < 0)
        return;
    pw_access_line(thread->server, thread->log.at, thread->log.size,
                   &(pw_access_facts){
                       .status = conn->response.status,
                       .bytes = conn->response.bytes,
                       .duration = now_us - thread->taken_us,
                       .queued = thread->queued_us,
                       .id = thread->request.id[0] != '\0' ? thread->request.id : NULL,
                   });
}

/* The received part of a request line that is not valid. */
static pw_span first_line(const pw_conn *conn)
{
    if (conn->in == NULL)
        return (pw_span){NULL, 0};
    const char *from = conn->in->data + conn->in->start;
    size_t most = conn->in->end - conn->in->start;
    size_t size = 0;
    while (size < most && from[size] != '\r' && from[size] != '\n')
        size++;
    return (pw_span){from, size};
}

void pw_access_refusal(pw_server *server, pw_conn *conn, int status)
{
    if (server->access.fd < 0)
        return;
    if (conn->state == PW_CONN_CONTENT || conn->state == PW_CONN_READY)
        pw_parse_again(server, conn);
    else if (server->head.method.size == 0)
        server->head.target = first_line(conn);
    server->parsed = NULL;
    pw_peer peer;
    pw_peer_name(conn, &peer);
    pw_text program = {NULL, 0, 0};
    pw_access_request(server, &program, &server->head,
                      pw_client_of(pw_forwarded_of(server), pw_sender_of(conn->proxied, &peer)));
    char id[PW_REQUEST_ID_SIZE];
    if (server->request_ids)
        pw_request_id(server, conn, &server->head, id);
    pw_access_line(
        server, program.at, program.size,
        &(pw_access_facts){.status = status, .bytes = 0, .id = server->request_ids ? id : NULL});
    pw_free(program.at);
}
