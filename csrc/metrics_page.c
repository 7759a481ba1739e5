/*
 * The page of the metrics, in the text format 0.0.4 of Prometheus: the sums over all meters. The reader
 * takes no lock, and every label is a constant of the core: none comes from a client.
 */
#include <string.h>

#include "meter.h"
#include "metrics_page.h"
#include "process.h"

#define PW_PROCESSES_MOST 2048 /* as many as there are meters */

/* What is summed for the processes that serve. */
typedef struct {
    pw_metrics *metrics;
    pw_text *to;
    int64_t workers;
    int64_t connections, idle, threads, busy, waiting;
    int64_t resident, cpu;
    bool has_facts; /* the system says something about processes */
} pw_page;

/* ------------------------------------------------------------------ text */

static void put_string(pw_text *to, const char *string)
{
    pw_text_put(to, string, strlen(string));
}

/* The number with as few decimals as it needs: 0.0005, 2.5, 10. */
static void put_seconds(pw_text *to, int64_t microseconds)
{
    char fraction[7] = ".000000";
    int64_t rest = microseconds % 1000000;
    size_t size = rest != 0 ? sizeof fraction : 0;
    for (size_t i = sizeof fraction - 1; i > 0; i--, rest /= 10)
        fraction[i] = (char)('0' + rest % 10);
    while (size > 0 && fraction[size - 1] == '0')
        size--;
    pw_text_number(to, microseconds / 1000000);
    pw_text_put(to, fraction, size);
}

static void put_family(pw_text *to, const char *name, const char *type, const char *help)
{
    put_string(to, "# HELP ");
    put_string(to, name);
    put_string(to, " ");
    put_string(to, help);
    put_string(to, "\n# TYPE ");
    put_string(to, name);
    put_string(to, " ");
    put_string(to, type);
    put_string(to, "\n");
}

static void put_sample(pw_text *to, const char *name, const char *labels, int64_t value)
{
    put_string(to, name);
    put_string(to, labels);
    put_string(to, " ");
    pw_text_number(to, value);
    put_string(to, "\n");
}

/* A family with one sample. */
static void put_one(pw_text *to, const char *name, const char *type, const char *help,
                    int64_t value)
{
    put_family(to, name, type, help);
    put_sample(to, name, "", value);
}

/* NAME{reason="TEXT"} VALUE, with the text in lower case. */
static void put_reason(pw_text *to, const char *name, const char *reason, int64_t value)
{
    put_string(to, name);
    put_string(to, "{reason=\"");
    for (const char *at = reason; *at != '\0'; at++) {
        char c = *at >= 'A' && *at <= 'Z' ? (char)(*at | 32) : *at;
        pw_text_put(to, &c, 1);
    }
    put_sample(to, "\"}", "", value);
}

/* ------------------------------------------------------------------ sums over all meters */

/* The sum of one counter of all meters, also of those whose process has ended. */
static int64_t total(const pw_page *page, size_t offset)
{
    int64_t sum = 0;
    int used = pw_metrics_used(page->metrics);
    for (int i = 0; i < used; i++) {
        const char *meter = (const char *)pw_metrics_meter(page->metrics, i);
        sum += pw_count_of((const pw_counter *)(const void *)(meter + offset));
    }
    return sum;
}

#define TOTAL(page, member) total((page), offsetof(pw_meter, member))

static void put_requests(const pw_page *page)
{
    static const char *const methods[] = {
#define PW_METHOD_TEXT(name) #name,
        PW_METHODS(PW_METHOD_TEXT)
#undef PW_METHOD_TEXT
            "other",
    };
    static const char name[] = "picowsgi_requests_total";
    put_family(page->to, name, "counter", "Requests that the application has answered.");
    for (size_t method = 0; method < PW_METHOD_COUNT; method++)
        for (size_t class = 0; class < PW_CLASSES; class++) {
            size_t number = method * PW_CLASSES + class;
            const char status[] = {(char)('1' + class), 'x', 'x', '\0'};
            put_string(page->to, name);
            put_string(page->to, "{method=\"");
            put_string(page->to, methods[method]);
            put_string(page->to, "\",status=\"");
            put_string(page->to, status);
            put_sample(page->to, "\"}", "",
                       total(page, offsetof(pw_meter, requests) + number * sizeof(pw_counter)));
        }
}

static void put_histogram(const pw_page *page, const char *name, const char *help, size_t offset)
{
    pw_text *to = page->to;
    int64_t count = 0;
    put_family(to, name, "histogram", help);
    for (size_t i = 0; i <= PW_BOUNDS; i++) {
        count += total(page, offset + offsetof(pw_histogram, buckets) + i * sizeof(pw_counter));
        put_string(to, name);
        put_string(to, "_bucket{le=\"");
        if (i < PW_BOUNDS)
            put_seconds(to, pw_bounds[i]);
        else
            put_string(to, "+Inf");
        put_sample(to, "\"}", "", count);
    }
    put_string(to, name);
    put_string(to, "_sum ");
    put_seconds(to, total(page, offset + offsetof(pw_histogram, sum)));
    put_string(to, "\n");
    put_string(to, name);
    put_sample(to, "_count", "", count);
}

static void put_refusals(const pw_page *page)
{
    static const char name[] = "picowsgi_refused_total";
    put_family(page->to, name, "counter",
               "Requests that the server has refused without the application.");
#define PW_PUT_REFUSED(reason, status, text)                                                       \
    put_reason(page->to, name, #reason, TOTAL(page, refused[PW_E_##reason]));
    PW_ERRORS(PW_PUT_REFUSED)
#undef PW_PUT_REFUSED
}

static void put_restarts(const pw_page *page)
{
    static const char *const reasons[PW_RESTART_REASONS] = {
        [PW_RESTART_EXIT] = "exit",         [PW_RESTART_SIGNAL] = "signal",
        [PW_RESTART_TIMEOUT] = "timeout",   [PW_RESTART_MEMORY] = "memory",
        [PW_RESTART_REQUESTS] = "requests", [PW_RESTART_RELOAD] = "reload",
    };
    static const char name[] = "picowsgi_worker_restarts_total";
    put_family(page->to, name, "counter", "Workers that were replaced.");
    for (int i = 0; i < PW_RESTART_REASONS; i++)
        put_reason(page->to, name, reasons[i], pw_metrics_restarts(page->metrics, i));
}

/* ------------------------------------------------------------------ the processes that serve */

static void add_gauges(pw_page *page, const pw_meter *meter)
{
    int64_t connections = pw_count_of(&meter->connections), idle = pw_count_of(&meter->idle);
    page->connections += connections;
    page->idle += idle < connections ? idle : connections; /* the two were not read at once */
    page->threads += pw_count_of(&meter->threads);
    page->busy += pw_count_of(&meter->busy);
    page->waiting += pw_count_of(&meter->waiting);
}

static bool is_known(const int32_t *processes, int64_t count, int32_t process)
{
    for (int64_t i = 0; i < count; i++)
        if (processes[i] == process)
            return true;
    return false;
}

/* Sums what lives. Retires the meters of a process that has ended without its parent's notice. */
static void add_living(pw_page *page)
{
    int32_t processes[PW_PROCESSES_MOST];
    int used = pw_metrics_used(page->metrics);
    for (int i = 0; i < used; i++) {
        const pw_meter *meter = pw_metrics_meter(page->metrics, i);
        int32_t process = (int32_t)atomic_load(&meter->process);
        if (process <= 0)
            continue;
        if (!is_known(processes, page->workers, process)) {
            if (!pw_process_exists(process)) {
                pw_metrics_retire(page->metrics, process);
                continue;
            }
            pw_process facts;
            if (pw_process_look(process, &facts)) {
                page->has_facts = true;
                page->resident += facts.resident;
                page->cpu += facts.cpu;
            }
            if (page->workers < PW_PROCESSES_MOST)
                processes[page->workers++] = process;
        }
        add_gauges(page, meter);
    }
}

static void put_gauges(const pw_page *page)
{
    static const char connections[] = "picowsgi_connections";
    pw_text *to = page->to;
    put_family(to, connections, "gauge", "Open connections; an idle one has no request.");
    put_sample(to, connections, "{state=\"idle\"}", page->idle);
    put_sample(to, connections, "{state=\"active\"}", page->connections - page->idle);
    put_one(to, "picowsgi_threads", "gauge", "Threads that may serve requests.", page->threads);
    put_one(to, "picowsgi_threads_busy", "gauge", "Threads that have a request.", page->busy);
    put_one(to, "picowsgi_queue_length", "gauge", "Complete requests that wait for a thread.",
            page->waiting);
    put_one(to, "picowsgi_workers", "gauge", "Processes that serve.", page->workers);
}

static void put_processes(const pw_page *page, int64_t ended_cpu, int64_t started)
{
    static const char cpu[] = "process_cpu_seconds_total", start[] = "process_start_time_seconds";
    pw_text *to = page->to;
    if (page->has_facts) {
        put_one(to, "process_resident_memory_bytes", "gauge",
                "Memory of the processes that serve, in RAM.", page->resident);
        put_family(to, cpu, "counter", "CPU time of the processes that serve or have served.");
        put_string(to, cpu);
        put_string(to, " ");
        put_seconds(to, pw_metrics_show_cpu(page->metrics, ended_cpu + page->cpu));
        put_string(to, "\n");
    }
    put_family(to, start, "gauge", "Time at which the server was started, in seconds since 1970.");
    put_string(to, start);
    put_string(to, " ");
    put_seconds(to, started * 1000);
    put_string(to, "\n");
}

void pw_metrics_page(pw_metrics *metrics, const char *info, int64_t started, pw_text *to)
{
    static const char about[] = "picowsgi_info";
    pw_page page = {.metrics = metrics, .to = to};
    int64_t ended_cpu = pw_metrics_ended_cpu(metrics);
    add_living(&page);
    put_requests(&page);
    put_histogram(&page, "picowsgi_request_duration_seconds",
                  "Time from the arrival of a request's head to the end of its response.",
                  offsetof(pw_meter, duration));
    put_histogram(&page, "picowsgi_queue_seconds",
                  "Time from the arrival of a whole request to the call of the application.",
                  offsetof(pw_meter, queue));
    put_one(to, "picowsgi_received_bytes_total", "counter", "Bytes received from clients.",
            TOTAL(&page, received));
    put_one(to, "picowsgi_sent_bytes_total", "counter", "Bytes sent to clients.",
            TOTAL(&page, sent));
    put_one(to, "picowsgi_connections_accepted_total", "counter", "Connections accepted.",
            TOTAL(&page, accepted));
    put_one(to, "picowsgi_proxy_headers_refused_total", "counter",
            "Connections closed because of their PROXY header.", TOTAL(&page, refused_proxies));
    put_gauges(&page);
    put_refusals(&page);
    put_restarts(&page);
    put_one(to, "picowsgi_dropped_log_lines_total", "counter",
            "Lines of the access log that were dropped.", TOTAL(&page, lost_lines));
    put_processes(&page, ended_cpu, started);
    put_family(to, about, "gauge", "Versions of the server and of Python, and the poller.");
    put_string(to, about);
    put_string(to, "{");
    put_string(to, info);
    put_sample(to, "}", "", 1);
}
