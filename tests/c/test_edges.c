/* Cases at the edge of what each file does. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "alloc.h"
#include "cast.h"
#include "conn_transfer.h"
#include "poller.h"
#include "site.h"
#include "timer.h"

static test_site site;

static void open_site(int family)
{
    pw_settings settings = site_settings();
    settings.max_body_size = 64 << 20;
    settings.body_memory = settings.body_memory_total = 64 << 20;
    site_open(&site, &settings, family);
}

static void an_ipv6_client_is_named(void)
{
    struct sockaddr_in6 name = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    socklen_t size = sizeof name;
    int listener = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&name, size) != 0)
        return; /* a system without IPv6 */
    REQUIRE(listen(listener, 5) == 0);
    REQUIRE(getsockname(listener, (struct sockaddr *)&name, &size) == 0);
    open_site(AF_UNIX);
    CHECK_INT(pw_server_listen(site.server, listener), 0);
    test_client client = {.fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    REQUIRE(connect(client.fd, (struct sockaddr *)&name, size) == 0);
    fcntl(client.fd, F_SETFL, O_NONBLOCK);
    REQUIRE(getsockname(client.fd, (struct sockaddr *)&name, &size) == 0);
    SEND(&client, GET("/"));
    site_request(&site);
    CHECK_INT(pw_thread_request(site.thread)->listener, 1);
    char expected[64];
    snprintf(expected, sizeof expected, "REMOTE_PORT: %d\n", ntohs(name.sin6_port));
    CHECK_HOLDS(&site.request.fields, "REMOTE_ADDR: ::1\n");
    check_holds(__FILE__, __LINE__, "fields", &site.request.fields, expected, strlen(expected));
    CHECK_INT(site_respond(&site, "ok", 2, 0), SITE_WAITS);
    client_close(&client);
    close(listener);
    site_close(&site);
}

static void an_upload_leaves_the_others_their_turn(void)
{
    static char upload[1500000];
    open_site(AF_INET);
    test_client greedy = site_connect(&site), other = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    int size = snprintf(upload, sizeof upload,
                        "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", 1000000);
    client_send(&greedy, upload, (size_t)size);
    CHECK_INT(site_next(&site), SITE_WAITS); /* its head alone */
    CHECK_INT(site.server->all->next == NULL, 0);
    client_send(&greedy, upload + size, 1000000);
    SEND(&other, GET("/other"));
    site_request(&site);
    CHECK_HOLDS(&site.request.line, "PATH_INFO: /other\n");
    int64_t number = site_respond(&site, "ok", 2, 0);
    while (number == SITE_WAITS) {
        site_sleep(1);
        number = site_next(&site);
    }
    REQUIRE(number >= 0);
    site_see(&site, number);
    CHECK_HOLDS(&site.request.line, "PATH_INFO: /upload\n");
    CHECK_INT(site.request.content.size, 1000000);
    CHECK(memcmp(site.request.content.at, upload + size, 1000000) == 0);
    CHECK_INT(site_respond(&site, "ok", 2, 0), SITE_WAITS);
    client_close(&greedy);
    client_close(&other);
    site_close(&site);
}

/* A connection that comes from another process, as pw_transfer_send sends it with this number. */
static int take_over_with(uint8_t number, int count, bool client_goes)
{
    int pair[2];
    struct sockaddr_storage peer;
    pw_transferred got = {.listener = 99, .is_proxied = true, .awaits_proxy = true};
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    open_site(AF_INET);
    test_client client = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    pw_conn *conn = site.server->all;
    conn->listener = number;
    site.server->transfer = pair[1];
    CHECK(pw_transfer_send(site.server, conn));
    site.server->transfer = -1;
    conn->listener = 0;
    if (client_goes) {
        client_reset(&client);
        site_sleep(5);
    }
    errno = 0;
    int fd = pw_transfer_receive(pair[0], &peer, &got, count);
    int error = errno;
    CHECK(fd >= 0 || fd == -1);
    if (fd >= 0) {
        CHECK_INT(got.listener, number);
        CHECK(!got.is_proxied && !got.awaits_proxy);
        CHECK_INT(peer.ss_family, AF_INET);
        CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
        close(fd);
    }
    if (!client_goes)
        client_close(&client);
    close(pair[0]);
    close(pair[1]);
    CHECK_INT(site_next(&site), SITE_WAITS);
    site_close(&site);
    errno = error;
    return fd >= 0;
}

static void a_message_from_another_process_is_checked(void)
{
    CHECK_INT(take_over_with(0, 1, false), 1);
    CHECK_INT(take_over_with(3, 4, false), 1);
    CHECK_INT(take_over_with(4, 4, false), 0); /* a listener that this process does not have */
    CHECK_INT(errno, ECONNABORTED);
    CHECK_INT(take_over_with(0, 1, true), 0);
    CHECK_INT(errno, ECONNABORTED);
}

static void a_descriptor_is_known_to_a_poller_once(void)
{
    for (int32_t i = 0; pw_poller_name(i) != NULL; i++) {
        pw_poll poll;
        int ends[2];
        REQUIRE(pw_poll_open(&poll, pw_poller_name(i)) == 0);
        REQUIRE(pipe(ends) == 0);
        ABOUT("%s", pw_poller_name(i));
        CHECK_INT(pw_poll_add(&poll, ends[0], ends, PW_POLL_LEVEL), 0);
        /* kqueue(2) replaces an entry. */
        bool replaces = strcmp(pw_poller_name(i), "kqueue") == 0;
        CHECK_INT(pw_poll_add(&poll, ends[0], ends, PW_POLL_LEVEL), replaces ? 0 : EEXIST);
        pw_poll_remove(&poll, ends[0]);
        CHECK_INT(pw_poll_add(&poll, ends[0], ends, PW_POLL_LEVEL), 0);
        pw_poll_close(&poll);
        pw_poll_close(&poll); /* a second time has no effect */
        close(ends[0]);
        close(ends[1]);
    }
    CHECK(pw_poller_name(-1) == NULL);
}

/* As where the limit is lowered while connections are open: poll(2) refuses so many at once. */
static void a_wait_that_exceeds_the_limit_comes_back_to_check_again(void)
{
    enum { MANY = 60 };
    pw_poll poll;
    int ends[2], many[MANY];
    pw_event events[PW_EVENTS_MOST];
    struct rlimit limit;
    REQUIRE(pw_poll_open(&poll, "poll") == 0);
    REQUIRE(pipe(ends) == 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int i = 0; i < MANY; i++) {
        many[i] = dup(ends[0]);
        REQUIRE(many[i] >= 0);
        CHECK_INT(pw_poll_add(&poll, many[i], &many[i], PW_POLL_LEVEL), 0);
    }
    const struct rlimit lower = {.rlim_cur = MANY / 3, .rlim_max = limit.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &lower) == 0);
    const int timeouts[] = {-1, 60000, 0, 5};
    for (int i = 0; i < 4; i++)
        CHECK_INT(poll.poller->wait(&poll, events, timeouts[i]), 0); /* none waits for a minute */
    CHECK_INT(write(ends[1], "x", 1), 1);
    CHECK_INT(poll.poller->wait(&poll, events, -1), MANY);
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (int i = 0; i < MANY; i++)
        close(many[i]);
    close(ends[0]);
    close(ends[1]);
    pw_poll_close(&poll);
}

static void a_thread_that_comes_after_its_server_ends(void)
{
    open_site(AF_UNIX);
    pw_thread *late = pw_thread_new(site.server, 1);
    REQUIRE(late != NULL);
    pw_server_free(site.server); /* no call has stopped it */
    CHECK_INT(pw_next(late), PW_STOP);
    CHECK_INT(pw_request_state(late), PW_REQUEST_NONE);
    pw_thread_free(late);
    pw_thread_free(site.thread); /* the last one frees the memory */
    close(site.listener);
}

static void a_client_that_has_had_its_slice_keeps_only_as_much_as_there_is_memory(void)
{
    test_text many = {NULL, 0, 0};
    open_site(AF_UNIX);
    test_client client = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    site.server->slice_ms = 3600000;
    site.server->head_memory = 100;
    for (int i = 0; i < 40; i++)
        text_add_string(&many, GET("/"));
    client_send(&client, many.at, many.size);
    CHECK_INT(site_serve(&site), 32);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 503 ");
    CHECK_INT(site.server->pool.held, 0);
    text_free(&many);
    client_close(&client);
    site_close(&site);
}

static void the_head_of_a_stream_gets_the_fields_that_its_flags_ask_for(void)
{
    for (int64_t length = -1; length <= 2; length += 3) {
        open_site(AF_UNIX);
        test_client client = site_connect(&site);
        SEND(&client, GET("/"));
        site_request(&site);
        const char *head = length < 0 ? HEAD_OK : HEAD_OK "Content-Length: 2\r\n";
        CHECK_INT(pw_send_first(site.thread, site.request.exchange, head, (int64_t)strlen(head),
                                length, PW_ADD_DATE | PW_ADD_SERVER | PW_CLOSE, "ok", 2, 0),
                  length < 0 ? 0 : PW_COMPLETE);
        CHECK_INT(site_finish(&site, false), SITE_WAITS);
        client_receive(&client);
        CHECK_HOLDS(&client.got, "\r\nServer: picowsgi\r\nDate: ");
        CHECK_HOLDS(&client.got, "\r\nConnection: close\r\n\r\n");
        CHECK(client.ended);
        client_close(&client);
        site_close(&site);
    }
}

/* Without memory the client does not wait: the server sends a 100, or the connection ends. */
static void a_client_that_waits_for_100_gets_a_response(void)
{
    for (long n = 1; n < 20; n++) {
        open_site(AF_UNIX);
        test_client client = site_connect(&site);
        CHECK_INT(site_next(&site), SITE_WAITS);
        SEND(&client, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                      "Content-Length: 2\r\n\r\n");
        pw_alloc_fail_after(n);
        CHECK_INT(site_next(&site), SITE_WAITS);
        pw_alloc_fail_after(0);
        client_receive(&client);
        ABOUT("allocation %ld", n);
        CHECK(client.ended || client.got.size > 0);
        client_close(&client);
        site_close(&site);
    }
}

static void without_a_request_nothing_is_sent_and_no_lock_kept(void)
{
    static const char head[] = "HTTP/1.1 103 Early Hints\r\n\r\n";
    open_site(AF_UNIX);
    for (int i = 0; i < 2; i++) {
        pw_send_end(site.thread, i);
        CHECK_INT(pw_send_interim(site.thread, head, sizeof head - 1), PW_GONE);
        CHECK_INT(pw_send_file(site.thread, 0, 0, 1), PW_OVER);
        CHECK_INT(pw_send_data(site.thread, 0, "x", 1, 0), PW_OVER);
        CHECK_INT(pw_send_data(site.thread, 1, "x", 1, 0), PW_OVER);
        CHECK_INT(pw_content_missing(site.thread), 0);
        CHECK_INT(pw_client_gone(site.thread), 1);
        CHECK_INT(pw_check_client(site.thread, 1), PW_OVER);
        CHECK_INT(pw_request_state(site.thread), PW_REQUEST_NONE);
        CHECK_INT(pw_respond(site.thread, LITERAL(HEAD_OK), "x", 1, 0), PW_STOP);
        test_client client = site_connect(&site);
        SEND(&client, GET("/"));
        site_request(&site);
        CHECK_INT(pw_request_state(site.thread), PW_REQUEST_WAITS);
        CHECK_INT(pw_send_data(site.thread, site.request.exchange, "x", 1, 0), PW_OVER);
        CHECK_INT(pw_content_missing(site.thread), 0); /* no length is promised yet */
        CHECK_INT(site_respond(&site, "ok", 2, 0), SITE_WAITS);
        client_close(&client);
        CHECK_INT(site_next(&site), SITE_WAITS);
    }
    site_close(&site);
}

/* A connection whose client still reads is closed only when all connections are. */
static void only_a_connection_that_has_been_served_is_closed_for_a_new_one(void)
{
    static char large[4 << 20];
    pw_settings settings = site_settings();
    settings.max_connections = 2;
    clock_stop();
    site_open(&site, &settings, AF_INET);
    test_client reading = site_connect(&site);
    SEND(&reading, GET("/large"));
    site_request(&site);
    CHECK_INT(site_respond(&site, large, 1 << 20, 0), SITE_WAITS);
    bool idle = site.server->all->state == PW_CONN_IDLE; /* the system has taken all of it */
    clock_forward_ms(10);
    test_client served = site_connect(&site);
    SEND(&served, GET("/small"));
    CHECK_INT(site_serve(&site), 1);
    clock_forward_ms(1000);
    CHECK_INT(site_next(&site), SITE_WAITS);
    test_client next = site_connect(&site);
    SEND(&next, GET("/next"));
    CHECK_INT(site_serve(&site), 1);
    client_receive(&served);
    CHECK(served.ended || !idle);
    client_receive(&next);
    CHECK_HOLDS(&next.got, "200 OK");
    client_close(&reading);
    client_close(&served);
    client_close(&next);
    site_close(&site);
    clock_go();
}

int main(void)
{
    RUN(an_ipv6_client_is_named);
    RUN(an_upload_leaves_the_others_their_turn);
    RUN(a_message_from_another_process_is_checked);
    RUN(a_descriptor_is_known_to_a_poller_once);
    RUN(a_wait_that_exceeds_the_limit_comes_back_to_check_again);
    RUN(a_thread_that_comes_after_its_server_ends);
    RUN(a_client_that_has_had_its_slice_keeps_only_as_much_as_there_is_memory);
    RUN(the_head_of_a_stream_gets_the_fields_that_its_flags_ask_for);
    RUN(a_client_that_waits_for_100_gets_a_response);
    RUN(without_a_request_nothing_is_sent_and_no_lock_kept);
    RUN(only_a_connection_that_has_been_served_is_closed_for_a_new_one);
    return check_end();
}
