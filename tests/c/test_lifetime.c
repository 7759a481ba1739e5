/* How connections begin and end: limits, resets, half-closes, timeouts, and the server's stop. */
#include <string.h>
#include <sys/resource.h>

#include "cast.h"
#include "site.h"

static test_site site;

static void open_site(void)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
}

/* Answers with "ok" until no request is left. */
static void answer(void)
{
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
}

#define LAST_OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

enum { MOMENT = 150 }; /* ms: a connection that was idle for longer may be closed for a new one */

static bool has_ended(test_client *client)
{
    client_receive(client);
    return client->ended;
}

static void connections_over_the_limit_wait_their_turn(void)
{
    pw_settings settings = site_settings();
    settings.max_connections = 2;
    site_open(&site, &settings, AF_UNIX);
    test_client clients[4];
    for (int i = 0; i < 4; i++) {
        clients[i] = site_connect(&site);
        if (i == 0)
            SEND(&clients[i], "GET /a HTTP/1.1\r\n");
        else
            SEND(&clients[i], GET("/a"));
    }
    site_request(&site); /* both of its connections have a request */
    CHECK_INT(site.server->conn_count, 2);
    CHECK_INT(site_respond(&site, LITERAL("/a"), 0), SITE_WAITS);
    for (int i = 1; i < 3; i++) { /* the next one takes the place of this one */
        site_sleep(MOMENT);
        CHECK_INT(site_serve(&site), 1);
        CHECK_INT(site.server->conn_count, 2);
    }
    SEND(&clients[0], "Host: a\r\n\r\n");
    CHECK_INT(site_serve(&site), 1);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(has_ended(&clients[i]), i == 1 || i == 2);
        CHECK_TEXT(&clients[i].got, OK("/a", "2"));
        client_close(&clients[i]);
    }
    site_close(&site);
}

/* Opens the maximum of connections, all idle. The first one has been idle longest. */
static void fill_with_idle(test_client *clients, int count)
{
    pw_settings settings = site_settings();
    settings.max_connections = count;
    site_open(&site, &settings, AF_UNIX);
    for (int i = 0; i < count; i++) {
        clients[i] = site_connect(&site);
        CHECK_INT(site_serve(&site), 0);
    }
    for (int i = 0; i < count; i++) {
        SEND(&clients[i], GET("/a"));
        CHECK_INT(site_serve(&site), 1);
    }
}

static void the_connection_that_was_idle_longest_is_closed_for_a_new_one(void)
{
    enum { MOST = 5 };
    test_client clients[MOST], fresh[MOST];
    fill_with_idle(clients, MOST);
    SEND(&clients[0], GET("/b")); /* now the next one has been idle longest */
    CHECK_INT(site_serve(&site), 1);
    site_sleep(MOMENT);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(site.server->conn_count, MOST);
        fresh[i] = site_connect(&site);
        SEND(&fresh[i], GET("/fresh"));
        CHECK_INT(site_serve(&site), 1);
        client_receive(&fresh[i]);
        CHECK_TEXT(&fresh[i].got, OK("/fresh", "6"));
        for (int k = 0; k < MOST; k++) {
            ABOUT("%d came, client %d", i + 1, k);
            CHECK_INT(has_ended(&clients[k]), k > 0 && k <= i + 1);
        }
    }
    CHECK_TEXT(&clients[1].got, OK("/a", "2"));
    for (int i = 0; i < MOST; i++)
        client_close(i < 3 ? &fresh[i] : &clients[i]);
    for (int i = 0; i < 3; i++)
        client_close(&clients[i]);
    site_close(&site);
}

static void a_connection_with_a_request_is_not_closed_for_a_new_one(void)
{
    enum { MOST = 6 };
    test_client clients[MOST], fresh;
    fill_with_idle(clients, MOST);
    static char much[400000];
    SEND(&clients[0], "GET /half HTTP/1.1\r\n");
    SEND(&clients[1], "PUT /half HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel");
    CHECK_INT(site_serve(&site), 0);
    SEND(&clients[2], GET("/large"));
    site_request(&site);
    CHECK_INT(site_respond(&site, much, sizeof much, 0), SITE_WAITS);
    site_sleep(MOMENT);
    SEND(&clients[3], GET("/at-work"));
    site_request(&site);
    fresh = site_connect(&site);
    SEND(&fresh, GET("/fresh"));
    SEND(&clients[4], GET("/just-now")); /* the poller has not reported it yet */
    SEND(&clients[5], "G");              /* nor this */
    int64_t number = site_respond(&site, LITERAL("ok"), 0);
    REQUIRE(number >= 0);
    CHECK_HOLDS(&site_see(&site, number)->line, "PATH_INFO: /just-now\n");
    CHECK_INT(site.server->conn_count, MOST);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    site_sleep(MOMENT);
    SEND(&clients[4], GET("/again")); /* the poller has not reported it either */
    CHECK_INT(site_serve(&site), 2);  /* this one, and the new one that replaced the fourth */
    for (int i = 0; i < MOST; i++) {
        ABOUT("client %d", i);
        CHECK_INT(has_ended(&clients[i]), i == 3);
        client_close(&clients[i]);
    }
    client_close(&fresh);
    site_close(&site);
}

static void a_connection_that_was_idle_for_a_moment_is_not_closed_yet(void)
{
    test_client clients[2], fresh;
    clock_stop(); /* or a busy machine makes the moment longer */
    fill_with_idle(clients, 2);
    fresh = site_connect(&site);
    SEND(&fresh, GET("/fresh"));
    CHECK_INT(site_serve(&site), 0);
    SEND(&clients[0], GET("/b"));
    CHECK_INT(site_serve(&site), 1);
    CHECK(!has_ended(&clients[0]) && !has_ended(&clients[1]));
    clock_forward_ms(MOMENT / 2);
    SEND(&clients[0], GET("/c"));
    CHECK_INT(site_serve(&site), 1);
    clock_forward_ms(MOMENT / 2);
    CHECK_INT(site_serve(&site), 1);
    CHECK(!has_ended(&clients[0]) && has_ended(&clients[1]));
    client_receive(&fresh);
    CHECK_TEXT(&fresh.got, OK("/fresh", "6"));
    CHECK(!site.server->accept.paused);
    client_close(&clients[0]);
    client_close(&clients[1]);
    client_close(&fresh);
    site_close(&site);
    clock_go();
}

static void an_idle_connection_is_closed_only_when_there_is_a_new_one(void)
{
    test_client clients[3];
    fill_with_idle(clients, 3);
    for (int i = 0; i < 3; i++) {
        SEND(&clients[i], GET("/b"));
        CHECK_INT(site_serve(&site), 1);
    }
    site_sleep(MOMENT);
    CHECK_INT(site_serve(&site), 0);
    for (int i = 0; i < 3; i++) {
        CHECK(!has_ended(&clients[i]));
        client_close(&clients[i]);
    }
    site_close(&site);
}

static void without_descriptors_accepting_pauses_and_continues(void)
{
    open_site();
    test_client client = site_connect(&site);
    SEND(&client, GET("/a"));
    struct rlimit before, none;
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &none);
    CHECK_INT(site_serve(&site), 0);
    CHECK(site.server->accept.paused);
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK_INT(site_serve(&site), 0); /* not yet */
    site_sleep(150);
    CHECK_INT(site_serve(&site), 1);
    CHECK(!site.server->accept.paused);

    test_client second = site_connect(&site); /* a stop during the pause: it is accepted later */
    setrlimit(RLIMIT_NOFILE, &none);
    SEND(&client, "GET /slow HTTP/1.1\r\n");
    CHECK_INT(site_serve(&site), 0);
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(site.server->accept.paused);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    SEND(&client, "Host: a\r\n\r\n");
    SEND(&second, GET("/second"));
    CHECK_INT(site_serve(&site), 2);
    CHECK_INT(site_next(&site), PW_STOP);
    client_close(&client);
    client_close(&second);
    site_close(&site);
}

static void a_client_that_resets_its_connection_is_forgotten(void)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_INET);
    static const char *const texts[] = {
        "", "GET / HT", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
        "GET / HTTP/9.9\r\n\r\nand more"};
    for (size_t i = 0; i < 4; i++) {
        test_client client = site_connect(&site);
        client_send(&client, texts[i], strlen(texts[i]));
        CHECK_INT(site_serve(&site), 0);
        CHECK_INT(site.server->conn_count, 1);
        client_reset(&client);
        CHECK_INT(site_serve(&site), 0);
        CHECK_INT(site.server->conn_count, 0);
    }
    test_client client = site_connect(&site); /* while the application works */
    SEND(&client, GET("/"));
    site_request(&site);
    CHECK_INT(pw_client_gone(site.thread), 0);
    client_reset(&client);
    CHECK_INT(pw_client_gone(site.thread), 1);
    answer();
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

static void a_half_closed_client_gets_its_responses(void)
{
    open_site();
    test_client client = site_connect(&site);
    SEND(&client, GET("/a") GET("/b"));
    client_half_close(&client);
    CHECK_INT(site_serve(&site), 2);
    client_receive(&client);
    CHECK_TEXT(&client.got, OK("/a", "2") OK("/b", "2"));
    CHECK(client.ended);
    CHECK_INT(site.server->conn_count, 0);
    client_close(&client);
    site_close(&site);
}

static void a_stop_ends_idle_connections_and_finishes_the_others(void)
{
    open_site();
    test_client idle = site_connect(&site), busy = site_connect(&site), half = site_connect(&site);
    SEND(&idle, GET("/a"));
    CHECK_INT(site_serve(&site), 1);
    SEND(&half, "GET /half HTTP/1.1\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    SEND(&busy, GET("/b"));
    site_request(&site);
    pw_server_stop(site.server, PW_DRAIN);
    answer();
    client_receive(&idle);
    CHECK(idle.ended);
    client_receive(&busy);
    CHECK_TEXT(&busy.got, LAST_OK);
    SEND(&half, "Host: a\r\n\r\n");
    CHECK_HOLDS(&site_request(&site)->line, "PATH_INFO: /half\n");
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), PW_STOP);
    client_receive(&half);
    CHECK_TEXT(&half.got, LAST_OK);
    CHECK(half.ended);
    CHECK_INT(site_next(&site), PW_STOP); /* also in later calls */
    client_close(&idle);
    client_close(&busy);
    client_close(&half);
    site_close(&site);
}

static void draining_ends_when_its_time_is_over(void)
{
    pw_settings settings = site_settings();
    settings.timeout_graceful = 30;
    site_open(&site, &settings, AF_UNIX);
    test_client client = site_connect(&site);
    SEND(&client, "GET /half HTTP/1.1\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    site_sleep(50);
    CHECK_INT(site_next(&site), PW_STOP);
    client_close(&client);
    site_close(&site);
}

/* Sends this text and then nothing. */
static void check_is_timed_out(const char *text)
{
    test_client client = site_connect(&site);
    client_send(&client, text, strlen(text));
    CHECK_INT(site_serve(&site), 0);
    CHECK_INT(site.server->conn_count, 1);
    site_sleep(60);
    CHECK_INT(site_serve(&site), 0);
    client_receive(&client);
    ABOUT("%s", text);
    CHECK(client.ended);
    CHECK_HOLDS(&client.got, "HTTP/1.1 408 ");
    client_close(&client);
    CHECK_INT(site_serve(&site), 0);
}

static void a_client_that_is_too_slow_is_cut_off(void)
{
    pw_settings settings = site_settings();
    settings.timeout_head = settings.timeout_body = settings.timeout_keep_alive = 30;
    site_open(&site, &settings, AF_UNIX);
    check_is_timed_out("GET / HTTP/1.1\r\nHo");
    check_is_timed_out("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    test_client client = site_connect(&site); /* idle: closed without a response */
    CHECK_INT(site_serve(&site), 0);
    site_sleep(60);
    CHECK_INT(site_serve(&site), 0);
    client_receive(&client);
    CHECK(client.ended);
    CHECK_TEXT(&client.got, "");
    client_close(&client);
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

int main(void)
{
    RUN(connections_over_the_limit_wait_their_turn);
    RUN(the_connection_that_was_idle_longest_is_closed_for_a_new_one);
    RUN(a_connection_with_a_request_is_not_closed_for_a_new_one);
    RUN(a_connection_that_was_idle_for_a_moment_is_not_closed_yet);
    RUN(an_idle_connection_is_closed_only_when_there_is_a_new_one);
    RUN(without_descriptors_accepting_pauses_and_continues);
    RUN(a_client_that_resets_its_connection_is_forgotten);
    RUN(a_half_closed_client_gets_its_responses);
    RUN(a_stop_ends_idle_connections_and_finishes_the_others);
    RUN(draining_ends_when_its_time_is_over);
    RUN(a_client_that_is_too_slow_is_cut_off);
    return check_end();
}
