/*
 * Out of memory. A fixed script of connections runs with the n-th allocation of the core failing,
 * for n = 1, 2, 3, ... until no allocation fails. The server survives each run: the connections
 * concerned end by a 503 or a close, nothing leaks, and the next client is served.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "alloc.h"
#include "site.h"

enum { CLIENTS = 9 };

/* The bytes that client `client` sends in its turn. */
static const struct {
    int client;
    const char *text;
} script[] = {
    {0, GET("/a")},
    {0, GET("/a")}, /* its head is stored, */
    {0, GET("/a")}, /* recognised, */
    {0, GET("/b")}, /* and recognised with another request line */
    {1, GET("/a") GET("/b") GET("/c")},
    {2, "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"},
    {3, "PUT /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5\r\nhello\r\n"},
    {2, "hello" GET("/next")},
    {3, "20;a=b\r\n0123456789abcdef0123456789abcdef\r\n"}, /* is moved to a file */
    {4, "GET / HTTP/9.9\r\n\r\n" GET("/never")},
    {3, "0\r\nT: r\r\n\r\n" GET("/after")},
    {5, "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"},
    {5, "hi"},
    {6, NULL}, /* a head larger than a buffer */
    {6, "\r\n\r\n"},
    {7, GET("/parts") GET("/next")},
    {8, GET("/large")},
    {8, GET("/a")},
};

static test_site site;
static test_client clients[CLIENTS];
static char large[2 << 20];
static int file, null;

/* A response in parts of every kind. */
static void answer_in_parts(void)
{
    pw_send_interim(site.thread, LITERAL("HTTP/1.1 103 Early Hints\r\n\r\n"));
    int64_t length = 5 + 300000 + 1000;
    if (site_send_first(&site, HEAD_OK "Content-Length: 301005\r\n", length, LITERAL("hello"), 0) >=
        0) {
        site_send(&site, large, 300000, 0);
        if (pw_send_file(site.thread, file, 10, 1000) == PW_REFUSED)
            site_send(&site, large, 1000, 0);
    }
    pw_send_end(site.thread, 0);
}

static void serve(void)
{
    for (int64_t number = site_next(&site); number >= 0;) {
        test_text *line = &site_see(&site, number)->line;
        if (memmem(line->at, line->size, LITERAL("PATH_INFO: /parts")) != NULL) {
            answer_in_parts();
            number = site_next(&site);
        } else if (memmem(line->at, line->size, LITERAL("PATH_INFO: /large")) != NULL) {
            site_lend(&site);
            number = site_respond(&site, large, sizeof large, 0);
        } else {
            number = site_respond(&site, LITERAL("ok"), 0);
        }
    }
    site_news(&site);
}

/* Runs the server and the clients until neither can continue. */
static void settle(void)
{
    for (size_t before = 1, after = 0; before != after;) {
        before = after;
        serve();
        after = 0;
        for (int i = 0; i < CLIENTS; i++) {
            client_receive(&clients[i]);
            after += clients[i].got.size;
        }
    }
}

/* Runs the script. Returns whether an allocation has failed. for_good: all later ones fail, too. */
static bool run(long n, bool for_good)
{
    pw_settings settings = site_settings();
    settings.body_memory = 20;
    site_log(&settings, null);
    site_open(&site, &settings, AF_UNIX);
    site.server->watch.is_here = true; /* responses wait for each other */
    for (int i = 0; i < CLIENTS; i++)
        clients[i] = site_connect(&site);
    bool has_failed = false;
    pw_alloc_fail_after(n);
    for (size_t i = 0; i < sizeof script / sizeof script[0]; i++) {
        test_client *client = &clients[script[i].client];
        if (script[i].text != NULL) {
            client_send_some(client, script[i].text, strlen(script[i].text));
        } else {
            client_send_some(client, LITERAL("GET / HTTP/1.1\r\nHost: a\r\nX: "));
            client_send_some(client, large, 20000);
        }
        settle();
        void *probe = pw_alloc(1);
        has_failed |= probe == NULL;
        if (has_failed && !for_good)
            pw_alloc_fail_after(0);
        pw_free(probe);
    }
    pw_alloc_fail_after(0);
    return has_failed;
}

/* The server works as before, and all memory is freed. */
static void check_server_lives(void)
{
    test_client fresh = site_connect(&site);
    client_send(&fresh, LITERAL(GET("/fresh")));
    CHECK_INT(site_serve(&site), 1);
    client_receive(&fresh);
    CHECK_TEXT(&fresh.got, HEAD_OK "Content-Length: 6\r\n\r\n/fresh");
    client_close(&fresh);
    for (int i = 0; i < CLIENTS; i++)
        client_close(&clients[i]);
    CHECK_INT(site_serve(&site), 0);
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

/* The number of requests that the error log reports. */
static int64_t count_incidents(void)
{
    int64_t count = 0;
    for (pw_incident incident; pw_incident_take(site.server, &incident);) {
        CHECK(incident.what == PW_INCIDENT_MEMORY || incident.what == PW_INCIDENT_LOST ||
              incident.what == PW_INCIDENT_STORAGE);
        count += incident.what == PW_INCIDENT_LOST ? incident.unsent : 1;
    }
    return count;
}

static void check_all_allocations(bool for_good)
{
    size_t expected[CLIENTS];
    CHECK(!run(0, for_good));
    for (int i = 0; i < CLIENTS; i++)
        expected[i] = clients[i].got.size;
    CHECK(expected[7] > 301005 && expected[8] > sizeof large); /* the script ran to its end */
    check_server_lives();
    long n = 1;
    for (bool has_failed = true; has_failed && n < 10000; n++) {
        has_failed = run(n, for_good);
        int cut = 0;
        for (int i = 0; i < CLIENTS; i++) {
            ABOUT("allocation %ld, client %d: %zu of %zu bytes", n, i, clients[i].got.size,
                  expected[i]);
            CHECK(clients[i].got.size == expected[i] || clients[i].ended);
            cut += clients[i].got.size != expected[i];
        }
        ABOUT("allocation %ld, %d clients are cut", n, cut);
        CHECK_INT(count_incidents(), cut);
        ABOUT("allocation %ld", n);
        check_server_lives();
    }
    CHECK(n > 30 && n < 10000);
    printf("  %ld allocations\n", n - 2);
}

static void a_server_survives_each_allocation_that_fails(void)
{
    check_all_allocations(false);
}

static void a_server_survives_when_all_allocations_fail_from_some_point_on(void)
{
    check_all_allocations(true);
}

static void a_server_that_cannot_be_created_reports_it(void)
{
    pw_settings settings = site_settings();
    pw_server *server = NULL;
    for (long n = 1; server == NULL && n < 100; n++) {
        pw_alloc_fail_after(n);
        errno = 0;
        server = pw_server_new(&settings);
        CHECK(server != NULL || errno == ENOMEM);
    }
    pw_thread *thread = NULL;
    for (long n = 1; thread == NULL && n < 100; n++) {
        pw_alloc_fail_after(n);
        errno = 0;
        thread = pw_thread_new(server, 0);
        CHECK(thread != NULL || errno == ENOMEM);
    }
    pw_alloc_fail_after(0);
    pw_thread_free(thread);
    pw_server_free(server);
}

int main(void)
{
    char name[] = "/tmp/picowsgi-test-XXXXXX";
    file = mkstemp(name);
    REQUIRE(file >= 0 && unlink(name) == 0);
    memset(large, 'l', sizeof large);
    REQUIRE(write(file, large, 2000) == 2000);
    null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    RUN(a_server_survives_each_allocation_that_fails);
    RUN(a_server_survives_when_all_allocations_fail_from_some_point_on);
    RUN(a_server_that_cannot_be_created_reports_it);
    close(file);
    close(null);
    return check_end();
}
