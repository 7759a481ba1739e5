/*
 * The access log. A format is a program of atoms (api.h, pw_settings.access_program). It is run in
 * two halves: when a request is handed to Python, what is known of it is put in, which leaves a
 * program with the atoms of the response alone; when the response is over, the rest. Lines are
 * gathered and written together.
 *
 * Writing must not wait: the file is a regular one, or a socket of ours that does not block. What it
 * does not take is kept to the byte and tried again, so a line is never written twice or in part. When
 * too much is kept, further lines are dropped whole, and counted.
 *
 * Every byte from outside is escaped, so no request can end a line, a quoted text or a JSON string.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "access.h"
#include "alloc.h"
#include "clock.h"
#include "fields.h"
#include "head.h"
#include "incident.h"
#include "request_id.h"
#include "system.h"
#include "text.h"

#define PW_LOG_SIZE 65536
#define PW_LOG_PART 98304     /* bytes written at once, more than usually wait */
#define PW_LOG_MOST (1 << 20) /* bytes that wait; of further lines only the number is kept */
#define PW_LOG_WAIT_MS 100 /* the most that the loop waits for a reader, of the time that follows */
#define PW_LOG_WAIT_EVERY_MS 1000
#define PW_LOG_TELL_MS 10000 /* between two incidents of lines that were dropped */
#define PW_LOG_DELAY_MS 100  /* how long a line may wait for others */

/* ------------------------------------------------------------------ programs */

/* One atom of a program: its code and its text. */
typedef struct {
    char code;
    const char *data;
    size_t size;
} pw_atom;

/* Reads the next atom. False: the end. Both Python and this file
 * write well-formed programs only. */
static bool atom_next(const char **at, const char *end, pw_atom *atom)
{
    if (end - *at < PW_ATOM_HEAD)
        return false;
    const unsigned char *head = (const unsigned char *)*at;
    atom->code = (*at)[0];
    atom->data = *at + PW_ATOM_HEAD;
    atom->size = (size_t)head[1] << 8 | head[2];
    if ((size_t)(end - atom->data) < atom->size)
        return false;
    *at = atom->data + atom->size;
    return true;
}

static void atom_copy(pw_text *to, const pw_atom *atom)
{
    pw_text_put(to, atom->data - PW_ATOM_HEAD, atom->size + PW_ATOM_HEAD);
}

/* Adds a literal atom with a value from outside. No value: "-". False: out of memory. */
static bool atom_literal(pw_text *to, pw_span value, bool json)
{
    size_t from = to->size;
    if (!pw_text_room(to, PW_ATOM_HEAD + 1))
        return false;
    to->size += PW_ATOM_HEAD;
    if (value.size == 0)
        pw_text_put(to, "-", 1);
    else
        pw_text_escape(to, value.at, value.size, json);
    size_t size = to->size - from - PW_ATOM_HEAD;
    to->at[from] = PW_ATOM_LITERAL;
    to->at[from + 1] = (char)(size >> 8);
    to->at[from + 2] = (char)(size & 255);
    return true;
}

/* Decodes the user name of HTTP Basic authentication (RFC 7617).
 * Returns its size; 0: there is none. */
static size_t basic_user(pw_span value, char *to, size_t room)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (value.size < 6 || !pw_equals(value.at, 6, "basic "))
        return 0;
    size_t size = 0;
    uint32_t bits = 0;
    int have = 0;
    for (size_t i = 6; i < value.size && size < room; i++) {
        const char *letter = value.at[i] != '\0' ? strchr(letters, value.at[i]) : NULL;
        if (letter == NULL)
            break;
        bits = bits << 6 | (uint32_t)(letter - letters);
        have += 6;
        if (have < 8)
            continue;
        have -= 8;
        char c = (char)(bits >> have & 255);
        if (c == ':')
            return size;
        to[size++] = c;
    }
    return 0;
}

/* Adds the value of an atom of the request. False: the atom belongs to the response. */
static bool atom_request(const pw_atom *atom, const pw_head *head, const pw_peer *peer,
                         char *scratch, size_t room, pw_span *value)
{
    switch (atom->code) {
    case PW_ATOM_ADDRESS:
        *value = (pw_span){peer->address, strlen(peer->address)};
        return true;
    case PW_ATOM_METHOD:
        *value = head->method;
        return true;
    case PW_ATOM_TARGET:
        *value = head->target;
        return true;
    case PW_ATOM_PATH:
        *value = head->path;
        return true;
    case PW_ATOM_QUERY:
        *value = head->query;
        return true;
    case PW_ATOM_PROTOCOL:
        *value = (pw_span){head->facts.minor == 0 ? "HTTP/1.0" : "HTTP/1.1", 8};
        return true;
    case PW_ATOM_USER:
        value->at = scratch;
        value->size = basic_user(pw_find_field(head, "authorization", 13), scratch, room);
        return true;
    case PW_ATOM_FIELD:
        *value = pw_find_field(head, atom->data, atom->size);
        return true;
    default:
        return false;
    }
}

void pw_access_request(pw_server *server, pw_text *to, const pw_head *head, const pw_peer *peer)
{
    const char *at = server->access.program;
    const char *end = at + server->access.program_size;
    char scratch[256];
    pw_atom atom;
    pw_span value;
    to->size = 0;
    while (atom_next(&at, end, &atom)) {
        if (!atom_request(&atom, head, peer, scratch, sizeof scratch, &value)) {
            atom_copy(to, &atom);
            continue;
        }
        if (!atom_literal(to, value, server->access.json))
            return;
    }
}

/* ------------------------------------------------------------------ lines */

/* "21/Nov/2026:12:00:00 +0000", or RFC 3339 in JSON; made again each second. */
static void access_time(pw_access *access)
{
    time_t now = time(NULL);
    if (now == access->second && access->time_size != 0)
        return;
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct tm tm;
    localtime_r(&now, &tm);
    access->second = now;
    if (access->json) {
        access->time_size = strftime(access->time, sizeof access->time, "%Y-%m-%dT%H:%M:%S%z", &tm);
        return;
    }
    char *to = access->time; /* %b would take names of months from the locale */
    size_t size = strftime(to, sizeof access->time, "%d/", &tm);
    memcpy(to + size, months + (size_t)tm.tm_mon * 3, 3);
    size += 3;
    size += strftime(to + size, sizeof access->time - size, "/%Y:%H:%M:%S %z", &tm);
    access->time_size = size;
}

/* A field of a response's head, with the bytes that Python gave. */
static pw_span response_field(const char *head, size_t size, const pw_atom *atom)
{
    const char *end = head + size;
    const char *line = memchr(head, '\n', size);
    while (line != NULL && ++line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line));
        const char *stop = next != NULL ? next - 1 : end;
        size_t k = 0;
        while (k < atom->size && line + k < stop &&
               (char)(line[k] | 32) == (char)(atom->data[k] | 32))
            k++;
        if (k == atom->size && stop - line > (ptrdiff_t)k + 2 && line[k] == ':')
            return (pw_span){line + k + 2, (size_t)(stop - line) - k - 2};
        line = next;
    }
    return (pw_span){NULL, 0};
}

void pw_access_head(pw_server *server, pw_text *program, const char *head, size_t size)
{
    if (!server->access.wants_head || program->at == NULL)
        return;
    pw_text made = {NULL, 0, 0};
    const char *at = program->at, *end = program->at + program->size;
    pw_atom atom;
    while (atom_next(&at, end, &atom)) {
        if (atom.code != PW_ATOM_RESPONSE_FIELD) {
            atom_copy(&made, &atom);
            continue;
        }
        if (!atom_literal(&made, response_field(head, size, &atom), server->access.json))
            break;
    }
    pw_free(program->at);
    *program = made;
}

static void put_seconds(pw_text *to, int64_t microseconds)
{
    char fraction[7] = ".000000";
    int64_t rest = microseconds % 1000000;
    for (size_t i = sizeof fraction - 1; i > 0; i--, rest /= 10)
        fraction[i] = (char)('0' + rest % 10);
    pw_text_number(to, microseconds / 1000000);
    pw_text_put(to, fraction, sizeof fraction);
}

/* Adds a duration for people: "0.4 ms", or "1.25 s" from one second on. */
static void put_duration(pw_text *to, int64_t microseconds)
{
    bool seconds = microseconds >= 1000000;
    int64_t hundredths = microseconds / (seconds ? 10000 : 10);
    char fraction[] = {'.', (char)('0' + hundredths / 10 % 10), (char)('0' + hundredths % 10)};
    pw_text_number(to, hundredths / 100);
    pw_text_put(to, fraction, seconds ? 3 : 2);
    pw_text_put(to, seconds ? " s" : " ms", seconds ? 2 : 3);
}

/* Adds the text of an atom without the condition before it. */
static void put_after(pw_text *to, const pw_atom *atom, size_t condition)
{
    if (atom->size > condition)
        pw_text_put(to, atom->data + condition, atom->size - condition);
}

static bool is_slow(const pw_atom *atom, int64_t microseconds)
{
    if (atom->size < PW_ATOM_SLOW_SIZE)
        return false;
    int64_t least = 0;
    for (size_t i = 0; i < PW_ATOM_SLOW_SIZE; i++)
        least = least << 8 | (unsigned char)atom->data[i];
    return microseconds / 1000 >= least;
}

static void atom_response(pw_access *access, const pw_atom *atom, const pw_access_facts *what)
{
    pw_text *to = &access->lines;
    switch (atom->code) {
    case PW_ATOM_LITERAL:
        pw_text_put(to, atom->data, atom->size);
        break;
    case PW_ATOM_TIME:
        pw_text_put(to, access->time, access->time_size);
        break;
    case PW_ATOM_STATUS:
        pw_text_number(to, what->status);
        break;
    case PW_ATOM_BYTES:
        pw_text_number(to, what->bytes);
        break;
    case PW_ATOM_BYTES_OR_DASH:
        if (what->bytes > 0)
            pw_text_number(to, what->bytes);
        else
            pw_text_put(to, "-", 1);
        break;
    case PW_ATOM_SECONDS:
        pw_text_number(to, what->duration / 1000000);
        break;
    case PW_ATOM_DECIMAL_SECONDS:
        put_seconds(to, what->duration);
        break;
    case PW_ATOM_MILLISECONDS:
        pw_text_number(to, what->duration / 1000);
        break;
    case PW_ATOM_MICROSECONDS:
        pw_text_number(to, what->duration);
        break;
    case PW_ATOM_QUEUE:
        pw_text_number(to, what->queued);
        break;
    case PW_ATOM_CLOCK:
        if (access->time_size >= 20)
            pw_text_put(to, access->time + (access->json ? 11 : 12), 8);
        break;
    case PW_ATOM_DURATION:
        put_duration(to, what->duration);
        break;
    case PW_ATOM_REQUEST_ID:
        if (what->id != NULL)
            pw_text_put(to, what->id, strlen(what->id));
        else
            pw_text_put(to, "-", 1);
        break;
    case PW_ATOM_IF_STATUS:
        if (atom->size > 0 && what->status / 100 == atom->data[0] - '0')
            put_after(to, atom, PW_ATOM_STATUS_SIZE);
        break;
    case PW_ATOM_IF_SLOW:
        if (is_slow(atom, what->duration))
            put_after(to, atom, PW_ATOM_SLOW_SIZE);
        break;
    default: /* an atom of a request that was refused before it was parsed */
        pw_text_put(to, "-", 1);
        break;
    }
}

/*
 * Too much is kept: waits a moment for a reader that is slower than the server, so that it gets on.
 * False: a line has to be dropped. One that reads nothing is waited for once, until it has read again.
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
        access->lost++;
        return;
    }
    const char *end = program + size;
    pw_atom atom;
    access_time(access);
    if (access->lines.size == 0)
        access->due = server->timers.now + PW_LOG_DELAY_MS;
    while (atom_next(&program, end, &atom))
        atom_response(access, &atom, what);
    pw_text_put(&access->lines, "\n", 1);
    /* While the file takes nothing, trying with each line would cost a system call a request. */
    if (!access->blocked && (access->prompt || access->lines.size >= PW_LOG_SIZE))
        pw_access_flush(server);
}

/* ------------------------------------------------------------------ writing */

/*
 * How much to write at once: whole lines, so that what reads a socket gets whole lines in each message.
 * A line that is longer than the most goes alone.
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

/* Writes as much as the file takes now, and returns how much that was; *error is 0, or why not all. */
static size_t access_write(pw_access *access, int *error)
{
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
            access->lost += count_lines(data + done, part);
            done += part;
        } else {
            *error = written < 0 ? errno : EAGAIN;
        }
    }
    pw_write_signals_release(&before, *error == 0);
    return done;
}

/* Once the file takes lines again, the error log is told how many it has missed. */
static void access_tell(pw_server *server, bool all)
{
    pw_access *access = &server->access;
    if (access->lost == 0 ||
        (!all && access->told != 0 && server->timers.now - access->told < PW_LOG_TELL_MS))
        return;
    access->told = server->timers.now;
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
    size_t done = access_write(access, &error);
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
        if (lines->room > (size_t)4 * PW_LOG_SIZE) { /* it was blocked: that much is not usual */
            pw_free(lines->at);
            *lines = (pw_text){NULL, 0, 0};
        }
    }
    if (done > 0)
        access_tell(server, !access->blocked);
}

void pw_access_move(pw_server *server, int fd)
{
    pw_access *access = &server->access;
    pw_text *lines = &access->lines;
    pw_access_flush(server);
    if (access->cut && lines->size > 0) { /* the rest of a line is nothing for another file */
        const char *end = memchr(lines->at, '\n', lines->size);
        size_t rest = end != NULL ? (size_t)(end - lines->at) + 1 : lines->size;
        memmove(lines->at, lines->at + rest, lines->size - rest);
        lines->size -= rest;
        access->lost++;
    }
    access->cut = access->blocked = false;
    access->fd = fd;
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
    int64_t lost = access->lost + count_lines(access->lines.at, access->lines.size);
    access->lost = 0;
    access->lines.size = 0;
    access->due = 0;
    access->fd = -1;
    return lost;
}

/* ------------------------------------------------------------------ a request and its response */

void pw_parse_again(pw_server *server, const pw_conn *conn)
{
    pw_head_progress progress = {0};
    pw_error error;
    pw_head_parse(&server->limits, conn->in->data + conn->in->start, conn->facts.size, &progress,
                  &server->head, &error);
}

static void log_line(pw_server *server, const pw_text *program, const pw_access_facts *what)
{
    pw_access_line(server, program->at, program->size, what);
}

void pw_access_response(pw_thread *thread, const pw_conn *conn)
{
    if (thread->server->access.fd < 0)
        return;
    log_line(thread->server, &thread->log,
             &(pw_access_facts){
                 .status = conn->response.status,
                 .bytes = conn->response.bytes,
                 .duration = pw_microseconds() - thread->taken_us,
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
    pw_access_request(server, &program, &server->head, &peer);
    char id[PW_REQUEST_ID_SIZE];
    if (server->request_ids)
        pw_request_id(server, conn, &server->head, id);
    log_line(
        server, &program,
        &(pw_access_facts){.status = status, .bytes = 0, .id = server->request_ids ? id : NULL});
    pw_free(program.at);
}
