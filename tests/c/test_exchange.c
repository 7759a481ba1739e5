/* csrc/exchange.c: who may send for an exchange, its loan, and its end. */
#include <string.h>

#include "site.h"

static test_site site;
static test_client client;
static char large[4 << 20];

static void begin(const char *request)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
    client = site_connect(&site);
    client_send(&client, request, strlen(request));
    site_request(&site);
}

static void end(void)
{
    client_close(&client);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

static void fill(void)
{
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i * 31 + i / 251);
}

/* Reads until no more bytes come. */
static void read_all(void)
{
    for (size_t before = 1; before != client.got.size;) {
        before = client.got.size;
        client_receive(&client);
        CHECK_INT(site_next(&site), SITE_WAITS);
        client_receive(&client);
    }
}

static void check_large(const char *head)
{
    fill();
    CHECK_INT(client.got.size, strlen(head) + sizeof large);
    CHECK(memcmp(client.got.at, head, strlen(head)) == 0);
    CHECK(memcmp(client.got.at + strlen(head), large, sizeof large) == 0);
}

#define LARGE_HEAD HEAD_OK "Content-Length: 4194304\r\n\r\n"

static void a_lent_body_is_named_once_when_its_exchange_is_sent(void)
{
    fill();
    begin(GET("/"));
    int64_t exchange = site.request.exchange;
    site_lend(&site);
    CHECK_INT(site_respond(&site, large, sizeof large, 0), SITE_WAITS);
    CHECK_INT(site.sent_count, 0);
    CHECK(site.server->all->output.borrowed == 1);
    read_all();
    CHECK_INT(site.sent_count, 1);
    CHECK_INT(site.sent[0], exchange);
    check_large(LARGE_HEAD);
    SEND(&client, GET("/after"));
    CHECK(site_request(&site)->exchange > exchange);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    CHECK_INT(site.sent_count, 1);
    end();
}

static void a_lent_body_that_is_sent_at_once_is_named_before_the_next_request(void)
{
    begin(GET("/a") GET("/b"));
    int64_t exchange = site.request.exchange;
    site_lend(&site);
    CHECK_INT(pw_respond(site.thread, LITERAL(HEAD_OK), large, 20000, 0), PW_IDLE);
    CHECK_INT(pw_news(site.thread), exchange * 2 + PW_NEWS_SENT);
    CHECK_INT(pw_news(site.thread), exchange * 2 + PW_NEWS_SENT); /* Python has not acted on it */
    pw_news_done(site.thread);
    CHECK_INT(pw_news(site.thread), -1);
    site_request(&site);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    end();
}

static void a_lent_body_is_named_when_its_client_disconnects(void)
{
    begin(GET("/"));
    int64_t exchange = site.request.exchange;
    site_lend(&site);
    CHECK_INT(site_respond(&site, large, sizeof large, 0), SITE_WAITS);
    CHECK_INT(site.sent_count, 0);
    client_close(&client);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.sent_count, 1);
    CHECK_INT(site.sent[0], exchange);
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

static void a_body_that_is_not_lent_is_copied(void)
{
    fill();
    begin(GET("/"));
    CHECK_INT(site_respond(&site, large, sizeof large, 0), SITE_WAITS);
    memset(large, 'x', sizeof large);
    read_all();
    check_large(LARGE_HEAD);
    CHECK_INT(site.sent_count, 0);
    end();
}

static void parts_of_a_stream_are_copied_and_finished_ones_may_be_lent(void)
{
    for (int lent = 0; lent < 2; lent++) {
        fill();
        begin(GET("/"));
        int64_t exchange = site.request.exchange;
        site.server->response_buffer = sizeof large;
        if (lent)
            site_lend(&site);
        int32_t flags = lent ? PW_FINISHED : 0;
        CHECK_INT(site_send_first(&site, HEAD_OK, sizeof large, large, 100000, flags), 0);
        CHECK_INT(site_send(&site, large + 100000, sizeof large - 100000, flags), PW_COMPLETE);
        CHECK_INT(site.server->all->output.borrowed > 0, lent);
        if (!lent)
            memset(large, 'x', sizeof large);
        CHECK_INT(site_finish(&site, false), SITE_WAITS);
        read_all();
        check_large(HEAD_OK "\r\n");
        CHECK_INT(site.sent_count, lent);
        if (lent)
            CHECK_INT(site.sent[0], exchange);
        end();
    }
}

static void a_part_that_comes_too_late_reaches_no_other_response(void)
{
    begin(GET("/a") GET("/b"));
    int64_t first = site.request.exchange;
    CHECK_INT(pw_respond(site.thread, LITERAL(HEAD_OK), LITERAL("whole"), PW_RETURN), PW_IDLE);
    CHECK_INT(pw_send_data(site.thread, first, LITERAL("late"), 0), PW_OVER);
    site_request(&site);
    CHECK_INT(pw_thread_exchange(site.thread), site.request.exchange);
    CHECK_INT(pw_send_data(site.thread, first, LITERAL("late"), 0), PW_OVER);
    CHECK_INT(pw_send_first(site.thread, first, LITERAL(HEAD_OK), -1, 0, LITERAL("late"), 0),
              PW_OVER);
    CHECK_INT(pw_check_client(site.thread, first), PW_OVER);
    CHECK_INT(site_send_first(&site, HEAD_OK, 2, LITERAL("in"), 0), PW_COMPLETE);
    CHECK_INT(pw_send_data(site.thread, first, LITERAL("late"), 0), PW_OVER);
    CHECK_INT(site_finish(&site, false), SITE_WAITS);
    CHECK_INT(pw_send_data(site.thread, first, LITERAL("late"), 0), PW_OVER);
    client_receive(&client);
    CHECK_TEXT(&client.got, OK("whole", "5") HEAD_OK "\r\nin");
    end();
}

static void a_whole_response_after_a_part_is_refused(void)
{
    begin(GET("/"));
    CHECK_INT(site_send_first(&site, HEAD_OK, -1, LITERAL("part"), 0), 0);
    CHECK_INT(pw_respond(site.thread, LITERAL(HEAD_OK), LITERAL("whole"), 0), PW_STARTED);
    CHECK_INT(site_send_first(&site, HEAD_OK "X: y\r\n", -1, LITERAL("more"), 0),
              0); /* no second head */
    CHECK_INT(site_finish(&site, false), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, HEAD_OK "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n4\r\nmore\r\n"
                                    "0\r\n\r\n");
    end();
}

static void content_is_counted_against_its_length(void)
{
    begin(GET("/"));
    CHECK_INT(site_send_head(&site, HEAD_OK, 5), 0);
    CHECK_INT(pw_content_missing(site.thread), 5);
    CHECK_INT(site_send(&site, LITERAL("abc"), 0), 0);
    CHECK_INT(pw_content_missing(site.thread), 2);
    CHECK_INT(site_send(&site, LITERAL("defg"), 0), PW_OVERFLOW);
    CHECK_INT(pw_content_missing(site.thread), 0);
    CHECK_INT(site_send(&site, LITERAL("h"), 0), PW_OVERFLOW);
    CHECK_INT(site_finish(&site, true), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, HEAD_OK "\r\nabcde");
    CHECK(client.ended);
    end();
}

static void a_file_is_no_longer_than_its_response(void)
{
    begin("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(site_send_head(&site, HEAD_OK, 9), PW_UNWANTED);
    CHECK_INT(pw_content_missing(site.thread), 0);
    CHECK_INT(pw_send_file(site.thread, site.listener, 0, 9), PW_UNWANTED);
    CHECK_INT(site_finish(&site, false), SITE_WAITS);
    end();
    begin(GET("/"));
    CHECK_INT(site_send_head(&site, HEAD_OK, -1), 0);
    CHECK_INT(pw_send_file(site.thread, site.listener, 0, 9), PW_REFUSED);
    CHECK_INT(site_finish(&site, false), SITE_WAITS);
    end();
}

/* As if a signal handler raised in Python between two calls. */
static void an_abandoned_exchange_is_cut_and_its_loans_are_named(void)
{
    for (int begun = 0; begun < 2; begun++) {
        begin(GET("/a") GET("/b"));
        int64_t exchange = site.request.exchange;
        site_lend(&site);
        if (begun)
            CHECK_INT(site_send_first(&site, HEAD_OK, -1, large, 20000, PW_FINISHED), 0);
        CHECK_INT(site_next(&site), SITE_WAITS);
        CHECK_INT(site.sent_count, 1);
        CHECK_INT(site.sent[0], exchange);
        client_receive(&client);
        CHECK(client.ended);
        CHECK(begun == (client.got.size > 20000));
        pw_incident incident;
        CHECK_INT(pw_incident_take(site.server, &incident), 1);
        CHECK_INT(incident.what, PW_INCIDENT_ABANDONED);
        CHECK_INT(strcmp(incident.line, "GET /a"), 0);
        CHECK_INT(pw_incident_take(site.server, &incident), 0);
        end();
    }
}

static void responses_before_an_abandoned_exchange_are_sent(void)
{
    begin(GET("/a") GET("/b"));
    site.server->slice_ms = 3600000;   /* the wait must not depend on this machine's speed */
    site.server->watch.is_here = true; /* makes the first response wait for the second */
    site_see(&site, site_respond(&site, LITERAL("first"), 0));
    CHECK(site.server->all->output.first != NULL);
    CHECK_INT(site_next(&site), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, OK("first", "5"));
    CHECK(client.ended);
    site.server->watch.is_here = false;
    end();
}

static void a_thread_that_is_freed_during_a_request_leaves_nothing_behind(void)
{
    begin(GET("/a"));
    pw_thread *other = pw_thread_new(site.server, 1);
    REQUIRE(other != NULL);
    CHECK(site.server->token.holder == site.thread && site.server->token.is_out);
    pw_thread_free(site.thread);
    site.thread = other;
    CHECK(site.server->token.holder == NULL && !site.server->token.is_out);
    CHECK_INT(site.server->threads.taken, 0);
    CHECK_INT(site_next(&site), SITE_WAITS);
    client_receive(&client);
    CHECK(client.ended);
    client_close(&client);
    client = site_connect(&site);
    SEND(&client, GET("/b"));
    CHECK_INT(site_serve(&site), 1);
    end();
}

static void the_core_checks_a_client_without_news(void)
{
    begin(GET("/"));
    CHECK_INT(pw_check_client(site.thread, site.request.exchange), 0);
    client_half_close(&client); /* the client may still read */
    CHECK_INT(pw_check_client(site.thread, site.request.exchange), 0);
    site.server->all->left_at -= PW_HALF_CLOSED_MS;
    CHECK_INT(pw_check_client(site.thread, site.request.exchange), PW_GONE);
    CHECK_INT(site_finish(&site, true), SITE_WAITS);
    end();
    begin("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(pw_check_client(site.thread, site.request.exchange), PW_UNWANTED);
    client_close(&client);
    CHECK_INT(pw_check_client(site.thread, site.request.exchange), PW_GONE);
    client = site_connect(&site);
    CHECK_INT(site_finish(&site, true), SITE_WAITS);
    end();
}

/* The end of a server frees the exchange of a thread that has not
 * come back. The thread may come later. */
static void a_thread_that_comes_after_the_end_finds_no_server(void)
{
    begin(GET("/"));
    int64_t exchange = site.request.exchange;
    pw_server_free(site.server);
    CHECK_INT(pw_send_data(site.thread, exchange, LITERAL("late"), 0), PW_OVER);
    CHECK_INT(pw_respond(site.thread, LITERAL(HEAD_OK), LITERAL("late"), 0), PW_STOP);
    CHECK_INT(pw_client_gone(site.thread), 1);
    client_receive(&client);
    CHECK_TEXT(&client.got, "");
    CHECK(client.ended);
    client_close(&client);
    site.server = NULL;
    site_close(&site);
}

int main(void)
{
    RUN(a_lent_body_is_named_once_when_its_exchange_is_sent);
    RUN(a_lent_body_that_is_sent_at_once_is_named_before_the_next_request);
    RUN(a_lent_body_is_named_when_its_client_disconnects);
    RUN(a_body_that_is_not_lent_is_copied);
    RUN(parts_of_a_stream_are_copied_and_finished_ones_may_be_lent);
    RUN(a_part_that_comes_too_late_reaches_no_other_response);
    RUN(a_whole_response_after_a_part_is_refused);
    RUN(content_is_counted_against_its_length);
    RUN(a_file_is_no_longer_than_its_response);
    RUN(an_abandoned_exchange_is_cut_and_its_loans_are_named);
    RUN(responses_before_an_abandoned_exchange_are_sent);
    RUN(a_thread_that_is_freed_during_a_request_leaves_nothing_behind);
    RUN(the_core_checks_a_client_without_news);
    RUN(a_thread_that_comes_after_the_end_finds_no_server);
    return check_end();
}
