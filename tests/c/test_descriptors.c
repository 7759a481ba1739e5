/* Behaviour without free descriptors. No descriptor is left open. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "conn_transfer.h"
#include "incident.h"
#include "output.h"
#include "site.h"
#include "store.h"

enum { DESCRIPTORS_MOST = 200 };

static test_site site;
static rlim_t limit_before;

static int count_open(void)
{
    int count = 0;
    for (int fd = 0; fd < DESCRIPTORS_MOST; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* From here on this many can be opened. */
static void leave(int free)
{
    struct rlimit limit;
    int fd = 0;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit_before = limit.rlim_cur;
    for (;; fd++)
        if (fcntl(fd, F_GETFD) < 0 && free-- == 0)
            break;
    limit.rlim_cur = (rlim_t)fd;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void leave_all(void)
{
    struct rlimit limit;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit_before;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void a_file_is_not_sent_and_the_output_does_not_change(void)
{
    pw_output output = {.first = NULL};
    int file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    REQUIRE(file >= 0);
    leave(0);
    CHECK(!pw_output_file(&output, file, 0, 10));
    CHECK_INT(errno, EMFILE);
    leave_all();
    CHECK(output.first == NULL && output.last == NULL);
    CHECK_INT(output.size, 0);
    CHECK(pw_output_file(&output, file, 0, 10));
    CHECK_INT(output.size, 10);
    int before = count_open();
    pw_output_free(&output);
    CHECK_INT(count_open(), before - 1);
    close(file);
}

static void the_application_reads_the_file_itself(void)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
    test_client client = site_connect(&site);
    SEND(&client, GET("/"));
    site_request(&site);
    int file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    REQUIRE(file >= 0);
    CHECK_INT(site_send_head(&site, HEAD_OK "Content-Length: 5\r\n", 5), 0);
    leave(0);
    CHECK_INT(pw_send_file(site.thread, file, 0, 5), PW_REFUSED);
    leave_all();
    CHECK_INT(pw_content_missing(site.thread), 5); /* no byte of it counts as sent */
    CHECK_INT(site_send(&site, LITERAL("hello"), 0), PW_COMPLETE);
    CHECK_INT(site_finish(&site, false), SITE_WAITS);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "\r\n\r\nhello");
    client_close(&client);
    close(file);
    site_close(&site);
}

static void the_spool_then_has_no_room(void)
{
    pw_output output = {.first = NULL};
    pw_store store = {.spool_most = 1000, .spool_total = 1000, .directory = "/tmp"};
    struct iovec part = {(void *)(uintptr_t)"hello", 5};
    leave(0);
    CHECK(!pw_output_spool(&output, &store, &part, 1));
    leave_all();
    CHECK(output.store == NULL && output.first == NULL);
    CHECK_INT(atomic_load(&store.spooled), 0);
    CHECK(pw_output_spool(&output, &store, &part, 1));
    CHECK_INT(atomic_load(&store.spooled), 5);
    pw_output_free(&output);
    CHECK_INT(atomic_load(&store.spooled), 0);
}

static void content_that_needs_a_file_is_refused(void)
{
    pw_settings settings = site_settings();
    settings.body_memory = 4;
    site_open(&site, &settings, AF_UNIX);
    test_client client = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    SEND(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    leave(0);
    CHECK_INT(site_next(&site), SITE_WAITS);
    leave_all();
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 507 ");
    pw_incident incident;
    CHECK_INT(pw_incident_take(site.server, &incident), 1);
    CHECK_INT(incident.what, PW_INCIDENT_STORAGE);
    CHECK_INT(incident.error, EMFILE);
    client_close(&client);
    site_close(&site);
}

/* With each number of free descriptors, pw_server_new makes a whole server or none. */
static void a_server_that_cannot_be_created_leaves_no_descriptor_open(void)
{
    pw_settings settings = site_settings();
    int before = count_open();
    bool made = false;
    for (int free = 0; free < 10 && !made; free++) {
        leave(free);
        pw_server *server = pw_server_new(&settings);
        int error = errno;
        leave_all();
        ABOUT("%d free", free);
        made = server != NULL;
        CHECK(made || error == EMFILE);
        CHECK(made == (count_open() > before));
        pw_server_free(server);
        CHECK_INT(count_open(), before);
    }
    CHECK(made);
}

static void the_server_listens_on_all_sockets_or_on_none(void)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
    int pair[2], count = site.server->accept.listener_count;
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    leave(0);
    CHECK_INT(pw_server_listen(site.server, site.listener), EMFILE);
    CHECK_INT(pw_server_share(site.server, pair[0], pair[1]), EMFILE);
    leave_all();
    CHECK_INT(site.server->accept.listener_count, count);
    CHECK_INT(site.server->transfer, -1);
    CHECK_INT(pw_server_listen(site.server, 999), EBADF);
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC), before = count_open();
    if (pw_server_listen(site.server, file) == EPERM) { /* epoll(7) does not accept a file */
        CHECK_INT(count_open(), before);
        CHECK_INT(site.server->accept.listener_count, count);
    }
    close(file);
    close(pair[0]);
    close(pair[1]);
    site_close(&site);
}

static void a_connection_from_another_process_is_lost(void)
{
    int pair[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
    test_client client = site_connect(&site);
    CHECK_INT(site_next(&site), SITE_WAITS);
    site.server->transfer = pair[1];
    CHECK(pw_transfer_send(site.server, site.server->all));
    site.server->transfer = -1;
    struct sockaddr_storage peer;
    pw_transferred more;
    leave(0);
    CHECK_INT(pw_transfer_receive(pair[0], &peer, &more, 1), -1);
    CHECK_INT(errno, EMFILE);
    leave_all();
    client_close(&client);
    close(pair[0]);
    close(pair[1]);
    site_close(&site);
}

int main(void)
{
    RUN(a_file_is_not_sent_and_the_output_does_not_change);
    RUN(the_application_reads_the_file_itself);
    RUN(the_spool_then_has_no_room);
    RUN(content_that_needs_a_file_is_refused);
    RUN(a_server_that_cannot_be_created_leaves_no_descriptor_open);
    RUN(the_server_listens_on_all_sockets_or_on_none);
    RUN(a_connection_from_another_process_is_lost);
    return check_end();
}
