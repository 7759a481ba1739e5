/* csrc/error_response.c: the status line and the text of each refusal. */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "error_response.h"

/* RFC 9110 section 15, RFC 6585, RFC 4918 */
static const char *const status_lines[] = {
    "400 Bad Request",          "408 Request Timeout",     "413 Content Too Large",
    "414 URI Too Long",         "417 Expectation Failed",  "431 Request Header Fields Too Large",
    "501 Not Implemented",      "503 Service Unavailable", "505 HTTP Version Not Supported",
    "507 Insufficient Storage",
};

/* The text after the number, for a status of the list above. */
static const char *line_of(int status)
{
    for (size_t i = 0; i < sizeof status_lines / sizeof status_lines[0]; i++) {
        int number;
        if (sscanf(status_lines[i], "%d", &number) == 1 && number == status)
            return status_lines[i];
    }
    return "(none)";
}

static const struct {
    pw_error error;
    int status;
    const char *text;
} refusals[] = {
#define REFUSAL(name, status, text) {PW_E_##name, status, text},
    PW_ERRORS(REFUSAL)
#undef REFUSAL
};

static void each_refusal_has_the_status_line_of_its_number_and_its_text(void)
{
    static const pw_clock no_date = {.size = 0};
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        char got[PW_REFUSAL_MOST], expected[PW_REFUSAL_MOST];
        ABOUT("refusal %zu", i);
        CHECK_INT(pw_error_status(refusals[i].error), refusals[i].status);
        for (int is_head = 0; is_head < 2; is_head++) {
            size_t size = pw_error_response(&no_date, got, refusals[i].error, is_head);
            int expected_size = snprintf(
                expected, sizeof expected,
                "HTTP/1.1 %s\r\nServer: picowsgi\r\n%s"
                "Content-Type: text/plain; charset=utf-8\r\nContent-Length: %zu\r\n"
                "Connection: close\r\n\r\n%s%s",
                line_of(refusals[i].status), refusals[i].status == 503 ? "Retry-After: 1\r\n" : "",
                strlen(refusals[i].text) + 1, is_head ? "" : refusals[i].text, is_head ? "" : "\n");
            CHECK_INT(size, expected_size);
            CHECK_STRING(got, size, expected);
        }
    }
    ABOUT("%s", "");
}

int main(void)
{
    CHECK_INT(pw_error_status(PW_E_NONE), 0);
    RUN(each_refusal_has_the_status_line_of_its_number_and_its_text);
    return check_end();
}
