/* The response to a request that the core refuses. */
#include <stdio.h>
#include <string.h>

#include "error_response.h"

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

static const char *error_text(pw_error error)
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
static const char *status_reason(int status)
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

size_t pw_error_response(const pw_clock *clock, char *to, pw_error error, bool is_head)
{
    const char *text = error_text(error);
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
                        status, status_reason(status), (int)clock->size, clock->date,
                        status == 503 ? "Retry-After: 1\r\n" : "", strlen(text) + 1,
                        is_head ? "" : text, is_head ? "" : "\n");
    return size > 0 && size < PW_REFUSAL_MOST ? (size_t)size : 0;
}
