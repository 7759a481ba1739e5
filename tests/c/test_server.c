/* Requests: a whole server, its clients, and what it passes to Python, in one thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "conn_pool.h"
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

/* The number of occurrences of `part` in the text. */
static int count_of(const test_text *text, const char *part)
{
    int count = 0;
    size_t size = strlen(part);
    for (const char *at = text->at, *end = at + text->size;
         at != NULL && (at = memmem(at, (size_t)(end - at), part, size)) != NULL; at += size)
        count++;
    return count;
}

static void a_request_is_passed_to_a_thread_and_answered(void)
{
    open_site();
    CHECK_INT(site_next(&site), SITE_WAITS);
    test_client client = site_connect(&site);
    SEND(&client, "POST /a%20b?c HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-Y: z\r\n\r\nhello");
    test_seen *request = site_request(&site);
    CHECK_INT(request->kind, PW_NEW);
    CHECK_TEXT(&request->line, "PATH_INFO: /a b\nQUERY_STRING: c\nREQUEST_METHOD: POST\n"
                               "REQUEST_URI: /a%20b?c\nSERVER_PROTOCOL: HTTP/1.1\n");
    CHECK_TEXT(&request->fields, "CONTENT_LENGTH: 5\nHTTP_HOST: h\nHTTP_X_Y: z\n"
                                 "REMOTE_ADDR: \nREMOTE_PORT: \n");
    CHECK_TEXT(&request->content, "hello");
    answer();
    client_receive(&client);
    CHECK_TEXT(&client.got, OK("ok", "2"));
    CHECK(!client.ended);
    client_close(&client);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

static void a_nudged_thread_comes_back_once_without_a_request(void)
{
    open_site();
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_thread_nudge(site.thread);
    CHECK_INT(pw_next(site.thread), PW_IDLE);
    CHECK_INT(site_next(&site), SITE_WAITS);
    test_client client = site_connect(&site);
    SEND(&client, GET("/"));
    site_request(&site);
    pw_thread_nudge(site.thread); /* at its next wait */
    CHECK_INT(pw_respond(site.thread, LITERAL(HEAD_OK), LITERAL("ok"), 0), PW_IDLE);
    CHECK_INT(site_next(&site), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, OK("ok", "2"));
    client_close(&client);
    site_close(&site);
}

static void a_tcp_client_is_named_by_address_and_port(void)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_INET);
    test_client client = site_connect(&site);
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    REQUIRE(getsockname(client.fd, (struct sockaddr *)&name, &size) == 0);
    char expected[80];
    snprintf(expected, sizeof expected, "REMOTE_ADDR: 127.0.0.1\nREMOTE_PORT: %d\n",
             ntohs(name.sin_port));
    SEND(&client, GET("/"));
    test_seen *request = site_request(&site);
    check_holds(__FILE__, __LINE__, "fields", &request->fields, expected, strlen(expected));
    answer();
    client_close(&client);
    site_close(&site);
}

static void a_repeated_head_is_recognised(void)
{
    open_site();
    test_client client = site_connect(&site);
    static const struct {
        int kind;
        const char *text;
    } turns[] = {
        {PW_NEW, GET("/a")},
        {PW_STORE, GET("/a")},
        {PW_SAME, GET("/a")},
        {PW_CHANGED, GET("/b?q")},
        {PW_SAME, GET("/a")},
        {PW_NEW, "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"},
        {PW_NEW, "GET /a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"},
        {PW_CHANGED, "\r\n" GET("/a")},
        {PW_SAME, GET("/a")},
        {PW_CHANGED, "HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n"},
    };
    for (size_t i = 0; i < sizeof turns / sizeof turns[0]; i++) {
        client_send(&client, turns[i].text, strlen(turns[i].text));
        test_seen *request = site_request(&site);
        ABOUT("request %zu", i);
        CHECK_INT(request->kind, turns[i].kind);
        if (i == 5)
            CHECK_HOLDS(&request->fields, "HTTP_HOST: b\n");
        else
            CHECK_HOLDS(&request->fields, "HTTP_HOST: a\n");
        answer();
    }
    client_close(&client);
    CHECK(site.templates[0].stored);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK(!site.templates[0].stored); /* the news said that its template must be removed, too */
    site_close(&site);
}

/* is_watched: responses wait for each other, because the watcher could send them. */
static void check_pipelined_requests(bool is_watched)
{
    enum { MANY = 100 };
    test_text input = {NULL, 0, 0}, expected = {NULL, 0, 0};
    for (int i = 100; i < 100 + MANY; i++) {
        char text[200];
        snprintf(text, sizeof text, GET("/%d"), i);
        text_add_string(&input, text);
        snprintf(text, sizeof text, OK("/%d", "4"), i);
        text_add_string(&expected, text);
    }
    for (size_t step = 1; step <= input.size; step = step * 5 + 2) {
        open_site();
        site.server->watch.is_here = is_watched;
        test_client client = site_connect(&site);
        int served = 0;
        for (size_t at = 0; at < input.size; at += step) {
            client_send(&client, input.at + at, input.size - at < step ? input.size - at : step);
            served += site_serve(&site);
        }
        client_receive(&client);
        ABOUT("pieces of %zu", step);
        CHECK_INT(served, MANY);
        CHECK(text_same(&client.got, &expected));
        client_close(&client);
        site_close(&site);
    }
    text_free(&input);
    text_free(&expected);
}

static void pipelined_requests_are_answered_in_order(void)
{
    check_pipelined_requests(false);
    check_pipelined_requests(true);
}

static void an_incomplete_request_is_no_request(void)
{
    static const char *const texts[] = {
        "\r\nPOST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5;a=b\r\nhello\r\n0\r\nT: r\r\n\r\n",
    };
    open_site();
    for (size_t i = 0; i < 2; i++)
        for (size_t size = 0; size <= strlen(texts[i]); size++) {
            test_client client = site_connect(&site);
            client_send(&client, texts[i], size);
            client_half_close(&client);
            bool whole = size == strlen(texts[i]);
            ABOUT("%zu bytes", size);
            CHECK_INT(site_serve(&site), whole);
            client_receive(&client);
            if (whole)
                CHECK_TEXT(&client.got, OK("/a", "2"));
            else
                CHECK_TEXT(&client.got, "");
            CHECK(client.ended);
            CHECK_INT(site.server->conn_count, 0);
            client_close(&client);
        }
    site_close(&site);
}

static void no_request_after_a_refusal_is_served(void)
{
    open_site();
    test_client client = site_connect(&site);
    SEND(&client, GET("/a") "GET / HTTP/1.1\r\n\r\n" GET("/hidden"));
    CHECK_INT(site_serve(&site), 1);
    SEND(&client, GET("/late"));
    CHECK_INT(site_serve(&site), 0);
    client_receive(&client);
    CHECK_HOLDS(&client.got, OK("/a", "2") "HTTP/1.1 400 Bad Request\r\n");
    CHECK_HOLDS(&client.got,
                "\r\nConnection: close\r\n\r\nmissing, empty, repeated or malformed Host\n");
    CHECK_INT(count_of(&client.got, "HTTP/1.1 "), 2);
    CHECK(client.ended);                   /* the server has shut its side */
    CHECK_INT(site.server->conn_count, 1); /* and drops the rest */
    client_close(&client);
    CHECK_INT(site_serve(&site), 0);
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

static void a_refused_head_request_gets_no_content(void)
{
    static const char *const lines[] = {"HEAD /#", "HEAD /a b", "HEAD  /"};
    open_site();
    for (int i = 0; i < 6; i++) {
        bool kept = i >= 3; /* also if its fields are recognised */
        test_client client = site_connect(&site);
        for (int k = 0; k < 2 * kept; k++) {
            SEND(&client, GET("/"));
            CHECK_INT(site_serve(&site), 1);
        }
        client_send(&client, lines[i % 3], strlen(lines[i % 3]));
        SEND(&client, " HTTP/1.1\r\nHost: a\r\n\r\n");
        CHECK_INT(site_serve(&site), 0);
        client_receive(&client);
        ABOUT("%s, kept %d", lines[i % 3], kept);
        CHECK_HOLDS(&client.got, "HTTP/1.1 400 ");
        CHECK_BYTES(client.got.at + client.got.size - 4, (size_t)4, "\r\n\r\n");
        client_close(&client);
    }
    site_close(&site);
}

/* While content of one connection arrives, heads of others are parsed. They must not mix. */
static void the_heads_of_connections_do_not_mix(void)
{
    static const char *const others[] = {GET("/other?query"), "TRACE /bad#target HTTP/1.1\r\n\r\n",
                                         "TRACE /part HTTP/1.1\r\nHost:",
                                         "TRACE /bad HTTP/1.0 \r\n"
                                         "\r\n"};
    for (size_t i = 0; i < 4; i++) {
        open_site();
        test_client client = site_connect(&site), other = site_connect(&site);
        SEND(&client, "POST /mine HTTP/1.1\r\nHost: mine\r\nContent-Length: 5\r\n\r\nhel");
        CHECK_INT(site_next(&site), SITE_WAITS);
        client_send(&other, others[i], strlen(others[i]));
        CHECK_INT(site_serve(&site), i == 0);
        client_close(&other);
        CHECK_INT(site_next(&site), SITE_WAITS);
        SEND(&client, "lo");
        test_seen *request = site_request(&site);
        ABOUT("other %zu", i);
        CHECK_TEXT(&request->line, "PATH_INFO: /mine\nQUERY_STRING: \nREQUEST_METHOD: POST\n"
                                   "REQUEST_URI: /mine\nSERVER_PROTOCOL: HTTP/1.1\n");
        CHECK_HOLDS(&request->fields, "HTTP_HOST: mine\n");
        answer();
        client_close(&client);
        site_close(&site);
    }
}

/* After a head was recognised, and before its content arrives,
 * another connection gets the entry. */
static void an_entry_taken_away_while_content_arrives_is_not_used(void)
{
    static const char head[] = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    open_site();
    test_client client = site_connect(&site), other = site_connect(&site);
    for (int i = 0; i < 2; i++) {
        SEND(&client, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        CHECK_INT(site_serve(&site), 1);
    }
    client_send(&client, LITERAL(head));
    CHECK_INT(site_serve(&site), 0);
    site.server->cache.hand = 0; /* as after a second and 512 other connections */
    site.server->cache.entries[0].used -= PW_CACHE_REST_MS + 1000;
    for (int i = 0; i < 2; i++) {
        SEND(&other, GET("/other"));
        CHECK_INT(site_serve(&site), 1);
    }
    SEND(&client, "hello");
    int64_t number = site_next(&site);
    if (CHECK(number >= 0)) {
        test_seen *request = site_see(&site, number);
        CHECK_HOLDS(&request->line, "PATH_INFO: /p\n");
        CHECK_TEXT(&request->content, "hello");
        answer();
    }
    client_close(&client);
    client_close(&other);
    site_close(&site);
}

/* The thread may know the entry, and may not have read the template yet. */
static void an_entry_is_not_taken_away_while_its_request_runs(void)
{
    open_site();
    test_client client = site_connect(&site);
    for (int i = 0; i < 2; i++) {
        SEND(&client, GET("/"));
        CHECK_INT(site_serve(&site), 1);
    }
    SEND(&client, GET("/"));
    test_seen *request = site_request(&site);
    CHECK_INT(request->kind, PW_SAME);
    pw_cache *cache = &site.server->cache;
    void *evicted;
    for (int runs = 1; runs >= 0; runs--) {
        ABOUT("runs %d", runs);
        cache->hand = 0;
        cache->entries[0].used = 0; /* as after a long wait for the GIL */
        int entry = pw_cache_take(cache, &site, PW_CACHE_REST_MS, &evicted);
        CHECK_INT(entry, runs);
        CHECK((evicted == NULL) == runs);
        pw_cache_release(cache, entry);
        if (runs)
            answer();
        else if (evicted != NULL)
            ((pw_conn *)evicted)->entry = -1;
    }
    client_close(&client);
    site_close(&site);
}

static void content_over_the_memory_limit_comes_in_a_file(void)
{
    pw_settings settings = site_settings();
    settings.body_memory = 1000;
    site_open(&site, &settings, AF_UNIX);
    test_client client = site_connect(&site);
    static char content[100000];
    memset(content, 'c', sizeof content);
    SEND(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    client_send(&client, content, 50000);
    CHECK_INT(site_next(&site), SITE_WAITS);
    client_send(&client, content, 50000);
    SEND(&client, GET("/next"));
    test_seen *request = site_request(&site);
    CHECK(request->in_file);
    CHECK_INT(request->content.size, sizeof content);
    CHECK(memcmp(request->content.at, content, sizeof content) == 0);
    request = site_see(&site, site_respond(&site, LITERAL("ok"), 0));
    CHECK_HOLDS(&request->line, "PATH_INFO: /next\n");
    CHECK(!request->in_file);
    answer();
    client_close(&client);
    site_close(&site);
}

static void the_client_gets_100_once_and_only_when_it_waits(void)
{
    open_site();
    test_client client = site_connect(&site);
    SEND(&client,
         "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, "HTTP/1.1 100 Continue\r\n\r\n");
    SEND(&client, "h");
    CHECK_INT(site_serve(&site), 0);
    SEND(&client, "i");
    CHECK_INT(site_serve(&site), 1);
    SEND(&client, "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
                  "hi");
    CHECK_INT(site_serve(&site), 1);
    client_receive(&client);
    CHECK_TEXT(&client.got, "HTTP/1.1 100 Continue\r\n\r\n" OK("/a", "2") OK("/a", "2"));
    client_close(&client);
    site_close(&site);
}

/* A client that sends this and disconnects. */
static void come_and_go(const char *sent)
{
    test_client client = site_connect(&site);
    client_send(&client, sent, strlen(sent));
    site_serve(&site);
    client_close(&client);
    site_serve(&site);
    CHECK_INT(site.server->conn_count, 0);
}

static void a_new_connection_has_no_data_of_ended_ones(void)
{
    open_site();
    static const char *const before[] = {
        "",
        "GET /before HT",
        "HEAD /before HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /before HTTP/1.0\r\n\r\n",
        "GET /before HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /before HTTP/1.1\r\nHost: a\r\n\r\nGET /before HTTP/1.1\r\nHost: a\r\n\r\nGET",
        "PUT /before HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbe",
        "PUT /before HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhe",
        "GET / HTTP/9.9\r\n\r\nand more",
    };
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        ABOUT("%s", before[i]);
        come_and_go(before[i]);
        test_client client = site_connect(&site);
        CHECK_INT(site_serve(&site), 0);
        SEND(&client, "GET /a HTTP/1.1\r\n");
        CHECK_INT(site_serve(&site), 0);
        SEND(&client, "Host: a\r\n\r\n");
        CHECK_INT(site_serve(&site), 1);
        SEND(&client, GET("/b"));
        CHECK_INT(site_serve(&site), 1);
        client_receive(&client);
        CHECK(!client.ended);
        CHECK_TEXT(&client.got, OK("/a", "2") OK("/b", "2"));
        client_close(&client);
        CHECK_INT(site_serve(&site), 0);
    }
    site_close(&site);
}

static void the_memory_of_some_connections_is_kept_for_new_ones(void)
{
    enum { MANY = PW_SPARE_MOST + 10 };
    open_site();
    for (int round = 0; round < 2; round++) {
        test_client clients[MANY];
        for (int i = 0; i < MANY; i++) {
            clients[i] = site_connect(&site);
            if (i % 32 == 31) /* the backlog has no room for more */
                CHECK_INT(site_serve(&site), 0);
        }
        CHECK_INT(site_serve(&site), 0);
        CHECK_INT(site.server->conn_count, MANY);
        CHECK_INT(site.server->spare_count, 0);
        for (int i = 0; i < MANY; i++)
            client_close(&clients[i]);
        CHECK_INT(site_serve(&site), 0);
        CHECK_INT(site.server->conn_count, 0);
        CHECK_INT(site.server->spare_count, PW_SPARE_MOST);
    }
    site_close(&site);
}

int main(void)
{
    RUN(a_new_connection_has_no_data_of_ended_ones);
    RUN(the_memory_of_some_connections_is_kept_for_new_ones);
    RUN(a_request_is_passed_to_a_thread_and_answered);
    RUN(a_nudged_thread_comes_back_once_without_a_request);
    RUN(a_tcp_client_is_named_by_address_and_port);
    RUN(a_repeated_head_is_recognised);
    RUN(pipelined_requests_are_answered_in_order);
    RUN(an_incomplete_request_is_no_request);
    RUN(no_request_after_a_refusal_is_served);
    RUN(a_refused_head_request_gets_no_content);
    RUN(the_heads_of_connections_do_not_mix);
    RUN(an_entry_taken_away_while_content_arrives_is_not_used);
    RUN(an_entry_is_not_taken_away_while_its_request_runs);
    RUN(content_over_the_memory_limit_comes_in_a_file);
    RUN(the_client_gets_100_once_and_only_when_it_waits);
    return check_end();
}
