/* What a server counts for --metrics: csrc/gauges.c and the places that call it. */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit.h"
#include "gauges.h"
#include "stage.h"
#include "thread.h"

static test_site site;
static pw_settings settings;
static pw_meter *meter;

static void begin(int32_t access_file)
{
    settings = site_settings();
    settings.metrics = pw_metrics_map(-1);
    REQUIRE(settings.metrics != NULL);
    if (access_file >= 0)
        site_log(&settings, access_file);
    settings.max_body_size = 1000;
    settings.health_path = "/health";
    site_open(&site, &settings, AF_UNIX);
    meter = site.server->meter;
    REQUIRE(meter == pw_metrics_meter(settings.metrics, 0));
}

static void end(void)
{
    site_close(&site);
    CHECK_INT(pw_count_of(&meter->process), 0); /* the next server may have the meter */
    pw_metrics_free(settings.metrics);
}

static int64_t requests(pw_method method, int class)
{
    return pw_count_of(&meter->requests[method][class - 1]);
}

static int64_t sum_of_buckets(const pw_histogram *histogram)
{
    int64_t sum = 0;
    for (int i = 0; i <= PW_BOUNDS; i++)
        sum += pw_count_of(&histogram->buckets[i]);
    return sum;
}

static void a_server_without_the_option_has_no_meter(void)
{
    settings = site_settings();
    site_open(&site, &settings, AF_UNIX);
    CHECK(site.server->meter == NULL && !site.server->is_timed);
    site_close(&site);
}

static void a_request_its_response_and_their_bytes_are_counted(void)
{
    begin(-1);
    test_client client = site_connect(&site);
    CHECK_INT(pw_count_of(&meter->accepted), 0);
    SEND(&client, GET("/"));
    site_request(&site);
    CHECK_INT(pw_count_of(&meter->accepted), 1);
    CHECK_INT(sum_of_buckets(&meter->queue), 1);
    CHECK_INT(pw_count_of(&meter->received), sizeof GET("/") - 1);
    CHECK_INT(requests(PW_METHOD_GET, 2), 0);
    site_respond(&site, "ok", 2, 0);
    CHECK_INT(requests(PW_METHOD_GET, 2), 1);
    CHECK_INT(sum_of_buckets(&meter->duration), 1);
    client_receive(&client);
    CHECK_INT(pw_count_of(&meter->sent), client.got.size);
    CHECK_INT(pw_count_of(&meter->connections), 1);
    CHECK_INT(pw_count_of(&meter->idle), 1);
    CHECK_INT(pw_count_of(&meter->threads), 1);
    SEND(&client, "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n"
                  "DELETE / HTTP/1.1\r\nHost: a\r\n\r\nPUT");
    site_request(&site);
    site_see(&site, site_answer(&site, "HTTP/1.1 404 N\r\n", "", 0, 0));
    CHECK_INT(site_answer(&site, "HTTP/1.1 404 N\r\n", "", 0, 0), SITE_WAITS);
    CHECK_INT(requests(PW_METHOD_DELETE, 4), 2);
    CHECK_INT(pw_count_of(&meter->connections), 1);
    CHECK_INT(pw_count_of(&meter->idle), 0); /* it has sent the beginning of a request */
    client_close(&client);
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(pw_count_of(&meter->connections), 0);
    end();
}

static void a_response_in_parts_is_counted_once_at_its_end(void)
{
    begin(-1);
    test_client client = site_connect(&site);
    SEND(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab");
    site_request(&site);
    site_send_first(&site, "HTTP/1.1 503 S\r\n", -1, "x", 1, 0);
    CHECK_INT(requests(PW_METHOD_POST, 5), 0);
    client_receive(&client);
    CHECK_INT(pw_count_of(&meter->sent), client.got.size);
    site_send(&site, "y", 1, 0);
    site_finish(&site, false);
    CHECK_INT(requests(PW_METHOD_POST, 5), 1);
    CHECK_INT(sum_of_buckets(&meter->duration), 1);
    client_receive(&client);
    CHECK_INT(pw_count_of(&meter->sent), client.got.size);
    client_close(&client);
    end();
}

static void an_abandoned_request_is_an_error_of_the_server(void)
{
    begin(-1);
    test_client client = site_connect(&site);
    SEND(&client, GET("/"));
    site_request(&site);
    CHECK_INT(site_next(&site), SITE_WAITS); /* pw_next without a response */
    CHECK_INT(requests(PW_METHOD_GET, 5), 1);
    CHECK_INT(sum_of_buckets(&meter->duration), 1);
    client_close(&client);
    end();
}

static void refused_requests_and_health_checks_are_not_answered_by_the_application(void)
{
    begin(-1);
    test_client client = site_connect(&site);
    SEND(&client, GET("/health"));
    CHECK_INT(site_next(&site), SITE_WAITS);
    SEND(&client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n");
    CHECK_INT(site_next(&site), SITE_WAITS);
    CHECK_INT(pw_count_of(&meter->refused[PW_E_BODY_SIZE]), 1);
    CHECK_INT(sum_of_buckets(&meter->duration) + sum_of_buckets(&meter->queue), 0);
    client_receive(&client);
    CHECK_HOLDS(&client.got, "HTTP/1.1 413");
    CHECK_INT(pw_count_of(&meter->sent), client.got.size);
    client_close(&client);
    end();
}

static void dropped_lines_of_the_access_log_are_counted(void)
{
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    close(ends[0]);
    begin(ends[1]);
    test_client client = site_connect(&site);
    SEND(&client, GET("/"));
    CHECK_INT(site_serve(&site), 1);
    CHECK_INT(pw_count_of(&meter->lost_lines), 0);
    CHECK_INT(pw_server_log_end(site.server, 0, 0), 1);
    CHECK_INT(pw_count_of(&meter->lost_lines), 1);
    client_close(&client);
    end();
    close(ends[1]);
}

static void a_server_may_outlive_the_handle_of_the_memory(void)
{
    begin(-1);
    pw_metrics_free(settings.metrics);
    test_client client = site_connect(&site);
    SEND(&client, GET("/"));
    CHECK_INT(site_serve(&site), 1);
    CHECK_INT(requests(PW_METHOD_GET, 2), 1);
    client_close(&client);
    site_close(&site);
}

static void a_forked_child_counts_nothing(void)
{
    begin(-1);
    pw_server_hold(site.server);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        pw_server_forked(site.server);
        bool counts = site.server->meter != NULL;
        pw_thread_free(site.thread);
        pw_server_free(site.server);
        _exit(counts);
    }
    int status = -1;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK_INT(status, 0);
    pw_server_unhold(site.server);
    CHECK_INT(pw_count_of(&meter->process), getpid());
    end();
}

/* ------------------------------------------------------------------ with several threads */

static void begin_stage(int32_t threads)
{
    settings = site_settings();
    settings.metrics = pw_metrics_map(-1);
    settings.threads = threads;
    settings.timeout_queue = 60000;
    stage_open(&settings);
    meter = stage.server->meter;
    stage_begin();
}

static void end_stage(void)
{
    stage_close();
    pw_metrics_free(settings.metrics);
}

static void check_gauges(int busy, int waiting)
{
    CHECK_INT(pw_count_of(&meter->busy), busy);
    CHECK_INT(pw_count_of(&meter->waiting), waiting);
}

static void busy_threads_and_waiting_requests_are_current_while_all_threads_are_stuck(void)
{
    begin_stage(1);
    check_gauges(0, 0);
    test_client slow = ask("/slow");
    cast_settle();
    ticks(3);
    check_gauges(1, 0);
    test_client others[3];
    for (int i = 0; i < 3; i++) {
        others[i] = ask("/other");
        cast_settle();
        check_gauges(1, i + 1);
        CHECK_INT(pw_count_of(&meter->connections), i + 2);
        CHECK_INT(pw_count_of(&meter->idle), 0);
        audit(stage.server);
    }
    CHECK_INT(pw_count_of(&meter->received), sizeof GET("/slow") + 3 * sizeof GET("/other") - 4);
    clock_forward_ms(400);
    respond(serving[0], "slow");
    check_gauges(1, 2); /* it has taken the next one */
    CHECK_INT(pw_count_of(&meter->queue.sum), 400000);
    CHECK(pw_count_of(&meter->duration.sum) >= 400000);
    for (int i = 0; i < 3; i++)
        respond(serving[0], "other");
    ticks(2);
    check_gauges(0, 0);
    CHECK_INT(sum_of_buckets(&meter->queue), 4);
    CHECK_INT(sum_of_buckets(&meter->duration), 4);
    client_close(&slow);
    for (int i = 0; i < 3; i++)
        client_close(&others[i]);
    end_stage();
}

static void a_request_that_waits_too_long_is_refused_and_waits_no_more(void)
{
    begin_stage(1);
    test_client slow = ask("/slow");
    cast_settle();
    ticks(3);
    test_client other = ask("/other");
    cast_settle();
    check_gauges(1, 1);
    clock_forward_ms(60010);
    cast_settle();
    ticks(1);
    cast_settle();
    CHECK_INT(pw_count_of(&meter->refused[PW_E_QUEUE]), 1);
    check_gauges(1, 0);
    for (pw_incident incident; pw_incident_take(stage.server, &incident);)
        continue;
    respond(serving[0], "slow");
    client_close(&slow);
    client_close(&other);
    end_stage();
}

static void a_thread_that_returns_while_another_one_waits_for_events_is_not_busy(void)
{
    begin_stage(2);
    test_client slow = ask("/slow");
    cast_settle();
    ticks(3);
    stage_start_wanted(1);
    cast_settle();
    ticks(60); /* the watcher sleeps */
    check_gauges(1, 0);
    CHECK_INT(watcher->at, AT_SLEEP);
    respond(serving[0], "slow");
    check_gauges(0, 0);
    CHECK_INT(pw_count_of(&meter->idle), 1);
    client_close(&slow);
    cast_settle();
    CHECK_INT(pw_count_of(&meter->connections), 0);
    end_stage();
}

int main(void)
{
    RUN(a_server_without_the_option_has_no_meter);
    RUN(a_request_its_response_and_their_bytes_are_counted);
    RUN(a_response_in_parts_is_counted_once_at_its_end);
    RUN(an_abandoned_request_is_an_error_of_the_server);
    RUN(refused_requests_and_health_checks_are_not_answered_by_the_application);
    RUN(dropped_lines_of_the_access_log_are_counted);
    RUN(a_server_may_outlive_the_handle_of_the_memory);
    RUN(a_forked_child_counts_nothing);
    RUN(busy_threads_and_waiting_requests_are_current_while_all_threads_are_stuck);
    RUN(a_request_that_waits_too_long_is_refused_and_waits_no_more);
    RUN(a_thread_that_returns_while_another_one_waits_for_events_is_not_busy);
    return check_end();
}
