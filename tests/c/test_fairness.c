/* Time slices: how much of the loop's time one client gets while others wait. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "queue.h"
#include "site.h"

enum { MANY = 400, SLICE = PW_SLICE_REQUESTS };

static test_site site;
static test_client greedy, other;
static char large[1 << 20];

static void begin_with(pw_settings *settings, bool is_watched)
{
    site_open(&site, settings, AF_INET);
    site.server->slice_ms = 3600000; /* one test sets the real limit */
    site.server->watch.is_here = is_watched;
    greedy = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    other = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
}

static void begin(bool is_watched)
{
    pw_settings settings = site_settings();
    begin_with(&settings, is_watched);
}

static void end(void)
{
    client_close(&greedy);
    client_close(&other);
    site_close(&site);
}

static void send_many(const char *request, int count)
{
    test_text text = {NULL, 0, 0};
    for (int i = 0; i < count; i++)
        text_add_string(&text, request);
    client_send(&greedy, text.at, text.size);
    text_free(&text);
}

static int count_answers(test_client *client)
{
    client_receive(client);
    int count = 0;
    for (size_t i = 0; i + 9 < client->got.size; i++)
        count += memcmp(client->got.at + i, "HTTP/1.1 ", 9) == 0;
    return count;
}

/* The number of requests that are answered before the request of another client. That one is sent
 * after `before` of them. -1: it is never sent. Each response has `size` bytes. */
static int served_before_the_other(int before, size_t size)
{
    int64_t number = site_next(&site);
    for (int served = 0; number != SITE_WAITS; served++) {
        REQUIRE(number >= 0);
        test_seen *request = site_see(&site, number);
        if (memmem(request->line.at, request->line.size, LITERAL("/other")) != NULL)
            return served - before;
        if (served == before)
            SEND(&other, GET("/other"));
        number = site_respond(&site, large, size, 0);
        client_receive(&greedy);
    }
    return -1;
}

static void a_pipelining_client_has_a_slice_and_then_the_others(void)
{
    for (int is_watched = 0; is_watched < 2; is_watched++)
        for (int before = 0; before < 2 * SLICE; before += 9) {
            begin(is_watched);
            send_many(GET("/"), MANY);
            int waited = served_before_the_other(before, 2);
            ABOUT("watched %d, %d before, waited for %d", is_watched, before, waited);
            CHECK(waited >= 0 && waited <= SLICE);
            end();
        }
}

static void a_slice_is_short_where_the_application_takes_long(void)
{
    begin(true);
    site.server->slice_ms = PW_SLICE_MS;
    send_many(GET("/"), MANY);
    int64_t number = site_next(&site);
    REQUIRE(number >= 0);
    SEND(&other, GET("/other"));
    int served = 0;
    for (; served < MANY; served++) {
        test_seen *request = site_see(&site, number);
        if (memmem(request->line.at, request->line.size, LITERAL("/other")) != NULL)
            break;
        CHECK_INT(count_answers(&greedy), served); /* none waits for requests that take long */
        site_sleep(5 * PW_SLICE_MS);
        number = site_respond(&site, LITERAL("ok"), 0);
        REQUIRE(number >= 0);
    }
    ABOUT("waited for %d", served);
    CHECK_INT(served, 1);
    end();
}

static void several_pipelining_clients_have_slices(void)
{
    enum { CLIENTS = 5 };
    begin(true);
    test_client clients[CLIENTS];
    int served[CLIENTS] = {0};
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = site_connect(&site);
        CHECK_INT(site_next(&site), SITE_WAITS);
    }
    for (int i = 0; i < CLIENTS; i++)
        for (int k = 0; k < MANY; k++) {
            char text[] = GET("/0");
            text[5] = (char)('0' + i);
            client_send(&clients[i], text, strlen(text));
        }
    int64_t number = site_next(&site);
    for (int total = 0; number >= 0; total++) {
        test_seen *request = site_see(&site, number);
        char *path = memmem(request->line.at, request->line.size, LITERAL("PATH_INFO: /"));
        REQUIRE(path != NULL);
        int client = path[sizeof "PATH_INFO: /" - 1] - '0';
        int least = MANY, most = 0;
        for (int i = 0; i < CLIENTS; i++) {
            served[i] += i == client;
            least = served[i] < least ? served[i] : least;
            most = served[i] > most ? served[i] : most;
        }
        CHECK(most - least <= 2 * SLICE);
        number = site_respond(&site, LITERAL("ok"), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        CHECK_INT(served[i], MANY);
        CHECK_INT(count_answers(&clients[i]), MANY);
        client_close(&clients[i]);
    }
    end();
}

static void answers_to_pipelined_requests_leave_together_at_the_end_of_a_slice(void)
{
    begin(true);
    send_many(GET("/"), 2 * SLICE + 5);
    int64_t number = site_next(&site);
    for (int served = 0; number != SITE_WAITS; served++) {
        CHECK_INT(count_answers(&greedy), served / SLICE * SLICE);
        site_see(&site, number);
        number = site_respond(&site, LITERAL("ok"), 0);
    }
    CHECK_INT(count_answers(&greedy), 2 * SLICE + 5);
    end();
}

static void large_responses_end_a_slice_sooner(void)
{
    begin(true);
    send_many(GET("/"), 40);
    int waited = served_before_the_other(0, sizeof large / 2);
    ABOUT("waited for %d", waited);
    CHECK(waited >= 0 && waited <= 2);
    end();
}

static void health_requests_have_slices(void)
{
    for (int is_watched = 0; is_watched < 2; is_watched++) {
        pw_settings settings = site_settings();
        settings.health_path = "/up";
        begin_with(&settings, is_watched);
        send_many(GET("/up"), MANY);
        SEND(&other, GET("/other"));
        site_request(&site);
        int answered = count_answers(&greedy);
        ABOUT("watched %d, %d answered", is_watched, answered);
        CHECK(answered <= SLICE);
        CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
        CHECK_INT(count_answers(&greedy), MANY);
        CHECK_INT(count_answers(&other), 1);
        end();
    }
}

static void a_health_response_does_not_wait_for_the_application(void)
{
    pw_settings settings = site_settings();
    settings.health_path = "/up";
    begin_with(&settings, true);
    SEND(&greedy, GET("/up") GET("/up") GET("/a"));
    site_request(&site);
    CHECK_INT(count_answers(&greedy), 0); /* as the watcher does */
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    CHECK_INT(count_answers(&greedy), 3);
    end();
}

/* Sends as much as the client's and the server's system take, while the server does nothing. */
static size_t fill(void)
{
    size_t sent = 0;
    const int room = 4 << 20;
    setsockopt(greedy.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    for (size_t some; (some = client_send_some(&greedy, large, sizeof large)) > 0; sent += some)
        continue;
    return sent;
}

static void content_is_received_in_slices(void)
{
    static const char *const heads[] = {
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3fffffff\r\n"};
    for (int i = 0; i < 2; i++) {
        pw_settings settings = site_settings();
        settings.max_body_size = 0;
        begin_with(&settings, true);
        client_send(&greedy, heads[i], strlen(heads[i]));
        size_t sent = fill();
        REQUIRE(sent > 2 * PW_SLICE_BYTES);
        SEND(&other, GET("/other"));
        site_request(&site);
        int64_t received = 0;
        for (pw_conn *conn = site.server->all; conn != NULL; conn = conn->next)
            if (conn->content != NULL)
                received = conn->content->size;
        ABOUT("%zu sent, %lld received", sent, (long long)received);
        CHECK(received <= PW_SLICE_BYTES + PW_SCRATCH_SIZE);
        end();
    }
}

static void bytes_after_a_refusal_are_dropped_in_slices(void)
{
    begin(true);
    SEND(&greedy, "GET / HTTP/1.1\r\n\r\n");
    size_t sent = fill();
    REQUIRE(sent > 2 * PW_SLICE_BYTES);
    SEND(&other, GET("/other"));
    site_request(&site);
    for (pw_conn *conn = site.server->all; conn != NULL; conn = conn->next)
        if (conn->state == PW_CONN_LINGER)
            CHECK(conn->slice_bytes <= PW_SLICE_BYTES + PW_SCRATCH_SIZE);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    CHECK_INT(count_answers(&greedy), 1);
    end();
}

static void a_slice_is_not_lost_when_the_caller_has_a_short_limit(void)
{
    begin(true);
    send_many(GET("/up"), SLICE + 1);
    for (int i = 0; i < SLICE; i++) {
        int64_t number = pw_next_within(site.thread, 0);
        REQUIRE(number >= 0);
        CHECK_INT(pw_respond(site.thread, LITERAL(HEAD_OK), LITERAL("ok"), PW_RETURN), PW_IDLE);
    }
    int64_t number = PW_IDLE;
    for (int i = 0; i < 3 && number == PW_IDLE; i++)
        number = pw_next_within(site.thread, 0);
    CHECK(number >= 0);
    pw_respond(site.thread, LITERAL(HEAD_OK), LITERAL("ok"), PW_RETURN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(count_answers(&greedy), SLICE + 1);
    end();
}

int main(void)
{
    memset(large, '0', sizeof large);
    RUN(a_pipelining_client_has_a_slice_and_then_the_others);
    RUN(a_slice_is_short_where_the_application_takes_long);
    RUN(several_pipelining_clients_have_slices);
    RUN(answers_to_pipelined_requests_leave_together_at_the_end_of_a_slice);
    RUN(large_responses_end_a_slice_sooner);
    RUN(health_requests_have_slices);
    RUN(a_health_response_does_not_wait_for_the_application);
    RUN(content_is_received_in_slices);
    RUN(bytes_after_a_refusal_are_dropped_in_slices);
    RUN(a_slice_is_not_lost_when_the_caller_has_a_short_limit);
    return check_end();
}
