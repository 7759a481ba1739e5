/* A server that stops. Every connection that the system has accepted gets its answers, and the
 * drain ends with the last one. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "site.h"

#define LAST_OK HEAD_OK "Content-Length: 2\r\nConnection: close\r\n\r\nok"
enum { WAITING = 5 };

static test_site site;
static test_client clients[1 + WAITING];

static void open_site(int32_t max_connections, int32_t timeout_graceful)
{
    pw_settings settings = site_settings();
    settings.max_connections = max_connections;
    settings.timeout_graceful = timeout_graceful;
    site_open(&site, &settings, AF_UNIX);
}

/* The application has the request of the first client. `waiting`
 * more clients wait for its place. */
static void fill(int waiting)
{
    clients[0] = site_connect(&site);
    SEND(&clients[0], GET("/0"));
    CHECK_HOLDS(&site_request(&site)->line, "PATH_INFO: /0\n");
    for (int i = 1; i <= waiting; i++) {
        clients[i] = site_connect(&site);
        SEND(&clients[i], GET("/waits"));
    }
}

/* A client whose request is not complete has the only place, and another client waits. */
static void fill_and_wait(int32_t timeout_graceful)
{
    open_site(1, timeout_graceful);
    for (int i = 0; i < 2; i++)
        clients[i] = site_connect(&site);
    SEND(&clients[0], "GET /half HTTP/1.1\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK(site.server->accept.paused);
}

static void check_gets_the_last_response(test_client *client)
{
    client_receive(client);
    CHECK_TEXT(&client->got, LAST_OK);
    CHECK(client->ended);
    client_close(client);
}

static void check_gets_nothing(test_client *client)
{
    client_receive(client);
    CHECK_TEXT(&client->got, "");
    client_close(client);
}

static bool listens(void)
{
    return site.server->accept.listeners[0].fd >= 0;
}

static struct rlimit take_descriptors(void)
{
    struct rlimit before, none;
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &none);
    return before;
}

/* ------------------------------------------------------------------ ways to stop */

static void another_stop_of_the_same_kind_changes_nothing(void)
{
    open_site(10, 3600 * 1000);
    test_client client = site_connect(&site);
    SEND(&client, "GET /half HTTP/1.1\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    for (int i = 0; i < 5; i++) {
        pw_server_stop(site.server, i == 2 ? PW_LEAVE : PW_DRAIN);
        CHECK_INT(site_next(&site), SITE_WAITS);
    }
    SEND(&client, "Host: a\r\n\r\n");
    CHECK_HOLDS(&site_request(&site)->line, "PATH_INFO: /half\n");
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), PW_STOP);
    check_gets_the_last_response(&client);
    site_close(&site);
}

static void the_stop_does_not_wait_for_the_end(void)
{
    open_site(10, 3600 * 1000);
    test_client client = site_connect(&site);
    SEND(&client, "GET /half HTTP/1.1\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_server_stop(site.server, PW_END);
    pw_server_stop(site.server, PW_DRAIN); /* too late to change anything */
    CHECK_INT(site_next(&site), PW_STOP);
    check_gets_nothing(&client);
    site_close(&site);
}

/* ------------------------------------------------------------------ the backlog */

static void at_the_maximum_waiting_connections_are_accepted_one_after_the_other(void)
{
    open_site(1, 3600 * 1000);
    fill(WAITING);
    pw_server_stop(site.server, PW_DRAIN);
    for (int i = 1; i <= WAITING; i++) {
        int64_t number = site_respond(&site, LITERAL("ok"), 0);
        check_gets_the_last_response(&clients[i - 1]);
        ABOUT("client %d", i);
        if (!CHECK(number >= 0))
            break;
        CHECK_HOLDS(&site_see(&site, number)->line, "PATH_INFO: /waits\n");
        CHECK_INT(listens(), i < WAITING);
    }
    ABOUT("%s", "");
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), PW_STOP);
    check_gets_the_last_response(&clients[WAITING]);
    pw_incident incident;
    CHECK_INT(pw_incident_take(site.server, &incident), 0);
    site_close(&site);
}

static void at_the_maximum_a_socket_without_waiting_connections_is_closed_at_once(void)
{
    open_site(1, 3600 * 1000);
    fill(0);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    SEND(&clients[0], "GET /half HTTP/1.1\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK(!listens());
    client_close(&clients[0]);
    CHECK_INT(site_next(&site), PW_STOP);
    site_close(&site);
}

static void waiting_connections_are_accepted_when_descriptors_are_free_again(void)
{
    open_site(10, 3600 * 1000);
    clients[0] = site_connect(&site);
    SEND(&clients[0], GET("/waits"));
    struct rlimit before = take_descriptors();
    pw_server_stop(site.server, PW_LEAVE); /* the system may have woken only this server */
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK(listens());
    site_sleep(150);
    CHECK_INT(site_next(&site), SITE_WAITS);
    setrlimit(RLIMIT_NOFILE, &before);
    site_sleep(150);
    CHECK_HOLDS(&site_request(&site)->line, "PATH_INFO: /waits\n");
    CHECK(!listens());
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), PW_STOP);
    check_gets_the_last_response(&clients[0]);
    site_close(&site);
}

static void without_descriptors_and_waiting_connections_the_end_comes_at_once(void)
{
    open_site(10, 3600 * 1000);
    clients[0] = site_connect(&site);
    struct rlimit before = take_descriptors();
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK(site.server->accept.paused);
    client_close(&clients[0]);
    setrlimit(RLIMIT_NOFILE, &before);
    int last = accept(site.listener, NULL, NULL); /* taken by another process */
    CHECK(last >= 0);
    close(last);
    before = take_descriptors();
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), PW_STOP);
    setrlimit(RLIMIT_NOFILE, &before);
    site_close(&site);
}

static void connections_that_wait_for_room_are_left_to_other_processes_that_accept(void)
{
    fill_and_wait(3600 * 1000);
    pw_server_stop(site.server, PW_LEAVE);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK(!listens());
    client_close(&clients[0]);
    CHECK_INT(site_next(&site), PW_STOP);
    int theirs = accept(site.listener, NULL, NULL);
    CHECK(theirs >= 0);
    close(theirs);
    client_close(&clients[1]);
    pw_incident incident;
    CHECK_INT(pw_incident_take(site.server, &incident), 0);
    site_close(&site);
}

static void connections_are_also_left_to_processes_that_start_to_accept_later(void)
{
    fill_and_wait(3600 * 1000);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK(listens());
    pw_server_stop(site.server, PW_LEAVE);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK(!listens());
    client_close(&clients[0]);
    CHECK_INT(site_next(&site), PW_STOP);
    client_close(&clients[1]);
    site_close(&site);
}

static void connections_that_wait_at_the_deadline_are_reported(void)
{
    fill_and_wait(30);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    site_sleep(50);
    CHECK_INT(site_next(&site), PW_STOP);
    pw_incident incident;
    CHECK_INT(pw_incident_take(site.server, &incident), 1);
    CHECK_INT(incident.what, PW_INCIDENT_BACKLOG);
    CHECK_INT(pw_incident_take(site.server, &incident), 1);
    CHECK_INT(incident.what, PW_INCIDENT_STOP); /* of the first client's request */
    CHECK_INT(pw_incident_take(site.server, &incident), 0);
    client_close(&clients[0]);
    client_close(&clients[1]);
    site_close(&site);
}

/* ------------------------------------------------------------------ the last connection */

/* While one thread waits for events, another one closes a connection. The byte in the wake pipe
 * makes the first one check again whether the drain is over. */
static void a_thread_that_closes_the_last_connection_wakes_the_thread_that_waits(void)
{
    open_site(10, 3600 * 1000);
    fill(0);
    pw_server *server = site.server;
    pw_server_stop(server, PW_DRAIN);
    pw_thread *other = pw_thread_new(server, 1);
    REQUIRE(other != NULL);
    server->watch.ticks += 10; /* the first thread is stalled in the application */
    pw_thread *first = site.thread;
    site.thread = other;
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK(server->token.holder == other && server->draining);
    server->polling = true; /* as while `other` waits */
    char byte;
    CHECK(read(server->wake[0], &byte, 1) < 0 && errno == EAGAIN);
    client_close(&clients[0]); /* the first thread notices that the client disconnects */
    static const char head[] = HEAD_OK;
    int64_t exchange = site.request.exchange;
    pw_send_first(first, exchange, LITERAL(head), -1, 0, LITERAL("data"), 0);
    CHECK_INT(pw_send_data(first, exchange, LITERAL("data"), 0), PW_GONE);
    pw_send_end(first, 1);
    CHECK_INT(server->conn_count, 0);
    CHECK_INT(read(server->wake[0], &byte, 1), 1);
    server->polling = false;
    CHECK_INT(site_next(&site), PW_STOP);
    site.thread = first;
    pw_thread_free(other);
    site_close(&site);
}

/* ------------------------------------------------------------------ lingering */

/* A close while the client sends would reset the connection, and the
 * client might never see the refusal. */
static void a_client_that_still_sends_is_not_cut_off_after_its_refusal(void)
{
    pw_settings settings = site_settings();
    settings.timeout_drain = 3600 * 1000;
    settings.max_body_size = 10;
    site_open(&site, &settings, AF_INET);
    test_client client = site_connect(&site);
    SEND(&client, "POST / HTTP/1.1\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    SEND(&client, "Host: a\r\nContent-Length: 100000\r\n\r\n");
    for (int i = 0; i < 5; i++) {
        CHECK_INT(site_next(&site), SITE_WAITS);
        SEND(&client, "what the server throws away");
    }
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 1);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 413 ");
    client_close(&client);
    CHECK_INT(site_next(&site), PW_STOP);
    site_close(&site);
}

static void a_client_that_neither_sends_nor_closes_does_not_delay_the_end(void)
{
    pw_settings settings = site_settings();
    settings.timeout_drain = 30;
    site_open(&site, &settings, AF_INET);
    test_client client = site_connect(&site);
    SEND(&client, "GET / HTTP/9.9\r\n\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_server_stop(site.server, PW_DRAIN);
    CHECK_INT(site_next(&site), SITE_WAITS);
    site_sleep(60);
    CHECK_INT(site_next(&site), PW_STOP);
    client_close(&client);
    site_close(&site);
}

/* A client that has its refusal and still sends. Returns its connection. */
static pw_conn *linger(test_client *client)
{
    pw_settings settings = site_settings();
    settings.max_body_size = 10;
    site_open(&site, &settings, AF_INET);
    *client = site_connect(&site);
    const int on = 1; /* each byte leaves at once */
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    SEND(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 1);
    CHECK_INT(site.server->all->state, PW_CONN_LINGER);
    return site.server->all;
}

static void a_client_that_sends_slowly_without_an_end_is_cut_off(void)
{
    test_client client;
    pw_conn *conn = linger(&client);
    int64_t left = conn->linger_until - site.server->timers.now;
    CHECK(left <= 30000);
    for (int i = 0; i < 3; i++) {
        SEND(&client, "x");
        CHECK_INT(site_next(&site), SITE_WAITS);
        CHECK_INT(site.server->conn_count, 1);
        CHECK(conn->linger_until - site.server->timers.now <= left);
    }
    conn->linger_until = site.server->timers.now - 1;
    SEND(&client, "x");
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 0);
    client_close(&client);
    site_close(&site);
}

static void a_client_that_sends_much_after_its_refusal_is_cut_off(void)
{
    static char much[1 << 20];
    test_client client;
    pw_conn *conn = linger(&client);
    int64_t most = conn->linger_left, sent = 0;
    CHECK(most <= 64 << 20);
    for (int turns = 0; turns < 10000 && site.server->conn_count > 0; turns++) {
        ssize_t done = send(client.fd, much, sizeof much, MSG_NOSIGNAL | MSG_DONTWAIT);
        sent += done > 0 ? done : 0;
        CHECK_INT(site_next(&site), SITE_WAITS);
    }
    CHECK_INT(site.server->conn_count, 0);
    CHECK(sent > most - (int64_t)sizeof much);
    CHECK(sent < 2 * most);
    client_close(&client);
    site_close(&site);
}

int main(void)
{
    RUN(a_client_that_sends_slowly_without_an_end_is_cut_off);
    RUN(a_client_that_sends_much_after_its_refusal_is_cut_off);
    RUN(another_stop_of_the_same_kind_changes_nothing);
    RUN(the_stop_does_not_wait_for_the_end);
    RUN(at_the_maximum_waiting_connections_are_accepted_one_after_the_other);
    RUN(at_the_maximum_a_socket_without_waiting_connections_is_closed_at_once);
    RUN(waiting_connections_are_accepted_when_descriptors_are_free_again);
    RUN(without_descriptors_and_waiting_connections_the_end_comes_at_once);
    RUN(connections_that_wait_for_room_are_left_to_other_processes_that_accept);
    RUN(connections_are_also_left_to_processes_that_start_to_accept_later);
    RUN(connections_that_wait_at_the_deadline_are_reported);
    RUN(a_thread_that_closes_the_last_connection_wakes_the_thread_that_waits);
    RUN(a_client_that_still_sends_is_not_cut_off_after_its_refusal);
    RUN(a_client_that_neither_sends_nor_closes_does_not_delay_the_end);
    return check_end();
}
