/* Responses: what Python passes to the core, and what the client receives. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "clock.h"
#include "incident.h"
#include "site.h"

static test_site site;
static test_client client;
static char large[4 << 20];

/* A connection whose first request Python has. */
static void begin_with(const pw_settings *settings, int family, const char *request)
{
    site_open(&site, settings, family);
    client = site_connect(&site);
    client_send(&client, request, strlen(request));
    site_see(&site, site_next(&site));
}

static void begin(const char *request)
{
    pw_settings settings = site_settings();
    begin_with(&settings, AF_UNIX, request);
}

static void end(void)
{
    client_close(&client);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

/* Checks a whole response, and whether the connection is kept after it. */
static void check_response(const char *request, const char *head, const char *body, int32_t flags,
                           const char *expected, bool kept)
{
    begin(request);
    ABOUT("%s", expected);
    CHECK_INT(site_answer(&site, head, body, strlen(body), flags), SITE_WAITS);
    client_receive(&client);
    check_bytes(__FILE__, __LINE__, "response", client.got.at, client.got.size, expected,
                strlen(expected));
    CHECK(client.ended == !kept);
    SEND(&client, GET("/next"));
    CHECK_INT(site_serve(&site), kept);
    end();
}

static void a_whole_response_gets_the_fields_that_frame_it(void)
{
    static const char ten[] = "GET / HTTP/1.0\r\n\r\n";
    static const char ten_kept[] = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    check_response(GET("/"), HEAD_OK "A: b\r\n", "hello", 0,
                   HEAD_OK "A: b\r\nContent-Length: 5\r\n\r\nhello", true);
    check_response(GET("/"), HEAD_OK, "", 0, HEAD_OK "Content-Length: 0\r\n\r\n", true);
    check_response(GET("/"), HEAD_OK "Content-Length: 5\r\n", "hello", PW_HAS_LENGTH,
                   HEAD_OK "Content-Length: 5\r\n\r\nhello", true);
    check_response(
        GET("/"), HEAD_OK, "hello", PW_ADD_SERVER | PW_CLOSE,
        HEAD_OK "Server: picowsgi\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", false);
    check_response(ten, HEAD_OK, "hello", 0,
                   HEAD_OK "Content-Length: 5\r\nConnection: close\r\n\r\nhello", false);
    check_response(ten_kept, HEAD_OK, "hello", 0,
                   HEAD_OK "Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", true);
}

static void responses_without_content_have_no_framing(void)
{
    check_response("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", HEAD_OK, "hello", 0,
                   HEAD_OK "Content-Length: 5\r\n\r\n", true);
    check_response(GET("/"), "HTTP/1.1 204 No Content\r\n", "hello", 0,
                   "HTTP/1.1 204 No Content\r\n\r\n", true);
    check_response(GET("/"), "HTTP/1.1 304 Not Modified\r\n", "hello", 0,
                   "HTTP/1.1 304 Not Modified\r\n\r\n", true);
}

static void the_date_is_a_line_of_rfc_9110(void)
{
    begin(GET("/"));
    site_respond(&site, LITERAL(""), PW_ADD_DATE);
    client_receive(&client);
    CHECK_HOLDS(&client.got, HEAD_OK "Date: ");
    CHECK_HOLDS(&client.got, " GMT\r\nContent-Length: 0\r\n\r\n");
    CHECK_INT(client.got.size,
              sizeof HEAD_OK "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 0\r\n\r\n" -
                  1);
    end();
}

/* Sends the parts of a response and ends it. */
static void send_parts(const char *const parts[], size_t count, int64_t length, bool cut)
{
    CHECK_INT(site_send_head(&site, HEAD_OK, length), 0);
    for (size_t i = 0; i < count; i++)
        CHECK_INT(site_send(&site, parts[i], strlen(parts[i]), 0),
                  length >= 0 && i + 1 == count ? PW_COMPLETE : 0);
    CHECK_INT(pw_content_missing(site.thread), 0);
    pw_send_end(site.thread, cut);
    CHECK_INT(site_next(&site), SITE_WAITS);
    client_receive(&client);
}

static const char *const two_parts[] = {"hello", "", " wonderful world"};

static void a_response_in_parts_is_chunked(void)
{
    begin(GET("/"));
    send_parts(two_parts, 3, -1, false);
    CHECK_TEXT(&client.got, HEAD_OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
                                    "10\r\n wonderful world\r\n0\r\n\r\n");
    CHECK(!client.ended);
    end();
}

static void a_response_in_parts_with_a_length_is_not(void)
{
    begin(GET("/"));
    send_parts(two_parts, 3, 21, false);
    CHECK_TEXT(&client.got, HEAD_OK "\r\nhello wonderful world");
    CHECK(!client.ended);
    end();
}

static void an_old_client_gets_parts_until_the_connection_ends(void)
{
    begin("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    send_parts(two_parts, 3, -1, false);
    CHECK_TEXT(&client.got, HEAD_OK "Connection: close\r\n\r\nhello wonderful world");
    CHECK(client.ended);
    end();
}

static void a_response_cut_short_does_not_look_whole(void)
{
    begin(GET("/"));
    send_parts(two_parts, 1, -1, true);
    CHECK_TEXT(&client.got, HEAD_OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    CHECK(client.ended);
    end();

    pw_settings settings = site_settings();
    begin_with(&settings, AF_INET, "GET / HTTP/1.0\r\n\r\nand bytes that the server never reads");
    CHECK_INT(site_send_head(&site, HEAD_OK, -1), 0);
    CHECK_INT(site_send(&site, LITERAL("hello"), 0), 0);
    pw_send_end(site.thread, 1);
    CHECK_INT(site_next(&site), SITE_WAITS);
    char byte;
    ssize_t got;
    while ((got = recv(client.fd, &byte, 1, 0)) > 0)
        continue;
    CHECK(got < 0); /* a reset, because an end would be the end of the content */
    end();
}

static void a_head_request_gets_the_head_of_parts(void)
{
    begin("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(site_send_head(&site, HEAD_OK, -1), PW_UNWANTED);
    CHECK_INT(site_send(&site, LITERAL("hello"), 0), PW_UNWANTED);
    pw_send_end(site.thread, 0);
    CHECK_INT(site_next(&site), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, HEAD_OK "\r\n");
    end();
}

static void the_head_and_the_first_part_may_come_together(void)
{
    begin(GET("/"));
    CHECK_INT(site_send_first(&site, HEAD_OK, -1, LITERAL("hello"), 0), 0);
    CHECK_INT(site_send(&site, LITERAL(" world"), 0), 0);
    CHECK_INT(site_finish(&site, false), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, HEAD_OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
                                    "6\r\n world\r\n0\r\n\r\n");
    CHECK(!client.ended);
    end();

    begin("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" GET("/next"));
    CHECK_INT(site_send_first(&site, HEAD_OK, 5, LITERAL("hello"), 0), PW_UNWANTED);
    site_see(&site, site_finish(&site, false));
    CHECK_INT(site_send_first(&site, HEAD_OK, 5, LITERAL("hello"), 0), PW_COMPLETE);
    CHECK_INT(site_finish(&site, true), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, HEAD_OK "\r\n" HEAD_OK "\r\nhello");
    CHECK(client.ended); /* it was cut */
    end();
}

#define FIRST_CHUNK HEAD_OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"

static void a_part_that_follows_at_once_waits_only_while_another_thread_can_send_it(void)
{
    begin(GET("/"));
    CHECK_INT(site_send_first(&site, HEAD_OK, -1, LITERAL("hello"), 0), 0);
    site.server->watch.has_begun = true; /* but the watcher is not in pw_watch */
    CHECK_INT(site_send(&site, LITERAL(" small"), 0), 0);
    client_receive(&client);
    CHECK_TEXT(&client.got, FIRST_CHUNK "6\r\n small\r\n");
    site.server->watch.is_here = true;
    CHECK_INT(site_send(&site, LITERAL(" world"), 0), 0);
    client_receive(&client);
    CHECK_TEXT(&client.got, FIRST_CHUNK "6\r\n small\r\n");
    pw_incident_lost(site.server);
    CHECK_INT(pw_watch(site.server), PW_WATCH_INCIDENT); /* and returns, because of the GIL */
    client_receive(&client);
    CHECK_TEXT(&client.got, FIRST_CHUNK "6\r\n small\r\n6\r\n world\r\n");
    CHECK_INT(site_send(&site, LITERAL(" again"), 0), 0);
    client_receive(&client);
    CHECK_TEXT(&client.got, FIRST_CHUNK "6\r\n small\r\n6\r\n world\r\n6\r\n again\r\n");
    CHECK_INT(site_finish(&site, false), SITE_WAITS);
    end();
}

static void a_file_is_sent_from_its_offset(void)
{
    char name[] = "/tmp/picowsgi-test-XXXXXX";
    int file = mkstemp(name);
    REQUIRE(file >= 0 && unlink(name) == 0);
    REQUIRE(write(file, large, 1000000) == 1000000);
    begin(GET("/"));
    CHECK_INT(site_send_head(&site, HEAD_OK, 900000), 0);
    CHECK_INT(pw_send_file(site.thread, file, 50000, 950000), 0); /* no more than was promised */
    close(file);
    CHECK_INT(pw_content_missing(site.thread), 0);
    pw_send_end(site.thread, 0);
    for (int turns = 0; turns < 1000 && site.server->all->output.size > 0; turns++) {
        CHECK_INT(site_next(&site), SITE_WAITS);
        client_receive(&client);
    }
    client_receive(&client);
    CHECK_INT(client.got.size, sizeof HEAD_OK "\r\n" - 1 + 900000);
    CHECK(memcmp(client.got.at + sizeof HEAD_OK "\r\n" - 1, large + 50000, 900000) == 0);
    CHECK(!client.ended);
    end();
}

static void an_interim_response_is_sent_before_the_final_one_and_never_to_http_1_0(void)
{
    static const char hints[] = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    begin(GET("/"));
    CHECK_INT(pw_send_interim(site.thread, LITERAL(hints)), 0);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" HEAD_OK
                            "Content-Length: 2\r\n\r\nok");
    end();
    begin("GET / HTTP/1.0\r\n\r\n");
    CHECK_INT(pw_send_interim(site.thread, LITERAL(hints)), 0);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, HEAD_OK "Content-Length: 2\r\nConnection: close\r\n\r\nok");
    end();
}

static void the_core_reports_the_progress_of_a_request(void)
{
    begin(GET("/"));
    CHECK_INT(pw_request_state(site.thread), PW_REQUEST_WAITS);
    CHECK_INT(pw_send_interim(site.thread, LITERAL("HTTP/1.1 103 Early Hints\r\n\r\n")), 0);
    CHECK_INT(pw_request_state(site.thread), PW_REQUEST_WAITS);
    CHECK_INT(site_send_head(&site, HEAD_OK, -1), 0);
    CHECK_INT(pw_request_state(site.thread), PW_REQUEST_BEGUN);
    pw_send_end(site.thread, 1);
    CHECK_INT(pw_request_state(site.thread), PW_REQUEST_NONE);
    end();
    begin(GET("/"));
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    CHECK_INT(pw_request_state(site.thread), PW_REQUEST_NONE);
    end();
}

static void a_client_that_does_not_read_is_cut_off(void)
{
    pw_settings settings = site_settings();
    settings.timeout_write = 30;
    begin_with(&settings, AF_UNIX, GET("/"));
    site_lend(&site);
    CHECK_INT(site_respond(&site, large, sizeof large, 0), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 1);
    CHECK_INT(site.sent_count, 0);
    site_sleep(60);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 0);
    site_news(&site);
    CHECK_INT(site.sent_count, 1);
    end();
}

static void ignore(int number)
{
    (void)number;
}

/* Signals end a wait early, as those of a profiler do. */
static void signal_every_ms(int ms)
{
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = ignore}, NULL);
    struct timeval interval = {.tv_sec = 0, .tv_usec = ms * 1000};
    setitimer(ITIMER_REAL, &(struct itimerval){interval, interval}, NULL);
}

static void parts_wait_for_a_client_that_does_not_read(void)
{
    pw_settings settings = site_settings();
    settings.timeout_write = 200;
    settings.response_buffer = 100000;
    begin_with(&settings, AF_UNIX, GET("/"));
    CHECK_INT(site_send_head(&site, HEAD_OK, (int64_t)sizeof large), 0);
    int sent = 0;
    int32_t outcome = 0;
    int64_t since = pw_now();
    signal_every_ms(5);
    for (; sent < 400 && outcome >= 0; sent++) {
        outcome = site_send(&site, large, 10000, 0);
        CHECK(site.server->all->output.size <= 110000);
    }
    signal_every_ms(0);
    CHECK_INT(outcome, PW_GONE);
    CHECK(pw_now() - since >= settings.timeout_write);
    CHECK(sent > 10 && sent < 100);
    CHECK_INT(site_send(&site, large, 10000, 0), PW_GONE);
    pw_send_end(site.thread, 0);
    end();
}

static void content_that_was_not_asked_for_does_not_reset_the_response(void)
{
    pw_settings settings = site_settings();
    begin_with(&settings, AF_INET, GET("/") "the server never reads this");
    client_send(&client, large, 100000);
    CHECK_INT(site_respond(&site, LITERAL("ok"), PW_CLOSE), SITE_WAITS);
    client_send(&client, large, 100000);
    CHECK_INT(site_next(&site), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, HEAD_OK "Content-Length: 2\r\nConnection: close\r\n\r\nok");
    CHECK_INT(site.server->conn_count, 1); /* it lingers */
    end();
}

int main(void)
{
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i * 31 + i / 251);
    RUN(a_whole_response_gets_the_fields_that_frame_it);
    RUN(responses_without_content_have_no_framing);
    RUN(the_date_is_a_line_of_rfc_9110);
    RUN(a_response_in_parts_is_chunked);
    RUN(a_response_in_parts_with_a_length_is_not);
    RUN(an_old_client_gets_parts_until_the_connection_ends);
    RUN(a_response_cut_short_does_not_look_whole);
    RUN(a_head_request_gets_the_head_of_parts);
    RUN(the_head_and_the_first_part_may_come_together);
    RUN(a_part_that_follows_at_once_waits_only_while_another_thread_can_send_it);
    RUN(a_file_is_sent_from_its_offset);
    RUN(an_interim_response_is_sent_before_the_final_one_and_never_to_http_1_0);
    RUN(the_core_reports_the_progress_of_a_request);
    RUN(a_client_that_does_not_read_is_cut_off);
    RUN(parts_wait_for_a_client_that_does_not_read);
    RUN(content_that_was_not_asked_for_does_not_reset_the_response);
    return check_end();
}
