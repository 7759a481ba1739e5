/* Complete requests that wait for a thread: for how long, in which order, and what may end them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "conn_close.h"
#include "conn_wait.h"
#include "stage.h"
#include "system.h"
#include "timer.h"

enum { QUEUE_MS = 1000 };

static pw_settings settings;
static test_client slow; /* its request has the only thread */

static void begin_with(int32_t timeout_queue)
{
    settings = site_settings();
    settings.threads = 1;
    settings.timeout_queue = timeout_queue;
    stage_open(&settings);
    stage_begin();
    slow = ask("/slow");
    cast_settle();
    ticks(3);
    CHECK_INT(watcher->at, AT_POLL);
}

static void end(void)
{
    client_close(&slow);
    stage_close();
}

/* Runs until the watcher has the loop again; the test takes the incidents. */
static void pass(int64_t ms)
{
    clock_forward_ms(ms);
    cast_settle();
    for (int i = 0; i < 8 && watcher->at != AT_POLL; i++) {
        if (watcher->at == AT_HOME)
            actor_call(watcher, call_watch);
        ticks(1);
    }
    cast_settle();
    audit(stage.server);
}

static bool is_refused(test_client *client)
{
    client_receive(client);
    return client->got.size > 0 && memmem(client->got.at, client->got.size, "503", 3) != NULL;
}

static int count_incidents(int32_t what)
{
    int count = 0;
    for (pw_incident incident; pw_incident_take(stage.server, &incident);)
        count += incident.what == what;
    return count;
}

static void a_request_waits_for_a_thread_for_its_time(void)
{
    begin_with(QUEUE_MS);
    test_client one = ask("/1");
    pass(0);
    pass(QUEUE_MS / 2);
    test_client two = ask("/2");
    pass(0);
    CHECK_INT(count_incidents(PW_INCIDENT_QUEUE), 0);
    clock_forward_ms(QUEUE_MS / 2 - 10);
    cast_settle();
    CHECK(!is_refused(&one));
    clock_forward_ms(20);
    cast_settle();
    CHECK(is_refused(&one));
    CHECK_HOLDS(&one.got, "Retry-After: 1\r\n");
    CHECK_INT(count_incidents(PW_INCIDENT_QUEUE), 1);
    pass(0);
    CHECK(!is_refused(&two));
    CHECK(stage.server->ready.first != NULL);
    clock_forward_ms(QUEUE_MS / 2 + 20);
    cast_settle();
    CHECK(is_refused(&two));
    CHECK_INT(count_incidents(PW_INCIDENT_QUEUE), 0); /* the watcher reported one a moment ago */
    CHECK(stage.server->ready.first == NULL);
    client_close(&one);
    client_close(&two);
    respond(serving[0], "slow");
    end();
}

static void without_a_limit_a_request_waits_as_long_as_it_must(void)
{
    begin_with(0);
    test_client one = ask("/1");
    pass(0);
    for (int i = 0; i < 50; i++)
        pass(60000);
    CHECK(!is_refused(&one));
    respond(serving[0], "slow");
    CHECK_PATH(serving[0], "/1");
    respond(serving[0], "1");
    check_answer(&one, "\r\n\r\n1");
    end();
}

/* A client whose connection the poller knows, because it waited before its request. */
static test_client ask_later(const char *request)
{
    test_client client = site_connect(&stage);
    pass(0);
    client_send(&client, request, strlen(request));
    pass(0);
    return client;
}

static void a_client_that_resets_while_its_request_waits_is_not_served(void)
{
    if (!PW_LINUX) /* kqueue(2) reports the end of one side only */
        return;
    begin_with(0);
    test_client one = ask_later(GET("/1")), two = ask_later(GET("/2"));
    CHECK_INT(stage.server->conn_count, 3);
    client_close(&one);
    pass(0);
    respond(serving[0], "slow");
    CHECK_PATH(serving[0], "/2");
    CHECK_INT(stage.server->conn_count, 2);
    respond(serving[0], "2");
    check_answer(&two, "\r\n\r\n2");
    end();
}

static void a_connection_that_closes_while_its_request_waits_is_skipped(void)
{
    begin_with(0);
    test_client one = ask("/1"), two = ask("/2");
    pass(0);
    pw_conn *first = stage.server->ready.first;
    pw_conn_close(stage.server, first);
    audit(stage.server);
    respond(serving[0], "slow");
    CHECK_PATH(serving[0], "/2");
    respond(serving[0], "2");
    check_answer(&two, "\r\n\r\n2");
    client_close(&one);
    end();
}

static void the_thread_that_has_the_loop_skips_closed_connections(void)
{
    if (!PW_LINUX) /* kqueue(2) reports the end of one side only */
        return;
    begin_with(0);
    test_client one = ask_later(GET("/1")), two = ask_later(GET("/2"));
    test_client three = ask_later(GET("/3"));
    client_close(&one);
    pass(0);
    pw_conn *second = stage.server->ready.first->run_next;
    pw_conn_close(stage.server, second);
    /* The watcher leaves the token free; then the thread takes it before it looks. */
    stage.server->token.holder = NULL;
    respond(serving[0], "slow");
    for (int i = 0; i < 5 && !has_request(serving[0]); i++)
        cast_settle();
    CHECK_PATH(serving[0], "/3");
    stage.server->token.holder = stage.server->watch.thread;
    stage.server->token.is_out = false;
    respond(serving[0], "3");
    check_answer(&three, "\r\n\r\n3");
    client_close(&two);
    end();
}

static void requests_that_wait_count_towards_the_memory_for_heads(void)
{
    begin_with(0);
    stage.server->head_memory = 100;
    test_client one = ask("/1");
    pass(0);
    CHECK(is_refused(&one));
    CHECK(stage.server->ready.first == NULL);
    CHECK_INT(stage.server->pool.held, 0);
    client_close(&one);
    stage.server->head_memory = 1 << 20;
    respond(serving[0], "slow");
    end();
}

/* The request is in the application while the timer of its connection expires. */
static void a_timer_that_still_runs_ends_no_request(void)
{
    settings = site_settings();
    settings.threads = 1;
    settings.timeout_keep_alive = 100;
    stage_open(&settings);
    stage_begin();
    test_client client = site_connect(&stage);
    cast_settle();
    SEND(&client, GET("/1"));
    cast_settle();
    CHECK_PATH(serving[0], "/1");
    CHECK_INT(stage.server->all->timer.kind, PW_TIMER_KEEP_ALIVE);
    ticks(3);
    pass(200);
    CHECK_INT(stage.server->all->timer.kind, PW_TIMER_NONE);
    CHECK_INT(stage.server->all->state, PW_CONN_APP);
    respond(serving[0], "1");
    check_answer(&client, "\r\n\r\n1");
    stage_close();
}

static void a_request_that_arrives_when_the_timer_expires_is_served(void)
{
    settings = site_settings();
    settings.threads = 1;
    stage_open(&settings);
    stage_begin();
    test_client client = site_connect(&stage);
    cast_settle();
    SEND(&client, GET("/1"));
    pw_conn *conn = stage.server->all;
    pw_conn_timeout(stage.server, conn); /* before the poller reports it */
    CHECK_INT(conn->timer.kind, PW_TIMER_NONE);
    CHECK((conn->what & PW_READABLE) != 0 && conn->queued);
    cast_settle();
    CHECK_PATH(serving[0], "/1");
    respond(serving[0], "1");
    check_answer(&client, "\r\n\r\n1");
    stage_close();
}

int main(void)
{
    RUN(a_request_waits_for_a_thread_for_its_time);
    RUN(without_a_limit_a_request_waits_as_long_as_it_must);
    RUN(a_client_that_resets_while_its_request_waits_is_not_served);
    RUN(a_connection_that_closes_while_its_request_waits_is_skipped);
    RUN(the_thread_that_has_the_loop_skips_closed_connections);
    RUN(requests_that_wait_count_towards_the_memory_for_heads);
    RUN(a_timer_that_still_runs_ends_no_request);
    RUN(a_request_that_arrives_when_the_timer_expires_is_served);
    return check_end();
}
