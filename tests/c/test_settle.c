/* Calls of a thread that also does other work: pw_next_within, pw_settle, pw_server_wake. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "stage.h"

enum { WAIT_MS = 500 };

static char large[4 << 20];
static int32_t timeout_ms;

static int64_t call_within(actor *self)
{
    return pw_next_within(self->thread, timeout_ms);
}

static int64_t call_settle(actor *self)
{
    return pw_settle(self->thread, timeout_ms);
}

static int64_t call_respond_and_return(actor *self)
{
    return pw_respond(self->thread, LITERAL(HEAD_OK), large, sizeof large, PW_RETURN);
}

static void begin(void)
{
    pw_settings settings = site_settings();
    settings.response_buffer = 16 << 20;
    settings.threads = 2;
    memset(large, 'l', sizeof large);
    stage_open(&settings); /* without a watcher: no thread calls pw_watch */
}

static void end(void)
{
    actor_call(watcher, call_watch);
    stage_close();
}

static actor_place within(int32_t ms)
{
    timeout_ms = ms;
    actor_place place = actor_call(serving[0], call_within);
    audit(stage.server);
    return place;
}

static actor_place settle(int32_t ms)
{
    timeout_ms = ms;
    actor_place place = actor_call(serving[0], call_settle);
    audit(stage.server);
    return place;
}

static bool is_readable(void)
{
    struct pollfd asked = {.fd = pw_server_descriptor(stage.server), .events = POLLIN};
    return poll(&asked, 1, 0) > 0;
}

static void a_wait_has_its_time_and_no_longer(void)
{
    begin();
    CHECK_INT(within(0), AT_HOME);
    CHECK_INT(serving[0]->result, PW_IDLE);
    CHECK_INT(within(WAIT_MS), AT_POLL);
    CHECK_INT(serving[0]->due, pw_now() + WAIT_MS);
    clock_forward_ms(WAIT_MS);
    cast_settle();
    CHECK_INT(serving[0]->at, AT_HOME);
    CHECK_INT(serving[0]->result, PW_IDLE);
    CHECK_INT(serving[0]->thread->timeout_ms, -1);
    CHECK_INT(actor_call(serving[0], call_next), AT_POLL);
    CHECK(serving[0]->due < 0 || serving[0]->due > pw_now() + WAIT_MS);
    end();
}

static void a_wait_ends_with_a_request_or_a_wake_up(void)
{
    begin();
    CHECK_INT(within(WAIT_MS), AT_POLL);
    test_client client = ask("/a");
    for (int i = 0; i < 5 && serving[0]->at != AT_HOME; i++)
        cast_settle();
    while (serving[0]->at == AT_HOME && !has_request(serving[0]))
        within(0);
    CHECK_PATH(serving[0], "/a");
    respond(serving[0], "a");
    CHECK_INT(serving[0]->at, AT_POLL); /* pw_respond waits without a limit */
    check_answer(&client, "\r\n\r\na");
    pw_thread_nudge(serving[0]->thread);
    cast_settle();
    CHECK_INT(serving[0]->at, AT_HOME);
    CHECK_INT(within(WAIT_MS), AT_POLL);
    pw_server_wake(stage.server);
    cast_settle();
    CHECK_INT(serving[0]->at, AT_HOME);
    CHECK_INT(serving[0]->result, PW_IDLE);
    end();
}

/* A response that the client has not read completely. */
static test_client begin_unsent(void)
{
    begin();
    CHECK_INT(actor_call(serving[0], call_next), AT_POLL);
    test_client client = ask("/large");
    cast_settle();
    CHECK_INT(actor_call(serving[0], call_respond_and_return), AT_HOME);
    CHECK_INT(serving[0]->result, PW_IDLE);
    return client;
}

static void unsent_bytes_are_counted_and_sent(void)
{
    test_client client = begin_unsent();
    CHECK_INT(settle(0), AT_HOME);
    CHECK_INT(serving[0]->result, 1);
    CHECK_INT(stage.server->watch.thread->timeout_ms, -1);
    client_receive(&client);
    size_t before = client.got.size;
    CHECK_INT(settle(WAIT_MS), AT_POLL);
    client_receive(&client);
    CHECK(client.got.size > before); /* it sends without waiting first */
    CHECK(stage.server->token.holder == stage.server->watch.thread);
    CHECK_INT(serving[0]->due, pw_now() + WAIT_MS);
    clock_forward_ms(WAIT_MS);
    cast_settle();
    CHECK_INT(serving[0]->at, AT_HOME);
    CHECK_INT(serving[0]->result, 1);
    for (int i = 0; i < 200 && serving[0]->result > 0; i++) {
        client_receive(&client);
        settle(0);
    }
    CHECK_INT(serving[0]->result, 0);
    client_receive(&client);
    CHECK(client.got.size > sizeof large);
    CHECK(stage.server->token.holder == NULL);
    client_close(&client);
    end();
}

static void a_request_that_arrives_meanwhile_is_kept_and_keeps_the_descriptor_readable(void)
{
    test_client client = begin_unsent();
    test_client other = ask("/other");
    for (int i = 0; i < 3; i++)
        CHECK_INT(settle(0), AT_HOME);
    CHECK(stage.server->ready.first != NULL);
    CHECK_INT(stage.server->threads.taken, 0);
    CHECK(is_readable());
    CHECK_INT(within(0), AT_HOME);
    CHECK_PATH(serving[0], "/other");
    respond(serving[0], "other");
    check_answer(&other, "\r\n\r\nother");
    client_close(&client);
    end();
}

static void a_stopped_server_has_no_unsent_bytes(void)
{
    test_client client = begin_unsent();
    pw_server_stop(stage.server, PW_END);
    CHECK_INT(settle(WAIT_MS), AT_HOME);
    CHECK_INT(serving[0]->result, 0);
    CHECK_INT(settle(WAIT_MS), AT_HOME);
    CHECK_INT(serving[0]->result, 0);
    client_close(&client);
    end();
}

static void settle_abandons_the_current_request(void)
{
    begin();
    CHECK_INT(actor_call(serving[0], call_next), AT_POLL);
    test_client client = ask("/a");
    cast_settle();
    CHECK(has_request(serving[0]));
    CHECK_INT(settle(0), AT_HOME);
    CHECK(!has_request(serving[0]));
    CHECK_INT(stage.server->threads.taken, 0);
    client_receive(&client);
    CHECK(client.ended);
    client_close(&client);
    end();
}

static void without_a_watcher_the_token_is_yielded_to_a_waiting_thread(void)
{
    begin();
    CHECK_INT(actor_call(serving[0], call_next), AT_POLL);
    actor *second = stage_start(1);
    stage.server->threads.count++;
    CHECK_INT(actor_call(second, call_next), AT_SLEEP);
    test_client client = ask("/a");
    cast_settle(); /* no tick has passed */
    CHECK(has_request(serving[0]));
    CHECK_INT(second->at, AT_POLL);
    respond(serving[0], "a");
    check_answer(&client, "\r\n\r\na");
    end();
}

int main(void)
{
    RUN(a_wait_has_its_time_and_no_longer);
    RUN(a_wait_ends_with_a_request_or_a_wake_up);
    RUN(unsent_bytes_are_counted_and_sent);
    RUN(a_request_that_arrives_meanwhile_is_kept_and_keeps_the_descriptor_readable);
    RUN(a_stopped_server_has_no_unsent_bytes);
    RUN(settle_abandons_the_current_request);
    RUN(without_a_watcher_the_token_is_yielded_to_a_waiting_thread);
    return check_end();
}
