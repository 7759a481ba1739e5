/* Responses that stream are cut off when the server does not wait for them. */
#include <string.h>
#include <unistd.h>

#include "audit.h"
#include "stage.h"

enum { GRACE_MS = 200, LOOK_MS = 100, STUCK_ONE = 1 << PW_WATCH_SHIFT };

static pw_settings settings;
static test_client client;
static int64_t length = -1;

static int64_t call_first(actor *self)
{
    return pw_send_first(self->thread, pw_thread_exchange(self->thread), LITERAL(HEAD_OK), length,
                         0, LITERAL("part"), 0);
}

static int64_t call_data(actor *self)
{
    return pw_send_data(self->thread, pw_thread_exchange(self->thread), LITERAL("more"), 0);
}

static int64_t call_end(actor *self)
{
    return pw_finish(self->thread, 0);
}

static int64_t call_cut(actor *self)
{
    return pw_finish(self->thread, 1);
}

/* The application has the request of the client in its only thread. */
static void begin_with(const char *request)
{
    settings = site_settings();
    settings.threads = 1;
    settings.timeout_graceful = 30000;
    stage_open(&settings);
    stage_begin();
    client = site_connect(&stage);
    client_send(&client, request, strlen(request));
    cast_settle();
    REQUIRE(has_request(serving[0]));
}

static void begin(int64_t promised)
{
    begin_with(GET("/stream"));
    length = promised;
    CHECK_INT(actor_call(serving[0], call_first), AT_HOME);
}

/* Lets so much time pass for the watcher. Returns whether it has found the drain over. */
static bool drain_ends_within(int ms)
{
    for (int64_t until = pw_now() + ms; pw_now() < until;) {
        if (watcher->at == AT_HOME && (watcher->result & PW_WATCH_MASK) == PW_WATCH_STOP)
            return true;
        REQUIRE(watcher->at != AT_HOME);
        if (watcher->at == AT_POLL || watcher->at == AT_SLEEP) {
            clock_forward_ms(2);
            cast_settle();
        } else {
            ticks(1);
        }
    }
    return false;
}

static void stop(void)
{
    pw_server_cut_streams(stage.server, GRACE_MS);
    pw_server_stop(stage.server, PW_DRAIN);
    cast_settle();
}

/* Ends the last response. The thread may first wait for the watcher, which runs the loop. */
static void finish(int64_t (*call)(actor *self))
{
    actor_call(serving[0], call);
    cast_settle();
    CHECK(drain_ends_within(20));
    CHECK_INT(serving[0]->at, AT_HOME);
    CHECK_INT(serving[0]->result, PW_STOP);
}

static void end(void)
{
    if (has_request(serving[0]))
        actor_call(serving[0], call_cut);
    client_close(&client);
    pw_incident incident;
    CHECK_INT(pw_incident_take(stage.server, &incident), 0);
    stage_close();
}

static void a_stream_is_closed_although_its_thread_does_not_come_back(void)
{
    begin(-1);
    CHECK_INT(pw_server_open(stage.server), 1);
    stop();
    CHECK(!drain_ends_within(LOOK_MS - 10));
    client_receive(&client);
    CHECK_HOLDS(&client.got, "4\r\npart\r\n");
    CHECK(!client.ended);
    CHECK(!drain_ends_within(20));
    client_receive(&client);
    CHECK(client.ended);
    CHECK_INT(pw_server_open(stage.server), 0);
    audit(stage.server);
    CHECK(!drain_ends_within(GRACE_MS - 30));
    CHECK(drain_ends_within(LOOK_MS + 40));
    CHECK_INT(watcher->result, PW_WATCH_STOP | STUCK_ONE);
    end();
}

static void a_thread_that_comes_back_ends_the_drain(void)
{
    begin(-1);
    stop();
    drain_ends_within(LOOK_MS + 10);
    CHECK_INT(actor_call(serving[0], call_data), AT_HOME);
    CHECK_INT(serving[0]->result, PW_GONE);
    finish(call_cut);
    CHECK_INT(watcher->result, PW_WATCH_STOP);
    end();
}

static void a_response_that_ends_soon_is_complete(void)
{
    begin(-1);
    stop();
    drain_ends_within(LOOK_MS / 2);
    CHECK_INT(actor_call(serving[0], call_data), AT_HOME);
    CHECK_INT(serving[0]->result, 0);
    finish(call_end);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "4\r\npart\r\n4\r\nmore\r\n0\r\n\r\n");
    end();
}

static void a_response_whose_bytes_are_all_here_is_not_cut_off(void)
{
    begin(4);
    CHECK_INT(serving[0]->result, PW_COMPLETE);
    stop();
    CHECK(!drain_ends_within(5 * LOOK_MS + GRACE_MS));
    CHECK_INT(pw_server_open(stage.server), 1);
    finish(call_end);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "\r\n\r\npart");
    end();
}

static void a_response_with_missing_bytes_is_cut_off(void)
{
    begin(100);
    stop();
    drain_ends_within(LOOK_MS + 10);
    client_receive(&client);
    CHECK(client.ended);
    end();
}

static void a_response_without_content_is_not_cut_off(void)
{
    begin_with("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    length = -1;
    CHECK_INT(actor_call(serving[0], call_first), AT_HOME);
    CHECK_INT(serving[0]->result, PW_UNWANTED);
    stop();
    CHECK(!drain_ends_within(5 * LOOK_MS + GRACE_MS));
    end();
}

static void a_request_that_computes_is_finished(void)
{
    begin_with(GET("/"));
    stop();
    CHECK(!drain_ends_within(5 * LOOK_MS + GRACE_MS));
    CHECK_INT(pw_server_open(stage.server), 1);
    serving[0]->head = HEAD_OK;
    serving[0]->body = "hello";
    finish(call_respond);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "\r\n\r\nhello");
    end();
}

static void a_response_that_begins_later_is_cut_off_too(void)
{
    begin_with(GET("/"));
    stop();
    drain_ends_within(3 * LOOK_MS);
    length = -1;
    CHECK_INT(actor_call(serving[0], call_first), AT_HOME);
    CHECK_INT(serving[0]->result, 0);
    drain_ends_within(2 * LOOK_MS + 10);
    client_receive(&client);
    CHECK(client.ended);
    end();
}

static void a_response_that_only_its_end_would_end_is_cut_off_too(void)
{
    begin_with("GET / HTTP/1.0\r\n\r\n");
    length = -1;
    CHECK_INT(actor_call(serving[0], call_first), AT_HOME);
    stop();
    drain_ends_within(LOOK_MS + 10);
    client_receive(&client);
    CHECK(client.ended);
    end();
}

static void the_shortest_time_for_the_threads_holds(void)
{
    begin(-1);
    pw_server_cut_streams(stage.server, 100000);
    pw_server_cut_streams(stage.server, 0);
    pw_server_cut_streams(stage.server, 100000);
    CHECK_INT(atomic_load(&stage.server->cut.grace), 1);
    pw_server_stop(stage.server, PW_LEAVE);
    cast_settle();
    CHECK(drain_ends_within(2 * LOOK_MS + 20));
    end();
}

static void a_server_that_is_not_asked_cuts_nothing(void)
{
    begin(-1);
    pw_server_stop(stage.server, PW_DRAIN);
    cast_settle();
    CHECK(!drain_ends_within(1000));
    client_receive(&client);
    CHECK(!client.ended);
    end();
}

static int64_t call_large(actor *self)
{
    static char large[1 << 20];
    return pw_send_data(self->thread, pw_thread_exchange(self->thread), large, sizeof large, 0);
}

static void a_thread_that_waits_for_its_client_is_freed(void)
{
    begin(-1);
    stage.server->response_buffer = 1000;
    stage.server->store.spool_most = 0;
    for (int i = 0; i < 100 && serving[0]->at == AT_HOME; i++)
        actor_call(serving[0], call_large);
    REQUIRE(serving[0]->at == AT_CLIENT);
    stop();
    drain_ends_within(LOOK_MS + 10);
    CHECK_INT(actor_go(serving[0]), AT_HOME);
    CHECK_INT(serving[0]->result, PW_GONE);
    end();
}

int main(void)
{
    RUN(a_stream_is_closed_although_its_thread_does_not_come_back);
    RUN(a_thread_that_comes_back_ends_the_drain);
    RUN(a_response_that_ends_soon_is_complete);
    RUN(a_response_whose_bytes_are_all_here_is_not_cut_off);
    RUN(a_response_with_missing_bytes_is_cut_off);
    RUN(a_response_without_content_is_not_cut_off);
    RUN(a_request_that_computes_is_finished);
    RUN(a_response_that_begins_later_is_cut_off_too);
    RUN(a_response_that_only_its_end_would_end_is_cut_off_too);
    RUN(the_shortest_time_for_the_threads_holds);
    RUN(a_server_that_is_not_asked_cuts_nothing);
    RUN(a_thread_that_waits_for_its_client_is_freed);
    return check_end();
}
