/* What the core itself says: the framing fields of every response, and the error answers. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "conn.h"

void pw_clock_tick(pw_clock *clock)
{
    time_t now = time(NULL);
    if ((int64_t)now == clock->second && clock->size != 0)
        return;
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm;
    gmtime_r(&now, &tm);
    clock->second = (int64_t)now;
    int size =
        snprintf(clock->date, sizeof clock->date, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n",
                 days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour,
                 tm.tm_min, tm.tm_sec); /* not strftime: names of days depend on the locale */
    clock->size = size > 0 && (size_t)size < sizeof clock->date ? (size_t)size : 0;
}

static char *pw_put_text(char *to, const char *text, size_t size)
{
    memcpy(to, text, size);
    return to + size;
}

#define PW_PUT(to, literal) pw_put_text((to), (literal), sizeof(literal) - 1)

size_t pw_answer_tail(const pw_clock *clock, char *to, const pw_conn *conn, int32_t flags,
                      int64_t length)
{
    char *at = to;
    if (flags & PW_ADD_SERVER)
        at = PW_PUT(at, "Server: picowsgi\r\n");
    if (flags & PW_ADD_DATE)
        at = pw_put_text(at, clock->date, clock->size);
    if (length >= 0 && (flags & PW_HAS_LENGTH) == 0) {
        at = PW_PUT(at, "Content-Length: ");
        at += pw_digits(at, length);
        at = PW_PUT(at, "\r\n");
    }
    if (conn->chunked)
        at = PW_PUT(at, "Transfer-Encoding: chunked\r\n");
    if (conn->close)
        at = PW_PUT(at, "Connection: close\r\n");
    else if (conn->facts.minor == 0)
        at = PW_PUT(at, "Connection: keep-alive\r\n");
    at = PW_PUT(at, "\r\n");
    return (size_t)(at - to);
}

int pw_error_status(pw_error error)
{
    switch (error) {
    case PW_E_NONE:
        return 0;
#define PW_ERROR_STATUS(name, status, text)                                                        \
    case PW_E_##name:                                                                              \
        return status;
        PW_ERRORS(PW_ERROR_STATUS)
#undef PW_ERROR_STATUS
    }
    return 0;
}

static const char *pw_error_text(pw_error error)
{
    switch (error) {
    case PW_E_NONE:
        return "";
#define PW_ERROR_TEXT(name, status, text)                                                          \
    case PW_E_##name:                                                                              \
        return text;
        PW_ERRORS(PW_ERROR_TEXT)
#undef PW_ERROR_TEXT
    }
    return "";
}

/* RFC 9110 section 15, RFC 6585, RFC 4918 */
static const char *pw_reason(int status)
{
    switch (status) {
    case 400:
        return "Bad Request";
    case 408:
        return "Request Timeout";
    case 413:
        return "Content Too Large";
    case 414:
        return "URI Too Long";
    case 417:
        return "Expectation Failed";
    case 431:
        return "Request Header Fields Too Large";
    case 501:
        return "Not Implemented";
    case 503:
        return "Service Unavailable";
    case 505:
        return "HTTP Version Not Supported";
    case 507:
        return "Insufficient Storage";
    default:
        return "Error";
    }
}

size_t pw_answer_refusal(const pw_clock *clock, char *to, pw_error error, bool is_head)
{
    const char *text = pw_error_text(error);
    int status = pw_error_status(error);
    int size = snprintf(to, PW_REFUSAL_MOST,
                        "HTTP/1.1 %d %s\r\n"
                        "Server: picowsgi\r\n"
                        "%.*s"
                        "%s"
                        "Content-Type: text/plain; charset=utf-8\r\n"
                        "Content-Length: %zu\r\n"
                        "Connection: close\r\n"
                        "\r\n"
                        "%s%s",
                        status, pw_reason(status), (int)clock->size, clock->date,
                        status == 503 ? "Retry-After: 1\r\n" : "", strlen(text) + 1,
                        is_head ? "" : text, is_head ? "" : "\n");
    return size > 0 && size < PW_REFUSAL_MOST ? (size_t)size : 0;
}

size_t pw_answer_health(const pw_clock *clock, char *to, const pw_conn *conn, bool unready)
{
    const char *text = unready ? "draining\n" : "ok\n";
    int size = snprintf(to, PW_REFUSAL_MOST,
                        "HTTP/1.1 %s\r\n"
                        "Content-Type: text/plain; charset=utf-8\r\n"
                        "Cache-Control: no-store\r\n",
                        unready ? "503 Service Unavailable" : "200 OK");
    size_t head = (size_t)size;
    head +=
        pw_answer_tail(clock, to + head, conn, PW_ADD_DATE | PW_ADD_SERVER, (int64_t)strlen(text));
    if (conn->facts.is_head)
        return head;
    memcpy(to + head, text, strlen(text));
    return head + strlen(text);
}
