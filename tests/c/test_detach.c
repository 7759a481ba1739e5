/* csrc/detach.c: a connection that the application takes, and its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit.h"
#include "stage.h"

#define UPGRADE "GET /w HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: w\r\n\r\n"

static test_site site;
static test_client client;
static int64_t exchange;
static int taken; /* the application's descriptor */

static pw_thread *thread(void)
{
    return site.thread;
}

static void begin_with(const pw_settings *settings, const char *sent)
{
    site_open(&site, settings, AF_UNIX);
    client = site_connect(&site);
    client_send(&client, sent, strlen(sent));
    exchange = site_request(&site)->exchange;
    taken = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(taken >= 0);
}

static void begin(const char *sent)
{
    pw_settings settings = site_settings();
    begin_with(&settings, sent);
}

static void end(void)
{
    close(taken);
    client_close(&client);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 0);
    CHECK_INT(site.server->threads.detached, 0);
    site_close(&site);
}

static int32_t take(bool keeps)
{
    return pw_detach(thread(), exchange, taken, keeps);
}

static void check_exchanges_bytes(void)
{
    char got[5];
    SEND(&client, "there");
    CHECK_INT(recv(taken, got, sizeof got, 0), 5);
    CHECK(memcmp(got, "there", 5) == 0);
    CHECK_INT(send(taken, "back", 4, 0), 4);
    text_clear(&client.got);
    client_receive(&client);
    CHECK_TEXT(&client.got, "back");
    CHECK(!client.ended);
}

/* ------------------------------------------------------------------ the number of the request */

static void only_a_request_for_another_protocol_has_the_flag(void)
{
    static const struct {
        const char *fields;
        bool upgrade;
    } cases[] = {
        {"Connection: Upgrade\r\nUpgrade: w\r\n", true},
        {"upgrade: w\r\nconnection: keep-alive,\tUPGRADE\r\n", true},
        {"Connection: Upgrade\r\nConnection: x\r\nUpgrade: w\r\n", true},
        {"Connection: Upgrade\r\nUpgrade: w\r\nContent-Length: 0\r\n", true},
        {"Connection: Upgrade\r\nUpgrade: w\r\nX-Any: a\r\n", true},
        {"Connection: Upgrade\r\nUpgrade: w\r\nContent-Length: 1\r\n", false},
        {"Connection: Upgrade\r\nUpgrade: w\r\nTransfer-Encoding: chunked\r\n", false},
        {"Connection: Upgrades\r\nUpgrade: w\r\n", false},
        {"Connection: Upgrade\r\n", false},
        {"Upgrade: w\r\n", false},
        {"", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pw_settings settings = site_settings();
        site_open(&site, &settings, AF_UNIX);
        client = site_connect(&site);
        for (int again = 0; again < 3; again++) {
            SEND(&client, "GET / HTTP/1.1\r\nHost: a\r\n");
            client_send(&client, cases[i].fields, strlen(cases[i].fields));
            SEND(&client, "\r\n");
            if (strstr(cases[i].fields, "Length: 1") != NULL)
                SEND(&client, "x");
            if (strstr(cases[i].fields, "chunked") != NULL)
                SEND(&client, "0\r\n\r\n");
            int64_t number = site_next(&site);
            REQUIRE(number >= 0);
            CHECK_INT((number & PW_UPGRADE) != 0, cases[i].upgrade);
            CHECK(!cases[i].upgrade || (number & PW_KIND) == PW_NEW); /* it is not kept */
            bool other = strstr(cases[i].fields, "X-Any") != NULL;
            CHECK_INT((number & PW_OTHER_NAMES) != 0, other);
            site_see(&site, number);
            site_respond(&site, LITERAL("ok"), 0);
        }
        client_close(&client);
        site_close(&site);
    }
}

static void the_flag_is_in_the_number_of_a_changed_head_too(void)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
    client = site_connect(&site);
    for (int again = 0; again < 3; again++) {
        SEND(&client, GET("/"));
        CHECK(site_request(&site) != NULL);
        site_respond(&site, LITERAL("ok"), 0);
    }
    SEND(&client, UPGRADE);
    int64_t number = site_next(&site);
    CHECK_INT(number & PW_KIND, PW_CHANGED);
    CHECK(number & PW_UPGRADE);
    CHECK_HOLDS(&site_see(&site, number)->fields, "HTTP_UPGRADE: w\n");
    site_respond(&site, LITERAL("ok"), 0);
    SEND(&client, GET("/"));
    CHECK_INT(site_next(&site) & (PW_KIND | PW_UPGRADE), PW_SAME);
    site_respond(&site, LITERAL("ok"), 0);
    client_close(&client);
    site_close(&site);
}

static void an_old_version_has_no_upgrade(void)
{
    pw_settings settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
    client = site_connect(&site);
    SEND(&client, "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: w\r\n\r\n");
    CHECK_INT(site_next(&site) & PW_UPGRADE, 0);
    site_respond(&site, LITERAL("ok"), 0);
    client_close(&client);
    site_close(&site);
}

/* ------------------------------------------------------------------ taking */

static void the_server_forgets_the_connection(void)
{
    begin(UPGRADE);
    CHECK_INT(site.server->conn_count, 1);
    CHECK_INT(pw_family(thread(), exchange), AF_UNIX);
    CHECK_INT(pw_is_detached(thread(), exchange), 0);
    CHECK_INT(take(false), 0);
    CHECK_INT(pw_is_detached(thread(), exchange), 1);
    CHECK_INT(site.server->conn_count, 0);
    CHECK_INT(site.server->threads.detached, 1);
    CHECK_INT(pw_request_state(thread()), PW_REQUEST_NONE);
    CHECK_INT(pw_family(thread(), exchange), PW_OVER);
    CHECK_INT(pw_unread(thread(), exchange, NULL, 0), PW_OVER);
    CHECK_INT(take(false), PW_OVER);
    CHECK_INT(pw_client_gone(thread()), 0);
    CHECK(fcntl(taken, F_GETFD) & FD_CLOEXEC);
    CHECK((fcntl(taken, F_GETFL) & O_NONBLOCK) == 0);
    audit(site.server);
    check_exchanges_bytes();
    client_half_close(&client);
    CHECK_INT(pw_client_gone(thread()), 1);
    CHECK_INT(site_next(&site), SITE_WAITS); /* the thread comes back */
    CHECK_INT(site.server->conn_count, 0);
    client_receive(&client);
    CHECK(client.ended);
    end();
}

static void the_bytes_after_the_request_are_handed_over(void)
{
    char rest[8] = "";
    begin(UPGRADE "early" GET("/"));
    CHECK(pw_unread(thread(), exchange, NULL, 0) == (int64_t)(5 + strlen(GET("/"))));
    CHECK(pw_unread(thread(), exchange, rest, 5) == (int64_t)(5 + strlen(GET("/"))));
    CHECK(strcmp(rest, "early") == 0);
    CHECK_INT(take(false), 0);
    check_exchanges_bytes();
    CHECK_INT(site_next(&site), SITE_WAITS); /* no request of the rest */
    end();
}

static void without_more_bytes_there_is_no_rest(void)
{
    begin(UPGRADE);
    CHECK_INT(pw_unread(thread(), exchange, NULL, 0), 0);
    CHECK_INT(pw_unread(thread(), exchange + 1, NULL, 0), PW_OVER);
    CHECK_INT(take(false), 0);
    end();
}

static void another_exchange_has_no_connection(void)
{
    begin(UPGRADE);
    CHECK_INT(pw_detach(thread(), exchange + 1, taken, 0), PW_OVER);
    CHECK_INT(pw_detach(thread(), 0, taken, 0), PW_OVER);
    CHECK_INT(pw_is_detached(thread(), 0), 0);
    pw_detached_end(thread(), exchange);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, OK("ok", "2"));
    CHECK_INT(take(false), PW_OVER);
    end();
}

static void a_response_that_has_begun_keeps_the_connection(void)
{
    begin(UPGRADE);
    CHECK_INT(site_send_head(&site, HEAD_OK "Content-Length: 2\r\n", 2), 0);
    CHECK_INT(take(false), PW_REFUSED);
    CHECK_INT(site_send(&site, LITERAL("ok"), 0), PW_COMPLETE);
    CHECK_INT(site_finish(&site, false), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, OK("ok", "2"));
    end();
}

static void a_client_that_has_gone_has_no_connection(void)
{
    begin(UPGRADE);
    client_close(&client);
    CHECK_INT(take(false), PW_GONE);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 0);
    client = site_connect(&site);
    end();
}

static void a_descriptor_that_is_not_open_is_an_error(void)
{
    begin(UPGRADE);
    CHECK_INT(pw_detach(thread(), exchange, -1, 0), PW_GONE);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), SITE_WAITS);
    pw_incident incident;
    CHECK_INT(pw_incident_take(site.server, &incident), 1);
    CHECK_INT(incident.what, PW_INCIDENT_ERROR);
    CHECK_INT(incident.error, EBADF);
    end();
}

/* ------------------------------------------------------------------ the ignored response */

static void a_whole_response_is_dropped(void)
{
    begin(UPGRADE);
    CHECK_INT(take(false), 0);
    check_exchanges_bytes();
    text_clear(&client.got);
    CHECK_INT(site_respond(&site, LITERAL("ignored"), 0), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, "");
    CHECK(client.ended);
    end();
}

static void a_lent_response_is_dropped_and_named(void)
{
    begin(UPGRADE);
    CHECK_INT(take(false), 0);
    site_lend(&site);
    CHECK_INT(site_respond(&site, LITERAL("ignored"), 0), SITE_WAITS);
    CHECK_INT(site.sent_count, 1);
    CHECK(site.sent[0] == exchange);
    end();
}

static void parts_are_dropped_and_after_some_of_them_not_wanted(void)
{
    begin(UPGRADE);
    CHECK_INT(take(false), 0);
    CHECK_INT(site_send_head(&site, HEAD_OK, -1), 0);
    CHECK_INT(pw_send_file(thread(), taken, 0, 1), 0);
    CHECK_INT(pw_check_client(thread(), exchange), 0);
    CHECK_INT(pw_content_missing(thread()), 0);
    int wanted = 3;
    while (wanted < 1000 && site_send(&site, LITERAL("ignored"), 0) == 0)
        wanted++;
    CHECK_INT(wanted, 64);
    CHECK_INT(site_send(&site, LITERAL("ignored"), 0), PW_UNWANTED);
    CHECK_INT(pw_check_client(thread(), exchange), PW_UNWANTED);
    CHECK_INT(site_finish(&site, false), SITE_WAITS);
    client_receive(&client);
    CHECK_TEXT(&client.got, "");
    CHECK(client.ended);
    CHECK_INT(pw_check_client(thread(), exchange + 1), PW_OVER);
    end();
}

static void lent_parts_are_named_at_the_end(void)
{
    begin(UPGRADE);
    CHECK_INT(take(false), 0);
    site_lend(&site);
    CHECK_INT(site_send_head(&site, HEAD_OK, -1), 0);
    pw_send_end(thread(), 0);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.sent_count, 1);
    end();
}

/* ------------------------------------------------------------------ the end */

static void the_application_ends_the_connection(void)
{
    begin(UPGRADE);
    CHECK_INT(take(false), 0);
    CHECK_INT(send(taken, "last", 4, 0), 4);
    pw_detached_end(thread(), exchange + 1);
    CHECK_INT(site.server->threads.detached, 1);
    pw_detached_end(thread(), exchange);
    pw_detached_end(thread(), exchange);
    CHECK_INT(site.server->threads.detached, 0);
    client_receive(&client);
    CHECK_TEXT(&client.got, "last");
    CHECK(client.ended);
    CHECK_INT(pw_is_detached(thread(), exchange), 1);
    CHECK_INT(pw_client_gone(thread()), 1);
    end();
}

static void the_rest_of_the_clients_bytes_is_dropped_at_the_end(void)
{
    begin(UPGRADE);
    CHECK_INT(take(false), 0);
    SEND(&client, "never read");
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(site.server->conn_count, 1); /* it waits for the client's end */
    CHECK_INT(site.server->all->state, PW_CONN_LINGER);
    CHECK((fcntl(taken, F_GETFL) & O_NONBLOCK) != 0);
    client_receive(&client);
    CHECK(client.ended);
    end();
}

static void a_connection_that_is_taken_for_good_stays_open(void)
{
    begin(UPGRADE "early");
    CHECK_INT(take(true), 0);
    CHECK_INT(site.server->conn_count, 0);
    CHECK_INT(site.server->threads.detached, 0);
    CHECK_INT(pw_is_detached(thread(), exchange), 1);
    pw_detached_end(thread(), exchange);
    CHECK_INT(site_respond(&site, LITERAL("ignored"), 0), SITE_WAITS);
    check_exchanges_bytes();
    end();
}

static void a_server_that_is_freed_ends_the_connections(void)
{
    begin(UPGRADE);
    CHECK_INT(take(false), 0);
    site_close(&site);
    client_receive(&client);
    CHECK(client.ended);
    close(taken);
    client_close(&client);
}

/* ------------------------------------------------------------------ a server that stops */

static void a_server_that_drains_shuts_the_connection_for_reading(void)
{
    char got;
    begin(UPGRADE);
    CHECK_INT(take(false), 0);
    pw_server_stop(site.server, PW_DRAIN);
    /* Another thread runs the loop. */
    pw_thread *another = pw_thread_new(site.server, 1), *own = site.thread;
    site.thread = another;
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(recv(taken, &got, 1, MSG_DONTWAIT), 0);
    CHECK_INT(send(taken, "last", 4, 0), 4);
    CHECK(!site.server->stopped);
    pw_detached_end(own, exchange);
    CHECK_INT(site_next(&site), PW_STOP);
    client_receive(&client);
    CHECK_TEXT(&client.got, "last");
    CHECK(client.ended);
    site.thread = own;
    pw_thread_free(another);
    close(taken);
    client_close(&client);
    site_close(&site);
}

static void at_the_deadline_the_connection_is_shut(void)
{
    pw_settings settings = site_settings();
    settings.timeout_graceful = 1;
    begin_with(&settings, UPGRADE);
    CHECK_INT(take(false), 0);
    pw_server_stop(site.server, PW_DRAIN);
    pw_thread *another = pw_thread_new(site.server, 1), *own = site.thread;
    site.thread = another;
    int64_t number = SITE_WAITS;
    for (int i = 0; i < 1000 && number == SITE_WAITS; i++) {
        site_sleep(1);
        number = site_next(&site);
    }
    CHECK_INT(number, PW_STOP);
    CHECK_INT(send(taken, "late", 4, MSG_NOSIGNAL), -1);
    CHECK_INT(errno, EPIPE);
    client_receive(&client);
    CHECK(client.ended);
    CHECK_INT(site.server->threads.detached, 1);
    site.thread = own;
    CHECK_INT(site_next(&site), PW_STOP);
    CHECK_INT(site.server->threads.detached, 0);
    CHECK_INT(site.server->conn_count, 0);
    pw_thread_free(another);
    close(taken);
    client_close(&client);
    site_close(&site);
}

static void a_server_that_has_stopped_gives_no_connection_away(void)
{
    begin(UPGRADE);
    pw_server_stop(site.server, PW_END);
    pw_thread *another = pw_thread_new(site.server, 1), *own = site.thread;
    site.thread = another;
    CHECK_INT(site_next(&site), PW_STOP);
    site.thread = own;
    CHECK_INT(take(false), PW_GONE);
    CHECK_INT(site_respond(&site, LITERAL("ok"), 0), PW_STOP);
    pw_thread_free(another);
    close(taken);
    client_close(&client);
    site_close(&site);
}

static void a_connection_that_is_taken_during_the_drain_reads_the_end(void)
{
    char got;
    begin(UPGRADE);
    pw_server_stop(site.server, PW_DRAIN);
    pw_thread *another = pw_thread_new(site.server, 1), *own = site.thread;
    site.thread = another;
    CHECK_INT(site_next(&site), SITE_WAITS);
    site.thread = own;
    CHECK_INT(take(false), 0);
    CHECK_INT(recv(taken, &got, 1, MSG_DONTWAIT), 0);
    pw_detached_end(own, exchange);
    site.thread = another; /* which has the token */
    CHECK_INT(site_next(&site), PW_STOP);
    site.thread = own;
    pw_thread_free(another);
    close(taken);
    client_close(&client);
    site_close(&site);
}

static void a_forked_child_closes_the_connection(void)
{
    begin(UPGRADE);
    CHECK_INT(take(false), 0);
    int fd = site.thread->detached.conn->fd;
    pw_server_hold(site.server);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        pw_server_forked(site.server);
        bool closed = fcntl(fd, F_GETFD) < 0 && fcntl(taken, F_GETFD) >= 0;
        pw_detached_end(site.thread, exchange);
        _exit(closed && pw_next(site.thread) == PW_STOP ? 0 : 1);
    }
    pw_server_unhold(site.server);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    check_exchanges_bytes();
    end();
}

/* ------------------------------------------------------------------ slow requests */

static int64_t call_detach(actor *self)
{
    return pw_detach(self->thread, pw_thread_exchange(self->thread), taken, 0);
}

/* One thread, with a request. */
static void begin_stage(pw_settings *settings, const char *path)
{
    settings->threads = 1;
    stage_open(settings);
    stage_begin();
    taken = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    client = ask(path);
    cast_settle();
    REQUIRE(has_request(serving[0]));
}

static void end_stage(void)
{
    actor_call(serving[0], call_next);
    close(taken);
    client_close(&client);
    ticks(3);
    stage_close();
}

static void its_request_is_never_slow_or_stuck(void)
{
    pw_settings settings = site_settings();
    settings.timeout_request = 1000;
    begin_stage(&settings, "/w");
    CHECK_INT(actor_call(serving[0], call_detach), AT_HOME);
    CHECK_INT(serving[0]->result, 0);
    for (int i = 0; i < 5; i++) {
        clock_forward_ms(1100);
        ticks(3);
        CHECK(watcher->at != AT_HOME);
        CHECK_INT(serving[0]->thread->warned, 0);
    }
    end_stage();
}

static void slow_earlier_responses_are_sent_first(void)
{
    static char large[2 << 20];
    pw_settings settings = site_settings();
    settings.timeout_write = 5000;
    begin_stage(&settings, "/one");
    pw_conn *conn = serving[0]->thread->conn;
    REQUIRE(pw_output_copy(&conn->output, large, sizeof large));
    CHECK_INT(actor_call(serving[0], call_detach), AT_CLIENT);
    clock_forward_ms(4000);
    client_receive(&client);
    CHECK_INT(actor_go(serving[0]), AT_CLIENT);
    CHECK(conn->output.size > 0);
    while (serving[0]->at == AT_CLIENT) {
        client_receive(&client);
        actor_go(serving[0]);
    }
    CHECK_INT(serving[0]->result, 0);
    client_receive(&client);
    CHECK_INT(client.got.size, sizeof large);
    end_stage();
}

static void a_client_that_does_not_read_earlier_responses_has_gone(void)
{
    static char large[2 << 20];
    pw_settings settings = site_settings();
    settings.timeout_write = 5000;
    begin_stage(&settings, "/one");
    REQUIRE(pw_output_copy(&serving[0]->thread->conn->output, large, sizeof large));
    CHECK_INT(actor_call(serving[0], call_detach), AT_CLIENT);
    clock_forward_ms(5001);
    CHECK_INT(actor_go(serving[0]), AT_HOME);
    CHECK_INT(serving[0]->result, PW_GONE);
    CHECK_INT(stage.server->threads.detached, 0);
    end_stage();
}

int main(void)
{
    RUN(only_a_request_for_another_protocol_has_the_flag);
    RUN(the_flag_is_in_the_number_of_a_changed_head_too);
    RUN(an_old_version_has_no_upgrade);
    RUN(the_server_forgets_the_connection);
    RUN(the_bytes_after_the_request_are_handed_over);
    RUN(without_more_bytes_there_is_no_rest);
    RUN(another_exchange_has_no_connection);
    RUN(a_response_that_has_begun_keeps_the_connection);
    RUN(a_client_that_has_gone_has_no_connection);
    RUN(a_descriptor_that_is_not_open_is_an_error);
    RUN(a_whole_response_is_dropped);
    RUN(a_lent_response_is_dropped_and_named);
    RUN(parts_are_dropped_and_after_some_of_them_not_wanted);
    RUN(lent_parts_are_named_at_the_end);
    RUN(the_application_ends_the_connection);
    RUN(the_rest_of_the_clients_bytes_is_dropped_at_the_end);
    RUN(a_connection_that_is_taken_for_good_stays_open);
    RUN(a_server_that_is_freed_ends_the_connections);
    RUN(a_server_that_drains_shuts_the_connection_for_reading);
    RUN(at_the_deadline_the_connection_is_shut);
    RUN(a_server_that_has_stopped_gives_no_connection_away);
    RUN(a_connection_that_is_taken_during_the_drain_reads_the_end);
    RUN(a_forked_child_closes_the_connection);
    RUN(its_request_is_never_slow_or_stuck);
    RUN(slow_earlier_responses_are_sent_first);
    RUN(a_client_that_does_not_read_earlier_responses_has_gone);
    return check_end();
}
