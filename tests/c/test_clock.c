/* Timeouts: each acts when its time is over, and not a millisecond
 * sooner. The tests move the clock. */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "audit.h"
#include "cast.h"
#include "incident.h"
#include "output.h"
#include "site.h"
#include "system.h"
#include "timer.h"

enum { HEAD_MS = 1000, BODY_MS = 2000, WRITE_MS = 3000, IDLE_MS = 4000, DRAIN_MS = 200 };
enum { GRACEFUL_MS = 5000, LINGER_MS = 2000, LINGER_MOST_MS = 30000, RESET_MS = 50 };
enum { PAUSE_MS = 100, IDLE_LEAST_MS = 100, OFTEN_MS = 10000, LOG_MS = 100, HALF_CLOSED_MS = 3000 };

static test_site site;
static test_client client;
static char large[8 << 20];

static pw_settings clock_settings(void)
{
    pw_settings settings = site_settings();
    settings.timeout_head = HEAD_MS;
    settings.timeout_body = BODY_MS;
    settings.timeout_write = WRITE_MS;
    settings.timeout_keep_alive = IDLE_MS;
    settings.timeout_drain = DRAIN_MS;
    settings.timeout_graceful = GRACEFUL_MS;
    return settings;
}

static void begin_with(const pw_settings *settings, int family)
{
    clock_stop();
    site_open(&site, settings, family);
    client = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
}

static void begin(int family)
{
    pw_settings settings = clock_settings();
    begin_with(&settings, family);
}

static void end(void)
{
    client_close(&client);
    site_close(&site);
    clock_go();
}

/* Moves the clock, and lets the server do what is due. */
static void wait_ms(int64_t ms)
{
    clock_forward_ms(ms);
    CHECK_INT(site_next(&site), SITE_WAITS);
}

static pw_incident take_incident(void)
{
    pw_incident incident = {0};
    pw_incident_take(site.server, &incident);
    return incident;
}

#define CHECK_OPEN() CHECK_INT(site.server->conn_count, 1)
#define CHECK_CLOSED() CHECK_INT(site.server->conn_count, 0)

static void a_connection_without_a_request_is_closed(void)
{
    begin(AF_UNIX);
    wait_ms(IDLE_MS - 1);
    CHECK_OPEN();
    wait_ms(1);
    CHECK_CLOSED();
    client_receive(&client);
    CHECK(client.ended && client.got.size == 0);
    end();
}

static void an_idle_connection_is_closed_as_long_after_its_response(void)
{
    begin(AF_UNIX);
    wait_ms(IDLE_MS - 10);
    SEND(&client, GET("/"));
    CHECK_INT(site_serve(&site), 1);
    wait_ms(IDLE_MS - 1);
    CHECK_OPEN();
    wait_ms(1);
    CHECK_CLOSED();
    end();
}

static void a_head_has_its_time_from_its_first_byte(void)
{
    begin(AF_UNIX);
    wait_ms(700);
    SEND(&client, "GET / HTTP/1.1\r\n");
    wait_ms(0);
    wait_ms(HEAD_MS - 100);
    SEND(&client, "Host: a\r\n"); /* more bytes give no more time */
    wait_ms(0);
    wait_ms(99);
    CHECK_INT(site.server->all->state, PW_CONN_HEAD);
    wait_ms(1);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 408 ");
    end();
}

static void content_has_its_time_from_its_last_byte(void)
{
    begin(AF_UNIX);
    SEND(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n1");
    wait_ms(BODY_MS - 1);
    SEND(&client, "2");
    wait_ms(1);
    CHECK_INT(site.server->all->state, PW_CONN_CONTENT);
    wait_ms(BODY_MS - 1);
    CHECK_INT(site.server->all->state, PW_CONN_CONTENT);
    wait_ms(1);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 408 ");
    end();
}

/* Whether the system takes no more bytes without a call, as it may for a while after a write. */
static bool system_rests(void)
{
    const pw_conn *conn = site.server->all;
    for (int looks = 0; looks < 10; looks++) {
        site_sleep(2);
        if (pw_unsent(conn->fd) != conn->unsent)
            return false;
    }
    return true;
}

static void a_client_that_reads_nothing_is_cut_off(void)
{
    bool rests = false;
    for (int tries = 0; !rests && tries < 50; tries++) {
        if (tries > 0)
            end();
        begin(AF_INET);
        SEND(&client, GET("/large"));
        site_request(&site);
        CHECK_INT(site_respond(&site, large, sizeof large, 0), SITE_WAITS);
        rests = system_rests();
    }
    REQUIRE(rests);
    int64_t left = site.server->all->output.size;
    CHECK(left > 0);
    wait_ms(WRITE_MS - 1);
    CHECK_OPEN();
    CHECK_INT(take_incident().what, 0);
    wait_ms(1);
    CHECK_CLOSED();
    pw_incident incident = take_incident();
    CHECK_INT(incident.what, PW_INCIDENT_WRITE_TIMEOUT);
    CHECK_INT(incident.unsent, left);
    CHECK(strcmp(incident.line, "GET /large") == 0);
    CHECK(strcmp(incident.address, "127.0.0.1") == 0);
    end();
}

static void a_client_that_reads_something_has_more_time(void)
{
    static char part[1 << 20];
    begin(AF_INET);
    SEND(&client, GET("/large"));
    site_request(&site);
    CHECK_INT(site_respond(&site, large, sizeof large, 0), SITE_WAITS);
    for (int i = 0; i < 3; i++) {
        wait_ms(WRITE_MS - 2);
        CHECK(recv(client.fd, part, sizeof part, 0) > 0);
        site_sleep(5); /* until the system reports it */
        wait_ms(2);
        CHECK_OPEN();
    }
    wait_ms(2 * WRITE_MS);
    wait_ms(2 * WRITE_MS);
    CHECK_CLOSED();
    end();
}

static void begin_linger(void)
{
    begin(AF_INET);
    SEND(&client, "nonsense\r\n\r\nmore");
    wait_ms(0);
    CHECK_INT(site.server->all->state, PW_CONN_LINGER);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 400 ");
}

static void a_refused_client_has_two_seconds_to_close(void)
{
    begin_linger();
    wait_ms(LINGER_MS - 1);
    CHECK_OPEN();
    wait_ms(1);
    CHECK_CLOSED();
    end();
}

static void a_refused_client_that_continues_to_send_has_thirty(void)
{
    begin_linger();
    setsockopt(client.fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    int64_t since = pw_now();
    while (site.server->conn_count > 0 && pw_now() - since < 2 * LINGER_MOST_MS) {
        client_send_some(&client, LITERAL("x"));
        site_sleep(1);
        wait_ms(LINGER_MS / 2);
    }
    CHECK_CLOSED();
    int64_t lasted = pw_now() - since;
    ABOUT("%lld ms", (long long)lasted);
    CHECK(lasted >= LINGER_MOST_MS && lasted <= LINGER_MOST_MS + LINGER_MS);
    end();
}

static void a_reset_waits_for_earlier_bytes_and_checks_every_50_ms(void)
{
    begin(AF_INET);
    SEND(&client, "GET / HTTP/1.0\r\n\r\n");
    site_request(&site);
    CHECK_INT(site_send_head(&site, HEAD_OK, -1), 0);
    for (int i = 0; i < 40; i++)
        CHECK_INT(site_send(&site, large, 100000, 0), 0);
    site.server->all->end = PW_CONN_FAILED; /* as if a file had become shorter */
    pw_output_free(&site.server->all->output);
    site_finish(&site, true);
    CHECK_INT(site.server->all->state, PW_CONN_LINGER);
    CHECK(pw_conn_resets(site.server->all));
    CHECK_INT(site.server->all->timer.kind, PW_TIMER_RESET);
    CHECK_INT(site.server->all->timer.due, pw_now() + RESET_MS);
    wait_ms(RESET_MS);
    CHECK_OPEN(); /* the client has not read it */
    for (int i = 0; i < 100 && site.server->conn_count > 0; i++) {
        client_receive(&client);
        site_sleep(1);
        wait_ms(RESET_MS);
    }
    CHECK_CLOSED();
    end();
}

static void a_reset_waits_no_longer_than_a_write(void)
{
    begin(AF_INET);
    SEND(&client, "GET / HTTP/1.0\r\n\r\n");
    site_request(&site);
    CHECK_INT(site_send_head(&site, HEAD_OK, -1), 0);
    for (int i = 0; i < 40; i++)
        CHECK_INT(site_send(&site, large, 100000, 0), 0);
    site.server->all->end = PW_CONN_FAILED;
    pw_output_free(&site.server->all->output);
    site_finish(&site, true);
    CHECK_INT(site.server->all->state, PW_CONN_LINGER);
    site_sleep(20); /* the client's system takes as much as fits */
    wait_ms(RESET_MS);
    for (int i = 0; i < WRITE_MS / RESET_MS - 2; i++)
        wait_ms(RESET_MS);
    CHECK_OPEN();
    for (int i = 0; i < WRITE_MS / RESET_MS && site.server->conn_count > 0; i++)
        wait_ms(RESET_MS);
    CHECK_CLOSED();
    end();
}

static void at_the_maximum_a_connection_that_was_idle_for_100_ms_is_closed(void)
{
    pw_settings settings = clock_settings();
    settings.max_connections = 1;
    begin_with(&settings, AF_UNIX);
    SEND(&client, GET("/"));
    CHECK_INT(site_serve(&site), 1);
    test_client other = site_connect(&site);
    SEND(&other, GET("/other"));
    wait_ms(IDLE_LEAST_MS - 1);
    client_receive(&client);
    CHECK(!client.ended);
    clock_forward_ms(1);
    site_request(&site);
    client_receive(&client);
    CHECK(client.ended);
    CHECK_INT(site_respond(&site, "ok", 2, 0), SITE_WAITS);
    client_close(&other);
    end();
}

static void lines_of_the_log_are_written_after_100_ms(void)
{
    int file = memfd_create("log", MFD_CLOEXEC);
    pw_settings settings = clock_settings();
    site_log(&settings, file);
    begin_with(&settings, AF_UNIX);
    SEND(&client, GET("/"));
    CHECK_INT(site_serve(&site), 1);
    wait_ms(LOG_MS - 1);
    CHECK_INT(lseek(file, 0, SEEK_CUR), 0);
    wait_ms(1);
    CHECK(lseek(file, 0, SEEK_CUR) > 0);
    end();
    close(file);
}

static void an_incident_of_many_connections_is_reported_every_ten_seconds(void)
{
    begin(AF_UNIX);
    pw_server *server = site.server;
    int64_t reported = 0;
    int count = 0;
    for (int ms = 0; ms <= 2 * OFTEN_MS; ms++) {
        pw_timers_tick(&server->timers);
        pw_incident_often(server, server->all, PW_INCIDENT_QUEUE, &reported);
        if (take_incident().what == PW_INCIDENT_QUEUE) {
            CHECK_INT(ms, count * OFTEN_MS);
            count++;
        }
        clock_forward_ms(1);
    }
    CHECK_INT(count, 3);
    end();
}

static void half_a_close_is_an_end_after_three_seconds(void)
{
    begin(AF_UNIX);
    SEND(&client, GET("/"));
    site_request(&site);
    int64_t exchange = site.request.exchange;
    clock_forward_ms(HALF_CLOSED_MS);
    CHECK_INT(pw_check_client(site.thread, exchange), 0);
    client_half_close(&client);
    CHECK_INT(pw_check_client(site.thread, exchange), 0);
    clock_forward_ms(HALF_CLOSED_MS - 1);
    CHECK_INT(pw_check_client(site.thread, exchange), 0);
    clock_forward_ms(1);
    CHECK_INT(pw_check_client(site.thread, exchange), PW_GONE);
    CHECK_INT(pw_check_client(site.thread, exchange + 1), PW_OVER);
    CHECK_INT(pw_client_gone(site.thread), 1);
    CHECK_INT(site_respond(&site, "ok", 2, 0), SITE_WAITS);
    end();
}

static void a_drain_closes_a_connection_that_is_quiet_for_its_time(void)
{
    begin(AF_UNIX);
    SEND(&client, GET("/"));
    CHECK_INT(site_serve(&site), 1);
    wait_ms(DRAIN_MS - 50);
    pw_server_stop(site.server, PW_DRAIN);
    wait_ms(0);
    CHECK_OPEN(); /* it was in use a moment ago */
    CHECK_INT(site.server->all->timer.due, pw_now() + DRAIN_MS);
    wait_ms(DRAIN_MS - 1);
    CHECK_OPEN();
    clock_forward_ms(1);
    CHECK_INT(site_next(&site), PW_STOP);
    CHECK_CLOSED();
    end();
}

static void a_drain_closes_at_once_a_connection_that_was_quiet_before(void)
{
    for (int sooner = 0; sooner < 2; sooner++) {
        begin(AF_UNIX);
        SEND(&client, GET("/"));
        CHECK_INT(site_serve(&site), 1);
        wait_ms(DRAIN_MS - sooner);
        pw_server_stop(site.server, PW_DRAIN);
        CHECK_INT(site_next(&site), sooner ? SITE_WAITS : PW_STOP);
        CHECK_INT(site.server->conn_count, sooner);
        end();
    }
}

static void a_drain_is_over_after_its_time(void)
{
    pw_settings settings = clock_settings();
    settings.timeout_head = 10 * GRACEFUL_MS;
    begin_with(&settings, AF_UNIX);
    SEND(&client, "GET /a HT");
    wait_ms(0);
    pw_server_stop(site.server, PW_DRAIN);
    wait_ms(0);
    wait_ms(GRACEFUL_MS - 1);
    CHECK_OPEN();
    clock_forward_ms(1);
    CHECK_INT(site_next(&site), PW_STOP);
    CHECK_CLOSED();
    pw_incident incident = take_incident();
    CHECK_INT(incident.what, PW_INCIDENT_STOP);
    CHECK(strcmp(incident.line, "GET /a") == 0);
    end();
}

static void a_request_that_arrives_at_the_last_moment_is_served(void)
{
    begin(AF_UNIX);
    clock_forward_ms(IDLE_MS); /* it is due, but its request has come and was not read yet */
    SEND(&client, GET("/"));
    CHECK_INT(site_serve(&site), 1);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "200 OK");
    CHECK_OPEN();
    end();
    begin(AF_UNIX);
    wait_ms(DRAIN_MS);
    SEND(&client, GET("/"));
    pw_server_stop(site.server, PW_DRAIN); /* its request had come before */
    CHECK_INT(site_serve(&site), 1);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "200 OK");
    CHECK_HOLDS(&client.got, "Connection: close\r\n");
    end();
}

/* A slice is 4 ms, even if fewer requests than its maximum were answered. */
static void a_time_slice_of_the_loop_is_four_ms(void)
{
    test_text many = {NULL, 0, 0};
    begin(AF_UNIX);
    test_client other = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    for (int i = 0; i < 20; i++)
        text_add_string(&many, GET("/greedy"));
    client_send(&client, many.at, many.size);
    site_request(&site);
    SEND(&other, GET("/other"));
    int before = 0;
    while (memmem(site.request.line.at, site.request.line.size, LITERAL("/other")) == NULL) {
        before++;
        REQUIRE(before < 20);
        clock_forward_ms(1);
        int64_t number = site_respond(&site, "ok", 2, 0);
        REQUIRE(number >= 0);
        site_see(&site, number);
    }
    CHECK_INT(before, 4);
    text_free(&many);
    CHECK_INT(site_respond(&site, "ok", 2, 0) >= 0, 1);
    client_close(&other);
    end();
}

int main(void)
{
    RUN(a_connection_without_a_request_is_closed);
    RUN(an_idle_connection_is_closed_as_long_after_its_response);
    RUN(a_head_has_its_time_from_its_first_byte);
    RUN(content_has_its_time_from_its_last_byte);
    RUN(a_client_that_reads_nothing_is_cut_off);
    RUN(a_client_that_reads_something_has_more_time);
    RUN(a_refused_client_has_two_seconds_to_close);
    RUN(a_refused_client_that_continues_to_send_has_thirty);
    RUN(a_reset_waits_for_earlier_bytes_and_checks_every_50_ms);
    RUN(a_reset_waits_no_longer_than_a_write);
    RUN(at_the_maximum_a_connection_that_was_idle_for_100_ms_is_closed);
    RUN(lines_of_the_log_are_written_after_100_ms);
    RUN(an_incident_of_many_connections_is_reported_every_ten_seconds);
    RUN(half_a_close_is_an_end_after_three_seconds);
    RUN(a_drain_closes_a_connection_that_is_quiet_for_its_time);
    RUN(a_drain_closes_at_once_a_connection_that_was_quiet_before);
    RUN(a_drain_is_over_after_its_time);
    RUN(a_request_that_arrives_at_the_last_moment_is_served);
    RUN(a_time_slice_of_the_loop_is_four_ms);
    return check_end();
}
