/*
 * The format of the access log: a program of atoms (api.h, pw_settings.access_program). It is run in
 * two halves: when a request is handed to Python, what is known of it is put in, which leaves a
 * program with the atoms of the response alone; when the response is over, the rest.
 *
 * Every byte from outside is escaped, so no request can end a line, a quoted text or a JSON string.
 */
#include <string.h>
#include <time.h>

#include "access_format.h"
#include "alloc.h"
#include "fields.h"
#include "head.h"
#include "text.h"

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

/* Adds a duration for people: "0.4 ms", "1.25 s" from one second on, "0.04 ms" below 0.1 ms. */
static void put_duration(pw_text *to, int64_t microseconds)
{
    bool seconds = microseconds >= 1000000;
    int64_t hundredths = microseconds / (seconds ? 10000 : 10);
    if (hundredths == 0)
        hundredths = 1; /* it took some time */
    char fraction[] = {'.', (char)('0' + hundredths / 10 % 10), (char)('0' + hundredths % 10)};
    pw_text_number(to, hundredths / 100);
    pw_text_put(to, fraction, seconds || hundredths < 10 ? 3 : 2);
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

void pw_access_put(pw_access *access, const char *program, size_t size, const pw_access_facts *what)
{
    const char *end = program + size;
    pw_atom atom;
    access_time(access);
    while (atom_next(&program, end, &atom))
        atom_response(access, &atom, what);
    pw_text_put(&access->lines, "\n", 1);
}
