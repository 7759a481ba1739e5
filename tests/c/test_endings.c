/* How a connection ends: the bytes that its client reads, also if
 * another process has the descriptor. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "site.h"

static test_site site;
static test_client client;
static char large[8 << 20];

enum { MEBIBYTE = 1 << 20 };

#define OLD "GET / HTTP/1.0\r\n\r\n"
#define OLD_KEPT "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
#define LAST(size) HEAD_OK "Content-Length: " size "\r\nConnection: close\r\n\r\n"

static void begin(int family, int32_t timeout)
{
    pw_settings settings = site_settings();
    settings.timeout_keep_alive = timeout;
    settings.timeout_write = timeout;
    site_open(&site, &settings, family);
    client = (test_client){.fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    const int room = 65536; /* the server's system keeps what does not fit */
    setsockopt(client.fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    connect(client.fd, (const struct sockaddr *)&site.address, site.address_size);
}

static void end(void)
{
    client_close(&client);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 0);
    site_close(&site);
}

/* Reads to the end, one part at a time, in turn with the server.
 * Returns the errno of a reset, or 0. */
static int read_to_the_end(void)
{
    char part[20000];
    ssize_t got = -1;
    errno = EAGAIN;
    for (int turns = 0; turns < 5000 && got != 0 && (got > 0 || errno == EAGAIN); turns++) {
        int64_t number = site_next(&site);
        REQUIRE(number == SITE_WAITS);
        got = recv(client.fd, part, sizeof part, 0);
        if (got > 0)
            text_add(&client.got, part, (size_t)got);
        else
            site_sleep(1);
    }
    REQUIRE(got == 0 || errno != EAGAIN);
    return got == 0 ? 0 : errno;
}

/* Sends a response of a mebibyte, after which the connection is
 * closed. The system has all of it. */
static void answer_large_and_last(void)
{
    SEND(&client, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    site_request(&site);
    int64_t number = site_respond(&site, large, MEBIBYTE, 0);
    for (int turns = 0; turns < 1000 && site.server->all->state != PW_CONN_LINGER; turns++) {
        REQUIRE(number == SITE_WAITS);
        char part[20000];
        ssize_t got = recv(client.fd, part, sizeof part, 0);
        text_add(&client.got, part, got > 0 ? (size_t)got : 0);
        number = site_next(&site);
    }
    CHECK_INT(site.server->all->state, PW_CONN_LINGER);
}

static void check_is_whole(void)
{
    static const char head[] = LAST("1048576");
    CHECK_INT(client.got.size, sizeof head - 1 + MEBIBYTE);
    CHECK_BYTES(client.got.at, sizeof head - 1, LAST("1048576"));
    CHECK(memcmp(client.got.at + sizeof head - 1, large, MEBIBYTE) == 0);
}

static void a_client_that_sends_more_reads_its_response_to_the_end(void)
{
    for (int kind = 0; kind < 8; kind++) {
        bool more = kind & 1, half_closes = kind & 2, later = kind & 4;
        ABOUT("more %d, half-closed %d, later %d", more, half_closes, later);
        begin(AF_INET, 3600000);
        answer_large_and_last();
        if (later) /* the server gets each of them alone */
            CHECK_INT(site_next(&site), SITE_WAITS);
        if (more)
            client_send(&client, large, 30000);
        if (later)
            CHECK_INT(site_next(&site), SITE_WAITS);
        if (half_closes)
            client_half_close(&client);
        CHECK_INT(read_to_the_end(), 0);
        check_is_whole();
        end();
    }
}

/* As if a child that the application has forked were still running. */
static int duplicate(void)
{
    int fd = dup(site.server->all->fd);
    REQUIRE(fd >= 0);
    return fd;
}

static void a_closed_connection_ends_for_its_client_although_another_process_has_it(void)
{
    static const int families[] = {AF_INET, AF_UNIX};
    for (int i = 0; i < 2; i++) {
        ABOUT("family %d, after a response", families[i]);
        begin(families[i], 3600000);
        SEND(&client, OLD);
        site_request(&site);
        int fd = duplicate();
        CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
        CHECK_INT(read_to_the_end(), 0);
        CHECK_TEXT(&client.got, LAST("2") "ok");
        close(fd);
        end();

        ABOUT("family %d, idle", families[i]);
        begin(families[i], 20);
        SEND(&client, GET("/"));
        site_request(&site);
        fd = duplicate();
        CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
        site_sleep(40);
        CHECK_INT(read_to_the_end(), 0);
        CHECK_TEXT(&client.got, OK("ok", "2"));
        close(fd);
        end();

        ABOUT("family %d, the server ends", families[i]);
        begin(families[i], 3600000);
        CHECK_INT(site_next(&site), SITE_WAITS);
        fd = duplicate();
        site_close(&site);
        char byte;
        CHECK_INT(recv(client.fd, &byte, 1, 0), 0);
        close(fd);
        client_close(&client);
    }
}

/* Sends the beginning of a response that the end of the connection would end. */
static void answer_in_part(void)
{
    CHECK_INT(site_send_first(&site, HEAD_OK, -1, LITERAL("hello"), 0), 0);
    pw_send_end(site.thread, 1);
}

static void a_reset_reaches_the_client_although_another_process_has_its_connection(void)
{
    if (!PW_LINUX)
        return; /* other systems cannot send this reset */
    begin(AF_INET, 3600000);
    SEND(&client, OLD);
    site_request(&site);
    int fd = duplicate();
    answer_in_part();
    CHECK_INT(read_to_the_end(), ECONNRESET);
    CHECK_TEXT(&client.got, HEAD_OK "Connection: close\r\n\r\nhello");
    close(fd);
    end();

    begin(AF_INET, 20); /* a response that the client does not read */
    SEND(&client, OLD);
    site_request(&site);
    fd = duplicate();
    CHECK_INT(site_respond(&site, large, sizeof large, 0), SITE_WAITS);
    CHECK(site.server->all->output.size > 0);
    for (int turns = 0; turns < 50 && site.server->conn_count > 0; turns++) {
        site_sleep(40);
        CHECK_INT(site_next(&site), SITE_WAITS);
    }
    CHECK_INT(read_to_the_end(), ECONNRESET);
    close(fd);
    end();
}

static void a_unix_socket_ends_although_another_process_has_it(void)
{
    begin(AF_UNIX, 3600000);
    SEND(&client, OLD);
    site_request(&site);
    int fd = duplicate();
    answer_in_part(); /* on a unix socket the client cannot distinguish it from the whole */
    CHECK_INT(read_to_the_end(), 0);
    close(fd);
    end();
}

static void responses_before_one_that_is_reset_arrive_in_full(void)
{
    for (int half_closes = 0; half_closes < 2; half_closes++) {
        begin(AF_INET, 3600000);
        SEND(&client, OLD_KEPT OLD_KEPT);
        if (half_closes)
            client_half_close(&client);
        site_request(&site);
        const size_t size = 500000;
        int64_t number = site_respond(&site, large, size, 0);
        for (int turns = 0; turns < 1000 && number == SITE_WAITS; turns++) {
            char part[20000];
            ssize_t got = recv(client.fd, part, sizeof part, 0);
            text_add(&client.got, part, got > 0 ? (size_t)got : 0);
            number = site_next(&site);
        }
        site_see(&site, number);
        answer_in_part();
        CHECK_INT(site_next(&site), SITE_WAITS);
        CHECK_INT(site.server->conn_count, 1);
        site_sleep(100); /* the client does not read meanwhile */
        CHECK_INT(site_next(&site), SITE_WAITS);
        CHECK_INT(read_to_the_end(), ECONNRESET);
        static const char head[] =
            HEAD_OK "Content-Length: 500000\r\nConnection: keep-alive\r\n\r\n";
        static const char last[] = HEAD_OK "Connection: close\r\n\r\nhello";
        ABOUT("half-closed %d", half_closes);
        CHECK_INT(client.got.size, sizeof head - 1 + size + sizeof last - 1);
        CHECK(memcmp(client.got.at + sizeof head - 1, large, size) == 0);
        CHECK_HOLDS(&client.got, HEAD_OK "Connection: close\r\n\r\nhello");
        end();
    }
}

static void a_reset_does_not_wait_for_a_client_that_reads_nothing(void)
{
    begin(AF_INET, 100);
    SEND(&client, OLD);
    site_request(&site);
    CHECK_INT(site_send_first(&site, HEAD_OK, -1, large, 300000, PW_FINISHED), 0);
    pw_send_end(site.thread, 1);
    for (int turns = 0; turns < 50 && site.server->conn_count > 0; turns++) {
        CHECK_INT(site_next(&site), SITE_WAITS);
        site_sleep(20);
    }
    CHECK_INT(site.server->conn_count, 0);
    end();
}

static void a_file_that_became_shorter_ends_its_response_and_not_those_before(void)
{
    char name[] = "/tmp/picowsgi-test-XXXXXX";
    int file = mkstemp(name);
    REQUIRE(file >= 0 && unlink(name) == 0);
    REQUIRE(write(file, large, 300000) == 300000);
    begin(AF_INET, 3600000);
    SEND(&client, GET("/") GET("/"));
    site_request(&site);
    site_see(&site, site_respond(&site, LITERAL("ok"), 0));
    CHECK_INT(site_send_head(&site, HEAD_OK, 900000), 0);
    CHECK_INT(pw_send_file(site.thread, file, 0, 900000), 0);
    pw_send_end(site.thread, 0);
    CHECK_INT(read_to_the_end(), ECONNRESET);
    CHECK_INT(client.got.size, sizeof OK("ok", "2") - 1 + sizeof HEAD_OK "\r\n" - 1 + 300000);
    pw_incident incident;
    CHECK(pw_incident_take(site.server, &incident));
    CHECK_INT(incident.what, PW_INCIDENT_SHORT);
    close(file);
    end();
}

static void a_forked_process_ends_no_connection_of_its_parent(void)
{
    int log[2];
    REQUIRE(pipe(log) == 0);
    pw_settings settings = site_settings();
    settings.balance = pw_balance_new();
    site_log(&settings, log[1]);
    site_open(&site, &settings, AF_INET);
    client = site_connect(&site);
    SEND(&client, GET("/a"));
    CHECK_INT(site_serve(&site), 1);
    pw_server_hold(site.server);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        pw_server_forked(site.server);
        pw_thread_free(site.thread);
        pw_server_free(site.server);
        _exit(0);
    }
    pw_server_unhold(site.server);
    int status;
    REQUIRE(waitpid(child, &status, 0) == child && status == 0);
    SEND(&client, GET("/b"));
    CHECK_INT(site_serve(&site), 1);
    client_receive(&client);
    CHECK_TEXT(&client.got, OK("/a", "2") OK("/b", "2"));
    CHECK(!client.ended);
    test_client late = site_connect(&site);
    SEND(&late, GET("/late"));
    CHECK_INT(site_serve(&site), 1);
    client_close(&late);
    CHECK_INT(site.server->accept.place->process, getpid());
    end();
    pw_balance_free(settings.balance);
    char lines[4000];
    ssize_t size = read(log[0], lines, sizeof lines);
    int count = 0;
    for (ssize_t i = 0; i < size; i++)
        count += lines[i] == '\n';
    CHECK_INT(count, 3);
    close(log[0]);
    close(log[1]);
}

int main(void)
{
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)(i * 31 + i / 251);
    RUN(a_client_that_sends_more_reads_its_response_to_the_end);
    RUN(a_closed_connection_ends_for_its_client_although_another_process_has_it);
    RUN(a_reset_reaches_the_client_although_another_process_has_its_connection);
    RUN(a_unix_socket_ends_although_another_process_has_it);
    RUN(responses_before_one_that_is_reset_arrive_in_full);
    RUN(a_reset_does_not_wait_for_a_client_that_reads_nothing);
    RUN(a_file_that_became_shorter_ends_its_response_and_not_those_before);
    RUN(a_forked_process_ends_no_connection_of_its_parent);
    return check_end();
}
