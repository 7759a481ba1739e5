/* csrc/incident.c: the incidents of requests, and their texts. */
#include "incident.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "client.h"
#include "site.h"

enum { MOST = 8192 };

static test_site site;
static test_client client;

static void begin(const char *request)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_INET);
    client = site_connect(&site);
    client_send(&client, request, strlen(request));
}

static void end(void)
{
    client_close(&client);
    site_close(&site);
}

static pw_incident take(void)
{
    pw_incident incident;
    memset(&incident, 'x', sizeof incident);
    if (!pw_incident_take(site.server, &incident))
        memset(&incident, 0, sizeof incident);
    return incident;
}

static void check_line(const char *request, const char *expected)
{
    begin(request);
    ABOUT("%s", expected);
    site_next(&site);
    REQUIRE(site.server->all != NULL);
    pw_incident_conn(site.server, site.server->all, PW_INCIDENT_STORAGE, ENOSPC);
    pw_incident incident = take();
    CHECK_INT(incident.what, PW_INCIDENT_STORAGE);
    CHECK_INT(incident.error, ENOSPC);
    check_bytes(__FILE__, __LINE__, "line", incident.line, strlen(incident.line), expected,
                strlen(expected));
    CHECK(strcmp(incident.address, "127.0.0.1") == 0);
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    REQUIRE(getsockname(client.fd, (struct sockaddr *)&name, &size) == 0);
    CHECK_INT(atoi(incident.port), ntohs(name.sin_port));
    CHECK_INT(take().what, 0);
    end();
}

static void method_and_target_are_reported_as_far_as_they_have_arrived(void)
{
    check_line("", "");
    check_line("GE", "GE");
    check_line("GET ", "GET ");
    check_line("GET /a", "GET /a");
    check_line("GET /a HTTP/1.1", "GET /a");
    check_line("\r\nGET /a HTTP/1.1", "GET /a");
    check_line("GET /a HTTP/1.1\r\nHost: a\r\nX: y", "GET /a");
    check_line("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n123", "POST /p");
}

static void a_long_line_is_cut(void)
{
    for (size_t size = PW_INCIDENT_LINE - 2; size <= PW_INCIDENT_LINE + 1; size++) {
        char request[PW_INCIDENT_LINE + 20] = "GET /";
        memset(request + 5, 'p', size - 5);
        size_t reported = size < PW_INCIDENT_LINE - 1 ? size : PW_INCIDENT_LINE - 1;
        begin(request);
        site_next(&site);
        pw_incident_conn(site.server, site.server->all, PW_INCIDENT_STOP, 0);
        pw_incident incident = take();
        CHECK_INT(strlen(incident.line), reported);
        CHECK(memcmp(incident.line, request, reported) == 0);
        end();
        /* The same for a request in the application, and for one whose response is being sent. */
        memcpy(request + size, LITERAL(" HTTP/1.0\r\n\r\n"));
        begin(request);
        site_request(&site);
        pw_incident_thread(site.thread, site.server->all, PW_INCIDENT_SHORT, 0);
        incident = take();
        CHECK_INT(incident.what, PW_INCIDENT_SHORT);
        CHECK_INT(strlen(incident.line), reported);
        CHECK(memcmp(incident.line, request, reported) == 0);
        pw_conn *conn = site.server->all;
        pw_conn_keep_line(site.thread, conn);
        REQUIRE(conn->kept != NULL);
        CHECK_INT(strlen(conn->kept->line), reported);
        CHECK(memcmp(conn->kept->line, request, reported) == 0);
        site_respond(&site, "", 0, 0);
        end();
    }
}

static void the_line_of_a_request_after_an_empty_line_is_its_own(void)
{
    begin("\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n");
    site_request(&site);
    pw_incident_thread(site.thread, site.server->all, PW_INCIDENT_ABANDONED, 0);
    pw_incident incident = take();
    CHECK(strcmp(incident.line, "GET /a") == 0);
    site_respond(&site, "ok", 2, 0);
    end();
}

#define POST_FROM(fields) "POST /p HTTP/1.1\r\nHost: a\r\n" fields "Content-Length: 9\r\n\r\n123"
#define FROM(client) "X-Forwarded-For: " client "\r\n"

/* Checks the client of the incident, and that the peer is named as its proxy if it has one. */
static void check_client(const pw_incident *incident, const char *address, const char *port,
                         bool has_proxy)
{
    CHECK_INT(incident->has_proxy, has_proxy);
    check_bytes(__FILE__, __LINE__, "client", incident->address, strlen(incident->address), address,
                strlen(address));
    const char *peer_port = has_proxy ? incident->proxy_port : incident->port;
    CHECK(strcmp(has_proxy ? incident->proxy : incident->address, "127.0.0.1") == 0);
    CHECK(atoi(peer_port) > 0);
    if (has_proxy)
        CHECK(strcmp(incident->port, port) == 0);
}

static void a_waiting_request_is_named_by_its_client_once_its_head_is_complete(void)
{
    static const struct {
        const char *request, *client, *port;
        bool has_proxy;
    } cases[] = {
        {POST_FROM(FROM("192.0.2.1")), "192.0.2.1", "", true},
        {POST_FROM(FROM("[2001:db8::1]:80")), "2001:db8::1", "80", true},
        {POST_FROM(FROM("unknown")), "", "", true},
        {POST_FROM(""), "127.0.0.1", "", false},
        {POST_FROM("X-Forwarded-Proto: https\r\n"), "127.0.0.1", "", false},
        {"GET / HTTP/1.1\r\nHost: a\r\n" FROM("192.0.2.1"), "127.0.0.1", "", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("%s", cases[i].request);
        begin(cases[i].request);
        site_next(&site);
        pw_incident_conn(site.server, site.server->all, PW_INCIDENT_STORAGE, ENOSPC);
        pw_incident incident = take();
        check_client(&incident, cases[i].client, cases[i].port, cases[i].has_proxy);
        CHECK(site.server->parsed == NULL);
        end();
    }
    ABOUT("%s", "");
}

/* The heads of one connection, of which the core parses some, and recognises others. */
static void each_request_is_named_by_its_own_client(void)
{
    static const struct {
        const char *fields, *client;
        bool has_proxy;
    } requests[] = {
        {FROM("192.0.2.1"), "192.0.2.1", true},
        {FROM("192.0.2.1"), "192.0.2.1", true}, /* stored */
        {FROM("192.0.2.1"), "192.0.2.1", true}, /* the same */
        {FROM("192.0.2.1") "Cookie: a=b\r\n", "192.0.2.1", true},
        {FROM("192.0.2.2"), "192.0.2.2", true}, /* compared with the stored one */
        {FROM("192.0.2.1"), "192.0.2.1", true},
        {"Cookie: a=b\r\n", "127.0.0.1", false},
        {FROM("192.0.2.1"), "192.0.2.1", true},
        {"X-Forwarded-Proto: https\r\n", "127.0.0.1", false},
        {"", "127.0.0.1", false},
        {FROM("unknown"), "", true},
    };
    for (int way = 0; way < 6; way++) {
        const bool logs = way % 2 != 0;
        int lines = way / 2; /* the request lines: all the same, or each another */
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        pw_settings settings = site_settings();
        if (logs)
            site_log(&settings, null);
        site_open(&site, &settings, AF_INET);
        client = site_connect(&site);
        unsigned kinds = 0;
        for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
            char request[300];
            ABOUT("way %d, request %zu", way, i);
            snprintf(request, sizeof request, "GET /%d HTTP/1.1\r\nHost: a\r\n%s\r\n",
                     lines == 0 ? 0 : (int)i / lines, requests[i].fields);
            client_send(&client, request, strlen(request));
            kinds |= 1u << site_request(&site)->kind;
            pw_conn *conn = site.server->all;
            pw_incident_thread(site.thread, conn, PW_INCIDENT_SHORT, 0);
            pw_incident incident = take();
            check_client(&incident, requests[i].client, "", requests[i].has_proxy);
            pw_conn_keep_line(site.thread, conn); /* for an incident after the application */
            pw_incident_conn(site.server, conn, PW_INCIDENT_STOP, 0);
            incident = take();
            check_client(&incident, requests[i].client, "", requests[i].has_proxy);
            pw_free(conn->kept);
            conn->kept = NULL;
            site_respond(&site, "ok", 2, 0);
        }
        CHECK(way > 1 || kinds == 15); /* PW_SAME, PW_CHANGED, PW_NEW and PW_STORE */
        end();
        close(null);
    }
    ABOUT("%s", "");
}

static void a_request_that_waits_behind_a_response_is_not_named_for_it(void)
{
    begin(GET("/first") GET("/second"));
    site_request(&site);
    pw_conn *conn = site.server->all;
    pw_incident_conn(site.server, conn, PW_INCIDENT_STOP, 0);
    CHECK(take().line[0] == '\0'); /* the received bytes are not the current request */
    site_respond(&site, "ok", 2, 0);
    site_respond(&site, "ok", 2, 0);
    end();
}

static void unsent_bytes_are_reported(void)
{
    begin(GET("/"));
    site_request(&site);
    pw_conn *conn = site.server->all;
    REQUIRE(pw_output_copy(&conn->output, "12345", 5));
    pw_incident_thread(site.thread, conn, PW_INCIDENT_STOP, 0);
    CHECK_INT(take().unsent, 5);
    site_respond(&site, "ok", 2, 0);
    end();
}

static void an_error_is_reported_by_its_meaning(void)
{
    static const struct {
        int error, what;
    } cases[] = {
        {EPIPE, 0},
        {ECONNRESET, 0},
        {ECONNABORTED, 0},
        {ENOTCONN, 0},
        {ETIMEDOUT, 0},
        {EHOSTUNREACH, 0},
        {EHOSTDOWN, 0},
        {ENETUNREACH, 0},
        {ENETDOWN, 0},
        {ENOMEM, PW_INCIDENT_MEMORY},
        {ENOBUFS, PW_INCIDENT_MEMORY},
        {ENODATA, PW_INCIDENT_SHORT},
        {EIO, PW_INCIDENT_ERROR},
        {EBADF, PW_INCIDENT_ERROR},
    };
    begin(GET("/"));
    site_request(&site);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ABOUT("%s", strerror(cases[i].error));
        pw_incident_conn(site.server, site.server->all, PW_INCIDENT_ERROR, cases[i].error);
        CHECK_INT(take().what, cases[i].what);
        pw_incident_thread(site.thread, site.server->all, PW_INCIDENT_ERROR, cases[i].error);
        CHECK_INT(take().what, cases[i].what);
        /* Another incident does not depend on the error. */
        pw_incident_thread(site.thread, site.server->all, PW_INCIDENT_STOP, cases[i].error);
        CHECK_INT(take().what, PW_INCIDENT_STOP);
    }
    site_respond(&site, "ok", 2, 0);
    end();
}

static void of_too_many_incidents_only_the_number_is_reported(void)
{
    begin(GET("/"));
    site_request(&site);
    CHECK(!pw_incidents_wait(&site.server->incidents));
    for (int i = 0; i < MOST + 3; i++)
        pw_incident_conn(site.server, site.server->all, PW_INCIDENT_STOP, i);
    CHECK(pw_incidents_wait(&site.server->incidents));
    for (int i = 0; i < MOST; i++) {
        pw_incident incident = take();
        CHECK_INT(incident.what, PW_INCIDENT_STOP);
        CHECK_INT(incident.error, i);
    }
    CHECK(pw_incidents_wait(&site.server->incidents));
    pw_incident incident = take();
    CHECK_INT(incident.what, PW_INCIDENT_LOST);
    CHECK_INT(incident.unsent, 3);
    CHECK_INT(take().what, 0);
    CHECK(!pw_incidents_wait(&site.server->incidents));
    pw_incident_conn(site.server, site.server->all, PW_INCIDENT_STOP, 1); /* there is room again */
    CHECK_INT(take().what, PW_INCIDENT_STOP);
    pw_incident_lost(site.server);
    CHECK(pw_incidents_wait(&site.server->incidents));
    CHECK_INT(take().unsent, 1);
    pw_incident_backlog(site.server);
    incident = take();
    CHECK_INT(incident.what, PW_INCIDENT_BACKLOG);
    CHECK_INT(incident.unsent, 0);
    CHECK(incident.line[0] == '\0' && incident.address[0] == '\0');
    site_respond(&site, "ok", 2, 0);
    end();
}

static void without_memory_there_is_room_for_sixteen(void)
{
    begin(GET("/"));
    site_request(&site);
    pw_alloc_fail_after(1);
    for (int i = 0; i < 20; i++)
        pw_incident_conn(site.server, site.server->all, PW_INCIDENT_STOP, i);
    pw_alloc_fail_after(0);
    for (int i = 0; i < 16; i++)
        CHECK_INT(take().error, i);
    CHECK_INT(take().unsent, 4);
    site_respond(&site, "ok", 2, 0);
    end();
}

static void addresses_are_text(void)
{
    static const struct {
        const char *address;
        int port;
    } cases[] = {
        {"0.0.0.0", 0},
        {"255.255.255.255", 65535},
        {"10.0.200.1", 80},
        {"1.2.3.4", 10000},
    };
    pw_peer peer;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pw_conn conn = {
            .peer.v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)cases[i].port)}};
        REQUIRE(inet_pton(AF_INET, cases[i].address, &conn.peer.v4.sin_addr) == 1);
        memset(&peer, 'x', sizeof peer);
        pw_peer_name(&conn, &peer);
        CHECK(strcmp(peer.address, cases[i].address) == 0);
        CHECK_INT(atoi(peer.port), cases[i].port);
        CHECK(strlen(peer.port) <= 5);
    }
    pw_conn conn = {.peer.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(443)}};
    REQUIRE(inet_pton(AF_INET6, "fe80::1:2", &conn.peer.v6.sin6_addr) == 1);
    pw_peer_name(&conn, &peer);
    CHECK(strcmp(peer.address, "fe80::1:2") == 0 && strcmp(peer.port, "443") == 0);
    pw_conn local = {.peer.any.sa_family = AF_UNIX};
    pw_peer_name(&local, &peer);
    CHECK(peer.address[0] == '\0' && peer.port[0] == '\0');
}

int main(void)
{
    RUN(method_and_target_are_reported_as_far_as_they_have_arrived);
    RUN(a_long_line_is_cut);
    RUN(the_line_of_a_request_after_an_empty_line_is_its_own);
    RUN(a_waiting_request_is_named_by_its_client_once_its_head_is_complete);
    RUN(each_request_is_named_by_its_own_client);
    RUN(a_request_that_waits_behind_a_response_is_not_named_for_it);
    RUN(unsent_bytes_are_reported);
    RUN(an_error_is_reported_by_its_meaning);
    RUN(of_too_many_incidents_only_the_number_is_reported);
    RUN(without_memory_there_is_room_for_sixteen);
    RUN(addresses_are_text);
    return check_end();
}
