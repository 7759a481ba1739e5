/*
 * A request in the application and in the log depends on the request alone. It does not depend on
 * earlier requests of the connection, or on those of other connections. The test compares each
 * request of a server with a history with the same request on a new connection to a second server.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "site.h"

enum { CLIENTS = 3, STEPS = 600, EPISODES = 8 };

typedef struct {
    test_site site;
    int log;
} logged_site;

static logged_site with_history, fresh;
static test_client clients[CLIENTS];
static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static const char *pick(const char *const *texts, uint32_t count)
{
    return texts[draw(count)];
}

#define PICK(...)                                                                                  \
    pick((const char *const[]){__VA_ARGS__},                                                       \
         sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static void open_logged(logged_site *self, bool logs)
{
    /* Method, target, path, query, protocol, user, a field, a field
     * of the response, status, bytes. */
    static const char program[] =
        "\4\0\0\1\0\1 \5\0\0\1\0\1 \6\0\0\1\0\1 \7\0\0\1\0\1 \10\0\0\1\0\1 "
        "\3\0\0\1\0\1 \11\0\6cookie\1\0\1 \23\0\1a\13\0\0\15\0\0";
    pw_settings settings = site_settings();
    self->log = memfd_create("log", MFD_CLOEXEC);
    REQUIRE(self->log >= 0);
    if (logs) {
        settings.access_file = self->log;
        settings.access_program = program;
        settings.access_program_size = sizeof program - 1;
    }
    site_open(&self->site, &settings, AF_UNIX);
}

static void close_logged(logged_site *self)
{
    site_close(&self->site);
    close(self->log);
}

static void take_log(logged_site *self, test_text *to)
{
    char part[4096];
    text_clear(to);
    if (self->site.server->access.fd < 0)
        return;
    pw_server_log_to(self->site.server, self->log); /* which writes the waiting lines */
    off_t at = 0;
    for (ssize_t size; (size = pread(self->log, part, sizeof part, at)) > 0; at += size)
        text_add(to, part, (size_t)size);
    REQUIRE(ftruncate(self->log, 0) == 0 && lseek(self->log, 0, SEEK_SET) == 0);
}

/* A random request of few kinds, so that equal and similar requests repeat. */
static void make_request(test_text *to, size_t *head_size)
{
    static const char *const bodies[] = {"", "abc", "hello"};
    const char *body = bodies[draw(3)];
    char line[100];
    bool chunked = draw(6) == 0, has_body = body[0] != '\0' || draw(4) == 0;
    text_clear(to);
    if (draw(12) == 0)
        text_add_string(to, "\r\n");
    text_add_string(to, PICK("GET", "GET", "GET", "POST", "PO", "GETS"));
    text_add_string(to, PICK(" /", " /", " /a", " /%41?b", " /?", " /?%41", " //x", " http://z/p"));
    text_add_string(to, draw(8) == 0 ? " HTTP/1.0\r\nConnection: keep-alive\r\n" : " HTTP/1.1\r\n");
    text_add_string(to, PICK("Host: h\r\n", "Host: h\r\n", "Host: longer\r\n"));
    text_add_string(to,
                    PICK("", "Cookie: a=b\r\n", "Cookie: c=d\r\n", "Cookie: a=b\r\nCookie: c\r\n"));
    text_add_string(to, PICK("", "", "Accept: a\r\n", "Accept: ab\r\nAccept-Language: l\r\n"));
    text_add_string(to, PICK("", "", "", "X-New: 1\r\n", "X-New: 2\r\nx-new: 3\r\n"));
    text_add_string(to, PICK("", "", "", "Authorization: Basic YTpi\r\n", "Content-Type: t\r\n"));
    if (chunked && has_body)
        snprintf(line, sizeof line, "Transfer-Encoding: chunked\r\n\r\n");
    else if (has_body)
        snprintf(line, sizeof line, "Content-Length: %zu\r\n\r\n", strlen(body));
    else
        snprintf(line, sizeof line, "\r\n");
    if (chunked && has_body && memmem(to->at, to->size, LITERAL("HTTP/1.0")) != NULL) {
        make_request(to, head_size); /* HTTP/1.0 does not have it */
        return;
    }
    text_add_string(to, line);
    *head_size = to->size;
    if (!has_body)
        return;
    if (!chunked) {
        text_add_string(to, body);
        return;
    }
    if (body[0] != '\0') {
        snprintf(line, sizeof line, "%zx\r\n%s\r\n", strlen(body), body);
        text_add_string(to, line);
    }
    text_add_string(to, "0\r\n\r\n");
}

static void check_same(const test_seen *seen, const test_seen *expected, const test_text *request)
{
    bool same = check_bytes(__FILE__, __LINE__, "line", seen->line.at, seen->line.size,
                            expected->line.at, expected->line.size) &&
                check_bytes(__FILE__, __LINE__, "fields", seen->fields.at, seen->fields.size,
                            expected->fields.at, expected->fields.size) &&
                check_bytes(__FILE__, __LINE__, "content", seen->content.at, seen->content.size,
                            expected->content.at, expected->content.size);
    if (!same)
        fprintf(stderr, "%.*s\n", (int)request->size, request->at);
    REQUIRE(same);
}

/* The server with a history has this request. */
static void compare(const test_text *request)
{
    test_text log = {NULL, 0, 0}, expected = {NULL, 0, 0};
    test_client client = site_connect(&fresh.site);
    client_send(&client, request->at, request->size);
    check_same(&with_history.site.request, site_request(&fresh.site), request);
    CHECK_INT(site_answer(&fresh.site, HEAD_OK "A: b\r\n", "body", 4, 0), SITE_WAITS);
    client_close(&client);
    CHECK_INT(site_next(&fresh.site), SITE_WAITS);
    CHECK_INT(site_answer(&with_history.site, HEAD_OK "A: b\r\n", "body", 4, 0), SITE_WAITS);
    take_log(&fresh, &expected);
    take_log(&with_history, &log);
    check_bytes(__FILE__, __LINE__, "log", log.at, log.size, expected.at, expected.size);
    text_free(&log);
    text_free(&expected);
}

static void the_observable_result_of_a_request_depends_on_nothing_else(void)
{
    test_text requests[CLIENTS] = {{NULL, 0, 0}};
    size_t sent[CLIENTS];
    for (int episode = 0; episode < EPISODES; episode++) {
        state = (uint64_t)episode + 1;
        open_logged(&with_history, episode % 2);
        open_logged(&fresh, episode % 2);
        for (int i = 0; i < CLIENTS; i++) {
            clients[i] = site_connect(&with_history.site);
            text_clear(&requests[i]);
            sent[i] = 0;
        }
        for (int step = 0; step < STEPS; step++) {
            int which = (int)draw(CLIENTS);
            test_text *request = &requests[which];
            size_t head_size = 0;
            ABOUT("episode %d, step %d, client %d", episode, step, which);
            if (sent[which] == 0) {
                make_request(request, &head_size);
                /* The content may come later, after other requests were parsed. */
                bool whole = head_size == request->size || draw(2) == 0;
                sent[which] = whole ? request->size : head_size + draw(2);
                client_send(&clients[which], request->at, sent[which]);
            } else {
                client_send(&clients[which], request->at + sent[which],
                            request->size - sent[which]);
                sent[which] = request->size;
            }
            int64_t number = site_next(&with_history.site);
            if (sent[which] < request->size) {
                CHECK_INT(number, SITE_WAITS);
                continue;
            }
            sent[which] = 0;
            REQUIRE(number >= 0);
            site_see(&with_history.site, number);
            compare(request);
            client_receive(&clients[which]);
            CHECK(!clients[which].ended);
            text_clear(&clients[which].got);
        }
        for (int i = 0; i < CLIENTS; i++)
            client_close(&clients[i]);
        CHECK_INT(site_next(&with_history.site), SITE_WAITS);
        CHECK_INT(with_history.site.server->conn_count, 0);
        close_logged(&with_history);
        close_logged(&fresh);
    }
    for (int i = 0; i < CLIENTS; i++)
        text_free(&requests[i]);
}

int main(void)
{
    RUN(the_observable_result_of_a_request_depends_on_nothing_else);
    return check_end();
}
