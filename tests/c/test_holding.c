/* A stream that is made faster than its client reads: bytes wait in
 * memory, then in a file; then the thread waits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "audit.h"
#include "stage.h"

enum { PART = 100000, WRITE_MS = 5000 };

static pw_settings settings;
static test_client client;
static char large[1 << 20];
static const char *data = large;
static int64_t data_size = PART;
static int64_t written; /* bytes of content handed over */

static int64_t call_data(actor *self)
{
    return pw_send_data(self->thread, pw_thread_exchange(self->thread), data, data_size, 0);
}

static int64_t call_first(actor *self)
{
    return pw_send_first(self->thread, pw_thread_exchange(self->thread), LITERAL(HEAD_OK), 64 << 20,
                         0, "", 0, 0);
}

static int64_t call_cut(actor *self)
{
    return pw_finish(self->thread, 1);
}

static void begin(int64_t buffer, int64_t spool, int64_t spool_total)
{
    settings = site_settings();
    settings.threads = 1;
    settings.response_buffer = buffer;
    settings.response_spool = spool;
    settings.response_spool_total = spool_total;
    settings.timeout_write = WRITE_MS;
    stage_open(&settings);
    stage_begin();
    client = ask("/stream");
    cast_settle();
    CHECK_INT(actor_call(serving[0], call_first), AT_HOME);
    written = 0;
}

static void end(void)
{
    if (serving[0]->at == AT_CLIENT) {
        pw_server_stop(stage.server, PW_END);
        actor_go(serving[0]);
    }
    if (has_request(serving[0]))
        actor_call(serving[0], call_cut);
    client_close(&client);
    ticks(3);
    stage_close();
}

/* Sends parts until the thread has to wait. False: it never does. */
static bool fill(int most)
{
    for (int i = 0; i < most; i++) {
        actor_place place = actor_call(serving[0], call_data);
        written += data_size;
        if (place == AT_CLIENT)
            return true;
        REQUIRE(place == AT_HOME && serving[0]->result == 0);
    }
    return false;
}

static pw_incident last_incident(void)
{
    pw_incident incident = {0};
    while (pw_incident_take(stage.server, &incident))
        continue;
    return incident;
}

static void a_thread_waits_for_its_client_only_beyond_the_buffer(void)
{
    begin(300000, 0, 0);
    REQUIRE(fill(100));
    const pw_conn *conn = stage.server->all;
    CHECK(conn->output.size > 300000 && conn->output.size <= 300000 + PART);
    CHECK_INT(stage.server->threads.held, 1);
    CHECK(serving[0]->thread->held);
    client_receive(&client);
    actor_go(serving[0]);
    CHECK_INT(serving[0]->at, AT_HOME);
    CHECK_INT(serving[0]->result, 0);
    CHECK(conn->output.size <= 300000);
    CHECK_INT(conn->output.borrowed, 0); /* the bytes are copied */
    CHECK_INT(stage.server->threads.held, 0);
    CHECK(!serving[0]->thread->held);
    audit(stage.server);
    end();
}

static void a_slow_client_gets_all_bytes_in_order(void)
{
    begin(300000, 1000000, 10000000);
    for (size_t i = 0; i < sizeof large; i++)
        large[i] = (char)('a' + i % 23 + i / 1000 % 3);
    for (int i = 0; i < 40; i++) {
        data = large + i * 1000;
        actor_call(serving[0], call_data);
        written += data_size;
        while (serving[0]->at == AT_CLIENT) {
            client_receive(&client);
            actor_go(serving[0]);
        }
        CHECK_INT(serving[0]->result, 0);
    }
    audit(stage.server);
    actor_call(serving[0], call_cut);
    for (int i = 0; i < 200 && !client.ended; i++) {
        client_receive(&client);
        ticks(1);
    }
    const char *content = memmem(client.got.at, client.got.size, "\r\n\r\n", 4);
    REQUIRE(content != NULL);
    content += 4;
    CHECK_INT(client.got.at + client.got.size - content, written);
    for (int i = 0; i < 40; i++)
        CHECK(memcmp(content + (size_t)i * PART, large + i * 1000, PART) == 0);
    data = large;
    CHECK_INT(atomic_load(&stage.server->store.spooled), 0);
    end();
}

static void beyond_the_buffer_the_file_is_used_and_then_the_thread_waits(void)
{
    begin(300000, 1000000, 1u << 30);
    const pw_conn *conn = stage.server->all;
    REQUIRE(fill(100));
    CHECK(conn->output.spool_size > 900000 && conn->output.spool_size <= 1000000);
    CHECK_INT(conn->output.spool_size % PART, 0);
    CHECK_INT(atomic_load(&stage.server->store.spooled), conn->output.spool_size);
    CHECK(conn->output.size > 1200000);
    end();
}

static void the_files_of_all_responses_have_a_limit_too(void)
{
    begin(300000, 1000000, 500000);
    const pw_conn *conn = stage.server->all;
    REQUIRE(fill(100));
    CHECK_INT(conn->output.spool_size, 500000);
    CHECK_INT(atomic_load(&stage.server->store.spooled), 500000);
    end();
}

static void a_file_that_is_empty_again_is_used_from_its_beginning(void)
{
    begin(300000, 1000000, 1u << 30);
    const pw_conn *conn = stage.server->all;
    for (int i = 0; i < 100 && conn->output.spool_size == 0; i++)
        REQUIRE(actor_call(serving[0], call_data) == AT_HOME);
    CHECK(conn->output.spool_size > 0);
    for (int i = 0; i < 200 && conn->output.first != NULL; i++) {
        client_receive(&client);
        ticks(1);
    }
    CHECK_INT(conn->output.size, 0);
    CHECK_INT(conn->output.spool_size, 0);
    CHECK_INT(atomic_load(&stage.server->store.spooled), 0);
    CHECK(conn->output.store != NULL); /* the file is open until the end of the response */
    for (int i = 0; i < 100 && conn->output.spool_size == 0; i++)
        REQUIRE(actor_call(serving[0], call_data) == AT_HOME);
    const pw_piece *last = conn->output.last;
    CHECK(last->spooled && last->offset == 0);
    audit(stage.server);
    end();
}

static void a_client_that_reads_nothing_ends_its_response_after_the_timeout(void)
{
    begin(300000, 0, 0);
    REQUIRE(fill(100));
    clock_forward_ms(WRITE_MS - 5);
    CHECK_INT(actor_go(serving[0]), AT_CLIENT);
    clock_forward_ms(6);
    CHECK_INT(actor_go(serving[0]), AT_HOME);
    CHECK_INT(serving[0]->result, PW_GONE);
    CHECK_INT(stage.server->threads.held, 0);
    CHECK(stage.server->all->end == PW_CONN_FAILED && pw_conn_resets(stage.server->all));
    pw_incident incident = last_incident();
    CHECK_INT(incident.what, PW_INCIDENT_WRITE_TIMEOUT);
    CHECK(strcmp(incident.line, "GET /stream") == 0);
    CHECK(incident.unsent > 300000);
    CHECK_INT(actor_call(serving[0], call_data), AT_HOME);
    CHECK_INT(serving[0]->result, PW_GONE);
    CHECK_INT(last_incident().what, 0); /* reported once */
    end();
}

static void progress_restarts_the_timeout(void)
{
    char part[20000];
    begin(300000, 0, 0);
    REQUIRE(fill(100));
    for (int i = 0; i < 4; i++) {
        clock_forward_ms(WRITE_MS - 10);
        CHECK(recv(client.fd, part, sizeof part, 0) > 0);
        CHECK_INT(actor_go(serving[0]), AT_CLIENT);
    }
    clock_forward_ms(WRITE_MS - 10);
    CHECK_INT(actor_go(serving[0]), AT_CLIENT);
    clock_forward_ms(WRITE_MS);
    CHECK_INT(actor_go(serving[0]), AT_HOME);
    CHECK_INT(serving[0]->result, PW_GONE);
    end();
}

static void a_stop_that_does_not_wait_frees_the_thread(void)
{
    begin(300000, 0, 0);
    REQUIRE(fill(100));
    pw_server_stop(stage.server, PW_DRAIN); /* it would wait for an hour */
    CHECK_INT(actor_go(serving[0]), AT_CLIENT);
    pw_server_stop(stage.server, PW_END);
    CHECK_INT(actor_go(serving[0]), AT_HOME);
    CHECK_INT(serving[0]->result, PW_GONE);
    CHECK_INT(last_incident().what, PW_INCIDENT_STOP);
    end();
}

static void a_client_that_disconnects_frees_the_thread(void)
{
    begin(300000, 0, 0);
    REQUIRE(fill(100));
    client_close(&client);
    client.fd = -1;
    CHECK_INT(actor_go(serving[0]), AT_HOME);
    CHECK_INT(serving[0]->result, PW_GONE);
    CHECK_INT(last_incident().what, 0); /* a client that disconnects is no incident */
    CHECK_INT(stage.server->threads.held, 0);
    end();
}

static void a_part_after_a_late_stop_is_not_sent(void)
{
    begin(300000, 0, 0);
    pw_server_stop(stage.server, PW_END);
    CHECK_INT(actor_call(serving[0], call_data), AT_HOME);
    CHECK_INT(serving[0]->result, PW_GONE);
    CHECK_INT(last_incident().what, PW_INCIDENT_STOP);
    end();
}

static void a_part_without_bytes_changes_nothing(void)
{
    begin(300000, 0, 0);
    data_size = 0;
    CHECK_INT(actor_call(serving[0], call_data), AT_HOME);
    CHECK_INT(serving[0]->result, 0);
    CHECK_INT(stage.server->all->response.bytes, 0);
    data_size = PART;
    end();
}

int main(void)
{
    RUN(a_thread_waits_for_its_client_only_beyond_the_buffer);
    RUN(a_slow_client_gets_all_bytes_in_order);
    RUN(beyond_the_buffer_the_file_is_used_and_then_the_thread_waits);
    RUN(the_files_of_all_responses_have_a_limit_too);
    RUN(a_file_that_is_empty_again_is_used_from_its_beginning);
    RUN(a_client_that_reads_nothing_ends_its_response_after_the_timeout);
    RUN(progress_restarts_the_timeout);
    RUN(a_stop_that_does_not_wait_frees_the_thread);
    RUN(a_client_that_disconnects_frees_the_thread);
    RUN(a_part_after_a_late_stop_is_not_sent);
    RUN(a_part_without_bytes_changes_nothing);
    return check_end();
}
