/* The framing of a response (RFC 9112 section 6.3), and the fields that announce it. */
#include <string.h>

#include "framing.h"
#include "state.h"
#include "text.h"

void pw_framing_begin(pw_server *server, pw_conn *conn, const char *head, size_t size, bool framed,
                      int32_t flags)
{
    static const size_t at = sizeof "HTTP/1.1 " - 1;
    int status = 0;
    if (size > at + 3)
        status = (head[at] - '0') * 100 + (head[at + 1] - '0') * 10 + (head[at + 2] - '0');
    pw_response *response = &conn->response;
    response->status = status;
    bool bare = status / 100 == 1 || status == 204 || status == 304;
    response->state = PW_RESPONSE_BEGUN;
    response->sent_tick = -1;
    if (conn->facts.is_head || bare)
        response->framing = PW_FRAMING_NONE;
    else if (!framed)
        response->framing = conn->facts.minor != 0 ? PW_FRAMING_CHUNKED : PW_FRAMING_END;
    if (!conn->facts.keep_alive || (flags & PW_CLOSE) != 0 ||
        atomic_load_explicit(&server->closing, memory_order_relaxed) ||
        response->framing == PW_FRAMING_END || status / 100 == 1)
        pw_conn_ends(conn, PW_CONN_CLOSES);
}

size_t pw_framing_allowed(const pw_conn *conn, size_t size)
{
    if (conn->response.promised < 0)
        return size;
    size_t left = (size_t)(conn->response.promised - conn->response.bytes);
    return size < left ? size : left;
}

int pw_framing_chunk(const pw_conn *conn, struct iovec parts[3], char line[20], const char *data,
                     size_t size)
{
    int count = 0;
    if (conn->response.framing == PW_FRAMING_CHUNKED) {
        size_t at = 20;
        line[--at] = '\n';
        line[--at] = '\r';
        for (uint64_t left = size; left > 0; left >>= 4)
            line[--at] = pw_to_hex(left);
        parts[count++] = (struct iovec){line + at, 20 - at};
    }
    parts[count++] = (struct iovec){(void *)(uintptr_t)data, size};
    if (conn->response.framing == PW_FRAMING_CHUNKED)
        parts[count++] = (struct iovec){(void *)(uintptr_t)"\r\n", 2};
    return count;
}

/* ------------------------------------------------------------------ the end of the head */

#define PW_PUT(to, literal) pw_put((to), (literal), sizeof(literal) - 1)

size_t pw_framing_tail(const pw_clock *clock, char *to, const pw_conn *conn, int32_t flags,
                       int64_t length)
{
    char *at = to;
    if (flags & PW_ADD_SERVER)
        at = PW_PUT(at, "Server: picowsgi\r\n");
    if (flags & PW_ADD_DATE)
        at = pw_put(at, clock->date, clock->size);
    if (length >= 0 && (flags & PW_HAS_LENGTH) == 0) {
        at = PW_PUT(at, "Content-Length: ");
        at += pw_digits(at, length);
        at = PW_PUT(at, "\r\n");
    }
    if (conn->response.framing == PW_FRAMING_CHUNKED)
        at = PW_PUT(at, "Transfer-Encoding: chunked\r\n");
    if (conn->end != PW_CONN_STAYS)
        at = PW_PUT(at, "Connection: close\r\n");
    else if (conn->facts.minor == 0)
        at = PW_PUT(at, "Connection: keep-alive\r\n");
    at = PW_PUT(at, "\r\n");
    return (size_t)(at - to);
}
