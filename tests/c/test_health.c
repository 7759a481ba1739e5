/* csrc/health.c: which requests the core answers itself, and with what. */
#include "health.h"

#include <stdio.h>
#include <string.h>

#include "site.h"

static test_site site;

static void begin(const char *path)
{
    pw_settings settings = site_settings();
    settings.health_path = path;
    site_open(&site, &settings, AF_UNIX);
}

/* Whether the application sees the request; otherwise it is the core's. */
static bool reaches_the_application(const char *request)
{
    test_client client = site_connect(&site);
    client_send(&client, request, strlen(request));
    bool reaches = site_serve(&site) == 1;
    client_receive(&client);
    CHECK(client.got.size > 0);
    client_close(&client);
    CHECK_INT(site_next(&site), SITE_WAITS);
    return reaches;
}

static void only_a_request_for_the_path_is_answered(void)
{
    static const struct {
        const char *request;
        bool reaches;
    } cases[] = {
        {GET("/health"), false},
        {GET("/health?verbose"), false},
        {"HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n", false},
        {"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", false},
        {"GET http://b/health HTTP/1.1\r\nHost: a\r\n\r\n", false},
        {GET("/healthy"), true},
        {GET("/healt"), true},
        {GET("/HEALTH"), true},
        {GET("/health/"), true},
        {GET("/"), true},
        {"POST /health HTTP/1.1\r\nHost: a\r\n\r\n", true},
        {"GETS /health HTTP/1.1\r\nHost: a\r\n\r\n", true},
        {"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", true},
        {"GET /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
    };
    begin("/health");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("%s", cases[i].request);
        CHECK(reaches_the_application(cases[i].request) == cases[i].reaches);
    }
    CHECK_INT(pw_server_requests(site.server), 9);
    site_close(&site);
    begin("");
    CHECK(reaches_the_application(GET("/health")));
    CHECK(reaches_the_application(GET("/")));
    site_close(&site);
}

/* What the client gets, with the date as it is now. */
static void check_answer(const char *request, const char *head, const char *end, bool kept)
{
    char expected[512];
    test_client client = site_connect(&site);
    client_send(&client, request, strlen(request));
    CHECK_INT(site_serve(&site), 0);
    client_receive(&client);
    snprintf(expected, sizeof expected,
             "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
             "Server: picowsgi\r\n%.*sContent-Length: %s",
             head, (int)site.server->clock.size, site.server->clock.date, end);
    check_bytes(__FILE__, __LINE__, "answer", client.got.at, client.got.size, expected,
                strlen(expected));
    CHECK(client.ended == !kept);
    client_close(&client);
    CHECK_INT(site_next(&site), SITE_WAITS);
}

static void the_response_is_short_and_may_not_be_cached(void)
{
    begin("/health");
    check_answer(GET("/health"), "200 OK", "3\r\n\r\nok\n", true);
    check_answer("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n", "200 OK", "3\r\n\r\n", true);
    check_answer("GET /health HTTP/1.0\r\n\r\n", "200 OK", "3\r\nConnection: close\r\n\r\nok\n",
                 false);
    check_answer("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200 OK",
                 "3\r\nConnection: keep-alive\r\n\r\nok\n", true);
    check_answer("GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200 OK",
                 "3\r\nConnection: close\r\n\r\nok\n", false);
    site_close(&site);
}

static void a_server_that_drains_says_so(void)
{
    begin("/health");
    test_client client = site_connect(&site), other = site_connect(&site);
    SEND(&other, GET("/"));
    site_request(&site); /* which keeps the server from its end */
    SEND(&client, "GET /he");
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_respond(&site, "ok", 2, 0), SITE_WAITS);
    SEND(&client, "alth HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK_INT(site_next(&site), PW_STOP);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 503 Service Unavailable\r\n");
    CHECK_HOLDS(&client.got, "Content-Length: 9\r\nConnection: close\r\n\r\ndraining\n");
    CHECK(client.ended);
    client_close(&client);
    client_close(&other);
    site_close(&site);
}

static void the_response_has_its_place_among_others(void)
{
    begin("/health");
    test_client client = site_connect(&site);
    SEND(&client, GET("/1") GET("/health") GET("/health") GET("/2") GET("/health"));
    CHECK_INT(site_serve(&site), 2);
    client_receive(&client);
    static const char *const order[] = {"/1", "ok\n", "ok\n", "/2", "ok\n"};
    const char *at = client.got.at;
    for (int i = 0; i < 5; i++) {
        at = memmem(at, client.got.size - (size_t)(at - client.got.at), "\r\n\r\n", 4);
        REQUIRE(at != NULL);
        CHECK(strncmp(at + 4, order[i], strlen(order[i])) == 0);
        at++;
    }
    SEND(&client, GET("/health")); /* the connection is as good as before */
    CHECK_INT(site_serve(&site), 0);
    size_t before = client.got.size;
    client_receive(&client);
    CHECK(client.got.size > before && !client.ended);
    client_close(&client);
    site_close(&site);
}

int main(void)
{
    RUN(only_a_request_for_the_path_is_answered);
    RUN(the_response_is_short_and_may_not_be_cached);
    RUN(a_server_that_drains_says_so);
    RUN(the_response_has_its_place_among_others);
    return check_end();
}
