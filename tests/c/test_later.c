/* Small responses that leave together, while requests of other clients wait. */
#include <string.h>

#include "site.h"

enum { CLIENTS = 20 };

static test_site site;
static test_client clients[CLIENTS];
static int count;

/* So many connections, each with a request that has arrived; the first of them is handed over. */
static void begin(int wanted)
{
    pw_settings settings = site_settings();
    settings.threads = 2;
    site_open(&site, &settings, AF_UNIX);
    /* As pw_watch would have it: there is who sees that nothing is late. */
    site.server->watcher_is_here = true;
    count = wanted;
    for (int i = 0; i < count; i++) {
        clients[i] = site_connect(&site);
        SEND(&clients[i], GET("/first"));
    }
    CHECK_INT(site_serve(&site), count); /* all are registered, and told together from now on */
    for (int i = 0; i < count; i++) {
        client_receive(&clients[i]);
        text_clear(&clients[i].got);
        SEND(&clients[i], GET("/"));
    }
    site_request(&site);
}

static void end(void)
{
    for (int i = 0; i < count; i++)
        client_close(&clients[i]);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

/* How many clients have a response. */
static int answered(void)
{
    int found = 0;
    for (int i = 0; i < count; i++) {
        client_receive(&clients[i]);
        found += clients[i].got.size > 0;
    }
    return found;
}

/* Answers the request at hand; the next one, if there is one, is at hand then. */
static int64_t answer(void)
{
    int64_t number = site_respond(&site, LITERAL("hello"), 0);
    if (number >= 0)
        site_see(&site, number);
    return number;
}

/* The same, and the thread does not go on to the next request. */
static void answer_alone(const char *body, size_t size)
{
    CHECK_INT(pw_respond(site.thread, LITERAL(HEAD_OK), body, (int64_t)size, PW_RETURN), PW_IDLE);
}

/* Answers the last request: now every client has its response, whole. */
static void answer_last(void)
{
    CHECK_INT(answer(), SITE_WAITS);
    CHECK_INT(answered(), count);
    for (int i = 0; i < count; i++)
        CHECK_TEXT(&clients[i].got, OK("hello", "5"));
}

static void they_leave_when_all_requests_are_answered(void)
{
    begin(3);
    answer();
    CHECK_INT(answered(), 0);
    answer();
    CHECK_INT(answered(), 0);
    answer_last();
    end();
}

static void one_that_is_alone_leaves_at_once(void)
{
    begin(1);
    answer_alone(LITERAL("hello"));
    CHECK_INT(answered(), 1);
    end();
}

static void none_is_late_by_more_than_a_tick(void)
{
    begin(4);
    answer();
    answer();
    CHECK_INT(answered(), 0);
    site.server->ticks++;
    answer();
    CHECK_INT(answered(), 3);
    answer();
    end();
}

static void not_too_many_wait(void)
{
    begin(CLIENTS);
    for (int i = 0; i < 15; i++)
        answer();
    CHECK_INT(answered(), 0);
    answer();
    CHECK_INT(answered(), 16);
    for (int i = 16; i < CLIENTS; i++)
        answer();
    CHECK_INT(answered(), CLIENTS);
    end();
}

static void a_large_one_leaves_at_once(void)
{
    static char large[4096];
    begin(2);
    answer_alone(large, sizeof large);
    CHECK_INT(answered(), 1);
    site_request(&site);
    answer();
    end();
}

/* Two of three are answered; the third blocks. */
static void another_thread_sends_them_when_the_application_blocks(void)
{
    begin(3);
    answer();
    answer();
    CHECK_INT(answered(), 0);
    pw_thread *second = pw_thread_new(site.server, 1);
    REQUIRE(second != NULL);
    test_site other = site;
    other.thread = second;
    site.server->ticks += 3;
    CHECK_INT(site_next(&other), SITE_WAITS);
    CHECK_INT(answered(), 2);
    answer_alone(LITERAL("hello"));
    CHECK_INT(answered(), 3); /* it does not have the loop, and so leaves nothing to it */
    pw_thread_free(second);
    site.server->holder = NULL; /* it was left by longjmp */
    end();
}

/* Nobody needs to have Python's lock for it. */
static void the_watcher_sends_what_is_late(void)
{
    begin(3);
    answer();
    answer();
    pw_later_flush(site.server, false);
    CHECK_INT(answered(), 0);
    site.server->ticks++;
    pw_later_flush(site.server, false);
    CHECK_INT(answered(), 2);
    answer_last();
    end();
}

static void an_application_that_blocks_often_has_them_sent_at_once(void)
{
    begin(2);
    site.server->block_score = 64;
    answer_alone(LITERAL("hello"));
    CHECK_INT(answered(), 1);
    site_request(&site);
    answer();
    end();
}

static void where_requests_take_little_they_leave_at_once(void)
{
    begin(2);
    site.server->brisk = true;
    answer_alone(LITERAL("hello"));
    CHECK_INT(answered(), 1);
    site_request(&site);
    answer();
    end();
}

static void the_only_part_of_a_response_waits_too(void)
{
    begin(2);
    CHECK_INT(site_send_head(&site, HEAD_OK "Content-Length: 5\r\n", 5), 0);
    CHECK_INT(site_send(&site, LITERAL("hello"), 0), PW_COMPLETE);
    CHECK_INT(answered(), 0);
    pw_send_end(site.thread, 0);
    CHECK_INT(answered(), 0);
    site_request(&site);
    answer_last();
    end();
}

static void a_part_that_is_not_the_last_leaves_at_once(void)
{
    begin(2);
    CHECK_INT(site_send_head(&site, HEAD_OK "Content-Length: 9\r\n", 9), 0);
    CHECK_INT(site_send(&site, LITERAL("hello"), 0), 0);
    CHECK_INT(answered(), 1);
    pw_send_end(site.thread, 1);
    site_request(&site);
    answer();
    end();
}

static void a_client_that_goes_away_meanwhile_is_forgotten(void)
{
    begin(3);
    for (int64_t number = 0; number != SITE_WAITS;) {
        number = answer();
        for (int i = 0; i < count; i++)
            client_close(&clients[i]);
    }
    count = 0;
    end();
}

static void a_stop_sends_them_first(void)
{
    begin(3);
    answer();
    pw_server_stop(site.server, PW_DRAIN);
    answer();
    CHECK_INT(answer(), PW_STOP);
    CHECK_INT(answered(), 3);
    for (int i = 0; i < count; i++)
        client_close(&clients[i]);
    site_close(&site);
}

int main(void)
{
    RUN(they_leave_when_all_requests_are_answered);
    RUN(one_that_is_alone_leaves_at_once);
    RUN(none_is_late_by_more_than_a_tick);
    RUN(not_too_many_wait);
    RUN(a_large_one_leaves_at_once);
    RUN(another_thread_sends_them_when_the_application_blocks);
    RUN(the_watcher_sends_what_is_late);
    RUN(an_application_that_blocks_often_has_them_sent_at_once);
    RUN(where_requests_take_little_they_leave_at_once);
    RUN(the_only_part_of_a_response_waits_too);
    RUN(a_part_that_is_not_the_last_leaves_at_once);
    RUN(a_client_that_goes_away_meanwhile_is_forgotten);
    RUN(a_stop_sends_them_first);
    return check_end();
}
