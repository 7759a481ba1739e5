/* csrc/meter.c and csrc/metrics_page.c: counters in shared memory, and the page of their sums. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "meter.h"
#include "metrics_page.h"
#include "process.h"

enum { METERS = 2048 };

static pw_metrics *metrics;
static pw_text page;

static void begin(void)
{
    metrics = pw_metrics_map(-1);
    REQUIRE(metrics != NULL);
}

static void end(void)
{
    pw_metrics_free(metrics);
    free(page.at);
    page = (pw_text){NULL, 0, 0};
}

static pw_meter *join(void)
{
    pw_meter *meter = pw_meter_join(metrics);
    REQUIRE(meter != NULL);
    return meter;
}

/* The page as a string. */
static const char *read_page(void)
{
    page.size = 0;
    REQUIRE(pw_text_room(&page, PW_PAGE_MOST));
    pw_metrics_page(metrics, "version=\"1\"", 1500, &page);
    CHECK(page.size < PW_PAGE_MOST);
    pw_text_put(&page, "", 1);
    return page.at;
}

static void check_line(const char *line)
{
    char whole[200];
    snprintf(whole, sizeof whole, "\n%s\n", line);
    ABOUT("%s", line);
    CHECK(strstr(read_page(), whole) != NULL);
    ABOUT("%s", "");
}

/* ------------------------------------------------------------------ histograms and methods */

static void a_value_is_in_the_bucket_with_the_next_larger_bound(void)
{
    static const struct {
        int64_t value;
        int bucket;
    } cases[] = {
        {-5, 0},       {0, 0},         {1, 0},         {500, 0},       {501, 1},
        {1000, 1},     {1001, 2},      {2500, 2},      {2501, 3},      {5000, 3},
        {10000, 4},    {10001, 5},     {25000, 5},     {50000, 6},     {100000, 7},
        {250000, 8},   {500000, 9},    {1000000, 10},  {2500000, 11},  {5000000, 12},
        {5000001, 13}, {10000000, 13}, {30000000, 14}, {30000001, 15}, {INT64_MAX / 2, 15}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static pw_histogram histogram;
        memset(&histogram, 0, sizeof histogram);
        pw_histogram_add(&histogram, cases[i].value);
        ABOUT("%lld us", (long long)cases[i].value);
        for (int k = 0; k <= PW_BOUNDS; k++)
            CHECK_INT(pw_count_of(&histogram.buckets[k]), k == cases[i].bucket);
        CHECK_INT(pw_count_of(&histogram.sum), cases[i].value > 0 ? cases[i].value : 0);
    }
    ABOUT("%s", "");
}

static void only_known_methods_have_a_number(void)
{
    static const struct {
        const char *line;
        pw_method method;
    } cases[] = {{"GET / HTTP/1.1", PW_METHOD_GET},
                 {"HEAD / ", PW_METHOD_HEAD},
                 {"POST / ", PW_METHOD_POST},
                 {"PUT / ", PW_METHOD_PUT},
                 {"PATCH / ", PW_METHOD_PATCH},
                 {"DELETE / ", PW_METHOD_DELETE},
                 {"OPTIONS * ", PW_METHOD_OPTIONS},
                 {"GETS / ", PW_METHOD_OTHER},
                 {"get / ", PW_METHOD_OTHER},
                 {"GET", PW_METHOD_OTHER},
                 {"GE", PW_METHOD_OTHER},
                 {"", PW_METHOD_OTHER},
                 {"PROPFIND / ", PW_METHOD_OTHER},
                 {"PUTS / ", PW_METHOD_OTHER},
                 {"other / HTTP/1.1", PW_METHOD_OTHER},
                 {" GET / ", PW_METHOD_OTHER}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t size = strlen(cases[i].line);
        char *exact = malloc(size + 1); /* so that a sanitizer notices a read beyond the line */
        memcpy(exact, cases[i].line, size);
        char *line = realloc(exact, size > 0 ? size : 1);
        ABOUT("%s", cases[i].line);
        CHECK_INT(pw_method_of(line, size), cases[i].method);
        free(line);
    }
    ABOUT("%s", "");
}

/* ------------------------------------------------------------------ meters */

static void a_meter_keeps_its_counters_for_the_next_server(void)
{
    begin();
    pw_meter *meter = join();
    CHECK_INT(pw_count_of(&meter->process), getpid());
    pw_count(&meter->sent, 7);
    pw_histogram_add(&meter->queue, 1);
    pw_count_set(&meter->busy, 3);
    pw_count_set(&meter->connections, 4);
    pw_count_set(&meter->idle, 1);
    pw_count_set(&meter->threads, 5);
    pw_count_set(&meter->waiting, 6);
    check_line("picowsgi_threads_busy 3");
    check_line("picowsgi_connections{state=\"active\"} 3");
    pw_meter_leave(meter);
    check_line("picowsgi_threads_busy 0");
    check_line("picowsgi_sent_bytes_total 7");
    CHECK(join() == meter);
    pw_count(&meter->sent, 1);
    check_line("picowsgi_sent_bytes_total 8");
    check_line("picowsgi_queue_seconds_count 1");
    check_line("picowsgi_threads_busy 0");
    check_line("picowsgi_threads 0");
    check_line("picowsgi_queue_length 0");
    check_line("picowsgi_connections{state=\"active\"} 0");
    check_line("picowsgi_connections{state=\"idle\"} 0");
    pw_meter *other = join();
    CHECK(other != meter);
    pw_count(&other->sent, 10);
    check_line("picowsgi_sent_bytes_total 18");
    check_line("picowsgi_workers 1"); /* both servers are in this process */
    end();
}

static void a_server_without_a_free_meter_is_not_counted(void)
{
    begin();
    for (int i = 0; i < METERS; i++)
        CHECK_INT(pw_metrics_used(metrics), i), pw_count(&join()->received, 1);
    CHECK(pw_meter_join(metrics) == NULL);
    check_line("picowsgi_received_bytes_total 2048");
    check_line("picowsgi_workers 1");
    pw_meter_leave(pw_metrics_meter(metrics, 1000));
    CHECK(pw_meter_join(metrics) == pw_metrics_meter(metrics, 1000));
    end();
}

/* Runs a child that counts, and waits until it has begun to sleep. */
static pid_t count_in_child(void)
{
    int ready[2];
    REQUIRE(pipe(ready) == 0);
    pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        pw_meter *meter = pw_meter_join(metrics);
        pw_count(&meter->accepted, 5);
        pw_count_set(&meter->busy, 1);
        while (clock() < CLOCKS_PER_SEC / 20)
            continue;
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    char byte;
    REQUIRE(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void what_a_killed_process_has_counted_stays(void)
{
    begin();
    int64_t cpu = 0;
    for (int i = 1; i <= 3; i++) {
        pid_t child = count_in_child();
        check_line("picowsgi_workers 1");
        check_line("picowsgi_threads_busy 1");
        kill(child, SIGKILL);
        siginfo_t unused;
        REQUIRE(waitid(P_PID, (id_t)child, &unused, WEXITED | WNOWAIT) == 0);
        pw_metrics_retire(metrics, child);
        CHECK_INT(waitpid(child, NULL, 0), child);
        CHECK_INT(pw_metrics_used(metrics), 1); /* the next child gets the same meter */
        char line[80];
        snprintf(line, sizeof line, "picowsgi_connections_accepted_total %d", 5 * i);
        check_line(line);
        check_line("picowsgi_workers 0");
        check_line("picowsgi_threads_busy 0");
        pw_process facts;
        if (pw_process_look((int32_t)getpid(), &facts)) {
            CHECK(pw_metrics_ended_cpu(metrics) >= cpu + 30000);
            cpu = pw_metrics_ended_cpu(metrics);
            pw_metrics_retire(metrics, child);
            pw_metrics_retire(metrics, (int32_t)getpid()); /* it has no meter */
            CHECK_INT(pw_metrics_ended_cpu(metrics), cpu);
        }
    }
    end();
}

static void the_page_retires_a_process_that_its_parent_has_not(void)
{
    begin();
    pid_t child = count_in_child();
    kill(child, SIGKILL);
    CHECK_INT(waitpid(child, NULL, 0), child);
    CHECK_INT(pw_count_of(&pw_metrics_meter(metrics, 0)->process), child);
    check_line("picowsgi_workers 0");
    CHECK_INT(pw_count_of(&pw_metrics_meter(metrics, 0)->process), 0);
    check_line("picowsgi_connections_accepted_total 5");
    end();
}

static void the_cpu_time_on_the_page_never_decreases(void)
{
    begin();
    CHECK_INT(pw_metrics_show_cpu(metrics, 10), 10);
    CHECK_INT(pw_metrics_show_cpu(metrics, 7), 10);
    CHECK_INT(pw_metrics_show_cpu(metrics, 11), 11);
    CHECK_INT(pw_metrics_show_cpu(metrics, 0), 11);
    end();
}

/* ------------------------------------------------------------------ the memory */

static int make_file(int64_t size)
{
    char name[] = "/tmp/picowsgi-meter-XXXXXX";
    int file = mkstemp(name);
    REQUIRE(file >= 0 && unlink(name) == 0 && ftruncate(file, (off_t)size) == 0);
    return file;
}

static void processes_that_map_the_same_file_share_the_counters(void)
{
    int file = make_file(pw_metrics_size());
    metrics = pw_metrics_map(file);
    pw_metrics *other = pw_metrics_map(file);
    REQUIRE(metrics != NULL && other != NULL && metrics != other);
    pw_count(&join()->sent, 9);
    CHECK_INT(pw_count_of(&pw_metrics_meter(other, 0)->sent), 9);
    CHECK_INT(pw_metrics_used(other), 1);
    pw_metrics_free(other);
    close(file);
    check_line("picowsgi_sent_bytes_total 9");
    end();
}

static void memory_of_another_layout_is_refused(void)
{
    static const int64_t wrong[] = {0, 1, -1};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        int file = make_file(wrong[i] == 0 ? 0 : pw_metrics_size() + wrong[i]);
        errno = 0;
        CHECK(pw_metrics_map(file) == NULL);
        CHECK_INT(errno, EINVAL);
        close(file);
    }
    int file = make_file(pw_metrics_size());
    const int64_t layout = 1;
    REQUIRE(pwrite(file, &layout, sizeof layout, 0) == sizeof layout);
    errno = 0;
    CHECK(pw_metrics_map(file) == NULL);
    CHECK_INT(errno, EINVAL);
    close(file);
    errno = 0;
    CHECK(pw_metrics_map(file) == NULL); /* it is closed */
    CHECK_INT(errno, EBADF);
}

/* ------------------------------------------------------------------ the page */

static void the_page_has_the_sums_of_all_meters(void)
{
    begin();
    pw_meter *meters[] = {join(), join()};
    for (int i = 0; i < 2; i++) {
        pw_meter *meter = meters[i];
        pw_count(&meter->requests[PW_METHOD_GET][1], 100 + i);
        pw_count(&meter->requests[PW_METHOD_OPTIONS][4], 2);
        pw_count(&meter->requests[PW_METHOD_OTHER][0], 3);
        pw_histogram_add(&meter->duration, 400);
        pw_histogram_add(&meter->duration, 2400000);
        pw_histogram_add(&meter->duration, 31000000);
        pw_count(&meter->received, 11);
        pw_count(&meter->accepted, 12);
        pw_count(&meter->lost_lines, 13);
        pw_count(&meter->refused[PW_E_LENGTH_AND_CODING], 14);
        pw_count(&meter->refused[PW_E_STORAGE], 15);
        pw_count_set(&meter->connections, 10);
        pw_count_set(&meter->idle, 12); /* the reader may see an older number of connections */
    }
    check_line("picowsgi_requests_total{method=\"GET\",status=\"2xx\"} 201");
    check_line("picowsgi_requests_total{method=\"OPTIONS\",status=\"5xx\"} 4");
    check_line("picowsgi_requests_total{method=\"other\",status=\"1xx\"} 6");
    check_line("picowsgi_requests_total{method=\"HEAD\",status=\"2xx\"} 0");
    check_line("picowsgi_request_duration_seconds_bucket{le=\"0.0005\"} 2");
    check_line("picowsgi_request_duration_seconds_bucket{le=\"1\"} 2");
    check_line("picowsgi_request_duration_seconds_bucket{le=\"2.5\"} 4");
    check_line("picowsgi_request_duration_seconds_bucket{le=\"30\"} 4");
    check_line("picowsgi_request_duration_seconds_bucket{le=\"+Inf\"} 6");
    check_line("picowsgi_request_duration_seconds_sum 66.8008");
    check_line("picowsgi_request_duration_seconds_count 6");
    check_line("picowsgi_received_bytes_total 22");
    check_line("picowsgi_connections_accepted_total 24");
    check_line("picowsgi_dropped_log_lines_total 26");
    check_line("picowsgi_refused_total{reason=\"length_and_coding\"} 28");
    check_line("picowsgi_refused_total{reason=\"storage\"} 30");
    check_line("picowsgi_connections{state=\"idle\"} 20");
    check_line("picowsgi_connections{state=\"active\"} 0");
    check_line("process_start_time_seconds 1.5");
    check_line("picowsgi_info{version=\"1\"} 1");
    end();
}

static void restarts_are_counted_by_reason(void)
{
    static const char *const reasons[] = {"exit",   "signal",   "timeout",
                                          "memory", "requests", "reload"};
    begin();
    for (int reason = -1; reason <= PW_RESTART_REASONS; reason++)
        for (int i = 0; i <= reason; i++)
            pw_metrics_restart(metrics, reason);
    for (int reason = 0; reason < PW_RESTART_REASONS; reason++) {
        char line[80];
        snprintf(line, sizeof line, "picowsgi_worker_restarts_total{reason=\"%s\"} %d",
                 reasons[reason], reason + 1);
        check_line(line);
    }
    end();
}

static void the_largest_numbers_have_room(void)
{
    begin();
    pw_meter *meter = join();
    int64_t process = pw_count_of(&meter->process);
    pw_counter *all = (pw_counter *)meter;
    for (size_t i = 0; i < sizeof *meter / sizeof *all; i++)
        pw_count_set(&all[i], INT64_MAX / 32); /* their sums do not overflow */
    pw_count_set(&meter->process, process);
    CHECK(strlen(read_page()) < PW_PAGE_MOST - PW_INFO_MOST);
    end();
}

int main(void)
{
    RUN(a_value_is_in_the_bucket_with_the_next_larger_bound);
    RUN(only_known_methods_have_a_number);
    RUN(a_meter_keeps_its_counters_for_the_next_server);
    RUN(a_server_without_a_free_meter_is_not_counted);
    RUN(what_a_killed_process_has_counted_stays);
    RUN(the_page_retires_a_process_that_its_parent_has_not);
    RUN(the_cpu_time_on_the_page_never_decreases);
    RUN(processes_that_map_the_same_file_share_the_counters);
    RUN(memory_of_another_layout_is_refused);
    RUN(the_page_has_the_sums_of_all_meters);
    RUN(restarts_are_counted_by_reason);
    RUN(the_largest_numbers_have_room);
    return check_end();
}
