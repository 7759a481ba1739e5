/* csrc/conn_transfer.c: connections that pass from one server to the next.
 * None is lost, and each is served once. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "site.h"

static test_site old, new;
static int channel[2];

/* Two servers, each on a socket of its own, and the channel between them. */
static void open_both(int family)
{
    pw_settings settings = site_settings();
    settings.timeout_drain = 3600 * 1000; /* no timeout closes anything */
    site_open(&old, &settings, family);
    site_open(&new, &settings, family);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, channel) == 0);
    REQUIRE(pw_server_share(old.server, channel[0], channel[1]) == 0);
    REQUIRE(pw_server_share(new.server, channel[0], channel[1]) == 0);
}

static void close_both(void)
{
    site_close(&old);
    site_close(&new);
    close(channel[0]);
    close(channel[1]);
}

static void answer(test_site *site)
{
    CHECK_INT(site_respond(site, LITERAL("ok"), 0), SITE_WAITS);
}

static void check_is_answered(test_client *client, const char *path)
{
    test_seen *request = site_request(&new);
    CHECK_HOLDS(&request->line, "PATH_INFO: ");
    check_holds(__FILE__, __LINE__, "line", &request->line, path, strlen(path));
    answer(&new);
    client_receive(client);
    CHECK_HOLDS(&client->got, OK("ok", "2"));
    CHECK(!client->ended);
}

static void the_next_process_serves_a_request_that_has_not_begun(void)
{
    open_both(AF_INET);
    test_client fresh = site_connect(&old), kept = site_connect(&old);
    SEND(&kept, GET("/before"));
    site_request(&old);
    answer(&old);
    client_receive(&kept);
    text_clear(&kept.got);
    pw_server_stop(old.server, PW_DRAIN);
    SEND(&kept, GET("/kept"));
    CHECK_INT(site_next(&old), PW_STOP);
    check_is_answered(&kept, "/kept");
    SEND(&fresh, GET("/fresh"));
    test_seen *request = site_request(&new);
    CHECK_HOLDS(&request->line, "PATH_INFO: /fresh\n");
    CHECK_HOLDS(&request->fields, "REMOTE_ADDR: 127.0.0.1\n");
    answer(&new);
    client_close(&fresh);
    client_close(&kept);
    CHECK_INT(site_next(&new), SITE_WAITS);
    CHECK_INT(new.server->conn_count, 0);
    close_both();
}

static void a_request_that_has_begun_is_finished_and_its_connection_closed(void)
{
    open_both(AF_UNIX);
    test_client client = site_connect(&old), half = site_connect(&old);
    SEND(&client, GET("/a"));
    SEND(&half, "GET /half HTTP/1.1\r\n");
    site_request(&old);
    pw_server_stop(old.server, PW_DRAIN);
    answer(&old);
    client_receive(&client);
    CHECK_TEXT(&client.got, HEAD_OK "Content-Length: 2\r\nConnection: close\r\n\r\nok");
    CHECK(client.ended);
    SEND(&half, "Host: a\r\n\r\n");
    CHECK_INT(site_serve(&old), 1);
    client_receive(&half);
    CHECK(half.ended);
    CHECK_INT(site_next(&old), PW_STOP);
    CHECK_INT(site_next(&new), SITE_WAITS);
    CHECK_INT(new.server->conn_count, 0);
    client_close(&client);
    client_close(&half);
    close_both();
}

static void the_next_process_serves_a_client_that_waits_for_accept(void)
{
    open_both(AF_UNIX);
    CHECK_INT(site_next(&old), SITE_WAITS);
    pw_server_stop(old.server, PW_DRAIN);
    test_client client = site_connect(&old);
    SEND(&client, GET("/a"));
    CHECK_INT(site_next(&old), PW_STOP);
    check_is_answered(&client, "/a");
    client_close(&client);
    close_both();
}

/* Connections that were sent while no server received are not lost either. */
static void a_connection_that_waits_in_the_channel_is_passed_on(void)
{
    open_both(AF_UNIX);
    test_client client = site_connect(&new);
    CHECK_INT(site_next(&new), SITE_WAITS);
    pw_server_stop(new.server, PW_DRAIN);
    CHECK_INT(site_next(&new), PW_STOP);
    pw_server_stop(old.server, PW_DRAIN);
    CHECK_INT(site_next(&old), PW_STOP);
    test_site third;
    pw_settings settings = site_settings();
    site_open(&third, &settings, AF_UNIX);
    REQUIRE(pw_server_share(third.server, channel[0], channel[1]) == 0);
    SEND(&client, GET("/a"));
    CHECK_INT(site_serve(&third), 1);
    client_receive(&client);
    CHECK_TEXT(&client.got, OK("/a", "2"));
    client_close(&client);
    site_close(&third);
    close_both();
}

static void without_a_next_process_the_stop_is_an_ordinary_one(void)
{
    open_both(AF_UNIX);
    test_client idle = site_connect(&old);
    CHECK_INT(site_next(&old), SITE_WAITS);
    REQUIRE(shutdown(channel[0], SHUT_RDWR) == 0);
    CHECK_INT(site_next(&old), SITE_WAITS); /* it waits */
    CHECK_INT(site_next(&new), SITE_WAITS);
    pw_server_stop(old.server, PW_DRAIN);
    test_client late = site_connect(&old);
    SEND(&idle, GET("/idle"));
    SEND(&late, GET("/late"));
    CHECK_INT(site_serve(&old), 2);
    CHECK_INT(site_next(&old), PW_STOP);
    client_close(&idle);
    client_close(&late);
    close_both();
}

static void a_server_without_room_takes_the_connection_later(void)
{
    open_both(AF_UNIX);
    new.server->accept.max_connections = 1;
    test_client first = site_connect(&new), second = site_connect(&old);
    SEND(&first, GET("/first"));
    CHECK_INT(site_serve(&new), 1);
    CHECK_INT(site_next(&old), SITE_WAITS);
    pw_server_stop(old.server, PW_DRAIN);
    SEND(&second, GET("/second"));
    CHECK_INT(site_next(&old), PW_STOP);
    CHECK_INT(site_serve(&new), 0);
    client_close(&first);
    check_is_answered(&second, "/second");
    client_close(&second);
    close_both();
}

static void a_descriptor_that_is_no_connection_is_refused(void)
{
    open_both(AF_UNIX);
    REQUIRE(send(channel[1], "\0", 1, 0) == 1); /* no descriptor */
    CHECK_INT(site_next(&new), SITE_WAITS);
    CHECK_INT(new.server->conn_count, 0);
    close_both();
}

int main(void)
{
    RUN(the_next_process_serves_a_request_that_has_not_begun);
    RUN(a_request_that_has_begun_is_finished_and_its_connection_closed);
    RUN(the_next_process_serves_a_client_that_waits_for_accept);
    RUN(a_connection_that_waits_in_the_channel_is_passed_on);
    RUN(without_a_next_process_the_stop_is_an_ordinary_one);
    RUN(a_server_without_room_takes_the_connection_later);
    RUN(a_descriptor_that_is_no_connection_is_refused);
    return check_end();
}
