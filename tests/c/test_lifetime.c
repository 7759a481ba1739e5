/* How connections begin and end: limits, resets, half-closes, timeouts, and the server's stop. */
#include <string.h>
#include <sys/resource.h>

#include "site.h"

static test_site site;

static void open_site(void)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
}

/* Answers with "ok" when there is nothing to come. */
static void answer(void)
{
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
}

#define LAST_OK "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"

static void connections_over_the_limit_wait_their_turn(void)
{
    pw_settings settings = site_settings();
    settings.max_connections = 2;
    site_open(&site, &settings, AF_UNIX);
    test_client clients[4];
    for (int i = 0; i < 4; i++) {
        clients[i] = site_connect(&site);
        SEND(&clients[i], GET("/a"));
    }
    CHECK_INT(site_serve(&site), 2);
    CHECK_INT(site.server->conn_count, 2);
    client_close(&clients[0]);
    CHECK_INT(site_serve(&site), 1);
    client_close(&clients[1]);
    CHECK_INT(site_serve(&site), 1);
    for (int i = 2; i < 4; i++) {
        client_receive(&clients[i]);
        CHECK_TEXT(&clients[i].got, OK("/a", "2"));
        client_close(&clients[i]);
    }
    site_close(&site);
}

static void without_descriptors_accepting_pauses_and_goes_on(void)
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
    CHECK(site.server->paused);
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK_INT(site_serve(&site), 0); /* not yet */
    site_sleep(150);
    CHECK_INT(site_serve(&site), 1);
    CHECK(!site.server->paused);

    test_client second = site_connect(&site); /* a stop in a pause: it is accepted later */
    setrlimit(RLIMIT_NOFILE, &none);
    SEND(&client, "GET /slow HTTP/1.1\r\n");
    CHECK_INT(site_serve(&site), 0);
    setrlimit(RLIMIT_NOFILE, &before);
    CHECK(site.server->paused);
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
    test_client client = site_connect(&site); /* while the application is at work */
    SEND(&client, GET("/"));
    site_request(&site);
    CHECK_INT(pw_client_gone(site.thread), 0);
    client_reset(&client);
    CHECK_INT(pw_client_gone(site.thread), 1);
    answer();
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

static void a_half_closed_client_gets_its_answers(void)
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
    CHECK_INT(site_next(&site), PW_STOP); /* and for ever */
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

/* A client that sends this and then nothing. */
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
    test_client client = site_connect(&site); /* idle: closed, and nothing said */
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
    RUN(without_descriptors_accepting_pauses_and_goes_on);
    RUN(a_client_that_resets_its_connection_is_forgotten);
    RUN(a_half_closed_client_gets_its_answers);
    RUN(a_stop_ends_idle_connections_and_finishes_the_others);
    RUN(draining_ends_when_its_time_is_over);
    RUN(a_client_that_is_too_slow_is_cut_off);
    return check_end();
}
