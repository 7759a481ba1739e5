/* csrc/server.c: which settings are refused, and that each one is used. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buffer.h"
#include "conn_balance.h"
#include "site.h"
#include "system.h"

enum { HEAD_MOST = 1 << 22 };

static bool is_accepted(const pw_settings *settings)
{
    errno = 0;
    pw_server *server = pw_server_new(settings);
    if (server == NULL)
        CHECK_INT(errno, EINVAL);
    pw_server_free(server);
    return server != NULL;
}

static void sizes_out_of_their_range_are_refused(void)
{
    pw_settings settings = site_settings();
    const int64_t heads[] = {0, 1, HEAD_MOST, HEAD_MOST + 1};
    const int32_t fields[] = {0, 1, PW_FIELDS_MOST, PW_FIELDS_MOST + 1};
    for (int i = 0; i < 4; i++) {
        ABOUT("case %d", i);
        settings = site_settings();
        settings.max_head_size = (int32_t)heads[i];
        CHECK(is_accepted(&settings) == (i == 1 || i == 2));
        settings = site_settings();
        settings.max_fields = fields[i];
        CHECK(is_accepted(&settings) == (i == 1 || i == 2));
    }
    for (int32_t connections = -1; connections <= 1; connections++) {
        settings = site_settings();
        settings.max_connections = connections;
        CHECK(is_accepted(&settings) == (connections == 1));
    }
}

static void memory_for_heads_is_at_least_enough_for_one(void)
{
    pw_settings settings = site_settings();
    const int64_t least = 2 * 1000 + PW_BUFFER_SIZE;
    settings.max_head_size = 1000;
    for (int64_t asked = least - 1; asked <= least + 1; asked++) {
        settings.head_memory_total = asked;
        pw_server *server = pw_server_new(&settings);
        REQUIRE(server != NULL);
        CHECK_INT(server->head_memory, asked > least ? asked : least);
        pw_server_free(server);
    }
}

/* All values differ, so that no setting can be mistaken for another. */
static void each_setting_reaches_its_part(void)
{
    pw_network network = {PW_NETWORK_V4, 8, {10}};
    pw_settings settings = {
        .max_head_size = 1001,
        .head_memory_total = 1 << 20,
        .max_fields = 102,
        .max_body_size = 1003,
        .underscore_fields = PW_UNDERSCORE_ALLOW,
        .body_memory = 1004,
        .body_memory_total = 1005,
        .response_buffer = 1006,
        .response_spool = 1007,
        .response_spool_total = 1008,
        .max_connections = 109,
        .threads = 10,
        .gil = 1,
        .timeout_head = 1011,
        .timeout_body = 1012,
        .timeout_write = 1013,
        .timeout_keep_alive = 1014,
        .timeout_drain = 1015,
        .timeout_queue = 1016,
        .timeout_request = 1017,
        .timeout_graceful = 1018,
        .access_file = -1,
        .access_json = 1,
        .access_program = "\13\0\0", /* PW_ATOM_STATUS */
        .access_program_size = 3,
        .health_path = "/health",
        .live_path = "",
        .root_path = "/root",
        .drop_forwarded = 1,
        .trusted = &network,
        .trusted_count = 1,
        .temporary_directory = "/tmp",
    };
    pw_server *server = pw_server_new(&settings);
    REQUIRE(server != NULL);
    CHECK_INT(server->limits.max_head_size, 1001);
    CHECK_INT(server->limits.max_fields, 102);
    CHECK_INT(server->limits.max_body_size, 1003);
    CHECK_INT(server->store.size_most, 1003);
    CHECK_INT(server->limits.underscore_fields, PW_UNDERSCORE_ALLOW);
    CHECK_INT(server->limits.forwarding, PW_FORWARDING_READ);
    CHECK_INT(server->other_limits.forwarding, PW_FORWARDING_DROP);
    CHECK_INT(server->other_limits.max_head_size, 1001);
    CHECK(strcmp(server->root, "/root") == 0);
    network.bits = 9; /* the server has a copy */
    CHECK_INT(server->trust.count, 1);
    CHECK_INT(server->trust.at[0].bits, 8);
    CHECK_INT(server->store.memory_most, 1004);
    CHECK_INT(server->store.memory_total, 1005);
    CHECK_INT(server->response_buffer, 1006);
    CHECK_INT(server->store.spool_most, 1007);
    CHECK_INT(server->store.spool_total, 1008);
    CHECK_INT(server->accept.max_connections, 109);
    CHECK_INT(server->threads.most, 10);
    CHECK(server->token.has_gil && server->queue_ends);
    CHECK_INT(server->timers.length[PW_TIMER_HEAD], 1011);
    CHECK_INT(server->timers.length[PW_TIMER_BODY], 1012);
    CHECK_INT(server->timers.length[PW_TIMER_WRITE], 1013);
    CHECK_INT(server->timers.length[PW_TIMER_KEEP_ALIVE], 1014);
    CHECK_INT(server->timers.length[PW_TIMER_DRAIN], 1015);
    CHECK_INT(server->timers.length[PW_TIMER_QUEUE], 1016);
    CHECK_INT(server->watch.timeout_request, 1017);
    CHECK_INT(server->timeout_graceful, 1018);
    CHECK_INT(server->access.fd, -1);
    CHECK(server->access.json && !server->access.prompt && !server->access.wants_head);
    CHECK_INT(server->access.program_size, 3);
    CHECK(strcmp(server->health, "/health") == 0 && strcmp(server->directory, "/tmp") == 0);
    CHECK(server->accept.place == NULL);
    pw_server_free(server);
    settings.gil = 0;
    settings.drop_forwarded = 0;
    settings.timeout_queue = 0;
    settings.access_json = 0;
    settings.access_prompt = 1;
    settings.access_program = "\13\0\0\23\0\1x"; /* PW_ATOM_RESPONSE_FIELD */
    settings.access_program_size = 7;
    server = pw_server_new(&settings);
    REQUIRE(server != NULL);
    CHECK(!server->token.has_gil && !server->queue_ends);
    CHECK(!server->access.json && server->access.prompt && server->access.wants_head);
    pw_server_free(server);
}

static void a_stop_is_as_urgent_as_its_most_urgent_request(void)
{
    pw_settings settings = site_settings();
    for (int32_t first = PW_DRAIN; first <= PW_END; first++)
        for (int32_t second = PW_DRAIN; second <= PW_END; second++) {
            pw_server *server = pw_server_new(&settings);
            REQUIRE(server != NULL);
            pw_server_stop(server, first);
            pw_server_stop(server, second);
            CHECK_INT(atomic_load(&server->stopping), first > second ? first : second);
            struct pollfd wake = {.fd = server->wake[0], .events = POLLIN};
            CHECK_INT(poll(&wake, 1, 0), 1); /* each wakes the loop */
            pw_server_free(server);
        }
}

static void a_wake_up_changes_no_errno_and_never_waits(void)
{
    pw_settings settings = site_settings();
    pw_server *server = pw_server_new(&settings);
    REQUIRE(server != NULL);
    errno = ENOENT;
    for (int i = 0; i < 100000; i++) /* more than a pipe takes */
        pw_server_wake(server);
    CHECK_INT(errno, ENOENT);
    CHECK_INT(pw_server_requests(server), 0);
    pw_server_free(server);
}

static void sockets_have_a_limit(void)
{
    pw_settings settings = site_settings();
    pw_server *server = pw_server_new(&settings);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    REQUIRE(server != NULL && listener >= 0);
    enum { MOST = 64 };
    for (int i = 0; i < MOST; i++)
        CHECK_INT(pw_server_listen(server, listener), 0);
    CHECK_INT(pw_server_listen(server, listener), EMFILE);
    CHECK_INT(server->accept.listener_count, MOST);
    for (int i = 0; i < MOST; i++) {
        CHECK((fcntl(server->accept.listeners[i].fd, F_GETFD) & FD_CLOEXEC) != 0);
        CHECK(server->accept.listeners[i].is_polled && !server->accept.listeners[i].is_channel);
    }
    close(listener);
    pw_server_free(server);
}

static void a_pair_of_sockets_is_a_channel(void)
{
    pw_settings settings = site_settings();
    pw_server *server = pw_server_new(&settings);
    int pair[2];
    REQUIRE(server != NULL);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK_INT(pw_server_share(server, pair[0], pair[1]), 0);
    CHECK_INT(server->accept.listener_count, 1);
    CHECK(server->accept.listeners[0].is_channel);
    CHECK(server->transfer >= 0 && server->transfer != pair[1]);
    CHECK((fcntl(server->transfer, F_GETFD) & FD_CLOEXEC) != 0);
    pw_server_free(server);
    CHECK(fcntl(pair[0], F_GETFD) >= 0 && fcntl(pair[1], F_GETFD) >= 0); /* the caller's */
    close(pair[0]);
    close(pair[1]);
}

static void a_server_among_others_has_a_place_until_its_end(void)
{
    pw_settings settings = site_settings();
    settings.balance = pw_balance_new();
    REQUIRE(settings.balance != NULL);
    pw_server *server = pw_server_new(&settings);
    REQUIRE(server != NULL && server->accept.place != NULL);
    const pw_place *place = server->accept.place;
    CHECK_INT(atomic_load(&place->process), getpid());
    pw_server_free(server);
    CHECK_INT(atomic_load(&place->process), 0);
    pw_balance_free(settings.balance);
}

static void a_forked_child_has_nothing_of_the_server(void)
{
    static test_site site;
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
    test_client client = site_connect(&site);
    SEND(&client, GET("/"));
    site_request(&site);
    pw_server *server = site.server;
    /* A child does not inherit a kqueue(2), but it inherits the epoll(7) that stands for one here. */
    const int open[] = {server->wake[0], server->wake[1], server->accept.listeners[0].fd,
                        server->all->fd, PW_LINUX ? server->poll.fd : -1};
    pw_server_forked(server); /* not between hold and unhold: does nothing */
    CHECK(!server->forked);
    pw_server_unhold(server);
    pw_server_hold(server);
    pw_server_hold(server); /* a second call changes nothing */
    CHECK(server->held_for_fork);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        int failures = 0;
        pw_incident incident;
        pw_server_forked(server);
        pw_server_forked(server);
        for (size_t i = 0; i < sizeof open / sizeof open[0]; i++)
            failures += open[i] >= 0 && fcntl(open[i], F_GETFD) >= 0;
        pw_server_wake(server);
        pw_server_stop(server, PW_END);
        failures += pw_next(site.thread) != PW_STOP;
        failures += pw_request_state(site.thread) != PW_REQUEST_NONE;
        failures += pw_incident_take(server, &incident) != 0;
        failures += pw_news(site.thread) != -1;
        failures += pw_watch(server) != PW_WATCH_STOP;
        pw_thread_free(site.thread);
        pw_server_free(server);
        _exit(failures);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
    pw_server_unhold(server);
    CHECK(!server->held_for_fork);
    CHECK_INT(site_respond(&site, "ok", 2, 0), SITE_WAITS); /* the parent continues */
    client_receive(&client);
    CHECK_HOLDS(&client.got, "\r\n\r\nok");
    client_close(&client);
    site_close(&site);
}

int main(void)
{
    RUN(sizes_out_of_their_range_are_refused);
    RUN(memory_for_heads_is_at_least_enough_for_one);
    RUN(each_setting_reaches_its_part);
    RUN(a_stop_is_as_urgent_as_its_most_urgent_request);
    RUN(a_wake_up_changes_no_errno_and_never_waits);
    RUN(sockets_have_a_limit);
    RUN(a_pair_of_sockets_is_a_channel);
    RUN(a_server_among_others_has_a_place_until_its_end);
    RUN(a_forked_child_has_nothing_of_the_server);
    return check_end();
}
