/* csrc/conn_proxy.c: connections that begin with a PROXY header. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "alloc.h"
#include "cast.h"
#include "outcome.h"
#include "site.h"

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define LINE "PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n"
#define CLIENT                                                                                     \
    "REMOTE_ADDR: 192.0.2.1\nREMOTE_PORT: 4711\nSERVER_NAME: 198.51.100.2\nSERVER_PORT: 443\n"
#define SHORT_MS 50

static test_site site;

static pw_settings proxy_settings(void)
{
    pw_settings settings = site_settings();
    settings.proxy_protocol = 1;
    return settings;
}

static void begin(int family)
{
    pw_settings settings = proxy_settings();
    site_open(&site, &settings, family);
}

static void end(void)
{
    site_close(&site);
}

static pw_incident take(void)
{
    pw_incident incident;
    if (!pw_incident_take(site.server, &incident))
        memset(&incident, 0, sizeof incident);
    return incident;
}

/* Checks that the connection has ended without a response. */
static void check_closed(test_client *client, int why, const char *line)
{
    CHECK_INT(site_next(&site), SITE_WAITS);
    client_receive(client);
    CHECK(client->ended);
    CHECK_INT(client->got.size, 0);
    CHECK_INT(site.server->conn_count, 0);
    pw_incident incident = take();
    CHECK_INT(incident.what, why);
    CHECK(strcmp(incident.line, line) == 0);
    CHECK_INT(incident.unsent, why != 0);
    CHECK_INT(take().what, 0);
    client_close(client);
}

static void check_refused(const char *data, size_t size, int why, const char *line)
{
    begin(AF_INET);
    test_client client = site_connect(&site);
    client_send(&client, data, size);
    check_closed(&client, why, line);
    CHECK_INT(pw_server_proxy_refused(site.server), 1);
    end();
}

/* Feeds the data in all ways of two pieces, and byte by byte. Returns the record of the whole. */
static void check_every_split(const char *data, size_t size, test_text *whole)
{
    test_text split = {NULL, 0, 0};
    test_cuts cuts = cuts_none(size);
    int requests = site_feed(&site, data, cuts.at, cuts.count, whole);
    for (size_t at = 1; at < size; at++) {
        cuts = cuts_one(at, size);
        CHECK_INT(site_feed(&site, data, cuts.at, cuts.count, &split), requests);
        REQUIRE(CHECK(text_same(whole, &split)));
    }
    cuts = cuts_all(size);
    CHECK_INT(site_feed(&site, data, cuts.at, cuts.count, &split), requests);
    CHECK(text_same(whole, &split));
    text_free(&split);
}

static void requests_after_the_header_have_its_client_however_it_is_split(void)
{
    static const char v2[] = V2 "\x21\x11\0\x14\xc0\0\2\1\xc6\x33\x64\2\x12\x67\1\xbb\4\0\5xxxxx";
    static const char local[] = V2 "\x20\0\0\0", unknown[] = "PROXY UNKNOWN\r\n";
    static const struct {
        const char *header;
        size_t size;
        bool has_client;
    } cases[] = {
        {LITERAL(LINE), true},
        {LITERAL(v2), true},
        {LITERAL(local), false},
        {LITERAL(unknown), false},
    };
    test_text data = {NULL, 0, 0}, record = {NULL, 0, 0};
    begin(AF_UNIX);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("case %zu", i);
        text_clear(&data);
        text_add(&data, cases[i].header, cases[i].size);
        text_add(&data, LITERAL(GET("/a") "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
                                          "hello" GET("/a") GET("/a") GET("/c")));
        check_every_split(data.at, data.size, &record);
        size_t named = 0, requests = 0;
        for (const char *at = record.at, *stop = record.at + record.size; at < stop; at++) {
            size_t left = (size_t)(stop - at);
            named += left > sizeof CLIENT && memcmp(at, LITERAL(CLIENT)) == 0;
            requests += left > 11 && memcmp(at, LITERAL("PATH_INFO: ")) == 0;
        }
        CHECK_INT(requests, 5);
        CHECK_INT(named, cases[i].has_client ? 5 : 0);
    }
    ABOUT("%s", "");
    text_free(&data);
    text_free(&record);
    end();
}

static void the_peer_of_the_socket_is_named_too(void)
{
    begin(AF_INET);
    test_client client = site_connect(&site);
    SEND(&client, LINE GET("/"));
    test_seen *request = site_request(&site);
    CHECK_HOLDS(&request->fields, CLIENT);
    CHECK_HOLDS(&request->fields, "picowsgi.peer: 127.0.0.1\n");
    CHECK_HOLDS(&request->fields, "picowsgi.peer_port: ");
    site_respond(&site, LITERAL("ok"), 0);
    client_close(&client);
    end();
}

static void a_second_header_is_a_malformed_request(void)
{
    begin(AF_UNIX);
    test_client client = site_connect(&site);
    SEND(&client, LINE GET("/") LINE GET("/"));
    CHECK_INT(site_serve(&site), 1);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 400 Bad Request\r\n");
    client_close(&client);
    end();
}

static void the_sender_that_the_header_names_is_trusted_only_if_it_is_listed(void)
{
    static const char forwarded[] = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: "
                                    "203.0.113.9\r\nX-Forwarded-Proto: https\r\n\r\n";
    begin(AF_UNIX);
    test_client client = site_connect(&site);
    SEND(&client, LINE);
    client_send(&client, LITERAL(forwarded));
    test_seen *request = site_request(&site);
    CHECK_HOLDS(&request->fields, CLIENT);
    CHECK(memmem(request->fields.at, request->fields.size, LITERAL("wsgi.url_scheme")) == NULL);
    site_respond(&site, LITERAL("ok"), 0);
    client_close(&client);
    client = site_connect(&site);
    SEND(&client, "PROXY TCP4 127.0.0.1 198.51.100.2 4711 443\r\n"); /* a proxy behind the proxy */
    client_send(&client, LITERAL(forwarded));
    request = site_request(&site);
    CHECK_HOLDS(&request->fields, "REMOTE_ADDR: 203.0.113.9\n");
    CHECK_HOLDS(&request->fields, "wsgi.url_scheme: https\n");
    CHECK_HOLDS(&request->fields, "SERVER_PORT: 443\n");
    site_respond(&site, LITERAL("ok"), 0);
    client_close(&client);
    /* Without addresses, the sender is the peer of the socket. */
    client = site_connect(&site);
    SEND(&client, "PROXY UNKNOWN\r\n");
    client_send(&client, LITERAL(forwarded));
    CHECK_HOLDS(&site_request(&site)->fields, "REMOTE_ADDR: 203.0.113.9\n");
    site_respond(&site, LITERAL("ok"), 0);
    client_close(&client);
    end();
}

static void a_connection_without_a_valid_header_is_closed(void)
{
    check_refused(LITERAL(GET("/")), PW_INCIDENT_PROXY_MISSING, "GET / HTTP/1.1");
    check_refused(LITERAL("\r\n" GET("/")), PW_INCIDENT_PROXY_MISSING, "");
    check_refused(LITERAL("PROXY TCP4 x\r\n" GET("/")), PW_INCIDENT_PROXY_MALFORMED,
                  "PROXY TCP4 x");
    check_refused(LITERAL(V2 "\x11\x11\0\0" GET("/")), PW_INCIDENT_PROXY_MALFORMED, "");
    check_refused(LITERAL(V2 "\x20\0\xff\xff" GET("/")), PW_INCIDENT_PROXY_LONG, "");
}

static void a_peer_that_is_not_trusted_is_closed_no_matter_what_it_sends(void)
{
    static const pw_network other[] = {{PW_NETWORK_V4, 32, {10, 0, 0, 1}}};
    static const char *const sent[] = {LINE GET("/"), GET("/"), ""};
    pw_settings settings = proxy_settings();
    settings.trusted = other;
    settings.trusted_count = 1;
    for (size_t i = 0; i < sizeof sent / sizeof sent[0]; i++) {
        site_open(&site, &settings, AF_INET);
        test_client client = site_connect(&site);
        client_send(&client, sent[i], strlen(sent[i]));
        check_closed(&client, PW_INCIDENT_PROXY_PEER, "");
        end();
    }
}

static void many_refused_connections_are_one_incident_with_their_number(void)
{
    begin(AF_UNIX);
    for (int i = 1; i <= 5; i++) {
        test_client client = site_connect(&site);
        SEND(&client, "nonsense");
        CHECK_INT(site_next(&site), SITE_WAITS);
        client_close(&client);
        CHECK_INT(pw_server_proxy_refused(site.server), i);
        CHECK_INT(take().what, i == 1 ? PW_INCIDENT_PROXY_MISSING : 0);
    }
    site.server->proxy_refusals.kinds[1].reported_at = 1; /* long ago */
    test_client client = site_connect(&site);
    SEND(&client, "nonsense");
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(take().unsent, 5);
    client_close(&client);
    end();
}

static void a_client_that_gives_up_is_no_incident(void)
{
    static const char *const sent[] = {"", "PROXY TCP4 192.0.2.1 ", "\r\n\r\n"};
    begin(AF_UNIX);
    for (size_t i = 0; i < sizeof sent / sizeof sent[0]; i++)
        for (int later = 0; later < 2; later++) {
            test_client client = site_connect(&site);
            client_send(&client, sent[i], strlen(sent[i]));
            if (later)
                CHECK_INT(site_next(&site), SITE_WAITS);
            client_half_close(&client);
            check_closed(&client, 0, "");
        }
    CHECK_INT(pw_server_proxy_refused(site.server), 0);
    end();
}

static void the_time_for_the_header_does_not_start_again(void)
{
    pw_settings settings = proxy_settings();
    settings.timeout_head = SHORT_MS;
    site_open(&site, &settings, AF_UNIX);
    for (int bytes = 0; bytes < 2; bytes++) {
        clock_stop();
        test_client client = site_connect(&site);
        CHECK_INT(site_next(&site), SITE_WAITS);
        for (int ms = 10; ms < SHORT_MS; ms += 10) {
            clock_forward_ms(10);
            client_send(&client, LINE + ms / 10 - 1, (size_t)bytes);
            CHECK_INT(site_next(&site), SITE_WAITS);
            CHECK_INT(site.server->conn_count, 1);
        }
        clock_forward_ms(10);
        site.server->proxy_refusals.kinds[4].reported_at = 0;
        check_closed(&client, PW_INCIDENT_PROXY_TIMEOUT, bytes == 0 ? "" : "PROX");
        clock_go();
    }
    end();
}

static void the_first_request_has_its_own_time(void)
{
    pw_settings settings = proxy_settings();
    settings.timeout_head = SHORT_MS;
    site_open(&site, &settings, AF_UNIX);
    clock_stop();
    test_client client = site_connect(&site), idle = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    clock_forward_ms(SHORT_MS - 1);
    SEND(&client, LINE "GET / HTTP/1.1\r\n");
    SEND(&idle, LINE);
    CHECK_INT(site_next(&site), SITE_WAITS);
    clock_forward_ms(SHORT_MS - 1);
    SEND(&client, "Host: a\r\n\r\n");
    CHECK_INT(site_serve(&site), 1);
    clock_forward_ms(100 * SHORT_MS);
    SEND(&idle, GET("/"));
    CHECK_INT(site_serve(&site), 1); /* it was idle */
    client_close(&client);
    client_close(&idle);
    clock_go();
    end();
}

static void without_memory_the_connection_is_closed(void)
{
    for (long n = 1; n <= 2;
         n++) { /* the buffer is in the pool, so the first one is of the addresses */
        begin(AF_UNIX);
        test_client client = site_connect(&site);
        CHECK_INT(site_next(&site), SITE_WAITS);
        SEND(&client, LINE);
        pw_alloc_fail_after(n);
        CHECK_INT(site_next(&site), SITE_WAITS);
        pw_alloc_fail_after(0);
        client_receive(&client);
        CHECK_INT(client.ended, n == 1);
        CHECK_INT(take().what, n == 1 ? PW_INCIDENT_MEMORY : 0);
        client_close(&client);
        end();
    }
}

static void headers_that_wait_count_for_the_memory_of_heads(void)
{
    enum { MOST = 64 };
    pw_settings settings = proxy_settings();
    settings.max_head_size = 256;
    settings.head_memory_total = 24 * 1024;
    site_open(&site, &settings, AF_UNIX);
    test_client clients[MOST];
    for (int i = 0; i < MOST; i++) {
        clients[i] = site_connect(&site);
        SEND(&clients[i], "PROXY TCP4 ");
        CHECK_INT(site_next(&site), SITE_WAITS);
        CHECK(site.server->pool.held <= 24 * 1024);
    }
    CHECK(site.server->conn_count < MOST);
    CHECK_INT(take().what, PW_INCIDENT_HEADS);
    for (int i = 0; i < MOST; i++)
        client_close(&clients[i]);
    end();
}

/* ------------------------------------------------------------------ while the server stops */

static void a_stop_serves_a_connection_whose_header_has_begun(void)
{
    begin(AF_UNIX);
    test_client client = site_connect(&site);
    SEND(&client, "PROXY TCP4 192.0.2.1");
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    SEND(&client, " 198.51.100.2 4711 443\r\n" GET("/"));
    CHECK_HOLDS(&site_request(&site)->fields, CLIENT);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), PW_STOP);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 200 OK\r\n");
    client_close(&client);
    end();
}

static void a_stop_waits_shortly_for_a_header_that_has_not_begun(void)
{
    begin(AF_UNIX);
    test_client client = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), PW_STOP); /* timeout_drain is 0 */
    client_receive(&client);
    CHECK(client.ended);
    CHECK_INT(take().what, 0);
    client_close(&client);
    end();
}

static void the_next_process_knows_the_client_of_a_connection(void)
{
    test_site next;
    int channel[2];
    pw_settings settings = proxy_settings();
    settings.timeout_drain = 3600 * 1000;
    site_open(&site, &settings, AF_INET);
    site_open(&next, &settings, AF_INET);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, channel) == 0);
    REQUIRE(pw_server_share(site.server, channel[0], channel[1]) == 0);
    REQUIRE(pw_server_share(next.server, channel[0], channel[1]) == 0);
    test_client named = site_connect(&site), local = site_connect(&site);
    SEND(&named, LINE);
    SEND(&local, "PROXY UNKNOWN\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    test_client fresh = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), PW_STOP);
    for (int i = 0; i < 2; i++) { /* the head is kept, and recognised */
        SEND(&named, GET("/"));
        test_seen *request = site_request(&next);
        CHECK_HOLDS(&request->fields, CLIENT);
        CHECK_HOLDS(&request->fields, "picowsgi.peer: 127.0.0.1\n");
        CHECK_INT(site_respond(&next, LITERAL("ok"), 0), SITE_WAITS);
    }
    SEND(&local, GET("/"));
    CHECK_HOLDS(&site_request(&next)->fields, "REMOTE_ADDR: 127.0.0.1\n");
    CHECK_INT(site_respond(&next, LITERAL("ok"), 0), SITE_WAITS);
    SEND(&fresh, LINE GET("/"));
    CHECK_HOLDS(&site_request(&next)->fields, CLIENT);
    CHECK_INT(site_respond(&next, LITERAL("ok"), 0), SITE_WAITS);
    client_close(&named);
    client_close(&local);
    client_close(&fresh);
    end();
    site_close(&next);
    close(channel[0]);
    close(channel[1]);
}

int main(void)
{
    RUN(requests_after_the_header_have_its_client_however_it_is_split);
    RUN(the_peer_of_the_socket_is_named_too);
    RUN(a_second_header_is_a_malformed_request);
    RUN(the_sender_that_the_header_names_is_trusted_only_if_it_is_listed);
    RUN(a_connection_without_a_valid_header_is_closed);
    RUN(a_peer_that_is_not_trusted_is_closed_no_matter_what_it_sends);
    RUN(many_refused_connections_are_one_incident_with_their_number);
    RUN(a_client_that_gives_up_is_no_incident);
    RUN(the_time_for_the_header_does_not_start_again);
    RUN(the_first_request_has_its_own_time);
    RUN(without_memory_the_connection_is_closed);
    RUN(headers_that_wait_count_for_the_memory_of_heads);
    RUN(a_stop_serves_a_connection_whose_header_has_begun);
    RUN(a_stop_waits_shortly_for_a_header_that_has_not_begun);
    RUN(the_next_process_knows_the_client_of_a_connection);
    return check_end();
}
