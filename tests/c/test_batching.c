/* csrc/batch.c: a response leaves with the next one, with the next
 * part, or when the watcher sends it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "batch.h"
#include "incident.h"
#include "stage.h"

enum { GATHERED_MOST = 16384, WAITING_MOST = 16384, SLOW_TICKS = 16, LOOK_MS = 20 };

static pw_settings settings;
static char large[1 << 20];

static void begin_with(int32_t threads)
{
    settings.threads = threads;
    stage_open(&settings);
    stage_begin();
}

static void begin(void)
{
    settings = site_settings();
    begin_with(1);
}

/* ------------------------------------------------------------------ calls */

typedef struct {
    const char *data;
    size_t size;
    int32_t flags;
    int64_t length; /* the Content-Length, of the first part */
} part;

static int64_t call_first(actor *self)
{
    const part *what = self->with;
    return pw_send_first(self->thread, pw_thread_exchange(self->thread), LITERAL(HEAD_OK),
                         what->length, 0, what->data, (int64_t)what->size, what->flags);
}

static int64_t call_data(actor *self)
{
    const part *what = self->with;
    return pw_send_data(self->thread, pw_thread_exchange(self->thread), what->data,
                        (int64_t)what->size, what->flags);
}

static int64_t call_finish(actor *self)
{
    return pw_finish(self->thread, 0);
}

/* Sends chunks, the first one with the head. */
static int64_t send_part(int64_t (*call)(actor *self), const char *data, size_t size)
{
    const part what = {data, size, 0, -1};
    serving[0]->with = &what;
    CHECK_INT(actor_call(serving[0], call), AT_HOME);
    audit(stage.server);
    return serving[0]->result;
}

static size_t got(test_client *client)
{
    client_receive(client);
    return client->got.size;
}

/* A client whose request the first thread has. The client has the head and the part "first". */
static test_client begin_stream(void)
{
    test_client client = ask("/stream");
    cast_settle();
    CHECK(has_request(serving[0]));
    CHECK_INT(send_part(call_first, LITERAL("first")), 0);
    CHECK(got(&client) > 0);
    CHECK_HOLDS(&client.got, "5\r\nfirst\r\n"); /* the first part never waits */
    return client;
}

/* The same, while another thread has the token. */
static test_client begin_stream_beside(void)
{
    settings = site_settings();
    settings.response_buffer = 4 << 20;
    begin_with(2);
    test_client client = begin_stream();
    stage_start_wanted(1);
    CHECK_INT(serving[1]->at, AT_POLL);
    return client;
}

static void end_stream(test_client *client)
{
    actor_call(serving[0], call_finish);
    audit(stage.server);
    check_answer(client, "0\r\n\r\n");
}

/* ------------------------------------------------------------------ parts of a stream */

static void parts_of_one_tick_leave_together_in_the_next(void)
{
    begin();
    test_client client = begin_stream();
    size_t before = got(&client);
    CHECK_INT(send_part(call_data, LITERAL("second")), 0);
    CHECK_INT(send_part(call_data, LITERAL("third")), 0);
    CHECK_INT(got(&client), before);
    CHECK_INT(stage.server->batch.count, 1);
    ticks(1);
    CHECK(got(&client) > before);
    CHECK_HOLDS(&client.got, "6\r\nsecond\r\n5\r\nthird\r\n");
    CHECK_INT(stage.server->batch.count, 0);
    before = client.got.size;
    CHECK_INT(send_part(call_data, LITERAL("fourth")), 0); /* in the same tick as the others */
    CHECK_INT(got(&client), before);
    ticks(1);
    CHECK(got(&client) > before);
    ticks(1);
    before = client.got.size;
    CHECK_INT(send_part(call_data, LITERAL("fifth")), 0); /* in a tick of its own */
    CHECK(got(&client) > before);
    end_stream(&client);
    stage_close();
}

static void the_first_part_of_a_response_leaves_at_once_in_any_tick(void)
{
    for (int count = 0; count < 4; count++) {
        begin();
        ticks(count);
        CHECK_INT(stage.server->watch.ticks, count);
        test_client client = begin_stream();
        end_stream(&client);
        stage_close();
    }
}

static void gathered_parts_leave_with_the_end(void)
{
    begin();
    test_client client = begin_stream();
    CHECK_INT(send_part(call_data, LITERAL("second")), 0);
    CHECK_INT(actor_call(serving[0], call_finish), AT_POLL);
    audit(stage.server);
    CHECK_INT(stage.server->batch.count, 0);
    check_answer(&client, "6\r\nsecond\r\n0\r\n\r\n");
    stage_close();
}

static void no_more_than_16_kib_are_gathered(void)
{
    for (int more = 0; more < 2; more++) {
        settings = site_settings();
        settings.response_buffer = 100; /* above that the thread waits for the client */
        begin_with(1);
        test_client client = begin_stream();
        size_t before = got(&client);
        CHECK_INT(send_part(call_data, large, 384), 0); /* "180\r\n" and CRLF: 391 */
        size_t left = GATHERED_MOST - 391;
        ABOUT("%d more", more);
        CHECK_INT(send_part(call_data, large, left + (size_t)more), 0);
        CHECK(more ? got(&client) > before : got(&client) == before);
        end_stream(&client);
        stage_close();
    }
}

static void a_client_that_reads_nothing_is_tried_again_16_ticks_later(void)
{
    test_client client = begin_stream_beside();
    CHECK_INT(send_part(call_data, large, sizeof large), 0); /* more than the system takes */
    pw_conn *conn = stage.server->all;
    CHECK(conn->output.first != NULL && (conn->response.state == PW_RESPONSE_BATCHED));
    CHECK_INT(stage.server->batch.count, 1);
    int64_t due = conn->response.batch_due;
    CHECK_INT(due, stage.server->watch.ticks + 1);
    ticks(1);
    CHECK_INT(conn->response.batch_due, stage.server->watch.ticks + SLOW_TICKS);
    CHECK_INT(conn->response.sent_tick, stage.server->watch.ticks);
    size_t before = got(&client); /* there is room again */
    ticks(SLOW_TICKS - 1);
    CHECK_INT(got(&client), before);
    ticks(1);
    CHECK(got(&client) > before);
    CHECK_INT(conn->response.batch_due, stage.server->watch.ticks + 1);
    for (int i = 0; i < 100 && (conn->response.state == PW_RESPONSE_BATCHED); i++) {
        ticks(1);
        got(&client);
    }
    CHECK(conn->response.state != PW_RESPONSE_BATCHED);
    CHECK_INT(stage.server->batch.count, 0);
    end_stream(&client);
    stage_close();
}

static void the_watcher_that_runs_the_loop_sends_parts_every_20_ms(void)
{
    begin();
    test_client client = begin_stream();
    ticks(3);
    CHECK_INT(watcher->at, AT_POLL); /* there is only one thread, and it is in the application */
    CHECK(stage.server->token.holder == stage.server->watch.thread);
    CHECK(watcher->due < 0 || watcher->due > pw_now() + LOOK_MS);
    size_t before = got(&client);
    CHECK_INT(send_part(call_data, LITERAL("second")), 0);
    CHECK(got(&client) > before);
    CHECK_INT(send_part(call_data, large, sizeof large), 0);
    CHECK((stage.server->all->response.state == PW_RESPONSE_BATCHED));
    cast_settle();
    CHECK_INT(watcher->due, pw_now() + LOOK_MS);
    before = got(&client);
    clock_forward_ms(LOOK_MS - 1);
    cast_settle();
    CHECK_INT(got(&client), before);
    clock_forward_ms(1);
    cast_settle();
    CHECK(got(&client) > before);
    for (int i = 0; i < 100 && stage.server->batch.count > 0; i++) {
        clock_forward_ms(LOOK_MS);
        cast_settle();
        got(&client);
    }
    CHECK_INT(stage.server->batch.count, 0);
    end_stream(&client);
    stage_close();
}

static void a_kept_part_wakes_a_sleeping_watcher(void)
{
    test_client client = begin_stream_beside();
    ticks(60);
    CHECK_INT(watcher->at, AT_SLEEP);
    CHECK_INT(send_part(call_data, large, sizeof large), 0);
    CHECK(watcher->signalled);
    cast_settle();
    CHECK_INT(watcher->at, AT_TICK);
    for (int i = 0; i < 400 && stage.server->batch.count > 0; i++) {
        ticks(1);
        got(&client);
    }
    CHECK_INT(stage.server->batch.count, 0);
    actor_call(serving[0], call_finish);
    check_answer(&client, "0\r\n\r\n");
    stage_close();
}

static void a_client_that_resets_while_parts_are_kept_ends_its_response(void)
{
    test_client client = begin_stream_beside();
    CHECK_INT(send_part(call_data, large, sizeof large), 0);
    CHECK_INT(stage.server->batch.count, 1);
    client_close(&client);
    ticks(1);
    CHECK_INT(stage.server->batch.count, 0);
    CHECK(stage.server->all->end == PW_CONN_FAILED);
    CHECK(stage.server->all->output.first == NULL);
    CHECK_INT(send_part(call_data, LITERAL("more")), PW_GONE);
    CHECK_INT(actor_call(serving[0], call_finish), AT_SLEEP);
    cast_settle();
    CHECK_INT(stage.server->conn_count, 0);
    CHECK_INT(watcher->at, AT_TICK); /* a client that disconnects is no incident */
    stage_close();
}

static void nothing_is_gathered_while_the_server_stops(void)
{
    begin();
    test_client client = begin_stream();
    size_t before = got(&client);
    stage.server->stopped = true;
    CHECK_INT(send_part(call_data, LITERAL("second")), 0);
    CHECK(got(&client) > before);
    stage.server->stopped = false;
    end_stream(&client);
    stage_close();
}

/* ------------------------------------------------------------------ pipelined requests */

static void begin_pipeline(test_client *client, int count)
{
    begin();
    *client = site_connect(&stage);
    for (int i = 0; i < count; i++)
        SEND(client, GET("/"));
    cast_settle();
    CHECK(has_request(serving[0]));
}

static int count_answers(test_client *client)
{
    int count = 0;
    client_receive(client);
    for (size_t i = 0; i + 9 < client->got.size; i++)
        count += memcmp(client->got.at + i, "HTTP/1.1 ", 9) == 0;
    return count;
}

static void responses_to_pipelined_requests_leave_together(void)
{
    test_client client;
    begin_pipeline(&client, 3);
    CHECK_INT(respond(serving[0], "1"), AT_HOME);
    CHECK_INT(count_answers(&client), 0);
    CHECK_INT(respond(serving[0], "2"), AT_HOME);
    CHECK_INT(count_answers(&client), 0);
    CHECK_INT(respond(serving[0], "3"), AT_POLL);
    CHECK_INT(count_answers(&client), 3);
    client_close(&client);
    stage_close();
}

static void a_response_leaves_when_the_next_request_takes_long(void)
{
    test_client client;
    begin_pipeline(&client, 2);
    CHECK_INT(respond(serving[0], "1"), AT_HOME);
    ticks(1);
    CHECK_INT(count_answers(&client), 0);
    ticks(1); /* the watcher takes the token, and sends the holder's output */
    CHECK_INT(count_answers(&client), 1);
    respond(serving[0], "2");
    CHECK_INT(count_answers(&client), 2);
    client_close(&client);
    stage_close();
}

static void a_response_leaves_before_the_watcher_is_away(void)
{
    test_client client;
    settings = site_settings();
    begin_with(2);
    client = site_connect(&stage);
    SEND(&client, GET("/") GET("/"));
    cast_settle();
    CHECK_INT(respond(serving[0], "1"), AT_HOME);
    CHECK_INT(count_answers(&client), 0);
    pw_incident_lost(stage.server); /* something for Python */
    cast_settle();
    CHECK_INT(watcher->at, AT_HOME);
    CHECK_INT(watcher->result, PW_WATCH_INCIDENT);
    CHECK_INT(count_answers(&client), 1);
    CHECK(!stage.server->watch.is_here);
    respond(serving[0], "2");
    CHECK_INT(count_answers(&client), 2);
    client_close(&client);
    stage_close();
}

static void responses_do_not_wait_without_the_watcher(void)
{
    test_client client;
    settings = site_settings();
    settings.threads = 1;
    stage_open(&settings);
    actor_call(serving[0], call_next);
    client = site_connect(&stage);
    SEND(&client, GET("/") GET("/"));
    cast_settle();
    CHECK_INT(respond(serving[0], "1"), AT_HOME);
    CHECK_INT(count_answers(&client), 1);
    respond(serving[0], "2");
    client_close(&client);
    actor_call(watcher, call_watch);
    stage_close();
}

static void a_large_response_does_not_wait(void)
{
    static char body[PW_COPY_MOST + 1];
    size_t head = sizeof(OK("", "16300")) - 1;
    for (int more = 0; more < 2; more++) {
        test_client client;
        begin_pipeline(&client, 2);
        memset(body, 'b', sizeof body);
        body[PW_COPY_MOST - head + (size_t)more] = '\0';
        CHECK_INT(respond(serving[0], body), AT_HOME);
        CHECK_INT(count_answers(&client), more);
        CHECK_INT(respond(serving[0], "2"), AT_POLL);
        CHECK_INT(count_answers(&client), 2);
        client_close(&client);
        stage_close();
    }
}

static void responses_wait_up_to_16_kib_in_all(void)
{
    static char body[WAITING_MOST];
    size_t head = sizeof(OK("", "8100")) - 1;
    for (int more = 0; more < 2; more++) {
        test_client client;
        begin_pipeline(&client, 3);
        memset(body, 'b', sizeof body);
        body[WAITING_MOST / 2 - head] = '\0';
        CHECK_INT(respond(serving[0], body), AT_HOME);
        CHECK_INT(count_answers(&client), 0);
        body[WAITING_MOST / 2 - head] = 'b';
        body[WAITING_MOST / 2 - head + (size_t)more] = '\0';
        CHECK_INT(respond(serving[0], body), AT_HOME);
        CHECK_INT(count_answers(&client), 2 * more);
        respond(serving[0], "3");
        CHECK_INT(count_answers(&client), 3);
        client_close(&client);
        stage_close();
    }
}

static void a_last_response_does_not_wait(void)
{
    test_client client;
    begin_pipeline(&client, 2);
    serving[0]->head = HEAD_OK;
    serving[0]->body = "1";
    serving[0]->flags = PW_CLOSE;
    CHECK_INT(actor_call(serving[0], call_respond), AT_POLL);
    CHECK_INT(count_answers(&client), 1);
    client_close(&client);
    stage_close();
}

static void responses_leave_before_content_that_has_not_arrived(void)
{
    test_client client;
    begin();
    client = site_connect(&stage);
    SEND(&client, GET("/") "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12");
    cast_settle();
    CHECK_INT(respond(serving[0], "1"), AT_POLL);
    CHECK_INT(count_answers(&client), 1);
    SEND(&client, "345" GET("/"));
    cast_settle();
    CHECK_INT(respond(serving[0], "2"), AT_HOME);
    SEND(&client, "GET / HT");
    CHECK_INT(respond(serving[0], "3"), AT_POLL);
    CHECK_INT(count_answers(&client), 3);
    client_close(&client);
    stage_close();
}

static void a_response_leaves_before_half_a_request(void)
{
    test_client client;
    begin();
    client = site_connect(&stage);
    SEND(&client, GET("/") "GET / HT");
    cast_settle();
    CHECK_INT(respond(serving[0], "1"), AT_POLL);
    CHECK_INT(count_answers(&client), 1);
    client_close(&client);
    stage_close();
}

static void a_health_response_waits_for_the_next_one_only_while_the_watcher_is_here(void)
{
    for (int here = 0; here < 2; here++) {
        test_client client;
        settings = site_settings();
        settings.health_path = "/health";
        settings.threads = 1;
        stage_open(&settings);
        if (here)
            actor_call(watcher, call_watch);
        actor_call(serving[0], call_next);
        client = site_connect(&stage);
        SEND(&client, GET("/health") GET("/"));
        cast_settle();
        CHECK(has_request(serving[0]));
        CHECK_INT(count_answers(&client), here ? 0 : 1);
        respond(serving[0], "1");
        CHECK_INT(count_answers(&client), 2);
        client_close(&client);
        if (!here)
            actor_call(watcher, call_watch);
        stage_close();
    }
}

static void a_response_leaves_before_a_request_waits_for_a_thread(void)
{
    test_client client, first = {.fd = -1};
    settings = site_settings();
    settings.health_path = "/health";
    begin_with(1);
    first = ask("/slow");
    cast_settle();
    ticks(3);
    CHECK_INT(watcher->at, AT_POLL);
    client = site_connect(&stage);
    SEND(&client, GET("/health") GET("/"));
    cast_settle();
    CHECK(stage.server->ready.first != NULL);
    CHECK_INT(count_answers(&client), 1);
    respond(serving[0], "slow");
    CHECK_PATH(serving[0], "/");
    respond(serving[0], "1");
    CHECK_INT(count_answers(&client), 2);
    client_close(&client);
    client_close(&first);
    stage_close();
}

int main(void)
{
    memset(large, 'l', sizeof large);
    RUN(parts_of_one_tick_leave_together_in_the_next);
    RUN(the_first_part_of_a_response_leaves_at_once_in_any_tick);
    RUN(gathered_parts_leave_with_the_end);
    RUN(no_more_than_16_kib_are_gathered);
    RUN(a_client_that_reads_nothing_is_tried_again_16_ticks_later);
    RUN(the_watcher_that_runs_the_loop_sends_parts_every_20_ms);
    RUN(a_kept_part_wakes_a_sleeping_watcher);
    RUN(a_client_that_resets_while_parts_are_kept_ends_its_response);
    RUN(nothing_is_gathered_while_the_server_stops);
    RUN(responses_to_pipelined_requests_leave_together);
    RUN(a_response_leaves_when_the_next_request_takes_long);
    RUN(a_response_leaves_before_the_watcher_is_away);
    RUN(responses_do_not_wait_without_the_watcher);
    RUN(a_large_response_does_not_wait);
    RUN(responses_wait_up_to_16_kib_in_all);
    RUN(a_last_response_does_not_wait);
    RUN(responses_leave_before_content_that_has_not_arrived);
    RUN(a_response_leaves_before_half_a_request);
    RUN(a_health_response_waits_for_the_next_one_only_while_the_watcher_is_here);
    RUN(a_response_leaves_before_a_request_waits_for_a_thread);
    return check_end();
}
